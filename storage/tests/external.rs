//! What only the external store promises: nothing acknowledged is lost and nothing is denied
//! falsely whatever happens to its servers, both of which are real and the test's own; and the keys
//! and tables that other systems read and write.

#[path = "external/foreign.rs"]
mod foreign;
#[path = "store_suite/forms.rs"]
mod forms;
#[path = "external/imports.rs"]
mod imports;
#[path = "external/logins.rs"]
mod logins;
#[path = "external/servers.rs"]
mod servers;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use codec::{Query, TenantId, UserId};
use forms::*;
use servers::{PATIENCE, Place, Redis, Servers};
use storage::Admin as _;
use storage::accounts::TokenRecord;
use storage::admin::NewUser;
use storage::external::{ExternalError, PostgresProblem, RedisProblem};
use storage::{Accounts, Caps, ExternalConfig, ExternalStore, NameKind, Store, StoreError};

fn token(user: u32) -> TokenRecord {
    TokenRecord {
        user: UserId(user),
        name: None,
        device: Box::from(*b"ipad"),
        ip: Box::from(*b"10.0.0.1"),
        port: 1987,
        permanent: false,
    }
}

fn open(config: &ExternalConfig) -> ExternalStore {
    ExternalStore::open(config).unwrap()
}

/// Asks until the answer is as it should be: the pauses after a failure pass meanwhile.
fn ask_until<T: std::fmt::Debug>(mut ask: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if done(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "still {answer:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// How the appends of [`nothing_acknowledged_is_lost`] go.
#[derive(Default)]
struct Progress {
    taken: AtomicU64,
    refused: AtomicU64,
}

impl Progress {
    /// Until some more appends were taken.
    fn goes_on(&self) {
        Self::grows(&self.taken, 5);
    }

    /// Until some more were refused.
    fn is_disturbed(&self) {
        Self::grows(&self.refused, 1);
    }

    fn grows(count: &AtomicU64, by: u64) {
        let before = count.load(Relaxed);
        ask_until(|| count.load(Relaxed), |now| *now >= before + by);
    }
}

/// Appends row after row while `trouble` goes on; then every acknowledged one must be there, in
/// its order, and the next must be taken.
fn nothing_acknowledged_is_lost(config: &ExternalConfig, trouble: impl FnOnce(&Progress) + Send) {
    let (over, progress) = (AtomicBool::new(false), Progress::default());
    let mut store = open(config);
    let mut acknowledged = BTreeSet::new();
    let mut seq = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            trouble(&progress);
            over.store(true, Relaxed);
        });
        while !over.load(Relaxed) {
            let seqs = seq + 1..=seq + 50;
            let writes: Vec<_> = seqs.clone().map(|seq| append(user(1), seq, &[7; 100])).collect();
            let results = store.write(&writes);
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "all or none: {results:?}");
            match results[0] {
                Ok(()) => {
                    progress.taken.fetch_add(1, Relaxed);
                    acknowledged.extend(seqs);
                }
                // The same again, later: it may have been taken the first time.
                Err(StoreError::Unavailable) => {
                    progress.refused.fetch_add(1, Relaxed);
                    continue;
                }
                Err(StoreError::Full) => panic!("the same message again is never refused"),
            }
            seq += 50;
        }
    });
    assert!(progress.refused.into_inner() > 0, "there was trouble");
    ask_until(|| store.write(&[append(user(2), seq + 1, b"")]), |results| results == &[OK]);
    let rows = rows(&mut store, user(1));
    let there: BTreeSet<u64> = rows.iter().map(|row| row.seq).collect();
    assert!(there.is_superset(&acknowledged), "{} lost", acknowledged.difference(&there).count());
    assert!(rows.is_sorted_by_key(|row| row.seq) && there.len() == rows.len(), "once, in order");
    assert!(store.max_seq().unwrap() > seq);
}

#[test]
fn a_redis_that_is_killed_loses_nothing_that_it_acknowledged() {
    let Some(mut servers) = Servers::start() else { return };
    let config = ExternalConfig { caps: NO_CAPS, ..servers.config() };
    let redis = &mut servers.redis;
    nothing_acknowledged_is_lost(&config, |appends| {
        for _ in 0..5 {
            appends.goes_on();
            redis.kill();
            appends.is_disturbed();
            redis.run(&[]);
        }
    });
}

#[test]
fn a_redis_that_hangs_holds_nobody_and_loses_nothing() {
    let Some(servers) = Servers::start() else { return };
    let timeout = Duration::from_millis(200);
    let config = ExternalConfig { caps: NO_CAPS, timeout, ..servers.config() };
    let redis = &servers.redis;
    nothing_acknowledged_is_lost(&config, |appends| {
        for _ in 0..3 {
            redis.signal("-STOP");
            appends.is_disturbed();
            redis.signal("-CONT");
            appends.goes_on();
        }
    });
    let mut store = open(&config);
    redis.signal("-STOP");
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(store.write(&[append(user(1), 1_000_000, b"")]), [UNAVAILABLE]);
        assert_eq!(store.read(user(1), 0, 1, 1), Err(StoreError::Unavailable));
        assert_eq!(Accounts::token(&mut store, b"token", 0), Err(StoreError::Unavailable));
    }
    assert!(start.elapsed() < timeout * 12, "{:?} for 60 calls", start.elapsed());
    assert!(store.trouble().is_some());
    redis.signal("-CONT");
}

#[test]
fn a_dead_postgres_is_no_denial_and_does_not_stop_messages() {
    let Some(mut servers) = Servers::start() else { return };
    let mut store = open(&servers.config());
    let alice = NewUser {
        key: user(1),
        name: b"alice"[..].into(),
        password_hash: "hash".to_owned(),
        phone: Some("100".to_owned()),
    };
    store.add_user(alice).unwrap();
    servers.postgres.kill();
    let down = StoreError::Unavailable;
    for _ in 0..3 {
        assert_eq!(store.user_by_name(TenantId(0), b"alice"), Err(down));
        assert_eq!(Store::user_by_phone(&mut store, TenantId(0), b"100"), Err(down));
        assert_eq!(store.name_of(user(9)), Err(down));
        assert_eq!(store.tenant_named(b"default", b"default"), Err(down));
        assert_eq!(store.resolve(TenantId(0), b"bob", NameKind::Any), Err(down));
        assert_eq!(store.query(user(1), &Query::Groups), Err(down));
        assert!(store.members(group(1)).is_err_and(|error| error == down));
        assert_eq!(store.credentials(b"100"), Err(down));
        assert_eq!(store.create_user(b"bob", b"200", "hash"), Err(down));
    }
    // The other half goes on; what needs both does not.
    assert_eq!(store.write(&[append(user(1), 1, b"x")]), [OK]);
    assert_eq!(
        store.write(&[bound(user(2), 2, b"bob"), append(user(1), 3, b"")]),
        [UNAVAILABLE, OK]
    );
    assert!(store.trouble().is_some_and(|trouble| trouble.contains("PostgreSQL")));
    assert_eq!(seqs(&mut store, user(1)), [1, 3]);
    store.put_token(b"token", &token(1), Duration::from_secs(100), 0).unwrap();
    servers.postgres.run();
    let found = ask_until(|| store.user_by_name(TenantId(0), b"alice"), Result::is_ok).unwrap();
    assert_eq!(found.map(|user| user.id), Some(UserId(1)));
    assert_eq!(store.write(&[bound(user(2), 2, b"bob")]), [OK], "the same again");
    assert_eq!(store.name_of(user(2)), Ok(Some(b"bob"[..].into())));
    assert_eq!(seqs(&mut store, user(2)), [2]);
}

#[test]
fn a_postgres_that_restarts_goes_unnoticed_and_one_that_hangs_holds_nobody() {
    let Some(mut servers) = Servers::start() else { return };
    let timeout = Duration::from_millis(300);
    let mut store = open(&ExternalConfig { timeout, ..servers.config() });
    assert_eq!(store.write(&[bound(user(1), 1, b"alice")]), [OK]);
    assert_eq!(store.changed(), Ok(false));
    servers.postgres.kill();
    servers.postgres.run();
    assert_eq!(store.name_of(user(1)), Ok(Some(b"alice"[..].into())), "the old session was stale");
    assert_eq!(store.changed(), Ok(true), "what happened meanwhile is unknown");
    assert_eq!(store.changed(), Ok(false));
    servers.postgres.signal("-STOP");
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(store.name_of(user(1)), Err(StoreError::Unavailable));
        assert_eq!(store.query(user(1), &Query::Groups), Err(StoreError::Unavailable));
    }
    assert!(start.elapsed() < timeout * 8, "{:?} for 40 calls", start.elapsed());
    assert_eq!(store.write(&[append(user(1), 2, b"")]), [OK]);
    servers.postgres.signal("-CONT");
    ask_until(|| store.name_of(user(1)), Result::is_ok).unwrap();
}

#[test]
fn a_redis_that_would_lose_messages_is_refused_unless_that_is_accepted() {
    let Some(mut servers) = Servers::start() else { return };
    let config = servers.config();
    for (options, setting) in [
        (&["--appendonly", "no"][..], "appendonly"),
        (&["--appendfsync", "everysec"], "appendfsync"),
        (&["--maxmemory-policy", "allkeys-lru"], "maxmemory-policy"),
    ] {
        servers.redis.kill();
        servers.redis.run(options);
        let error = ExternalStore::open(&config).unwrap_err();
        let ExternalError::Redis(RedisProblem::Setting(name, ..)) = &error else {
            panic!("{error}")
        };
        assert_eq!(*name, setting);
        assert!(error.to_string().contains("redis_durability"), "{error}");
        let accepted = ExternalConfig { durability_accepted: true, ..config.clone() };
        let mut store = open(&accepted);
        assert_eq!(store.write(&[append(user(1), 1, b"")]), [OK]);
    }
    // A server that changes its mind is found out by the next connection.
    servers.redis.kill();
    servers.redis.run(&[]);
    let mut store = open(&config);
    servers.redis.kill();
    servers.redis.run(&["--appendfsync", "no"]);
    assert_eq!(store.write(&[append(user(1), 2, b"")]), [UNAVAILABLE]);
    assert!(store.trouble().unwrap().contains("appendfsync"), "{:?}", store.trouble());
}

#[test]
fn where_there_is_a_replica_it_has_to_confirm() {
    let Some(servers) = Servers::start() else { return };
    let Some(mut replica) = Redis::start() else { return };
    let mut master = servers::connect(&servers.redis.url());
    let port = free_port();
    let set = |name: &str, value: &str, connection: &mut redis::Connection| {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(connection).unwrap();
    };
    set("port", &port, &mut master);
    replica.kill();
    replica.run(&["--replicaof", "127.0.0.1", &port]);
    let replicas = |master: &mut redis::Connection| {
        let info: String = redis::cmd("INFO").arg("replication").query(master).unwrap();
        info.contains("connected_slaves:1") && info.contains("state=online")
    };
    ask_until(|| replicas(&mut master), |online| *online);
    let config = ExternalConfig { timeout: Duration::from_millis(400), ..servers.config() };
    let mut store = open(&config);
    assert_eq!(store.write(&[append(user(1), 1, b"")]), [OK]);
    replica.signal("-STOP");
    let result = store.write(&[append(user(1), 2, b"")]);
    replica.signal("-CONT");
    assert_eq!(result, [UNAVAILABLE]);
    assert!(store.trouble().unwrap().contains("replica"), "{:?}", store.trouble());
    ask_until(|| store.write(&[append(user(1), 2, b"")]), |results| results == &[OK]);
    let replica = ExternalConfig { redis: replica.url(), ..config };
    let error = ExternalStore::open(&replica).unwrap_err();
    assert_eq!(error, ExternalError::Redis(RedisProblem::Replica));
}

fn free_port() -> String {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap().port().to_string()
}

#[test]
fn without_memory_nothing_is_added_and_what_goes_can_go() {
    let Some(servers) = Servers::start() else { return };
    let mut store = open(&servers.config());
    assert_eq!(store.write(&[append(user(1), 1, b"x"), append(user(1), 2, b"")]), [OK, OK]);
    let mut operator = servers::connect(&servers.redis.url());
    let mut memory = |bytes: &str| {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec(&mut operator).unwrap();
    };
    memory("1");
    let writes = [append(user(1), 3, b""), delete(user(1), 1), append(user(1), 2, b"")];
    assert_eq!(store.write(&writes), [UNAVAILABLE, OK, OK]);
    assert_eq!(seqs(&mut store, user(1)), [2]);
    memory("0");
    assert_eq!(store.write(&[append(user(1), 3, b"")]), [OK]);
    assert_eq!(store.max_seq(), Ok(3));
}

#[test]
fn caps_hold_for_two_processes_together() {
    let Some(place) = Place::new() else { return };
    let config =
        ExternalConfig { caps: Caps { user_rows: 100, ..NO_CAPS }, ..place.config.clone() };
    let taken: usize = std::thread::scope(|scope| {
        let writer = |first: u64| {
            let mut store = open(&config);
            let mut taken = 0;
            for seq in (first..first + 100).step_by(5) {
                let writes: Vec<_> = (seq..seq + 5).map(|seq| append(user(1), seq, b"")).collect();
                taken += store.write(&writes).iter().filter(|result| result.is_ok()).count();
            }
            taken
        };
        let threads = [1, 1_001, 2_001].map(|first| scope.spawn(move || writer(first)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 100);
    assert_eq!(seqs(&mut place.open(), user(1)).len(), 100);
}

#[test]
fn another_process_is_noticed_and_ones_own_changes_are_not() {
    let Some(place) = Place::new() else { return };
    let (mut store, mut operator) = (place.open(), place.open());
    assert_eq!(store.write(&[bound(user(1), 1, b"alice")]), [OK]);
    let create = Query::CreateGroup { id: [].into(), title: [].into(), users: Vec::new() };
    store.query(user(1), &create).unwrap();
    assert_eq!(store.changed(), Ok(false));
    assert_eq!(operator.changed(), Ok(true));
    operator.write(&[append(user(1), 2, b""), bound(user(2), 3, b"bob")]);
    assert_eq!(store.changed(), Ok(false), "messages and names are not cached");
    operator.query(user(2), &create).unwrap();
    assert_eq!(store.changed(), Ok(true));
    assert_eq!(store.changed(), Ok(false));
    place.sql().run("UPDATE ringpost_users SET password_hash = 'x' WHERE id = 1");
    assert_eq!(store.changed(), Ok(true), "whoever it was");
}

#[test]
fn messages_from_before_there_was_an_age_limit_expire_too() {
    let Some(place) = Place::new() else { return };
    let mut store = place.open();
    store.write(&[append(user(1), 1, b"x"), append(user(2), 2, b"")]);
    let config = ExternalConfig { age_max_ms: Some(500), ..place.config.clone() };
    let mut limited = open(&config);
    // By a handle that knows of no limit.
    store.write(&[append(user(3), 3, b""), delete(user(2), 2)]);
    assert_eq!(limited.expire(1_501), Ok(2));
    assert_eq!(open(&config).expire(1_501), Ok(0));
    assert_eq!(store.dead_letters(0, 9).unwrap().len(), 2);
}

#[test]
fn hostile_names_numbers_and_bodies_are_only_what_they_are() {
    let Some(place) = Place::new() else { return };
    let mut store = place.open();
    let hostile: [&[u8]; 9] = [
        b"'; DROP TABLE ringpost_users; --",
        b"\" OR 1=1 --",
        b"$1",
        b"\\'; SELECT pg_sleep(9); --",
        b"\r\n*1\r\n$8\r\nFLUSHALL\r\n",
        b"\" ) redis.call('FLUSHALL') --",
        b"\xff\xfe\0\x01",
        b"%s%n{}",
        b"",
    ];
    for (number, name) in (1..).zip(hostile) {
        let key = user(number);
        let seq = u64::from(number);
        let message = append_message(key, seq, direct(key, seq, name));
        assert_eq!(store.write(&[message]), [OK]);
        assert_eq!(rows(&mut store, key)[0].message.body.as_ref(), name);
        assert_eq!(store.write(&[bound(key, seq + 100, name)]), [OK]);
        assert_eq!(store.name_of(key), Ok(Some(name.into())));
        let found = store.user_by_name(TenantId(0), name).unwrap();
        assert_eq!(found.map(|user| user.id), Some(key.id), "{}", name.escape_ascii());
        store.put_token(name, &token(number), Duration::from_secs(100), 0).unwrap();
        assert_eq!(Accounts::token(&mut store, name, 1).unwrap().unwrap().user, key.id);
        assert_eq!(store.credentials(name), Ok(None));
        assert_eq!(store.tenant_named(name, name), Ok(None));
        let title: Box<[u8]> = name.into();
        let create = Query::CreateGroup { id: title.clone(), title, users: vec![name.into()] };
        store.query(key, &create).unwrap();
        store.ask_contact(key.id, user(1).id, name, 0).unwrap();
    }
    for (number, name) in (1..).zip(hostile) {
        assert_eq!(store.name_of(user(number)), Ok(Some(name.into())), "all are still there");
        assert_eq!(seqs(&mut store, user(number)).len(), 2);
    }
}

#[test]
fn urls_and_passwords_are_in_no_error_and_no_debug_text() {
    let Some(place) = Place::new() else { return };
    let config = |postgres: &str, redis: &str| ExternalConfig {
        postgres: postgres.to_owned(),
        redis: redis.to_owned(),
        ..place.config.clone()
    };
    let (good_postgres, good_redis) = (&*place.config.postgres, &*place.config.redis);
    for (config, expected) in [
        (config(good_postgres, "http://:topsecret@host"), "store.redis"),
        (config(good_postgres, "redis://:topsecret@127.0.0.1:1/0"), "store.redis"),
        (config("postgres://me:topsecret@host:port", good_redis), "store.postgres"),
        (config("postgres://me:topsecret@127.0.0.1:1/db", good_redis), "store.postgres"),
    ] {
        let error = ExternalStore::open(&config).unwrap_err();
        let said = format!("{error} {error:?} {config:?}");
        assert!(!said.contains("topsecret"), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let store = place.open();
    assert!(!format!("{store:?}").contains(good_postgres));
}

#[test]
fn tables_of_a_newer_version_are_left_alone() {
    let Some(place) = Place::new() else { return };
    drop(place.open());
    place.sql().run("UPDATE ringpost_schema SET version = 99");
    let error = ExternalStore::open(&place.config).unwrap_err();
    assert!(matches!(error, ExternalError::Postgres(PostgresProblem::Newer(99, _))), "{error}");
    assert_eq!(place.sql().rows("SELECT version FROM ringpost_schema"), ["99"]);
}

#[test]
fn new_tables_may_be_made_by_many_at_once() {
    let Some(place) = Place::new() else { return };
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| place.open());
        }
    });
    assert_eq!(place.sql().rows("SELECT count(*) FROM ringpost_tenants"), ["1"]);
}
