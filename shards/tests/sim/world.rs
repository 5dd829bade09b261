//! One run: starts the shards, lets everybody do what is due, crashes, calms down, judges.

use std::sync::Arc;

use codec::{Settings, TenantId};
use crossbeam_channel::{Receiver, Sender, bounded};
use shards::config::{AckPolicy, Listener};
use shards::io::Now;
use shards::io::sim::{Rng, SimIo, SimNet, Stats};
use shards::metrics::Counters;
use shards::{Control, Identity, Mesh, Parts, Shard, ShardConfig, Snapshot};
use storage::Store;

use super::backend::{SimPort, SimSidecar};
use super::client::{Client, Cx};
use super::disk::Disk;
use super::oracle::Oracle;
use super::plan::{Layout, Plan};

/// What a run was like.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub messages: usize,
    pub resends: u32,
    pub crashes: u32,
    pub turns: u64,
    pub virtual_ms: u64,
    pub stats: Stats,
    pub store_writes_failed: u64,
    pub store_refused: u64,
    pub mesh_full: u64,
    /// Pushes that a connection went on without, and their acknowledgements after all.
    pub given_up: u64,
    pub acknowledged_late: u64,
    pub dead_letters: usize,
    pub trace_hash: u64,
}

/// Runs one seed to its end.
///
/// # Errors
/// What was promised and not kept.
pub fn run(plan: Plan) -> Result<Report, String> {
    let seed = plan.seed;
    let mut world = World::new(plan);
    world.run().map_err(|what| format!("seed {seed}, at {} us: {what}", world.net.now().0))?;
    Ok(world.report())
}

struct World {
    plan: Plan,
    net: SimNet,
    disk: Disk,
    sidecar: SimSidecar,
    shards: Vec<Running>,
    clients: Vec<Client>,
    /// The client of each connection.
    owners: Vec<usize>,
    oracle: Oracle,
    rng: Rng,
    crash_at: Vec<Now>,
    /// While the gateway is down: when it comes back.
    restart_at: Option<Now>,
    calm: bool,
    /// Since when everything is at rest.
    rest_since: Option<Now>,
    crashes: u32,
    steps: u64,
    turns: u64,
    counters: Counters,
}

struct Running {
    shard: Shard<SimIo, SimPort>,
    control: Sender<Control>,
    snapshots: (Sender<Snapshot>, Receiver<Snapshot>),
}

impl World {
    fn new(plan: Plan) -> Self {
        let net = SimNet::new(plan.seed, plan.kernel.clone());
        let disk = Disk::new(&plan.groups, plan.disk.clone(), net.fork_rng());
        let sidecar = SimSidecar::new(&net, plan.sidecar.clone(), &disk, plan.shards);
        let mut rng = net.fork_rng();
        let now = net.now();
        let profiles = plan.profiles.iter().cloned();
        let clients = profiles.map(|profile| Client::new(profile, rng.fork(), now)).collect();
        let mut oracle = Oracle::new(&plan, &disk);
        if plan.crashes == 0 && !plan.profiles.iter().any(|profile| profile.fears_poison) {
            oracle.expect_retries(RETRIES);
        }
        if plan.kernel.stall_ppm > 0 {
            oracle.expect_delays();
        }
        if echoes_are_bounded(&plan) {
            oracle.expect_echoes_within(ECHO_MS);
        }
        let crash_at = (0..plan.crashes).map(|_| now.plus_ms(rng.below(plan.unrest_ms))).collect();
        let mut world = Self {
            plan,
            net,
            disk,
            sidecar,
            shards: Vec::new(),
            clients,
            owners: Vec::new(),
            oracle,
            rng,
            crash_at,
            restart_at: None,
            calm: false,
            rest_since: None,
            crashes: 0,
            steps: 0,
            turns: 0,
            counters: Counters::default(),
        };
        world.start();
        world
    }

    fn run(&mut self) -> Result<(), String> {
        let unrest_end = Now(0).plus_ms(self.plan.unrest_ms);
        let deadline = unrest_end.plus_ms(DRAIN_MS);
        loop {
            self.run_shards();
            self.sidecar.run();
            self.run_clients();
            if let Some(breach) = self.oracle.breach() {
                return Err(breach);
            }
            let now = self.net.now();
            self.crash_or_restart(now);
            if now >= unrest_end && !self.calm && self.restart_at.is_none() {
                self.calm_down();
            }
            if self.calm && self.has_rested(now) {
                break;
            }
            self.steps += 1;
            if self.steps.max(self.turns) > STEPS_MAX {
                return Err(format!("it spins: {} turns\n{}", self.turns, self.unrest()));
            }
            if now >= deadline {
                return Err(format!("it does not come to rest:\n{}", self.unrest()));
            }
            self.net.advance(self.next_time().min(deadline));
        }
        self.oracle.finish();
        self.check_figures();
        self.oracle.breach().map_or(Ok(()), Err)
    }

    /// One turn of every shard that is due, in any order.
    fn run_shards(&mut self) {
        let mut due = self.net.runnable();
        while !due.is_empty() {
            let index = due.swap_remove(self.rng.index(due.len()));
            self.shards[usize::from(index)].shard.turn();
            self.turns += 1;
        }
    }

    fn run_clients(&mut self) {
        while let Some(id) = self.net.touched_client() {
            let owner = self.owners[id.0 as usize];
            if self.clients[owner].conn() == Some(id) {
                self.poll(owner);
            }
        }
        let now = self.net.now();
        for index in 0..self.clients.len() {
            if self.clients[index].next_time() <= now {
                self.poll(index);
            }
        }
    }

    fn poll(&mut self, index: usize) {
        let Self { net, oracle, plan, clients, owners, .. } = self;
        clients[index].poll(&mut Cx { net, oracle, groups: &plan.groups });
        if let Some(conn) = clients[index].conn()
            && owners.len() <= conn.0 as usize
        {
            owners.push(index);
        }
    }

    fn next_time(&self) -> Now {
        let clients = self.clients.iter().map(Client::next_time);
        let unrest_end = Now(0).plus_ms(self.plan.unrest_ms);
        let own = match self.restart_at {
            // Neither a crash nor the calm comes before the gateway is back.
            Some(at) => at,
            None => {
                let calm = if self.calm { Now(u64::MAX) } else { unrest_end };
                self.crash_at.iter().copied().fold(calm, Now::min)
            }
        };
        let times = clients.chain(self.sidecar.next_time()).chain([own]);
        let rest = self.rest_since.map(|since| since.plus_ms(REST_MS));
        times.chain(rest).min().unwrap_or(Now(u64::MAX))
    }

    fn crash_or_restart(&mut self, now: Now) {
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.start();
        }
        if self.restart_at.is_none()
            && let Some(due) = self.crash_at.iter().position(|at| *at <= now)
        {
            self.crash_at.swap_remove(due);
            self.crashes += 1;
            self.oracle.crashed();
            self.count();
            self.net.crash_all();
            self.sidecar.crash();
            self.shards.clear();
            self.restart_at = Some(now.plus_ms(self.rng.below(500)));
        }
    }

    fn start(&mut self) {
        let config = Arc::new(config(&self.plan));
        let first_seq = self.disk.max_seq().expect("never fails") + 1;
        let boot = self.rng.next_u64();
        for (index, mesh) in
            Mesh::wire(self.plan.shards, self.plan.mesh_capacity).into_iter().enumerate()
        {
            let index = index as u16;
            let (control, controls) = bounded(1);
            let hash_key = [self.rng.next_u64(), self.rng.next_u64()];
            let shard = Shard::new(Parts {
                config: Arc::clone(&config),
                identity: Identity { shard: index, first_seq, boot, hash_key },
                io: self.net.shard(index, self.plan.slots, config.listeners.len() as u8),
                backend: self.sidecar.port(index),
                mesh,
                control: controls,
                tls: None,
                unix_base_ms: UNIX_BASE_MS,
                slot_reserve: 4,
            });
            self.shards.push(Running { shard, control, snapshots: bounded(1) });
        }
    }

    /// Faults end; everybody behaves and comes back.
    fn calm_down(&mut self) {
        self.calm = true;
        let (kernel, sidecar, disk) = self.plan.calmed();
        self.net.set_plan(kernel);
        self.sidecar.set_plan(sidecar);
        self.disk.content().faults = disk;
        let first_of = |user, clients: &[Client]| {
            clients.iter().position(|client| client.profile.user == user)
        };
        for index in 0..self.clients.len() {
            if self.plan.strict {
                self.clients[index].stop_publishing();
                continue;
            }
            let first = first_of(self.clients[index].profile.user, &self.clients) == Some(index);
            let Self { net, oracle, plan, clients, .. } = self;
            let kind = if first { 1 } else { 100 };
            clients[index].calm(kind, &mut Cx { net, oracle, groups: &plan.groups });
        }
    }

    /// Nothing is left to do, and it stays so for a while.
    fn has_rested(&mut self, now: Now) -> bool {
        let rests = self.clients.iter().all(Client::is_settled)
            && self.oracle.rows_left() == 0
            && self.sidecar.is_idle();
        if !rests {
            self.rest_since = None;
            return false;
        }
        now >= self.rest_since.get_or_insert(now).plus_ms(REST_MS)
    }

    fn unrest(&self) -> String {
        let clients = self.clients.iter().filter(|client| !client.is_settled());
        let states: Vec<_> = clients.map(Client::state).collect();
        let rows = self.oracle.rows_text();
        format!("rows left: {rows}\n{}", states.join("\n"))
    }

    /// At rest a shard holds nothing for anybody, and no buffer of the kernel.
    fn check_figures(&mut self) {
        self.count();
        for index in 0..self.shards.len() {
            let snapshot = self.snapshot(index);
            let gauges = snapshot.gauges;
            let held = [
                ("publishes", gauges.publishes),
                ("deliveries", gauges.deliveries),
                ("mesh messages", snapshot.mesh_waiting),
                ("store requests", snapshot.store_waiting),
                ("buffers", u64::from(self.net.buffers_on_loan(index as u16))),
            ];
            for (what, count) in held.into_iter().filter(|(_, count)| *count > 0) {
                self.oracle.violated(format!("shard {index} holds {count} {what} at rest"));
            }
        }
    }

    fn snapshot(&mut self, index: usize) -> Snapshot {
        let running = &mut self.shards[index];
        let (reply, answer) = &running.snapshots;
        running.control.try_send(Control::Snapshot(reply.clone())).expect("nobody else asks");
        running.shard.turn();
        answer.try_recv().expect("a turn answers")
    }

    fn count(&mut self) {
        for index in 0..self.shards.len() {
            let counters = self.snapshot(index).counters;
            self.counters.add(&counters);
        }
    }

    fn report(&self) -> Report {
        let content = self.disk.content();
        Report {
            messages: self.oracle.messages(),
            resends: self.oracle.resends(),
            crashes: self.crashes,
            turns: self.turns,
            virtual_ms: self.net.now().0 / 1_000,
            stats: self.net.stats(),
            store_writes_failed: content.writes_failed,
            store_refused: self.sidecar.refused(),
            mesh_full: self.counters.mesh_full,
            given_up: self.counters.given_up,
            acknowledged_late: self.counters.acknowledged_late,
            dead_letters: content.dead_letters().count(),
            trace_hash: self.net.trace_hash(),
        }
    }
}

/// Acknowledgements are read at once, and what is under way arrives soon.
fn echoes_are_bounded(plan: &Plan) -> bool {
    plan.sidecar.stall_ppm == 0
        && plan.sidecar.queue_len_max >= 1_000
        && plan.sidecar.batch_us.end <= 20_000
        && plan.kernel.send_buffer_len.min(plan.kernel.client_buffer_len) >= 4_096
        && plan.kernel.buffer_len >= 512
        && (plan.kernel.late_ppm == 0 || plan.kernel.late_us <= 20_000)
}

fn config(plan: &Plan) -> ShardConfig {
    let listener = |ws: bool, layout: Layout| Listener {
        protocol: match layout {
            Layout::Door => codec::ProtocolId::BinaryPublish,
            Layout::Named => codec::ProtocolId::ImDemo,
            _ => codec::ProtocolId::Binary,
        },
        tls: false,
        ws_paths: ws.then(|| vec!["/ws".to_owned()]),
        tenant: TenantId(0),
        ack: AckPolicy::Safe,
        realm: 0,
        binds_names: false,
        allow: Vec::new(),
    };
    let mut protocols = Settings::default();
    protocols.binary.retry_max = RETRIES as u8;
    protocols.im_demo.retry_interval_ms = NAMED_RETRY_MS as u32;
    ShardConfig {
        shards: plan.shards,
        listeners: vec![
            listener(true, Layout::Plain),
            listener(false, Layout::Plain),
            listener(false, Layout::Door),
            listener(false, Layout::Named),
        ],
        protocols,
        persist_after_ms: 200,
        heartbeat_interval_ms: 3_000,
        heartbeat_max_missed: 3,
        login_deadline_ms: 10_000,
        group_cache_ms: 1_000,
        logins_pending_max: 64,
        logins_per_second: 0,
        handshakes_per_turn: 8,
    }
}

/// Far above what a run needs that does not spin.
const STEPS_MAX: u64 = 2_000_000;
const RETRIES: u32 = 3;
/// So that pushes are given up within a run; how often they are repeated is the protocol's own.
pub const NAMED_RETRY_MS: u64 = 700;
pub const NAMED_RETRIES: u64 = 3;
/// See [`Oracle::expect_echoes_within`].
const ECHO_MS: u64 = 2_000;
/// At rest for so long is the end.
const REST_MS: u64 = 500;
/// Everything must have come to rest so long after the faults ended.
const DRAIN_MS: u64 = 240_000;
const UNIX_BASE_MS: u64 = 1_700_000_000_000;
