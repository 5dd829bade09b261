//! Plain counters of one shard: incremented in place, copied out when somebody asks.

use codec::CloseReason;
use codec::error::Malformed;
use storage::StoreError;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// Counters of one shard since it started.
        #[derive(Clone, Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)*
            /// Connections ended, by reason: indexed by [`CloseReason`] as a number.
            pub closed: [u64; CloseReason::ALL.len()],
            /// Malformed packets, by reason: indexed by [`Malformed`] as a number.
            pub malformed: [u64; Malformed::ALL.len()],
        }

        impl Counters {
            /// Every plain counter: name, what it counts, value.
            pub fn plain(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name)),*].into_iter()
            }

            /// Adds another shard's part of the same counters (core and sockets count apart).
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                for (mine, theirs) in self.closed.iter_mut().zip(other.closed) {
                    *mine += theirs;
                }
                for (mine, theirs) in self.malformed.iter_mut().zip(other.malformed) {
                    *mine += theirs;
                }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections refused at once: over a limit, or not on the allow-list.
    refused,
    /// Accepts that failed for want of descriptors or memory.
    accept_failures,
    /// Connections handed to their home shard.
    handed_over,
    /// Hand-overs that failed; the client was closed without a verdict.
    hand_overs_failed,
    /// Logins accepted.
    logins,
    /// Publishes received.
    publishes,
    /// Publishes acknowledged as safe.
    publishes_safe,
    /// Publishes that could not be made safe and were not acknowledged.
    publishes_failed,
    /// Publishes that were resends of an id in the window.
    duplicates,
    /// Ids not remembered because the shard's windows are full.
    dedup_full,
    /// Deliveries accepted for users of this shard.
    deliveries,
    /// Pushes sent, without retries.
    pushes,
    /// Pushes sent again because no acknowledgement came.
    retries,
    /// Pushes whose terminal goes on without having acknowledged them.
    given_up,
    /// Deliveries acknowledged by a terminal.
    acknowledged,
    /// Acknowledgements of pushes that had been given up.
    acknowledged_late,
    /// Rows appended to the store.
    appends,
    /// Appends refused at a cap.
    appends_full,
    /// Appends that failed because the store is unavailable.
    appends_unavailable,
    /// Messages that became dead letters.
    dead_letters,
    /// Times a user's backlog went from memory to the store.
    spilled_inboxes,
    /// Group publishes by someone who is not a member.
    not_a_member,
    /// Group publishes refused because too many wait for members.
    group_overflow,
    /// Member lists that could not be read.
    group_loads_failed,
    /// Bytes received.
    bytes_in,
    /// Bytes sent.
    bytes_out,
    /// Messages sent to other shards.
    mesh_sent,
    /// Messages that found a mesh ring full and waited.
    mesh_full,
    /// Store requests that found the sidecar's queue full and waited.
    store_queue_full,
    /// Times a publisher was not read because a queue behind it was full.
    publishers_held,
    /// Turns of the loop.
    turns,
    /// Turns that took too long; the shard then refused new connections.
    lagging_turns,
    /// Milliseconds that no deadline counts, because the shard was not run or a turn took too long.
    stood_still_ms,
}

impl Counters {
    pub(crate) fn count_append(&mut self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => {}
            Err(StoreError::Full) => self.appends_full += 1,
            Err(StoreError::Unavailable) => self.appends_unavailable += 1,
        }
    }

    pub(crate) fn count_settled(&mut self, safe: bool) {
        match safe {
            true => self.publishes_safe += 1,
            false => self.publishes_failed += 1,
        }
    }

    pub(crate) fn count_closed(&mut self, reason: CloseReason) {
        self.closed[reason as usize] += 1;
    }

    pub(crate) fn count_malformed(&mut self, what: Malformed) {
        self.malformed[what as usize] += 1;
    }
}
