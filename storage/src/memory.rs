//! The store in memory: the reference that the other backends are compared with, and what the
//! simulator crashes.
//!
//! Owns: rows, dead letters, users and groups, as plainly as possible. Never: a file, a clock, a
//! thread. A clone is a snapshot: since every [`Store::write`] is committed when it returns, what a
//! crash leaves behind is the clone of that moment.

mod roster;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use codec::{Answer, GroupId, GroupKey, Message, Query, Target, TenantId, UserId, UserKey};

use crate::names;
use crate::request::{Append, DeadReason, Found, NameKind, Row, StoreError};
use crate::roster::{MEMBERS_MAX, answer};
use crate::store::{Caps, ReadBudget, SEQ_MAX, Store, StoredUser, Usage, Write};

/// Everything in ordered maps; cloning shares the messages.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    caps: Caps,
    age_max_ms: Option<u64>,
    rows: BTreeMap<RowKey, Row>,
    dead: BTreeMap<RowKey, (Row, DeadReason)>,
    users: BTreeMap<UserKey, User>,
    phones: BTreeMap<(TenantId, Box<[u8]>), UserId>,
    tenants: BTreeMap<TenantName, TenantId>,
    groups: BTreeMap<GroupKey, Group>,
    members_max: u32,
    next_groups: BTreeMap<TenantId, u32>,
    contacts: BTreeSet<(UserKey, UserId)>,
    seq_max: u64,
    per_user: HashMap<UserKey, Usage>,
    total: Usage,
    /// Rows and dead letters of each group message.
    shared: HashMap<u128, u64>,
    requeued: BTreeSet<UserKey>,
}

type RowKey = (UserKey, u64);
type TenantName = (Box<[u8]>, Box<[u8]>);

#[derive(Clone, Debug)]
struct User {
    name: Box<[u8]>,
    password_hash: String,
}

#[derive(Clone, Debug, Default)]
struct Group {
    name: Option<Box<[u8]>>,
    title: Box<[u8]>,
    owner: Option<UserId>,
    /// Each with the number of joins up to his.
    members: BTreeMap<UserId, u64>,
    joins: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Caps::default(), None)
    }
}

impl MemoryStore {
    /// With an age limit, [`Store::expire`] makes dead letters of what is older. Tenant 0 is there
    /// as `default/default`.
    pub fn new(caps: Caps, age_max_ms: Option<u64>) -> Self {
        let store = Self {
            caps,
            age_max_ms,
            rows: BTreeMap::new(),
            dead: BTreeMap::new(),
            users: BTreeMap::new(),
            phones: BTreeMap::new(),
            tenants: BTreeMap::new(),
            groups: BTreeMap::new(),
            members_max: MEMBERS_MAX,
            next_groups: BTreeMap::new(),
            contacts: BTreeSet::new(),
            seq_max: 0,
            per_user: HashMap::new(),
            total: Usage::default(),
            shared: HashMap::new(),
            requeued: BTreeSet::new(),
        };
        store.with_tenant(TenantId(0), b"default", b"default")
    }

    /// One more tenant, by the names of its organisation and its key.
    #[must_use]
    pub fn with_tenant(mut self, tenant: TenantId, org: &[u8], appkey: &[u8]) -> Self {
        self.tenants.insert((org.into(), appkey.into()), tenant);
        self
    }

    /// Another bound on the members of a group.
    #[must_use]
    pub fn with_members_max(mut self, members_max: u32) -> Self {
        self.members_max = members_max;
        self
    }

    /// The number with which the user may log in. `false`: he does not exist, or it is taken.
    #[must_use]
    pub fn set_phone(&mut self, user: UserKey, phone: &[u8]) -> bool {
        let key = (user.tenant, Box::from(phone));
        let free = self.users.contains_key(&user) && !self.phones.contains_key(&key);
        if free {
            self.phones.insert(key, user.id);
        }
        free
    }

    /// Makes the group, or gives it another name. `false`: another one has the name.
    #[must_use]
    pub fn set_group_name(&mut self, group: GroupKey, name: &[u8]) -> bool {
        let taken = |(key, other): (&GroupKey, &Group)| {
            *key != group && key.tenant == group.tenant && other.name.as_deref() == Some(name)
        };
        let free = !self.groups.iter().any(taken);
        if free {
            self.groups.entry(group).or_default().name = Some(name.into());
        }
        free
    }

    /// `false`: the id or the name is taken.
    #[must_use]
    pub fn add_user(&mut self, user: UserKey, name: &[u8], password_hash: &str) -> bool {
        let free = !self.users.contains_key(&user) && self.id_of(user.tenant, name).is_none();
        if free {
            let password_hash = password_hash.to_owned();
            self.users.insert(user, User { name: name.into(), password_hash });
        }
        free
    }

    /// Makes the group, or replaces its members.
    pub fn set_members(&mut self, group: GroupKey, members: &[UserId]) {
        let group = self.groups.entry(group).or_default();
        group.members = members.iter().map(|member| (*member, 0)).collect();
    }

    /// Every dead letter: whose, what, and why.
    pub fn dead_letters(&self) -> impl Iterator<Item = (UserKey, &Row, DeadReason)> {
        self.dead.iter().map(|(&(user, _), (row, reason))| (user, row, *reason))
    }

    /// Puts a dead letter back in its old place, without charges. `false`: there is none.
    #[must_use]
    pub fn requeue(&mut self, user: UserKey, seq: u64) -> bool {
        let Some((row, _)) = self.dead.remove(&(user, seq)) else { return false };
        self.per_user.entry(user).or_default().add(1, row.message.body.len() as u64);
        self.rows.insert((user, seq), Row { charges: 0, suspect: false, ..row });
        self.requeued.insert(user);
        true
    }

    /// Forgets a dead letter. `false`: there is none.
    #[must_use]
    pub fn drop_dead(&mut self, user: UserKey, seq: u64) -> bool {
        let Some((row, _)) = self.dead.remove(&(user, seq)) else { return false };
        self.release(&row.message);
        true
    }

    fn stored(&self, key: UserKey) -> Option<StoredUser> {
        let User { name, password_hash } = self.users.get(&key)?.clone();
        Some(StoredUser { id: key.id, name, password_hash })
    }

    fn id_of(&self, tenant: TenantId, name: &[u8]) -> Option<UserKey> {
        let mut users = self.users.iter();
        users.find(|(key, user)| key.tenant == tenant && *user.name == *name).map(|(key, _)| *key)
    }

    fn apply(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Append(append) => self.append(append)?,
            Write::Delete { user, seq } => {
                if let Some(row) = self.take_row(*user, *seq) {
                    self.release(&row.message);
                }
            }
            Write::FailedRound { user, seq, charge } => {
                if let Some(row) = self.rows.get_mut(&(*user, *seq)) {
                    row.charges = row.charges.saturating_add(u8::from(*charge));
                    row.suspect = true;
                }
            }
            Write::DeadLetter { user, seq, reason } => {
                if let Some(row) = self.take_row(*user, *seq) {
                    self.dead.insert((*user, *seq), (row, *reason));
                }
            }
            Write::Bind { user, name } => {
                let _ = self.add_user(*user, name, "");
            }
        }
        Ok(())
    }

    fn append(&mut self, append: &Append) -> Result<(), StoreError> {
        let Append { user, seq, message, binding } = append;
        let bytes = message.body.len() as u64;
        match self.rows.get(&(*user, *seq)) {
            Some(row) if row.message.stamp == message.stamp => return Ok(()),
            Some(_) => return Err(StoreError::Full),
            None => {}
        }
        let usage = self.per_user.get(user).copied().unwrap_or_default();
        let new_bytes = if self.shared.contains_key(&message.stamp) { 0 } else { bytes };
        if matches!(message.to, Target::Room(_)) {
            return Err(StoreError::Full);
        }
        if *seq > SEQ_MAX || !self.caps.admit(usage, self.total, bytes, new_bytes) {
            return Err(StoreError::Full);
        }
        self.per_user.entry(*user).or_default().add(1, bytes);
        self.total.add(1, new_bytes);
        if matches!(message.to, Target::Group(_)) {
            *self.shared.entry(message.stamp).or_default() += 1;
        }
        let message = Arc::clone(message);
        self.rows.insert((*user, *seq), Row { seq: *seq, message, charges: 0, suspect: false });
        self.seq_max = self.seq_max.max(*seq);
        if let Some(name) = binding {
            let _ = self.add_user(*user, name, "");
        }
        Ok(())
    }

    /// Takes the row out of its user's account; the store's stays until [`Self::release`].
    fn take_row(&mut self, user: UserKey, seq: u64) -> Option<Row> {
        let row = self.rows.remove(&(user, seq))?;
        let usage = self.per_user.get_mut(&user).expect("a user with a row is counted");
        usage.sub(1, row.message.body.len() as u64);
        if usage.rows == 0 {
            self.per_user.remove(&user);
        }
        Some(row)
    }

    fn release(&mut self, message: &Message) {
        let bytes = message.body.len() as u64;
        let last = match self.shared.get_mut(&message.stamp) {
            Some(rows) => {
                *rows -= 1;
                *rows == 0
            }
            None => true,
        };
        if last {
            self.shared.remove(&message.stamp);
        }
        self.total.sub(1, if last { bytes } else { 0 });
    }
}

impl Store for MemoryStore {
    fn write(&mut self, writes: &[Write]) -> Vec<Result<(), StoreError>> {
        writes.iter().map(|write| self.apply(write)).collect()
    }

    fn read(
        &mut self,
        user: UserKey,
        after: u64,
        rows: u32,
        bytes: u32,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        let mut budget = ReadBudget::new(rows, bytes);
        let mut taken = Vec::new();
        let Some(first) = after.checked_add(1) else { return Ok((taken, false)) };
        for row in self.rows.range((user, first)..=(user, u64::MAX)).map(|(_, row)| row) {
            if !budget.take(row.message.body.len()) {
                return Ok((taken, true));
            }
            taken.push(row.clone());
        }
        Ok((taken, false))
    }

    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError> {
        let members = self.groups.get(&group).map(|group| group.members.keys().copied());
        Ok(members.into_iter().flatten().collect())
    }

    fn max_seq(&mut self) -> Result<u64, StoreError> {
        Ok(self.seq_max)
    }

    fn tenant_named(&mut self, org: &[u8], appkey: &[u8]) -> Result<Option<TenantId>, StoreError> {
        Ok(self.tenants.get(&(org.into(), appkey.into())).copied())
    }

    fn resolve(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        what: NameKind,
    ) -> Result<Option<Found>, StoreError> {
        names::find(self, tenant, name, what)
    }

    fn query(
        &mut self,
        user: UserKey,
        query: &Query,
    ) -> Result<(Answer, Option<GroupId>), StoreError> {
        answer(self, user, query)
    }

    fn user_by_name(
        &mut self,
        tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        Ok(self.id_of(tenant, name).and_then(|key| self.stored(key)))
    }

    fn user_by_phone(
        &mut self,
        tenant: TenantId,
        phone: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        let id = self.phones.get(&(tenant, phone.into())).copied();
        Ok(id.and_then(|id| self.stored(UserKey { tenant, id })))
    }

    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, StoreError> {
        Ok(self.users.get(&user).map(|user| user.name.clone()))
    }

    fn take_requeued(&mut self) -> Result<Vec<UserKey>, StoreError> {
        Ok(std::mem::take(&mut self.requeued).into_iter().collect())
    }

    fn expire(&mut self, now_ms: u64) -> Result<u64, StoreError> {
        let Some(age_max_ms) = self.age_max_ms else { return Ok(0) };
        let oldest_ms = now_ms.saturating_sub(age_max_ms);
        let old = self.rows.iter().filter(|(_, row)| row.message.time_ms < oldest_ms);
        let old: Vec<RowKey> = old.map(|(key, _)| *key).collect();
        for (user, seq) in &old {
            let row = self.take_row(*user, *seq).expect("just found");
            self.dead.insert((*user, *seq), (row, DeadReason::Expired));
        }
        Ok(old.len() as u64)
    }
}
