//! Receive buffers, on loan to whoever reads them.
//!
//! Never: more buffers than the pool was made for. One comes into being when no other is at home,
//! and the last one back is the next one out, so that few are touched.

use std::ops::{Deref, DerefMut};

/// Received bytes. Must go back to the engine they came from ([`crate::io::Io::recycle`]): one
/// that is dropped instead is missing from the pool.
#[derive(Debug)]
pub struct EpollBuf(Vec<u8>);

impl Deref for EpollBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for EpollBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The buffers of one engine.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Empty, each with its whole capacity.
    home: Vec<Vec<u8>>,
    /// Buffers that may still come into being.
    unmade: usize,
    size: usize,
}

impl Pool {
    pub(crate) fn new(count: u16, size: u32) -> Self {
        Self { home: Vec::new(), unmade: usize::from(count), size: size as usize }
    }

    /// Buffers that [`Pool::take`] would give.
    pub(crate) fn available(&self) -> usize {
        self.home.len() + self.unmade
    }

    /// An empty buffer to read into.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        self.home.pop().or_else(|| {
            self.unmade = self.unmade.checked_sub(1)?;
            Some(Vec::with_capacity(self.size))
        })
    }

    /// What was read, as the caller sees it.
    pub(crate) fn lend(&self, bytes: Vec<u8>) -> EpollBuf {
        debug_assert!(!bytes.is_empty() && bytes.capacity() >= self.size);
        EpollBuf(bytes)
    }

    /// A buffer that was not filled, or comes back.
    pub(crate) fn give(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        self.home.push(bytes);
    }

    pub(crate) fn recycle(&mut self, buf: EpollBuf) {
        self.give(buf.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_no_more_than_its_count_and_the_last_one_back_first() {
        let mut pool = Pool::new(2, 64);
        let mut first = pool.take().expect("two");
        let second = pool.take().expect("one more");
        assert!(pool.take().is_none() && pool.available() == 0);
        first.extend_from_slice(b"bytes");
        let mut buf = pool.lend(first);
        buf[0] = b'B';
        assert_eq!(&*buf, b"Bytes");
        let memory = buf.as_ptr();
        pool.give(second);
        pool.recycle(buf);
        let again = pool.take().expect("two are back");
        assert!(again.is_empty() && again.as_ptr() == memory);
        assert_eq!(pool.available(), 1);
    }
}
