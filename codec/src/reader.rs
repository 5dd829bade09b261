//! A checked cursor over a packet.
//!
//! Owns: bounds checks and the offset for [`WireError`]. Never copies more than a fixed-size field
//! and never allocates: what it hands out borrows from the packet. All integers are big-endian.

use crate::error::{Malformed, WireError};

/// What has not been read yet of a packet of `len` bytes, which is its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    unread: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { unread: bytes, len: bytes.len() }
    }

    /// Bytes not read yet.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.unread.len()
    }

    /// Bytes read so far.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.len - self.unread.len()
    }

    /// An error at the current position.
    pub(crate) fn error(&self, what: Malformed) -> WireError {
        WireError::new(what, self.position())
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let Some((head, unread)) = self.unread.split_at_checked(len) else {
            return Err(self.error(Malformed::Truncated));
        };
        self.unread = unread;
        Ok(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((head, unread)) = self.unread.split_first_chunk() else {
            return Err(self.error(Malformed::Truncated));
        };
        self.unread = unread;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A u16 length and that many bytes.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.unread)
    }

    /// The end of a packet with an exact length.
    pub(crate) fn finish(&self) -> Result<(), WireError> {
        match self.left() {
            0 => Ok(()),
            _ => Err(self.error(Malformed::TrailingBytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_big_endian_and_move_the_cursor() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.left(), 1);
        assert_eq!(reader.finish(), Err(WireError::new(Malformed::TrailingBytes, 7)));
        assert_eq!(reader.rest(), [8]);
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_read_over_the_end_fails_at_its_offset_and_reads_nothing() {
        let mut reader = Reader::new(&[0, 3, b'a', b'b']);
        assert_eq!(reader.string(), Err(WireError::new(Malformed::Truncated, 2)));
        assert_eq!(reader.u32(), Err(WireError::new(Malformed::Truncated, 2)));
        assert_eq!(reader.take(usize::MAX), Err(WireError::new(Malformed::Truncated, 2)));
        assert_eq!(reader.take(2), Ok(&b"ab"[..]));
        assert_eq!(reader.array::<1>(), Err(WireError::new(Malformed::Truncated, 4)));
    }
}
