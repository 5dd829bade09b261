//! The owned, immutable message: what is routed between shards and kept in the store.

use std::sync::Arc;

use crate::ids::{GroupKey, MessageId, TenantId, UserKey, stamp_digits};
use crate::protocol::ProtocolId;

/// Whom the sender addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    User(UserKey),
    /// A whole group, or the part of it the sender listed: receivers see no difference.
    Group(GroupKey),
    /// Everybody of a tenant who is in the public room at the moment. Never stored.
    Room(TenantId),
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
    /// The sender's name; empty where nobody knows it.
    pub from_name: Arc<[u8]>,
    pub to: Target,
    /// The protocol whose syntax `body` is in.
    pub protocol: ProtocolId,
    /// Milliseconds since 1970, when the gateway accepted it.
    pub time_ms: u64,
    /// Payload in the syntax of `protocol`: passed on byte-exact to receivers of the same
    /// protocol, and read with [`ProtocolId::content`] for all others.
    pub body: Box<[u8]>,
}

impl Message {
    /// The id under which receivers of `protocol` get and acknowledge it: the sender's own within
    /// his protocol, the stamp everywhere else, since ids of one wire may have no form on another.
    pub fn id_for(&self, protocol: ProtocolId) -> MessageId {
        if self.keeps_id(protocol) { self.id } else { MessageId::of_stamp(self.stamp) }
    }

    /// Whether it is the one that [`Self::id_for`] names.
    pub fn is_named(&self, id: &MessageId, protocol: ProtocolId) -> bool {
        match self.keeps_id(protocol) {
            true => self.id == *id,
            false => id.as_bytes() == stamp_digits(self.stamp),
        }
    }

    fn keeps_id(&self, protocol: ProtocolId) -> bool {
        protocol.shares_syntax(self.protocol) && !protocol.pushes_stamps()
    }

    /// What it says, for receivers of other protocols.
    pub fn content(&self) -> Content<'_> {
        self.protocol.content(&self.body)
    }
}

/// What a message says, without the syntax of its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    Text(&'a str),
    /// Where the file is.
    Image(&'a str),
    Audio(&'a str),
    Video(&'a str),
    /// Bytes of no known form.
    Opaque(&'a [u8]),
}

impl Content<'_> {
    /// The content as text a person can read, appended to `out`. Opaque bytes are base64.
    pub fn write_text(&self, out: &mut String) {
        match *self {
            Content::Text(text)
            | Content::Image(text)
            | Content::Audio(text)
            | Content::Video(text) => out.push_str(text),
            Content::Opaque(bytes) => {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode_string(bytes, out);
            }
        }
    }
}
