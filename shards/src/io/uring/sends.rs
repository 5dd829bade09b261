//! The batches the kernel is reading from.
//!
//! A batch lives here from the first request to the completion of the last, so its bytes stay
//! where the kernel was told they are. Never: talks to the kernel.

use std::ptr;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::io::progress::{IOVECS, Progress};
use crate::io::{SendBatch, Slot};
use crate::table::Slab;

/// One batch being sent. At most one request of it is in the kernel's hands.
#[derive(Debug)]
pub(crate) struct SendOp {
    pub(crate) slot: Slot,
    progress: Progress,
    /// What the kernel was told to gather, if the rest was in several pieces.
    gather: Option<Box<Gather>>,
    in_flight: bool,
}

/// The arguments of one `sendmsg`.
#[derive(Debug)]
struct Gather {
    header: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

/// All batches in flight on one ring: at most one per connection.
#[derive(Debug)]
pub(crate) struct Sends {
    ops: Slab<SendOp>,
    /// Gathers kept for reuse.
    #[expect(clippy::vec_box, reason = "a gather must not move when it changes hands")]
    spare: Vec<Box<Gather>>,
}

impl Sends {
    pub(crate) fn new() -> Self {
        Self { ops: Slab::new(), spare: Vec::new() }
    }

    /// Batches in flight.
    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Takes a batch in. [`Sends::request`] says what to submit for it.
    pub(crate) fn insert(&mut self, slot: Slot, batch: SendBatch) -> u32 {
        let progress = Progress::new(batch);
        self.ops.insert(SendOp { slot, progress, gather: None, in_flight: false })
    }

    /// The request for what is left of a batch. Its pointers stay good until [`Sends::remove`]:
    /// they lead into heap blocks that belong to the entry and are not touched meanwhile.
    pub(crate) fn request(&mut self, index: u32) -> Entry {
        let op = self.ops.get_mut(index).expect("a batch is known until its last completion");
        assert!(!op.in_flight, "one request per batch");
        op.in_flight = true;
        let fd = types::Fixed(op.slot.index);
        let mut rest = op.progress.rest();
        if rest.len() == 1 {
            let bytes = rest.next().expect("there is one");
            let len = bytes.len().min(REQUEST_BYTES) as u32;
            return opcode::Send::new(fd, bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build();
        }
        let gather = op.gather.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        gather.pieces.clear();
        gather.pieces.extend(rest.take(IOVECS).map(iovec));
        gather.header.msg_iov = gather.pieces.as_mut_ptr();
        gather.header.msg_iovlen = gather.pieces.len();
        opcode::SendMsg::new(fd, &raw const gather.header).flags(libc::MSG_NOSIGNAL as u32).build()
    }

    /// The kernel has finished the request it held.
    pub(crate) fn completed(&mut self, index: u32) {
        let op = self.ops.get_mut(index).expect("a batch is known until its last completion");
        assert!(op.in_flight, "a completion answers a request");
        op.in_flight = false;
    }

    pub(crate) fn slot(&self, index: u32) -> Slot {
        self.ops.get(index).expect("a batch is known until its last completion").slot
    }

    /// Counts `bytes` as sent. `true`: that was the whole batch.
    pub(crate) fn advance(&mut self, index: u32, bytes: usize) -> bool {
        let op = self.ops.get_mut(index).expect("a batch is known until its last completion");
        assert!(!op.in_flight, "the kernel still reads this batch");
        op.progress.advance(bytes)
    }

    /// Ends a batch, sent or not, and gives it back.
    pub(crate) fn remove(&mut self, index: u32) -> SendBatch {
        let op = self.ops.remove(index).expect("a batch is known until its last completion");
        assert!(!op.in_flight, "the kernel still reads this batch");
        if let Some(gather) = op.gather
            && self.spare.len() < SPARES
            && gather.pieces.capacity() <= SPARE_IOVECS
        {
            self.spare.push(gather);
        }
        op.progress.into_batch()
    }
}

impl Default for Gather {
    fn default() -> Self {
        Self { header: super::super::sys::empty_msghdr(), pieces: Vec::new() }
    }
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: ptr::from_ref(bytes).cast_mut().cast(), iov_len: bytes.len() }
}

/// Most bytes of one request: the kernel counts in 31 bits.
const REQUEST_BYTES: usize = 1 << 30;
/// Gathers kept, and the largest that is: 64 x 1 KiB.
const SPARES: usize = 64;
const SPARE_IOVECS: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::io::Piece;

    fn batch(sizes: &[usize]) -> SendBatch {
        let piece = |(i, &size): (usize, &usize)| match i % 2 {
            0 => Piece::Owned(vec![7; size]),
            _ => Piece::Shared(Arc::from(vec![9; size])),
        };
        sizes.iter().enumerate().map(piece).collect()
    }

    #[test]
    fn every_way_of_short_sends_ends_exactly_at_the_last_byte() {
        let sizes = [0, 3, 1, 0, 0, 5, 2, 0];
        for step in 1..=11 {
            let mut sends = Sends::new();
            let op = sends.insert(Slot { index: 1, generation: 2 }, batch(&sizes));
            let mut left = 11;
            loop {
                sends.request(op);
                sends.completed(op);
                let bytes = step.min(left);
                left -= bytes;
                assert_eq!(sends.advance(op, bytes), left == 0, "step {step}, left {left}");
                if left == 0 {
                    break;
                }
            }
            assert_eq!(sends.remove(op).len(), 11);
            assert_eq!(sends.len(), 0);
        }
    }

    #[test]
    fn gathers_hold_the_kernels_limit_of_pieces_and_small_ones_are_reused() {
        let mut sends = Sends::new();
        let op = sends.insert(Slot { index: 1, generation: 2 }, batch(&[1; 3000]));
        sends.request(op);
        let gather = sends.ops.get(op).and_then(|op| op.gather.as_ref()).expect("several pieces");
        assert_eq!(gather.header.msg_iovlen, IOVECS);
        sends.completed(op);
        assert!(!sends.advance(op, IOVECS));
        sends.remove(op);
        assert!(sends.spare.is_empty());
        let op = sends.insert(Slot { index: 1, generation: 2 }, batch(&[1; 3]));
        sends.request(op);
        sends.completed(op);
        sends.remove(op);
        assert_eq!(sends.spare.len(), 1);
    }
}
