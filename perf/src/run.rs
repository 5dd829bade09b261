//! One run: the phases in their order, the workers that carry them out, the readings meanwhile.
//!
//! Owns: the threads, the time, the verdict of each phase. Never: a connection.

mod meter;

use crate::board::{Board, Counts, STOP};
use crate::client::Client;
use crate::dialer::Dialer;
use crate::engine::{Clock, histogram};
use crate::phase::{Phase, Step, Until};
use crate::progress::Progress;
use crate::report::{LONGEST_TURN, Report};
use crate::sample::{Sample, Sampler};
use crate::scenario::exchange::Ledger;
use crate::scenario::{Abort, SECOND, Setup};
use crate::worker::{self, Interval, Job, Note, Outcome, Part};
use hdrhistogram::Histogram;
use meter::Meter;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// How a run is divided.
pub(crate) struct Division<P> {
    pub phases: Vec<Phase>,
    /// One for each worker.
    pub parts: Vec<P>,
    /// Connections at once per worker.
    pub slots: u32,
    /// Connections of all.
    pub connections: u64,
    /// Whose they are; nobody else may log in as one of them meanwhile.
    pub users: Range<u32>,
}

/// Carries a run out and fills in the report, as far as it came. The workers' threads belong to
/// `scope`: closing many connections takes them a while after the report is complete.
pub(crate) fn run<'scope, C: Client, P: Part<C> + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    setup: &Setup,
    division: Division<P>,
    dialer: &Dialer,
    report: &mut Report,
) -> Result<(), Abort> {
    let Division { phases, parts, slots, connections, users } = division;
    report.users = (users.start, users.end);
    let workers = parts.len();
    let (board, clock) = (Arc::new(Board::new(workers)), Clock::start());
    let phases: Arc<[Phase]> = phases.into();
    let sampler = Sampler::new(setup.server_pid)?;
    let (sender, notes) = channel();
    for (index, part) in parts.into_iter().enumerate() {
        let dialer = dialer.of_worker(index);
        let (phases, notes) = (Arc::clone(&phases), sender.clone());
        let job = Job { index, phases, board: Arc::clone(&board), notes, dialer, clock, slots };
        let name = format!("worker {index}");
        let spawned = thread::Builder::new().name(name);
        let spawned = spawned.spawn_scoped(scope, || worker::run(job, part));
        // Those that run already wait for a phase.
        spawned.inspect_err(|_| board.enter(STOP))?;
    }
    // The workers have theirs: once all have ended, there is nothing more to hear.
    drop(sender);
    let progress = Progress::new(&report.shape);
    let interval = Interval::new();
    let mut run = Coordinator {
        setup,
        board: &board,
        clock,
        notes,
        workers,
        connections,
        sampler: Some(sampler),
        progress,
        interval,
        cores: cores(workers),
        done: Vec::new(),
        child: None,
        report,
    };
    let outcome = run.carry_out(&phases);
    run.wind_up(outcome)
}

struct Coordinator<'a> {
    setup: &'a Setup,
    board: &'a Board,
    clock: Clock,
    notes: Receiver<Note>,
    workers: usize,
    connections: u64,
    /// `None` once the server was gone.
    sampler: Option<Sampler>,
    progress: Progress,
    /// What arrived since the last sample.
    interval: Interval,
    /// Processors that the workers can use.
    cores: f64,
    done: Vec<(Result<(), Abort>, Outcome)>,
    child: Option<Child>,
    report: &'a mut Report,
}

impl Coordinator<'_> {
    fn carry_out(&mut self, phases: &[Phase]) -> Result<(), Abort> {
        for (index, phase) in phases.iter().enumerate() {
            self.begin(index, phase)?;
            let meter = Meter::start(self.sampler.as_ref(), self.now_s(), self.board.counts());
            self.wait(index, phase)?;
            let meter = meter.stop(self.sampler.as_ref(), self.now_s(), self.board.counts());
            if let Some(mark) = &phase.mark {
                meter.mark(mark, self.report);
            }
            if let Some(prefix) = &phase.measured {
                meter.report(prefix, &phase.step, self.cores, self.report);
            }
        }
        Ok(())
    }

    fn begin(&mut self, index: usize, phase: &Phase) -> Result<(), Abort> {
        let start_s = self.now_s();
        let (name, measured) = (phase.name.clone(), phase.measured.clone());
        self.report.phases.push(crate::report::Phase { name, start_s, measured });
        let target = matches!(phase.step, Step::LogIn(_) | Step::Fetch | Step::Outage);
        self.progress.phase(&phase.name, target.then_some(self.connections));
        self.board.enter(index);
        if let Some(command) = &phase.command {
            let child = Command::new("sh").arg("-c").arg(command).spawn();
            self.child = Some(child.map_err(|error| Abort(format!("{command}: {error}")))?);
        }
        Ok(())
    }

    /// Until the phase is over.
    fn wait(&mut self, index: usize, phase: &Phase) -> Result<(), Abort> {
        let start_s = self.now_s();
        let mut watch = Watch { progress: [0; 8], changed_s: start_s };
        let mut next_sample_s = start_s;
        let end_s = start_s + self.longest_s(phase);
        loop {
            let (now_s, counts) = (self.now_s(), self.board.counts());
            let reached = self.reached(index, phase, counts);
            let over = match phase.until {
                Until::Reached => reached,
                Until::Elapsed(time) => now_s - start_s >= time.as_secs_f64(),
                Until::ReachedWithin(time) => reached || now_s - start_s >= time.as_secs_f64(),
            };
            if over {
                return self.sample(phase);
            }
            if now_s >= next_sample_s {
                self.sample(phase)?;
                next_sample_s = (next_sample_s + 1.0).max(now_s);
            }
            if phase.watched || phase.until == Until::Reached {
                watch.check(counts, now_s, self.setup.patience, phase, self.connections)?;
            }
            if now_s > end_s {
                return Err(Abort(format!(
                    "phase \"{}\" has not ended within {:.0} s: {} of {} connections are up",
                    phase.name,
                    now_s - start_s,
                    counts.connected,
                    self.connections
                )));
            }
            self.hear(TICK)?;
        }
    }

    /// What tries again and again makes progress again and again, and may never come to an end.
    fn longest_s(&self, phase: &Phase) -> f64 {
        if !phase.stubborn || phase.until != Until::Reached {
            return f64::INFINITY;
        }
        let logins_per_s = self.setup.ramp_per_s.unwrap_or(SLOW_LOGINS).min(SLOW_LOGINS);
        STUBBORN * self.setup.patience.as_secs_f64() + self.connections as f64 / logins_per_s
    }

    fn reached(&self, index: usize, phase: &Phase, counts: Counts) -> bool {
        let arrived = match phase.step {
            Step::Drain { arrivals } => !arrivals || counts.arrived >= counts.due,
            Step::Fetch | Step::Probe => counts.arrived >= counts.due,
            _ => true,
        };
        arrived && self.board.reached(index)
    }

    /// Hears one note, or none for `time`.
    fn hear(&mut self, time: Duration) -> Result<(), Abort> {
        match self.notes.recv_timeout(time) {
            Ok(Note::Interval(interval)) => {
                add(&mut self.interval.latency, &interval.latency);
                add(&mut self.interval.ack, &interval.ack);
            }
            Ok(Note::Done(result, outcome)) => {
                let failed = result.as_ref().err().map(|Abort(why)| Abort(why.clone()));
                self.done.push((result, outcome));
                if let Some(failed) = failed {
                    return Err(failed);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Abort("all workers have ended".to_owned()));
            }
        }
        Ok(())
    }

    /// A point of the time series. A server that is gone is noted once.
    fn sample(&mut self, phase: &Phase) -> Result<(), Abort> {
        let Some(sampler) = self.sampler.take() else { return Ok(()) };
        let reading = match sampler.sample() {
            Ok(reading) => {
                self.sampler = Some(sampler);
                reading
            }
            Err(why) => {
                // A restart ends the process that was named; its successor is not known.
                self.report.notes.push(format!("the server's readings end: {why}"));
                let sampler = sampler.without_server();
                let reading = sampler.sample()?;
                self.sampler = Some(sampler);
                reading
            }
        };
        let counts = self.board.counts();
        let sample = Sample {
            at_s: self.now_s(),
            phase: phase.name.clone(),
            connections: counts.connected,
            logins: counts.logins,
            sent: counts.sent,
            acked: counts.acked,
            delivered: counts.delivered,
            latency_us: quantiles(&self.interval.latency),
            ack_us: quantiles(&self.interval.ack),
            server: reading.server,
            host: reading.host,
            load_cpu_s: reading.load_cpu_s,
        };
        self.interval = Interval::new();
        let none = Sample::default();
        self.progress.update(&sample, self.report.series.last().unwrap_or(&none));
        self.report.series.push(sample);
        Ok(())
    }

    /// Stops everybody and adds up what they say.
    fn wind_up(mut self, outcome: Result<(), Abort>) -> Result<(), Abort> {
        self.board.enter(STOP);
        let end_s = self.now_s() + LAST_WORDS.as_secs_f64();
        while self.done.len() < self.workers && self.now_s() < end_s {
            // Further failures are consequences of the first.
            let _ = self.hear(TICK);
        }
        if outcome.is_ok() && self.done.len() < self.workers {
            return Err(Abort("not all workers have told what they saw".to_owned()));
        }
        self.progress.finish();
        self.await_command()?;
        self.percentiles();
        let counts = self.board.counts();
        let mut ledgers = Vec::new();
        let (mut failed_logins, mut lost_connections, mut unfinished_logins) = (0, 0, 0);
        let mut longest_turn_ns = 0;
        for (_, outcome) in &mut self.done {
            self.report.tally = self.report.tally + outcome.tally;
            failed_logins += outcome.failed_logins;
            lost_connections += outcome.lost_connections;
            unfinished_logins += outcome.unfinished_logins;
            longest_turn_ns = outcome.longest_turn_ns.max(longest_turn_ns);
            ledgers.push(std::mem::take(&mut outcome.ledger));
        }
        if failed_logins > 0 {
            self.report.notes.push(format!("{failed_logins} logins failed and were tried again"));
        }
        if lost_connections > 0 {
            self.report.failures.push(format!("{lost_connections} connections were lost"));
        }
        if outcome.is_ok() && unfinished_logins > 0 {
            let patience = self.setup.patience;
            self.report.failures.push(format!(
                "{unfinished_logins} logins had not ended {patience:?} after the last was begun"
            ));
        }
        self.report.figure("pings_answered", counts.pings as f64);
        self.report.figure(LONGEST_TURN, longest_turn_ns as f64 / 1e6);
        if outcome.is_ok() {
            self.report.tally.lost += Ledger::missing(&ledgers);
        } else {
            let under_way = counts.due.saturating_sub(counts.arrived);
            self.report.notes.push(format!(
                "{under_way} deliveries were under way when the run ended, and {} connections up",
                counts.connected
            ));
            self.report.tally.lost = 0;
            self.report.tally.unacked = 0;
        }
        outcome
    }

    /// The percentiles of every measured phase, of all workers together.
    fn percentiles(&mut self) {
        let mut sums: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
        for (_, outcome) in &mut self.done {
            for (prefix, histograms) in outcome.measured.drain(..) {
                for (what, part) in histograms {
                    add(sums.entry(format!("{prefix}{what}")).or_insert_with(histogram), &part);
                }
            }
        }
        for (what, sum) in &sums {
            self.report.percentiles(what, sum);
        }
    }

    /// The command of an outage has had its time. One that still runs (a server in the foreground)
    /// is left alone.
    fn await_command(&mut self) -> Result<(), Abort> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let note = match wait_for(&mut child, COMMAND)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => format!("the command ended with {status}"),
            None => "the command still runs, and is left alone".to_owned(),
        };
        self.report.notes.push(note);
        Ok(())
    }

    fn now_s(&self) -> f64 {
        self.clock.now_ns() as f64 / SECOND as f64
    }
}

/// Notices that nothing happens any more.
struct Watch {
    progress: [u64; 8],
    changed_s: f64,
}

impl Watch {
    fn check(
        &mut self,
        counts: Counts,
        now_s: f64,
        patience: Duration,
        phase: &Phase,
        connections: u64,
    ) -> Result<(), Abort> {
        let progress = counts.progress();
        if progress != self.progress {
            (self.progress, self.changed_s) = (progress, now_s);
        } else if now_s - self.changed_s > patience.as_secs_f64() {
            return Err(Abort(format!(
                "nothing has happened for {patience:?} in phase \"{}\": {} of {connections} \
                 connections are up, {} of {} deliveries have arrived",
                phase.name, counts.connected, counts.arrived, counts.due
            )));
        }
        Ok(())
    }
}

/// p50, p90 and p99 in microseconds; `None` of nothing.
fn quantiles(histogram: &Histogram<u64>) -> Option<[f64; 3]> {
    (!histogram.is_empty())
        .then(|| [0.5, 0.9, 0.99].map(|q| histogram.value_at_quantile(q) as f64 / 1e3))
}

fn add(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    sum.add(part).expect("all have the same bounds");
}

/// How a process ended; `None`: it has not, within `time`.
pub(crate) fn wait_for(child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + time;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() > end {
            return Ok(status);
        }
        thread::sleep(TICK);
    }
}

/// Each worker can use one processor, if there are so many that the process may run on.
fn cores(workers: usize) -> f64 {
    thread::available_parallelism().map_or(1, usize::from).min(workers) as f64
}

/// A crowd whose logins are tried again may take so many times the patience, and the time that its
/// logins take at so many per second, which is slow.
const STUBBORN: f64 = 3.0;
const SLOW_LOGINS: f64 = 200.0;
/// How long a command of `storm` may take after everybody is back.
const COMMAND: Duration = Duration::from_secs(5);
/// How long workers may take to add up what they have seen.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// How long the coordinator sleeps at most.
const TICK: Duration = Duration::from_millis(20);
