//! Logged-in connections that are only held: what one costs the server, and that it is kept.
//!
//! Owns: the two points of the memory slope. Never: sends a message.

use super::{Abort, Setup, ramp, turn_until};
use crate::client::{Client, Event};
use crate::engine::{Engine, Handler, Port};
use crate::procfs;
use crate::report::Report;
use std::time::Duration;

/// How many to hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Where the slope begins: what the server allocates once is behind it.
    pub base: usize,
    pub connections: usize,
    /// Time for the server to come to rest before each reading of its memory.
    pub settle: Duration,
}

/// Ramps to the base, then to all, then holds; reads the server's memory between.
pub(crate) fn run<C: Client>(
    setup: &Setup,
    shape: Shape,
    engine: &mut Engine<C>,
    report: &mut Report,
) -> Result<(), Abort> {
    setup.check(shape.connections)?;
    let mut idle = Idle::default();
    let memory = |name: &str, report: &mut Report| {
        let Some(pid) = &setup.server_pid else {
            return Ok(0.0);
        };
        let bytes = procfs::rss(pid)? as f64;
        report.figure(name, bytes / 1024.0);
        Ok::<_, Abort>(bytes)
    };
    memory("rss_empty_kib", report)?;
    let mut at = [0.0; 2];
    let steps = [(0..shape.base, "rss_base_kib"), (shape.base..shape.connections, "rss_full_kib")];
    for (step, (range, name)) in steps.into_iter().enumerate() {
        let login = |index| setup.login(index, None);
        ramp(engine, &mut idle, range, setup, login)?;
        hold(engine, &mut idle, shape.settle)?;
        at[step] = memory(name, report)?;
    }
    if setup.server_pid.is_some() {
        let more = (shape.connections - shape.base) as f64;
        report.figure("rss_per_connection_bytes", (at[1] - at[0]) / more);
    }
    let held = hold(engine, &mut idle, setup.duration);
    report.percentiles("login", &engine.login_ns);
    report.figure("pings_answered", idle.pings as f64);
    report.figure("held_connections", shape.connections as f64);
    report.tally.stale = idle.messages;
    held
}

fn hold<C: Client>(engine: &mut Engine<C>, idle: &mut Idle, time: Duration) -> Result<(), Abort> {
    let end_ns = engine.clock.now_ns() + time.as_nanos() as u64;
    turn_until(engine, idle, end_ns)
}

#[derive(Default)]
struct Idle {
    pings: u64,
    /// Nobody sends in this scenario: left by an earlier run.
    messages: u64,
}

impl<C: Client> Handler<C> for Idle {
    fn on_event(&mut self, _conn: usize, event: Event<'_>, _port: &mut Port<'_, C>) {
        match event {
            Event::Pinged => self.pings += 1,
            Event::Delivered { .. } => self.messages += 1,
            Event::Nothing | Event::Ready | Event::Acked { .. } => {}
        }
    }
}
