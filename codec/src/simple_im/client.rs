//! The client's side of the protocol, for the load tool and tests.
//!
//! Owns: what clients of each dialect send, and what they understand. Never: the gateway's own
//! path; nothing in the gateway calls this. Functions append one packet. Unlike the original
//! clients these escape what they say where their dialect has escapes.

use std::borrow::Cow;
use std::ops::Range;

use super::body::Media;
use super::emit::{Emitter, unescape};
use super::fields::Fields;
use super::scan::{Field, Kind, Scan};
use super::{Dialect, GROUP_FIELDS};
use crate::error::{Decoded, Malformed, WireError};
use crate::ids::{GroupId, MessageId, UserId};

/// Who a client is: in every packet of some dialects.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub dialect: Dialect,
    pub user: UserId,
    pub device: &'a [u8],
}

/// What the gateway said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPacket<'a> {
    /// The answer to a login.
    Reply {
        id: MessageId,
        /// `t`: which request it answers.
        request: Cow<'a, [u8]>,
        /// Why it is refused.
        refused: Option<Cow<'a, [u8]>>,
        /// Told to those who logged in by phone.
        user: Option<UserId>,
    },
    /// The answer is [`Client::ack`].
    Push(Push<'a>),
    /// The publish is safe.
    PublishAck(MessageId),
    /// Somebody has changed contacts or a group; [`Client::ack`] is the answer here, too.
    Notice(Notice<'a>),
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice<'a> {
    pub id: MessageId,
    /// `t`: what has changed.
    pub what: Cow<'a, [u8]>,
    pub from: UserId,
    pub to: To,
    /// What he says who asks; empty in all other notices.
    pub ask: Cow<'a, [u8]>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push<'a> {
    pub id: MessageId,
    /// `None`: the back end.
    pub from: Option<UserId>,
    /// The sender's; empty where it is not known.
    pub device: Cow<'a, [u8]>,
    pub to: To,
    /// Seconds since 1970.
    pub time_s: u32,
    /// The last dialect's word for the kind of content.
    pub media: &'static str,
    pub text: Cow<'a, [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    User(UserId),
    Group(GroupId),
}

impl Client<'_> {
    /// Appends the first packet, `reconnect` or not.
    pub fn login(&self, id: &[u8], reconnect: bool, token: &[u8], out: &mut Vec<u8>) {
        let request: &[u8] = if reconnect { b"reconnect" } else { b"login" };
        let mut packet = self.packet("r", out);
        packet.text("id", id).text("t", request);
        packet.child("user").number("id", self.user.0.into());
        packet.text(self.device_key(), self.device).text("token", token);
    }

    /// Appends the first packet of the oldest clients.
    pub fn login_by_phone(&self, id: &[u8], phone: &[u8], password: &[u8], out: &mut Vec<u8>) {
        let mut packet = self.packet("r", out);
        packet.text("id", id).text("t", b"login");
        packet.child("user").text("phone", phone);
        packet.text(self.device_key(), self.device).text("password", password);
    }

    /// Appends a message to a user or a group.
    pub fn message(&self, id: &[u8], to: To, text: &[u8], out: &mut Vec<u8>) {
        let (name, sender, table, key, number) = match (to, self.dialect) {
            (To::User(user), _) => ("m", "from", "to", "to", user.0),
            (To::Group(group), Dialect::Device) => ("gm", "user", "group", "g_id", group.0),
            (To::Group(group), _) => ("gm", "user", "group", "group", group.0),
        };
        let mut packet = self.packet(name, out);
        packet.text("id", id);
        if self.dialect == Dialect::Device {
            packet.text("t", b"text");
        }
        packet.text("c", text);
        if self.dialect.is_flat() {
            packet.number(key, number.into());
        } else {
            packet.child(sender).number("id", self.user.0.into()).text("device", self.device);
            packet.child(table).number("id", number.into());
        }
        if self.dialect == Dialect::Device {
            packet.text("d", self.device);
        }
    }

    /// Appends the acknowledgement of a push.
    pub fn ack(&self, id: &MessageId, out: &mut Vec<u8>) {
        let mut packet = self.packet("a", out);
        packet.text("id", id.as_bytes());
        if self.dialect == Dialect::Device {
            packet.text("d", self.device);
        }
    }

    fn packet<'o>(&self, name: &'static str, out: &'o mut Vec<u8>) -> Emitter<'o> {
        Emitter::new(name, self.dialect.is_double(), out)
    }

    fn device_key(&self) -> &'static str {
        if self.dialect == Dialect::Device { "d" } else { "device" }
    }
}

/// Finds the gateway's packets in a stream.
#[derive(Clone, Copy, Debug)]
pub struct Framer(Scan);

impl Framer {
    pub fn new(dialect: Dialect) -> Self {
        Self(Scan::new(dialect.is_double()))
    }

    /// As [`crate::protocol::Protocol::frame`]. The original clients take every receive for a
    /// whole packet: that is `quiet` after each.
    ///
    /// # Errors
    /// [`WireError`] if the gateway never sends such bytes.
    pub fn frame(&mut self, input: &[u8], quiet: bool) -> Result<Decoded<Range<usize>>, WireError> {
        let found = self.0.frame(input, quiet, false);
        if let Ok(Decoded::Frame { .. }) = found {
            self.0 = Scan::new(self.0.double());
        }
        found
    }
}

/// Decodes one packet of the gateway, the whole of `bytes`.
///
/// # Errors
/// [`WireError`] if the gateway never sends such a packet.
pub fn decode_server(bytes: &[u8]) -> Result<ServerPacket<'_>, WireError> {
    let mut scan = Scan::new(false);
    let fields = Fields::read(&mut scan, bytes)?;
    match fields.kind() {
        Some(Kind::Reply) => reply(&fields),
        Some(Kind::Message) => {
            let to = UserId(fields.number_of(&[Field::ToTable, Field::To])?);
            push(&fields, To::User(to))
        }
        Some(Kind::GroupMessage) => {
            push(&fields, To::Group(GroupId(fields.number_of(&GROUP_FIELDS)?)))
        }
        Some(Kind::Ack) => fields.id().map(ServerPacket::PublishAck),
        Some(Kind::Notice) => notice(&fields, To::User(UserId(fields.number(Field::To)?.0))),
        Some(Kind::GroupNotice) => {
            notice(&fields, To::Group(GroupId(fields.number(Field::GroupId)?.0)))
        }
        _ => Err(WireError::new(Malformed::UnknownCommand, 0)),
    }
}

fn reply<'a>(fields: &Fields<'_, 'a>) -> Result<ServerPacket<'a>, WireError> {
    let refused = match fields.number(Field::Status)?.0 {
        0 => None,
        _ => Some(text(fields, Field::Reason)?),
    };
    let user = match fields.has(Field::User) {
        true => Some(UserId(fields.number(Field::User)?.0)),
        false => None,
    };
    let request = text(fields, Field::Type)?;
    Ok(ServerPacket::Reply { id: fields.id()?, request, refused, user })
}

fn push<'a>(fields: &Fields<'_, 'a>, to: To) -> Result<ServerPacket<'a>, WireError> {
    let optional = |field| optional(fields, field);
    let from = match fields.has(Field::From) {
        true => Some(UserId(fields.number(Field::From)?.0)),
        false => None,
    };
    Ok(ServerPacket::Push(Push {
        id: fields.id()?,
        from,
        device: optional(if fields.has(Field::D) { Field::D } else { Field::Device })?,
        to,
        time_s: fields.number(Field::Time)?.0,
        media: Media::from_name(&optional(Field::Type)?).name(),
        text: text(fields, Field::Text)?,
    }))
}

fn notice<'a>(fields: &Fields<'_, 'a>, to: To) -> Result<ServerPacket<'a>, WireError> {
    Ok(ServerPacket::Notice(Notice {
        id: fields.id()?,
        what: text(fields, Field::Type)?,
        from: UserId(fields.number(Field::From)?.0),
        to,
        ask: optional(fields, Field::Text)?,
    }))
}

fn optional<'a>(fields: &Fields<'_, 'a>, field: Field) -> Result<Cow<'a, [u8]>, WireError> {
    match fields.has(field) {
        true => text(fields, field),
        false => Ok(Cow::Borrowed(&b""[..])),
    }
}

fn text<'a>(fields: &Fields<'_, 'a>, field: Field) -> Result<Cow<'a, [u8]>, WireError> {
    let (text, escaped) = fields.escaped(field)?;
    if !escaped {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = Vec::new();
    unescape(text, &mut plain);
    Ok(Cow::Owned(plain))
}
