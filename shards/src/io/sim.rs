//! A simulated kernel and network for several shards: one thread, virtual time, one seed.
//!
//! Owns: the clock, the connections, what every shard has in flight, the faults. A run is a pure
//! function of the seed, the [`FaultPlan`] and what its caller does. Never: the wall clock, a
//! socket, threads, the order of a hash table.
//!
//! ```text
//!   scripts --client_send--> SimNet <--Io-- SimIo of shard 0, 1, ...
//!
//!   loop { for shard in net.runnable() { one turn, which ends with Io::wait }
//!          for client in net.touched_client() { its script }
//!          net.advance(the next time anybody else wants) }
//! ```
//!
//! Within a connection bytes keep their order; between connections every delay is drawn anew, so
//! events change places. Nothing is lost but what a reset or a crash takes with it.

mod buf;
mod client;
mod engine;
mod faults;
mod net;
mod rng;
mod socket;
#[cfg(test)]
mod tests;
mod trace;

use std::cell::RefCell;
use std::rc::Rc;

pub use buf::SimBuf;
use engine::ShardState;
pub use engine::SimIo;
pub use faults::{FaultPlan, STALL_PPM, STALL_US, Stats};
use net::Net;
pub use rng::Rng;
pub use socket::ClientId;
pub use trace::Line;

use super::{ListenerIndex, Now, ShardIndex};

/// Handle to a simulation; clones are the same one.
#[derive(Clone)]
pub struct SimNet(Rc<RefCell<Net>>);

impl SimNet {
    pub fn new(seed: u64, plan: FaultPlan) -> Self {
        Self(Rc::new(RefCell::new(Net::new(seed, plan))))
    }

    /// Starts a shard with `slots` slots and listeners `0..listeners`. It is due at once.
    ///
    /// # Panics
    /// If that shard is running.
    pub fn shard(&self, index: ShardIndex, slots: u32, listeners: ListenerIndex) -> SimIo {
        let mut net = self.0.borrow_mut();
        let place = usize::from(index);
        if net.shards.len() <= place {
            net.shards.resize_with(place + 1, || None);
        }
        assert!(net.shards[place].is_none(), "shard {index} is running");
        net.lives += 1;
        let (life, now) = (net.lives, net.now);
        net.shards[place] = Some(ShardState::new(index, life, slots, listeners, now));
        SimIo::new(self.clone(), index, life)
    }

    pub fn now(&self) -> Now {
        Now(self.0.borrow().now)
    }

    /// The shards that have something to do now, by index: completions to reap, a doorbell, or
    /// the end of their wait. Each is to run one turn, in any order.
    pub fn runnable(&self) -> Vec<ShardIndex> {
        let net = self.0.borrow();
        let running = net.shards.iter().flatten();
        running.filter(|state| state.due() <= net.now).map(|state| state.index).collect()
    }

    /// When something happens next of itself; `None`: never, nobody waits for anything.
    pub fn next_time(&self) -> Option<Now> {
        self.0.borrow().next_time().map(Now)
    }

    /// Lets time go on to the next event or to `limit`, whichever is first, and does everything
    /// that is due then. Does not move time while a shard is [runnable](Self::runnable).
    pub fn advance(&self, limit: Now) -> Now {
        let mut net = self.0.borrow_mut();
        net.advance(limit.0);
        Now(net.now)
    }

    /// Wakes a shard from outside, as the sidecar does after it queued a reply.
    pub fn ring(&self, shard: ShardIndex) {
        self.0.borrow_mut().ring(shard);
    }

    /// The gateway dies: all its connections end, whatever it had in flight is gone. Then the
    /// shards are to be dropped; new ones can be started, and time goes on.
    pub fn crash_all(&self) {
        let count = self.0.borrow().shards.len();
        for index in 0..count {
            self.crash_shard(index as ShardIndex);
        }
    }

    /// The same for one shard. To be called before its state is dropped.
    pub fn crash_shard(&self, index: ShardIndex) {
        let mut net = self.0.borrow_mut();
        let Some(state) = net.shards.get_mut(usize::from(index)).and_then(Option::take) else {
            return;
        };
        state.pool.crash();
        net.note("crash", index, 0, 0);
        for id in state.slots.sockets().into_iter().chain(state.backlog) {
            net.abandon(id, index);
        }
    }

    /// An independent stream of chance for the caller, from the same seed.
    pub fn fork_rng(&self) -> Rng {
        self.0.borrow_mut().rng.fork()
    }

    pub fn plan(&self) -> FaultPlan {
        self.0.borrow().plan.clone()
    }

    /// Holds from the next operation on.
    pub fn set_plan(&self, plan: FaultPlan) {
        let mut net = self.0.borrow_mut();
        net.plan = plan;
        let shards: Vec<_> = net.shards.iter().flatten().map(|s| (s.index, s.life)).collect();
        for (shard, life) in shards {
            net.feed_starved(shard, life);
        }
    }

    pub fn stats(&self) -> Stats {
        self.0.borrow().stats
    }

    /// Slots in use, those of ending connections included; 0 if the shard is not running.
    pub fn slots_used(&self, index: ShardIndex) -> u32 {
        let net = self.0.borrow();
        let state = net.shards.get(usize::from(index)).and_then(Option::as_ref);
        state.map_or(0, |state| state.slots.used())
    }

    /// Receive buffers that the shard has, or has waiting for it.
    pub fn buffers_on_loan(&self, index: ShardIndex) -> u32 {
        let net = self.0.borrow();
        let state = net.shards.get(usize::from(index)).and_then(Option::as_ref);
        state.map_or(0, |state| state.pool.on_loan())
    }

    /// A hash of everything that has happened: equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.0.borrow().trace.hash()
    }

    /// Keeps the last `lines_max` things that happen, for [`Self::trace`].
    pub fn keep_trace(&self, lines_max: usize) {
        self.0.borrow_mut().trace.keep(lines_max);
    }

    pub fn trace(&self) -> Vec<Line> {
        self.0.borrow().trace.lines()
    }
}
