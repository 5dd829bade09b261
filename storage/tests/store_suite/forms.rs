//! Short forms of messages and writes.

#![allow(dead_code, reason = "each test program uses a part")]

use std::sync::Arc;

use codec::{GroupId, GroupKey, Message, MessageId, ProtocolId, Target, TenantId, UserId, UserKey};
use storage::store::Write;
use storage::{Append, Caps, DeadReason, Row, Store, StoreError};

pub(crate) const NO_CAPS: Caps =
    Caps { user_rows: u64::MAX, user_bytes: u64::MAX, store_rows: u64::MAX, store_bytes: u64::MAX };

pub(crate) const OK: Result<(), StoreError> = Ok(());
pub(crate) const FULL: Result<(), StoreError> = Err(StoreError::Full);
pub(crate) const UNAVAILABLE: Result<(), StoreError> = Err(StoreError::Unavailable);

pub(crate) fn user(id: u32) -> UserKey {
    UserKey { tenant: TenantId(0), id: UserId(id) }
}

pub(crate) fn group(id: u32) -> GroupKey {
    GroupKey { tenant: TenantId(0), id: GroupId(id) }
}

/// A direct message whose stamp is its own.
pub(crate) fn direct(to: UserKey, seq: u64, body: &[u8]) -> Arc<Message> {
    let stamp = u128::from(seq) << 64 | u128::from(to.tenant.0) << 32 | u128::from(to.id.0);
    message(stamp, Target::User(to), body)
}

pub(crate) fn to_group(stamp: u128, to: GroupKey, body: &[u8]) -> Arc<Message> {
    message(stamp, Target::Group(to), body)
}

pub(crate) fn to_room(stamp: u128) -> Arc<Message> {
    message(stamp, Target::Room(TenantId(0)), b"room")
}

fn message(stamp: u128, to: Target, body: &[u8]) -> Arc<Message> {
    Arc::new(Message {
        stamp,
        id: MessageId::new(&stamp.to_be_bytes()).unwrap(),
        from: stamp.is_multiple_of(2).then(|| user(9)),
        from_name: if stamp.is_multiple_of(4) { b"nine"[..].into() } else { [].into() },
        to,
        protocol: ProtocolId::ALL[0],
        time_ms: 1_000,
        body: body.into(),
    })
}

pub(crate) fn append_message(user: UserKey, seq: u64, message: Arc<Message>) -> Write {
    Write::Append(Append { user, seq, message, binding: None })
}

pub(crate) fn append(user: UserKey, seq: u64, body: &[u8]) -> Write {
    append_message(user, seq, direct(user, seq, body))
}

pub(crate) fn bound(user: UserKey, seq: u64, name: &[u8]) -> Write {
    let message = direct(user, seq, b"bound");
    Write::Append(Append { user, seq, message, binding: Some(name.into()) })
}

pub(crate) fn delete(user: UserKey, seq: u64) -> Write {
    Write::Delete { user, seq }
}

pub(crate) fn failed(user: UserKey, seq: u64, charge: bool) -> Write {
    Write::FailedRound { user, seq, charge }
}

pub(crate) fn dead(user: UserKey, seq: u64) -> Write {
    Write::DeadLetter { user, seq, reason: DeadReason::Poison }
}

/// All rows of a user.
pub(crate) fn rows(store: &mut dyn Store, user: UserKey) -> Vec<Row> {
    let (rows, more) = store.read(user, 0, u32::MAX, u32::MAX).unwrap();
    assert!(!more, "no limit cut the read short");
    rows
}

pub(crate) fn seqs(store: &mut dyn Store, user: UserKey) -> Vec<u64> {
    rows(store, user).iter().map(|row| row.seq).collect()
}

/// As a sender of the simple_im protocol has it: no kind, no device, the text.
pub(crate) fn text_from(from: UserKey, to: UserKey, text: &str) -> Arc<Message> {
    let stamp = u128::from(text.len() as u32) << 32 | u128::from(to.tenant.0);
    Arc::new(Message {
        stamp,
        id: MessageId::new(b"a_02").unwrap(),
        from: Some(from),
        from_name: b"somebody"[..].into(),
        to: Target::User(to),
        protocol: ProtocolId::SimpleIm,
        time_ms: 1_000,
        body: [&b"\0\0"[..], text.as_bytes()].concat().into(),
    })
}
