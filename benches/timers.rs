//! What a timer costs while 100,000 others are armed: `cargo bench --bench timers`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shards::io::Now;
use shards::timers::{TICK_MS, TimerId, TimerWheel};

/// An answered push: the retry is armed and taken back, over and over.
fn arm_and_cancel(criterion: &mut Criterion) {
    let mut wheel = full_wheel(0);
    let mut at = moments(0);
    let mut group = criterion.benchmark_group("timers");
    group.throughput(Throughput::Elements(1));
    group.bench_function("arm and cancel", |bencher| {
        bencher.iter(|| {
            let timer = wheel.arm(ARMED, at.next().expect("an endless series"));
            wheel.cancel(black_box(timer));
        });
    });
    group.finish();
}

/// Heartbeats pushed back: each timer in turn is taken back and armed for later, so that every
/// node touched is a cold one.
fn rearm(criterion: &mut Criterion) {
    let mut wheel = TimerWheel::new();
    let mut at = moments(0);
    let mut next = || at.next().expect("an endless series");
    let mut timers: Vec<TimerId> = (0..ARMED).map(|key| wheel.arm(key, next())).collect();
    let mut cursor = 0;
    let mut group = criterion.benchmark_group("timers");
    group.throughput(Throughput::Elements(1));
    group.bench_function("re-arm each in turn", |bencher| {
        bencher.iter(|| {
            wheel.cancel(timers[cursor]);
            timers[cursor] = wheel.arm(cursor as u32, next());
            cursor = (cursor + 1) % timers.len();
        });
    });
    group.finish();
}

/// All of them fire, in turns a tick apart.
fn expire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers");
    group.throughput(Throughput::Elements(u64::from(ARMED)));
    for (name, offset_ms) in [("expire", 0), ("expire, those of later rounds passed over", 60_000)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || full_wheel(offset_ms),
                |mut wheel| {
                    let mut fired = 0;
                    for tick in 0..=(offset_ms + SPREAD_MS) / TICK_MS {
                        while let Some(key) = wheel.expired(Now(0).plus_ms(tick * TICK_MS)) {
                            fired += u64::from(black_box(key));
                        }
                    }
                    assert!(wheel.is_empty(), "all are due by now");
                    (fired, wheel)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// The last turn of every loop asks this.
fn next_deadline(criterion: &mut Criterion) {
    let wheel = full_wheel(0);
    let mut alone = TimerWheel::new();
    alone.arm(0, Now(0).plus_ms(SPREAD_MS));
    let mut group = criterion.benchmark_group("timers/next_deadline");
    group.bench_function("100,000 armed", |b| b.iter(|| black_box(&wheel).next_deadline()));
    group.bench_function("one, 30 s away", |b| b.iter(|| black_box(&alone).next_deadline()));
    group.finish();
}

fn full_wheel(offset_ms: u64) -> TimerWheel<u32> {
    let mut wheel = TimerWheel::new();
    for (key, at) in (0..ARMED).zip(moments(offset_ms)) {
        wheel.arm(key, at);
    }
    wheel
}

/// Moments spread evenly over `SPREAD_MS`, in an order that jumps about.
fn moments(offset_ms: u64) -> impl Iterator<Item = Now> {
    let mut seed = 7_u64;
    std::iter::repeat_with(move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Now(0).plus_ms(offset_ms + (seed >> 33) % SPREAD_MS)
    })
}

const ARMED: u32 = 100_000;
/// A heartbeat interval; less than one revolution of the wheel.
const SPREAD_MS: u64 = 30_000;

criterion_group!(benches, arm_and_cancel, rearm, expire, next_deadline);
criterion_main!(benches);
