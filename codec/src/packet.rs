//! The vocabulary every protocol decodes to and encodes from.
//!
//! A [`Packet`] borrows from the receive buffer; an [`Outgoing`] borrows from whatever is sent.

use crate::close::CloseReason;
use crate::ids::{GroupId, MessageId, UserId};
use crate::message::Message;

/// One packet from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Publish(Publish<'a>),
    /// The client has a push: its message id.
    Ack(MessageId),
    /// The client's answer to our heartbeat.
    Pong,
    /// Goodbye; no reply.
    Disconnect,
}

/// A login request. The strings are opaque: never trimmed, lower-cased or parsed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    pub name: &'a [u8],
    pub password: &'a [u8],
    /// The role byte's value, if the packet carried one.
    pub role: Option<u8>,
    /// The kind of terminal (one device of a kind at a time); 0 if the packet names none.
    pub client: u8,
    pub vhost: Option<&'a [u8]>,
}

impl std::fmt::Debug for Connect<'_> {
    // The password never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("name", &self.name.escape_ascii().to_string())
            .field("role", &self.role)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub id: MessageId,
    pub to: Destination<'a>,
    pub body: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    User(UserId),
    Group(GroupId),
    /// Only the listed users, as far as they are members.
    GroupPart(GroupId, UserList<'a>),
}

impl Destination<'_> {
    pub fn kind(&self) -> PublishKind {
        match self {
            Self::User(_) => PublishKind::User,
            Self::Group(_) => PublishKind::Group,
            Self::GroupPart(..) => PublishKind::GroupPart,
        }
    }
}

/// Which acknowledgement a publish is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishKind {
    User,
    Group,
    GroupPart,
}

/// Big-endian u32 user ids as they stand in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserList<'a>(&'a [[u8; 4]]);

impl<'a> UserList<'a> {
    /// Bytes after the last whole id are ignored; the decoder has checked that there are none.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.as_chunks().0)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = UserId> + 'a {
        self.0.iter().map(|id| UserId(u32::from_be_bytes(*id)))
    }
}

/// What the gateway says to a client.
#[derive(Clone, Copy, Debug)]
pub enum Outgoing<'a> {
    Accepted,
    Refused(Refusal),
    /// The publish is safe.
    PublishAck(PublishKind, MessageId),
    Push(&'a Message),
    Ping,
    /// The last packet made no sense; nothing else happened.
    Invalid,
    /// The last word before the gateway closes; protocols without one write nothing.
    Goodbye(CloseReason),
}

/// A final verdict on a login. A temporary failure is never one of these: it closes without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A second CONNECT on one connection, or the terminal is taken and the policy keeps the old.
    Duplicate,
    UnknownVhost,
    BadCredentials,
}
