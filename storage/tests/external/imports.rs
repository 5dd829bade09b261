//! What an original simple_im server has left in the lists of users who were away: it is delivered
//! like any other message, once, in its place, and nothing is thrown away.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use codec::{Content, ProtocolId, Target, TenantId, UserId, UserKey};
use redis::Commands as _;
use storage::store::{Imports, SEQ_IMPORTED_MAX};
use storage::{Accounts, Admin as _, Caps, ExternalConfig, ExternalStore, Row, Store};

use crate::forms::*;
use crate::open;
use crate::servers::{Place, Servers};

/// As the first revision keeps it.
fn packet(number: u32) -> String {
    format!("[m] c = \"{number}\" id = \"a_02\" [m.from] device = \"ipad\" id = 1 [m.to] id = 2")
}

fn push(redis: &mut redis::Connection, elements: impl IntoIterator<Item = impl AsRef<str>>) {
    for element in elements {
        let _: () = redis.rpush("offline_2", element.as_ref()).unwrap();
    }
}

fn list(redis: &mut redis::Connection) -> Vec<String> {
    redis.lrange("offline_2", 0, -1).unwrap()
}

fn aside(redis: &mut redis::Connection) -> Vec<String> {
    redis.lrange("ringpost_aside_0_2", 0, -1).unwrap()
}

fn text(row: &Row) -> String {
    let mut text = String::new();
    row.message.content().write_text(&mut text);
    text
}

/// Reads as a gateway does, page by page, and acknowledges each.
fn take_all(store: &mut ExternalStore) -> Vec<String> {
    let (mut texts, mut after) = (Vec::new(), 0);
    loop {
        let (rows, more) = store.read(user(2), after, 64, 64 * 1024).unwrap();
        texts.extend(rows.iter().map(text));
        after = rows.last().map_or(after, |row| row.seq);
        let deletes: Vec<_> = rows.iter().map(|row| delete(user(2), row.seq)).collect();
        assert!(store.write(&deletes).iter().all(Result::is_ok));
        if !more {
            return texts;
        }
    }
}

/// A seq as a gateway's first one.
const OWN: u64 = SEQ_IMPORTED_MAX + 1;

#[test]
fn every_revision_s_messages_and_pointers_become_rows_in_the_order_of_the_list() {
    let Some(place) = Place::new() else { return };
    let (mut store, mut redis) = (place.open(), place.redis());
    for (key, packet) in [
        ("m-4", "[m] c = \"4\" id = \"m-4\" ts = 1443856541 [m.from] id = 1 [m.to] id = \"2\""),
        ("offline_2_m5", "[[m]] id = \"m5\" c = \"5\\\" ts = 5 [m.from] id = 1 [m.to] id = 2"),
        ("offline_2_g6", "[[gm]] id = \"g6\" c = \"6\" group = 7 from = 1 ts = 6"),
    ] {
        let _: () = redis.set(key, packet).unwrap();
    }
    let long = format!("[m] c = \"10\" id = \"{}\" [m.to] id = 2", "i".repeat(65));
    let elements = [
        packet(1),
        "[m] c = \"say \\\"2\\\"\" id = \"a\" ts = 2 [m.from] id = 1 [m.to] id = 2".to_owned(),
        "[gm] c = \"3\" id = \"a_03\" [gm.user] id = 1 device = \"x\" [gm.group] id = 3".to_owned(),
        "m-4".to_owned(),
        "offline_2_m5".to_owned(),
        "offline_2_g6".to_owned(),
        "offline_2_m5".to_owned(),
        "[[m]] id = \"x\" c = \"7\" to = 2 from = 1 ts = 7".to_owned(),
        "[[m]] d = \"a\" to = 2 c = \"8\" t = \"image\" id = \"x\" ts = 8 from = 1".to_owned(),
        "[[gm]] id = \"g\" t = \"text\" c = \"9\" g_id = 7 d = \"a\" ts = 9 from = 1".to_owned(),
        long,
    ];
    push(&mut redis, &elements);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let rows = rows(&mut store, user(2));
    let texts: Vec<_> = rows.iter().map(text).collect();
    assert_eq!(texts, ["1", "say \"2\"", "3", "4", "5\\", "6", "5\\", "7", "8", "9", "10"]);
    assert!(rows.is_sorted_by_key(|row| row.seq), "in order");
    assert!(rows.iter().all(|row| row.seq <= SEQ_IMPORTED_MAX), "before all that will come");
    let ids: Vec<_> = rows.iter().map(|row| row.message.id.as_bytes()).collect();
    assert_eq!(ids[..4], [&b"a_02"[..], b"a", b"a_03", b"m-4"]);
    assert_eq!(ids[10].len(), 32, "the stamp in the place of an id that not all can say");
    for (row, number) in rows.iter().zip(1..) {
        let group = match number {
            3 => Some(3),
            6 | 10 => Some(7),
            _ => None,
        };
        let to = match group {
            Some(id) => Target::Group(crate::forms::group(id)),
            None => Target::User(user(2)),
        };
        assert_eq!((row.message.to, row.message.protocol), (to, ProtocolId::SimpleIm));
        assert_eq!(row.message.from, (number != 11).then(|| user(1)), "{number}");
        match [0, 2, 0, 1_443_856_541, 5, 6, 5, 7, 8, 9, 0][number - 1] {
            0 => assert!(u128::from(row.message.time_ms) >= now, "{number}: when it was found"),
            seconds => assert_eq!(row.message.time_ms, seconds * 1000, "{number}"),
        }
    }
    assert_eq!(rows[8].message.content(), Content::Image("8"));
    let listed = list(&mut redis);
    assert_eq!(listed.len(), 11);
    assert_eq!((&listed[0], &listed[10]), (&elements[0], &elements[10]), "in their places");
    assert!(listed[3].starts_with("[m] c = \"4\""), "the packet, not the pointer: {}", listed[3]);
    assert_eq!(store.imports(), Ok(Imports { messages: 11, ..Imports::default() }));
    // In step from now on, and not found again.
    let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(crate::forms::seqs(&mut store, user(2)), seqs);
    assert_eq!(store.write(&[delete(user(2), seqs[3]), dead(user(2), seqs[0])]), [OK, OK]);
    assert_eq!(list(&mut redis), [&listed[1..3], &listed[4..]].concat());
    let letter = store.dead_letters(0, 1).unwrap()[0].id;
    store.requeue(&[letter]).unwrap();
    assert_eq!(take_all(&mut store).len(), 10);
    assert_eq!(list(&mut redis), [""; 0]);
    let totals: Vec<u64> = redis.hmget("ringpost_totals", &["rows", "bytes"]).unwrap();
    assert_eq!(totals, [0, 0], "counted like any other");
}

#[test]
fn what_others_have_put_there_comes_before_our_own_however_much_it_is() {
    let Some(place) = Place::new() else { return };
    let (mut store, mut redis) = (place.open(), place.redis());
    push(&mut redis, (0..700).map(packet));
    let own: Vec<_> = (0..70)
        .map(|n| append_message(user(2), OWN + n, text_from(user(1), user(2), &format!("own {n}"))))
        .collect();
    assert!(store.write(&own).iter().all(Result::is_ok));
    // The original still runs, and says what one of our own says, too.
    let same: String = redis.lindex("offline_2", -1).unwrap();
    push(&mut redis, [packet(700), same]);
    let (rows, more) = store.read(user(2), 0, 64, 64 * 1024).unwrap();
    assert_eq!((rows.len(), more), (64, true));
    assert!(store.imports().unwrap().messages < 700, "not more at once than is read");
    let texts = take_all(&mut store);
    let mut expected: Vec<_> = (0..=700).map(|n| n.to_string()).collect();
    expected.push("own 69".to_owned());
    expected.extend((0..70).map(|n| format!("own {n}")));
    assert_eq!(texts, expected);
    assert_eq!(list(&mut redis), [""; 0]);
    assert_eq!(take_all(&mut store), [""; 0]);
    // Later ones, at the next login.
    push(&mut redis, [packet(1)]);
    assert_eq!(take_all(&mut store), ["1"]);
}

#[test]
fn what_is_no_message_is_put_aside_once_and_counted() {
    let Some(place) = Place::new() else { return };
    let (mut store, mut redis) = (place.open(), place.redis());
    let _: () = redis.set("offline_2_odd", "no packet").unwrap();
    let _: () = redis.set("offline_2_long", "x".repeat(70_000)).unwrap();
    let _: () = redis.hset("a hash", "field", "[m] id = \"x\" c = \"hash\" [m.to] id = 2").unwrap();
    let long = format!("[m] id = \"x\" c = \"{}\" [m.to] id = 2", "x".repeat(70_000));
    let elements = [
        "offline_2_gone",
        "[m] id = \"x\" c = \"unfinished",
        &packet(1),
        "[[a]] id = \"x\" d = \"android\"",
        "[[n]] id = \"n_1\" ts = 1 t = \"add_contact\" from = 1 to = 2",
        "offline_2_odd",
        "offline_2_long",
        "a hash",
        "",
        "[m] id = \"x\" [m.to] id = 2",
        "[gm] id = \"x\" c = \"no group\" [gm.user] id = 1",
        &packet(2),
        &long,
        "offline_2_gone",
    ];
    push(&mut redis, elements);
    // More than one read looks at.
    push(&mut redis, (0..300).map(|n| format!("gone-{n}")));
    push(&mut redis, [packet(3)]);
    assert_eq!(rows(&mut store, user(2)).iter().map(text).collect::<Vec<_>>(), ["1", "2", "3"]);
    let imports = Imports { messages: 3, expired: 303, others: 2, unreadable: 7 };
    assert_eq!(store.imports(), Ok(imports));
    assert_eq!(list(&mut redis), [packet(1), packet(2), packet(3)]);
    let kept = aside(&mut redis);
    assert_eq!(kept.len(), 312, "nothing is lost");
    assert_eq!(kept[..2], elements[..2]);
    assert_eq!(kept[2..10], elements[3..11]);
    // Nobody looks at it again.
    let calls: u64 = redis.hget("ringpost_totals", "calls").unwrap();
    assert_eq!(seqs(&mut store, user(2)).len(), 3);
    assert_eq!(redis.hget("ringpost_totals", "calls"), Ok(calls));
    assert_eq!(store.imports(), Ok(imports));
}

#[test]
fn lists_in_step_lists_of_no_use_and_other_tenants_are_left_alone() {
    let Some(place) = Place::new() else { return };
    let (mut store, mut redis) = (place.open(), place.redis());
    let elsewhere = UserKey { tenant: TenantId(3), id: UserId(2) };
    let _: () = redis.rpush("t3_offline_2", packet(1)).unwrap();
    assert_eq!(seqs(&mut store, elsewhere), [0; 0]);
    let _: () = redis.set("offline_2", "text").unwrap();
    store.write(&[
        append(user(2), OWN, b"x"),
        append_message(user(3), OWN, direct(user(3), 1, b"y")),
    ]);
    assert_eq!(seqs(&mut store, user(2)), [OWN]);
    let shared = to_group(9, group(7), b"all");
    store.write(&[append_message(user(3), OWN + 1, shared), dead(user(3), OWN)]);
    let letter = store.dead_letters(0, 1).unwrap()[0].id;
    store.requeue(&[letter]).unwrap();
    assert_eq!(seqs(&mut store, user(3)), [OWN, OWN + 1]);
    assert_eq!(store.imports(), Ok(Imports::default()));
    // Somebody has cleared a list, and pushed to it: the rows hide it only until they are gone.
    let _: () = redis.del("offline_3").unwrap();
    let _: () = redis.rpush("offline_3", packet(1)).unwrap();
    assert_eq!(seqs(&mut store, user(3)), [OWN, OWN + 1]);
    store.write(&[delete(user(3), OWN), delete(user(3), OWN + 1)]);
    assert_eq!(rows(&mut store, user(3)).iter().map(text).collect::<Vec<_>>(), ["1"]);
}

#[test]
fn seqs_of_rows_from_before_are_not_given_again() {
    let Some(place) = Place::new() else { return };
    let (mut store, mut redis) = (place.open(), place.redis());
    store.write(&[append(user(2), 1, b"one"), append(user(2), 3, b"three")]);
    push(&mut redis, (0..3).map(packet));
    assert_eq!(seqs(&mut store, user(2)), [1, 2, 3, 4, 5]);
    assert_eq!(store.max_seq(), Ok(3), "a gateway begins above them anyway");
}

#[test]
fn no_cap_refuses_what_was_there_before_but_it_counts() {
    let Some(place) = Place::new() else { return };
    let caps = Caps { user_rows: 2, store_rows: 3, ..NO_CAPS };
    let mut store = open(&ExternalConfig { caps, ..place.config.clone() });
    let mut redis = place.redis();
    push(&mut redis, (0..4).map(packet));
    let seqs = seqs(&mut store, user(2));
    assert_eq!(seqs.len(), 4);
    assert_eq!(store.write(&[append(user(2), OWN, b""), append(user(3), OWN, b"")]), [FULL, FULL]);
    let deletes = [delete(user(2), seqs[0]), delete(user(2), seqs[1]), delete(user(2), seqs[2])];
    assert_eq!(store.write(&deletes), [OK, OK, OK]);
    assert_eq!(store.write(&[append(user(2), OWN, b""), append(user(3), OWN, b"")]), [OK, OK]);
}

#[test]
fn without_memory_a_list_waits_and_rows_are_read() {
    let Some(servers) = Servers::start() else { return };
    let mut store = open(&servers.config());
    let mut redis = redis::Client::open(servers.redis.url()).unwrap().get_connection().unwrap();
    push(&mut redis, [packet(1)]);
    store.write(&[append(user(2), OWN, b"own")]);
    let memory = |bytes: &str, redis: &mut redis::Connection| {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec(redis).unwrap();
    };
    memory("1", &mut redis);
    assert_eq!(seqs(&mut store, user(2)), [OWN]);
    memory("0", &mut redis);
    assert_eq!(seqs(&mut store, user(2)), [1, OWN]);
}

#[test]
fn an_offline_list_asked_for_over_http_holds_them_too() {
    let Some(place) = Place::new() else { return };
    let (mut store, mut redis) = (place.open(), place.redis());
    push(&mut redis, (0..3).map(packet));
    let (rows, more) = store.offline_read(UserId(2), 100).unwrap();
    assert_eq!(
        (rows.iter().map(text).collect::<Vec<_>>(), more),
        (["0", "1", "2"].map(str::to_owned).to_vec(), false)
    );
    let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
    store.offline_clear(UserId(2), &seqs).unwrap();
    assert_eq!(list(&mut redis), [""; 0]);
}

/// Goal: whatever dies in between, every message becomes exactly one row. Method: Redis is killed
/// and started again all the while, under two gateways that read the same user.
#[test]
fn a_redis_that_is_killed_in_the_middle_loses_and_doubles_nothing() {
    let Some(mut servers) = Servers::start() else { return };
    let config = servers.config();
    let mut redis = redis::Client::open(servers.redis.url()).unwrap().get_connection().unwrap();
    let expected: Vec<_> = (0..4_000).map(|n| n.to_string()).collect();
    push(&mut redis, (0..4_000).map(packet));
    push(&mut redis, ["offline_2_gone"]);
    drop(redis);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let reader = |mut store: ExternalStore| {
            move || {
                let (mut failures, mut after) = (0, 0);
                while !over.load(Relaxed) {
                    match store.read(user(2), after, 64, u32::MAX) {
                        Ok((rows, _)) => after = rows.last().map_or(0, |row| row.seq),
                        Err(_) => failures += 1,
                    }
                }
                failures
            }
        };
        let readers = [open(&config), open(&config)].map(|store| scope.spawn(reader(store)));
        for _ in 0..6 {
            std::thread::park_timeout(std::time::Duration::from_millis(30));
            servers.redis.kill();
            servers.redis.run(&[]);
        }
        over.store(true, Relaxed);
        let failures: u32 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(failures > 0, "it was disturbed");
    });
    let mut store = open(&config);
    assert_eq!(rows(&mut store, user(2)).iter().map(text).collect::<Vec<_>>(), expected);
    let imports = Imports { messages: 4_000, expired: 1, ..Imports::default() };
    assert_eq!(store.imports(), Ok(imports));
    let mut redis = redis::Client::open(servers.redis.url()).unwrap().get_connection().unwrap();
    assert_eq!(list(&mut redis).len(), 4_000);
    assert_eq!(take_all(&mut store), expected);
    assert_eq!(list(&mut redis), [""; 0]);
}
