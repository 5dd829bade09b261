//! A login with number and password, in steps, of which only the short ones need the accounts.
//!
//! ```text
//!   enter   at the accounts   is the password known to be right for the user's hash? Then he is in
//!   check   beside them       if not: verified against that hash, at the cost of argon2
//!   enter   at the accounts   in, if the hash is still that one
//! ```
//!
//! Owns: these steps. Never: who runs them, nor how often.

use std::sync::Arc;

use super::{Account, Accounts, Credentials};
use crate::auth::Verified;
use crate::request::StoreError;

/// A login under way.
pub struct PhoneLogin {
    verified: Arc<Verified>,
    phone: Box<[u8]>,
    password: Box<[u8]>,
    /// Of the last [`Self::enter`].
    found: Option<Credentials>,
    proven: Option<Proven>,
}

/// A hash that the password is right for.
struct Proven {
    hash: String,
    /// A better one, where the store wants it.
    better: Option<String>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    WrongPassword,
    UnknownPhone,
}

impl PhoneLogin {
    pub fn new(verified: Arc<Verified>, phone: &[u8], password: &[u8]) -> Self {
        let (phone, password) = (phone.into(), password.into());
        Self { verified, phone, password, found: None, proven: None }
    }

    /// The user, if his password is known to be right. `None`: [`Self::check`] it first; again,
    /// where the user's hash became another one meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn enter(&mut self, accounts: &mut dyn Accounts) -> Result<Option<Account>, StoreError> {
        self.found = accounts.credentials(&self.phone)?;
        let Some(Credentials { account, password_hash: hash, .. }) = &self.found else {
            return Ok(None);
        };
        let proven = self.proven.take().filter(|proven| proven.hash == *hash);
        if proven.is_none() && !self.verified.contains(&self.password, hash) {
            return Ok(None);
        }
        if let Some(better) = proven.and_then(|proven| proven.better) {
            // He is let in whether or not it is kept.
            let _ = accounts.upgrade_hash(account.id, hash, &better);
        }
        Ok(Some(account.clone()))
    }

    /// Verifies the password against what [`Self::enter`] found; costs the same for an unknown
    /// number as for a wrong password. `None`: it is right, enter.
    pub fn check(&mut self) -> Option<Refusal> {
        let hash = self.found.as_ref().map(|found| &*found.password_hash);
        let right = self.verified.verify(&self.password, hash);
        let Some(found) = &self.found else { return Some(Refusal::UnknownPhone) };
        if !right {
            return Some(Refusal::WrongPassword);
        }
        let better = found.outdated.then(|| self.verified.hash(&self.password));
        self.proven = Some(Proven { hash: found.password_hash.clone(), better });
        None
    }
}
