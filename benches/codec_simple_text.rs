//! What one line of simple-text costs: `cargo bench --bench codec_simple_text`.

use codec::simple_text::client::{exit, list, login, send};
use codec::simple_text::{Dialect, SimpleText, line};
use codec::{Failure, Outgoing};
use common::{Bench, packet};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

mod common;

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("simple-text/decode");
    group.throughput(Throughput::Elements(1));
    let mut bench = bench();
    for len in PAYLOADS {
        bench.decode(&mut group, BenchmarkId::new("publish", len), &publish(len));
    }
    let escaped = packet(|out| send(Some("u7"), &"say \"no\"\n".repeat(10), out));
    bench.decode(&mut group, BenchmarkId::from_parameter("publish with escapes"), &escaped);
    bench.decode(&mut group, BenchmarkId::from_parameter("list"), &packet(list));
    bench.decode(&mut group, BenchmarkId::from_parameter("exit"), &packet(exit));
    let login = packet(|out| login("u42", Some("secret"), Dialect::Doc, out));
    bench.decode_login(&mut group, &login);
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("simple-text/encode");
    let mut bench = bench();
    for len in PAYLOADS {
        bench.encode_push(&mut group, len, &publish(len));
    }
    group.throughput(Throughput::Elements(1));
    let failed = Outgoing::PublishFailed { id: [].into(), why: Failure::Unknown, to: b"u7" };
    bench.encode(&mut group, BenchmarkId::from_parameter("fail"), &failed);
    bench.encode(&mut group, BenchmarkId::from_parameter("notice"), &Outgoing::Joined(b"u7"));
    group.finish();
}

fn frame(criterion: &mut Criterion) {
    let publish = publish(PAYLOADS[0]);
    let line = packet(|out| line(true, out, |out| out.extend_from_slice(&publish)));
    bench().frame(criterion, 100, &line.repeat(100));
}

fn bench() -> Bench<SimpleText> {
    Bench::new(&packet(|out| login("u42", Some("secret"), Dialect::Doc, out)))
}

fn publish(len: usize) -> Vec<u8> {
    packet(|out| send(Some("u7"), &"x".repeat(len), out))
}

/// The longest text is the document's.
const PAYLOADS: [usize; 2] = [64, 140];

criterion_group!(benches, decode, encode, frame);
criterion_main!(benches);
