//! Everything that blocks: stores, authentication, group membership, on a small pool of OS threads.
//!
//! Owns: the [`Store`] trait and its backends, the authenticators, the sidecar's queues.
//! Never: sockets of clients, shards, protocol syntax. Shards see only [`Request`] and [`Reply`].
#![forbid(unsafe_code)]

pub mod auth;
mod breaker;
pub mod groups;
pub mod metrics;
pub mod request;
pub mod sidecar;
pub mod store;

pub use request::{
    Append, AuthRequest, AuthVerdict, Binding, DeadReason, Reply, Request, Row, ShardIndex,
    StoreError,
};
pub use sidecar::{Port, Sidecar, Waker};
pub use store::Store;
