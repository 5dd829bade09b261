//! What happened: a hash that tells two runs apart, and on request the last lines to read.

use std::collections::VecDeque;
use std::fmt;

use crate::io::ShardIndex;

#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    lines: VecDeque<Line>,
    /// Lines kept; 0 unless somebody wants to read them.
    lines_max: usize,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    at_us: u64,
    what: &'static str,
    shard: ShardIndex,
    id: u32,
    amount: u64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_us, what, shard, id, amount } = self;
        write!(f, "{at_us:>10} us  shard {shard}  #{id:<4} {what} {amount}")
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: FNV_OFFSET, lines: VecDeque::new(), lines_max: 0 }
    }
}

impl Trace {
    pub(super) fn keep(&mut self, lines_max: usize) {
        self.lines_max = lines_max;
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn lines(&self) -> Vec<Line> {
        self.lines.iter().copied().collect()
    }

    pub(super) fn note(
        &mut self,
        at_us: u64,
        what: &'static str,
        shard: ShardIndex,
        id: u32,
        amount: u64,
    ) {
        for word in [at_us, u64::from(shard), u64::from(id), amount] {
            self.hash = (self.hash ^ word).wrapping_mul(FNV_PRIME);
        }
        for byte in what.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if self.lines_max > 0 {
            if self.lines.len() == self.lines_max {
                self.lines.pop_front();
            }
            self.lines.push_back(Line { at_us, what, shard, id, amount });
        }
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
