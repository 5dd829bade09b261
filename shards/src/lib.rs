//! The per-core engine: the ring loop, connections, sessions, delivery, the mesh between shards.
//!
//! ```text
//!   kernel --io--> shard --input--> home: sessions, deliveries --world--> io, mesh, sidecar
//! ```
//!
//! Owns: sockets, buffers, timers, and the sessions of the users whose home this shard is.
//! Never: names a protocol, blocks, takes a lock, reads a file, resolves a name. `unsafe` stands
//! only in `io/{uring,bufs,pages,sys}.rs`.
#![deny(unsafe_code)]

pub mod backend;
mod clock;
pub mod config;
mod conn;
pub mod control;
mod hand_over;
pub mod home;
mod input;
pub mod io;
pub mod limits;
mod logins;
pub mod mesh;
pub mod metrics;
pub mod mutants;
pub mod router;
pub mod shard;
mod table;
pub mod timers;
mod tls;
mod world;

pub use backend::Backend;
pub use config::ShardConfig;
pub use control::{Control, Snapshot};
pub use home::Identity;
pub use mesh::Mesh;
pub use router::home_of_user;
pub use shard::{Parts, Shard};
