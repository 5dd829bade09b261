//! A Command as it lies in the receive buffer.
//!
//! Of a field that comes twice the last counts, and of a message that comes twice each field, as
//! protobuf has it. Unknown fields are skipped.
//!
//! Owns: which fields are read and that strings are UTF-8. Never: what they mean.

use super::fields::{Fields, Value};
use super::types::{MessageType, RequestType};
use crate::error::WireError;

/// The sub-messages a client may send; the answer to a login is his to hear, not to say.
#[derive(Default)]
pub(super) struct Command<'a> {
    /// Which of them are there: a bit for each number, from [`FIRST`] on.
    present: u8,
    connect: Connect<'a>,
    request: Request<'a>,
    /// The id.
    response: &'a [u8],
    /// The time.
    ping: i64,
}

/// One of them.
pub(super) enum Part<'c, 'a> {
    Connect(&'c Connect<'a>),
    Disconnect,
    Request(&'c Request<'a>),
    /// The id.
    Response(&'a [u8]),
    /// The time.
    Ping(i64),
    Pong,
}

#[derive(Default)]
pub(super) struct Connect<'a> {
    pub(super) org: &'a [u8],
    pub(super) appkey: &'a [u8],
    pub(super) user: &'a [u8],
    pub(super) token: &'a [u8],
    pub(super) ext: i32,
    pub(super) device: &'a [u8],
}

#[derive(Default)]
pub(super) struct Request<'a> {
    pub(super) kind: i32,
    pub(super) payload: &'a [u8],
    /// What the options say, if there are any.
    pub(super) offline: Option<bool>,
    pub(super) id: &'a [u8],
}

/// What the gateway has to know of a Message, the payload of a request.
#[derive(Default)]
pub(super) struct Header<'a> {
    pub(super) kind: i32,
    pub(super) payload: &'a [u8],
    pub(super) to: &'a [u8],
    pub(super) chat: i32,
}

/// The payload of a request about contacts or groups; contacts have no title and one user.
#[derive(Default)]
pub(super) struct Question<'a> {
    pub(super) op: i32,
    pub(super) id: &'a [u8],
    pub(super) title: &'a [u8],
    pub(super) users: Vec<&'a [u8]>,
}

impl<'a> Command<'a> {
    /// Reads a Command into an empty one: it is too large to be handed back.
    pub(super) fn read(&mut self, bytes: &'a [u8]) -> Result<(), WireError> {
        // Everybody begins with the version, which means nothing.
        for field in Fields::behind(bytes, &VERSION) {
            let (number, value) = field?;
            match number {
                1 => drop(value.int32()?),
                CONNECT => self.connect.merge(value)?,
                CON_ACK => con_ack(value)?,
                DISCONNECT => disconnect(value)?,
                REQUEST => self.request.merge(value)?,
                RESPONSE => response(value, &mut self.response)?,
                PING => ping(value, &mut self.ping)?,
                PONG => ping(value, &mut 0)?,
                _ => {}
            }
            if matches!(number, CONNECT | DISCONNECT..=PONG) {
                self.present |= 1 << (number - FIRST);
            }
        }
        Ok(())
    }

    /// Of the sub-messages in the order of their numbers, the first one behind the first `skip`
    /// places, and the place of the one after it; 0: there is none.
    pub(super) fn part(&self, skip: u8) -> Option<(Part<'_, 'a>, u8)> {
        let left = self.present & (u8::MAX << skip);
        let part = match FIRST + left.trailing_zeros() {
            CONNECT => Part::Connect(&self.connect),
            DISCONNECT => Part::Disconnect,
            REQUEST => Part::Request(&self.request),
            RESPONSE => Part::Response(self.response),
            PING => Part::Ping(self.ping),
            PONG => Part::Pong,
            _ => return None,
        };
        let behind = left & (left - 1);
        Some((part, if behind == 0 { 0 } else { behind.trailing_zeros() as u8 }))
    }
}

impl<'a> Connect<'a> {
    fn merge(&mut self, value: Value<'a>) -> Result<(), WireError> {
        for field in Fields::nested(value.bytes()?, 1) {
            let (number, value) = field?;
            match number {
                1 => self.org = value.text()?,
                2 => self.appkey = value.text()?,
                3 => self.user = value.text()?,
                4 => self.token = value.text()?,
                5 => self.ext = value.int32()?,
                6 => self.device = value.text()?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Request<'a> {
    fn merge(&mut self, value: Value<'a>) -> Result<(), WireError> {
        for field in Fields::nested(value.bytes()?, 1) {
            let (number, value) = field?;
            match number {
                1 => self.kind = value.int32()?,
                2 => self.payload = value.bytes()?,
                3 => *self.offline.get_or_insert_default() |= option(value)?,
                4 => self.id = value.text()?,
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn kind(&self) -> Option<RequestType> {
        RequestType::try_from(self.kind).ok()
    }
}

impl<'a> Header<'a> {
    /// Reads a Message.
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut header = Self::default();
        for field in Fields::new(message) {
            let (number, value) = field?;
            match number {
                1 => header.kind = value.int32()?,
                2 => header.payload = value.bytes()?,
                3 | 6 => drop(value.text()?),
                4 => header.to = value.text()?,
                5 => header.chat = value.int32()?,
                7 => drop(value.int64()?),
                _ => {}
            }
        }
        Ok(header)
    }

    /// `None`: one that the gateway does not know.
    pub(super) fn kind(&self) -> Option<MessageType> {
        MessageType::try_from(self.kind).ok()
    }
}

impl<'a> Question<'a> {
    /// Reads a Contact.
    pub(super) fn contact(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut question = Self::default();
        for field in Fields::new(payload) {
            let (number, value) = field?;
            match number {
                1 => question.op = value.int32()?,
                2 => question.id = value.text()?,
                _ => {}
            }
        }
        Ok(question)
    }

    /// Reads a Group, and of its users no more than `users_max + 1`.
    pub(super) fn group(payload: &'a [u8], users_max: usize) -> Result<Self, WireError> {
        let mut question = Self::default();
        for field in Fields::new(payload) {
            let (number, value) = field?;
            match number {
                1 => question.op = value.int32()?,
                2 => question.id = value.text()?,
                3 => question.title = value.text()?,
                4 => {
                    let user = value.text()?;
                    if question.users.len() <= users_max {
                        question.users.push(user);
                    }
                }
                _ => {}
            }
        }
        Ok(question)
    }
}

/// The only field of a MessageTxt or a MessageImg, as `read` reads it.
pub(super) fn text<'a, T: Default>(
    payload: &'a [u8],
    read: impl Fn(Value<'a>) -> Result<T, WireError>,
) -> Result<T, WireError> {
    let mut text = T::default();
    for field in Fields::new(payload) {
        if let (1, value) = field? {
            text = read(value)?;
        }
    }
    Ok(text)
}

fn con_ack(value: Value<'_>) -> Result<(), WireError> {
    for field in Fields::nested(value.bytes()?, 1) {
        match field? {
            (1 | 3 | 4 | 6, value) => drop(value.int64()?),
            (2 | 5, value) => drop(value.text()?),
            _ => {}
        }
    }
    Ok(())
}

fn disconnect(value: Value<'_>) -> Result<(), WireError> {
    for field in Fields::nested(value.bytes()?, 1) {
        match field? {
            (1, value) => drop(value.int32()?),
            (2, value) => drop(value.text()?),
            _ => {}
        }
    }
    Ok(())
}

fn option(value: Value<'_>) -> Result<bool, WireError> {
    let bytes = value.bytes()?;
    // Nearly always.
    if bytes == OFFLINE {
        return Ok(true);
    }
    let mut offline = false;
    for field in Fields::nested(bytes, 2) {
        if let (1, value) = field? {
            offline = value.bool()?;
        }
    }
    Ok(offline)
}

fn response<'a>(value: Value<'a>, id: &mut &'a [u8]) -> Result<(), WireError> {
    for field in Fields::nested(value.bytes()?, 1) {
        match field? {
            (1, value) => drop(value.int32()?),
            (2, value) => drop(value.text()?),
            (3, value) => *id = value.text()?,
            (4, value) => drop(value.bytes()?),
            _ => {}
        }
    }
    Ok(())
}

fn ping(value: Value<'_>, time: &mut i64) -> Result<(), WireError> {
    for field in Fields::nested(value.bytes()?, 1) {
        if let (1, value) = field? {
            *time = value.int64()?;
        }
    }
    Ok(())
}

/// The version of every Command, as its first field.
pub(super) const VERSION: [u8; 2] = [0x08, 0x01];
/// Field 1 of an Option: offline.
const OFFLINE: [u8; 2] = [0x08, 0x01];

/// Numbers of a Command's sub-messages.
const CONNECT: u32 = FIRST;
const CON_ACK: u32 = 4;
const DISCONNECT: u32 = 5;
const REQUEST: u32 = 6;
const RESPONSE: u32 = 7;
const PING: u32 = 8;
const PONG: u32 = 9;
const FIRST: u32 = 3;
