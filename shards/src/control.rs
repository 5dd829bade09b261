//! What the control thread may ask of a shard, and what it learns.

use std::sync::Arc;

use codec::{Notice, UserKey};
use crossbeam_channel::Sender;

use crate::home::Gauges;
use crate::io::ShardIndex;
use crate::metrics::Counters;

/// A request of the control thread; wake the shard after sending one.
#[derive(Debug)]
pub enum Control {
    /// Answered with the shard's figures: also the proof that it runs.
    Snapshot(Sender<Snapshot>),
    /// New connections use this certificate.
    Tls(Arc<rustls::ServerConfig>),
    /// For the terminals of users who are all at home there.
    Notice { to: Box<[UserKey]>, notice: Arc<Notice> },
    /// Stop accepting, say goodbye to everyone, see everything into the store; then say so, once.
    /// The shard goes on answering the others until [`Control::Stop`].
    Drain(Sender<ShardIndex>),
    /// End: every shard has drained.
    Stop,
}

/// A shard's figures at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub shard: ShardIndex,
    pub counters: Counters,
    pub gauges: Gauges,
    /// Connections, logged in or not.
    pub connections: u64,
    /// Size of the connection table.
    pub slots: u64,
    pub timers: u64,
    /// Messages waiting for room in a mesh ring.
    pub mesh_waiting: u64,
    /// Store requests waiting for room in the sidecar's queue.
    pub store_waiting: u64,
    /// Logins waiting for the authenticator.
    pub logins_pending: u64,
    /// Publishers not read at the moment because a queue behind them is full.
    pub publishers_held: u64,
    pub accepting: bool,
    /// The engine's name, and what it counted: (name, help, value).
    pub engine: Vec<(&'static str, &'static str, u64)>,
}
