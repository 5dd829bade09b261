//! One terminal's login on its home shard: heartbeat, window, what is in flight to it.
//!
//! A session is a flat record in a table indexed by connection slot. Never: bytes, sockets.

use std::collections::VecDeque;

use codec::{Acks, Heartbeat, Manners, ProtocolId, Resends};

use crate::home::answers::AnswerQueue;
use crate::home::dedup::IdHash;
use crate::home::effects::{Effects, Timer};
use crate::io::{Now, Slot};
use crate::limits::{LET_GO, SPARE_FLIGHTS, WINDOW_BYTES, WINDOW_MESSAGES, WINDOW_SILENCE_MS};
use crate::timers::TimerId;

/// What kind of peer a session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No session on this slot.
    #[default]
    None,
    /// A logged-in user's terminal.
    Terminal,
    /// A back end at the publish door.
    Door,
}

/// A push the terminal has not acknowledged.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) seq: u64,
    /// Made of the message id: most comparisons end here.
    pub(crate) tag: u64,
    /// Output offset behind the last copy queued.
    pub(crate) end: u64,
    /// Once `sent`: when the next copy is due.
    pub(crate) retry_at: Now,
    pub(crate) body_bytes: u32,
    /// Copies queued so far.
    pub(crate) copies: u8,
    /// The last copy queued has left for the socket.
    pub(crate) sent: bool,
}

/// A push that left the window without an acknowledgement, which may still come.
#[derive(Debug)]
struct LetGo {
    seq: u64,
    id: IdHash,
}

/// What a terminal has not acknowledged, oldest first: what is in flight to it, and what it was
/// given up. Allocated only while there is something.
#[derive(Debug, Default)]
pub(crate) struct Flights(Option<Box<Flying>>);

/// What a terminal with pushes in flight keeps.
#[derive(Debug, Default)]
pub(crate) struct Flying {
    queue: VecDeque<Flight>,
    body_bytes: usize,
    /// Output bytes the peer's kernel has acknowledged, and since when that has not grown although
    /// there was more.
    drained: u64,
    stalled: Option<Now>,
    /// The last acknowledgement.
    heard: Now,
    /// At most [`LET_GO`], all pushed before what is in the queue.
    let_go: VecDeque<LetGo>,
}

/// Allocations kept for the next flights, so that a message in flight costs none.
#[derive(Debug, Default)]
pub(crate) struct FlightPool(
    #[expect(clippy::vec_box, reason = "boxes are reused")] Vec<Box<Flying>>,
);

impl Flights {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|flying| flying.queue.is_empty())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |flying| flying.queue.len())
    }

    /// Body bytes of all.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |flying| flying.body_bytes)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.0.iter().flat_map(|flying| &flying.queue)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.0.iter_mut().flat_map(|flying| &mut flying.queue)
    }

    pub(crate) fn push(&mut self, flight: Flight, pool: &mut FlightPool) {
        let flying = self.0.get_or_insert_with(|| pool.0.pop().unwrap_or_default());
        flying.body_bytes += flight.body_bytes as usize;
        flying.queue.push_back(flight);
    }

    /// Takes the flight at a position of [`Self::iter`].
    pub(crate) fn remove(&mut self, position: usize, pool: &mut FlightPool) -> Option<Flight> {
        let flying = self.0.as_mut()?;
        let flight = flying.queue.remove(position)?;
        flying.body_bytes -= flight.body_bytes as usize;
        self.tidy(pool);
        Some(flight)
    }

    /// Takes a flight out that was not acknowledged; `id`: by which that may still be done.
    pub(crate) fn let_go(&mut self, position: usize, id: IdHash) {
        let Some(flying) = self.0.as_mut() else { return };
        let Some(flight) = flying.queue.remove(position) else { return };
        flying.body_bytes -= flight.body_bytes as usize;
        if flying.let_go.len() == LET_GO {
            flying.let_go.pop_front();
        }
        flying.let_go.push_back(LetGo { seq: flight.seq, id });
    }

    pub(crate) fn any_let_go(&self) -> bool {
        self.0.as_ref().is_some_and(|flying| !flying.let_go.is_empty())
    }

    /// Takes the oldest push that was let go, of those with `id` if one is named; its `seq`.
    pub(crate) fn take_let_go(&mut self, id: Option<IdHash>, pool: &mut FlightPool) -> Option<u64> {
        let let_go = &mut self.0.as_mut()?.let_go;
        let position = let_go.iter().position(|gone| id.is_none_or(|id| gone.id == id))?;
        let gone = let_go.remove(position)?;
        self.tidy(pool);
        Some(gone.seq)
    }

    /// Nothing that was let go is known any more.
    pub(crate) fn forget_let_go(&mut self, pool: &mut FlightPool) {
        if let Some(flying) = &mut self.0 {
            flying.let_go.clear();
        }
        self.tidy(pool);
    }

    /// The client has acknowledged something.
    pub(crate) fn heard(&mut self, now: Now) {
        if let Some(flying) = &mut self.0 {
            flying.heard = now;
        }
    }

    /// Keeps the allocation for others when nothing is left.
    fn tidy(&mut self, pool: &mut FlightPool) {
        let left = |flying: &mut Box<Flying>| flying.queue.is_empty() && flying.let_go.is_empty();
        if let Some(mut idle) = self.0.take_if(left)
            && pool.0.len() < SPARE_FLIGHTS
            && idle.queue.capacity() <= usize::from(WINDOW_MESSAGES)
        {
            idle.drained = 0;
            idle.stalled = None;
            idle.heard = Now(0);
            idle.let_go = VecDeque::new();
            pool.0.push(idle);
        }
    }

    /// The peer's kernel has acknowledged output up to `drained`; `false` if nothing has drained
    /// for `limit_ms`, although something is `left`.
    pub(crate) fn progress(&mut self, drained: u64, left: bool, now: Now, limit_ms: u64) -> bool {
        let Some(flying) = &mut self.0 else { return true };
        if drained > flying.drained || !left {
            flying.drained = drained.max(flying.drained);
            flying.stalled = left.then_some(now);
        }
        now.ms_since(*flying.stalled.get_or_insert(now)) < limit_ms
    }
}

#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) kind: Kind,
    pub(crate) manners: Manners,
    pub(crate) protocol: Option<ProtocolId>,
    /// Which of the user's terminals it is: one session each.
    pub(crate) terminal: u64,
    /// Messages that may be in flight: [`WINDOW_MESSAGES`], or fewer after a failed round.
    pub(crate) window: u8,
    /// Heartbeats since the last packet of the client.
    pub(crate) missed: u8,
    pub(crate) invalid: u8,
    /// This terminal's publishes are acknowledged on receipt (`ack = "received"`).
    pub(crate) ack_at_once: bool,
    /// It has asked something (a name, who is here, contacts) that is not answered: what comes
    /// behind it must not overtake it.
    pub(crate) waiting: bool,
    /// Nothing is sent again, and what is in flight holds up more: silence gives it up.
    pub(crate) held: bool,
    /// An `unsent` answer is awaited.
    pub(crate) asked_unsent: bool,
    /// Publishes of this connection not yet safe.
    pub(crate) outstanding: u16,
    pub(crate) generation: u32,
    /// Index of the user's record; a terminal keeps it alive.
    pub(crate) user: u32,
    /// Deliveries below this `seq` have been pushed.
    pub(crate) cursor: u64,
    pub(crate) flights: Flights,
    pub(crate) next_ping: Now,
    /// Where answers have an order.
    pub(crate) answers: Option<Box<AnswerQueue>>,
    pub(crate) deadline: Deadline,
}

impl Session {
    pub(crate) fn is(&self, slot: Slot) -> bool {
        self.kind != Kind::None && self.generation == slot.generation
    }

    /// The client is there: silence counts from now on.
    pub(crate) fn heard(&mut self, now: Now, interval_ms: u64) {
        self.missed = 0;
        self.next_ping = now.plus_ms(interval_ms);
    }

    /// One more message of `bytes` may be pushed: a window is 64 messages or 64 KiB, but never
    /// less than one message.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.flights.is_empty()
            || (self.flights.len() < usize::from(self.window)
                && self.flights.bytes() + bytes <= WINDOW_BYTES)
    }

    /// After a failed round the window restarts at one and doubles with each acknowledgement.
    pub(crate) fn widen(&mut self) {
        self.window = self.window.saturating_mul(2).min(WINDOW_MESSAGES);
    }

    /// When the session's timer must fire next, if it must.
    pub(crate) fn next_deadline(&self) -> Option<Now> {
        // While the answer about the socket is awaited, it decides about retries, not the timer.
        let waiting = |flight: &&Flight| flight.sent && !self.asked_unsent;
        let flights = self.flights.iter().filter(waiting).filter(|_| self.looks_after_flights());
        let quiet_at = self.quiet_at();
        let retry = flights.map(|flight| flight.retry_at.max(quiet_at));
        let ping = (self.manners.heartbeat != Heartbeat::None).then_some(self.next_ping);
        retry.chain(ping).min()
    }

    /// Time alone does something about what is in flight: it is sent again, or asked for.
    pub(crate) fn looks_after_flights(&self) -> bool {
        self.manners.resends.is_some() || self.manners.acks == Acks::Bytes || self.held
    }

    /// The rule by which silence is answered at the moment, if it is.
    pub(crate) fn resends(&self) -> Option<Resends> {
        let silence = Resends { interval_ms: WINDOW_SILENCE_MS, max: 0, ends: false };
        self.manners.resends.or_else(|| self.held.then_some(silence))
    }

    /// A client that holds up its window but acknowledges is slow, not silent: until then.
    pub(crate) fn quiet_at(&self) -> Now {
        let heard = self.flights.0.as_ref().map_or(Now(0), |flying| flying.heard);
        if self.held { heard.plus_ms(WINDOW_SILENCE_MS.into()) } else { Now(0) }
    }
}

/// A timer that is only ever moved earlier; firing early is harmless, its owner looks what is due.
///
/// A deadline that moves later (an acknowledgement) costs nothing this way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadline {
    armed: Option<TimerId>,
    /// When it fires, in milliseconds since start; means nothing unless armed.
    at_ms: u32,
}

impl Deadline {
    pub(crate) fn want(&mut self, fx: &mut impl Effects, timer: Timer, at: Now) {
        // Wraps after 49 days, with every deadline less than half of that away.
        let at_ms = (at.0 / 1_000) as u32;
        match self.armed {
            Some(_) if at_ms.wrapping_sub(self.at_ms) < u32::MAX / 2 => return,
            Some(id) => fx.cancel(id),
            None => {}
        }
        *self = Self { armed: Some(fx.arm(timer, at)), at_ms };
    }

    /// The timer has fired.
    pub(crate) fn fired(&mut self) {
        self.armed = None;
    }

    pub(crate) fn cancel(&mut self, fx: &mut impl Effects) {
        if let Some(id) = self.armed.take() {
            fx.cancel(id);
        }
    }
}
