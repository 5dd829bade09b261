//! One hashed wheel per shard for every deadline: login, heartbeat, retry, persistence, drain.
//!
//! A timer sits in the slot of its tick; a slot is a doubly linked list through a slab of nodes,
//! so arming and cancelling are O(1) and idle timers cost one node. Timers further away than one
//! revolution (41 s) are passed over until their round comes. Never: reads a clock.

use std::num::NonZeroU32;

use crate::io::Now;
use crate::table::Table;

/// Resolution of the wheel. Deadlines are rounded up to it.
pub const TICK_MS: u64 = 10;
const TICK_US: u64 = TICK_MS * 1_000;
const SLOTS: usize = 4096;
/// The tick of a timer in the due list. No timer is armed for it.
const DUE: u32 = u32::MAX;
const NIL: u32 = u32::MAX;

/// A handle to an armed timer; it means nothing once the timer has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

#[derive(Clone, Copy, Debug)]
struct Node<K> {
    /// The low half of the tick at which it fires, which tells ticks of one slot apart: none is
    /// armed for more than a year ahead. [`DUE`] once it has moved to the list of due timers.
    tick: u32,
    key: Option<K>,
    previous: u32,
    next: u32,
    /// Raised when the node is freed.
    generation: NonZeroU32,
}

impl<K> Default for Node<K> {
    fn default() -> Self {
        Self { tick: 0, key: None, previous: NIL, next: NIL, generation: NonZeroU32::MIN }
    }
}

/// The wheel. `K` says whose timer it is.
#[derive(Debug)]
pub struct TimerWheel<K> {
    nodes: Table<Node<K>>,
    /// Head of the list of free nodes, linked by `next`.
    free: u32,
    end: u32,
    /// Heads of the slots' lists.
    heads: Box<[u32]>,
    /// Head of the list of timers whose tick has come and that have not been given out.
    due: u32,
    /// One bit per slot that holds a timer.
    occupied: [u64; SLOTS / 64],
    /// Every slot before this tick has given up what was due in it.
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
            due: NIL,
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

    /// Arms a timer for `at`, rounded up to the next tick; one in the past fires at the next tick.
    pub fn arm(&mut self, key: K, at: Now) -> TimerId {
        let index = self.allocate();
        let tick = at.0.div_ceil(TICK_US).max(self.current) as u32;
        let node = self.nodes.entry(index);
        node.key = Some(key);
        node.tick = if tick == DUE { 0 } else { tick };
        let generation = node.generation;
        self.link(index);
        self.armed += 1;
        TimerId { index, generation }
    }

    /// Takes an armed timer back; one that has fired is not affected.
    pub fn cancel(&mut self, timer: TimerId) {
        let node = self.nodes.entry(timer.index);
        if node.generation == timer.generation && node.key.is_some() {
            self.unlink(timer.index);
            self.release(timer.index);
        }
    }

    /// The next timer that is due, if any. Call until `None`.
    pub fn expired(&mut self, now: Now) -> Option<K> {
        let now_tick = now.0 / TICK_US;
        while self.due == NIL && self.current <= now_tick {
            self.collect_due();
            self.current = self.next_occupied(self.current + 1, now_tick + 1);
        }
        let index = self.due;
        if index == NIL {
            return None;
        }
        let key = self.nodes.entry(index).key;
        self.unlink(index);
        self.release(index);
        key
    }

    /// A moment at or before the nearest deadline; `None` if nothing is armed.
    pub fn next_deadline(&self) -> Option<Now> {
        if self.armed == 0 {
            return None;
        }
        if self.due != NIL {
            return Some(Now(0));
        }
        let tick = self.next_occupied(self.current, self.current + SLOTS as u64);
        Some(Now(tick * TICK_US))
    }

    /// Moves what is due in the current slot to the due list, once; later rounds stay.
    fn collect_due(&mut self) {
        let mut index = self.heads[self.current as usize % SLOTS];
        while index != NIL {
            let node = *self.nodes.entry(index);
            if node.tick == self.current as u32 {
                self.unlink(index);
                self.nodes.entry(index).tick = DUE;
                self.link(index);
            }
            index = node.next;
        }
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
            // A jump over more than a revolution need not look at any slot twice.
            tick += 64 - (slot % 64) as u64;
            if tick >= from + 2 * SLOTS as u64 {
                return limit;
            }
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

    fn release(&mut self, index: u32) {
        let generation = self.nodes.entry(index).generation;
        let generation = generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        *self.nodes.entry(index) = Node { next: self.free, generation, ..Node::default() };
        self.free = index;
        self.armed -= 1;
    }

    /// Puts a node at the head of the list its tick says.
    fn link(&mut self, index: u32) {
        let tick = self.nodes.entry(index).tick;
        let slot = tick as usize % SLOTS;
        let head = match tick {
            DUE => std::mem::replace(&mut self.due, index),
            _ => {
                self.occupied[slot / 64] |= 1 << (slot % 64);
                std::mem::replace(&mut self.heads[slot], index)
            }
        };
        let node = self.nodes.entry(index);
        node.previous = NIL;
        node.next = head;
        if head != NIL {
            self.nodes.entry(head).previous = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let node = *self.nodes.entry(index);
        if node.next != NIL {
            self.nodes.entry(node.next).previous = node.previous;
        }
        if node.previous != NIL {
            self.nodes.entry(node.previous).next = node.next;
        } else if node.tick == DUE {
            self.due = node.next;
        } else {
            let slot = node.tick as usize % SLOTS;
            self.heads[slot] = node.next;
            if node.next == NIL {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
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
    fn a_handle_of_a_fired_timer_cancels_nobody_else() {
        let mut wheel = TimerWheel::new();
        let first = wheel.arm(1, Now(0));
        assert_eq!(fire(&mut wheel, 10), [1]);
        wheel.arm(2, Now(20_000));
        wheel.cancel(first);
        assert_eq!(fire(&mut wheel, 20), [2]);
    }

    #[test]
    fn due_timers_can_be_cancelled_and_armed_while_others_fire() {
        let mut wheel = TimerWheel::new();
        let ids: Vec<TimerId> = (0..4).map(|key| wheel.arm(key, Now(10_000))).collect();
        let first = wheel.expired(Now(10_000)).expect("four are due");
        let other = (first + 1) % 4;
        wheel.cancel(ids[other as usize]);
        assert_eq!(wheel.next_deadline(), Some(Now(0)));
        wheel.arm(9, Now(5_000));
        let mut rest = fire(&mut wheel, 10);
        rest.sort_unstable();
        let expected: Vec<u32> = (0..4).filter(|&key| key != first && key != other).collect();
        assert_eq!(rest, expected, "what is armed in the past waits for the next tick");
        assert_eq!(fire(&mut wheel, 20), [9]);
    }

    #[test]
    fn ticks_beyond_their_low_half_fire_in_order_and_at_most_one_tick_late() {
        let mut wheel = TimerWheel::<u32>::new();
        let wrap = 1_u64 << 32;
        let at = |tick: u64| Now((wrap + tick - 3) * TICK_US);
        wheel.arm(0, at(0));
        assert_eq!(wheel.expired(at(0)), Some(0));
        (1..6).for_each(|key| _ = wheel.arm(key, at(u64::from(key))));
        let fired = (1..7).map(|tick| std::iter::from_fn(|| wheel.expired(at(tick))).count());
        // The second would have the tick that marks what is due.
        assert_eq!(fired.collect::<Vec<_>>(), [1, 0, 2, 1, 1, 0]);
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
