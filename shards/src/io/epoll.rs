//! [`EpollIo`]: the same [`Io`] on epoll and plain descriptors, for hosts that refuse io_uring.
//!
//! ```text
//!   receive:  readable? -> one recv, when its turn comes in `next` -> Received | ReceiveEnded
//!   send:     one sendmsg in `wait` -> Sent; short: the rest when epoll reports room
//!   close:    SendFailed of a send in flight, then shutdown and close in `next` -> Closed
//!   dial:     connect, writable? -> Dialed
//!   hand over: the descriptor goes through the target's inbox -> HandedOver, HandedIn there
//! ```
//!
//! Every descriptor is registered once, edge-triggered, and its readiness remembered in its slot:
//! an echo costs epoll_wait, recv and send. A receive that did not fill its buffer has emptied the
//! socket (epoll(7)), so that it need not be asked again. Bytes are read only when the caller asks
//! for the completion: it mostly gives the buffer back before it asks for the next, which is then
//! the same, still in the cache; an idle connection holds none.
//!
//! Waits are rounded up to milliseconds: finer ones need kernel 5.11 and a system call that the
//! hosts this is for may refuse as well. Never: `unsafe`, protocols.

mod buf;
mod listeners;
mod mailbox;
mod poller;
mod sockets;

pub use buf::EpollBuf;
pub use mailbox::EpollPeer;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crossbeam_channel::Receiver;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::EventFlags;
use rustix::io::{Errno as OsError, ioctl_fionbio};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use smallvec::SmallVec;

use crate::io::probe::SetupError;
use crate::io::progress::{IOVECS, Progress};
use crate::io::slots::{Flags, Op, tag, tag_index, untag};
use crate::io::sys::{self, Waker};
use crate::io::{
    ACCEPT_BACK_OFF_MS, Completion, Dial, Engine, Errno, Io, ListenerIndex, Now, SendBatch,
    ShardIndex, Sizes, Slot, Wait,
};
use crate::table::Slab;
use buf::Pool;
use listeners::Listeners;
use mailbox::HandIn;
use poller::{ENDED, Poller, READ, READ_WRITE};
use sockets::Sockets;

/// [`Io`] on epoll. Made, used and dropped on one thread.
#[derive(Debug)]
pub struct EpollIo {
    poller: Poller,
    sockets: Sockets,
    listeners: Listeners,
    /// Room below which nothing is accepted.
    reserve: u32,
    accepts_per_listener: u32,
    pool: Pool,
    /// Tokens of the connections being opened.
    dials: Slab<u64>,
    /// Batches that are not wholly sent.
    sends: Slab<Progress>,
    /// What `next` does or reports, in this order.
    ready: VecDeque<Ready>,
    /// Receives asked for that have something to read. Entries may be out of date.
    readable: Vec<Slot>,
    /// Sends asked for. Entries may be out of date.
    to_send: Vec<Slot>,
    /// Receives that wait for a buffer, oldest first. Entries may be out of date.
    starved: VecDeque<Slot>,
    /// The shared half of this engine, and its inbox.
    this: EpollPeer,
    arrivals: Receiver<HandIn>,
    peers: Vec<EpollPeer>,
    /// Its eventfd is never read: edges are reported all the same, and 2^64 wake-ups fit.
    waker: Waker,
    now: Now,
    /// The last wait returned at once, for what was ready, and did not ask the kernel.
    skipped: bool,
    counters: EpollCounters,
}

/// What happened in the engine that no completion tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpollCounters {
    /// Receives that found the buffer pool empty and were tried again.
    pub no_buffer: u64,
    /// Receives that were promised bytes, and found none.
    pub spurious: u64,
    /// Sends that found less room in the socket than they had bytes.
    pub short_sends: u64,
}

#[derive(Debug)]
enum Ready {
    Read(Slot),
    Close(Slot),
    /// The descriptor has gone to another engine.
    Gone(Slot),
    Done(Completion<EpollBuf>),
}

impl EpollIo {
    pub fn counters(&self) -> EpollCounters {
        self.counters
    }

    fn done(&mut self, completion: Completion<EpollBuf>) {
        self.ready.push_back(Ready::Done(completion));
    }

    /// Carries out one receive. `None`: there is nothing to report.
    fn read(&mut self, slot: Slot) -> Option<Completion<EpollBuf>> {
        let (record, socket) = self.sockets.get(slot)?;
        if !record.flags.any(Flags::RECEIVING) {
            return None;
        }
        let Some(mut bytes) = self.pool.take() else {
            self.counters.no_buffer += 1;
            record.flags.clear(Flags::RECEIVING);
            record.flags.set(Flags::STARVED);
            self.starved.push_back(slot);
            return None;
        };
        let room = bytes.capacity();
        let read =
            retry(|| rustix::net::recv(socket, spare_capacity(&mut bytes), RecvFlags::DONTWAIT));
        record.flags.clear(Flags::RECEIVING);
        let error = match read {
            Ok((len, _)) if len > 0 => {
                if len < room && !record.flags.any(Flags::ENDED) {
                    record.flags.clear(Flags::NONEMPTY);
                }
                return Some(Completion::Received { slot, buf: self.pool.lend(bytes) });
            }
            Ok(_) => None,
            Err(OsError::AGAIN) => {
                self.counters.spurious += 1;
                record.flags.clear(Flags::NONEMPTY);
                record.flags.set(Flags::POLLING);
                self.pool.give(bytes);
                return None;
            }
            Err(error) => Some(errno(error)),
        };
        self.pool.give(bytes);
        Some(Completion::ReceiveEnded { slot, error })
    }

    /// Goes on with the send of a connection, if it has one, until all is sent or the socket takes
    /// no more.
    fn transmit(&mut self, slot: Slot) {
        while let Some((record, socket)) = self.sockets.get(slot)
            && record.flags.any(Flags::SENDING)
        {
            let progress = self.sends.get_mut(record.send).expect("a send has its batch");
            let (bytes, short) = match push(socket, progress) {
                Ok(pushed) => pushed,
                Err(OsError::AGAIN) => return self.block(slot),
                Err(error) => return self.fail_send(slot, errno(error)),
            };
            let all = progress.advance(bytes);
            let batch = all.then(|| self.end_send(slot));
            self.done(Completion::Sent { slot, bytes, batch });
            if short {
                return self.block(slot);
            }
        }
    }

    /// The send goes on when epoll reports room: the kernel knows of its failure to find any.
    fn block(&mut self, slot: Slot) {
        let Some((record, socket)) = self.sockets.get(slot) else { return };
        self.counters.short_sends += 1;
        record.flags.set(Flags::BLOCKED);
        if !record.flags.any(Flags::ROOM_WATCHED) {
            record.flags.set(Flags::ROOM_WATCHED);
            if let Err(error) = self.poller.modify(socket, tag(Op::Poll, slot), READ_WRITE) {
                self.fail_send(slot, Errno(error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
    }

    fn fail_send(&mut self, slot: Slot, error: Errno) {
        let batch = self.end_send(slot);
        self.done(Completion::SendFailed { slot, error, batch });
    }

    /// The batch leaves the table.
    fn end_send(&mut self, slot: Slot) -> SendBatch {
        let (record, _) = self.sockets.get(slot).expect("a connection that sends");
        record.flags.clear(Flags::SENDING);
        record.flags.clear(Flags::BLOCKED);
        let progress = self.sends.remove(record.send).expect("a send has its batch");
        progress.into_batch()
    }

    /// Ends a dial that may have come to its end.
    fn finish_dial(&mut self, slot: Slot) {
        let Some((record, socket)) = self.sockets.get(slot) else { return };
        let result = match rustix::net::sockopt::socket_error(socket) {
            Ok(result) => result.map_err(errno),
            Err(error) => Err(errno(error)),
        };
        let token = self.dials.remove(record.send).expect("a dial has its token");
        record.flags.clear(Flags::DIALING);
        if result.is_err() {
            self.vacate(slot);
        }
        self.done(Completion::Dialed { token, result: result.map(|()| slot) });
    }

    /// What epoll reports of a connection.
    fn connection(&mut self, slot: Slot, flags: EventFlags) {
        let Some((record, _)) = self.sockets.get(slot) else { return };
        if record.flags.any(Flags::DIALING) && flags.intersects(EventFlags::OUT | ENDED) {
            self.finish_dial(slot);
        }
        // The server may have spoken already, and this is the only time that we are told.
        let Some((record, _)) = self.sockets.get(slot) else { return };
        if flags.intersects(READ | ENDED) {
            record.flags.set(Flags::NONEMPTY);
            if flags.intersects(ENDED) {
                record.flags.set(Flags::ENDED);
            }
            if record.flags.any(Flags::POLLING) {
                record.flags.clear(Flags::POLLING);
                record.flags.set(Flags::RECEIVING);
                self.ready.push_back(Ready::Read(slot));
            }
        }
        if record.flags.any(Flags::BLOCKED) && flags.intersects(EventFlags::OUT | ENDED) {
            record.flags.clear(Flags::BLOCKED);
            self.transmit(slot);
        }
    }

    /// Takes the connections that others have handed over.
    fn take_arrivals(&mut self) {
        self.this.heard();
        while let Ok(HandIn { socket, token }) = self.arrivals.try_recv() {
            let slot = self.sockets.insert(socket);
            if !self.register(slot) {
                // The sender was told that it is ours: the caller finds the end of it.
                let (record, socket) = self.sockets.get(slot).expect("just inserted");
                let _ = rustix::net::shutdown(socket, Shutdown::Both);
                record.flags.set(Flags::NONEMPTY);
            }
            self.done(Completion::HandedIn { slot, token });
        }
    }

    /// `false`: the kernel has no memory for it, or a limit of epoll is reached.
    fn register(&mut self, slot: Slot) -> bool {
        let (_, socket) = self.sockets.get(slot).expect("a connection that was just inserted");
        self.poller.add(socket, tag(Op::Poll, slot), READ).is_ok()
    }

    fn accept_all(&mut self) {
        self.listeners.advance(self.now);
        for index in 0..self.listeners.len() {
            let mut left = self.accepts_per_listener;
            while left > 0 && self.listeners.may_accept(index) && self.this.take_room(self.reserve)
            {
                self.accept(index);
                left -= 1;
            }
        }
    }

    /// Takes one connection from a listener; room was taken for it.
    fn accept(&mut self, index: usize) {
        let listener = index as ListenerIndex;
        let error = match self.listeners.accept(index) {
            Ok((socket, peer)) => {
                let slot = self.sockets.insert(socket);
                if self.register(slot) {
                    return self.done(Completion::Accepted { slot, listener, peer });
                }
                self.sockets.vacate(slot);
                OsError::NOMEM
            }
            Err(error) => error,
        };
        self.this.give_room();
        match error {
            OsError::AGAIN => return,
            OsError::CONNABORTED | OsError::PROTO | OsError::INTR => {}
            _ => self.listeners.back_off(index, self.now.plus_ms(ACCEPT_BACK_OFF_MS)),
        }
        self.done(Completion::AcceptFailed { listener, error: errno(error) });
    }

    /// Tries the receives that found no buffer again: as many as there are buffers.
    fn feed_starved(&mut self) {
        let mut available = self.pool.available();
        while available > 0
            && let Some(slot) = self.starved.pop_front()
        {
            let Some((record, _)) = self.sockets.get(slot) else { continue };
            if record.flags.any(Flags::STARVED) {
                record.flags.clear(Flags::STARVED);
                record.flags.set(Flags::RECEIVING);
                self.ready.push_back(Ready::Read(slot));
                available -= 1;
            }
        }
    }

    /// How long the wait may sleep; `None`: not at all.
    fn sleep(&self, wait: Wait) -> Option<Duration> {
        let Wait::Until(until) = wait else { return None };
        let room = self.this.room() > self.reserve;
        let somebody = |index| self.listeners.may_accept(index);
        if !self.ready.is_empty() || (room && (0..self.listeners.len()).any(somebody)) {
            return None;
        }
        let until = self.listeners.deadline().map_or(until, |deadline| deadline.min(until));
        let left = until.0.saturating_sub(sys::now().0);
        (left > 0).then(|| Duration::from_micros(left).min(LONGEST))
    }

    fn take_events(&mut self) {
        for at in 0..self.poller.events() {
            let (tag, flags) = self.poller.event(at);
            match untag(tag) {
                (Op::Accept, listener) => self.listeners.reported(listener.index as usize),
                (Op::Wake, _) => self.take_arrivals(),
                (_, slot) => self.connection(slot, flags),
            }
        }
    }

    /// Ends a close: the peer hears the end even if we have not read all it sent.
    fn finish_close(&mut self, slot: Slot) -> Completion<EpollBuf> {
        if let Some((_, socket)) = self.sockets.get(slot) {
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
        self.vacate(slot);
        Completion::Closed { slot }
    }

    fn vacate(&mut self, slot: Slot) {
        self.sockets.vacate(slot);
        self.this.give_room();
    }
}

impl Io for EpollIo {
    type Buf = EpollBuf;

    fn now(&self) -> Now {
        self.now
    }

    fn clock(&self) -> Now {
        sys::now()
    }

    fn figures(&self) -> Vec<(&'static str, &'static str, u64)> {
        let EpollCounters { no_buffer, spurious, short_sends } = self.counters;
        vec![
            ("epoll_no_buffer", "Receives that found the buffer pool empty and waited.", no_buffer),
            ("epoll_spurious_reads", "Receives promised bytes that found none.", spurious),
            ("epoll_short_sends", "Sends that waited for room in the socket.", short_sends),
        ]
    }

    fn capacity(&self) -> u32 {
        self.sockets.capacity()
    }

    fn set_accepting(&mut self, on: bool) {
        self.listeners.set_on(on);
    }

    fn receive(&mut self, slot: Slot) {
        let Some((record, _)) = self.sockets.get(slot) else { return };
        if record.flags.any(Flags::CLOSING) {
            return;
        }
        debug_assert!(!record.flags.any(Flags::RECEIVE), "one receive per connection");
        if record.flags.any(Flags::NONEMPTY) {
            record.flags.set(Flags::RECEIVING);
            self.readable.push(slot);
        } else {
            record.flags.set(Flags::POLLING);
        }
    }

    fn recycle(&mut self, buf: EpollBuf) {
        self.pool.recycle(buf);
    }

    fn send(&mut self, slot: Slot, batch: SendBatch) {
        debug_assert!(!batch.is_empty(), "a send carries bytes");
        let Some((record, _)) = self.sockets.get(slot) else { return };
        if record.flags.any(Flags::CLOSING) || batch.is_empty() {
            return;
        }
        assert!(!record.flags.any(Flags::SENDING), "one send per connection");
        record.flags.set(Flags::SENDING);
        record.send = self.sends.insert(Progress::new(batch));
        self.to_send.push(slot);
    }

    fn unsent(&mut self, slot: Slot) {
        let Some((record, socket)) = self.sockets.get(slot) else { return };
        if !record.flags.any(Flags::CLOSING) {
            // What is reported sent before this was in the socket when the kernel was asked.
            let bytes = sys::unsent(socket);
            self.done(Completion::Unsent { slot, bytes });
        }
    }

    fn close(&mut self, slot: Slot) {
        let Some((record, _)) = self.sockets.get(slot) else { return };
        if record.flags.any(Flags::CLOSING) {
            return;
        }
        let sending = record.flags.any(Flags::SENDING);
        record.flags.set(Flags::CLOSING);
        record.flags.clear(Flags::RECEIVE);
        if sending {
            self.fail_send(slot, Errno(libc::ECANCELED));
        }
        self.ready.push_back(Ready::Close(slot));
    }

    fn hand_over(&mut self, slot: Slot, to: ShardIndex, token: u64) {
        let Some((record, socket)) = self.sockets.get(slot) else { return };
        if record.flags.any(Flags::CLOSING) {
            return;
        }
        let busy = record.flags.any(Flags::RECEIVE) || record.flags.any(Flags::BUSY);
        debug_assert!(!busy, "nothing is armed or in flight on a connection that is handed over");
        let peer = self.peers.get(usize::from(to)).filter(|_| !busy);
        let refused = match peer {
            None => Some(if busy { libc::EBUSY } else { libc::ESRCH }),
            Some(peer) => (!peer.take_room(0)).then_some(libc::ENFILE),
        };
        if let (None, Some(peer)) = (refused, peer) {
            self.poller.delete(socket);
            let socket = self.sockets.take(slot).expect("its descriptor was just used");
            match peer.hand_in(socket, token) {
                Ok(()) => {
                    peer.ring();
                    return self.ready.push_back(Ready::Gone(slot));
                }
                Err(socket) => {
                    self.sockets.put_back(slot, socket);
                    self.register(slot);
                }
            }
        }
        let error = Errno(refused.unwrap_or(libc::EPIPE));
        self.done(Completion::HandedOver { slot, result: Err(error) });
    }

    fn doorbell(&mut self, to: ShardIndex) {
        if let Some(peer) = self.peers.get(usize::from(to)) {
            peer.ring();
        }
    }

    fn wait(&mut self, wait: Wait) {
        self.feed_starved();
        self.ready.extend(self.readable.drain(..).map(Ready::Read));
        let mut to_send = std::mem::take(&mut self.to_send);
        to_send.drain(..).for_each(|slot| self.transmit(slot));
        self.to_send = to_send;
        // What the sends brought is worth a turn of its own, which mostly ends in a wait that can
        // sleep; but never twice in a row, so that nobody else is kept waiting.
        self.skipped = !self.skipped && !self.ready.is_empty();
        if !self.skipped {
            let sleep = self.sleep(wait);
            self.poller.wait(sleep);
        }
        self.now = sys::now();
        if !self.skipped {
            self.take_events();
            self.accept_all();
        }
    }

    fn next(&mut self) -> Option<Completion<EpollBuf>> {
        loop {
            match self.ready.pop_front()? {
                Ready::Done(completion) => return Some(completion),
                Ready::Read(slot) => match self.read(slot) {
                    Some(completion) => return Some(completion),
                    None => continue,
                },
                Ready::Close(slot) => return Some(self.finish_close(slot)),
                Ready::Gone(slot) => {
                    self.vacate(slot);
                    return Some(Completion::HandedOver { slot, result: Ok(()) });
                }
            }
        }
    }
}

impl Dial for EpollIo {
    fn dial(&mut self, socket: OwnedFd, to: SocketAddr, token: u64) {
        if !self.this.take_room(0) {
            return self.done(Completion::Dialed { token, result: Err(Errno(libc::ENFILE)) });
        }
        let slot = self.sockets.insert(socket);
        let (record, socket) = self.sockets.get(slot).expect("just inserted");
        record.flags.set(Flags::DIALING);
        record.flags.set(Flags::ROOM_WATCHED);
        record.send = self.dials.insert(token);
        let error = match rustix::net::connect(socket, &to) {
            Ok(()) | Err(OsError::INPROGRESS) => {
                let added = self.poller.add(socket, tag(Op::Poll, slot), READ_WRITE);
                added.err().map(|_| OsError::NOMEM)
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            self.dials.remove(record.send);
            self.vacate(slot);
            self.done(Completion::Dialed { token, result: Err(errno(error)) });
        }
    }
}

impl Engine for EpollIo {
    type Peer = EpollPeer;

    fn open(sizes: Sizes, listeners: Vec<OwnedFd>) -> Result<Self, SetupError> {
        let reserve = sizes.check(listeners.len())?;
        let step = |step| move |error| SetupError::of(step, &error);
        let poller = Poller::new().map_err(step("making the epoll set"))?;
        let (bell, waker) = sys::waker().map_err(step("making the waker's eventfd"))?;
        let registering = step("registering with epoll");
        poller.add(&bell, tag_index(Op::Wake, 0), EventFlags::IN).map_err(registering)?;
        for (index, listener) in listeners.iter().enumerate() {
            let tag = tag_index(Op::Accept, index as u32);
            let add = || {
                ioctl_fionbio(listener, true)?;
                poller.add(listener, tag, EventFlags::IN)
            };
            add().map_err(registering)?;
        }
        let (this, arrivals) = EpollPeer::new(sizes.slots, waker.clone());
        Ok(Self {
            poller,
            sockets: Sockets::new(sizes.slots),
            listeners: Listeners::new(listeners),
            reserve,
            accepts_per_listener: sizes.accepts_per_listener,
            pool: Pool::new(sizes.buffers, sizes.buffer_size),
            dials: Slab::new(),
            sends: Slab::new(),
            ready: VecDeque::new(),
            readable: Vec::new(),
            to_send: Vec::new(),
            starved: VecDeque::new(),
            this,
            arrivals,
            peers: Vec::new(),
            waker,
            now: sys::now(),
            skipped: false,
            counters: EpollCounters::default(),
        })
    }

    fn peer(&self) -> EpollPeer {
        self.this.clone()
    }

    fn connect_peers(&mut self, peers: Vec<EpollPeer>) {
        self.peers = peers;
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn free_slots(&self) -> u32 {
        self.this.room()
    }
}

/// One request for what is left of a batch: the bytes sent, and whether the socket had no room for
/// more. A short send has told the kernel to report when there is some (epoll(7)).
fn push(socket: BorrowedFd<'_>, progress: &Progress) -> Result<(usize, bool), OsError> {
    let pieces: SmallVec<[IoSlice<'_>; STACK_IOVECS]> =
        progress.rest().take(IOVECS).map(IoSlice::new).collect();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let bytes = retry(|| match &pieces[..] {
        [piece] => rustix::net::send(socket, piece, flags),
        pieces => {
            let mut none = SendAncillaryBuffer::default();
            rustix::net::sendmsg(socket, pieces, &mut none, flags)
        }
    })?;
    Ok((bytes, bytes < pieces.iter().map(|piece| piece.len()).sum()))
}

fn retry<T>(mut call: impl FnMut() -> Result<T, OsError>) -> Result<T, OsError> {
    loop {
        match call() {
            Err(OsError::INTR) => {}
            result => return result,
        }
    }
}

fn errno(error: OsError) -> Errno {
    Errno(error.raw_os_error())
}

/// Longest sleep: longer ones are not a number of milliseconds that every kernel takes.
const LONGEST: Duration = Duration::from_secs(3600);
/// Pieces of a send that need no memory of their own.
const STACK_IOVECS: usize = 16;
