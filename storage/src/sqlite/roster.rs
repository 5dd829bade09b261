//! Users, groups and contacts in SQL: the primitives of names and of the roster's rules.
//!
//! Owns: these statements. Never: a rule, nor a transaction.

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension as _, Params, Result, Row};

use crate::names::Names;
use crate::roster::{FIRST_GROUP_ID, GroupHead, LAST_GROUP_ID, Name, NewGroup, Roster};

/// The tables, for as long as a transaction lasts (or, for reading, a call).
pub(crate) struct Tables<'c> {
    pub(crate) conn: &'c Connection,
    /// Members of a group.
    pub(crate) members_max: u32,
}

impl<'c> Tables<'c> {
    /// For looking, not for making groups.
    pub(crate) fn for_names(conn: &'c Connection) -> Self {
        Self { conn, members_max: 0 }
    }

    /// The first column of the first row.
    pub(super) fn value<T: FromSql>(&self, sql: &str, key: impl Params) -> Result<Option<T>> {
        self.conn.prepare_cached(sql)?.query_row(key, |row| row.get(0)).optional()
    }

    pub(super) fn rows<T>(
        &self,
        sql: &str,
        key: impl Params,
        read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.conn.prepare_cached(sql)?.query_map(key, read)?.collect()
    }

    /// How many rows it changed.
    pub(super) fn change(&self, sql: &str, key: impl Params) -> Result<usize> {
        self.conn.prepare_cached(sql)?.execute(key)
    }

    pub(super) fn is(&self, sql: &str, key: impl Params) -> Result<bool> {
        self.conn.prepare_cached(sql)?.exists(key)
    }

    pub(super) fn count(&self, sql: &str, key: impl Params) -> Result<u32> {
        self.conn.prepare_cached(sql)?.query_row(key, |row| row.get(0))
    }

    /// An id from `first` to `last` for which `is_taken` finds nothing, as the successor of the
    /// last one given out for that kind of thing.
    pub(super) fn free_id(
        &self,
        tenant: TenantId,
        kind: &str,
        (first, last): (u32, u32),
        is_taken: &str,
    ) -> Result<Option<u32>> {
        let sql = "SELECT next FROM next_ids WHERE tenant = ?1 AND kind = ?2";
        let mut next = self.value(sql, (tenant.0, kind))?.unwrap_or(first);
        for _ in 0..TRIES_MAX {
            let id = if (first..=last).contains(&next) { next } else { first };
            next = id.saturating_add(1);
            if !self.is(is_taken, (tenant.0, id))? {
                let sql = "INSERT INTO next_ids VALUES (?1, ?2, ?3)
                           ON CONFLICT DO UPDATE SET next = excluded.next";
                self.change(sql, (tenant.0, kind, next))?;
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Groups whose owner has left for good pass to the member who is there the longest.
    pub(crate) fn disown(&self, user: UserKey) -> Result<()> {
        let sql = "UPDATE groups AS g SET owner = (SELECT user FROM group_members m
                       WHERE m.tenant = g.tenant AND m.group_id = g.id
                       ORDER BY joined, user LIMIT 1)
                   WHERE tenant = ?1 AND owner = ?2 AND NOT EXISTS (SELECT 1 FROM group_members m
                       WHERE m.tenant = g.tenant AND m.group_id = g.id AND m.user = g.owner)";
        self.change(sql, (user.tenant.0, user.id.0)).map(drop)
    }
}

impl Names for Tables<'_> {
    type Error = rusqlite::Error;

    fn user_named(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<UserId>> {
        let sql = "SELECT id FROM users WHERE tenant = ?1 AND name = ?2";
        Ok(self.value(sql, (tenant.0, name))?.map(UserId))
    }

    fn name_of(&mut self, user: UserKey) -> Result<Name> {
        let sql = "SELECT name FROM users WHERE tenant = ?1 AND id = ?2";
        Ok(self.value::<Vec<u8>>(sql, (user.tenant.0, user.id.0))?.map(Into::into))
    }

    fn group_named(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<GroupId>> {
        let sql = "SELECT id FROM groups WHERE tenant = ?1 AND name = ?2";
        Ok(self.value(sql, (tenant.0, name))?.map(GroupId))
    }

    fn has_group(&mut self, group: GroupKey) -> Result<bool> {
        self.is("SELECT 1 FROM groups WHERE tenant = ?1 AND id = ?2", (group.tenant.0, group.id.0))
    }
}

impl Roster for Tables<'_> {
    fn members_max(&self) -> u32 {
        self.members_max
    }

    fn contacts(&mut self, user: UserKey) -> Result<Vec<(UserId, Name)>> {
        let sql = "SELECT c.contact, u.name FROM contacts c
                   LEFT JOIN users u ON u.tenant = c.tenant AND u.id = c.contact
                   WHERE c.tenant = ?1 AND c.user = ?2 ORDER BY c.contact";
        self.rows(sql, (user.tenant.0, user.id.0), named)
    }

    fn is_contact(&mut self, user: UserKey, contact: UserId) -> Result<bool> {
        let sql = "SELECT 1 FROM contacts WHERE tenant = ?1 AND user = ?2 AND contact = ?3";
        self.is(sql, (user.tenant.0, user.id.0, contact.0))
    }

    fn contact_count(&mut self, user: UserKey) -> Result<u32> {
        let sql = "SELECT count(*) FROM contacts WHERE tenant = ?1 AND user = ?2";
        self.count(sql, (user.tenant.0, user.id.0))
    }

    fn add_contact(&mut self, user: UserKey, contact: UserId) -> Result<()> {
        let sql = "UPDATE users SET contact_version = contact_version + 1
                   WHERE tenant = ?1 AND id = ?2 RETURNING contact_version";
        // A user that open authentication made and nobody has written to yet has no version.
        let version: i64 = self.value(sql, (user.tenant.0, user.id.0))?.unwrap_or(0);
        let sql = "INSERT INTO contacts (tenant, user, contact, version) VALUES (?1, ?2, ?3, ?4)";
        self.change(sql, (user.tenant.0, user.id.0, contact.0, version)).map(drop)
    }

    fn remove_contact(&mut self, user: UserKey, contact: UserId) -> Result<()> {
        let sql = "DELETE FROM contacts WHERE tenant = ?1 AND user = ?2 AND contact = ?3";
        self.change(sql, (user.tenant.0, user.id.0, contact.0)).map(drop)
    }

    fn groups_of(&mut self, user: UserKey, limit: u32) -> Result<Vec<GroupHead>> {
        let sql = "SELECT g.id, g.name, g.title, g.owner, u.name
                   FROM group_members m
                   JOIN groups g ON g.tenant = m.tenant AND g.id = m.group_id
                   LEFT JOIN users u ON u.tenant = g.tenant AND u.id = g.owner
                   WHERE m.tenant = ?1 AND m.user = ?2 ORDER BY g.id LIMIT ?3";
        self.rows(sql, (user.tenant.0, user.id.0, limit), group_head)
    }

    fn group_count(&mut self, user: UserKey) -> Result<u32> {
        let sql = "SELECT count(*) FROM group_members WHERE tenant = ?1 AND user = ?2";
        self.count(sql, (user.tenant.0, user.id.0))
    }

    fn group(&mut self, group: GroupKey) -> Result<Option<GroupHead>> {
        let sql = "SELECT g.id, g.name, g.title, g.owner, u.name FROM groups g
                   LEFT JOIN users u ON u.tenant = g.tenant AND u.id = g.owner
                   WHERE g.tenant = ?1 AND g.id = ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        statement.query_row((group.tenant.0, group.id.0), group_head).optional()
    }

    fn free_group_id(&mut self, tenant: TenantId) -> Result<Option<GroupId>> {
        let range = (FIRST_GROUP_ID, LAST_GROUP_ID);
        let is_taken = "SELECT 1 FROM groups WHERE tenant = ?1 AND id = ?2";
        Ok(self.free_id(tenant, "group", range, is_taken)?.map(GroupId))
    }

    fn add_group(&mut self, group: GroupKey, about: &NewGroup<'_>) -> Result<()> {
        let NewGroup { name, title, owner, key } = about;
        let sql = "INSERT INTO groups (tenant, id, name, title, owner, key)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let owner = owner.map(|id| id.0);
        self.change(sql, (group.tenant.0, group.id.0, name, title, owner, key)).map(drop)
    }

    fn delete_group(&mut self, group: GroupKey) -> Result<()> {
        let sql = "DELETE FROM groups WHERE tenant = ?1 AND id = ?2";
        self.change(sql, (group.tenant.0, group.id.0)).map(drop)
    }

    fn set_owner(&mut self, group: GroupKey, owner: UserId) -> Result<()> {
        let sql = "UPDATE groups SET owner = ?3 WHERE tenant = ?1 AND id = ?2";
        self.change(sql, (group.tenant.0, group.id.0, owner.0)).map(drop)
    }

    fn members(&mut self, group: GroupKey, limit: u32) -> Result<Vec<(UserId, Name)>> {
        let sql = "SELECT m.user, u.name FROM group_members m
                   LEFT JOIN users u ON u.tenant = m.tenant AND u.id = m.user
                   WHERE m.tenant = ?1 AND m.group_id = ?2 ORDER BY m.joined, m.user LIMIT ?3";
        self.rows(sql, (group.tenant.0, group.id.0, limit), named)
    }

    fn is_member(&mut self, group: GroupKey, user: UserId) -> Result<bool> {
        let sql = "SELECT 1 FROM group_members WHERE tenant = ?1 AND group_id = ?2 AND user = ?3";
        self.is(sql, (group.tenant.0, group.id.0, user.0))
    }

    fn member_count(&mut self, group: GroupKey) -> Result<u32> {
        let sql = "SELECT count(*) FROM group_members WHERE tenant = ?1 AND group_id = ?2";
        self.count(sql, (group.tenant.0, group.id.0))
    }

    fn add_member(&mut self, group: GroupKey, user: UserId) -> Result<()> {
        let sql = "UPDATE groups SET joins = joins + 1 WHERE tenant = ?1 AND id = ?2
                   RETURNING joins";
        let joined: i64 = self.value(sql, (group.tenant.0, group.id.0))?.unwrap_or(0);
        let sql = "INSERT INTO group_members (tenant, group_id, user, joined)
                   VALUES (?1, ?2, ?3, ?4)";
        self.change(sql, (group.tenant.0, group.id.0, user.0, joined)).map(drop)
    }

    fn remove_member(&mut self, group: GroupKey, user: UserId) -> Result<()> {
        let sql = "DELETE FROM group_members WHERE tenant = ?1 AND group_id = ?2 AND user = ?3";
        self.change(sql, (group.tenant.0, group.id.0, user.0)).map(drop)
    }
}

/// A user's id and name from the first two columns.
fn named(row: &Row<'_>) -> Result<(UserId, Name)> {
    Ok((UserId(row.get(0)?), blob(row, 1)?))
}

fn blob(row: &Row<'_>, column: usize) -> Result<Option<Box<[u8]>>> {
    Ok(row.get::<_, Option<Vec<u8>>>(column)?.map(Into::into))
}

fn group_head(row: &Row<'_>) -> Result<GroupHead> {
    let owner: Option<u32> = row.get(3)?;
    let owner_name = blob(row, 4)?;
    Ok(GroupHead {
        id: GroupId(row.get(0)?),
        name: blob(row, 1)?,
        title: blob(row, 2)?.unwrap_or_default(),
        owner: owner.map(|id| (UserId(id), owner_name)),
    })
}

/// Ids in a row that somebody chose himself.
const TRIES_MAX: u32 = 10_000;
