//! How many messages a second a store takes durably and gives up again, on one thread:
//! `cargo run --release -p storage --example store_rate -- DIR [batch] [users] [body bytes]`
//! for the embedded one, and with `external POSTGRES_URL REDIS_URL` in the place of `DIR`.
//!
//! Each batch appends messages to users in turn and deletes those of some batches ago, in one
//! transaction: store-and-forward in its steady state. Printed: messages (an append and a delete
//! each) per second, the same per second of processor time, and the time of a commit.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::{Message, MessageId, ProtocolId, Target, TenantId, UserId, UserKey};
use storage::sqlite::{Options, SqliteStore};
use storage::store::Write;
use storage::{Append, ExternalConfig, ExternalStore, Store};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let store = match args.next().as_deref() {
        None => Err(USAGE.to_owned()),
        Some("external") => external(&mut args),
        Some(dir) => embedded(dir.into()),
    };
    let mut number = |default| args.next().and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let (batch, users, body) = (number(256), number(500), number(100));
    match store {
        Ok(mut store) => {
            measure(&mut *store, batch, users, body);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn embedded(dir: PathBuf) -> Result<Box<dyn Store>, String> {
    let store = SqliteStore::open(&dir.join("rate.db"), Options::default());
    Ok(Box::new(store.map_err(|error| error.to_string())?))
}

fn external(args: &mut impl Iterator<Item = String>) -> Result<Box<dyn Store>, String> {
    let (Some(postgres), Some(redis)) = (args.next(), args.next()) else {
        return Err(USAGE.to_owned());
    };
    let config = ExternalConfig { postgres, redis, ..ExternalConfig::default() };
    Ok(Box::new(ExternalStore::open(&config).map_err(|error| error.to_string())?))
}

fn measure(store: &mut dyn Store, batch: u64, users: u64, body: u64) {
    let first = store.max_seq().unwrap_or(0) + 1;
    let (mut messages, mut next) = (0, first);
    let mut commits = Vec::new();
    let (start, busy) = (Instant::now(), processor_time());
    while start.elapsed() < DURATION {
        let mut writes: Vec<_> = (next..next + batch).map(|n| append(n, users, body)).collect();
        if let Some(old) = next.checked_sub(LAG * batch).filter(|old| *old >= first) {
            writes.extend(
                (old..old + batch).map(|seq| Write::Delete { user: user(seq, users), seq }),
            );
        }
        next += batch;
        let commit = Instant::now();
        let results = store.write(&writes);
        commits.push(commit.elapsed());
        assert!(results.iter().all(Result::is_ok), "{:?}", store.trouble());
        messages += batch;
    }
    let (took, busy) = (start.elapsed(), processor_time() - busy);
    commits.sort_unstable();
    let at = |share: f64| commits[(commits.len() as f64 * share) as usize].as_micros();
    println!(
        "batch {batch} users {users} body {body}: {:.0} messages/s, {:.0} per processor second, \
         commit p50 {} us p99 {} us",
        messages as f64 / took.as_secs_f64(),
        messages as f64 / busy.as_secs_f64(),
        at(0.5),
        at(0.99),
    );
}

fn append(n: u64, users: u64, body: u64) -> Write {
    let user = user(n, users);
    let message = Arc::new(Message {
        stamp: u128::from(n) << 64 | u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        id: MessageId::from([7; 32]),
        from: Some(user),
        from_name: b"somebody"[..].into(),
        to: Target::User(user),
        protocol: ProtocolId::ALL[0],
        time_ms: 1_800_000_000_000,
        body: vec![b'x'; body as usize].into(),
    });
    Write::Append(Append { user, seq: n, message, binding: None })
}

/// Spreads messages over the users like a hash would: neighbours in time are not in the table.
fn user(n: u64, users: u64) -> UserKey {
    let id = (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % users;
    UserKey { tenant: TenantId(0), id: UserId(id as u32) }
}

/// User and system time of this process.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

const USAGE: &str =
    "usage: store_rate (DIR | external POSTGRES_URL REDIS_URL) [batch] [users] [body bytes]";
const DURATION: Duration = Duration::from_secs(5);
/// Batches between a message's append and its delete.
const LAG: u64 = 20;
