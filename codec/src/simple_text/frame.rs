//! Where a request ends on a byte stream.
//!
//! ```text
//!   {"command":"list"}          an object, alone on its line
//!   {"command":                 or over several lines
//!     "list"}
//!   exit                        anything else: the line
//!   {"message":"say "no""}      no JSON: the lines up to here, and the next line starts afresh
//! ```
//!
//! An object is whole with its last brace, but only the rest of its line tells whether it is the
//! request: a quote or a brace that somebody typed without an escape may have closed it too early.
//! So what follows on the line is waited for, or the silence after it. Another object there is the
//! next request.
//!
//! Owns: the boundaries, told by JSON's grammar (RFC 8259) as far as they need it. Never: what a
//! request means. Each byte is looked at once, however the bytes arrive.

use std::ops::Range;

use super::PACKET_MAX;
use crate::error::{Decoded, Malformed, WireError};

/// How far the request at the start of the input has been read.
///
/// `start <= at <= input.len()`: what is before `start` is blank, what is before `at` was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    start: usize,
    at: usize,
    /// Where the literal being read begins; in [`State::Whole`], where the object ends.
    mark: usize,
    state: State,
    /// What is open, the innermost in the lowest bit: 1 for an object, 0 for an array.
    open: u64,
    depth: u8,
}

/// What may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Blank,
    /// No object, or none any more: the end of the line.
    Line,
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    /// The rest of a string.
    Text(Role),
    /// What follows a backslash.
    Escape(Role),
    /// So many hexadecimal digits.
    Digits(Role, u8),
    /// The rest of a number, or of `true`, `false`, `null`.
    Literal,
    /// The object is whole: nothing more on its line.
    Whole,
}

/// What a string stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Key,
    Value,
}

impl Scan {
    /// See [`crate::protocol::Protocol::frame`]. Blank lines alone are a frame of no bytes.
    pub(super) fn frame(
        &mut self,
        input: &[u8],
        quiet: bool,
    ) -> Result<Decoded<Range<usize>>, WireError> {
        while let Some(&byte) = input.get(self.at) {
            match (self.state, byte) {
                (State::Line, b'\r' | b'\n') => return self.give(input, self.at),
                (State::Whole, b'\r' | b'\n' | b'{') => return self.give(input, self.mark),
                _ => self.step(input, byte),
            }
        }
        let read = self.start..input.len();
        match self.state {
            State::Blank if !read.is_empty() || self.at > 0 => self.give(input, self.start),
            State::Whole if quiet => self.give(input, self.mark),
            State::Line if quiet && is_exit(&input[read.clone()]) => self.give(input, read.end),
            _ if read.len() > PACKET_MAX => Err(WireError::new(Malformed::TooLarge, PACKET_MAX)),
            State::Whole => Ok(Decoded::Unsure),
            State::Line if is_exit(&input[read]) => Ok(Decoded::Unsure),
            _ => Ok(Decoded::NeedMore { total: input.len() + 1 }),
        }
    }

    /// The request ends at `end`; blank space behind it belongs to it.
    fn give(&mut self, input: &[u8], end: usize) -> Result<Decoded<Range<usize>>, WireError> {
        let value = self.start..end;
        if value.len() > PACKET_MAX {
            return Err(WireError::new(Malformed::TooLarge, PACKET_MAX));
        }
        let blank = input[self.at..].iter().take_while(|byte| is_blank(**byte)).count();
        let consumed = self.at + blank;
        *self = Self::default();
        Ok(Decoded::Frame { value, consumed })
    }

    /// Reads one byte, or the plain part of a string.
    fn step(&mut self, input: &[u8], byte: u8) {
        let next = match self.state {
            State::Blank if is_blank(byte) => {
                self.start = self.at + 1;
                State::Blank
            }
            State::Blank if byte == b'{' => self.enter(byte),
            State::Blank | State::Line => State::Line,
            State::Text(role) => match byte {
                b'"' if role == Role::Key => State::Colon,
                b'"' => State::CommaOrEnd,
                b'\\' => State::Escape(role),
                0..b' ' => return self.spoil(),
                _ => {
                    let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..b' ');
                    self.at += input[self.at..].iter().take_while(|byte| plain(byte)).count();
                    return;
                }
            },
            State::Escape(role) => match byte {
                b'u' => State::Digits(role, 4),
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text(role),
                _ => return self.spoil(),
            },
            State::Digits(role, left) => match byte {
                _ if !byte.is_ascii_hexdigit() => return self.spoil(),
                _ if left > 1 => State::Digits(role, left - 1),
                _ => State::Text(role),
            },
            State::Literal if byte.is_ascii_alphanumeric() || b"+-.".contains(&byte) => {
                State::Literal
            }
            State::Literal => {
                let literal = &input[self.mark..self.at];
                if serde_json::from_slice::<serde::de::IgnoredAny>(literal).is_err() {
                    return self.spoil();
                }
                self.state = State::CommaOrEnd;
                return;
            }
            State::Whole if matches!(byte, b' ' | b'\t') => State::Whole,
            expected if is_blank(byte) => expected,
            _ => match self.structure(byte) {
                Some(next) => next,
                None => return self.spoil(),
            },
        };
        self.state = next;
        self.at += 1;
    }

    /// What follows a byte outside strings and literals; `None` if it may not stand here.
    fn structure(&mut self, byte: u8) -> Option<State> {
        Some(match (self.state, byte) {
            (State::Key | State::KeyOrEnd, b'"') => State::Text(Role::Key),
            (State::Colon, b':') => State::Value,
            (State::Value | State::ValueOrEnd, b'"') => State::Text(Role::Value),
            (State::Value | State::ValueOrEnd, b'{' | b'[') if self.depth < DEPTH_MAX => {
                self.enter(byte)
            }
            (State::Value | State::ValueOrEnd, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.mark = self.at;
                State::Literal
            }
            (State::CommaOrEnd, b',') if self.in_object() => State::Key,
            (State::CommaOrEnd, b',') => State::Value,
            (State::KeyOrEnd | State::CommaOrEnd, b'}') if self.in_object() => self.leave(),
            (State::ValueOrEnd | State::CommaOrEnd, b']') if !self.in_object() => self.leave(),
            _ => return None,
        })
    }

    fn enter(&mut self, bracket: u8) -> State {
        let is_object = bracket == b'{';
        self.open = self.open << 1 | u64::from(is_object);
        self.depth += 1;
        if is_object { State::KeyOrEnd } else { State::ValueOrEnd }
    }

    fn leave(&mut self) -> State {
        self.open >>= 1;
        self.depth -= 1;
        if self.depth > 0 {
            return State::CommaOrEnd;
        }
        self.mark = self.at + 1;
        State::Whole
    }

    fn in_object(&self) -> bool {
        self.open & 1 == 1
    }

    /// No JSON: the byte is read again as part of a line, since it may end it.
    fn spoil(&mut self) {
        self.state = State::Line;
    }
}

/// The only request that is no JSON.
pub(super) fn is_exit(line: &[u8]) -> bool {
    line.trim_ascii() == b"exit"
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// How deep values may be nested, as many as [`Scan`] has bits for; no request needs more than 2.
const DEPTH_MAX: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// After each call all input has been read, and the next one goes on there.
    #[test]
    fn each_byte_is_read_once_however_they_come() {
        for line in
            [&b"{\n\n\n\n  \"a\" : [1, tr"[..], b"{\"a\": \"\\u00", b"no json at all", b"\"{\""]
        {
            let mut scan = Scan::default();
            for len in 1..=line.len() {
                let more = Ok(Decoded::NeedMore { total: len + 1 });
                assert_eq!(scan.frame(&line[..len], false), more);
                assert_eq!(scan.at, len);
            }
        }
    }

    #[test]
    fn nesting_deeper_than_its_bits_is_no_request() {
        let nested = |depth: usize| {
            let opened = format!("{{\"a\":{}", "[".repeat(depth - 1));
            let line = format!("{opened}{}}}\r\n", "]".repeat(depth - 1));
            let mut scan = Scan::default();
            let frame = scan.frame(line.as_bytes(), false);
            assert_eq!(scan, Scan::default());
            assert!(matches!(frame, Ok(Decoded::Frame { consumed, .. }) if consumed == line.len()));
            let mut scan = Scan::default();
            scan.frame(opened.as_bytes(), false).unwrap();
            scan.state != State::Line
        };
        assert!(nested(usize::from(DEPTH_MAX)));
        assert!(!nested(usize::from(DEPTH_MAX) + 1));
    }
}
