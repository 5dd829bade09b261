//! Packets on a byte stream (tcp, tls, the publish door).
//!
//! ```text
//!    0        4
//!   +--------+----------------+
//!   | u32 len| packet         |   len counts the packet, not itself
//!   +--------+----------------+
//! ```
//!
//! Owns: the length prefix, both ways. Never looks into the packet.

use std::ops::Range;

use super::wire::PACKET_MAX;
use crate::error::{Decoded, Malformed, WireError};

/// Finds the next packet in `input`.
///
/// # Errors
/// [`Malformed::TooLarge`] as soon as the prefix announces more than [`PACKET_MAX`] bytes.
pub fn frame(input: &[u8]) -> Result<Decoded<Range<usize>>, WireError> {
    let Some(prefix) = input.first_chunk::<PREFIX>() else {
        return Ok(Decoded::NeedMore { total: PREFIX });
    };
    let len = u32::from_be_bytes(*prefix) as usize;
    if len > PACKET_MAX {
        return Err(WireError::new(Malformed::TooLarge, 0));
    }
    let total = PREFIX + len;
    if input.len() < total {
        return Ok(Decoded::NeedMore { total });
    }
    Ok(Decoded::Frame { value: PREFIX..total, consumed: total })
}

/// Appends to `out` what `write` appends, behind its length if `stream`. Nothing written is no
/// packet: then no length is written either.
pub fn framed<T>(stream: bool, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    if !stream {
        return write(out);
    }
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let packet = out.len();
    let result = write(out);
    match u32::try_from(out.len() - packet) {
        Ok(0) => out.truncate(start),
        Ok(len) => out[start..packet].copy_from_slice(&len.to_be_bytes()),
        Err(_) => unreachable!("packets are bounded by their u16 length fields"),
    }
    result
}

/// Bytes of the length prefix.
const PREFIX: usize = 4;
