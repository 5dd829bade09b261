//! The login rate: connect, upgrade, log in, say good-bye, again.
//!
//! Owns: which user comes next. Never: sends a message.

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
    measures: Measures,
}

impl Connect {
    /// `places` logins at a time, of users from `first` on.
    pub(crate) fn new(setup: &Setup, first: u32, places: usize) -> Self {
        let users = places as u32 * USERS_PER_PLACE;
        let (setup, measures) = (setup.clone(), Measures::new());
        Self { setup, places, first, users, next: 0, cycling: false, measures }
    }

    fn open<C: Client>(&mut self, engine: &mut Engine<C>, place: usize) -> Result<(), Abort> {
        self.next = (self.next + 1) % self.users;
        engine.open(place, self.setup.login(self.first + self.next, None))?;
        Ok(())
    }
}

impl<C: Client> Handler<C> for Connect {
    fn on_event(&mut self, _conn: usize, event: Event<'_>, port: &mut Port<'_, C>) {
        if event == Event::Ready {
            port.close();
        }
    }
}

impl<C: Client> Part<C> for Connect {
    fn enter(&mut self, phase: &Phase, engine: &mut Engine<C>) -> Result<(), Abort> {
        self.measures.enter(phase, engine.clock.now_ns(), &mut engine.login_ns);
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
                Closed::Asked => {}
                _ => return Err(Abort(format!("login {} failed: {why}", engine.logins))),
            }
        }
        Ok(u64::MAX)
    }

    fn reached(&self, engine: &Engine<C>) -> bool {
        engine.connected == 0
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }

    fn interval(&mut self) -> Interval {
        self.measures.take_interval()
    }

    fn conclude(mut self, engine: &mut Engine<C>) -> Outcome {
        self.measures.end(engine.clock.now_ns(), &mut engine.login_ns);
        Outcome { measured: self.measures.conclude(), ..Outcome::default() }
    }
}

pub(crate) fn phases(setup: &Setup) -> Vec<Phase> {
    let cycle = |name, time| Phase::new(name, Step::Cycle, Until::Elapsed(time));
    vec![cycle("warm up", setup.warm_up), cycle("log in", setup.duration).measured("")]
}

pub(crate) const USERS_PER_PLACE: u32 = 20;
