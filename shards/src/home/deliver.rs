//! A delivery from its arrival at the recipient's home shard until it is done.
//!
//! ```text
//!            deliver                    acknowledged by a terminal
//!   Memory ------------> in flight ---------------------------------> done
//!      |  silent for persist_after, last terminal gone, backlog          ^
//!      v                                                                 |
//!   Storing --committed--> Stored (owed: safe) ---- acknowledged --------+ (+ delete)
//!      |                                   \--- read back at login ------^
//!      +--failed--> Memory again (a terminal is there), or failed (offline)
//! ```

use std::sync::Arc;

use codec::{
    Acks, CloseReason, Failure, Message, MessageId, Outgoing, ProtocolId, PublishKind, Push,
    UserKey,
};
use storage::{Append, Request};

use crate::home::Home;
use crate::home::effects::{Effects, Timer};
use crate::home::inbox::{Delivery, Kept, Mode, Owed};
use crate::home::outcome::Outcome;
use crate::home::session::Flight;
use crate::io::{Now, Slot};
use crate::limits::{
    READ_BYTES, READ_LOW_WATER, READ_ROWS, SLOW_CONSUMER_MS, STALL_PERSIST_MS, UNSENT_PAUSE_MAX_MS,
    WINDOW_SILENCE_MS,
};
use crate::mutants::{self, Mutant};

impl Home {
    /// A message for a user whose home this is, and unless `keep`, for now or never.
    pub(super) fn deliver(
        &mut self,
        to: UserKey,
        message: Arc<Message>,
        keep: bool,
        owed: Owed,
        now: Now,
        fx: &mut impl Effects,
    ) {
        if !keep && !self.is_online(to) {
            let offline = Outcome::Refused(Failure::Offline);
            return self.settle(owed, to, offline, now, fx);
        }
        let index = self.users.find_or_insert(to);
        self.make_inbox(index);
        let mut delivery = self.delivery_of(message, Kept::Memory, owed, now);
        let user = self.users.at(index);
        let inbox = user.inbox.as_mut().expect("made above");
        if inbox.mode == Mode::Live && inbox.is_full() {
            // Too much for memory: what comes now waits in the store until the queue drains.
            inbox.mode = Mode::CatchingUp;
            inbox.read_after = inbox.queue.back().map_or(0, |last| last.seq);
            self.counters.spilled_inboxes += 1;
        }
        if inbox.mode == Mode::Live {
            inbox.push(delivery);
            let persist_at = now.plus_ms(self.config.persist_after_ms);
            user.deadline.want(fx, Timer::User(to), persist_at);
            self.push_user(index, now, fx);
            return;
        }
        delivery.kept = Kept::Storing;
        self.append(index, delivery.seq, Arc::clone(&delivery.message), fx);
        let ack_now = mutants::on(Mutant::AckBeforeCommit);
        if ack_now {
            let owed = std::mem::replace(&mut delivery.owed, Owed::Nobody);
            self.settle(owed, to, Outcome::Safe, now, fx);
        }
        self.users.at(index).inbox.as_mut().expect("made above").behind.push_back(delivery);
    }

    /// A user's own message for his terminals but the sending one: a courtesy that changes nothing
    /// about when it is safe and is never stored. While they are behind, they miss it.
    pub(super) fn copy(
        &mut self,
        user: UserKey,
        message: &Arc<Message>,
        sender: Slot,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(index) = self.users.find(user) else { return };
        if self.users.at(index).terminals.iter().all(|slot| *slot == sender) {
            return;
        }
        self.make_inbox(index);
        let delivery =
            self.delivery_of(Arc::clone(message), Kept::Copy { sender }, Owed::Nobody, now);
        let inbox = self.users.at(index).inbox.as_mut().expect("made above");
        if inbox.mode == Mode::Live && !inbox.is_full() {
            inbox.push(delivery);
            self.push_user(index, now, fx);
        }
        self.tidy_user(index, fx);
    }

    fn delivery_of(&mut self, message: Arc<Message>, kept: Kept, owed: Owed, now: Now) -> Delivery {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.counters.deliveries += 1;
        Delivery {
            seq,
            message,
            kept,
            owed,
            waited: false,
            done: false,
            flights: 0,
            charges: 0,
            sent: false,
            since: now,
        }
    }

    /// Pushes to every terminal what its window allows.
    pub(super) fn push_user(&mut self, index: u32, now: Now, fx: &mut impl Effects) {
        // Pushing ends no session: the list stays as it is.
        let mut at = 0;
        while let Some(&slot) = self.users.at(index).terminals.get(at) {
            self.push_terminal(index, slot, now, fx);
            at += 1;
        }
        // A cursor may just have passed what is done.
        self.pop_done(index);
        self.read_requeued(index, fx);
        self.read_more_if_low(index, fx);
    }

    fn push_terminal(&mut self, index: u32, slot: Slot, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.sessions.get_mut(slot.index).filter(|s| s.is(slot)) else {
            return;
        };
        session.held = false;
        let Some(inbox) = &mut self.users.at(index).inbox else { return };
        let protocol = session.protocol.unwrap_or(ProtocolId::ALL[0]);
        let first = inbox.position(session.cursor);
        let mut full = false;
        for delivery in inbox.queue.range_mut(first..) {
            if !delivery.done && delivery.is_for(slot, session.manners.copies) {
                if !session.has_room(delivery.message.body.len()) {
                    full = true;
                    break;
                }
                let message = &*delivery.message;
                let push = Push { message, stored: delivery.waited };
                let end = fx.transmit(slot, &Outgoing::Push(push));
                let flight = Flight {
                    seq: delivery.seq,
                    tag: tag(&message.id_for(protocol)),
                    end,
                    retry_at: now,
                    body_bytes: message.body.len() as u32,
                    copies: 1,
                    sent: false,
                };
                session.flights.push(flight, &mut self.spare_flights);
                delivery.flights += 1;
                self.counters.pushes += 1;
            }
            session.cursor = delivery.seq + 1;
        }
        // Rows are read when there is room in memory, which silence keeps from getting free.
        full |= inbox.mode == Mode::CatchingUp && inbox.queue.len() > READ_LOW_WATER;
        if full && session.manners.resends.is_none() && session.manners.acks == Acks::Packets {
            session.held = true;
            self.arm_session(slot, fx);
        }
    }

    /// Takes a push that was not acknowledged out of a terminal's window, so that what comes after
    /// it is not held up; it waits for the next login, or for its acknowledgement after all.
    /// `false`: neither does the store have it nor another terminal, so that it must stay.
    fn let_go(&mut self, index: u32, slot: Slot, seq: u64) -> bool {
        let Some(session) = self.sessions.get_mut(slot.index) else { return false };
        let Some(inbox) = &mut self.users.at(index).inbox else { return false };
        let position = session.flights.iter().position(|flight| flight.seq == seq);
        let kept = inbox.find(seq).filter(|delivery| delivery.may_leave());
        let (Some(delivery), Some(position)) = (kept, position) else { return false };
        delivery.flights -= 1;
        let protocol = session.protocol.unwrap_or(ProtocolId::ALL[0]);
        let id = self.hasher.hash(PublishKind::User, 0, &delivery.message.id_for(protocol));
        session.flights.let_go(position, id);
        self.counters.given_up += 1;
        true
    }

    /// Pushes that were sent as often as the protocol's rule says: the connection goes on without
    /// them. What must stay in its window is looked at again after an interval.
    pub(super) fn give_up(
        &mut self,
        slot: Slot,
        silent: &[u64],
        interval_ms: u64,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(index) = self.session(slot).map(|session| session.user) else { return };
        for &seq in silent {
            if mutants::on(Mutant::GiveUpForGood) {
                let user = self.users.at(index).key;
                fx.store(Request::Delete { user, seq });
            }
            if !self.let_go(index, slot, seq)
                && let Some(session) = self.session(slot)
                && let Some(flight) = session.flights.iter_mut().find(|flight| flight.seq == seq)
            {
                flight.retry_at = now.plus_ms(interval_ms);
            }
        }
        if !silent.is_empty() {
            self.push_user(index, now, fx);
            self.tidy_user(index, fx);
        }
    }

    /// Sends a copy of a push again on the same terminal.
    pub(super) fn push_again(&mut self, slot: Slot, seq: u64, fx: &mut impl Effects) {
        let Some(session) = self.sessions.get_mut(slot.index).filter(|s| s.is(slot)) else {
            return;
        };
        let Some(inbox) = &mut self.users.at(session.user).inbox else { return };
        let flight = session.flights.iter_mut().find(|flight| flight.seq == seq);
        let (Some(delivery), Some(flight)) = (inbox.find(seq), flight) else { return };
        let push = Push { message: &delivery.message, stored: delivery.waited };
        flight.end = fx.transmit(slot, &Outgoing::Push(push));
        flight.copies += 1;
        flight.sent = false;
        self.counters.retries += 1;
    }

    /// All of the connection's output up to `offset` is in the socket.
    pub fn sent(&mut self, slot: Slot, offset: u64, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.sessions.get_mut(slot.index).filter(|s| s.is(slot)) else {
            return;
        };
        let by_bytes = session.manners.acks == Acks::Bytes;
        let sent_is_enough = session.manners.acks == Acks::Sent;
        let retry_at = match session.manners.resends {
            _ if by_bytes => now,
            Some(resends) => now.plus_ms(resends.interval_ms.into()),
            None => now.plus_ms(WINDOW_SILENCE_MS.into()),
        };
        let mut any = false;
        let inbox = match session.flights.is_empty() {
            true => None,
            false => self.users.at(session.user).inbox.as_mut(),
        };
        let Some(inbox) = inbox else { return };
        for flight in session.flights.iter_mut().filter(|f| !f.sent && f.end <= offset) {
            flight.sent = true;
            flight.retry_at = retry_at;
            any = true;
            if let Some(delivery) = inbox.find(flight.seq).filter(|delivery| !delivery.sent) {
                delivery.sent = true;
                delivery.since = now;
            }
        }
        if !any {
            return;
        }
        if by_bytes {
            // On a quick network they are there by now.
            if !std::mem::replace(&mut session.asked_unsent, true) {
                fx.unsent(slot);
            }
            return;
        }
        if session.resends().is_some() {
            session.deadline.want(fx, Timer::Session(slot), retry_at);
        }
        if sent_is_enough {
            self.count_sent_as_acknowledged(slot, now, fx);
        }
    }

    /// A terminal has a push. Ids that it has not been sent, or has acknowledged, are ignored. Of
    /// several with the same id it is the oldest: connections keep the order.
    pub(super) fn acknowledged(
        &mut self,
        slot: Slot,
        id: &MessageId,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(session) = self.sessions.get_mut(slot.index).filter(|s| s.is(slot)) else {
            return;
        };
        let (index, protocol) = (session.user, session.protocol.unwrap_or(ProtocolId::ALL[0]));
        if session.flights.any_let_go() {
            let hash = self.hasher.hash(PublishKind::User, 0, id);
            if let Some(seq) = session.flights.take_let_go(Some(hash), &mut self.spare_flights) {
                return self.landed_late(slot, seq, now, fx);
            }
        }
        let Some(inbox) = self.users.at(index).inbox.as_mut() else { return };
        let wanted = tag(id);
        let found = session.flights.iter().position(|flight| {
            let same = flight.tag == wanted || mutants::on(Mutant::AckAnything);
            same && inbox.find(flight.seq).is_some_and(|d| {
                d.message.is_named(id, protocol) || mutants::on(Mutant::AckAnything)
            })
        });
        if let Some(position) = found {
            self.landed(slot, position, now, fx);
        }
    }

    /// A terminal has the oldest push that it has not acknowledged. A client that answers once too
    /// often says the same of the next push: nothing on the wire tells the two apart. Whoever
    /// answers with ids has none of that.
    pub(super) fn acknowledged_oldest(&mut self, slot: Slot, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.sessions.get_mut(slot.index).filter(|s| s.is(slot)) else {
            return;
        };
        // Who names nothing cannot tell a copy from the next push: he gets none any more.
        session.manners.resends = None;
        match session.flights.take_let_go(None, &mut self.spare_flights) {
            Some(seq) => self.landed_late(slot, seq, now, fx),
            None => self.landed(slot, 0, now, fx),
        }
    }

    /// A push has arrived without which the connection had gone on: its row is not needed.
    fn landed_late(&mut self, slot: Slot, seq: u64, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.sessions.get_mut(slot.index).filter(|s| s.is(slot)) else {
            return;
        };
        let index = session.user;
        session.flights.heard(now);
        session.widen();
        self.counters.acknowledged_late += 1;
        if self.delivery(index, seq).is_some() {
            self.complete(index, seq, now, fx);
        } else if !mutants::on(Mutant::LostDelete) {
            // It has left memory, because another terminal has it or the store.
            let user = self.users.at(index).key;
            fx.store(Request::Delete { user, seq });
            self.counters.acknowledged += 1;
        }
        self.push_user(index, now, fx);
        self.tidy_user(index, fx);
    }

    /// The push at a position of the terminal's flights has arrived.
    fn landed(&mut self, slot: Slot, position: usize, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.sessions.get_mut(slot.index).filter(|s| s.is(slot)) else {
            return;
        };
        let index = session.user;
        let Some(flight) = session.flights.remove(position, &mut self.spare_flights) else {
            return;
        };
        session.flights.heard(now);
        session.widen();
        self.finish(index, flight.seq, now, fx);
        self.push_user(index, now, fx);
        self.tidy_user(index, fx);
    }

    /// The peer's kernel has acknowledged output up to `drained`: what ends before that has
    /// arrived, as far as a client can tell that cannot say so. `left`: there is more on its way.
    pub(super) fn bytes_drained(
        &mut self,
        slot: Slot,
        drained: u64,
        left: bool,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(session) = self.session(slot) else { return };
        session.asked_unsent = false;
        if !session.flights.progress(drained, left, now, SLOW_CONSUMER_MS) {
            return self.hang_up(slot, CloseReason::SlowConsumer, now, fx);
        }
        let index = session.user;
        // While somebody is there who can say that he has it, only his word counts.
        let counts = !self.has_acknowledging_terminal(index);
        let mut arrived = Vec::new();
        let Some(session) = self.sessions.get_mut(slot.index) else { return };
        while session.flights.iter().next().is_some_and(|f| f.sent && f.end <= drained)
            && let Some(flight) = session.flights.remove(0, &mut self.spare_flights)
        {
            session.widen();
            arrived.push(flight.seq);
        }
        for flight in session.flights.iter_mut().filter(|flight| flight.sent) {
            let pause_ms = (1 << flight.copies.min(10)).min(UNSENT_PAUSE_MAX_MS);
            flight.retry_at = now.plus_ms(pause_ms);
            flight.copies = flight.copies.saturating_add(1);
        }
        for seq in arrived {
            if counts {
                self.finish(index, seq, now, fx);
            } else if let Some(delivery) = self.delivery(index, seq) {
                delivery.flights -= 1;
            }
        }
        self.push_user(index, now, fx);
        self.arm_session(slot, fx);
        self.tidy_user(index, fx);
    }

    fn has_acknowledging_terminal(&mut self, index: u32) -> bool {
        let terminals = self.terminals(index);
        terminals.iter().any(|slot| {
            let session = self.sessions.get(slot.index);
            session.is_some_and(|session| session.manners.acks == Acks::Packets)
        })
    }

    fn delivery(&mut self, index: u32, seq: u64) -> Option<&mut Delivery> {
        self.users.at(index).inbox.as_mut()?.find(seq)
    }

    fn is_online(&mut self, user: UserKey) -> bool {
        let index = self.users.find(user);
        index.is_some_and(|index| !self.users.at(index).terminals.is_empty())
    }

    /// What was in flight to a terminal has arrived.
    fn finish(&mut self, index: u32, seq: u64, now: Now, fx: &mut impl Effects) {
        let Some(delivery) = self.delivery(index, seq) else { return };
        delivery.flights -= 1;
        self.complete(index, seq, now, fx);
    }

    /// The first acknowledgement makes a delivery done, in any state.
    fn complete(&mut self, index: u32, seq: u64, now: Now, fx: &mut impl Effects) {
        let user = self.users.at(index);
        let key = user.key;
        let Some(delivery) = user.inbox.as_mut().and_then(|inbox| inbox.find(seq)) else { return };
        if delivery.done {
            return;
        }
        delivery.done = true;
        let owed = std::mem::replace(&mut delivery.owed, Owed::Nobody);
        let has_row = matches!(delivery.kept, Kept::Storing | Kept::Stored);
        if has_row && !mutants::on(Mutant::LostDelete) {
            fx.store(Request::Delete { user: key, seq });
        }
        self.counters.acknowledged += 1;
        self.settle(owed, key, Outcome::Safe, now, fx);
    }

    fn pop_done(&mut self, index: u32) {
        let Self { users, sessions, .. } = self;
        let user = users.at(index);
        let Some(inbox) = &mut user.inbox else { return };
        if !inbox.queue.front().is_some_and(Delivery::may_leave) {
            return;
        }
        let cursor = |slot: &Slot| sessions.get(slot.index).map_or(u64::MAX, |s| s.cursor);
        let pushed_to = user.terminals.iter().map(cursor).min().unwrap_or(u64::MAX);
        inbox.pop_done(pushed_to);
        inbox.invariants();
    }

    /// A user's timer: what has waited too long goes to the store; failed reads are tried again.
    pub fn user_timer(&mut self, key: UserKey, now: Now, fx: &mut impl Effects) {
        let Some(index) = self.users.find(key) else { return };
        self.users.at(index).deadline.fired();
        let next = self.persist_overdue(index, now, fx);
        let user = self.users.at(index);
        if let Some(inbox) = &mut user.inbox
            && inbox.read_again.is_some_and(|at| at <= now)
        {
            inbox.read_again = None;
            self.read_more(index, fx);
        }
        let user = self.users.at(index);
        let read_again = user.inbox.as_ref().and_then(|inbox| inbox.read_again);
        let dedup = self.expire_dedup(index, now);
        let next = [next, read_again, dedup].into_iter().flatten().min();
        if let Some(at) = next {
            self.users.at(index).deadline.want(fx, Timer::User(key), at);
        }
        self.tidy_user(index, fx);
    }

    /// Appends what is overdue; returns when the next delivery will be.
    fn persist_overdue(&mut self, index: u32, now: Now, fx: &mut impl Effects) -> Option<Now> {
        let silent = self.config.persist_after_ms;
        let due_at = |delivery: &Delivery| match delivery.sent {
            true => delivery.since.plus_ms(silent),
            false => delivery.since.plus_ms(silent.max(STALL_PERSIST_MS)),
        };
        let waiting = |delivery: &Delivery| delivery.kept == Kept::Memory && !delivery.done;
        let inbox = self.users.at(index).inbox.as_deref_mut()?;
        let next = inbox.queue.iter().filter(|d| waiting(d)).map(due_at).min();
        if next.is_none_or(|at| at > now) {
            return next;
        }
        // The recipient is silent: what waits behind the overdue goes with it, in order.
        let mut appends = Vec::new();
        for delivery in inbox.queue.iter_mut().filter(|delivery| waiting(delivery)) {
            delivery.kept = Kept::Storing;
            appends.push((delivery.seq, Arc::clone(&delivery.message)));
        }
        for (seq, message) in appends {
            self.append(index, seq, message, fx);
        }
        None
    }

    /// Asks for more rows when the queue runs low and the store may have some.
    pub(super) fn read_more_if_low(&mut self, index: u32, fx: &mut impl Effects) {
        let low = self.users.at(index).inbox.as_ref().is_some_and(|inbox| {
            inbox.mode == Mode::CatchingUp
                && inbox.read_again.is_none()
                && inbox.queue.len() <= READ_LOW_WATER
        });
        if low {
            self.read_more(index, fx);
        }
    }

    pub(super) fn read_more(&mut self, index: u32, fx: &mut impl Effects) {
        let user = self.users.at(index);
        let Some(inbox) = &mut user.inbox else { return };
        if inbox.mode != Mode::CatchingUp || inbox.reading {
            return;
        }
        inbox.reading = true;
        let (user, after) = (user.key, inbox.read_after);
        fx.store(Request::Read { user, after, rows: READ_ROWS, bytes: READ_BYTES });
    }

    /// [`Acks::Sent`]: in the socket is delivered.
    fn count_sent_as_acknowledged(&mut self, slot: Slot, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.sessions.get_mut(slot.index).filter(|s| s.is(slot)) else {
            return;
        };
        let index = session.user;
        let mut done = Vec::new();
        while session.flights.iter().next().is_some_and(|flight| flight.sent)
            && let Some(flight) = session.flights.remove(0, &mut self.spare_flights)
        {
            session.widen();
            done.push(flight.seq);
        }
        for seq in done {
            self.finish(index, seq, now, fx);
        }
        self.push_user(index, now, fx);
        self.tidy_user(index, fx);
    }

    fn make_inbox(&mut self, index: u32) {
        if self.users.at(index).inbox.is_some() {
            return;
        }
        let mut inbox = self.take_inbox();
        let user = self.users.at(index);
        inbox.mode = if user.terminals.is_empty() { Mode::Offline } else { Mode::Live };
        user.inbox = Some(inbox);
    }

    pub(super) fn append(
        &mut self,
        index: u32,
        seq: u64,
        message: Arc<Message>,
        fx: &mut impl Effects,
    ) {
        let user = self.users.at(index);
        self.counters.appends += 1;
        let binding = user.name.as_deref().filter(|_| user.binds).map(Box::from);
        let user = user.key;
        fx.store(Request::Append(Append { user, seq, message, binding }));
    }
}

/// Of the first and the last bytes of an id: the gateway's begin alike, others end in zeros.
fn tag(id: &MessageId) -> u64 {
    let first = u64::from_le_bytes(*id.padded());
    let last = id.as_bytes().last_chunk().map_or(0, |last| u64::from_le_bytes(*last));
    first ^ last.rotate_left(32)
}
