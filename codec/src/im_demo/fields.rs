//! Protobuf fields where they lie.
//!
//! ```text
//!   field    varint key = number << 3 | type, then by type
//!   0        varint, at most 10 bytes: int32, int64, bool, enum
//!   2        varint length, bytes: string, bytes, message
//!   1, 5     8 or 4 bytes; 3, 4 a group: not used here, skipped where a number is unknown
//! ```
//!
//! Owns: the walk over the fields of a message, exactly as strict as prost, and what written fields
//! are long. Never: which numbers mean what. A walk borrows and never allocates.

use crate::error::{Malformed, WireError};
use crate::reader::Reader;

/// The fields of one message in the order of the wire; ends after the first error.
pub(super) struct Fields<'a> {
    reader: Reader<'a>,
    /// How deep groups may still be nested.
    depth: u8,
}

/// A field's value. It knows where it is, since a number has one type only.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    data: Data<'a>,
    offset: usize,
}

#[derive(Clone, Copy)]
enum Data<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field here has.
    Skipped,
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self::nested(message, 0)
    }

    /// Of a message inside `level` others, all in the same walk.
    pub(super) fn nested(message: &'a [u8], level: u8) -> Self {
        Self { reader: Reader::new(message), depth: DEPTH_MAX - level }
    }

    // Inlined, as what it calls: a walk keeps its place in registers.
    #[inline]
    fn field(&mut self) -> Result<(u32, Value<'a>), WireError> {
        let offset = self.reader.position();
        let (number, kind) = key(&mut self.reader)?;
        let data = match kind {
            VARINT => Data::Varint(varint(&mut self.reader)?),
            BYTES => Data::Bytes(bytes(&mut self.reader)?),
            _ => {
                skip(&mut self.reader, number, kind, self.depth)?;
                Data::Skipped
            }
        };
        Ok((number, Value { data, offset }))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.left() == 0 {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.reader.rest();
        }
        Some(field)
    }
}

impl<'a> Value<'a> {
    pub(super) fn int64(self) -> Result<i64, WireError> {
        match self.data {
            Data::Varint(value) => Ok(value as i64),
            _ => Err(WireError::new(Malformed::Field, self.offset)),
        }
    }

    /// Longer ones are cut to their low 32 bits, as everybody does.
    pub(super) fn int32(self) -> Result<i32, WireError> {
        self.int64().map(|value| value as i32)
    }

    pub(super) fn bool(self) -> Result<bool, WireError> {
        self.int64().map(|value| value != 0)
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], WireError> {
        match self.data {
            Data::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::new(Malformed::Field, self.offset)),
        }
    }

    /// Always UTF-8: mostly plain and short, which is quicker to see than that it is UTF-8.
    pub(super) fn text(self) -> Result<&'a [u8], WireError> {
        let bytes = self.bytes()?;
        if bytes.is_ascii() { Ok(bytes) } else { self.string().map(str::as_bytes) }
    }

    pub(super) fn string(self) -> Result<&'a str, WireError> {
        simdutf8::basic::from_utf8(self.bytes()?)
            .map_err(|_| WireError::new(Malformed::Syntax, self.offset))
    }
}

#[inline]
fn key(reader: &mut Reader<'_>) -> Result<(u32, u8), WireError> {
    let offset = reader.position();
    let key = varint(reader)?;
    match (key >> 3, (key & 7) as u8) {
        (number @ 1..=NUMBER_MAX, kind @ 0..=GROUP_TYPE_MAX) => Ok((number as u32, kind)),
        _ => Err(WireError::new(Malformed::Syntax, offset)),
    }
}

// Inlined: most varints are one byte.
#[inline]
fn varint(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let first = reader.u8()?;
    if first < 0x80 { Ok(first.into()) } else { long_varint(reader, first) }
}

/// The rest of a varint behind its first byte.
fn long_varint(reader: &mut Reader<'_>, first: u8) -> Result<u64, WireError> {
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let byte = reader.u8()?;
        // The tenth byte has room for one bit.
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(reader.error(Malformed::Syntax))
}

#[inline]
fn bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let len = varint(reader)?;
    reader.take(usize::try_from(len).unwrap_or(usize::MAX))
}

fn skip(reader: &mut Reader<'_>, number: u32, kind: u8, depth: u8) -> Result<(), WireError> {
    let error = reader.error(Malformed::Syntax);
    if depth == 0 {
        return Err(error);
    }
    match kind {
        VARINT => varint(reader).map(drop),
        FIXED_64 => reader.take(8).map(drop),
        BYTES => bytes(reader).map(drop),
        GROUP => loop {
            match key(reader)? {
                (end, GROUP_END) if end == number => return Ok(()),
                (_, GROUP_END) => return Err(error),
                (inner, kind) => skip(reader, inner, kind, depth - 1)?,
            }
        },
        FIXED_32 => reader.take(4).map(drop),
        _ => Err(error),
    }
}

/// Appends a varint.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a varint.
pub(super) fn varint_len(value: u64) -> usize {
    // 9/64 are close enough to a seventh up to 64 bits.
    ((value | 1).ilog2() as usize * 9 + 73) / 64
}

/// Appends the key of a varint field with a number under 16.
pub(super) fn put_int(number: u8, value: u64, out: &mut Vec<u8>) {
    out.push(number << 3 | VARINT);
    put_varint(value, out);
}

/// Bytes of a varint field with a number under 16.
pub(super) fn int_len(value: u64) -> usize {
    1 + varint_len(value)
}

/// Appends the key and the length of a field of `len` bytes with a number under 16.
pub(super) fn put_head(number: u8, len: usize, out: &mut Vec<u8>) {
    out.push(number << 3 | BYTES);
    put_varint(len as u64, out);
}

/// The key and the length of a field of under 128 bytes with a number under 16.
pub(super) fn bytes_head(number: u8, len: u8) -> [u8; 2] {
    debug_assert!(len < 0x80);
    [number << 3 | BYTES, len]
}

/// Appends a whole field of bytes with a number under 16.
pub(super) fn put_bytes(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    put_head(number, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Bytes of a field of `len` bytes with a number under 16.
pub(super) fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Types of fields.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED_32: u8 = 5;
const GROUP_TYPE_MAX: u8 = FIXED_32;

/// A key is a varint of 32 bits.
const NUMBER_MAX: u64 = (u32::MAX >> 3) as u64;

/// Messages and groups inside each other, as prost bounds them.
const DEPTH_MAX: u8 = 100;
