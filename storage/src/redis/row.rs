//! Rows and dead letters as Redis keeps them, see the picture above `redis.rs`.
//!
//! Owns: these layouts, in both directions, as `rows.lua` takes them apart. Never: a command. What
//! nobody wrote decodes to `None`.

use std::sync::Arc;

use codec::{Message, Target, TenantId, UserId, UserKey};

use super::simple_im::put_packet;
use crate::admin::DeadLetter;
use crate::request::{DeadReason, Row};
use crate::sqlite::record;

/// Buffers for one row to append.
#[derive(Default)]
pub(super) struct NewRow {
    pub(super) row: Vec<u8>,
    pub(super) head: Vec<u8>,
    /// The element of the list.
    pub(super) text: Vec<u8>,
}

impl NewRow {
    /// A group's message leaves head, body and text to be kept apart.
    pub(super) fn encode(&mut self, seq: u64, message: &Message) {
        self.text.clear();
        put_packet(message, &mut self.text);
        self.put(seq, message, matches!(message.to, Target::Group(_)));
    }

    /// With its own text. The seq is not known yet, and nothing is kept apart.
    pub(super) fn encode_as(&mut self, message: &Message, text: &[u8]) {
        text.clone_into(&mut self.text);
        self.put(0, message, false);
    }

    fn put(&mut self, seq: u64, message: &Message, shared: bool) {
        record::encode_head(message, &mut self.head);
        let bytes = u32::try_from(message.body.len()).expect("a body is far below 4 GiB");
        let (head_len, body_len) = if shared { (0, 0) } else { (self.head.len(), bytes) };
        let head_len = u16::try_from(head_len).expect("at most 400 bytes");
        let row = &mut self.row;
        row.clear();
        row.extend(seq.to_be_bytes());
        row.extend([0, if shared { SHARED } else { 0 }]);
        row.extend(message.stamp.to_be_bytes());
        row.extend(message.time_ms.to_be_bytes());
        row.extend(bytes.to_be_bytes());
        row.extend(head_len.to_be_bytes());
        row.extend(body_len.to_be_bytes());
        if !shared {
            for part in [&self.head, &*message.body, &self.text] {
                row.extend_from_slice(part);
            }
        }
    }
}

/// A row; `head` and `body` are those that it shares, if it does.
pub(super) fn decode(row: &[u8], head: &[u8], body: &[u8]) -> Option<Row> {
    let (seq, rest) = row.split_first_chunk()?;
    let (&[charges, marks], rest) = rest.split_first_chunk()?;
    let (stamp, rest) = rest.split_first_chunk::<16>()?;
    let (time_ms, rest) = rest.split_first_chunk()?;
    let (_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (head_len, rest) = rest.split_first_chunk()?;
    let (body_len, rest) = rest.split_first_chunk()?;
    let (head, body) = if marks & SHARED == 0 {
        let (head, rest) = rest.split_at_checked(u16::from_be_bytes(*head_len).into())?;
        (head, rest.get(..u32::from_be_bytes(*body_len) as usize)?)
    } else {
        (head, body)
    };
    let message = record::decode(head, *stamp, i64::from_be_bytes(*time_ms), body)?;
    Some(Row {
        seq: u64::from_be_bytes(*seq),
        message: Arc::new(message),
        charges,
        suspect: marks & SUSPECT != 0,
    })
}

/// What is left of a dead letter.
pub(super) struct Letter(pub(super) DeadLetter);

impl Letter {
    pub(super) fn decode(letter: &[u8], head: &[u8], body: &[u8]) -> Option<Self> {
        let (id, rest) = letter.split_first_chunk()?;
        let (&reason, rest) = rest.split_first()?;
        let (died_ms, rest) = rest.split_first_chunk()?;
        let (user, row) = rest.split_at_checked(8)?;
        Some(Self(DeadLetter {
            id: i64::from_be_bytes(*id),
            user: user_of_bytes(user)?,
            seq: seq_of(row)?,
            reason: reason_label(reason).to_owned(),
            died_ms: u64::from_be_bytes(*died_ms),
            message: decode(row, head, body).map(|row| row.message),
        }))
    }
}

/// The key of a user's rows, as `rows.lua` makes it.
pub(super) fn key(user: UserKey) -> String {
    format!("ringpost_rows_{}_{}", user.tenant.0, user.id)
}

/// Whose rows a key holds.
pub(super) fn user_of_key(key: &str) -> Option<UserKey> {
    let (tenant, id) = key.strip_prefix("ringpost_rows_")?.split_once('_')?;
    Some(UserKey { tenant: TenantId(tenant.parse().ok()?), id: UserId(id.parse().ok()?) })
}

/// The number that the first 8 bytes are.
pub(super) fn seq_of(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|seq| u64::from_be_bytes(*seq))
}

pub(super) fn seq_bytes(seq: u64) -> [u8; 8] {
    seq.to_be_bytes()
}

pub(super) fn user_bytes(user: UserKey) -> [u8; 8] {
    (u64::from(user.tenant.0) << 32 | u64::from(user.id.0)).to_be_bytes()
}

pub(super) fn user_of_bytes(bytes: &[u8]) -> Option<UserKey> {
    let (tenant, id) = bytes.split_first_chunk()?;
    let id = u32::from_be_bytes(*id.first_chunk()?);
    Some(UserKey { tenant: TenantId(u32::from_be_bytes(*tenant)), id: UserId(id) })
}

pub(super) fn reason_byte(reason: DeadReason) -> u8 {
    match reason {
        DeadReason::Poison => b'p',
        DeadReason::Expired => b'e',
    }
}

fn reason_label(reason: u8) -> &'static str {
    match reason {
        b'p' => DeadReason::Poison.label(),
        b'e' => DeadReason::Expired.label(),
        _ => "unknown",
    }
}

/// Where the row begins in a dead letter.
pub(super) const DEAD_ROW_AT: usize = 8 + 1 + 8 + 8;

const SUSPECT: u8 = 1;
const SHARED: u8 = 2;
