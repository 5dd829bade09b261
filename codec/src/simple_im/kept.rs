//! Messages as servers of any revision have kept them for users who were away.
//!
//! ```text
//!   [m] id c ts [m.from] id device [m.to] id       [[m]] to from ts id d t c
//!   [gm] id c ts [gm.user] id device [gm.group] id [[gm]] group or g_id, from ts id d t c
//! ```
//!
//! The first revisions have no `ts`. Owns: what is taken from such a packet. Never: for whom it is:
//! whose list it was in says that.

use super::fields::Fields;
use super::scan::{Field, Kind, PACKET_MAX, Scan};
use super::{GROUP_FIELDS, put_body};
use crate::error::{Malformed, WireError};
use crate::ids::{GroupId, MessageId, UserId};

/// A message without its addressee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `None`: of a form that not every client can say.
    pub id: Option<MessageId>,
    /// Who its packet says he is; `None` if it says no number.
    pub from: Option<UserId>,
    /// The group it was said in.
    pub group: Option<GroupId>,
    /// Seconds since 1970.
    pub time_s: Option<u32>,
    /// As [`crate::Message::body`].
    pub body: Box<[u8]>,
}

/// Reads what a server has kept, the whole of `bytes`: [`super::write_message`] the other way
/// round.
///
/// # Errors
/// [`Malformed::UnknownCommand`]: it is a packet, but no message; any other: it is no packet.
pub fn read_message(bytes: &[u8]) -> Result<Kept, WireError> {
    if bytes.len() > PACKET_MAX {
        return Err(WireError::new(Malformed::TooLarge, bytes.len()));
    }
    let mut scan = Scan::new(false);
    let fields = Fields::read(&mut scan, bytes)?;
    let group = match fields.kind() {
        Some(Kind::Message) => None,
        Some(Kind::GroupMessage) => Some(GroupId(fields.number_of(&GROUP_FIELDS)?)),
        Some(_) => return Err(WireError::new(Malformed::UnknownCommand, 0)),
        None => return Err(WireError::new(Malformed::Syntax, 0)),
    };
    let device = fields.name(if fields.has(Field::D) { Field::D } else { Field::Device });
    let number = |field| fields.number(field).ok().map(|(number, _)| number);
    let mut body = Vec::new();
    put_body(&fields, device.unwrap_or_default(), &mut body)?;
    Ok(Kept {
        id: fields.id().ok(),
        from: number(Field::From).map(UserId),
        group,
        time_s: number(Field::Time),
        body: body.into(),
    })
}
