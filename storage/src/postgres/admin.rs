//! What the command line does to the tables, possibly while gateways use them.
//!
//! Owns: these changes, each one transaction, with errors that name what stands in the way. Never:
//! password hashing (`auth`), dead letters (`redis`).

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};

use super::roster::group_key;
use super::{CallError, Kind, Postgres, Result, Tables, get, key, number};
use crate::admin::{AdminError, GroupInfo, NewGroup, NewUser, Tenant, UserInfo};
use crate::names::Names as _;
use crate::roster::{self, Roster as _};

/// The outer result is the database's, the inner one the operator's.
type Outcome<T> = Result<std::result::Result<T, AdminError>>;

impl Postgres {
    /// As [`crate::Admin::add_users`].
    pub(crate) fn add_users(&mut self, users: &[NewUser]) -> Outcome<()> {
        let Some(first) = users.first() else { return Ok(Ok(())) };
        let kind = Kind::Change(first.key.tenant);
        let all = self.attempt(kind, |tables| {
            let all = insert_users(tables, users)? == users.len() as u64;
            Ok(if all { Ok(()) } else { Err(()) })
        })?;
        if all.is_ok() {
            return Ok(Ok(()));
        }
        // Somebody is there already: who, tells one after the other.
        self.attempt(kind, |tables| {
            for user in users {
                if let Some(taken) = why_taken(tables, user)? {
                    return Ok(Err(taken));
                }
                insert_users(tables, std::slice::from_ref(user))?;
            }
            Ok(Ok(()))
        })
    }

    /// Forgets a user. `false`: there is none.
    pub(crate) fn delete_user(&mut self, user: UserKey) -> Result<bool> {
        let (tenant, id) = key(user);
        self.run(Kind::Change(user.tenant), |tables| {
            for sql in [
                "DELETE FROM ringpost_members WHERE tenant = $1 AND user_id = $2",
                "DELETE FROM ringpost_contacts WHERE tenant = $1 AND user_id = $2",
                "DELETE FROM ringpost_contacts WHERE tenant = $1 AND contact = $2",
                "DELETE FROM ringpost_pre_contacts WHERE tenant = $1 AND asked = $2",
                "DELETE FROM ringpost_pre_contacts WHERE tenant = $1 AND asker = $2",
            ] {
                tables.change(sql, &[&tenant, &id])?;
            }
            // Before he goes, lest the original system takes his groups with him.
            tables.disown(user)?;
            let sql = "DELETE FROM ringpost_users WHERE tenant = $1 AND id = $2";
            Ok(tables.change(sql, &[&tenant, &id])? > 0)
        })
    }

    /// As [`crate::Admin::list_users`].
    pub(crate) fn list_users(
        &mut self,
        tenant: TenantId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<UserInfo>> {
        let sql = "SELECT id, name, phone, password_hash <> '' FROM ringpost_users
                   WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";
        let (tenant, after) = (i64::from(tenant.0), after.map_or(-1, |id| i64::from(id.0)));
        self.run(Kind::Single, |tables| {
            tables.rows(sql, &[&tenant, &after, &i64::from(limit)], |row| {
                Ok(UserInfo {
                    id: UserId(number(row, 0)?),
                    name: get::<Vec<u8>>(row, 1)?.into(),
                    phone: get(row, 2)?,
                    has_password: get(row, 3)?,
                })
            })
        })
    }

    /// As [`crate::Admin::create_group`].
    pub(crate) fn create_group(&mut self, group: &NewGroup) -> Outcome<()> {
        let NewGroup { key, name, title, owner, members } = group;
        self.attempt(Kind::Change(key.tenant), |tables| {
            if tables.has_group(*key)? {
                return Ok(Err(AdminError::GroupTaken(key.id)));
            }
            let name = name.as_deref();
            if let Some(name) = name
                && tables.group_named(key.tenant, name)?.is_some()
            {
                return Ok(Err(AdminError::GroupNameTaken(name.into())));
            }
            tables.add_group(*key, &roster::NewGroup { name, title, owner: *owner, key: None })?;
            let owner = owner.as_ref().map(std::slice::from_ref).unwrap_or_default();
            match add_members(tables, *key, owner)? {
                Ok(()) => add_members(tables, *key, members),
                refused => Ok(refused),
            }
        })
    }

    /// As [`crate::Admin::add_members`].
    pub(crate) fn add_members(&mut self, group: GroupKey, members: &[UserId]) -> Outcome<()> {
        self.attempt(Kind::Change(group.tenant), |tables| match tables.has_group(group)? {
            true => add_members(tables, group, members),
            false => Ok(Err(AdminError::NoGroup(group.id))),
        })
    }

    /// As [`crate::Admin::remove_members`].
    pub(crate) fn remove_members(&mut self, group: GroupKey, members: &[UserId]) -> Outcome<u64> {
        let (tenant, id) = group_key(group);
        let ids: Vec<i64> = members.iter().map(|id| id.0.into()).collect();
        self.attempt(Kind::Change(group.tenant), |tables| {
            if !tables.has_group(group)? {
                return Ok(Err(AdminError::NoGroup(group.id)));
            }
            let sql = "DELETE FROM ringpost_members
                       WHERE tenant = $1 AND group_id = $2 AND user_id = ANY ($3)";
            let removed = tables.change(sql, &[&tenant, &id, &ids])?;
            for &id in members {
                tables.disown(UserKey { tenant: group.tenant, id })?;
            }
            Ok(Ok(removed))
        })
    }

    /// Forgets a group. `false`: there is none.
    pub(crate) fn delete_any_group(&mut self, group: GroupKey) -> Result<bool> {
        let (tenant, id) = group_key(group);
        let sql = "DELETE FROM ringpost_groups WHERE tenant = $1 AND id = $2";
        self.run(Kind::Change(group.tenant), |tables| Ok(tables.change(sql, &[&tenant, &id])? > 0))
    }

    /// As [`crate::Admin::list_groups`].
    pub(crate) fn list_groups(
        &mut self,
        tenant: TenantId,
        after: Option<GroupId>,
        limit: u32,
    ) -> Result<Vec<GroupInfo>> {
        let sql = "SELECT id, name, title, owner, (SELECT count(*) FROM ringpost_members m
                              WHERE m.tenant = g.tenant AND m.group_id = g.id)
                   FROM ringpost_groups g WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";
        let (tenant, after) = (i64::from(tenant.0), after.map_or(-1, |id| i64::from(id.0)));
        self.run(Kind::Single, |tables| {
            tables.rows(sql, &[&tenant, &after, &i64::from(limit)], |row| {
                let owner = get::<Option<i64>>(row, 3)?;
                Ok(GroupInfo {
                    id: GroupId(number(row, 0)?),
                    name: get::<Option<Vec<u8>>>(row, 1)?.map(Into::into),
                    title: get::<Vec<u8>>(row, 2)?.into(),
                    owner: owner.map(|_| number(row, 3)).transpose()?.map(UserId),
                    members: number(row, 4)?,
                })
            })
        })
    }

    /// The tenant of that name.
    pub(crate) fn find_tenant(&mut self, org: &str, appkey: &str) -> Result<Option<TenantId>> {
        self.run(Kind::Single, |tables| find_tenant(tables, org, appkey))
    }

    /// As [`crate::Admin::tenant_id`].
    pub(crate) fn tenant(&mut self, org: &str, appkey: &str) -> Result<TenantId> {
        if let Some(found) = self.find_tenant(org, appkey)? {
            return Ok(found);
        }
        // The lock of the first tenant stands for the list of all.
        self.run(Kind::Change(TenantId(0)), |tables| {
            let sql = "INSERT INTO ringpost_tenants
                       SELECT max(id) + 1, $1, $2 FROM ringpost_tenants ON CONFLICT DO NOTHING";
            tables.change(sql, &[&org, &appkey])?;
            find_tenant(tables, org, appkey)?.ok_or(CallError::Value)
        })
    }

    /// As [`crate::Admin::tenants`].
    pub(crate) fn tenants(&mut self) -> Result<Vec<Tenant>> {
        let sql = "SELECT id, org, appkey FROM ringpost_tenants ORDER BY id";
        self.run(Kind::Single, |tables| {
            tables.rows(sql, &[], |row| {
                let id = TenantId(number(row, 0)?);
                Ok(Tenant { id, org: get(row, 1)?, appkey: get(row, 2)? })
            })
        })
    }

    /// Gives ids their names, those that are free.
    pub(crate) fn bind(&mut self, names: &[(UserKey, &[u8])]) -> Result<()> {
        let (tenants, ids): (Vec<_>, Vec<_>) = names.iter().map(|(user, _)| key(*user)).unzip();
        let names: Vec<&[u8]> = names.iter().map(|(_, name)| *name).collect();
        let sql = "INSERT INTO ringpost_users (tenant, id, name)
                   SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])
                   ON CONFLICT DO NOTHING";
        self.run(Kind::Single, |tables| tables.change(sql, &[&tenants, &ids, &names]).map(drop))
    }
}

fn find_tenant(tables: &mut Tables<'_>, org: &str, appkey: &str) -> Result<Option<TenantId>> {
    let sql = "SELECT id FROM ringpost_tenants WHERE org = $1 AND appkey = $2";
    Ok(tables.row(sql, &[&org, &appkey], |row| number(row, 0))?.map(TenantId))
}

/// Those whose id, name and phone number are free. How many were.
fn insert_users(tables: &mut Tables<'_>, users: &[NewUser]) -> Result<u64> {
    let (tenants, ids): (Vec<_>, Vec<_>) = users.iter().map(|user| key(user.key)).unzip();
    let names: Vec<&[u8]> = users.iter().map(|user| &*user.name).collect();
    let hashes: Vec<&str> = users.iter().map(|user| &*user.password_hash).collect();
    let phones: Vec<Option<&str>> = users.iter().map(|user| user.phone.as_deref()).collect();
    let sql = "INSERT INTO ringpost_users (tenant, id, name, password_hash, phone)
               SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::text[], $5::text[])
               ON CONFLICT DO NOTHING";
    tables.change(sql, &[&tenants, &ids, &names, &hashes, &phones])
}

fn why_taken(tables: &mut Tables<'_>, user: &NewUser) -> Result<Option<AdminError>> {
    let NewUser { key: id, name, phone, .. } = user;
    if tables.name_of(*id)?.is_some() {
        return Ok(Some(AdminError::IdTaken(id.id)));
    }
    if tables.user_named(id.tenant, name)?.is_some() {
        return Ok(Some(AdminError::NameTaken(name.clone())));
    }
    let Some(phone) = phone else { return Ok(None) };
    let sql = "SELECT 1 FROM ringpost_users WHERE tenant = $1 AND phone = $2";
    let taken = tables.is(sql, &[&i64::from(id.tenant.0), phone])?;
    Ok(taken.then(|| AdminError::PhoneTaken(phone.clone())))
}

fn add_members(tables: &mut Tables<'_>, group: GroupKey, members: &[UserId]) -> Outcome<()> {
    let (tenant, id) = group_key(group);
    // Those who come at once have come at the same time.
    let sql = "UPDATE ringpost_groups SET joins = joins + 1 WHERE tenant = $1 AND id = $2
               RETURNING joins";
    let joined: i64 = tables.value(sql, &[&tenant, &id])?.unwrap_or(0);
    let ids: Vec<i64> = members.iter().map(|id| id.0.into()).collect();
    let sql = "INSERT INTO ringpost_members (tenant, group_id, user_id, joined)
               SELECT $1, $2, user_id, $4 FROM unnest($3::bigint[]) AS user_id
               ON CONFLICT DO NOTHING";
    tables.change(sql, &[&tenant, &id, &ids, &joined])?;
    let members_max = tables.members_max();
    let fits = tables.member_count(group)? <= members_max;
    Ok(if fits { Ok(()) } else { Err(AdminError::GroupTooLarge(group.id, members_max)) })
}
