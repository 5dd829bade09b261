//! The accounts of one tenant in memory.
//!
//! Owns: tokens, requests for contact, keys of groups. Never: a rule of contacts or groups
//! (`accounts::rules`), the clock.

use std::time::Duration;

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};

use super::{MemoryStore, Tables, Token, TokenKey};
use crate::accounts::rules::{self, Centre};
use crate::accounts::{
    Account, Accounts, Asked, ContactAccount, Credentials, GroupChange, NewGroup,
    OFFLINE_BYTES_MAX, PreContact, TokenRecord, USER_TOKENS_MAX, delete_all, token_hash,
};
use crate::auth::FIRST_ID;
use crate::request::{Row, StoreError};
use crate::roster::Roster as _;
use crate::store::Store as _;

type Result<T> = std::result::Result<T, StoreError>;

/// The accounts of one tenant, over a handle of their own.
#[derive(Debug)]
pub struct MemoryAccounts {
    store: MemoryStore,
    tenant: TenantId,
}

impl MemoryAccounts {
    pub fn new(store: MemoryStore, tenant: TenantId) -> Self {
        Self { store, tenant }
    }

    fn user(&self, id: UserId) -> UserKey {
        UserKey { tenant: self.tenant, id }
    }

    fn group(&self, id: GroupId) -> GroupKey {
        GroupKey { tenant: self.tenant, id }
    }

    fn token_key(&self, token: &[u8]) -> TokenKey {
        (self.tenant, token_hash(token))
    }
}

impl Accounts for MemoryAccounts {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn credentials(&mut self, phone: &[u8]) -> Result<Option<Credentials>> {
        let tables = self.store.lock();
        let found = tables.with_phone(self.tenant, phone).and_then(|key| {
            let password_hash = tables.users.get(&key)?.password_hash.clone();
            Some(Credentials { account: tables.account(key)?, password_hash, outdated: false })
        });
        Ok(found)
    }

    fn upgrade_hash(&mut self, user: UserId, old: &str, new: &str) -> Result<()> {
        let key = self.user(user);
        if let Some(user) = self.store.lock().users.get_mut(&key)
            && user.password_hash == old
        {
            user.password_hash = new.to_owned();
        }
        Ok(())
    }

    fn put_token(
        &mut self,
        token: &[u8],
        record: &TokenRecord,
        ttl: Duration,
        now_ms: u64,
    ) -> Result<()> {
        let (key, user) = (self.token_key(token), self.user(record.user));
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let record = TokenRecord { permanent: false, ..record.clone() };
        let mut tables = self.store.lock();
        tables.drop_token(key);
        tables.tokens.insert(key, Token { record, expires_ms: now_ms.saturating_add(ttl_ms) });
        let his = tables.tokens_of.entry(user).or_default();
        his.push_back(key);
        if his.len() > USER_TOKENS_MAX as usize
            && let Some(oldest) = his.pop_front()
        {
            tables.tokens.remove(&oldest);
        }
        Ok(())
    }

    fn token(&mut self, token: &[u8], now_ms: u64) -> Result<Option<TokenRecord>> {
        let key = self.token_key(token);
        let tables = self.store.lock();
        let token = tables.tokens.get(&key).filter(|token| token.is_there(now_ms));
        Ok(token.map(|token| token.record.clone()))
    }

    fn persist_token(
        &mut self,
        token: &[u8],
        user: UserId,
        device: &[u8],
        now_ms: u64,
    ) -> Result<bool> {
        let (key, user) = (self.token_key(token), self.user(user));
        let mut tables = self.store.lock();
        let his = |token: &&mut Token| token.record.user == user.id && token.is_there(now_ms);
        let Some(token) = tables.tokens.get_mut(&key).filter(his) else { return Ok(false) };
        token.record.permanent = true;
        token.record.device = device.into();
        let others = tables.tokens_of.get(&user).into_iter().flatten();
        let before = others.copied().filter(|other| {
            let there = tables.tokens.get(other).map(|token| &token.record);
            *other != key && there.is_some_and(|there| there.permanent && *there.device == *device)
        });
        for token in before.collect::<Vec<_>>() {
            tables.drop_token(token);
        }
        Ok(true)
    }

    fn create_user(
        &mut self,
        name: &[u8],
        phone: &[u8],
        password_hash: &str,
    ) -> Result<Option<UserId>> {
        if str::from_utf8(phone).is_err() {
            return Ok(None);
        }
        let tenant = self.tenant;
        let mut tables = self.store.lock();
        if tables.with_phone(tenant, phone).is_some() {
            return Ok(None);
        }
        let Some(id) = tables.free_user_id(tenant) else { return Err(StoreError::Full) };
        let key = UserKey { tenant, id };
        let made = tables.add_user(key, name, password_hash) && tables.set_phone(key, phone);
        Ok(made.then_some(id))
    }

    fn user_by_id(&mut self, user: UserId) -> Result<Option<Account>> {
        let key = self.user(user);
        Ok(self.store.lock().account(key))
    }

    fn user_by_phone(&mut self, phone: &[u8]) -> Result<Option<Account>> {
        let tables = self.store.lock();
        Ok(tables.with_phone(self.tenant, phone).and_then(|key| tables.account(key)))
    }

    fn ask_contact(
        &mut self,
        from: UserId,
        to: UserId,
        message: &[u8],
        now_ms: u64,
    ) -> Result<Asked> {
        let asker = self.user(from);
        rules::ask_contact(&mut *self.store.lock(), asker, to, message, now_ms / 1000)?
    }

    fn accept_contact(&mut self, user: UserId, asker: UserId) -> Result<Option<(u64, u64)>> {
        let user = self.user(user);
        rules::accept_contact(&mut *self.store.lock(), user, asker)?
    }

    fn delete_contact(&mut self, user: UserId, contact: UserId) -> Result<bool> {
        let (one, other) = (self.user(user), self.user(contact));
        let mut tables = self.store.lock();
        let ended = [(one, contact), (other, user)].map(|key| tables.contacts.remove(&key));
        Ok(ended.iter().any(Option::is_some))
    }

    fn contacts_after(&mut self, user: UserId, version: u64) -> Result<Vec<ContactAccount>> {
        let user = self.user(user);
        let tables = self.store.lock();
        let all = tables.contacts.range((user, UserId(0))..=(user, UserId(u32::MAX)));
        // Version 0 stands for all, those included that came without a version.
        let newer = all.filter(|(_, came)| **came > version || version == 0);
        let mut contacts: Vec<_> = newer
            .filter_map(|(&(_, id), &version)| {
                let account = tables.account(UserKey { id, ..user })?;
                Some(ContactAccount { account, version })
            })
            .collect();
        contacts.sort_by_key(|contact| (contact.version, contact.account.id));
        Ok(contacts)
    }

    fn asked_since(&mut self, user: UserId, since_s: u64) -> Result<Vec<PreContact>> {
        let user = self.user(user);
        let tables = self.store.lock();
        let all = tables.requests.range((user, UserId(0))..=(user, UserId(u32::MAX)));
        let asked = all.map(|(_, request)| request).filter(|request| request.time_s >= since_s);
        let mut asked: Vec<_> = asked.cloned().collect();
        asked.sort_by_key(|request| (request.time_s, request.user));
        Ok(asked)
    }

    fn create_group(
        &mut self,
        name: &[u8],
        creator: UserId,
        members: &[UserId],
    ) -> Result<NewGroup> {
        let creator = self.user(creator);
        self.store.change(|tables| rules::create_group(tables, creator, name, members))?
    }

    fn delete_group(&mut self, group: GroupId, creator: UserId) -> Result<GroupChange> {
        let group = self.group(group);
        self.store.change(|tables| rules::delete_group(tables, group, creator))?
    }

    fn join_group(&mut self, group: GroupId, user: UserId, key: &[u8]) -> Result<GroupChange> {
        let group = self.group(group);
        self.store.change(|tables| rules::join_group(tables, group, user, key))?
    }

    fn add_member(&mut self, group: GroupId, creator: UserId, user: UserId) -> Result<GroupChange> {
        let group = self.group(group);
        self.store.change(|tables| rules::add_member(tables, group, creator, user))?
    }

    fn leave_group(&mut self, group: GroupId, user: UserId) -> Result<GroupChange> {
        let group = self.group(group);
        self.store.change(|tables| rules::leave_group(tables, group, user))?
    }

    fn group_members(&mut self, group: GroupId, limit: u32) -> Result<Vec<UserId>> {
        let group = self.group(group);
        let members = self.store.lock().members(group, limit)?;
        Ok(members.into_iter().map(|(id, _)| id).collect())
    }

    fn offline_read(&mut self, user: UserId, rows: u32) -> Result<(Vec<Row>, bool)> {
        let user = self.user(user);
        self.store.read(user, 0, rows, OFFLINE_BYTES_MAX)
    }

    fn offline_clear(&mut self, user: UserId, seqs: &[u64]) -> Result<()> {
        let user = self.user(user);
        delete_all(&mut self.store, user, seqs)
    }
}

impl Token {
    fn is_there(&self, now_ms: u64) -> bool {
        self.record.permanent || now_ms < self.expires_ms
    }
}

impl Tables {
    fn account(&self, key: UserKey) -> Option<Account> {
        let user = self.users.get(&key)?;
        let phone = user.phone.clone().unwrap_or_default();
        Some(Account { id: key.id, name: user.name.clone(), phone, avatar: Box::default() })
    }

    /// As [`crate::roster::Roster::free_group_id`], of users.
    fn free_user_id(&mut self, tenant: TenantId) -> Option<UserId> {
        let next = self.next_users.get(&tenant).copied().unwrap_or(1);
        let is_free = |id: &u32| !self.users.contains_key(&UserKey { tenant, id: UserId(*id) });
        let id = (next..FIRST_ID).chain(1..next).find(is_free)?;
        self.next_users.insert(tenant, id + 1);
        Some(UserId(id))
    }

    fn drop_token(&mut self, key: TokenKey) {
        let Some(token) = self.tokens.remove(&key) else { return };
        let user = UserKey { tenant: key.0, id: token.record.user };
        if let Some(his) = self.tokens_of.get_mut(&user) {
            his.retain(|other| *other != key);
        }
    }
}

impl Centre for Tables {
    fn has_asked(&mut self, asker: UserId, asked: UserKey) -> Result<bool> {
        Ok(self.requests.contains_key(&(asked, asker)))
    }

    fn waiting(&mut self, asker: UserId, asked: UserKey) -> Result<u32> {
        let keys = || self.requests.keys().filter(|(other, _)| other.tenant == asked.tenant);
        let to_him = keys().filter(|(other, _)| *other == asked).count();
        let from_him = keys().filter(|(_, other)| *other == asker).count();
        Ok(to_him.max(from_him) as u32)
    }

    fn put_request(
        &mut self,
        asker: UserId,
        asked: UserKey,
        message: &[u8],
        time_s: u64,
    ) -> Result<()> {
        let request = PreContact { user: asker, message: message.into(), time_s };
        self.requests.insert((asked, asker), request);
        Ok(())
    }

    fn drop_request(&mut self, asker: UserId, asked: UserKey) -> Result<()> {
        self.requests.remove(&(asked, asker));
        Ok(())
    }

    fn contact_version(&mut self, user: UserKey) -> Result<u64> {
        Ok(self.users.get(&user).map_or(0, |user| user.contact_version))
    }

    fn group_secret(&mut self, group: GroupKey) -> Result<Option<String>> {
        Ok(self.groups.get(&group).map(|group| group.key.clone()))
    }
}
