//! What the simple_im system keeps in Redis: lists of packets for users who are away, and what a
//! token stands for (specs/simple-im.md sections 4 and 5).
//!
//! ```text
//!   LIST  offline_<user>    [m] id = ".." c = ".." ts = 1 [m.from] id = 1 [m.to] id = 2
//!                           or the name of a STRING with the packet: later revisions
//!   HASH  client_<token>    ip, port, id, user_id (the same), device; expires until the IM login
//! ```
//!
//! Tenants other than the default have `t<tenant>_` before each key.
//!
//! Owns: these names and texts, in both directions. Never: what is delivered. The lists are written
//! for others to read, and kept in step with our own rows (`rows.lua`, which makes the list's name,
//! too); what others have put into them becomes rows (`import`).

use codec::protocol::Protocol as _;
pub(super) use codec::simple_im::PACKET_MAX;
use codec::simple_im::{Settings, SimpleIm, read_message};
use codec::{
    GroupKey, Malformed, Message, MessageId, Outgoing, ProtocolId, Push, Target, TenantId, UserId,
    UserKey,
};

use crate::accounts::TokenRecord;
use crate::names::decimal;

/// Appends the packet as a server of the first revision sends it: also for groups, whatever our own
/// clients are told instead.
pub(super) fn put_packet(message: &Message, out: &mut Vec<u8>) {
    let settings = Settings { group_as_message: false, ..Settings::default() };
    let push = Outgoing::Push(Push { message, stored: true });
    SimpleIm::new().encode(&settings, &push, true, out);
}

/// The list into which others may have put messages: those know of no tenant but the default one.
pub(super) fn list_key(user: UserKey) -> Option<String> {
    (user.tenant == TenantId(0)).then(|| format!("offline_{}", user.id))
}

/// A message that another server has kept for `user`, who it is for whatever its packet says.
///
/// # Errors
/// It is none: in the words of [`crate::store::Imports`].
pub(super) fn foreign_message(
    user: UserKey,
    packet: &[u8],
    now_ms: u64,
) -> Result<Message, &'static str> {
    let kept = read_message(packet).map_err(|error| match error.what {
        Malformed::UnknownCommand => "other",
        _ => "unreadable",
    })?;
    let mut stamp = [0; 16];
    getrandom::fill(&mut stamp).expect("the operating system has randomness");
    let stamp = u128::from_be_bytes(stamp);
    let tenant = user.tenant;
    Ok(Message {
        stamp,
        id: kept.id.unwrap_or_else(|| MessageId::of_stamp(stamp)),
        from: kept.from.map(|id| UserKey { tenant, id }),
        from_name: [].into(),
        to: kept.group.map_or(Target::User(user), |id| Target::Group(GroupKey { tenant, id })),
        protocol: ProtocolId::SimpleIm,
        time_ms: kept.time_s.map_or(now_ms, |seconds| u64::from(seconds) * 1000),
        body: kept.body,
    })
}

/// The key of a token. A token is whatever bytes a client sends; no byte has a meaning in a key.
pub(super) fn token_key(tenant: TenantId, token: &[u8]) -> Vec<u8> {
    let mut key = match tenant.0 {
        0 => Vec::new(),
        tenant => format!("t{tenant}_").into_bytes(),
    };
    key.extend(b"client_");
    key.extend(token);
    key
}

/// A token's fields and values.
pub(super) fn token_fields(record: &TokenRecord) -> Vec<(&'static str, Vec<u8>)> {
    let TokenRecord { user, name, device, ip, port, permanent: _ } = record;
    let id = user.to_string().into_bytes();
    let mut fields = vec![
        ("ip", ip.to_vec()),
        ("port", port.to_string().into_bytes()),
        ("id", id.clone()),
        ("user_id", id),
        ("device", device.to_vec()),
    ];
    if let Some(name) = name {
        fields.push(("ringpost_name", name.to_vec()));
    }
    fields
}

/// What a token stands for, whoever wrote it; `None` if it names no user.
pub(super) fn token_record(
    fields: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    permanent: bool,
) -> Option<TokenRecord> {
    let mut user = None;
    let mut record = TokenRecord {
        user: UserId(0),
        name: None,
        device: Box::default(),
        ip: Box::default(),
        port: 0,
        permanent,
    };
    for (field, value) in fields {
        match &*field {
            // One revision wrote the one, another the other.
            b"user_id" => user = decimal(&value).map(UserId),
            b"id" => user = user.or_else(|| decimal(&value).map(UserId)),
            b"device" => record.device = value.into(),
            b"ip" => record.ip = value.into(),
            b"port" => record.port = decimal(&value)?.try_into().ok()?,
            b"ringpost_name" => record.name = Some(value.into()),
            _ => {}
        }
    }
    Some(TokenRecord { user: user?, ..record })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_whichever_revision_wrote_it() {
        let read = |fields: &[(&str, &str)]| {
            let fields = fields.iter().map(|(f, v)| (f.as_bytes().to_vec(), v.as_bytes().to_vec()));
            token_record(fields, true)
        };
        let one = read(&[("ip", "10.0.0.1"), ("port", "1987"), ("id", "5")]).unwrap();
        assert_eq!((one.user, one.port, &*one.ip), (UserId(5), 1987, &b"10.0.0.1"[..]));
        assert_eq!(read(&[("user_id", "6"), ("device", "ipad")]).unwrap().user, UserId(6));
        assert_eq!(read(&[("ip", "10.0.0.1")]), None, "nobody's");
        assert_eq!(read(&[("id", "x")]), None);
        assert_eq!(read(&[("id", "1"), ("port", "70000")]), None);
    }
}
