//! One simulated TCP connection, both ends, as plain state; `net` moves the bytes.
//!
//! ```text
//!   client --wire--> readable --receive--> shard
//!   client <-arrived-- unacked <---send--- shard
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::io::{Errno, ListenerIndex, ShardIndex, Slot};

/// Index of a connection in the simulation; a client script's handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// A slot of one life of a shard: what happens to it after a crash goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotRef {
    pub(super) shard: ShardIndex,
    pub(super) life: u32,
    pub(super) slot: Slot,
}

/// Who holds the gateway's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Not accepted yet: waits in the backlog of a shard's listener.
    Backlog,
    Slot(SlotRef),
    /// Closed by the gateway, or dead with it.
    Gone,
}

/// What the client sends, in order.
#[derive(Debug)]
pub(super) enum Segment {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) owner: Owner,
    pub(super) shard: ShardIndex,
    pub(super) listener: ListenerIndex,
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// Sent by the client, under way.
    pub(super) wire: VecDeque<Segment>,
    /// At the gateway, not received yet.
    pub(super) readable: VecDeque<u8>,
    pub(super) fin_arrived: bool,
    pub(super) error: Option<Errno>,
    /// Sent by the gateway; the client's end does not have it yet.
    pub(super) unacked: VecDeque<u8>,
    /// The gateway has closed: after `unacked` the client reads the end of the stream.
    pub(super) fin_sent: bool,
    /// The network ended the connection: nothing passes any more.
    pub(super) cut: bool,
    pub(super) client: ClientEnd,
}

#[derive(Debug, Default)]
pub(super) struct ClientEnd {
    /// Not read by the script yet.
    pub(super) arrived: Vec<u8>,
    pub(super) eof: bool,
    pub(super) reset: bool,
    /// The script closed it.
    pub(super) closed: bool,
    pub(super) frozen: bool,
    /// In the list of clients to look at.
    pub(super) touched: bool,
}

impl Socket {
    pub(super) fn new(shard: ShardIndex, listener: ListenerIndex, peer: SocketAddr) -> Self {
        Self {
            owner: Owner::Backlog,
            shard,
            listener,
            peer,
            wire: VecDeque::new(),
            readable: VecDeque::new(),
            fin_arrived: false,
            error: None,
            unacked: VecDeque::new(),
            fin_sent: false,
            cut: false,
            client: ClientEnd::default(),
        }
    }

    /// A receive would complete.
    pub(super) fn is_readable(&self) -> bool {
        !self.readable.is_empty() || self.fin_arrived || self.error.is_some()
    }

    /// Nothing more can happen on the client's side.
    pub(super) fn client_done(&self) -> bool {
        self.client.closed || self.client.eof || self.client.reset
    }

    /// The client's end learns that the connection is no more. What it has stays readable.
    pub(super) fn reset_client(&mut self) {
        self.unacked.clear();
        self.cut = true;
        self.client.reset = true;
    }
}

/// Takes the first `count` bytes.
pub(super) fn take(queue: &mut VecDeque<u8>, count: usize) -> Vec<u8> {
    queue.drain(..count).collect()
}
