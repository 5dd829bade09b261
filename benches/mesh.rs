//! What one hop between two shards costs, threads included: `cargo bench --bench mesh`.
//!
//! The threads spin instead of sleeping, so this is the mesh without the kernel's doorbell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shards::Mesh;
use shards::home::outcome::Outcome;
use shards::limits::mesh_ring;
use shards::mesh::ShardMessage;

/// Requests leave in turns of `batch`; the next turn begins when all are answered.
fn round_trips(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh/there and back");
    let (mut here, peer) = pair();
    for batch in [1, 16, mesh_ring(2) as u32] {
        group.throughput(Throughput::Elements(u64::from(batch)));
        let name = if batch == 1 { "ping-pong" } else { "batched" };
        group.bench_function(BenchmarkId::new(name, batch), |bencher| {
            bencher.iter(|| {
                for request in 0..batch {
                    here.send(PEER, settled(request));
                }
                here.flush(|_| {});
                for request in 0..batch {
                    assert_eq!(answer(&mut here), request, "answers come in order");
                }
            });
        });
    }
    group.finish();
    peer.stop();
}

/// One direction only, as fast as the other side takes it; the ring may fill up.
fn stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh/one way");
    let (mut here, peer) = pair();
    group.throughput(Throughput::Elements(u64::from(STREAM)));
    group.bench_function(BenchmarkId::new("turns of 64, the last one answered", STREAM), |b| {
        b.iter(|| {
            for turn in 0..STREAM / TURN {
                for _ in 1..TURN {
                    here.send(PEER, settled(ShardMessage::NO_REPLY));
                }
                let last = (turn + 1) * TURN == STREAM;
                here.send(PEER, settled(if last { turn } else { ShardMessage::NO_REPLY }));
                here.flush(|_| {});
                while here.waiting() > 0 {
                    std::hint::spin_loop();
                    here.flush(|_| {});
                }
            }
            answer(&mut here)
        });
    });
    group.finish();
    peer.stop();
}

/// Without another thread: what the calls themselves cost.
fn one_thread(criterion: &mut Criterion) {
    let mut ends = Mesh::wire(2, mesh_ring(2));
    let (mut there, mut here) = (ends.pop().expect("two ends"), ends.pop().expect("two ends"));
    let mut group = criterion.benchmark_group("mesh/one thread");
    group.throughput(Throughput::Elements(u64::from(TURN)));
    group.bench_function(BenchmarkId::new("send, flush, receive", TURN), |bencher| {
        bencher.iter(|| {
            (0..TURN).for_each(|request| here.send(PEER, settled(request)));
            here.flush(|_| {});
            assert_eq!(std::iter::from_fn(|| there.receive()).count(), TURN as usize);
        });
    });
    group.finish();
}

/// A thread that answers every request but those that owe no reply.
struct Peer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Peer {
    fn start(mut mesh: Mesh) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                while let Some((from, message)) = mesh.receive() {
                    let is_request = !matches!(
                        message,
                        ShardMessage::Settled { request: ShardMessage::NO_REPLY, .. }
                    );
                    if is_request {
                        mesh.send(from, message);
                    }
                }
                mesh.flush(|_| {});
                std::hint::spin_loop();
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the peer does not panic");
    }
}

fn pair() -> (Mesh, Peer) {
    let mut ends = Mesh::wire(2, mesh_ring(2));
    let there = ends.pop().expect("two ends");
    (ends.pop().expect("two ends"), Peer::start(there))
}

fn answer(mesh: &mut Mesh) -> u32 {
    loop {
        match mesh.receive() {
            Some((_, ShardMessage::Settled { request, .. })) => return request,
            Some((_, other)) => panic!("unexpected {other:?}"),
            None => std::hint::spin_loop(),
        }
    }
}

fn settled(request: u32) -> ShardMessage {
    ShardMessage::Settled { request, outcome: Outcome::Safe }
}

const PEER: u16 = 1;
/// A turn's worth of messages.
const TURN: u32 = 64;
const STREAM: u32 = 64 * 1024;

criterion_group!(benches, round_trips, stream, one_thread);
criterion_main!(benches);
