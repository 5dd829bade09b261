//! What other servers have put into the lists of users who were away becomes rows.
//!
//! Owns: how much is looked at, at once and in one read; which seqs such rows get. Never: what an
//! element says (`simple_im`), the keys (`rows.lua`).
//!
//! ```text
//!   before   list  F1 F2 ? F3 O1 O2      rows  O1 O2             F others' messages, O our own,
//!   after    list  F1 F2 F3 O1 O2        rows  F1 F2 F3 O1 O2    ? what nobody can read: aside
//! ```
//!
//! - One call of `rows.lua` gives out the elements that are nobody's row, another one makes rows of
//!   them, if the list is still what it was: a message is in the list until it is in a row, too.
//!   Whatever dies in between, the next read begins anew.
//! - Their seqs are below all that a gateway gives ([`SEQ_IMPORTED_MAX`]), and rise with their
//!   places in the list. A reader that has come past them finds others only when it begins anew.
//! - What makes no row is moved to `ringpost_aside_<tenant>_<user>`, and never read again.
//! - A list that is no longer than the rows are many costs one look at its length.

use codec::UserKey;

use super::row::NewRow;
use super::simple_im::PACKET_MAX;
use super::{Redis, row, simple_im};
use crate::external::now_ms;
use crate::request::StoreError;
use crate::store::{Imports, SEQ_IMPORTED_MAX};

/// How much of one user's list a read may still look at.
pub(super) struct Patience(u32);

impl Patience {
    pub(super) fn new() -> Self {
        Self(IMPORTS_MAX)
    }

    /// Whether a read that goes on behind `after` is worth a look.
    pub(super) fn take(&mut self, after: u64) -> bool {
        let some = self.0 > 0 && after < SEQ_IMPORTED_MAX;
        self.0 = self.0.saturating_sub(1);
        some
    }
}

impl Redis {
    /// Makes rows of the oldest elements of a user's list that are none yet. `false`: there were
    /// none. Who else was at it has changed what a page read before this shows, too.
    pub(super) fn import(&mut self, user: UserKey) -> Result<bool, StoreError> {
        let mut cmd = self.change("foreign");
        cmd.arg(&row::user_bytes(user)).arg(ELEMENTS_MAX).arg(BYTES_MAX).arg(PACKET_MAX);
        let found: Vec<Vec<u8>> = self.ask(&cmd)?;
        let Some((last, found)) = found.split_first() else { return Ok(false) };
        if found.is_empty() {
            return Ok(false);
        }
        let mut cmd = self.change("import");
        cmd.arg(&row::user_bytes(user)).arg(last);
        let mut row = NewRow::default();
        for element in found.as_chunks().0 {
            let [index, digest, state, packet] = element;
            let fate = match &**state {
                b"packet" => match simple_im::foreign_message(user, packet, now_ms()) {
                    Ok(message) => {
                        row.encode_as(&message, packet);
                        "message"
                    }
                    Err(fate) => fate,
                },
                b"expired" => "expired",
                _ => "unreadable",
            };
            let made: &[u8] = if fate == "message" { &row.row } else { b"" };
            cmd.arg(index).arg(digest).arg(fate).arg(made);
        }
        let _: u64 = self.commit(&cmd, true)?;
        Ok(true)
    }

    /// As [`crate::Store::imports`].
    pub(crate) fn imports(&mut self) -> Result<Imports, StoreError> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg("ringpost_imports").arg(&["message", "expired", "other", "unreadable"]);
        let [messages, expired, others, unreadable]: [Option<u64>; 4] = self.ask(&cmd)?;
        Ok(Imports {
            messages: messages.unwrap_or(0),
            expired: expired.unwrap_or(0),
            others: others.unwrap_or(0),
            unreadable: unreadable.unwrap_or(0),
        })
    }
}

/// Elements in one call, and bytes of packets after which it takes no further one: a few
/// milliseconds, during which Redis answers nobody else.
const ELEMENTS_MAX: u64 = 256;
const BYTES_MAX: u64 = 1 << 20;
/// Calls in one read, which goes on when it has rows to give: nobody waits long for a list with
/// nothing but what is put aside.
const IMPORTS_MAX: u32 = 64;
