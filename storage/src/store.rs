//! The seam between the sidecar and a backend: blocking calls in batches.

use std::sync::Arc;

use codec::{Answer, GroupId, GroupKey, Query, TenantId, UserId, UserKey};

use crate::request::{Append, DeadReason, Found, NameKind, Row, StoreError};

/// One write of a batch, in the order the shards submitted them.
#[derive(Debug)]
pub enum Write {
    Append(Append),
    Delete {
        user: UserKey,
        seq: u64,
    },
    FailedRound {
        user: UserKey,
        seq: u64,
        charge: bool,
    },
    DeadLetter {
        user: UserKey,
        seq: u64,
        reason: DeadReason,
    },
    /// The binding of an [`Append`] without a message.
    Bind {
        user: UserKey,
        name: Box<[u8]>,
    },
}

/// A store of offline deliveries, users and groups. Blocking; used from one sidecar thread at a
/// time. `tests/store_suite.rs` is its contract, run over every backend.
pub trait Store: Send {
    /// Carries out `writes` in one transaction and returns after it is durable, with one result
    /// per write. A write that fails alone (a cap) does not undo the others; if the transaction
    /// itself fails, every result is that error and nothing is changed.
    ///
    /// - An append of a row that is there already succeeds if it is the same message (by stamp) and
    ///   is refused otherwise: no row is ever overwritten. So is a `seq` above [`SEQ_MAX`], and a
    ///   message to the public room.
    /// - A refused append binds no name. A binding whose id or name is taken changes nothing.
    /// - A delete, a failed round or a dead letter of a row that is not there succeeds.
    fn write(&mut self, writes: &[Write]) -> Vec<Result<(), StoreError>>;

    /// Rows of `user` with `seq > after`, oldest first: at most `rows`, and after the first at
    /// most `bytes` of bodies. The flag says that the limits cut the read short.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn read(
        &mut self,
        user: UserKey,
        after: u64,
        rows: u32,
        bytes: u32,
    ) -> Result<(Vec<Row>, bool), StoreError>;

    /// Members of a group in no particular order; a group that does not exist has none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError>;

    /// The largest `seq` of any row that ever was, deleted ones and dead letters included; 0 if
    /// there never was one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn max_seq(&mut self) -> Result<u64, StoreError>;

    /// The tenant of that name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn tenant_named(&mut self, org: &[u8], appkey: &[u8]) -> Result<Option<TenantId>, StoreError>;

    /// Whom a name means, by the rule of `names::find`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn resolve(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        what: NameKind,
    ) -> Result<Option<Found>, StoreError>;

    /// Answers a question about contacts or groups, by the rules of `roster::answer`, in
    /// one transaction. The second value is the group whose members it has changed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; nothing is changed.
    fn query(
        &mut self,
        user: UserKey,
        query: &Query,
    ) -> Result<(Answer, Option<GroupId>), StoreError>;

    /// Answers queries in order, as if one by one with [`Self::query`], but in one transaction
    /// where the backend can: so that many cost one commit.
    fn queries(
        &mut self,
        queries: &[(UserKey, Query)],
    ) -> Vec<Result<(Answer, Option<GroupId>), StoreError>> {
        queries.iter().map(|(user, query)| self.query(*user, query)).collect()
    }

    /// A user by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn user_by_name(
        &mut self,
        tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<StoredUser>, StoreError>;

    /// A user by phone number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn user_by_phone(
        &mut self,
        tenant: TenantId,
        phone: &[u8],
    ) -> Result<Option<StoredUser>, StoreError>;

    /// The name that open authentication bound to an id, or that the user was made with.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, StoreError>;

    /// Whose name it is, and whether `id` belongs to anybody: what a login of open authentication
    /// asks, in one look.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn name_and_id(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        id: UserId,
    ) -> Result<(Option<UserId>, bool), StoreError> {
        let named = self.user_by_name(tenant, name)?.map(|user| user.id);
        Ok((named, self.name_of(UserKey { tenant, id })?.is_some()))
    }

    /// Whether another process committed something since the last call, or since the store was
    /// opened. May say so once too often, never once too few.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn changed(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Users whose dead letters were put back since the last call, each once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; they are then named by a later call.
    fn take_requeued(&mut self) -> Result<Vec<UserKey>, StoreError> {
        Ok(Vec::new())
    }

    /// Makes dead letters of rows whose message is older than the configured age, the oldest
    /// first and a bounded number at once. Returns how many; 0: there are no more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn expire(&mut self, _now_ms: u64) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// What became of what another system has left, over all processes that use the store.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn imports(&mut self) -> Result<Imports, StoreError> {
        Ok(Imports::default())
    }

    /// What was behind the last [`StoreError::Unavailable`], for the log; `None` if there was none
    /// since the last success of a write.
    fn trouble(&self) -> Option<&str> {
        None
    }
}

/// The largest `seq`: SQL integers are signed.
pub const SEQ_MAX: u64 = i64::MAX as u64;

/// Up to here seqs are a store's own, for rows that it makes of what was there before the gateway:
/// they come before all that a gateway appends, whose seqs begin above.
pub const SEQ_IMPORTED_MAX: u64 = 1 << 40;

/// What was found in a store that another system has filled before or fills as well, since ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imports {
    /// Became rows.
    pub messages: u64,
    /// Named a message that is not there any more. This and the following are put aside.
    pub expired: u64,
    /// Of the other system, but no message.
    pub others: u64,
    pub unreadable: u64,
}

/// How much a store takes. At a cap an append is refused with [`StoreError::Full`]; nothing stored
/// is ever evicted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Rows of one user. Dead letters are not among them.
    pub user_rows: u64,
    /// Body bytes of one user's rows; a group message's body counts for each of its recipients.
    pub user_bytes: u64,
    /// Rows and dead letters together.
    pub store_rows: u64,
    /// Body bytes of rows and dead letters together; a group message's body counts once.
    pub store_bytes: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            user_rows: 10_000,
            user_bytes: 64 << 20,
            store_rows: 100_000_000,
            store_bytes: 16 << 30,
        }
    }
}

impl Caps {
    /// Whether a message of `bytes` may be added, `new_bytes` of which the store does not have yet.
    pub(crate) fn admit(&self, user: Usage, store: Usage, bytes: u64, new_bytes: u64) -> bool {
        user.rows < self.user_rows
            && user.bytes.saturating_add(bytes) <= self.user_bytes
            && store.rows < self.store_rows
            && store.bytes.saturating_add(new_bytes) <= self.store_bytes
    }
}

/// What one user or the whole store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, rows: u64, bytes: u64) {
        self.rows += rows;
        self.bytes += bytes;
    }

    pub(crate) fn sub(&mut self, rows: u64, bytes: u64) {
        debug_assert!(rows <= self.rows && bytes <= self.bytes, "whatever goes was counted");
        // A file that somebody has edited by hand must not end the store.
        self.rows = self.rows.saturating_sub(rows);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The limits of one read, the same for every backend.
pub(crate) struct ReadBudget {
    rows: u32,
    bytes: usize,
    first: bool,
}

impl ReadBudget {
    pub(crate) fn new(rows: u32, bytes: u32) -> Self {
        Self { rows, bytes: bytes as usize, first: true }
    }

    /// `false`: a body of this length does not fit any more.
    pub(crate) fn take(&mut self, len: usize) -> bool {
        if self.rows == 0 || (!self.first && len > self.bytes) {
            return false;
        }
        self.rows -= 1;
        self.bytes = self.bytes.saturating_sub(len);
        self.first = false;
        true
    }
}

/// A user as the store keeps him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUser {
    pub id: UserId,
    pub name: Box<[u8]>,
    /// As [`crate::auth::verify_password`] takes it; empty for a user without a password.
    pub password_hash: String,
}
