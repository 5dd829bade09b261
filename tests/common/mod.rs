//! The real program over real sockets: what every end-to-end test is built from.
//!
//! Owns: [`Gateway`] (the process, its configuration, its store), [`Person`] and the clients behind
//! it (strict peers on the wire), and waiting for conditions. Never: what a test expects.
#![allow(dead_code, reason = "each test program uses a part of it")]

mod client;
mod demo;
mod gateway;
mod http;
mod people;
mod text;
mod tls;
mod toml;
mod wire;

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use codec::MessageId;

#[allow(unused_imports, reason = "each test program uses a part of it")]
pub(crate) use self::{
    client::{Client, Door, Seen, Stream, Want, connect_packet},
    demo::{DemoClient, DemoPush, DemoSeen},
    gateway::{Gateway, PASSWORD, Setup, Site, phone},
    http::{Ask, Told},
    people::{Event, Heard, Language, Person, Said, To, expect_silence, greet},
    text::{TextClient, TextSeen},
    toml::{ImClient, ImPush, ImSeen},
    wire::{Got, Wire},
};

/// Far more than anything takes on a busy machine; every wait for something that must come ends
/// here with a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing must come. Long enough for a message through every shard, even when busy.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

/// The `n`-th message id, in the form of real clients: 32 hexadecimal digits.
pub(crate) fn id(n: u32) -> MessageId {
    let text = format!("{n:032x}");
    MessageId::new(text.as_bytes()).expect("32 digits")
}

/// Tries until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What comes through a channel, in time.
#[track_caller]
pub(crate) fn hear<T>(channel: &Receiver<T>, what: &str) -> T {
    match channel.recv_timeout(PATIENCE) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("not within {PATIENCE:?}: {what}"),
        Err(RecvTimeoutError::Disconnected) => panic!("it can no longer come: {what}"),
    }
}
