//! Several authenticators of one realm, for those who ask without the sidecar's threads.
//!
//! Owns: that each judges one login at a time, and that a pass is remembered. Never: threads, nor a
//! verdict of its own, but "unavailable" while all are at work.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::Authenticator;
use super::cache::LoginCache;
use crate::request::{AuthRequest, AuthVerdict};

/// Shared by all who ask.
pub struct Judges {
    each: Box<[Mutex<Box<dyn Authenticator>>]>,
    passed: LoginCache,
}

impl Judges {
    /// Remembers at most `len_max` logins, each for `ttl`.
    ///
    /// # Panics
    /// If the operating system has no randomness.
    pub fn new(judges: Vec<Box<dyn Authenticator>>, len_max: usize, ttl: Duration) -> Self {
        let each = judges.into_iter().map(Mutex::new).collect();
        Self { each, passed: LoginCache::new(len_max, ttl) }
    }

    /// Logins judged at once.
    pub fn count(&self) -> usize {
        self.each.len()
    }

    /// The verdict about a login that passed a short while ago; costs next to nothing.
    pub fn known(&self, request: &AuthRequest) -> Option<AuthVerdict> {
        let (user, name) = self.passed.lookup(self.passed.key(request)?, Instant::now()).ok()?;
        Some(AuthVerdict::Pass { user, name })
    }

    /// Blocks as long as the authenticator does.
    pub fn authenticate(&self, request: &AuthRequest) -> AuthVerdict {
        // Meanwhile it may have passed, as with many logins of one user at once.
        if let Some(verdict) = self.known(request) {
            return verdict;
        }
        let Some(mut judge) = self.each.iter().find_map(idle) else {
            return AuthVerdict::Unavailable;
        };
        let verdict = judge.authenticate(request);
        if judge.cacheable() {
            self.remember(request, &verdict);
        }
        verdict
    }

    fn remember(&self, request: &AuthRequest, verdict: &AuthVerdict) {
        let (Some(key), now) = (self.passed.key(request), Instant::now()) else { return };
        if let AuthVerdict::Pass { user, name } = verdict
            && let Err(generation) = self.passed.lookup(key, now)
        {
            self.passed.insert(key, (*user, name.clone()), generation, now);
        }
    }
}

fn idle(judge: &Mutex<Box<dyn Authenticator>>) -> Option<MutexGuard<'_, Box<dyn Authenticator>>> {
    match judge.try_lock() {
        Ok(judge) => Some(judge),
        // It keeps nothing of a login that could be left half done.
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use codec::{TenantId, UserId, UserKey};

    use super::*;
    use crate::request::{Proof, TenantRef};

    #[test]
    fn each_judges_one_at_a_time_and_who_passed_is_not_judged_again() {
        let (met, asked) = (Arc::new(Barrier::new(3)), Arc::new(AtomicUsize::new(0)));
        let judge = || -> Box<dyn Authenticator> {
            Box::new(Slow { met: Arc::clone(&met), asked: Arc::clone(&asked) })
        };
        let judges = Judges::new(vec![judge(), judge()], 10, Duration::from_secs(600));
        std::thread::scope(|threads| {
            for (name, secret) in [("ann", "right"), ("ben", "wrong")] {
                let request = request(name, secret);
                let (judges, expected) = (&judges, verdict_of(&request));
                threads.spawn(move || assert_eq!(judges.authenticate(&request), expected));
            }
            // Both are at work.
            met.wait();
            let third = request("cat", "right");
            assert_eq!(judges.authenticate(&third), AuthVerdict::Unavailable);
            met.wait();
        });
        let (right, wrong) = (request("ann", "right"), request("ben", "wrong"));
        assert_eq!(judges.known(&right), Some(verdict_of(&right)));
        assert_eq!(judges.authenticate(&right), verdict_of(&right));
        assert_eq!(asked.load(Ordering::SeqCst), 2, "he was known");
        assert_eq!(judges.known(&wrong), None);
        assert_eq!(judges.known(&request("ann", "wrong")), None);
    }

    /// At work until the test says so.
    struct Slow {
        met: Arc<Barrier>,
        asked: Arc<AtomicUsize>,
    }

    impl Authenticator for Slow {
        fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.met.wait();
            self.met.wait();
            verdict_of(request)
        }
    }

    fn verdict_of(request: &AuthRequest) -> AuthVerdict {
        let user = UserKey { tenant: TenantId(1), id: UserId(7) };
        match request.proof.secret() {
            b"right" => AuthVerdict::Pass { user, name: None },
            _ => AuthVerdict::Denied,
        }
    }

    fn request(name: &str, secret: &str) -> AuthRequest {
        AuthRequest {
            token: 0,
            realm: 0,
            tenant: TenantRef::Id(TenantId(1)),
            name: name.as_bytes().into(),
            proof: Proof::Password(secret.as_bytes().into()),
            device: Box::default(),
            role: None,
            taken: false,
        }
    }
}
