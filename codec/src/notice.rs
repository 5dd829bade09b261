//! What users are told, as it happens, of others' changes to contacts and groups.
//!
//! A notice is for those who are there: it is never stored, and nobody waits until it has arrived.
//! Who was away finds the change when he asks. Protocols without a form for one write nothing.

use std::fmt;

use crate::ids::{GroupId, UserId};

/// A change, for those it concerns. Rare, so owned.
#[derive(Clone, PartialEq, Eq)]
pub struct Notice {
    /// Who made the change.
    pub by: UserId,
    /// His name, or his id in decimal where he has none.
    pub name: Box<[u8]>,
    /// The device that he made it with, which need not be told; empty: not known.
    pub device: Box<[u8]>,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub news: News,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// He has the one who is told among his contacts now, who was not asked.
    ContactAdded,
    /// He asks `to` to become a contact, with these words.
    ContactAsked {
        to: UserId,
        ask: Box<[u8]>,
    },
    /// He has become a contact of `to`, who had asked.
    ContactAccepted {
        to: UserId,
    },
    /// He and `to` are no contacts any more.
    ContactDeleted {
        to: UserId,
    },
    /// Who knows `key` may join.
    GroupCreated {
        group: GroupId,
        key: Box<[u8]>,
    },
    GroupDeleted {
        group: GroupId,
    },
    MemberAdded {
        group: GroupId,
        member: UserId,
    },
    MemberRemoved {
        group: GroupId,
        member: UserId,
    },
}

impl fmt::Debug for Notice {
    // What people say to each other and the keys of groups never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notice").field("by", &self.by).finish_non_exhaustive()
    }
}
