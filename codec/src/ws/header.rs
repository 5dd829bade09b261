//! One frame header: read with every check that needs no history, and written in its minimal form.
//!
//! ```text
//!  byte 0            byte 1                      0, 2 or 8 bytes      0 or 4 bytes
//! +-+---+--------+  +-+----------------------+  +----------------+   +------------+
//! |F|RSV| opcode |  |M| length, 126 or 127   |  | length, if 126 |   | key, if M  |
//! +-+---+--------+  +-+----------------------+  | (u16), 127 u64 |   +------------+
//!                                               +----------------+    RFC 6455 5.2
//! ```

use super::{CONTROL_MAX, Opcode, Role, WsError};

/// The longest header: two bytes, a 64-bit length, a key.
pub(super) const HEADER_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASK: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// A header that is right in itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    /// Zero if the frame is not masked: the key that changes nothing.
    pub(super) key: [u8; 4],
    /// What the peer claims; nothing is allocated for it.
    pub(super) payload_len: u64,
    /// Bytes of the header itself.
    pub(super) size: usize,
}

impl Header {
    /// The header at the start of `bytes`, sent to `role`; `None` if it is not whole.
    #[inline]
    pub(super) fn parse(bytes: &[u8], role: Role) -> Result<Option<Self>, WsError> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(WsError::ReservedBits);
        }
        let opcode = Opcode::from_number(first & OPCODE).ok_or(WsError::ReservedOpcode)?;
        let fin = first & FIN != 0;
        let masked = second & MASK != 0;
        if masked != (role == Role::Server) {
            return Err(if masked { WsError::Masked } else { WsError::Unmasked });
        }
        let short = second & LENGTH;
        if opcode.is_control() {
            if !fin {
                return Err(WsError::ControlFragmented);
            }
            if usize::from(short) > CONTROL_MAX {
                return Err(WsError::ControlTooLong);
            }
        }
        let Some((payload_len, at)) = payload_len(bytes, short)? else { return Ok(None) };
        if !masked {
            return Ok(Some(Self { fin, opcode, key: [0; 4], payload_len, size: at }));
        }
        let Some(&key) = bytes[at..].first_chunk() else { return Ok(None) };
        Ok(Some(Self { fin, opcode, key, payload_len, size: at + key.len() }))
    }
}

/// The payload length and the offset behind it.
#[inline]
fn payload_len(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, WsError> {
    match short {
        LENGTH_16 => {
            let Some(&long) = bytes[2..].first_chunk() else { return Ok(None) };
            let len = u16::from_be_bytes(long);
            if len < u16::from(LENGTH_16) {
                return Err(WsError::LengthNotMinimal);
            }
            Ok(Some((u64::from(len), 4)))
        }
        LENGTH_64 => {
            let Some(&long) = bytes[2..].first_chunk() else { return Ok(None) };
            let len = u64::from_be_bytes(long);
            if len >> 63 != 0 {
                return Err(WsError::LengthTopBit);
            }
            if len <= u64::from(u16::MAX) {
                return Err(WsError::LengthNotMinimal);
            }
            Ok(Some((len, 10)))
        }
        len => Ok(Some((u64::from(len), 2))),
    }
}

/// A header of at most [`HEADER_MAX`] bytes, written.
pub(super) struct Written {
    bytes: [u8; HEADER_MAX],
    size: usize,
}

impl Written {
    /// The header of a whole message or control frame.
    #[inline]
    pub(super) fn new(opcode: Opcode, key: Option<[u8; 4]>, payload_len: usize) -> Self {
        let mut bytes = [0; HEADER_MAX];
        bytes[0] = FIN | opcode.number();
        let size = size(key, payload_len);
        match payload_len {
            0..126 => bytes[1] = payload_len as u8,
            126..65_536 => {
                bytes[1] = LENGTH_16;
                bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            }
            _ => {
                bytes[1] = LENGTH_64;
                bytes[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
            }
        }
        if let Some(key) = key {
            bytes[1] |= MASK;
            bytes[size - key.len()..size].copy_from_slice(&key);
        }
        Self { bytes, size }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// Bytes of the header in front of a payload.
#[inline]
pub(super) fn size(key: Option<[u8; 4]>, payload_len: usize) -> usize {
    let length = match payload_len {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    length + key.map_or(0, |key| key.len())
}
