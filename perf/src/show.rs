//! The commands that read reports instead of making one: `table`, `compare`, `merge`, `html`.
//!
//! Owns: files in, text or a file out, the exit code. Never: loads a server.

use crate::report::Report;
use crate::{compare, html, merge, table};
use clap::Subcommand;
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Show {
    /// Prints medians and ratios of JSON reports; the first label is the base of the ratios.
    Table {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Compares two JSON reports figure by figure; fails if B is worse than A.
    Compare {
        a: PathBuf,
        b: PathBuf,
        /// Per cent by which a figure may be worse.
        #[arg(long, default_value_t = 10.0, value_parser = per_cent)]
        worse_than: f64,
        /// Compares runs of different shapes, too.
        #[arg(long)]
        force: bool,
    },
    /// Makes one report of those of several load processes that ran at the same time.
    Merge {
        out: PathBuf,
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Draws a JSON report as one HTML file.
    Html {
        file: PathBuf,
        #[arg(short, long)]
        output: PathBuf,
    },
}

impl Show {
    /// True if all went well and every run that was read is good.
    ///
    /// # Errors
    /// If a file cannot be read or written, or reports do not fit together.
    pub(crate) fn run(&self) -> Result<bool, String> {
        match self {
            Self::Table { files } => {
                let reports: Vec<_> =
                    files.iter().map(|file| Report::load(file)).collect::<Result<_, _>>()?;
                print!("{}", table::render(&reports));
                Ok(reports.iter().all(|report| report.ok))
            }
            Self::Compare { a, b, worse_than, force } => {
                let (a, b) = (Report::load(a)?, Report::load(b)?);
                let comparison = compare::compare(&a, &b, *worse_than, *force)?;
                print!("{}", comparison.render());
                Ok(comparison.ok)
            }
            Self::Merge { out, files } => {
                each_once(files)?;
                let part = |file: &PathBuf| Ok((file.display().to_string(), Report::load(file)?));
                let parts = files.iter().map(part).collect::<Result<Vec<_>, String>>()?;
                let merged = merge::merge(&parts)?;
                merged.save(out)?;
                merged.print();
                Ok(merged.ok)
            }
            Self::Html { file, output } => {
                let report = Report::load(file)?;
                html::save(&report, output)?;
                println!("{}: {}", output.display(), report.verdict_line());
                Ok(report.ok)
            }
        }
    }
}

/// # Errors
/// If a file is named twice, by whatever path: it would count twice.
fn each_once(files: &[PathBuf]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    // What is not there is told when it is read.
    for file in files.iter().filter_map(|file| file.canonicalize().ok()) {
        if !seen.insert(file.clone()) {
            return Err(format!("{} is named twice", file.display()));
        }
    }
    Ok(())
}

fn per_cent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number of per cent, 0 or more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a good report `a.json` and its copy `a2.json`, a bad one `b.json`, and a
    /// foreign file `c.json`.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let mut report = Report { label: "x".into(), shape: "pairs".into(), ..Report::default() };
        report.figure("rate_per_s", 100.0);
        report.conclude();
        report.save(&folder.path().join("a.json")).expect("written");
        report.save(&folder.path().join("a2.json")).expect("written");
        report.abort("the server is gone".into());
        report.conclude();
        report.save(&folder.path().join("b.json")).expect("written");
        std::fs::write(folder.path().join("c.json"), "{}").expect("written");
        folder
    }

    #[test]
    fn every_command_succeeds_on_good_reports_and_fails_on_a_bad_one() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let (good, bad) = (path("a.json"), path("b.json"));
        let compare = |b: &PathBuf| Show::Compare {
            a: good.clone(),
            b: b.clone(),
            worse_than: 10.0,
            force: false,
        };
        for (file, is_good) in [(&good, true), (&bad, false)] {
            let merge =
                Show::Merge { out: path("m.json"), files: vec![path("a2.json"), file.clone()] };
            let html = Show::Html { file: file.clone(), output: path("a.html") };
            let table = Show::Table { files: vec![file.clone()] };
            for show in [table, compare(file), merge, html] {
                assert_eq!(show.run(), Ok(is_good), "{show:?}");
            }
            assert_eq!(Report::load(&path("m.json")).expect("it was written").ok, is_good);
            let page = std::fs::read_to_string(path("a.html")).expect("it was written");
            assert_eq!(page.contains("PARTIAL"), !is_good);
        }
    }

    #[test]
    fn a_file_that_is_no_report_is_named_in_the_error() {
        let folder = folder();
        let foreign = folder.path().join("c.json");
        let error = Show::Table { files: vec![foreign.clone()] }.run().expect_err("foreign");
        assert!(error.contains("c.json") && error.contains("no format"), "{error}");
        let missing = folder.path().join("d.json");
        let error = Show::Html { file: missing, output: foreign }.run().expect_err("missing");
        assert!(error.contains("d.json"), "{error}");
    }

    #[test]
    fn a_file_counts_once_in_a_merger() {
        let folder = folder();
        let (a, m) = (folder.path().join("a.json"), folder.path().join("m.json"));
        let detour = folder.path().join("..").join(folder.path().file_name().expect("a name"));
        let files = vec![a, detour.join("a.json")];
        let error = Show::Merge { out: m.clone(), files }.run().expect_err("twice");
        assert!(error.contains("twice") && !m.exists(), "{error}");
    }

    #[test]
    fn the_bound_of_a_comparison_is_a_sane_number() {
        assert_eq!(per_cent("12.5"), Ok(12.5));
        for text in ["-1", "nan", "inf", "x"] {
            assert!(per_cent(text).is_err(), "{text}");
        }
    }
}
