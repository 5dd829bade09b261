//! CPU time and memory of a process, as `/proc` tells them.
//!
//! Owns: parsing. Never: decides what a figure means.

use std::fs;
use std::io;

/// CPU time of all threads of a process, those that ended included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    pub user_s: f64,
    pub system_s: f64,
}

impl Cpu {
    /// `pid` is a number or `self`.
    pub(crate) fn of(pid: &str) -> io::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        parse_stat(&read(&path)?).ok_or_else(|| unreadable(&path))
    }

    pub(crate) fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { user_s: self.user_s - before.user_s, system_s: self.system_s - before.system_s }
    }
}

/// Resident memory of a process in bytes.
pub(crate) fn rss(pid: &str) -> io::Result<u64> {
    let path = format!("/proc/{pid}/status");
    parse_rss(&read(&path)?).ok_or_else(|| unreadable(&path))
}

/// How many files this process may have open.
pub(crate) fn open_file_limit() -> io::Result<u64> {
    let path = "/proc/self/limits";
    parse_file_limit(&read(path)?).ok_or_else(|| unreadable(path))
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

fn unreadable(path: &str) -> io::Error {
    io::Error::other(format!("{path} is not in the expected form"))
}

fn parse_stat(stat: &str) -> Option<Cpu> {
    // The second field is the name in parentheses and may hold anything, spaces too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(UTIME - 3);
    let mut seconds = || Some(fields.next()?.parse::<u64>().ok()? as f64 / TICKS_PER_SECOND);
    Some(Cpu { user_s: seconds()?, system_s: seconds()? })
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn parse_file_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_ascii_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

/// `utime` is field 14 of proc_pid_stat(5), counted from 1; `stime` follows.
const UTIME: usize = 14;
/// USER_HZ: 100 on every Linux architecture Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_anything() {
        let stat = "7 (a) b (c)) S 1 1 1 0 -1 4194304 9 0 0 0 250 1250 3 4 20 0 1 0";
        assert_eq!(parse_stat(stat), Some(Cpu { user_s: 2.5, system_s: 12.5 }));
        assert_eq!(parse_stat("7 (a) S 1 1"), None);
    }

    #[test]
    fn memory_and_limits_are_found_in_their_lines() {
        assert_eq!(parse_rss("Name:\tx\nVmRSS:\t    1234 kB\nRssAnon: 7 kB\n"), Some(1234 * 1024));
        assert_eq!(parse_rss("Name:\tx\n"), None);
        let limits = "Limit  Soft Limit\nMax open files            20000   30000   files\n";
        assert_eq!(parse_file_limit(limits), Some(20_000));
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(Cpu::of("self").expect("stat").total_s() >= 0.0);
        assert!(rss("self").expect("status") > 0);
        assert!(open_file_limit().expect("limits") > 0);
    }
}
