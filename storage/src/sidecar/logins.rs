//! The login threads: a front that answers from the cache, and the authenticators behind it.
//!
//! Owns: who answers a login, and that passwords are wiped afterwards. Never: a verdict of its own,
//! but "unavailable" where the queue is full or the sidecar stops.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError};

use super::Job;
use super::threads::Shared;
use crate::auth::{Authenticator, Generation, LoginCache, LoginKey};
use crate::request::{AuthRequest, AuthVerdict, ShardIndex};

/// A login on its way to an authenticator.
pub(super) struct Login {
    pub(super) request: AuthRequest,
    /// What the front found out, for remembering the verdict.
    asked: Option<(LoginKey, Generation)>,
}

impl Login {
    pub(super) fn new(request: AuthRequest) -> Self {
        Self { request, asked: None }
    }
}

/// The login front: answers what the cache knows, so that such logins never wait behind argon2 or
/// the user centre, and passes the rest on. Stops the authenticators behind it when it ends.
pub(super) fn run_front(
    jobs: &Receiver<Job<Login>>,
    misses: &Sender<Job<Login>>,
    authenticators: usize,
    shared: &Shared,
) {
    let logins = shared.logins.as_ref().expect("the front runs only with a cache");
    let mut burst = Vec::new();
    let mut more = true;
    while more {
        more = wait_burst(jobs, &mut burst);
        let mut touched: Vec<ShardIndex> = Vec::new();
        for (shard, login) in burst.drain(..) {
            if look_up(shard, login.request, logins, misses, shared) && !touched.contains(&shard) {
                touched.push(shard);
            }
        }
        touched.into_iter().for_each(|shard| shared.outbox.wake(shard));
    }
    for _ in 0..authenticators {
        let _ = misses.send(Job::Stop);
    }
}

fn wait_burst(jobs: &Receiver<Job<Login>>, burst: &mut Vec<(ShardIndex, Login)>) -> bool {
    let mut next = jobs.recv().ok();
    while let Some(Job::Run(shard, login)) = next {
        burst.push((shard, login));
        if burst.len() >= BURST_LEN_MAX {
            return true;
        }
        next = match jobs.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => None,
        };
    }
    false
}

/// `true`: a reply was queued. `false`: an authenticator will.
fn look_up(
    shard: ShardIndex,
    request: AuthRequest,
    logins: &LoginCache,
    misses: &Sender<Job<Login>>,
    shared: &Shared,
) -> bool {
    let asked = match logins.key(&request).map(|key| (key, logins.lookup(key, Instant::now()))) {
        Some((_, Ok((user, name)))) => {
            shared.counters.auth.cache_hits.add(1);
            shared.decide(shard, request, AuthVerdict::Pass { user, name });
            return true;
        }
        Some((key, Err(generation))) => Some((key, generation)),
        None => None,
    };
    let refused = match misses.try_send(Job::Run(shard, Login { request, asked })) {
        Ok(()) => return false,
        Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
    };
    if let Job::Run(shard, login) = refused {
        shared.counters.auth.refused.add(1);
        shared.decide(shard, login.request, AuthVerdict::Unavailable);
    }
    true
}

/// An auth thread: one login at a time, by the authenticator of its realm.
pub(super) fn run_authenticators(
    mut realms: Vec<Box<dyn Authenticator>>,
    jobs: &Receiver<Job<Login>>,
    shared: &Shared,
) {
    while let Ok(Job::Run(shard, Login { request, asked })) = jobs.recv() {
        let verdict = match realms.get_mut(usize::from(request.realm)) {
            Some(authenticator) if !shared.stopping() => {
                let verdict = authenticator.authenticate(&request);
                if authenticator.cacheable() {
                    remember(&verdict, asked, shared);
                }
                verdict
            }
            _ => AuthVerdict::Unavailable,
        };
        shared.decide(shard, request, verdict);
        shared.outbox.wake(shard);
    }
}

fn remember(verdict: &AuthVerdict, asked: Option<(LoginKey, Generation)>, shared: &Shared) {
    if let (AuthVerdict::Pass { user, name }, Some((key, generation)), Some(logins)) =
        (verdict, asked, &shared.logins)
    {
        logins.insert(key, (*user, name.clone()), generation, Instant::now());
    }
}

/// Logins that the front answers before it wakes the shards.
const BURST_LEN_MAX: usize = 256;
