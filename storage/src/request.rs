//! What a shard may ask the sidecar, and what it hears back.
//!
//! All store requests of one user come from one shard (his home) and are carried out in the order
//! submitted: one FIFO per user. Replies to one shard come in the order of its requests of the same
//! queue (store or auth).

use std::sync::Arc;

use codec::{Answer, GroupId, GroupKey, Message, Query, TenantId, UserId, UserKey};
use zeroize::Zeroize;

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
    /// Whom a name means; answered by [`Reply::Resolved`] with the same token.
    Resolve { token: u64, tenant: TenantId, name: Box<[u8]>, what: NameKind },
    /// A question about contacts or groups; answered by [`Reply::Answer`] with the same token.
    /// `binding` as in [`Append`]: committed before a query that changes something.
    Query { token: u64, user: UserKey, query: Query, binding: Option<Box<[u8]>> },
    /// Answered by [`Reply::Auth`].
    Auth(AuthRequest),
}

/// What a name may mean, see `names::find`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// A user, or else a group.
    Any,
    Group,
}

/// Whom a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    User(UserId),
    Group(GroupId),
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
    /// Which of each auth thread's authenticators decides; see
    /// [`crate::sidecar::Config::authenticators`].
    pub realm: u16,
    pub tenant: TenantRef,
    pub name: Box<[u8]>,
    pub proof: Proof,
    /// The name of the device that logs in; empty: it has none.
    pub device: Box<[u8]>,
    pub role: Option<u8>,
    /// `open` mode only: the id that the name asks for is taken, hand out another.
    pub taken: bool,
}

impl std::fmt::Debug for AuthRequest {
    // What proves the identity never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthRequest").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The tenant of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantRef {
    /// The listener's.
    Id(TenantId),
    /// As the client named it; nobody has looked for it yet.
    Named { org: Box<[u8]>, appkey: Box<[u8]> },
}

/// [`codec::Proof`], owned. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    Password(Box<[u8]>),
    Token(Box<[u8]>),
    Phone(Box<[u8]>),
    Nothing,
}

impl Proof {
    /// The secret; empty if there is none.
    pub fn secret(&self) -> &[u8] {
        match self {
            Self::Password(secret) | Self::Token(secret) | Self::Phone(secret) => secret,
            Self::Nothing => &[],
        }
    }
}

impl From<codec::Proof<'_>> for Proof {
    fn from(proof: codec::Proof<'_>) -> Self {
        match proof {
            codec::Proof::Password(secret) => Self::Password(secret.into()),
            codec::Proof::Token(secret) => Self::Token(secret.into()),
            codec::Proof::Phone(secret) => Self::Phone(secret.into()),
            codec::Proof::Nothing => Self::Nothing,
        }
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        match self {
            Self::Password(secret) | Self::Token(secret) | Self::Phone(secret) => secret.zeroize(),
            Self::Nothing => {}
        }
    }
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(..)")
    }
}

/// The authenticator's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthVerdict {
    Pass {
        user: UserKey,
        /// The user's name, if it is another than the one that the login gave.
        name: Option<Arc<[u8]>>,
    },
    Denied,
    UnknownTenant,
    /// Down, slow or full: no verdict, the client shall try again.
    Unavailable,
}

impl AuthVerdict {
    /// A pass under the name that the login gave.
    pub fn pass(tenant: TenantId, id: UserId) -> Self {
        Self::Pass { user: UserKey { tenant, id }, name: None }
    }
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
    Resolved {
        token: u64,
        /// `None`: nobody.
        result: Result<Option<Found>, StoreError>,
    },
    Answer {
        token: u64,
        result: Result<Answer, StoreError>,
    },
    Auth {
        token: u64,
        verdict: AuthVerdict,
    },
    /// Members of a group have changed by a query: drop it if it is cached. Sent to every shard
    /// before the query is answered.
    GroupChanged {
        group: GroupKey,
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
