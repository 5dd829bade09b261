//! Payloads on wires that carry only text: base64 without padding, of which no wire escapes
//! anything and no changed character reads back the same.
//!
//! Owns: this form, and the names of users. Never: what a payload says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::borrow::Cow;

/// How many bytes stand in `length` characters of text, at most.
pub(crate) fn bytes_in(length: usize) -> usize {
    length * 3 / 4
}

/// The text of a payload.
pub(super) fn write(payload: &[u8]) -> String {
    STANDARD_NO_PAD.encode(payload)
}

/// The payload of a text. One that is none stays as it is, and is found to be corrupted.
pub(super) fn read(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    STANDARD_NO_PAD.decode(&text).map_or(text, Cow::Owned)
}

/// The name of a user.
pub(super) fn name(user: u32) -> String {
    format!("u{user}")
}

/// The user of that name; `None` if it is none of ours.
pub(super) fn user(name: &str) -> Option<u32> {
    name.strip_prefix('u')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_fits_its_text_and_no_changed_text_reads_the_same() {
        for length in 59..=140 {
            let payload: Vec<_> = (0..bytes_in(length)).map(|byte| byte as u8 | 0x80).collect();
            let text = write(&payload);
            assert!(text.len() <= length && text.len() > length - 2, "{length}");
            assert_eq!(read(text.as_bytes().into()), payload);
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                assert_ne!(read(changed.into()), payload, "character {at} of {length}");
            }
        }
    }
}
