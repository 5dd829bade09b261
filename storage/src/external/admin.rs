//! What the command line does to the external store: the same words as for the embedded one.
//!
//! Owns: which server each change goes to. Never: the changes themselves.

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};

use super::ExternalStore;
use crate::admin::{Admin, AdminError, DeadLetter, GroupInfo, NewGroup, NewUser, Tenant, UserInfo};
use crate::postgres::CallError;
use crate::request::StoreError;

impl From<CallError> for AdminError {
    fn from(error: CallError) -> Self {
        Self::Store(error.to_string())
    }
}

impl ExternalStore {
    fn forget(&mut self, user: UserKey) -> Result<(), StoreError> {
        self.redis.clear_rows(user)?;
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

    fn redis_trouble(&self) -> AdminError {
        AdminError::Store(self.redis.trouble().unwrap_or("Redis: unavailable").to_owned())
    }
}

impl Admin for ExternalStore {
    fn add_users(&mut self, users: &[NewUser]) -> Result<(), AdminError> {
        self.postgres.add_users(users)?
    }

    fn add_user(&mut self, user: NewUser) -> Result<(), AdminError> {
        self.add_users(&[user])
    }

    fn delete_user(&mut self, user: UserKey) -> Result<(), AdminError> {
        if self.postgres.account_by_id(user)?.is_none() {
            return Err(AdminError::NoUser(user.id));
        }
        self.forget(user).map_err(|_| self.redis_trouble())?;
        self.postgres.delete_user(user)?;
        self.bound.remove(&user);
        Ok(())
    }

    fn list_users(
        &mut self,
        tenant: TenantId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<UserInfo>, AdminError> {
        Ok(self.postgres.list_users(tenant, after, limit)?)
    }

    fn create_group(&mut self, group: &NewGroup) -> Result<(), AdminError> {
        self.postgres.create_group(group)?
    }

    fn add_members(&mut self, group: GroupKey, members: &[UserId]) -> Result<(), AdminError> {
        self.postgres.add_members(group, members)?
    }

    fn remove_members(&mut self, group: GroupKey, members: &[UserId]) -> Result<u64, AdminError> {
        self.postgres.remove_members(group, members)?
    }

    fn delete_group(&mut self, group: GroupKey) -> Result<(), AdminError> {
        let there = self.postgres.delete_any_group(group)?;
        if there { Ok(()) } else { Err(AdminError::NoGroup(group.id)) }
    }

    fn list_groups(
        &mut self,
        tenant: TenantId,
        after: Option<GroupId>,
        limit: u32,
    ) -> Result<Vec<GroupInfo>, AdminError> {
        Ok(self.postgres.list_groups(tenant, after, limit)?)
    }

    fn dead_letters(&mut self, after: i64, limit: u32) -> Result<Vec<DeadLetter>, AdminError> {
        self.redis.dead_letters(after, limit).map_err(|_| self.redis_trouble())
    }

    fn requeue(&mut self, ids: &[i64]) -> Result<(), AdminError> {
        self.redis.settle_dead(ids, true)
    }

    fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<(), AdminError> {
        self.redis.settle_dead(ids, false)
    }

    fn tenant_id(&mut self, org: &str, appkey: &str) -> Result<TenantId, AdminError> {
        Ok(self.postgres.tenant(org, appkey)?)
    }

    fn tenants(&mut self) -> Result<Vec<Tenant>, AdminError> {
        Ok(self.postgres.tenants()?)
    }
}

/// Dead letters looked at at once.
const PAGE: u32 = 500;
