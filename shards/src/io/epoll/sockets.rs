//! The table of connections: slots and the descriptors in them.
//!
//! Never: polls, reads or writes a socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::io::Slot;
use crate::io::slots::{Record, Slots};
use crate::table::Table;

#[derive(Debug)]
pub(crate) struct Sockets {
    slots: Slots,
    /// Beside the records: 4 B each, half a page at a time. `None` in a slot whose connection was
    /// passed on.
    fds: Table<Option<OwnedFd>>,
    /// Slots to use again, the last one freed first.
    freed: Vec<u32>,
    /// Slots ever used.
    end: u32,
}

impl Sockets {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { slots: Slots::new(capacity), fds: Table::new(), freed: Vec::new(), end: 0 }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.slots.capacity()
    }

    /// Takes a connection in. The caller knows that there is room.
    pub(crate) fn insert(&mut self, socket: OwnedFd) -> Slot {
        let index = self.freed.pop().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        });
        *self.fds.entry(index) = Some(socket);
        self.slots.occupy(index)
    }

    /// The record and the descriptor of `slot`, if it is still the connection that is meant and
    /// was not passed on.
    pub(crate) fn get(&mut self, slot: Slot) -> Option<(&mut Record, BorrowedFd<'_>)> {
        let record = self.slots.get(slot)?;
        let socket = self.fds.get(slot.index)?.as_ref()?;
        Some((record, socket.as_fd()))
    }

    /// Takes the descriptor out of its slot, which stays occupied.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<OwnedFd> {
        self.slots.get(slot)?;
        self.fds.get_mut(slot.index)?.take()
    }

    pub(crate) fn put_back(&mut self, slot: Slot, socket: OwnedFd) {
        *self.fds.entry(slot.index) = Some(socket);
    }

    /// The slot is free again, its descriptor closed.
    pub(crate) fn vacate(&mut self, slot: Slot) {
        self.slots.vacate(slot);
        *self.fds.entry(slot.index) = None;
        self.freed.push(slot.index);
    }
}
