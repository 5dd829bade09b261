//! The simulated kernel and network: the virtual clock, the events, and what each of them does.
//!
//! Every delay and every fault is drawn here, in the order of events, from one seed. Never: what a
//! shard or a client wants; that enters through `engine` and `client`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::engine::{ShardState, SlotState};
use super::faults::{FaultPlan, Stats};
use super::rng::Rng;
use super::socket::{ClientId, Owner, Segment, SlotRef, Socket, take};
use super::trace::Trace;
use crate::io::{Completion, Errno, ListenerIndex, ShardIndex};

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A connection reaches the backlog of its listener.
    Dial(ClientId),
    /// The engine takes one connection from the backlog.
    Accept {
        shard: ShardIndex,
        life: u32,
    },
    /// The client's next segment arrives at the gateway.
    Wire(ClientId),
    /// The gateway's bytes arrive at the client's end.
    Pull(ClientId),
    GatewayReset(ClientId),
    ClientReset(ClientId),
    Receive(SlotRef),
    Send(SlotRef),
    Unsent(SlotRef),
    Close(SlotRef),
    HandOver(SlotRef),
    HandedIn {
        at: SlotRef,
        token: u64,
    },
    HandedOver {
        from: SlotRef,
        result: Result<(), Errno>,
    },
    Doorbell {
        shard: ShardIndex,
        life: u32,
    },
}

pub(super) struct Net {
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) plan: FaultPlan,
    pub(super) stats: Stats,
    pub(super) trace: Trace,
    pub(super) sockets: Vec<Socket>,
    /// By shard index; `None` before its start and after its crash.
    pub(super) shards: Vec<Option<ShardState>>,
    /// Lives of shards begun so far.
    pub(super) lives: u32,
    pub(super) touched: VecDeque<ClientId>,
    events: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
}

impl Net {
    pub(super) fn new(seed: u64, plan: FaultPlan) -> Self {
        Self {
            now: 0,
            rng: Rng::new(seed),
            plan,
            stats: Stats::default(),
            trace: Trace::default(),
            sockets: Vec::new(),
            shards: Vec::new(),
            lives: 0,
            touched: VecDeque::new(),
            events: BinaryHeap::new(),
            scheduled: 0,
        }
    }

    /// The time of the next event, or at which the next shard is to run.
    pub(super) fn next_time(&self) -> Option<u64> {
        let event = self.events.peek().map(|Reverse(event)| event.at);
        let due = self.shards.iter().flatten().map(ShardState::due).min();
        [event, due].into_iter().flatten().min()
    }

    /// Lets time go on to the next event, or to `limit`, and does what is due.
    pub(super) fn advance(&mut self, limit: u64) {
        let next = self.next_time().unwrap_or(u64::MAX);
        self.now = self.now.max(next.min(limit));
        while let Some(Reverse(event)) = self.events.peek().copied() {
            if event.at > self.now {
                return;
            }
            self.events.pop();
            self.happen(event.event);
        }
    }

    /// An event after the delay of a completion.
    pub(super) fn complete_later(&mut self, event: Event) {
        let mut delay = self.rng.range(&self.plan.completion_us);
        if self.rng.chance(self.plan.late_ppm) {
            self.stats.late += 1;
            delay += self.rng.below(self.plan.late_us);
        }
        self.schedule(delay, event);
    }

    /// An event after one way through the network.
    pub(super) fn travel(&mut self, event: Event) {
        let delay = self.rng.range(&self.plan.network_us);
        self.schedule(delay, event);
    }

    pub(super) fn schedule(&mut self, delay: u64, event: Event) {
        self.scheduled += 1;
        let at = self.now + delay;
        self.events.push(Reverse(Scheduled { at, order: self.scheduled, event }));
    }

    pub(super) fn note(&mut self, what: &'static str, shard: ShardIndex, id: u32, amount: usize) {
        self.trace.note(self.now, what, shard, id, amount as u64);
    }

    pub(super) fn socket(&mut self, id: ClientId) -> &mut Socket {
        &mut self.sockets[id.0 as usize]
    }

    /// The shard, if it is still in that life.
    pub(super) fn shard(&mut self, shard: ShardIndex, life: u32) -> Option<&mut ShardState> {
        let state = self.shards.get_mut(usize::from(shard))?.as_mut()?;
        (state.life == life).then_some(state)
    }

    /// The connection in a slot, if shard and slot are still in that life.
    pub(super) fn occupant(&mut self, at: SlotRef) -> Option<ClientId> {
        Some(self.shard(at.shard, at.life)?.entry(at.slot)?.socket)
    }

    pub(super) fn touch(&mut self, id: ClientId) {
        let client = &mut self.socket(id).client;
        if !client.touched && !client.frozen && !client.closed {
            client.touched = true;
            self.touched.push_back(id);
        }
    }

    /// The end of a connection whose shard has died. The kernel lives on: half of the time the
    /// client still gets what was in the socket.
    pub(super) fn abandon(&mut self, id: ClientId, dead: ShardIndex) {
        match self.socket(id).owner {
            Owner::Gone => return,
            Owner::Slot(at) if at.shard != dead => return,
            Owner::Slot(_) | Owner::Backlog => {}
        }
        self.socket(id).owner = Owner::Gone;
        if self.rng.chance(500_000) {
            self.socket(id).unacked.clear();
        }
        self.travel(Event::Pull(id));
        self.schedule(self.plan.network_us.end, Event::ClientReset(id));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Dial(id) => self.on_dial(id),
            Event::Accept { shard, life } => self.on_accept(shard, life),
            Event::Wire(id) => self.on_wire(id),
            Event::Pull(id) => self.on_pull(id),
            Event::GatewayReset(id) => self.on_gateway_reset(id),
            Event::ClientReset(id) => self.on_client_reset(id),
            Event::Receive(at) => self.on_receive(at),
            Event::Send(at) => self.on_send(at),
            Event::Unsent(at) => self.on_unsent(at),
            Event::Close(at) => self.on_close(at),
            Event::HandOver(at) => self.on_hand_over(at),
            Event::HandedIn { at, token } => self.on_handed_in(at, token),
            Event::HandedOver { from, result } => self.on_handed_over(from, result),
            Event::Doorbell { shard, life } => {
                if let Some(state) = self.shard(shard, life) {
                    state.doorbell = true;
                    self.stats.doorbells += 1;
                }
            }
        }
    }

    fn on_dial(&mut self, id: ClientId) {
        let Socket { shard, listener, .. } = *self.socket(id);
        match self.shards.get_mut(usize::from(shard)).and_then(Option::as_mut) {
            Some(state) if listener < state.listeners => {
                state.backlog.push_back(id);
                let life = state.life;
                self.complete_later(Event::Accept { shard, life });
            }
            _ => {
                self.socket(id).owner = Owner::Gone;
                self.travel(Event::ClientReset(id));
            }
        }
    }

    fn on_accept(&mut self, shard: ShardIndex, life: u32) {
        let now = self.now;
        let Some(state) = self.shard(shard, life) else { return };
        let may_accept = state.accepting || now <= state.withdrawn_until;
        let Some(id) = state.backlog.front().copied().filter(|_| may_accept) else { return };
        let listener = self.socket(id).listener;
        if self.rng.chance(self.plan.accept_fails_ppm) {
            self.stats.accepts_failed += 1;
            self.post(shard, Completion::AcceptFailed { listener, error: Errno(libc::EMFILE) });
            return self.schedule(self.plan.accept_backoff_us, Event::Accept { shard, life });
        }
        let Some(state) = self.shard(shard, life) else { return };
        state.backlog.pop_front();
        let Some(at) = state.occupy(id) else {
            self.stats.table_full += 1;
            self.socket(id).owner = Owner::Gone;
            self.travel(Event::ClientReset(id));
            let error = Errno(libc::ENFILE);
            return self.post(shard, Completion::AcceptFailed { listener, error });
        };
        self.stats.accepted += 1;
        let socket = self.socket(id);
        socket.owner = Owner::Slot(at);
        let peer = socket.peer;
        self.post(shard, Completion::Accepted { slot: at.slot, listener, peer });
    }

    fn on_wire(&mut self, id: ClientId) {
        let cut = self.rng.chance(self.plan.reset_ppm);
        let socket = self.socket(id);
        if socket.cut {
            return;
        }
        let Some(segment) = socket.wire.pop_front() else { return };
        if socket.owner == Owner::Gone {
            if matches!(segment, Segment::Bytes(_)) {
                self.travel(Event::ClientReset(id));
            }
            return;
        }
        if cut {
            return self.cut(id);
        }
        match segment {
            Segment::Bytes(bytes) => socket.readable.extend(bytes),
            Segment::Fin => socket.fin_arrived = true,
            Segment::Reset => return self.on_gateway_reset(id),
        }
        self.wake_receive(id);
    }

    fn on_pull(&mut self, id: ClientId) {
        let (cut, split) = (self.rng.chance(self.plan.reset_ppm), self.rng.chance(250_000));
        let room = self.plan.client_buffer_len;
        let socket = &mut self.sockets[id.0 as usize];
        if socket.cut || socket.client.eof {
            return;
        }
        if socket.client.closed {
            // Bytes for a socket that is closed are answered by a reset.
            if !socket.unacked.is_empty() {
                socket.unacked.clear();
                self.travel(Event::GatewayReset(id));
            }
            return;
        }
        if cut && !socket.unacked.is_empty() {
            return self.cut(id);
        }
        let room = room.saturating_sub(socket.client.arrived.len());
        let mut count = room.min(socket.unacked.len());
        if split && count > 1 {
            count = 1 + self.rng.index(count);
        }
        let bytes = take(&mut socket.unacked, count);
        socket.client.arrived.extend(bytes);
        let ended = socket.unacked.is_empty() && socket.fin_sent;
        socket.client.eof |= ended;
        let more = !socket.unacked.is_empty() && count < room;
        if count > 0 || ended {
            self.note("arrive", 0, id.0, count);
            self.touch(id);
            self.wake_send(id);
        }
        if more {
            self.travel(Event::Pull(id));
        }
    }

    fn on_gateway_reset(&mut self, id: ClientId) {
        let loses = self.rng.chance(500_000);
        let socket = self.socket(id);
        if socket.owner == Owner::Gone {
            return;
        }
        socket.error = Some(Errno(libc::ECONNRESET));
        socket.unacked.clear();
        // What is still under way is refused: nothing follows a gap.
        socket.wire.clear();
        if loses {
            socket.readable.clear();
        }
        self.wake_receive(id);
        self.wake_send(id);
    }

    fn on_client_reset(&mut self, id: ClientId) {
        let socket = self.socket(id);
        if !socket.client_done() {
            socket.reset_client();
            self.note("client reset", 0, id.0, 0);
            self.touch(id);
        }
    }

    /// The network drops the connection: both ends hear of it, what is under way is lost.
    fn cut(&mut self, id: ClientId) {
        self.stats.resets += 1;
        self.note("cut", 0, id.0, 0);
        let socket = self.socket(id);
        socket.cut = true;
        socket.wire.clear();
        socket.unacked.clear();
        self.travel(Event::GatewayReset(id));
        self.travel(Event::ClientReset(id));
    }

    fn on_receive(&mut self, at: SlotRef) {
        let short = self.rng.chance(self.plan.short_receive_ppm);
        let (buffers, buffer_len) = (self.plan.buffers, self.plan.buffer_len);
        let Some(state) = self.shards[usize::from(at.shard)].as_mut() else { return };
        if state.life != at.life {
            return;
        }
        if state.stalled_until > self.now {
            // A thread that is not run receives nothing: what its first turn begins comes first.
            let delay = state.stalled_until - self.now + self.rng.range(&self.plan.turn_us).max(1);
            return self.schedule(delay, Event::Receive(at));
        }
        let Some(entry) = state.slots.entry(at.slot).filter(|entry| entry.receiving) else {
            return;
        };
        let socket = &mut self.sockets[entry.socket.0 as usize];
        let slot = at.slot;
        if !socket.is_readable() {
            return;
        }
        if socket.readable.is_empty() {
            entry.receiving = false;
            let error = socket.error;
            return self.post(at.shard, Completion::ReceiveEnded { slot, error });
        }
        if state.pool.on_loan() >= buffers {
            if !std::mem::replace(&mut entry.starved, true) {
                state.starved.push(at.slot);
                self.stats.starved += 1;
            }
            return;
        }
        let mut count = socket.readable.len().min(buffer_len);
        if short && count > 1 {
            count = 1 + self.rng.index(count - 1);
            self.stats.short_receives += 1;
        }
        entry.receiving = false;
        let buf = state.pool.lend(take(&mut socket.readable, count));
        self.stats.received_bytes += count as u64;
        self.post(at.shard, Completion::Received { slot, buf });
    }

    fn on_send(&mut self, at: SlotRef) {
        if self.occupant(at).is_none() {
            return;
        }
        self.report_sent(at);
        let short = self.rng.chance(self.plan.short_send_ppm);
        let late = self.rng.chance(self.plan.late_sent_ppm);
        let Some(state) = self.shards[usize::from(at.shard)].as_mut() else { return };
        let Some(entry) = state.slots.entry(at.slot) else { return };
        let Some(send) = entry.send.as_mut() else { return };
        let id = entry.socket;
        let socket = &mut self.sockets[id.0 as usize];
        if let Some(error) = socket.error {
            let batch = entry.take_batch();
            return self.post(at.shard, Completion::SendFailed { slot: at.slot, error, batch });
        }
        let room = self.plan.send_buffer_len.saturating_sub(socket.unacked.len());
        let mut count = room.min(send.len - send.written);
        if count == 0 {
            self.stats.blocked_sends += 1;
            return;
        }
        if short && count > 1 {
            count = 1 + self.rng.index(count - 1);
            self.stats.short_sends += 1;
        }
        // A connection that was cut swallows what is sent until the reset arrives.
        if socket.cut {
            send.written += count;
        } else {
            send.copy_next(count, &mut socket.unacked);
        }
        send.unreported = count;
        self.stats.sent_bytes += count as u64;
        self.travel(Event::Pull(id));
        if late {
            self.stats.late_sents += 1;
            let delay = self.rng.range(&self.plan.network_us) * 3;
            return self.schedule(delay, Event::Send(at));
        }
        self.report_sent(at);
    }

    /// Tells the shard what is in the socket, and goes on with the rest.
    fn report_sent(&mut self, at: SlotRef) {
        let Some(state) = self.shard(at.shard, at.life) else { return };
        let Some(entry) = state.entry(at.slot) else { return };
        let Some(send) = entry.send.as_mut().filter(|send| send.unreported > 0) else { return };
        let bytes = std::mem::take(&mut send.unreported);
        let done = send.written == send.len;
        let batch = done.then(|| entry.take_batch());
        self.post(at.shard, Completion::Sent { slot: at.slot, bytes, batch });
        if !done {
            self.complete_later(Event::Send(at));
        }
    }

    fn on_unsent(&mut self, at: SlotRef) {
        let Some(id) = self.occupant(at) else { return };
        let unacked = self.socket(id).unacked.len() as u32;
        let Some(state) = self.shard(at.shard, at.life) else { return };
        let Some(entry) = state.entry(at.slot).filter(|entry| entry.asking) else { return };
        entry.asking = false;
        let known = self.socket(id).error.is_none();
        let bytes = known.then_some(unacked);
        self.post(at.shard, Completion::Unsent { slot: at.slot, bytes });
    }

    fn on_close(&mut self, at: SlotRef) {
        let Some(id) = self.occupant(at) else { return };
        let (slot, error) = (at.slot, Errno(libc::ECANCELED));
        // The bytes that are out are reported before the send is cancelled.
        self.report_sent(at);
        let tells = self.rng.chance(500_000);
        let Some(state) = self.shard(at.shard, at.life) else { return };
        let Some(entry) = state.entry(slot) else { return };
        let (receiving, asking) = (entry.receiving, entry.asking);
        let batch = entry.send.is_some().then(|| entry.take_batch());
        if receiving && tells {
            self.post(at.shard, Completion::ReceiveEnded { slot, error: Some(error) });
        }
        if let Some(batch) = batch {
            self.post(at.shard, Completion::SendFailed { slot, error, batch });
        }
        if asking && tells {
            self.post(at.shard, Completion::Unsent { slot, bytes: None });
        }
        self.post(at.shard, Completion::Closed { slot });
        if let Some(state) = self.shard(at.shard, at.life) {
            state.slots.free(slot);
        }
        let socket = self.socket(id);
        socket.owner = Owner::Gone;
        socket.fin_sent = true;
        let unread = !socket.readable.is_empty();
        self.travel(Event::Pull(id));
        if unread {
            // Closing with bytes unread resets the connection, and what was sent may be lost.
            self.travel(Event::ClientReset(id));
        }
    }

    fn on_hand_over(&mut self, from: SlotRef) {
        let Some(id) = self.occupant(from) else { return };
        let fails = self.rng.chance(self.plan.hand_over_fails_ppm);
        let Some(entry) = self.shard(from.shard, from.life).and_then(|s| s.entry(from.slot)) else {
            return;
        };
        let SlotState::HandingOver { to, token } = entry.state else { return };
        let target = self.shards.get_mut(usize::from(to)).and_then(Option::as_mut);
        let at = target.filter(|_| !fails).and_then(|target| target.occupy(id));
        let result = match at {
            Some(at) => {
                self.stats.handed_over += 1;
                self.socket(id).owner = Owner::Slot(at);
                self.complete_later(Event::HandedIn { at, token });
                Ok(())
            }
            None => {
                self.stats.hand_overs_failed += 1;
                Err(Errno(libc::ENFILE))
            }
        };
        self.complete_later(Event::HandedOver { from, result });
    }

    fn on_handed_in(&mut self, at: SlotRef, token: u64) {
        if self.occupant(at).is_some() {
            self.post(at.shard, Completion::HandedIn { slot: at.slot, token });
        }
    }

    fn on_handed_over(&mut self, from: SlotRef, result: Result<(), Errno>) {
        let slot = from.slot;
        let Some(state) = self.shard(from.shard, from.life) else { return };
        match result {
            Ok(()) => state.slots.free(slot),
            Err(_) => {
                if let Some(entry) = state.entry(slot) {
                    entry.state = SlotState::Live;
                }
            }
        }
        self.post(from.shard, Completion::HandedOver { slot, result });
    }

    fn wake_receive(&mut self, id: ClientId) {
        let Owner::Slot(at) = self.socket(id).owner else { return };
        let entry = self.shard(at.shard, at.life).and_then(|state| state.entry(at.slot));
        if entry.is_some_and(|entry| entry.receiving) {
            self.complete_later(Event::Receive(at));
        }
    }

    fn wake_send(&mut self, id: ClientId) {
        let Owner::Slot(at) = self.socket(id).owner else { return };
        let entry = self.shard(at.shard, at.life).and_then(|state| state.entry(at.slot));
        if entry.is_some_and(|entry| entry.send.is_some()) {
            self.complete_later(Event::Send(at));
        }
    }

    /// Wakes a shard after the delay of a doorbell; one that is not running hears nothing.
    pub(super) fn ring(&mut self, shard: ShardIndex) {
        let state = self.shards.get(usize::from(shard)).and_then(Option::as_ref);
        if let Some(life) = state.map(|state| state.life) {
            self.complete_later(Event::Doorbell { shard, life });
        }
    }

    /// The receives that wait for a buffer try again; whoever is first gets it.
    pub(super) fn feed_starved(&mut self, shard: ShardIndex, life: u32) {
        let Some(state) = self.shard(shard, life) else { return };
        for slot in std::mem::take(&mut state.starved) {
            let Some(entry) = self.shard(shard, life).and_then(|state| state.entry(slot)) else {
                continue;
            };
            entry.starved = false;
            self.complete_later(Event::Receive(SlotRef { shard, life, slot }));
        }
    }

    fn post(&mut self, shard: ShardIndex, completion: Completion<super::SimBuf>) {
        let (what, slot, amount) = describe(&completion);
        self.note(what, shard, slot, amount);
        if let Some(state) = self.shards[usize::from(shard)].as_mut() {
            state.completions.push_back(completion);
        }
    }

    /// The shard that a new connection comes to, of those that are up: as SO_REUSEPORT does.
    pub(super) fn pick_shard(&mut self, listener: ListenerIndex) -> ShardIndex {
        let up: Vec<_> = (0..self.shards.len() as ShardIndex)
            .filter(|&index| {
                let state = self.shards[usize::from(index)].as_ref();
                state.is_some_and(|state| listener < state.listeners)
            })
            .collect();
        if up.is_empty() { ShardIndex::MAX } else { *self.rng.pick(&up) }
    }
}

/// Name, slot index and amount for the trace.
fn describe(completion: &Completion<super::SimBuf>) -> (&'static str, u32, usize) {
    match completion {
        Completion::Accepted { slot, .. } => ("accepted", slot.index, 0),
        Completion::AcceptFailed { .. } => ("accept failed", 0, 0),
        Completion::HandedIn { slot, .. } => ("handed in", slot.index, 0),
        Completion::Received { slot, buf } => ("received", slot.index, buf.len()),
        Completion::ReceiveEnded { slot, .. } => ("receive ended", slot.index, 0),
        Completion::Sent { slot, bytes, .. } => ("sent", slot.index, *bytes),
        Completion::SendFailed { slot, .. } => ("send failed", slot.index, 0),
        Completion::Unsent { slot, .. } => ("unsent", slot.index, 0),
        Completion::HandedOver { slot, result: Ok(()) } => ("handed over", slot.index, 0),
        Completion::HandedOver { slot, result: Err(_) } => ("hand-over failed", slot.index, 0),
        Completion::Closed { slot } => ("closed", slot.index, 0),
        Completion::Dialed { token, .. } => ("dialed", *token as u32, 0),
    }
}

#[derive(Clone, Copy, Debug)]
struct Scheduled {
    at: u64,
    /// Ties are broken by the order of scheduling.
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
