//! What the command line does to an embedded store, possibly while a gateway uses the same file:
//! users, groups, tenants, dead letters.
//!
//! Owns: these changes, each one transaction. Never: password hashing (`auth`), talking to a
//! gateway; a running one sees the change by [`crate::Store::changed`] and
//! [`crate::Store::take_requeued`].

use codec::{GroupId, GroupKey, Message, TenantId, UserId, UserKey};
use rusqlite::{Error, ErrorCode, Result as SqlResult, params};

use crate::names::Names as _;
use crate::roster::{self, Roster as _};
use crate::sqlite::{Batch, CallError, SqliteStore, Tables, message, unsigned, user_key};

/// A user to make.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub key: UserKey,
    pub name: Box<[u8]>,
    /// PHC string, see [`crate::auth::hash_password`]; empty if only open authentication knows him.
    pub password_hash: String,
    pub phone: Option<String>,
}

/// A user as the operator sees him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserInfo {
    pub id: UserId,
    pub name: Box<[u8]>,
    pub phone: Option<String>,
    pub has_password: bool,
}

/// A group to make.
#[derive(Clone, Debug, Default)]
pub struct NewGroup {
    pub key: GroupKey,
    /// What it is addressed by, besides its id.
    pub name: Option<Box<[u8]>>,
    pub title: Box<[u8]>,
    /// Becomes a member, the first one.
    pub owner: Option<UserId>,
    pub members: Vec<UserId>,
}

/// A group as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    pub id: GroupId,
    pub name: Option<Box<[u8]>>,
    pub title: Box<[u8]>,
    pub owner: Option<UserId>,
    pub members: u64,
}

/// A message that was given up and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Never used again for another one.
    pub id: i64,
    pub user: UserKey,
    pub seq: u64,
    /// As [`crate::DeadReason::label`], or what a newer version wrote.
    pub reason: String,
    /// Milliseconds since 1970.
    pub died_ms: u64,
    /// `None`: this version cannot decode it.
    pub message: Option<std::sync::Arc<Message>>,
}

/// A tenant and its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    pub org: String,
    pub appkey: String,
}

/// Why nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub enum AdminError {
    IdTaken(UserId),
    NameTaken(Box<[u8]>),
    PhoneTaken(String),
    NoUser(UserId),
    GroupTaken(GroupId),
    GroupNameTaken(Box<[u8]>),
    NoGroup(GroupId),
    /// More members than the bound.
    GroupTooLarge(GroupId, u32),
    NoDeadLetter(i64),
    /// The store did not do it; for people.
    Store(String),
}

impl std::fmt::Display for AdminError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IdTaken(id) => write!(f, "the user id {id} is taken"),
            Self::NameTaken(name) => write!(f, "the name \"{}\" is taken", name.escape_ascii()),
            Self::PhoneTaken(phone) => write!(f, "the phone number {phone} is taken"),
            Self::NoUser(id) => write!(f, "there is no user {id}"),
            Self::GroupTaken(id) => write!(f, "the group id {id} is taken"),
            Self::GroupNameTaken(name) => {
                write!(f, "the group name \"{}\" is taken", name.escape_ascii())
            }
            Self::NoGroup(id) => write!(f, "there is no group {id}"),
            Self::GroupTooLarge(id, max) => {
                write!(f, "group {id} would have more than {max} members")
            }
            Self::NoDeadLetter(id) => write!(f, "there is no dead letter {id}"),
            Self::Store(text) => write!(f, "the store: {text}"),
        }
    }
}

impl std::error::Error for AdminError {}

impl From<CallError> for AdminError {
    fn from(error: CallError) -> Self {
        Self::Store(error.to_string())
    }
}

/// The outer result is the database's, the inner one the operator's.
type Outcome<T> = SqlResult<Result<T, AdminError>>;

impl SqliteStore {
    /// One transaction that a running gateway is to hear of.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Batch<'_>) -> Outcome<T>,
    ) -> Result<Result<T, AdminError>, CallError> {
        self.transact(|batch| {
            batch.note_change();
            change(batch)
        })
    }
}

/// Users.
impl SqliteStore {
    /// Makes users, all or none. The time is that of one commit.
    ///
    /// # Errors
    /// The first whose id, name or phone number is taken; [`AdminError::Store`].
    pub fn add_users(&mut self, users: &[NewUser]) -> Result<(), AdminError> {
        self.change(|batch| {
            for user in users {
                if let Err(error) = add_user(batch, user)? {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        })?
    }

    /// Makes one user.
    ///
    /// # Errors
    /// As [`Self::add_users`].
    pub fn add_user(&mut self, user: NewUser) -> Result<(), AdminError> {
        self.add_users(&[user])
    }

    /// Forgets a user and everything kept for him: memberships, contacts, tokens, messages, dead
    /// letters. Whoever gets the id later reads none of it. His groups pass to the member who is
    /// there the longest, or to nobody.
    ///
    /// # Errors
    /// [`AdminError::NoUser`], [`AdminError::Store`].
    pub fn delete_user(&mut self, user: UserKey) -> Result<(), AdminError> {
        self.change(|batch| {
            let key = (user.tenant.0, user.id.0);
            let sql = "DELETE FROM users WHERE tenant = ?1 AND id = ?2";
            if batch.conn().execute(sql, key)? == 0 {
                return Ok(Err(AdminError::NoUser(user.id)));
            }
            for sql in [
                "DELETE FROM group_members WHERE tenant = ?1 AND user = ?2",
                "DELETE FROM contacts WHERE tenant = ?1 AND user = ?2",
                "DELETE FROM contacts WHERE tenant = ?1 AND contact = ?2",
                "DELETE FROM pre_contacts WHERE tenant = ?1 AND asked = ?2",
                "DELETE FROM pre_contacts WHERE tenant = ?1 AND asker = ?2",
                "DELETE FROM tokens WHERE tenant = ?1 AND user = ?2",
            ] {
                batch.conn().execute(sql, key)?;
            }
            Tables::for_names(batch.conn()).disown(user)?;
            batch.clear_user(user)?;
            Ok(Ok(()))
        })?
    }

    /// Users of a tenant by rising id, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn list_users(
        &mut self,
        tenant: TenantId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<UserInfo>, AdminError> {
        let sql = "SELECT id, name, phone, password_hash <> '' FROM users
                   WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        let after = after.map_or(-1, |id| i64::from(id.0));
        let users = self.select(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let users = statement.query_map((tenant.0, after, limit), |row| {
                let name: Vec<u8> = row.get(1)?;
                Ok(UserInfo {
                    id: UserId(row.get(0)?),
                    name: name.into(),
                    phone: row.get(2)?,
                    has_password: row.get(3)?,
                })
            })?;
            users.collect()
        })?;
        Ok(users)
    }
}

/// Groups. Members need not exist as users: open authentication makes those as they come.
impl SqliteStore {
    /// Makes a group.
    ///
    /// # Errors
    /// [`AdminError::GroupTaken`], [`AdminError::GroupNameTaken`], [`AdminError::GroupTooLarge`],
    /// [`AdminError::Store`].
    pub fn create_group(&mut self, group: &NewGroup) -> Result<(), AdminError> {
        let members_max = self.options().group_members_max;
        let NewGroup { key, name, title, owner, members } = group;
        self.change(|batch| {
            let mut tables = Tables { conn: batch.conn(), members_max };
            if tables.has_group(*key)? {
                return Ok(Err(AdminError::GroupTaken(key.id)));
            }
            if let Some(name) = name
                && tables.group_named(key.tenant, name)?.is_some()
            {
                return Ok(Err(AdminError::GroupNameTaken(name.clone())));
            }
            let name = name.as_deref();
            tables.add_group(*key, &roster::NewGroup { name, title, owner: *owner, key: None })?;
            let owner = owner.as_ref().map(std::slice::from_ref).unwrap_or_default();
            match add_members(batch, *key, owner, members_max)? {
                Ok(()) => add_members(batch, *key, members, members_max),
                refused => Ok(refused),
            }
        })?
    }

    /// Adds members; those who are in it already stay in it.
    ///
    /// # Errors
    /// [`AdminError::NoGroup`], [`AdminError::GroupTooLarge`], [`AdminError::Store`].
    pub fn add_members(&mut self, group: GroupKey, members: &[UserId]) -> Result<(), AdminError> {
        let members_max = self.options().group_members_max;
        self.change(|batch| match find_group(batch, group)? {
            Ok(()) => add_members(batch, group, members, members_max),
            Err(error) => Ok(Err(error)),
        })?
    }

    /// Removes members; those who are not in it do not matter. Returns how many were. A group that
    /// loses its owner passes to the member who is there the longest, or to nobody.
    ///
    /// # Errors
    /// [`AdminError::NoGroup`], [`AdminError::Store`].
    pub fn remove_members(
        &mut self,
        group: GroupKey,
        members: &[UserId],
    ) -> Result<u64, AdminError> {
        let sql = "DELETE FROM group_members WHERE tenant = ?1 AND group_id = ?2 AND user = ?3";
        self.change(|batch| {
            if let Err(error) = find_group(batch, group)? {
                return Ok(Err(error));
            }
            let mut statement = batch.conn().prepare_cached(sql)?;
            let mut removed = 0;
            for member in members {
                removed += statement.execute((group.tenant.0, group.id.0, member.0))? as u64;
            }
            let tables = Tables::for_names(batch.conn());
            for &id in members {
                tables.disown(UserKey { tenant: group.tenant, id })?;
            }
            Ok(Ok(removed))
        })?
    }

    /// Forgets a group.
    ///
    /// # Errors
    /// [`AdminError::NoGroup`], [`AdminError::Store`].
    pub fn delete_group(&mut self, group: GroupKey) -> Result<(), AdminError> {
        self.change(|batch| {
            let sql = "DELETE FROM groups WHERE tenant = ?1 AND id = ?2";
            let deleted = batch.conn().execute(sql, (group.tenant.0, group.id.0))?;
            Ok(if deleted == 0 { Err(AdminError::NoGroup(group.id)) } else { Ok(()) })
        })?
    }

    /// Groups of a tenant by rising id, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn list_groups(
        &mut self,
        tenant: TenantId,
        after: Option<GroupId>,
        limit: u32,
    ) -> Result<Vec<GroupInfo>, AdminError> {
        let sql = "SELECT id, name, title, owner, (SELECT count(*) FROM group_members m
                              WHERE m.tenant = g.tenant AND m.group_id = g.id)
                   FROM groups g WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        let after = after.map_or(-1, |id| i64::from(id.0));
        let groups = self.select(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let groups = statement.query_map((tenant.0, after, limit), |row| {
                Ok(GroupInfo {
                    id: GroupId(row.get(0)?),
                    name: row.get::<_, Option<Vec<u8>>>(1)?.map(Into::into),
                    title: row.get::<_, Vec<u8>>(2)?.into(),
                    owner: row.get::<_, Option<u32>>(3)?.map(UserId),
                    members: unsigned(row, 4)?,
                })
            })?;
            groups.collect()
        })?;
        Ok(groups)
    }
}

/// Dead letters.
impl SqliteStore {
    /// Dead letters by rising id, those after `after` (0: from the first), at most `limit`.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn dead_letters(&mut self, after: i64, limit: u32) -> Result<Vec<DeadLetter>, AdminError> {
        let sql = "SELECT d.tenant, d.user, d.stamp, d.time_ms, coalesce(d.head, b.head),
                          coalesce(d.body, b.body), d.id, d.seq, d.reason, d.died_ms
                   FROM dead_letters d
                   LEFT JOIN bodies b ON d.head IS NULL AND b.stamp = d.stamp
                   WHERE d.id > ?1 ORDER BY d.id LIMIT ?2";
        let letters = self.select(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let letters = statement.query_map((after, limit), |row| {
                Ok(DeadLetter {
                    id: row.get(6)?,
                    user: user_key(row)?,
                    seq: unsigned(row, 7)?,
                    reason: row.get(8)?,
                    died_ms: unsigned(row, 9)?,
                    message: message(row, 2)?.map(Into::into),
                })
            })?;
            letters.collect()
        })?;
        Ok(letters)
    }

    /// Puts dead letters back in their old places, without charges, even above the user's cap; all
    /// or none. A running gateway delivers them within its polling time.
    ///
    /// # Errors
    /// [`AdminError::NoDeadLetter`], [`AdminError::Store`].
    pub fn requeue(&mut self, ids: &[i64]) -> Result<(), AdminError> {
        self.change(|batch| each(ids, |id| batch.requeue(id)))?
    }

    /// Forgets dead letters, all or none.
    ///
    /// # Errors
    /// [`AdminError::NoDeadLetter`], [`AdminError::Store`].
    pub fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<(), AdminError> {
        self.transact(|batch| each(ids, |id| batch.drop_dead(id)))?
    }
}

/// Tenants. Id 0 is there from the start, as `default/default`.
impl SqliteStore {
    /// The tenant of that name, made if it is new.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn tenant(&mut self, org: &str, appkey: &str) -> Result<TenantId, AdminError> {
        if let Some(found) = self.find_tenant(org, appkey)? {
            return Ok(found);
        }
        self.transact(|batch| {
            let conn = batch.conn();
            let insert = "INSERT INTO tenants (org, appkey) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            conn.execute(insert, [org, appkey])?;
            let sql = "SELECT id FROM tenants WHERE org = ?1 AND appkey = ?2";
            conn.query_row(sql, [org, appkey], |row| row.get(0).map(|id| Ok(TenantId(id))))
        })?
    }

    /// All tenants by rising id.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn tenants(&mut self) -> Result<Vec<Tenant>, AdminError> {
        let tenants = self.select(|conn| {
            let mut statement = conn.prepare("SELECT id, org, appkey FROM tenants ORDER BY id")?;
            let tenants = statement.query_map([], |row| {
                Ok(Tenant { id: TenantId(row.get(0)?), org: row.get(1)?, appkey: row.get(2)? })
            })?;
            tenants.collect()
        })?;
        Ok(tenants)
    }
}

fn add_user(batch: &Batch<'_>, user: &NewUser) -> Outcome<()> {
    let NewUser { key, name, password_hash, phone } = user;
    let sql = "INSERT INTO users (tenant, id, name, password_hash, phone)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = batch.conn().prepare_cached(sql)?;
    match insert.execute(params![key.tenant.0, key.id.0, name, password_hash, phone]) {
        Ok(_) => Ok(Ok(())),
        Err(error) if is_conflict(&error) => Ok(Err(why_taken(batch, user)?)),
        Err(error) => Err(error),
    }
}

fn why_taken(batch: &Batch<'_>, user: &NewUser) -> SqlResult<AdminError> {
    let NewUser { key, name, phone, .. } = user;
    let tenant = key.tenant.0;
    let sql = "SELECT 1 FROM users WHERE tenant = ?1 AND id = ?2";
    if batch.conn().prepare_cached(sql)?.exists((tenant, key.id.0))? {
        return Ok(AdminError::IdTaken(key.id));
    }
    let sql = "SELECT 1 FROM users WHERE tenant = ?1 AND name = ?2";
    if batch.conn().prepare_cached(sql)?.exists((tenant, name))? {
        return Ok(AdminError::NameTaken(name.clone()));
    }
    Ok(AdminError::PhoneTaken(phone.clone().unwrap_or_default()))
}

fn find_group(batch: &Batch<'_>, group: GroupKey) -> Outcome<()> {
    let found = Tables::for_names(batch.conn()).has_group(group)?;
    Ok(if found { Ok(()) } else { Err(AdminError::NoGroup(group.id)) })
}

fn add_members(
    batch: &Batch<'_>,
    group: GroupKey,
    members: &[UserId],
    members_max: u32,
) -> Outcome<()> {
    // Those who come at once have come at the same time.
    let sql = "UPDATE groups SET joins = joins + 1 WHERE tenant = ?1 AND id = ?2 RETURNING joins";
    let joined: i64 =
        batch.conn().query_row(sql, (group.tenant.0, group.id.0), |row| row.get(0))?;
    let sql = "INSERT INTO group_members (tenant, group_id, user, joined) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT DO NOTHING";
    let mut insert = batch.conn().prepare_cached(sql)?;
    for member in members {
        insert.execute((group.tenant.0, group.id.0, member.0, joined))?;
    }
    let sql = "SELECT count(*) FROM group_members WHERE tenant = ?1 AND group_id = ?2";
    let count =
        batch.conn().query_row(sql, (group.tenant.0, group.id.0), |row| unsigned(row, 0))?;
    let fits = count <= u64::from(members_max);
    Ok(if fits { Ok(()) } else { Err(AdminError::GroupTooLarge(group.id, members_max)) })
}

/// `change` says whether there was a dead letter of that id.
fn each(ids: &[i64], mut change: impl FnMut(i64) -> SqlResult<bool>) -> Outcome<()> {
    for id in ids {
        if !change(*id)? {
            return Ok(Err(AdminError::NoDeadLetter(*id)));
        }
    }
    Ok(Ok(()))
}

fn is_conflict(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}
