//! The loops of the store thread and the group threads, and what all threads share.
//!
//! Owns: when a thread waits, for how long, and when it ends. Never: what a request means; that is
//! the worker's and the group sources'.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use codec::GroupKey;
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::outbox::Outbox;
use super::worker::StoreWorker;
use super::{Job, Limits};
use crate::auth::LoginCache;
use crate::groups::GroupSource;
use crate::metrics::Counters;
use crate::request::{AuthRequest, AuthVerdict, Reply, Request, ShardIndex, StoreError};

/// What the threads have in common.
pub(super) struct Shared {
    pub(super) outbox: Outbox,
    pub(super) counters: Arc<Counters>,
    /// Absent if no authenticator's verdicts may be remembered.
    pub(super) logins: Option<LoginCache>,
    /// Set once: what has not begun is answered "unavailable".
    pub(super) stopping: AtomicBool,
}

impl Shared {
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Counts and queues a verdict. Nobody needs the proof any more: it is wiped.
    pub(super) fn decide(&self, shard: ShardIndex, request: AuthRequest, verdict: AuthVerdict) {
        let token = request.token;
        drop(request);
        let auth = &self.counters.auth;
        match verdict {
            AuthVerdict::Pass { .. } => auth.passed.add(1),
            AuthVerdict::Denied | AuthVerdict::UnknownTenant => auth.denied.add(1),
            AuthVerdict::Unavailable => auth.unavailable.add(1),
        }
        self.outbox.push(shard, Reply::Auth { token, verdict });
    }
}

/// The store thread: everything queued in one batch, replies after the commit, a look at the
/// store's changes now and then.
pub(super) fn run_store(
    mut worker: StoreWorker,
    jobs: &Receiver<Job<Request>>,
    limits: &Limits,
    shared: &Shared,
) {
    let start = Instant::now();
    let mut next_poll = limits.change_poll;
    let mut more_requeued = false;
    let (mut batch, mut replies) = (Vec::new(), Vec::new());
    loop {
        let until = worker.retry_at().map_or(next_poll, |retry| retry.min(next_poll));
        let more = collect(jobs, start + until, limits, &mut batch);
        worker.run(&mut batch, start.elapsed(), &mut replies);
        for group in worker.changed_groups() {
            shared.outbox.announce_group(group);
        }
        shared.outbox.deliver(&mut replies);
        if !more {
            worker.finish(start.elapsed());
            return;
        }
        if next_poll <= start.elapsed() {
            more_requeued = poll_changes(&mut worker, more_requeued, shared);
            let more_expired = worker.expire(unix_ms());
            let pause = if more_expired { EXPIRE_PAUSE } else { limits.change_poll };
            next_poll = start.elapsed() + pause.min(limits.change_poll);
        }
    }
}

/// Tells the shards what another process did. `true`: there is more to tell at the next poll.
fn poll_changes(worker: &mut StoreWorker, more_requeued: bool, shared: &Shared) -> bool {
    let changed = worker.changed();
    if changed {
        shared.counters.store.changes.add(1);
        if let Some(logins) = &shared.logins {
            logins.clear();
        }
        shared.outbox.announce_change();
    }
    if !changed && !more_requeued {
        return false;
    }
    let users = worker.requeued(REQUEUED_LEN_MAX);
    for &user in &users {
        shared.outbox.announce_requeued(user);
    }
    users.len() >= REQUEUED_LEN_MAX
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Waits for a request, then takes what else is there, up to the batch's bounds. `false`: stop
/// after this batch.
fn collect(
    jobs: &Receiver<Job<Request>>,
    deadline: Instant,
    limits: &Limits,
    batch: &mut Vec<(ShardIndex, Request)>,
) -> bool {
    let (mut bytes, mut reads) = (0, 0);
    let mut next = match jobs.recv_deadline(deadline) {
        Ok(job) => job,
        Err(RecvTimeoutError::Timeout) => return true,
        Err(RecvTimeoutError::Disconnected) => return false,
    };
    loop {
        match next {
            Job::Stop => return false,
            Job::Run(shard, request) => {
                bytes += body_len(&request);
                reads += usize::from(matches!(request, Request::Read { .. }));
                batch.push((shard, request));
            }
        }
        let full = batch.len() >= limits.batch_len_max || reads >= limits.batch_reads_max;
        if full || bytes >= limits.batch_bytes_max {
            return true;
        }
        next = match jobs.try_recv() {
            Ok(job) => job,
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        };
    }
}

fn body_len(request: &Request) -> usize {
    if let Request::Append(append) = request { append.message.body.len() } else { 0 }
}

/// A group thread: one lookup at a time.
pub(super) fn run_groups(
    mut source: Box<dyn GroupSource>,
    jobs: &Receiver<Job<GroupKey>>,
    shared: &Shared,
) {
    let groups = &shared.counters.groups;
    while let Ok(Job::Run(shard, group)) = jobs.recv() {
        let result =
            if shared.stopping() { Err(StoreError::Unavailable) } else { source.members(group) };
        groups.lookups.add(1);
        groups.members_skipped.raise_to(source.skipped());
        match result {
            Ok(_) => {}
            Err(StoreError::Full) => groups.full.add(1),
            Err(StoreError::Unavailable) => groups.unavailable.add(1),
        }
        shared.outbox.push(shard, Reply::Members { group, result });
        shared.outbox.wake(shard);
    }
}

/// Users told about per poll, to every shard: far more than anybody puts back by hand, and little
/// beside the replies that a shard may be owed.
const REQUEUED_LEN_MAX: usize = 256;
/// Between two steps of expiry: requests come in between, and a large backlog goes within minutes.
const EXPIRE_PAUSE: Duration = Duration::from_millis(20);
