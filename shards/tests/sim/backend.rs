//! The sidecar in virtual time: the real store worker behind a bounded queue with seeded delays.
//!
//! Owns: requests under way, replies not yet taken. A crash takes both; a commit that was under
//! way then has happened or not, and nobody was told.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use codec::{TenantId, UserId, UserKey};
use shards::Backend;
use shards::io::sim::{Rng, SimNet};
use shards::io::{Now, ShardIndex};
use storage::sidecar::StoreWorker;
use storage::{AuthRequest, AuthVerdict, Proof, Reply, Request};

use super::disk::Disk;

/// Delays and faults of the sidecar; those of the store itself are the disk's.
#[derive(Clone, Debug)]
pub struct SidecarPlan {
    /// How long a batch takes.
    pub batch_us: Range<u64>,
    /// Of batches: the disk hangs for up to `stall_us`.
    pub stall_ppm: u32,
    pub stall_us: u64,
    pub auth_us: Range<u64>,
    /// Of logins: no verdict.
    pub auth_fails_ppm: u32,
    /// Store requests that may wait; the same for logins.
    pub queue_len_max: usize,
}

/// The threads beside the shards, all of them.
#[derive(Clone)]
pub struct SimSidecar(Rc<RefCell<State>>);

struct State {
    net: SimNet,
    rng: Rng,
    plan: SidecarPlan,
    disk: Disk,
    worker: StoreWorker,
    queue: VecDeque<(ShardIndex, Request)>,
    /// The batch under way and when it is done.
    batch: Option<(u64, Vec<(ShardIndex, Request)>)>,
    logins: Vec<(u64, ShardIndex, Reply)>,
    replies: Vec<VecDeque<Reply>>,
    /// Raised by a crash: the ports of dead shards lead nowhere.
    life: u32,
    /// A request was given back because its queue was full.
    pub refused: u64,
}

impl SimSidecar {
    pub fn new(net: &SimNet, plan: SidecarPlan, disk: &Disk, shards: ShardIndex) -> Self {
        Self(Rc::new(RefCell::new(State {
            net: net.clone(),
            rng: net.fork_rng(),
            plan,
            disk: disk.clone(),
            worker: worker_over(disk),
            queue: VecDeque::new(),
            batch: None,
            logins: Vec::new(),
            replies: (0..shards).map(|_| VecDeque::new()).collect(),
            life: 0,
            refused: 0,
        })))
    }

    /// A shard's way in.
    pub fn port(&self, shard: ShardIndex) -> SimPort {
        let life = self.0.borrow().life;
        SimPort { sidecar: self.0.clone(), shard, life }
    }

    /// When something is to be done next.
    pub fn next_time(&self) -> Option<Now> {
        let state = self.0.borrow();
        let logins = state.logins.iter().map(|(at, ..)| *at).min();
        let batch = match &state.batch {
            Some((at, _)) => Some(*at),
            None => state.worker.retry_at().map(|at| at.as_micros() as u64),
        };
        [logins, batch].into_iter().flatten().min().map(Now)
    }

    /// Does what is due.
    pub fn run(&self) {
        let mut state = self.0.borrow_mut();
        let now = state.net.now().0;
        state.finish_logins(now);
        if state.batch.as_ref().is_some_and(|(at, _)| *at <= now) {
            let (_, batch) = state.batch.take().expect("checked above");
            state.carry_out(batch, now);
        }
        let retry = state.worker.retry_at().is_some_and(|at| at.as_micros() as u64 <= now);
        if retry && state.batch.is_none() {
            state.carry_out(Vec::new(), now);
        }
        state.start_batch(now);
    }

    /// The process dies.
    pub fn crash(&self) {
        let mut state = self.0.borrow_mut();
        let now = state.net.now().0;
        if let Some((_, mut batch)) = state.batch.take()
            && state.rng.chance(500_000)
        {
            state.worker.run(&mut batch, Duration::from_micros(now), &mut Vec::new());
        }
        state.life += 1;
        state.worker = worker_over(&state.disk);
        state.queue.clear();
        state.logins.clear();
        state.replies.iter_mut().for_each(VecDeque::clear);
    }

    /// Nothing under way and nothing to be told.
    pub fn is_idle(&self) -> bool {
        let state = self.0.borrow();
        state.batch.is_none()
            && state.queue.is_empty()
            && state.logins.is_empty()
            && state.worker.retry_at().is_none()
            && state.replies.iter().all(VecDeque::is_empty)
    }

    pub fn set_plan(&self, plan: SidecarPlan) {
        self.0.borrow_mut().plan = plan;
    }

    pub fn refused(&self) -> u64 {
        self.0.borrow().refused
    }
}

impl State {
    fn start_batch(&mut self, now: u64) {
        if self.batch.is_some() || self.queue.is_empty() {
            return;
        }
        let count = 1 + self.rng.index(self.queue.len());
        let mut takes = self.rng.range(&self.plan.batch_us);
        if self.rng.chance(self.plan.stall_ppm) {
            takes += self.rng.below(self.plan.stall_us);
        }
        self.batch = Some((now + takes, self.queue.drain(..count).collect()));
    }

    fn carry_out(&mut self, mut batch: Vec<(ShardIndex, Request)>, now: u64) {
        let mut replies = Vec::new();
        self.worker.run(&mut batch, Duration::from_micros(now), &mut replies);
        for (shard, reply) in replies {
            self.reply(shard, reply);
        }
    }

    fn finish_logins(&mut self, now: u64) {
        while let Some(index) = self.logins.iter().position(|(at, ..)| *at <= now) {
            let (_, shard, reply) = self.logins.remove(index);
            self.reply(shard, reply);
        }
    }

    fn reply(&mut self, shard: ShardIndex, reply: Reply) {
        self.replies[usize::from(shard)].push_back(reply);
        self.net.ring(shard);
    }

    fn login(&mut self, shard: ShardIndex, request: &AuthRequest) {
        let at = self.net.now().0 + self.rng.range(&self.plan.auth_us);
        let verdict = match self.rng.chance(self.plan.auth_fails_ppm) {
            true => AuthVerdict::Unavailable,
            false => verdict(request),
        };
        self.logins.push((at, shard, Reply::Auth { token: request.token, verdict }));
    }
}

/// One shard's [`Backend`].
pub struct SimPort {
    sidecar: Rc<RefCell<State>>,
    shard: ShardIndex,
    life: u32,
}

impl Backend for SimPort {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let mut state = self.sidecar.borrow_mut();
        assert_eq!(self.life, state.life, "a dead shard asks the store");
        let waiting = match request {
            Request::Auth(_) => state.logins.len(),
            _ => state.queue.len(),
        };
        if waiting >= state.plan.queue_len_max {
            state.refused += 1;
            return Err(request);
        }
        match request {
            Request::Auth(request) => state.login(self.shard, &request),
            request => {
                state.queue.push_back((self.shard, request));
                let now = state.net.now().0;
                state.start_batch(now);
            }
        }
        Ok(())
    }

    fn poll(&mut self) -> Option<Reply> {
        let mut state = self.sidecar.borrow_mut();
        if self.life != state.life {
            return None;
        }
        state.replies[usize::from(self.shard)].pop_front()
    }

    fn load(&self) -> f32 {
        let state = self.sidecar.borrow();
        state.queue.len() as f32 / state.plan.queue_len_max as f32
    }
}

/// User 7 is `u7` with the password `p7`.
fn verdict(request: &AuthRequest) -> AuthVerdict {
    let number = |bytes: &[u8], mark: u8| -> Option<u32> {
        let digits = bytes.strip_prefix(&[mark])?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let Proof::Password(password) = &request.proof else { return AuthVerdict::Denied };
    match (number(&request.name, b'u'), number(password, b'p')) {
        (Some(user), Some(password)) if user == password => {
            let user = UserKey { tenant: TenantId(0), id: UserId(user) };
            AuthVerdict::Pass { user, name: None }
        }
        _ => AuthVerdict::Denied,
    }
}

fn worker_over(disk: &Disk) -> StoreWorker {
    StoreWorker::new(Box::new(disk.clone()), RETAINED_LEN_MAX)
}

/// Enough that nothing is given up: a lost delete would look like one that was forgotten.
const RETAINED_LEN_MAX: usize = 1 << 16;
