//! The client's side of the protocol, for the load tool, the terminal client and tests.
//!
//! Owns: what clients send, in every layout, and what they understand. Never: the gateway's own
//! path; nothing in the gateway calls this. Functions append one packet; wrap them in
//! [`super::stream::framed`] on a byte stream.

use super::put_ack;
use super::wire::{MESSAGE_ID, command, message_id};
use crate::error::{Malformed, WireError};
use crate::ids::{GroupId, MessageId, UserId};
use crate::packet::PublishKind;
use crate::reader::Reader;

/// Which revision of the clients a CONNECT looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail<'a> {
    Plain,
    /// The document's raw role byte; the browser client sends the role's ASCII digit.
    Role(u8),
    /// `client` is 1 to 127.
    Terminal {
        role: u8,
        client: u8,
    },
    /// Stands before the name.
    Vhost(&'a [u8]),
}

/// What the gateway said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPacket<'a> {
    /// See [`super::code`].
    ConnectAck(u8),
    /// A message; the answer is [`ack`].
    Push {
        id: MessageId,
        body: &'a [u8],
    },
    /// A group message in the form that names the group.
    GroupPush {
        group: GroupId,
        id: MessageId,
        body: &'a [u8],
    },
    /// The publish is safe.
    PublishAck(PublishKind, MessageId),
    /// The answer is [`ping_resp`].
    Ping,
    Disconnect,
    Invalid,
    /// Another login took this terminal: do not reconnect.
    Logout,
}

/// A field of our own does not fit its u16 length; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("longer than the 65,535 that its length field can say")
    }
}

impl std::error::Error for TooLong {}

/// Appends CONNECT.
///
/// # Errors
/// [`TooLong`] if a string is over 65,535 bytes.
pub fn connect(
    name: &[u8],
    password: &[u8],
    tail: Tail<'_>,
    out: &mut Vec<u8>,
) -> Result<(), TooLong> {
    let vhost = match tail {
        Tail::Vhost(vhost) => Some(vhost),
        Tail::Plain | Tail::Role(_) | Tail::Terminal { .. } => None,
    };
    let mut packet = vec![command::CONNECT];
    for string in vhost.into_iter().chain([name, password]) {
        put_u16(string.len(), &mut packet)?;
        packet.extend_from_slice(string);
    }
    match tail {
        Tail::Plain | Tail::Vhost(_) => {}
        Tail::Role(role) => packet.push(role),
        Tail::Terminal { role, client } => packet.extend_from_slice(&[role, client]),
    }
    out.append(&mut packet);
    Ok(())
}

/// Appends PUBLISH.
///
/// # Errors
/// [`TooLong`] if `body` is over 65,535 bytes.
pub fn publish(to: UserId, id: &MessageId, body: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    put_publish(command::PUBLISH, to.0, id, None, body, out)
}

/// Appends GROUP_PUBLISH.
///
/// # Errors
/// [`TooLong`] if `body` is over 65,535 bytes.
pub fn group_publish(
    group: GroupId,
    id: &MessageId,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TooLong> {
    put_publish(command::GROUP_PUBLISH, group.0, id, None, body, out)
}

/// Appends GROUP_PART_PUBLISH.
///
/// # Errors
/// [`TooLong`] if `body` is over 65,535 bytes or there are over 65,535 `users`.
pub fn group_part_publish(
    group: GroupId,
    id: &MessageId,
    users: &[UserId],
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TooLong> {
    put_publish(command::GROUP_PART_PUBLISH, group.0, id, Some(users), body, out)
}

/// Appends the acknowledgement of a push: [`PublishKind::User`] for [`ServerPacket::Push`],
/// [`PublishKind::Group`] for [`ServerPacket::GroupPush`].
pub fn ack(kind: PublishKind, id: &MessageId, out: &mut Vec<u8>) {
    put_ack(kind, id, out);
}

/// Appends PING_RESP.
pub fn ping_resp(out: &mut Vec<u8>) {
    out.push(command::PING_RESP);
}

/// Appends DISCONNECT.
pub fn disconnect(out: &mut Vec<u8>) {
    out.push(command::DISCONNECT);
}

/// Decodes one packet of the gateway, the whole of `bytes`.
///
/// # Errors
/// [`WireError`] if the gateway never sends such a packet.
pub fn decode_server(bytes: &[u8]) -> Result<ServerPacket<'_>, WireError> {
    let mut reader = Reader::new(bytes);
    let command = reader.u8().map_err(|_| WireError::new(Malformed::Empty, 0))?;
    let packet = match command {
        command::CONNECT_ACK => ServerPacket::ConnectAck(reader.u8()?),
        command::PUBLISH => {
            ServerPacket::Push { id: message_id(&mut reader)?, body: reader.string()? }
        }
        command::GROUP_PUBLISH => ServerPacket::GroupPush {
            group: GroupId(reader.u32()?),
            id: message_id(&mut reader)?,
            body: reader.string()?,
        },
        command::PUB_ACK => ServerPacket::PublishAck(PublishKind::User, message_id(&mut reader)?),
        command::GROUP_PUB_ACK => {
            ServerPacket::PublishAck(PublishKind::Group, message_id(&mut reader)?)
        }
        command::GROUP_PART_PUB_ACK => {
            ServerPacket::PublishAck(PublishKind::GroupPart, message_id(&mut reader)?)
        }
        command::PING => ServerPacket::Ping,
        command::DISCONNECT => ServerPacket::Disconnect,
        command::INVALID_PACKET => ServerPacket::Invalid,
        command::LOGOUT => ServerPacket::Logout,
        _ => return Err(WireError::new(Malformed::UnknownCommand, 0)),
    };
    reader.finish()?;
    Ok(packet)
}

fn put_publish(
    command: u8,
    target: u32,
    id: &MessageId,
    users: Option<&[UserId]>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TooLong> {
    let start = out.len();
    out.push(command);
    out.extend_from_slice(&target.to_be_bytes());
    out.extend_from_slice(id.padded::<MESSAGE_ID>());
    let lengths = users
        .map_or(Ok(()), |users| {
            put_u16(users.len(), out)?;
            out.extend(users.iter().flat_map(|user| user.0.to_be_bytes()));
            Ok(())
        })
        .and_then(|()| put_u16(body.len(), out));
    match lengths {
        Ok(()) => out.extend_from_slice(body),
        Err(TooLong) => out.truncate(start),
    }
    lengths
}

fn put_u16(len: usize, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let len = u16::try_from(len).map_err(|_| TooLong)?;
    out.extend_from_slice(&len.to_be_bytes());
    Ok(())
}
