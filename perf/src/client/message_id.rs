//! The 32 bytes of a message id, in lower-case hex as real clients write them, and what they say.
//!
//! ```text
//!    0    8      16     20         32
//!    | run | sender | slot | sequence |
//! ```
//!
//! Owns: this layout. Never: compares ids with payloads; the scenario does.

use super::{Login, Refused};
use codec::MessageId;

/// What an id says; it is different for every message of every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub run: u32,
    pub sender: u32,
    pub slot: u16,
    /// Only the low 48 bits go into the id.
    pub seq: u64,
}

impl Key {
    pub(super) fn encode(self) -> MessageId {
        let high = u64::from(self.run) << 32 | u64::from(self.sender);
        let low = u64::from(self.slot) << 48 | self.seq & MAX_SEQ;
        let mut id = [0; LENGTH];
        let (first, second) = id.split_at_mut(16);
        put_hex(high, first);
        put_hex(low, second);
        id.into()
    }

    /// The key of a message that the server acknowledges to `login`.
    pub(super) fn acked(id: &MessageId, login: &Login) -> Result<Self, Refused> {
        Self::decode(id)
            .filter(|key| (key.run, key.sender) == (login.run, login.user))
            .ok_or(Refused::Malformed("an acknowledgement of somebody else's message"))
    }

    /// `None` if the id is not one of ours.
    pub(super) fn decode(id: &MessageId) -> Option<Self> {
        let (first, second) = id.as_bytes().split_at_checked(16)?;
        let (high, low) = (hex(first)?, hex(second)?);
        Some(Self {
            run: (high >> 32) as u32,
            sender: high as u32,
            slot: (low >> 48) as u16,
            seq: low & MAX_SEQ,
        })
    }
}

fn put_hex(value: u64, out: &mut [u8]) {
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = DIGITS[(value >> (60 - 4 * at) & 15) as usize];
    }
}

/// The value of 16 lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut wrong = u8::from(digits.len() != 16);
    for digit in digits {
        let nibble = NIBBLES[usize::from(*digit)];
        wrong |= nibble & !15;
        value = value << 4 | u64::from(nibble & 15);
    }
    (wrong == 0).then_some(value)
}

/// Bytes of an id: as many as the binary system has for one.
const LENGTH: usize = 32;
const MAX_SEQ: u64 = (1 << 48) - 1;
const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// The digit's value, or 255.
const NIBBLES: [u8; 256] = {
    let mut table = [255; 256];
    let mut value = 0;
    while value < 16 {
        table[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_was_written_and_no_changed_one_says_the_same() {
        let key = Key { run: 0xdead_beef, sender: 42, slot: 65_535, seq: MAX_SEQ - 7 };
        let id = key.encode();
        assert_eq!(Key::decode(&id), Some(key));
        for at in 0..LENGTH {
            let mut bytes: [u8; LENGTH] = id.as_bytes().try_into().expect("full length");
            bytes[at] ^= 1;
            assert_ne!(Key::decode(&bytes.into()), Some(key), "byte {at}");
        }
        assert_eq!(Key::decode(&MessageId::new(b"short").expect("fits")), None);
    }
}
