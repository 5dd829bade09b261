//! The vocabulary every protocol decodes to and encodes from.
//!
//! A [`Packet`] borrows from the receive buffer; an [`Outgoing`] borrows from whatever is sent.

use crate::close::CloseReason;
use crate::error::Malformed;
use crate::ids::{GroupId, MessageId, UserId};
use crate::message::Message;
use crate::query::{Answer, Query};

/// One packet from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    /// The login that holds on this connection, said once more: accepted once more, with no other
    /// effect.
    ConnectAgain,
    Publish(Publish<'a>),
    /// The client has a push: its message id.
    Ack(MessageId),
    /// The client has the oldest push it has not acknowledged.
    AckOldest,
    /// The client asks whether we are there: answered by [`Outgoing::Pong`].
    Ping,
    /// The client's answer to our heartbeat.
    Pong,
    /// Contacts or groups: answered by [`Outgoing::Answer`] under the same id.
    Query(MessageId, Query),
    /// Who is in the public room: answered by [`Outgoing::Present`].
    WhoIsHere,
    /// Means nothing but that the client is alive.
    Nothing,
    /// Goodbye; no reply.
    Disconnect,
}

/// A login request. The strings are opaque: never trimmed, lower-cased or parsed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The user's name; with [`Proof::Token`] his id in decimal, with [`Proof::Phone`] his number.
    pub name: &'a [u8],
    pub proof: Proof<'a>,
    /// The role byte's value, if the packet carried one.
    pub role: Option<u8>,
    pub terminal: Terminal<'a>,
    pub vhost: Option<&'a [u8]>,
    /// (org, appkey); `None`: the listener's tenant.
    pub tenant: Option<(&'a [u8], &'a [u8])>,
}

impl std::fmt::Debug for Connect<'_> {
    // What proves the identity never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("name", &self.name.escape_ascii().to_string())
            .field("role", &self.role)
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

/// What proves that the client is who he says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Proof<'a> {
    Password(&'a [u8]),
    /// Handed out over HTTP before.
    Token(&'a [u8]),
    /// A password that goes with the phone number in [`Connect::name`].
    Phone(&'a [u8]),
    /// The client's wire carries nothing of the kind.
    Nothing,
}

/// Which of a user's terminals this is. A login of the same terminal replaces the older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal<'a> {
    /// One of each kind; 0 if the packet names none.
    Kind(u8),
    /// By the device's name.
    Device(&'a [u8]),
    /// Every connection is a terminal of its own.
    Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub id: MessageId,
    pub to: Destination<'a>,
    /// In the sender's syntax, see [`Message::body`].
    pub body: &'a [u8],
    /// Recipients who are away find it at their next login; else it is refused with
    /// [`Failure::Offline`].
    pub keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    User(UserId),
    Group(GroupId),
    /// Only the listed users, as far as they are members.
    GroupPart(GroupId, UserList<'a>),
    /// A user's name; if nobody has it, a user's id in decimal, then a group as in `GroupName`.
    /// With a leading `#` only the group.
    Name(&'a [u8]),
    /// A group's name; if none has it, a group's id in decimal.
    GroupName(&'a [u8]),
    /// Everybody in the public room but this connection.
    Room,
}

impl Destination<'_> {
    pub fn kind(&self) -> PublishKind {
        match self {
            Self::User(_) | Self::Name(_) => PublishKind::User,
            Self::Group(_) | Self::GroupName(_) | Self::Room => PublishKind::Group,
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
    Accepted(Accepted<'a>),
    Refused(Refusal),
    /// The publish is safe. The receipt is `None` for a resend of one that was acknowledged before,
    /// or that came by a connection which has ended.
    PublishAck(PublishKind, MessageId, Option<Receipt>),
    /// The publish is not taken over. Protocols without such a word write nothing: their clients
    /// send it again. `to` is the name that the sender addressed; empty if it was a number.
    PublishFailed {
        id: MessageId,
        why: Failure,
        to: &'a [u8],
    },
    Push(Push<'a>),
    /// Somebody has come into the public room.
    Joined(&'a [u8]),
    /// Somebody has left it.
    Left(&'a [u8]),
    /// Names of those in the public room, sorted, without the one who asked.
    Present(&'a [Box<[u8]>]),
    Answer(MessageId, &'a Answer),
    Ping,
    /// The answer to a client's ping.
    Pong,
    /// The last packet made no sense; nothing else happened.
    Invalid(Malformed),
    /// The last word before the gateway closes; protocols without one write nothing.
    Goodbye(CloseReason),
}

/// A login that holds.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    pub user: UserId,
    pub name: &'a [u8],
    /// Names this session in logs.
    pub session: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Seconds of silence after which the client is asked; 0: never.
    pub heartbeat_s: u32,
}

/// The gateway's name and time for a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// See [`Message::stamp`].
    pub stamp: u128,
    pub time_ms: u64,
}

/// A message on its way to one of its receivers.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    pub message: &'a Message,
    /// It waited in the store.
    pub stored: bool,
}

/// A final verdict on a login. A temporary failure is never one of these: it closes without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A second login on one connection, which ends with it.
    Duplicate,
    /// The terminal is taken, and the policy keeps the old connection.
    Taken,
    UnknownVhost,
    UnknownTenant,
    BadCredentials,
}

/// Why a publish or a query was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client's protocol allows it to name no recipient, and nobody is configured instead.
    NoRecipient,
    /// No such user or group in the tenant.
    Unknown,
    /// Only for members of the group.
    NotAllowed,
    /// The recipient is away, and the message was not to be kept.
    Offline,
    TooLarge,
    /// A bound was reached: of members, of groups, of contacts.
    TooMany,
    /// Cannot be done at the moment; the same again may work later.
    Busy,
    /// The name of a group to be made is taken.
    Exists,
    /// The request's own payload made no sense.
    BadRequest,
    /// The kind of request is not known.
    Unsupported,
}
