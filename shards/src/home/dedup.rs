//! The window of ids a sender has used: a resend is acknowledged again and not delivered twice.
//!
//! A ring of entries in the order of their first publish, with an index by hash. Entries are
//! 16-byte keyed hashes of (kind, target, id), so that nobody can choose colliding ids. Never:
//! decides what a duplicate gets.

use std::collections::VecDeque;

use codec::{MessageId, PublishKind};
use hashbrown::HashTable;
use siphasher::sip128::SipHasher13;

use crate::io::Now;
use crate::limits::DEDUP_MS;

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

#[derive(Debug)]
struct Entry {
    hash: IdHash,
    /// Seconds since start, of the first publish.
    at_s: u32,
    /// Request index, or one of the two marks below.
    state: u32,
}

const SAFE: u32 = u32::MAX;
/// Failed: forgotten, only keeps its place in the ring.
const FORGOTTEN: u32 = u32::MAX - 1;

/// One window.
#[derive(Debug)]
pub(crate) struct Dedup {
    ring: VecDeque<Entry>,
    /// Numbers of entries, counted from the first one ever; `first` is that of `ring[0]`.
    index: HashTable<u32>,
    first: u32,
    cap: usize,
}

impl Dedup {
    pub(crate) fn new(cap: usize) -> Self {
        Self { ring: VecDeque::new(), index: HashTable::new(), first: 0, cap }
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(crate) fn find(&self, hash: IdHash) -> Option<Seen> {
        match self.entry(hash)?.state {
            SAFE => Some(Seen::Safe),
            request => Some(Seen::Pending(request)),
        }
    }

    /// Remembers a new id as pending. At the cap the oldest is forgotten.
    pub(crate) fn insert(&mut self, hash: IdHash, request: u32, now: Now) -> Place {
        debug_assert!(request < FORGOTTEN && self.find(hash).is_none());
        if self.ring.len() >= self.cap {
            self.pop();
        }
        let number = self.first.wrapping_add(self.ring.len() as u32);
        self.ring.push_back(Entry { hash, at_s: (now.0 / 1_000_000) as u32, state: request });
        let (ring, first) = (&self.ring, self.first);
        self.index.insert_unique(hash[0], number, |&number| {
            ring[number.wrapping_sub(first) as usize].hash[0]
        });
        Place { hash, number }
    }

    /// The pending id became safe, or failed and is forgotten. Its place spares the usual case a
    /// look into the index: an entry that was just made is still in the processor's cache.
    pub(crate) fn settle(&mut self, place: Place, safe: bool) {
        let entry = self.ring.get_mut(place.number.wrapping_sub(self.first) as usize);
        let Some(entry) = entry.filter(|entry| entry.hash == place.hash) else { return };
        entry.state = if safe { SAFE } else { FORGOTTEN };
        if !safe && let Ok(found) = self.index.find_entry(place.hash[0], |&n| n == place.number) {
            found.remove();
        }
    }

    /// Drops what is older than the window; returns how many entries went.
    pub(crate) fn expire(&mut self, now: Now) -> usize {
        let before = self.ring.len();
        let oldest_s = (now.0 / 1_000).saturating_sub(DEDUP_MS) / 1_000;
        while self.ring.front().is_some_and(|entry| u64::from(entry.at_s) < oldest_s) {
            self.pop();
        }
        before - self.ring.len()
    }

    /// Drops the oldest entry.
    pub(crate) fn pop(&mut self) {
        let Some(entry) = self.ring.pop_front() else { return };
        if entry.state != FORGOTTEN {
            let first = self.first;
            if let Ok(found) = self.index.find_entry(entry.hash[0], |&number| number == first) {
                found.remove();
            }
        }
        self.first = self.first.wrapping_add(1);
    }

    fn entry(&self, hash: IdHash) -> Option<&Entry> {
        let number = self.index.find(hash[0], |&number| {
            self.ring[number.wrapping_sub(self.first) as usize].hash == hash
        })?;
        self.ring.get(number.wrapping_sub(self.first) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_safe_and_failed_ids_are_told_apart_until_they_age_out() {
        let mut window = Dedup::new(4);
        let hash = |n: u64| [n, n];
        let first = window.insert(hash(1), 10, Now(0));
        let second = window.insert(hash(2), 11, Now(0));
        assert_eq!(window.find(hash(1)), Some(Seen::Pending(10)));
        window.settle(first, true);
        window.settle(second, false);
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
