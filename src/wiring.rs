//! Builds the running gateway: engines, mesh, sidecar, shards, in this order, and takes it apart.
//!
//! ```text
//!   shard threads: engine made -> (peer, waker) to us ... Go -> pinned, running
//!   here:          listeners -> threads -> store -> sidecar (unpinned) -> Go to every shard
//! ```
//!
//! Owns: threads, and the [`Gateway`] seam to the control plane. Never: configuration rules,
//! signals, HTTP.

mod backends;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use codec::{Notice, TenantId, UserKey};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustls::ServerConfig;
use shards::io::epoll::EpollIo;
use shards::io::sys::{self, ListenOptions, Waker};
use shards::io::uring::UringIo;
use shards::io::{Engine, Sizes};
use shards::limits::{self, mesh_ring};
use shards::{Control, Identity, Mesh, Parts, Shard, ShardConfig, home_of_user};
use storage::sidecar::{Observer, Port, Sidecar};

use crate::authority::Authority;
use crate::config::Config;
use crate::engine::{self, Choice, Kind};
use crate::exit::Failure;
use crate::figures;
use crate::gateway::{Gateway, ShardSnapshot, Snapshot};
use crate::stores::Stores;

/// Starts everything; connections are accepted when this returns.
///
/// # Errors
/// An address cannot be bound, the kernel refuses an engine, the store cannot be opened.
pub(crate) fn start(
    config: &Config,
    stores: &Stores<'_>,
    authority: &Authority,
    tls: Option<Arc<ServerConfig>>,
) -> Result<Arc<dyn Gateway>, Failure> {
    let choice = Choice::of(config);
    if let Some(fallback) = &choice.fallback {
        tracing::warn!("running on epoll instead of io_uring: {fallback}");
    }
    match choice.kind {
        Kind::Uring => start_on::<UringIo>(config, stores, authority, tls, choice),
        Kind::Epoll => start_on::<EpollIo>(config, stores, authority, tls, choice),
    }
}

fn start_on<E: Engine>(
    config: &Config,
    stores: &Stores<'_>,
    authority: &Authority,
    tls: Option<Arc<ServerConfig>>,
    choice: Choice,
) -> Result<Arc<dyn Gateway>, Failure> {
    let count = config.shards();
    let sizes = engine::sizes(config, choice.kind).map_err(Failure::new)?;
    if count > limits::MANY_SHARDS
        && let Err(error) = sys::avoid_huge_pages()
    {
        tracing::warn!(%error, "huge pages stay on: small shards will hold more memory");
    }
    let mut listeners = bind(config, count)?;
    let mut threads = Vec::new();
    for shard in 0..count {
        let sockets = std::mem::take(&mut listeners[usize::from(shard)]);
        threads.push(ShardThread::spawn::<E>(shard, sizes, sockets)?);
    }
    let made: Vec<Made<E::Peer>> =
        threads.iter().map(ShardThread::made).collect::<Result<_, Failure>>()?;
    let backends = backends::open(config, stores, authority)?;
    let first_seq = backends.first_seq;
    let tenants = stores.tenant_ids()?;
    let wakers = made.iter().map(|made| waker_fn(made.waker.clone())).collect();
    let (sidecar, ports) = Sidecar::start(backends.sidecar, wakers)
        .map_err(|error| Failure::other("the sidecar cannot start", error))?;
    let start = Start {
        config: Arc::new(shard_config(config, count, &tenants)),
        peers: made.iter().map(|made| made.peer.clone()).collect(),
        first_seq,
        boot: random(),
        cpus: sys::allowed_cpus().unwrap_or_default(),
        unix_base_ms: unix_base_ms(),
        slot_reserve: sizes.slot_reserve,
        tls,
    };
    let meshes = Mesh::wire(count, mesh_ring(count));
    let mut handles = Vec::new();
    for (((thread, made), port), mesh) in threads.into_iter().zip(made).zip(ports).zip(meshes) {
        handles.push(thread.go(&start, made.waker, port, mesh));
    }
    tracing::info!(engine = choice.name(), shards = count, slots = sizes.slots, "shards run");
    Ok(Arc::new(Running {
        choice,
        observer: sidecar.observer(),
        shards: handles,
        sidecar: Mutex::new(Some(sidecar)),
        draining: AtomicBool::new(false),
        last_beats: Mutex::new(Vec::new()),
    }))
}

/// Every listener once per shard: the kernel spreads connections over them.
fn bind(config: &Config, shards: u16) -> Result<Vec<Vec<OwnedFd>>, Failure> {
    let mut sockets: Vec<Vec<OwnedFd>> = (0..shards).map(|_| Vec::new()).collect();
    for listener in &config.listeners {
        in_use(listener.bind)?;
        for sockets in &mut sockets {
            let socket = sys::listen(listener.bind, ListenOptions::default())
                .map_err(|error| Failure::other(&format!("bind {}", listener.url()), error))?;
            sockets.push(socket.into());
        }
    }
    Ok(sockets)
}

/// Listening with `SO_REUSEPORT` would share an address with another gateway of the same user
/// instead of failing; this asks first.
fn in_use(address: std::net::SocketAddr) -> Result<(), Failure> {
    let options = ListenOptions { reuse_port: false, ..ListenOptions::default() };
    sys::listen(address, options)
        .map(drop)
        .map_err(|error| Failure::other(&format!("bind {address}"), error))
}

/// What a shard thread says once its engine exists.
struct Made<P> {
    peer: P,
    waker: Waker,
}

/// What all shards are started with.
struct Start<P> {
    config: Arc<ShardConfig>,
    peers: Vec<P>,
    first_seq: u64,
    boot: u64,
    cpus: Vec<usize>,
    unix_base_ms: u64,
    slot_reserve: u32,
    tls: Option<Arc<ServerConfig>>,
}

/// What one shard is started with.
struct Go<P> {
    config: Arc<ShardConfig>,
    identity: Identity,
    peers: Vec<P>,
    cpu: Option<usize>,
    port: Port,
    mesh: Mesh,
    control: Receiver<Control>,
    tls: Option<Arc<ServerConfig>>,
    unix_base_ms: u64,
    slot_reserve: u32,
    beats: Arc<AtomicU64>,
}

/// A thread whose engine is being made.
struct ShardThread<P> {
    shard: u16,
    made: Receiver<Result<Made<P>, String>>,
    go: Sender<Go<P>>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl<P: Clone + Send + 'static> ShardThread<P> {
    fn spawn<E: Engine<Peer = P>>(
        shard: u16,
        sizes: Sizes,
        sockets: Vec<OwnedFd>,
    ) -> Result<Self, Failure> {
        let (made_tx, made) = bounded(1);
        let (go, go_rx) = bounded(1);
        let (done_tx, done) = bounded(1);
        let thread = std::thread::Builder::new()
            .name(format!("shard-{shard}"))
            .spawn(move || {
                match E::open(sizes, sockets) {
                    Err(error) => drop(made_tx.send(Err(error.to_string()))),
                    Ok(io) => {
                        let made = Made { peer: io.peer(), waker: io.waker() };
                        // Nobody listens if another shard failed: then there is no Go either.
                        if made_tx.send(Ok(made)).is_ok()
                            && let Ok(go) = go_rx.recv()
                        {
                            run(io, go);
                        }
                    }
                }
                drop(done_tx);
            })
            .map_err(|error| Failure::other("a shard thread cannot start", error))?;
        Ok(Self { shard, made, go, done, thread })
    }

    fn made(&self) -> Result<Made<P>, Failure> {
        match self.made.recv() {
            Ok(Ok(made)) => Ok(made),
            Ok(Err(text)) => Err(Failure::new(text)),
            Err(_) => Err(Failure::new(format!("shard {} ended before it began", self.shard))),
        }
    }

    fn go(self, start: &Start<P>, waker: Waker, port: Port, mesh: Mesh) -> ShardHandle {
        let (control, control_rx) = unbounded();
        let beats = Arc::new(AtomicU64::new(0));
        let identity = Identity {
            shard: self.shard,
            first_seq: start.first_seq,
            boot: start.boot,
            hash_key: [random(), random()],
        };
        let cpu = match start.cpus.len() {
            0 => None,
            cpus => Some(start.cpus[usize::from(self.shard) % cpus]),
        };
        let go = Go {
            config: Arc::clone(&start.config),
            identity,
            peers: start.peers.clone(),
            cpu,
            port,
            mesh,
            control: control_rx,
            tls: start.tls.clone(),
            unix_base_ms: start.unix_base_ms,
            slot_reserve: start.slot_reserve,
            beats: Arc::clone(&beats),
        };
        // The thread waits for nothing else.
        let _ = self.go.send(go);
        let Self { shard, done, thread, .. } = self;
        ShardHandle { shard, waker, control, beats, done, thread: Mutex::new(Some(thread)) }
    }
}

/// A shard's thread, from its Go to the end of its drain.
fn run<E: Engine>(mut io: E, go: Go<E::Peer>) {
    io.connect_peers(go.peers);
    if let Some(cpu) = go.cpu
        && let Err(error) = sys::pin_to_cpu(cpu)
    {
        tracing::warn!("shard {} is not pinned: {error}", go.identity.shard);
    }
    let mut shard = Shard::new(Parts {
        config: go.config,
        identity: go.identity,
        io,
        backend: go.port,
        mesh: go.mesh,
        control: go.control,
        tls: go.tls,
        unix_base_ms: go.unix_base_ms,
        slot_reserve: go.slot_reserve,
    });
    while !shard.turn() {
        go.beats.fetch_add(1, Ordering::Relaxed);
    }
}

/// A running shard, as the control plane reaches it.
struct ShardHandle {
    shard: u16,
    waker: Waker,
    control: Sender<Control>,
    /// Turns completed.
    beats: Arc<AtomicU64>,
    /// Ends when the thread does.
    done: Receiver<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ShardHandle {
    fn tell(&self, control: Control) {
        // A shard that has ended needs to hear nothing.
        let _ = self.control.send(control);
        self.waker.wake();
    }
}

/// The engine behind the control plane's seam.
struct Running {
    choice: Choice,
    observer: Observer,
    shards: Vec<ShardHandle>,
    sidecar: Mutex<Option<Sidecar>>,
    draining: AtomicBool,
    last_beats: Mutex<Vec<u64>>,
}

impl Gateway for Running {
    fn snapshot(&self) -> Snapshot {
        let deadline = Instant::now() + SNAPSHOT_TIMEOUT;
        let asked: Vec<_> = self
            .shards
            .iter()
            .map(|shard| {
                let (reply, answer) = bounded(1);
                shard.tell(Control::Snapshot(reply));
                (shard.shard, answer)
            })
            .collect();
        let shards = asked
            .into_iter()
            .map(|(shard, answer)| {
                let figures = answer.recv_deadline(deadline).ok();
                ShardSnapshot { shard, samples: figures.map(|f| figures::of_shard(&f)) }
            })
            .collect();
        let mut process = figures::of_store(&self.observer.snapshot());
        process.extend(self.choice.samples());
        Snapshot { process, shards }
    }

    fn ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    fn ticked(&self) -> bool {
        let beats: Vec<u64> =
            self.shards.iter().map(|shard| shard.beats.load(Ordering::Relaxed)).collect();
        let mut last = self.last_beats.lock().unwrap_or_else(PoisonError::into_inner);
        let ticked = last.len() != beats.len() || beats.iter().zip(&*last).all(|(a, b)| a != b);
        *last = beats;
        ticked
    }

    fn set_tls(&self, context: Arc<ServerConfig>) {
        for shard in &self.shards {
            shard.tell(Control::Tls(Arc::clone(&context)));
        }
    }

    fn tell(&self, to: &[UserKey], notice: Notice) {
        let notice = Arc::new(notice);
        let count = self.shards.len() as u16;
        for shard in &self.shards {
            let at_home = |user: &UserKey| home_of_user(*user, count) == shard.shard;
            let to: Box<[UserKey]> = to.iter().copied().filter(at_home).collect();
            if !to.is_empty() && shard.control.len() < NOTICES_WAITING {
                shard.tell(Control::Notice { to, notice: Arc::clone(&notice) });
            }
        }
    }

    fn drain(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.draining.store(true, Ordering::Relaxed);
        // All must have drained before any stops: they answer each other until then.
        let (drained, reports) = bounded(self.shards.len());
        for shard in &self.shards {
            shard.tell(Control::Drain(drained.clone()));
        }
        let all = |_: &ShardHandle| reports.recv_deadline(deadline).is_ok();
        let mut complete = self.shards.iter().all(all);
        for shard in &self.shards {
            shard.tell(Control::Stop);
        }
        for shard in &self.shards {
            // Disconnected is the good news here: the thread has dropped its end.
            let end = deadline.max(Instant::now() + SHARD_STOP_MIN);
            let ended = shard.done.recv_deadline(end);
            if ended == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                complete = false;
                continue;
            }
            let thread = shard.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            complete &= thread.is_none_or(|thread| thread.join().is_ok());
        }
        let sidecar = self.sidecar.lock().unwrap_or_else(PoisonError::into_inner).take();
        let left = deadline.saturating_duration_since(Instant::now()).max(SIDECAR_STOP_MIN);
        // Also after an incomplete drain: deletes and charges that are queued cost a client a
        // second copy if they are not kept.
        let flushed = sidecar.is_none_or(|sidecar| sidecar.stop(left));
        complete && flushed
    }
}

fn shard_config(config: &Config, shards: u16, tenants: &[TenantId]) -> ShardConfig {
    let keys = &config.keys;
    ShardConfig {
        shards,
        listeners: config.listeners.iter().map(|row| listener(config, row, tenants)).collect(),
        protocols: config.protocols.clone(),
        persist_after_ms: keys.delivery.persist_after_ms,
        heartbeat_interval_ms: keys.heartbeat.interval_ms,
        heartbeat_max_missed: keys.heartbeat.max_missed,
        login_deadline_ms: keys.limits.login_deadline_ms,
        group_cache_ms: keys.groups.cache_ms,
        logins_pending_max: keys.limits.logins_pending_max,
        logins_per_second: keys.limits.logins_per_second,
        handshakes_per_turn: keys.tls.handshakes_per_turn,
    }
}

fn listener(
    config: &Config,
    listener: &crate::config::Listener,
    tenants: &[TenantId],
) -> shards::config::Listener {
    use crate::config::keys::{Ack, AuthMode, Transport};
    shards::config::Listener {
        protocol: listener.protocol,
        tls: listener.is_tls(),
        ws_paths: matches!(listener.transport, Transport::Ws | Transport::Wss)
            .then(|| listener.paths.clone()),
        tenant: tenants[listener.tenant],
        realm: listener.realm as u16,
        binds_names: config.realms[listener.realm].mode == AuthMode::Open,
        ack: match listener.ack {
            Ack::Safe => shards::config::AckPolicy::Safe,
            Ack::Received => shards::config::AckPolicy::Received,
        },
        allow: listener
            .allow
            .iter()
            .map(|prefix| shards::config::AddressRange {
                address: prefix.address,
                bits: prefix.bits,
            })
            .collect(),
    }
}

fn waker_fn(waker: Waker) -> storage::sidecar::Waker {
    Box::new(move || waker.wake())
}

/// Milliseconds since 1970 at the zero of the engine's clock.
fn unix_base_ms() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (unix.as_millis() as u64).saturating_sub(sys::now().0 / 1_000)
}

fn random() -> u64 {
    getrandom::u64().expect("the kernel has random numbers")
}

/// A shard that was told to stop ends after its turn, even when the drain took all its time.
const SHARD_STOP_MIN: Duration = Duration::from_millis(500);
/// A shard takes all that waits in one turn; one with so much waiting is stuck, or nearly so.
const NOTICES_WAITING: usize = 1_024;
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);
/// The store's last commit is worth waiting for even when the drain took all its time.
const SIDECAR_STOP_MIN: Duration = Duration::from_millis(500);
