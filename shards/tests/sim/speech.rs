//! What a client says and hears, in the protocol that its layout speaks.
//!
//! Never: framing; what follows from what is heard.

use codec::binary::client::{self as binary, ServerPacket, Tail};
use codec::binary::code;
use codec::im_demo::client as named;
use codec::im_demo::client::ServerPacket as NamedPacket;
use codec::im_demo::types::{ChatType, ConAck, Connect, MessageAck, Ping, Response, Status};
use codec::{GroupId, MessageId, PublishKind, UserId};
use prost::Message as _;

use super::oracle::{Record, To, id_of};
use super::plan::{Layout, Profile};

/// What the gateway has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The login holds, or its password is wrong.
    LoggedIn(bool),
    Push(Pushed),
    /// A publish is safe. Not every protocol says of which kind it was, or what the gateway calls
    /// it.
    Acked(MessageId, Option<PublishKind>, Option<MessageId>),
    /// A publish is not taken over at the moment.
    NotNow(MessageId),
    /// A publish is not taken over, and never will be.
    NotAllowed(MessageId),
    Ping,
    /// Somebody else is this terminal now.
    Replaced,
    /// The connection will end.
    Goodbye,
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub struct Pushed {
    pub group: Option<u32>,
    pub id: MessageId,
    /// Where it is said.
    pub from: Option<String>,
    pub body: Vec<u8>,
}

/// Reads one packet of the gateway.
///
/// # Errors
/// It is none that this client may be told.
pub fn hear(layout: Layout, packet: &[u8]) -> Result<Heard, String> {
    match layout {
        Layout::Named => hear_named(packet),
        _ => hear_binary(layout, packet),
    }
}

fn hear_binary(layout: Layout, packet: &[u8]) -> Result<Heard, String> {
    let packet = binary::decode_server(packet).map_err(|error| error.to_string())?;
    let known = matches!(layout, Layout::Terminal(_));
    Ok(match packet {
        ServerPacket::ConnectAck(code::ACCEPTED) => Heard::LoggedIn(true),
        ServerPacket::ConnectAck(code::BAD_CREDENTIALS) => Heard::LoggedIn(false),
        ServerPacket::Push { id, body } => {
            Heard::Push(Pushed { group: None, id, from: None, body: body.to_vec() })
        }
        ServerPacket::GroupPush { group, id, body } => {
            Heard::Push(Pushed { group: Some(group.0), id, from: None, body: body.to_vec() })
        }
        ServerPacket::PublishAck(kind, id) => Heard::Acked(id, Some(kind), None),
        ServerPacket::Ping => Heard::Ping,
        ServerPacket::Disconnect if !known => Heard::Replaced,
        ServerPacket::Logout if known => Heard::Replaced,
        strange => return Err(format!("{layout:?} was told {strange:?}")),
    })
}

fn hear_named(packet: &[u8]) -> Result<Heard, String> {
    let packet = named::decode_server(packet).map_err(|error| error.to_string())?;
    Ok(match packet {
        NamedPacket::ConAck(ConAck { status, .. }) => Heard::LoggedIn(status == Status::Ok as i32),
        NamedPacket::Push { id, message, .. } => {
            let group = (message.chat() == ChatType::Group).then(|| message.to.parse());
            Heard::Push(Pushed {
                group: group.transpose().map_err(|_| format!("{} is no group", message.to))?,
                id: message_id(&id)?,
                from: Some(message.from.clone()),
                body: named::text(&message).map_err(|error| error.to_string())?.into(),
            })
        }
        NamedPacket::Response(Response { code, id, payload, .. }) => match code {
            0 => {
                let receipt = MessageAck::decode(&*payload).map_err(|error| error.to_string())?;
                let called = (!receipt.id.is_empty()).then(|| message_id(&receipt.id));
                Heard::Acked(message_id(&id)?, None, called.transpose()?)
            }
            NOT_ALLOWED => Heard::NotAllowed(message_id(&id)?),
            TOO_MANY | BUSY => Heard::NotNow(message_id(&id)?),
            strange => return Err(format!("the answer to {id} is {strange}")),
        },
        NamedPacket::Ping(_) => Heard::Ping,
        NamedPacket::Disconnect(goodbye) => match goodbye.code {
            REPLACED => Heard::Replaced,
            PROTOCOL_ERROR => return Err("our packet was called an error".to_owned()),
            _ => Heard::Goodbye,
        },
        strange => return Err(format!("{strange:?}, which nobody asked for")),
    })
}

/// A login: user 7 is `u7` with the password `p7`.
pub fn login(profile: &Profile) -> Vec<u8> {
    let Profile { user, layout, wrong_password, device, .. } = *profile;
    let (name, password) = (format!("u{user}"), format!("p{}", user + u32::from(wrong_password)));
    let mut packet = Vec::new();
    let tail = match layout {
        Layout::Named => {
            let device = format!("d{device}");
            let connect =
                Connect { user: name, token: password, ext: 1, device, ..Connect::default() };
            named::connect(connect, false, &mut packet);
            return packet;
        }
        Layout::Plain | Layout::Door => Tail::Plain,
        Layout::Role => Tail::Role(b'2'),
        Layout::Terminal(client) => Tail::Terminal { role: 2, client },
    };
    binary::connect(name.as_bytes(), password.as_bytes(), tail, &mut packet)
        .expect("names are short");
    packet
}

/// A message, the `index`-th of the run.
pub fn publish(layout: Layout, record: &Record, index: usize) -> Vec<u8> {
    let (id, body) = (id_of(index), &record.body);
    let mut packet = Vec::new();
    if layout == Layout::Named {
        let (chat, to) = match &record.to {
            To::User(user) => (ChatType::Single, format!("u{user}")),
            To::Group(group) | To::Part(group, _) => (ChatType::Group, group.to_string()),
        };
        let [id, body] = [&id[..], body].map(|text| str::from_utf8(text).expect("plain text"));
        named::send((chat, &to), id, body, Some(true), false, &mut packet);
        return packet;
    }
    let id = MessageId::from(id);
    match &record.to {
        To::User(user) => binary::publish(UserId(*user), &id, body, &mut packet),
        To::Group(group) => binary::group_publish(GroupId(*group), &id, body, &mut packet),
        To::Part(group, users) => {
            let users: Vec<_> = users.iter().map(|&user| UserId(user)).collect();
            binary::group_part_publish(GroupId(*group), &id, &users, body, &mut packet)
        }
    }
    .expect("bodies are short");
    packet
}

/// The acknowledgement of a push.
pub fn ack(layout: Layout, kind: PublishKind, id: &MessageId) -> Vec<u8> {
    let mut packet = Vec::new();
    match layout {
        Layout::Named => {
            let id = str::from_utf8(id.as_bytes()).expect("it came as text");
            named::ack(id, false, &mut packet);
        }
        _ => binary::ack(kind, id, &mut packet),
    }
    packet
}

/// The answer to a ping.
pub fn pong(layout: Layout) -> Vec<u8> {
    let mut packet = Vec::new();
    match layout {
        Layout::Named => named::pong(Ping { time: 0 }, false, &mut packet),
        _ => binary::ping_resp(&mut packet),
    }
    packet
}

fn message_id(text: &str) -> Result<MessageId, String> {
    MessageId::new(text.as_bytes()).ok_or_else(|| format!("{text} is too long for an id"))
}

/// Codes of im-demo's Response and Disconnect.
const NOT_ALLOWED: i32 = 5;
const TOO_MANY: i32 = 8;
const BUSY: i32 = 9;
const REPLACED: i32 = 1;
const PROTOCOL_ERROR: i32 = 3;
