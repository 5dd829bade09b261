//! Who may log in: one trait, and its implementations.
//!
//! Owns: verifying a name and a password, and naming the user id. Never: queues or threads (the
//! sidecar's), what a client hears (the shard's). A password never reaches a log, a metric or an
//! error text.

mod cache;
mod http;
mod local;
mod open;

pub(crate) use cache::{Generation, LoginCache, LoginKey};
pub use http::{ForwardRole, HttpConfig, HttpConfigError, UserCentre};
pub use local::{Local, hash_password};
pub use open::{FIRST_ID, Open, OpenIds, numeric_suffix};

use codec::{TenantId, UserId, UserKey};

use crate::request::{AuthRequest, AuthVerdict, StoreError};
use crate::store::{Store, StoredUser};

/// Verifies logins, one at a time; blocking. Each auth thread of the sidecar owns one.
pub trait Authenticator: Send {
    /// [`AuthVerdict::Denied`] only if the authority said so: whatever is down, slow or makes no
    /// sense is [`AuthVerdict::Unavailable`], after which clients try again.
    fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict;

    /// Whether a pass may be remembered, so that the same credentials pass again without asking.
    fn cacheable(&self) -> bool {
        true
    }
}

/// Where authenticators find users: a reading handle of their own on the store, so that a login
/// never waits behind the store thread's commits.
pub trait UserDirectory: Send {
    /// The user of that name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn find(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<StoredUser>, StoreError>;

    /// Whether the id belongs to a name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn is_bound(&mut self, user: UserKey) -> Result<bool, StoreError>;

    /// Whose name it is, and whether the id belongs to a name, in one look.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn find_and_is_bound(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        id: UserId,
    ) -> Result<(Option<UserId>, bool), StoreError>;
}

impl<S: Store> UserDirectory for S {
    fn find(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<StoredUser>, StoreError> {
        self.user_by_name(tenant, name)
    }

    fn is_bound(&mut self, user: UserKey) -> Result<bool, StoreError> {
        Ok(self.name_of(user)?.is_some())
    }

    fn find_and_is_bound(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        id: UserId,
    ) -> Result<(Option<UserId>, bool), StoreError> {
        self.name_and_id(tenant, name, id)
    }
}
