//! The connections being opened, and the memory their requests point to.
//!
//! ```text
//!   plain socket -> FILES_UPDATE (the kernel chooses the slot) -> CONNECT -> Dialed
//! ```
//!
//! The socket is made and bound by plain system calls, because binding a direct descriptor needs
//! kernel 6.11. Never: talks to the kernel.

use std::cell::UnsafeCell;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use socket2::SockAddr;

use crate::io::Slot;
use crate::table::Slab;

/// One connection being opened. At most one request of it is in the kernel's hands.
#[derive(Debug)]
pub(crate) struct DialOp {
    pub(crate) token: u64,
    /// Valid from [`Dials::connect`] on.
    pub(crate) slot: Slot,
    cell: Box<Cell>,
    /// Until the file table has its own hold on it.
    socket: Option<OwnedFd>,
    in_flight: bool,
}

/// What requests point to; stays where it is while the dial lasts.
#[derive(Debug)]
struct Cell {
    /// Holds the descriptor to install; the kernel writes the chosen index over it.
    file: UnsafeCell<RawFd>,
    to: SockAddr,
}

/// All dials of one ring.
#[derive(Debug)]
pub(crate) struct Dials {
    ops: Slab<DialOp>,
}

impl Dials {
    pub(crate) fn new() -> Self {
        Self { ops: Slab::new() }
    }

    /// Takes a socket in. The request puts it into the file table.
    pub(crate) fn install(&mut self, socket: OwnedFd, to: SocketAddr, token: u64) -> (u32, Entry) {
        let file = UnsafeCell::new(socket.as_raw_fd());
        let cell = Box::new(Cell { file, to: to.into() });
        let slot = Slot { index: u32::MAX, generation: 0 };
        let socket = Some(socket);
        let index = self.ops.insert(DialOp { token, slot, cell, socket, in_flight: true });
        let op = self.ops.get(index).expect("just inserted");
        let entry = opcode::FilesUpdate::new(op.cell.file.get().cast_const(), 1);
        (index, entry.offset(CHOOSE).build())
    }

    /// The index the kernel has chosen.
    pub(crate) fn installed(&mut self, index: u32) -> u32 {
        let op = self.ops.get_mut(index).expect("a dial is known until its last completion");
        assert!(!op.in_flight, "the kernel may still write the index");
        *op.cell.file.get_mut() as u32
    }

    /// The request that connects the installed socket. Its plain descriptor is closed.
    pub(crate) fn connect(&mut self, index: u32, slot: Slot) -> Entry {
        let op = self.ops.get_mut(index).expect("a dial is known until its last completion");
        assert!(!op.in_flight, "one request per dial");
        op.in_flight = true;
        op.slot = slot;
        op.socket = None;
        let to = &op.cell.to;
        opcode::Connect::new(types::Fixed(slot.index), to.as_ptr().cast(), to.len()).build()
    }

    /// The kernel has finished the request it held.
    pub(crate) fn completed(&mut self, index: u32) {
        let op = self.ops.get_mut(index).expect("a dial is known until its last completion");
        assert!(op.in_flight, "a completion answers a request");
        op.in_flight = false;
    }

    /// Ends a dial.
    pub(crate) fn remove(&mut self, index: u32) -> DialOp {
        let op = self.ops.remove(index).expect("a dial is known until its last completion");
        assert!(!op.in_flight, "the kernel may still use this dial's memory");
        op
    }
}

/// `IORING_FILE_INDEX_ALLOC`.
const CHOOSE: i32 = -1;
