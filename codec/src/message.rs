//! The owned, immutable message: what is routed between shards and kept in the store.

use crate::ids::{GroupKey, MessageId, UserKey};
use crate::protocol::ProtocolId;

/// Whom the sender addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    User(UserKey),
    /// A whole group, or the part of it the sender listed: receivers see no difference.
    Group(GroupKey),
}

/// One accepted message. Crosses shards as `Arc<Message>`, its body copied exactly once, from the
/// receive buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Unique over all gateways and restarts: the store keeps a group message's body once under it.
    pub stamp: u128,
    /// The sender's id, echoed to receivers so that they can drop duplicates.
    pub id: MessageId,
    /// `None`: the back end, through the publish door.
    pub from: Option<UserKey>,
    pub to: Target,
    /// The protocol whose syntax `body` is in.
    pub protocol: ProtocolId,
    /// Milliseconds since 1970, when the gateway accepted it.
    pub time_ms: u64,
    /// Opaque payload, passed on byte-exact.
    pub body: Box<[u8]>,
}
