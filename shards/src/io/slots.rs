//! What an engine remembers of each connection slot, and the tags of its operations.
//!
//! Owns: generations and the set of operations outstanding per slot. Never: talks to the kernel.

use crate::io::Slot;
use crate::table::Table;

/// Only these bits of a generation are kept: they travel in [`tag`]s.
const GENERATION: u32 = (1 << 24) - 1;

/// The kind of an operation: the top byte of its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// Index: the accept operation.
    Accept = 1,
    Poll,
    Receive,
    /// Index: the entry of the send table.
    Send,
    Unsent,
    Shutdown,
    Close,
    /// Passing a slot to another ring, on the ring that passes.
    HandOver,
    /// Closing our half of a slot that was passed on.
    Retire,
    /// Posted by another ring: the low 56 bits are the caller's token.
    HandedIn,
    /// Posted by another ring to wake this one.
    Doorbell,
    /// The read of the waker's eventfd.
    Wake,
    /// A request whose outcome does not matter: the operation it is about completes itself.
    Ignored,
    /// Putting a dialled socket into the file table. Index: the entry of the dial table.
    Install,
    /// Index: the entry of the dial table.
    Connect,
    /// Closing the slot of a dial that failed.
    Discard,
}

/// Every kind, at the position of its value minus one.
const OPS: [Op; 16] = [
    Op::Accept,
    Op::Poll,
    Op::Receive,
    Op::Send,
    Op::Unsent,
    Op::Shutdown,
    Op::Close,
    Op::HandOver,
    Op::Retire,
    Op::HandedIn,
    Op::Doorbell,
    Op::Wake,
    Op::Ignored,
    Op::Install,
    Op::Connect,
    Op::Discard,
];

/// `user_data`: kind (8 bits), generation (24), index (32).
pub(crate) const fn tag(op: Op, slot: Slot) -> u64 {
    (op as u64) << 56 | ((slot.generation & GENERATION) as u64) << 32 | slot.index as u64
}

/// `user_data` of an operation that belongs to no slot.
pub(crate) const fn tag_index(op: Op, index: u32) -> u64 {
    tag(op, Slot { index, generation: 0 })
}

/// `user_data` that the target of a hand-over sees. The token has at most 48 bits.
pub(crate) const fn tag_token(token: u64) -> u64 {
    (Op::HandedIn as u64) << 56 | token
}

/// The kind, and the slot that [`tag`] was given. Nothing of ours has no kind.
pub(crate) fn untag(user_data: u64) -> (Op, Slot) {
    let op = OPS[(user_data >> 56) as usize - 1];
    let generation = (user_data >> 32) as u32 & GENERATION;
    (op, Slot { index: user_data as u32, generation })
}

/// The token of a [`tag_token`].
pub(crate) const fn untag_token(user_data: u64) -> u64 {
    user_data & ((1 << 56) - 1)
}

/// What is outstanding on a slot, and in which state of its life it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u16);

impl Flags {
    /// The slot holds a connection.
    pub(crate) const LIVE: Self = Self(1);
    /// [`crate::io::Io::close`] was asked for.
    pub(crate) const CLOSING: Self = Self(1 << 1);
    pub(crate) const POLLING: Self = Self(1 << 2);
    pub(crate) const RECEIVING: Self = Self(1 << 3);
    pub(crate) const SENDING: Self = Self(1 << 4);
    pub(crate) const ASKING: Self = Self(1 << 5);
    pub(crate) const HANDING: Self = Self(1 << 6);
    /// A receive waits for a buffer to come back.
    pub(crate) const STARVED: Self = Self(1 << 7);
    /// Shutdown or close are submitted.
    pub(crate) const ENDING: Self = Self(1 << 8);
    /// The last receive left bytes in the socket: the next one needs no poll. On epoll: the socket
    /// was said to be readable, and no receive has found it empty since.
    pub(crate) const NONEMPTY: Self = Self(1 << 9);
    /// On epoll: the send waits until the socket has room.
    pub(crate) const BLOCKED: Self = Self(1 << 10);
    /// On epoll: registered for room in the socket, too.
    pub(crate) const ROOM_WATCHED: Self = Self(1 << 11);
    /// The peer's end or an error was reported: by the ring's receive, or by epoll, where there is
    /// something to read until it has been read.
    pub(crate) const ENDED: Self = Self(1 << 12);
    /// On epoll: not yet connected.
    pub(crate) const DIALING: Self = Self(1 << 13);
    /// On a ring: came from another ring, which may not have let go of its half yet.
    pub(crate) const HANDED: Self = Self(1 << 14);

    /// The receive of the caller is in one of its stages.
    pub(crate) const RECEIVE: Self = Self(Self::POLLING.0 | Self::RECEIVING.0 | Self::STARVED.0);
    /// The kernel holds an operation of the slot.
    pub(crate) const BUSY: Self = Self(
        Self::POLLING.0
            | Self::RECEIVING.0
            | Self::SENDING.0
            | Self::ASKING.0
            | Self::HANDING.0
            | Self::ENDING.0,
    );

    pub(crate) const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    pub(crate) fn set(&mut self, flags: Self) {
        self.0 |= flags.0;
    }

    pub(crate) fn clear(&mut self, flags: Self) {
        self.0 &= !flags.0;
    }
}

/// One slot: 12 bytes.
#[derive(Debug, Default)]
pub(crate) struct Record {
    generation: u32,
    /// Entry of the send table while SENDING, on epoll of the dial table while DIALING.
    pub(crate) send: u32,
    pub(crate) flags: Flags,
}

const _: () = assert!(size_of::<Record>() <= 16, "a million slots");

/// The slots of one engine.
#[derive(Debug)]
pub(crate) struct Slots {
    records: Table<Record>,
    capacity: u32,
    used: u32,
}

impl Slots {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { records: Table::new(), capacity, used: 0 }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn free(&self) -> u32 {
        self.capacity - self.used
    }

    /// A connection has appeared at `index`, chosen by whoever owns the descriptors.
    pub(crate) fn occupy(&mut self, index: u32) -> Slot {
        assert!(index < self.capacity, "a slot outside the table");
        let record = self.records.entry(index);
        assert!(!record.flags.any(Flags::LIVE), "a slot in use");
        record.flags = Flags::LIVE;
        self.used += 1;
        Slot { index, generation: record.generation }
    }

    /// The slot is free again, and its old handles are void.
    pub(crate) fn vacate(&mut self, slot: Slot) {
        let record = self.records.entry(slot.index);
        debug_assert!(record.flags.any(Flags::LIVE), "freed a free slot");
        record.flags = Flags::default();
        record.generation = (record.generation + 1) & GENERATION;
        self.used -= 1;
    }

    /// The record of `slot`, if it is still the connection that is meant.
    pub(crate) fn get(&mut self, slot: Slot) -> Option<&mut Record> {
        let record = self.records.get_mut(slot.index)?;
        let current = record.generation == slot.generation && record.flags.any(Flags::LIVE);
        current.then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_kind_generation_and_index() {
        for op in OPS {
            let slot = Slot { index: u32::MAX, generation: GENERATION };
            assert_eq!(untag(tag(op, slot)), (op, slot));
        }
        let token = (1 << 48) - 1;
        assert_eq!(untag(tag_token(token)).0, Op::HandedIn);
        assert_eq!(untag_token(tag_token(token)), token);
    }

    #[test]
    fn a_freed_slot_voids_its_old_handles_even_when_generations_wrap() {
        let mut slots = Slots::new(4);
        let first = slots.occupy(3);
        slots.vacate(first);
        assert!(slots.get(first).is_none());
        let second = slots.occupy(3);
        assert!(slots.get(first).is_none() && slots.get(second).is_some());
        slots.get(second).expect("just occupied").generation = GENERATION;
        slots.vacate(Slot { index: 3, generation: GENERATION });
        assert_eq!(slots.occupy(3), Slot { index: 3, generation: 0 });
        assert_eq!(slots.free(), 3);
    }
}
