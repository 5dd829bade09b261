//! The store in memory: the reference that the other backends are compared with, and a store for
//! tests.
//!
//! Owns: rows, dead letters, users, groups and tokens, as plainly as possible, for as long as a
//! handle is there. Never: a file, a clock, a thread. Handles on one store see each other's
//! changes, and a handle hears of those by [`Store::changed`], as with the embedded one.

mod accounts;
mod roster;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codec::{Answer, GroupId, GroupKey, Message, Query, Target, TenantId, UserId, UserKey};

pub use accounts::MemoryAccounts;

use crate::accounts::{PreContact, TokenRecord};
use crate::names;
use crate::request::{Append, DeadReason, Found, NameKind, Row, StoreError};
use crate::roster::{MEMBERS_MAX, answer};
use crate::store::{Caps, ReadBudget, SEQ_MAX, Store, StoredUser, Usage, Write};

/// A handle on a store. Each call holds the lock for a few look-ups.
#[derive(Debug)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
    /// [`Tables::changes`] at the last [`Store::changed`].
    told: u64,
}

/// Everything in ordered maps.
#[derive(Debug)]
struct Tables {
    caps: Caps,
    age_max_ms: Option<u64>,
    rows: BTreeMap<RowKey, Row>,
    dead: BTreeMap<RowKey, (Row, DeadReason)>,
    users: BTreeMap<UserKey, User>,
    names: BTreeMap<(TenantId, Box<[u8]>), UserId>,
    phones: BTreeMap<(TenantId, Box<[u8]>), UserId>,
    next_users: BTreeMap<TenantId, u32>,
    tenants: BTreeMap<TenantName, TenantId>,
    groups: BTreeMap<GroupKey, Group>,
    members_max: u32,
    next_groups: BTreeMap<TenantId, u32>,
    /// Each with the user's contact version with which he came.
    contacts: BTreeMap<(UserKey, UserId), u64>,
    /// Who is asked, by whom.
    requests: BTreeMap<(UserKey, UserId), PreContact>,
    tokens: HashMap<TokenKey, Token>,
    /// Oldest first.
    tokens_of: HashMap<UserKey, VecDeque<TokenKey>>,
    seq_max: u64,
    per_user: HashMap<UserKey, Usage>,
    total: Usage,
    /// Rows and dead letters of each group message.
    shared: HashMap<u128, u64>,
    requeued: BTreeSet<UserKey>,
    /// Counts the changes of what a gateway may have cached.
    changes: u64,
}

type RowKey = (UserKey, u64);
type TenantName = (Box<[u8]>, Box<[u8]>);
type TokenKey = (TenantId, [u8; 32]);

#[derive(Debug)]
struct User {
    name: Box<[u8]>,
    password_hash: String,
    phone: Option<Box<[u8]>>,
    contact_version: u64,
}

#[derive(Debug, Default)]
struct Group {
    name: Option<Box<[u8]>>,
    title: Box<[u8]>,
    owner: Option<UserId>,
    /// Empty: nobody joins by it.
    key: String,
    /// Each with the number of joins up to his.
    members: BTreeMap<UserId, u64>,
    joins: u64,
}

#[derive(Debug)]
struct Token {
    record: TokenRecord,
    /// Unless it is permanent.
    expires_ms: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Caps::default(), None)
    }
}

impl MemoryStore {
    /// With an age limit, [`Store::expire`] makes dead letters of what is older. Tenant 0 is there
    /// as `default/default`.
    pub fn new(caps: Caps, age_max_ms: Option<u64>) -> Self {
        let tables = Tables {
            caps,
            age_max_ms,
            rows: BTreeMap::new(),
            dead: BTreeMap::new(),
            users: BTreeMap::new(),
            names: BTreeMap::new(),
            phones: BTreeMap::new(),
            next_users: BTreeMap::new(),
            tenants: BTreeMap::new(),
            groups: BTreeMap::new(),
            members_max: MEMBERS_MAX,
            next_groups: BTreeMap::new(),
            contacts: BTreeMap::new(),
            requests: BTreeMap::new(),
            tokens: HashMap::new(),
            tokens_of: HashMap::new(),
            seq_max: 0,
            per_user: HashMap::new(),
            total: Usage::default(),
            shared: HashMap::new(),
            requeued: BTreeSet::new(),
            changes: 0,
        };
        let store = Self { tables: Arc::new(Mutex::new(tables)), told: 0 };
        store.with_tenant(TenantId(0), b"default", b"default")
    }

    /// One more tenant, by the names of its organisation and its key.
    #[must_use]
    pub fn with_tenant(self, tenant: TenantId, org: &[u8], appkey: &[u8]) -> Self {
        self.lock().tenants.insert((org.into(), appkey.into()), tenant);
        self
    }

    /// Another bound on the members of a group.
    #[must_use]
    pub fn with_members_max(self, members_max: u32) -> Self {
        self.lock().members_max = members_max;
        self
    }

    /// Another handle on the same store.
    #[must_use]
    pub fn handle(&self) -> Self {
        let told = self.lock().changes;
        Self { tables: Arc::clone(&self.tables), told }
    }

    /// The number with which the user may log in. `false`: he does not exist, or it is taken.
    #[must_use]
    pub fn set_phone(&mut self, user: UserKey, phone: &[u8]) -> bool {
        self.change(|tables| tables.set_phone(user, phone))
    }

    /// Makes the group, or gives it another name. `false`: another one has the name.
    #[must_use]
    pub fn set_group_name(&mut self, group: GroupKey, name: &[u8]) -> bool {
        self.change(|tables| {
            let taken = |(key, other): (&GroupKey, &Group)| {
                *key != group && key.tenant == group.tenant && other.name.as_deref() == Some(name)
            };
            let free = !tables.groups.iter().any(taken);
            if free {
                tables.groups.entry(group).or_default().name = Some(name.into());
            }
            free
        })
    }

    /// `false`: the id or the name is taken.
    #[must_use]
    pub fn add_user(&mut self, user: UserKey, name: &[u8], password_hash: &str) -> bool {
        self.change(|tables| tables.add_user(user, name, password_hash))
    }

    /// Makes the group, or replaces its members.
    pub fn set_members(&mut self, group: GroupKey, members: &[UserId]) {
        self.change(|tables| {
            let group = tables.groups.entry(group).or_default();
            group.members = members.iter().map(|member| (*member, 0)).collect();
        });
    }

    /// Every dead letter: whose, what, and why.
    pub fn dead_letters(&self) -> Vec<(UserKey, Row, DeadReason)> {
        let tables = self.lock();
        let letters = tables.dead.iter();
        letters.map(|(&(user, _), (row, reason))| (user, row.clone(), *reason)).collect()
    }

    /// Puts a dead letter back in its old place, without charges. `false`: there is none.
    #[must_use]
    pub fn requeue(&mut self, user: UserKey, seq: u64) -> bool {
        let mut tables = self.lock();
        let Some((row, _)) = tables.dead.remove(&(user, seq)) else { return false };
        tables.per_user.entry(user).or_default().add(1, row.message.body.len() as u64);
        tables.rows.insert((user, seq), Row { charges: 0, suspect: false, ..row });
        tables.requeued.insert(user);
        true
    }

    /// Forgets a dead letter. `false`: there is none.
    #[must_use]
    pub fn drop_dead(&mut self, user: UserKey, seq: u64) -> bool {
        let mut tables = self.lock();
        let Some((row, _)) = tables.dead.remove(&(user, seq)) else { return false };
        tables.release(&row.message);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change that other handles are told of.
    fn change<T>(&mut self, change: impl FnOnce(&mut Tables) -> T) -> T {
        let done = {
            let mut tables = self.lock();
            tables.changes += 1;
            change(&mut tables)
        };
        // Our own; one of somebody else before it is still to be told.
        self.told += 1;
        done
    }
}

impl Tables {
    fn add_user(&mut self, user: UserKey, name: &[u8], password_hash: &str) -> bool {
        let called = (user.tenant, Box::from(name));
        let free = !self.users.contains_key(&user) && !self.names.contains_key(&called);
        if free {
            let (name, password_hash) = (name.into(), password_hash.to_owned());
            let new = User { name, password_hash, phone: None, contact_version: 0 };
            self.users.insert(user, new);
            self.names.insert(called, user.id);
        }
        free
    }

    fn set_phone(&mut self, user: UserKey, phone: &[u8]) -> bool {
        let key = (user.tenant, Box::from(phone));
        let Some(known) = self.users.get_mut(&user) else { return false };
        if self.phones.contains_key(&key) {
            return false;
        }
        if let Some(old) = known.phone.replace(phone.into()) {
            self.phones.remove(&(user.tenant, old));
        }
        self.phones.insert(key, user.id);
        true
    }

    fn stored(&self, key: UserKey) -> Option<StoredUser> {
        let User { name, password_hash, .. } = self.users.get(&key)?;
        let (name, password_hash) = (name.clone(), password_hash.clone());
        Some(StoredUser { id: key.id, name, password_hash })
    }

    fn id_of(&self, tenant: TenantId, name: &[u8]) -> Option<UserKey> {
        let id = *self.names.get(&(tenant, name.into()))?;
        Some(UserKey { tenant, id })
    }

    fn with_phone(&self, tenant: TenantId, phone: &[u8]) -> Option<UserKey> {
        let id = *self.phones.get(&(tenant, phone.into()))?;
        Some(UserKey { tenant, id })
    }

    fn apply(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Append(append) => self.append(append)?,
            Write::Delete { user, seq } => self.delete(*user, *seq),
            Write::FailedRound { user, seq, charge } => {
                if let Some(row) = self.rows.get_mut(&(*user, *seq)) {
                    row.charges = row.charges.saturating_add(u8::from(*charge));
                    row.suspect = true;
                }
            }
            Write::DeadLetter { user, seq, reason } => {
                if let Some(row) = self.take_row(*user, *seq) {
                    self.dead.insert((*user, *seq), (row, *reason));
                }
            }
            Write::Bind { user, name } => {
                let _ = self.add_user(*user, name, "");
            }
        }
        Ok(())
    }

    fn append(&mut self, append: &Append) -> Result<(), StoreError> {
        let Append { user, seq, message, binding } = append;
        let bytes = message.body.len() as u64;
        match self.rows.get(&(*user, *seq)) {
            Some(row) if row.message.stamp == message.stamp => return Ok(()),
            Some(_) => return Err(StoreError::Full),
            None => {}
        }
        let usage = self.per_user.get(user).copied().unwrap_or_default();
        let new_bytes = if self.shared.contains_key(&message.stamp) { 0 } else { bytes };
        if matches!(message.to, Target::Room(_)) {
            return Err(StoreError::Full);
        }
        if *seq > SEQ_MAX || !self.caps.admit(usage, self.total, bytes, new_bytes) {
            return Err(StoreError::Full);
        }
        self.per_user.entry(*user).or_default().add(1, bytes);
        self.total.add(1, new_bytes);
        if matches!(message.to, Target::Group(_)) {
            *self.shared.entry(message.stamp).or_default() += 1;
        }
        let message = Arc::clone(message);
        self.rows.insert((*user, *seq), Row { seq: *seq, message, charges: 0, suspect: false });
        self.seq_max = self.seq_max.max(*seq);
        if let Some(name) = binding {
            let _ = self.add_user(*user, name, "");
        }
        Ok(())
    }

    fn delete(&mut self, user: UserKey, seq: u64) {
        if let Some(row) = self.take_row(user, seq) {
            self.release(&row.message);
        }
    }

    /// Takes the row out of its user's account; the store's stays until [`Self::release`].
    fn take_row(&mut self, user: UserKey, seq: u64) -> Option<Row> {
        let row = self.rows.remove(&(user, seq))?;
        let usage = self.per_user.get_mut(&user).expect("a user with a row is counted");
        usage.sub(1, row.message.body.len() as u64);
        if usage.rows == 0 {
            self.per_user.remove(&user);
        }
        Some(row)
    }

    fn release(&mut self, message: &Message) {
        let bytes = message.body.len() as u64;
        let last = match self.shared.get_mut(&message.stamp) {
            Some(rows) => {
                *rows -= 1;
                *rows == 0
            }
            None => true,
        };
        if last {
            self.shared.remove(&message.stamp);
        }
        self.total.sub(1, if last { bytes } else { 0 });
    }
}

impl Store for MemoryStore {
    fn write(&mut self, writes: &[Write]) -> Vec<Result<(), StoreError>> {
        let mut tables = self.lock();
        writes.iter().map(|write| tables.apply(write)).collect()
    }

    fn read(
        &mut self,
        user: UserKey,
        after: u64,
        rows: u32,
        bytes: u32,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        let mut budget = ReadBudget::new(rows, bytes);
        let mut taken = Vec::new();
        let Some(first) = after.checked_add(1) else { return Ok((taken, false)) };
        for (_, row) in self.lock().rows.range((user, first)..=(user, u64::MAX)) {
            if !budget.take(row.message.body.len()) {
                return Ok((taken, true));
            }
            taken.push(row.clone());
        }
        Ok((taken, false))
    }

    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError> {
        let tables = self.lock();
        let members = tables.groups.get(&group).map(|group| group.members.keys().copied());
        Ok(members.into_iter().flatten().collect())
    }

    fn max_seq(&mut self) -> Result<u64, StoreError> {
        Ok(self.lock().seq_max)
    }

    fn tenant_named(&mut self, org: &[u8], appkey: &[u8]) -> Result<Option<TenantId>, StoreError> {
        Ok(self.lock().tenants.get(&(org.into(), appkey.into())).copied())
    }

    fn resolve(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        what: NameKind,
    ) -> Result<Option<Found>, StoreError> {
        names::find(&mut *self.lock(), tenant, name, what)
    }

    fn query(
        &mut self,
        user: UserKey,
        query: &Query,
    ) -> Result<(Answer, Option<GroupId>), StoreError> {
        answer(&mut *self.lock(), user, query)
    }

    fn user_by_name(
        &mut self,
        tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        let tables = self.lock();
        Ok(tables.id_of(tenant, name).and_then(|key| tables.stored(key)))
    }

    fn user_by_phone(
        &mut self,
        tenant: TenantId,
        phone: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        let tables = self.lock();
        Ok(tables.with_phone(tenant, phone).and_then(|key| tables.stored(key)))
    }

    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, StoreError> {
        Ok(self.lock().name(user))
    }

    fn changed(&mut self) -> Result<bool, StoreError> {
        let changes = self.lock().changes;
        Ok(std::mem::replace(&mut self.told, changes) != changes)
    }

    fn take_requeued(&mut self) -> Result<Vec<UserKey>, StoreError> {
        Ok(std::mem::take(&mut self.lock().requeued).into_iter().collect())
    }

    fn expire(&mut self, now_ms: u64) -> Result<u64, StoreError> {
        let mut tables = self.lock();
        let Some(age_max_ms) = tables.age_max_ms else { return Ok(0) };
        let oldest_ms = now_ms.saturating_sub(age_max_ms);
        let old = tables.rows.iter().filter(|(_, row)| row.message.time_ms < oldest_ms);
        let old: Vec<RowKey> = old.map(|(key, _)| *key).collect();
        for (user, seq) in &old {
            let row = tables.take_row(*user, *seq).expect("just found");
            tables.dead.insert((*user, *seq), (row, DeadReason::Expired));
        }
        Ok(old.len() as u64)
    }
}
