//! Sessions come and go: login, replacement, heartbeat, retries, the end.

use std::sync::Arc;

use codec::{
    Accepted, Acks, Answers, CloseReason, Heartbeat, Malformed, Manners, Outgoing, Patience,
    ProtocolId, Refusal, UserKey,
};
use storage::{DeadReason, Request};

use crate::home::Home;
use crate::home::effects::{Effects, Timer};
use crate::home::inbox::{Kept, Mode};
use crate::home::outcome::Outcome;
use crate::home::session::{Flight, Kind, Session};
use crate::io::{ListenerIndex, Now, Slot};
use crate::limits::{
    DOOR_DEADLINE_MS, POISON_CHARGES, SLOW_CONSUMER_MS, TERMINALS, WINDOW_MESSAGES,
    WINDOW_SILENCE_MS,
};
use crate::mutants::{self, Mutant};

/// A verified login.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: UserKey,
    /// Which of the user's terminals; one connection each.
    pub terminal: u64,
    /// `None`: not known, he logged in with his number.
    pub name: Option<Arc<[u8]>>,
    /// Open authentication: the name is bound to the id with the first message stored.
    pub binds: bool,
    pub listener: ListenerIndex,
    pub protocol: ProtocolId,
    pub manners: Manners,
}

/// What the end of a connection says about the messages in flight on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// It ended without the acknowledgements: the oldest message may be poison.
    Failed,
    /// We ended it for a reason that no message has to do with.
    Excused,
}

impl Round {
    fn of(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Replaced | CloseReason::Shutdown => Self::Excused,
            _ => Self::Failed,
        }
    }
}

impl Home {
    /// Registers a terminal and accepts or refuses its login.
    pub fn login(&mut self, slot: Slot, login: Login, now: Now, fx: &mut impl Effects) {
        let index = self.users.find_or_insert(login.user);
        let old = self.same_terminal(index, login.terminal).or_else(|| self.one_too_many(index));
        if old.is_some() && login.manners.keeps_older {
            fx.transmit(slot, &Outgoing::Refused(Refusal::Taken));
            fx.close(slot, CloseReason::LoginRefused);
            return;
        }
        self.open_session(slot, Kind::Terminal, login.listener, now);
        let session = self.sessions.entry(slot.index);
        session.user = index;
        session.terminal = login.terminal;
        session.protocol = Some(login.protocol);
        session.manners = login.manners;
        if login.manners.answers == Answers::InOrder {
            session.answers = Some(Box::default());
        }
        let user = self.users.at(index);
        if user.name.is_none() {
            user.binds |= login.binds && login.name.is_some();
            user.name = login.name;
        }
        let name = user.name.clone().unwrap_or_default();
        self.accept(slot, login.user, &name, fx);
        if login.manners.room {
            self.enter_room(slot, index, fx);
        }
        self.users.at(index).terminals.push(slot);
        self.counters.logins += 1;
        self.catch_up(index, fx);
        if let Some(old) = old {
            self.end(old, Round::Excused, now, fx);
            fx.close(old, CloseReason::Replaced);
        }
        self.push_user(index, now, fx);
        self.arm_session(slot, fx);
        self.tidy_user(index, fx);
    }

    /// Open authentication: the id is in use under another name.
    pub fn is_name_taken(&mut self, login: &Login) -> bool {
        let Some(index) = self.users.find(login.user).filter(|_| login.binds) else { return false };
        let bound = &self.users.at(index).name;
        bound.is_some() && login.name.is_some() && *bound != login.name
    }

    /// The login that holds was said once more.
    pub(super) fn accept_again(&mut self, slot: Slot, fx: &mut impl Effects) {
        let Some(session) = self.session(slot) else { return };
        let index = session.user;
        let user = self.users.at(index);
        let (key, name) = (user.key, user.name.clone().unwrap_or_default());
        self.accept(slot, key, &name, fx);
    }

    fn accept(&mut self, slot: Slot, user: UserKey, name: &[u8], fx: &mut impl Effects) {
        let pings = self.sessions.entry(slot.index).manners.heartbeat != Heartbeat::None;
        let interval_s = self.config.heartbeat_interval_ms.div_ceil(1_000);
        let accepted = Accepted {
            user: user.id,
            name,
            session: u64::from(self.identity.shard) << 48 | self.counters.logins,
            time_ms: fx.unix_ms(),
            heartbeat_s: if pings { u32::try_from(interval_s).unwrap_or(u32::MAX) } else { 0 },
        };
        fx.transmit(slot, &Outgoing::Accepted(accepted));
    }

    /// Registers a connection of the publish door.
    pub fn open_door(&mut self, slot: Slot, listener: ListenerIndex, now: Now) {
        self.open_session(slot, Kind::Door, listener, now);
        self.sessions.entry(slot.index).answers = Some(Box::default());
    }

    /// A packet that made no sense: answered, forgiven a few times.
    pub fn malformed(&mut self, slot: Slot, what: Malformed, now: Now, fx: &mut impl Effects) {
        let interval = self.config.heartbeat_interval_ms;
        let Some(session) = self.session(slot) else { return };
        if session.kind == Kind::Door {
            return self.door_malformed(slot, what, now, fx);
        }
        session.heard(now, interval);
        session.invalid = session.invalid.saturating_add(1);
        let close = match session.manners.patience {
            Patience::None => true,
            Patience::UpTo(max) => session.invalid > max,
            Patience::Endless => false,
        };
        fx.transmit(slot, &Outgoing::Invalid(what));
        if close {
            self.hang_up(slot, CloseReason::Malformed, now, fx);
        }
    }

    /// The connection has ended, or is about to, for a reason of its own.
    pub fn ended(&mut self, slot: Slot, reason: CloseReason, now: Now, fx: &mut impl Effects) {
        if mutants::on(Mutant::CloseWithoutCancel) {
            return;
        }
        self.end(slot, Round::of(reason), now, fx);
    }

    /// Ends a session and its connection.
    pub(super) fn hang_up(
        &mut self,
        slot: Slot,
        reason: CloseReason,
        now: Now,
        fx: &mut impl Effects,
    ) {
        self.end(slot, Round::of(reason), now, fx);
        fx.close(slot, reason);
    }

    /// A session's timer: heartbeat, retries, the door's deadline.
    pub fn session_timer(&mut self, slot: Slot, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.session(slot) else { return };
        session.deadline.fired();
        if session.kind == Kind::Door {
            return self.door_timer(slot, now, fx);
        }
        let Manners { acks, heartbeat, .. } = session.manners;
        if !fx.is_read(slot) && acks != Acks::Bytes {
            // We do not read it, so it cannot answer: silence means nothing.
            self.postpone(slot, now);
            return self.arm_session(slot, fx);
        }
        let pings = heartbeat != Heartbeat::None && now >= session.next_ping;
        if pings && !self.heartbeat(slot, now, fx) {
            return;
        }
        let Some(session) = self.session(slot) else { return };
        let quiet = session.quiet_at() <= now;
        let due = |flight: &Flight| quiet && flight.sent && flight.retry_at <= now;
        let look = session.looks_after_flights() && !session.asked_unsent;
        if look && session.flights.iter().any(due) {
            // What is still in the socket must not be sent again; ask before retrying.
            session.asked_unsent = true;
            fx.unsent(slot);
        }
        self.arm_session(slot, fx);
    }

    /// The answer to [`Effects::unsent`]: `sent` bytes of the connection's output have gone to the
    /// socket in all, `unsent` of them are not acknowledged by the peer's kernel.
    /// `None`: the kernel cannot tell (before 6.7).
    pub fn unsent(
        &mut self,
        slot: Slot,
        sent: u64,
        unsent: Option<u64>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(session) = self.session(slot) else { return };
        match (session.manners.acks, unsent) {
            (Acks::Bytes, Some(unsent)) => {
                let drained = sent.saturating_sub(unsent);
                return self.bytes_drained(slot, drained, unsent > 0, now, fx);
            }
            (Acks::Bytes, None) => return self.told_nothing(slot, now, fx),
            _ => {}
        }
        let unsent = unsent.unwrap_or(0);
        if !fx.is_read(slot) {
            self.postpone(slot, now);
        }
        let Some(session) = self.session(slot) else { return };
        session.asked_unsent = false;
        let Some(resends) = session.resends() else { return };
        let quiet = session.quiet_at() <= now;
        let interval = u64::from(resends.interval_ms);
        let drained = sent.saturating_sub(unsent);
        if !session.flights.progress(drained, unsent > 0, now, SLOW_CONSUMER_MS) {
            return self.hang_up(slot, CloseReason::SlowConsumer, now, fx);
        }
        let (mut again, mut given_up) = (Vec::new(), Vec::new());
        for flight in session.flights.iter_mut() {
            if !quiet || !flight.sent || flight.retry_at > now {
                continue;
            }
            if flight.end > drained {
                flight.retry_at = now.plus_ms(interval);
            } else if flight.copies > resends.max {
                given_up.push(flight.seq);
            } else {
                again.push(flight.seq);
            }
        }
        if !given_up.is_empty() && resends.ends {
            return self.hang_up(slot, CloseReason::AckTimeout, now, fx);
        }
        for seq in again {
            self.push_again(slot, seq, fx);
        }
        self.give_up(slot, &given_up, interval, now, fx);
        self.arm_session(slot, fx);
    }

    /// Nobody can say what arrives here: it goes to the store, and comes again at the next login.
    /// From now on this is a client that acknowledges and is silent.
    fn told_nothing(&mut self, slot: Slot, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.session(slot) else { return };
        session.asked_unsent = false;
        session.manners.acks = Acks::Packets;
        for flight in session.flights.iter_mut() {
            flight.retry_at = now.plus_ms(WINDOW_SILENCE_MS.into());
        }
        let index = session.user;
        // Sees a full window, and arms the timer that silence opens it with.
        self.push_user(index, now, fx);
        self.tidy_user(index, fx);
    }

    /// Ends every session, a few per call; `true` once none is left.
    pub fn drain(&mut self, budget: usize, now: Now, fx: &mut impl Effects) -> bool {
        self.draining = true;
        let slots: Vec<Slot> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.kind != Kind::None)
            .map(|(index, session)| Slot { index, generation: session.generation })
            .take(budget)
            .collect();
        for &slot in &slots {
            self.hang_up(slot, CloseReason::Shutdown, now, fx);
        }
        slots.len() < budget
    }

    /// The oldest terminal of a user who has as many as anybody may have.
    fn one_too_many(&mut self, user: u32) -> Option<Slot> {
        let terminals = &self.users.at(user).terminals;
        if terminals.len() < TERMINALS { None } else { terminals.first().copied() }
    }

    fn same_terminal(&mut self, user: u32, terminal: u64) -> Option<Slot> {
        let terminals = self.terminals(user);
        terminals.into_iter().find(|slot| {
            self.sessions.get(slot.index).is_some_and(|session| session.terminal == terminal)
        })
    }

    fn open_session(&mut self, slot: Slot, kind: Kind, listener: ListenerIndex, now: Now) {
        let ack_at_once = self.acks_at_once(listener);
        let next_ping = now.plus_ms(self.config.heartbeat_interval_ms);
        let session = self.sessions.entry(slot.index);
        debug_assert!(session.kind == Kind::None, "a slot is logged in once");
        *session = Session {
            kind,
            ack_at_once,
            generation: slot.generation,
            window: WINDOW_MESSAGES,
            next_ping,
            ..Session::default()
        };
    }

    /// The first terminal of a user: rows of the store come first.
    fn catch_up(&mut self, index: u32, fx: &mut impl Effects) {
        if self.users.at(index).terminals.len() != 1 {
            return;
        }
        let inbox = self.users.at(index).inbox.take().unwrap_or_else(|| self.take_inbox());
        let user = self.users.at(index);
        let inbox = user.inbox.insert(inbox);
        inbox.mode = Mode::CatchingUp;
        inbox.read_after = 0;
        if mutants::on(Mutant::FlushBehindNew) {
            inbox.go_live();
        }
        self.read_more(index, fx);
    }

    /// Moves a session's heartbeat and retries by one interval.
    fn postpone(&mut self, slot: Slot, now: Now) {
        let ping = self.config.heartbeat_interval_ms;
        let Some(session) = self.session(slot) else { return };
        let retry = session.resends().map_or(0, |resends| resends.interval_ms.into());
        session.missed = 0;
        session.next_ping = session.next_ping.max(now.plus_ms(ping));
        for flight in session.flights.iter_mut() {
            flight.retry_at = flight.retry_at.max(now.plus_ms(retry));
        }
    }

    /// An interval of silence is over. `false`: it was the last, and the client is gone.
    fn heartbeat(&mut self, slot: Slot, now: Now, fx: &mut impl Effects) -> bool {
        let (interval, max) = (self.config.heartbeat_interval_ms, self.config.heartbeat_max_missed);
        let Some(session) = self.session(slot) else { return false };
        if session.manners.heartbeat.is_lost(session.missed, max) {
            self.hang_up(slot, CloseReason::HeartbeatLost, now, fx);
            return false;
        }
        session.missed += 1;
        session.next_ping = now.plus_ms(interval);
        fx.transmit(slot, &Outgoing::Ping);
        true
    }

    fn door_timer(&mut self, slot: Slot, now: Now, fx: &mut impl Effects) {
        let Some(front) = self.oldest_request(slot) else { return };
        let deadline = front.plus_ms(DOOR_DEADLINE_MS);
        if now >= deadline {
            return self.hang_up(slot, CloseReason::DoorTimeout, now, fx);
        }
        if let Some(session) = self.session(slot) {
            session.deadline.want(fx, Timer::Session(slot), deadline);
        }
    }

    pub(super) fn arm_session(&mut self, slot: Slot, fx: &mut impl Effects) {
        let Some(session) = self.session(slot) else { return };
        if session.kind == Kind::Terminal
            && let Some(at) = session.next_deadline()
        {
            session.deadline.want(fx, Timer::Session(slot), at);
        }
    }

    /// Removes a session. Its connection is the caller's to close.
    fn end(&mut self, slot: Slot, round: Round, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.session(slot) else { return };
        session.deadline.cancel(fx);
        let ended = std::mem::take(session);
        if ended.kind != Kind::Terminal {
            return;
        }
        let index = ended.user;
        let user = self.users.at(index);
        user.terminals.retain(|terminal| *terminal != slot);
        let last = user.terminals.is_empty();
        if let Some(inbox) = &mut user.inbox {
            for flight in ended.flights.iter() {
                if let Some(delivery) = inbox.find(flight.seq) {
                    delivery.flights -= 1;
                }
            }
        }
        let blame = if round == Round::Failed { self.blame(index, &ended, now, fx) } else { None };
        if ended.manners.room {
            self.leave_room(slot, index, fx);
        }
        if last {
            self.all_to_store(index, fx);
        } else {
            // What it was let go without is in the store: the others get it from there.
            self.users.at(index).requeued |= ended.flights.any_let_go();
            self.push_user(index, now, fx);
        }
        // Behind the append in the user's FIFO.
        if let Some(request) = blame {
            fx.store(request);
        }
        self.tidy_user(index, fx);
    }

    /// The store request for the message that a failed round is held against, if any.
    fn blame(
        &mut self,
        index: u32,
        ended: &Session,
        now: Now,
        fx: &mut impl Effects,
    ) -> Option<Request> {
        // Whether it has left for the socket does not matter: a receiver that reads the first
        // message of a long send and hangs up ends that send too.
        let (oldest, alone) = (ended.flights.iter().next()?.seq, ended.flights.len() == 1);
        let user = self.users.at(index);
        let (key, last) = (user.key, user.terminals.is_empty());
        let delivery = user.inbox.as_mut()?.find(oldest).filter(|delivery| !delivery.done)?;
        if matches!(delivery.kept, Kept::Copy { .. }) {
            // It is gone with the connection, and cannot come again.
            return None;
        }
        delivery.charges += u8::from(alone);
        if delivery.kept == Kept::Memory && !last {
            // It has no row; the other terminal may still take it.
            return None;
        }
        if delivery.charges < POISON_CHARGES {
            let seq = oldest;
            return Some(Request::FailedRound { user: key, seq, charge: alone });
        }
        self.counters.dead_letters += 1;
        if delivery.kept == Kept::Memory {
            // The dead letter needs a row first, and the sender his answer after it.
            return Some(Request::DeadLetter {
                user: key,
                seq: oldest,
                reason: DeadReason::Poison,
            });
        }
        delivery.done = true;
        let owed = std::mem::replace(&mut delivery.owed, crate::home::inbox::Owed::Nobody);
        debug_assert!(
            delivery.kept == Kept::Storing || owed == crate::home::inbox::Owed::Nobody,
            "a stored delivery owes nothing"
        );
        self.settle(owed, key, Outcome::FAILED, now, fx);
        Some(Request::DeadLetter { user: key, seq: oldest, reason: DeadReason::Poison })
    }

    /// The last terminal has gone: what the store does not have is appended, oldest first.
    fn all_to_store(&mut self, index: u32, fx: &mut impl Effects) {
        let user = self.users.at(index);
        let Some(inbox) = &mut user.inbox else { return };
        let appends = inbox.go_offline();
        inbox.invariants();
        if mutants::on(Mutant::ForgetOnDisconnect) {
            return;
        }
        for (seq, message) in appends {
            self.append(index, seq, message, fx);
        }
    }
}
