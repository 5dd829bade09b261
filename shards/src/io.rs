//! The kernel seam: everything a shard asks of the kernel, and everything it hears back.
//!
//! Completion-shaped: a receive gives bytes, a send takes bytes. [`Io`] owns the table of
//! connection slots and everything in flight on them; a [`Slot`]'s generation makes a late
//! completion of an old connection recognisable. Never: protocols, policy, timers other than the
//! bound of the wait.
//!
//! ```text
//!   Accepted / HandedIn          receive -> Received* | ReceiveEnded
//!        |                       send    -> Sent(done: false)* , Sent(done: true) | SendFailed
//!        v                       unsent  -> Unsent
//!      live  --close()-->  closing  -->  Closed            (slot free, generation raised)
//!        |
//!        +--hand_over()-->  HandedOver(Ok)                 (slot free, no Closed follows)
//!                           HandedOver(Err)                (still live, still the caller's)
//! ```

pub(crate) mod bufs;
pub mod epoll;
pub(crate) mod pages;
pub mod probe;
pub(crate) mod progress;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub(crate) mod slots;
pub mod sys;
pub mod uring;

use std::net::SocketAddr;
use std::ops::DerefMut;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use probe::SetupError;
use smallvec::SmallVec;
use sys::Waker;

/// Monotonic time in microseconds since the process (or the simulation) started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now(pub u64);

impl Now {
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0 + ms * 1_000)
    }

    /// Milliseconds since `earlier`; 0 if that is in the future.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000
    }
}

/// A connection: index into the shard's slot table, and which tenant of that slot is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Below [`Io::capacity`]. With direct descriptors, the index in the ring's file table.
    pub index: u32,
    /// Raised each time the slot is freed; only the low 24 bits are used.
    pub generation: u32,
}

/// Index of a listener in the order they were given to the engine.
pub type ListenerIndex = u8;

/// Index of a shard (and of its ring) in the process.
pub type ShardIndex = u16;

/// What one send carries: all that a connection queued in one turn, in order.
#[derive(Debug, Default)]
pub struct SendBatch {
    /// Behind one pointer, since a connection has room for a batch whether it sends or not.
    pub pieces: Box<SmallVec<[Piece; 1]>>,
}

impl FromIterator<Piece> for SendBatch {
    fn from_iter<T: IntoIterator<Item = Piece>>(pieces: T) -> Self {
        Self { pieces: Box::new(pieces.into_iter().collect()) }
    }
}

/// A run of bytes to send.
#[derive(Debug)]
pub enum Piece {
    Owned(Vec<u8>),
    /// Large or shared bytes (a group message encoded once), sent from where they are.
    Shared(Arc<[u8]>),
}

impl Piece {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl SendBatch {
    /// Total bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes().len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A kernel error number (`errno`, positive).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

/// What happened.
#[derive(Debug)]
pub enum Completion<B> {
    /// A new connection. Nothing is armed on it.
    Accepted { slot: Slot, listener: ListenerIndex, peer: SocketAddr },
    /// An accept failed (EMFILE, ENFILE, ENOMEM, ...). The engine itself backs off before it tries
    /// again; this is for the metric.
    AcceptFailed { listener: ListenerIndex, error: Errno },
    /// A connection handed over by another shard. Nothing is armed on it.
    HandedIn { slot: Slot, token: u64 },
    /// Bytes, at least one. The receive is used up. The buffer must go back by [`Io::recycle`].
    Received { slot: Slot, buf: B },
    /// The peer closed its side (`None`), or the socket failed. The receive is used up.
    ReceiveEnded { slot: Slot, error: Option<Errno> },
    /// `bytes` more are in the socket. `batch` is given back when all of it is sent.
    Sent { slot: Slot, bytes: usize, batch: Option<SendBatch> },
    /// The send failed; what was sent before is unknown. The batch is given back.
    SendFailed { slot: Slot, error: Errno, batch: SendBatch },
    /// Answer to [`Io::unsent`]: bytes in the socket that the peer's kernel has not acknowledged;
    /// `None` where the kernel cannot tell.
    Unsent { slot: Slot, bytes: Option<u32> },
    /// Answer to [`Io::hand_over`].
    HandedOver { slot: Slot, result: Result<(), Errno> },
    /// Answer to [`Io::close`]: the slot is free.
    Closed { slot: Slot },
    /// Answer to [`Dial::dial`]. Nothing is armed on the new connection.
    Dialed { token: u64, result: Result<Slot, Errno> },
}

/// How long a turn may wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Submit, reap what is there, do not sleep.
    Poll,
    /// Sleep until something completes, a doorbell rings, or this moment.
    Until(Now),
}

/// The kernel, as one shard sees it. Not `Send`: made and used on the shard's thread.
pub trait Io {
    /// A received buffer, on loan from the engine.
    type Buf: DerefMut<Target = [u8]>;

    /// The time of the last [`Io::wait`].
    fn now(&self) -> Now;

    /// The time at this moment, for measuring how long a turn took.
    fn clock(&self) -> Now {
        self.now()
    }

    /// What the engine counts, for the metrics: (name, help, value).
    fn figures(&self) -> Vec<(&'static str, &'static str, u64)> {
        Vec::new()
    }

    /// Slots in the table.
    fn capacity(&self) -> u32;

    /// Arms or withdraws the accepts of all listeners. Withdrawn accepts may still complete.
    fn set_accepting(&mut self, on: bool);

    /// Arms one receive (poll first: an idle connection holds no buffer). At most one is armed per
    /// connection. Answered by `Received` or `ReceiveEnded`. An empty buffer pool only delays it.
    fn receive(&mut self, slot: Slot);

    /// Gives a received buffer back to the pool.
    fn recycle(&mut self, buf: Self::Buf);

    /// Sends the whole batch; short sends are continued by the engine, each with its own `Sent`.
    /// At most one batch is in flight per connection; the batch is not empty.
    fn send(&mut self, slot: Slot, batch: SendBatch);

    /// Asks how much of what was sent the peer's kernel has not acknowledged.
    fn unsent(&mut self, slot: Slot);

    /// Ends the connection: cancels what is armed, waits for each operation's own end, shuts down
    /// (a peer that has ended may be spared that), closes. A send in flight is cancelled too: call
    /// after the last `Sent` to say goodbye. Completions of the connection may still come before
    /// `Closed`; none come after it.
    fn close(&mut self, slot: Slot);

    /// Passes the connection to another shard's engine, which hears `HandedIn` with `token`.
    /// Nothing may be armed or in flight on it.
    fn hand_over(&mut self, slot: Slot, to: ShardIndex, token: u64);

    /// Wakes another shard's [`Io::wait`].
    fn doorbell(&mut self, to: ShardIndex);

    /// Submits everything asked for and waits as told. Then [`Io::now`] is fresh.
    fn wait(&mut self, wait: Wait);

    /// The next completion of the last waits, if any.
    fn next(&mut self) -> Option<Completion<Self::Buf>>;
}

/// The client role, for load tools: opens connections. A gateway never dials.
pub trait Dial: Io {
    /// Connects `socket` (TCP, non-blocking, options set, bound if wished) to `to`. Answered by
    /// [`Completion::Dialed`] with `token`; a table without a free slot fails with `ENFILE`.
    fn dial(&mut self, socket: OwnedFd, to: SocketAddr, token: u64);
}

/// The sizes that every engine on the real kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Connections at once. On a ring at most the limit of open files; on epoll all engines of the
    /// process share that limit.
    pub slots: u32,
    /// Slots kept free for hand-overs: nothing is accepted below. At least the listeners are kept
    /// in any case.
    pub slot_reserve: u32,
    /// Receive buffers, 1 to 32,768, and the bytes of each.
    pub buffers: u16,
    pub buffer_size: u32,
    /// Connections that one listener may bring in one turn.
    pub accepts_per_listener: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            slots: 16_384,
            slot_reserve: 256,
            buffers: 2048,
            buffer_size: 4096,
            accepts_per_listener: 16,
        }
    }
}

impl Sizes {
    /// The slots really kept free, if the sizes fit each other.
    fn check(&self, listeners: usize) -> Result<u32, SetupError> {
        let reserve = self.slot_reserve.max(listeners as u32);
        let wrong = if self.slots <= reserve {
            "slots must exceed slot_reserve and the number of listeners"
        } else if !(1..=bufs::MOST).contains(&self.buffers) {
            "buffers must be 1 to 32768"
        } else if !(64..=1 << 20).contains(&self.buffer_size) {
            "buffer_size must be 64 to 1048576 bytes"
        } else if self.accepts_per_listener == 0 || listeners > 1 + usize::from(ListenerIndex::MAX)
        {
            "accepts_per_listener must be at least 1, and the listeners at most 256"
        } else {
            return Ok(reserve);
        };
        Err(SetupError::Config(wrong))
    }
}

/// An [`Io`] on the real kernel. Every shard makes its own, on its own thread; then all of them
/// are told where the others are.
pub trait Engine: Io + Sized {
    /// What the other engines need to reach this one.
    type Peer: Clone + Send + 'static;

    /// Makes an engine for this thread. Nothing is accepted before [`Io::set_accepting`].
    ///
    /// # Errors
    /// The kernel or its limits refuse, or the sizes contradict each other.
    fn open(sizes: Sizes, listeners: Vec<OwnedFd>) -> Result<Self, SetupError>;

    /// Where this engine is reached, also after its end: then whatever is asked fails harmlessly.
    fn peer(&self) -> Self::Peer;

    /// Tells this engine the others, in the order of their shard index, itself included.
    fn connect_peers(&mut self, peers: Vec<Self::Peer>);

    /// Wakes this engine's wait from any thread.
    fn waker(&self) -> Waker;

    /// Slots without a connection.
    fn free_slots(&self) -> u32;
}

/// Pause of a listener whose accept failed for want of descriptors or memory.
pub(crate) const ACCEPT_BACK_OFF_MS: u64 = 100;
