//! What a shard may ask the sidecar, and what it hears back.
//!
//! All store requests of one user come from one shard (his home) and are carried out in the order
//! submitted: one FIFO per user. Replies to one shard come in the order of its requests of the same
//! queue (store or auth).

use std::sync::Arc;

use codec::{GroupKey, Message, UserId, UserKey};

/// Index of a shard in the running process.
pub type ShardIndex = u16;

/// One request of a shard. Replies go to the shard that asked.
#[derive(Debug)]
pub enum Request {
    /// Commit one row; answered by [`Reply::Appended`] after the commit is on disk.
    Append(Append),
    /// Forget a row; no reply, nobody waits. A row that is not there is not an error.
    Delete { user: UserKey, seq: u64 },
    /// A failed round ended on this row: remember it, and add a charge if `charge`. No reply.
    FailedRound { user: UserKey, seq: u64, charge: bool },
    /// Move a row to the dead letters. No reply.
    DeadLetter { user: UserKey, seq: u64, reason: DeadReason },
    /// Rows with `seq > after`, oldest first: at most `rows` and, after the first, `bytes` of body.
    /// Answered by [`Reply::Rows`].
    Read { user: UserKey, after: u64, rows: u32, bytes: u32 },
    /// The members of a group; answered by [`Reply::Members`].
    Members { group: GroupKey },
    /// Answered by [`Reply::Auth`].
    Auth(AuthRequest),
}

/// A row to commit.
#[derive(Debug)]
pub struct Append {
    pub user: UserKey,
    /// Unique for the user, rising with the order of delivery.
    pub seq: u64,
    pub message: Arc<Message>,
    /// `auth.mode = "open"`: the name this id was handed out for, committed in the same
    /// transaction if the store does not have it yet.
    pub binding: Option<Box<[u8]>>,
}

/// Why a message became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// Three receivers' connections ended while it alone was in flight.
    Poison,
    /// Older than the configured age.
    Expired,
}

impl DeadReason {
    pub fn label(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Expired => "expired",
        }
    }
}

/// A login to verify.
pub struct AuthRequest {
    /// Given back in the reply; means nothing to the sidecar.
    pub token: u64,
    pub tenant: codec::TenantId,
    pub name: Box<[u8]>,
    pub password: Box<[u8]>,
    pub role: Option<u8>,
    /// `open` mode only: the id that the name asks for is taken, hand out another.
    pub taken: bool,
}

impl std::fmt::Debug for AuthRequest {
    // The password never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthRequest").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The authenticator's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthVerdict {
    Pass(UserId),
    Denied,
    /// Down, slow or full: no verdict, the client shall try again.
    Unavailable,
}

#[derive(Debug)]
pub enum Reply {
    Appended {
        user: UserKey,
        seq: u64,
        result: Result<(), StoreError>,
    },
    /// `rows` in the order of `seq`. `more`: the limits cut the read short, rows may follow.
    Rows {
        user: UserKey,
        result: Result<(Vec<Row>, bool), StoreError>,
    },
    Members {
        group: GroupKey,
        result: Result<Arc<[UserId]>, StoreError>,
    },
    Auth {
        token: u64,
        verdict: AuthVerdict,
    },
    /// Dead letters of a user were put back by another process; sent to every shard.
    Requeued {
        user: UserKey,
    },
    /// Another process (the CLI) changed the store: drop cached groups.
    StoreChanged,
}

/// A stored delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub seq: u64,
    pub message: Arc<Message>,
    /// Rounds that failed with this message alone in flight.
    pub charges: u8,
    /// A round failed on this row since it was last pushed with others.
    pub suspect: bool,
}

/// Why the store did not do it. Nothing of the request is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Copy)]
pub enum StoreError {
    /// A cap of the user or of the store is reached; the message must be refused.
    Full,
    /// The backend is down, locked, or out of disk: trying again later may work.
    Unavailable,
}

impl StoreError {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unavailable => "unavailable",
        }
    }
}
