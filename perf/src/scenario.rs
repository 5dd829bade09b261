//! What the scenarios share: the settings of a run and the ramp of logins.
//!
//! Owns: [`Setup`]. Never: decides what is sent.

pub(crate) mod connect;
pub(crate) mod crowd;
pub(crate) mod exchange;
pub(crate) mod mixed;
pub(crate) mod ramp;
pub(crate) mod traffic;

use crate::check::MIN_PAYLOAD;
use crate::client::{Login, text};
use crate::sample;
use std::fmt;
use std::io;
use std::time::Duration;

/// Why a run ends early, for a person to read.
#[derive(Debug)]
pub(crate) struct Abort(pub String);

impl From<io::Error> for Abort {
    fn from(error: io::Error) -> Self {
        Self(told(&error))
    }
}

/// What the kernel said, and where it is a limit of this machine, what to do about it.
pub(crate) fn told(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => {
            let (_, most) = sample::open_file_limits().unwrap_or_default();
            format!(
                "too few open files: this process may have {most}; raise the limit (ulimit -Hn), \
                 or ask for fewer connections, logins at a time (--concurrency) or rings"
            )
        }
        Some(libc::EADDRNOTAVAIL) => "no port is left towards the server: connect from more \
             addresses of this machine (--bind-addrs), or widen net.ipv4.ip_local_port_range"
            .to_owned(),
        _ => error.to_string(),
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every scenario knows.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub run: u32,
    pub first_user: u32,
    pub qos: u8,
    /// The server acknowledges publishes.
    pub acked: bool,
    /// Messages to absent users are kept by the server.
    pub stores: bool,
    /// The wire carries only text.
    pub text: bool,
    /// Logins in progress at a time.
    pub login_concurrency: usize,
    /// Logins begun per second.
    pub ramp_per_s: Option<f64>,
    pub warm_up: Duration,
    pub duration: Duration,
    /// How long nothing may happen before the server counts as stuck.
    pub patience: Duration,
    /// Whose CPU time and memory to read.
    pub server_pid: Option<u32>,
    /// Threads, each with a ring; `None`: as few as the open-file limit allows.
    pub rings: Option<usize>,
}

impl Setup {
    /// How many bytes are stamped for a payload of `length` on the wire.
    ///
    /// # Errors
    /// If no stamp fits.
    pub(crate) fn payload(&self, length: usize) -> Result<usize, String> {
        let (bytes, form) = match self.text {
            true => (text::bytes_in(length), ", as text"),
            false => (length, ""),
        };
        if bytes < MIN_PAYLOAD {
            return Err(format!(
                "payload {length}{form}: at least {MIN_PAYLOAD} bytes are checked"
            ));
        }
        Ok(bytes)
    }

    pub(crate) fn login(&self, user: u32, group: Option<u32>) -> Login {
        Login { user, group, qos: self.qos, run: self.run }
    }
}

pub(crate) const SECOND: u64 = 1_000_000_000;
/// Longer than servers wait before they send what was not acknowledged again: Ringpost two seconds.
pub(crate) const REPEATS: Duration = Duration::from_millis(2_500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_this_machine_are_told_with_what_to_do() {
        let told = |code| told(&io::Error::from_raw_os_error(code));
        assert!(told(libc::EMFILE).contains("ulimit -Hn"));
        assert!(told(libc::EADDRNOTAVAIL).contains("--bind-addrs"));
        assert!(told(libc::ECONNREFUSED).contains("refused"));
    }
}
