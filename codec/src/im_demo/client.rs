//! The client's side of the protocol, for the load tool, the terminal client and tests.
//!
//! Owns: what clients of either level send, and what they understand. Never: the gateway's own
//! path; nothing in the gateway calls this. Functions append one packet, behind its length if
//! `stream`.

use prost::Message as _;

use super::command;
use super::fields::Value;
use super::types::{
    self, ChatType, Command, ConAck, Contact, ContactOp, Disconnect, Group, MessageType, Ping,
    Request, RequestOption, RequestType, Response,
};
use crate::error::{Malformed, WireError};

/// What the gateway said.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerPacket {
    ConAck(ConAck),
    Disconnect(Disconnect),
    /// A message; the answer is [`ack`] with its id.
    Push {
        id: String,
        message: types::Message,
        /// It waited in the store.
        stored: bool,
    },
    /// Somebody has changed his contacts; no answer is due.
    Contact {
        id: String,
        contact: Contact,
    },
    /// The answer to a request.
    Response(Response),
    /// The answer is [`pong`].
    Ping(Ping),
    Pong(Ping),
}

/// Appends a Command.
pub fn put(command: &Command, stream: bool, out: &mut Vec<u8>) {
    let written = match stream {
        true => command.encode_length_delimited(out),
        false => command.encode(out),
    };
    written.expect("a Vec takes everything");
}

/// Appends a login.
pub fn connect(connect: types::Connect, stream: bool, out: &mut Vec<u8>) {
    put(&Command { connect: Some(connect), ..command() }, stream, out);
}

/// Appends a text for the user or the group `to`. `offline`: whether it is kept for those who are
/// away; `None` leaves that to the gateway. An empty `id` is none.
pub fn send(
    to: (ChatType, &str),
    id: &str,
    text: &str,
    offline: Option<bool>,
    stream: bool,
    out: &mut Vec<u8>,
) {
    let txt = types::MessageTxt { txt: text.to_owned() };
    let message = types::Message {
        payload: txt.encode_to_vec(),
        to: to.1.to_owned(),
        chat: to.0.into(),
        ..types::Message::default()
    };
    let request = Request {
        payload: message.encode_to_vec(),
        opts: offline.into_iter().map(|offline| RequestOption { offline }).collect(),
        id: id.to_owned(),
        ..Request::default()
    };
    put(&Command { request: Some(request), ..command() }, stream, out);
}

/// Appends a question about contacts.
pub fn contact(op: ContactOp, user: &str, id: &str, stream: bool, out: &mut Vec<u8>) {
    let contact = Contact { op: op.into(), user: user.to_owned() };
    question(RequestType::Contact, contact.encode_to_vec(), id, stream, out);
}

/// Appends a question about groups.
pub fn group(group: &Group, id: &str, stream: bool, out: &mut Vec<u8>) {
    question(RequestType::Group, group.encode_to_vec(), id, stream, out);
}

/// Appends the acknowledgement of a push; without an id, of the oldest one.
pub fn ack(id: &str, stream: bool, out: &mut Vec<u8>) {
    let response = Response { id: id.to_owned(), ..Response::default() };
    put(&Command { response: Some(response), ..command() }, stream, out);
}

/// Appends a question whether the gateway is there.
pub fn ping(time: i64, stream: bool, out: &mut Vec<u8>) {
    put(&Command { ping: Some(Ping { time }), ..command() }, stream, out);
}

/// Appends the answer to the gateway's ping.
pub fn pong(ping: Ping, stream: bool, out: &mut Vec<u8>) {
    put(&Command { pong: Some(ping), ..command() }, stream, out);
}

/// Appends the sign of life of clients without ping.
pub fn alive(stream: bool, out: &mut Vec<u8>) {
    put(&command(), stream, out);
}

/// Appends the goodbye.
pub fn disconnect(stream: bool, out: &mut Vec<u8>) {
    put(&Command { disconnect: Some(Disconnect::default()), ..command() }, stream, out);
}

/// Decodes one packet of the gateway, the whole of `bytes`.
///
/// # Errors
/// [`WireError`] if the gateway never sends such a packet.
pub fn decode_server(bytes: &[u8]) -> Result<ServerPacket, WireError> {
    let syntax = |_| WireError::new(Malformed::Syntax, 0);
    match Command::decode(bytes).map_err(syntax)? {
        Command { conack: Some(con_ack), .. } => Ok(ServerPacket::ConAck(con_ack)),
        Command { disconnect: Some(disconnect), .. } => Ok(ServerPacket::Disconnect(disconnect)),
        Command { request: Some(request), .. } if request.r#type() == RequestType::Message => {
            Ok(ServerPacket::Push {
                message: types::Message::decode(&*request.payload).map_err(syntax)?,
                stored: request.opts.iter().any(|option| option.offline),
                id: request.id,
            })
        }
        Command { request: Some(request), .. } if request.r#type() == RequestType::Contact => {
            let contact = Contact::decode(&*request.payload).map_err(syntax)?;
            Ok(ServerPacket::Contact { id: request.id, contact })
        }
        Command { response: Some(response), .. } => Ok(ServerPacket::Response(response)),
        Command { ping: Some(ping), .. } => Ok(ServerPacket::Ping(ping)),
        Command { pong: Some(pong), .. } => Ok(ServerPacket::Pong(pong)),
        _ => Err(WireError::new(Malformed::UnknownCommand, 0)),
    }
}

/// The text of a message that is one.
///
/// # Errors
/// [`WireError`] if it is of another type, or no message at all.
pub fn text(message: &types::Message) -> Result<&str, WireError> {
    match message.r#type() {
        MessageType::Txt => command::text(&message.payload, Value::string),
        MessageType::Image => Err(WireError::new(Malformed::Field, 0)),
    }
}

fn question(kind: RequestType, payload: Vec<u8>, id: &str, stream: bool, out: &mut Vec<u8>) {
    let (r#type, id) = (kind.into(), id.to_owned());
    let request = Request { r#type, payload, id, ..Request::default() };
    put(&Command { request: Some(request), ..command() }, stream, out);
}

fn command() -> Command {
    Command { version: 1, ..Command::default() }
}
