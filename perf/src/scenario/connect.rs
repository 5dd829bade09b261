//! The login rate: connect, upgrade, log in, say good-bye, again.
//!
//! Owns: which user comes next, and which logins are under way. Never: sends a message.

use super::{Abort, Setup};
use crate::board::Counts;
use crate::client::{Client, Event};
use crate::engine::{Closed, Engine, Handler, Port};
use crate::measure::Measures;
use crate::phase::{Phase, Step, Until};
use crate::worker::{Interval, Outcome, Part};

/// One worker's places: each has one login under way.
#[derive(Debug)]
pub(crate) struct Connect {
    setup: Setup,
    places: usize,
    first: u32,
    /// Users in turn, so that nobody returns before his last good-bye was worked off.
    users: u32,
    next: u32,
    cycling: bool,
    /// By place.
    logins: Vec<Login>,
    measures: Measures,
}

/// What a place is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    /// Nothing: its last connection is closed.
    None,
    /// Since then, in nanoseconds of the run, it waits for the server.
    Since(u64),
    /// Logged in, and about to leave.
    Done,
}

impl Connect {
    /// `places` logins at a time, of users from `first` on.
    pub(crate) fn new(setup: &Setup, first: u32, places: usize) -> Self {
        let users = places as u32 * USERS_PER_PLACE;
        let (setup, measures) = (setup.clone(), Measures::new());
        let logins = vec![Login::None; places];
        Self { setup, places, first, users, next: 0, cycling: false, logins, measures }
    }

    fn open<C: Client>(&mut self, engine: &mut Engine<C>, place: usize) -> Result<(), Abort> {
        self.next = (self.next + 1) % self.users;
        self.logins[place] = Login::Since(engine.clock.now_ns());
        engine.open(place, self.setup.login(self.first + self.next, None))?;
        Ok(())
    }
}

impl<C: Client> Handler<C> for Connect {
    fn on_event(&mut self, conn: usize, event: Event<'_>, port: &mut Port<'_, C>) {
        if event == Event::Ready {
            self.logins[conn] = Login::Done;
            self.measures.logged_in(port.dialled_ns, port.now_ns);
            port.close();
        }
    }
}

impl<C: Client> Part<C> for Connect {
    fn enter(&mut self, phase: &Phase, engine: &mut Engine<C>) -> Result<(), Abort> {
        self.measures.enter(phase, engine.clock.now_ns());
        if !self.cycling && phase.step == Step::Cycle {
            for place in 0..self.places {
                self.open(engine, place)?;
            }
        }
        self.cycling = phase.step == Step::Cycle;
        Ok(())
    }

    fn turn(&mut self, engine: &mut Engine<C>) -> Result<u64, Abort> {
        while let Some((place, why)) = engine.next_closed() {
            match why {
                Closed::Asked if self.cycling => self.open(engine, place)?,
                Closed::Asked => self.logins[place] = Login::None,
                _ => return Err(Abort(format!("login {} failed: {why}", engine.logins))),
            }
        }
        Ok(u64::MAX)
    }

    fn reached(&self, _engine: &Engine<C>) -> bool {
        self.logins.iter().all(|login| *login == Login::None)
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }

    fn interval(&mut self) -> Interval {
        self.measures.take_interval()
    }

    fn conclude(mut self, engine: &mut Engine<C>) -> Outcome {
        let now_ns = engine.clock.now_ns();
        self.measures.end(now_ns);
        let mut unfinished_logins = 0;
        for login in &self.logins {
            if let Login::Since(dialled_ns) = *login {
                unfinished_logins += 1;
                self.measures.logged_in(dialled_ns, now_ns);
            }
        }
        Outcome { unfinished_logins, measured: self.measures.conclude(), ..Outcome::default() }
    }
}

pub(crate) fn phases(setup: &Setup) -> Vec<Phase> {
    let cycle = |name, time| Phase::new(name, Step::Cycle, Until::Elapsed(time));
    // Whoever is on the way when the time is over is waited for: one that comes late has taken
    // long, and one that never comes has failed.
    let patience = Until::ReachedWithin(setup.patience);
    vec![
        cycle("warm up", setup.warm_up),
        cycle("log in", setup.duration).measured(""),
        Phase::new("drain", Step::Drain { arrivals: false }, patience).quiet(),
    ]
}

pub(crate) const USERS_PER_PLACE: u32 = 20;
