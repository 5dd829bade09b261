//! The ring itself: every request we make of the kernel, and the memory it may touch meanwhile.
//!
//! `Ring` has a safe interface. Invariants of the `unsafe` behind it: a request with pointers
//! leads only into `Held`, whose blocks do not move and are not touched by us from the push of
//! the request to the reading of its completion; `Ring` counts those requests (`Held::busy`), and
//! when it is dropped cancels them and awaits their ends, or leaks the memory. The state machine
//! over it is [`UringIo`], in `uring/engine.rs`, without `unsafe`. Never: decides anything.
#![allow(unsafe_code)]

mod accepts;
mod dials;
mod engine;
mod sends;

pub use crate::io::bufs::RecvBuf;
pub use engine::{UringConfig, UringCounters, UringIo};

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{Error, Result};
use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags as SqeFlags};
use io_uring::{IoUring, cqueue, opcode, types};
use socket2::{SockAddr, SockAddrStorage};

use crate::io::Slot;
use crate::io::bufs::{self, BufPool};
use crate::io::slots::{Op, tag, tag_index, tag_token, untag};
use crate::io::uring::dials::{DialOp, Dials};
use crate::io::uring::sends::Sends;

/// A completion, read.
#[derive(Clone, Copy, Debug)]
struct Done {
    op: Op,
    /// As the request was tagged; for operations without a slot only the index means something.
    slot: Slot,
    user_data: u64,
    /// Not negative: success.
    result: i32,
    flags: u32,
}

impl Done {
    /// The buffer the kernel chose.
    fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The receive left bytes in the socket.
    fn nonempty(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }
}

/// Where one accept has its peer's address written.
struct PeerCell {
    address: UnsafeCell<SockAddrStorage>,
    len: UnsafeCell<libc::socklen_t>,
    armed: bool,
}

/// All memory of ours that the kernel may touch.
struct Held {
    bufs: BufPool,
    sends: Sends,
    dials: Dials,
    /// Never grows, so the cells stay where they are.
    peers: Vec<PeerCell>,
    /// Where the waker's counter is read to.
    counter: Rc<UnsafeCell<u64>>,
    wake: Arc<File>,
    /// Requests outstanding that may touch any of it, sends apart.
    busy: usize,
}

/// One io_uring, its file table, its buffers.
struct Ring {
    uring: ManuallyDrop<IoUring>,
    held: ManuallyDrop<Held>,
    /// Requests that did not fit while the kernel refused to take more.
    backlog: VecDeque<Entry>,
    /// Counts the system calls that submit.
    submits: u32,
}

impl Ring {
    /// `uring` was made by this thread, with a file table. `accepts`: accept operations.
    fn new(uring: IoUring, bufs: BufPool, accepts: usize, wake: Arc<File>) -> Result<Self> {
        let peer = || PeerCell {
            address: UnsafeCell::new(SockAddrStorage::zeroed()),
            len: UnsafeCell::new(0),
            armed: false,
        };
        let held = Held {
            bufs,
            sends: Sends::new(),
            dials: Dials::new(),
            peers: std::iter::repeat_with(peer).take(accepts).collect(),
            counter: Rc::new(UnsafeCell::new(0)),
            wake,
            busy: 0,
        };
        let ring = Self {
            uring: ManuallyDrop::new(uring),
            held: ManuallyDrop::new(held),
            backlog: VecDeque::new(),
            submits: 0,
        };
        // SAFETY: the pool is in `held`, which `drop` lets go only after the ring, if at all.
        unsafe { ring.held.bufs.register(&ring.uring.submitter())? };
        Ok(ring)
    }

    fn fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// A number that changes with each submission.
    fn submits(&self) -> u32 {
        self.submits
    }

    fn bufs(&mut self) -> &mut BufPool {
        &mut self.held.bufs
    }

    /// Batches whose request has completed may be advanced and removed through this.
    fn sends(&mut self) -> &mut Sends {
        &mut self.held.sends
    }

    /// Puts a socket into the file table, at an index of the kernel's choice.
    fn install(&mut self, socket: OwnedFd, to: SocketAddr, token: u64) {
        let (index, entry) = self.held.dials.install(socket, to, token);
        self.held.busy += 1;
        // SAFETY: the request's pointer leads into a heap block of the table's entry, which is in
        // `held` and neither changes nor leaves before `reap` has seen the completion.
        unsafe { self.push(entry.user_data(tag_index(Op::Install, index))) };
    }

    /// Connects an installed socket.
    fn connect(&mut self, index: u32, slot: Slot) {
        let entry = self.held.dials.connect(index, slot);
        self.held.busy += 1;
        // SAFETY: as in `install`.
        unsafe { self.push(entry.user_data(tag_index(Op::Connect, index))) };
    }

    /// The table index a completed install brought.
    fn installed(&mut self, index: u32) -> u32 {
        self.held.dials.installed(index)
    }

    /// Ends a dial, connected or not. Its requests have completed.
    fn end_dial(&mut self, index: u32) -> DialOp {
        self.held.dials.remove(index)
    }

    /// Arms one accept that lets the kernel choose the slot.
    fn accept(&mut self, op: u32, listener: RawFd) {
        let cell = &mut self.held.peers[op as usize];
        assert!(!cell.armed, "one request per address");
        cell.armed = true;
        *cell.len.get_mut() = size_of::<SockAddrStorage>() as libc::socklen_t;
        let entry =
            opcode::Accept::new(types::Fd(listener), cell.address.get().cast(), cell.len.get())
                .file_index(Some(types::DestinationSlot::auto_target()))
                .build();
        self.held.busy += 1;
        // SAFETY: address and length are cells of `held`, marked armed until the completion.
        unsafe { self.push(entry.user_data(tag_index(Op::Accept, op))) };
    }

    /// The address a completed accept brought.
    fn peer(&self, op: u32) -> SocketAddr {
        let cell = &self.held.peers[op as usize];
        assert!(!cell.armed, "the kernel may still write the address");
        // SAFETY: the accept has completed, so the kernel is done with both cells, and wrote at
        // most `len` bytes of an address into the storage.
        let address = unsafe { SockAddr::new(cell.address.get().read(), *cell.len.get()) };
        address.as_socket().unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// Asks to hear once when the socket is readable, hung up or failed.
    fn poll(&mut self, slot: Slot) {
        let entry = opcode::PollAdd::new(types::Fixed(slot.index), libc::POLLIN as u32).build();
        // SAFETY: the request has no pointers.
        unsafe { self.push(entry.user_data(tag(Op::Poll, slot))) };
    }

    /// Receives what is there into a buffer of the kernel's choice; never waits.
    fn receive(&mut self, slot: Slot) {
        let entry = opcode::Recv::new(types::Fixed(slot.index), std::ptr::null_mut(), 0)
            .buf_group(bufs::GROUP)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(SqeFlags::BUFFER_SELECT);
        self.held.busy += 1;
        // SAFETY: the kernel writes only into a buffer of the registered pool, which is in `held`.
        unsafe { self.push(entry.user_data(tag(Op::Receive, slot))) };
    }

    /// Sends what is left of a batch of the send table.
    fn send(&mut self, index: u32) {
        let entry = self.held.sends.request(index);
        // SAFETY: the pointers lead into heap blocks of the table's entry, which is in `held` and
        // neither changes nor leaves before `reap` has seen the completion (`Sends` asserts it).
        unsafe { self.push(entry.user_data(tag_index(Op::Send, index))) };
    }

    /// Asks how many bytes of the socket's queue the peer has not acknowledged.
    fn unsent(&mut self, slot: Slot) {
        let entry = opcode::UringCmd16::new(types::Fixed(slot.index), SIOCOUTQ).build();
        // SAFETY: this command has no pointers.
        unsafe { self.push(entry.user_data(tag(Op::Unsent, slot))) };
    }

    fn shutdown(&mut self, slot: Slot) {
        let entry = opcode::Shutdown::new(types::Fixed(slot.index), libc::SHUT_RDWR).build();
        // SAFETY: the request has no pointers.
        unsafe { self.push(entry.user_data(tag(Op::Shutdown, slot))) };
    }

    /// Frees the slot in the file table. `op` says why.
    fn close(&mut self, slot: Slot, op: Op) {
        let entry = opcode::Close::new(types::Fixed(slot.index)).build();
        // SAFETY: the request has no pointers.
        unsafe { self.push(entry.user_data(tag(op, slot))) };
    }

    /// Asks the kernel to end the request with this tag soon. Its own completion still comes.
    fn cancel(&mut self, user_data: u64) {
        let entry = opcode::AsyncCancel::new(user_data).build().flags(SqeFlags::SKIP_SUCCESS);
        // SAFETY: the request has no pointers.
        unsafe { self.push(entry.user_data(tag_index(Op::Ignored, 0))) };
    }

    /// Passes the socket in `slot` to another ring, which hears the token.
    fn hand_over(&mut self, slot: Slot, peer: RawFd, token: u64) {
        let entry = opcode::MsgRingSendFd::new(
            types::Fd(peer),
            types::Fixed(slot.index),
            types::DestinationSlot::auto_target(),
            tag_token(token),
        )
        .build();
        // SAFETY: the request has no pointers.
        unsafe { self.push(entry.user_data(tag(Op::HandOver, slot))) };
    }

    fn doorbell(&mut self, peer: RawFd) {
        let data = tag_index(Op::Doorbell, 0);
        let entry = opcode::MsgRingData::new(types::Fd(peer), 0, data, None).build();
        let entry = entry.flags(SqeFlags::SKIP_SUCCESS);
        // SAFETY: the request has no pointers.
        unsafe { self.push(entry.user_data(tag_index(Op::Ignored, 0))) };
    }

    /// Listens for the next call of a waker.
    fn await_wake(&mut self) {
        let fd = types::Fd(self.held.wake.as_raw_fd());
        let entry = opcode::Read::new(fd, self.held.counter.get().cast(), 8).build();
        self.held.busy += 1;
        // SAFETY: the eight bytes are in `held`, and nobody reads them.
        unsafe { self.push(entry.user_data(tag_index(Op::Wake, 0))) };
    }

    /// Queues a request for the next submission.
    ///
    /// # Safety
    ///
    /// Pointers in the request lead into `held`, to memory that nothing else touches before the
    /// completion is read, and the request is counted in `busy` or is a send.
    unsafe fn push(&mut self, entry: Entry) {
        // SAFETY: the caller promises that the request's pointers stay good.
        let pushed =
            self.backlog.is_empty() && unsafe { self.uring.submission().push(&entry) }.is_ok();
        if !pushed {
            self.backlog.push_back(entry);
            self.drain_backlog();
        }
    }

    /// Moves requests into the submission queue, submitting when it is full.
    fn drain_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the caller of `push` has promised that the request's pointers stay good.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                self.backlog.pop_front();
            } else if !self.flush() {
                return;
            }
        }
    }

    /// Submits without waiting. `false`: the kernel takes nothing at the moment.
    fn flush(&mut self) -> bool {
        self.submits = self.submits.wrapping_add(1);
        match self.uring.submit() {
            Ok(submitted) => submitted > 0,
            Err(error) => {
                tolerate(&error);
                false
            }
        }
    }

    /// The one system call of a turn: submits, runs what the kernel has deferred, and sleeps up to
    /// `timeout` if nothing has completed. `None`: does not sleep.
    fn enter(&mut self, timeout: Option<Duration>) {
        self.drain_backlog();
        self.submits = self.submits.wrapping_add(1);
        let submitter = self.uring.submitter();
        let result = match timeout.filter(|_| self.backlog.is_empty()) {
            Some(timeout) => {
                let timeout = types::Timespec::from(timeout);
                submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(&timeout))
            }
            None => {
                // SAFETY: no other view of the submission queue exists at this point.
                let pending = unsafe { self.uring.submission_shared() }.len() as u32;
                // SAFETY: `GETEVENTS` takes no argument; the entries keep the promise of `push`.
                unsafe { submitter.enter::<libc::sigset_t>(pending, 0, GETEVENTS, None) }
            }
        };
        if let Err(error) = result {
            tolerate(&error);
        }
    }

    /// The next completion, if one has been posted. The memory of its request is ours again.
    fn reap(&mut self) -> Option<Done> {
        let entry = self.uring.completion().next()?;
        let (op, slot) = untag(entry.user_data());
        match op {
            Op::Accept => {
                self.held.peers[slot.index as usize].armed = false;
                self.held.busy -= 1;
            }
            Op::Receive | Op::Wake => self.held.busy -= 1,
            Op::Install | Op::Connect => {
                self.held.dials.completed(slot.index);
                self.held.busy -= 1;
            }
            Op::Send => self.held.sends.completed(slot.index),
            _ => {}
        }
        let (user_data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
        Some(Done { op, slot, user_data, result, flags })
    }

    /// Completions are waiting to be read.
    fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Cancels everything and waits, for a bounded time, until the kernel holds none of our
    /// memory. `false`: it still does.
    fn quiesce(&mut self) -> bool {
        let any = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        // SAFETY: the request has no pointers.
        unsafe { self.push(any.user_data(tag_index(Op::Ignored, 0))) };
        let end = Instant::now() + QUIESCE;
        while Instant::now() < end {
            self.enter(Some(QUIESCE_ROUND));
            while let Some(done) = self.reap() {
                if done.op == Op::Send {
                    drop(self.held.sends.remove(done.slot.index));
                }
            }
            if self.held.busy == 0 && self.held.sends.len() == 0 {
                return true;
            }
        }
        false
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring(fd {}, {} busy, {:?})", self.fd(), self.held.busy, self.held.sends)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let quiet = self.quiesce();
        if quiet {
            // Closes the sockets now; the end of the ring would do so some time later.
            let _ = self.uring.submitter().unregister_files();
        }
        // SAFETY: `uring` is not used again.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
        if quiet {
            // SAFETY: `held` is not used again, and no request that may touch it is outstanding.
            // Otherwise it is leaked: the ring's end in the kernel is not awaited by its close.
            unsafe { ManuallyDrop::drop(&mut self.held) };
        }
    }
}

/// Accepts the errors of `io_uring_enter` after which the loop simply goes on: interrupted, timed
/// out, completions to be read first, memory short for now. Everything else is a bug of ours or
/// the loss of completions, which nobody can act for.
fn tolerate(error: &Error) {
    match error.raw_os_error() {
        Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {}
        Some(libc::EBADR) => panic!("the kernel had no memory to keep completions: {error}"),
        _ => panic!("io_uring_enter: {error}"),
    }
}

/// `IORING_ENTER_GETEVENTS`: run deferred work even if nothing is waited for.
const GETEVENTS: u32 = 1;
/// `SOCKET_URING_OP_SIOCOUTQ`.
const SIOCOUTQ: u32 = 1;
/// How long the end of a ring may take, and one sleep of it.
const QUIESCE: Duration = Duration::from_secs(2);
const QUIESCE_ROUND: Duration = Duration::from_millis(10);
