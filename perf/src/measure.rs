//! The histograms of a worker's measured phases.
//!
//! Owns: which phase a message or a login counts in: the one in which it was due, however late it
//! came, so that a server that stalls at the end of a phase is seen to stall. What was stored
//! before (`fetch`) counts in the phase in which it comes. Never: counts messages.

use crate::engine::histogram;
use crate::phase::{Phase, Step};
use crate::worker::{Histograms, Interval};
use std::mem;

/// All times are in nanoseconds of the run.
#[derive(Debug)]
pub(crate) struct Measures {
    sets: Vec<Set>,
    interval: Interval,
}

#[derive(Debug)]
struct Set {
    prefix: String,
    from_ns: u64,
    /// `u64::MAX`: the phase lasts.
    until_ns: u64,
    by_arrival: bool,
    histograms: Histograms,
}

impl Set {
    fn has(&self, due_ns: u64) -> bool {
        match self.by_arrival {
            true => self.until_ns == u64::MAX,
            false => self.spans(due_ns),
        }
    }

    fn spans(&self, at_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&at_ns)
    }

    fn record(&mut self, what: &'static str, took_ns: u64) {
        self.histograms.entry(what).or_insert_with(histogram).saturating_record(took_ns);
    }
}

impl Measures {
    pub(crate) fn new() -> Self {
        Self { sets: Vec::new(), interval: Interval::new() }
    }

    /// The phase changes at `now_ns`.
    pub(crate) fn enter(&mut self, phase: &Phase, now_ns: u64) {
        self.end(now_ns);
        if let Some(prefix) = &phase.measured {
            self.sets.push(Set {
                prefix: prefix.clone(),
                from_ns: now_ns,
                until_ns: u64::MAX,
                by_arrival: phase.step == Step::Fetch,
                histograms: Histograms::new(),
            });
        }
    }

    /// The last phase is over.
    pub(crate) fn end(&mut self, now_ns: u64) {
        if let Some(set) = self.sets.last_mut() {
            set.until_ns = set.until_ns.min(now_ns);
        }
    }

    /// A login that was begun at `dialled_ns` has ended at `now_ns`: the session is usable, or
    /// nobody waits for it any more, and it would have taken longer than this.
    pub(crate) fn logged_in(&mut self, dialled_ns: u64, now_ns: u64) {
        if let Some(set) = self.sets.iter_mut().rev().find(|set| set.spans(dialled_ns)) {
            set.record("login", now_ns.saturating_sub(dialled_ns));
        }
    }

    /// A message due at `due_ns` has come at `now_ns`.
    pub(crate) fn arrived(&mut self, due_ns: u64, now_ns: u64) {
        let took_ns = now_ns.saturating_sub(due_ns);
        self.interval.latency.saturating_record(took_ns);
        self.record("latency", due_ns, took_ns);
    }

    /// A message due at `due_ns` was acknowledged at `now_ns`.
    pub(crate) fn acked(&mut self, due_ns: u64, now_ns: u64) {
        let took_ns = now_ns.saturating_sub(due_ns);
        self.interval.ack.saturating_record(took_ns);
        self.record("ack", due_ns, took_ns);
    }

    /// A message due at `due_ns` had its turn at `now_ns`: how late we are ourselves.
    pub(crate) fn turned(&mut self, due_ns: u64, now_ns: u64) {
        self.record("late", due_ns, now_ns.saturating_sub(due_ns));
    }

    /// A message due at `due_ns` will never be sent: it would have taken longer than this.
    pub(crate) fn given_up(&mut self, due_ns: u64, now_ns: u64) {
        let age_ns = now_ns.saturating_sub(due_ns);
        self.record("latency", due_ns, age_ns);
        self.record("ack", due_ns, age_ns);
    }

    fn record(&mut self, what: &'static str, due_ns: u64, took_ns: u64) {
        if let Some(set) = self.sets.iter_mut().rev().find(|set| set.has(due_ns)) {
            set.record(what, took_ns);
        }
    }

    /// What was measured since the last call, for the time series.
    pub(crate) fn take_interval(&mut self) -> Interval {
        mem::replace(&mut self.interval, Interval::new())
    }

    /// Each measured phase's prefix, and its histograms.
    pub(crate) fn conclude(self) -> Vec<(String, Histograms)> {
        self.sets.into_iter().map(|set| (set.prefix, set.histograms)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Until;
    use hdrhistogram::Histogram;
    use std::time::Duration;

    fn phase(step: Step, prefix: &str) -> Phase {
        Phase::new(prefix, step, Until::Elapsed(Duration::from_secs(1))).measured(prefix)
    }

    #[test]
    fn a_message_or_login_counts_where_it_was_due_and_stored_ones_where_they_come() {
        let mut measures = Measures::new();
        let load = Step::Load { rate_per_s: None };
        measures.arrived(50, 60);
        measures.enter(&phase(load.clone(), "one"), 100);
        measures.arrived(99, 110);
        measures.enter(&phase(load, "two"), 1_000_000);
        // Late by a second: of the first phase all the same.
        measures.arrived(200, 1_000_000_000);
        measures.acked(1_000_000, 2_000_000);
        measures.given_up(2_000_000, 3_000_000);
        measures.enter(&phase(Step::Fetch, "three"), 2_000_000_000);
        // Begun in the second phase, and stuck for long after it.
        measures.logged_in(3_000_000, 20_000_000_000);
        measures.arrived(300, 2_000_000_001);
        measures.end(3_000_000_000);
        measures.arrived(300, 4_000_000_001);
        let sets = measures.conclude();
        let counts: Vec<_> = sets
            .iter()
            .map(|(prefix, set)| {
                let count = |what| set.get(what).map_or(0, Histogram::len);
                (&prefix[..], count("latency"), count("ack"), count("login"))
            })
            .collect();
        assert_eq!(counts, [("one", 2, 0, 0), ("two", 1, 2, 1), ("three", 1, 0, 0)]);
        assert!(sets[0].1["latency"].max() >= 999_000_000);
        assert!(sets[1].1["login"].max() >= 19_900_000_000);
    }
}
