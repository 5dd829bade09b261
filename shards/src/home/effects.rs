//! What [`super::Home`] may ask of the world around it. It has no other way to act.

use codec::{CloseReason, Manners, Outgoing, ProtocolId, TenantId, UserKey};
use storage::Request;

use crate::hand_over::Token;
use crate::io::{Now, ShardIndex, Slot};
use crate::mesh::ShardMessage;
use crate::timers::TimerId;

/// Whose deadline a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// A connection's own: login deadline, close deadline, send progress.
    Conn(Slot),
    /// A session's: heartbeat and retries.
    Session(Slot),
    /// A user's: persistence, store retries, de-duplication.
    User(UserKey),
    /// A hand-over that waits for its other half.
    HandOver(Token),
}

const _: () = assert!(size_of::<Timer>() <= 12, "every session has two");

/// The actions of a shard's sans-io core. All of them only queue; none calls back.
pub trait Effects {
    /// Queues a packet on a live connection. Returns the connection's output offset behind it, in
    /// the count that [`super::Home::sent`] reports.
    fn transmit(&mut self, slot: Slot, outgoing: &Outgoing<'_>) -> u64;

    /// Ends a connection after what is queued for it: the protocol's last word, then the close.
    fn close(&mut self, slot: Slot, reason: CloseReason);

    /// Output of a connection that is not in its socket yet, in bytes.
    fn backlog(&self, slot: Slot) -> usize;

    /// Asks how much of a connection's output the peer's kernel has not acknowledged; answered by
    /// [`super::Home::unsent`].
    fn unsent(&mut self, slot: Slot);

    /// Reads a connection again that was over its bound of outstanding publishes.
    fn resume(&mut self, slot: Slot);

    /// Whether the connection is being read. It is not while a queue behind its publishes is full.
    fn is_read(&self, slot: Slot) -> bool;

    /// What the connection's codec now says of its manners, see [`Manners::tentative`].
    fn manners(&self, slot: Slot) -> Manners;

    /// Sends to another shard (never to this one).
    fn route(&mut self, to: ShardIndex, message: ShardMessage);

    /// Submits a store request.
    fn store(&mut self, request: Request);

    fn arm(&mut self, timer: Timer, at: Now) -> TimerId;

    /// Takes back a timer that has not fired.
    fn cancel(&mut self, timer: TimerId);

    /// The tenant of a connection's listener, and the protocol it speaks.
    fn origin(&self, slot: Slot) -> (TenantId, ProtocolId);

    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;
}
