//! The numbers of the wire, for both roles.
//!
//! Owns: command bytes, codes, sizes. Never: decisions.

use crate::error::WireError;
use crate::ids::MessageId;
use crate::reader::Reader;

/// First byte of every packet.
pub(super) mod command {
    pub(in crate::binary) const CONNECT: u8 = 1;
    pub(in crate::binary) const CONNECT_ACK: u8 = 2;
    pub(in crate::binary) const PUBLISH: u8 = 3;
    pub(in crate::binary) const PUB_ACK: u8 = 4;
    pub(in crate::binary) const GROUP_PUBLISH: u8 = 5;
    pub(in crate::binary) const GROUP_PUB_ACK: u8 = 6;
    pub(in crate::binary) const PING: u8 = 7;
    pub(in crate::binary) const PING_RESP: u8 = 8;
    pub(in crate::binary) const DISCONNECT: u8 = 9;
    pub(in crate::binary) const INVALID_PACKET: u8 = 10;
    pub(in crate::binary) const GROUP_PART_PUBLISH: u8 = 11;
    pub(in crate::binary) const GROUP_PART_PUB_ACK: u8 = 12;
    pub(in crate::binary) const LOGOUT: u8 = 20;
}

/// Second byte of CONNECT_ACK.
pub mod code {
    /// Logged in.
    pub const ACCEPTED: u8 = 0;
    /// A second CONNECT on this connection, or the terminal is taken.
    pub const DUPLICATE: u8 = 1;
    /// The vhost is not configured.
    pub const UNKNOWN_VHOST: u8 = 2;
    /// Wrong name or password.
    pub const BAD_CREDENTIALS: u8 = 3;
}

/// Bytes of a message id, always exactly so many.
pub const MESSAGE_ID: usize = 32;

/// The longest payload that the u16 length field can announce.
pub const PAYLOAD_MAX: usize = u16::MAX as usize;

/// The most users a GROUP_PART_PUBLISH can list: its count is a u16.
pub const PART_USERS_MAX: usize = u16::MAX as usize;

/// The longest packet a client can send without breaking its own length fields, 320 KiB: a
/// GROUP_PART_PUBLISH with every count at its end. Anything shorter would refuse a legal packet.
/// Receivers grow buffers towards it with the bytes that arrive, never with the announcement.
pub const PACKET_MAX: usize = 1 + 4 + MESSAGE_ID + 2 + 4 * PART_USERS_MAX + 2 + PAYLOAD_MAX;

/// The longest payload every known client can receive: the Java clients read the length as a
/// signed short.
pub(super) const PAYLOAD_DEFAULT: u32 = i16::MAX as u32;

/// A message id, always of full width.
// Inlined: moving the id through a result in memory costs as much as reading it.
#[inline]
pub(super) fn message_id(reader: &mut Reader<'_>) -> Result<MessageId, WireError> {
    Ok(MessageId::from(reader.array::<MESSAGE_ID>()?))
}
