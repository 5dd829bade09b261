//! What the scenarios share: logging everybody in, and measuring a window of time.
//!
//! Owns: the ramp, the meter. Never: decides what is sent.

pub(crate) mod connect;
pub(crate) mod idle;
pub(crate) mod traffic;

use crate::client::{Client, Login};
use crate::engine::{Engine, Handler};
use crate::procfs::{self, Cpu};
use crate::report::Report;
use std::io;
use std::ops::Range;
use std::time::Duration;

/// Why a run ends early, for a person to read.
#[derive(Debug)]
pub(crate) struct Abort(pub String);

impl From<io::Error> for Abort {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// What every scenario knows.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub run: u32,
    pub first_user: u32,
    pub qos: u8,
    /// Logins in progress at a time.
    pub login_concurrency: usize,
    pub warm_up: Duration,
    pub duration: Duration,
    /// How long nothing may happen before the server counts as stuck.
    pub patience: Duration,
    /// Whose CPU time and memory to read.
    pub server_pid: Option<String>,
}

impl Setup {
    pub(crate) fn login(&self, index: usize, group: Option<u32>) -> Login {
        let user = self.first_user + index as u32;
        Login { user, group, qos: self.qos, run: self.run }
    }

    /// Refuses, before it starts, a run that the open-file limit cannot carry or whose server
    /// process cannot be read.
    pub(crate) fn check(&self, connections: usize) -> Result<(), Abort> {
        self.server_pid.as_deref().map(Cpu::of).transpose()?;
        let (limit, needed) = (procfs::open_file_limit()?, connections as u64 + SPARE_FILES);
        if needed > limit {
            return Err(Abort(format!(
                "{connections} connections need {needed} open files and the limit is {limit}: \
                 raise it (ulimit -n {needed}) or ask for fewer"
            )));
        }
        Ok(())
    }
}

/// Logs in the connections of `range`, a bounded number at a time.
pub(crate) fn ramp<C: Client>(
    engine: &mut Engine<C>,
    handler: &mut impl Handler<C>,
    range: Range<usize>,
    setup: &Setup,
    login: impl Fn(usize) -> Login,
) -> Result<(), Abort> {
    let (before, total) = (engine.logins, range.len() as u64);
    let mut to_open = range;
    let mut watch = Watch::new(setup, "logins", 0, engine.clock.now_ns());
    loop {
        let done = engine.logins - before;
        if done == total {
            return Ok(());
        }
        let open = total - to_open.len() as u64 - done;
        let room = (setup.login_concurrency as u64).saturating_sub(open);
        for index in to_open.by_ref().take(room as usize) {
            engine.open(index, login(index))?;
        }
        engine.turn(handler, TURN)?;
        if let Some((index, why)) = engine.next_closed() {
            return Err(Abort(format!("connection {index} of {total} did not log in: {why}")));
        }
        watch.check(done, engine.clock.now_ns())?;
    }
}

/// Turns until `end_ns`; a connection that closes meanwhile ends the run.
pub(crate) fn turn_until<C: Client>(
    engine: &mut Engine<C>,
    handler: &mut impl Handler<C>,
    end_ns: u64,
) -> Result<(), Abort> {
    loop {
        let now_ns = engine.clock.now_ns();
        if now_ns >= end_ns {
            return Ok(());
        }
        engine.turn(handler, TURN.min(Duration::from_nanos(end_ns - now_ns)))?;
        none_closed(engine)?;
    }
}

pub(crate) fn none_closed<C: Client>(engine: &mut Engine<C>) -> Result<(), Abort> {
    match engine.next_closed() {
        None => Ok(()),
        Some((index, why)) => Err(Abort(format!("connection {index} was lost: {why}"))),
    }
}

/// Notices that nothing happens any more.
pub(crate) struct Watch<'a> {
    setup: &'a Setup,
    what: &'static str,
    count: u64,
    changed_ns: u64,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(setup: &'a Setup, what: &'static str, count: u64, now_ns: u64) -> Self {
        Self { setup, what, count, changed_ns: now_ns }
    }

    /// # Errors
    /// If `count` has not changed for the run's patience.
    pub(crate) fn check(&mut self, count: u64, now_ns: u64) -> Result<(), Abort> {
        let patience = self.setup.patience;
        if count != self.count {
            self.count = count;
            self.changed_ns = now_ns;
        } else if now_ns - self.changed_ns > patience.as_nanos() as u64 {
            return Err(Abort(format!("no {} for {patience:?}, after {count}", self.what)));
        }
        Ok(())
    }
}

/// Measures one window: a rate, the server's CPU time per item, our own load.
pub(crate) struct Meter<'a> {
    setup: &'a Setup,
    start_ns: u64,
    start_items: u64,
    server: Option<Cpu>,
    own: Cpu,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(setup: &'a Setup, now_ns: u64, items: u64) -> io::Result<Self> {
        let server = setup.server_pid.as_deref().map(Cpu::of).transpose()?;
        Ok(Self { setup, start_ns: now_ns, start_items: items, server, own: Cpu::of("self")? })
    }

    /// Adds the window's figures; `items` is the count now.
    pub(crate) fn stop(&self, now_ns: u64, items: u64, report: &mut Report) -> io::Result<()> {
        let seconds = (now_ns - self.start_ns) as f64 / SECOND as f64;
        let items = (items - self.start_items) as f64;
        report.figure("window_s", seconds);
        report.figure("rate_per_s", items / seconds);
        let own = Cpu::of("self")?.since(self.own).total_s() / seconds;
        report.figure("load_busy_percent", own * 100.0);
        if own >= MAX_BUSY {
            report.notes.push(format!(
                "the load client was {:.0} % busy: the rate says little about the server, compare \
                 CPU per message",
                own * 100.0
            ));
        }
        let (Some(before), Some(pid)) = (self.server, &self.setup.server_pid) else {
            return Ok(());
        };
        let used = Cpu::of(pid)?.since(before);
        report.figure("server_busy_percent", used.total_s() / seconds * 100.0);
        if items > 0.0 {
            report.figure("server_cpu_us", used.total_s() * 1e6 / items);
            report.figure("server_cpu_user_us", used.user_s * 1e6 / items);
            report.figure("server_cpu_system_us", used.system_s * 1e6 / items);
        }
        if used.total_s() < MIN_CPU_S {
            report.notes.push(format!(
                "the server used only {:.2} s of CPU, counted in ticks of 10 ms: run longer",
                used.total_s()
            ));
        }
        Ok(())
    }
}

/// The longest wait of a turn, so that deadlines are seen.
pub(crate) const TURN: Duration = Duration::from_millis(50);
pub(crate) const SECOND: u64 = 1_000_000_000;
/// From this share of one core on, the client may be what limits the rate.
const MAX_BUSY: f64 = 0.85;
/// 100 ticks: an error of about a per cent.
const MIN_CPU_S: f64 = 1.0;
/// Standard streams, epoll, the files read meanwhile.
const SPARE_FILES: u64 = 16;
