//! Counters of the sidecar, and the snapshot of them that `/metrics` prints.
//!
//! Owns: one atomic per figure, written by the sidecar's threads, read by the control thread.
//! Never: names, labels or formats of the exposition; it blocks nobody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::Imports;

/// Upper bounds of the commit-time buckets, in microseconds: from a fast NVMe's flush to a stalled
/// disk. One more bucket counts what is slower.
pub const COMMIT_BOUNDS_US: [u64; 14] = [
    125, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000,
    1_000_000,
];

/// A point-in-time copy of every figure. Counters only grow; the others are gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub store: StoreFigures,
    pub auth: AuthFigures,
    pub groups: GroupFigures,
}

/// The store's queue and its commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// Transactions tried.
    pub batches: u64,
    /// Rows committed.
    pub rows: u64,
    /// Deletes, failed rounds and dead letters carried out.
    pub updates: u64,
    pub reads: u64,
    /// Names looked up.
    pub resolved: u64,
    /// Questions about contacts and groups.
    pub queries: u64,
    /// Appends refused at a cap.
    pub full: u64,
    /// Appends answered "unavailable".
    pub unavailable: u64,
    /// Reads and member lists answered "unavailable".
    pub reads_unavailable: u64,
    /// Writes without a reply that wait for the store to come back (gauge).
    pub retained: u64,
    /// Retained writes given up at the bound: a message may be delivered twice.
    pub retained_dropped: u64,
    /// Writes without a reply that the store refused for good.
    pub updates_refused: u64,
    /// Rows that became dead letters because of their age.
    pub expired: u64,
    /// Changes made by another process.
    pub changes: u64,
    /// What another system had left in the store, as last asked.
    pub imports: Imports,
    /// Why writes fail at present, for the log and the readiness check; `None`: they do not.
    pub trouble: Option<String>,
    pub commit: CommitTimes,
    /// Requests waiting (gauge) and the queue's bound.
    pub queue_len: u64,
    pub queue_len_max: u64,
}

/// How long `Store::write` took, failed transactions included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitTimes {
    /// Per bucket, not cumulative; the last one is beyond [`COMMIT_BOUNDS_US`].
    pub buckets: [u64; COMMIT_BOUNDS_US.len() + 1],
    pub sum_us: u64,
    pub max_us: u64,
}

/// Logins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthFigures {
    pub passed: u64,
    pub denied: u64,
    pub unavailable: u64,
    /// Answered from the cache; also counted in `passed`.
    pub cache_hits: u64,
    /// Cached logins (gauge).
    pub cache_len: u64,
    /// Answered "unavailable" because every authenticator was busy and the queue full.
    pub refused: u64,
    /// Requests waiting (gauge) and the queue's bound.
    pub queue_len: u64,
    pub queue_len_max: u64,
}

/// Member lists from a source of their own (Redis).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFigures {
    pub lookups: u64,
    pub unavailable: u64,
    /// Groups refused because they have too many members.
    pub full: u64,
    /// Members that are no user id.
    pub members_skipped: u64,
    /// Requests waiting (gauge) and the queue's bound.
    pub queue_len: u64,
    pub queue_len_max: u64,
}

/// One figure. Relaxed: figures need not agree with each other.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub(crate) fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) store: StoreCounters,
    pub(crate) auth: AuthCounters,
    pub(crate) groups: GroupCounters,
}

#[derive(Debug, Default)]
pub(crate) struct StoreCounters {
    pub(crate) batches: Count,
    pub(crate) rows: Count,
    pub(crate) updates: Count,
    pub(crate) reads: Count,
    pub(crate) resolved: Count,
    pub(crate) queries: Count,
    pub(crate) full: Count,
    pub(crate) unavailable: Count,
    pub(crate) reads_unavailable: Count,
    pub(crate) retained: Count,
    pub(crate) retained_dropped: Count,
    pub(crate) updates_refused: Count,
    pub(crate) expired: Count,
    pub(crate) changes: Count,
    /// Written once in a while, and only where it changes.
    imports: Mutex<Imports>,
    /// Empty: none. Written only when the store fails or comes back.
    trouble: Mutex<String>,
    commit_buckets: [Count; COMMIT_BOUNDS_US.len() + 1],
    commit_sum_us: Count,
    commit_max_us: Count,
}

#[derive(Debug, Default)]
pub(crate) struct AuthCounters {
    pub(crate) passed: Count,
    pub(crate) denied: Count,
    pub(crate) unavailable: Count,
    pub(crate) cache_hits: Count,
    pub(crate) refused: Count,
}

#[derive(Debug, Default)]
pub(crate) struct GroupCounters {
    pub(crate) lookups: Count,
    pub(crate) unavailable: Count,
    pub(crate) full: Count,
    pub(crate) members_skipped: Count,
}

impl StoreCounters {
    /// Notes one call of `Store::write`.
    pub(crate) fn committed(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = COMMIT_BOUNDS_US.partition_point(|&bound| bound < us);
        self.batches.add(1);
        self.commit_buckets[bucket].add(1);
        self.commit_sum_us.add(us);
        self.commit_max_us.raise_to(us);
    }

    /// Notes why writes fail; empty: they do not any more.
    pub(crate) fn set_trouble(&self, text: &str) {
        text.clone_into(&mut self.trouble());
    }

    pub(crate) fn set_imports(&self, imports: Imports) {
        *self.imports() = imports;
    }

    fn trouble(&self) -> MutexGuard<'_, String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn imports(&self) -> MutexGuard<'_, Imports> {
        self.imports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn figures(&self) -> StoreFigures {
        StoreFigures {
            batches: self.batches.value(),
            rows: self.rows.value(),
            updates: self.updates.value(),
            reads: self.reads.value(),
            resolved: self.resolved.value(),
            queries: self.queries.value(),
            full: self.full.value(),
            unavailable: self.unavailable.value(),
            reads_unavailable: self.reads_unavailable.value(),
            retained: self.retained.value(),
            retained_dropped: self.retained_dropped.value(),
            updates_refused: self.updates_refused.value(),
            expired: self.expired.value(),
            changes: self.changes.value(),
            imports: *self.imports(),
            trouble: Some(self.trouble().clone()).filter(|text| !text.is_empty()),
            commit: CommitTimes {
                buckets: std::array::from_fn(|i| self.commit_buckets[i].value()),
                sum_us: self.commit_sum_us.value(),
                max_us: self.commit_max_us.value(),
            },
            queue_len: 0,
            queue_len_max: 0,
        }
    }
}

impl AuthCounters {
    pub(crate) fn figures(&self) -> AuthFigures {
        AuthFigures {
            passed: self.passed.value(),
            denied: self.denied.value(),
            unavailable: self.unavailable.value(),
            cache_hits: self.cache_hits.value(),
            refused: self.refused.value(),
            ..AuthFigures::default()
        }
    }
}

impl GroupCounters {
    pub(crate) fn figures(&self) -> GroupFigures {
        GroupFigures {
            lookups: self.lookups.value(),
            unavailable: self.unavailable.value(),
            full: self.full.value(),
            members_skipped: self.members_skipped.value(),
            ..GroupFigures::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_time_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let counters = StoreCounters::default();
        for us in [0, 125, 126, 1_000_000, 1_000_001] {
            counters.committed(Duration::from_micros(us));
        }
        let commit = counters.figures().commit;
        assert_eq!(commit.buckets[0], 2);
        assert_eq!(commit.buckets[1], 1);
        assert_eq!(commit.buckets[COMMIT_BOUNDS_US.len() - 1], 1);
        assert_eq!(commit.buckets[COMMIT_BOUNDS_US.len()], 1);
        assert_eq!(commit.sum_us, 2_000_252);
        assert_eq!(commit.max_us, 1_000_001);
    }
}
