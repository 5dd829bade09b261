//! A message as it stands in the tables: three columns of its own (stamp, time, body) and a `head`
//! with the rest.
//!
//! ```text
//!   form=2 | flags | protocol | id length | id | name length | name | [from] | to
//!     u8      u8        u8         u8      0-64      u8       0-255     key    key
//! ```
//!
//! A key is a tenant and an id, 2 x u32 LE; the name is the sender's. Form 1 is the same without
//! the name; it is still read.
//!
//! Owns: that form, in both directions. Never: SQL. A head that no [`encode_head`] wrote decodes to
//! `None`, whatever it is.

use codec::{GroupId, GroupKey, Message, MessageId, ProtocolId, Target, TenantId, UserId, UserKey};

/// Replaces `out` with the head of `message`, which must not be for the public room: nothing then.
/// A name beyond 255 bytes, which no protocol lets in, is left out.
pub(crate) fn encode_head(message: &Message, out: &mut Vec<u8>) {
    out.clear();
    let from = if message.from.is_some() { FROM } else { 0 };
    let (to_group, tenant, id) = match message.to {
        Target::User(key) => (0, key.tenant.0, key.id.0),
        Target::Group(key) => (TO_GROUP, key.tenant.0, key.id.0),
        Target::Room(_) => return,
    };
    let message_id = message.id.as_bytes();
    let (name_len, name) = match u8::try_from(message.from_name.len()) {
        Ok(len) => (len, &*message.from_name),
        Err(_) => (0, &[][..]),
    };
    out.extend([FORM, from | to_group, message.protocol.number(), message_id.len() as u8]);
    out.extend(message_id);
    out.push(name_len);
    out.extend(name);
    if let Some(key) = message.from {
        out.extend(key.tenant.0.to_le_bytes());
        out.extend(key.id.0.to_le_bytes());
    }
    out.extend(tenant.to_le_bytes());
    out.extend(id.to_le_bytes());
}

/// The message of a head and its columns.
pub(crate) fn decode(head: &[u8], stamp: [u8; 16], time_ms: i64, body: &[u8]) -> Option<Message> {
    let (&[form, flags, protocol, id_len], rest) = head.split_first_chunk()?;
    if !(FORM_WITHOUT_NAME..=FORM).contains(&form) || flags & !(FROM | TO_GROUP) != 0 {
        return None;
    }
    let protocol = ProtocolId::from_number(protocol)?;
    let (id, rest) = rest.split_at_checked(usize::from(id_len))?;
    let id = MessageId::new(id)?;
    let (name, rest) = match form {
        FORM_WITHOUT_NAME => (&[][..], rest),
        _ => {
            let (&len, rest) = rest.split_first()?;
            rest.split_at_checked(usize::from(len))?
        }
    };
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
    let (from_name, body) = (name.into(), body.into());
    Some(Message { stamp, id, from, from_name, to, protocol, time_ms, body })
}

fn split_key(bytes: &[u8]) -> Option<(TenantId, u32, &[u8])> {
    let (tenant, rest) = bytes.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    Some((TenantId(u32::from_le_bytes(*tenant)), u32::from_le_bytes(*id), rest))
}

const FORM_WITHOUT_NAME: u8 = 1;
const FORM: u8 = 2;
const FROM: u8 = 1;
const TO_GROUP: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(from: Option<UserKey>, to: Target, id: &[u8], name: &[u8]) -> Message {
        Message {
            stamp: u128::MAX - 7,
            id: MessageId::new(id).unwrap(),
            from,
            from_name: name.into(),
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
            message(None, Target::User(user), b"", b""),
            message(Some(user), Target::User(user), &[0; 64], b"alice"),
            message(None, Target::Group(group), b"id", &[0; 255]),
            message(Some(user), Target::Group(group), &[255; 64], &[255]),
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
    fn a_head_from_before_names_is_read_without_one() {
        let mut head = Vec::new();
        for message in samples() {
            encode_head(&message, &mut head);
            let name_at = 4 + message.id.as_bytes().len();
            head.drain(name_at..=name_at + message.from_name.len());
            head[0] = FORM_WITHOUT_NAME;
            let nameless = Message { from_name: [].into(), ..message };
            assert_eq!(decoded(&head, &nameless).as_ref(), Some(&nameless));
        }
    }

    #[test]
    fn a_name_too_long_is_left_out_and_a_message_to_a_room_has_no_head() {
        let mut head = Vec::new();
        let user = Target::User(UserKey::default());
        encode_head(&message(None, user, b"id", &[b'n'; 256]), &mut head);
        let nameless = message(None, user, b"id", b"");
        assert_eq!(decoded(&head, &nameless).as_ref(), Some(&nameless));
        encode_head(&message(None, Target::Room(TenantId(1)), b"id", b""), &mut head);
        assert!(head.is_empty());
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
            for (at, wrong) in [(0, 0), (0, 3), (1, 4), (2, 255), (3, 65)] {
                let mut head = head.clone();
                head[at] = wrong;
                assert_eq!(decoded(&head, &message), None, "byte {at} = {wrong}");
            }
        }
    }
}
