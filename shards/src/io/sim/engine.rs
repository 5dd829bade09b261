//! The shard's side: the slot table, what is in flight on it, and [`SimIo`].
//!
//! Strict on purpose: every use that the contract of [`Io`] forbids panics here, so that a
//! simulation tests the caller and not only the outcome.

use std::collections::VecDeque;
use std::rc::Rc;

use super::SimNet;
use super::buf::{Pool, SimBuf};
use super::net::{Event, Net};
use super::socket::{ClientId, SlotRef};
use crate::io::{Completion, Io, ListenerIndex, Now, SendBatch, ShardIndex, Slot, Wait};

/// One shard's kernel side.
pub(super) struct ShardState {
    pub(super) index: ShardIndex,
    pub(super) life: u32,
    pub(super) listeners: ListenerIndex,
    pub(super) accepting: bool,
    /// Accepts that were withdrawn may complete until then.
    pub(super) withdrawn_until: u64,
    pub(super) backlog: VecDeque<ClientId>,
    pub(super) slots: SlotTable,
    pub(super) completions: VecDeque<Completion<SimBuf>>,
    pub(super) doorbell: bool,
    /// What the last wait asked for.
    wake_at: u64,
    /// The last turn lasts until then.
    busy_until: u64,
    /// It is not run until then, and its kernel does nothing for it.
    pub(super) stalled_until: u64,
    pub(super) pool: Rc<Pool>,
    /// Receives that found no buffer.
    pub(super) starved: Vec<Slot>,
}

impl ShardState {
    pub(super) fn new(
        index: ShardIndex,
        life: u32,
        slots: u32,
        listeners: ListenerIndex,
        now: u64,
    ) -> Self {
        Self {
            index,
            life,
            listeners,
            accepting: false,
            withdrawn_until: 0,
            backlog: VecDeque::new(),
            slots: SlotTable::new(slots),
            completions: VecDeque::new(),
            doorbell: false,
            wake_at: now,
            busy_until: now,
            stalled_until: now,
            pool: Pool::new(index),
            starved: Vec::new(),
        }
    }

    /// When the shard has something to do.
    pub(super) fn due(&self) -> u64 {
        let awake = self.doorbell || !self.completions.is_empty();
        if awake { self.busy_until } else { self.wake_at.max(self.busy_until) }
    }

    pub(super) fn entry(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.slots.entry(slot)
    }

    /// Puts a connection into a free slot, if there is one.
    pub(super) fn occupy(&mut self, socket: ClientId) -> Option<SlotRef> {
        let slot = self.slots.occupy(socket)?;
        Some(SlotRef { shard: self.index, life: self.life, slot })
    }

    /// The entry of a slot that the shard may use for `what`.
    fn live(&mut self, slot: Slot, what: &str) -> &mut Entry {
        let shard = self.index;
        let Some(entry) = self.slots.entry(slot) else {
            panic!("shard {shard}: {what} on {slot:?}, which is free");
        };
        assert!(
            entry.state == SlotState::Live,
            "shard {shard}: {what} on {slot:?}, which is {:?}",
            entry.state
        );
        entry
    }
}

pub(super) struct SlotTable {
    entries: Vec<Entry>,
    /// Last in, first out: an index is used again as soon as possible, so that a stale use of its
    /// last tenant meets the next one.
    free: Vec<u32>,
}

impl SlotTable {
    fn new(slots: u32) -> Self {
        let entries = (0..slots).map(|_| Entry::default()).collect();
        Self { entries, free: (0..slots).rev().collect() }
    }

    pub(super) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(super) fn used(&self) -> u32 {
        self.len() - self.free.len() as u32
    }

    /// `None` if the slot is free or another tenant's.
    pub(super) fn entry(&mut self, slot: Slot) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        (entry.state != SlotState::Free && entry.generation == slot.generation).then_some(entry)
    }

    fn occupy(&mut self, socket: ClientId) -> Option<Slot> {
        let index = self.free.pop()?;
        let entry = &mut self.entries[index as usize];
        let generation = entry.generation;
        *entry = Entry { generation, state: SlotState::Live, socket, ..Entry::default() };
        Some(Slot { index, generation })
    }

    /// Frees the slot and raises its generation.
    pub(super) fn free(&mut self, slot: Slot) {
        let Some(entry) = self.entry(slot) else { return };
        entry.state = SlotState::Free;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        entry.send = None;
        self.free.push(slot.index);
    }

    /// The connections in the table; one that is being handed over may be another shard's by now.
    pub(super) fn sockets(&self) -> Vec<ClientId> {
        let used = self.entries.iter().filter(|entry| entry.state != SlotState::Free);
        used.map(|entry| entry.socket).collect()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SlotState {
    #[default]
    Free,
    Live,
    Closing,
    HandingOver {
        to: ShardIndex,
        token: u64,
    },
}

/// A slot and what is in flight on it.
#[derive(Debug)]
pub(super) struct Entry {
    generation: u32,
    pub(super) state: SlotState,
    /// Meaningless while free.
    pub(super) socket: ClientId,
    pub(super) receiving: bool,
    /// In the list of receives that wait for a buffer.
    pub(super) starved: bool,
    /// An `unsent` is in flight.
    pub(super) asking: bool,
    pub(super) send: Option<SendOp>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            generation: 0,
            state: SlotState::Free,
            socket: ClientId(0),
            receiving: false,
            starved: false,
            asking: false,
            send: None,
        }
    }
}

impl Entry {
    /// The batch of the send in flight, to be given back.
    pub(super) fn take_batch(&mut self) -> SendBatch {
        self.send.take().map(|send| send.batch).unwrap_or_default()
    }
}

#[derive(Debug)]
pub(super) struct SendOp {
    batch: SendBatch,
    pub(super) len: usize,
    /// `unreported <= written <= len`.
    pub(super) written: usize,
    pub(super) unreported: usize,
}

impl SendOp {
    /// Copies the next `count` bytes of the batch.
    pub(super) fn copy_next(&mut self, count: usize, to: &mut VecDeque<u8>) {
        let (mut skip, mut left) = (self.written, count);
        for piece in self.batch.pieces.iter() {
            let bytes = piece.bytes();
            let from = skip.min(bytes.len());
            let take = left.min(bytes.len() - from);
            to.extend(&bytes[from..from + take]);
            skip -= from;
            left -= take;
        }
        self.written += count;
    }
}

/// A shard's [`Io`] in a simulation. A turn ends with [`Io::wait`], which returns at once: the
/// next turn is due when [`SimNet::runnable`] names the shard, and finds there what the wait
/// would have returned with.
pub struct SimIo {
    net: SimNet,
    shard: ShardIndex,
    life: u32,
}

impl SimIo {
    pub(super) fn new(net: SimNet, shard: ShardIndex, life: u32) -> Self {
        Self { net, shard, life }
    }

    /// Runs `body` on the network and on this shard's part of it, taken out meanwhile.
    fn with<T>(&self, body: impl FnOnce(&mut Net, &mut ShardState) -> T) -> T {
        let mut net = self.net.0.borrow_mut();
        let net = &mut *net;
        let state = net.shards.get_mut(usize::from(self.shard)).and_then(Option::take);
        let Some(mut state) = state.filter(|state| state.life == self.life) else {
            panic!("shard {}: its engine is used after the crash", self.shard);
        };
        let answer = body(net, &mut state);
        net.shards[usize::from(self.shard)] = Some(state);
        answer
    }

    fn slot_ref(&self, slot: Slot) -> SlotRef {
        SlotRef { shard: self.shard, life: self.life, slot }
    }
}

impl Io for SimIo {
    type Buf = SimBuf;

    fn now(&self) -> Now {
        Now(self.net.0.borrow().now)
    }

    fn capacity(&self) -> u32 {
        self.with(|_, state| state.slots.len())
    }

    fn set_accepting(&mut self, on: bool) {
        let (shard, life) = (self.shard, self.life);
        self.with(|net, state| {
            if state.accepting && !on {
                state.withdrawn_until = net.now + net.rng.range(&net.plan.completion_us);
            }
            if on && !state.accepting {
                for _ in 0..state.backlog.len() {
                    net.complete_later(Event::Accept { shard, life });
                }
            }
            state.accepting = on;
        });
    }

    fn receive(&mut self, slot: Slot) {
        let at = self.slot_ref(slot);
        self.with(|net, state| {
            let entry = state.live(slot, "receive");
            assert!(!entry.receiving, "shard {}: two receives armed on {slot:?}", at.shard);
            entry.receiving = true;
            if net.socket(entry.socket).is_readable() {
                net.complete_later(Event::Receive(at));
            }
        });
    }

    fn recycle(&mut self, buf: SimBuf) {
        let (shard, life) = (self.shard, self.life);
        buf.give_back(shard);
        self.net.0.borrow_mut().feed_starved(shard, life);
    }

    fn send(&mut self, slot: Slot, batch: SendBatch) {
        let at = self.slot_ref(slot);
        self.with(|net, state| {
            let entry = state.live(slot, "send");
            assert!(entry.send.is_none(), "shard {}: two sends in flight on {slot:?}", at.shard);
            assert!(!batch.is_empty(), "shard {}: an empty send on {slot:?}", at.shard);
            let len = batch.len();
            entry.send = Some(SendOp { batch, len, written: 0, unreported: 0 });
            net.complete_later(Event::Send(at));
        });
    }

    fn unsent(&mut self, slot: Slot) {
        let at = self.slot_ref(slot);
        self.with(|net, state| {
            let entry = state.live(slot, "unsent");
            assert!(!entry.asking, "shard {}: unsent asked twice of {slot:?}", at.shard);
            entry.asking = true;
            net.complete_later(Event::Unsent(at));
        });
    }

    fn close(&mut self, slot: Slot) {
        let at = self.slot_ref(slot);
        self.with(|net, state| {
            state.live(slot, "close").state = SlotState::Closing;
            net.complete_later(Event::Close(at));
        });
    }

    fn hand_over(&mut self, slot: Slot, to: ShardIndex, token: u64) {
        let at = self.slot_ref(slot);
        self.with(|net, state| {
            let entry = state.live(slot, "hand_over");
            let busy = entry.receiving || entry.asking || entry.send.is_some();
            assert!(!busy, "shard {}: hand-over of {slot:?} with something in flight", at.shard);
            assert_ne!(to, at.shard, "hand-over of {slot:?} to the shard it is on");
            entry.state = SlotState::HandingOver { to, token };
            net.complete_later(Event::HandOver(at));
        });
    }

    fn doorbell(&mut self, to: ShardIndex) {
        self.net.0.borrow_mut().ring(to);
    }

    fn wait(&mut self, wait: Wait) {
        self.with(|net, state| {
            state.doorbell = false;
            // A turn takes time, so that a shard that always has something to do does not stop
            // the clock.
            state.busy_until = net.now + net.rng.range(&net.plan.turn_us).max(1);
            if net.rng.chance(net.plan.stall_ppm) {
                net.stats.stalls += 1;
                state.busy_until += net.rng.below(net.plan.stall_us);
                state.stalled_until = state.busy_until;
            }
            state.wake_at = match wait {
                Wait::Poll => net.now,
                Wait::Until(Now(at)) => at,
            };
        });
    }

    fn next(&mut self) -> Option<Completion<SimBuf>> {
        self.with(|_, state| state.completions.pop_front())
    }
}

const GENERATION_MASK: u32 = (1 << 24) - 1;
