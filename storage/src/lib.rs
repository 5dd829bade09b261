//! Everything that blocks: stores, authentication, group membership, on a small pool of OS threads.
//!
//! Owns: the [`Store`] trait and its backends, the authenticators, the sidecar's queues.
//! Never: sockets of clients, shards, protocol syntax. Shards see only [`Request`] and [`Reply`].
#![forbid(unsafe_code)]

pub mod accounts;
pub mod admin;
pub mod auth;
mod breaker;
pub mod external;
pub mod groups;
pub mod memory;
pub mod metrics;
mod names;
mod postgres;
mod redis;
pub mod request;
pub mod roster;
pub mod sidecar;
pub mod sqlite;
pub mod store;

pub use accounts::Accounts;
pub use admin::Admin;
pub use external::{ExternalConfig, ExternalStore};
pub use memory::MemoryStore;
pub use request::{
    Append, AuthRequest, AuthVerdict, DeadReason, Found, NameKind, Proof, Reply, Request, Row,
    ShardIndex, StoreError, TenantRef,
};
pub use sidecar::{Port, Sidecar, Waker};
pub use sqlite::SqliteStore;
pub use store::{Caps, Store};
