//! What one packet of the binary protocol costs: `cargo bench --bench codec_binary`.

use codec::binary::client::{Tail, TooLong};
use codec::binary::client::{ack, connect, group_part_publish, publish};
use codec::binary::{Binary, stream};
use codec::{GroupId, Outgoing, PublishKind, UserId};
use common::{Bench, ID, packet};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

mod common;

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("binary/decode");
    group.throughput(Throughput::Elements(1));
    let mut bench = bench();
    for len in PAYLOADS {
        bench.decode(&mut group, BenchmarkId::new("publish", len), &publish_of(len));
    }
    let users: Vec<_> = (0..100).map(UserId).collect();
    let part = short(|out| group_part_publish(GroupId(7), &ID.into(), &users, b"hello", out));
    bench.decode(&mut group, BenchmarkId::new("group_part_publish", users.len()), &part);
    let ack = packet(|out| ack(PublishKind::User, &ID.into(), out));
    bench.decode(&mut group, BenchmarkId::from_parameter("ack"), &ack);
    let tail = Tail::Terminal { role: 2, client: 2 };
    let login = short(|out| connect(b"xyb|##|app|##|1234", b"123456", tail, out));
    bench.decode_login(&mut group, &login);
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("binary/encode");
    let mut bench = bench();
    for len in PAYLOADS {
        bench.encode_push(&mut group, len, &publish_of(len));
    }
    group.throughput(Throughput::Elements(1));
    let ack = Outgoing::PublishAck(PublishKind::User, ID.into(), None);
    bench.encode(&mut group, BenchmarkId::from_parameter("publish_ack"), &ack);
    bench.encode(&mut group, BenchmarkId::from_parameter("ping"), &Outgoing::Ping);
    group.finish();
}

/// Small requests, as a busy back end sends them.
fn frame(criterion: &mut Criterion) {
    let packet = packet(|out| {
        stream::framed(true, out, |out| publish(UserId(7), &ID.into(), b"hello", out))
            .expect("a short payload");
    });
    bench().frame(criterion, 100, &packet.repeat(100));
}

fn bench() -> Bench<Binary> {
    Bench::new(&[])
}

fn publish_of(len: usize) -> Vec<u8> {
    short(|out| publish(UserId(7), &ID.into(), &vec![b'x'; len], out))
}

fn short(write: impl FnOnce(&mut Vec<u8>) -> Result<(), TooLong>) -> Vec<u8> {
    packet(|out| write(out).expect("a short payload"))
}

const PAYLOADS: [usize; 3] = [64, 1024, 32 * 1024 - 1];

criterion_group!(benches, decode, encode, frame);
criterion_main!(benches);
