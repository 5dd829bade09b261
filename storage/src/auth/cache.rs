//! Logins that passed a short while ago, so that a reconnect storm does not pay for argon2 or the
//! user centre twice.
//!
//! Owns: keyed hashes of credentials and the ids they stood for. Never: a name or a password, nor
//! a login that was denied.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use codec::UserId;
use hashbrown::HashTable;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::request::AuthRequest;

/// The keyed hash of (tenant, role, name, password). The role belongs to it because a user centre
/// may pass a user in one role and deny him in another.
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
    user: UserId,
    expires: Instant,
}

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

    pub(crate) fn key(&self, request: &AuthRequest) -> LoginKey {
        let mut hasher = self.hasher;
        hasher.write_u32(request.tenant.0);
        hasher.write_u16(request.role.map_or(u16::MAX, u16::from));
        // With its length, so that no name can borrow bytes from its password.
        hasher.write_usize(request.name.len());
        hasher.write(&request.name);
        hasher.write(&request.password);
        let hash = hasher.finish128();
        LoginKey(hash.h1, hash.h2)
    }

    /// The user these credentials stand for, if that is known; otherwise what to hand to
    /// [`Self::insert`] with the verdict.
    pub(crate) fn lookup(&self, key: LoginKey, now: Instant) -> Result<UserId, Generation> {
        let entries = self.lock();
        let entry = entries
            .table
            .find(key.0, |&number| entries.at(number).key == key)
            .map(|&number| entries.at(number));
        match entry {
            Some(entry) if now < entry.expires => Ok(entry.user),
            _ => Err(Generation(entries.generation)),
        }
    }

    /// Remembers a pass, unless the cache was cleared while it was found out.
    pub(crate) fn insert(&self, key: LoginKey, user: UserId, asked: Generation, now: Instant) {
        let mut entries = self.lock();
        if entries.generation != asked.0 || self.len_max == 0 {
            return;
        }
        while entries.ring.front().is_some_and(|entry| entry.expires <= now)
            || entries.ring.len() >= self.len_max
        {
            entries.evict_oldest();
        }
        entries.push(Entry { key, user, expires: now + self.ttl });
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
    use codec::TenantId;

    use super::*;

    const TTL: Duration = Duration::from_secs(600);

    fn request(name: &str, password: &str) -> AuthRequest {
        AuthRequest {
            token: 0,
            tenant: TenantId(0),
            name: name.as_bytes().into(),
            password: password.as_bytes().into(),
            role: None,
            taken: false,
        }
    }

    fn pass(cache: &LoginCache, key: LoginKey, user: u32, now: Instant) {
        let asked = cache.lookup(key, now).expect_err("not there yet");
        cache.insert(key, UserId(user), asked, now);
    }

    #[test]
    fn a_login_passes_again_until_it_expires() {
        let cache = LoginCache::new(10, TTL);
        let now = Instant::now();
        let key = cache.key(&request("alice", "secret"));
        pass(&cache, key, 7, now);
        assert_eq!(cache.lookup(key, now + TTL - Duration::from_millis(1)).ok(), Some(UserId(7)));
        assert!(cache.lookup(key, now + TTL).is_err());
        pass(&cache, key, 8, now + TTL);
        assert_eq!(cache.lookup(key, now + TTL).ok(), Some(UserId(8)));
        assert_eq!(cache.len(), 1, "the expired entry went when the next one came");
    }

    #[test]
    fn every_part_of_the_credentials_counts() {
        let cache = LoginCache::new(10, TTL);
        let key = cache.key(&request("alice", "secret"));
        assert_eq!(key, cache.key(&request("alice", "secret")));
        assert_ne!(key, cache.key(&request("alices", "ecret")));
        assert_ne!(key, cache.key(&AuthRequest { role: Some(0), ..request("alice", "secret") }));
        let tenant = TenantId(1);
        assert_ne!(key, cache.key(&AuthRequest { tenant, ..request("alice", "secret") }));
        assert_ne!(key, LoginCache::new(10, TTL).key(&request("alice", "secret")), "keyed");
    }

    #[test]
    fn at_the_bound_the_oldest_is_evicted() {
        let cache = LoginCache::new(3, TTL);
        let now = Instant::now();
        let keys: Vec<_> = (0..5).map(|i| cache.key(&request(&i.to_string(), "secret"))).collect();
        for (i, &key) in keys.iter().enumerate() {
            pass(&cache, key, i as u32, now);
        }
        let held: Vec<_> = keys.iter().map(|&key| cache.lookup(key, now).ok()).collect();
        assert_eq!(held, [None, None, Some(UserId(2)), Some(UserId(3)), Some(UserId(4))]);
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn a_key_inserted_twice_outlives_its_first_entry() {
        let cache = LoginCache::new(2, TTL);
        let now = Instant::now();
        let [a, b, c] = ["a", "b", "c"].map(|name| cache.key(&request(name, "")));
        let asked = cache.lookup(a, now).expect_err("not there yet");
        cache.insert(a, UserId(1), asked, now);
        cache.insert(a, UserId(2), asked, now);
        assert_eq!(cache.lookup(a, now).ok(), Some(UserId(2)));
        pass(&cache, b, 3, now);
        assert_eq!(cache.lookup(a, now).ok(), Some(UserId(2)), "only the first entry went");
        pass(&cache, c, 4, now);
        assert!(cache.lookup(a, now).is_err());
    }

    #[test]
    fn a_verdict_from_before_a_clear_is_not_kept() {
        let cache = LoginCache::new(10, TTL);
        let now = Instant::now();
        let key = cache.key(&request("alice", "secret"));
        let asked = cache.lookup(key, now).expect_err("not there yet");
        cache.clear();
        cache.insert(key, UserId(7), asked, now);
        assert!(cache.lookup(key, now).is_err());
    }
}
