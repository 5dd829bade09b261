//! The users a shard knows at the moment: those with a terminal, with deliveries on their way to
//! the store, or with a de-duplication window. Never: all users there are.
//!
//! Records sit in a chunked slab, found through a chained hash index whose bucket array has its
//! final size from the start (untouched pages cost nothing), so that growth never copies.

use std::sync::Arc;

use codec::UserKey;
use smallvec::SmallVec;

use crate::home::dedup::Dedup;
use crate::home::inbox::Inbox;
use crate::home::session::Deadline;
use crate::io::Slot;
use crate::table::Slab;

/// One user.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) key: UserKey,
    /// Sessions of the user, in the order of their logins.
    pub(crate) terminals: SmallVec<[Slot; 2]>,
    /// Exists while anything is queued, stored or read for the user.
    pub(crate) inbox: Option<Box<Inbox>>,
    pub(crate) dedup: Option<Box<Dedup>>,
    /// Under which he logged in.
    pub(crate) name: Option<Arc<[u8]>>,
    /// Open authentication: the name is bound to the id with the first message stored for him.
    pub(crate) binds: bool,
    /// Dead letters were put back among rows already read: read from the start when idle.
    pub(crate) requeued: bool,
    pub(crate) deadline: Deadline,
    /// Next record of the same bucket, plus one; 0 ends the chain.
    chain: u32,
}

#[derive(Debug)]
pub(crate) struct Users {
    slab: Slab<User>,
    /// Index of the first record of each bucket, plus one.
    heads: Box<[u32]>,
    seed: u64,
}

impl Users {
    /// `expected`: about how many users there will be at most.
    pub(crate) fn new(expected: u32, seed: u64) -> Self {
        let buckets = expected.max(64).next_power_of_two() as usize;
        Self { slab: Slab::new(), heads: vec![0; buckets].into_boxed_slice(), seed }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn find(&self, key: UserKey) -> Option<u32> {
        let mut link = self.heads[self.bucket(key)];
        while link != 0 {
            let user = self.slab.get(link - 1)?;
            if user.key == key {
                return Some(link - 1);
            }
            link = user.chain;
        }
        None
    }

    pub(crate) fn find_or_insert(&mut self, key: UserKey) -> u32 {
        if let Some(index) = self.find(key) {
            return index;
        }
        let bucket = self.bucket(key);
        let index = self.slab.insert(User {
            key,
            terminals: SmallVec::new(),
            inbox: None,
            dedup: None,
            name: None,
            binds: false,
            requeued: false,
            deadline: Deadline::default(),
            chain: self.heads[bucket],
        });
        self.heads[bucket] = index + 1;
        index
    }

    /// The record at an index that [`Self::find`] gave and that was not removed since.
    pub(crate) fn at(&mut self, index: u32) -> &mut User {
        self.slab.get_mut(index).expect("user indices are kept only while the record lives")
    }

    pub(crate) fn get(&self, index: u32) -> Option<&User> {
        self.slab.get(index)
    }

    pub(crate) fn remove(&mut self, index: u32) -> User {
        let user = self.slab.remove(index).expect("only a live record is removed");
        let bucket = self.bucket(user.key);
        if self.heads[bucket] == index + 1 {
            self.heads[bucket] = user.chain;
            return user;
        }
        let mut link = self.heads[bucket];
        while let Some(previous) = link.checked_sub(1).and_then(|i| self.slab.get_mut(i)) {
            if previous.chain == index + 1 {
                previous.chain = user.chain;
                break;
            }
            link = previous.chain;
        }
        user
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &User> {
        self.slab.iter().map(|(_, user)| user)
    }

    fn bucket(&self, key: UserKey) -> usize {
        let key = (u64::from(key.tenant.0) << 32 | u64::from(key.id.0)) ^ self.seed;
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 32)) as usize & (self.heads.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use codec::{TenantId, UserId};

    use super::*;

    #[test]
    fn records_are_found_until_removed_whatever_chain_they_are_on() {
        let mut users = Users::new(1, 99);
        let key = |id| UserKey { tenant: TenantId(1), id: UserId(id) };
        let indices: Vec<u32> = (0..1_000).map(|id| users.find_or_insert(key(id))).collect();
        for id in (0..1_000).step_by(3) {
            users.remove(indices[id as usize]);
        }
        for id in 0..1_000 {
            let expected = (id % 3 != 0).then_some(indices[id as usize]);
            assert_eq!(users.find(key(id)), expected);
        }
        assert_eq!(users.len(), 666);
    }
}
