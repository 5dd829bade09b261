//! What one WebSocket frame costs: `cargo bench --bench codec_ws`.

use std::hint::black_box;

use codec::binary::{Binary, Settings, client};
use codec::protocol::Protocol;
use codec::ws::handshake::client::write_request;
use codec::ws::handshake::{parse_upgrade, write_accept};
use codec::ws::{Event, Opcode, Role, Ws, apply_mask, encode};
use codec::{Decoded, UserId};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const LENS: [usize; 3] = [64, 1024, 64 * 1024];
const MAX: usize = 1 << 20;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn frame(opcode: Opcode, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, opcode, key, payload.len(), |out| out.extend_from_slice(payload));
    out
}

/// Decodes the frame over and over, in inputs of `chunk_len`. Unmasking it in place again and
/// again turns the payload back and forth, which only a text would mind.
fn bench_decode(criterion: &mut Criterion, name: &str, role: Role, opcode: Opcode, chunks: usize) {
    let mut group = criterion.benchmark_group(format!("ws/decode/{name}"));
    for len in LENS {
        let key = (role == Role::Server).then_some(KEY);
        let mut input = frame(opcode, key, &vec![b'x'; len]);
        let chunk_len = input.len().div_ceil(chunks);
        let mut ws = Ws::new(role);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| {
                for chunk in black_box(&mut input).chunks_mut(chunk_len) {
                    black_box(ws.decode(chunk, MAX).expect("a right frame"));
                }
            });
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    bench_decode(criterion, "masked", Role::Server, Opcode::Binary, 1);
    bench_decode(criterion, "unmasked", Role::Client, Opcode::Binary, 1);
    bench_decode(criterion, "unmasked_text", Role::Client, Opcode::Text, 1);
    bench_decode(criterion, "split_in_two", Role::Server, Opcode::Binary, 2);
}

fn encode_frames(criterion: &mut Criterion) {
    for (name, key) in [("server", None), ("client", Some(KEY))] {
        let mut group = criterion.benchmark_group(format!("ws/encode/{name}"));
        for len in LENS {
            let payload = vec![b'x'; len];
            let mut out = Vec::with_capacity(len + 14);
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let payload = black_box(&payload[..]);
                    encode(&mut out, Opcode::Binary, key, payload.len(), |out| {
                        out.extend_from_slice(payload);
                    });
                    black_box(&mut out);
                });
            });
        }
        group.finish();
    }
}

fn unmask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ws/unmask");
    for len in LENS {
        let mut payload = vec![b'x'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| apply_mask(black_box(&mut payload), black_box(KEY)));
        });
    }
    group.finish();
}

/// The path of every message: frame, then packet.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ws/decode/publish");
    for len in [64, 1024, 32 * 1024 - 1] {
        let mut packet = Vec::new();
        client::publish(UserId(7), &[b'5'; 32].into(), &vec![b'x'; len], &mut packet)
            .expect("within the bound");
        let mut input = frame(Opcode::Binary, None, &packet);
        let mut ws = Ws::new(Role::Client);
        let (mut protocol, settings) = (Binary::new(), Settings::default());
        let mut scratch = Vec::new();
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| {
                let step = ws.decode(black_box(&mut input), MAX).expect("a right frame");
                let Some(Event::Message { payload, .. }) = step.event else {
                    panic!("a whole frame is a message")
                };
                let packet = protocol.decode(&settings, &payload, &mut scratch);
                black_box(packet.expect("a right packet"));
            });
        });
    }
    group.finish();
}

fn handshake(criterion: &mut Criterion) {
    let mut request = Vec::new();
    write_request(&mut request, "localhost:9095", "/ws", [7; 16], None);
    let mut out = Vec::new();
    criterion.bench_function("ws/handshake", |bencher| {
        bencher.iter(|| {
            out.clear();
            let upgrade = parse_upgrade(black_box(&request), 0, &["/", "/ws"]);
            let Ok(Decoded::Frame { value, .. }) = upgrade else { panic!("the request is right") };
            write_accept(&mut out, value.key, None);
            black_box(&mut out);
        });
    });
}

criterion_group!(benches, decode, encode_frames, unmask, publish, handshake);
criterion_main!(benches);
