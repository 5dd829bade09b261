//! What a message costs in the sans-io core, from its publish to the sender's acknowledgement:
//! `cargo bench --bench home`.
//!
//! 500 pairs whose senders' windows of ids are full, as after some minutes of traffic: far more
//! memory than a processor's own caches hold. Nothing is parsed, encoded, sent or stored.

#[path = "../shards/tests/common/mod.rs"]
mod common;

use std::sync::Arc;

use codec::{
    CloseReason, Destination, Manners, MessageId, Outgoing, Packet, ProtocolId, Publish, TenantId,
    UserId, UserKey,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shards::home::effects::{Effects, Timer};
use shards::home::{Home, Login};
use shards::io::{Now, ShardIndex, Slot};
use shards::limits::DEDUP_IDS;
use shards::mesh::ShardMessage;
use shards::timers::{TimerId, TimerWheel};
use shards::{Identity, ShardConfig};
use storage::Request;

/// All pairs in turn, each with as many messages as are in flight.
fn relay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("home/relay");
    for depth in [1, 16] {
        let mut pairs = Pairs::log_in();
        (0..DEDUP_IDS / depth + 1).for_each(|_| pairs.relay(depth));
        group.throughput(Throughput::Elements((PAIRS as usize * depth) as u64));
        group.bench_function(BenchmarkId::new("in flight", depth), |bencher| {
            bencher.iter(|| pairs.relay(depth));
        });
    }
    group.finish();
}

/// Senders are 0, 2, 4, ..., each with the next number as his recipient; user n is on slot n.
struct Pairs {
    home: Home,
    world: World,
    next_id: u64,
}

impl Pairs {
    fn log_in() -> Self {
        let identity = Identity { shard: 0, first_seq: 1, boot: 7, hash_key: [1, 2] };
        let home = Home::new(Arc::new(config()), identity, PAIRS * 2);
        let mut pairs = Self { home, world: World::new(), next_id: 0 };
        for user in 0..PAIRS * 2 {
            let key = UserKey { tenant: TenantId(0), id: UserId(user) };
            let login = Login {
                user: key,
                terminal: 0,
                name: Some(Arc::from(&b"somebody"[..])),
                binds: false,
                listener: 0,
                protocol: ProtocolId::ALL[0],
                manners: Manners::default(),
            };
            let now = pairs.world.now;
            pairs.home.login(slot(user), login, now, &mut pairs.world);
            let nothing = Ok((Vec::new(), false));
            pairs.home.rows(key, nothing, now, &mut pairs.world);
        }
        pairs
    }

    /// One turn reads all publishes, one completes all sends, one reads all acknowledgements.
    fn relay(&mut self, depth: usize) {
        self.world.acked = 0;
        for sender in (0..PAIRS * 2).step_by(2) {
            for _ in 0..depth {
                self.publish(sender);
            }
        }
        self.next_turn();
        for user in 0..PAIRS * 2 {
            let end = self.world.ends[user as usize];
            self.home.sent(slot(user), end, self.world.now, &mut self.world);
        }
        self.next_turn();
        for (slot, id) in std::mem::take(&mut self.world.pushed) {
            self.home.packet(slot, &Packet::Ack(id), self.world.now, &mut self.world);
        }
        self.next_turn();
        assert_eq!(self.world.acked, PAIRS as usize * depth, "every sender has his answers");
    }

    fn publish(&mut self, sender: u32) {
        let mut id = [b'0'; 32];
        id[..8].copy_from_slice(&self.next_id.to_le_bytes());
        self.next_id += 1;
        let to = Destination::User(UserId(sender + 1));
        let body = &[b'x'; 100];
        let publish = Publish { id: MessageId::from(id), to, body, keep: true };
        let packet = Packet::Publish(publish);
        self.home.packet(slot(sender), &packet, self.world.now, &mut self.world);
    }

    fn next_turn(&mut self) {
        let now = Now(self.world.now.0 + TURN_US);
        self.world.now = now;
        while let Some(timer) = self.world.timers.expired(now) {
            match timer {
                Timer::Session(slot) => self.home.session_timer(slot, now, &mut self.world),
                Timer::User(user) => self.home.user_timer(user, now, &mut self.world),
                Timer::Conn(_) | Timer::HandOver(_) => {}
            }
        }
    }
}

fn slot(user: u32) -> Slot {
    Slot { index: user, generation: 0 }
}

fn config() -> ShardConfig {
    ShardConfig {
        persist_after_ms: 200,
        heartbeat_interval_ms: 30_000,
        heartbeat_max_missed: u8::MAX,
        ..common::config(ProtocolId::ALL[0])
    }
}

/// Remembers what was pushed, counts what was acknowledged.
struct World {
    now: Now,
    timers: TimerWheel<Timer>,
    pushed: Vec<(Slot, MessageId)>,
    acked: usize,
    /// Output offsets of the connections, in packets.
    ends: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let ends = vec![0; PAIRS as usize * 2];
        Self { now: Now(0), timers: TimerWheel::new(), pushed: Vec::new(), acked: 0, ends }
    }
}

impl Effects for World {
    fn transmit(&mut self, slot: Slot, outgoing: &Outgoing<'_>) -> u64 {
        match outgoing {
            Outgoing::Push(push) => self.pushed.push((slot, push.message.id)),
            Outgoing::PublishAck(..) => self.acked += 1,
            _ => {}
        }
        let end = &mut self.ends[slot.index as usize];
        *end += 1;
        *end
    }

    fn close(&mut self, _: Slot, reason: CloseReason) {
        panic!("nobody gives a reason to be closed: {reason:?}");
    }

    fn backlog(&self, _: Slot) -> usize {
        0
    }

    fn unsent(&mut self, _: Slot) {}

    fn resume(&mut self, _: Slot) {}

    fn is_read(&self, _: Slot) -> bool {
        true
    }

    fn manners(&self, _: Slot) -> Manners {
        Manners::default()
    }

    fn route(&mut self, _: ShardIndex, _: ShardMessage) {}

    fn store(&mut self, request: Request) {
        assert!(matches!(request, Request::Read { .. }), "nobody is silent: {request:?}");
    }

    fn arm(&mut self, timer: Timer, at: Now) -> TimerId {
        self.timers.arm(timer, at)
    }

    fn cancel(&mut self, timer: TimerId) {
        self.timers.cancel(timer);
    }

    fn origin(&self, _: Slot) -> (TenantId, ProtocolId) {
        (TenantId(0), ProtocolId::ALL[0])
    }

    fn unix_ms(&self) -> u64 {
        self.now.0 / 1_000
    }
}

const PAIRS: u32 = 500;
/// The time of a turn.
const TURN_US: u64 = 500;

criterion_group!(benches, relay);
criterion_main!(benches);
