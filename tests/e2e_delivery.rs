//! Messages between users through the real program: online, offline, silent, gone, and the promise
//! that what was acknowledged is safe.

mod common;

use std::time::{Duration, Instant};

use codec::PublishKind::User;
use codec::UserId;
use codec::binary::client::Tail;
use common::{Client, Gateway, PATIENCE, Seen, Setup, Want, eventually, id};
use storage::Admin as _;
use storage::sqlite::Options;
use storage::{SqliteStore, Store as _};

const PHONE: Tail<'_> = Tail::Terminal { role: 2, client: 2 };
const DESKTOP: Tail<'_> = Tail::Terminal { role: 2, client: 1 };

/// Ids of what is stored for a user, in order, with the bodies.
fn stored(gateway: &Gateway, user: u32) -> Vec<(codec::MessageId, Vec<u8>)> {
    let path = gateway.site().database();
    let mut store = SqliteStore::open(&path, Options::default()).expect("the store is there");
    let tenant = store.tenants().expect("it is readable")[0].id;
    let user = codec::UserKey { tenant, id: UserId(user) };
    let (rows, more) = store.read(user, 0, 1000, u32::MAX).expect("it is readable");
    assert!(!more, "a test stores less");
    rows.iter().map(|row| (row.message.id, row.message.body.to_vec())).collect()
}

/// User `user`, logged in and done with what the store might have for him: what comes now is pushed
/// from memory.
fn live(gateway: &Gateway, user: u32) -> Client {
    let mut client = gateway.login(user);
    client.note_to_self(user, id(u32::MAX), "warm up");
    client
}

#[test]
fn online_users_exchange_messages_and_the_store_stays_empty() {
    let gateway = Setup::new().shards(2).start();
    let (mut ann, mut ben) = (live(&gateway, 1), live(&gateway, 2));
    let before = gateway.metric("ringpost_appends_total");
    for n in 0..100 {
        let (from, to) = if n % 2 == 0 { (&mut ann, &mut ben) } else { (&mut ben, &mut ann) };
        let target = if n % 2 == 0 { 2 } else { 1 };
        from.publish(Want::User(target), id(n), "\u{1f4ee} hello");
        to.take_push(id(n), "\u{1f4ee} hello");
        from.expect_ack(User, id(n));
    }
    assert_eq!(gateway.metric("ringpost_appends_total"), before, "no disk was touched");
}

#[test]
fn offline_messages_come_at_login_in_order_with_their_ids() {
    // Goal: more than a window and a read of the store. Method: 300 messages, each acknowledged.
    let gateway = Setup::new().shards(2).start();
    let mut sender = gateway.login(1);
    let ids: Vec<_> = (0..300).map(id).collect();
    sender.send_together(ids.iter().map(|id| Want::User(2).publish(*id, b"while you were away")));
    for id in &ids {
        sender.expect_ack(User, *id);
    }
    let mut late = gateway.login(2);
    assert_eq!(late.take_pushes(ids.len()), ids);
    sender.publish(Want::User(2), id(1000), "live again");
    late.take_push(id(1000), "live again");
    eventually("delivered rows are deleted", || stored(&gateway, 2).is_empty());
    late.close();
    gateway.login(2).expect_silence();
}

#[test]
fn messages_that_arrive_during_the_flush_stay_behind_it() {
    let gateway = Setup::new().shards(2).start();
    let mut sender = gateway.login(1);
    let ids: Vec<_> = (0..400).map(id).collect();
    let publish = |n: &codec::MessageId| Want::User(2).publish(*n, &[b'x'; 200]);
    sender.send_together(ids[..200].iter().map(publish));
    for id in &ids[..200] {
        sender.expect_ack(User, *id);
    }
    let mut late = gateway.login(2);
    sender.send_together(ids[200..].iter().map(publish));
    assert_eq!(late.take_pushes(ids.len()), ids);
}

#[test]
fn stored_messages_survive_a_restart() {
    let gateway = Setup::new().start();
    let mut sender = gateway.login(1);
    for n in 0..10 {
        sender.publish_safely(Want::User(2), id(n), "keep this");
    }
    let (status, site) = gateway.stop();
    assert!(status.success());
    let gateway = site.start();
    let ids: Vec<_> = (0..10).map(id).collect();
    assert_eq!(gateway.login(2).take_pushes(10), ids);
}

#[test]
fn all_terminals_of_a_user_get_the_message_and_the_first_acknowledgement_is_enough() {
    let gateway = Setup::new().shards(2).quick_retries().start();
    let mut sender = gateway.login(1);
    let mut phone = gateway.login_as(2, PHONE);
    let mut desktop = gateway.login_as(2, DESKTOP);
    let mut plain = gateway.login(2);
    sender.publish(Want::User(2), id(1), "everywhere");
    for terminal in [&mut phone, &mut desktop, &mut plain] {
        terminal.expect_push(id(1), "everywhere");
    }
    desktop.ack(User, id(1));
    sender.expect_ack(User, id(1));
    plain.ack(User, id(1));
    // Each connection has its own retry rule; who never acknowledges is closed by it.
    phone.expect_push(id(1), "everywhere");
    phone.expect_push(id(1), "everywhere");
    phone.expect_close(1008);
    assert_eq!(stored(&gateway, 2), [], "one terminal has it");
    gateway.login_as(2, PHONE).expect_silence();
}

#[test]
fn replaced_login_hands_its_unacknowledged_messages_to_the_newcomer() {
    let gateway = Setup::new().shards(2).start();
    let mut sender = gateway.login(1);
    for (tail, word) in [(PHONE, Seen::Logout), (Tail::Plain, Seen::Disconnect)] {
        let mut old = gateway.login_as(2, tail);
        let ids = [id(10), id(11), id(12)];
        for id in ids {
            sender.publish(Want::User(2), id, "to whoever it is");
            old.expect_push(id, "to whoever it is");
        }
        let mut new = gateway.login_as(2, tail);
        old.expect(word);
        old.expect_close(1000);
        assert_eq!(new.take_pushes(3), ids);
        for id in ids {
            sender.expect_ack(User, id);
        }
        new.close();
        sender.close();
        // Another sender: these ids are new again.
        sender = gateway.login(3);
    }
}

#[test]
fn sender_hears_of_a_silent_recipient_only_once_the_message_is_stored() {
    let persist = Duration::from_millis(700);
    let gateway = Setup::new().set("delivery.persist_after_ms", persist.as_millis()).start();
    let mut sender = gateway.login(1);
    let mut silent = live(&gateway, 2);
    let start = Instant::now();
    sender.publish(Want::User(2), id(1), "are you there?");
    silent.expect_push(id(1), "are you there?");
    sender.expect_ack(User, id(1));
    assert!(start.elapsed() >= persist, "acknowledged after {:?}", start.elapsed());
    assert_eq!(stored(&gateway, 2), [(id(1), b"are you there?".to_vec())]);
    // The late acknowledgement clears the row.
    silent.ack(User, id(1));
    eventually("the row is deleted", || stored(&gateway, 2).is_empty());
}

#[test]
fn unacknowledged_messages_come_again_at_the_next_login() {
    let gateway = Setup::new().quick_retries().start();
    gateway.login(1).publish_safely(Want::User(2), id(1), "hello");
    let mut silent = gateway.login(2);
    for _ in 0..3 {
        silent.expect_push(id(1), "hello");
    }
    silent.expect_close(1008);
    let mut again = gateway.login(2);
    again.take_push(id(1), "hello");
    again.publish_safely(Want::User(99), id(2), "a round trip behind the acknowledgement");
    again.close();
    gateway.login(2).expect_silence();
}

/// Three rounds in which the first message makes the client break off.
fn poison(gateway: &Gateway, user: u32, message: codec::MessageId) {
    for round in 0..3 {
        let mut victim = gateway.login(user);
        let seen = victim.next();
        assert!(matches!(&seen, Seen::Push { id, .. } if *id == message), "{round}: {seen:?}");
        victim.cut();
        // The next login must not find the connection still there, or it would replace it.
        let sessions = || gateway.metric("ringpost_sessions");
        eventually("the gateway has noticed", || sessions() == 0);
    }
}

#[test]
fn message_that_ends_three_connections_becomes_a_dead_letter_and_can_be_requeued() {
    let gateway = Setup::new().start();
    gateway.login(1).publish_safely(Want::User(2), id(1), "poison");
    gateway.login(1).publish_safely(Want::User(2), id(2), "wholesome");
    eventually("the sender is gone", || gateway.metric("ringpost_sessions") == 0);
    // A round with two messages in flight blames nobody, but the next goes one by one.
    let mut first = gateway.login(2);
    first.expect_push(id(1), "poison");
    first.expect_push(id(2), "wholesome");
    first.cut();
    eventually("the gateway has noticed", || gateway.metric("ringpost_sessions") == 0);
    poison(&gateway, 2, id(1));

    let mut healed = gateway.login(2);
    healed.take_push(id(2), "wholesome");
    let list = gateway.site().good(&["deadletter", "list"]);
    let line = list.trim_end();
    assert_eq!(list.lines().count(), 1, "{list}");
    assert!(line.contains("user 2\t") && line.contains("from 1, 6 bytes"), "{line}");
    assert!(!line.contains("poison,") && !line.ends_with("poison"), "the body is not shown");

    let number = line.split('\t').next().expect("a number");
    gateway.site().good(&["deadletter", "requeue", number]);
    let asked = Instant::now();
    healed.take_push(id(1), "poison");
    assert!(asked.elapsed() < Duration::from_secs(6), "seen after {:?}", asked.elapsed());
    assert_eq!(gateway.site().good(&["deadletter", "list"]), "");
}

#[test]
fn resends_are_acknowledged_and_not_delivered_again() {
    let gateway = Setup::new().shards(3).start();
    let mut sender = gateway.login(1);
    let mut ben = gateway.login(2);
    sender.publish(Want::User(2), id(1), "once");
    ben.take_push(id(1), "once");
    sender.expect_ack(User, id(1));
    sender.publish_safely(Want::User(2), id(1), "once");
    sender.close();
    // The window outlives the connection.
    let mut sender = gateway.login(1);
    sender.publish_safely(Want::User(2), id(1), "once");
    ben.expect_silence();
    // The same id to somebody else, or from somebody else, is another message.
    sender.publish_safely(Want::User(3), id(1), "other");
    gateway.login(3).take_push(id(1), "other");
    gateway.login(4).publish(Want::User(2), id(1), "other");
    ben.take_push(id(1), "other");
    assert_eq!(gateway.metric("ringpost_duplicates_total"), 2);
}

#[test]
fn resend_on_a_new_connection_takes_over_the_pending_acknowledgement() {
    let gateway = Setup::new().shards(2).set("delivery.persist_after_ms", 60_000).start();
    let mut ben = live(&gateway, 2);
    let mut before = gateway.login(1);
    before.publish(Want::User(2), id(1), "once");
    ben.expect_push(id(1), "once");
    before.cut();
    let mut after = gateway.login(1);
    after.publish(Want::User(2), id(1), "once");
    after.expect_silence();
    ben.ack(User, id(1));
    after.expect_ack(User, id(1));
}

#[test]
fn ids_and_bodies_are_opaque_bytes() {
    let gateway = Setup::new().shards(2).start();
    let (mut ann, mut ben) = (gateway.login(1), gateway.login(2));
    let all: Vec<u8> = (0..=255).collect();
    for (odd, body) in [([0; 32], &all[..]), ([0xff; 32], b""), ([b'\n'; 32], &[0; 5000])] {
        let odd = codec::MessageId::from(odd);
        ann.send(Want::User(2).publish(odd, body));
        ben.expect(Seen::Push { id: odd, body: body.to_vec() });
        ben.ack(User, odd);
        ann.expect_ack(User, odd);
    }
}

#[test]
fn lengths_in_utf16_units_are_understood_end_to_end() {
    // As the older Java clients count: 2 units, 6 bytes.
    let gateway = Setup::new().start();
    let (mut ann, mut ben) = (gateway.login(1), gateway.login(2));
    let mut packet = Want::User(2).publish(id(1), "\u{4f60}\u{597d}".as_bytes());
    packet[37..39].copy_from_slice(&[0, 2]);
    ann.send(packet);
    ben.take_push(id(1), "\u{4f60}\u{597d}");
    ann.expect_ack(User, id(1));
}

#[test]
fn clients_on_plain_tcp_and_ws_are_the_same_users() {
    let gateway = Setup::new().shards(2).start();
    let mut ben = gateway.login(2);
    let mut ann = gateway.tcp();
    ann.send([&common::connect_packet("u1", "x", PHONE)[..]]);
    ann.expect(Seen::ConnectAck(0));
    ann.publish(Want::User(2), id(1), "from tcp");
    ben.take_push(id(1), "from tcp");
    ann.expect_ack(User, id(1));
    ben.publish(Want::User(1), id(2), "from ws");
    ann.expect(Seen::Push { id: id(2), body: b"from ws".to_vec() });
}

#[test]
fn received_mode_acknowledges_before_the_message_is_safe() {
    let gateway = Setup::new()
        .set("delivery.ack", "\"received\"")
        .set("delivery.persist_after_ms", 60_000)
        .start();
    let mut silent = gateway.login(2);
    silent.publish_safely(Want::User(2), id(9), "warm up");
    silent.take_push(id(9), "warm up");
    let before = gateway.metric("ringpost_appends_total");
    gateway.login(1).publish_safely(Want::User(2), id(1), "hello");
    silent.expect_push(id(1), "hello");
    assert_eq!(gateway.metric("ringpost_appends_total"), before, "neither stored nor delivered");
}

#[test]
fn many_pairs_across_three_shards_lose_nothing_and_keep_their_order() {
    let gateway = Setup::new().shards(3).start();
    const PAIRS: u32 = 20;
    const EACH: u32 = 50;
    let mut senders: Vec<Client> = (0..PAIRS).map(|n| gateway.login(100 + n)).collect();
    let mut receivers: Vec<Client> = (0..PAIRS).map(|n| gateway.login(200 + n)).collect();
    let ids = |pair: u32| (0..EACH).map(move |n| id(pair * 1000 + n));
    for (pair, sender) in (0..).zip(&mut senders) {
        sender.send_together(ids(pair).map(|id| Want::User(200 + pair).publish(id, b"x")));
    }
    for (pair, receiver) in (0..).zip(&mut receivers) {
        assert_eq!(receiver.take_pushes(EACH as usize), ids(pair).collect::<Vec<_>>());
    }
    for (pair, sender) in (0..).zip(&mut senders) {
        // Acknowledgements of one recipient come in the order of his.
        for id in ids(pair) {
            assert_eq!(sender.see(PATIENCE), Some(Seen::Ack(User, id)));
        }
    }
}
