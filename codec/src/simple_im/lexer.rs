//! Tokens of the pseudo-TOML, taken from bytes that may end anywhere.
//!
//! ```text
//!   blank    space, tab, CR, LF; `#` and what follows it to the end of the line
//!   header   [name]  [[name]]  [name.child]
//!   pair     key blank* = blank* value
//!   value    "quoted"   bare (ends at a blank, `[` or `#`)   [array] (skipped whole)
//! ```
//!
//! Nothing has to stand on a line of its own, and no blank is needed after a quote. In a packet
//! with `[x]` a backslash keeps the byte after it from ending a string; with `[[x]]` it is a byte
//! like any other.
//!
//! Owns: where tokens begin and end, and how far the input was looked at: every byte is looked at
//! once, however the input is cut. Never: what keys and headers mean.

use std::ops::Range;

use memchr::{memchr, memchr2};

use crate::error::{Malformed, WireError};

/// Where the lexer stands. All offsets are into the input, which always begins at the same byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lexer {
    /// Bytes before it have been looked at.
    at: usize,
    state: State,
    /// The first byte of the current header, or the current (or last) key.
    start: usize,
    key_end: usize,
    /// The first byte of the current value, behind the quote of a quoted one, or of a name.
    value: usize,
    /// The end of the value or name of the last item.
    value_end: usize,
    /// The current packet is a `[[x]]`.
    double: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A header, a key or a blank comes next.
    Between,
    Comment,
    Header {
        double: bool,
    },
    /// The first of two closing brackets was there.
    HeaderEnd,
    Key,
    Equals,
    Value,
    Quoted,
    /// The byte after a backslash.
    Escaped,
    Bare,
    /// Inside so many brackets.
    Array(u8),
    ArrayQuoted(u8),
    ArrayEscaped(u8),
}

/// Where it stands, the lexer says until the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Header { double: bool },
    Pair(Form),
}

/// A value as it stands in the packet, without its quotes. Small: a connection keeps many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
    pub(super) form: Form,
}

impl Span {
    /// Of nothing.
    pub(super) const NONE: Self = Self { start: 0, end: 0, form: Form::Bare };

    pub(super) fn new(range: Range<usize>, form: Form) -> Self {
        // Input is given up long before it is that long.
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: offset(range.start), end: offset(range.end), form }
    }

    /// Where it stands in the input.
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A backslash in it escapes.
    Escaped,
    Quoted,
    Bare,
    Array,
}

/// What the bytes looked at so far end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a closed token, or blanks after one.
    Closed,
    /// With a comment or a bare value: complete unless more of it follows.
    Open,
    /// Inside a token.
    Within,
}

impl Lexer {
    /// `double`: the brackets of the packet that what stands before the first header belongs to.
    pub(super) fn new(double: bool) -> Self {
        Self { at: 0, state: State::Between, start: 0, key_end: 0, value: 0, value_end: 0, double }
    }

    /// The next item; `None` when all of `input` has been looked at. To be asked again with more.
    pub(super) fn next(&mut self, input: &[u8]) -> Result<Option<Item>, WireError> {
        while let Some(&byte) = input.get(self.at) {
            if let Some(item) = self.step(input, byte)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// The bare value that the input ends with, if nothing more of it comes.
    pub(super) fn last(&mut self) -> Option<Item> {
        (self.state == State::Bare).then(|| self.pair(Form::Bare))
    }

    pub(super) fn ending(&self) -> Ending {
        match self.state {
            State::Between => Ending::Closed,
            State::Comment | State::Bare => Ending::Open,
            _ => Ending::Within,
        }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The first byte of the last item.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// The key of the last item, a pair.
    pub(super) fn key_range(&self) -> Range<usize> {
        self.start..self.key_end
    }

    /// The last item's value without its quotes, or name without its brackets and blanks.
    pub(super) fn text_range(&self) -> Range<usize> {
        self.value..self.value_end
    }

    pub(super) fn error(&self, what: Malformed) -> WireError {
        WireError::new(what, self.at)
    }

    /// Looks at one byte, or at a run of bytes that mean the same. Always moves on, except from a
    /// bare value to the byte that ends it.
    fn step(&mut self, input: &[u8], byte: u8) -> Result<Option<Item>, WireError> {
        match self.state {
            State::Between => self.between(input)?,
            State::Comment => {
                if byte == b'\n' {
                    self.state = State::Between;
                }
                self.at += 1;
            }
            State::Header { double } => return self.header(input, byte, double),
            State::HeaderEnd => {
                if byte != b']' {
                    return Err(self.error(Malformed::Syntax));
                }
                return self.named(input, true).map(Some);
            }
            State::Key => self.key(input)?,
            State::Equals => self.equals(input)?,
            State::Value => self.value(input)?,
            State::Quoted => return Ok(self.quoted(input)),
            State::Escaped => {
                self.at += 1;
                self.state = State::Quoted;
            }
            State::Bare => return self.bare(input),
            State::Array(depth) => return self.array(byte, depth),
            State::ArrayQuoted(depth) => {
                self.state = match byte {
                    b'"' => State::Array(depth),
                    b'\\' if !self.double => State::ArrayEscaped(depth),
                    _ => State::ArrayQuoted(depth),
                };
                self.at += 1;
            }
            State::ArrayEscaped(depth) => {
                self.at += 1;
                self.state = State::ArrayQuoted(depth);
            }
        }
        Ok(None)
    }

    fn between(&mut self, input: &[u8]) -> Result<(), WireError> {
        let Some(byte) = self.run(input, |byte| !is_blank(byte)) else { return Ok(()) };
        self.start = self.at;
        self.state = match byte {
            b'#' => State::Comment,
            b'[' => State::Header { double: false },
            // Control characters: somebody speaks TLS, or worse.
            _ if ends_key(byte) || byte == b'"' || byte.is_ascii_control() => {
                return Err(self.error(Malformed::Syntax));
            }
            _ => State::Key,
        };
        self.at += 1;
        Ok(())
    }

    fn header(&mut self, input: &[u8], byte: u8, double: bool) -> Result<Option<Item>, WireError> {
        if byte == b'[' && self.at == self.start + 1 {
            self.state = State::Header { double: true };
            self.at += 1;
            return Ok(None);
        }
        match self.run(input, |byte| matches!(byte, b']' | b'[' | b'"' | b'=' | b'#' | b',')) {
            None => Ok(None),
            Some(b']') if double => {
                self.state = State::HeaderEnd;
                self.at += 1;
                Ok(None)
            }
            Some(b']') => self.named(input, false).map(Some),
            Some(_) => Err(self.error(Malformed::Syntax)),
        }
    }

    /// At the last bracket of a header.
    fn named(&mut self, input: &[u8], double: bool) -> Result<Item, WireError> {
        let brackets = 1 + usize::from(double);
        let start = self.start + brackets;
        let inside = &input[start..self.at + 1 - brackets];
        let name = inside.trim_ascii();
        if name.is_empty() || name.iter().any(|byte| is_blank(*byte)) {
            return Err(self.error(Malformed::Syntax));
        }
        self.value = start + (inside.len() - inside.trim_ascii_start().len());
        self.value_end = self.value + name.len();
        // Children stand in single brackets in every dialect.
        if !name.contains(&b'.') {
            self.double = double;
        }
        self.at += 1;
        self.state = State::Between;
        Ok(Item::Header { double })
    }

    fn key(&mut self, input: &[u8]) -> Result<(), WireError> {
        match self.run(input, ends_bare) {
            None => Ok(()),
            Some(_) => {
                self.key_end = self.at;
                self.state = State::Equals;
                self.equals(input)
            }
        }
    }

    fn equals(&mut self, input: &[u8]) -> Result<(), WireError> {
        match self.run(input, |byte| !is_blank(byte)) {
            None => Ok(()),
            Some(b'=') => {
                self.at += 1;
                self.state = State::Value;
                self.value(input)
            }
            Some(_) => Err(self.error(Malformed::Syntax)),
        }
    }

    fn value(&mut self, input: &[u8]) -> Result<(), WireError> {
        let Some(byte) = self.run(input, |byte| !is_blank(byte)) else { return Ok(()) };
        self.value = self.at;
        self.state = match byte {
            b'"' => {
                self.value += 1;
                State::Quoted
            }
            b'[' => State::Array(1),
            b'#' => return Err(self.error(Malformed::Syntax)),
            _ if ends_key(byte) => return Err(self.error(Malformed::Syntax)),
            _ => State::Bare,
        };
        self.at += 1;
        Ok(())
    }

    /// Runs to the closing quote or to a backslash that counts.
    fn quoted(&mut self, input: &[u8]) -> Option<Item> {
        let unread = &input[self.at..];
        let length = match self.double {
            true => memchr(b'"', unread),
            false => memchr2(b'"', b'\\', unread),
        };
        self.at += length.unwrap_or(unread.len());
        if unread[length?] == b'\\' {
            self.state = State::Escaped;
            self.at += 1;
            return None;
        }
        let item = self.pair(if self.double { Form::Quoted } else { Form::Escaped });
        self.at += 1;
        Some(item)
    }

    fn bare(&mut self, input: &[u8]) -> Result<Option<Item>, WireError> {
        match self.run(input, ends_bare) {
            None => Ok(None),
            Some(byte) if is_blank(byte) => Ok(Some(self.pair(Form::Bare))),
            Some(b'[' | b'#') => Ok(Some(self.pair(Form::Bare))),
            Some(_) => Err(self.error(Malformed::Syntax)),
        }
    }

    /// Moves on to the next byte that `stops`; `None`: it has not come yet.
    fn run(&mut self, input: &[u8], stops: impl Fn(u8) -> bool) -> Option<u8> {
        let unread = &input[self.at..];
        let length = unread.iter().position(|byte| stops(*byte));
        self.at += length.unwrap_or(unread.len());
        length.map(|length| unread[length])
    }

    fn array(&mut self, byte: u8, depth: u8) -> Result<Option<Item>, WireError> {
        self.state = match byte {
            b'"' => State::ArrayQuoted(depth),
            b']' if depth == 1 => {
                self.at += 1;
                return Ok(Some(self.pair(Form::Array)));
            }
            b']' => State::Array(depth - 1),
            b'[' if depth == DEPTH_MAX => return Err(self.error(Malformed::Syntax)),
            b'[' => State::Array(depth + 1),
            _ => State::Array(depth),
        };
        self.at += 1;
        Ok(None)
    }

    /// The value ends before the current byte.
    fn pair(&mut self, form: Form) -> Item {
        self.state = State::Between;
        self.value_end = self.at;
        Item::Pair(form)
    }
}

/// Arrays in arrays; no client sends any.
const DEPTH_MAX: u8 = 8;

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Bytes that no key and no bare value holds.
fn ends_bare(byte: u8) -> bool {
    is_blank(byte) || ends_key(byte) || matches!(byte, b'"' | b'[' | b'#')
}

/// Bytes that no key and no bare value holds, beside those that begin another token.
fn ends_key(byte: u8) -> bool {
    matches!(byte, b'=' | b',' | b']')
}
