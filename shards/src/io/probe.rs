//! What this host's kernel offers a ring, and what to do where it does not.
//!
//! Owns: the creation of rings, so that every refusal gets its cause and its fix in one place.
//! Never: keeps a ring.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::thread;

use io_uring::{IoUring, Probe, opcode};

use crate::io::Errno;
use crate::io::bufs::BufPool;
use crate::io::sys;

/// Why a ring could not be made. The display names the cause and the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// `kernel.io_uring_disabled` is 1 (and we are not in its group) or 2.
    Disabled { level: u8 },
    /// EPERM or EACCES without that setting: seccomp, a container, a security module.
    Denied,
    /// A required feature is missing.
    TooOld { kernel: String, missing: &'static str },
    /// No memory for the ring or its buffers.
    Memory { step: &'static str },
    /// The slot table is larger than the limit of open files allows.
    FileTable { asked: u32, most: u64, hard: u64 },
    /// The sizes contradict each other.
    Config(&'static str),
    /// Anything else the kernel said.
    Kernel { step: &'static str, error: Errno },
}

impl SetupError {
    pub(crate) fn at(step: &'static str, error: &io::Error) -> Self {
        match error.raw_os_error().unwrap_or(libc::EIO) {
            libc::EPERM | libc::EACCES => match disabled_level() {
                level @ (1 | 2) => Self::Disabled { level },
                _ => Self::Denied,
            },
            _ => Self::of(step, error),
        }
    }

    /// An error that has nothing to do with io_uring.
    pub(crate) fn of(step: &'static str, error: &io::Error) -> Self {
        match error.raw_os_error().unwrap_or(libc::EIO) {
            libc::ENOMEM => Self::Memory { step },
            error => Self::Kernel { step, error: Errno(error) },
        }
    }

    /// The kernel refuses rings or lacks what we need of them: epoll works there all the same.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Disabled { .. } | Self::Denied | Self::TooOld { .. })
    }

    fn too_old(missing: &'static str) -> Self {
        Self::TooOld { kernel: kernel_version(), missing }
    }

    /// What is in the way.
    pub fn cause(&self) -> String {
        match self {
            Self::Disabled { level } => {
                format!("io_uring is switched off: kernel.io_uring_disabled is {level}")
            }
            Self::Denied => {
                "io_uring is refused to this process (seccomp, container or security module)".into()
            }
            Self::TooOld { kernel, missing } => {
                format!("the kernel {kernel} lacks {missing}; {BASELINE} is the oldest supported")
            }
            Self::Memory { step } => format!("out of memory while {step}"),
            Self::FileTable { asked, most, .. } => {
                format!(
                    "a table of {asked} slots exceeds the limit of open files: at most {most} here"
                )
            }
            Self::Config(what) => (*what).into(),
            Self::Kernel { step, error } => {
                format!("{} while {step}", io::Error::from_raw_os_error(error.0))
            }
        }
    }

    /// What the operator can do about it.
    pub fn fix(&self) -> String {
        match self {
            Self::Disabled { .. } => {
                "sysctl -w kernel.io_uring_disabled=0, and the same line in /etc/sysctl.d/".into()
            }
            Self::Denied => "allow io_uring_setup, io_uring_enter and io_uring_register in the \
                 container's seccomp profile (docker: --security-opt seccomp=<profile>), or run \
                 outside the container"
                .into(),
            Self::TooOld { .. } => {
                format!("run a kernel of at least {BASELINE} (Debian 12 and later)")
            }
            Self::Memory { .. } => "give the service more memory (MemoryMax=) and locked memory \
                 (LimitMEMLOCK=infinity), or configure fewer buffers and smaller rings"
                .into(),
            Self::FileTable { asked, most, hard } if u64::from(*asked) <= *hard => {
                format!("raise the soft limit of open files from {most} to {asked} (ulimit -n)")
            }
            Self::FileTable { asked, most, .. } => format!(
                "LimitNOFILE={asked} in the service unit (ulimit -Hn elsewhere), or at most \
                 {most} slots per shard and more shards"
            ),
            Self::Config(_) => "correct the configuration".into(),
            Self::Kernel { .. } => {
                format!("report it with the kernel version {}", kernel_version())
            }
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. Fix: {}", self.cause(), self.fix())
    }
}

impl Error for SetupError {}

/// One line of the doctor's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
    /// Empty where nothing needs fixing.
    pub fix: String,
}

impl Finding {
    fn good(name: &'static str, detail: String) -> Self {
        Self { name, ok: true, detail, fix: String::new() }
    }

    fn bad(name: &'static str, detail: String, fix: String) -> Self {
        Self { name, ok: false, detail, fix }
    }

    fn of(name: &'static str, result: Result<String, SetupError>) -> Self {
        match result {
            Ok(detail) => Self::good(name, detail),
            Err(error) => Self::bad(name, error.cause(), error.fix()),
        }
    }
}

/// Looks at everything a ring with `slots` slots needs. Makes and drops a small ring.
pub fn findings(slots: u32) -> Vec<Finding> {
    let mut findings = vec![
        Finding::good("kernel", kernel_version()),
        match disabled_level() {
            0 => Finding::good("io_uring_disabled", "0".into()),
            level => {
                let error = SetupError::Disabled { level };
                Finding::bad("io_uring_disabled", level.to_string(), error.fix())
            }
        },
        Finding::of("open files", check_slots(slots)),
    ];
    match build(8, 16) {
        Ok(ring) => {
            findings.push(Finding::good("ring", "all required operations".into()));
            findings.push(Finding::of(
                "slot table",
                register_slots(&ring, slots).map(|()| format!("{slots} slots")),
            ));
            findings.push(Finding::of("receive buffers", try_buffers()));
            findings.push(socket_commands(&ring));
        }
        Err(error) => findings.push(Finding::of("ring", Err(error))),
    }
    findings
}

/// The slots the current limit of open files allows in one ring.
pub fn most_slots() -> u64 {
    sys::file_limit().map_or(0, |limit| limit.soft.min(TABLE))
}

/// What rings can do here beyond all that we need of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// They can tell what of a connection's output its peer has not received
    /// ([`crate::io::Io::unsent`]): without that, nothing confirms a delivery to a receiver that
    /// cannot acknowledge.
    pub socket_commands: bool,
}

/// Finds out whether this process may have rings that do all we need. Makes and drops small ones,
/// on a thread of its own: the end of a ring reaches the thread that made it like a signal, and
/// would interrupt whatever it waits for by then.
///
/// # Errors
/// It may not, or something else is in the way: [`SetupError::is_refusal`] tells.
pub fn try_ring() -> Result<Abilities, SetupError> {
    let probing = thread::Builder::new().spawn(try_ring_here);
    let probing = probing.map_err(|error| SetupError::of("starting a thread", &error))?;
    probing.join().unwrap_or(Err(SetupError::Config("the probe of io_uring panicked")))
}

fn try_ring_here() -> Result<Abilities, SetupError> {
    let ring = build(8, 16)?;
    register_slots(&ring, 8)?;
    // A policy may allow all but `io_uring_enter`.
    let submitted = ring.submit_and_wait(0);
    submitted.map_err(|error| SetupError::at("entering the ring", &error))?;
    try_buffers()?;
    Ok(Abilities { socket_commands: has_socket_commands(&ring) })
}

/// Makes a ring for the calling thread and checks that it can do what we need.
pub(crate) fn build(entries: u32, cq_entries: u32) -> Result<IoUring, SetupError> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(cq_entries)
        .build(entries)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSYS) => SetupError::too_old("io_uring"),
            Some(libc::EINVAL) => SetupError::too_old("io_uring with DEFER_TASKRUN"),
            _ => SetupError::at("making the ring", &error),
        })?;
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe);
    probed.map_err(|error| SetupError::at("asking for its operations", &error))?;
    for (code, name) in REQUIRED {
        if !probe.is_supported(code) {
            return Err(SetupError::too_old(name));
        }
    }
    if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
        return Err(SetupError::too_old("completions that are never dropped and timed waits"));
    }
    let workers = ring.submitter().register_iowq_max_workers(&mut { WORKERS });
    workers.map_err(|error| SetupError::at("limiting the kernel's workers", &error))?;
    Ok(ring)
}

/// Gives a ring its table of slots.
pub(crate) fn register_slots(ring: &IoUring, slots: u32) -> Result<(), SetupError> {
    check_slots(slots)?;
    let registered = ring.submitter().register_files_sparse(slots);
    registered.map_err(|error| SetupError::at("registering the slot table", &error))
}

fn check_slots(slots: u32) -> Result<String, SetupError> {
    let limit = sys::file_limit();
    let limit = limit.map_err(|error| SetupError::at("reading the limit of open files", &error))?;
    let (most, hard) = (limit.soft.min(TABLE), limit.hard.min(TABLE));
    if u64::from(slots) > most {
        return Err(SetupError::FileTable { asked: slots, most, hard });
    }
    Ok(format!("{} (hard {}), {slots} slots asked", limit.soft, limit.hard))
}

fn try_buffers() -> Result<String, SetupError> {
    let ring = build(8, 16)?;
    let step = "registering receive buffers";
    let pool = BufPool::new(4, 4096).map_err(|error| SetupError::at(step, &error))?;
    match pool.check(ring) {
        Ok(()) => Ok("buffer ring".into()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err(SetupError::too_old("provided buffer rings"))
        }
        Err(error) => Err(SetupError::at(step, &error)),
    }
}

/// Socket commands came with 6.7.
fn has_socket_commands(ring: &IoUring) -> bool {
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe).is_ok();
    probed && probe.is_supported(opcode::UringCmd16::CODE) && kernel_at_least(6, 7)
}

fn socket_commands(ring: &IoUring) -> Finding {
    let name = "socket commands (optional)";
    if has_socket_commands(ring) {
        return Finding::good(name, "SIOCOUTQ".into());
    }
    let detail = format!(
        "the kernel {} cannot tell what a peer has not received: for those who cannot acknowledge \
         messages stay in the store",
        kernel_version()
    );
    Finding::bad(name, detail, "a kernel of at least 6.7, or node.io = \"epoll\"".into())
}

fn disabled_level() -> u8 {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The release of the running kernel.
pub fn kernel_version() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if text.is_empty() { "(unknown)".into() } else { text.trim().into() }
}

pub(crate) fn kernel_at_least(major: u32, minor: u32) -> bool {
    parse_version(&kernel_version()).is_some_and(|version| version >= (major, minor))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Largest table of any ring, whatever the limit of open files.
const TABLE: u64 = 1 << 20;
/// Kernel threads of one ring, for work that ends soon and work that may not. Only SHUTDOWN needs
/// them; 4 per processor, the default, would be many with a ring on each.
const WORKERS: [u32; 2] = [2, 1];
/// The oldest kernel all of this is made for.
const BASELINE: &str = "6.1";

const REQUIRED: [(u8, &str); 10] = [
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Read::CODE, "READ"),
    (opcode::Shutdown::CODE, "SHUTDOWN"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::MsgRingData::CODE, "MSG_RING"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_passes_and_an_impossible_table_names_the_possible_one() {
        assert!(findings(64).iter().all(|finding| finding.ok), "{:#?}", findings(64));
        let most = most_slots();
        let asked = u32::try_from(most + 1).expect("a limit of open files below 2^32");
        let finding = findings(asked).into_iter().find(|finding| !finding.ok);
        let finding = finding.expect("more slots than files");
        assert!(finding.detail.contains(&format!("at most {most}")), "{finding:?}");
        assert!(finding.fix.contains(&asked.to_string()), "{finding:?}");
    }

    #[test]
    fn every_refusal_names_its_cause_and_its_fix() {
        let at = |code| SetupError::at("making the ring", &io::Error::from_raw_os_error(code));
        if disabled_level() == 0 {
            assert!(at(libc::EPERM).to_string().contains("seccomp"));
        }
        assert!(at(libc::ENOMEM).to_string().contains("LimitMEMLOCK"));
        assert!(at(libc::EINVAL).to_string().contains("Invalid argument"));
        let off = SetupError::Disabled { level: 2 }.to_string();
        assert!(off.contains("io_uring_disabled is 2") && off.contains("sysctl -w"), "{off}");
        let old = SetupError::too_old("MSG_RING").to_string();
        assert!(old.contains(&kernel_version()) && old.contains("lacks MSG_RING"), "{old}");
        let soft = SetupError::FileTable { asked: 9, most: 5, hard: 10 }.to_string();
        let hard = SetupError::FileTable { asked: 19, most: 5, hard: 10 }.to_string();
        assert!(soft.contains("soft limit") && hard.contains("LimitNOFILE=19"), "{soft} {hard}");
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse_version("6.1"), Some((6, 1)));
        assert_eq!(parse_version("linux"), None);
        assert!(kernel_at_least(6, 1) && !kernel_at_least(999, 0));
    }
}
