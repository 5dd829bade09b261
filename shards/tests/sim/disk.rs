//! The simulated disk: what is committed survives every crash of the gateway.
//!
//! Owns: rows, dead letters, group members, and the memory of everything that was ever committed.
//! Never: time; a commit happens when the store's thread would return from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use codec::binary::MESSAGE_ID;
use codec::{Answer, GroupId, GroupKey, MessageId, Query, TenantId, UserId, UserKey};
use shards::io::sim::Rng;
use storage::store::{StoredUser, Write};
use storage::{DeadReason, Found, NameKind, Row, Store, StoreError};

/// Which calls of the store fail, in parts per million.
#[derive(Clone, Debug, Default)]
pub struct DiskFaults {
    /// Of transactions: unavailable, nothing of it is durable.
    pub write_fails_ppm: u32,
    /// Of appends: over a cap.
    pub full_ppm: u32,
    pub read_fails_ppm: u32,
    /// Of look-ups of members and of names.
    pub members_fail_ppm: u32,
}

/// What is on the disk.
pub struct Content {
    rows: BTreeMap<(UserKey, u64), Row>,
    dead: Vec<(UserKey, Row)>,
    groups: BTreeMap<GroupKey, Arc<[UserId]>>,
    committed: BTreeSet<(UserId, [u8; MESSAGE_ID])>,
    pub faults: DiskFaults,
    rng: Rng,
    /// Transactions, and those that failed.
    pub writes: u64,
    pub writes_failed: u64,
}

/// Handle to the disk; the store's side of it and the oracle's.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<Content>>);

impl Disk {
    pub fn new(groups: &BTreeMap<u32, Vec<u32>>, faults: DiskFaults, rng: Rng) -> Self {
        let groups = groups.iter().map(|(&group, members)| {
            let key = GroupKey { tenant: TenantId(0), id: GroupId(group) };
            (key, members.iter().map(|&user| UserId(user)).collect())
        });
        Self(Arc::new(Mutex::new(Content {
            rows: BTreeMap::new(),
            dead: Vec::new(),
            groups: groups.collect(),
            committed: BTreeSet::new(),
            faults,
            rng,
            writes: 0,
            writes_failed: 0,
        })))
    }

    pub fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("one thread")
    }
}

impl Content {
    /// A row with this message was committed for the user at some time.
    pub fn was_committed(&self, user: u32, id: &[u8; MESSAGE_ID]) -> bool {
        self.committed.contains(&(UserId(user), *id))
    }

    /// Users and their rows.
    pub fn full_rows(&self) -> impl Iterator<Item = (u32, &Row)> {
        self.rows.iter().map(|((user, _), row)| (user.id.0, row))
    }

    /// Users and message ids of all rows.
    pub fn rows(&self) -> impl Iterator<Item = (u32, &MessageId)> {
        self.full_rows().map(|(user, row)| (user, &row.message.id))
    }

    /// Users and message ids of all dead letters.
    pub fn dead_letters(&self) -> impl Iterator<Item = (u32, &MessageId)> {
        self.dead.iter().map(|(user, row)| (user.id.0, &row.message.id))
    }

    fn do_write(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Append(append) => {
                if self.rng.chance(self.faults.full_ppm) {
                    return Err(StoreError::Full);
                }
                let message = Arc::clone(&append.message);
                self.committed.insert((append.user.id, *padded(&message.id)));
                let row = Row { seq: append.seq, message, charges: 0, suspect: false };
                let before = self.rows.insert((append.user, append.seq), row);
                assert!(
                    before.is_none_or(|before| before.message == append.message),
                    "seq {} of {} was given to two messages",
                    append.seq,
                    append.user.id
                );
            }
            Write::Delete { user, seq } => {
                self.rows.remove(&(*user, *seq));
            }
            Write::FailedRound { user, seq, charge } => {
                if let Some(row) = self.rows.get_mut(&(*user, *seq)) {
                    row.charges += u8::from(*charge);
                    row.suspect = true;
                }
            }
            Write::DeadLetter { user, seq, reason } => {
                assert_eq!(*reason, DeadReason::Poison, "nothing expires here");
                self.dead.extend(self.rows.remove(&(*user, *seq)).map(|row| (*user, row)));
            }
            Write::Bind { user, .. } => panic!("nobody binds a name here: {user:?}"),
        }
        Ok(())
    }
}

impl Store for Disk {
    fn write(&mut self, writes: &[Write]) -> Vec<Result<(), StoreError>> {
        let mut content = self.content();
        content.writes += 1;
        let fails = content.faults.write_fails_ppm;
        if content.rng.chance(fails) {
            content.writes_failed += 1;
            return vec![Err(StoreError::Unavailable); writes.len()];
        }
        writes.iter().map(|write| content.do_write(write)).collect()
    }

    fn read(
        &mut self,
        user: UserKey,
        after: u64,
        rows: u32,
        bytes: u32,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        let mut content = self.content();
        let fails = content.faults.read_fails_ppm;
        if content.rng.chance(fails) {
            return Err(StoreError::Unavailable);
        }
        let (mut found, mut size) = (Vec::new(), 0);
        for row in content.rows.range((user, after + 1)..=(user, u64::MAX)).map(|(_, row)| row) {
            size += row.message.body.len();
            if found.len() == rows as usize || (!found.is_empty() && size > bytes as usize) {
                return Ok((found, true));
            }
            found.push(row.clone());
        }
        Ok((found, false))
    }

    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError> {
        let mut content = self.content();
        let fails = content.faults.members_fail_ppm;
        if content.rng.chance(fails) {
            return Err(StoreError::Unavailable);
        }
        Ok(content.groups.get(&group).cloned().unwrap_or_default())
    }

    fn max_seq(&mut self) -> Result<u64, StoreError> {
        let content = self.content();
        let rows = content.rows.keys().map(|(_, seq)| *seq);
        Ok(rows.chain(content.dead.iter().map(|(_, row)| row.seq)).max().unwrap_or(0))
    }

    fn tenant_named(&mut self, _: &[u8], _: &[u8]) -> Result<Option<TenantId>, StoreError> {
        Ok(None)
    }

    /// User 7 is `u7`, whether he ever comes or not; groups are called by their numbers.
    fn resolve(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        what: NameKind,
    ) -> Result<Option<Found>, StoreError> {
        let mut content = self.content();
        let fails = content.faults.members_fail_ppm;
        if content.rng.chance(fails) {
            return Err(StoreError::Unavailable);
        }
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
        let user = name.strip_prefix(b"u").and_then(number).map(UserId);
        let group = number(name).map(GroupId);
        let group = group.filter(|&id| content.groups.contains_key(&GroupKey { tenant, id }));
        Ok(match (user, group, what) {
            (Some(user), _, NameKind::Any) => Some(Found::User(user)),
            (_, group, _) => group.map(Found::Group),
        })
    }

    fn query(&mut self, _: UserKey, _: &Query) -> Result<(Answer, Option<GroupId>), StoreError> {
        Ok((Answer::Done, None))
    }

    fn user_by_name(&mut self, _: TenantId, _: &[u8]) -> Result<Option<StoredUser>, StoreError> {
        Ok(None)
    }

    fn user_by_phone(&mut self, _: TenantId, _: &[u8]) -> Result<Option<StoredUser>, StoreError> {
        Ok(None)
    }

    fn name_of(&mut self, _: UserKey) -> Result<Option<Box<[u8]>>, StoreError> {
        Ok(None)
    }
}

/// The id as it stands on the wire; every id of a simulation is of full length.
pub fn padded(id: &MessageId) -> &[u8; MESSAGE_ID] {
    id.as_bytes().try_into().expect("32 bytes")
}
