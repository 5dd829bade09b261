//! A sender and his messages under way.
//!
//! Owns: places in flight and sequence numbers. Never: counts.

use crate::client::Target;
use std::collections::VecDeque;

/// A message under way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    seq: u64,
    sent_ns: u64,
    ack_due: bool,
    deliveries_due: u32,
}

#[derive(Debug)]
pub(super) struct Sender {
    pub(super) user: u32,
    pub(super) to: Target,
    /// When the scheduled messages that found no room were due.
    pub(super) late: VecDeque<u64>,
    next_seq: u64,
    flights: Box<[Option<Flight>]>,
    free: Vec<u16>,
}

impl Sender {
    pub(super) fn new(user: u32, to: Target, depth: u16) -> Self {
        Self {
            user,
            to,
            late: VecDeque::new(),
            next_seq: 0,
            flights: vec![None; usize::from(depth)].into_boxed_slice(),
            free: (0..depth).rev().collect(),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Messages sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.next_seq
    }

    /// Occupies a place; there is room. The place and the message's sequence number.
    pub(super) fn take_off(
        &mut self,
        sent_ns: u64,
        ack_due: bool,
        deliveries_due: u32,
    ) -> (u16, u64) {
        let slot = self.free.pop().expect("the caller has looked for room");
        let seq = self.next_seq;
        self.next_seq += 1;
        self.flights[usize::from(slot)] = Some(Flight { seq, sent_ns, ack_due, deliveries_due });
        // Where nothing is due it is over already.
        self.land(slot);
        (slot, seq)
    }

    /// The server has the message: when it was sent, and whether its place is free again. `None`:
    /// no such acknowledgement was due.
    pub(super) fn acked(&mut self, slot: u16, seq: Option<u64>) -> Option<(u64, bool)> {
        let flight = self.flights.get_mut(usize::from(slot))?.as_mut()?;
        if !flight.ack_due || seq.is_some_and(|seq| seq != flight.seq) {
            return None;
        }
        flight.ack_due = false;
        let sent_ns = flight.sent_ns;
        Some((sent_ns, self.land(slot)))
    }

    /// One more receiver has the message. True if that made a place free.
    pub(super) fn was_delivered(&mut self, slot: u16, seq: u64) -> bool {
        match self.flights.get_mut(usize::from(slot)) {
            Some(Some(flight)) if flight.seq == seq => {
                flight.deliveries_due = flight.deliveries_due.saturating_sub(1);
                self.land(slot)
            }
            _ => false,
        }
    }

    /// Frees the place if its flight is over.
    fn land(&mut self, slot: u16) -> bool {
        let place = &mut self.flights[usize::from(slot)];
        let over = place.is_some_and(|flight| !flight.ack_due && flight.deliveries_due == 0);
        if over {
            *place = None;
            self.free.push(slot);
        }
        over
    }
}
