//! What a run has to say: named figures, faults, notes; as lines and as JSON.
//!
//! Owns: the names and units of figures (the unit ends the name). Never: measures anything.

use crate::check::Tally;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The result of one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Which server this was, for tables.
    pub label: String,
    /// Scenario and shape; runs of equal `shape` are compared with one another.
    pub shape: String,
    /// The command line.
    pub command: String,
    /// Nothing failed.
    pub ok: bool,
    /// Why the run is not good.
    pub failures: Vec<String>,
    /// What to know when reading the figures.
    pub notes: Vec<String>,
    pub tally: Tally,
    pub figures: BTreeMap<String, f64>,
}

impl Report {
    pub(crate) fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    /// p50, p90, p99 and max of a histogram of nanoseconds, in microseconds.
    pub(crate) fn percentiles(&mut self, what: &str, histogram: &Histogram<u64>) {
        if histogram.is_empty() {
            return;
        }
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
            let value = histogram.value_at_quantile(quantile) as f64 / 1e3;
            self.figure(&format!("{what}_{name}_us"), value);
        }
    }

    /// Draws the verdict; the last step before the report is shown.
    pub(crate) fn conclude(&mut self) {
        let faults: Vec<_> = self.tally.faults().map(|(what, n)| format!("{n} {what}")).collect();
        self.failures.extend(faults);
        if self.tally.stale > 0 {
            self.notes.push(format!("{} messages of an earlier run arrived", self.tally.stale));
        }
        self.ok = self.failures.is_empty();
    }

    pub(crate) fn print(&self) {
        println!("{} on {}", self.shape, self.label);
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
        match (self.ok, sent) {
            (false, _) => {}
            (true, 0) => println!("  ok: nobody refused, nobody dropped"),
            (true, _) => {
                println!("  ok: nothing lost, duplicated, reordered, misdelivered or corrupted");
            }
        }
    }

    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        std::fs::write(path, json)
    }

    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

/// Whole numbers where they are large, three digits where they are small.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
