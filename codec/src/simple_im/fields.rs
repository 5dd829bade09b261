//! One whole packet, taken apart.
//!
//! Owns: the forms of values: texts with and without escapes, numbers with and without quotes,
//! names. Never: what a packet asks for.

use std::ops::Range;

use memchr::memchr;

use super::emit::unescape;
use super::lexer::{Form, Span};
use super::scan::{Field, Kind, Scan};
use crate::error::{Malformed, WireError};
use crate::ids::MessageId;
use crate::words::{self, below, equal};

/// The longest device name in bytes, as long as an id.
pub const NAME_MAX: usize = MessageId::MAX;

/// The fields of one packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'s, 'a> {
    bytes: &'a [u8],
    /// Where `bytes` begin in the input that was scanned.
    base: usize,
    scan: &'s Scan,
}

impl<'s, 'a> Fields<'s, 'a> {
    /// All of `bytes` as one packet, with a fresh `scan`.
    pub(super) fn read(scan: &'s mut Scan, bytes: &'a [u8]) -> Result<Self, WireError> {
        if let Some(at) = scan.read(bytes)? {
            return Err(WireError::new(Malformed::TrailingBytes, at));
        }
        scan.end(bytes)?;
        if !scan.is_between_tokens() {
            return Err(scan.error(Malformed::Truncated));
        }
        Ok(Self { bytes, base: 0, scan })
    }

    /// The packet that `scan` has found whole: `bytes` are its range.
    pub(super) fn of(scan: &'s Scan, bytes: &'a [u8]) -> Self {
        Self { bytes, base: scan.range().start, scan }
    }

    /// `None`: no header of a packet, so the tail of one that was whole without it, or nothing.
    pub(super) fn kind(&self) -> Option<Kind> {
        self.scan.kind()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn double(&self) -> bool {
        self.scan.double()
    }

    pub(super) fn has(&self, field: Field) -> bool {
        self.scan.span(field).is_some()
    }

    /// The bytes of a field that the packet must have, as they stand there.
    fn raw(&self, field: Field) -> Result<(&'a [u8], Span), WireError> {
        match self.scan.span(field) {
            Some(span) if span.form != Form::Array => {
                let Range { start, end } = span.range();
                Ok((&self.bytes[start - self.base..end - self.base], span))
            }
            Some(span) => Err(self.wrong(span)),
            None => Err(missing(self.bytes.len())),
        }
    }

    fn wrong(&self, span: Span) -> WireError {
        missing(span.range().start - self.base)
    }

    /// The text of a field, and whether it holds escapes: then it is not yet what was said.
    pub(super) fn escaped(&self, field: Field) -> Result<(&'a [u8], bool), WireError> {
        let (text, span) = self.raw(field)?;
        Ok((text, span.form == Form::Escaped && memchr(b'\\', text).is_some()))
    }

    /// The text of a field; `scratch` takes it where it holds escapes.
    pub(super) fn text<'t>(
        &self,
        field: Field,
        scratch: &'t mut Vec<u8>,
    ) -> Result<&'t [u8], WireError>
    where
        'a: 't,
    {
        let (text, escaped) = self.escaped(field)?;
        if !escaped {
            return Ok(text);
        }
        unescape(text, scratch);
        Ok(scratch)
    }

    /// Appends the text of a field.
    pub(super) fn put_text(&self, field: Field, out: &mut Vec<u8>) -> Result<(), WireError> {
        match self.escaped(field)? {
            (text, true) => unescape(text, out),
            (text, false) => out.extend_from_slice(text),
        }
        Ok(())
    }

    /// A text that is sent back and passed on, so that every client must be able to say it: not
    /// empty, [`NAME_MAX`] bytes at most, UTF-8, and without quotes, backslashes and control
    /// characters, which some clients cannot write and others write without an escape.
    pub(super) fn name(&self, field: Field) -> Result<&'a [u8], WireError> {
        let (name, span) = self.raw(field)?;
        let fits = (1..=NAME_MAX).contains(&name.len()) && is_sayable(name);
        if fits { Ok(name) } else { Err(self.wrong(span)) }
    }

    /// A message's id.
    pub(super) fn id(&self) -> Result<MessageId, WireError> {
        MessageId::new(self.name(Field::Id)?).ok_or_else(|| missing(0))
    }

    /// A number in any of its forms: `7`, `+7`, `007`, `"7"`. Its digits begin where they matter.
    pub(super) fn number(&self, field: Field) -> Result<(u32, &'a [u8]), WireError> {
        let (text, span) = self.raw(field)?;
        let digits = text.strip_prefix(b"+").unwrap_or(text);
        let number = match digits.iter().all(u8::is_ascii_digit) {
            true => str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
            false => None,
        };
        let number: u32 = number.ok_or_else(|| self.wrong(span))?;
        let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
        Ok((number, &digits[zeros.min(digits.len() - 1)..]))
    }

    /// The number of the one of `fields` that the packet has.
    pub(super) fn number_of(&self, fields: &[Field]) -> Result<u32, WireError> {
        let mut found = None;
        for field in fields.iter().filter(|field| self.has(**field)) {
            let number = self.number(*field)?.0;
            if found.is_some_and(|other| other != number) {
                return Err(missing(0));
            }
            found = Some(number);
        }
        found.ok_or_else(|| missing(self.bytes.len()))
    }
}

/// UTF-8 without what ends a text or begins an escape, and without control characters.
fn is_sayable(name: &[u8]) -> bool {
    let special =
        |word| below(word, b' ') | equal(word, b'"') | equal(word, b'\\') | equal(word, DELETE);
    !words::any(name, special)
        && (!words::any(name, |word| word) || simdutf8::basic::from_utf8(name).is_ok())
}

/// The control character above all others of ASCII.
const DELETE: u8 = 0x7f;

fn missing(offset: usize) -> WireError {
    WireError::new(Malformed::Field, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_may_hold_does_not_depend_on_where_it_stands() {
        for (len, byte) in (1..20).flat_map(|len| (0..=u8::MAX).map(move |byte| (len, byte))) {
            let expected = byte.is_ascii() && !matches!(byte, ..b' ' | b'"' | b'\\' | 0x7f);
            for at in 0..len {
                let mut name = vec![b'x'; len];
                name[at] = byte;
                assert_eq!(is_sayable(&name), expected, "{byte} at {at} of {len}");
            }
        }
        assert!(is_sayable("Zoë".as_bytes()) && is_sayable("Zoë, and so on".as_bytes()));
    }
}
