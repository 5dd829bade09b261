//! The deliveries of one user that are in memory, in order.
//!
//! ```text
//!   store rows, read back  ->  queue  ->  pushed to each terminal from its own cursor
//!   new deliveries: live   ->  queue
//!                   else   ->  behind (appended to the store, forgotten once committed)
//! ```
//!
//! While the store holds rows that no terminal has been pushed (`CatchingUp`), new deliveries go
//! behind them. A read that comes back short ends that: what is still being appended then is
//! exactly what the read could not see (one store FIFO per user), so it moves to the queue.
//!
//! Owns: order and states. Never: sockets, the store, timers.

use std::collections::VecDeque;
use std::sync::Arc;

use codec::{Message, Target};
use storage::Row;

use crate::io::{Now, ShardIndex, Slot};
use crate::limits::{INBOX_BYTES, INBOX_MESSAGES};

/// Where a delivery stands with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Memory,
    /// An append is outstanding.
    Storing,
    Stored,
    /// It is the user's own message, for all his terminals but the sending one: never stored.
    Copy {
        sender: Slot,
    },
}

/// Who is waiting to hear that a delivery is safe. Each is told exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    Nobody,
    /// A publisher's request on a shard.
    Request {
        shard: ShardIndex,
        request: u32,
    },
    /// One of the members of a fan-out on this shard.
    FanIn(u32),
    /// The waiters of a door id on this shard.
    Door(u32),
}

/// One message for one user.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Rises with the order of delivery; the row's key.
    pub(crate) seq: u64,
    pub(crate) message: Arc<Message>,
    pub(crate) kept: Kept,
    pub(crate) owed: Owed,
    /// It was read back from the store.
    pub(crate) waited: bool,
    /// A terminal has acknowledged it (or it became a dead letter): nothing is owed any more.
    pub(crate) done: bool,
    /// Terminals that have it in flight.
    pub(crate) flights: u8,
    /// Failed rounds with it alone in flight.
    pub(crate) charges: u8,
    /// The first copy is in a terminal's socket since `since`; before that, `since` is arrival.
    pub(crate) sent: bool,
    pub(crate) since: Now,
}

impl Delivery {
    /// Nobody here needs to have it: it is done, in the store, or only a courtesy.
    pub(crate) fn may_leave(&self) -> bool {
        self.done || matches!(self.kept, Kept::Stored | Kept::Copy { .. })
    }

    /// It goes to this terminal. `copies`: see [`codec::Manners`].
    pub(crate) fn is_for(&self, slot: Slot, copies: bool) -> bool {
        match self.kept {
            Kept::Copy { sender } => {
                slot != sender && (copies || matches!(self.message.to, Target::Group(_)))
            }
            _ => true,
        }
    }
}

/// How new deliveries get to the terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No terminal: through the store.
    Offline,
    /// Rows wait in the store: new deliveries go behind them.
    CatchingUp,
    /// Everything undelivered is in the queue.
    Live,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) mode: Mode,
    /// Ascending `seq`. Entries that are done leave from the front once no terminal needs them.
    pub(crate) queue: VecDeque<Delivery>,
    /// Appends outstanding for deliveries behind unread rows; ascending `seq`, above the queue's.
    pub(crate) behind: VecDeque<Delivery>,
    /// Body bytes of the queue.
    pub(crate) bytes: usize,
    /// A read is outstanding.
    pub(crate) reading: bool,
    /// Reads outstanding that an earlier login asked for; their replies come first.
    pub(crate) stale_reads: u32,
    /// Rows up to this `seq` are in the queue or done with.
    pub(crate) read_after: u64,
    /// A read failed: not before this moment again.
    pub(crate) read_again: Option<Now>,
}

impl Inbox {
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            queue: VecDeque::new(),
            behind: VecDeque::new(),
            bytes: 0,
            reading: false,
            stale_reads: 0,
            read_after: 0,
            read_again: None,
        }
    }

    /// Nothing queued, nothing outstanding: the inbox may go once its user is live or offline.
    pub(crate) fn is_idle(&self) -> bool {
        self.mode != Mode::CatchingUp
            && self.queue.is_empty()
            && self.behind.is_empty()
            && !self.reading
            && self.stale_reads == 0
    }

    /// Too much is in memory for one user.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= INBOX_MESSAGES || self.bytes >= INBOX_BYTES
    }

    /// The queue's entry with this `seq`.
    pub(crate) fn find(&mut self, seq: u64) -> Option<&mut Delivery> {
        // Acknowledgements come in order: it is mostly the oldest.
        if self.queue.front().is_some_and(|front| front.seq == seq) {
            return self.queue.front_mut();
        }
        let index = self.queue.partition_point(|delivery| delivery.seq < seq);
        self.queue.get_mut(index).filter(|delivery| delivery.seq == seq)
    }

    /// Index in the queue of the first entry at or above `cursor`.
    pub(crate) fn position(&self, cursor: u64) -> usize {
        let len = self.queue.len();
        let is_behind = |index: usize| self.queue.get(index).is_none_or(|d| d.seq < cursor);
        // Mostly nothing is left for the terminal, or what has just come.
        if is_behind(len.wrapping_sub(1)) {
            return len;
        }
        if is_behind(len.wrapping_sub(2)) {
            return len - 1;
        }
        self.queue.partition_point(|delivery| delivery.seq < cursor)
    }

    pub(crate) fn push(&mut self, delivery: Delivery) {
        debug_assert!(self.queue.back().is_none_or(|last| last.seq < delivery.seq));
        self.bytes += delivery.message.body.len();
        self.queue.push_back(delivery);
    }

    /// Removes entries from the front that are in no terminal's flight and behind every terminal's
    /// cursor (`pushed_to`: the smallest of them), if they are done, or nobody here says any more
    /// that he has them: those in the store are found by the next login.
    pub(crate) fn pop_done(&mut self, pushed_to: u64) {
        while let Some(front) = self.queue.front() {
            if !front.may_leave() || front.flights > 0 || front.seq >= pushed_to {
                break;
            }
            self.bytes -= front.message.body.len();
            self.queue.pop_front();
        }
    }

    /// Rows of a read, oldest first, join the queue. A row whose append is still outstanding here
    /// (the store may see it before we hear of it) is the delivery that waits behind.
    pub(crate) fn take_rows(&mut self, rows: Vec<Row>, now: Now) {
        for row in rows {
            self.read_after = row.seq;
            if let Ok(position) = self.behind.binary_search_by_key(&row.seq, |d| d.seq)
                && let Some(delivery) = self.behind.remove(position)
            {
                self.push(delivery);
                continue;
            }
            if self.queue.back().is_some_and(|last| last.seq >= row.seq) {
                continue;
            }
            self.push(Delivery {
                seq: row.seq,
                message: row.message,
                kept: Kept::Stored,
                owed: Owed::Nobody,
                waited: true,
                done: false,
                flights: 0,
                charges: row.charges,
                sent: false,
                since: now,
            });
        }
    }

    /// A read came back short: what is being appended follows directly.
    pub(crate) fn go_live(&mut self) {
        self.mode = Mode::Live;
        while let Some(delivery) = self.behind.pop_front() {
            self.push(delivery);
        }
    }

    /// The last terminal has gone. Everything not done leaves the queue; what the store does not
    /// have yet goes behind and is returned for appending, oldest first.
    pub(crate) fn go_offline(&mut self) -> Vec<(u64, Arc<Message>)> {
        self.mode = Mode::Offline;
        self.read_again = None;
        self.stale_reads += u32::from(self.reading);
        self.reading = false;
        let mut appends = Vec::new();
        let mut kept = VecDeque::new();
        for mut delivery in self.queue.drain(..) {
            delivery.flights = 0;
            match delivery.kept {
                Kept::Memory if !delivery.done => {
                    delivery.kept = Kept::Storing;
                    appends.push((delivery.seq, Arc::clone(&delivery.message)));
                    kept.push_back(delivery);
                }
                Kept::Storing if !delivery.done => kept.push_back(delivery),
                _ => {}
            }
        }
        self.bytes = 0;
        kept.append(&mut self.behind);
        self.behind = kept;
        appends
    }

    /// Restates what must hold between any two calls.
    pub(crate) fn invariants(&self) {
        let ascending = |queue: &VecDeque<Delivery>| {
            queue.iter().zip(queue.iter().skip(1)).all(|(a, b)| a.seq < b.seq)
        };
        debug_assert!(ascending(&self.queue) && ascending(&self.behind));
        debug_assert!(self.behind.iter().all(|d| d.kept == Kept::Storing && !d.done));
        debug_assert!(self.mode != Mode::Live || self.behind.is_empty());
        debug_assert!(self.mode != Mode::Offline || self.queue.is_empty());
        debug_assert!(self.queue.iter().all(|d| !d.done || d.owed == Owed::Nobody));
        debug_assert_eq!(
            self.bytes,
            self.queue.iter().map(|delivery| delivery.message.body.len()).sum::<usize>()
        );
    }
}
