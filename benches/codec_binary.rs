//! What one packet of the binary protocol costs: `cargo bench --bench codec_binary`.

use std::hint::black_box;

use codec::binary::client::{self, Tail};
use codec::binary::{Binary, Settings, stream};
use codec::protocol::Protocol;
use codec::{
    GroupId, GroupKey, Message, Outgoing, ProtocolId, PublishKind, Push, Target, UserId, UserKey,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("binary/decode");
    group.throughput(Throughput::Elements(1));
    for len in PAYLOADS {
        let packet = packet(|out| client::publish(UserId(7), &ID.into(), &vec![b'x'; len], out));
        bench_decode(&mut group, BenchmarkId::new("publish", len), &packet);
    }
    let users: Vec<_> = (0..100).map(UserId).collect();
    let part =
        packet(|out| client::group_part_publish(GroupId(7), &ID.into(), &users, b"hello", out));
    bench_decode(&mut group, BenchmarkId::new("group_part_publish", users.len()), &part);
    let ack = packet(|out| {
        client::ack(PublishKind::User, &ID.into(), out);
        Ok(())
    });
    bench_decode(&mut group, BenchmarkId::from_parameter("ack"), &ack);
    let tail = Tail::Terminal { role: 2, client: 2 };
    let connect = packet(|out| client::connect(b"xyb|##|app|##|1234", b"123456", tail, out));
    bench_decode(&mut group, BenchmarkId::from_parameter("connect"), &connect);
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("binary/encode");
    for len in PAYLOADS {
        group.throughput(Throughput::Bytes(len as u64));
        let message = message(len);
        let push = Outgoing::Push(Push { message: &message, stored: false });
        bench_encode(&mut group, BenchmarkId::new("push", len), &push);
    }
    group.throughput(Throughput::Elements(1));
    let ack = Outgoing::PublishAck(PublishKind::User, ID.into(), None);
    bench_encode(&mut group, BenchmarkId::from_parameter("publish_ack"), &ack);
    bench_encode(&mut group, BenchmarkId::from_parameter("ping"), &Outgoing::Ping);
    group.finish();
}

/// A full receive buffer of small requests, as a busy back end sends them.
fn frame(criterion: &mut Criterion) {
    let mut input = Vec::new();
    for _ in 0..100 {
        stream::framed(true, &mut input, |out| {
            client::publish(UserId(7), &ID.into(), b"hello", out)
        })
        .expect("a short payload");
    }
    let mut group = criterion.benchmark_group("binary/frame");
    group.throughput(Throughput::Elements(100));
    group.bench_function("publish x 100", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(&input[..]);
            let mut packets = 0;
            while let Ok(codec::Decoded::Frame { consumed, .. }) = stream::frame(rest) {
                rest = &rest[consumed..];
                packets += 1;
            }
            packets
        });
    });
    group.finish();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn bench_decode(group: &mut Group<'_>, id: BenchmarkId, packet: &[u8]) {
    let settings = Settings::default();
    let mut binary = Binary::new();
    let mut scratch = Vec::new();
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            binary.decode(&settings, black_box(packet), &mut scratch).map(|packet| {
                black_box(packet);
            })
        });
    });
}

fn bench_encode(group: &mut Group<'_>, id: BenchmarkId, outgoing: &Outgoing<'_>) {
    let settings = Settings::default();
    let binary = Binary::new();
    let mut out = Vec::new();
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            out.clear();
            binary.encode(&settings, black_box(outgoing), false, &mut out);
            black_box(out.len())
        });
    });
}

fn packet(write: impl FnOnce(&mut Vec<u8>) -> Result<(), client::TooLong>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out).expect("a short payload");
    out
}

fn message(len: usize) -> Message {
    let to = Target::Group(GroupKey { id: GroupId(7), ..GroupKey::default() });
    Message {
        stamp: 1,
        id: ID.into(),
        from: Some(UserKey::default()),
        from_name: b"alice"[..].into(),
        to,
        protocol: ProtocolId::Binary,
        time_ms: 2,
        body: vec![b'x'; len].into(),
    }
}

const PAYLOADS: [usize; 3] = [64, 1024, 32 * 1024 - 1];
const ID: [u8; 32] = *b"550e8400e29b41d4a716446655440000";

criterion_group!(benches, decode, encode, frame);
criterion_main!(benches);
