//! `ringpost`: the gateway and its tools in one binary.
//!
//! Exit codes: 0 done; 1 it failed (the reason is on stderr); 2 wrong usage; 78 the configuration
//! is wrong (every problem is on stderr with its file, line and column).
//!
//! Owns: the command line, the configuration, the control plane, the terminal client. Never: a
//! client's socket while serving (the shards') or a blocking store call on a shard (the sidecar's).
#![forbid(unsafe_code)]

mod authority;
mod chat;
mod cli;
mod config;
mod demo;
mod doctor;
mod engine;
mod exit;
mod figures;
mod gateway;
mod http;
mod logging;
mod serve;
mod signals;
mod stores;
mod systemd;
mod tls_files;
mod wiring;

use std::process::ExitCode;

/// Small allocations of many threads are its strength.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}
