//! Masking (RFC 6455 section 5.3): payload byte i is xored with key byte i mod 4.
//!
//! Owns: the word-wide xor. Never: which side masks, and with which key.

/// Masks or unmasks `bytes` in place with a key that is in phase with the first of them.
///
/// Eight bytes at a time, in a loop that the compiler turns into vector instructions. A key of
/// zeros changes nothing and touches nothing.
#[inline]
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    if key == [0; 4] {
        return;
    }
    let [a, b, c, d] = key;
    let pair = [a, b, c, d, a, b, c, d];
    let word = u64::from_ne_bytes(pair);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(pair) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_every_phase_agrees_with_the_definition() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..100 {
            let plain: Vec<u8> = (0..len).map(|i: u8| i.wrapping_mul(31)).collect();
            let expected: Vec<u8> =
                plain.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            for split in 0..=plain.len() {
                let mut bytes = plain.clone();
                let (head, tail) = bytes.split_at_mut(split);
                let mut tail_key = key;
                tail_key.rotate_left(split % 4);
                apply_mask(head, key);
                apply_mask(tail, tail_key);
                assert_eq!(bytes, expected, "{len} bytes split at {split}");
            }
        }
    }
}
