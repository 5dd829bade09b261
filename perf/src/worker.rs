//! One thread, one ring, a slice of the run's users: turns until the coordinator says stop.
//!
//! Owns: the thread's loop. Never: decides what is sent (its [`Part`] of the scenario does) or when
//! a phase ends (the coordinator does).

use crate::board::{Board, Counts, STOP};
use crate::check::Tally;
use crate::client::Client;
use crate::dialer::Dialer;
use crate::engine::{Clock, Engine, Handler};
use crate::phase::Phase;
use crate::scenario::exchange::Ledger;
use crate::scenario::{Abort, SECOND, told};
use hdrhistogram::Histogram;
use shards::io::Errno;
use shards::io::probe::SetupError;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// One worker's share of a scenario.
pub(crate) trait Part<C: Client>: Handler<C> {
    /// A phase begins.
    fn enter(&mut self, phase: &Phase, engine: &mut Engine<C>) -> Result<(), Abort>;

    /// Does what is due and says by when it wants to be called again, in nanoseconds of the run.
    fn turn(&mut self, engine: &mut Engine<C>) -> Result<u64, Abort>;

    /// The goal of the current phase is reached.
    fn reached(&self, engine: &Engine<C>) -> bool;

    /// What the engine does not count.
    fn counts(&self) -> Counts;

    /// What was measured since the last call, for the time series.
    fn interval(&mut self) -> Interval;

    /// The end, after the last phase or an abort.
    fn conclude(self, engine: &mut Engine<C>) -> Outcome;
}

/// In nanoseconds, by what they tell: `latency`, `ack`, `login`, `late`.
pub(crate) type Histograms = BTreeMap<&'static str, Histogram<u64>>;

/// Of the messages of about a second, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub latency: Histogram<u64>,
    pub ack: Histogram<u64>,
}

impl Interval {
    pub(crate) fn new() -> Self {
        // Two digits are enough for a plot.
        let new = || Histogram::new_with_bounds(1_000, 60_000_000_000, 2);
        let new = || new().expect("the bounds are constant");
        Self { latency: new(), ack: new() }
    }
}

/// What is left of a worker.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub tally: Tally,
    /// Messages between users of different workers, to be compared with the others' ledgers.
    pub ledger: Ledger,
    /// Logins that failed, and connections that were lost, and were tried again.
    pub failed_logins: u64,
    pub lost_connections: u64,
    /// Logins still under way when nobody waited any more.
    pub unfinished_logins: u64,
    /// By the prefix of their phases' figures.
    pub measured: Vec<(String, Histograms)>,
    /// The longest time from one turn of the loop to the next, in nanoseconds.
    pub longest_turn_ns: u64,
}

/// What a worker tells the coordinator.
#[derive(Debug)]
pub(crate) enum Note {
    Interval(Interval),
    /// The thread's last word.
    Done(Result<(), Abort>, Outcome),
}

/// What a worker needs to begin.
pub(crate) struct Job {
    pub index: usize,
    pub phases: Arc<[Phase]>,
    pub board: Arc<Board>,
    pub notes: Sender<Note>,
    pub dialer: Dialer,
    pub clock: Clock,
    /// Connections at once.
    pub slots: u32,
}

/// Runs `part` to its end. The coordinator hears everything through the job's channel.
pub(crate) fn run<C: Client, P: Part<C>>(job: Job, mut part: P) {
    let mut engine = match Engine::new(job.dialer.clone(), job.clock, job.slots) {
        Ok(engine) => engine,
        Err(error) => {
            let why = Abort(match error {
                SetupError::Kernel {
                    error: Errno(code @ (libc::EMFILE | libc::ENFILE)), ..
                } => told(&io::Error::from_raw_os_error(code)),
                other => other.to_string(),
            });
            let _ = job.notes.send(Note::Done(Err(why), Outcome::default()));
            return;
        }
    };
    let mut longest_turn_ns = 0;
    let result = turn_until_stopped(&job, &mut engine, &mut part, &mut longest_turn_ns);
    let outcome = Outcome { longest_turn_ns, ..part.conclude(&mut engine) };
    // A coordinator that has given up is gone, and nobody misses the note.
    let _ = job.notes.send(Note::Done(result, outcome));
    engine.hang_up_all();
}

fn turn_until_stopped<C: Client, P: Part<C>>(
    job: &Job,
    engine: &mut Engine<C>,
    part: &mut P,
    longest_turn_ns: &mut u64,
) -> Result<(), Abort> {
    job.board.attend(job.index, engine.waker());
    let mut current = None;
    let mut sampled_ns = engine.clock.now_ns();
    let mut turned_ns = sampled_ns;
    loop {
        let phase = job.board.phase();
        if current != Some(phase) {
            if phase == STOP {
                return Ok(());
            }
            part.enter(&job.phases[phase], engine)?;
            current = Some(phase);
        }
        let deadline_ns = part.turn(engine)?;
        let now_ns = engine.clock.now_ns();
        engine.turn(part, deadline_ns.min(now_ns + TURN_NS));
        let counts = part.counts();
        let (connected, logins) = (engine.connected, engine.logins);
        job.board.publish(job.index, Counts { connected, logins, ..counts });
        job.board.reach(job.index, phase, part.reached(engine));
        *longest_turn_ns = now_ns.saturating_sub(turned_ns).max(*longest_turn_ns);
        turned_ns = now_ns;
        if now_ns - sampled_ns >= SECOND {
            sampled_ns = now_ns;
            let _ = job.notes.send(Note::Interval(part.interval()));
        }
    }
}

/// The longest wait of a turn, so that phases are seen to change.
const TURN_NS: u64 = SECOND / 20;
