//! The sidecar: a small pool of OS threads that do everything that blocks, behind bounded queues.
//!
//! ```text
//!            store queue     one thread, group commit           ┐
//!   Port ──► login queue     front (cache) ──► N authenticators ├──► outbox ──► Port, Waker
//!            group queue     N threads, if groups have a source ┘
//! ```
//!
//! Owns: the threads, the queues, the order of replies. Never: a shard's state; a shard owns one
//! [`Port`] and meets the sidecar nowhere else.
//!
//! - A [`Port`] never blocks. A full queue gives the request back.
//! - Every accepted request that has a reply gets exactly one; replies of one queue come in the
//!   order of its requests for the store, and as they are ready for logins and groups.
//! - Start it before the shards pin themselves: threads inherit the processor mask.

mod logins;
mod outbox;
mod port;
mod retained;
mod threads;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use codec::GroupKey;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use self::logins::Login;
use self::outbox::Outbox;
pub use self::port::Port;
use self::threads::Shared;
pub use self::worker::StoreWorker;
use crate::auth::{Authenticator, LoginCache, OpenIds};
use crate::groups::GroupSource;
use crate::metrics::{Counters, Snapshot};
use crate::request::{Request, ShardIndex};
use crate::store::Store;

/// Wakes a shard after replies were queued for it. Called on the sidecar's threads; must not block.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// What the threads work with. Each set of authenticators and each group source gets a thread of
/// its own, so their numbers bound the calls under way.
pub struct Config {
    pub store: Box<dyn Store>,
    /// Open authentication: the ids handed out, for names that are not in the store yet.
    pub open_ids: Option<Arc<OpenIds>>,
    /// Per thread, one for each realm (see [`crate::AuthRequest::realm`]). No threads: every login
    /// is given back by [`Port::submit`]; one of an unknown realm is answered "unavailable".
    pub authenticators: Vec<Vec<Box<dyn Authenticator>>>,
    /// None: members come from the store.
    pub group_sources: Vec<Box<dyn GroupSource>>,
    pub limits: Limits,
}

/// Every bound of the sidecar.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Store requests of all shards waiting: some tens of milliseconds of work. The queue is
    /// allocated at once, some 110 B each; bodies are shared with the shards, which bound them.
    pub store_queue_len_max: usize,
    /// Logins waiting, twice where there is a cache: for the front, then for an authenticator.
    /// With four threads of argon2, four seconds.
    pub auth_queue_len_max: usize,
    pub group_queue_len_max: usize,
    /// Requests with a reply outstanding per shard; what bounds its reply queue.
    pub outstanding_len_max: usize,
    /// Requests in one transaction, and bytes of bodies after which no further one is added: so
    /// that a commit takes some tens of milliseconds even when the queue is full. Not fewer: a
    /// page goes to the log once per transaction, and there each user's rows have their own.
    pub batch_len_max: usize,
    pub batch_bytes_max: usize,
    /// Reads in one transaction, up to 64 KiB each, whose rows wait for its commit.
    pub batch_reads_max: usize,
    /// Writes without a reply kept while the store is unavailable, some 50 B each.
    pub retained_len_max: usize,
    /// Cached logins, 65 B each and a name where there is one, and how long each is believed.
    pub logins_len_max: usize,
    pub login_ttl: Duration,
    /// How often the store is asked whether another process changed it: well under the 5 s within
    /// which a gateway sees what the command line did.
    pub change_poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            store_queue_len_max: 8192,
            auth_queue_len_max: 1024,
            group_queue_len_max: 1024,
            outstanding_len_max: 8192,
            batch_len_max: 4096,
            batch_bytes_max: 4 << 20,
            batch_reads_max: 512,
            retained_len_max: 1 << 16,
            logins_len_max: 1 << 20,
            login_ttl: Duration::from_secs(600),
            change_poll: Duration::from_secs(2),
        }
    }
}

/// What a queue carries. `Stop` stands behind all that was submitted before it.
enum Job<T> {
    Run(ShardIndex, T),
    Stop,
}

/// The running threads. Without [`Sidecar::stop`] they end when it, the ports and the observers
/// are gone.
pub struct Sidecar {
    queues: Queues,
    /// `Stop`s that the login queue needs: one for the front, or one per authenticator.
    auth_stops: usize,
    group_stops: usize,
    threads: Vec<JoinHandle<()>>,
    /// Disconnected when the last thread has ended.
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

/// The sending ends, as every port has them.
#[derive(Clone)]
struct Queues {
    store: Sender<Job<Request>>,
    logins: Option<Sender<Job<Login>>>,
    groups: Option<Sender<Job<GroupKey>>>,
}

/// Reads the sidecar's figures from any thread.
#[derive(Clone)]
pub struct Observer {
    queues: Queues,
    shared: Arc<Shared>,
}

impl Sidecar {
    /// Starts the threads; one port per waker, in the order of the shards.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn start(config: Config, wakers: Vec<Waker>) -> io::Result<(Self, Vec<Port>)> {
        let Config { store, open_ids, authenticators, group_sources, limits } = config;
        let cacheable = authenticators.iter().flatten().any(|realm| realm.cacheable());
        let (outbox, receivers) = Outbox::new(wakers);
        let shared = Arc::new(Shared {
            outbox,
            counters: Arc::new(Counters::default()),
            logins: cacheable.then(|| LoginCache::new(limits.logins_len_max, limits.login_ttl)),
            stopping: AtomicBool::new(false),
        });
        let mut spawner = Spawner::new(Arc::clone(&shared));
        let auth_stops = if cacheable { 1 } else { authenticators.len() };
        let group_stops = group_sources.len();
        let queues = Queues {
            store: spawner.store(store, open_ids, limits)?,
            logins: spawner.logins(authenticators, cacheable, limits)?,
            groups: spawner.groups(group_sources, limits)?,
        };
        let ports = (0..).zip(receivers).map(|(shard, replies)| {
            Port::new(shard, queues.clone(), replies, Arc::clone(&shared), &limits)
        });
        let ports = ports.collect();
        let (threads, ended) = spawner.finish();
        Ok((Self { queues, auth_stops, group_stops, threads, ended, shared }, ports))
    }

    pub fn observer(&self) -> Observer {
        Observer { queues: self.queues.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Carries out every store request submitted so far, answers the others "unavailable" where
    /// they have not begun, and ends the threads. Later submissions fail. `false`: a backend kept a
    /// thread busy beyond `limit`; that thread goes on by itself.
    #[must_use]
    pub fn stop(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(logins) = &self.queues.logins {
            for _ in 0..self.auth_stops {
                let _ = logins.send_deadline(Job::Stop, deadline);
            }
        }
        if let Some(groups) = &self.queues.groups {
            for _ in 0..self.group_stops {
                let _ = groups.send_deadline(Job::Stop, deadline);
            }
        }
        let _ = self.queues.store.send_deadline(Job::Stop, deadline);
        let ended = self.ended.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected);
        if ended {
            for thread in self.threads {
                // A panic was reported when it happened.
                let _ = thread.join();
            }
        }
        ended
    }
}

impl Observer {
    pub fn snapshot(&self) -> Snapshot {
        let Shared { counters, logins, .. } = &*self.shared;
        let mut store = counters.store.figures();
        let mut auth = counters.auth.figures();
        let mut groups = counters.groups.figures();
        (store.queue_len, store.queue_len_max) = fill(Some(&self.queues.store));
        (auth.queue_len, auth.queue_len_max) = fill(self.queues.logins.as_ref());
        (groups.queue_len, groups.queue_len_max) = fill(self.queues.groups.as_ref());
        auth.cache_len = logins.as_ref().map_or(0, |logins| logins.len() as u64);
        Snapshot { store, auth, groups }
    }
}

fn fill<T>(queue: Option<&Sender<T>>) -> (u64, u64) {
    queue.map_or((0, 0), |queue| (queue.len() as u64, queue.capacity().unwrap_or(0) as u64))
}

/// Starts threads, each holding a sign of life.
struct Spawner {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    alive: Sender<()>,
    ended: Receiver<()>,
}

impl Spawner {
    fn new(shared: Arc<Shared>) -> Self {
        let (alive, ended) = bounded(0);
        Self { shared, threads: Vec::new(), alive, ended }
    }

    fn store(
        &mut self,
        store: Box<dyn Store>,
        open_ids: Option<Arc<OpenIds>>,
        limits: Limits,
    ) -> io::Result<Sender<Job<Request>>> {
        let (sender, jobs) = bounded(limits.store_queue_len_max);
        let counters = Arc::clone(&self.shared.counters);
        let worker = StoreWorker::with_counters(store, limits.retained_len_max, counters)
            .with_open_ids(open_ids);
        self.spawn("sidecar-store".into(), move |shared| {
            threads::run_store(worker, &jobs, &limits, shared);
        })?;
        Ok(sender)
    }

    fn logins(
        &mut self,
        authenticators: Vec<Vec<Box<dyn Authenticator>>>,
        cacheable: bool,
        limits: Limits,
    ) -> io::Result<Option<Sender<Job<Login>>>> {
        let count = authenticators.len();
        let (misses, jobs) = bounded(limits.auth_queue_len_max);
        for (i, realms) in authenticators.into_iter().enumerate() {
            let jobs = jobs.clone();
            self.spawn(format!("sidecar-auth-{i}"), move |shared| {
                logins::run_authenticators(realms, &jobs, shared);
            })?;
        }
        if !cacheable {
            return Ok((count > 0).then_some(misses));
        }
        let (sender, jobs) = bounded(limits.auth_queue_len_max);
        self.spawn("sidecar-login".into(), move |shared| {
            logins::run_front(&jobs, &misses, count, shared);
        })?;
        Ok(Some(sender))
    }

    fn groups(
        &mut self,
        sources: Vec<Box<dyn GroupSource>>,
        limits: Limits,
    ) -> io::Result<Option<Sender<Job<GroupKey>>>> {
        if sources.is_empty() {
            return Ok(None);
        }
        let (sender, jobs) = bounded(limits.group_queue_len_max);
        for (i, source) in sources.into_iter().enumerate() {
            let jobs = jobs.clone();
            self.spawn(format!("sidecar-grp-{i}"), move |shared| {
                threads::run_groups(source, &jobs, shared);
            })?;
        }
        Ok(Some(sender))
    }

    fn spawn(
        &mut self,
        name: String,
        run: impl FnOnce(&Shared) + Send + 'static,
    ) -> io::Result<()> {
        let (shared, alive) = (Arc::clone(&self.shared), self.alive.clone());
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            run(&shared);
            drop(alive);
        })?;
        self.threads.push(thread);
        Ok(())
    }

    fn finish(self) -> (Vec<JoinHandle<()>>, Receiver<()>) {
        (self.threads, self.ended)
    }
}
