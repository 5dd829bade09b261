//! What the coordinator and the workers tell each other while a run lasts.
//!
//! Owns: the phase everybody is in, each worker's counters. Never: decides when a phase ends.

use shards::io::sys::Waker;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Counters of one worker, or the sum of several. All but `connected` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub connected: u64,
    pub logins: u64,
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,
    /// First arrivals that are due for what was sent until now.
    pub due: u64,
    /// Of those, how many have come.
    pub arrived: u64,
    pub pings: u64,
}

impl Counts {
    const FIELDS: usize = 8;

    fn to_array(self) -> [u64; Self::FIELDS] {
        let Self { connected, logins, sent, acked, delivered, due, arrived, pings } = self;
        [connected, logins, sent, acked, delivered, due, arrived, pings]
    }

    fn from_array(fields: [u64; Self::FIELDS]) -> Self {
        let [connected, logins, sent, acked, delivered, due, arrived, pings] = fields;
        Self { connected, logins, sent, acked, delivered, due, arrived, pings }
    }

    /// Changes whenever the server has done anything: what is sent depends on us alone.
    pub(crate) fn progress(self) -> [u64; Self::FIELDS] {
        Self { sent: 0, due: 0, ..self }.to_array()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let mut sum = self.to_array();
        for (sum, more) in sum.iter_mut().zip(other.to_array()) {
            *sum += more;
        }
        *self = Self::from_array(sum);
    }
}

/// One worker's side.
#[derive(Debug, Default)]
struct Place {
    counts: [AtomicU64; Counts::FIELDS],
    /// The phase whose goal this worker has reached, plus one.
    reached: AtomicUsize,
    waker: OnceLock<Waker>,
}

/// Shared by all threads of a run.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    phase: Arc<AtomicUsize>,
    places: Arc<[Place]>,
}

/// The phase after the last one: everybody stops.
pub(crate) const STOP: usize = usize::MAX;

impl Board {
    pub(crate) fn new(workers: usize) -> Self {
        let places = std::iter::repeat_with(Place::default).take(workers).collect();
        Self { phase: Arc::default(), places }
    }

    pub(crate) fn phase(&self) -> usize {
        self.phase.load(Ordering::Acquire)
    }

    pub(crate) fn enter(&self, phase: usize) {
        self.phase.store(phase, Ordering::Release);
        for place in &*self.places {
            if let Some(waker) = place.waker.get() {
                waker.wake();
            }
        }
    }

    /// Worker `worker` can be woken from now on.
    pub(crate) fn attend(&self, worker: usize, waker: Waker) {
        let first = self.places[worker].waker.set(waker);
        first.expect("each worker attends once");
    }

    pub(crate) fn publish(&self, worker: usize, counts: Counts) {
        for (place, value) in self.places[worker].counts.iter().zip(counts.to_array()) {
            place.store(value, Ordering::Relaxed);
        }
    }

    /// Whether worker `worker` has reached the goal of `phase`, which it may lose again. What it
    /// published before is seen first.
    pub(crate) fn reach(&self, worker: usize, phase: usize, reached: bool) {
        let mark = if reached { phase + 1 } else { 0 };
        self.places[worker].reached.store(mark, Ordering::Release);
    }

    /// All workers have reached the goal of `phase`.
    pub(crate) fn reached(&self, phase: usize) -> bool {
        self.places.iter().all(|place| place.reached.load(Ordering::Acquire) == phase + 1)
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for place in &*self.places {
            sum += Counts::from_array(std::array::from_fn(|field| {
                place.counts[field].load(Ordering::Relaxed)
            }));
        }
        sum
    }
}
