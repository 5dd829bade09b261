//! Messages between shards: one bounded single-producer ring per ordered pair.
//!
//! A message for a full ring waits in a FIFO of its pair; the shard stops reading publishers while
//! one is long ([`Mesh::is_congested`]), so requests are bounded by what publishers may have
//! outstanding, and replies by the requests. A shard that sleeps is woken by a doorbell, one that
//! runs is not.
//!
//! Never: drops a message, blocks, allocates in the steady state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use codec::{Echo, Message, Notice, TenantId, UserId, UserKey};
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::hand_over::{HandOver, Token};
use crate::home::outcome::Outcome;
use crate::home::room::RoomEvent;
use crate::io::{ShardIndex, Slot};
use crate::limits::MESH_BACKLOG;
use crate::mutants::{self, Mutant};

/// What shards say to each other. A `request` is an index at the shard that asks; the one asked
/// owes exactly one answer, except for [`ShardMessage::NO_REPLY`].
#[derive(Debug)]
pub enum ShardMessage {
    /// To the recipient's home: answered by `Settled`.
    /// Unless `keep`, only if he has a terminal.
    Deliver {
        to: UserKey,
        message: Arc<Message>,
        keep: bool,
        request: u32,
    },
    /// How the request ended.
    Settled {
        request: u32,
        outcome: Outcome,
    },
    /// To the group's home: answered by `Settled`.
    Group {
        message: Arc<Message>,
        part: Option<Arc<[UserId]>>,
        sending: Sending,
        request: u32,
    },
    /// To a home of members: answered by `FanOutDone`.
    FanOut {
        message: Arc<Message>,
        members: Arc<[UserId]>,
        sending: Sending,
        request: u32,
    },
    /// Safe for all members there but those that failed.
    FanOutDone {
        request: u32,
        /// For one of them at least by the store.
        stored: bool,
        failed: Option<Arc<[UserId]>>,
    },
    /// Something to tell everybody in the tenant's public room. No answer.
    Room {
        tenant: TenantId,
        event: RoomEvent,
    },
    /// Who is in the tenant's public room there: answered by `Here`.
    WhoIsHere {
        tenant: TenantId,
        request: u32,
    },
    Here {
        request: u32,
        names: Arc<[Arc<[u8]>]>,
    },
    /// Which of the users, all at home there, have a terminal: answered by `Online`.
    AreOnline {
        tenant: TenantId,
        users: Arc<[UserId]>,
        request: u32,
    },
    Online {
        request: u32,
        users: Arc<[UserId]>,
    },
    /// For the terminals of a user who is at home there. No answer.
    Notice {
        to: UserKey,
        notice: Arc<Notice>,
    },
    /// The state of a connection whose descriptor comes by the ring under the same token.
    Adopt {
        token: Token,
        state: Box<HandOver>,
    },
}

/// What a group message's shards know of the terminal or door that sent it.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    /// On the sender's home shard.
    pub slot: Slot,
    pub echo: Echo,
    /// The sender need not be a member.
    pub open: bool,
    /// What was not safe for everybody comes again under the same id, and nothing else does.
    pub resends: bool,
}

impl ShardMessage {
    /// The sender does not wait for an answer.
    pub const NO_REPLY: u32 = u32::MAX;
}

const _: () = assert!(size_of::<ShardMessage>() <= 64);

/// Most shards of one process.
pub const SHARDS_MAX: usize = 256;

/// What the others see of a shard; a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Door {
    asleep: AtomicBool,
    /// One bit per shard whose ring to this one may hold something.
    inbox: [AtomicU64; SHARDS_MAX / 64],
    /// One bit per shard that waits for room in its ring to this one.
    blocked: [AtomicU64; SHARDS_MAX / 64],
}

/// Messages one ring gives before the next has its turn.
const BURST: usize = 32;

/// One shard's end of the mesh.
#[derive(Debug)]
pub struct Mesh {
    me: usize,
    doors: Arc<[Door]>,
    to: Vec<Option<Producer<ShardMessage>>>,
    from: Vec<Option<Consumer<ShardMessage>>>,
    backlog: Vec<VecDeque<ShardMessage>>,
    /// Shards that were sent something since the last [`Mesh::flush`].
    touched: [u64; SHARDS_MAX / 64],
    /// Shards whose rings hold something, taken from the inbox and not drained yet.
    pending: [u64; SHARDS_MAX / 64],
    /// Whose ring is being drained, and how many messages it may still give in this round.
    turn: usize,
    burst: usize,
    waiting: usize,
    pub(crate) sent: u64,
    pub(crate) full: u64,
}

impl Mesh {
    /// The ends of a mesh of `shards`, with rings of `capacity` messages.
    pub fn wire(shards: ShardIndex, capacity: usize) -> Vec<Self> {
        let count = usize::from(shards);
        assert!(count <= SHARDS_MAX, "the configuration bounds the shards");
        let doors: Arc<[Door]> = (0..count).map(|_| Door::default()).collect();
        let mut ends: Vec<Self> = (0..count).map(|me| Self::new(me, Arc::clone(&doors))).collect();
        for from in 0..count {
            for to in (0..count).filter(|&to| to != from) {
                let (producer, consumer) = RingBuffer::new(capacity);
                ends[from].to[to] = Some(producer);
                ends[to].from[from] = Some(consumer);
            }
        }
        ends
    }

    fn new(me: usize, doors: Arc<[Door]>) -> Self {
        let count = doors.len();
        Self {
            me,
            doors,
            to: (0..count).map(|_| None).collect(),
            from: (0..count).map(|_| None).collect(),
            backlog: (0..count).map(|_| VecDeque::new()).collect(),
            touched: Default::default(),
            pending: Default::default(),
            turn: 0,
            burst: BURST,
            waiting: 0,
            sent: 0,
            full: 0,
        }
    }

    /// Queues a message for another shard. It is seen there after the next [`Mesh::flush`].
    pub fn send(&mut self, to: ShardIndex, message: ShardMessage) {
        let to = usize::from(to);
        self.sent += 1;
        self.touched[to / 64] |= 1 << (to % 64);
        if !self.backlog[to].is_empty() {
            self.waiting += 1;
            self.backlog[to].push_back(message);
            return;
        }
        let producer = self.to[to].as_mut().expect("a shard never sends to itself");
        if let Err(PushError::Full(message)) = producer.push(message) {
            self.full += 1;
            if mutants::on(Mutant::DropOnFullRing) {
                return;
            }
            self.waiting += 1;
            self.backlog[to].push_back(message);
        }
    }

    /// Moves waiting messages into their rings and calls `ring` for every shard that has news and
    /// sleeps.
    pub fn flush(&mut self, mut ring: impl FnMut(ShardIndex)) {
        if self.waiting > 0 {
            self.flush_backlog();
        }
        for word in 0..self.touched.len() {
            let mut bits = std::mem::take(&mut self.touched[word]);
            while bits != 0 {
                let to = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let door = &self.doors[to];
                door.inbox[self.me / 64].fetch_or(1 << (self.me % 64), Ordering::Release);
                // Pairs with the fence in `prepare_sleep`: either we see it asleep, or it sees
                // the bit.
                fence(Ordering::SeqCst);
                if door.asleep.load(Ordering::Relaxed) && door.asleep.swap(false, Ordering::AcqRel)
                {
                    ring(to as ShardIndex);
                }
            }
        }
    }

    /// The next message of any shard: round robin, in bursts of one ring.
    pub fn receive(&mut self) -> Option<(ShardIndex, ShardMessage)> {
        loop {
            let Some(from) = self.next_pending() else {
                self.take_inbox();
                self.next_pending()?;
                continue;
            };
            let consumer = self.from[from].as_mut();
            if let Some(message) = consumer.and_then(|consumer| consumer.pop().ok()) {
                self.burst -= 1;
                if self.burst == 0 {
                    self.pass_turn(from);
                }
                return Some((from as ShardIndex, message));
            }
            self.pending[from / 64] &= !(1 << (from % 64));
            self.pass_turn(from);
            self.announce_room(from);
        }
    }

    /// The ring to look at: from `turn` on, around.
    fn next_pending(&self) -> Option<usize> {
        let (word, bit) = (self.turn / 64, self.turn % 64);
        let first = self.pending[word] & (u64::MAX << bit);
        if first != 0 {
            return Some(word * 64 + first.trailing_zeros() as usize);
        }
        let words = self.pending.len();
        let mut others = (1..=words).map(|step| (word + step) % words);
        let word = others.find(|&word| self.pending[word] != 0)?;
        Some(word * 64 + self.pending[word].trailing_zeros() as usize)
    }

    fn pass_turn(&mut self, from: usize) {
        self.turn = (from + 1) % SHARDS_MAX;
        self.burst = BURST;
    }

    fn take_inbox(&mut self) {
        for (pending, word) in self.pending.iter_mut().zip(&self.doors[self.me].inbox) {
            if word.load(Ordering::Relaxed) != 0 {
                *pending |= word.swap(0, Ordering::AcqRel);
            }
        }
    }

    /// Announces that this shard is about to sleep; `false` if there is something to do first.
    /// Whoever empties a ring that this shard waits for wakes it.
    pub fn prepare_sleep(&mut self) -> bool {
        let door = &self.doors[self.me];
        door.asleep.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        let news = door.inbox.iter().any(|word| word.load(Ordering::Acquire) != 0)
            || self.pending.iter().any(|&word| word != 0);
        if news {
            self.awake();
            return false;
        }
        true
    }

    /// The shard runs again: no doorbells needed.
    pub fn awake(&mut self) {
        self.doors[self.me].asleep.store(false, Ordering::Release);
    }

    /// So much waits for a full ring that publishers must not be read.
    pub fn is_congested(&self) -> bool {
        self.waiting > MESH_BACKLOG
    }

    /// Messages waiting for room in a ring.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn flush_backlog(&mut self) {
        for to in 0..self.backlog.len() {
            if self.backlog[to].is_empty() {
                continue;
            }
            self.refill(to);
            if self.backlog[to].is_empty() {
                continue;
            }
            let blocked = &self.doors[to].blocked[self.me / 64];
            blocked.fetch_or(1 << (self.me % 64), Ordering::Release);
            // Pairs with the fence in `announce_room`: either the other shard sees the bit, or we
            // see the room it made.
            fence(Ordering::SeqCst);
            self.refill(to);
        }
    }

    /// Moves as many waiting messages as fit into a ring.
    fn refill(&mut self, to: usize) {
        let Some(producer) = &mut self.to[to] else { return };
        let backlog = &mut self.backlog[to];
        while !producer.is_full()
            && let Some(message) = backlog.pop_front()
        {
            self.touched[to / 64] |= 1 << (to % 64);
            if let Err(PushError::Full(message)) = producer.push(message) {
                return backlog.push_front(message);
            }
            self.waiting -= 1;
        }
    }

    /// A ring was emptied: its producer, if it waits for room, is told at the next flush.
    fn announce_room(&mut self, from: usize) {
        fence(Ordering::SeqCst);
        let (blocked, bit) = (&self.doors[self.me].blocked[from / 64], 1 << (from % 64));
        if blocked.load(Ordering::Relaxed) & bit != 0 {
            blocked.fetch_and(!bit, Ordering::AcqRel);
            self.touched[from / 64] |= bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(request: u32) -> ShardMessage {
        ShardMessage::Settled { request, outcome: Outcome::Safe }
    }

    fn request(message: ShardMessage) -> u32 {
        match message {
            ShardMessage::Settled { request, .. } => request,
            other => panic!("unexpected {other:?}"),
        }
    }

    #[test]
    fn nothing_is_lost_or_reordered_when_rings_are_tiny() {
        let mut ends = Mesh::wire(3, 2);
        let mut third = ends.pop().expect("three ends");
        let mut second = ends.pop().expect("three ends");
        let mut first = ends.pop().expect("three ends");
        let mut got = [Vec::new(), Vec::new()];
        for n in 0..1_000 {
            first.send(2, settled(n));
            second.send(2, settled(n));
            if n % 7 == 0 {
                first.flush(|_| {});
                second.flush(|_| {});
                while let Some((from, message)) = third.receive() {
                    got[usize::from(from)].push(request(message));
                }
            }
        }
        while first.waiting() + second.waiting() > 0 {
            first.flush(|_| {});
            second.flush(|_| {});
            while let Some((from, message)) = third.receive() {
                got[usize::from(from)].push(request(message));
            }
        }
        for list in got {
            assert_eq!(list, (0..1_000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_busy_ring_does_not_starve_another() {
        let mut ends = Mesh::wire(3, 64);
        let mut third = ends.pop().expect("three ends");
        let mut second = ends.pop().expect("three ends");
        let mut first = ends.pop().expect("three ends");
        for n in 0..64 {
            first.send(2, settled(n));
        }
        second.send(2, settled(7));
        first.flush(|_| {});
        second.flush(|_| {});
        let order: Vec<ShardIndex> =
            std::iter::from_fn(|| third.receive().map(|(from, _)| from)).collect();
        assert_eq!(order.len(), 65);
        assert_eq!(order.iter().position(|&from| from == 1), Some(BURST));
    }

    #[test]
    fn only_a_sleeping_shard_is_rung_and_once() {
        let mut ends = Mesh::wire(2, 8);
        let mut second = ends.pop().expect("two ends");
        let mut first = ends.pop().expect("two ends");
        let mut rings = Vec::new();
        first.send(1, settled(1));
        first.flush(|to| rings.push(to));
        assert!(rings.is_empty());
        assert!(!second.prepare_sleep(), "there is a message to take first");
        assert_eq!(second.receive().map(|(from, message)| (from, request(message))), Some((0, 1)));
        assert!(second.receive().is_none());
        assert!(second.prepare_sleep());
        first.send(1, settled(2));
        first.send(1, settled(3));
        first.flush(|to| rings.push(to));
        first.send(1, settled(4));
        first.flush(|to| rings.push(to));
        assert_eq!(rings, [1]);
    }

    #[test]
    fn threads_exchange_everything_in_order() {
        let mut ends = Mesh::wire(2, 16);
        let mut second = ends.pop().expect("two ends");
        let mut first = ends.pop().expect("two ends");
        let sender = std::thread::spawn(move || {
            for n in 0..100_000 {
                first.send(1, settled(n));
                first.flush(|_| {});
                while first.waiting() > 1_000 {
                    first.flush(|_| {});
                    std::thread::yield_now();
                }
            }
            while first.waiting() > 0 {
                first.flush(|_| {});
                std::thread::yield_now();
            }
        });
        let mut next = 0;
        while next < 100_000 {
            match second.receive() {
                Some((_, message)) => {
                    assert_eq!(request(message), next);
                    next += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        sender.join().expect("the sender finishes");
    }
}
