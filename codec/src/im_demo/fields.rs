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
use crate::words;

/// The fields of one message in the order of the wire; ends after the first error.
#[derive(Clone, Copy)]
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

    /// Of a message, behind `known` if it begins with that.
    pub(super) fn behind(message: &'a [u8], known: &[u8]) -> Self {
        let mut fields = Self::new(message);
        if message.starts_with(known) {
            let _known = fields.reader.take(known.len());
        }
        fields
    }

    /// Of a message inside `level` others, all in the same walk.
    pub(super) fn nested(message: &'a [u8], level: u8) -> Self {
        Self { reader: Reader::new(message), depth: DEPTH_MAX - level }
    }

    /// A field of any form. By value, so that a walk whose fields have the usual one keeps its
    /// place in registers.
    #[cold]
    fn unusual(self) -> (Self, Result<(u32, Value<'a>), WireError>) {
        let Self { mut reader, depth } = self;
        let offset = reader.position();
        let field = key(&mut reader).and_then(|(number, kind)| {
            let data = match kind {
                VARINT => Data::Varint(varint(&mut reader)?),
                BYTES => Data::Bytes(bytes(&mut reader)?),
                _ => {
                    skip(&mut reader, number, kind, depth)?;
                    Data::Skipped
                }
            };
            Ok((number, Value { data, offset }))
        });
        if field.is_err() {
            reader.rest();
        }
        (Self { reader, depth }, field)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), WireError>;

    // Or else every field goes through memory, which costs more than to read it.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.left() == 0 {
            return None;
        }
        let offset = self.reader.position();
        let mut reader = self.reader;
        if let Some((key, value)) = short_head(&mut reader) {
            let data = match key & 7 {
                VARINT => Some(Data::Varint(value.into())),
                BYTES => reader.take(value.into()).ok().map(Data::Bytes),
                _ => None,
            };
            if let Some(data) = data {
                self.reader = reader;
                return Some(Ok((u32::from(key >> 3), Value { data, offset })));
            }
        }
        let (walk, field) = self.unusual();
        *self = walk;
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
        if is_plain(bytes) { Ok(bytes) } else { self.string().map(str::as_bytes) }
    }

    pub(super) fn string(self) -> Result<&'a str, WireError> {
        simdutf8::basic::from_utf8(self.bytes()?)
            .map_err(|_| WireError::new(Malformed::Syntax, self.offset))
    }
}

/// Whether all of it is ASCII.
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    !words::any(bytes, |word| word)
}

/// The key, if it has one byte, and the varint behind it, if that has at most two.
#[inline(always)]
fn short_head(reader: &mut Reader<'_>) -> Option<(u8, u16)> {
    let [key @ 8..0x80, low] = reader.array().ok()? else { return None };
    if low < 0x80 {
        return Some((key, low.into()));
    }
    match reader.u8() {
        Ok(high @ ..0x80) => Some((key, u16::from(low & 0x7f) | u16::from(high) << 7)),
        _ => None,
    }
}

fn key(reader: &mut Reader<'_>) -> Result<(u32, u8), WireError> {
    let offset = reader.position();
    let key = varint(reader)?;
    match (key >> 3, (key & 7) as u8) {
        (number @ 1..=NUMBER_MAX, kind @ 0..=GROUP_TYPE_MAX) => Ok((number as u32, kind)),
        _ => Err(WireError::new(Malformed::Syntax, offset)),
    }
}

fn varint(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
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
#[inline]
pub(super) fn put_varint(value: u64, out: &mut Vec<u8>) {
    match value {
        0..0x80 => out.push(value as u8),
        0x80..0x4000 => out.extend_from_slice(&[value as u8 | 0x80, (value >> 7) as u8]),
        _ => put_long_varint(value, out),
    }
}

fn put_long_varint(mut value: u64, out: &mut Vec<u8>) {
    if value < 1 << 56 {
        // A time, mostly: all bytes at once, and those too many cut off again.
        let len = varint_len(value);
        let more = 0x8080_8080_8080_8080 & ((1 << (8 * (len - 1))) - 1);
        out.extend_from_slice(&(sevens(value) | more).to_le_bytes());
        return out.truncate(out.len() - (8 - len));
    }
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The lower 56 bits in eight bytes of seven.
fn sevens(value: u64) -> u64 {
    let halves = value & 0x0fff_ffff | (value & 0x0fff_ffff << 28) << 4;
    let quarters = halves & 0x3fff_0000_3fff | (halves & 0x0fff_c000_0fff_c000) << 2;
    quarters & 0x007f_007f_007f_007f | (quarters & 0x3f80_3f80_3f80_3f80) << 1
}

/// Bytes of a varint.
#[inline]
pub(super) fn varint_len(value: u64) -> usize {
    // 9/64 are close enough to a seventh up to 64 bits.
    ((value | 1).ilog2() as usize * 9 + 73) / 64
}

/// Appends the key of a varint field with a number under 16.
#[inline]
pub(super) fn put_int(number: u8, value: u64, out: &mut Vec<u8>) {
    out.push(number << 3 | VARINT);
    put_varint(value, out);
}

/// Bytes of a varint field with a number under 16.
#[inline]
pub(super) fn int_len(value: u64) -> usize {
    1 + varint_len(value)
}

/// The key of a field of bytes with a number under 16.
pub(super) fn bytes_key(number: u8) -> u8 {
    number << 3 | BYTES
}

/// Appends the key and the length of a field of `len` bytes with a number under 16.
#[inline]
pub(super) fn put_head(number: u8, len: usize, out: &mut Vec<u8>) {
    match u8::try_from(len) {
        Ok(len @ ..0x80) => out.extend_from_slice(&[bytes_key(number), len]),
        _ => {
            out.push(bytes_key(number));
            put_varint(len as u64, out);
        }
    }
}

/// Appends a whole field of bytes with a number under 16.
#[inline]
pub(super) fn put_bytes(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    put_head(number, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Bytes of a field of `len` bytes with a number under 16.
#[inline]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_written_as_prost_writes_them() {
        let powers = (0..u64::BITS).map(|power| 1_u64 << power);
        let near = powers.flat_map(|power| {
            [power - 1, power, power + power / 3, power.wrapping_mul(2).wrapping_sub(1)]
        });
        for value in near.chain([1_443_856_541_000, u64::MAX]) {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put_varint(value, &mut ours);
            prost::encoding::encode_varint(value, &mut theirs);
            assert_eq!(ours, theirs, "{value}");
            assert_eq!(varint_len(value), theirs.len(), "{value}");
        }
    }
}
