//! Which engine carries the shards on this host, and how large their tables may be.
//!
//! Owns: the choice of `node.io`, and what is said of it in the log, the metrics and the doctor's
//! report. Never: makes the shards' engines (the wiring does).

use std::fmt;

use shards::io::probe::{self, Abilities, SetupError};
use shards::io::{Sizes, sys};
use shards::limits;

use crate::config::Config;
use crate::config::keys::EngineKey;
use crate::gateway::Sample;

/// An engine on the real kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Uring,
    Epoll,
}

/// The engine that is used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) kind: Kind,
    /// Why it is not io_uring, although that was looked for.
    pub(crate) fallback: Option<Fallback>,
}

/// Why `auto` does not take io_uring. The display names the cause and the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    Refused(SetupError),
    /// A ring cannot tell here what has arrived where the receiver cannot say so himself, as some
    /// of these protocols' cannot; epoll can on every kernel.
    Untold {
        kernel: String,
        protocols: String,
    },
}

impl Fallback {
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Refused(error) => error.cause(),
            Self::Untold { kernel, protocols } => format!(
                "io_uring of the kernel {kernel} cannot tell what has reached receivers that \
                 cannot acknowledge, as there are in {protocols}: they would get stored messages \
                 again at every login"
            ),
        }
    }

    pub(crate) fn fix(&self) -> String {
        match self {
            Self::Refused(error) => error.fix(),
            Self::Untold { .. } => {
                "run a kernel of at least 6.7; node.io = \"epoll\" says that this is well so"
                    .to_owned()
            }
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. Fix: {}", self.cause(), self.fix())
    }
}

impl Choice {
    /// What `node.io` comes to on this host, for the protocols that are spoken.
    pub(crate) fn of(config: &Config) -> Self {
        let silent = config.listeners.iter().map(|listener| listener.protocol);
        let mut silent: Vec<&str> =
            silent.filter(|id| id.has_silent_receivers()).map(|id| id.name()).collect();
        silent.sort_unstable();
        silent.dedup();
        Self::choose(config.keys.node.io, &silent, probe::try_ring)
    }

    /// Tries a small ring where `auto` leaves the choice to the host. An error that is no refusal
    /// keeps io_uring: what is short for a ring is mostly short for everything, and is reported
    /// then. `silent`: the protocols with receivers that cannot acknowledge.
    fn choose(
        key: EngineKey,
        silent: &[&str],
        try_ring: impl FnOnce() -> Result<Abilities, SetupError>,
    ) -> Self {
        let uring = Self { kind: Kind::Uring, fallback: None };
        let fallen = |fallback| Self { kind: Kind::Epoll, fallback: Some(fallback) };
        match key {
            EngineKey::Uring => uring,
            EngineKey::Epoll => Self { kind: Kind::Epoll, fallback: None },
            EngineKey::Auto => match try_ring() {
                Err(error) if error.is_refusal() => fallen(Fallback::Refused(error)),
                Ok(Abilities { socket_commands: false }) if !silent.is_empty() => {
                    let (kernel, protocols) = (probe::kernel_version(), silent.join(" and "));
                    fallen(Fallback::Untold { kernel, protocols })
                }
                Ok(_) | Err(_) => uring,
            },
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Uring => "uring",
            Kind::Epoll => "epoll",
        }
    }

    pub(crate) fn samples(&self) -> [Sample; 3] {
        let engine = |kind, name| {
            Sample::gauge("io_engine", "1 for the engine that runs.", u64::from(self.kind == kind))
                .labelled("engine", name)
        };
        let fallback = u64::from(self.fallback.is_some());
        [
            engine(Kind::Uring, "uring"),
            engine(Kind::Epoll, "epoll"),
            Sample::gauge("io_engine_fallback", "1 if io_uring was looked for in vain.", fallback),
        ]
    }
}

/// The sizes of every shard's engine. Raises the soft limit of open files to the hard one.
///
/// # Errors
/// The limit has no room for the connections that are asked for, or for any.
pub(crate) fn sizes(config: &Config, kind: Kind) -> Result<Sizes, String> {
    let limit = sys::raise_file_limit()
        .map_err(|error| format!("the open-file limit cannot be read: {error}"))?
        .soft;
    let largest = match kind {
        // Each ring's table may be as large as the limit, and takes nothing from it.
        Kind::Uring => limit,
        // Every connection of every shard takes a descriptor.
        Kind::Epoll => limit.saturating_sub(other_files(config)) / u64::from(config.shards()),
    };
    let largest = u32::try_from(largest).unwrap_or(u32::MAX).min(SLOTS_MAX);
    let wanted = config.keys.limits.connections_per_shard;
    let slots = if wanted == 0 { largest } else { wanted };
    // The engine keeps one slot per listener whatever it is told.
    let slot_reserve = (slots / 64).clamp(1, 256).max(config.listeners.len() as u32);
    if slots > largest || slots <= slot_reserve {
        let advice = match kind {
            Kind::Uring => "raise it (LimitNOFILE= under systemd) or use more shards",
            Kind::Epoll => {
                "on epoll all shards share it: raise it (LimitNOFILE= under systemd), or allow \
                 io_uring, where each shard has the whole of it"
            }
        };
        let wanted = match wanted {
            0 => String::new(),
            wanted => format!("limits.connections_per_shard = {wanted}, but "),
        };
        return Err(format!(
            "{wanted}the open-file limit of {limit} allows {largest} connections per shard; \
             {advice}"
        ));
    }
    let buffers = match config.keys.limits.buffers_per_shard {
        0 if config.shards() > limits::MANY_SHARDS => limits::SMALL_SHARD_BUFFERS,
        0 => Sizes::default().buffers,
        wanted => wanted,
    };
    Ok(Sizes { slots, slot_reserve, buffers, ..Sizes::default() })
}

/// Descriptors that may be open beside those of connections.
fn other_files(config: &Config) -> u64 {
    let keys = &config.keys;
    let per_shard = config.listeners.len() as u64 + FILES_PER_SHARD;
    u64::from(config.shards()) * per_shard
        + u64::from(keys.groups.pool_max)
        // A database and its log.
        + 2 * u64::from(keys.auth.threads)
        + FILES_OF_PROCESS
}

/// Largest connection table of a shard; more shards serve more connections.
const SLOTS_MAX: u32 = 1 << 18;
/// The epoll set, the wakers of engine and store.
const FILES_PER_SHARD: u64 = 4;
/// Standard streams, the store's files, the control plane's runtime and its connections, of which
/// either door has at most 256.
const FILES_OF_PROCESS: u64 = 576;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_engine_runs_and_a_fallback_is_told_from_a_choice() {
        let figures = |choice: &Choice| choice.samples().map(|sample| sample.figure);
        let chosen = choose(EngineKey::Epoll, &[], Err(SetupError::Denied));
        let fallen = choose(EngineKey::Auto, &[], Err(SetupError::Denied));
        let values = |choice| format!("{:?}", figures(choice));
        assert_eq!(values(&chosen), "[Gauge(0), Gauge(1), Gauge(0)]");
        assert_eq!(values(&fallen), "[Gauge(0), Gauge(1), Gauge(1)]");
        assert_eq!(values(&choose(EngineKey::Uring, &[], TELLS)), "[Gauge(1), Gauge(0), Gauge(0)]");
    }

    const TELLS: Result<Abilities, SetupError> = Ok(Abilities { socket_commands: true });
    const CANNOT_TELL: Result<Abilities, SetupError> = Ok(Abilities { socket_commands: false });

    fn choose(key: EngineKey, silent: &[&str], probed: Result<Abilities, SetupError>) -> Choice {
        Choice::choose(key, silent, || probed)
    }

    #[test]
    fn auto_leaves_io_uring_only_for_a_refusal_or_for_receivers_that_it_cannot_see() {
        let silent = ["one", "other"];
        let short = || Err(SetupError::Memory { step: "making the ring" });
        for (silent, probed, kind) in [
            (&silent[..], TELLS, Kind::Uring),
            (&[], TELLS, Kind::Uring),
            (&[], CANNOT_TELL, Kind::Uring),
            (&silent, CANNOT_TELL, Kind::Epoll),
            (&silent, short(), Kind::Uring),
            (&[], Err(SetupError::Denied), Kind::Epoll),
        ] {
            let choice = choose(EngineKey::Auto, silent, probed.clone());
            assert_eq!(choice.kind, kind, "{silent:?} {probed:?}");
            assert_eq!(choice.fallback.is_some(), kind == Kind::Epoll, "{choice:?}");
        }
        // What is asked for is taken, whatever the host offers.
        for probed in [TELLS, CANNOT_TELL, Err(SetupError::Denied)] {
            for (key, kind) in [(EngineKey::Uring, Kind::Uring), (EngineKey::Epoll, Kind::Epoll)] {
                let expected = Choice { kind, fallback: None };
                assert_eq!(choose(key, &silent, probed.clone()), expected);
            }
        }
    }

    #[test]
    fn a_fallback_for_silent_receivers_names_kernel_protocols_and_fix() {
        let choice = choose(EngineKey::Auto, &["one", "other"], CANNOT_TELL);
        let said = choice.fallback.expect("epoll for a reason").to_string();
        for part in [&probe::kernel_version(), "one and other", "again", "6.7"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
