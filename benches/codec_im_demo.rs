//! What one Command of im-demo costs: `cargo bench --bench codec_im_demo`.

use codec::im_demo::ImDemo;
use codec::im_demo::client::{ack, connect, ping, send};
use codec::im_demo::types::{ChatType, Connect};
use codec::{MessageId, Outgoing, PublishKind, Receipt};
use common::{Bench, ID, packet};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

mod common;

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("im-demo/decode");
    group.throughput(Throughput::Elements(1));
    let mut bench = bench();
    for len in PAYLOADS {
        bench.decode(&mut group, BenchmarkId::new("publish", len), &publish(len, false));
    }
    let stamp = MessageId::of_stamp(1);
    let stamp = str::from_utf8(stamp.as_bytes()).expect("hexadecimal digits");
    let ack = packet(|out| ack(stamp, false, out));
    bench.decode(&mut group, BenchmarkId::from_parameter("ack"), &ack);
    let ping = packet(|out| ping(1_443_856_541_000, false, out));
    bench.decode(&mut group, BenchmarkId::from_parameter("ping"), &ping);
    bench.decode_login(&mut group, &login());
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("im-demo/encode");
    let mut bench = bench();
    for len in PAYLOADS {
        bench.encode_push(&mut group, len, &publish(len, false));
    }
    group.throughput(Throughput::Elements(1));
    let receipt = Some(Receipt { stamp: 1, time_ms: 1_443_856_541_000, stored: false });
    let ack = Outgoing::PublishAck(PublishKind::User, ID.into(), receipt);
    bench.encode(&mut group, BenchmarkId::from_parameter("publish_ack"), &ack);
    bench.encode(&mut group, BenchmarkId::from_parameter("ping"), &Outgoing::Ping);
    group.finish();
}

fn frame(criterion: &mut Criterion) {
    bench().frame(criterion, 100, &publish(PAYLOADS[0], true).repeat(100));
}

fn bench() -> Bench<ImDemo> {
    Bench::new(&login())
}

fn login() -> Vec<u8> {
    let part = |text: &str| text.to_owned();
    let login = Connect {
        org: part("acme"),
        appkey: part("dev"),
        user: part("u42"),
        token: part("s3cret"),
        ext: 1,
        device: part("android"),
    };
    packet(|out| connect(login, false, out))
}

fn publish(len: usize, stream: bool) -> Vec<u8> {
    let id = str::from_utf8(&ID).expect("hexadecimal digits");
    let to = (ChatType::Single, "u7");
    packet(|out| send(to, id, &"x".repeat(len), Some(true), stream, out))
}

const PAYLOADS: [usize; 3] = [64, 1024, 32 * 1024 - 1];

criterion_group!(benches, decode, encode, frame);
criterion_main!(benches);
