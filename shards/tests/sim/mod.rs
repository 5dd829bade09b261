//! The whole gateway in one thread and virtual time: simulated kernel, store and clients around
//! real shards, and an oracle that knows what was promised.
//!
//! ```text
//!   client scripts <-> SimNet <-> Shard 0, 1, ... <-> StoreWorker over a simulated disk
//!         \________________________ oracle ______________________________/
//! ```
//!
//! A run is a function of its seed: a failure names the seed that replays it.

#![allow(unreachable_pub, reason = "a test crate exports nothing; pub is what its modules share")]

pub mod backend;
pub mod client;
pub mod disk;
pub mod oracle;
pub mod plan;
pub mod speech;
pub mod wire;
pub mod world;
