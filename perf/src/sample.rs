//! What a run costs, read from `/proc`: the server's CPU time and memory, the kernel's memory for
//! sockets, our own CPU time.
//!
//! Owns: the readings and their units. Never: decides what a figure means, never sleeps. Counters
//! are cumulative: the difference of two readings is what happened between them.

use procfs::process::{LimitValue, Process};
use procfs::{Current, Meminfo, ProcError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

/// One point of a run's time series, taken about once a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the start of the run.
    pub at_s: f64,
    pub phase: String,
    /// Connections that are logged in now.
    pub connections: u64,
    /// Logins since the start.
    pub logins: u64,
    /// Messages since the start.
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,
    /// p50, p90 and p99 of what was delivered since the previous sample, in microseconds.
    pub latency_us: Option<[f64; 3]>,
    /// The same of the senders' acknowledgements.
    pub ack_us: Option<[f64; 3]>,
    /// `None` without `--server-pid`, or when the server was gone.
    pub server: Option<ServerSample>,
    pub host: HostSample,
    /// CPU time of the load tool, all threads.
    pub load_cpu_s: f64,
}

/// What the server process used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerSample {
    /// CPU time in user mode of all threads, those that ended included; ticks of 10 ms.
    pub user_s: f64,
    /// The same in kernel mode.
    pub system_s: f64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Resident memory that no file backs: heap, stacks, rings.
    pub anon_bytes: u64,
    pub threads: u64,
    /// Open files; `None` if another user's process may not be asked. Direct descriptors of a ring
    /// are not among them.
    pub fds: Option<u64>,
}

/// What the machine, all processes together, uses at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostSample {
    /// The kernel's object caches: sockets, files, timers.
    pub slab_bytes: u64,
    /// What the TCP stack holds in buffers (pages of `/proc/net/sockstat`).
    pub socket_bytes: u64,
    /// TCP sockets in use, IPv4 and IPv6, both ends where both are here.
    pub sockets_in_use: u64,
    pub mem_available_bytes: u64,
    /// Open files of all processes.
    pub files_allocated: u64,
}

/// Everything that a [`Sampler`] reads at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// `None` if no server was named.
    pub server: Option<ServerSample>,
    pub host: HostSample,
    /// CPU time of this process, all threads.
    pub load_cpu_s: f64,
}

/// What a thread of this process had until now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Thread {
    /// Time on a processor.
    pub ran_s: f64,
    /// Time that it could have run and had none.
    pub waited_s: f64,
}

/// By thread number.
pub(crate) type Threads = BTreeMap<i32, Thread>;

/// Reads one server process, this process and the machine.
#[derive(Debug)]
pub(crate) struct Sampler {
    own: Process,
    server: Option<Process>,
}

impl Sampler {
    /// # Errors
    /// If there is no process `server_pid`, or it may not be read.
    pub(crate) fn new(server_pid: Option<u32>) -> io::Result<Self> {
        let own = Process::myself().map_err(|error| failed("this process", error))?;
        let server = server_pid.map(process).transpose()?;
        let sampler = Self { own, server };
        sampler.sample()?;
        Ok(sampler)
    }

    /// # Errors
    /// If the server has ended, which its process number going to another process does not hide.
    /// [`Self::without_server`] goes on with the rest.
    pub(crate) fn sample(&self) -> io::Result<Reading> {
        let own = self.own.stat().map_err(|error| failed("this process", error))?;
        Ok(Reading {
            server: self.server.as_ref().map(server_sample).transpose()?,
            host: host_sample()?,
            load_cpu_s: seconds(own.utime) + seconds(own.stime),
        })
    }

    /// The threads of this process; none where the kernel keeps no account of them.
    pub(crate) fn threads(&self) -> Threads {
        let tasks = self.own.tasks().into_iter().flatten().flatten();
        let read = tasks.filter_map(|task| {
            let of = task.schedstat().ok()?;
            let (ran_s, waited_s) = (of.sum_exec_runtime as f64 / NS, of.run_delay as f64 / NS);
            Some((task.tid, Thread { ran_s, waited_s }))
        });
        read.collect()
    }

    pub(crate) fn without_server(self) -> Self {
        Self { server: None, ..self }
    }
}

/// How many files this process may have open: the soft and the hard limit.
pub(crate) fn open_file_limits() -> io::Result<(u64, u64)> {
    let limits = Process::myself().and_then(|own| own.limits());
    let files = limits.map_err(|error| failed("this process's limits", error))?.max_open_files;
    let number = |limit| match limit {
        LimitValue::Unlimited => u64::MAX,
        LimitValue::Value(value) => value,
    };
    Ok((number(files.soft_limit), number(files.hard_limit)))
}

/// # Errors
/// If there is no process `pid`, or it may not be read.
pub(crate) fn process(pid: u32) -> io::Result<Process> {
    let number = i32::try_from(pid).unwrap_or(i32::MAX);
    Process::new(number).map_err(|error| failed(&format!("process {pid}"), error))
}

fn server_sample(process: &Process) -> io::Result<ServerSample> {
    let name = || format!("process {}", process.pid());
    let stat = process.stat().map_err(|error| failed(&name(), error))?;
    let status = process.status().map_err(|error| failed(&name(), error))?;
    // A process that ended but was not waited for has no memory any more.
    let Some(rss_kib) = status.vmrss else {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} has ended", name())));
    };
    Ok(ServerSample {
        user_s: seconds(stat.utime),
        system_s: seconds(stat.stime),
        rss_bytes: rss_kib * KIB,
        anon_bytes: status.rssanon.unwrap_or_default() * KIB,
        threads: status.threads,
        fds: process.fd_count().ok().map(|count| count as u64),
    })
}

fn host_sample() -> io::Result<HostSample> {
    let memory = Meminfo::current().map_err(|error| failed("/proc/meminfo", error))?;
    let files = procfs::sys::fs::file_nr().map_err(|error| failed("file-nr", error))?;
    let sockets = |path| Some(parse_sockstat(&std::fs::read_to_string(path).ok()?));
    let v4 = sockets("/proc/net/sockstat").unwrap_or_default();
    // The memory in the first file is of both families. Without IPv6 there is no second one.
    let v6 = sockets("/proc/net/sockstat6").unwrap_or_default();
    Ok(HostSample {
        slab_bytes: memory.slab,
        socket_bytes: v4.memory_pages * procfs::page_size(),
        sockets_in_use: v4.in_use + v6.in_use,
        mem_available_bytes: memory.mem_available.unwrap_or(memory.mem_free),
        files_allocated: files.allocated,
    })
}

#[derive(Debug, Default, PartialEq)]
struct Sockstat {
    in_use: u64,
    memory_pages: u64,
}

/// The line `TCP: inuse 5 orphan 0 tw 2 alloc 8 mem 1`; `TCP6: inuse 2` has the first figure only.
fn parse_sockstat(text: &str) -> Sockstat {
    let lines = ["TCP:", "TCP6:"];
    let line = text.lines().find(|line| lines.iter().any(|name| line.starts_with(name)));
    let words: Vec<_> = line.unwrap_or_default().split_ascii_whitespace().skip(1).collect();
    let value = |name| {
        let pair = words.chunks_exact(2).find(|pair| pair[0] == name);
        pair.and_then(|pair| pair[1].parse().ok()).unwrap_or(0)
    };
    Sockstat { in_use: value("inuse"), memory_pages: value("mem") }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}

fn failed(what: &str, error: ProcError) -> io::Error {
    let (kind, why) = match error {
        ProcError::NotFound(_) => (io::ErrorKind::NotFound, "is not there".to_owned()),
        ProcError::PermissionDenied(_) => {
            (io::ErrorKind::PermissionDenied, "may not be read".to_owned())
        }
        // A process that went away between the opening of its folder and the reading.
        ProcError::Io(error, _) if error.raw_os_error() == Some(libc::ESRCH) => {
            (io::ErrorKind::NotFound, "has ended".to_owned())
        }
        // Ours to answer for, not that process's.
        ProcError::Io(error, _)
            if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) =>
        {
            return error;
        }
        other => (io::ErrorKind::Other, format!("cannot be read: {other}")),
    };
    io::Error::new(kind, format!("{what} {why}"))
}

const KIB: u64 = 1024;
const NS: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_reading_of_this_process_has_every_figure() {
        let sampler = Sampler::new(Some(std::process::id())).expect("this process");
        let reading = sampler.sample().expect("a reading");
        let server = reading.server.expect("a server was named");
        assert!(server.rss_bytes >= server.anon_bytes && server.anon_bytes > 0);
        assert!(server.threads > 0 && server.fds.is_some_and(|fds| fds >= 3));
        assert!(reading.host.slab_bytes > 0 && reading.host.mem_available_bytes > 0);
        assert!(reading.host.files_allocated > 0);
        let (soft, hard) = open_file_limits().expect("limits");
        assert!(0 < soft && soft <= hard);
    }

    #[test]
    fn a_thread_that_works_is_told_from_the_others() {
        let sampler = Sampler::new(None).expect("this process");
        let before = sampler.threads();
        let busy = |threads: &Threads| {
            let ran = |(tid, now): (&i32, &Thread)| {
                now.ran_s - before.get(tid).map_or(0.0, |before| before.ran_s)
            };
            threads.iter().map(ran).fold(0.0, f64::max)
        };
        // Works until the kernel says so; it accounts in ticks at the latest.
        while busy(&sampler.threads()) < 0.02 {}
        assert!(before.values().all(|thread| thread.ran_s >= 0.0 && thread.waited_s >= 0.0));
    }

    #[test]
    fn a_server_that_ends_is_an_error_before_and_after_it_is_waited_for() {
        let mut server =
            Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat is everywhere");
        let sampler = Sampler::new(Some(server.id())).expect("it runs");
        assert!(sampler.sample().expect("it runs").server.is_some());

        server.kill().expect("it runs");
        // It stays a zombie until the wait; killing is not instantaneous.
        while sampler.sample().is_ok() {
            std::thread::yield_now();
        }
        let zombie = sampler.sample().expect_err("it has ended");
        assert!(zombie.to_string().contains("has ended"), "{zombie}");

        server.wait().expect("it was killed");
        let gone = sampler.sample().expect_err("it is gone");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound, "{gone}");
        assert!(gone.to_string().contains(&server.id().to_string()), "{gone}");

        let rest = sampler.without_server().sample().expect("the rest is still there");
        assert_eq!(rest.server, None);
    }

    #[test]
    fn a_process_that_never_was_is_refused() {
        for pid in [u32::MAX, i32::MAX as u32] {
            let error = Sampler::new(Some(pid)).expect_err("no such process");
            assert!(error.to_string().contains(&pid.to_string()), "{error}");
        }
    }

    #[test]
    fn socket_figures_are_found_by_name() {
        let v4 = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 2 alloc 8 mem 3\nUDP: inuse 1 mem 7\n";
        assert_eq!(parse_sockstat(v4), Sockstat { in_use: 5, memory_pages: 3 });
        let v6 = "TCP6: inuse 2\nUDP6: inuse 1\n";
        assert_eq!(parse_sockstat(v6), Sockstat { in_use: 2, memory_pages: 0 });
        assert_eq!(parse_sockstat("TCP: inuse x mem"), Sockstat::default());
    }
}
