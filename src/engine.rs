//! Which engine carries the shards on this host, and how large their tables may be.
//!
//! Owns: the choice of `node.io`, and what is said of it in the log, the metrics and the doctor's
//! report. Never: makes the shards' engines (the wiring does).

use shards::io::probe::{self, SetupError};
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
    pub(crate) fallback: Option<SetupError>,
}

impl Choice {
    /// Tries a small ring where `auto` leaves the choice to the host. Anything but a refusal keeps
    /// io_uring: what is short for a ring is mostly short for everything, and is reported then.
    pub(crate) fn of(key: EngineKey) -> Self {
        match key {
            EngineKey::Uring => Self { kind: Kind::Uring, fallback: None },
            EngineKey::Epoll => Self { kind: Kind::Epoll, fallback: None },
            EngineKey::Auto => match probe::try_ring() {
                Err(error) if error.is_refusal() => {
                    Self { kind: Kind::Epoll, fallback: Some(error) }
                }
                _ => Self { kind: Kind::Uring, fallback: None },
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
            Sample::gauge("io_engine_fallback", "io_uring was wanted and is refused.", fallback),
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
        let chosen = Choice::of(EngineKey::Epoll);
        let fallen = Choice { fallback: Some(SetupError::Denied), ..chosen.clone() };
        let values = |choice| format!("{:?}", figures(choice));
        assert_eq!(values(&chosen), "[Gauge(0), Gauge(1), Gauge(0)]");
        assert_eq!(values(&fallen), "[Gauge(0), Gauge(1), Gauge(1)]");
        assert_eq!(values(&Choice::of(EngineKey::Uring)), "[Gauge(1), Gauge(0), Gauge(0)]");
    }
}
