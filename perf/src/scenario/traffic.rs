//! Messages along fixed conversations: `pairs`, `fanout` and `offline`.
//!
//! Owns: who sends what to whom, and the check of every arrival. In a closed loop each sender has
//! a number of messages in flight. A place in flight is free again when the server has acknowledged
//! the message; in `fanout` (and without acknowledgements) also everybody must have it, so that the
//! senders cannot outrun the receivers. In an open loop messages are due on a schedule, whatever
//! became of the ones before, and their latency counts from that moment.

mod flight;
mod plan;

pub(crate) use plan::{Conversation, Placement, Profile, fanout, offline, pairs, phases};

use super::ramp::Ramp;
use super::{Abort, Setup};
use crate::board::Counts;
use crate::check::{Stamp, Stream, Tally};
use crate::client::{Client, Event};
use crate::engine::{Engine, Handler, Port, histogram};
use crate::pace::Pace;
use crate::phase::{Phase, Step, Who};
use crate::worker::{Histograms, Interval, Outcome, Part};
use flight::Sender;
use hdrhistogram::Histogram;
use std::mem;

/// The shape of the load, the same for all conversations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Receivers of each sender.
    pub receivers: usize,
    /// Messages in flight per sender.
    pub depth: u16,
    /// Payload bytes.
    pub payload: usize,
    /// A place in flight waits for the receivers, too.
    pub await_arrival: bool,
    /// Scheduled messages that could not be sent for so long are given up.
    pub late_max_ns: u64,
}

#[derive(Debug)]
enum Role {
    Sender(Sender),
    Receiver(Stream),
}

/// One worker's conversations.
#[derive(Debug)]
pub(crate) struct Traffic {
    setup: Setup,
    shape: Shape,
    conversations: Vec<Conversation>,
    /// This worker's part of the run.
    share: f64,
    ramp: Ramp,
    /// By connection: each sender is followed by his receivers.
    roles: Vec<Role>,
    payload: Vec<u8>,
    step: Step,
    /// The schedule of an open loop, and the conversation that is next.
    pace: Option<Pace>,
    next: usize,
    /// Senders with a place in flight that a receiver made free.
    wake: Vec<usize>,
    /// First arrivals.
    arrived: u64,
    tally: Tally,
    latency_ns: Histogram<u64>,
    ack_ns: Histogram<u64>,
    interval: Interval,
}

impl Traffic {
    pub(crate) fn new(
        setup: &Setup,
        shape: Shape,
        conversations: Vec<Conversation>,
        share: f64,
    ) -> Self {
        let group = 1 + shape.receivers;
        let role = |conn: usize| match conn % group {
            0 => {
                let Conversation { from, to, .. } = conversations[conn / group];
                Role::Sender(Sender::new(from, to, shape.depth))
            }
            _ => Role::Receiver(Stream::default()),
        };
        let connections = conversations.len() * group;
        Self {
            setup: setup.clone(),
            shape,
            share,
            ramp: Ramp::new(setup, connections, share),
            roles: (0..connections).map(role).collect(),
            conversations,
            payload: vec![0; shape.payload],
            step: Step::Hold,
            pace: None,
            next: 0,
            wake: Vec::new(),
            arrived: 0,
            tally: Tally::default(),
            latency_ns: histogram(),
            ack_ns: histogram(),
            interval: Interval::new(),
        }
    }

    fn sender_of(&self, conn: usize) -> usize {
        conn - conn % (1 + self.shape.receivers)
    }

    fn sending(&self) -> bool {
        matches!(self.step, Step::Load { .. })
    }

    /// Sends what the sender `conn` has room for: waiting scheduled messages, or in a closed loop
    /// one for every free place in flight.
    fn pump<C: Client>(&mut self, conn: usize, port: &mut Port<'_, C>) {
        let closed_loop = self.pace.is_none();
        let Role::Sender(sender) = &mut self.roles[conn] else { return };
        while matches!(self.step, Step::Load { .. }) && sender.has_room() {
            let sent_ns = if closed_loop {
                port.now_ns
            } else {
                match sender.next_late(port.now_ns, self.shape.late_max_ns, &mut self.tally) {
                    Some(due_ns) => due_ns,
                    None => return,
                }
            };
            let due = if self.shape.await_arrival { self.shape.receivers as u32 } else { 0 };
            let (slot, seq) = sender.take_off(sent_ns, self.setup.acked, due);
            let (from, to) = (sender.user, sender.to);
            Stamp { run: self.setup.run, from, to: to.number(), slot, seq, sent_ns }
                .write(&mut self.payload);
            port.publish(to, slot, seq, &self.payload);
            self.tally.sent += 1;
        }
    }

    /// Queues what the schedule says is due, sender by sender.
    fn send_due<C: Client>(&mut self, engine: &mut Engine<C>) {
        let now_ns = engine.clock.now_ns();
        while let Some(due_ns) = self.pace.as_mut().and_then(|pace| pace.next_due(now_ns)) {
            let conn = self.next * (1 + self.shape.receivers);
            self.next = (self.next + 1) % self.conversations.len();
            if let Role::Sender(sender) = &mut self.roles[conn] {
                sender.late.push_back(due_ns);
            }
            engine.with(conn, |port| self.pump(conn, port));
        }
    }

    /// The server has a message of the sender `conn`. True if that made a place free.
    fn acked(&mut self, conn: usize, slot: u16, seq: Option<u64>, now_ns: u64) -> bool {
        let Role::Sender(sender) = &mut self.roles[conn] else {
            self.tally.bad_acks += 1;
            return false;
        };
        let Some((sent_ns, over)) = sender.acked(slot, seq) else {
            self.tally.bad_acks += 1;
            return false;
        };
        self.tally.acked += 1;
        let took_ns = now_ns.saturating_sub(sent_ns);
        self.ack_ns.saturating_record(took_ns);
        self.interval.ack.saturating_record(took_ns);
        over
    }

    /// A message arrived at `conn`.
    fn delivered(&mut self, conn: usize, payload: &[u8], id: Option<(u32, u64)>, now_ns: u64) {
        let Some(stamp) = Stamp::read(payload) else {
            self.tally.corrupted += 1;
            return;
        };
        if stamp.run != self.setup.run {
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
        let took_ns = now_ns.saturating_sub(stamp.sent_ns);
        self.latency_ns.saturating_record(took_ns);
        self.interval.latency.saturating_record(took_ns);
        if !stream.arrived(stamp.seq, &mut self.tally) {
            return;
        }
        self.arrived += 1;
        if self.shape.await_arrival && sender.was_delivered(stamp.slot, stamp.seq) {
            self.wake.push(from);
        }
    }

    fn all_acked(&self) -> bool {
        !self.setup.acked || self.tally.acked == self.tally.sent
    }

    fn count_missing(&mut self) {
        if self.setup.acked {
            self.tally.unacked = self.tally.sent - self.tally.acked;
        }
        let mut sent = 0;
        for role in &self.roles {
            match role {
                Role::Sender(sender) => sent = sender.sent(),
                Role::Receiver(stream) => self.tally.lost += stream.missing(sent),
            }
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
            Event::Ready => self.ramp.logged_in(conn),
            Event::Nothing | Event::Pinged => {}
        }
    }
}

impl<C: Client> Part<C> for Traffic {
    fn enter(&mut self, phase: &Phase, engine: &mut Engine<C>) -> Result<(), Abort> {
        if phase.measured.is_some() {
            self.latency_ns.reset();
            self.ack_ns.reset();
            engine.login_ns.reset();
        }
        self.step = phase.step.clone();
        let group = 1 + self.shape.receivers;
        match phase.step {
            Step::LogIn(Who::Senders) => {
                self.ramp.add((0..self.ramp.len()).step_by(group), engine.clock.now_ns());
            }
            Step::LogIn(_) | Step::Fetch => {
                self.ramp.add(0..self.ramp.len(), engine.clock.now_ns());
            }
            Step::Load { rate_per_s: None } => {
                self.pace = None;
                for conn in (0..self.ramp.len()).step_by(group) {
                    engine.with(conn, |port| self.pump(conn, port));
                }
            }
            Step::Load { rate_per_s: Some(rate) } => {
                let mut pace = Pace::new(rate * self.share);
                pace.start(engine.clock.now_ns());
                self.pace = Some(pace);
            }
            Step::Drain { .. } => self.give_up_late(),
            Step::Hold | Step::Leave | Step::Outage | Step::Cycle => {}
        }
        Ok(())
    }

    fn turn(&mut self, engine: &mut Engine<C>) -> Result<u64, Abort> {
        let Self { setup, conversations, ramp, shape, .. } = self;
        let next_ns = ramp.turn(
            engine,
            |conn| plan::login(setup, &conversations[conn / (1 + shape.receivers)], conn, shape),
            |_| {},
        )?;
        if !self.sending() {
            return Ok(next_ns);
        }
        self.send_due(engine);
        for conn in mem::take(&mut self.wake) {
            engine.with(conn, |port| self.pump(conn, port));
        }
        Ok(next_ns.min(self.pace.as_ref().map_or(u64::MAX, Pace::due_ns)))
    }

    fn reached(&self, _engine: &Engine<C>) -> bool {
        match self.step {
            Step::LogIn(_) | Step::Fetch => self.ramp.is_done(),
            Step::Drain { .. } => self.all_acked(),
            _ => true,
        }
    }

    fn counts(&self) -> Counts {
        let Tally { sent, acked, delivered, .. } = self.tally;
        let due = sent * self.shape.receivers as u64;
        Counts { sent, acked, delivered, due, arrived: self.arrived, ..Counts::default() }
    }

    fn interval(&mut self) -> Interval {
        mem::replace(&mut self.interval, Interval::new())
    }

    fn histograms(&self, engine: &Engine<C>) -> Histograms {
        [
            ("latency", self.latency_ns.clone()),
            ("ack", self.ack_ns.clone()),
            ("login", engine.login_ns.clone()),
        ]
        .into()
    }

    fn conclude(mut self) -> Outcome {
        self.count_missing();
        Outcome { tally: self.tally, ..Outcome::default() }
    }
}

impl Traffic {
    /// The schedule is over: what it could not send is not sent any more.
    fn give_up_late(&mut self) {
        for role in &mut self.roles {
            if let Role::Sender(sender) = role {
                self.tally.unsent += sender.late.len() as u64;
                sender.late.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests;
