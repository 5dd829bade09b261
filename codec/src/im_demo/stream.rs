//! Commands on a byte stream.
//!
//! ```text
//!   varint length | Command        at most 5 bytes of length, which does not count itself
//! ```
//!
//! Owns: reading the length. Never looks into the Command.

use std::ops::Range;

use super::PACKET_MAX;
use crate::error::{Decoded, Malformed, WireError};

/// Finds the next Command in `input`. Lengths may be longer than they need be; 0 is one, too.
///
/// # Errors
/// [`Malformed::TooLarge`] as soon as the length is over `max` or [`PACKET_MAX`], or has more than
/// 5 bytes.
pub fn frame(max: u32, input: &[u8]) -> Result<Decoded<Range<usize>>, WireError> {
    let too_large = WireError::new(Malformed::TooLarge, 0);
    let mut len = 0_u64;
    for (index, byte) in input.iter().take(PREFIX_MAX).enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * index);
        // More bytes only make it longer.
        if len > u64::from(max) || len > PACKET_MAX as u64 {
            return Err(too_large);
        }
        if *byte < 0x80 {
            let value = index + 1..index + 1 + len as usize;
            if input.len() < value.end {
                return Ok(Decoded::NeedMore { total: value.end });
            }
            let consumed = value.end;
            return Ok(Decoded::Frame { value, consumed });
        }
    }
    match input.len() {
        len if len < PREFIX_MAX => Ok(Decoded::NeedMore { total: len + 1 }),
        _ => Err(too_large),
    }
}

/// The longest length in bytes.
const PREFIX_MAX: usize = 5;
