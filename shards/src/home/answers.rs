//! Requests that are answered in the order in which they came: all of the publish door's, and those
//! of protocols whose clients can tell answers apart only by their order.
//!
//! Owns: the queue of a connection's unanswered requests. Never: decides how a request ends.

use std::collections::VecDeque;

use codec::{Answer, CloseReason, Malformed, MessageId, Outgoing, PublishKind, Receipt};

use crate::home::Home;
use crate::home::effects::{Effects, Timer};
use crate::home::outcome::Outcome;
use crate::home::session::Kind;
use crate::io::{Now, Slot};
use crate::limits::{DOOR_DEADLINE_MS, DOOR_OUTSTANDING};

/// How a request ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Publish(Outcome),
    Query(Box<Answer>),
    /// It made no sense; at the door neither would what follows.
    Malformed(Malformed),
}

/// A request that is owed an answer.
#[derive(Debug)]
struct Entry {
    kind: PublishKind,
    id: MessageId,
    since: Now,
    receipt: Option<Receipt>,
    ended: Option<Ended>,
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
    fn push(&mut self, kind: PublishKind, id: MessageId, since: Now, ended: Option<Ended>) -> u32 {
        let number = self.first.wrapping_add(self.entries.len() as u32);
        self.entries.push_back(Entry { kind, id, since, receipt: None, ended });
        debug_assert!(self.entries.len() <= 4 * usize::from(DOOR_OUTSTANDING));
        number
    }

    fn get(&mut self, number: u32) -> Option<&mut Entry> {
        self.entries.get_mut(number.wrapping_sub(self.first) as usize)
    }

    fn pop_ended(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front_if(|entry| entry.ended.is_some())?;
        self.first = self.first.wrapping_add(1);
        Some(entry)
    }
}

impl Home {
    /// Takes a place in the connection's order; `None` where answers have none.
    pub(super) fn open_request(
        &mut self,
        slot: Slot,
        kind: PublishKind,
        id: MessageId,
        now: Now,
        fx: &mut impl Effects,
    ) -> Option<u32> {
        let session = self.sessions.entry(slot.index);
        let number = session.answers.as_mut()?.push(kind, id, now, None);
        if session.kind == Kind::Door {
            session.deadline.want(fx, Timer::Session(slot), now.plus_ms(DOOR_DEADLINE_MS));
        }
        Some(number)
    }

    /// What the answer will say of a publish that is safe.
    pub(super) fn keep_receipt(
        &mut self,
        slot: Slot,
        number: Option<u32>,
        receipt: Option<Receipt>,
    ) {
        let Some(number) = number else { return };
        let answers = self.session(slot).and_then(|session| session.answers.as_mut());
        if let Some(entry) = answers.and_then(|answers| answers.get(number)) {
            entry.receipt = receipt;
        }
    }

    /// A request came to its end; it is answered when all before it are.
    pub(super) fn answer(
        &mut self,
        slot: Slot,
        number: u32,
        ended: Ended,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let answers = self.session(slot).and_then(|session| session.answers.as_mut());
        if let Some(entry) = answers.and_then(|answers| answers.get(number)) {
            entry.ended = Some(ended);
        }
        self.give_answers(slot, now, fx);
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
        let id = MessageId::from([0; MessageId::MAX]);
        answers.deaf = true;
        answers.push(PublishKind::User, id, now, Some(Ended::Malformed(what)));
        self.give_answers(slot, now, fx);
    }

    /// When the oldest unanswered request came in.
    pub(super) fn oldest_request(&mut self, slot: Slot) -> Option<Now> {
        Some(self.session(slot)?.answers.as_ref()?.entries.front()?.since)
    }

    /// Says what can be said in order. At the door a request that failed or made no sense ends the
    /// connection when it comes to the front, after the answers before it.
    fn give_answers(&mut self, slot: Slot, now: Now, fx: &mut impl Effects) {
        let mut end = None;
        while end.is_none()
            && let Some(session) = self.session(slot)
            && let Some(entry) = session.answers.as_mut().and_then(|answers| answers.pop_ended())
        {
            let door = session.kind == Kind::Door;
            let Entry { kind, id, receipt, ended, .. } = entry;
            match ended {
                Some(Ended::Publish(outcome @ (Outcome::Safe | Outcome::Stored))) => {
                    let stored = outcome == Outcome::Stored;
                    let receipt = receipt.map(|r| Receipt { stored: r.stored || stored, ..r });
                    fx.transmit(slot, &Outgoing::PublishAck(kind, id, receipt));
                }
                Some(Ended::Publish(_)) if door => end = Some(CloseReason::DoorTimeout),
                Some(Ended::Publish(Outcome::Refused(why))) => {
                    fx.transmit(slot, &Outgoing::PublishFailed { id, why, to: &[] });
                }
                Some(Ended::Query(answer)) => {
                    fx.transmit(slot, &Outgoing::Answer(id, &answer));
                }
                Some(Ended::Malformed(what)) => {
                    fx.transmit(slot, &Outgoing::Invalid(what));
                    end = Some(CloseReason::Malformed);
                }
                None => unreachable!("popped because it has ended"),
            }
        }
        match end {
            Some(reason) => self.hang_up(slot, reason, now, fx),
            None if self.may_read(slot) => fx.resume(slot),
            None => {}
        }
    }
}
