//! Engines on loopback ports, and turns of their loop until something is seen.

use std::fmt::Debug;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use shards::io::epoll::EpollIo;
use shards::io::probe::{self, SetupError};
use shards::io::sys::{self, ListenOptions};
use shards::io::uring::{UringConfig, UringIo};
use shards::io::{Completion, Engine, Piece, SendBatch, Sizes, Slot, Wait};

/// Everything happens within this on a machine that is busy otherwise, or emulated.
pub(crate) const PATIENCE_MS: u64 = 60_000;
/// How long to look for what must not happen.
pub(crate) const QUIET_MS: u64 = 30;

/// Makes a test of each property for each engine.
macro_rules! on_every_engine {
    ($($property:ident,)+) => {
        mod uring {
            $(#[test]
            fn $property() {
                super::$property::<shards::io::uring::UringIo>();
            })+
        }

        mod epoll {
            $(#[test]
            fn $property() {
                super::$property::<shards::io::epoll::EpollIo>();
            })+
        }
    };
}
pub(crate) use on_every_engine;

/// An engine, with queues as small as they may be in production.
pub(crate) trait TestEngine: Engine<Buf: Debug> + 'static {
    /// Accepts of one listener that fail at the same time, with the sizes of [`small`].
    const ACCEPTS_AT_ONCE: usize;

    fn make(sizes: Sizes, listeners: Vec<OwnedFd>) -> Result<Self, SetupError>;

    /// This kernel tells the engine what a peer has not taken.
    fn counts_unsent() -> bool;
}

impl TestEngine for UringIo {
    const ACCEPTS_AT_ONCE: usize = 4;

    fn make(sizes: Sizes, listeners: Vec<OwnedFd>) -> Result<Self, SetupError> {
        Self::new(UringConfig { entries: 64, cq_entries: 256, ..sizes.into() }, listeners)
    }

    /// By the socket commands of 6.7.
    fn counts_unsent() -> bool {
        let findings = probe::findings(small().slots);
        let finding = findings.iter().find(|finding| finding.name.starts_with("socket commands"));
        finding.expect("the probe looks for them").ok
    }
}

impl TestEngine for EpollIo {
    const ACCEPTS_AT_ONCE: usize = 1;

    fn make(sizes: Sizes, listeners: Vec<OwnedFd>) -> Result<Self, SetupError> {
        Self::open(sizes, listeners)
    }

    fn counts_unsent() -> bool {
        true
    }
}

pub(crate) fn small() -> Sizes {
    Sizes { slots: 256, slot_reserve: 8, buffers: 64, buffer_size: 4096, accepts_per_listener: 4 }
}

/// An engine that accepts on a loopback port.
pub(crate) fn engine<E: TestEngine>(sizes: Sizes) -> (E, SocketAddr) {
    accepting(|listener| E::make(sizes, vec![listener]))
}

/// What `make` makes of a listener on a loopback port, accepting.
pub(crate) fn accepting<E: TestEngine>(
    make: impl FnOnce(OwnedFd) -> Result<E, SetupError>,
) -> (E, SocketAddr) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let listener = sys::listen(any, ListenOptions::default()).expect("a loopback listener");
    let address = listener.local_addr().expect("bound").as_socket().expect("an address");
    let mut io = make(listener.into()).expect("an engine");
    io.set_accepting(true);
    (io, address)
}

/// Receives that found no buffer, so far.
pub(crate) fn no_buffer<E: TestEngine>(io: &E) -> u64 {
    let figures = io.figures();
    let (.., value) = figures.iter().find(|(name, ..)| name.ends_with("no_buffer")).expect("known");
    *value
}

pub(crate) fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    let patience = Duration::from_millis(PATIENCE_MS);
    stream.set_read_timeout(Some(patience)).expect("an option");
    stream.set_write_timeout(Some(patience)).expect("an option");
    stream
}

/// Runs turns until `on` returns something for a completion.
pub(crate) fn drive<E: TestEngine, T>(
    io: &mut E,
    mut on: impl FnMut(&mut E, Completion<E::Buf>) -> Option<T>,
) -> T {
    let deadline = sys::now().plus_ms(PATIENCE_MS);
    loop {
        while let Some(completion) = io.next() {
            if let Some(found) = on(io, completion) {
                return found;
            }
        }
        assert!(sys::now() < deadline, "what was waited for has not happened");
        io.wait(Wait::Until(deadline));
    }
}

/// Runs turns for a short while in which nothing may be reported. The number of turns.
pub(crate) fn nothing_happens<E: TestEngine>(io: &mut E) -> u32 {
    let end = sys::now().plus_ms(QUIET_MS);
    let mut turns = 0;
    while sys::now() < end {
        turns += 1;
        io.wait(Wait::Until(end));
        if let Some(completion) = io.next() {
            panic!("{completion:?}, but nothing should happen");
        }
    }
    turns
}

/// A connected pair: the client's socket and its slot in the engine.
pub(crate) fn connect<E: TestEngine>(io: &mut E, address: SocketAddr) -> (TcpStream, Slot) {
    let stream = client(address);
    let local = stream.local_addr().expect("connected");
    let slot = drive(io, |_, completion| match completion {
        Completion::Accepted { slot, peer, listener: 0 } if peer == local => Some(slot),
        other => panic!("{other:?} instead of the connection from {local}"),
    });
    (stream, slot)
}

/// The bytes of the next receive on `slot`.
pub(crate) fn receive<E: TestEngine>(io: &mut E, slot: Slot) -> Vec<u8> {
    io.receive(slot);
    drive(io, |io, completion| match completion {
        Completion::Received { slot: from, buf } if from == slot => {
            let bytes = buf.to_vec();
            io.recycle(buf);
            Some(bytes)
        }
        other => panic!("{other:?} instead of bytes"),
    })
}

/// Sends and waits for the whole batch to be in the socket.
pub(crate) fn send<E: TestEngine>(io: &mut E, slot: Slot, bytes: &[u8]) {
    io.send(slot, owned(bytes));
    drive(io, |_, completion| match completion {
        Completion::Sent { batch, .. } => batch.map(drop),
        other => panic!("{other:?} instead of a send"),
    });
}

/// Closes and waits for it. Nothing else may be reported.
pub(crate) fn close<E: TestEngine>(io: &mut E, slot: Slot) {
    io.close(slot);
    drive(io, |_, completion| match completion {
        Completion::Closed { slot: closed } if closed == slot => Some(()),
        other => panic!("{other:?} instead of a close"),
    });
}

pub(crate) fn owned(bytes: &[u8]) -> SendBatch {
    SendBatch::from_iter([Piece::Owned(bytes.to_vec())])
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Answers every byte, closes what the peer closes. Counts the closed.
pub(crate) fn echo<E: TestEngine>(io: &mut E, completion: Completion<E::Buf>, closed: &mut usize) {
    match completion {
        Completion::Accepted { slot, .. } => io.receive(slot),
        Completion::Received { slot, buf } => {
            let batch = owned(&buf);
            io.recycle(buf);
            io.send(slot, batch);
        }
        Completion::Sent { slot, batch: Some(_), .. } => io.receive(slot),
        Completion::Sent { batch: None, .. } => {}
        Completion::ReceiveEnded { slot, .. } | Completion::SendFailed { slot, .. } => {
            io.close(slot);
        }
        Completion::Closed { .. } => *closed += 1,
        other => panic!("{other:?} in an echo server"),
    }
}
