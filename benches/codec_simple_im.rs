//! What one packet of simple-im costs: `cargo bench --bench codec_simple_im`.

use codec::simple_im::client::{Client, To};
use codec::simple_im::{Dialect, SimpleIm};
use codec::{Outgoing, PublishKind, UserId};
use common::{Bench, ID, packet};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

mod common;

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("simple-im/decode");
    group.throughput(Throughput::Elements(1));
    for dialect in [Dialect::Single, Dialect::Device] {
        let mut bench = bench(dialect);
        for len in PAYLOADS {
            let id = BenchmarkId::new(format!("publish {dialect:?}"), len);
            bench.decode(&mut group, id, &publish(dialect, len));
        }
    }
    let client = client(Dialect::Single);
    let ack = packet(|out| client.ack(&ID.into(), out));
    let mut bench = bench(Dialect::Single);
    bench.decode(&mut group, BenchmarkId::from_parameter("ack"), &ack);
    bench.decode_login(&mut group, &login(client));
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    for dialect in [Dialect::Single, Dialect::Device] {
        let mut group = criterion.benchmark_group(format!("simple-im/encode {dialect:?}"));
        let mut bench = bench(dialect);
        for len in PAYLOADS {
            bench.encode_push(&mut group, len, &publish(dialect, len));
        }
        group.throughput(Throughput::Elements(1));
        let ack = Outgoing::PublishAck(PublishKind::User, ID.into(), None);
        bench.encode(&mut group, BenchmarkId::from_parameter("publish_ack"), &ack);
        group.finish();
    }
}

fn frame(criterion: &mut Criterion) {
    let input = publish(Dialect::Single, PAYLOADS[0]).repeat(100);
    bench(Dialect::Single).frame(criterion, 100, &input);
}

fn bench(dialect: Dialect) -> Bench<SimpleIm> {
    Bench::new(&login(client(dialect)))
}

fn client(dialect: Dialect) -> Client<'static> {
    Client { dialect, user: UserId(42), device: b"android" }
}

fn login(client: Client<'_>) -> Vec<u8> {
    packet(|out| client.login(b"a_01", false, b"Pd0Ki5K4lBW9DW9lY1YqT0Gp5H4d6fKa", out))
}

fn publish(dialect: Dialect, len: usize) -> Vec<u8> {
    let text = vec![b'x'; len];
    packet(|out| client(dialect).message(&ID, To::User(UserId(7)), &text, out))
}

const PAYLOADS: [usize; 3] = [64, 1024, 32 * 1024 - 1];

criterion_group!(benches, decode, encode, frame);
criterion_main!(benches);
