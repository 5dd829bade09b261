//! What a run has to say: named figures, faults, notes, histograms, the time series; as lines and
//! as JSON.
//!
//! Owns: the names and units of figures (the unit ends the name), the verdict, the file format.
//! Never: measures anything.

mod histogram;

pub(crate) use histogram::SavedHistogram;

use crate::check::Tally;
use crate::manifest::Manifest;
use crate::sample::Sample;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The result of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Which server this was, for tables.
    pub label: String,
    /// The scenario's name.
    pub scenario: String,
    /// Scenario and shape; runs of equal `shape` are compared with one another.
    pub shape: String,
    pub manifest: Manifest,
    /// Nothing failed, and the run came to its end.
    pub ok: bool,
    /// The run ended early: its figures tell how far it came.
    pub partial: bool,
    /// Why the run is not good.
    pub failures: Vec<String>,
    /// What to know when reading the figures.
    pub notes: Vec<String>,
    pub tally: Tally,
    pub figures: BTreeMap<String, f64>,
    /// Of nanoseconds; named like their figures, as in `latency`.
    pub histograms: BTreeMap<String, SavedHistogram>,
    /// In the order of their starts.
    pub phases: Vec<Phase>,
    /// The first user's number and the one after the last; 0 and 0: not known.
    #[serde(default)]
    pub users: (u32, u32),
    /// In the order of time.
    pub series: Vec<Sample>,
}

/// A part of a run, until the next one starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub name: String,
    /// Seconds since the start of the run.
    pub start_s: f64,
    /// What the names of its figures start with; `None`: it has none.
    #[serde(default)]
    pub measured: Option<String>,
}

/// What a report says in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok,
    /// It ran to its end, and something was wrong.
    Failed,
    /// It did not run to its end.
    Partial,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            format: FORMAT,
            label: String::new(),
            scenario: String::new(),
            shape: String::new(),
            manifest: Manifest::default(),
            ok: false,
            partial: false,
            failures: Vec::new(),
            notes: Vec::new(),
            tally: Tally::default(),
            figures: BTreeMap::new(),
            histograms: BTreeMap::new(),
            phases: Vec::new(),
            users: (0, 0),
            series: Vec::new(),
        }
    }
}

impl Report {
    /// A figure that is no number (of a window without length) is left out.
    pub(crate) fn figure(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.figures.insert(name.to_owned(), value);
        }
    }

    /// p50, p90, p99 and max of a histogram of nanoseconds, in microseconds, and all of it.
    pub(crate) fn percentiles(&mut self, what: &str, histogram: &Histogram<u64>) {
        if histogram.is_empty() {
            return;
        }
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
            let value = histogram.value_at_quantile(quantile) as f64 / 1e3;
            self.figure(&format!("{what}_{name}_us"), value);
        }
        self.histograms.insert(what.to_owned(), SavedHistogram(histogram.clone()));
    }

    /// The run ends here, before its end.
    pub(crate) fn abort(&mut self, why: String) {
        self.failures.push(why);
        self.partial = true;
    }

    /// The server had no messages of an earlier run when this one began.
    pub(crate) fn expect_fresh(&mut self) {
        if self.tally.stale > 0 {
            self.failures.push(format!(
                "{} messages of an earlier run arrived from a server that should have had none",
                self.tally.stale
            ));
        }
    }

    /// Draws the verdict; the last step before the report is shown.
    pub(crate) fn conclude(&mut self) {
        let faults: Vec<_> = self.tally.faults().map(|(what, n)| format!("{n} {what}")).collect();
        self.failures.extend(faults);
        let stood_still_ms = self.figures.get(LONGEST_TURN).copied().unwrap_or_default();
        if self.tally.duplicated > 0 && stood_still_ms >= STOOD_STILL_MS {
            self.failures.push(format!(
                "the load tool stood still for {stood_still_ms:.0} ms; the server repeats after \
                 its retry interval (Ringpost: 2000 ms, unless configured) what is not acknowledged"
            ));
        }
        if self.tally.stale > 0 {
            self.notes.push(format!("{} messages of an earlier run arrived", self.tally.stale));
        }
        if self.tally.unsent > 0 {
            self.notes.push(format!(
                "{} scheduled messages were not sent: earlier ones were still under way",
                self.tally.unsent
            ));
        }
        self.ok = self.failures.is_empty() && !self.partial;
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match (self.ok, self.partial) {
            (_, true) => Verdict::Partial,
            (false, false) => Verdict::Failed,
            (true, false) => Verdict::Ok,
        }
    }

    /// The verdict as one line.
    pub(crate) fn verdict_line(&self) -> String {
        let verdict = self.verdict();
        let what = match verdict {
            Verdict::Partial => "the run did not come to its end; the figures say how far it came",
            Verdict::Failed => "the run came to its end, but not everything was right",
            Verdict::Ok if self.tally.sent == 0 => "nobody refused, nobody dropped",
            Verdict::Ok => "nothing lost, duplicated, reordered, misdelivered or corrupted",
        };
        format!("{verdict}: {what}")
    }

    pub(crate) fn print(&self) {
        println!("{} on {}", self.shape, self.label);
        println!("  {}", self.manifest.summary());
        let Tally { sent, acked, delivered, .. } = self.tally;
        if sent > 0 {
            println!("  {sent} sent, {acked} acknowledged, {delivered} delivered");
        }
        for (name, value) in &self.figures {
            println!("  {name:<30} {:>14}", number(*value));
        }
        for note in &self.notes {
            println!("  note: {note}");
        }
        for failure in &self.failures {
            println!("  FAILED: {failure}");
        }
        println!("  {}", self.verdict_line());
    }

    /// # Errors
    /// If the file cannot be written; the message names it.
    pub(crate) fn save(&self, path: &Path) -> Result<(), String> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| named(path, &error))?;
        json.push(b'\n');
        std::fs::write(path, json).map_err(|error| named(path, &error))
    }

    /// # Errors
    /// Names the file, and says whether it is cut off, of another version, or something else.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let json = std::fs::read(path).map_err(|error| named(path, &error))?;
        Self::parse(&json).map_err(|why| named(path, &why))
    }

    fn parse(json: &[u8]) -> Result<Self, String> {
        /// What tells our files from others, before the rest is looked at.
        #[derive(Deserialize)]
        struct Head {
            format: Option<u32>,
        }
        let head: Head = serde_json::from_slice(json).map_err(|error| refusal(&error))?;
        match head.format {
            Some(FORMAT) => serde_json::from_slice(json).map_err(|error| refusal(&error)),
            Some(other) => {
                Err(format!("a report in format {other}; this ringpost-perf reads format {FORMAT}"))
            }
            None => Err("not a report of ringpost-perf: it has no format".to_owned()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Failed => "FAILED",
            Self::Partial => "PARTIAL",
        })
    }
}

fn refusal(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => format!("the file is cut off: {error}"),
        _ => format!("damaged, or not a report of ringpost-perf: {error}"),
    }
}

fn named(path: &Path, why: &impl fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

/// The prefix of the phase that a figure belongs to ("" of most runs), and the rest of its name.
pub(crate) fn split_prefix(figure: &str) -> (&str, &str) {
    let starts = PHASE_FIGURES.iter().filter_map(|name| figure.find(name));
    figure.split_at(starts.min().unwrap_or(0))
}

/// How the names of figures begin that every measured phase has.
const PHASE_FIGURES: [&str; 9] = [
    "acked_per_s",
    "ack_p",
    "late_",
    "latency_p",
    "load_",
    "login_p",
    "rate_per_s",
    "server_",
    "window_s",
];

/// The phase with this prefix, to be put behind a sentence: " in PREFIX", nothing of the only one.
pub(crate) fn in_phase(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!(" in {prefix}") }
}

/// The longest time between two turns of a worker, in milliseconds.
pub(crate) const LONGEST_TURN: &str = "load_longest_turn_ms";
/// From so many milliseconds on it may be the load tool that did not acknowledge in time: with
/// what else is slow on such a machine, half a second less than servers wait.
const STOOD_STILL_MS: f64 = 1_500.0;

/// From this per cent of a processor for its busiest thread, or of all its processors, the load
/// tool may be what limits the rate.
pub(crate) const MAX_BUSY: f64 = 85.0;

/// Whole numbers where they are large, three digits where they are small.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The version of the file format; a file of another one is refused.
const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::histogram;

    fn full() -> Report {
        let mut report = Report { label: "a".into(), shape: "pairs".into(), ..Report::default() };
        report.manifest = Manifest::read(None).expect("this machine");
        report.figure("rate_per_s", 12.5);
        let mut latency = histogram();
        latency.saturating_record(1_234_567);
        report.percentiles("latency", &latency);
        report.tally.sent = 1;
        report.phases.push(Phase { name: "ramp".into(), start_s: 0.25, measured: None });
        let latency_us = Some([1.0, 2.0, 3.0]);
        report.series.push(Sample { at_s: 0.5, latency_us, ..Sample::default() });
        report
    }

    #[test]
    fn a_report_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        let mut report = full();
        report.conclude();
        report.save(&path).expect("written");
        assert_eq!(Report::load(&path).expect("read"), report);
        assert_eq!(report.verdict(), Verdict::Ok);
    }

    #[test]
    fn every_truncation_of_a_report_is_refused() {
        let json = serde_json::to_vec(&full()).expect("json");
        for length in 0..json.len() {
            let error = Report::parse(&json[..length]).expect_err("it is cut off");
            // A number without its last digits is no number.
            let is_told = error.contains("cut off") || error.contains("invalid number");
            assert!(is_told, "at {length}: {error}");
        }
    }

    #[test]
    fn foreign_files_are_refused_with_what_they_are() {
        let refused = |json: &str| Report::parse(json.as_bytes()).expect_err(json);
        assert!(refused("{\"rate\": 1}").contains("no format"));
        assert!(refused("{\"format\": 99}").contains("format 99"));
        assert!(refused("<html>").contains("not a report"));
        assert!(refused("[1, 2]").contains("not a report"));
        assert!(refused("{\"format\": 1, \"label\": 7}").contains("not a report"));
    }

    #[test]
    fn only_a_complete_run_without_faults_is_ok() {
        let mut lost = full();
        lost.tally.lost = 1;
        lost.conclude();
        assert_eq!((lost.ok, lost.verdict()), (false, Verdict::Failed));
        assert!(lost.verdict_line().starts_with("FAILED"));

        let mut aborted = full();
        aborted.abort("the server is gone".into());
        aborted.conclude();
        assert_eq!((aborted.ok, aborted.verdict()), (false, Verdict::Partial));
        assert!(aborted.verdict_line().starts_with("PARTIAL"));
        assert_eq!(aborted.failures, ["the server is gone"]);
    }

    #[test]
    fn what_is_left_of_an_earlier_run_fails_only_on_a_fresh_server() {
        let mut report = full();
        report.tally.stale = 2;
        let mut fresh = report.clone();
        report.conclude();
        fresh.expect_fresh();
        fresh.conclude();
        assert_eq!((report.verdict(), fresh.verdict()), (Verdict::Ok, Verdict::Failed));
        assert!(fresh.failures[0].starts_with("2 messages of an earlier run"));
    }

    #[test]
    fn duplicates_of_a_load_tool_that_stood_still_are_told_with_their_reason() {
        let failures = |duplicated, longest_ms| {
            let mut report = full();
            report.tally.duplicated = duplicated;
            report.figure(LONGEST_TURN, longest_ms);
            report.conclude();
            assert_eq!(report.ok, duplicated == 0);
            report.failures
        };
        let told = failures(7, 2_345.6);
        assert_eq!(told.len(), 2);
        assert!(told[0] == "7 duplicated" && told[1].contains("stood still for 2346 ms"));
        assert_eq!(failures(7, 20.0), ["7 duplicated"]);
        assert!(failures(0, 2_345.6).is_empty());
    }

    #[test]
    fn the_phase_of_a_figure_is_told_from_its_name() {
        for (figure, split) in [
            ("server_cpu_us", ("", "server_cpu_us")),
            ("round2_ramp_server_cpu_us", ("round2_ramp_", "server_cpu_us")),
            ("step3_latency_p99_us", ("step3_", "latency_p99_us")),
            ("fetch_rate_per_s", ("fetch_", "rate_per_s")),
            ("step1_late_p99_us", ("step1_", "late_p99_us")),
            ("return_load_waited_percent", ("return_", "load_waited_percent")),
            ("full_rss_kib", ("", "full_rss_kib")),
        ] {
            assert_eq!(split_prefix(figure), split);
        }
    }

    #[test]
    fn a_figure_that_is_no_number_is_left_out() {
        let mut report = Report::default();
        report.figure("rate_per_s", 1.0 / 0.0);
        report.figure("share_percent", f64::NAN);
        assert!(report.figures.is_empty());
    }
}
