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
use crate::client::{Arrival, Client, Event, Target};
use crate::engine::{Engine, Handler, Port};
use crate::measure::Measures;
use crate::pace::Pace;
use crate::phase::{Phase, Step, Who};
use crate::worker::{Interval, Outcome, Part};
use flight::Sender;
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
    measures: Measures,
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
            measures: Measures::new(),
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
                let Some(due_ns) = sender.late.pop_front() else { return };
                if port.now_ns.saturating_sub(due_ns) > self.shape.late_max_ns {
                    self.tally.unsent += 1;
                    self.measures.given_up(due_ns, port.now_ns);
                    continue;
                }
                due_ns
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
            self.measures.turned(due_ns, engine.clock.now_ns());
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
        self.measures.acked(sent_ns, now_ns);
        over
    }

    /// A message arrived at `conn`.
    fn delivered(&mut self, conn: usize, arrival: &Arrival<'_>, now_ns: u64) {
        let Some(stamp) = Stamp::read(&arrival.payload) else {
            self.tally.corrupted += 1;
            return;
        };
        if stamp.run != self.setup.run {
            // Of another run: stored before this one, or of somebody else's users.
            match self.is_addressee(conn, stamp.to) {
                true => self.tally.stale += 1,
                false => self.tally.misdelivered += 1,
            }
            return;
        }
        let has_length = arrival.payload.len() == self.payload.len();
        if !has_length || !arrival.agrees_with(stamp.from, stamp.seq) {
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
        let group = match sender.to {
            Target::User(_) => None,
            Target::Group(group) => Some(group),
        };
        let is_labelled = arrival.label.is_none_or(|label| label == group);
        if !is_labelled || (stamp.from, stamp.to) != (sender.user, sender.to.number()) {
            self.tally.misdelivered += 1;
            return;
        }
        self.measures.arrived(stamp.sent_ns, now_ns);
        if !stream.arrived(stamp.seq, &mut self.tally) {
            return;
        }
        self.arrived += 1;
        if self.shape.await_arrival && sender.was_delivered(stamp.slot, stamp.seq) {
            self.wake.push(from);
        }
    }

    /// The connection's user is the user `to`, or a member of that group.
    fn is_addressee(&self, conn: usize, to: u32) -> bool {
        let group = 1 + self.shape.receivers;
        let Conversation { from, to: target, first_receiver } = self.conversations[conn / group];
        let user = match conn % group {
            0 => from,
            nth => first_receiver + nth as u32 - 1,
        };
        to == user || target == Target::Group(to)
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
            Event::Delivered(arrival) => self.delivered(conn, &arrival, port.now_ns),
            Event::Ready => {
                self.ramp.logged_in(conn);
                self.measures.logged_in(port.dialled_ns, port.now_ns);
            }
            Event::Nothing | Event::Pinged => {}
        }
    }
}

impl<C: Client> Part<C> for Traffic {
    fn enter(&mut self, phase: &Phase, engine: &mut Engine<C>) -> Result<(), Abort> {
        let now_ns = engine.clock.now_ns();
        self.measures.enter(phase, now_ns);
        self.step = phase.step.clone();
        self.ramp.leaving = phase.step == Step::Leave;
        let group = 1 + self.shape.receivers;
        match phase.step {
            Step::LogIn(Who::Senders) => {
                self.ramp.add((0..self.ramp.len()).step_by(group), now_ns);
            }
            Step::LogIn(_) | Step::Fetch => {
                self.ramp.add(0..self.ramp.len(), now_ns);
            }
            Step::Load { rate_per_s: None } => {
                self.pace = None;
                for conn in (0..self.ramp.len()).step_by(group) {
                    engine.with(conn, |port| self.pump(conn, port));
                }
            }
            Step::Load { rate_per_s: Some(rate) } => {
                let mut pace = Pace::new(rate * self.share);
                pace.start(now_ns);
                self.pace = Some(pace);
            }
            Step::Drain { .. } => self.give_up_late(now_ns),
            Step::Leave => (0..self.ramp.len()).for_each(|conn| engine.leave(conn)),
            Step::Hold | Step::Probe | Step::Outage | Step::Cycle => {}
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
            Step::Leave => self.ramp.online() == 0,
            _ => true,
        }
    }

    fn counts(&self) -> Counts {
        let Tally { sent, acked, delivered, .. } = self.tally;
        let due = sent * self.shape.receivers as u64;
        Counts { sent, acked, delivered, due, arrived: self.arrived, ..Counts::default() }
    }

    fn interval(&mut self) -> Interval {
        self.measures.take_interval()
    }

    fn conclude(mut self, engine: &mut Engine<C>) -> Outcome {
        self.measures.end(engine.clock.now_ns());
        self.count_missing();
        Outcome { tally: self.tally, measured: self.measures.conclude(), ..Outcome::default() }
    }
}

impl Traffic {
    /// The schedule is over: what it could not send is not sent any more.
    fn give_up_late(&mut self, now_ns: u64) {
        for role in &mut self.roles {
            if let Role::Sender(sender) = role {
                self.tally.unsent += sender.late.len() as u64;
                sender.late.drain(..).for_each(|due_ns| self.measures.given_up(due_ns, now_ns));
            }
        }
    }
}

#[cfg(test)]
mod tests;
