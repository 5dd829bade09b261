//! Users, contacts and groups as the accounts see them, over our own tables.
//!
//! Owns: these transactions and statements. Never: a rule of contacts or groups
//! (`accounts::rules`), tokens and messages (`redis`), password hashing (`auth`).

use codec::{GroupKey, TenantId, UserId, UserKey};
use tokio_postgres::Row;

use super::roster::group_key;
use super::{CallError, Kind, Params, Postgres, Result, Tables, get, key, number};
use crate::accounts::rules::{self, Centre};
use crate::accounts::{Account, Asked, ContactAccount, GroupChange, NewGroup, PreContact};
use crate::auth::FIRST_ID;
use crate::request::StoreError;
use crate::roster::Roster as _;
use crate::store::StoredUser;

type Outcome<T> = rules::Outcome<T, CallError>;

impl Postgres {
    /// The user whom `sql` finds, as id, name and password hash.
    pub(crate) fn stored_user(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<StoredUser>> {
        let read = |row: &Row| {
            let name: Vec<u8> = get(row, 1)?;
            let id = UserId(number(row, 0)?);
            Ok(StoredUser { id, name: name.into(), password_hash: get(row, 2)? })
        };
        self.run(Kind::Single, |tables| tables.row(sql, params, read))
    }

    /// Keeps a better hash of a password that was verified with `old`. The original system's own
    /// column stays as it is.
    pub(crate) fn upgrade_hash(&mut self, user: UserKey, old: &str, new: &str) -> Result<()> {
        let (tenant, id) = key(user);
        self.run(Kind::Change(user.tenant), |tables| {
            tables.rows("SELECT ringpost_carry(true)", &[], |_| Ok(()))?;
            let sql = "UPDATE ringpost_users SET password_hash = $4
                       WHERE tenant = $1 AND id = $2 AND password_hash = $3";
            tables.change(sql, &[&tenant, &id, &old, &new]).map(drop)
        })
    }

    pub(crate) fn create_user(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        phone: &str,
        password_hash: &str,
    ) -> Outcome<Option<UserId>> {
        self.attempt(Kind::Change(tenant), |tables| {
            let range = (1, FIRST_ID - 1);
            let Some(id) = tables.free_id(tenant, "user", range, NEXT_FREE_USER)? else {
                return Ok(Err(StoreError::Full));
            };
            let sql = "INSERT INTO ringpost_users (tenant, id, name, password_hash, phone)
                       VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let (tenant, wide) = (i64::from(tenant.0), i64::from(id));
            let made = tables.change(sql, &[&tenant, &wide, &name, &password_hash, &phone])? > 0;
            Ok(Ok(made.then_some(UserId(id))))
        })
    }

    pub(crate) fn account_by_id(&mut self, user: UserKey) -> Result<Option<Account>> {
        let (tenant, id) = key(user);
        let sql = "SELECT id, name, coalesce(phone, ''), avatar FROM ringpost_users
                   WHERE tenant = $1 AND id = $2";
        self.run(Kind::Single, |tables| tables.row(sql, &[&tenant, &id], account))
    }

    pub(crate) fn account_by_phone(
        &mut self,
        tenant: TenantId,
        phone: &str,
    ) -> Result<Option<Account>> {
        let tenant = i64::from(tenant.0);
        let sql = "SELECT id, name, coalesce(phone, ''), avatar FROM ringpost_users
                   WHERE tenant = $1 AND phone = $2";
        self.run(Kind::Single, |tables| tables.row(sql, &[&tenant, &phone], account))
    }

    /// The account with that number, and its password hash.
    pub(crate) fn credentials(
        &mut self,
        tenant: TenantId,
        phone: &str,
    ) -> Result<Option<(Account, String)>> {
        let tenant = i64::from(tenant.0);
        let sql = "SELECT id, name, coalesce(phone, ''), avatar, password_hash FROM ringpost_users
                   WHERE tenant = $1 AND phone = $2";
        let read = |row: &Row| Ok((account(row)?, get(row, 4)?));
        self.run(Kind::Single, |tables| tables.row(sql, &[&tenant, &phone], read))
    }

    pub(crate) fn ask_contact(
        &mut self,
        asker: UserKey,
        to: UserId,
        message: &[u8],
        time_s: u64,
    ) -> Outcome<Asked> {
        self.attempt(Kind::Change(asker.tenant), |tables| {
            rules::ask_contact(tables, asker, to, message, time_s)
        })
    }

    pub(crate) fn accept_contact(
        &mut self,
        user: UserKey,
        asker: UserId,
    ) -> Outcome<Option<(u64, u64)>> {
        self.attempt(Kind::Change(user.tenant), |tables| rules::accept_contact(tables, user, asker))
    }

    pub(crate) fn delete_contact(&mut self, user: UserKey, contact: UserId) -> Result<bool> {
        let (tenant, id) = key(user);
        let sql = "DELETE FROM ringpost_contacts WHERE tenant = $1
                   AND (user_id, contact) IN (($2, $3), ($3, $2))";
        self.run(Kind::Change(user.tenant), |tables| {
            Ok(tables.change(sql, &[&tenant, &id, &i64::from(contact.0)])? > 0)
        })
    }

    pub(crate) fn contacts_after(
        &mut self,
        user: UserKey,
        version: u64,
    ) -> Result<Vec<ContactAccount>> {
        let (tenant, id) = key(user);
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        // Version 0 stands for all, those included that came without a version.
        let sql = "SELECT u.id, u.name, coalesce(u.phone, ''), u.avatar, c.version
                   FROM ringpost_contacts c
                   JOIN ringpost_users u ON u.tenant = c.tenant AND u.id = c.contact
                   WHERE c.tenant = $1 AND c.user_id = $2 AND (c.version > $3 OR $3 = 0)
                   ORDER BY c.version, u.id";
        let read =
            |row: &Row| Ok(ContactAccount { account: account(row)?, version: number(row, 4)? });
        self.run(Kind::Single, |tables| tables.rows(sql, &[&tenant, &id, &version], read))
    }

    pub(crate) fn asked_since(&mut self, user: UserKey, since_s: u64) -> Result<Vec<PreContact>> {
        let (tenant, id) = key(user);
        let since_s = i64::try_from(since_s).unwrap_or(i64::MAX);
        let sql = "SELECT asker, message, time_s FROM ringpost_pre_contacts
                   WHERE tenant = $1 AND asked = $2 AND time_s >= $3 ORDER BY time_s, asker";
        let read = |row: &Row| {
            let message: Vec<u8> = get(row, 1)?;
            let (user, time_s) = (UserId(number(row, 0)?), number(row, 2)?);
            Ok(PreContact { user, message: message.into(), time_s })
        };
        self.run(Kind::Single, |tables| tables.rows(sql, &[&tenant, &id, &since_s], read))
    }

    pub(crate) fn create_keyed_group(
        &mut self,
        creator: UserKey,
        title: &[u8],
        members: &[UserId],
    ) -> Outcome<NewGroup> {
        self.attempt(Kind::Change(creator.tenant), |tables| {
            rules::create_group(tables, creator, title, members)
        })
    }

    pub(crate) fn delete_owned_group(
        &mut self,
        group: GroupKey,
        creator: UserId,
    ) -> Outcome<GroupChange> {
        self.attempt(Kind::Change(group.tenant), |tables| {
            rules::delete_group(tables, group, creator)
        })
    }

    pub(crate) fn join_group(
        &mut self,
        group: GroupKey,
        user: UserId,
        key: &[u8],
    ) -> Outcome<GroupChange> {
        self.attempt(Kind::Change(group.tenant), |tables| {
            rules::join_group(tables, group, user, key)
        })
    }

    pub(crate) fn add_member(
        &mut self,
        group: GroupKey,
        creator: UserId,
        user: UserId,
    ) -> Outcome<GroupChange> {
        self.attempt(Kind::Change(group.tenant), |tables| {
            rules::add_member(tables, group, creator, user)
        })
    }

    pub(crate) fn leave_group(&mut self, group: GroupKey, user: UserId) -> Outcome<GroupChange> {
        self.attempt(Kind::Change(group.tenant), |tables| rules::leave_group(tables, group, user))
    }

    /// By the time they came.
    pub(crate) fn group_members(&mut self, group: GroupKey, limit: u32) -> Result<Vec<UserId>> {
        let members = self.run(Kind::Single, |tables| tables.members(group, limit))?;
        Ok(members.into_iter().map(|(id, _)| id).collect())
    }
}

impl Centre for Tables<'_> {
    fn has_asked(&mut self, asker: UserId, asked: UserKey) -> Result<bool> {
        let (tenant, id) = key(asked);
        let sql = "SELECT 1 FROM ringpost_pre_contacts
                   WHERE tenant = $1 AND asked = $2 AND asker = $3";
        self.is(sql, &[&tenant, &id, &i64::from(asker.0)])
    }

    fn waiting(&mut self, asker: UserId, asked: UserKey) -> Result<u32> {
        let (tenant, id) = key(asked);
        let sql = "SELECT greatest(
            (SELECT count(*) FROM ringpost_pre_contacts WHERE tenant = $1 AND asked = $2),
            (SELECT count(*) FROM ringpost_pre_contacts WHERE tenant = $1 AND asker = $3))";
        let waiting = self.row(sql, &[&tenant, &id, &i64::from(asker.0)], |row| number(row, 0))?;
        Ok(waiting.unwrap_or(0))
    }

    fn put_request(
        &mut self,
        asker: UserId,
        asked: UserKey,
        message: &[u8],
        time_s: u64,
    ) -> Result<()> {
        let (tenant, id) = key(asked);
        let time_s = i64::try_from(time_s).unwrap_or(i64::MAX);
        let sql = "INSERT INTO ringpost_pre_contacts (tenant, asked, asker, message, time_s)
                   VALUES ($1, $2, $3, $4, $5)";
        self.change(sql, &[&tenant, &id, &i64::from(asker.0), &message, &time_s]).map(drop)
    }

    fn drop_request(&mut self, asker: UserId, asked: UserKey) -> Result<()> {
        let (tenant, id) = key(asked);
        let sql = "DELETE FROM ringpost_pre_contacts
                   WHERE tenant = $1 AND asked = $2 AND asker = $3";
        self.change(sql, &[&tenant, &id, &i64::from(asker.0)]).map(drop)
    }

    fn contact_version(&mut self, user: UserKey) -> Result<u64> {
        let (tenant, id) = key(user);
        let sql = "SELECT contact_version FROM ringpost_users WHERE tenant = $1 AND id = $2";
        Ok(self.row(sql, &[&tenant, &id], |row| number(row, 0))?.unwrap_or(0))
    }

    fn group_secret(&mut self, group: GroupKey) -> Result<Option<String>> {
        let (tenant, id) = group_key(group);
        let sql = "SELECT coalesce(key, '') FROM ringpost_groups WHERE tenant = $1 AND id = $2";
        self.value(sql, &[&tenant, &id])
    }
}

/// The account in the first four columns.
fn account(row: &Row) -> Result<Account> {
    let name: Vec<u8> = get(row, 1)?;
    let text = |column| Ok::<_, CallError>(get::<String>(row, column)?.into_bytes().into());
    Ok(Account {
        id: UserId(number(row, 0)?),
        name: name.into(),
        phone: text(2)?,
        avatar: text(3)?,
    })
}

/// As that of groups.
const NEXT_FREE_USER: &str = "SELECT s.id + 1 FROM (
        SELECT $2::bigint - 1 AS id
        UNION ALL SELECT id FROM ringpost_users WHERE tenant = $1 AND id >= $2) s
    WHERE NOT EXISTS (SELECT 1 FROM ringpost_users u WHERE u.tenant = $1 AND u.id = s.id + 1)
    ORDER BY s.id LIMIT 1";
