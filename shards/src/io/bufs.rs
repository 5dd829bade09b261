//! The receive buffers of one ring, provided to the kernel through a buffer ring it reads.
//!
//! ```text
//!   memory:  | buffer 0 | buffer 1 | buffer 2 | ...            one mapping, `size` bytes each
//!   ring:    | addr len id | addr len id | ...     tail ->     one mapping, a power of two
//! ```
//!
//! Invariants of the `unsafe` here. A buffer has exactly one owner: the kernel (its id is between
//! the kernel's head and our tail, or taken by a receive whose completion we have not read) or one
//! [`RecvBuf`]; `lent` records which, and is checked at every change. The kernel writes only into
//! buffers it owns. A [`RecvBuf`] keeps the memory mapped. Never: copies, or allocates per receive.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io::Result;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, Submitter};

use crate::io::pages::Mapping;

/// The group id under which the buffers are registered: a ring of ours has one group.
pub(crate) const GROUP: u16 = 0;
/// Most buffers of a pool: the kernel's limit of a buffer ring.
pub(crate) const MOST: u16 = 1 << 15;

/// The buffers themselves, shared by the pool and every buffer on loan.
struct Memory {
    mapping: Mapping,
    size: u32,
    /// The pool is gone: buffers on loan need not come back.
    closed: Cell<bool>,
}

impl Memory {
    fn buffer(&self, id: u16) -> NonNull<u8> {
        // SAFETY: ids are below the count the mapping was sized for, so the offset is inside.
        unsafe { self.mapping.start().add(usize::from(id) * self.size as usize) }
    }
}

/// The pool of one ring.
pub(crate) struct BufPool {
    memory: Rc<Memory>,
    ring: Mapping,
    mask: u16,
    tail: u16,
    /// Per buffer: on loan as a [`RecvBuf`].
    lent: Vec<bool>,
    lent_count: u16,
}

impl BufPool {
    /// Maps `count` buffers of `size` bytes. `count` is between 1 and [`MOST`].
    pub(crate) fn new(count: u16, size: u32) -> Result<Self> {
        assert!((1..=MOST).contains(&count) && size > 0, "checked by the configuration");
        let entries = count.next_power_of_two();
        let mapping = Mapping::new(usize::from(count) * size as usize)?;
        let mut pool = Self {
            memory: Rc::new(Memory { mapping, size, closed: Cell::new(false) }),
            ring: Mapping::new(usize::from(entries) * size_of::<BufRingEntry>())?,
            mask: entries - 1,
            tail: 0,
            lent: vec![false; usize::from(count)],
            lent_count: 0,
        };
        (0..count).for_each(|id| pool.provide(id));
        Ok(pool)
    }

    /// Gives the buffers to a ring.
    ///
    /// # Safety
    ///
    /// The pool must stay until it is unregistered or the ring is closed with no receive in it.
    pub(crate) unsafe fn register(&self, submitter: &Submitter<'_>) -> Result<()> {
        let start = self.ring.start().as_ptr().expose_provenance() as u64;
        // SAFETY: `start` is a page-aligned mapping of `mask + 1` initialised entries that, as
        // the caller promises, stays as long as the kernel reads it.
        unsafe { submitter.register_buf_ring_with_flags(start, self.mask + 1, GROUP, 0) }
    }

    /// Whether the kernel of `ring` takes such a pool.
    pub(crate) fn check(self, ring: IoUring) -> Result<()> {
        // SAFETY: no receive is submitted, and the ring is closed before the pool goes.
        let result = unsafe { self.register(&ring.submitter()) };
        drop(ring);
        result
    }

    /// Buffers the kernel may have left, those of unread completions included.
    pub(crate) fn available(&self) -> usize {
        self.lent.len() - usize::from(self.lent_count)
    }

    /// Takes the buffer a completion names, with the `len` bytes received.
    pub(crate) fn take(&mut self, id: u16, len: u32) -> RecvBuf {
        let lent = &mut self.lent[usize::from(id)];
        assert!(!*lent && len <= self.memory.size, "the kernel returns what it was given, once");
        *lent = true;
        self.lent_count += 1;
        RecvBuf { start: self.memory.buffer(id), len, id, memory: Rc::clone(&self.memory) }
    }

    /// Gives a buffer back to the kernel.
    pub(crate) fn give(&mut self, buf: RecvBuf) {
        assert!(Rc::ptr_eq(&buf.memory, &self.memory), "a buffer goes back to its own ring");
        let id = buf.id;
        buf.forget();
        assert!(self.lent[usize::from(id)], "a buffer on loan is marked so");
        self.lent[usize::from(id)] = false;
        self.lent_count -= 1;
        self.provide(id);
    }

    /// Appends a buffer to the ring. Nobody but the kernel may own it after that.
    fn provide(&mut self, id: u16) {
        let entries = self.ring.start().cast::<BufRingEntry>();
        // SAFETY: the index is masked to the ring's entries. The kernel does not read the entry
        // before the tail is raised, and never writes it. The setters leave the reserved field
        // alone, which in entry 0 is the tail.
        let entry = unsafe { entries.add(usize::from(self.tail & self.mask)).as_mut() };
        entry.set_addr(self.memory.buffer(id).as_ptr().expose_provenance() as u64);
        entry.set_len(self.memory.size);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a naturally aligned u16 inside entry 0 of the mapping, written only
        // here, by this thread, and read by the kernel; Release makes the entry visible before it.
        unsafe {
            let tail = BufRingEntry::tail(entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for BufPool {
    fn drop(&mut self) {
        self.memory.closed.set(true);
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufPool({} of {} on loan)", self.lent_count, self.lent.len())
    }
}

/// Received bytes, in the buffer the kernel put them in. Must go back to the ring it came from
/// ([`crate::io::Io::recycle`]); dropping it instead loses the buffer, and asserts in debug.
pub struct RecvBuf {
    start: NonNull<u8>,
    len: u32,
    id: u16,
    memory: Rc<Memory>,
}

impl RecvBuf {
    /// Ends the loan without asserting that the buffer went back.
    fn forget(self) {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped or used again, so the reference is moved out once.
        drop(unsafe { ptr::read(&raw const this.memory) });
    }
}

impl Deref for RecvBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes of a buffer that only this value owns, mapped while `memory` lives
        // and initialised (mapped as zero, then written by the kernel).
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for RecvBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` is the only way to the bytes.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) }
    }
}

impl Drop for RecvBuf {
    fn drop(&mut self) {
        debug_assert!(
            self.memory.closed.get() || std::thread::panicking(),
            "a receive buffer was dropped instead of recycled"
        );
    }
}

impl fmt::Debug for RecvBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecvBuf(id {}, {} bytes)", self.id, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_on_loan_is_its_own_and_outlives_the_pool() {
        let mut pool = BufPool::new(3, 64).expect("mapped");
        let mut first = pool.take(0, 64);
        let mut last = pool.take(2, 10);
        assert_eq!((pool.available(), first.len(), last.len()), (1, 64, 10));
        first.fill(1);
        last.fill(2);
        assert!(first.iter().all(|&b| b == 1) && last.iter().all(|&b| b == 2));
        pool.give(first);
        assert_eq!(pool.available(), 2);
        assert_eq!(pool.tail, 4);
        drop(pool);
        assert!(last.iter().all(|&b| b == 2));
    }
}
