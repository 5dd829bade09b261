//! What makes the load honest: every payload names its sender, addressee, place and time, and every
//! byte of it is checked where it arrives.
//!
//! ```text
//!    0    4     8    12       16        18      20       28        36
//!    | run | from | to | length | slot | (zero) | sequence | sent ns | keystream of all before ...
//! ```
//!
//! Owns: the payload layout, the per-stream order check, the tally. Never: sockets, protocols.

use serde::{Deserialize, Serialize};
use std::ops::Add;

/// Shortest payload that still carries a word of keystream.
pub(crate) const MIN_PAYLOAD: usize = HEADER + 8;

const HEADER: usize = 36;

/// The head of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Tells this run's messages from those an earlier run left in a store.
    pub run: u32,
    /// The sending user.
    pub from: u32,
    /// The addressed user or group.
    pub to: u32,
    /// The sender's in-flight slot.
    pub slot: u16,
    /// Counts the sender's messages from 0.
    pub seq: u64,
    /// Nanoseconds on the run's clock.
    pub sent_ns: u64,
}

impl Stamp {
    /// Writes the head and the keystream over the whole of `payload` (at least [`MIN_PAYLOAD`]).
    pub(crate) fn write(&self, payload: &mut [u8]) {
        let length = payload.len() as u32;
        let (head, body) = payload.split_at_mut(HEADER);
        head[0..4].copy_from_slice(&self.run.to_le_bytes());
        head[4..8].copy_from_slice(&self.from.to_le_bytes());
        head[8..12].copy_from_slice(&self.to.to_le_bytes());
        head[12..16].copy_from_slice(&length.to_le_bytes());
        head[16..18].copy_from_slice(&self.slot.to_le_bytes());
        head[18..20].fill(0);
        head[20..28].copy_from_slice(&self.seq.to_le_bytes());
        head[28..36].copy_from_slice(&self.sent_ns.to_le_bytes());
        let mut key = self.key(length);
        for chunk in body.chunks_mut(8) {
            key = mix(key);
            chunk.copy_from_slice(&key.to_le_bytes()[..chunk.len()]);
        }
    }

    /// The stamp of a payload, or `None` if any byte of it is not as [`Stamp::write`] left it.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        if payload.len() < MIN_PAYLOAD {
            return None;
        }
        let (head, body) = payload.split_at(HEADER);
        let u32_at = |at: usize| head[at..].first_chunk().map(|b| u32::from_le_bytes(*b));
        let u64_at = |at: usize| head[at..].first_chunk().map(|b| u64::from_le_bytes(*b));
        let stamp = Self {
            run: u32_at(0)?,
            from: u32_at(4)?,
            to: u32_at(8)?,
            slot: u16::from_le_bytes([head[16], head[17]]),
            seq: u64_at(20)?,
            sent_ns: u64_at(28)?,
        };
        let length = u32_at(12)?;
        let mut key = stamp.key(length);
        let mut wrong = u64::from(length != payload.len() as u32) | u64::from(head[18] | head[19]);
        let (words, rest) = body.as_chunks::<8>();
        for word in words {
            key = mix(key);
            wrong |= key ^ u64::from_le_bytes(*word);
        }
        key = mix(key);
        let rest_is_right = rest == &key.to_le_bytes()[..rest.len()];
        (wrong == 0 && rest_is_right).then_some(stamp)
    }

    fn key(&self, length: u32) -> u64 {
        let mut key = mix(u64::from(self.run) << 32 | u64::from(self.from));
        key = mix(key ^ (u64::from(self.to) << 32 | u64::from(length)));
        key = mix(key ^ self.seq ^ u64::from(self.slot) << 48);
        mix(key ^ self.sent_ns)
    }
}

/// A bijective scramble of 64 bits: a changed input always changes the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    value ^ (value >> 29)
}

/// What was counted. A run is good only if nothing but the first three fields is above zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,
    /// Never arrived though the run waited for it.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after a later one of the same sender.
    pub reordered: u64,
    /// Arrived at somebody else, or from somebody unexpected.
    pub misdelivered: u64,
    /// Bytes changed on the way, or the message id was not the payload's.
    pub corrupted: u64,
    /// An acknowledgement for nothing that was outstanding.
    pub bad_acks: u64,
    /// The server never acknowledged it though the run waited.
    pub unacked: u64,
    /// Whole messages of an earlier run (at-least-once delivery makes them legitimate): not
    /// counted against this one.
    pub stale: u64,
    /// Scheduled and not sent, because the ones before were still under way: load that the server
    /// was spared. Not counted against it.
    #[serde(default)]
    pub unsent: u64,
}

impl Tally {
    /// The counters that fail a run, by name.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("misdelivered", self.misdelivered),
            ("corrupted", self.corrupted),
            ("acknowledged without need", self.bad_acks),
            ("never acknowledged", self.unacked),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            acked: self.acked + other.acked,
            delivered: self.delivered + other.delivered,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            misdelivered: self.misdelivered + other.misdelivered,
            corrupted: self.corrupted + other.corrupted,
            bad_acks: self.bad_acks + other.bad_acks,
            unacked: self.unacked + other.unacked,
            stale: self.stale + other.stale,
            unsent: self.unsent + other.unsent,
        }
    }
}

/// One sender as one receiver sees him: the order check.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The sequence number expected next.
    next: u64,
    /// Skipped numbers, ascending, at most [`MAX_HOLES`].
    holes: Vec<u64>,
    /// Skipped numbers that found no room above.
    overflow: u64,
}

/// Bounds the memory of a stream whose messages get lost; the run has failed long before.
const MAX_HOLES: usize = 4096;

impl Stream {
    /// Notes the arrival of `seq`. True if it came for the first time.
    pub(crate) fn arrived(&mut self, seq: u64, tally: &mut Tally) -> bool {
        tally.delivered += 1;
        if seq == self.next {
            self.next += 1;
        } else if seq > self.next {
            let room = (MAX_HOLES - self.holes.len()) as u64;
            let kept = room.min(seq - self.next);
            self.holes.extend(self.next..self.next + kept);
            self.overflow += seq - self.next - kept;
            self.next = seq + 1;
        } else if let Ok(hole) = self.holes.binary_search(&seq) {
            self.holes.remove(hole);
            tally.reordered += 1;
        } else {
            tally.duplicated += 1;
            return false;
        }
        true
    }

    /// How many of the `sent` messages have not arrived.
    pub(crate) fn missing(&self, sent: u64) -> u64 {
        self.holes.len() as u64 + self.overflow + sent.saturating_sub(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { run: 7, from: 1, to: 2, slot: 3, seq: 4, sent_ns: 5 }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        // Flip each byte of payloads of several lengths; none may read back.
        for length in [MIN_PAYLOAD, MIN_PAYLOAD + 1, 100, 1000] {
            let mut payload = vec![0; length];
            stamp().write(&mut payload);
            assert_eq!(Stamp::read(&payload), Some(stamp()));
            for at in 0..length {
                payload[at] ^= 0x10;
                assert_eq!(Stamp::read(&payload), None, "byte {at} of {length}");
                payload[at] ^= 0x10;
            }
            assert_eq!(Stamp::read(&payload[..length - 1]), None);
        }
    }

    #[test]
    fn loss_duplication_and_reordering_are_told_apart() {
        let mut tally = Tally::default();
        let mut stream = Stream::default();
        for seq in [0, 1, 4, 2, 4, 1, 5] {
            stream.arrived(seq, &mut tally);
        }
        assert_eq!((tally.delivered, tally.reordered, tally.duplicated), (7, 1, 2));
        assert_eq!(stream.missing(6), 1, "only 3 is missing of 0..6");
        assert_eq!(stream.missing(8), 3, "6 and 7 too of 0..8");
    }

    #[test]
    fn a_gap_beyond_the_bound_is_still_counted() {
        let mut tally = Tally::default();
        let mut stream = Stream::default();
        stream.arrived(1_000_000, &mut tally);
        assert_eq!(stream.missing(1_000_001), 1_000_000);
        assert!(stream.holes.len() <= MAX_HOLES);
    }
}
