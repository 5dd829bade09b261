//! Writes that nobody waits for, kept while the store is unavailable.
//!
//! Owns: their order and their bound. Never: an append; those are answered at once. What is given
//! up at the bound can repeat a delivery or delay a dead letter, but never lose a message.

use std::collections::{HashMap, VecDeque};

use codec::UserKey;

use super::worker::user_of;
use crate::request::StoreError;
use crate::store::Write;

pub(super) struct Retained {
    writes: VecDeque<Write>,
    /// Writes kept per user; a user is in it only while he has any.
    users: HashMap<UserKey, u32>,
    len_max: usize,
}

impl Retained {
    pub(super) fn new(len_max: usize) -> Self {
        Self { writes: VecDeque::new(), users: HashMap::new(), len_max: len_max.max(1) }
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn has(&self, user: UserKey) -> bool {
        self.users.contains_key(&user)
    }

    /// Keeps `write` as the newest. Returns how many had to be given up for it.
    pub(super) fn push(&mut self, write: Write) -> u64 {
        assert!(!matches!(write, Write::Append(_)), "appends are answered, not retained");
        let dropped = if self.writes.len() >= self.len_max { self.shed() } else { 0 };
        *self.users.entry(user_of(&write)).or_default() += 1;
        self.writes.push_back(write);
        dropped
    }

    /// The oldest writes, at most `len_max`.
    pub(super) fn oldest(&mut self, len_max: usize) -> &[Write] {
        let writes = self.writes.make_contiguous();
        &writes[..len_max.min(writes.len())]
    }

    /// Takes away the oldest writes, one per result, but those the store still could not do.
    pub(super) fn settle(&mut self, results: &[Result<(), StoreError>]) {
        let kept = self.writes.split_off(results.len());
        let tried = std::mem::replace(&mut self.writes, kept);
        let mut again = VecDeque::new();
        for (write, result) in tried.into_iter().zip(results) {
            match result {
                Err(StoreError::Unavailable) => again.push_back(write),
                Ok(()) | Err(StoreError::Full) => self.forget(&write),
            }
        }
        again.append(&mut self.writes);
        self.writes = again;
    }

    /// Makes room by an eighth of the bound, so that a full list is not searched for every write:
    /// the oldest deletes, or the oldest writes if there are no deletes.
    fn shed(&mut self) -> u64 {
        let any_delete = self.writes.iter().any(|write| matches!(write, Write::Delete { .. }));
        let mut quota = self.len_max.div_ceil(8);
        let mut kept = VecDeque::with_capacity(self.writes.len());
        let mut dropped = 0;
        for write in std::mem::take(&mut self.writes) {
            if quota > 0 && (!any_delete || matches!(write, Write::Delete { .. })) {
                quota -= 1;
                dropped += 1;
                self.forget(&write);
            } else {
                kept.push_back(write);
            }
        }
        self.writes = kept;
        dropped
    }

    fn forget(&mut self, write: &Write) {
        let user = user_of(write);
        if let Some(count) = self.users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use codec::{TenantId, UserId};

    use super::*;

    fn user(id: u32) -> UserKey {
        UserKey { tenant: TenantId(0), id: UserId(id) }
    }

    fn delete(id: u32, seq: u64) -> Write {
        Write::Delete { user: user(id), seq }
    }

    fn round(id: u32, seq: u64) -> Write {
        Write::FailedRound { user: user(id), seq, charge: true }
    }

    fn seqs(retained: &mut Retained) -> Vec<u64> {
        let seq = |write: &Write| match write {
            Write::Delete { seq, .. } | Write::FailedRound { seq, .. } => *seq,
            Write::Append(_) | Write::DeadLetter { .. } | Write::Bind { .. } => {
                panic!("not used here")
            }
        };
        retained.oldest(usize::MAX).iter().map(seq).collect()
    }

    #[test]
    fn what_still_fails_stays_in_its_place() {
        let mut retained = Retained::new(10);
        for seq in 1..=4 {
            retained.push(delete(seq as u32 % 2, seq));
        }
        assert_eq!(retained.oldest(3).len(), 3);
        retained.settle(&[Ok(()), Err(StoreError::Unavailable), Err(StoreError::Full)]);
        assert_eq!(seqs(&mut retained), [2, 4]);
        assert!(retained.has(user(0)) && !retained.has(user(1)));
        retained.settle(&[Ok(()), Ok(())]);
        assert!(retained.is_empty() && !retained.has(user(0)));
    }

    #[test]
    fn at_the_bound_the_oldest_deletes_go_first() {
        let mut retained = Retained::new(8);
        retained.push(round(1, 1));
        for seq in 2..=8 {
            assert_eq!(retained.push(delete(1, seq)), 0);
        }
        assert_eq!(retained.push(round(1, 9)), 1);
        assert_eq!(seqs(&mut retained), [1, 3, 4, 5, 6, 7, 8, 9]);
        for seq in 10..=15 {
            assert_eq!(retained.push(round(1, seq)), 1);
        }
        assert_eq!(seqs(&mut retained), [1, 9, 10, 11, 12, 13, 14, 15], "no delete is left");
        assert_eq!(retained.push(round(2, 16)), 1);
        assert_eq!(seqs(&mut retained), [9, 10, 11, 12, 13, 14, 15, 16]);
    }
}
