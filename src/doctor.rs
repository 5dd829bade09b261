//! `ringpost doctor`: what this host gives the gateway, and the exact fix for what it does not.
//!
//! Owns: the findings beside the ring's own (those come from the engine's probe). Never: changes
//! anything.

use std::fmt;
use std::fs;

use shards::io::{probe, sys};

use crate::config::Config;
use crate::engine::{self, Choice, Kind};
use crate::exit::Failure;

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    /// A command or a line of a file; empty if there is nothing to fix.
    fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It runs, but not as far as it could.
    Advice,
    /// It does not run.
    Bad,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Advice => "advice",
            Verdict::Bad => "BAD",
        };
        write!(f, "{verdict:<7} {:<28} {}", self.name, self.detail)?;
        if !self.fix.is_empty() {
            write!(f, "\n{:<7} fix: {}", "", self.fix)?;
        }
        Ok(())
    }
}

/// Prints the report.
///
/// # Errors
/// Something that the gateway needs is missing.
pub(crate) fn run(config: &Config) -> Result<(), Failure> {
    // What serving does first, so that the report is about the same limits.
    let raised = sys::raise_file_limit();
    let slots = match config.keys.limits.connections_per_shard {
        0 => SLOTS_TRIED,
        slots => slots,
    };
    let choice = Choice::of(config);
    let mut findings = vec![of_choice(&choice)];
    if choice.kind == Kind::Uring {
        findings.extend(probe::findings(slots).into_iter().map(of_probe));
    }
    findings.push(of_sizes(config, choice.kind));
    if let Err(error) = raised {
        findings.push(Finding {
            name: "raising the open files",
            verdict: Verdict::Advice,
            detail: error.to_string(),
            fix: "allow setrlimit in the seccomp profile".to_owned(),
        });
    }
    findings.extend(Host::read().findings());
    for finding in &findings {
        println!("{finding}");
    }
    match findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count() {
        0 => Ok(()),
        bad => Err(Failure::new(format!("{bad} of the findings keep the gateway from running"))),
    }
}

/// What `node.io` comes to on this host.
fn of_choice(choice: &Choice) -> Finding {
    let name = "engine (node.io)";
    let (verdict, detail, fix) = match (&choice.fallback, choice.kind) {
        (Some(fallback), _) => {
            (Verdict::Advice, format!("epoll, because {}", fallback.cause()), fallback.fix())
        }
        (None, Kind::Uring) => (Verdict::Good, "io_uring".to_owned(), String::new()),
        (None, Kind::Epoll) => (Verdict::Good, "epoll, as configured".to_owned(), String::new()),
    };
    Finding { name, verdict, detail, fix }
}

fn of_sizes(config: &Config, kind: Kind) -> Finding {
    let (verdict, detail) = match engine::sizes(config, kind) {
        Ok(sizes) => {
            (Verdict::Good, format!("{} shards with {} each", config.shards(), sizes.slots))
        }
        Err(why) => (Verdict::Bad, why),
    };
    Finding { name: "connections", verdict, detail, fix: String::new() }
}

fn of_probe(finding: probe::Finding) -> Finding {
    let verdict = match (finding.ok, finding.name.ends_with("(optional)")) {
        (true, _) => Verdict::Good,
        (false, true) => Verdict::Advice,
        (false, false) => Verdict::Bad,
    };
    Finding { name: finding.name, verdict, detail: finding.detail, fix: finding.fix }
}

/// Settings of the host outside the ring; `None` where they cannot be read.
#[derive(Clone, Copy, Debug, Default)]
struct Host {
    hard_files: Option<u64>,
    file_max: Option<u64>,
    somaxconn: Option<u64>,
    /// Bytes; `u64::MAX` is unlimited.
    locked_memory: Option<u64>,
}

impl Host {
    fn read() -> Self {
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            hard_files: limit(&limits, "Max open files", 1),
            file_max: sysctl("fs/file-max"),
            somaxconn: sysctl("net/core/somaxconn"),
            locked_memory: limit(&limits, "Max locked memory", 0),
        }
    }

    fn findings(self) -> Vec<Finding> {
        vec![
            at_least(
                "hard limit of open files",
                self.hard_files,
                FILES_WANTED,
                format!("LimitNOFILE={FILES_WANTED} in the service unit (ulimit -Hn elsewhere)"),
            ),
            at_least(
                "fs.file-max",
                self.file_max,
                FILES_WANTED,
                format!("sysctl -w fs.file-max={FILES_WANTED}, and the same in /etc/sysctl.d/"),
            ),
            at_least(
                "net.core.somaxconn",
                self.somaxconn,
                BACKLOG_WANTED,
                format!("sysctl -w net.core.somaxconn={BACKLOG_WANTED}, and in /etc/sysctl.d/"),
            ),
            at_least(
                "locked memory",
                self.locked_memory,
                LOCKED_WANTED,
                "LimitMEMLOCK=infinity in the service unit (ulimit -l elsewhere)".to_owned(),
            ),
        ]
    }
}

/// None of these keeps the gateway from running; they bound how far it goes.
fn at_least(name: &'static str, found: Option<u64>, wanted: u64, fix: String) -> Finding {
    let (verdict, detail, fix) = match found {
        None => (Verdict::Advice, "cannot be read".to_owned(), String::new()),
        Some(u64::MAX) => (Verdict::Good, "unlimited".to_owned(), String::new()),
        Some(found) if found >= wanted => (Verdict::Good, found.to_string(), String::new()),
        Some(found) => (Verdict::Advice, format!("{found}; {wanted} or more is better"), fix),
    };
    Finding { name, verdict, detail, fix }
}

fn sysctl(path: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{path}")).ok()?.trim().parse().ok()
}

/// A value of `/proc/self/limits`: `column` 0 is the soft limit, 1 the hard one.
fn limit(limits: &str, name: &str, column: usize) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match values.split_whitespace().nth(column)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Slots for the trial where the configuration leaves the number to the limits.
const SLOTS_TRIED: u32 = 512;
/// A million connections and everything beside them.
const FILES_WANTED: u64 = 1_048_576;
/// Connections that arrive faster than they are accepted wait here.
const BACKLOG_WANTED: u64 = 4096;
/// What rings and their buffers may pin on kernels that count it.
const LOCKED_WANTED: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Fallback;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max locked memory         unlimited            unlimited            bytes
";

    #[test]
    fn limits_are_read_by_name_and_column() {
        assert_eq!(limit(LIMITS, "Max open files", 0), Some(1024));
        assert_eq!(limit(LIMITS, "Max open files", 1), Some(524_288));
        assert_eq!(limit(LIMITS, "Max locked memory", 0), Some(u64::MAX));
        assert_eq!(limit(LIMITS, "Max cpu time", 0), None);
    }

    #[test]
    fn a_small_value_is_advice_with_its_exact_fix() {
        let host = Host { somaxconn: Some(128), file_max: Some(u64::MAX), ..Host::default() };
        let findings = host.findings();
        let find = |name| findings.iter().find(|finding| finding.name == name).expect("is there");
        let somaxconn = find("net.core.somaxconn");
        assert_eq!(somaxconn.verdict, Verdict::Advice);
        assert!(somaxconn.to_string().contains("fix: sysctl -w net.core.somaxconn=4096"));
        assert_eq!(find("fs.file-max").verdict, Verdict::Good);
        assert_eq!(find("locked memory").detail, "cannot be read");
    }

    #[test]
    fn a_refused_ring_is_advice_as_long_as_epoll_takes_over() {
        let fallen = Choice {
            kind: Kind::Epoll,
            fallback: Some(Fallback::Refused(probe::SetupError::Denied)),
        };
        let finding = of_choice(&fallen);
        assert_eq!(finding.verdict, Verdict::Advice);
        assert!(finding.detail.starts_with("epoll, because io_uring is refused"), "{finding}");
        assert!(finding.fix.contains("seccomp") && !finding.detail.contains("Fix:"), "{finding}");
        let untold = Fallback::Untold { kernel: "6.1.0".to_owned(), protocols: "one".to_owned() };
        let finding = of_choice(&Choice { fallback: Some(untold), ..fallen.clone() });
        assert_eq!(finding.verdict, Verdict::Advice);
        assert!(finding.detail.starts_with("epoll, because io_uring of the kernel 6.1.0"));
        assert!(finding.detail.contains("one") && finding.fix.contains("6.7"), "{finding}");
        assert_eq!(of_choice(&Choice { fallback: None, ..fallen }).verdict, Verdict::Good);
    }

    #[test]
    fn only_what_the_ring_needs_is_bad() {
        let probed = |name, ok| {
            of_probe(probe::Finding { name, ok, detail: String::new(), fix: String::new() }).verdict
        };
        assert_eq!(probed("ring", false), Verdict::Bad);
        assert_eq!(probed("socket commands (optional)", false), Verdict::Advice);
        assert_eq!(probed("ring", true), Verdict::Good);
    }
}
