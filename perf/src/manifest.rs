//! What a run was made on and with, so that a report can be read a year later.
//!
//! Owns: the facts. Never: measures anything, never starts a program. A fact that this kernel does
//! not tell is empty, not an error: a run is not worth less for it.

use crate::sample;
use procfs::process::{Process, Status};
use procfs::{Current, Meminfo};
use serde::{Deserialize, Serialize};
use std::io;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The facts of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// When the run began, in UTC.
    pub date: String,
    /// The same in seconds since 1970: what lines up the parts of one run.
    pub start_unix_s: f64,
    /// The kernel's release.
    pub kernel: String,
    pub cpu_model: String,
    /// Cores of the machine.
    pub cores: u64,
    /// Cores that the load tool may use, as in `0,2-3`.
    pub load_affinity: String,
    pub memory_bytes: u64,
    /// RLIMIT_NOFILE of the load tool: soft and hard; `u64::MAX` is unlimited.
    pub open_files_soft: u64,
    pub open_files_hard: u64,
    /// The kernel's `fs.file-max`.
    pub file_max: u64,
    /// The kernel's `net.ipv4.ip_local_port_range`.
    pub port_range: String,
    /// The kernel's `net.ipv4.tcp_mem`, in pages.
    pub tcp_mem: String,
    /// Version of ringpost-perf.
    pub version: String,
    /// The revision of the tree that ringpost-perf was built from; empty if built without git.
    pub revision: String,
    /// The command line.
    pub command: String,
    /// As whoever started the run says (`--server-version`); empty if he did not.
    #[serde(default)]
    pub server_version: String,
    pub server: Option<ServerManifest>,
}

/// The facts of the server process. Its program is not run to ask for a version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerManifest {
    pub pid: u32,
    /// The program's file name.
    pub executable: String,
    /// Size and time of change of the program's file, which tell one build from another; 0 and
    /// empty where it may not be read.
    #[serde(default)]
    pub executable_bytes: u64,
    #[serde(default)]
    pub executable_date: String,
    pub command: String,
    /// Cores that its main thread may use.
    pub affinity: String,
}

impl Manifest {
    /// # Errors
    /// If `server_pid` is given and cannot be read.
    pub(crate) fn read(server_pid: Option<u32>) -> io::Result<Self> {
        let own = Process::myself().and_then(|own| own.status()).ok();
        let (open_files_soft, open_files_hard) = sample::open_file_limits().unwrap_or_default();
        let cpu = procfs::CpuInfo::current().ok();
        let model = cpu.as_ref().and_then(|cpu| Some(cpu.model_name(0)?.to_owned()));
        let now = OffsetDateTime::now_utc();
        Ok(Self {
            date: date(now),
            start_unix_s: now.unix_timestamp_nanos() as f64 / 1e9,
            kernel: kernel("kernel/osrelease"),
            cpu_model: model.unwrap_or_default(),
            cores: cpu.map_or(0, |cpu| cpu.num_cores() as u64),
            load_affinity: own.as_ref().map(affinity).unwrap_or_default(),
            memory_bytes: Meminfo::current().map_or(0, |memory| memory.mem_total),
            open_files_soft,
            open_files_hard,
            file_max: procfs::sys::fs::file_max().map_or(0, |files| files as u64),
            port_range: kernel("net/ipv4/ip_local_port_range"),
            tcp_mem: kernel("net/ipv4/tcp_mem"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("PERF_REVISION").to_owned(),
            command: std::env::args_os()
                .map(|word| quoted(&word.to_string_lossy()))
                .collect::<Vec<_>>()
                .join(" "),
            server_version: String::new(),
            server: server_pid.map(ServerManifest::read).transpose()?,
        })
    }

    /// One line for people: date, machine, kernel, version.
    pub(crate) fn summary(&self) -> String {
        let gib = self.memory_bytes as f64 / (1u64 << 30) as f64;
        let revision = match self.revision.as_str() {
            "" => String::new(),
            revision => format!(" ({revision})"),
        };
        format!(
            "{}, {} x {}, {gib:.1} GiB, Linux {}, ringpost-perf {}{revision}",
            self.date, self.cores, self.cpu_model, self.kernel, self.version
        )
    }
}

impl ServerManifest {
    fn read(pid: u32) -> io::Result<Self> {
        let process = sample::process(pid)?;
        let name = process
            .exe()
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        // Another user's program may hide its path; its short name is public.
        let name = name.or_else(|| Some(process.stat().ok()?.comm));
        let words = process.cmdline().unwrap_or_default();
        // The file that runs, also when another one has taken its place.
        let file = std::fs::metadata(format!("/proc/{pid}/exe")).ok();
        let changed = file.as_ref().and_then(|file| file.modified().ok());
        Ok(Self {
            pid,
            executable: name.unwrap_or_default(),
            executable_bytes: file.as_ref().map_or(0, std::fs::Metadata::len),
            executable_date: changed.map(|time| date(time.into())).unwrap_or_default(),
            command: words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
            affinity: process.status().as_ref().map(affinity).unwrap_or_default(),
        })
    }
}

fn date(time: OffsetDateTime) -> String {
    time.truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

/// A file of `/proc/sys` as one line.
fn kernel(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn affinity(status: &Status) -> String {
    let ranges = status.cpus_allowed_list.iter().flatten().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// A word of a command line such that a shell reads it back as one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_of_this_machine_is_told() {
        let pid = std::process::id();
        let manifest = Manifest::read(Some(pid)).expect("this process");
        let server = manifest.server.as_ref().expect("a server was named");
        for (what, fact) in [
            ("date", &manifest.date),
            ("kernel", &manifest.kernel),
            ("affinity", &manifest.load_affinity),
            ("ports", &manifest.port_range),
            ("tcp_mem", &manifest.tcp_mem),
            ("version", &manifest.version),
            ("command", &manifest.command),
            ("executable", &server.executable),
            ("executable's date", &server.executable_date),
            ("server's command", &server.command),
            ("server's affinity", &server.affinity),
        ] {
            assert!(!fact.is_empty(), "{what} of {manifest:?}");
        }
        assert!(manifest.cores > 0 && manifest.memory_bytes > 0 && manifest.file_max > 0);
        assert!(server.executable_bytes > 0 && !server.executable.contains('/'));
        assert_eq!((manifest.date.len(), server.pid), ("2026-01-01T00:00:00Z".len(), pid));
        assert_eq!(manifest.load_affinity, server.affinity, "they are the same process");
        assert!(manifest.summary().contains(&manifest.kernel));
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error() {
        assert!(Manifest::read(Some(u32::MAX)).is_err());
    }

    #[test]
    fn a_command_line_reads_back_word_by_word() {
        assert_eq!(quoted("--url=ws://127.0.0.1:1/ws"), "--url=ws://127.0.0.1:1/ws");
        assert_eq!(quoted("two words"), "'two words'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
