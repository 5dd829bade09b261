//! Every bound of a shard in one place: its unit, and why it is that number.
//!
//! A queue, map or loop that a peer can grow takes its bound from here. What the operator may
//! change stands in [`crate::config::ShardConfig`] instead.

/// Unacknowledged pushes per connection. A full window of 100-byte messages fits one send.
pub const WINDOW_MESSAGES: u8 = 64;
/// Unacknowledged push bytes per connection; one message may exceed it when it is alone.
pub const WINDOW_BYTES: usize = 64 * 1024;

/// Where nothing is sent again: a client that has all of its window and acknowledges none of it for
/// so long is taken for one that never does, and what waits behind the window goes on. Long beside
/// a busy client's pauses; short enough that a mute one gets 64 messages a second.
pub const WINDOW_SILENCE_MS: u32 = 1_000;
/// Pushes per connection that left its window unacknowledged and are known by their ids, so that a
/// late acknowledgement still deletes their rows: 16 windows, 24 KiB. Older ones come again at the
/// next login.
pub const LET_GO: usize = 1_024;

/// Terminals of one user; one more takes the place of the oldest. Each message goes to all of them,
/// and a delivery counts those that have it in flight in a byte.
pub const TERMINALS: usize = 128;

/// Deliveries kept in memory for one user; more go to the store and are read back.
pub const INBOX_MESSAGES: usize = 256;
/// Body bytes kept in memory for one user, likewise.
pub const INBOX_BYTES: usize = 256 * 1024;
/// Rows of one store read: one window.
pub const READ_ROWS: u32 = 64;
/// Body bytes of one store read: one window.
pub const READ_BYTES: u32 = 64 * 1024;
/// A further read is asked for when so few deliveries are left in memory: half a window, so that
/// the store works while the client acknowledges.
pub const READ_LOW_WATER: usize = 32;
const _: () = assert!(READ_LOW_WATER + READ_ROWS as usize <= INBOX_MESSAGES);

/// Publishes of one connection that are not yet safe; then its receive is not armed again.
pub const PUBLISHES_OUTSTANDING: u16 = 256;
/// The same of all connections of a shard: what comes faster than it can be delivered waits in
/// the sockets. At 150,000 messages a second this is 110 ms of work, so that a recipient whose
/// acknowledgement waits to be read is not taken for silent ([`crate::ShardConfig`]'s
/// `persist_after_ms`), which would have all of them written to the store on top.
pub const PUBLISHES_OUTSTANDING_SHARD: usize = 1 << 14;
/// The same for the publish door, where one connection carries a whole back end.
pub const DOOR_OUTSTANDING: u16 = 1024;
/// The door's requests must be safe within this time.
pub const DOOR_DEADLINE_MS: u64 = 5_000;
/// Requests with the same (target, id) at the door that wait for one delivery; more fail.
pub const DOOR_WAITERS: usize = 8;

/// Ids remembered per sender, so that a resend is acknowledged and not delivered twice.
pub const DEDUP_IDS: usize = 1024;
/// How long an id is remembered.
pub const DEDUP_MS: u64 = 10 * 60 * 1000;
/// Ids remembered per shard: 40 B each, with their index, in a full window, and up to 290 B where a
/// sender has just one; 24 B more where the protocol's answer names the message. At the cap a
/// sender's new id displaces his own oldest.
pub const DEDUP_SHARD_IDS: usize = 1 << 20;
/// Ids remembered for the publish door per shard.
pub const DEDUP_DOOR_IDS: usize = 1 << 16;

/// Group publishes of one shard that wait for members to load; more fail.
pub const GROUP_WAITING: usize = 4096;
/// Groups whose members one shard keeps.
pub const GROUP_CACHE: usize = 4096;
/// Members of a group; more make a publish fail. One publish may queue as many store requests,
/// some 100 B each, before its publisher is held.
pub const GROUP_MEMBERS: usize = 1 << 16;
/// Group messages remembered per shard whose delivery failed for some members.
pub const GROUP_UNFINISHED: usize = 1024;

/// Names looked up lately that one shard keeps.
pub const NAMES_CACHE: usize = 1 << 16;
/// How long a name is trusted to be the same user's. Names never change hands while their user
/// exists, and other processes' changes are announced.
pub const NAMES_MS: u64 = 60_000;
/// Names of one answer to who is in the public room.
pub const PRESENT_NAMES: usize = 10_000;
/// Output waiting for a member of the public room above which he is too slow for it, and for any
/// terminal above which it misses notices.
pub const ROOM_BACKLOG: usize = 1024 * 1024;

/// Charges that make a message a dead letter.
pub const POISON_CHARGES: u8 = 3;
/// A delivery whose send has not completed for this long is stored as if it had.
pub const STALL_PERSIST_MS: u64 = 1_000;
/// Longest pause between two questions whether a socket has been drained; they start at 1 ms.
pub const UNSENT_PAUSE_MAX_MS: u64 = 500;
/// Silence after which what may be a whole packet is one.
pub const QUIET_MS: u64 = 5;
/// A packet that has begun goes on by [`PACKET_PROGRESS_BYTES`] in this time or ends, else its
/// connection does: a peer could make us hold up to 1 MiB of it for ever, and not every protocol
/// has a heartbeat. As long as we wait for a peer who does not read.
pub const PACKET_STALL_MS: u64 = SLOW_CONSUMER_MS;
/// 35 bytes a second, which any link carries that can hold a connection; a peer who keeps that up
/// has the longest packet through in eight hours and a half.
pub const PACKET_PROGRESS_BYTES: u32 = 1024;
/// Pause before a failed append or read is tried again.
pub const STORE_RETRY_MS: u64 = 1_000;
/// A connection whose send makes no progress for this long is closed.
pub const SLOW_CONSUMER_MS: u64 = 30_000;
/// Output waiting for one connection above which its receive is not armed: a publisher that does
/// not read its acknowledgements.
pub const OUTPUT_HIGH_WATER: usize = 64 * 1024;

/// Bytes accepted before the login is complete (the upgrade request has its own cap in `codec`).
pub const LOGIN_BYTES: usize = 4 * 1024;
/// TLS handshake bytes of a peer. Client hellos stay below 2 KiB, certificates are not asked for.
pub const HANDSHAKE_BYTES: usize = 16 * 1024;
/// Largest TLS record on the wire: 16 KiB of content, 2 KiB of expansion, the header (RFC 5246
/// section 6.2.3). A record that came in part is kept up to this.
pub const TLS_RECORD_BYTES: usize = TLS_PLAIN_BYTES + 2 * 1024 + 5;
/// Content of one record: what a turn queued leaves in as few records as hold it.
pub const TLS_PLAIN_BYTES: usize = 16 * 1024;
/// What a record we send adds to its content: header, explicit nonce (TLS 1.2), tag. TLS 1.3 adds
/// 7 B less. A guess too low would only cost a second attempt.
pub const TLS_RECORD_OVERHEAD: usize = 5 + 8 + 16;
/// Handshakes that wait for a turn's budget, 4 KiB each; more are refused.
pub const HANDSHAKES_WAITING: usize = 1024;
/// Longest user name: open authentication keeps it with the session.
pub const NAME_BYTES: usize = 255;
/// How long a connection that is being closed may take to drain and say goodbye.
pub const CLOSE_DEADLINE_MS: u64 = 1_000;
/// A handed-over connection or its state without its other half is given up after this.
pub const HAND_OVER_MS: u64 = 5_000;

/// With more shards than this, the fixed memory of each is at most 1 MiB: fewer receive buffers,
/// and no huge pages in the whole process.
pub const MANY_SHARDS: u16 = 16;
/// Receive buffers of one of many shards: 256 KiB. With a ring of 64 KiB, the mesh's rings (under
/// 512 KiB up to 64 shards) and the wheel it stays under that.
pub const SMALL_SHARD_BUFFERS: u16 = 64;

/// Entries of one mesh ring, a power of two: what its share of 512 KiB per shard holds at 64 B
/// each, 4096 at most and 32 at least. Two shards that share a core pass on at most one ring in a
/// slice of time: with 128 entries a message to the other shard cost 5.3 times one to the same,
/// with 1024 2.6 times, with 4096 1.2 times. What waits in it is bounded by what publishers may
/// have outstanding: with the backlog behind it, 160 MiB of the largest messages by default.
pub const fn mesh_ring(shards: u16) -> usize {
    let peers = if shards > 1 { shards as usize - 1 } else { 1 };
    let share = (512 * 1024 / 64) / peers;
    let entries = if share > 4096 { 4096 } else { share };
    if entries < 32 { 32 } else { 1 << entries.ilog2() }
}
const _: () = assert!(mesh_ring(2) == 4096 && mesh_ring(56) == 128 && mesh_ring(256) == 32);
/// Messages waiting behind full mesh rings, all together, above which publishers are not read.
pub const MESH_BACKLOG: usize = 1024;

/// Budgets of one turn, so that no stage starves the others.
pub const TURN_COMPLETIONS: usize = 4096;
pub const TURN_MESH: usize = 4096;
pub const TURN_REPLIES: usize = 4096;
pub const TURN_TIMERS: usize = 4096;
/// Connections closed per turn while draining.
pub const TURN_DRAIN: usize = 256;

/// Frames up to this size are copied into the connection's output, larger ones are sent from
/// where they are: copying 2 KiB costs less than a second piece in the send.
pub const COPY_BYTES: usize = 2 * 1024;
/// Output buffers kept for reuse, and the largest one that is.
pub const SPARE_BUFFERS: usize = 256;
pub const SPARE_BUFFER_BYTES: usize = 16 * 1024;

/// A turn counts as so long at most, beyond the wait it asked for: before a deadline passes there
/// are as many turns, in which answers can be read, whether or not the shard was run meanwhile.
/// Turns are shorter than that unless the machine or the shard is overloaded.
pub const TURN_COUNTS_MS: u64 = 50;
/// After one that came later than that, timers fire again once so many turns have passed in which
/// nothing was received: what lies in a socket becomes known in one and is received in the next,
/// and kernels from 6.13 on tell of no more than some twenty sockets at once.
pub const TURNS_TO_READ: u8 = 3;
/// The longest that what is received then holds timers back: hundreds of thousands of packets.
pub const READ_FIRST_MS: u64 = 500;
/// A turn that takes longer makes the shard refuse new connections until turns are short again.
pub const LAG_MS: u64 = 250;
/// Empty lists of messages in flight kept for reuse, likewise.
pub const SPARE_FLIGHTS: usize = 4096;
/// Empty inboxes kept for reuse: as many as one turn's deliveries are likely to need.
pub const SPARE_INBOXES: usize = 4096;
