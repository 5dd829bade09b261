//! What goes wrong in a simulation, how often, and a count of how often it did.

use std::ops::Range;

use super::rng::Rng;

/// Delays, sizes and faults of the simulated kernel and network. May be changed during a run;
/// takes effect from the next operation on. Chances are parts per million of the cases named.
#[derive(Clone, Debug)]
pub struct FaultPlan {
    /// One way between a client and the gateway's socket.
    pub network_us: Range<u64>,
    /// Between an operation being possible and its completion.
    pub completion_us: Range<u64>,
    /// How long a shard is busy with one turn before it can begin the next.
    pub turn_us: Range<u64>,
    /// After a turn the shard is not run for up to `stall_us`, and receives nothing meanwhile.
    pub stall_ppm: u32,
    pub stall_us: u64,
    /// An operation takes up to `late_us` longer.
    pub late_ppm: u32,
    pub late_us: u64,
    /// A receive gives only a random part of what is there.
    pub short_receive_ppm: u32,
    /// The socket takes only a random part of what it has room for.
    pub short_send_ppm: u32,
    /// The bytes of a send are on their way before the shard hears of it.
    pub late_sent_ppm: u32,
    /// A segment under way, in either direction, meets a connection that the network has reset.
    pub reset_ppm: u32,
    /// SEND_FD fails though the target has room.
    pub hand_over_fails_ppm: u32,
    /// An accept fails; the engine tries again after `accept_backoff_us`.
    pub accept_fails_ppm: u32,
    pub accept_backoff_us: u64,
    /// Receive buffers of each shard, and the length of one.
    pub buffers: u32,
    pub buffer_len: usize,
    /// Bytes that a socket of the gateway, and the client's own, hold for a client that does not
    /// read.
    pub send_buffer_len: usize,
    pub client_buffer_len: usize,
}

impl Default for FaultPlan {
    /// Small delays, generous sizes, no faults.
    fn default() -> Self {
        Self {
            network_us: 20..200,
            completion_us: 1..20,
            turn_us: 2..10,
            stall_ppm: 0,
            stall_us: 0,
            late_ppm: 0,
            late_us: 0,
            short_receive_ppm: 0,
            short_send_ppm: 0,
            late_sent_ppm: 0,
            reset_ppm: 0,
            hand_over_fails_ppm: 0,
            accept_fails_ppm: 0,
            accept_backoff_us: 10_000,
            buffers: 256,
            buffer_len: 4096,
            send_buffer_len: 64 * 1024,
            client_buffer_len: 64 * 1024,
        }
    }
}

impl FaultPlan {
    /// A hostile mixture: each fault is switched on for about half of the seeds.
    pub fn seeded(rng: &mut Rng) -> Self {
        let sizes: [usize; 4] = [64, 300, 4096, 64 * 1024];
        Self {
            network_us: 10..*rng.pick(&[100, 2_000, 30_000]),
            completion_us: 1..*rng.pick(&[5, 50, 500]),
            turn_us: 1..*rng.pick(&[5, 100, 2_000]),
            stall_ppm: Self::maybe(rng, STALL_PPM),
            stall_us: STALL_US,
            late_ppm: Self::maybe(rng, 30_000),
            late_us: *rng.pick(&[1_000, 20_000, 300_000]),
            short_receive_ppm: Self::maybe(rng, 500_000),
            short_send_ppm: Self::maybe(rng, 500_000),
            late_sent_ppm: Self::maybe(rng, 300_000),
            reset_ppm: Self::maybe(rng, 4_000),
            hand_over_fails_ppm: Self::maybe(rng, 200_000),
            accept_fails_ppm: Self::maybe(rng, 200_000),
            accept_backoff_us: 10_000,
            buffers: *rng.pick(&[1, 2, 8, 256]),
            buffer_len: *rng.pick(&[48, 512, 4096]),
            send_buffer_len: *rng.pick(&sizes),
            client_buffer_len: *rng.pick(&sizes),
        }
    }

    /// The same delays and sizes without the faults: what a run ends with, so that it can drain.
    #[must_use]
    pub fn calmed(&self) -> Self {
        Self {
            stall_ppm: 0,
            late_ppm: 0,
            short_receive_ppm: 0,
            short_send_ppm: 0,
            late_sent_ppm: 0,
            reset_ppm: 0,
            hand_over_fails_ppm: 0,
            accept_fails_ppm: 0,
            ..self.clone()
        }
    }

    fn maybe(rng: &mut Rng, ppm_max: u64) -> u32 {
        if rng.chance(500_000) { rng.below(ppm_max) as u32 } else { 0 }
    }
}

/// A stall or two of a shard per run, longer than retries and silent recipients are waited for.
pub const STALL_PPM: u64 = 1_000;
pub const STALL_US: u64 = 3_000_000;

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub accepted: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub handed_over: u64,
    pub doorbells: u64,
    pub stalls: u64,
    pub late: u64,
    pub short_receives: u64,
    pub short_sends: u64,
    pub late_sents: u64,
    /// A send found the socket full.
    pub blocked_sends: u64,
    pub resets: u64,
    pub hand_overs_failed: u64,
    pub accepts_failed: u64,
    /// A client lost because the table was full when it was accepted.
    pub table_full: u64,
    /// A receive had to wait for a buffer.
    pub starved: u64,
}
