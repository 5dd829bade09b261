//! The login rate: connect, upgrade, log in, say good-bye, again.
//!
//! Owns: which user comes next. Never: sends a message.

use super::{Abort, Meter, Setup, TURN, Watch};
use crate::client::{Client, Event};
use crate::engine::{Closed, Engine, Handler, Port, histogram};
use crate::report::Report;

/// Keeps `concurrency` logins under way for the time of the run.
pub(crate) fn run<C: Client>(
    setup: &Setup,
    concurrency: usize,
    engine: &mut Engine<C>,
    report: &mut Report,
) -> Result<(), Abort> {
    setup.check(concurrency)?;
    let users = concurrency * USERS_PER_PLACE;
    let mut next_user = 0;
    let mut open = |engine: &mut Engine<C>, index| {
        next_user = (next_user + 1) % users;
        engine.open(index, setup.login(next_user, None))
    };
    for index in 0..concurrency {
        open(engine, index)?;
    }
    let warm_ns = engine.clock.now_ns() + setup.warm_up.as_nanos() as u64;
    cycle(setup, engine, &mut open, warm_ns)?;
    engine.login_ns = histogram();
    let meter = Meter::start(setup, engine.clock.now_ns(), engine.logins)?;
    let end_ns = engine.clock.now_ns() + setup.duration.as_nanos() as u64;
    let outcome = cycle(setup, engine, &mut open, end_ns);
    report.percentiles("login", &engine.login_ns);
    let metered = meter.stop(engine.clock.now_ns(), engine.logins, report);
    outcome?;
    Ok(metered?)
}

/// Opens a connection for each that has done its duty; any other end is an error.
fn cycle<C: Client>(
    setup: &Setup,
    engine: &mut Engine<C>,
    open: &mut impl FnMut(&mut Engine<C>, usize) -> std::io::Result<()>,
    end_ns: u64,
) -> Result<(), Abort> {
    let mut watch = Watch::new(setup, "logins", engine.logins, engine.clock.now_ns());
    loop {
        let now_ns = engine.clock.now_ns();
        if now_ns >= end_ns {
            return Ok(());
        }
        engine.turn(&mut Leave, TURN)?;
        while let Some((index, why)) = engine.next_closed() {
            match why {
                Closed::Asked => open(engine, index)?,
                _ => return Err(Abort(format!("login {} failed: {why}", engine.logins))),
            }
        }
        watch.check(engine.logins, now_ns)?;
    }
}

/// Leaves as soon as it is in.
struct Leave;

impl<C: Client> Handler<C> for Leave {
    fn on_event(&mut self, _conn: usize, event: Event<'_>, port: &mut Port<'_, C>) {
        if event == Event::Ready {
            port.close();
        }
    }
}

/// Users in turn per place, so that nobody returns before his last good-bye was worked off.
const USERS_PER_PLACE: usize = 20;
