//! The seam between the sidecar and a backend: blocking calls in batches.

use std::sync::Arc;

use codec::{GroupKey, TenantId, UserId, UserKey};

use crate::request::{Append, DeadReason, Row, StoreError};

/// One write of a batch, in the order the shards submitted them.
#[derive(Debug)]
pub enum Write {
    Append(Append),
    Delete { user: UserKey, seq: u64 },
    FailedRound { user: UserKey, seq: u64, charge: bool },
    DeadLetter { user: UserKey, seq: u64, reason: DeadReason },
}

/// A store of offline deliveries, users and groups. Blocking; used from one sidecar thread at a
/// time. `tests/store_suite.rs` is its contract, run over every backend.
pub trait Store: Send {
    /// Carries out `writes` in one transaction and returns after it is durable, with one result
    /// per write. A write that fails alone (a cap) does not undo the others; if the transaction
    /// itself fails, every result is that error and nothing is changed.
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

    /// The largest `seq` of any row, dead letters included; 0 if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn max_seq(&mut self) -> Result<u64, StoreError>;

    /// The id and password hash of a user.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn user_by_name(
        &mut self,
        tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<StoredUser>, StoreError>;

    /// The name that open authentication bound to an id, or that the user was made with.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, StoreError>;

    /// Whether another process committed something since the last call, or since the store was
    /// opened.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn changed(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// A user as the store keeps him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUser {
    pub id: UserId,
    /// PHC string; empty for a user that open authentication made.
    pub password_hash: String,
}
