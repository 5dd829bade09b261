//! The window of ids a sender has used: a resend is acknowledged again and not delivered twice.
//!
//! Entries are 16-byte keyed hashes of (kind, target, id), so that nobody can choose colliding
//! ids. Never: decides what a duplicate gets.
//!
//! ```text
//!   ring, oldest first        [ e 40 | e 41 | e 42 | e 43 | e 44 ]    numbers: 40 is `first`
//!   heads, one per bucket     41 ---------^-----------------^         the newest of each bucket,
//!                             44 --> 44 is 3 younger than 41          and so on to older ones
//! ```
//!
//! Windows of many senders are in no cache, so what counts is how many lines an id touches: its
//! bucket's head, now and then an entry that shares the bucket, and the end of the ring. What is
//! forgotten is not looked at: a number before `first` ends a chain.

use std::collections::VecDeque;

use codec::{MessageId, PublishKind, Receipt};
use siphasher::sip128::SipHasher13;

use crate::home::outcome::Outcome;
use crate::io::{Now, sys};
use crate::limits::{DEDUP_DOOR_IDS, DEDUP_IDS, DEDUP_MS};

/// The keyed hash of (kind, target, id).
pub(crate) type IdHash = [u64; 2];

/// Hashes ids under the process's random key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdHasher(SipHasher13);

impl IdHasher {
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self(SipHasher13::new_with_keys(key[0], key[1]))
    }

    pub(crate) fn hash(&self, kind: PublishKind, target: u32, id: &MessageId) -> IdHash {
        let mut bytes = [0; 5 + MessageId::MAX];
        bytes[0] = kind as u8;
        bytes[1..5].copy_from_slice(&target.to_le_bytes());
        let id = id.as_bytes();
        bytes[5..5 + id.len()].copy_from_slice(id);
        let hash = self.0.hash(&bytes[..5 + id.len()]);
        [hash.h1, hash.h2]
    }

    /// Another keyed hash of the same id for one sender, for tables that span senders.
    pub(crate) fn with_sender(&self, hash: IdHash, sender: u64) -> IdHash {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&hash[0].to_le_bytes());
        bytes[8..16].copy_from_slice(&hash[1].to_le_bytes());
        bytes[16..].copy_from_slice(&sender.to_le_bytes());
        let hash = self.0.hash(&bytes);
        [hash.h1, hash.h2]
    }
}

/// Where an id stands in its window, for [`Dedup::settle`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    hash: IdHash,
    number: u32,
}

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// On its way; the number is the owner's index of the request.
    Pending(u32),
    /// Safe: acknowledge.
    Safe,
}

/// Two of them in a cache line.
#[derive(Debug)]
struct Entry {
    hash: IdHash,
    /// Seconds since start, of the first publish.
    at_s: u32,
    /// Request index, or one of the two marks below.
    state: u32,
    /// How many entries older the bucket's next one is. Only the low half of the number: 0, or one
    /// that wrapped, stands for an entry that has left the window, behind which all others have.
    older_by: u16,
}

const SAFE: u32 = u32::MAX;
/// Failed: forgotten, only keeps its place in the ring.
const FORGOTTEN: u32 = u32::MAX - 1;

/// One window.
#[derive(Debug)]
pub(crate) struct Dedup {
    ring: VecDeque<Entry>,
    /// By the low bits of the hash: the low half of the number of the bucket's newest entry. One
    /// that is out of the window, or wrapped into it, leads to no entry of the bucket.
    heads: Box<[u16]>,
    /// Number of `ring[0]`, counted from the first entry ever.
    first: u32,
    cap: u32,
    /// No entry is older, so that the oldest need not be looked at.
    oldest_s: u32,
    /// By the entries' numbers, ascending: what was said of those of which a protocol says
    /// something. Not in the entries, which most protocols keep without.
    receipts: VecDeque<Said>,
}

/// A receipt in half its size: the upper half of a stamp is the process's own.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// The entry's.
    number: u32,
    stored: bool,
    stamp_low: u64,
    time_ms: u64,
}

impl Dedup {
    /// `cap`: ids remembered, at most [`DEDUP_CAP_MAX`].
    pub(crate) fn new(cap: usize) -> Self {
        assert!(cap <= DEDUP_CAP_MAX, "live entries are told apart by half a number");
        let (ring, heads) = (VecDeque::new(), Box::default());
        let receipts = VecDeque::new();
        Self { ring, heads, first: 0, cap: cap as u32, oldest_s: 0, receipts }
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(crate) fn find(&self, hash: IdHash) -> Option<Seen> {
        // The newest entry of the hash decides: a new one is made only when the one before failed.
        match self.ring[self.position(hash)?].state {
            SAFE => Some(Seen::Safe),
            FORGOTTEN => None,
            request => Some(Seen::Pending(request)),
        }
    }

    /// Asks the processor for what a look at this id touches first.
    pub(crate) fn fetch(&self, hash: IdHash) {
        if !self.heads.is_empty() {
            sys::prefetch(&self.heads[self.bucket(hash)]);
        }
    }

    /// Remembers a new id as pending. At the cap the oldest is forgotten.
    pub(crate) fn insert(&mut self, hash: IdHash, request: u32, now: Now) -> Place {
        debug_assert!(request < FORGOTTEN && self.find(hash).is_none());
        if self.ring.len() >= self.cap as usize {
            self.pop();
        }
        let at_s = (now.0 / 1_000_000) as u32;
        if self.ring.is_empty() {
            self.oldest_s = at_s;
        }
        let position = self.ring.len();
        self.ring.push_back(Entry { hash, at_s, state: request, older_by: 0 });
        if self.ring.len() * HEADS_PER_ENTRY > self.heads.len() {
            self.grow_heads();
        } else {
            self.link(position);
        }
        Place { hash, number: self.first.wrapping_add(position as u32) }
    }

    /// The pending id became safe, or failed and is forgotten. Its place spares the usual case a
    /// look into the index: an entry that was just made is still in the processor's cache.
    pub(crate) fn settle(&mut self, place: Place, outcome: Outcome) {
        let entry = self.ring.get_mut(place.number.wrapping_sub(self.first) as usize);
        let Some(entry) = entry.filter(|entry| entry.hash == place.hash) else { return };
        entry.state = if outcome.is_safe() { SAFE } else { FORGOTTEN };
        if outcome == Outcome::Stored
            && let Ok(position) = self.receipt_at(place.number)
        {
            self.receipts[position].stored = true;
        }
    }

    /// Of the entry that was inserted last: what every answer to its id says.
    pub(crate) fn keep_receipt(&mut self, place: Place, receipt: Receipt) {
        let Receipt { stamp, time_ms, stored } = receipt;
        let number = place.number;
        self.receipts.push_back(Said { number, stored, stamp_low: stamp as u64, time_ms });
    }

    /// What [`Self::keep_receipt`] was told of the newest entry of this hash. `boot`: the upper
    /// half of every stamp.
    pub(crate) fn receipt(&self, hash: IdHash, boot: u64) -> Option<Receipt> {
        let number = self.first.wrapping_add(self.position(hash)? as u32);
        let Said { stored, stamp_low, time_ms, .. } =
            self.receipts[self.receipt_at(number).ok()?];
        let stamp = u128::from(boot) << 64 | u128::from(stamp_low);
        Some(Receipt { stamp, time_ms, stored })
    }

    fn receipt_at(&self, number: u32) -> Result<usize, usize> {
        let age = |number: u32| number.wrapping_sub(self.first);
        self.receipts.binary_search_by_key(&age(number), |said| age(said.number))
    }

    /// Drops what is older than the window; returns how many entries went.
    pub(crate) fn expire(&mut self, now: Now) -> usize {
        let oldest_s = (now.0 / 1_000).saturating_sub(DEDUP_MS) / 1_000;
        if u64::from(self.oldest_s) >= oldest_s {
            return 0;
        }
        let before = self.ring.len();
        while self.ring.front().is_some_and(|entry| u64::from(entry.at_s) < oldest_s) {
            self.pop();
        }
        self.oldest_s = self.ring.front().map_or(self.oldest_s, |entry| entry.at_s);
        if self.ring.len() < self.ring.capacity() / 8 {
            // A busy time is over.
            self.ring.shrink_to(self.ring.len() * 2);
            self.receipts.shrink_to(self.receipts.len() * 2);
            self.index((self.ring.len() * 2 * HEADS_PER_ENTRY).next_power_of_two());
        }
        before - self.ring.len()
    }

    /// Drops the oldest entry.
    pub(crate) fn pop(&mut self) {
        if self.ring.pop_front().is_some() {
            self.receipts.pop_front_if(|said| said.number == self.first);
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Where the newest entry of this hash stands in the ring.
    fn position(&self, hash: IdHash) -> Option<usize> {
        let last = self.ring.len().checked_sub(1)?;
        let newest = self.first.wrapping_add(last as u32) as u16;
        let mut age = usize::from(newest.wrapping_sub(self.heads[self.bucket(hash)]));
        // Ends: the age rises until it leaves the window.
        loop {
            let position = last.checked_sub(age)?;
            let entry = &self.ring[position];
            if entry.hash == hash {
                return Some(position);
            }
            if entry.older_by == 0 {
                return None;
            }
            age += usize::from(entry.older_by);
        }
    }

    /// Makes an entry the newest of its bucket.
    fn link(&mut self, position: usize) {
        let number = self.first.wrapping_add(position as u32) as u16;
        let bucket = self.bucket(self.ring[position].hash);
        let head = std::mem::replace(&mut self.heads[bucket], number);
        self.ring[position].older_by = number.wrapping_sub(head);
    }

    /// More buckets for more entries.
    fn grow_heads(&mut self) {
        self.index(self.heads.len().max(HEADS_PER_ENTRY * 2) * 2);
    }

    /// `buckets`, a power of two, with all entries linked again.
    fn index(&mut self, buckets: usize) {
        let before_all = self.first.wrapping_sub(1) as u16;
        self.heads = vec![before_all; buckets].into_boxed_slice();
        for position in 0..self.ring.len() {
            self.link(position);
        }
    }

    fn bucket(&self, hash: IdHash) -> usize {
        hash[0] as usize & (self.heads.len() - 1)
    }
}

/// The largest window: ages in it are told apart by sixteen bits.
const DEDUP_CAP_MAX: usize = 1 << 16;
const _: () = assert!(DEDUP_IDS <= DEDUP_CAP_MAX && DEDUP_DOOR_IDS <= DEDUP_CAP_MAX);
/// Buckets per entry of a full window: four new ids of five meet no other entry.
const HEADS_PER_ENTRY: usize = 4;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn pending_safe_and_failed_ids_are_told_apart_until_they_age_out() {
        let mut window = Dedup::new(4);
        let hash = |n: u64| [n, n];
        let first = window.insert(hash(1), 10, Now(0));
        let second = window.insert(hash(2), 11, Now(0));
        assert_eq!(window.find(hash(1)), Some(Seen::Pending(10)));
        window.settle(first, Outcome::Safe);
        window.settle(second, Outcome::FAILED);
        assert_eq!(window.find(hash(1)), Some(Seen::Safe));
        assert_eq!(window.find(hash(2)), None);
        window.insert(hash(2), 12, Now(0));
        for n in 3..6 {
            window.insert(hash(n), n as u32, Now::default().plus_ms(DEDUP_MS));
        }
        assert_eq!(window.len(), 4);
        assert_eq!(window.find(hash(1)), None);
        assert_eq!(window.find(hash(2)), Some(Seen::Pending(12)));
        assert_eq!(window.expire(Now::default().plus_ms(DEDUP_MS + 2_000)), 1);
        assert_eq!(window.find(hash(2)), None);
        assert_eq!(window.find(hash(5)), Some(Seen::Pending(5)));
    }

    /// Goal: what is found is exactly what a plain list of the last ids would say, however often
    /// the halved numbers wrap. Method: new ids, resends and failures at random, against that list.
    #[test]
    fn a_window_agrees_with_a_plain_list_of_the_last_ids() {
        const BOOT: u64 = 77;
        let small = [(1, 3, 1_000), (7, 9, 5_000), (1_024, 1_500, 400_000)];
        // The largest: its numbers fill the half that is kept of them.
        let cases = small.into_iter().chain([(DEDUP_CAP_MAX, 90_000, 600_000)]);
        for (cap, ids, steps) in cases {
            let (mut window, mut list) = (Dedup::new(cap), VecDeque::new());
            // By hash: its newest place in the list, and what is known of it.
            let (mut newest, mut last) = (HashMap::new(), HashMap::new());
            let mut receipts = HashMap::new();
            let mut seed = 7_u64;
            for step in 0..steps {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let id = (seed >> 33) % ids;
                let hash = [id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40, id];
                assert_eq!(window.find(hash), last.get(&hash).copied().flatten());
                if window.find(hash).is_some() {
                    assert_eq!(window.receipt(hash, BOOT), receipts[&hash]);
                    continue;
                }
                let place = window.insert(hash, step, Now(0));
                let seen = match step % 3 {
                    0 => Some(Seen::Pending(step)),
                    outcome => (outcome == 1).then_some(Seen::Safe),
                };
                // Some are spoken of.
                let stored = step % 4 == 1;
                let stamp = u128::from(BOOT) << 64 | u128::from(step);
                let receipt = Receipt { stamp, time_ms: 9, stored: false };
                if step % 5 < 3 {
                    window.keep_receipt(place, receipt);
                }
                if step % 3 != 0 {
                    window.settle(
                        place,
                        match (seen, stored) {
                            (None, _) => Outcome::FAILED,
                            (Some(_), true) => Outcome::Stored,
                            (Some(_), false) => Outcome::Safe,
                        },
                    );
                }
                let stored = stored && seen == Some(Seen::Safe);
                receipts.insert(hash, (step % 5 < 3).then_some(Receipt { stored, ..receipt }));
                list.push_back((step, hash));
                last.insert(hash, seen);
                newest.insert(hash, step);
                if list.len() > cap
                    && let Some((old, hash)) = list.pop_front()
                    && newest.get(&hash) == Some(&old)
                {
                    last.remove(&hash);
                }
                assert_eq!(window.len(), list.len());
            }
        }
    }

    #[test]
    fn ids_of_every_age_expire_and_the_others_stay() {
        let mut window = Dedup::new(DEDUP_IDS);
        let at = |s: u64| Now(0).plus_ms(s * 1_000);
        for n in 0..100 {
            window.insert([n, n], n as u32, at(n * 10));
        }
        for s in 1_000..1_700 {
            // Whole seconds: one that is as old as the window is still in it.
            let oldest = (s - DEDUP_MS / 1_000).div_ceil(10).min(100);
            window.expire(at(s));
            assert_eq!(window.len() as u64, 100 - oldest, "at {s} s");
            assert_eq!(window.find([oldest, oldest]).is_some(), oldest < 100);
        }
        window.insert([1, 2], 0, at(2_000));
        assert_eq!((window.expire(at(2_600)), window.expire(at(2_601))), (0, 1));
    }

    #[test]
    fn a_window_gives_memory_back_and_still_knows_what_is_left() {
        let mut window = Dedup::new(DEDUP_IDS);
        let at = |s: u64| Now(0).plus_ms(s * 1_000);
        for n in 0..DEDUP_IDS as u64 {
            window.insert([n, n], n as u32, at(n));
        }
        let full = (window.ring.capacity(), window.heads.len());
        let left = 20;
        window.expire(at(DEDUP_IDS as u64 - left + DEDUP_MS / 1_000));
        assert_eq!(window.len() as u64, left);
        assert!(window.ring.capacity() < full.0 / 8 && window.heads.len() < full.1 / 8);
        for n in 0..DEDUP_IDS as u64 + 100 {
            let known = (DEDUP_IDS as u64 - left..DEDUP_IDS as u64).contains(&n);
            assert_eq!(window.find([n, n]).is_some(), known, "{n}");
            if n >= DEDUP_IDS as u64 {
                window.insert([n, n], n as u32, at(DEDUP_IDS as u64));
            }
        }
    }

    #[test]
    fn hashes_differ_by_kind_target_and_sender() {
        let hasher = IdHasher::new([1, 2]);
        let id = MessageId::new(b"x").expect("short");
        let user = hasher.hash(PublishKind::User, 7, &id);
        assert_ne!(user, hasher.hash(PublishKind::Group, 7, &id));
        assert_ne!(user, hasher.hash(PublishKind::User, 8, &id));
        assert_ne!(hasher.with_sender(user, 1), hasher.with_sender(user, 2));
    }
}
