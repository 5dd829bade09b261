//! The per-core engine: the ring loop, connections, sessions, delivery, and the mesh between shards.
//!
//! Owns: sockets, buffers, timers, sessions of the users whose home is this shard.
//! Never: names a protocol, blocks, takes a lock, touches a file or the network beyond its ring.
//! `unsafe` only in `io/{uring,bufs,sys}.rs`.
#![deny(unsafe_code)]

pub mod io;
