//! Requests that are answered in the order in which they came: all of the publish door's, and those
//! of protocols whose clients can tell answers apart only by their order.
//!
//! Owns: the queue of a connection's unanswered requests. Never: decides how a request ends.

use std::collections::VecDeque;

use codec::{Answer, CloseReason, Failure, Malformed, MessageId, Outgoing, PublishKind, Receipt};

use crate::home::Home;
use crate::home::effects::{Effects, Timer};
use crate::home::outcome::Outcome;
use crate::home::session::Kind;
use crate::io::{Now, Slot};
use crate::limits::{DOOR_DEADLINE_MS, DOOR_OUTSTANDING};
use crate::mutants::{self, Mutant};

/// What the answer to a publish says of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) kind: PublishKind,
    pub(crate) id: MessageId,
    /// Where answers have an order.
    pub(crate) receipt: Option<Receipt>,
}

impl Published {
    /// Its acknowledgement.
    pub(super) fn safe(self) -> Outgoing<'static> {
        Outgoing::PublishAck(self.kind, self.id, self.receipt)
    }
}

/// How a request ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Safe(Published),
    /// A publish is not taken over.
    Failed(MessageId, Failure),
    Query(MessageId, Box<Answer>),
    /// It made no sense; at the door neither would what follows.
    Malformed(Malformed),
}

impl Ended {
    pub(super) fn of(publish: Published, outcome: Outcome) -> Self {
        let stored = |receipt| Receipt { stored: true, ..receipt };
        match outcome {
            Outcome::Safe => Self::Safe(publish),
            Outcome::Stored => {
                Self::Safe(Published { receipt: publish.receipt.map(stored), ..publish })
            }
            Outcome::Refused(why) => Self::Failed(publish.id, why),
        }
    }
}

/// A request that is owed an answer.
#[derive(Debug)]
struct Entry {
    since: Now,
    /// It has ended before an older one has.
    ended: Option<Box<Ended>>,
}

/// The unanswered requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct AnswerQueue {
    entries: VecDeque<Entry>,
    /// Number of `entries[0]`, counted from the first request of the connection.
    first: u32,
    /// Something made no sense: nothing more is taken from this connection.
    pub(crate) deaf: bool,
}

impl AnswerQueue {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The new entry's number.
    fn push(&mut self, since: Now) -> u32 {
        let number = self.first.wrapping_add(self.entries.len() as u32);
        self.entries.push_back(Entry { since, ended: None });
        debug_assert!(self.entries.len() <= 4 * usize::from(DOOR_OUTSTANDING));
        number
    }

    /// Takes a request out of the queue; `false`: it is not the oldest.
    fn pop(&mut self, number: u32) -> bool {
        let next = number == self.first || mutants::on(Mutant::AnswerOutOfOrder);
        let oldest = next && self.entries.pop_front().is_some();
        self.first = self.first.wrapping_add(oldest.into());
        oldest
    }

    /// Ends a request before older ones have.
    fn end(&mut self, number: u32, ended: Ended) {
        let position = number.wrapping_sub(self.first) as usize;
        if let Some(entry) = self.entries.get_mut(position) {
            entry.ended = Some(Box::new(ended));
        }
    }

    /// The end of the oldest request, if it has ended.
    fn pop_ended(&mut self) -> Option<Box<Ended>> {
        let entry = self.entries.pop_front_if(|entry| entry.ended.is_some())?;
        self.first = self.first.wrapping_add(1);
        entry.ended
    }
}

impl Home {
    /// Takes a place in the connection's order; `None` where answers have none.
    pub(super) fn open_request(
        &mut self,
        slot: Slot,
        now: Now,
        fx: &mut impl Effects,
    ) -> Option<u32> {
        let session = self.sessions.entry(slot.index);
        let number = session.answers.as_mut()?.push(now);
        if session.kind == Kind::Door {
            session.deadline.want(fx, Timer::Session(slot), now.plus_ms(DOOR_DEADLINE_MS));
        }
        Some(number)
    }

    /// A request came to its end; it is answered when all before it are. At the door one that
    /// failed or made no sense ends the connection when it comes to the front, after the answers
    /// before it.
    pub(super) fn answer(
        &mut self,
        slot: Slot,
        number: u32,
        ended: Ended,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(session) = self.session(slot) else { return };
        let door = session.kind == Kind::Door;
        let Some(answers) = &mut session.answers else { return };
        if !answers.pop(number) {
            return answers.end(number, ended);
        }
        let mut end = say(slot, &ended, door, fx);
        while end.is_none()
            && let Some(ended) = answers.pop_ended()
        {
            end = say(slot, &ended, door, fx);
        }
        match end {
            Some(reason) => self.hang_up(slot, reason, now, fx),
            None if self.may_read(slot) => fx.resume(slot),
            None => {}
        }
    }

    /// A request at the door that made no sense is answered in its turn, too.
    pub(super) fn door_malformed(
        &mut self,
        slot: Slot,
        what: Malformed,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(answers) = self.session(slot).and_then(|session| session.answers.as_mut()) else {
            return;
        };
        answers.deaf = true;
        let number = answers.push(now);
        self.answer(slot, number, Ended::Malformed(what), now, fx);
    }

    /// When the oldest unanswered request came in.
    pub(super) fn oldest_request(&mut self, slot: Slot) -> Option<Now> {
        Some(self.session(slot)?.answers.as_ref()?.entries.front()?.since)
    }
}

/// Answers a request; the reason if that is the end of its connection.
fn say(slot: Slot, ended: &Ended, door: bool, fx: &mut impl Effects) -> Option<CloseReason> {
    match *ended {
        Ended::Failed(..) if door => return Some(CloseReason::DoorTimeout),
        Ended::Safe(publish) => {
            fx.transmit(slot, &publish.safe());
        }
        Ended::Failed(id, why) => {
            fx.transmit(slot, &Outgoing::PublishFailed { id, why, to: &[] });
        }
        Ended::Query(id, ref answer) => {
            fx.transmit(slot, &Outgoing::Answer(id, answer));
        }
        Ended::Malformed(what) => {
            fx.transmit(slot, &Outgoing::Invalid(what));
            return Some(CloseReason::Malformed);
        }
    }
    None
}
