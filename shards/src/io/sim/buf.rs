//! Receive buffers on loan, so that one that never comes back is noticed where it is lost.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::io::ShardIndex;

/// The pool of one shard. Outlives the shard as long as buffers of it exist.
#[derive(Debug)]
pub(super) struct Pool {
    shard: ShardIndex,
    /// Cleared by a crash: what dies with the gateway is not leaked.
    alive: Cell<bool>,
    on_loan: Cell<u32>,
}

impl Pool {
    pub(super) fn new(shard: ShardIndex) -> Rc<Self> {
        Rc::new(Self { shard, alive: Cell::new(true), on_loan: Cell::new(0) })
    }

    pub(super) fn on_loan(&self) -> u32 {
        self.on_loan.get()
    }

    pub(super) fn crash(&self) {
        self.alive.set(false);
    }

    pub(super) fn lend(self: &Rc<Self>, bytes: Vec<u8>) -> SimBuf {
        self.on_loan.set(self.on_loan.get() + 1);
        SimBuf { bytes, pool: Some(Rc::clone(self)) }
    }
}

/// A received buffer. Dropping it instead of giving it back by [`crate::io::Io::recycle`] is a
/// leak and panics.
#[derive(Debug)]
pub struct SimBuf {
    bytes: Vec<u8>,
    /// `None` once it is given back.
    pool: Option<Rc<Pool>>,
}

impl SimBuf {
    /// Takes the buffer back into the pool of `shard`.
    pub(super) fn give_back(mut self, shard: ShardIndex) {
        let pool = self.pool.take().expect("a buffer is given back once");
        assert_eq!(pool.shard, shard, "a receive buffer went back to another shard's pool");
        pool.on_loan.set(pool.on_loan.get() - 1);
    }
}

impl Drop for SimBuf {
    fn drop(&mut self) {
        let Some(pool) = &self.pool else { return };
        if pool.alive.get() && !std::thread::panicking() {
            panic!("shard {} dropped a receive buffer without recycling it", pool.shard);
        }
    }
}

impl Deref for SimBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for SimBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}
