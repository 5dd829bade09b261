//! Messages between logged-in users, a fixed number in flight per sender: `pairs` and `fanout`.
//!
//! Owns: who sends what to whom, and the check of every arrival. A place in flight is free again
//! when the server has acknowledged the message; in `fanout` (and without acknowledgements) also
//! everybody must have it, so that the senders cannot outrun the receivers.

use super::{Abort, Meter, SECOND, Setup, TURN, Watch, none_closed, ramp, turn_until};
use crate::check::{Stamp, Stream, Tally};
use crate::client::{Client, Event, Target};
use crate::engine::{Engine, Handler, Port, histogram};
use crate::report::Report;
use hdrhistogram::Histogram;

/// The shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub senders: usize,
    /// Receivers of each sender.
    pub receivers: usize,
    /// The group to send to; `None` sends to the one receiver.
    pub group: Option<u32>,
    /// Messages in flight per sender.
    pub depth: u16,
    /// Payload bytes.
    pub payload: usize,
    /// The server acknowledges publishes.
    pub acked: bool,
}

/// Runs the load and fills in the report, as far as it came.
pub(crate) fn run<C: Client>(
    setup: &Setup,
    shape: Shape,
    engine: &mut Engine<C>,
    report: &mut Report,
) -> Result<(), Abort> {
    let connections = shape.senders * (1 + shape.receivers);
    setup.check(connections)?;
    let mut traffic = Traffic::new(setup, shape);
    let outcome = phases(setup, shape, engine, &mut traffic, report);
    if outcome.is_ok() {
        traffic.count_missing();
    } else {
        let under_way = traffic.tally.sent * shape.receivers as u64 - traffic.arrived;
        report.notes.push(format!("{under_way} deliveries were under way when the run ended"));
    }
    report.tally = traffic.tally;
    outcome
}

fn phases<C: Client>(
    setup: &Setup,
    shape: Shape,
    engine: &mut Engine<C>,
    traffic: &mut Traffic,
    report: &mut Report,
) -> Result<(), Abort> {
    let connections = shape.senders * (1 + shape.receivers);
    ramp(engine, traffic, 0..connections, setup, |index| {
        // The sender of a group is a member, and gets no echo; where membership is a
        // subscription, he has none.
        let group = shape.group.filter(|_| !index.is_multiple_of(1 + shape.receivers));
        setup.login(index, group)
    })?;
    for conn in (0..connections).step_by(1 + shape.receivers) {
        engine.with(conn, |port| traffic.pump(conn, port));
    }
    let warm_ns = engine.clock.now_ns() + setup.warm_up.as_nanos() as u64;
    load_until(setup, engine, traffic, warm_ns)?;
    traffic.latency_ns.reset();
    traffic.ack_ns.reset();
    let meter = Meter::start(setup, engine.clock.now_ns(), traffic.tally.delivered)?;
    let end_ns = engine.clock.now_ns() + setup.duration.as_nanos() as u64;
    let loaded = load_until(setup, engine, traffic, end_ns);
    report.percentiles("latency", &traffic.latency_ns);
    report.percentiles("ack", &traffic.ack_ns);
    report.percentiles("login", &engine.login_ns);
    let metered = meter.stop(engine.clock.now_ns(), traffic.tally.delivered, report);
    loaded?;
    metered?;
    drain(setup, engine, traffic)
}

/// Keeps the load up until `end_ns`.
fn load_until<C: Client>(
    setup: &Setup,
    engine: &mut Engine<C>,
    traffic: &mut Traffic,
    end_ns: u64,
) -> Result<(), Abort> {
    let delivered = traffic.tally.delivered;
    let mut watch = Watch::new(setup, "deliveries", delivered, engine.clock.now_ns());
    loop {
        let now_ns = engine.clock.now_ns();
        if now_ns >= end_ns {
            return Ok(());
        }
        engine.turn(traffic, TURN)?;
        none_closed(engine)?;
        while let Some(conn) = traffic.wake.pop() {
            engine.with(conn, |port| traffic.pump(conn, port));
        }
        watch.check(traffic.tally.delivered, now_ns)?;
    }
}

/// Sends no more and waits for what is under way; what does not come is counted by the caller.
fn drain<C: Client>(
    setup: &Setup,
    engine: &mut Engine<C>,
    traffic: &mut Traffic,
) -> Result<(), Abort> {
    traffic.sending = false;
    let give_up_ns = engine.clock.now_ns() + setup.patience.as_nanos() as u64;
    while !traffic.is_complete() && engine.clock.now_ns() < give_up_ns {
        engine.turn(traffic, TURN)?;
        none_closed(engine)?;
    }
    // A moment longer for what should not come: duplicates.
    let end_ns = engine.clock.now_ns() + SECOND / 4;
    turn_until(engine, traffic, end_ns)
}

/// A message under way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    seq: u64,
    sent_ns: u64,
    ack_due: bool,
    deliveries_due: u32,
}

impl Flight {
    fn is_over(&self) -> bool {
        !self.ack_due && self.deliveries_due == 0
    }
}

#[derive(Debug)]
struct Sender {
    user: u32,
    to: Target,
    next_seq: u64,
    flights: Box<[Option<Flight>]>,
    free: Vec<u16>,
}

#[derive(Debug)]
enum Role {
    Sender(Sender),
    Receiver(Stream),
}

#[derive(Debug)]
struct Traffic {
    run: u32,
    /// By connection: each sender is followed by his receivers.
    roles: Vec<Role>,
    receivers: u64,
    acked: bool,
    /// What a new flight waits for.
    deliveries_due: u32,
    payload: Vec<u8>,
    sending: bool,
    /// Senders with a place in flight that a receiver made free.
    wake: Vec<usize>,
    /// First arrivals.
    arrived: u64,
    tally: Tally,
    latency_ns: Histogram<u64>,
    ack_ns: Histogram<u64>,
}

impl Traffic {
    fn new(setup: &Setup, shape: Shape) -> Self {
        let block = 1 + shape.receivers;
        let role = |conn: usize| {
            if !conn.is_multiple_of(block) {
                return Role::Receiver(Stream::default());
            }
            let user = setup.login(conn, None).user;
            Role::Sender(Sender {
                user,
                to: shape.group.map_or(Target::User(user + 1), Target::Group),
                next_seq: 0,
                flights: vec![None; usize::from(shape.depth)].into_boxed_slice(),
                free: (0..shape.depth).collect(),
            })
        };
        let waits_for_all = shape.group.is_some() || !shape.acked;
        Self {
            run: setup.run,
            roles: (0..shape.senders * block).map(role).collect(),
            receivers: shape.receivers as u64,
            acked: shape.acked,
            deliveries_due: if waits_for_all { shape.receivers as u32 } else { 0 },
            payload: vec![0; shape.payload],
            sending: true,
            wake: Vec::new(),
            arrived: 0,
            tally: Tally::default(),
            latency_ns: histogram(),
            ack_ns: histogram(),
        }
    }

    /// Each sender is followed by his receivers.
    fn sender_of(&self, conn: usize) -> usize {
        conn - conn % (1 + self.receivers as usize)
    }

    /// Fills every free place in flight of the sender `conn`.
    fn pump<C: Client>(&mut self, conn: usize, port: &mut Port<'_, C>) {
        let Role::Sender(sender) = &mut self.roles[conn] else {
            return;
        };
        while self.sending
            && let Some(slot) = sender.free.pop()
        {
            let (seq, sent_ns) = (sender.next_seq, port.now_ns);
            let (from, to) = (sender.user, sender.to.number());
            Stamp { run: self.run, from, to, slot, seq, sent_ns }.write(&mut self.payload);
            port.publish(sender.to, slot, seq, &self.payload);
            sender.next_seq += 1;
            sender.flights[usize::from(slot)] = Some(Flight {
                seq,
                sent_ns,
                ack_due: self.acked,
                deliveries_due: self.deliveries_due,
            });
            self.tally.sent += 1;
        }
    }

    /// The server has a message of the sender `conn`. True if that made a place free.
    fn acked(&mut self, conn: usize, slot: u16, seq: Option<u64>, now_ns: u64) -> bool {
        let Role::Sender(sender) = &mut self.roles[conn] else {
            self.tally.bad_acks += 1;
            return false;
        };
        let place = sender.flights.get_mut(usize::from(slot));
        match place {
            Some(Some(flight)) if flight.ack_due && seq.is_none_or(|seq| seq == flight.seq) => {
                flight.ack_due = false;
                self.tally.acked += 1;
                self.ack_ns.saturating_record(now_ns - flight.sent_ns);
                sender.settle(slot)
            }
            _ => {
                self.tally.bad_acks += 1;
                false
            }
        }
    }

    /// A message arrived at `conn`.
    fn delivered(&mut self, conn: usize, payload: &[u8], id: Option<(u32, u64)>, now_ns: u64) {
        let Some(stamp) = Stamp::read(payload) else {
            self.tally.corrupted += 1;
            return;
        };
        if stamp.run != self.run {
            self.tally.stale += 1;
            return;
        }
        if payload.len() != self.payload.len() || id.is_some_and(|id| id != (stamp.from, stamp.seq))
        {
            self.tally.corrupted += 1;
            return;
        }
        let from = self.sender_of(conn);
        let Ok([Role::Sender(sender), Role::Receiver(stream)]) =
            self.roles.get_disjoint_mut([from, conn])
        else {
            // A sender's connection: nobody sends to him.
            self.tally.misdelivered += 1;
            return;
        };
        if (stamp.from, stamp.to) != (sender.user, sender.to.number()) {
            self.tally.misdelivered += 1;
            return;
        }
        self.latency_ns.saturating_record(now_ns.saturating_sub(stamp.sent_ns));
        if !stream.arrived(stamp.seq, &mut self.tally) {
            return;
        }
        self.arrived += 1;
        if self.deliveries_due > 0 && sender.was_delivered(stamp.slot, stamp.seq) {
            self.wake.push(from);
        }
    }

    /// Everything sent was acknowledged and has arrived everywhere.
    fn is_complete(&self) -> bool {
        let acked = !self.acked || self.tally.acked == self.tally.sent;
        acked && self.arrived == self.tally.sent * self.receivers
    }

    fn count_missing(&mut self) {
        if self.acked {
            self.tally.unacked = self.tally.sent - self.tally.acked;
        }
        let mut sent = 0;
        for role in &self.roles {
            match role {
                Role::Sender(sender) => sent = sender.next_seq,
                Role::Receiver(stream) => self.tally.lost += stream.missing(sent),
            }
        }
    }
}

impl Sender {
    /// Frees the slot if its flight is over.
    fn settle(&mut self, slot: u16) -> bool {
        let place = &mut self.flights[usize::from(slot)];
        let over = place.is_some_and(|flight| flight.is_over());
        if over {
            *place = None;
            self.free.push(slot);
        }
        over
    }

    /// One more receiver has the message. True if that made a place free.
    fn was_delivered(&mut self, slot: u16, seq: u64) -> bool {
        match self.flights.get_mut(usize::from(slot)) {
            Some(Some(flight)) if flight.seq == seq => {
                flight.deliveries_due = flight.deliveries_due.saturating_sub(1);
                self.settle(slot)
            }
            _ => false,
        }
    }
}

impl<C: Client> Handler<C> for Traffic {
    fn on_event(&mut self, conn: usize, event: Event<'_>, port: &mut Port<'_, C>) {
        match event {
            Event::Acked { slot, seq } => {
                if self.acked(conn, slot, seq, port.now_ns) {
                    self.pump(conn, port);
                }
            }
            Event::Delivered { payload, id } => self.delivered(conn, &payload, id, port.now_ns),
            Event::Nothing | Event::Ready | Event::Pinged => {}
        }
    }
}

#[cfg(test)]
mod tests;
