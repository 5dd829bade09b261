//! Messages between any two users of a crowd, and to groups: the check that needs no fixed pairs.
//!
//! Owns: what was sent by whom to whom, and every receiver's view of every sender, as a
//! [`Ledger`]; ledgers of all workers together tell what is missing. Never: connections.

use crate::check::{Stamp, Stream, Tally};
use crate::client::{Arrival, Target};
use std::collections::HashMap;
use std::sync::Arc;

/// A group whose members are consecutive users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Greater than all user numbers of the run, so that a number is a user or a group.
    pub id: u32,
    pub first_user: u32,
    pub members: u32,
}

impl Group {
    pub(crate) fn has(&self, user: u32) -> bool {
        (self.first_user..self.first_user + self.members).contains(&user)
    }
}

/// (sender, addressed user or group).
type Conversation = (u32, u32);

/// What one worker knows: what its users sent, and what they got.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    groups: Arc<[Group]>,
    sent: HashMap<Conversation, u64>,
    /// By receiver and conversation.
    streams: HashMap<(u32, Conversation), Stream>,
}

/// A message under way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    seq: u64,
    sent_ns: u64,
}

/// One worker's messages.
#[derive(Debug)]
pub(crate) struct Exchange {
    run: u32,
    ledger: Ledger,
    /// By sender and place.
    flights: HashMap<(u32, u16), Flight>,
    /// By sender: the place of his next message.
    places: HashMap<u32, u16>,
    payload: Vec<u8>,
    pub tally: Tally,
    /// Arrivals due for what was sent, and first arrivals.
    pub due: u64,
    pub arrived: u64,
}

/// A message that is ready to be published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub slot: u16,
    pub seq: u64,
}

impl Exchange {
    pub(crate) fn new(run: u32, groups: Arc<[Group]>) -> Self {
        Self {
            run,
            ledger: Ledger { groups, ..Ledger::default() },
            flights: HashMap::new(),
            places: HashMap::new(),
            payload: Vec::new(),
            tally: Tally::default(),
            due: 0,
            arrived: 0,
        }
    }

    /// Notes a message of `length` bytes from `from` to `to`, due at `sent_ns`; its payload is
    /// [`Self::payload`]. `None`: the sender has too many under way.
    pub(crate) fn prepare(
        &mut self,
        from: u32,
        to: Target,
        length: usize,
        sent_ns: u64,
    ) -> Option<Ready> {
        let place = self.places.entry(from).or_default();
        let slot = *place;
        if self.flights.contains_key(&(from, slot)) {
            return None;
        }
        *place = (slot + 1) % PLACES;
        let next = self.ledger.sent.entry((from, to.number())).or_default();
        let seq = *next;
        *next += 1;
        self.flights.insert((from, slot), Flight { seq, sent_ns });
        self.payload.resize(length, 0);
        Stamp { run: self.run, from, to: to.number(), slot, seq, sent_ns }.write(&mut self.payload);
        self.tally.sent += 1;
        self.due += self.ledger.receivers(from, to.number()).count() as u64;
        Some(Ready { slot, seq })
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The server has the message; the time it was due.
    pub(crate) fn acked(&mut self, sender: u32, slot: u16, seq: Option<u64>) -> Option<u64> {
        let flight = self.flights.get(&(sender, slot)).copied();
        match flight.filter(|flight| seq.is_none_or(|seq| seq == flight.seq)) {
            Some(flight) => {
                self.flights.remove(&(sender, slot));
                self.tally.acked += 1;
                Some(flight.sent_ns)
            }
            None => {
                self.tally.bad_acks += 1;
                None
            }
        }
    }

    /// Nobody acknowledges in this run: a message is done when it is sent.
    pub(crate) fn forget(&mut self, sender: u32, slot: u16) {
        self.flights.remove(&(sender, slot));
    }

    /// A message arrived at `receiver`; the time it was due, if it was one of ours.
    pub(crate) fn delivered(&mut self, receiver: u32, arrival: &Arrival<'_>) -> Option<u64> {
        let Some(stamp) = Stamp::read(&arrival.payload) else {
            self.tally.corrupted += 1;
            return None;
        };
        let is_ours = stamp.run == self.run;
        if is_ours && !arrival.agrees_with(stamp.from, stamp.seq) {
            self.tally.corrupted += 1;
            return None;
        }
        let group = self.ledger.groups.iter().find(|group| group.id == stamp.to);
        let is_labelled = arrival.label.is_none_or(|label| label == group.map(|group| group.id));
        let is_his = self.ledger.receivers(stamp.from, stamp.to).any(|user| user == receiver);
        if !is_labelled || !is_his {
            self.tally.misdelivered += 1;
            return None;
        }
        if !is_ours {
            // Stored before this run. What another process of this run sent is for its own users.
            self.tally.stale += 1;
            return None;
        }
        let conversation = (stamp.from, stamp.to);
        let stream = self.ledger.streams.entry((receiver, conversation)).or_default();
        self.arrived += u64::from(stream.arrived(stamp.seq, &mut self.tally));
        Some(stamp.sent_ns)
    }

    /// Messages of users of this worker that the server has not acknowledged.
    pub(crate) fn under_way(&self) -> usize {
        self.flights.len()
    }

    /// `user` has nothing under way.
    pub(crate) fn is_quiet(&self, user: u32) -> bool {
        (0..PLACES).all(|slot| !self.flights.contains_key(&(user, slot)))
    }

    pub(crate) fn all_acked(&self) -> bool {
        self.flights.is_empty()
    }

    /// The end: what was counted, and what the other workers' ledgers have to be compared with.
    pub(crate) fn conclude(mut self) -> (Tally, Ledger) {
        self.tally.unacked += self.flights.len() as u64;
        (self.tally, self.ledger)
    }
}

impl Ledger {
    fn receivers(&self, from: u32, to: u32) -> impl Iterator<Item = u32> {
        let group = self.groups.iter().find(|group| group.id == to);
        let users =
            group.map_or(to..to + 1, |group| group.first_user..group.first_user + group.members);
        let is_group = group.is_some();
        users.filter(move |user| !is_group || *user != from)
    }

    /// Counts what was sent according to one of `ledgers` and has not arrived according to any.
    pub(crate) fn missing(ledgers: &[Self]) -> u64 {
        let mut streams = HashMap::new();
        for ledger in ledgers {
            streams.extend(&ledger.streams);
        }
        let mut missing = 0;
        for ledger in ledgers {
            for (&(from, to), &sent) in &ledger.sent {
                for receiver in ledger.receivers(from, to) {
                    let stream = streams.get(&(receiver, (from, to)));
                    missing += stream.map_or(sent, |stream| stream.missing(sent));
                }
            }
        }
        missing
    }
}

/// Messages under way per sender, at most.
const PLACES: u16 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` messages from 1 to `to`; what arrives goes where `deliver` says.
    fn exchange(to: Target, count: usize, deliver: impl Fn(u64) -> &'static [u32]) -> (Tally, u64) {
        let group = Group { id: 1000, first_user: 1, members: 3 };
        let mut sender = Exchange::new(9, Arc::new([group]));
        let mut receiver = Exchange::new(9, Arc::new([group]));
        for _ in 0..count {
            let Ready { slot, seq } = sender.prepare(1, to, 100, 5).expect("room");
            for &user in deliver(seq) {
                let payload = sender.payload().into();
                let label = Some((to == Target::Group(1000)).then_some(1000));
                let (from, seq) = (Some(1), Some(seq));
                receiver.delivered(user, &Arrival { payload, from, seq, label });
            }
            assert_eq!(sender.acked(1, slot, Some(seq)), Some(5));
        }
        let ((mut tally, sent), (arrived, got)) = (sender.conclude(), receiver.conclude());
        tally.misdelivered += arrived.misdelivered;
        tally.duplicated += arrived.duplicated;
        tally.delivered += arrived.delivered;
        (tally, Ledger::missing(&[sent, got]))
    }

    #[test]
    fn what_one_worker_sent_and_another_got_adds_up() {
        assert_eq!(exchange(Target::User(2), 10, |_| &[2]).1, 0);
        assert_eq!(exchange(Target::Group(1000), 10, |_| &[2, 3]).1, 0);
    }

    #[test]
    fn loss_duplication_and_wrong_receivers_are_told_apart() {
        let (_, missing) = exchange(Target::User(2), 10, |seq| if seq == 9 { &[] } else { &[2] });
        assert_eq!(missing, 1, "the last of a conversation");
        let (_, missing) = exchange(Target::User(2), 10, |_| &[]);
        assert_eq!(missing, 10, "a whole conversation");
        let (_, missing) = exchange(Target::Group(1000), 10, |_| &[3]);
        assert_eq!(missing, 10, "one member of a group");
        let (tally, missing) = exchange(Target::User(2), 10, |_| &[2, 2]);
        assert_eq!((tally.duplicated, missing), (10, 0));
        let (tally, _) = exchange(Target::User(2), 10, |_| &[2, 3]);
        assert_eq!(tally.misdelivered, 10);
        let (tally, _) = exchange(Target::Group(1000), 10, |_| &[1, 2, 3]);
        assert_eq!(tally.misdelivered, 10, "a sender gets no echo");
    }

    #[test]
    fn what_another_run_sent_is_stale_only_where_it_belongs() {
        let mut other = Exchange::new(8, Arc::new([]));
        other.prepare(1, Target::User(2), 100, 5).expect("room");
        let mut here = Exchange::new(9, Arc::new([]));
        let payload = other.payload();
        let arrival = |label| Arrival { payload: payload.into(), from: None, seq: None, label };
        for (receiver, label) in [(2, Some(None)), (2, None), (3, None), (2, Some(Some(7)))] {
            assert_eq!(here.delivered(receiver, &arrival(label)), None);
        }
        assert_eq!((here.tally.stale, here.tally.misdelivered), (2, 2));
    }
}
