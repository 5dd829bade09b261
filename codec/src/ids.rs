//! Identifiers. All are plain values, compared exactly, formatted as unsigned decimals.

use std::fmt;

/// A tenant, (org, appkey) in the configuration; an index into the list of tenants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u32);

/// A user of a tenant, as on the wire of `binary` (full u32 range).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u32);

/// A group of a tenant (full u32 range).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// A user anywhere in the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserKey {
    pub tenant: TenantId,
    pub id: UserId,
}

/// A group anywhere in the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    pub tenant: TenantId,
    pub id: GroupId,
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The sender's id of a message: up to [`MessageId::MAX`] opaque bytes, echoed unchanged.
#[derive(Clone, Copy)]
pub struct MessageId {
    len: u8,
    bytes: [u8; Self::MAX],
}

impl MessageId {
    /// Longest id in bytes.
    pub const MAX: usize = 64;

    /// `None` if `bytes` is longer than [`Self::MAX`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut id = Self { len: u8::try_from(bytes.len()).ok()?, bytes: [0; Self::MAX] };
        id.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(id)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The first `N` bytes of the id and zero bytes after it, for wires where it has a fixed width.
    pub fn padded<const N: usize>(&self) -> &[u8; N] {
        const { assert!(N <= Self::MAX) };
        self.bytes.first_chunk().expect("asserted above")
    }

    /// The gateway's own id of a message: its stamp as 32 lower-case hexadecimal digits.
    pub fn of_stamp(stamp: u128) -> Self {
        Self::from(stamp_digits(stamp))
    }
}

/// The digits of [`MessageId::of_stamp`].
#[inline]
pub(crate) fn stamp_digits(stamp: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    for (place, part) in digits.as_chunks_mut().0.iter_mut().zip([96, 64, 32, 0]) {
        *place = hexadecimal((stamp >> part) as u32);
    }
    digits
}

/// Eight lower-case digits at once: every message in flight is named so several times.
fn hexadecimal(number: u32) -> [u8; 8] {
    let every = |byte: u64| byte * 0x0101_0101_0101_0101;
    // Each half of a byte gets a byte of its own.
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & every(0x0f);
    let letters = (digits + every(16 - 10)) >> 4 & every(1);
    let letter = u64::from(b'a' - b'0' - 10);
    (digits + every(b'0'.into()) + letters * letter).to_be_bytes()
}

impl<const N: usize> From<[u8; N]> for MessageId {
    fn from(bytes: [u8; N]) -> Self {
        const { assert!(N <= Self::MAX) };
        let mut id = Self { len: N as u8, bytes: [0; Self::MAX] };
        id.bytes[..N].copy_from_slice(&bytes);
        id
    }
}

impl PartialEq for MessageId {
    fn eq(&self, other: &Self) -> bool {
        // The unused tail is always zero, so comparing the arrays compares the ids.
        self.len == other.len && self.bytes == other.bytes
    }
}

impl Eq for MessageId {}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({})", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_its_digits() {
        let mixed = 0x0123_4567_89ab_cdef_u128 << 64 | 0xfedc_ba98_7654_3210;
        let digits = (0..32).flat_map(|place| (0..16).map(move |digit| digit << (4 * place)));
        for stamp in digits.chain([mixed, u128::MAX]) {
            assert_eq!(MessageId::of_stamp(stamp).as_bytes(), format!("{stamp:032x}").as_bytes());
        }
    }
}
