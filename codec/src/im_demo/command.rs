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
    connect: Option<Connect<'a>>,
    disconnect: bool,
    request: Option<Request<'a>>,
    /// The id.
    response: Option<&'a str>,
    /// The time.
    ping: Option<i64>,
    pong: bool,
}

/// One of them.
pub(super) enum Part<'c, 'a> {
    Connect(&'c Connect<'a>),
    Disconnect,
    Request(&'c Request<'a>),
    /// The id.
    Response(&'a str),
    /// The time.
    Ping(i64),
    Pong,
}

#[derive(Default)]
pub(super) struct Connect<'a> {
    pub(super) org: &'a str,
    pub(super) appkey: &'a str,
    pub(super) user: &'a str,
    pub(super) token: &'a str,
    pub(super) ext: i32,
    pub(super) device: &'a str,
}

#[derive(Default)]
pub(super) struct Request<'a> {
    pub(super) kind: i32,
    pub(super) payload: &'a [u8],
    /// What the options say, if there are any.
    pub(super) offline: Option<bool>,
    pub(super) id: &'a str,
}

/// What the gateway has to know of a Message, the payload of a request.
#[derive(Default)]
pub(super) struct Header<'a> {
    pub(super) kind: i32,
    pub(super) payload: &'a [u8],
    pub(super) to: &'a str,
    pub(super) chat: i32,
}

/// The payload of a request about contacts or groups; contacts have no title and one user.
#[derive(Default)]
pub(super) struct Question<'a> {
    pub(super) op: i32,
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) users: Vec<&'a str>,
}

impl<'a> Command<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut command = Self::default();
        for field in Fields::new(bytes) {
            let (number, value) = field?;
            match number {
                1 => drop(value.int32()?),
                3 => command.connect.get_or_insert_default().merge(value)?,
                4 => con_ack(value)?,
                5 => {
                    disconnect(value)?;
                    command.disconnect = true;
                }
                6 => command.request.get_or_insert_default().merge(value)?,
                7 => response(value, command.response.get_or_insert_default())?,
                8 => ping(value, command.ping.get_or_insert_default())?,
                9 => {
                    ping(value, &mut 0)?;
                    command.pong = true;
                }
                _ => {}
            }
        }
        Ok(command)
    }

    /// Of the sub-messages in the order of their numbers, the first one behind the first `skip`
    /// places, and the place of the one after it; 0: there is none.
    pub(super) fn part(&self, skip: u8) -> Option<(Part<'_, 'a>, u8)> {
        let parts = [
            self.connect.as_ref().map(Part::Connect),
            self.disconnect.then_some(Part::Disconnect),
            self.request.as_ref().map(Part::Request),
            self.response.map(Part::Response),
            self.ping.map(Part::Ping),
            self.pong.then_some(Part::Pong),
        ];
        let places = (0..).zip(parts).skip(skip.into());
        let mut places = places.filter_map(|(place, part)| Some((place, part?)));
        let (_, part) = places.next()?;
        Some((part, places.next().map_or(0, |(place, _)| place)))
    }
}

impl<'a> Connect<'a> {
    fn merge(&mut self, value: Value<'a>) -> Result<(), WireError> {
        for field in Fields::nested(value.bytes()?, 1) {
            let (number, value) = field?;
            match number {
                1 => self.org = value.string()?,
                2 => self.appkey = value.string()?,
                3 => self.user = value.string()?,
                4 => self.token = value.string()?,
                5 => self.ext = value.int32()?,
                6 => self.device = value.string()?,
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
                4 => self.id = value.string()?,
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
                3 | 6 => drop(value.string()?),
                4 => header.to = value.string()?,
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
                2 => question.id = value.string()?,
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
                2 => question.id = value.string()?,
                3 => question.title = value.string()?,
                4 => {
                    let user = value.string()?;
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

/// The only field of a MessageTxt or a MessageImg.
pub(super) fn text(payload: &[u8]) -> Result<&str, WireError> {
    let mut text = "";
    for field in Fields::new(payload) {
        if let (1, value) = field? {
            text = value.string()?;
        }
    }
    Ok(text)
}

fn con_ack(value: Value<'_>) -> Result<(), WireError> {
    for field in Fields::nested(value.bytes()?, 1) {
        match field? {
            (1 | 3 | 4 | 6, value) => drop(value.int64()?),
            (2 | 5, value) => drop(value.string()?),
            _ => {}
        }
    }
    Ok(())
}

fn disconnect(value: Value<'_>) -> Result<(), WireError> {
    for field in Fields::nested(value.bytes()?, 1) {
        match field? {
            (1, value) => drop(value.int32()?),
            (2, value) => drop(value.string()?),
            _ => {}
        }
    }
    Ok(())
}

fn option(value: Value<'_>) -> Result<bool, WireError> {
    let mut offline = false;
    for field in Fields::nested(value.bytes()?, 2) {
        if let (1, value) = field? {
            offline = value.bool()?;
        }
    }
    Ok(offline)
}

fn response<'a>(value: Value<'a>, id: &mut &'a str) -> Result<(), WireError> {
    for field in Fields::nested(value.bytes()?, 1) {
        match field? {
            (1, value) => drop(value.int32()?),
            (2, value) => drop(value.string()?),
            (3, value) => *id = value.string()?,
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
