//! The accounts of simple_im in the embedded store: the return codes of its database functions
//! (specs/simple-im.md sections 6b and 7b) over our own tables.
//!
//! Owns: tokens, requests for contact, keys of groups. Never: HTTP, clocks. Users, contacts and
//! groups are those of every other protocol; a group's title here is its name there.

use std::time::Duration;

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};
use rusqlite::{OptionalExtension as _, Result as SqlResult, Row as SqlRow, ToSql, params};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Batch, CallError, SqliteStore, Tables, unsigned};
use crate::accounts::{
    Account, Accounts, Asked, ContactAccount, GroupChange, Login, NewGroup, PreContact,
    TokenRecord, USER_TOKENS_MAX, is_short, new_group_key,
};
use crate::auth::{FIRST_ID, hash_password, verify_password};
use crate::names::Names as _;
use crate::request::{Row, StoreError};
use crate::roster::{self, CONTACTS_MAX, GROUPS_MAX, Roster as _};
use crate::store::Store as _;

/// The accounts of one tenant, over a handle of their own.
#[derive(Debug)]
pub struct SimpleIm {
    store: SqliteStore,
    tenant: TenantId,
}

impl SimpleIm {
    pub fn new(store: SqliteStore, tenant: TenantId) -> Self {
        Self { store, tenant }
    }

    fn user(&self, id: UserId) -> UserKey {
        UserKey { tenant: self.tenant, id }
    }

    fn group(&self, id: GroupId) -> GroupKey {
        GroupKey { tenant: self.tenant, id }
    }

    /// One transaction on the tables.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Tables<'_>, &mut Batch<'_>) -> Outcome<T>,
    ) -> Result<T, StoreError> {
        let members_max = self.store.options().group_members_max;
        self.store
            .transact(|batch| change(&mut Tables { conn: batch.conn(), members_max }, batch))?
    }

    /// As [`Self::change`], for what a running gateway may have cached.
    fn change_and_tell<T>(
        &mut self,
        change: impl FnOnce(&mut Tables<'_>) -> Outcome<T>,
    ) -> Result<T, StoreError> {
        self.change(|tables, batch| {
            batch.note_change();
            change(tables)
        })
    }

    fn look<T>(
        &mut self,
        look: impl FnOnce(&mut Tables<'_>) -> SqlResult<T>,
    ) -> Result<T, CallError> {
        let members_max = self.store.options().group_members_max;
        self.store.select(|conn| look(&mut Tables { conn, members_max }))
    }

    /// The account that `sql` finds in the tenant.
    fn account(&mut self, sql: &str, key: impl ToSql) -> Result<Option<Account>, StoreError> {
        let tenant = self.tenant.0;
        let found = self.look(|tables| {
            let mut statement = tables.conn.prepare_cached(sql)?;
            statement.query_row(params![tenant, key], account).optional()
        })?;
        Ok(found)
    }
}

/// The outer result is the database's, the inner one rolls back.
type Outcome<T> = SqlResult<Result<T, StoreError>>;

impl Accounts for SimpleIm {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn login(&mut self, phone: &[u8], password: &[u8]) -> Result<Login, StoreError> {
        let user = self.store.user_by_phone(self.tenant, phone)?;
        let hash = user.as_ref().map(|user| &*user.password_hash);
        let right = verify_password(password, hash);
        let Some(user) = user else { return Ok(Login::UnknownPhone) };
        if !right {
            return Ok(Login::WrongPassword);
        }
        Ok(self.user_by_id(user.id)?.map_or(Login::UnknownPhone, Login::User))
    }

    fn put_token(
        &mut self,
        token: &[u8],
        record: &TokenRecord,
        ttl: Duration,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let (tenant, hash) = (self.tenant.0, hash(token));
        let TokenRecord { user, name, device, ip, port, permanent: _ } = record;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let expires_ms = number(now_ms.saturating_add(ttl_ms));
        self.change(|tables, _| {
            let sql = "DELETE FROM tokens WHERE expires_ms IS NOT NULL AND expires_ms <= ?1";
            tables.change(sql, [number(now_ms)])?;
            let sql = "INSERT OR REPLACE INTO tokens
                       (tenant, hash, user, name, device, ip, port, expires_ms)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            tables
                .change(sql, params![tenant, hash, user.0, name, device, ip, port, expires_ms])?;
            let sql = "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens
                       WHERE tenant = ?1 AND user = ?2 ORDER BY id DESC LIMIT -1 OFFSET ?3)";
            tables.change(sql, (tenant, user.0, USER_TOKENS_MAX))?;
            Ok(Ok(()))
        })
    }

    fn token(&mut self, token: &[u8], now_ms: u64) -> Result<Option<TokenRecord>, StoreError> {
        let key = (self.tenant.0, hash(token), number(now_ms));
        let sql = "SELECT user, name, device, ip, port, expires_ms IS NULL FROM tokens
                   WHERE tenant = ?1 AND hash = ?2 AND (expires_ms IS NULL OR expires_ms > ?3)";
        let record = self.look(|tables| {
            let mut statement = tables.conn.prepare_cached(sql)?;
            let record = statement.query_row(key, |row| {
                Ok(TokenRecord {
                    user: UserId(row.get(0)?),
                    name: row.get::<_, Option<Vec<u8>>>(1)?.map(Into::into),
                    device: bytes(row, 2)?,
                    ip: bytes(row, 3)?,
                    port: row.get(4)?,
                    permanent: row.get(5)?,
                })
            });
            record.optional()
        })?;
        Ok(record)
    }

    fn persist_token(
        &mut self,
        token: &[u8],
        user: UserId,
        device: &[u8],
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let (tenant, hash, now_ms) = (self.tenant.0, hash(token), number(now_ms));
        self.change(|tables, _| {
            let sql = "UPDATE tokens SET expires_ms = NULL, device = ?4
                       WHERE tenant = ?1 AND hash = ?2 AND user = ?3
                         AND (expires_ms IS NULL OR expires_ms > ?5)";
            if tables.change(sql, (tenant, hash, user.0, device, now_ms))? == 0 {
                return Ok(Ok(false));
            }
            let sql = "DELETE FROM tokens WHERE tenant = ?1 AND hash <> ?2 AND user = ?3
                         AND device = ?4 AND expires_ms IS NULL";
            tables.change(sql, (tenant, hash, user.0, device))?;
            Ok(Ok(true))
        })
    }

    fn create_user(
        &mut self,
        name: &[u8],
        phone: &[u8],
        password: &[u8],
    ) -> Result<Option<UserId>, StoreError> {
        let Ok(phone) = str::from_utf8(phone) else { return Ok(None) };
        let (tenant, password_hash) = (self.tenant, hash_password(password));
        self.change(|tables, _| {
            let is_taken = "SELECT 1 FROM users WHERE tenant = ?1 AND id = ?2";
            let range = (1, FIRST_ID - 1);
            let Some(id) = tables.free_id(tenant, "user", range, is_taken)? else {
                return Ok(Err(StoreError::Full));
            };
            let sql = "INSERT INTO users (tenant, id, name, password_hash, phone)
                       VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
            let made = tables.change(sql, (tenant.0, id, name, &password_hash, phone))? > 0;
            Ok(Ok(made.then_some(UserId(id))))
        })
    }

    fn user_by_id(&mut self, user: UserId) -> Result<Option<Account>, StoreError> {
        self.account(ACCOUNT_BY_ID, user.0)
    }

    fn user_by_phone(&mut self, phone: &[u8]) -> Result<Option<Account>, StoreError> {
        let Ok(phone) = str::from_utf8(phone) else { return Ok(None) };
        self.account(ACCOUNT_BY_PHONE, phone)
    }

    fn ask_contact(
        &mut self,
        from: UserId,
        to: UserId,
        message: &[u8],
        now_ms: u64,
    ) -> Result<Asked, StoreError> {
        let (asker, asked) = (self.user(from), self.user(to));
        self.change(|tables, _| {
            if from == to || tables.name_of(asked)?.is_none() {
                return Ok(Ok(Asked::UnknownUser));
            }
            if tables.is_contact(asker, to)? && tables.is_contact(asked, from)? {
                return Ok(Ok(Asked::AlreadyContacts));
            }
            let tenant = asker.tenant.0;
            let sql = "SELECT 1 FROM pre_contacts
                       WHERE tenant = ?1 AND (asked, asker) IN (VALUES (?2, ?3), (?3, ?2))";
            if tables.conn.prepare_cached(sql)?.exists((tenant, from.0, to.0))? {
                return Ok(Ok(Asked::Pending));
            }
            let sql = "SELECT max(
                           (SELECT count(*) FROM pre_contacts WHERE tenant = ?1 AND asked = ?2),
                           (SELECT count(*) FROM pre_contacts WHERE tenant = ?1 AND asker = ?3))";
            let waiting: Option<u32> = tables.value(sql, (tenant, to.0, from.0))?;
            if waiting.unwrap_or(0) >= CONTACTS_MAX {
                return Ok(Err(StoreError::Full));
            }
            let sql = "INSERT INTO pre_contacts VALUES (?1, ?2, ?3, ?4, ?5)";
            tables.change(sql, (tenant, to.0, from.0, message, number(now_ms / 1000)))?;
            Ok(Ok(Asked::Done))
        })
    }

    fn accept_contact(
        &mut self,
        user: UserId,
        asker: UserId,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let tenant = self.tenant;
        self.change(|tables, _| {
            let sql = "DELETE FROM pre_contacts WHERE tenant = ?1 AND asked = ?2 AND asker = ?3";
            if tables.change(sql, (tenant.0, user.0, asker.0))? == 0 {
                return Ok(Ok(None));
            }
            let mut versions = [0; 2];
            for ((one, other), version) in
                [(user, asker), (asker, user)].into_iter().zip(&mut versions)
            {
                let one = UserKey { tenant, id: one };
                if !tables.is_contact(one, other)? {
                    if tables.contact_count(one)? >= CONTACTS_MAX {
                        return Ok(Err(StoreError::Full));
                    }
                    tables.add_contact(one, other)?;
                }
                let sql = "SELECT contact_version FROM users WHERE tenant = ?1 AND id = ?2";
                let found: Option<i64> = tables.value(sql, (tenant.0, one.id.0))?;
                *version = found.unwrap_or(0).cast_unsigned();
            }
            Ok(Ok(Some((versions[0], versions[1]))))
        })
    }

    fn delete_contact(&mut self, user: UserId, contact: UserId) -> Result<bool, StoreError> {
        let key = (self.tenant.0, user.0, contact.0);
        let sql = "DELETE FROM contacts
                   WHERE tenant = ?1 AND (user, contact) IN (VALUES (?2, ?3), (?3, ?2))";
        self.change(|tables, _| Ok(Ok(tables.change(sql, key)? > 0)))
    }

    fn contacts_after(
        &mut self,
        user: UserId,
        version: u64,
    ) -> Result<Vec<ContactAccount>, StoreError> {
        let key = (self.tenant.0, user.0, number(version));
        // Version 0 stands for all, those included that came without a version.
        let sql = "SELECT u.id, u.name, coalesce(u.phone, ''), u.avatar, c.version FROM contacts c
                   JOIN users u ON u.tenant = c.tenant AND u.id = c.contact
                   WHERE c.tenant = ?1 AND c.user = ?2 AND (c.version > ?3 OR ?3 = 0)
                   ORDER BY c.version, u.id";
        let contacts = self.look(|tables| {
            tables.rows(sql, key, |row| {
                Ok(ContactAccount { account: account(row)?, version: unsigned(row, 4)? })
            })
        })?;
        Ok(contacts)
    }

    fn asked_since(&mut self, user: UserId, since_s: u64) -> Result<Vec<PreContact>, StoreError> {
        let key = (self.tenant.0, user.0, number(since_s));
        let sql = "SELECT asker, message, time_s FROM pre_contacts
                   WHERE tenant = ?1 AND asked = ?2 AND time_s >= ?3 ORDER BY time_s, asker";
        let asked = self.look(|tables| {
            tables.rows(sql, key, |row| {
                Ok(PreContact {
                    user: UserId(row.get(0)?),
                    message: bytes(row, 1)?,
                    time_s: unsigned(row, 2)?,
                })
            })
        })?;
        Ok(asked)
    }

    fn create_group(
        &mut self,
        name: &[u8],
        creator: UserId,
        members: &[UserId],
    ) -> Result<NewGroup, StoreError> {
        if !is_short(name) {
            return Err(StoreError::Full);
        }
        let tenant = self.tenant;
        let key = new_group_key();
        self.change_and_tell(|tables| {
            let owner = UserKey { tenant, id: creator };
            let id = tables.free_group_id(tenant)?;
            let Some(id) = id.filter(|_| members.len() < tables.members_max as usize) else {
                return Ok(Err(StoreError::Full));
            };
            if tables.group_count(owner)? >= GROUPS_MAX {
                return Ok(Err(StoreError::Full));
            }
            let mut users = vec![creator];
            for &id in members {
                if tables.name_of(UserKey { tenant, id })?.is_some() {
                    users.push(id);
                }
            }
            let about =
                roster::NewGroup { name: None, title: name, owner: Some(creator), key: Some(&key) };
            let group = GroupKey { tenant, id };
            let members = roster::populate(tables, group, &about, &users)?;
            Ok(Ok(NewGroup { id, key: key.clone(), members }))
        })
    }

    fn delete_group(&mut self, group: GroupId, creator: UserId) -> Result<GroupChange, StoreError> {
        let group = self.group(group);
        self.change_and_tell(|tables| {
            Ok(Ok(match owned(tables, group, creator)? {
                GroupChange::Done => {
                    tables.delete_group(group)?;
                    GroupChange::Done
                }
                refused => refused,
            }))
        })
    }

    fn join_group(
        &mut self,
        group: GroupId,
        user: UserId,
        key: &[u8],
    ) -> Result<GroupChange, StoreError> {
        let group = self.group(group);
        let sql = "SELECT coalesce(key, '') FROM groups WHERE tenant = ?1 AND id = ?2";
        self.change_and_tell(|tables| {
            let Some(right) = tables.value::<String>(sql, (group.tenant.0, group.id.0))? else {
                return Ok(Ok(GroupChange::UnknownGroup));
            };
            if right.is_empty() || !bool::from(right.as_bytes().ct_eq(key)) {
                return Ok(Ok(GroupChange::NotAllowed));
            }
            take_in(tables, group, user)
        })
    }

    fn add_member(
        &mut self,
        group: GroupId,
        creator: UserId,
        user: UserId,
    ) -> Result<GroupChange, StoreError> {
        let group = self.group(group);
        self.change_and_tell(|tables| match owned(tables, group, creator)? {
            GroupChange::Done => take_in(tables, group, user),
            refused => Ok(Ok(refused)),
        })
    }

    fn leave_group(&mut self, group: GroupId, user: UserId) -> Result<GroupChange, StoreError> {
        let group = self.group(group);
        self.change_and_tell(|tables| {
            if !tables.has_group(group)? {
                return Ok(Ok(GroupChange::UnknownGroup));
            }
            let left = roster::leave(tables, group, user)?;
            Ok(Ok(if left { GroupChange::Done } else { GroupChange::NotMember }))
        })
    }

    fn offline_read(&mut self, user: UserId, rows: u32) -> Result<(Vec<Row>, bool), StoreError> {
        let user = self.user(user);
        self.store.read(user, 0, rows, OFFLINE_BYTES_MAX)
    }

    fn offline_clear(&mut self, user: UserId, seq: u64) -> Result<(), StoreError> {
        let user = self.user(user);
        self.change(|_, batch| batch.clear_rows(user, seq).map(Ok))
    }
}

/// [`GroupChange::Done`] if the group is the creator's.
fn owned(tables: &mut Tables<'_>, group: GroupKey, creator: UserId) -> SqlResult<GroupChange> {
    let Some(head) = tables.group(group)? else { return Ok(GroupChange::UnknownGroup) };
    let his = head.owner.is_some_and(|(owner, _)| owner == creator);
    Ok(if his { GroupChange::Done } else { GroupChange::NotAllowed })
}

fn take_in(tables: &mut Tables<'_>, group: GroupKey, user: UserId) -> Outcome<GroupChange> {
    if tables.is_member(group, user)? {
        return Ok(Ok(GroupChange::AlreadyMember));
    }
    if tables.name_of(UserKey { tenant: group.tenant, id: user })?.is_none() {
        return Ok(Ok(GroupChange::UnknownUser));
    }
    if !roster::has_room(tables, group, user)? {
        return Ok(Err(StoreError::Full));
    }
    tables.add_member(group, user)?;
    Ok(Ok(GroupChange::Done))
}

/// The account in the first four columns.
fn account(row: &SqlRow<'_>) -> SqlResult<Account> {
    let [phone, avatar]: [String; 2] = [row.get(2)?, row.get(3)?];
    Ok(Account {
        id: UserId(row.get(0)?),
        name: bytes(row, 1)?,
        phone: phone.into_bytes().into(),
        avatar: avatar.into_bytes().into(),
    })
}

fn bytes(row: &SqlRow<'_>, column: usize) -> SqlResult<Box<[u8]>> {
    Ok(row.get::<_, Vec<u8>>(column)?.into())
}

/// What is beyond the numbers of SQL is as good as their last.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Tokens are random and long: a plain hash is enough, and looking one up tells nothing about
/// another.
fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

const ACCOUNT_BY_ID: &str = "SELECT id, name, coalesce(phone, ''), avatar FROM users
    WHERE tenant = ?1 AND id = ?2";
const ACCOUNT_BY_PHONE: &str = "SELECT id, name, coalesce(phone, ''), avatar FROM users
    WHERE tenant = ?1 AND phone = ?2";

/// Of bodies, at once in memory for one request.
const OFFLINE_BYTES_MAX: u32 = 16 << 20;
