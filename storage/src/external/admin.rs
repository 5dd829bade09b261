//! What the command line does to the external store: the same words as for the embedded one.
//!
//! Owns: which server each change goes to. Never: the changes themselves.

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};

use super::ExternalStore;
use crate::admin::{AdminError, DeadLetter, GroupInfo, NewGroup, NewUser, Tenant, UserInfo};
use crate::postgres::CallError;
use crate::request::StoreError;
use crate::store::SEQ_MAX;

impl From<CallError> for AdminError {
    fn from(error: CallError) -> Self {
        Self::Store(error.to_string())
    }
}

/// Users.
impl ExternalStore {
    /// As [`crate::SqliteStore::add_users`].
    ///
    /// # Errors
    /// The first whose id, name or phone number is taken; [`AdminError::Store`].
    pub fn add_users(&mut self, users: &[NewUser]) -> Result<(), AdminError> {
        self.postgres.add_users(users)?
    }

    /// As [`crate::SqliteStore::add_user`].
    ///
    /// # Errors
    /// As [`Self::add_users`].
    pub fn add_user(&mut self, user: NewUser) -> Result<(), AdminError> {
        self.add_users(&[user])
    }

    /// As [`crate::SqliteStore::delete_user`]. His messages and tokens go first: if that fails he
    /// is still there, and it can be said again.
    ///
    /// # Errors
    /// [`AdminError::NoUser`], [`AdminError::Store`].
    pub fn delete_user(&mut self, user: UserKey) -> Result<(), AdminError> {
        if self.postgres.account_by_id(user)?.is_none() {
            return Err(AdminError::NoUser(user.id));
        }
        self.forget(user).map_err(|_| self.redis_trouble())?;
        self.postgres.delete_user(user)?;
        self.bound.remove(&user);
        Ok(())
    }

    fn forget(&mut self, user: UserKey) -> Result<(), StoreError> {
        self.redis.clear_rows(user, SEQ_MAX)?;
        self.redis.delete_tokens(user)?;
        let mut after = 0;
        loop {
            let letters = self.redis.dead_letters(after, PAGE)?;
            let Some(last) = letters.last() else { return Ok(()) };
            after = last.id;
            let his: Vec<_> = letters.iter().filter(|l| l.user == user).map(|l| l.id).collect();
            // One that somebody else has dropped meanwhile is no error here.
            for id in his {
                match self.redis.settle_dead(&[id], false) {
                    Ok(()) | Err(AdminError::NoDeadLetter(_)) => {}
                    Err(_) => return Err(StoreError::Unavailable),
                }
            }
        }
    }

    /// As [`crate::SqliteStore::list_users`].
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn list_users(
        &mut self,
        tenant: TenantId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<UserInfo>, AdminError> {
        Ok(self.postgres.list_users(tenant, after, limit)?)
    }
}

/// Groups.
impl ExternalStore {
    /// As [`crate::SqliteStore::create_group`].
    ///
    /// # Errors
    /// [`AdminError::GroupTaken`], [`AdminError::GroupNameTaken`], [`AdminError::GroupTooLarge`],
    /// [`AdminError::Store`].
    pub fn create_group(&mut self, group: &NewGroup) -> Result<(), AdminError> {
        self.postgres.create_group(group)?
    }

    /// As [`crate::SqliteStore::add_members`].
    ///
    /// # Errors
    /// [`AdminError::NoGroup`], [`AdminError::GroupTooLarge`], [`AdminError::Store`].
    pub fn add_members(&mut self, group: GroupKey, members: &[UserId]) -> Result<(), AdminError> {
        self.postgres.add_members(group, members)?
    }

    /// As [`crate::SqliteStore::remove_members`].
    ///
    /// # Errors
    /// [`AdminError::NoGroup`], [`AdminError::Store`].
    pub fn remove_members(
        &mut self,
        group: GroupKey,
        members: &[UserId],
    ) -> Result<u64, AdminError> {
        self.postgres.remove_members(group, members)?
    }

    /// As [`crate::SqliteStore::delete_group`]. (Not that of [`crate::Accounts`], which asks who
    /// the creator is.)
    ///
    /// # Errors
    /// [`AdminError::NoGroup`], [`AdminError::Store`].
    pub fn delete_group(&mut self, group: GroupKey) -> Result<(), AdminError> {
        let there = self.postgres.delete_any_group(group)?;
        if there { Ok(()) } else { Err(AdminError::NoGroup(group.id)) }
    }

    /// As [`crate::SqliteStore::list_groups`].
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn list_groups(
        &mut self,
        tenant: TenantId,
        after: Option<GroupId>,
        limit: u32,
    ) -> Result<Vec<GroupInfo>, AdminError> {
        Ok(self.postgres.list_groups(tenant, after, limit)?)
    }
}

/// Dead letters.
impl ExternalStore {
    /// As [`crate::SqliteStore::dead_letters`].
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn dead_letters(&mut self, after: i64, limit: u32) -> Result<Vec<DeadLetter>, AdminError> {
        self.redis.dead_letters(after, limit).map_err(|_| self.redis_trouble())
    }

    /// As [`crate::SqliteStore::requeue`].
    ///
    /// # Errors
    /// [`AdminError::NoDeadLetter`], [`AdminError::Store`].
    pub fn requeue(&mut self, ids: &[i64]) -> Result<(), AdminError> {
        self.redis.settle_dead(ids, true)
    }

    /// As [`crate::SqliteStore::drop_dead_letters`].
    ///
    /// # Errors
    /// [`AdminError::NoDeadLetter`], [`AdminError::Store`].
    pub fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<(), AdminError> {
        self.redis.settle_dead(ids, false)
    }

    fn redis_trouble(&self) -> AdminError {
        AdminError::Store(self.redis.trouble().unwrap_or("Redis: unavailable").to_owned())
    }
}

/// Tenants. Id 0 is there from the start, as `default/default`.
impl ExternalStore {
    /// As [`crate::SqliteStore::tenant`].
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn tenant(&mut self, org: &str, appkey: &str) -> Result<TenantId, AdminError> {
        Ok(self.postgres.tenant(org, appkey)?)
    }

    /// As [`crate::SqliteStore::tenants`].
    ///
    /// # Errors
    /// [`AdminError::Store`].
    pub fn tenants(&mut self) -> Result<Vec<Tenant>, AdminError> {
        Ok(self.postgres.tenants()?)
    }
}

/// Dead letters looked at at once.
const PAGE: u32 = 500;
