//! The way back from the sidecar's threads to the shards.
//!
//! Owns: one reply queue and one waker per shard. Never: drops a reply; the queues grow only to
//! what a [`Port`](super::Port) lets be outstanding, and by a few news per poll of the store.

use std::sync::atomic::{AtomicBool, Ordering};

use codec::{GroupKey, UserKey};
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Waker;
use crate::request::{Reply, ShardIndex};

pub(super) struct Outbox {
    shards: Vec<Shard>,
}

struct Shard {
    replies: Sender<Reply>,
    /// A `StoreChanged` is due. A flag, not an entry: nobody asked for it, so nothing bounds how
    /// many there may be.
    changed: AtomicBool,
    waker: Waker,
}

impl Outbox {
    /// The outbox, and each shard's end of its queue.
    pub(super) fn new(wakers: Vec<Waker>) -> (Self, Vec<Receiver<Reply>>) {
        let open = |waker| {
            let (replies, receiver) = unbounded();
            (Shard { replies, changed: AtomicBool::new(false), waker }, receiver)
        };
        let (shards, receivers) = wakers.into_iter().map(open).unzip();
        (Self { shards }, receivers)
    }

    /// Queues a reply; the shard is not woken yet.
    pub(super) fn push(&self, shard: ShardIndex, reply: Reply) {
        // A shard that is gone needs no reply.
        let _ = self.shards[usize::from(shard)].replies.send(reply);
    }

    pub(super) fn wake(&self, shard: ShardIndex) {
        (self.shards[usize::from(shard)].waker)();
    }

    /// Queues all of `replies` and wakes each of their shards once.
    pub(super) fn deliver(&self, replies: &mut Vec<(ShardIndex, Reply)>) {
        let mut touched = vec![false; if replies.is_empty() { 0 } else { self.shards.len() }];
        for (shard, reply) in replies.drain(..) {
            self.push(shard, reply);
            touched[usize::from(shard)] = true;
        }
        for (shard, _) in self.shards.iter().zip(touched).filter(|(_, touched)| *touched) {
            (shard.waker)();
        }
    }

    pub(super) fn announce_change(&self) {
        for shard in &self.shards {
            shard.changed.store(true, Ordering::Release);
            (shard.waker)();
        }
    }

    /// Queues the news for every shard: only the user's home knows him.
    pub(super) fn announce_requeued(&self, user: UserKey) {
        for shard in &self.shards {
            let _ = shard.replies.send(Reply::Requeued { user });
            (shard.waker)();
        }
    }

    /// Queues the news for every shard: any may have cached the group. A shard that takes nothing
    /// gets one word for all of them.
    pub(super) fn announce_group(&self, group: GroupKey) {
        for shard in &self.shards {
            if shard.replies.len() < NEWS_LEN_MAX {
                let _ = shard.replies.send(Reply::GroupChanged { group });
            } else {
                shard.changed.store(true, Ordering::Release);
            }
            (shard.waker)();
        }
    }

    /// Whether a change is due to `shard`; no longer afterwards.
    pub(super) fn take_change(&self, shard: ShardIndex) -> bool {
        let changed = &self.shards[usize::from(shard)].changed;
        // The plain load keeps the line shared while nothing happens.
        changed.load(Ordering::Relaxed) && changed.swap(false, Ordering::Acquire)
    }
}

/// Entries of a shard's queue above which news of groups are not added to it: twice what a shard
/// may be owed.
const NEWS_LEN_MAX: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use codec::{GroupId, TenantId};

    use super::*;

    #[test]
    fn a_shard_that_takes_nothing_is_told_of_groups_in_one_word() {
        let (outbox, receivers) = Outbox::new(vec![Box::new(|| {}), Box::new(|| {})]);
        let group = GroupKey { tenant: TenantId(0), id: GroupId(7) };
        for _ in 0..NEWS_LEN_MAX + 10 {
            outbox.announce_group(group);
            assert!(receivers[0].try_recv().is_ok(), "this one takes what comes");
        }
        assert_eq!((receivers[1].len(), outbox.take_change(1)), (NEWS_LEN_MAX, true));
        assert!(!outbox.take_change(0) && !outbox.take_change(1));
    }
}
