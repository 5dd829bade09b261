//! How far a batch has been sent.
//!
//! ```text
//!   pieces   | sent | sent | ---- piece: offset ----> | not yet | not yet |
//!                            ^ the next request starts here
//! ```
//!
//! Never: talks to the kernel.

use crate::io::SendBatch;

/// A batch and the place of the first byte that is not yet in the socket.
#[derive(Debug)]
pub(crate) struct Progress {
    batch: SendBatch,
    /// The first piece not entirely sent, and how much of it is.
    piece: usize,
    offset: usize,
}

impl Progress {
    pub(crate) fn new(batch: SendBatch) -> Self {
        let mut progress = Self { batch, piece: 0, offset: 0 };
        progress.skip_empty();
        progress
    }

    /// The pieces not yet sent, in order; the first is not empty.
    pub(crate) fn rest(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let rest = self.batch.pieces[self.piece..].iter().enumerate();
        rest.map(|(at, piece)| &piece.bytes()[if at == 0 { self.offset } else { 0 }..])
    }

    /// Counts `bytes` as sent. `true`: that was the whole batch.
    pub(crate) fn advance(&mut self, mut bytes: usize) -> bool {
        while bytes > 0 {
            let left = self.batch.pieces[self.piece].bytes().len() - self.offset;
            if bytes < left {
                self.offset += bytes;
                return false;
            }
            bytes -= left;
            self.piece += 1;
            self.offset = 0;
        }
        self.skip_empty();
        self.piece == self.batch.pieces.len()
    }

    /// The batch, sent or not.
    pub(crate) fn into_batch(self) -> SendBatch {
        self.batch
    }

    fn skip_empty(&mut self) {
        while self.batch.pieces.get(self.piece).is_some_and(|piece| piece.bytes().is_empty()) {
            self.piece += 1;
        }
    }
}

/// Most pieces of one request: the kernel's `UIO_MAXIOV`.
pub(crate) const IOVECS: usize = 1024;
