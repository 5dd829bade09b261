//! The three publishes of a client, and the payload rule they share.
//!
//! Owns: their layouts and the limits on the payload. Never: who may publish to whom.

use super::PayloadLen;
use super::wire::{PAYLOAD_MAX, command, message_id};
use crate::error::{Malformed, WireError};
use crate::ids::{GroupId, UserId};
use crate::packet::{Destination, Publish, UserList};
use crate::reader::Reader;

/// What limits and explains a payload's length field.
#[derive(Clone, Copy, Debug)]
pub(super) struct PayloadRule {
    /// Bytes; over [`PAYLOAD_MAX`] means that.
    pub(super) max: u32,
    pub(super) len: PayloadLen,
}

/// Whether this command byte starts a publish.
pub(super) fn is_publish(command: u8) -> bool {
    matches!(command, command::PUBLISH | command::GROUP_PUBLISH | command::GROUP_PART_PUBLISH)
}

/// Decodes what follows the command byte, one for which [`is_publish`] holds.
// Inlined into both callers: moving the id through a result in memory would cost half as much again
// as the decoding.
#[inline]
pub(super) fn decode<'a>(
    rule: PayloadRule,
    command: u8,
    reader: &mut Reader<'a>,
) -> Result<Publish<'a>, WireError> {
    let target = reader.u32()?;
    let id = message_id(reader)?;
    let to = match command {
        command::PUBLISH => Destination::User(UserId(target)),
        command::GROUP_PUBLISH => Destination::Group(GroupId(target)),
        _ => Destination::GroupPart(GroupId(target), users(reader)?),
    };
    Ok(Publish { id, to, body: payload(rule, reader)?, keep: true })
}

/// The count is checked against the bytes that are there before the list is touched.
fn users<'a>(reader: &mut Reader<'a>) -> Result<UserList<'a>, WireError> {
    let count = usize::from(reader.u16()?);
    reader.take(count * 4).map(UserList::new)
}

/// A u16 length and the payload, which is the rest of the packet.
///
/// Early Android clients put the length in UTF-16 units there, so any text outside ASCII has more
/// bytes than announced; under [`PayloadLen::Auto`] such a text is taken whole.
fn payload<'a>(rule: PayloadRule, reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let at_len = *reader;
    let announced = usize::from(reader.u16()?);
    let at_payload = *reader;
    let payload = reader.rest();
    let max = PAYLOAD_MAX.min(rule.max as usize);
    if announced > max || payload.len() > max {
        return Err(at_len.error(Malformed::TooLarge));
    }
    if announced > payload.len() {
        return Err(at_payload.error(Malformed::Truncated));
    }
    if announced < payload.len() && !(rule.len == PayloadLen::Auto && utf16(payload, announced)) {
        return Err(at_len.error(Malformed::TrailingBytes));
    }
    Ok(payload)
}

/// Whether `bytes` is text of exactly `units` UTF-16 units.
fn utf16(bytes: &[u8], units: usize) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.encode_utf16().count() == units)
}
