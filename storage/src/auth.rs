//! Who may log in: one trait, and its implementations.
//!
//! Owns: verifying a name and what proves it, and naming the user. Never: queues or threads (the
//! sidecar's), what a client hears (the shard's). A password or a token never reaches a log, a
//! metric or an error text.

mod cache;
mod http;
mod local;
mod open;
mod tokens;
mod verified;

pub(crate) use cache::{Generation, LoginCache, LoginKey};
pub use http::{ForwardRole, HttpConfig, HttpConfigError, UserCentre};
pub use local::{Local, hash_password, verify_password};
pub use open::{FIRST_ID, Open, OpenIds, numeric_suffix};
pub use tokens::{NoPassword, Tokens};
pub use verified::Verified;

use codec::{TenantId, UserId, UserKey};

use crate::request::{AuthRequest, AuthVerdict, StoreError, TenantRef};
use crate::store::{Store, StoredUser};

/// Verifies logins, one at a time; blocking. Each auth thread of the sidecar owns one.
pub trait Authenticator: Send {
    /// [`AuthVerdict::Denied`] only if the authority said so: whatever is down, slow or makes no
    /// sense is [`AuthVerdict::Unavailable`], after which clients try again.
    fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict;

    /// Whether a pass may be remembered, so that the same credentials pass again without asking.
    /// Passes by token never are: a token is taken back at any moment, and cheap to look up.
    fn cacheable(&self) -> bool {
        true
    }
}

/// Where authenticators find users: a reading handle of their own on the store, so that a login
/// never waits behind the store thread's commits.
pub trait UserDirectory: Send {
    /// The tenant; `None`: there is none of that name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn tenant(&mut self, tenant: &TenantRef) -> Result<Option<TenantId>, StoreError>;

    /// The user of that name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn find(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<StoredUser>, StoreError>;

    /// The user with that phone number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn find_by_phone(
        &mut self,
        tenant: TenantId,
        phone: &[u8],
    ) -> Result<Option<StoredUser>, StoreError>;

    /// The name that the id belongs to.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, StoreError>;

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
    fn tenant(&mut self, tenant: &TenantRef) -> Result<Option<TenantId>, StoreError> {
        match tenant {
            TenantRef::Id(id) => Ok(Some(*id)),
            TenantRef::Named { org, appkey } => self.tenant_named(org, appkey),
        }
    }

    fn find(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<StoredUser>, StoreError> {
        self.user_by_name(tenant, name)
    }

    fn find_by_phone(
        &mut self,
        tenant: TenantId,
        phone: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        self.user_by_phone(tenant, phone)
    }

    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, StoreError> {
        Store::name_of(self, user)
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
