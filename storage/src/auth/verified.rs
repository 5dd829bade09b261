//! Passwords that were verified a short while ago, so that a storm of logins does not pay for
//! argon2 twice.
//!
//! Owns: keyed hashes of a password together with the hash that it was verified against. Never: a
//! password, nor one that was wrong. That a password makes a hash stays true: who reads the hash
//! from the store and asks here notices a changed password at once, so nothing is ever cleared.

use std::time::{Duration, Instant};

use super::cache::{LoginCache, LoginKey};
use super::local::decoy;
use super::{hash_password, verify_password};

/// Shared by all who verify.
pub struct Verified(LoginCache<()>);

impl Verified {
    /// Remembers at most `len_max` passwords, each for `ttl`.
    ///
    /// # Panics
    /// If the operating system has no randomness.
    pub fn new(len_max: usize, ttl: Duration) -> Self {
        // Made now, so that the first unknown user is not slower than the next.
        decoy();
        Self(LoginCache::new(len_max, ttl))
    }

    /// Whether `password` was verified against `hash` lately; costs next to nothing.
    pub fn contains(&self, password: &[u8], hash: &str) -> bool {
        self.0.lookup(self.key(password, hash), Instant::now()).is_ok()
    }

    /// As [`verify_password`], and at its cost unless it is known to be right by now, as with many
    /// logins of one user at once; remembers what was right.
    pub fn verify(&self, password: &[u8], hash: Option<&str>) -> bool {
        if hash.is_some_and(|hash| self.contains(password, hash)) {
            return true;
        }
        let right = verify_password(password, hash);
        if let (true, Some(hash)) = (right, hash) {
            self.remember(password, hash);
        }
        right
    }

    /// As [`hash_password`], and at its cost; remembers it.
    ///
    /// # Panics
    /// If the operating system has no randomness.
    pub fn hash(&self, password: &[u8]) -> String {
        let hash = hash_password(password);
        self.remember(password, &hash);
        hash
    }

    fn remember(&self, password: &[u8], hash: &str) {
        let (key, now) = (self.key(password, hash), Instant::now());
        if let Err(generation) = self.0.lookup(key, now) {
            self.0.insert(key, (), generation, now);
        }
    }

    fn key(&self, password: &[u8], hash: &str) -> LoginKey {
        self.0.key_of(&[password, hash.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(600);

    #[test]
    fn only_what_was_right_is_remembered_and_only_for_its_hash() {
        let verified = Verified::new(10, TTL);
        let [one, two] = [hash_password(b"secret"), hash_password(b"secret")];
        assert!(!verified.contains(b"secret", &one));
        assert!(!verified.verify(b"wrong", Some(&one)) && !verified.verify(b"wrong", None));
        assert!(!verified.contains(b"wrong", &one) && !verified.contains(b"wrong", ""));
        assert!(verified.verify(b"secret", Some(&one)));
        assert!(verified.contains(b"secret", &one));
        assert!(!verified.contains(b"secret", &two), "the password was set again");
        assert!(!verified.contains(b"secre", &format!("t{one}")), "no bytes are borrowed");
    }

    #[test]
    fn a_hash_of_our_own_is_known_and_what_may_not_be_remembered_is_not() {
        let verified = Verified::new(10, TTL);
        let hash = verified.hash(b"secret");
        assert!(verify_password(b"secret", Some(&hash)) && verified.contains(b"secret", &hash));
        for verified in [Verified::new(0, TTL), Verified::new(10, Duration::ZERO)] {
            let hash = verified.hash(b"secret");
            assert!(
                verified.verify(b"secret", Some(&hash)) && !verified.contains(b"secret", &hash)
            );
        }
    }
}
