//! The operator's changes of the embedded store, each one transaction.
//!
//! Owns: their SQL. Never: what a write of a gateway means (`batch`).

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};
use rusqlite::{Error, ErrorCode, Result as SqlResult, params};

use super::{Batch, CallError, SqliteStore, Tables, message, unsigned, user_key};
use crate::admin::{Admin, AdminError, DeadLetter, GroupInfo, NewGroup, NewUser, Tenant, UserInfo};
use crate::names::Names as _;
use crate::roster::{self, Roster as _};

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

impl Admin for SqliteStore {
    fn add_users(&mut self, users: &[NewUser]) -> Result<(), AdminError> {
        self.change(|batch| {
            for user in users {
                if let Err(error) = add_user(batch, user)? {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        })?
    }

    fn add_user(&mut self, user: NewUser) -> Result<(), AdminError> {
        self.add_users(&[user])
    }

    fn delete_user(&mut self, user: UserKey) -> Result<(), AdminError> {
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

    fn list_users(
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

    fn create_group(&mut self, group: &NewGroup) -> Result<(), AdminError> {
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

    fn add_members(&mut self, group: GroupKey, members: &[UserId]) -> Result<(), AdminError> {
        let members_max = self.options().group_members_max;
        self.change(|batch| match find_group(batch, group)? {
            Ok(()) => add_members(batch, group, members, members_max),
            Err(error) => Ok(Err(error)),
        })?
    }

    fn remove_members(&mut self, group: GroupKey, members: &[UserId]) -> Result<u64, AdminError> {
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

    fn delete_group(&mut self, group: GroupKey) -> Result<(), AdminError> {
        self.change(|batch| {
            let sql = "DELETE FROM groups WHERE tenant = ?1 AND id = ?2";
            let deleted = batch.conn().execute(sql, (group.tenant.0, group.id.0))?;
            Ok(if deleted == 0 { Err(AdminError::NoGroup(group.id)) } else { Ok(()) })
        })?
    }

    fn list_groups(
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

    fn dead_letters(&mut self, after: i64, limit: u32) -> Result<Vec<DeadLetter>, AdminError> {
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

    fn requeue(&mut self, ids: &[i64]) -> Result<(), AdminError> {
        self.change(|batch| each(ids, |id| batch.requeue(id)))?
    }

    fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<(), AdminError> {
        self.transact(|batch| each(ids, |id| batch.drop_dead(id)))?
    }

    fn tenant_id(&mut self, org: &str, appkey: &str) -> Result<TenantId, AdminError> {
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

    fn tenants(&mut self) -> Result<Vec<Tenant>, AdminError> {
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
