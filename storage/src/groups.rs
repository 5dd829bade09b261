//! Where the members of a group come from, if not from the store.
//!
//! Owns: the seam, and the Redis sets of the `binary` system. Never: caching, which is the business
//! of the group's home shard.

mod redis;

use std::sync::Arc;

use codec::{GroupKey, UserId};

pub use self::redis::{RedisConfig, RedisConfigError, RedisGroups};
use crate::request::StoreError;

/// Looks members up; blocking. Each group thread of the sidecar owns one.
pub trait GroupSource: Send {
    /// Members of a group in no particular order, each once; a group that does not exist has none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; [`StoreError::Full`] for a group with more members than the
    /// bound.
    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError>;

    /// Members skipped so far because they are no user id, over all threads of the source.
    fn skipped(&self) -> u64 {
        0
    }
}
