//! simple-text through the real program: rows of its specification that only the whole gateway can
//! show, the public room, names, and receivers that acknowledge by TCP alone. Other rows are tests
//! of `codec`.

mod common;

use std::net::TcpStream;

use codec::PublishKind;
use codec::simple_text::Dialect;
use codec::simple_text::client;
use common::{
    Client, Gateway, PATIENCE, Seen, Setup, Stream, TextClient, TextSeen, Want, Wire, eventually,
    id,
};

/// Two shards and open logins.
fn open() -> Setup {
    Setup::new().everyone().shards(2)
}

fn fail(code: u16, reason: &str) -> TextSeen {
    TextSeen::Fail(code, reason.into())
}

fn no_such(name: &str) -> TextSeen {
    fail(400, &format!("User <{name}> is offline or user doesn't exists."))
}

/// Users with these numbers, who hear who comes and goes.
fn room(gateway: &Gateway, users: impl IntoIterator<Item = u32>) -> Vec<TextClient> {
    let login = |user| TextClient::logged_in(gateway, &format!("u{user}"));
    let mut clients: Vec<TextClient> = users.into_iter().map(login).collect();
    for client in &mut clients {
        // From here on; who came before this is not asked about.
        client.list();
        client.hears_notices = true;
    }
    clients
}

#[test]
fn simple_text_ambiguity_04_the_list_is_sorted_and_without_oneself() {
    let gateway = open().start();
    let mut clients = room(&gateway, [3, 1, 2, 8, 5, 4, 7, 6]);
    let names = clients[1].list();
    assert_eq!(names, ["u2", "u3", "u4", "u5", "u6", "u7", "u8"]);
    // Another terminal of his is himself, too, and one terminal more of a user is no user more.
    let mut again = TextClient::logged_in(&gateway, "u1");
    assert_eq!(again.list(), names);
    assert_eq!(clients[0].list(), ["u1", "u2", "u4", "u5", "u6", "u7", "u8"]);
}

#[test]
fn simple_text_ambiguity_06_private_messages_wait_for_known_users_oldest_first() {
    let gateway = (1..=2).fold(open(), Setup::local_person).start();
    let mut ann = TextClient::logged_in(&gateway, "u1");
    for n in 1..=5 {
        ann.say(Some("u2"), &format!("kept {n}"));
    }
    ann.say(Some("nobody"), "lost");
    ann.expect(no_such("nobody"));
    eventually("all are stored", || gateway.metric("ringpost_store_rows_total") == 5);
    // The document's dialect hears first that nothing waits in the answer to the login itself.
    let mut ben = TextClient::dial(&gateway);
    ben.put(|out| client::login("u2", Some("secret"), Dialect::Doc, out));
    ben.expect(TextSeen::Messages(0));
    for n in 1..=5 {
        ben.expect(TextSeen::private("u1", &format!("kept {n}")));
    }
    eventually("none is stored", || gateway.metric("ringpost_store_updates_total") == 5);
    drop(ben);
    let mut ben = TextClient::logged_in(&gateway, "u2");
    ben.expect_silence();
    ann.expect_silence();
}

#[test]
fn simple_text_ambiguity_12_credentials_are_those_of_the_gateways_users() {
    let gateway = Setup::local_person(open(), 1).start();
    let login = |client: &mut TextClient, name: &str, password, dialect| {
        client.put(|out| client::login(name, password, dialect, out));
    };
    let wrong = fail(404, "Wrong user name or password");
    // Two tries more, and the third that fails is the last.
    let mut patient = TextClient::dial(&gateway);
    login(&mut patient, "u1", Some("wrong"), Dialect::Doc);
    patient.expect(wrong.clone());
    login(&mut patient, "nobody", None, Dialect::Source);
    patient.expect(wrong.clone());
    login(&mut patient, "u1", Some("secret"), Dialect::Doc);
    patient.expect(TextSeen::Messages(0));
    let mut guesser = TextClient::dial(&gateway);
    for _ in 0..3 {
        login(&mut guesser, "u1", Some("wrong"), Dialect::Source);
        guesser.expect(wrong.clone());
    }
    guesser.expect(TextSeen::End);
    // The published client sends no password; on loopback a known name is enough for it.
    TextClient::logged_in(&gateway, "u1").exit();
    let required = Setup::local_person(open(), 1);
    let required = required.set("protocol.simple-text.password", "\"required\"").start();
    let mut client = TextClient::dial(&required);
    login(&mut client, "u1", None, Dialect::Source);
    client.expect(wrong);
    client.login("u1", Some("secret"));
}

#[test]
fn simple_text_ambiguity_14_the_room_is_everybody_logged_in_of_one_tenant() {
    let setup = open().listener_of("simple-text", "tcp", "acme/dev");
    let gateway = setup.listener("simple-text", "tcp").start();
    let mut clients = room(&gateway, 1..=4);
    let at = |listener| {
        let mut client = TextClient::over(Wire::dial(gateway.site().listener(listener)));
        client.login("u9", None);
        client
    };
    // The same protocol of another tenant, and of the same one elsewhere.
    let (mut stranger, mut neighbour) = (at(3), at(4));
    let mut outside = TextClient::dial(&gateway);
    let mut other = gateway.login(5);
    for client in &mut clients {
        client.expect(TextSeen::public("u9", "Online !"));
    }
    clients[0].say(None, "hello everybody");
    clients[1].line(r#"{"command":"send","message":"and hello from me"}"#);
    for (at, client) in clients.iter_mut().enumerate() {
        let mut heard = Vec::new();
        for _ in 0..if at < 2 { 1 } else { 2 } {
            heard.push(client.next());
        }
        let said = [(0, "u1", "hello everybody"), (1, "u2", "and hello from me")];
        for (_, user, text) in said.into_iter().filter(|(by, ..)| *by != at) {
            assert!(heard.contains(&TextSeen::public(user, text)), "{heard:?}");
        }
    }
    for _ in 0..2 {
        assert!(matches!(neighbour.next(), TextSeen::Message { private: false, .. }));
    }
    stranger.expect_silence();
    outside.expect_silence();
    other.expect_silence();
    assert_eq!(stranger.list(), [""; 0]);
    clients.iter_mut().for_each(TextClient::expect_silence);
}

#[test]
fn simple_text_trap_10_oddities_of_the_original_are_not_copied() {
    let gateway = open().start();
    let mut ann = room(&gateway, [1]).remove(0);
    // Asked before the login, the original ended the connection.
    let mut hasty = TextClient::dial(&gateway);
    hasty.put(client::list);
    hasty.expect(fail(400, "login first"));
    hasty.login("u2", None);
    ann.expect(TextSeen::public("u2", "Online !"));
    // The end of one that never said who he is was news of "null".
    drop(TextClient::dial(&gateway));
    // The end of a duplicate took the name from the other.
    let duplicate = TextClient::logged_in(&gateway, "u2");
    duplicate.exit();
    ann.say(Some("u2"), "still you");
    hasty.expect(TextSeen::private("u1", "still you"));
    // Nothing was escaped on its way through.
    let text = "a \"quoted\" \\ text\nwith \u{1f600} and \u{1} in it";
    ann.say(Some("u2"), text);
    hasty.expect(TextSeen::private("u1", text));
    ann.expect_silence();
    hasty.exit();
    ann.expect(TextSeen::public("u2", "Offline !"));
    ann.expect_silence();
}

#[test]
fn notices_are_of_a_users_first_and_last_session_and_reach_both_shards() {
    let gateway = open().start();
    let mut clients = room(&gateway, 1..=6);
    let online = TextSeen::public("u7", "Online !");
    let mut first = TextClient::logged_in(&gateway, "u7");
    clients.iter_mut().for_each(|client| client.expect(online.clone()));
    let second = TextClient::logged_in(&gateway, "u7");
    first.hears_notices = true;
    first.exit();
    clients.iter_mut().for_each(TextClient::expect_silence);
    // Cut off without a word is gone all the same.
    drop(second);
    let offline = TextSeen::public("u7", "Offline !");
    clients.iter_mut().for_each(|client| client.expect(offline.clone()));
    assert_eq!(clients[0].list(), ["u2", "u3", "u4", "u5", "u6"]);
}

#[test]
fn names_that_nobody_has_are_refused_and_numbers_in_open_mode_are_kept() {
    let gateway = open().start();
    let mut ann = TextClient::logged_in(&gateway, "u1");
    for name in ["alice", "#99", "#alice", "no one"] {
        ann.say(Some(name), "hello");
        ann.expect(no_such(name));
    }
    ann.say(Some(""), "hello");
    assert!(matches!(ann.next(), TextSeen::Fail(400, _)));
    // That nobody had it is not remembered.
    let mut alice = TextClient::logged_in(&gateway, "alice");
    ann.say(Some("alice"), "hello");
    alice.expect(TextSeen::private("u1", "hello"));
    // Whoever comes under that name later will be number 77.
    let rows = gateway.metric("ringpost_store_rows_total");
    ann.say(Some("u77"), "whoever you are");
    eventually("it is stored", || gateway.metric("ringpost_store_rows_total") > rows);
    TextClient::logged_in(&gateway, "u77").expect(TextSeen::private("u1", "whoever you are"));
    ann.expect_silence();
}

#[test]
fn texts_of_140_characters_pass_and_longer_ones_reach_nobody() {
    let gateway = open().start();
    let mut ann = TextClient::logged_in(&gateway, "u1");
    let mut ben = TextClient::logged_in(&gateway, "u2");
    let longest = "\u{1d11e}".repeat(140);
    let too_long = format!("{longest}x");
    for to in [Some("u2"), None] {
        ann.say(to, &too_long);
        ann.expect(fail(400, "Message is longer than 140 characters"));
        ann.say(to, &longest);
        let heard = match to {
            Some(_) => TextSeen::private("u1", &longest),
            None => TextSeen::public("u1", &longest),
        };
        ben.expect(heard);
    }
    // The bound is for those who send here, not for what others send.
    let mut other = gateway.login(3);
    other.publish(Want::User(2), id(1), &too_long);
    ben.expect(TextSeen::private("u3", &too_long));
    other.expect_ack(PublishKind::User, id(1));
    let unbound = open().set("protocol.simple-text.max_chars", 0).start();
    let mut ann = TextClient::logged_in(&unbound, "u1");
    let mut ben = TextClient::logged_in(&unbound, "u2");
    ann.say(Some("u2"), &too_long);
    ben.expect(TextSeen::private("u1", &too_long));
}

#[test]
fn messages_to_a_name_keep_their_order_while_it_is_looked_up() {
    let gateway = open().start();
    let mut receivers: Vec<TextClient> =
        (2..=5).map(|user| TextClient::logged_in(&gateway, &format!("u{user}"))).collect();
    for round in 0..3 {
        // New senders on both shards; the first of each shard asks for all four names.
        for sender in [10 + 2 * round, 11 + 2 * round] {
            let mut sender_client = TextClient::logged_in(&gateway, &format!("u{sender}"));
            let mut burst = Vec::new();
            for n in 0..100 {
                let to = format!("u{}", 2 + n % 4);
                codec::simple_text::line(true, &mut burst, |out| {
                    client::send(Some(&to), &format!("number {n}"), out);
                });
            }
            sender_client.wire.send(&burst);
            for n in 0..100 {
                let heard = TextSeen::private(&format!("u{sender}"), &format!("number {n}"));
                receivers[n % 4].expect(heard);
            }
        }
    }
    receivers.iter_mut().for_each(TextClient::expect_silence);
}

/// A receiver with a small window, so that little of what he does not read is in his kernel.
fn frozen(gateway: &Gateway, user: u32) -> TextClient {
    let to = gateway.site().of("simple-text");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option");
    socket.connect_timeout(&to.into(), PATIENCE).expect("the gateway listens");
    let mut client = TextClient::over(Wire::new(Stream::Plain(TcpStream::from(socket))));
    client.login(&format!("u{user}"), None);
    client
}

/// Sends numbered texts of some kilobytes, far more than the window takes, and waits until the
/// sender has every acknowledgement, in whatever order they become safe.
fn flood(sender: &mut Client, to: u32, count: u32) {
    for n in 0..count {
        sender.publish(Want::User(to), id(n), &flood_text(n));
    }
    let mut missing: Vec<Seen> = (0..count).map(|n| Seen::Ack(PublishKind::User, id(n))).collect();
    while !missing.is_empty() {
        let seen = sender.next();
        let at = missing.iter().position(|ack| *ack == seen);
        missing.swap_remove(at.unwrap_or_else(|| panic!("{seen:?}")));
    }
}

fn flood_text(n: u32) -> String {
    format!("{n} {}", "x".repeat(8_000))
}

/// The numbers of [`flood`]'s texts, up to the end of the stream or until `until` came.
fn heard(client: &mut TextClient, until: Option<u32>) -> Vec<u32> {
    let mut numbers = Vec::new();
    loop {
        match client.next() {
            TextSeen::Message { text, private: true, .. } => {
                let number = text.split(' ').next().and_then(|number| number.parse().ok());
                let number = number.expect("a text of the flood");
                assert_eq!(text, flood_text(number));
                numbers.push(number);
                if until == Some(number) {
                    return numbers;
                }
            }
            // Said in the room meanwhile.
            TextSeen::Message { private: false, .. } => {}
            TextSeen::End => return numbers,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_frozen_receiver_blocks_nobody_and_his_messages_are_stored() {
    let setup = open().set("delivery.persist_after_ms", 100);
    let gateway = setup.start();
    let mut ben = frozen(&gateway, 2);
    let mut carol = TextClient::logged_in(&gateway, "u3");
    let mut ann = gateway.login(1);
    flood(&mut ann, 2, 100);
    let rows = gateway.metric("ringpost_store_rows_total");
    assert!(rows > 50, "only {rows} of them are stored");
    // The same sender, and another one in the same room.
    ann.publish(Want::User(3), id(1000), "are you there?");
    carol.expect(TextSeen::private("u1", "are you there?"));
    ann.expect_ack(PublishKind::User, id(1000));
    carol.say(None, "to all");
    // He thaws: everything once, in order, and his kernel's word clears the store.
    let order: Vec<u32> = (0..100).collect();
    let numbers = heard(&mut ben, Some(99));
    assert_eq!(numbers, order);
    eventually("the store is empty", || gateway.metric("ringpost_store_updates_total") >= rows);
    ben.expect_silence();
    drop(ben);
    TextClient::logged_in(&gateway, "u2").expect_silence();
}

#[test]
fn what_a_client_had_not_read_when_the_gateway_was_killed_comes_again() {
    let gateway = open().set("delivery.persist_after_ms", 100).start();
    let mut ben = frozen(&gateway, 2);
    let mut ann = gateway.login(1);
    flood(&mut ann, 2, 100);
    let site = gateway.kill();
    let before = heard(&mut ben, None);
    let gateway = site.start();
    let mut ben = TextClient::logged_in(&gateway, "u2");
    let after = heard(&mut ben, Some(99));
    // All of it in order, some of it twice: the dead gateway's kernel went on sending.
    assert!(before.iter().copied().eq(0..before.len() as u32), "{before:?}");
    let first = after[0];
    assert!(first <= before.len() as u32, "{first} after {}", before.len());
    assert!(after.iter().copied().eq(first..100), "{after:?}");
    ben.expect_silence();
    eventually("the store is empty", || {
        gateway.metric("ringpost_store_updates_total") >= after.len() as u64
    });
}

#[test]
fn messages_to_a_session_that_is_killed_unread_are_not_lost() {
    // As above, for messages so few that they are all in the client's own kernel: delivered.
    let gateway = open().shards(1).set("delivery.persist_after_ms", 60_000).start();
    let mut ben = TextClient::logged_in(&gateway, "u2");
    let mut ann = gateway.login(1);
    // So soon after his login this one may go through the store; the next one does, behind it.
    ann.publish_safely(Want::User(2), id(1000), "good morning");
    ben.expect(TextSeen::private("u1", "good morning"));
    ann.publish_safely(Want::User(9), id(1001), "the barrier");
    let rows = gateway.metric("ringpost_store_rows_total");
    for n in 0..3 {
        ann.publish_safely(Want::User(2), id(n), &flood_text(n));
    }
    assert_eq!(gateway.metric("ringpost_store_rows_total"), rows);
    let site = gateway.kill();
    assert_eq!(heard(&mut ben, None), [0, 1, 2]);
    let gateway = site.start();
    TextClient::logged_in(&gateway, "u2").expect_silence();
}
