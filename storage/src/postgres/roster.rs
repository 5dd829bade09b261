//! Users, groups and contacts in SQL: the primitives of names and of the roster's rules.
//!
//! Owns: these statements. Never: a rule, nor a transaction.

use std::time::Instant;

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};
use tokio::runtime::Runtime;
use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

use super::{CallError, Params, Result, Session, get, key, number};
use crate::names::Names;
use crate::roster::{FIRST_GROUP_ID, GroupHead, LAST_GROUP_ID, Name, NewGroup, Roster};

/// The tables, for as long as a call or a transaction lasts.
pub(crate) struct Tables<'s> {
    pub(super) runtime: &'s Runtime,
    pub(super) session: &'s mut Session,
    pub(super) deadline: Instant,
    /// Members of a group.
    pub(super) members_max: u32,
}

impl Tables<'_> {
    pub(crate) fn rows<T>(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
        read: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        let session = &mut *self.session;
        let rows = Session::wait(self.runtime, self.deadline, async {
            let statement = session.prepared(sql).await?;
            Ok(session.client.query(&statement, params).await?)
        });
        rows?.iter().map(read).collect()
    }

    /// The first row.
    pub(crate) fn row<T>(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
        read: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.rows(sql, params, read)?.into_iter().next())
    }

    /// The first column of the first row.
    pub(crate) fn value<T: FromSqlOwned>(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<T>> {
        self.row(sql, params, |row| get(row, 0))
    }

    /// How many rows it changed.
    pub(crate) fn change(&mut self, sql: &'static str, params: Params<'_>) -> Result<u64> {
        let session = &mut *self.session;
        Session::wait(self.runtime, self.deadline, async {
            let statement = session.prepared(sql).await?;
            Ok(session.client.execute(&statement, params).await?)
        })
    }

    /// A statement about the transaction.
    pub(super) fn control(&mut self, sql: &'static str) -> Result<()> {
        let client = &self.session.client;
        Session::wait(self.runtime, self.deadline, async { Ok(client.batch_execute(sql).await?) })
    }

    pub(crate) fn is(&mut self, sql: &'static str, params: Params<'_>) -> Result<bool> {
        Ok(self.row(sql, params, |_| Ok(()))?.is_some())
    }

    fn count(&mut self, sql: &'static str, params: Params<'_>) -> Result<u32> {
        Ok(self.row(sql, params, |row| number(row, 0))?.unwrap_or(0))
    }

    fn id(&mut self, sql: &'static str, params: Params<'_>) -> Result<Option<u32>> {
        self.row(sql, params, |row| number(row, 0))
    }

    /// An id from `first` to `last` that is free, as the successor of the last one given out for
    /// that kind of thing. `next_free` finds the first free one from its second parameter on.
    pub(super) fn free_id(
        &mut self,
        tenant: TenantId,
        kind: &str,
        (first, last): (u32, u32),
        next_free: &'static str,
    ) -> Result<Option<u32>> {
        let tenant = i64::from(tenant.0);
        let sql = "SELECT next FROM ringpost_next_ids WHERE tenant = $1 AND kind = $2";
        let next = self.id(sql, &[&tenant, &kind])?.unwrap_or(first);
        for from in [next.clamp(first, last), first] {
            let free: i64 = self.value(next_free, &[&tenant, &i64::from(from)])?.unwrap_or(0);
            let fits = u32::try_from(free).ok().filter(|id| (first..=last).contains(id));
            let Some(id) = fits else { continue };
            // After the last one again from the first.
            let next = if id == last { first } else { id + 1 };
            let sql = "INSERT INTO ringpost_next_ids VALUES ($1, $2, $3)
                       ON CONFLICT (tenant, kind) DO UPDATE SET next = excluded.next";
            self.change(sql, &[&tenant, &kind, &i64::from(next)])?;
            return Ok(Some(id));
        }
        Ok(None)
    }

    /// Groups whose owner has left for good pass to the member who is there the longest.
    pub(super) fn disown(&mut self, user: UserKey) -> Result<()> {
        let (tenant, id) = key(user);
        let sql = "UPDATE ringpost_groups g SET owner = (SELECT m.user_id FROM ringpost_members m
                       WHERE m.tenant = g.tenant AND m.group_id = g.id
                       ORDER BY m.joined, m.user_id LIMIT 1)
                   WHERE g.tenant = $1 AND g.owner = $2 AND NOT EXISTS (
                       SELECT 1 FROM ringpost_members m
                       WHERE m.tenant = g.tenant AND m.group_id = g.id AND m.user_id = g.owner)";
        self.change(sql, &[&tenant, &id]).map(drop)
    }
}

impl Names for Tables<'_> {
    type Error = CallError;

    fn user_named(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<UserId>> {
        let sql = "SELECT id FROM ringpost_users WHERE tenant = $1 AND name = $2 AND NOT twin";
        Ok(self.id(sql, &[&i64::from(tenant.0), &name])?.map(UserId))
    }

    fn name_of(&mut self, user: UserKey) -> Result<Name> {
        let (tenant, id) = key(user);
        let sql = "SELECT name FROM ringpost_users WHERE tenant = $1 AND id = $2";
        Ok(self.value::<Vec<u8>>(sql, &[&tenant, &id])?.map(Into::into))
    }

    fn group_named(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<GroupId>> {
        let sql = "SELECT id FROM ringpost_groups WHERE tenant = $1 AND name = $2";
        Ok(self.id(sql, &[&i64::from(tenant.0), &name])?.map(GroupId))
    }

    fn has_group(&mut self, group: GroupKey) -> Result<bool> {
        let (tenant, id) = group_key(group);
        self.is("SELECT 1 FROM ringpost_groups WHERE tenant = $1 AND id = $2", &[&tenant, &id])
    }
}

impl Roster for Tables<'_> {
    fn members_max(&self) -> u32 {
        self.members_max
    }

    fn contacts(&mut self, user: UserKey) -> Result<Vec<(UserId, Name)>> {
        let (tenant, id) = key(user);
        let sql = "SELECT c.contact, u.name FROM ringpost_contacts c
                   LEFT JOIN ringpost_users u ON u.tenant = c.tenant AND u.id = c.contact
                   WHERE c.tenant = $1 AND c.user_id = $2 ORDER BY c.contact";
        self.rows(sql, &[&tenant, &id], named)
    }

    fn is_contact(&mut self, user: UserKey, contact: UserId) -> Result<bool> {
        let (tenant, id) = key(user);
        let sql = "SELECT 1 FROM ringpost_contacts
                   WHERE tenant = $1 AND user_id = $2 AND contact = $3";
        self.is(sql, &[&tenant, &id, &i64::from(contact.0)])
    }

    fn contact_count(&mut self, user: UserKey) -> Result<u32> {
        let (tenant, id) = key(user);
        let sql = "SELECT count(*) FROM ringpost_contacts WHERE tenant = $1 AND user_id = $2";
        self.count(sql, &[&tenant, &id])
    }

    fn add_contact(&mut self, user: UserKey, contact: UserId) -> Result<()> {
        let (tenant, id) = key(user);
        let sql = "UPDATE ringpost_users SET contact_version = contact_version + 1
                   WHERE tenant = $1 AND id = $2 RETURNING contact_version";
        // A user that open authentication made and nobody has written to yet has no version.
        let version: i64 = self.value(sql, &[&tenant, &id])?.unwrap_or(0);
        let sql = "INSERT INTO ringpost_contacts (tenant, user_id, contact, version)
                   VALUES ($1, $2, $3, $4)";
        self.change(sql, &[&tenant, &id, &i64::from(contact.0), &version]).map(drop)
    }

    fn remove_contact(&mut self, user: UserKey, contact: UserId) -> Result<()> {
        let (tenant, id) = key(user);
        let sql = "DELETE FROM ringpost_contacts
                   WHERE tenant = $1 AND user_id = $2 AND contact = $3";
        self.change(sql, &[&tenant, &id, &i64::from(contact.0)]).map(drop)
    }

    fn groups_of(&mut self, user: UserKey, limit: u32) -> Result<Vec<GroupHead>> {
        let (tenant, id) = key(user);
        let sql = "SELECT g.id, g.name, g.title, g.owner, u.name
                   FROM ringpost_members m
                   JOIN ringpost_groups g ON g.tenant = m.tenant AND g.id = m.group_id
                   LEFT JOIN ringpost_users u ON u.tenant = g.tenant AND u.id = g.owner
                   WHERE m.tenant = $1 AND m.user_id = $2 ORDER BY g.id LIMIT $3";
        self.rows(sql, &[&tenant, &id, &i64::from(limit)], group_head)
    }

    fn group_count(&mut self, user: UserKey) -> Result<u32> {
        let (tenant, id) = key(user);
        let sql = "SELECT count(*) FROM ringpost_members WHERE tenant = $1 AND user_id = $2";
        self.count(sql, &[&tenant, &id])
    }

    fn group(&mut self, group: GroupKey) -> Result<Option<GroupHead>> {
        let (tenant, id) = group_key(group);
        let sql = "SELECT g.id, g.name, g.title, g.owner, u.name FROM ringpost_groups g
                   LEFT JOIN ringpost_users u ON u.tenant = g.tenant AND u.id = g.owner
                   WHERE g.tenant = $1 AND g.id = $2";
        self.row(sql, &[&tenant, &id], group_head)
    }

    fn free_group_id(&mut self, tenant: TenantId) -> Result<Option<GroupId>> {
        let range = (FIRST_GROUP_ID, LAST_GROUP_ID);
        Ok(self.free_id(tenant, "group", range, NEXT_FREE_GROUP)?.map(GroupId))
    }

    fn add_group(&mut self, group: GroupKey, about: &NewGroup<'_>) -> Result<()> {
        let (tenant, id) = group_key(group);
        let NewGroup { name, title, owner, key } = about;
        let sql = "INSERT INTO ringpost_groups (tenant, id, name, title, owner, key)
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let owner = owner.map(|id| i64::from(id.0));
        self.change(sql, &[&tenant, &id, name, title, &owner, key]).map(drop)
    }

    fn delete_group(&mut self, group: GroupKey) -> Result<()> {
        let (tenant, id) = group_key(group);
        let sql = "DELETE FROM ringpost_groups WHERE tenant = $1 AND id = $2";
        self.change(sql, &[&tenant, &id]).map(drop)
    }

    fn set_owner(&mut self, group: GroupKey, owner: UserId) -> Result<()> {
        let (tenant, id) = group_key(group);
        let sql = "UPDATE ringpost_groups SET owner = $3 WHERE tenant = $1 AND id = $2";
        self.change(sql, &[&tenant, &id, &i64::from(owner.0)]).map(drop)
    }

    fn members(&mut self, group: GroupKey, limit: u32) -> Result<Vec<(UserId, Name)>> {
        let (tenant, id) = group_key(group);
        let sql = "SELECT m.user_id, u.name FROM ringpost_members m
                   LEFT JOIN ringpost_users u ON u.tenant = m.tenant AND u.id = m.user_id
                   WHERE m.tenant = $1 AND m.group_id = $2 ORDER BY m.joined, m.user_id LIMIT $3";
        self.rows(sql, &[&tenant, &id, &i64::from(limit)], named)
    }

    fn is_member(&mut self, group: GroupKey, user: UserId) -> Result<bool> {
        let (tenant, id) = group_key(group);
        let sql = "SELECT 1 FROM ringpost_members
                   WHERE tenant = $1 AND group_id = $2 AND user_id = $3";
        self.is(sql, &[&tenant, &id, &i64::from(user.0)])
    }

    fn member_count(&mut self, group: GroupKey) -> Result<u32> {
        let (tenant, id) = group_key(group);
        let sql = "SELECT count(*) FROM ringpost_members WHERE tenant = $1 AND group_id = $2";
        self.count(sql, &[&tenant, &id])
    }

    fn add_member(&mut self, group: GroupKey, user: UserId) -> Result<()> {
        let (tenant, id) = group_key(group);
        let sql = "UPDATE ringpost_groups SET joins = joins + 1 WHERE tenant = $1 AND id = $2
                   RETURNING joins";
        let joined: i64 = self.value(sql, &[&tenant, &id])?.unwrap_or(0);
        let sql = "INSERT INTO ringpost_members (tenant, group_id, user_id, joined)
                   VALUES ($1, $2, $3, $4)";
        self.change(sql, &[&tenant, &id, &i64::from(user.0), &joined]).map(drop)
    }

    fn remove_member(&mut self, group: GroupKey, user: UserId) -> Result<()> {
        let (tenant, id) = group_key(group);
        let sql = "DELETE FROM ringpost_members
                   WHERE tenant = $1 AND group_id = $2 AND user_id = $3";
        self.change(sql, &[&tenant, &id, &i64::from(user.0)]).map(drop)
    }
}

/// A group as two parameters.
pub(super) fn group_key(group: GroupKey) -> (i64, i64) {
    (group.tenant.0.into(), group.id.0.into())
}

/// A user's id and name from the first two columns.
fn named(row: &Row) -> Result<(UserId, Name)> {
    Ok((UserId(number(row, 0)?), get::<Option<Vec<u8>>>(row, 1)?.map(Into::into)))
}

fn group_head(row: &Row) -> Result<GroupHead> {
    let bytes = |column| get::<Option<Vec<u8>>>(row, column).map(|it| it.map(Into::into));
    let owner = match get::<Option<i64>>(row, 3)? {
        Some(_) => Some((UserId(number(row, 3)?), bytes(4)?)),
        None => None,
    };
    Ok(GroupHead {
        id: GroupId(number(row, 0)?),
        name: bytes(1)?,
        title: bytes(2)?.unwrap_or_default(),
        owner,
    })
}

/// The place before the first, or an id in use, whose successor is free.
const NEXT_FREE_GROUP: &str = "SELECT s.id + 1 FROM (
        SELECT $2::bigint - 1 AS id
        UNION ALL SELECT id FROM ringpost_groups WHERE tenant = $1 AND id >= $2) s
    WHERE NOT EXISTS (SELECT 1 FROM ringpost_groups g WHERE g.tenant = $1 AND g.id = s.id + 1)
    ORDER BY s.id LIMIT 1";
