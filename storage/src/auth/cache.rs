//! Logins that passed a short while ago, so that a reconnect storm does not pay for argon2 or the
//! user centre twice.
//!
//! Owns: keyed hashes of credentials and the users they stood for. Never: a secret, nor a login
//! that was denied or that a token passed.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use codec::UserKey;
use hashbrown::HashTable;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::request::{AuthRequest, Proof, TenantRef};

/// The keyed hash of all that a login says. The role belongs to it because a user centre may pass a
/// user in one role and deny him in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoginKey(u64, u64);

/// Shared by the login threads. All entries live equally long, so the oldest is the next to expire
/// and the first to be evicted: a ring of entries, and a hash table of their numbers over it.
pub(crate) struct LoginCache {
    hasher: SipHasher24,
    len_max: usize,
    ttl: Duration,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    ring: VecDeque<Entry>,
    /// The number of the ring's first entry; numbers wrap.
    first: u32,
    table: HashTable<u32>,
    /// Raised by every [`LoginCache::clear`].
    generation: u64,
}

struct Entry {
    key: LoginKey,
    login: CachedLogin,
    expires: Instant,
}

/// What [`crate::AuthVerdict::Pass`] says.
pub(crate) type CachedLogin = (UserKey, Option<Arc<[u8]>>);

/// What the cache knows at the start of a login; a pass found out before a `clear` is not kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generation(u64);

impl LoginCache {
    /// At most `len_max` logins, each for `ttl`.
    ///
    /// # Panics
    /// If the operating system has no randomness.
    pub(crate) fn new(len_max: usize, ttl: Duration) -> Self {
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("the operating system has randomness");
        let hasher = SipHasher24::new_with_key(&key);
        let len_max = len_max.min(u32::MAX as usize / 2);
        Self { hasher, len_max, ttl, entries: Mutex::default() }
    }

    /// `None`: such a login is not remembered.
    pub(crate) fn key(&self, request: &AuthRequest) -> Option<LoginKey> {
        let kind = match request.proof {
            Proof::Token(_) => return None,
            Proof::Password(_) => 0,
            Proof::Phone(_) => 1,
            Proof::Nothing => 2,
        };
        let mut hasher = self.hasher;
        // With lengths, so that nothing can borrow bytes from what follows.
        let mut write = |bytes: &[u8]| {
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        };
        match &request.tenant {
            TenantRef::Id(id) => write(&id.0.to_le_bytes()),
            TenantRef::Named { org, appkey } => {
                write(org);
                write(appkey);
            }
        }
        write(&request.name);
        write(request.proof.secret());
        hasher.write_u16(request.realm);
        hasher.write_u16(request.role.map_or(u16::MAX, u16::from));
        hasher.write_u8(kind);
        hasher.write_u8(u8::from(matches!(request.tenant, TenantRef::Named { .. })));
        let hash = hasher.finish128();
        Some(LoginKey(hash.h1, hash.h2))
    }

    /// The user these credentials stand for, if that is known; otherwise what to hand to
    /// [`Self::insert`] with the verdict.
    pub(crate) fn lookup(&self, key: LoginKey, now: Instant) -> Result<CachedLogin, Generation> {
        let entries = self.lock();
        let entry = entries
            .table
            .find(key.0, |&number| entries.at(number).key == key)
            .map(|&number| entries.at(number));
        match entry {
            Some(entry) if now < entry.expires => Ok(entry.login.clone()),
            _ => Err(Generation(entries.generation)),
        }
    }

    /// Remembers a pass, unless the cache was cleared while it was found out.
    pub(crate) fn insert(
        &self,
        key: LoginKey,
        login: CachedLogin,
        asked: Generation,
        now: Instant,
    ) {
        let mut entries = self.lock();
        if entries.generation != asked.0 || self.len_max == 0 {
            return;
        }
        while entries.ring.front().is_some_and(|entry| entry.expires <= now)
            || entries.ring.len() >= self.len_max
        {
            entries.evict_oldest();
        }
        entries.push(Entry { key, login, expires: now + self.ttl });
    }

    /// Forgets everything: users or passwords changed.
    pub(crate) fn clear(&self) {
        let mut entries = self.lock();
        let generation = entries.generation + 1;
        *entries = Entries { generation, ..Entries::default() };
    }

    /// Entries held, expired ones included.
    pub(crate) fn len(&self) -> usize {
        self.lock().ring.len()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn at(&self, number: u32) -> &Entry {
        &self.ring[number.wrapping_sub(self.first) as usize]
    }

    fn push(&mut self, entry: Entry) {
        let Self { ring, first, table, .. } = self;
        let number = first.wrapping_add(ring.len() as u32);
        let key = entry.key;
        ring.push_back(entry);
        let at = |number: u32| &ring[number.wrapping_sub(*first) as usize];
        // An older entry of the key stays in the ring, found by nobody, until it is evicted.
        let same = table.entry(key.0, |&other| at(other).key == key, |&other| at(other).key.0);
        same.and_modify(|other| *other = number).or_insert(number);
    }

    fn evict_oldest(&mut self) {
        let Some(entry) = self.ring.front() else { return };
        let first = self.first;
        if let Ok(found) = self.table.find_entry(entry.key.0, |&number| number == first) {
            found.remove();
        }
        self.ring.pop_front();
        self.first = first.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use codec::{TenantId, UserId};

    use super::*;

    const TTL: Duration = Duration::from_secs(600);

    fn request(name: &str, password: &str) -> AuthRequest {
        AuthRequest {
            token: 0,
            realm: 0,
            tenant: TenantRef::Id(TenantId(0)),
            name: name.as_bytes().into(),
            proof: Proof::Password(password.as_bytes().into()),
            device: Box::default(),
            role: None,
            taken: false,
        }
    }

    fn login(id: u32) -> CachedLogin {
        (UserKey { tenant: TenantId(0), id: UserId(id) }, Some(Arc::from(&b"alice"[..])))
    }

    fn key(cache: &LoginCache, request: &AuthRequest) -> LoginKey {
        cache.key(request).expect("no token")
    }

    fn pass(cache: &LoginCache, key: LoginKey, user: u32, now: Instant) {
        let asked = cache.lookup(key, now).expect_err("not there yet");
        cache.insert(key, login(user), asked, now);
    }

    #[test]
    fn a_login_passes_again_until_it_expires() {
        let cache = LoginCache::new(10, TTL);
        let now = Instant::now();
        let key = key(&cache, &request("alice", "secret"));
        pass(&cache, key, 7, now);
        assert_eq!(cache.lookup(key, now + TTL - Duration::from_millis(1)).ok(), Some(login(7)));
        assert!(cache.lookup(key, now + TTL).is_err());
        pass(&cache, key, 8, now + TTL);
        assert_eq!(cache.lookup(key, now + TTL).ok(), Some(login(8)));
        assert_eq!(cache.len(), 1, "the expired entry went when the next one came");
    }

    #[test]
    fn every_part_of_the_credentials_counts() {
        let cache = LoginCache::new(10, TTL);
        let base = || request("alice", "secret");
        let key = cache.key(&base());
        assert_eq!(key, cache.key(&base()));
        let proof = || Box::from(*b"secret");
        let named = |org: &[u8], appkey: &[u8]| {
            let tenant = TenantRef::Named { org: org.into(), appkey: appkey.into() };
            AuthRequest { tenant, ..base() }
        };
        let others = [
            base(),
            request("alices", "ecret"),
            AuthRequest { role: Some(0), ..base() },
            AuthRequest { realm: 1, ..base() },
            AuthRequest { tenant: TenantRef::Id(TenantId(1)), ..base() },
            AuthRequest { proof: Proof::Phone(proof()), ..base() },
            AuthRequest { proof: Proof::Password(Box::default()), ..base() },
            AuthRequest { proof: Proof::Nothing, ..base() },
            named(b"ab", b"c"),
            named(b"a", b"bc"),
        ];
        let keys: Vec<_> = others.iter().map(|other| cache.key(other).unwrap()).collect();
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key), "{place}");
        }
        assert_ne!(key, LoginCache::new(10, TTL).key(&base()), "keyed");
        assert!(cache.key(&AuthRequest { proof: Proof::Token(proof()), ..base() }).is_none());
    }

    #[test]
    fn at_the_bound_the_oldest_is_evicted() {
        let cache = LoginCache::new(3, TTL);
        let now = Instant::now();
        let keys: Vec<_> =
            (0..5).map(|i| key(&cache, &request(&i.to_string(), "secret"))).collect();
        for (i, &key) in keys.iter().enumerate() {
            pass(&cache, key, i as u32, now);
        }
        let held: Vec<_> = keys.iter().map(|&key| cache.lookup(key, now).ok()).collect();
        assert_eq!(held, [None, None, Some(login(2)), Some(login(3)), Some(login(4))]);
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn a_key_inserted_twice_outlives_its_first_entry() {
        let cache = LoginCache::new(2, TTL);
        let now = Instant::now();
        let [a, b, c] = ["a", "b", "c"].map(|name| key(&cache, &request(name, "")));
        let asked = cache.lookup(a, now).expect_err("not there yet");
        cache.insert(a, login(1), asked, now);
        cache.insert(a, login(2), asked, now);
        assert_eq!(cache.lookup(a, now).ok(), Some(login(2)));
        pass(&cache, b, 3, now);
        assert_eq!(cache.lookup(a, now).ok(), Some(login(2)), "only the first entry went");
        pass(&cache, c, 4, now);
        assert!(cache.lookup(a, now).is_err());
    }

    #[test]
    fn a_verdict_from_before_a_clear_is_not_kept() {
        let cache = LoginCache::new(10, TTL);
        let now = Instant::now();
        let key = key(&cache, &request("alice", "secret"));
        let asked = cache.lookup(key, now).expect_err("not there yet");
        cache.clear();
        cache.insert(key, login(7), asked, now);
        assert!(cache.lookup(key, now).is_err());
    }
}
