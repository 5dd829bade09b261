//! The loop of one worker: one ring, many connections, at most one send per connection and turn.
//!
//! Owns: connections, what is queued to be sent. Never: knows what is sent or why; a [`Handler`]
//! does.

mod conn;

pub(crate) use conn::{Closed, Port};

use crate::client::{Client, Event, Login};
use crate::dialer::Dialer;
use conn::{Conn, State};
use hdrhistogram::Histogram;
use shards::io::probe::SetupError;
use shards::io::sys::{self, Waker};
use shards::io::uring::{RecvBuf, UringConfig, UringIo};
use shards::io::{Completion, Dial, Engine as _, Io, Now, Piece, SendBatch, Slot, Wait};
use std::io;
use std::time::{Duration, Instant};

/// What happens on logged-in connections.
pub(crate) trait Handler<C: Client> {
    /// Called for every event of connection `conn`, in order.
    fn on_event(&mut self, conn: usize, event: Event<'_>, port: &mut Port<'_, C>);
}

/// Nanoseconds since the run began, the same on all workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// All connections of a worker.
pub(crate) struct Engine<C> {
    io: UringIo,
    /// By number, as the scenario counts them; `None`: closed, or never opened.
    conns: Vec<Option<Conn<C>>>,
    /// By slot index: the connection that has it.
    owners: Vec<u32>,
    dialer: Dialer,
    /// Connections with something to send.
    dirty: Vec<usize>,
    scratch: Scratch,
    closed: Vec<(usize, Closed)>,
    pub clock: Clock,
    /// Connections that are logged in now.
    pub connected: u64,
    /// Logins since the start.
    pub logins: u64,
}

/// Buffers that serve one connection after the other.
struct Scratch {
    /// Input that is decrypted, or continues a spill.
    input: Vec<u8>,
    /// Output before encryption.
    plain: Vec<u8>,
    /// Buffers of sends that have ended.
    spare: Vec<Vec<u8>>,
}

impl<C: Client> Engine<C> {
    /// `slots`: connections at once.
    pub(crate) fn new(dialer: Dialer, clock: Clock, slots: u32) -> Result<Self, SetupError> {
        let config = UringConfig {
            entries: 2048,
            cq_entries: 8192,
            slots,
            slot_reserve: 0,
            buffers: if slots > MANY { 256 } else { 2048 },
            ..UringConfig::default()
        };
        Ok(Self {
            io: UringIo::new(config, Vec::new())?,
            conns: Vec::new(),
            owners: vec![0; slots as usize],
            dialer,
            dirty: Vec::new(),
            scratch: Scratch { input: Vec::new(), plain: Vec::new(), spare: Vec::new() },
            closed: Vec::new(),
            clock,
            connected: 0,
            logins: 0,
        })
    }

    /// Wakes this engine's turn from other threads.
    pub(crate) fn waker(&self) -> Waker {
        self.io.waker()
    }

    /// Connects `login` as connection `index`, which is not in use.
    pub(crate) fn open(&mut self, index: usize, login: Login) -> io::Result<()> {
        let (socket, tls) = (self.dialer.socket()?, self.dialer.tls()?);
        let conn = Conn::new(C::new(login), tls, self.clock.now_ns());
        if index >= self.conns.len() {
            self.conns.resize_with(index + 1, || None);
        }
        let before = self.conns[index].replace(conn);
        assert!(before.is_none(), "connection {index} is still in use");
        self.io.dial(socket, self.dialer.endpoint.address, index as u64);
        Ok(())
    }

    /// Sends what is queued, waits for completions until `deadline_ns` at most, and works them off.
    pub(crate) fn turn(&mut self, handler: &mut impl Handler<C>, deadline_ns: u64) {
        self.flush();
        let wait = Duration::from_nanos(deadline_ns.saturating_sub(self.clock.now_ns()));
        let wait = match wait.as_micros() as u64 {
            0 => Wait::Poll,
            micros => Wait::Until(Now(sys::now().0 + micros)),
        };
        self.io.wait(wait);
        while let Some(completion) = self.io.next() {
            self.complete(completion, handler);
        }
    }

    /// Lets `act` say something on a connection that has no input at the moment. `false`: it is
    /// not connected.
    pub(crate) fn with(&mut self, index: usize, act: impl FnOnce(&mut Port<'_, C>)) -> bool {
        let now_ns = self.clock.now_ns();
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        let Some(conn) = conn.filter(|conn| conn.is_live()) else { return false };
        let said = conn.say(&mut self.scratch.plain, now_ns, act);
        self.settle(index, said);
        true
    }

    /// Hangs up without a word.
    pub(crate) fn hang_up(&mut self, index: usize) {
        let conn = self.conns.get(index).and_then(Option::as_ref);
        if let Some(State::Live(slot)) = conn.map(|conn| conn.state) {
            self.close(slot, Closed::Asked);
        }
    }

    /// Hangs up behind what is already said: an acknowledgement that the server never gets makes a
    /// push come again.
    pub(crate) fn leave(&mut self, index: usize) {
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        if let Some(conn) = conn.filter(|conn| conn.is_live()) {
            conn.closing = true;
            self.settle(index, Ok(()));
        }
    }

    /// Hangs up on all, and waits until they are closed, for some seconds at most. A ring that is
    /// dropped with many connections occupies the kernel much longer, and with it everybody else.
    /// Those that the server has not taken yet are not waited for: they end with the ring.
    pub(crate) fn hang_up_all(&mut self) {
        let end_ns = self.clock.now_ns() + HANG_UP.as_nanos() as u64;
        loop {
            let all = 0..self.conns.len();
            all.for_each(|index| self.hang_up(index));
            let now_ns = self.clock.now_ns();
            let dials = |conn: &Conn<C>| conn.state == State::Dialing;
            if now_ns >= end_ns || self.conns.iter().flatten().all(dials) {
                return;
            }
            self.turn(&mut Unheard, end_ns.min(now_ns + HANG_UP_TURN.as_nanos() as u64));
            self.closed.clear();
        }
    }

    /// A connection that closed since the last call.
    pub(crate) fn next_closed(&mut self) -> Option<(usize, Closed)> {
        self.closed.pop()
    }

    fn complete(&mut self, completion: Completion<RecvBuf>, handler: &mut impl Handler<C>) {
        match completion {
            Completion::Dialed { token, result } => match result {
                Ok(slot) => self.dialed(token as usize, slot),
                Err(error) => {
                    let error = io::Error::from_raw_os_error(error.0);
                    self.end(token as usize, Closed::Broken(error));
                }
            },
            Completion::Received { slot, buf } => self.received(slot, buf, handler),
            Completion::ReceiveEnded { slot, error } => {
                let why = error.map_or(Closed::ByServer, |error| {
                    Closed::Broken(io::Error::from_raw_os_error(error.0))
                });
                self.close(slot, why);
            }
            Completion::Sent { slot, batch: Some(batch), .. } => self.sent(slot, batch),
            Completion::Sent { batch: None, .. } => {}
            Completion::SendFailed { slot, error, .. } => {
                self.close(slot, Closed::Broken(io::Error::from_raw_os_error(error.0)));
            }
            Completion::Closed { slot } => self.released(slot),
            Completion::Accepted { .. }
            | Completion::AcceptFailed { .. }
            | Completion::HandedIn { .. }
            | Completion::HandedOver { .. }
            | Completion::Unsent { .. } => unreachable!("a client never asks for these"),
        }
    }

    fn dialed(&mut self, index: usize, slot: Slot) {
        self.owners[slot.index as usize] = index as u32;
        let Some(conn) = &mut self.conns[index] else { return };
        conn.state = State::Live(slot);
        self.io.receive(slot);
        let endpoint = self.dialer.endpoint.clone();
        let said = conn.hello(&endpoint, &mut self.scratch.plain);
        self.settle(index, said);
    }

    fn received(&mut self, slot: Slot, mut buf: RecvBuf, handler: &mut impl Handler<C>) {
        let index = self.owner(slot);
        let Some(conn) = &mut self.conns[index] else { return };
        if !conn.is_live() {
            self.io.recycle(buf);
            return;
        }
        let now_ns = self.clock.now_ns();
        let mut logged_in = false;
        let Scratch { input, plain, .. } = &mut self.scratch;
        let heard = conn.hear(&mut buf, input, plain, now_ns, &mut |event, port| {
            logged_in |= event == Event::Ready;
            handler.on_event(index, event, port);
        });
        self.io.recycle(buf);
        if logged_in {
            conn.logged_in = true;
            self.connected += 1;
            self.logins += 1;
        }
        if heard.is_ok() {
            self.io.receive(slot);
        }
        self.settle(index, heard);
    }

    fn sent(&mut self, slot: Slot, batch: SendBatch) {
        let index = self.owner(slot);
        let Some(conn) = &mut self.conns[index] else { return };
        conn.sending = false;
        for piece in *batch.pieces {
            if let Piece::Owned(mut bytes) = piece
                && self.scratch.spare.len() < SPARES
                && bytes.capacity() <= SPARE_BYTES
            {
                bytes.clear();
                self.scratch.spare.push(bytes);
            }
        }
        self.settle(index, Ok(()));
    }

    /// After something was said or heard: notes what is to be sent, or ends the connection.
    fn settle(&mut self, index: usize, outcome: Result<(), Closed>) {
        let Some(conn) = &mut self.conns[index] else { return };
        let State::Live(slot) = conn.state else { return };
        match outcome {
            Err(why) => self.close(slot, why),
            Ok(()) if conn.sending => {}
            Ok(()) if !conn.out.is_empty() => {
                if !conn.dirty {
                    conn.dirty = true;
                    self.dirty.push(index);
                }
            }
            Ok(()) if conn.closing => self.close(slot, Closed::Asked),
            Ok(()) => {}
        }
    }

    fn flush(&mut self) {
        for index in self.dirty.drain(..) {
            let Some(conn) = &mut self.conns[index] else { continue };
            conn.dirty = false;
            let State::Live(slot) = conn.state else { continue };
            if !conn.sending && !conn.out.is_empty() {
                conn.sending = true;
                let next = self.scratch.spare.pop().unwrap_or_default();
                let bytes = std::mem::replace(&mut conn.out, next);
                self.io.send(slot, SendBatch::from_iter([Piece::Owned(bytes)]));
            }
        }
    }

    fn close(&mut self, slot: Slot, why: Closed) {
        let index = self.owner(slot);
        let Some(conn) = &mut self.conns[index] else { return };
        if conn.state == State::Live(slot) {
            conn.state = State::Closing;
            conn.why = Some(why);
            self.io.close(slot);
        }
    }

    fn released(&mut self, slot: Slot) {
        let index = self.owner(slot);
        let why = self.conns[index].as_mut().and_then(|conn| conn.why.take());
        self.end(index, why.expect("only we close, and we say why"));
    }

    fn end(&mut self, index: usize, why: Closed) {
        let conn = self.conns[index].take();
        self.connected -= u64::from(conn.is_some_and(|conn| conn.logged_in));
        self.closed.push((index, why));
    }

    fn owner(&self, slot: Slot) -> usize {
        self.owners[slot.index as usize] as usize
    }
}

/// Nobody cares any more what comes.
struct Unheard;

impl<C: Client> Handler<C> for Unheard {
    fn on_event(&mut self, _: usize, _: Event<'_>, _: &mut Port<'_, C>) {}
}

/// How long a ring may take to close its connections, and how long one turn of that.
const HANG_UP: Duration = Duration::from_secs(120);
const HANG_UP_TURN: Duration = Duration::from_millis(50);

/// From 1 us to 60 s with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are constant")
}

/// From so many connections on, rings are expected to be many and get small buffer pools.
const MANY: u32 = 16_384;
/// Buffers of ended sends that are kept, and the largest.
const SPARES: usize = 4096;
const SPARE_BYTES: usize = 16 * 1024;
