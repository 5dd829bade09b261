//! The accounts of one tenant over both servers.
//!
//! Owns: which server each call goes to, and which password hashes are old. Never: the rules
//! (`postgres::accounts`), the clock.

use std::time::Duration;

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};

use super::{ExternalStore, text};
use crate::accounts::{
    Account, Accounts, Asked, ContactAccount, Credentials, GroupChange, NewGroup,
    OFFLINE_BYTES_MAX, PreContact, TokenRecord, delete_all,
};
use crate::request::{Row, StoreError};

impl ExternalStore {
    fn user(&self, id: UserId) -> UserKey {
        UserKey { tenant: self.tenant, id }
    }

    fn group(&self, id: GroupId) -> GroupKey {
        GroupKey { tenant: self.tenant, id }
    }
}

impl Accounts for ExternalStore {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn credentials(&mut self, phone: &[u8]) -> Result<Option<Credentials>, StoreError> {
        let Some(phone) = text(phone) else { return Ok(None) };
        let found = self.postgres.credentials(self.tenant, phone)?;
        Ok(found.map(|(account, password_hash)| {
            let outdated = self.config.upgrade_hashes && !password_hash.starts_with("$argon2");
            Credentials { account, password_hash, outdated }
        }))
    }

    fn upgrade_hash(&mut self, user: UserId, old: &str, new: &str) -> Result<(), StoreError> {
        Ok(self.postgres.upgrade_hash(self.user(user), old, new)?)
    }

    fn put_token(
        &mut self,
        token: &[u8],
        record: &TokenRecord,
        ttl: Duration,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.redis.put_token(self.tenant, token, record, ttl, now_ms)
    }

    fn token(&mut self, token: &[u8], now_ms: u64) -> Result<Option<TokenRecord>, StoreError> {
        self.redis.token(self.tenant, token, now_ms)
    }

    fn persist_token(
        &mut self,
        token: &[u8],
        user: UserId,
        device: &[u8],
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        self.redis.persist_token(token, self.user(user), device, now_ms)
    }

    fn create_user(
        &mut self,
        name: &[u8],
        phone: &[u8],
        password_hash: &str,
    ) -> Result<Option<UserId>, StoreError> {
        let Some(phone) = text(phone) else { return Ok(None) };
        self.postgres.create_user(self.tenant, name, phone, password_hash)?
    }

    fn user_by_id(&mut self, user: UserId) -> Result<Option<Account>, StoreError> {
        Ok(self.postgres.account_by_id(self.user(user))?)
    }

    fn user_by_phone(&mut self, phone: &[u8]) -> Result<Option<Account>, StoreError> {
        let Some(phone) = text(phone) else { return Ok(None) };
        Ok(self.postgres.account_by_phone(self.tenant, phone)?)
    }

    fn ask_contact(
        &mut self,
        from: UserId,
        to: UserId,
        message: &[u8],
        now_ms: u64,
    ) -> Result<Asked, StoreError> {
        self.postgres.ask_contact(self.user(from), to, message, now_ms / 1000)?
    }

    fn accept_contact(
        &mut self,
        user: UserId,
        asker: UserId,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        self.postgres.accept_contact(self.user(user), asker)?
    }

    fn delete_contact(&mut self, user: UserId, contact: UserId) -> Result<bool, StoreError> {
        Ok(self.postgres.delete_contact(self.user(user), contact)?)
    }

    fn contacts_after(
        &mut self,
        user: UserId,
        version: u64,
    ) -> Result<Vec<ContactAccount>, StoreError> {
        Ok(self.postgres.contacts_after(self.user(user), version)?)
    }

    fn asked_since(&mut self, user: UserId, since_s: u64) -> Result<Vec<PreContact>, StoreError> {
        Ok(self.postgres.asked_since(self.user(user), since_s)?)
    }

    fn create_group(
        &mut self,
        name: &[u8],
        creator: UserId,
        members: &[UserId],
    ) -> Result<NewGroup, StoreError> {
        self.postgres.create_keyed_group(self.user(creator), name, members)?
    }

    fn delete_group(&mut self, group: GroupId, creator: UserId) -> Result<GroupChange, StoreError> {
        self.postgres.delete_owned_group(self.group(group), creator)?
    }

    fn join_group(
        &mut self,
        group: GroupId,
        user: UserId,
        key: &[u8],
    ) -> Result<GroupChange, StoreError> {
        self.postgres.join_group(self.group(group), user, key)?
    }

    fn add_member(
        &mut self,
        group: GroupId,
        creator: UserId,
        user: UserId,
    ) -> Result<GroupChange, StoreError> {
        self.postgres.add_member(self.group(group), creator, user)?
    }

    fn leave_group(&mut self, group: GroupId, user: UserId) -> Result<GroupChange, StoreError> {
        self.postgres.leave_group(self.group(group), user)?
    }

    fn group_members(&mut self, group: GroupId, limit: u32) -> Result<Vec<UserId>, StoreError> {
        Ok(self.postgres.group_members(self.group(group), limit)?)
    }

    fn offline_read(&mut self, user: UserId, rows: u32) -> Result<(Vec<Row>, bool), StoreError> {
        self.redis.read(self.user(user), 0, rows, OFFLINE_BYTES_MAX)
    }

    fn offline_clear(&mut self, user: UserId, seqs: &[u64]) -> Result<(), StoreError> {
        let user = self.user(user);
        delete_all(self, user, seqs)
    }
}
