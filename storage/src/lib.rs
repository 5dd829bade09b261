//! Everything that blocks: stores, authentication, group membership, on a small pool of OS threads.
//!
//! Owns: the [`Store`] trait and its backends, the authenticators, the sidecar's queues.
//! Never: sockets of clients, shards, protocol syntax. Shards see only [`Request`] and [`Reply`].
#![forbid(unsafe_code)]

pub mod admin;
pub mod auth;
mod breaker;
pub mod groups;
pub mod memory;
pub mod metrics;
pub mod request;
pub mod sidecar;
pub mod sqlite;
pub mod store;

pub use memory::MemoryStore;
pub use request::{
    Append, AuthRequest, AuthVerdict, DeadReason, Reply, Request, Row, ShardIndex, StoreError,
};
pub use sidecar::{Port, Sidecar, Waker};
pub use sqlite::SqliteStore;
pub use store::{Caps, Store};
