//! What the codec benches share: one connection's codec, packets in, packets out.

use std::hint::black_box;

use codec::protocol::Protocol;
use codec::{
    Decoded, GroupId, GroupKey, Message, Outgoing, Packet, ProtocolId, Push, Target, TenantId,
    UserId, UserKey,
};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};

/// One protocol's codec in a connection that is logged in, or may be.
pub(crate) struct Bench<P: Protocol> {
    protocol: P,
    settings: P::Settings,
    id: ProtocolId,
}

impl<P: Protocol<Settings: Default>> Bench<P> {
    /// `login`: the packet that has logged the connection in; empty: none has.
    pub(crate) fn new(login: &[u8]) -> Self {
        let id = ProtocolId::from_name(P::NAME).expect("a protocol of the table");
        let mut bench = Self { protocol: P::new(), settings: P::Settings::default(), id };
        if !login.is_empty() {
            bench.protocol.decode(&bench.settings, login, &mut Vec::new()).expect("a login");
            bench.protocol.accepted();
        }
        bench
    }

    pub(crate) fn decode(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        id: BenchmarkId,
        packet: &[u8],
    ) {
        let mut scratch = Vec::new();
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                scratch.clear();
                let packet = self.protocol.decode(&self.settings, black_box(packet), &mut scratch);
                packet.map(|packet| {
                    black_box(packet);
                })
            });
        });
    }

    /// A login on a fresh connection.
    pub(crate) fn decode_login(&self, group: &mut BenchmarkGroup<'_, WallTime>, packet: &[u8]) {
        let mut scratch = Vec::new();
        group.bench_function("login", |bencher| {
            bencher.iter(|| {
                scratch.clear();
                let packet = P::new().decode(&self.settings, black_box(packet), &mut scratch);
                packet.map(|packet| {
                    black_box(packet);
                })
            });
        });
    }

    pub(crate) fn encode(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        id: BenchmarkId,
        outgoing: &Outgoing<'_>,
    ) {
        let mut out = Vec::new();
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                out.clear();
                self.protocol.encode(&self.settings, black_box(outgoing), false, &mut out);
                black_box(out.len())
            });
        });
    }

    /// A push to a user and one to a group of what `publish`, a packet, says; `len`: how much.
    pub(crate) fn encode_push(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        len: usize,
        publish: &[u8],
    ) {
        group.throughput(Throughput::Bytes(len as u64));
        let tenant = TenantId(0);
        let user = Target::User(UserKey { tenant, id: UserId(7) });
        let many = Target::Group(GroupKey { tenant, id: GroupId(7) });
        for (name, to) in [("push", user), ("group push", many)] {
            let message = self.message(to, publish);
            let push = Outgoing::Push(Push { message: &message, stored: false });
            self.encode(group, BenchmarkId::new(name, len), &push);
        }
    }

    fn message(&mut self, to: Target, publish: &[u8]) -> Message {
        let mut scratch = Vec::new();
        let packet = self.protocol.decode(&self.settings, publish, &mut scratch);
        let Ok(Packet::Publish(publish)) = packet else { panic!("no publish: {packet:?}") };
        Message {
            stamp: 1,
            id: ID.into(),
            from: Some(UserKey { tenant: TenantId(0), id: UserId(42) }),
            from_name: b"u42"[..].into(),
            to,
            protocol: self.id,
            time_ms: 1_443_856_541_000,
            body: publish.body.into(),
        }
    }

    /// `input`: a full receive buffer of `count` packets.
    pub(crate) fn frame(&mut self, criterion: &mut Criterion, count: usize, input: &[u8]) {
        let mut group = criterion.benchmark_group(format!("{}/frame", P::NAME));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("publish x {count}"), |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(input);
                let mut packets = 0;
                while !rest.is_empty()
                    && let Ok(Decoded::Frame { consumed, .. }) =
                        self.protocol.frame(&self.settings, rest, true)
                {
                    rest = &rest[consumed..];
                    packets += 1;
                }
                assert_eq!(packets, count);
            });
        });
        group.finish();
    }
}

/// A message's id as clients make them.
pub(crate) const ID: [u8; 32] = *b"550e8400e29b41d4a716446655440000";

/// What `write` appends.
pub(crate) fn packet(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}
