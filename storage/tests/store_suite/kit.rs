//! What the suite needs of every backend.

use std::sync::Arc;

use codec::{GroupKey, Message, TenantId, UserId, UserKey};
use storage::Admin as _;
use storage::admin::{AdminError, NewGroup, NewUser};
use storage::sqlite::Options;
use storage::{Caps, DeadReason, MemoryStore, Row, SqliteStore, Store};
use tempfile::TempDir;

/// A store under test and the operator's side of it.
pub(crate) trait Backend: Sized {
    fn open(caps: Caps, age_max_ms: Option<u64>) -> Self;
    /// One whose groups have at most so many members.
    fn with_members_max(members_max: u32) -> Self;
    fn store(&mut self) -> &mut dyn Store;
    /// Ends the process that has it open and starts another.
    fn restart(self) -> Self;
    fn add_user(&mut self, user: UserKey, name: &[u8], password_hash: &str) -> bool;
    fn set_phone(&mut self, user: UserKey, phone: &str) -> bool;
    fn set_members(&mut self, group: GroupKey, members: &[UserId]);
    /// Of a group without members.
    fn set_group_name(&mut self, group: GroupKey, name: &[u8]) -> bool;
    fn add_tenant(&mut self, org: &str, appkey: &str) -> TenantId;
    /// User, seq, reason, message; by user and seq.
    fn dead_letters(&mut self) -> Vec<(UserKey, u64, String, Arc<Message>)>;
    fn requeue(&mut self, user: UserKey, seq: u64) -> bool;
    fn drop_dead(&mut self, user: UserKey, seq: u64) -> bool;
}

impl Backend for MemoryStore {
    fn open(caps: Caps, age_max_ms: Option<u64>) -> Self {
        Self::new(caps, age_max_ms)
    }

    fn with_members_max(members_max: u32) -> Self {
        Self::default().with_members_max(members_max)
    }

    fn store(&mut self) -> &mut dyn Store {
        self
    }

    fn restart(self) -> Self {
        self.handle()
    }

    fn add_user(&mut self, user: UserKey, name: &[u8], password_hash: &str) -> bool {
        Self::add_user(self, user, name, password_hash)
    }

    fn set_members(&mut self, group: GroupKey, members: &[UserId]) {
        Self::set_members(self, group, members);
    }

    fn set_phone(&mut self, user: UserKey, phone: &str) -> bool {
        Self::set_phone(self, user, phone.as_bytes())
    }

    fn set_group_name(&mut self, group: GroupKey, name: &[u8]) -> bool {
        Self::set_group_name(self, group, name)
    }

    fn add_tenant(&mut self, org: &str, appkey: &str) -> TenantId {
        *self = self.handle().with_tenant(TenantId(7), org.as_bytes(), appkey.as_bytes());
        TenantId(7)
    }

    fn dead_letters(&mut self) -> Vec<(UserKey, u64, String, Arc<Message>)> {
        let letter = |(user, row, reason): (UserKey, Row, DeadReason)| {
            (user, row.seq, reason.label().to_owned(), row.message)
        };
        Self::dead_letters(self).into_iter().map(letter).collect()
    }

    fn requeue(&mut self, user: UserKey, seq: u64) -> bool {
        Self::requeue(self, user, seq)
    }

    fn drop_dead(&mut self, user: UserKey, seq: u64) -> bool {
        Self::drop_dead(self, user, seq)
    }
}

/// A file in a directory of its own, open in the "gateway"; the operator's changes come through a
/// second handle, as from another process.
pub(crate) struct Embedded {
    pub(crate) dir: TempDir,
    pub(crate) options: Options,
    gateway: Option<SqliteStore>,
}

impl Embedded {
    pub(crate) fn with(options: Options) -> Self {
        let dir = TempDir::new().unwrap();
        let mut embedded = Self { dir, options, gateway: None };
        embedded.gateway = Some(embedded.handle());
        embedded
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store.db")
    }

    /// Another handle on the file.
    pub(crate) fn handle(&self) -> SqliteStore {
        SqliteStore::open(&self.path(), self.options.clone()).unwrap()
    }

    pub(crate) fn gateway(&mut self) -> &mut SqliteStore {
        self.gateway.as_mut().unwrap()
    }

    /// One number from the tables.
    pub(crate) fn sql(&self, sql: &str) -> i64 {
        let conn = rusqlite::Connection::open(self.path()).unwrap();
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn dead_id(&self, user: UserKey, seq: u64) -> Option<i64> {
        let letters = self.handle().dead_letters(0, u32::MAX).unwrap();
        letters.iter().find(|d| (d.user, d.seq) == (user, seq)).map(|d| d.id)
    }
}

impl Backend for Embedded {
    fn open(caps: Caps, age_max_ms: Option<u64>) -> Self {
        Self::with(Options { caps, age_max_ms, ..Options::default() })
    }

    fn with_members_max(members_max: u32) -> Self {
        Self::with(Options { group_members_max: members_max, ..Options::default() })
    }

    fn store(&mut self) -> &mut dyn Store {
        self.gateway()
    }

    fn restart(mut self) -> Self {
        self.gateway = None;
        self.gateway = Some(self.handle());
        self
    }

    fn add_user(&mut self, key: UserKey, name: &[u8], password_hash: &str) -> bool {
        let password_hash = password_hash.to_owned();
        let user = NewUser { key, name: name.into(), password_hash, phone: None };
        match self.handle().add_user(user) {
            Ok(()) => true,
            Err(AdminError::IdTaken(_) | AdminError::NameTaken(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn set_members(&mut self, group: GroupKey, members: &[UserId]) {
        let mut operator = self.handle();
        let _ = operator.delete_group(group);
        let members = members.to_vec();
        operator.create_group(&NewGroup { key: group, members, ..NewGroup::default() }).unwrap();
    }

    fn set_phone(&mut self, user: UserKey, phone: &str) -> bool {
        let conn = rusqlite::Connection::open(self.path()).unwrap();
        let sql = "UPDATE users SET phone = ?3 WHERE tenant = ?1 AND id = ?2";
        conn.execute(sql, (user.tenant.0, user.id.0, phone)).is_ok_and(|changed| changed == 1)
    }

    fn set_group_name(&mut self, key: GroupKey, name: &[u8]) -> bool {
        let mut operator = self.handle();
        let _ = operator.delete_group(key);
        let name = Some(name.into());
        match operator.create_group(&NewGroup { key, name, ..NewGroup::default() }) {
            Ok(()) => true,
            Err(AdminError::GroupNameTaken(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn add_tenant(&mut self, org: &str, appkey: &str) -> TenantId {
        self.handle().tenant_id(org, appkey).unwrap()
    }

    fn dead_letters(&mut self) -> Vec<(UserKey, u64, String, Arc<Message>)> {
        let letters = self.handle().dead_letters(0, u32::MAX).unwrap();
        let letter = |d: storage::admin::DeadLetter| (d.user, d.seq, d.reason, d.message.unwrap());
        let mut letters: Vec<_> = letters.into_iter().map(letter).collect();
        letters.sort_by_key(|(user, seq, ..)| (*user, *seq));
        letters
    }

    fn requeue(&mut self, user: UserKey, seq: u64) -> bool {
        self.dead_id(user, seq).is_some_and(|id| self.handle().requeue(&[id]).is_ok())
    }

    fn drop_dead(&mut self, user: UserKey, seq: u64) -> bool {
        self.dead_id(user, seq).is_some_and(|id| self.handle().drop_dead_letters(&[id]).is_ok())
    }
}
