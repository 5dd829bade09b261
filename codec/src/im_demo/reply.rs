//! What the gateway writes.
//!
//! Owns: the words, and the fields that the gateway adds to a message. Never: a field of the
//! extension to a client that may not expect it, but where the original skips it anyway. Pushes
//! and answers are written straight to the output; the rest, which is rare, by prost.

use std::borrow::Cow;

use prost::Message as _;

use super::command::{Header, VERSION};
use super::fields::{
    bytes_key, bytes_len, int_len, is_plain, put_bytes, put_head, put_int, put_varint,
};
use super::types::{
    ChatType, Command, ConAck, Contact, ContactItem, ContactList, ContactOp, Disconnect, GroupItem,
    GroupList, MessageType, Ping, Request, RequestType, Status,
};
use crate::close::CloseReason;
use crate::ids::{MessageId, stamp_digits};
use crate::message::{Content, Message, Target};
use crate::notice::{News, Notice};
use crate::packet::{Accepted, Failure, Push, Receipt, Refusal};
use crate::protocol::ProtocolId;
use crate::query::Answer;

/// Appends a rare Command.
fn put(command: Command, stream: bool, out: &mut Vec<u8>) {
    let command = Command { version: 1, ..command };
    let written = match stream {
        true => command.encode_length_delimited(out),
        false => command.encode(out),
    };
    written.expect("a Vec takes everything");
}

/// Appends the beginning of a Command with one sub-message, field `number`, of `len` bytes.
#[inline]
fn put_command(number: u8, len: usize, stream: bool, out: &mut Vec<u8>) {
    let command_len = VERSION.len() + bytes_len(len);
    out.reserve(command_len + 5);
    if stream {
        put_varint(command_len as u64, out);
    }
    let [version_key, version] = VERSION;
    out.extend_from_slice(&[version_key, version, bytes_key(number)]);
    put_varint(len as u64, out);
}

pub(super) fn put_accepted(ext: bool, accepted: &Accepted<'_>, stream: bool, out: &mut Vec<u8>) {
    let con_ack = match ext {
        false => ConAck::default(),
        true => ConAck {
            ext: 1,
            heartbeat: i32::try_from(accepted.heartbeat_s).unwrap_or(i32::MAX),
            session: accepted.session.to_string(),
            time: accepted.time_ms as i64,
            ..ConAck::default()
        },
    };
    put(Command { conack: Some(con_ack), ..Command::default() }, stream, out);
}

/// A second login is answered by the farewell alone.
pub(super) fn put_refused(refusal: Refusal, stream: bool, out: &mut Vec<u8>) {
    let reason = match refusal {
        Refusal::Duplicate => return,
        Refusal::Taken => "already connected",
        Refusal::UnknownTenant | Refusal::UnknownVhost => "unknown org or appkey",
        Refusal::BadCredentials => "bad user or token",
    };
    let con_ack = ConAck {
        status: Status::Fail.into(),
        reason: Some(reason.to_owned()),
        ..ConAck::default()
    };
    put(Command { conack: Some(con_ack), ..Command::default() }, stream, out);
}

pub(super) fn put_ping(time: i64, stream: bool, out: &mut Vec<u8>) {
    put(Command { ping: Some(Ping { time }), ..Command::default() }, stream, out);
}

pub(super) fn put_pong(time: i64, stream: bool, out: &mut Vec<u8>) {
    put(Command { pong: Some(Ping { time }), ..Command::default() }, stream, out);
}

/// Ends that say enough by themselves have no word.
pub(super) fn put_goodbye(reason: CloseReason, stream: bool, out: &mut Vec<u8>) {
    let (code, reason) = match reason {
        CloseReason::Replaced => (1, "replaced"),
        CloseReason::HeartbeatLost => (2, "heartbeat timeout"),
        CloseReason::Malformed | CloseReason::DuplicateConnect | CloseReason::TextMessage => {
            (3, "protocol error")
        }
        CloseReason::Shutdown => (4, "server going down"),
        CloseReason::LoginDeadline => (5, "connect timeout"),
        CloseReason::SlowConsumer => (6, "slow consumer"),
        _ => return,
    };
    let disconnect = Disconnect { code, reason: reason.to_owned() };
    put(Command { disconnect: Some(disconnect), ..Command::default() }, stream, out);
}

/// A Response: fields that are zero or empty are not on the wire.
pub(super) struct Response<'a> {
    code: u8,
    reason: Cow<'a, str>,
    id: &'a MessageId,
    payload: Payload,
}

enum Payload {
    None,
    Ack(Receipt),
    Bytes(Vec<u8>),
}

impl<'a> Response<'a> {
    pub(super) fn done(id: &'a MessageId, receipt: Option<Receipt>) -> Self {
        let payload = receipt.map_or(Payload::None, Payload::Ack);
        Self { code: 0, reason: Cow::Borrowed(""), id, payload }
    }

    pub(super) fn failed(id: &'a MessageId, why: Failure) -> Self {
        let (code, reason) = match why {
            Failure::NoRecipient => (2, "no recipient"),
            Failure::BadRequest => (2, "bad request"),
            Failure::Unsupported => (3, "unsupported"),
            Failure::Unknown => (4, "no such user or group"),
            Failure::NotAllowed => (5, "not allowed"),
            Failure::Offline => (6, "recipient offline"),
            Failure::TooLarge => (7, "too large"),
            Failure::TooMany => (8, "too many"),
            Failure::Busy => (9, "busy"),
            Failure::Exists => (10, "exists"),
        };
        Self { code, reason: Cow::Borrowed(reason), id, payload: Payload::None }
    }

    /// `in_reason`: lists are in the reason, too, as names with commas between them.
    pub(super) fn answer(id: &'a MessageId, answer: &Answer, in_reason: bool) -> Self {
        let (names, payload) = match answer {
            Answer::Done | Answer::ContactAdded(_) => return Self::done(id, None),
            Answer::Failed(why) => return Self::failed(id, *why),
            Answer::Contacts(contacts) => {
                let item = |contact: &crate::query::Contact| ContactItem {
                    user: lossy(&contact.name),
                    online: contact.online,
                };
                let items: Vec<_> = contacts.iter().map(item).collect();
                let names = items.iter().map(|item| &*item.user).collect::<Vec<_>>().join(",");
                (names, ContactList { items }.encode_to_vec())
            }
            Answer::Groups(groups) => {
                let item = |group: &crate::query::Group| GroupItem {
                    id: lossy(&group.id),
                    name: lossy(&group.title),
                    owner: lossy(&group.owner),
                    users: group.users.iter().map(|user| lossy(user)).collect(),
                };
                let items: Vec<_> = groups.iter().map(item).collect();
                let names = items.iter().map(|item| &*item.id).collect::<Vec<_>>().join(",");
                (names, GroupList { items }.encode_to_vec())
            }
        };
        let reason = Cow::Owned(if in_reason { names } else { String::new() });
        Self { code: 0, reason, id, payload: Payload::Bytes(payload) }
    }

    pub(super) fn put(&self, stream: bool, out: &mut Vec<u8>) {
        let code_len = if self.code == 0 { 0 } else { int_len(self.code.into()) };
        let payload_len = match &self.payload {
            Payload::None => 0,
            Payload::Ack(receipt) => {
                let stored_len = if receipt.stored { int_len(1) } else { 0 };
                StampField::LEN + int_len(receipt.time_ms) + stored_len
            }
            Payload::Bytes(bytes) => bytes.len(),
        };
        let optional = |len: usize| if len == 0 { 0 } else { bytes_len(len) };
        let (id, reason) = (self.id.as_bytes(), self.reason.as_bytes());
        let len = code_len + optional(reason.len()) + optional(id.len()) + optional(payload_len);
        put_command(7, len, stream, out);
        if self.code != 0 {
            put_int(1, self.code.into(), out);
        }
        if !reason.is_empty() {
            put_bytes(2, reason, out);
        }
        if !id.is_empty() {
            put_bytes(3, id, out);
        }
        if payload_len > 0 {
            put_head(4, payload_len, out);
        }
        match &self.payload {
            Payload::None => {}
            Payload::Ack(receipt) => {
                StampField::new(receipt.stamp).put(1, out);
                put_int(2, receipt.time_ms, out);
                if receipt.stored {
                    put_int(3, 1, out);
                }
            }
            Payload::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// Appends a push to the user called `own_name`, which is UTF-8.
///
/// Of a field that comes twice the last counts, so the gateway's fields behind the sender's own
/// Message overrule whatever he wrote there, and what the gateway does not know passes untouched.
pub(super) fn put_push(push: &Push<'_>, own_name: &[u8], stream: bool, out: &mut Vec<u8>) {
    let message = push.message;
    let body = Body::of(message);
    let stamps = Stamps::of(message, own_name);
    let message_len = body.len() + stamps.len();
    let opts: &[u8] = if push.stored { &OFFLINE } else { &[] };
    let request_len = bytes_len(message_len) + opts.len() + StampField::LEN;
    put_command(6, request_len, stream, out);
    put_head(2, message_len, out);
    body.put(out);
    stamps.put(out);
    out.extend_from_slice(opts);
    stamps.id.put(4, out);
}

/// Appends the news that somebody has added the client to his contacts; of other news this protocol
/// knows nothing. The id lets a client answer as to any other request: without one its answer would
/// be taken for that to the oldest push.
pub(super) fn put_notice(stamp: u128, notice: &Notice, stream: bool, out: &mut Vec<u8>) {
    if notice.news != News::ContactAdded {
        return;
    }
    let contact = Contact { op: ContactOp::Add.into(), user: lossy(&notice.name) };
    let request = Request {
        r#type: RequestType::Contact.into(),
        payload: contact.encode_to_vec(),
        id: lossy(MessageId::of_stamp(stamp).as_bytes()),
        ..Request::default()
    };
    put(Command { request: Some(request), ..Command::default() }, stream, out);
}

/// Option{offline} as field 3 of a Request.
const OFFLINE: [u8; 4] = [0x1a, 0x02, 0x08, 0x01];

/// A Message without the gateway's fields.
enum Body<'a> {
    /// As an im-demo client wrote it.
    Own(&'a [u8]),
    Made(MessageType, Cow<'a, str>),
}

impl<'a> Body<'a> {
    fn of(message: &'a Message) -> Self {
        if message.protocol == ProtocolId::ImDemo {
            return Self::Own(&message.body);
        }
        match message.content() {
            Content::Image(url) => Self::Made(MessageType::Image, Cow::Borrowed(url)),
            Content::Text(text) | Content::Audio(text) | Content::Video(text) => {
                Self::Made(MessageType::Txt, Cow::Borrowed(text))
            }
            opaque @ Content::Opaque(_) => {
                let mut text = String::new();
                opaque.write_text(&mut text);
                Self::Made(MessageType::Txt, Cow::Owned(text))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Made(kind, text) => {
                let kind_len = int_len(*kind as u64);
                kind_len + bytes_len(bytes_len(text.len()))
            }
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Own(bytes) => out.extend_from_slice(bytes),
            Self::Made(kind, text) => {
                put_int(1, *kind as u64, out);
                put_head(2, bytes_len(text.len()), out);
                put_bytes(1, text.as_bytes(), out);
            }
        }
    }
}

/// The fields of a Message that only the gateway sets.
struct Stamps<'a> {
    from: Cow<'a, [u8]>,
    /// `None`: the sender's own word stands.
    to: Option<Cow<'a, [u8]>>,
    chat: ChatType,
    id: StampField,
    time_ms: u64,
}

impl<'a> Stamps<'a> {
    fn of(message: &'a Message, own_name: &'a [u8]) -> Self {
        let decimal = |number: u32| Cow::Owned(number.to_string().into_bytes());
        let from = match message.from {
            _ if !message.from_name.is_empty() => utf8(&message.from_name),
            Some(user) => decimal(user.id.0),
            None => Cow::default(),
        };
        let (to, chat) = match message.to {
            Target::User(_) => (Some(Cow::Borrowed(own_name)), ChatType::Single),
            Target::Group(_) if names_group(message) => (None, ChatType::Group),
            Target::Group(group) => (Some(decimal(group.id.0)), ChatType::Group),
            Target::Room(_) => (Some(Cow::default()), ChatType::Group),
        };
        Self { from, to, chat, id: StampField::new(message.stamp), time_ms: message.time_ms }
    }

    fn len(&self) -> usize {
        bytes_len(self.from.len())
            + self.to.as_ref().map_or(0, |to| bytes_len(to.len()))
            + int_len(self.chat as u64)
            + StampField::LEN
            + int_len(self.time_ms)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(3, &self.from, out);
        if let Some(to) = &self.to {
            put_bytes(4, to, out);
        }
        put_int(5, self.chat as u64, out);
        self.id.put(6, out);
        put_int(7, self.time_ms, out);
    }
}

/// The sender called the group by a name, which its members know and the gateway does not here.
fn names_group(message: &Message) -> bool {
    message.protocol == ProtocolId::ImDemo
        && Header::parse(&message.body)
            .is_ok_and(|header| header.chat == i32::from(ChatType::Group) && !header.to.is_empty())
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// As protobuf wants its strings.
fn utf8(name: &[u8]) -> Cow<'_, [u8]> {
    match is_plain(name) || std::str::from_utf8(name).is_ok() {
        true => Cow::Borrowed(name),
        false => Cow::Owned(lossy(name).into_bytes()),
    }
}

/// An id that the gateway made, see [`MessageId::of_stamp`], with room for its head as a field.
struct StampField([u8; Self::LEN]);

impl StampField {
    const DIGITS: usize = 32;
    const LEN: usize = 2 + Self::DIGITS;

    fn new(stamp: u128) -> Self {
        let mut field = [Self::DIGITS as u8; Self::LEN];
        field[2..].copy_from_slice(&stamp_digits(stamp));
        Self(field)
    }

    /// As the field of a number under 16.
    fn put(&self, number: u8, out: &mut Vec<u8>) {
        let mut field = self.0;
        field[0] = bytes_key(number);
        out.extend_from_slice(&field);
    }
}
