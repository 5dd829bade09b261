//! [`UringIo`]: the life of each connection, from the completion of its accept to its close.
//!
//! ```text
//!   receive:  POLL -> RECV (never waits) -> Received | ReceiveEnded
//!                       |  ENOBUFS: waits in `starved` for a buffer   EAGAIN: POLL again
//!   close:    cancel POLL, SEND -> their own ends -> (SHUTDOWN ->) CLOSE -> Closed
//!   hand over: MSG_RING -> CLOSE of our half, no SHUTDOWN -> HandedOver
//!   dial:     FILES_UPDATE (the kernel chooses the slot) -> CONNECT -> Dialed
//! ```
//!
//! Owns: the table of slots, the accepts, what waits for a buffer. Never: `unsafe`, protocols.
//!
//! Why POLL and then RECV: an armed POLL costs 250 B of kernel memory per idle connection, an armed
//! RECV with `POLL_FIRST` and buffer selection 610 to 870 B. For 1,000 echoing connections the
//! server's CPU per echo was the same within the noise (batches: 6.5 against 6.7 us, 16 in
//! flight: 9.4 and 9.4 us, kernel 6.18, busy machine). RECV never waits, so it has nothing to
//! cancel, and it goes first when the last one told that bytes were left.
//!
//! Why SHUTDOWN before CLOSE: a peer that still sends would hear a reset instead of the end, after
//! a hand-over the other ring's half may keep the socket, and up to kernel 6.12 a closed slot
//! keeps it, without FIN, until requests of *other* slots that were submitted before it have
//! ended. SHUTDOWN runs on a kernel worker of the ring, which is most of what a close costs: where
//! a peer has left of his own accord, later kernels are spared it: a million who left at once were
//! closed in 17 s (`perf/million.sh`, kernel 6.18).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use crate::io::probe::{self, SetupError};
use crate::io::slots::{Flags, Op, Slots, tag, tag_index, untag_token};
use crate::io::sys::{self, Waker};
use crate::io::uring::accepts::{Accepts, Change};
use crate::io::uring::{Done, RecvBuf, Ring};
use crate::io::{
    ACCEPT_BACK_OFF_MS, Completion, Dial, Engine, Errno, Io, ListenerIndex, Now, SendBatch,
    ShardIndex, Sizes, Slot, Wait,
};

/// The sizes of one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringConfig {
    /// Submission queue. When it is full the engine submits early.
    pub entries: u32,
    /// Completion queue. When it is full the kernel keeps the rest in memory of its own.
    pub cq_entries: u32,
    /// Connections at once: the file table. At most the soft limit of open files.
    pub slots: u32,
    /// Slots kept free for hand-overs: accepts are withdrawn below. At least the listeners are
    /// kept in any case.
    pub slot_reserve: u32,
    /// Receive buffers, 1 to 32,768, and the bytes of each.
    pub buffers: u16,
    pub buffer_size: u32,
    pub accepts_per_listener: u32,
}

impl Default for UringConfig {
    fn default() -> Self {
        Sizes::default().into()
    }
}

impl From<Sizes> for UringConfig {
    fn from(sizes: Sizes) -> Self {
        let Sizes { slots, slot_reserve, buffers, buffer_size, accepts_per_listener } = sizes;
        // Few buffers mean small turns; what does not fit is submitted early, or kept for us.
        let entries = (u32::from(buffers) * 2).clamp(512, 4096).next_power_of_two();
        Self {
            entries,
            cq_entries: 4 * entries,
            slots,
            slot_reserve,
            buffers,
            buffer_size,
            accepts_per_listener,
        }
    }
}

impl UringConfig {
    fn sizes(&self) -> Sizes {
        let Self { slots, slot_reserve, buffers, buffer_size, accepts_per_listener, .. } = *self;
        Sizes { slots, slot_reserve, buffers, buffer_size, accepts_per_listener }
    }
}

/// What happened in the engine that no completion tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UringCounters {
    /// Receives that found the buffer pool empty and were tried again.
    pub no_buffer: u64,
    /// Receives that a poll had promised bytes, and found none.
    pub spurious: u64,
}

/// [`Io`] on io_uring. Made, used and dropped on one thread.
#[derive(Debug)]
pub struct UringIo {
    ring: Ring,
    slots: Slots,
    accepts: Accepts,
    /// Receives that wait for a buffer, oldest first. Entries may be out of date.
    starved: VecDeque<Slot>,
    /// Completions made here, before those of the ring.
    ready: VecDeque<Completion<RecvBuf>>,
    peers: Vec<Peer>,
    waker: Waker,
    now: Now,
    counters: UringCounters,
    /// The kernel has no socket commands: nobody needs to ask again.
    unsent_unknown: bool,
    /// A closed slot lets go of its socket at once.
    closes_at_once: bool,
}

/// Another shard's ring.
#[derive(Clone, Copy, Debug)]
struct Peer {
    ring: RawFd,
    /// The submission that its last doorbell is part of.
    rung: Option<u32>,
}

impl UringIo {
    /// Makes a ring for this thread. Nothing is accepted before [`Io::set_accepting`].
    pub fn new(config: UringConfig, listeners: Vec<OwnedFd>) -> Result<Self, SetupError> {
        let reserve = config.sizes().check(listeners.len())?;
        if config.entries == 0 || config.cq_entries < config.entries {
            let wrong = "entries must be at least 1, and cq_entries at least that";
            return Err(SetupError::Config(wrong));
        }
        let accepts = Accepts::new(listeners, config.accepts_per_listener, reserve);
        let uring = probe::build(config.entries, config.cq_entries)?;
        probe::register_slots(&uring, config.slots)?;
        let step = |step| move |error| SetupError::at(step, &error);
        let bufs = crate::io::bufs::BufPool::new(config.buffers, config.buffer_size)
            .map_err(step("mapping the receive buffers"))?;
        let (eventfd, waker) = sys::waker().map_err(step("making the waker's eventfd"))?;
        let mut ring = Ring::new(uring, bufs, accepts.ops(), eventfd)
            .map_err(step("registering the receive buffers"))?;
        ring.await_wake();
        Ok(Self {
            ring,
            slots: Slots::new(config.slots),
            accepts,
            starved: VecDeque::new(),
            ready: VecDeque::new(),
            peers: Vec::new(),
            waker,
            now: sys::now(),
            counters: UringCounters::default(),
            unsent_unknown: false,
            closes_at_once: probe::kernel_at_least(6, 13),
        })
    }

    pub fn counters(&self) -> UringCounters {
        self.counters
    }

    fn complete(&mut self, done: Done) -> Option<Completion<RecvBuf>> {
        match done.op {
            Op::Accept => self.accepted(done),
            Op::Poll => self.polled(done),
            Op::Receive => self.received(done),
            Op::Send => self.sent(done),
            Op::Unsent => self.answered(done),
            Op::Shutdown => {
                self.ring.close(done.slot, Op::Close);
                None
            }
            Op::Close => {
                self.slots.vacate(done.slot);
                Some(Completion::Closed { slot: done.slot })
            }
            Op::HandOver => self.handed_over(done),
            Op::Retire => {
                self.slots.vacate(done.slot);
                Some(Completion::HandedOver { slot: done.slot, result: Ok(()) })
            }
            Op::HandedIn => {
                let slot = self.slots.occupy(done.result as u32);
                if let Some(record) = self.slots.get(slot) {
                    record.flags.set(Flags::HANDED);
                }
                Some(Completion::HandedIn { slot, token: untag_token(done.user_data) })
            }
            Op::Wake => {
                self.ring.await_wake();
                None
            }
            Op::Install => self.installed(done),
            Op::Connect => Some(self.connected(done)),
            Op::Discard => {
                self.slots.vacate(done.slot);
                None
            }
            Op::Doorbell | Op::Ignored => None,
        }
    }

    fn installed(&mut self, done: Done) -> Option<Completion<RecvBuf>> {
        let op = done.slot.index;
        if done.result < 0 {
            let token = self.ring.end_dial(op).token;
            return Some(Completion::Dialed { token, result: Err(Errno(-done.result)) });
        }
        let slot = self.slots.occupy(self.ring.installed(op));
        self.ring.connect(op, slot);
        None
    }

    fn connected(&mut self, done: Done) -> Completion<RecvBuf> {
        let dial = self.ring.end_dial(done.slot.index);
        let (token, slot) = (dial.token, dial.slot);
        if done.result >= 0 {
            return Completion::Dialed { token, result: Ok(slot) };
        }
        if let Some(record) = self.slots.get(slot) {
            record.flags.set(Flags::ENDING);
        }
        self.ring.close(slot, Op::Discard);
        Completion::Dialed { token, result: Err(Errno(-done.result)) }
    }

    fn accepted(&mut self, done: Done) -> Option<Completion<RecvBuf>> {
        let op = done.slot.index;
        let withdrawn = self.accepts.completed(op);
        let listener: ListenerIndex = self.accepts.listener(op);
        if done.result >= 0 {
            let slot = self.slots.occupy(done.result as u32);
            return Some(Completion::Accepted { slot, listener, peer: self.ring.peer(op) });
        }
        let error = -done.result;
        if error == libc::ECANCELED && withdrawn {
            return None;
        }
        if !matches!(error, libc::ECONNABORTED | libc::EPROTO | libc::EAGAIN | libc::EINTR) {
            self.accepts.back_off(op, self.now.plus_ms(ACCEPT_BACK_OFF_MS));
        }
        Some(Completion::AcceptFailed { listener, error: Errno(error) })
    }

    fn polled(&mut self, done: Done) -> Option<Completion<RecvBuf>> {
        let slot = done.slot;
        let record = self.slots.get(slot)?;
        record.flags.clear(Flags::POLLING);
        if record.flags.any(Flags::CLOSING) {
            self.finish_close(slot);
            return None;
        }
        if done.result < 0 {
            record.flags.set(Flags::ENDED);
            return Some(Completion::ReceiveEnded { slot, error: Some(Errno(-done.result)) });
        }
        record.flags.set(Flags::RECEIVING);
        self.ring.receive(slot);
        None
    }

    fn received(&mut self, done: Done) -> Option<Completion<RecvBuf>> {
        let slot = done.slot;
        let len = done.result.max(0) as u32;
        let buf = done.buffer().map(|id| self.ring.bufs().take(id, len));
        let record = self.slots.get(slot);
        let wanted = record.is_some_and(|record| {
            record.flags.clear(Flags::RECEIVING);
            !record.flags.any(Flags::CLOSING)
        });
        if !wanted || len == 0 {
            if let Some(buf) = buf {
                self.ring.bufs().give(buf);
            }
            if !wanted {
                self.finish_close(slot);
                return None;
            }
            return self.received_nothing(slot, -done.result);
        }
        if done.nonempty() {
            self.slots.get(slot)?.flags.set(Flags::NONEMPTY);
        }
        let buf = buf.expect("bytes were received, and only into a buffer of the pool");
        Some(Completion::Received { slot, buf })
    }

    /// A receive on a live connection brought no bytes. `error` 0: the peer is done.
    fn received_nothing(&mut self, slot: Slot, error: i32) -> Option<Completion<RecvBuf>> {
        let record = self.slots.get(slot)?;
        match error {
            libc::ENOBUFS => {
                self.counters.no_buffer += 1;
                record.flags.set(Flags::STARVED);
                self.starved.push_back(slot);
                None
            }
            libc::EAGAIN | libc::EINTR => {
                self.counters.spurious += 1;
                record.flags.set(Flags::POLLING);
                self.ring.poll(slot);
                None
            }
            error => {
                record.flags.set(Flags::ENDED);
                let error = (error != 0).then_some(Errno(error));
                Some(Completion::ReceiveEnded { slot, error })
            }
        }
    }

    fn sent(&mut self, done: Done) -> Option<Completion<RecvBuf>> {
        let index = done.slot.index;
        let slot = self.ring.sends().slot(index);
        let record = self.slots.get(slot)?;
        let closing = record.flags.any(Flags::CLOSING);
        let bytes = done.result.max(0) as usize;
        let all = bytes > 0 && self.ring.sends().advance(index, bytes);
        let again = bytes > 0 || matches!(-done.result, libc::EINTR | libc::EAGAIN);
        if !all && again && !closing {
            self.ring.send(index);
            return (bytes > 0).then_some(Completion::Sent { slot, bytes, batch: None });
        }
        record.flags.clear(Flags::SENDING);
        let batch = self.ring.sends().remove(index);
        self.finish_close(slot);
        if all {
            return Some(Completion::Sent { slot, bytes, batch: Some(batch) });
        }
        let error = Errno(if again { libc::ECANCELED } else { -done.result });
        Some(Completion::SendFailed { slot, error, batch })
    }

    fn answered(&mut self, done: Done) -> Option<Completion<RecvBuf>> {
        let slot = done.slot;
        let record = self.slots.get(slot)?;
        record.flags.clear(Flags::ASKING);
        if record.flags.any(Flags::CLOSING) {
            self.finish_close(slot);
            return None;
        }
        if done.result == -libc::EOPNOTSUPP {
            self.unsent_unknown = true;
        }
        Some(Completion::Unsent { slot, bytes: u32::try_from(done.result).ok() })
    }

    fn handed_over(&mut self, done: Done) -> Option<Completion<RecvBuf>> {
        let slot = done.slot;
        let record = self.slots.get(slot)?;
        record.flags.clear(Flags::HANDING);
        if done.result >= 0 {
            record.flags.set(Flags::ENDING);
            self.ring.close(slot, Op::Retire);
            return None;
        }
        self.finish_close(slot);
        Some(Completion::HandedOver { slot, result: Err(Errno(-done.result)) })
    }

    /// Goes on with a close once nothing is outstanding on the slot.
    fn finish_close(&mut self, slot: Slot) {
        let Some(record) = self.slots.get(slot) else { return };
        if record.flags.any(Flags::CLOSING) && !record.flags.any(Flags::BUSY) {
            record.flags.set(Flags::ENDING);
            let has_left = record.flags.any(Flags::ENDED) && !record.flags.any(Flags::HANDED);
            match has_left && self.closes_at_once {
                true => self.ring.close(slot, Op::Close),
                false => self.ring.shutdown(slot),
            }
        }
    }

    /// Tries the receives that found no buffer again: as many as there can be buffers.
    fn feed_starved(&mut self) {
        let mut available = self.ring.bufs().available();
        while available > 0
            && let Some(slot) = self.starved.pop_front()
        {
            let Some(record) = self.slots.get(slot) else { continue };
            if record.flags.any(Flags::STARVED) {
                record.flags.clear(Flags::STARVED);
                record.flags.set(Flags::RECEIVING);
                self.ring.receive(slot);
                available -= 1;
            }
        }
    }

    fn adjust_accepts(&mut self) {
        while let Some(change) = self.accepts.adjust(self.now, self.slots.free()) {
            match change {
                Change::Arm { op, listener } => self.ring.accept(op, listener),
                Change::Withdraw { op } => self.ring.cancel(tag_index(Op::Accept, op)),
            }
        }
    }

    /// How long the wait may sleep; `None`: not at all.
    fn sleep(&mut self, until: Now) -> Option<Duration> {
        if !self.ready.is_empty() || self.ring.has_completions() {
            return None;
        }
        let until = self.accepts.deadline().map_or(until, |deadline| deadline.min(until));
        let left = until.0.saturating_sub(sys::now().0);
        (left > 0).then(|| Duration::from_micros(left))
    }
}

impl Io for UringIo {
    type Buf = RecvBuf;

    fn now(&self) -> Now {
        self.now
    }

    fn clock(&self) -> Now {
        sys::now()
    }

    fn figures(&self) -> Vec<(&'static str, &'static str, u64)> {
        let UringCounters { no_buffer, spurious } = self.counters;
        vec![
            ("ring_no_buffer", "Receives that found the buffer pool empty and waited.", no_buffer),
            ("ring_spurious_polls", "Polls that promised bytes and had none.", spurious),
        ]
    }

    fn capacity(&self) -> u32 {
        self.slots.capacity()
    }

    fn set_accepting(&mut self, on: bool) {
        self.accepts.set_on(on);
    }

    fn receive(&mut self, slot: Slot) {
        let Some(record) = self.slots.get(slot) else { return };
        if record.flags.any(Flags::CLOSING) {
            return;
        }
        debug_assert!(!record.flags.any(Flags::RECEIVE), "one receive per connection");
        if record.flags.any(Flags::NONEMPTY) {
            record.flags.clear(Flags::NONEMPTY);
            record.flags.set(Flags::RECEIVING);
            self.ring.receive(slot);
        } else {
            record.flags.set(Flags::POLLING);
            self.ring.poll(slot);
        }
    }

    fn recycle(&mut self, buf: RecvBuf) {
        self.ring.bufs().give(buf);
    }

    fn send(&mut self, slot: Slot, batch: SendBatch) {
        debug_assert!(!batch.is_empty(), "a send carries bytes");
        let Some(record) = self.slots.get(slot) else { return };
        if record.flags.any(Flags::CLOSING) || batch.is_empty() {
            return;
        }
        assert!(!record.flags.any(Flags::SENDING), "one send per connection");
        record.flags.set(Flags::SENDING);
        record.send = self.ring.sends().insert(slot, batch);
        self.ring.send(record.send);
    }

    fn unsent(&mut self, slot: Slot) {
        let Some(record) = self.slots.get(slot) else { return };
        if record.flags.any(Flags::CLOSING) || record.flags.any(Flags::ASKING) {
            return;
        }
        if self.unsent_unknown {
            self.ready.push_back(Completion::Unsent { slot, bytes: None });
            return;
        }
        record.flags.set(Flags::ASKING);
        self.ring.unsent(slot);
    }

    fn close(&mut self, slot: Slot) {
        let Some(record) = self.slots.get(slot) else { return };
        if record.flags.any(Flags::CLOSING) {
            return;
        }
        record.flags.set(Flags::CLOSING);
        record.flags.clear(Flags::STARVED);
        if record.flags.any(Flags::POLLING) {
            self.ring.cancel(tag(Op::Poll, slot));
        }
        if record.flags.any(Flags::SENDING) {
            self.ring.cancel(tag_index(Op::Send, record.send));
        }
        self.finish_close(slot);
    }

    fn hand_over(&mut self, slot: Slot, to: ShardIndex, token: u64) {
        assert!(token >> 48 == 0, "a token has 48 bits");
        let Some(record) = self.slots.get(slot) else { return };
        let busy = record.flags.any(Flags::BUSY) || record.flags.any(Flags::STARVED);
        debug_assert!(!busy, "nothing is armed or in flight on a connection that is handed over");
        let peer = self.peers.get(usize::from(to)).filter(|_| !busy);
        let Some(peer) = peer else {
            let result = Err(Errno(if busy { libc::EBUSY } else { libc::ESRCH }));
            self.ready.push_back(Completion::HandedOver { slot, result });
            return;
        };
        record.flags.set(Flags::HANDING);
        self.ring.hand_over(slot, peer.ring, token);
    }

    fn doorbell(&mut self, to: ShardIndex) {
        let submission = Some(self.ring.submits());
        let Some(peer) = self.peers.get_mut(usize::from(to)) else { return };
        if peer.rung != submission {
            peer.rung = submission;
            self.ring.doorbell(peer.ring);
        }
    }

    fn wait(&mut self, wait: Wait) {
        self.feed_starved();
        self.adjust_accepts();
        let sleep = match wait {
            Wait::Poll => None,
            Wait::Until(until) => self.sleep(until),
        };
        self.ring.enter(sleep);
        self.now = sys::now();
    }

    fn next(&mut self) -> Option<Completion<RecvBuf>> {
        loop {
            if let Some(completion) = self.ready.pop_front() {
                return Some(completion);
            }
            let done = self.ring.reap()?;
            if let Some(completion) = self.complete(done) {
                return Some(completion);
            }
        }
    }
}

impl Dial for UringIo {
    fn dial(&mut self, socket: OwnedFd, to: SocketAddr, token: u64) {
        self.ring.install(socket, to, token);
    }
}

impl Engine for UringIo {
    /// The ring's descriptor. It stays this ring's until it is dropped; a message to a ring that
    /// is gone fails without harm.
    type Peer = RawFd;

    fn open(sizes: Sizes, listeners: Vec<OwnedFd>) -> Result<Self, SetupError> {
        Self::new(sizes.into(), listeners)
    }

    fn peer(&self) -> RawFd {
        self.ring.fd()
    }

    fn connect_peers(&mut self, peers: Vec<RawFd>) {
        self.peers = peers.into_iter().map(|ring| Peer { ring, rung: None }).collect();
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn free_slots(&self) -> u32 {
        self.slots.free()
    }
}
