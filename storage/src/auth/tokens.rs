//! Logins without a password of their own: by a token from the HTTP login, or with nothing at all.
//!
//! Owns: what a token proves, and that its use makes it permanent and the device's only one. Never:
//! passwords; those are the inner authenticator's.

use codec::{UserId, UserKey};

use super::{Authenticator, UserDirectory};
use crate::accounts::Accounts;
use crate::names::decimal;
use crate::request::{AuthRequest, AuthVerdict, Proof, StoreError};

/// Passes who brings a token of the user whose id he gives as his name.
pub struct Tokens {
    accounts: Box<dyn Accounts>,
    directory: Box<dyn UserDirectory>,
    inner: Box<dyn Authenticator>,
    now_ms: fn() -> u64,
}

impl Tokens {
    /// Proofs other than tokens go to `inner`. `now_ms` gives milliseconds since 1970.
    pub fn new(
        accounts: Box<dyn Accounts>,
        directory: Box<dyn UserDirectory>,
        inner: Box<dyn Authenticator>,
        now_ms: fn() -> u64,
    ) -> Self {
        Self { accounts, directory, inner, now_ms }
    }

    fn check(&mut self, request: &AuthRequest, token: &[u8]) -> Result<AuthVerdict, StoreError> {
        let Some(tenant) = self.directory.tenant(&request.tenant)? else {
            return Ok(AuthVerdict::UnknownTenant);
        };
        let now_ms = (self.now_ms)();
        let user = decimal(&request.name).map(UserId).filter(|_| tenant == self.accounts.tenant());
        let record = self.accounts.token(token, now_ms)?;
        let (Some(user), Some(record)) = (user, record) else { return Ok(AuthVerdict::Denied) };
        if record.user != user {
            return Ok(AuthVerdict::Denied);
        }
        let used_here = record.permanent && record.device == request.device;
        // It may have expired just now.
        if !used_here && !self.accounts.persist_token(token, user, &request.device, now_ms)? {
            return Ok(AuthVerdict::Denied);
        }
        let user = UserKey { tenant, id: user };
        let name = match record.name {
            Some(name) => Some(name),
            None => self.directory.name_of(user)?,
        };
        let name = name.filter(|name| *name != request.name).map(Into::into);
        Ok(AuthVerdict::Pass { user, name })
    }
}

impl Authenticator for Tokens {
    fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict {
        match &request.proof {
            Proof::Token(token) => self.check(request, token).unwrap_or(AuthVerdict::Unavailable),
            _ => self.inner.authenticate(request),
        }
    }

    fn cacheable(&self) -> bool {
        self.inner.cacheable()
    }
}

/// Passes who gives a known name and no proof at all; proofs are checked where there are any.
pub struct NoPassword {
    directory: Box<dyn UserDirectory>,
    inner: Box<dyn Authenticator>,
}

impl NoPassword {
    pub fn new(directory: Box<dyn UserDirectory>, inner: Box<dyn Authenticator>) -> Self {
        Self { directory, inner }
    }

    fn find(&mut self, request: &AuthRequest) -> Result<AuthVerdict, StoreError> {
        let Some(tenant) = self.directory.tenant(&request.tenant)? else {
            return Ok(AuthVerdict::UnknownTenant);
        };
        let user = self.directory.find(tenant, &request.name)?;
        Ok(user.map_or(AuthVerdict::Denied, |user| AuthVerdict::pass(tenant, user.id)))
    }
}

impl Authenticator for NoPassword {
    fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict {
        match request.proof {
            Proof::Nothing => self.find(request).unwrap_or(AuthVerdict::Unavailable),
            _ => self.inner.authenticate(request),
        }
    }

    fn cacheable(&self) -> bool {
        self.inner.cacheable()
    }
}
