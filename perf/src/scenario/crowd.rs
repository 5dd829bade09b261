//! Many users who are mostly just there: `idle`, `storm` and `mixed`.
//!
//! Owns: one worker's slice of the crowd: who is online, who writes to whom, who leaves and comes
//! back, and the proof that a crowd without messages is still alive at the server. Never: the
//! phases (`idle`, `storm` and `mixed` list them below and in `mixed.rs`).

use super::exchange::{Exchange, Group, Ready};
use super::ramp::Ramp;
use super::{Abort, Setup};
use crate::board::Counts;
use crate::check::MIN_PAYLOAD;
use crate::client::{Client, Event, Target};
use crate::engine::{Engine, Handler, Port};
use crate::measure::Measures;
use crate::pace::Pace;
use crate::phase::{Phase, Step, Until, Who};
use crate::worker::{Interval, Outcome, Part};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What the whole crowd does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub users: u32,
    pub streams: Vec<Stream>,
    pub groups: Arc<[Group]>,
    /// Users who leave per second while there is load; each comes back after [`AWAY`].
    pub churn_per_s: f64,
}

/// Messages at a rate, while there is load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stream {
    pub kind: Kind,
    pub rate_per_s: f64,
    pub payload: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Between any two users.
    Direct,
    /// From any member to his group.
    Group(Group),
}

/// One worker's slice.
#[derive(Debug)]
pub(crate) struct Crowd {
    setup: Setup,
    plan: Arc<Plan>,
    share: f64,
    /// The user of connection 0; the others follow.
    first: u32,
    ramp: Ramp,
    exchange: Exchange,
    /// By stream of the plan; a stream that no user here can send has none.
    paces: Vec<Option<Pace>>,
    churn: Option<Pace>,
    /// Who is away and when he comes back, in nanoseconds of the run; ascending.
    away: VecDeque<(u64, usize)>,
    step: Step,
    /// The next who writes a note to his neighbour.
    probing: usize,
    lost: usize,
    /// The server was made to go away: losing connections is no news.
    outage: bool,
    pings: u64,
    random: u64,
    measures: Measures,
}

impl Crowd {
    /// The users from `first` on, `count` of them.
    pub(crate) fn new(setup: &Setup, plan: Arc<Plan>, first: u32, count: usize) -> Self {
        let share = count as f64 / f64::from(plan.users);
        Self {
            share,
            first,
            ramp: Ramp::new(setup, count, share),
            exchange: Exchange::new(setup.run, plan.groups.clone()),
            paces: Vec::new(),
            churn: None,
            away: VecDeque::new(),
            step: Step::Hold,
            probing: 0,
            lost: 0,
            outage: false,
            pings: 0,
            random: u64::from(first) << 32 | u64::from(setup.run) | 1,
            measures: Measures::new(),
            setup: setup.clone(),
            plan,
        }
    }

    fn user(&self, conn: usize) -> u32 {
        self.first + conn as u32
    }

    fn start_load(&mut self, now_ns: u64) {
        let (first, end) = (self.first, self.first + self.ramp.len() as u32);
        let start = |rate: f64| {
            let mut pace = Pace::new(rate);
            pace.start(now_ns);
            pace
        };
        let pace = |stream: &Stream| {
            let here = match stream.kind {
                Kind::Direct => self.share,
                Kind::Group(group) => {
                    let (from, to) = (group.first_user, group.first_user + group.members);
                    let here = to.min(end).saturating_sub(from.max(first));
                    f64::from(here) / f64::from(group.members)
                }
            };
            (here > 0.0 && stream.rate_per_s > 0.0).then(|| start(stream.rate_per_s * here))
        };
        self.paces = self.plan.streams.iter().map(pace).collect();
        let churn = self.plan.churn_per_s * self.share;
        self.churn = (churn > 0.0).then(|| start(churn));
    }

    fn end_load(&mut self) {
        self.paces.clear();
        self.churn = None;
    }

    fn send_due<C: Client>(&mut self, engine: &mut Engine<C>) {
        let now_ns = engine.clock.now_ns();
        for index in 0..self.paces.len() {
            let stream = self.plan.streams[index];
            while let Some(due_ns) =
                self.paces[index].as_mut().and_then(|pace| pace.next_due(now_ns))
            {
                self.measures.turned(due_ns, engine.clock.now_ns());
                self.send(stream, due_ns, engine);
            }
        }
    }

    /// Sends one message from somebody who is online and has room for it.
    fn send<C: Client>(&mut self, stream: Stream, due_ns: u64, engine: &mut Engine<C>) {
        for _ in 0..TRIES {
            let (conn, to) = match stream.kind {
                Kind::Direct => (self.random_conn(), self.random_user()),
                Kind::Group(group) => (self.random_member(group), Target::Group(group.id)),
            };
            let from = self.user(conn);
            if !self.ramp.is_online(conn) || to == Target::User(from) {
                continue;
            }
            let Some(ready) = self.exchange.prepare(from, to, stream.payload, due_ns) else {
                continue;
            };
            let Ready { slot, seq } = ready;
            let payload = self.exchange.payload();
            engine.with(conn, |port| port.publish(to, slot, seq, payload));
            if !self.setup.acked {
                self.exchange.forget(from, slot);
            }
            return;
        }
        self.exchange.tally.unsent += 1;
    }

    /// Sends the notes that there is room for. One of them fails with either of its two sessions.
    fn probe_due<C: Client>(&mut self, engine: &mut Engine<C>) {
        while self.probing < self.ramp.len() && self.exchange.under_way() < PROBES {
            let conn = self.probing;
            let from = self.user(conn);
            let to = Target::User(self.neighbour(from));
            let now_ns = engine.clock.now_ns();
            let Some(Ready { slot, seq }) = self.exchange.prepare(from, to, MIN_PAYLOAD, now_ns)
            else {
                return;
            };
            let payload = self.exchange.payload();
            // Whoever is not connected is missed, and so is his note.
            engine.with(conn, |port| port.publish(to, slot, seq, payload));
            if !self.setup.acked {
                self.exchange.forget(from, slot);
            }
            self.probing += 1;
        }
    }

    /// The other of a pair; of an odd number the last one writes to the one before.
    fn neighbour(&self, user: u32) -> u32 {
        let (first, users) = (self.setup.first_user, self.plan.users);
        match (user - first) ^ 1 {
            other if other < users => first + other,
            _ => user.saturating_sub(1).max(first),
        }
    }

    /// Has somebody without messages under way leave for a while.
    fn churn_due<C: Client>(&mut self, engine: &mut Engine<C>) {
        let now_ns = engine.clock.now_ns();
        while self.churn.as_mut().is_some_and(|churn| churn.next_due(now_ns).is_some()) {
            let conn = self.random_conn();
            if self.ramp.is_online(conn) && self.exchange.is_quiet(self.user(conn)) {
                self.ramp.leave(conn);
                engine.with(conn, |port| port.close());
                self.away.push_back((now_ns + AWAY.as_nanos() as u64, conn));
            }
        }
        while let Some((_, conn)) = self.away.pop_front_if(|(back_ns, _)| *back_ns <= now_ns) {
            if self.ramp.is_offline(conn) {
                self.ramp.add([conn].into_iter(), now_ns);
            } else {
                // His connection is not closed yet.
                self.away.push_back((now_ns + AWAY.as_nanos() as u64, conn));
            }
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(below)) >> 64) as u64
    }

    fn random_conn(&mut self) -> usize {
        self.random(self.ramp.len() as u64) as usize
    }

    fn random_user(&mut self) -> Target {
        let users = u64::from(self.plan.users);
        Target::User(self.setup.first_user + self.random(users) as u32)
    }

    /// A member of `group` among the users of this worker.
    fn random_member(&mut self, group: Group) -> usize {
        let end = (self.first + self.ramp.len() as u32).min(group.first_user + group.members);
        let first = self.first.max(group.first_user);
        let user = first + self.random(u64::from(end - first)) as u32;
        (user - self.first) as usize
    }
}

impl<C: Client> Handler<C> for Crowd {
    fn on_event(&mut self, conn: usize, event: Event<'_>, port: &mut Port<'_, C>) {
        let user = self.user(conn);
        match event {
            Event::Ready => {
                self.ramp.logged_in(conn);
                self.measures.logged_in(port.dialled_ns, port.now_ns);
            }
            Event::Pinged => self.pings += 1,
            Event::Acked { slot, seq } => {
                if let Some(due_ns) = self.exchange.acked(user, slot, seq) {
                    self.measures.acked(due_ns, port.now_ns);
                }
            }
            Event::Delivered(arrival) => {
                if let Some(due_ns) = self.exchange.delivered(user, &arrival) {
                    self.measures.arrived(due_ns, port.now_ns);
                }
            }
            Event::Nothing => {}
        }
    }
}

impl<C: Client> Part<C> for Crowd {
    fn enter(&mut self, phase: &Phase, engine: &mut Engine<C>) -> Result<(), Abort> {
        let now_ns = engine.clock.now_ns();
        self.measures.enter(phase, now_ns);
        self.step = phase.step.clone();
        self.ramp.stubborn = phase.stubborn;
        self.ramp.leaving = phase.step == Step::Leave;
        self.lost = 0;
        self.outage |= phase.step == Step::Outage;
        match phase.step {
            Step::LogIn(who) => {
                let share = if let Who::Share(share) = who { share } else { 1.0 };
                let wanted = (self.ramp.len() as f64 * share).round() as usize;
                self.ramp.add(0..wanted, now_ns);
            }
            Step::Load { .. } if self.paces.is_empty() => self.start_load(now_ns),
            Step::Drain { .. } => {
                self.end_load();
                for (back_ns, _) in &mut self.away {
                    *back_ns = now_ns;
                }
            }
            Step::Leave => (0..self.ramp.len()).for_each(|conn| engine.leave(conn)),
            Step::Probe => self.probing = 0,
            _ => {}
        }
        Ok(())
    }

    fn turn(&mut self, engine: &mut Engine<C>) -> Result<u64, Abort> {
        let (setup, first) = (&self.setup, self.first);
        let groups = &self.plan.groups;
        let login = |conn: usize| {
            let user = first + conn as u32;
            setup.login(user, groups.iter().find(|group| group.has(user)).map(|group| group.id))
        };
        let lost = &mut self.lost;
        let next_ns = self.ramp.turn(engine, login, |_| *lost += 1)?;
        self.send_due(engine);
        if self.step == Step::Probe {
            self.probe_due(engine);
        }
        self.churn_due(engine);
        let paces = self.paces.iter().flatten().chain(&self.churn);
        let back_ns = self.away.front().map_or(u64::MAX, |(back_ns, _)| *back_ns);
        Ok(paces.map(Pace::due_ns).fold(next_ns.min(back_ns), u64::min))
    }

    fn reached(&self, _engine: &Engine<C>) -> bool {
        match self.step {
            Step::Drain { .. } => {
                self.exchange.all_acked() && self.away.is_empty() && self.ramp.is_done()
            }
            Step::Leave => self.ramp.online() == 0,
            Step::Probe => self.probing == self.ramp.len() && self.exchange.all_acked(),
            Step::Outage => self.lost >= self.ramp.len() && self.ramp.is_done(),
            _ => self.ramp.is_done(),
        }
    }

    fn counts(&self) -> Counts {
        let Exchange { due, arrived, ref tally, .. } = self.exchange;
        let (sent, acked, delivered) = (tally.sent, tally.acked, tally.delivered);
        Counts { sent, acked, delivered, due, arrived, pings: self.pings, ..Counts::default() }
    }

    fn interval(&mut self) -> Interval {
        self.measures.take_interval()
    }

    fn conclude(mut self, engine: &mut Engine<C>) -> Outcome {
        self.measures.end(engine.clock.now_ns());
        let (tally, ledger) = self.exchange.conclude();
        Outcome {
            tally,
            ledger,
            failed_logins: self.ramp.failed,
            lost_connections: if self.outage { 0 } else { self.ramp.lost },
            measured: self.measures.conclude(),
            ..Outcome::default()
        }
    }
}

/// `idle`: to the base, then to all, then held; the server's memory is read between.
pub(crate) fn idle(setup: &Setup, base: f64, settle: Duration) -> Vec<Phase> {
    let log_in = |who| Phase::new("log in", Step::LogIn(who), Until::Reached);
    let hold = |name, time| Phase::new(name, Step::Hold, Until::Elapsed(time)).quiet();
    vec![
        hold("empty", Duration::ZERO).mark("empty"),
        log_in(Who::Share(base)),
        hold("settle", settle).mark("base"),
        log_in(Who::All),
        hold("settle", settle).mark("full"),
        hold("hold", setup.duration),
        probe(),
    ]
}

/// `storm`: everybody is thrown out, by the server's restart (`command`) or by hanging up, and
/// wants back at once.
pub(crate) fn storm(setup: &Setup, settle: Duration, command: Option<String>) -> Vec<Phase> {
    let hold = |name, time| Phase::new(name, Step::Hold, Until::Elapsed(time)).quiet();
    let mut phases = vec![
        Phase::new("log in", Step::LogIn(Who::All), Until::Reached),
        hold("settle", settle).mark("before"),
    ];
    if let Some(command) = command {
        let step = Phase::new("outage", Step::Outage, Until::Reached).measured("return_");
        phases.push(Phase { command: Some(command), stubborn: true, ..step });
    } else {
        phases.push(Phase::new("leave", Step::Leave, Until::Reached));
        let step = Phase::new("return", Step::LogIn(Who::All), Until::Reached);
        phases.push(Phase { stubborn: true, ..step.measured("return_") });
    }
    phases.push(hold("settle", settle).mark("after"));
    phases.push(hold("hold", setup.duration));
    phases.push(probe());
    phases
}

/// Nothing needs to happen while a crowd is held, so that a server that has stopped looks like one
/// that has nothing to do: what shows the difference. All are asked, after everything measured.
pub(super) fn probe() -> Phase {
    Phase::new("still alive?", Step::Probe, Until::Reached)
}

/// How long a user of the churn stays away.
const AWAY: Duration = Duration::from_secs(2);
/// Notes under way per worker: what a server that just holds a crowd need not be warm for.
const PROBES: usize = 256;
/// Users asked in vain before a scheduled message is given up.
const TRIES: usize = 64;
