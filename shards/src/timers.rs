//! One hashed wheel per shard for every deadline: login, heartbeat, retry, persistence, drain.
//!
//! A timer sits in the slot of its tick; a slot is a doubly linked list through a slab of nodes,
//! so arming and cancelling are O(1) and idle timers cost one node. Timers further away than one
//! revolution (41 s) are passed over until their round comes. Never: reads a clock.

use crate::io::Now;
use crate::table::Table;

/// Resolution of the wheel. Deadlines are rounded up to it.
pub const TICK_MS: u64 = 10;
const SLOTS: usize = 4096;
const NIL: u32 = u32::MAX;

/// A handle to an armed timer. Void once the timer has fired: its owner forgets it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(u32);

#[derive(Clone, Copy, Debug)]
struct Node<K> {
    key: Option<K>,
    /// Absolute tick at which it fires.
    tick: u64,
    previous: u32,
    next: u32,
}

impl<K> Default for Node<K> {
    fn default() -> Self {
        Self { key: None, tick: 0, previous: NIL, next: NIL }
    }
}

/// The wheel. `K` says whose timer it is.
#[derive(Debug)]
pub struct TimerWheel<K> {
    nodes: Table<Node<K>>,
    /// Head of the list of free nodes, linked by `next`.
    free: u32,
    end: u32,
    heads: Box<[u32]>,
    /// One bit per slot that holds a timer.
    occupied: [u64; SLOTS / 64],
    /// Every tick before this one has been fired.
    current: u64,
    armed: usize,
}

impl<K: Copy> TimerWheel<K> {
    pub fn new() -> Self {
        Self {
            nodes: Table::new(),
            free: NIL,
            end: 0,
            heads: vec![NIL; SLOTS].into_boxed_slice(),
            occupied: [0; SLOTS / 64],
            current: 0,
            armed: 0,
        }
    }

    /// Timers armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Arms a timer for `at`, rounded up to the next tick; a moment in the past fires next.
    pub fn arm(&mut self, key: K, at: Now) -> TimerId {
        let index = self.allocate();
        let tick = at.0.div_ceil(TICK_MS * 1_000).max(self.current);
        let slot = tick as usize % SLOTS;
        let head = self.heads[slot];
        *self.nodes.entry(index) = Node { key: Some(key), tick, previous: NIL, next: head };
        if head != NIL {
            self.nodes.entry(head).previous = index;
        }
        self.heads[slot] = index;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.armed += 1;
        TimerId(index)
    }

    /// Takes an armed timer back.
    pub fn cancel(&mut self, timer: TimerId) {
        debug_assert!(self.nodes.entry(timer.0).key.is_some(), "cancelled a timer that has fired");
        self.unlink(timer.0);
    }

    /// The next timer that is due, if any. Call until `None`.
    pub fn expired(&mut self, now: Now) -> Option<K> {
        let now_tick = now.0 / (TICK_MS * 1_000);
        while self.current <= now_tick {
            if let Some(key) = self.due_in_slot(self.current) {
                return Some(key);
            }
            self.current = self.next_occupied(self.current + 1, now_tick + 1);
        }
        None
    }

    /// A moment at or before the nearest deadline; `None` if nothing is armed.
    pub fn next_deadline(&self) -> Option<Now> {
        if self.armed == 0 {
            return None;
        }
        let tick = self.next_occupied(self.current, self.current + SLOTS as u64);
        Some(Now(tick * TICK_MS * 1_000))
    }

    fn due_in_slot(&mut self, tick: u64) -> Option<K> {
        let mut index = self.heads[tick as usize % SLOTS];
        while index != NIL {
            let node = *self.nodes.entry(index);
            if node.tick <= tick {
                self.unlink(index);
                return node.key;
            }
            index = node.next;
        }
        None
    }

    /// The first tick in `from..limit` whose slot holds anything, else `limit`.
    fn next_occupied(&self, from: u64, limit: u64) -> u64 {
        let mut tick = from;
        while tick < limit {
            let slot = tick as usize % SLOTS;
            let word = self.occupied[slot / 64] >> (slot % 64);
            if word != 0 {
                return (tick + u64::from(word.trailing_zeros())).min(limit);
            }
            tick += 64 - (slot % 64) as u64;
        }
        limit
    }

    fn allocate(&mut self) -> u32 {
        if self.free == NIL {
            self.end += 1;
            return self.end - 1;
        }
        let index = self.free;
        self.free = self.nodes.entry(index).next;
        index
    }

    fn unlink(&mut self, index: u32) {
        let node = *self.nodes.entry(index);
        let slot = node.tick as usize % SLOTS;
        if node.previous == NIL {
            self.heads[slot] = node.next;
            if node.next == NIL {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        } else {
            self.nodes.entry(node.previous).next = node.next;
        }
        if node.next != NIL {
            self.nodes.entry(node.next).previous = node.previous;
        }
        *self.nodes.entry(index) = Node { next: self.free, ..Node::default() };
        self.free = index;
        self.armed -= 1;
    }
}

impl<K: Copy> Default for TimerWheel<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fire(wheel: &mut TimerWheel<u32>, ms: u64) -> Vec<u32> {
        std::iter::from_fn(|| wheel.expired(Now(ms * 1_000))).collect()
    }

    #[test]
    fn timers_fire_once_at_their_tick_and_not_before() {
        let mut wheel = TimerWheel::new();
        wheel.arm(1, Now(25_000));
        wheel.arm(2, Now(100_000_000));
        assert_eq!(fire(&mut wheel, 29), [] as [u32; 0]);
        assert_eq!(fire(&mut wheel, 30), [1]);
        assert_eq!(fire(&mut wheel, 99_999), [] as [u32; 0]);
        assert_eq!(fire(&mut wheel, 100_000), [2]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn cancelled_timers_do_not_fire_and_deadlines_are_never_late() {
        let mut wheel = TimerWheel::new();
        let first = wheel.arm(1, Now(50_000));
        wheel.arm(2, Now(90_000));
        wheel.cancel(first);
        assert_eq!(wheel.next_deadline(), Some(Now(90_000)));
        assert_eq!(fire(&mut wheel, 1_000), [2]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_model_of_random_timers_agrees() {
        let mut wheel = TimerWheel::new();
        let mut model: Vec<(u64, u32)> = Vec::new();
        let (mut seed, mut now) = (7_u64, 0_u64);
        for key in 0..20_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = now + (seed >> 40) % 120_000;
            wheel.arm(key, Now(at * 1_000));
            model.push((at.div_ceil(TICK_MS) * TICK_MS, key));
            now += (seed >> 33) % 50;
            let mut fired = fire(&mut wheel, now);
            let mut expected: Vec<u32> =
                model.extract_if(.., |(at, _)| *at <= now).map(|(_, key)| key).collect();
            fired.sort_unstable();
            expected.sort_unstable();
            assert_eq!(fired, expected);
            if let Some(deadline) = wheel.next_deadline() {
                assert!(model.iter().all(|(at, _)| Now(at * 1_000) >= deadline));
            }
        }
    }
}
