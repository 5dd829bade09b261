//! One phase measured: what happened in it, what it cost the server, what it cost us.
//!
//! Owns: the figures of a phase. Never: waits.

use crate::board::Counts;
use crate::phase::Step;
use crate::report::{MAX_BUSY, Report, in_phase};
use crate::sample::{Reading, Sampler, Thread, Threads};

/// The readings at the beginning of a phase, and at its end.
#[derive(Debug)]
pub(super) struct Meter {
    start: Point,
    end: Point,
}

#[derive(Clone, Debug)]
struct Point {
    at_s: f64,
    counts: Counts,
    reading: Option<Reading>,
    threads: Threads,
}

impl Point {
    fn take(sampler: Option<&Sampler>, at_s: f64, counts: Counts) -> Self {
        // A server that is gone is noted by the time series.
        let reading = sampler.and_then(|sampler| sampler.sample().ok());
        let threads = sampler.map(Sampler::threads).unwrap_or_default();
        Self { at_s, counts, reading, threads }
    }
}

impl Meter {
    pub(super) fn start(sampler: Option<&Sampler>, at_s: f64, counts: Counts) -> Self {
        let start = Point::take(sampler, at_s, counts);
        Self { end: start.clone(), start }
    }

    pub(super) fn stop(self, sampler: Option<&Sampler>, at_s: f64, counts: Counts) -> Self {
        Self { end: Point::take(sampler, at_s, counts), ..self }
    }

    /// Adds the phase's figures: per delivery where there is traffic, per login elsewhere. The load
    /// tool can use `cores` processors.
    pub(super) fn report(&self, prefix: &str, step: &Step, cores: f64, report: &mut Report) {
        let seconds = self.end.at_s - self.start.at_s;
        let count = |of: fn(Counts) -> u64| (of(self.end.counts) - of(self.start.counts)) as f64;
        let items = match step {
            Step::Load { .. } | Step::Fetch => {
                let (delivered, acked) = (count(|c| c.delivered), count(|c| c.acked));
                report.figure(&format!("{prefix}acked_per_s"), acked / seconds);
                // With nobody there to receive, what counts is what the server has taken over.
                if delivered > 0.0 { delivered } else { acked }
            }
            _ => count(|counts| counts.logins),
        };
        if *step == Step::Cycle && items == 0.0 {
            report.failures.push(format!("nobody logged in{}", in_phase(prefix)));
        }
        report.figure(&format!("{prefix}window_s"), seconds);
        report.figure(&format!("{prefix}rate_per_s"), items / seconds);
        let (Some(start), Some(end)) = (self.start.reading, self.end.reading) else { return };
        let all = (end.load_cpu_s - start.load_cpu_s) / seconds / cores * 100.0;
        let Thread { ran_s, waited_s } = self.worst_threads();
        let (thread, waited) = (ran_s / seconds * 100.0, waited_s / seconds * 100.0);
        // Rings share nothing: the one that has no time left holds its own users back.
        let busy = all.max(thread);
        report.figure(&format!("{prefix}load_busy_percent"), busy);
        report.figure(&format!("{prefix}load_all_busy_percent"), all);
        report.figure(&format!("{prefix}load_waited_percent"), waited);
        if waited >= MAX_WAITED {
            report.notes.push(format!(
                "a thread of the load client waited for a processor for {waited:.0} % of the \
                 time{}: latencies are its own, too",
                in_phase(prefix)
            ));
        }
        if busy >= MAX_BUSY {
            report.notes.push(format!(
                "the load client was {busy:.0} % busy{}: the rate says little about the server, \
                 compare CPU per message",
                in_phase(prefix)
            ));
        }
        let (Some(start), Some(end)) = (start.server, end.server) else { return };
        let (user_s, system_s) = (end.user_s - start.user_s, end.system_s - start.system_s);
        let total_s = user_s + system_s;
        report.figure(&format!("{prefix}server_busy_percent"), total_s / seconds * 100.0);
        if items > 0.0 {
            report.figure(&format!("{prefix}server_cpu_us"), total_s * 1e6 / items);
            report.figure(&format!("{prefix}server_cpu_user_us"), user_s * 1e6 / items);
            report.figure(&format!("{prefix}server_cpu_system_us"), system_s * 1e6 / items);
        }
        if total_s < MIN_CPU_S {
            report.notes.push(format!(
                "the server used only {total_s:.2} s of CPU{}, counted in ticks of 10 ms: run \
                 longer",
                in_phase(prefix)
            ));
        }
    }

    /// The most that any thread of ours ran, and the most that any waited, meanwhile.
    fn worst_threads(&self) -> Thread {
        let mut worst = Thread::default();
        for (tid, end) in &self.end.threads {
            let start = self.start.threads.get(tid).copied().unwrap_or_default();
            worst.ran_s = worst.ran_s.max(end.ran_s - start.ran_s);
            worst.waited_s = worst.waited_s.max(end.waited_s - start.waited_s);
        }
        worst
    }

    /// Notes the memory at the end of the phase, and what each connection since the first mark
    /// with fewer connections has cost.
    pub(super) fn mark(&self, name: &str, report: &mut Report) {
        let Some(reading) = self.end.reading else { return };
        let connected = self.end.counts.connected as f64;
        report.figure(&format!("{name}_connections"), connected);
        let slab = reading.host.slab_bytes as f64;
        let sockets = reading.host.socket_bytes as f64;
        report.figure(&format!("{name}_slab_kib"), slab / 1024.0);
        report.figure(&format!("{name}_socket_kib"), sockets / 1024.0);
        if let Some(server) = reading.server {
            report.figure(&format!("{name}_rss_kib"), server.rss_bytes as f64 / 1024.0);
        }
        slope(name, report);
    }
}

/// Memory per connection between the last earlier mark with fewer connections and this one.
fn slope(name: &str, report: &mut Report) {
    let figure = |report: &Report, mark: &str, what: &str| {
        report.figures.get(&format!("{mark}_{what}")).copied()
    };
    let Some(here) = figure(report, name, "connections") else { return };
    let base = ["base", "empty", "before"].into_iter().find(|mark| {
        *mark != name && figure(report, mark, "connections").is_some_and(|there| there < here)
    });
    let Some(base) = base else { return };
    let more = here - figure(report, base, "connections").unwrap_or_default();
    for what in ["rss", "slab", "socket"] {
        let kib = format!("{what}_kib");
        let (Some(from), Some(to)) = (figure(report, base, &kib), figure(report, name, &kib))
        else {
            continue;
        };
        let per = (to - from) * 1024.0 / more;
        let prefix = if name == "full" { String::new() } else { format!("{name}_") };
        report.figure(&format!("{prefix}{what}_per_connection_bytes"), per);
    }
}

/// From this per cent of the time on, waiting for a processor shows in latencies.
const MAX_WAITED: f64 = 10.0;
/// 100 ticks: an error of about a per cent.
const MIN_CPU_S: f64 = 1.0;
