//! The accounts of simple_im in the embedded store, over our own tables.
//!
//! Owns: tokens, requests for contact, keys of groups. Never: HTTP, clocks, a rule of contacts or
//! groups (`accounts::rules`). Users, contacts and groups are those of every other protocol.

use std::time::Duration;

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};
use rusqlite::{OptionalExtension as _, Result as SqlResult, Row as SqlRow, ToSql, params};

use super::{Batch, CallError, SqliteStore, Tables, unsigned};
use crate::accounts::rules::{self, Centre};
use crate::accounts::{
    Account, Accounts, Asked, ContactAccount, Credentials, GroupChange, NewGroup,
    OFFLINE_BYTES_MAX, PreContact, TokenRecord, USER_TOKENS_MAX, delete_all, token_hash as hash,
};
use crate::auth::FIRST_ID;
use crate::request::{Row, StoreError};
use crate::roster::Roster as _;
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

type Outcome<T> = rules::Outcome<T, rusqlite::Error>;

impl Accounts for SimpleIm {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn credentials(&mut self, phone: &[u8]) -> Result<Option<Credentials>, StoreError> {
        let Ok(phone) = str::from_utf8(phone) else { return Ok(None) };
        let key = (self.tenant.0, phone);
        let found = self.look(|tables| {
            let mut statement = tables.conn.prepare_cached(ACCOUNT_BY_PHONE)?;
            let read = |row: &SqlRow<'_>| {
                // Only the external store has hashes that others made.
                let (account, password_hash) = (account(row)?, row.get(4)?);
                Ok(Credentials { account, password_hash, outdated: false })
            };
            statement.query_row(key, read).optional()
        })?;
        Ok(found)
    }

    fn upgrade_hash(&mut self, user: UserId, old: &str, new: &str) -> Result<(), StoreError> {
        let key = (self.tenant.0, user.0, old, new);
        let sql = "UPDATE users SET password_hash = ?4
                   WHERE tenant = ?1 AND id = ?2 AND password_hash = ?3";
        self.change(|tables, _| Ok(Ok(tables.change(sql, key).map(drop)?)))
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
        password_hash: &str,
    ) -> Result<Option<UserId>, StoreError> {
        let Ok(phone) = str::from_utf8(phone) else { return Ok(None) };
        let tenant = self.tenant;
        self.change(|tables, _| {
            let is_taken = "SELECT 1 FROM users WHERE tenant = ?1 AND id = ?2";
            let range = (1, FIRST_ID - 1);
            let Some(id) = tables.free_id(tenant, "user", range, is_taken)? else {
                return Ok(Err(StoreError::Full));
            };
            let sql = "INSERT INTO users (tenant, id, name, password_hash, phone)
                       VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
            let made = tables.change(sql, (tenant.0, id, name, password_hash, phone))? > 0;
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
        let asker = self.user(from);
        self.change(|tables, _| rules::ask_contact(tables, asker, to, message, now_ms / 1000))
    }

    fn accept_contact(
        &mut self,
        user: UserId,
        asker: UserId,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let user = self.user(user);
        self.change(|tables, _| rules::accept_contact(tables, user, asker))
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
        let creator = self.user(creator);
        self.change_and_tell(|tables| rules::create_group(tables, creator, name, members))
    }

    fn delete_group(&mut self, group: GroupId, creator: UserId) -> Result<GroupChange, StoreError> {
        let group = self.group(group);
        self.change_and_tell(|tables| rules::delete_group(tables, group, creator))
    }

    fn join_group(
        &mut self,
        group: GroupId,
        user: UserId,
        key: &[u8],
    ) -> Result<GroupChange, StoreError> {
        let group = self.group(group);
        self.change_and_tell(|tables| rules::join_group(tables, group, user, key))
    }

    fn add_member(
        &mut self,
        group: GroupId,
        creator: UserId,
        user: UserId,
    ) -> Result<GroupChange, StoreError> {
        let group = self.group(group);
        self.change_and_tell(|tables| rules::add_member(tables, group, creator, user))
    }

    fn leave_group(&mut self, group: GroupId, user: UserId) -> Result<GroupChange, StoreError> {
        let group = self.group(group);
        self.change_and_tell(|tables| rules::leave_group(tables, group, user))
    }

    fn group_members(&mut self, group: GroupId, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let group = self.group(group);
        let members = self.look(|tables| tables.members(group, limit))?;
        Ok(members.into_iter().map(|(id, _)| id).collect())
    }

    fn offline_read(&mut self, user: UserId, rows: u32) -> Result<(Vec<Row>, bool), StoreError> {
        let user = self.user(user);
        self.store.read(user, 0, rows, OFFLINE_BYTES_MAX)
    }

    fn offline_clear(&mut self, user: UserId, seqs: &[u64]) -> Result<(), StoreError> {
        let user = self.user(user);
        delete_all(&mut self.store, user, seqs)
    }
}

impl Centre for Tables<'_> {
    fn has_asked(&mut self, asker: UserId, asked: UserKey) -> SqlResult<bool> {
        let sql = "SELECT 1 FROM pre_contacts WHERE tenant = ?1 AND asked = ?2 AND asker = ?3";
        self.is(sql, (asked.tenant.0, asked.id.0, asker.0))
    }

    fn waiting(&mut self, asker: UserId, asked: UserKey) -> SqlResult<u32> {
        let sql = "SELECT max(
                       (SELECT count(*) FROM pre_contacts WHERE tenant = ?1 AND asked = ?2),
                       (SELECT count(*) FROM pre_contacts WHERE tenant = ?1 AND asker = ?3))";
        self.count(sql, (asked.tenant.0, asked.id.0, asker.0))
    }

    fn put_request(
        &mut self,
        asker: UserId,
        asked: UserKey,
        message: &[u8],
        time_s: u64,
    ) -> SqlResult<()> {
        let sql = "INSERT INTO pre_contacts VALUES (?1, ?2, ?3, ?4, ?5)";
        let request = (asked.tenant.0, asked.id.0, asker.0, message, number(time_s));
        self.change(sql, request).map(drop)
    }

    fn drop_request(&mut self, asker: UserId, asked: UserKey) -> SqlResult<()> {
        let sql = "DELETE FROM pre_contacts WHERE tenant = ?1 AND asked = ?2 AND asker = ?3";
        self.change(sql, (asked.tenant.0, asked.id.0, asker.0)).map(drop)
    }

    fn contact_version(&mut self, user: UserKey) -> SqlResult<u64> {
        let sql = "SELECT contact_version FROM users WHERE tenant = ?1 AND id = ?2";
        let version: Option<i64> = self.value(sql, (user.tenant.0, user.id.0))?;
        Ok(version.unwrap_or(0).cast_unsigned())
    }

    fn group_secret(&mut self, group: GroupKey) -> SqlResult<Option<String>> {
        let sql = "SELECT coalesce(key, '') FROM groups WHERE tenant = ?1 AND id = ?2";
        self.value(sql, (group.tenant.0, group.id.0))
    }
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

const ACCOUNT_BY_ID: &str = "SELECT id, name, coalesce(phone, ''), avatar FROM users
    WHERE tenant = ?1 AND id = ?2";
const ACCOUNT_BY_PHONE: &str =
    "SELECT id, name, coalesce(phone, ''), avatar, password_hash FROM users
    WHERE tenant = ?1 AND phone = ?2";
