//! What the control plane may ask of the running engine: the seam between them.
//!
//! Owns: the [`Gateway`] trait and the plain values it gives. Never: how shards are reached. The
//! wiring implements the trait; health, metrics, signals and the watchdog only know this file.

use std::sync::Arc;
use std::time::Duration;

use codec::{Notice, UserKey};

/// A running engine. Called from the control plane's threads; no call waits longer than it says.
pub(crate) trait Gateway: Send + Sync + 'static {
    /// The figures of the process and of every shard, asked for now. Waits at most a second; a
    /// shard that has not answered by then is stuck.
    fn snapshot(&self) -> Snapshot;

    /// Connections are accepted: started, and not draining. Does not wait.
    fn ready(&self) -> bool;

    /// Whether every shard has completed a turn since the last call. Does not wait.
    fn ticked(&self) -> bool;

    /// New TLS connections use this context from now on. Does not wait.
    fn set_tls(&self, context: Arc<rustls::ServerConfig>);

    /// Tells users what concerns them, as far as they are there. Does not wait. Shards that are far
    /// behind pass nothing on.
    fn tell(&self, to: &[UserKey], notice: Notice);

    /// Stops accepting, tells clients, flushes the store, ends the shards; waits at most `limit`.
    /// `false`: not everything was done by then. Called once.
    fn drain(&self, limit: Duration) -> bool;
}

/// Figures at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Of no shard in particular: store, logins, process.
    pub(crate) process: Vec<Sample>,
    pub(crate) shards: Vec<ShardSnapshot>,
}

#[derive(Clone, Debug)]
pub(crate) struct ShardSnapshot {
    pub(crate) shard: u16,
    /// `None`: the shard is stuck.
    pub(crate) samples: Option<Vec<Sample>>,
}

impl Snapshot {
    /// Shards that did not answer.
    pub(crate) fn stuck(&self) -> Vec<u16> {
        let stuck = self.shards.iter().filter(|shard| shard.samples.is_none());
        stuck.map(|shard| shard.shard).collect()
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Without prefix and suffix, unit last: `logins`, `memory_bytes`. Samples of one name have one
    /// meaning and one kind of figure.
    pub(crate) name: &'static str,
    /// What it counts, one sentence.
    pub(crate) help: &'static str,
    /// Beside the shard, such as ("reason", "malformed").
    pub(crate) label: Option<(&'static str, &'static str)>,
    pub(crate) figure: Figure,
}

#[derive(Clone, Debug)]
pub(crate) enum Figure {
    /// Only grows.
    Counter(u64),
    Gauge(u64),
    /// Durations: `counts` per bucket, one more than `bounds_us` has upper bounds; the name ends in
    /// `_seconds`.
    Times {
        bounds_us: &'static [u64],
        counts: Vec<u64>,
        sum_us: u64,
    },
}

impl Sample {
    pub(crate) const fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, label: None, figure: Figure::Counter(value) }
    }

    pub(crate) const fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, label: None, figure: Figure::Gauge(value) }
    }

    pub(crate) fn labelled(self, name: &'static str, value: &'static str) -> Self {
        Self { label: Some((name, value)), ..self }
    }
}
