//! The store in memory: the reference that the other backends are compared with, and what the
//! simulator crashes.
//!
//! Owns: rows, dead letters, users and groups, as plainly as possible. Never: a file, a clock, a
//! thread. A clone is a snapshot: since every [`Store::write`] is committed when it returns, what a
//! crash leaves behind is the clone of that moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use codec::{GroupKey, Message, Target, TenantId, UserId, UserKey};

use crate::request::{Append, DeadReason, Row, StoreError};
use crate::store::{Caps, ReadBudget, SEQ_MAX, Store, StoredUser, Usage, Write};

/// Everything in ordered maps; cloning shares the messages.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    caps: Caps,
    age_max_ms: Option<u64>,
    rows: BTreeMap<RowKey, Row>,
    dead: BTreeMap<RowKey, (Row, DeadReason)>,
    users: BTreeMap<UserKey, User>,
    groups: BTreeMap<GroupKey, BTreeSet<UserId>>,
    seq_max: u64,
    per_user: HashMap<UserKey, Usage>,
    total: Usage,
    /// Rows and dead letters of each group message.
    shared: HashMap<u128, u64>,
    requeued: BTreeSet<UserKey>,
}

type RowKey = (UserKey, u64);

#[derive(Clone, Debug)]
struct User {
    name: Box<[u8]>,
    password_hash: String,
}

impl MemoryStore {
    /// With an age limit, [`Store::expire`] makes dead letters of what is older.
    pub fn new(caps: Caps, age_max_ms: Option<u64>) -> Self {
        Self { caps, age_max_ms, ..Self::default() }
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
        self.groups.insert(group, members.iter().copied().collect());
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
        Ok(self.groups.get(&group).into_iter().flatten().copied().collect())
    }

    fn max_seq(&mut self) -> Result<u64, StoreError> {
        Ok(self.seq_max)
    }

    fn user_by_name(
        &mut self,
        tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        Ok(self.id_of(tenant, name).map(|key| StoredUser {
            id: key.id,
            password_hash: self.users[&key].password_hash.clone(),
        }))
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
