//! Users, contacts and groups as the accounts of simple_im see them: the return codes of its
//! database functions (specs/simple-im.md sections 6b and 7b) over our own tables.
//!
//! Owns: these transactions. Never: tokens and messages (`redis`), password hashing (`auth`).

use codec::{GroupKey, TenantId, UserId, UserKey};
use subtle::ConstantTimeEq as _;
use tokio_postgres::Row;

use super::{Kind, Params, Postgres, Result, Tables, get, key, number};
use crate::accounts::{
    Account, Asked, ContactAccount, GroupChange, NewGroup, PreContact, is_short, new_group_key,
};
use crate::auth::FIRST_ID;
use crate::names::Names as _;
use crate::request::StoreError;
use crate::roster::{self, CONTACTS_MAX, GROUPS_MAX, Roster as _};
use crate::store::StoredUser;

/// The outer result is the database's, the inner one rolls back.
type Outcome<T> = Result<std::result::Result<T, StoreError>>;

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

    pub(crate) fn ask_contact(
        &mut self,
        asker: UserKey,
        to: UserId,
        message: &[u8],
        time_s: u64,
    ) -> Outcome<Asked> {
        let asked = UserKey { id: to, ..asker };
        let (tenant, from_id) = key(asker);
        let to_id = i64::from(to.0);
        let time_s = i64::try_from(time_s).unwrap_or(i64::MAX);
        self.attempt(Kind::Change(asker.tenant), |tables| {
            if asker == asked || tables.name_of(asked)?.is_none() {
                return Ok(Ok(Asked::UnknownUser));
            }
            if tables.is_contact(asker, to)? && tables.is_contact(asked, asker.id)? {
                return Ok(Ok(Asked::AlreadyContacts));
            }
            let sql = "SELECT 1 FROM ringpost_pre_contacts WHERE tenant = $1
                       AND (asked, asker) IN (($2, $3), ($3, $2))";
            if tables.is(sql, &[&tenant, &from_id, &to_id])? {
                return Ok(Ok(Asked::Pending));
            }
            let sql = "SELECT greatest(
                (SELECT count(*) FROM ringpost_pre_contacts WHERE tenant = $1 AND asked = $2),
                (SELECT count(*) FROM ringpost_pre_contacts WHERE tenant = $1 AND asker = $3))";
            let waiting: Option<i64> = tables.value(sql, &[&tenant, &to_id, &from_id])?;
            if waiting.unwrap_or(0) >= i64::from(CONTACTS_MAX) {
                return Ok(Err(StoreError::Full));
            }
            let sql = "INSERT INTO ringpost_pre_contacts (tenant, asked, asker, message, time_s)
                       VALUES ($1, $2, $3, $4, $5)";
            tables.change(sql, &[&tenant, &to_id, &from_id, &message, &time_s])?;
            Ok(Ok(Asked::Done))
        })
    }

    pub(crate) fn accept_contact(
        &mut self,
        user: UserKey,
        asker: UserId,
    ) -> Outcome<Option<(u64, u64)>> {
        let (tenant, id) = key(user);
        self.attempt(Kind::Change(user.tenant), |tables| {
            let sql = "DELETE FROM ringpost_pre_contacts
                       WHERE tenant = $1 AND asked = $2 AND asker = $3";
            if tables.change(sql, &[&tenant, &id, &i64::from(asker.0)])? == 0 {
                return Ok(Ok(None));
            }
            let mut versions = [0; 2];
            for ((one, other), version) in
                [(user.id, asker), (asker, user.id)].into_iter().zip(&mut versions)
            {
                let one = UserKey { id: one, ..user };
                if !tables.is_contact(one, other)? {
                    if tables.contact_count(one)? >= CONTACTS_MAX {
                        return Ok(Err(StoreError::Full));
                    }
                    tables.add_contact(one, other)?;
                }
                let sql = "SELECT contact_version FROM ringpost_users
                           WHERE tenant = $1 AND id = $2";
                let found = tables.row(sql, &[&tenant, &key(one).1], |row| number(row, 0))?;
                *version = found.unwrap_or(0);
            }
            Ok(Ok(Some((versions[0], versions[1]))))
        })
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
        if !is_short(title) {
            return Ok(Err(StoreError::Full));
        }
        let tenant = creator.tenant;
        let key = new_group_key();
        self.attempt(Kind::Change(tenant), |tables| {
            let id = tables.free_group_id(tenant)?;
            let Some(id) = id.filter(|_| members.len() < tables.members_max() as usize) else {
                return Ok(Err(StoreError::Full));
            };
            if tables.group_count(creator)? >= GROUPS_MAX {
                return Ok(Err(StoreError::Full));
            }
            let mut users = vec![creator.id];
            for &id in members {
                if tables.name_of(UserKey { tenant, id })?.is_some() {
                    users.push(id);
                }
            }
            let about =
                roster::NewGroup { name: None, title, owner: Some(creator.id), key: Some(&key) };
            let group = GroupKey { tenant, id };
            let members = roster::populate(tables, group, &about, &users)?;
            Ok(Ok(NewGroup { id, key: key.clone(), members }))
        })
    }

    pub(crate) fn delete_owned_group(
        &mut self,
        group: GroupKey,
        creator: UserId,
    ) -> Result<GroupChange> {
        self.run(Kind::Change(group.tenant), |tables| {
            let his = owned(tables, group, creator)?;
            if his == GroupChange::Done {
                tables.delete_group(group)?;
            }
            Ok(his)
        })
    }

    pub(crate) fn join_group(
        &mut self,
        group: GroupKey,
        user: UserId,
        key: &[u8],
    ) -> Outcome<GroupChange> {
        let sql = "SELECT coalesce(key, '') FROM ringpost_groups WHERE tenant = $1 AND id = $2";
        let (tenant, id) = super::roster::group_key(group);
        self.attempt(Kind::Change(group.tenant), |tables| {
            let Some(right) = tables.value::<String>(sql, &[&tenant, &id])? else {
                return Ok(Ok(GroupChange::UnknownGroup));
            };
            if right.is_empty() || !bool::from(right.as_bytes().ct_eq(key)) {
                return Ok(Ok(GroupChange::NotAllowed));
            }
            take_in(tables, group, user)
        })
    }

    pub(crate) fn add_member(
        &mut self,
        group: GroupKey,
        creator: UserId,
        user: UserId,
    ) -> Outcome<GroupChange> {
        self.attempt(Kind::Change(group.tenant), |tables| match owned(tables, group, creator)? {
            GroupChange::Done => take_in(tables, group, user),
            refused => Ok(Ok(refused)),
        })
    }

    pub(crate) fn leave_group(&mut self, group: GroupKey, user: UserId) -> Result<GroupChange> {
        self.run(Kind::Change(group.tenant), |tables| {
            if !tables.has_group(group)? {
                return Ok(GroupChange::UnknownGroup);
            }
            let left = roster::leave(tables, group, user)?;
            Ok(if left { GroupChange::Done } else { GroupChange::NotMember })
        })
    }
}

/// [`GroupChange::Done`] if the group is the creator's.
fn owned(tables: &mut Tables<'_>, group: GroupKey, creator: UserId) -> Result<GroupChange> {
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
fn account(row: &Row) -> Result<Account> {
    let name: Vec<u8> = get(row, 1)?;
    let text = |column| Ok::<_, super::CallError>(get::<String>(row, column)?.into_bytes().into());
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
