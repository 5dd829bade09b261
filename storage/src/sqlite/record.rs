//! A message as it stands in the tables: three columns of its own (stamp, time, body) and a `head`
//! with the rest.
//!
//! ```text
//!   form=1 | flags | protocol | id length | id | [from: tenant id] | to: tenant id
//!     u8      u8        u8         u8      0-32      2 x u32 LE        2 x u32 LE
//! ```
//!
//! Owns: that form, in both directions. Never: SQL. A head that no [`encode_head`] wrote decodes to
//! `None`, whatever it is.

use codec::{GroupId, GroupKey, Message, MessageId, ProtocolId, Target, TenantId, UserId, UserKey};

/// Replaces `out` with the head of `message`.
pub(super) fn encode_head(message: &Message, out: &mut Vec<u8>) {
    let from = if message.from.is_some() { FROM } else { 0 };
    let (to_group, tenant, id) = match message.to {
        Target::User(key) => (0, key.tenant.0, key.id.0),
        Target::Group(key) => (TO_GROUP, key.tenant.0, key.id.0),
    };
    let message_id = message.id.as_bytes();
    out.clear();
    out.extend([FORM, from | to_group, message.protocol.number(), message_id.len() as u8]);
    out.extend(message_id);
    if let Some(key) = message.from {
        out.extend(key.tenant.0.to_le_bytes());
        out.extend(key.id.0.to_le_bytes());
    }
    out.extend(tenant.to_le_bytes());
    out.extend(id.to_le_bytes());
}

/// The message of a head and its columns.
pub(super) fn decode(head: &[u8], stamp: [u8; 16], time_ms: i64, body: &[u8]) -> Option<Message> {
    let (&[form, flags, protocol, id_len], rest) = head.split_first_chunk()?;
    if form != FORM || flags & !(FROM | TO_GROUP) != 0 {
        return None;
    }
    let protocol = ProtocolId::from_number(protocol)?;
    let (id, rest) = rest.split_at_checked(usize::from(id_len))?;
    let id = MessageId::new(id)?;
    let (from, rest) = if flags & FROM == 0 {
        (None, rest)
    } else {
        let (tenant, user, rest) = split_key(rest)?;
        (Some(UserKey { tenant, id: UserId(user) }), rest)
    };
    let (tenant, target, rest) = split_key(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let to = if flags & TO_GROUP == 0 {
        Target::User(UserKey { tenant, id: UserId(target) })
    } else {
        Target::Group(GroupKey { tenant, id: GroupId(target) })
    };
    let (stamp, time_ms) = (u128::from_be_bytes(stamp), time_ms.cast_unsigned());
    Some(Message { stamp, id, from, to, protocol, time_ms, body: body.into() })
}

fn split_key(bytes: &[u8]) -> Option<(TenantId, u32, &[u8])> {
    let (tenant, rest) = bytes.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    Some((TenantId(u32::from_le_bytes(*tenant)), u32::from_le_bytes(*id), rest))
}

const FORM: u8 = 1;
const FROM: u8 = 1;
const TO_GROUP: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(from: Option<UserKey>, to: Target, id: &[u8]) -> Message {
        Message {
            stamp: u128::MAX - 7,
            id: MessageId::new(id).unwrap(),
            from,
            to,
            protocol: ProtocolId::ALL[0],
            time_ms: u64::MAX,
            body: Box::from(*b"\0body"),
        }
    }

    fn samples() -> Vec<Message> {
        let user = UserKey { tenant: TenantId(u32::MAX), id: UserId(7) };
        let group = GroupKey { tenant: TenantId(1), id: GroupId(u32::MAX) };
        vec![
            message(None, Target::User(user), b""),
            message(Some(user), Target::User(user), &[0; 32]),
            message(None, Target::Group(group), b"id"),
            message(Some(user), Target::Group(group), &[255; 32]),
        ]
    }

    fn decoded(head: &[u8], message: &Message) -> Option<Message> {
        decode(head, message.stamp.to_be_bytes(), message.time_ms.cast_signed(), &message.body)
    }

    #[test]
    fn every_kind_of_message_comes_back_as_it_was() {
        let mut head = Vec::new();
        for message in samples() {
            encode_head(&message, &mut head);
            assert_eq!(decoded(&head, &message).as_ref(), Some(&message));
        }
    }

    #[test]
    fn a_head_cut_short_lengthened_or_of_another_form_is_none_and_never_a_panic() {
        let mut head = Vec::new();
        for message in samples() {
            encode_head(&message, &mut head);
            for len in 0..head.len() {
                assert_eq!(decoded(&head[..len], &message), None, "cut at {len}");
            }
            let longer = [&head[..], b"\0"].concat();
            assert_eq!(decoded(&longer, &message), None);
            for (at, wrong) in [(0, 2), (1, 4), (2, 255), (3, 33)] {
                let mut head = head.clone();
                head[at] = wrong;
                assert_eq!(decoded(&head, &message), None, "byte {at} = {wrong}");
            }
        }
    }
}
