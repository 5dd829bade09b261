//! What is in a text, eight bytes at a time.
//!
//! Texts of a few dozen bytes are what it is for: no early end. Never: where it is.

/// Whether `found` says so of any word. It sets the highest bit of the bytes it looks for; it may
/// set those behind them, too, and must not look for [`PADDING`].
#[inline]
pub(crate) fn any(bytes: &[u8], found: impl Fn(u64) -> u64) -> bool {
    let found = |chunk: &[u8; 8]| found(u64::from_le_bytes(*chunk));
    let found = match bytes.last_chunk() {
        // Some bytes are looked at twice.
        Some(last) => bytes.as_chunks().0.iter().fold(found(last), |all, chunk| all | found(chunk)),
        None => {
            let mut padded = [PADDING; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            found(&padded)
        }
    };
    found & (EVERY << 7) != 0
}

/// The bytes below `bound`, which is at most 0x80.
#[inline]
pub(crate) const fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(EVERY * bound as u64) & !word
}

/// The bytes equal to `byte`.
#[inline]
pub(crate) const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (EVERY * byte as u64), 1)
}

/// What short texts are filled up with.
const PADDING: u8 = b'a';
/// A one in every byte.
const EVERY: u64 = 0x0101_0101_0101_0101;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_words_agree_with_a_look_at_each_byte() {
        let mut seed = 7_u64;
        for step in 0..100_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word = seed ^ (seed >> 29);
            let (byte, bound) = ((seed >> 56) as u8, (step % 0x81) as u8);
            let bytes = word.to_le_bytes();
            assert_eq!(any(&bytes, |word| below(word, bound)), bytes.iter().any(|b| *b < bound));
            assert_eq!(any(&bytes, |word| equal(word, byte)), bytes.contains(&byte));
        }
    }

    #[test]
    fn one_byte_is_found_wherever_it_is_and_nothing_else_is() {
        let sought = |byte: u8| byte < 0x20 || byte == b'"' || byte >= 0x80;
        let found = |word| below(word, 0x20) | equal(word, b'"') | word;
        for len in 0..40 {
            for (at, byte) in (0..len).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                let mut bytes = vec![b'x'; len];
                bytes[at] = byte;
                assert_eq!(any(&bytes, found), sought(byte), "{byte} at {at} of {len}");
            }
            assert!(!any(&vec![b'x'; len], found));
        }
    }
}
