//! Writes packets in the one-line layout of the original systems.
//!
//! ```text
//!   [name] key = 1 key2 = "text" [name.child] key = 1        [[name]] ... in later revisions
//! ```
//!
//! Owns: brackets, blanks, and that no text can end its own quotes. Never: which fields a packet
//! has, but that each has a key before its first child table: the later parser needs one there.

use crate::words::{self, below, equal};

/// One packet on its way into a buffer.
#[derive(Debug)]
pub(super) struct Emitter<'a> {
    out: &'a mut Vec<u8>,
    double: bool,
    name: &'static str,
}

impl<'a> Emitter<'a> {
    /// Begins a packet; `double`: with `[[name]]`.
    pub(super) fn new(name: &'static str, double: bool, out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(if double { b"[[" } else { b"[" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(if double { b"]]" } else { b"]" });
        Self { out, double, name }
    }

    /// Begins a child table.
    pub(super) fn child(&mut self, child: &str) -> &mut Self {
        for part in [" [", self.name, ".", child, "]"] {
            self.out.extend_from_slice(part.as_bytes());
        }
        self
    }

    pub(super) fn number(&mut self, key: &str, number: u64) -> &mut Self {
        self.key(key);
        let mut digits = [0; 20];
        let mut left = number;
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[first..]);
        self
    }

    pub(super) fn text(&mut self, key: &str, text: &[u8]) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        match self.double {
            _ if is_plain(text) => self.out.extend_from_slice(text),
            // No escape is known there, so a quote has no form.
            true => {
                self.out.extend(text.iter().map(|&byte| if byte == b'"' { b'\'' } else { byte }))
            }
            false => self.escaped(text),
        }
        self.out.push(b'"');
        self
    }

    fn key(&mut self, key: &str) {
        self.out.push(b' ');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b" = ");
    }

    fn escaped(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| IS_ESCAPED[usize::from(*byte)]) {
            let (plain, special) = rest.split_at(at);
            self.out.extend_from_slice(plain);
            self.out.extend(letter(special[0]).iter().flat_map(|letter| [b'\\', *letter]));
            rest = &special[1..];
        }
        self.out.extend_from_slice(rest);
    }
}

/// Whether all parsers take it as it is.
fn is_plain(text: &[u8]) -> bool {
    !words::any(text, |word| below(word, b' ') | equal(word, b'"') | equal(word, b'\\'))
}

/// The earlier parser's escapes: what stands for `byte` behind a backslash.
const fn letter(byte: u8) -> Option<u8> {
    Some(match byte {
        0 => b'0',
        b'\t' => b't',
        b'\n' => b'n',
        b'\r' => b'r',
        b'"' | b'\\' => byte,
        _ => return None,
    })
}

/// Bytes with a letter.
static IS_ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = letter(byte as u8).is_some();
        byte += 1;
    }
    table
};

/// What a letter behind a backslash stands for: the reverse of [`letter`].
fn escaped(letter: u8) -> Option<u8> {
    Some(match letter {
        b'0' => 0,
        b't' => b'\t',
        b'n' => b'\n',
        b'r' => b'\r',
        b'"' | b'\\' => letter,
        _ => return None,
    })
}

/// Appends `text` without its escapes. A backslash before any other byte is a byte like any other.
pub(super) fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let raw = rest.get(at + 1).and_then(|letter| escaped(*letter));
        out.push(raw.unwrap_or(b'\\'));
        rest = &rest[at + 1 + usize::from(raw.is_some())..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_written_the_same_way_wherever_it_stands() {
        let bytes = (0..=u8::MAX).flat_map(|byte| [1, 3, 8, 9, 31].map(|len| (byte, len)));
        for (byte, len) in bytes {
            let (single, double) = match byte {
                b'"' => (&b"\\\""[..], &b"'"[..]),
                b'\\' => (&b"\\\\"[..], &b"\\"[..]),
                0 => (&b"\\0"[..], &b"\0"[..]),
                b'\t' => (&b"\\t"[..], &b"\t"[..]),
                b'\n' => (&b"\\n"[..], &b"\n"[..]),
                b'\r' => (&b"\\r"[..], &b"\r"[..]),
                _ => (&[byte][..], &[byte][..]),
            };
            for at in 0..len {
                let (before, behind) = (vec![b'x'; at], vec![b'y'; len - at - 1]);
                let text = [&before[..], &[byte], &behind].concat();
                for (brackets, expected) in [(false, single), (true, double)] {
                    let mut out = Vec::new();
                    Emitter::new("m", brackets, &mut out).text("c", &text);
                    let said = [&b" c = \""[..], &before, expected, &behind, b"\""].concat();
                    assert!(out.ends_with(&said), "{byte} at {at} of {len}: {out:?}");
                }
            }
        }
    }
}
