//! simple-im through the real program: the traps of its specification that only the whole gateway
//! can show, HTTP side and sockets together. The others are tests of `codec`.

mod common;

use std::io::Read as _;
use std::time::Instant;

use codec::simple_im::Dialect;
use codec::simple_im::client::To;
use codec::{GroupId, UserId};
use common::{Ask, Gateway, ImClient, ImSeen, PATIENCE, Person, Setup, Told, eventually, phone};
use flate2::read::DeflateDecoder;

const BEN: To = To::User(UserId(2));

/// Two shards and open logins, where nothing is stored for silence.
fn open() -> Setup {
    Setup::new().everyone().shards(2).set("delivery.persist_after_ms", 60_000)
}

/// As [`open`], for users 1 to 3 with passwords and phones.
fn local() -> Setup {
    (1..=3).fold(open(), Setup::local_person)
}

fn ask(gateway: &Gateway, ask: Ask<'_>) -> Told {
    ask.send(gateway.site().http())
}

#[test]
fn simple_im_trap_03_used_ids_are_new_messages_online_and_in_the_store() {
    let gateway = open().shards(1).start();
    let mut ann = ImClient::logged_in(&gateway, 1);
    let mut ben = ImClient::logged_in(&gateway, 2);
    for text in ["one", "two", "three"] {
        ann.say("a_02", BEN, text);
    }
    // Each acknowledgement is of the oldest message under that id.
    for text in ["one", "two", "three"] {
        assert_eq!(ben.take_push(text).id.as_bytes(), b"a_02");
        ann.expect(ImSeen::Ack("a_02".into()));
    }
    drop(ben);
    eventually("he is away", || gateway.metric("ringpost_sessions") == 1);
    // The first ones may have gone through the store, so soon after his login; this one stands
    // behind them there.
    ann.say_safely("a_02", To::User(UserId(9)), "the barrier");
    let updates = || gateway.metric("ringpost_store_updates_total");
    let before = updates();
    for text in ["four", "five", "six"] {
        ann.say_safely("a_02", BEN, text);
    }
    let mut ben = ImClient::logged_in(&gateway, 2);
    for text in ["four", "five"] {
        assert_eq!(ben.take_push(text).id.as_bytes(), b"a_02");
    }
    // Two acknowledgements are of two messages: the third is still owed.
    ben.expect_push("six");
    eventually("two are gone", || updates() == before + 2);
    drop(ben);
    let mut ben = ImClient::logged_in(&gateway, 2);
    ben.take_push("six");
    ben.expect_silence();
}

#[test]
fn simple_im_trap_04_no_two_packets_share_a_read() {
    // Goal: with a gap far over what a read takes, what one read gives was sent as one.
    let gateway = open().set("protocol.simple-im.gap_ms", 500).start();
    let mut ann = ImClient::logged_in(&gateway, 1);
    for n in 1..=5 {
        ann.say_safely("a_02", BEN, &format!("kept {n}"));
    }
    let begin = Instant::now();
    let mut ben = ImClient::dial(&gateway, 2, "android");
    ben.send_login(false, "any token");
    let reply = ben.see_chunk(PATIENCE);
    assert!(matches!(reply, Some(ImSeen::Reply { refused: None, .. })), "{reply:?}");
    for n in 1..=5 {
        ben.take_chunk(&format!("kept {n}"));
    }
    // One gap, behind the reply; each acknowledgement ended the next one.
    assert!(begin.elapsed().as_millis() < 2_500, "{:?}", begin.elapsed());
    // To himself: the push, and what acknowledges the publish, in either order.
    ben.say("a_03", BEN, "note to self");
    let mut seen = [false; 2];
    for _ in 0..2 {
        match ben.see_chunk(PATIENCE) {
            Some(ImSeen::Push(push)) => {
                assert_eq!(push.text, "note to self");
                ben.ack(&push.id);
                seen[0] = true;
            }
            Some(ImSeen::Ack(id)) if id == "a_03" => seen[1] = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [true; 2]);
    // Who acknowledges nothing gets his messages all the same, each after the gap.
    for n in 1..=3 {
        ann.say("a_02", BEN, &format!("live {n}"));
    }
    let begin = Instant::now();
    for n in 1..=3 {
        match ben.see_chunk(PATIENCE) {
            Some(ImSeen::Push(push)) => assert_eq!(push.text, format!("live {n}")),
            other => panic!("{other:?} is no push"),
        }
    }
    assert!(begin.elapsed().as_millis() > 500, "{:?}", begin.elapsed());
}

#[test]
fn simple_im_trap_07_a_late_end_of_the_old_socket_means_nothing() {
    let gateway = local().start();
    let token = gateway.token(2);
    let mut ann = Person::login(&gateway, common::Language::Binary, 1);
    let mut old = ImClient::dial(&gateway, 2, "android");
    old.login(&token);
    for round in 0..3 {
        let mut new = ImClient::dial(&gateway, 2, "android");
        new.send_login(true, &token);
        new.expect_reply("reconnect", None);
        old.expect(ImSeen::End);
        // Too late: it belongs to nobody. (The socket may have been reset by now.)
        let late = b"[m] id = \"late\" c = \"late\" [m.to] id = 1";
        let _ = std::io::Write::write_all(&mut old.wire.stream, late);
        drop(old);
        let text = format!("round {round}");
        let said = ann.say(common::To::User(2), &text);
        new.take_push(&text);
        ann.expect_ack(&said);
        old = new;
    }
    common::expect_silence([&mut ann]);
}

#[test]
fn simple_im_trap_08_a_closed_connection_gets_nothing_and_the_token_survives_it() {
    let gateway = local().start();
    let token = gateway.token(2);
    let mut ann = Person::login(&gateway, common::Language::ImDemo, 1);
    for round in 0..3 {
        let mut ben = ImClient::dial(&gateway, 2, "android");
        ben.send_login(round > 0, &token);
        ben.expect_reply(if round > 0 { "reconnect" } else { "login" }, None);
        if round > 0 {
            ben.take_push(&format!("while you were out, {}", round - 1));
        }
        drop(ben);
        // At once: only that he is away makes it safe here, silence does not.
        let said = ann.say(common::To::User(2), &format!("while you were out, {round}"));
        ann.expect_ack(&said);
    }
}

#[test]
fn simple_im_trap_09_plus_signs_in_tokens_survive_every_way() {
    let gateway = local().start();
    let tokens = std::iter::repeat_with(|| gateway.token(1)).take(200);
    let mut tokens = tokens.filter(|token| token.contains('+'));
    let token = tokens.next().expect("one in three has one");
    let encoded = token.replace('+', "%2B").replace('/', "%2F");
    for token in [&token, &encoded] {
        let body = format!("id=1&token={token}");
        let told = ask(&gateway, Ask::post("/server/reconnect", &body));
        assert!(told.text().starts_with("[response] status = 0 server"), "{told:?}");
    }
    let cookie = format!("Cookie: token={token}\r\n");
    let told = ask(&gateway, Ask::post("/server/reconnect", "id=1").with(&cookie));
    assert!(told.text().starts_with("[[response]] status = 0 server"), "{told:?}");
    // In a cookie bytes are bytes.
    let cookie = format!("Cookie: token={}\r\n", token.replace('+', " "));
    let told = ask(&gateway, Ask::post("/server/reconnect", "id=1").with(&cookie));
    assert!(told.text().starts_with("[[response]] status = 1"), "{told:?}");
    ImClient::dial(&gateway, 1, "android").login(&token);
}

#[test]
fn simple_im_trap_10_http_needs_no_content_type_and_says_200() {
    let gateway = local().start();
    let good = format!("phone={}&password=secret", phone(1));
    let wrong = format!("phone={}&password=wrong", phone(1));
    let unknown = format!("phone={}&password=secret", phone(99));
    // The document's own command line, which encodes the ampersand.
    let documented = format!("phone={}%26password%3Dsecret", phone(1));
    let cases = [(&good, 0), (&wrong, 1), (&unknown, 2), (&documented, 0)];
    for headers in ["", "Content-Type: application/json\r\n"] {
        for (body, status) in cases {
            let told = ask(&gateway, Ask::post("/server/login", body).with(headers));
            assert_eq!(told.status_line(), "HTTP/1.1 200 OK");
            assert!(!told.has_header("content-type") && !told.has_header("location"), "{told:?}");
            let begin = format!("[response] status = {status}");
            assert!(told.text().starts_with(&begin), "{told:?}");
            assert!(status == 0 || told.text() == begin, "{told:?}");
        }
    }
    let told = ask(&gateway, Ask::get("/health"));
    assert_eq!((told.status_line(), &*told.text()), ("HTTP/1.1 200 OK", "I'm OK! :)\r\n"));
    let told = ask(&gateway, Ask::get("/server/login"));
    assert_eq!((told.status(), &*told.text()), (Some(404), "[response] status = 404"));
}

#[test]
fn simple_im_trap_12_group_messages_say_so_only_to_clients_that_know_them() {
    let gateway = open().group(7, &[1, 2, 3]).start();
    let mut ann = ImClient::logged_in(&gateway, 1);
    let mut old = ImClient::logged_in(&gateway, 2);
    let mut new = ImClient::dial_in(&gateway, 3, "android", Dialect::Device);
    new.login("any token");
    greet(&mut old, &mut ann);
    ann.say("a_03", To::Group(GroupId(7)), "to all");
    let push = old.take_push("to all");
    assert_eq!((push.from, push.to), (Some(1), To::User(UserId(7))));
    let push = new.take_push("to all");
    assert_eq!((push.from, push.to), (Some(1), To::Group(GroupId(7))));
    ann.take_push("to all");
    ann.expect(ImSeen::Ack("a_03".into()));
    ann.expect_silence();
}

#[test]
fn group_messages_come_back_to_their_sender_in_the_revisions_that_did_so() {
    let gateway = open().group(7, &[1, 2]).start();
    let mut ben = ImClient::logged_in(&gateway, 2);
    let rounds = [
        (Dialect::Single, true),
        (Dialect::Nested, true),
        (Dialect::Flat, false),
        (Dialect::Device, false),
    ];
    for (dialect, echoed) in rounds {
        let mut ann = ImClient::dial_in(&gateway, 1, "android", dialect);
        ann.login("any token");
        greet(&mut ben, &mut ann);
        ann.say("a_03", To::Group(GroupId(7)), "to all");
        ben.take_push("to all");
        if echoed {
            assert_eq!(ann.take_push("to all").from, Some(1));
        }
        ann.expect(ImSeen::Ack("a_03".into()));
        ann.expect_silence();
    }
}

#[test]
fn newer_revisions_tell_a_senders_other_devices_what_he_says() {
    let gateway = open().group(7, &[1, 2]).start();
    let mut ben = ImClient::logged_in(&gateway, 2);
    let device = |name, dialect| {
        let mut client = ImClient::dial_in(&gateway, 1, name, dialect);
        client.login("any token");
        client
    };
    let mut phone = device("android", Dialect::Device);
    let mut tablet = device("ipad", Dialect::Device);
    // The document's revision has nothing of the kind, and other protocols cannot show it.
    let mut old = device("iphone", Dialect::Single);
    let mut demo = Person::login(&gateway, common::Language::ImDemo, 1);
    ben.say("a_01", To::User(UserId(1)), "good morning");
    for terminal in [&mut phone, &mut tablet, &mut old] {
        terminal.take_push("good morning");
    }
    demo.take("good morning");
    ben.expect(ImSeen::Ack("a_01".into()));

    phone.say("x1", BEN, "from my phone");
    ben.take_push("from my phone");
    phone.expect(ImSeen::Ack("x1".into()));
    let push = tablet.expect_push("from my phone");
    assert_eq!((push.from, push.to), (Some(1), BEN));
    // A group message reaches all of them, but for the one that sent it.
    phone.say("x2", To::Group(GroupId(7)), "to all");
    ben.take_push("to all");
    phone.expect(ImSeen::Ack("x2".into()));
    assert_eq!(tablet.take_push("to all").to, To::Group(GroupId(7)));
    old.take_push("to all");
    demo.take("to all");
    old.say("a_02", BEN, "as ever");
    ben.take_push("as ever");
    old.expect(ImSeen::Ack("a_02".into()));
    common::expect_silence([&mut demo]);
    for terminal in [&mut phone, &mut tablet, &mut old] {
        terminal.expect_silence();
    }
    // What he said himself never waits for him, acknowledged or not.
    drop((phone, tablet, old, demo));
    eventually("he is away", || gateway.metric("ringpost_sessions") == 1);
    let mut tablet = device("ipad", Dialect::Device);
    greet(&mut ben, &mut tablet);
    tablet.expect_silence();
}

/// One word to a receiver, after which nothing is under way for him.
fn greet(from: &mut ImClient, to: &mut ImClient) {
    from.say("a_01", To::User(UserId(to.user)), "good morning");
    to.take_push("good morning");
    from.expect(ImSeen::Ack("a_01".into()));
}

#[test]
fn simple_im_trap_13_neither_the_device_nor_the_named_sender_counts_and_strangers_are_not_heard() {
    let gateway = open().group(7, &[2, 3]).start();
    let mut ann = ImClient::logged_in(&gateway, 1);
    let mut phone = ImClient::logged_in(&gateway, 2);
    let mut tablet = ImClient::dial(&gateway, 2, "ipad");
    tablet.login("any token");
    ann.wire.send(
        b"[m] id = \"a_02\" c = \"hello\" [m.from] id = 99 device = \"watch\" \
          [m.to] id = 2 device = \"watch\"",
    );
    for terminal in [&mut phone, &mut tablet] {
        let push = terminal.take_push("hello");
        assert_eq!(push.from, Some(1));
    }
    ann.expect(ImSeen::Ack("a_02".into()));
    // He is no member.
    ann.say_safely("a_03", To::Group(GroupId(7)), "let me in");
    ann.say_safely("a_03", To::Group(GroupId(8)), "is there a group?");
    ann.say("a_04", BEN, "the barrier");
    phone.take_push("the barrier");
    tablet.take_push("the barrier");
    ann.expect(ImSeen::Ack("a_04".into()));
    ImClient::logged_in(&gateway, 3).expect_silence();
}

#[test]
fn simple_im_trap_15_the_offline_list_is_the_users_and_holds_packets() {
    let gateway = local().start();
    let mut ann = ImClient::dial(&gateway, 1, "android");
    ann.login(&gateway.token(1));
    ann.say_safely("a_02", BEN, "kept");
    let token = gateway.token(2);
    let body = format!("token={}", token.replace('+', "%2B"));
    let told = ask(&gateway, Ask::post("/offline", &body)).text();
    assert!(told.starts_with("[[response]] status = 0\r\n[[m]] "), "{told}");
    assert!(told.contains("id = \"a_02\"") && told.contains("c = \"kept\""), "{told}");
    // Reading takes nothing away.
    let mut ben = ImClient::dial(&gateway, 2, "android");
    ben.login(&token);
    ben.expect_push("kept");
    drop(ben);
    let cookie = format!("Cookie: token={token}\r\n");
    let clear = Ask { method: "DELETE", ..Ask::get("/offline") };
    assert_eq!(ask(&gateway, clear.with(&cookie)).text(), "[[response]] status = 0");
    let mut ben = ImClient::dial(&gateway, 2, "android");
    ben.login(&token);
    ben.expect_silence();
    // Whoever is there with any device is not away.
    ann.say("a_02", BEN, "live");
    ben.take_push("live");
    ann.expect(ImSeen::Ack("a_02".into()));
    let mut tablet = ImClient::dial(&gateway, 2, "ipad");
    tablet.login(&token);
    tablet.expect_silence();
}

#[test]
fn simple_im_trap_16_bursts_keep_their_order_and_the_offline_text_turns_it_around() {
    let gateway = local().start();
    let mut ann = ImClient::dial_in(&gateway, 1, "android", Dialect::Flat);
    ann.login(&gateway.token(1));
    let burst =
        (1..=5).map(|n| format!("[[m]] id = \"x{n}\" c = \"{n}\" to = 2")).collect::<Vec<_>>();
    ann.wire.send(burst.join(" ").as_bytes());
    for n in 1..=5 {
        ann.expect(ImSeen::Ack(format!("x{n}")));
    }
    let token = gateway.token(2);
    let told = ask(&gateway, Ask::get("/offline").with(&format!("Cookie: token={token}\r\n")));
    let parts: Vec<&[u8]> = split(&told.body);
    assert_eq!((parts.len(), parts[0]), (2, &b"[[response]] status = 0"[..]));
    let mut text = String::new();
    DeflateDecoder::new(parts[1]).read_to_string(&mut text).expect("raw deflate");
    let order: Vec<&str> = text.split("c = \"").skip(1).map(|rest| &rest[..1]).collect();
    assert_eq!(order, ["5", "4", "3", "2", "1"], "{text}");
    let mut ben = ImClient::dial(&gateway, 2, "android");
    ben.login(&token);
    for n in 1..=5 {
        ben.take_push(&n.to_string());
    }
}

#[test]
fn changes_made_over_http_are_told_to_those_who_are_there_and_know_the_words() {
    let gateway = local().start();
    let token = |user: u32, device: &str| {
        let body = format!("phone={}&password=secret&device={device}", phone(user));
        ask(&gateway, Ask::post("/server/login", &body)).quoted("token")
    };
    let login = |user, device, dialect, token: &str| {
        let mut client = ImClient::dial_in(&gateway, user, device, dialect);
        client.login(token);
        client
    };
    let change = |method, path: &str, token: &str, body| {
        let cookie = format!("Cookie: token={token}\r\n");
        let told = ask(&gateway, Ask { method, body, ..Ask::get(path) }.with(&cookie));
        assert!(told.text().starts_with("[[response]] status = 0"), "{told:?}");
        told
    };
    let (anns, bens) = (token(1, "ipad"), token(2, "android"));
    let mut ann = login(1, "ipad", Dialect::Device, &anns);
    let mut phone = login(1, "android", Dialect::Device, &token(1, "android"));
    let mut ben = login(2, "android", Dialect::Device, &bens);
    // Flat is known from the first message on.
    let mut flat = login(2, "ipad", Dialect::Flat, &token(2, "ipad"));
    flat.say_safely("x1", To::User(UserId(3)), "hello");
    assert_eq!(ben.expect_push("hello").from, Some(2), "his other device said it");
    let mut old = login(2, "old", Dialect::Single, &token(2, "old"));
    let notice = |t: &str, from, to| ImSeen::Notice { t: t.into(), from, to };
    let all_see = |clients: [&mut ImClient; 3], seen: &ImSeen| {
        clients.into_iter().for_each(|client| client.expect(seen.clone()));
    };

    change("POST", "/contact/2", &anns, "ask=hi");
    let asked = notice("add_contact", 1, BEN);
    all_see([&mut phone, &mut ben, &mut flat], &asked);
    change("PUT", "/contact/1", &bens, "");
    let accepted = notice("accept_contact", 2, To::User(UserId(1)));
    all_see([&mut ann, &mut phone, &mut flat], &accepted);
    change("DELETE", "/contact/1", &bens, "");
    let parted = notice("delete_contact", 2, To::User(UserId(1)));
    all_see([&mut ann, &mut phone, &mut flat], &parted);

    let made = change("POST", "/group", &anns, "name=us&members[]=2").text();
    let id = made.split("g_id = ").nth(1).and_then(|rest| rest.split(' ').next());
    let group = GroupId(id.and_then(|id| id.parse().ok()).expect("a number"));
    let in_group = |t: &str, from| notice(t, from, To::Group(group));
    let created = in_group("create_group", 1);
    all_see([&mut phone, &mut ben, &mut flat], &created);
    change("DELETE", &format!("/group/{group}/member"), &bens, "");
    let left = in_group("delete_group_member", 2);
    all_see([&mut ann, &mut phone, &mut flat], &left);
    // He is no member any more.
    change("DELETE", &format!("/group/{group}"), &anns, "");
    phone.expect(in_group("delete_group", 1));
    for client in [&mut ann, &mut phone, &mut ben, &mut flat, &mut old] {
        client.expect_silence();
    }
}

/// Goal: the store in memory is one for HTTP, logins and messages. Method: users and a group made
/// over HTTP, who then talk over sockets.
#[test]
fn a_store_in_memory_is_one_for_http_and_sockets() {
    let setup = open().set("auth.mode", "\"local\"").set("store.backend", "\"memory\"");
    let gateway = setup.start();
    for user in 1..=2 {
        let body = format!("name=u{user}&phone={}&password=secret", phone(user));
        let made = ask(&gateway, Ask::post("/user", &body)).text();
        assert_eq!(made, "[[response]] status = 0");
    }
    let (one, two) = (gateway.token(1), gateway.token(2));
    let mut ann = ImClient::dial(&gateway, 1, "android");
    ann.login(&one);
    let mut thief = ImClient::dial(&gateway, 2, "android");
    thief.send_login(false, &one);
    thief.expect_reply("login", Some("token error"));
    // By the password that was set over HTTP, too.
    let mut named = Person::login(&gateway, common::Language::Binary, 1);

    ann.say_safely("a_02", BEN, "kept");
    let waiting = || {
        let body = format!("token={}", two.replace('+', "%2B"));
        ask(&gateway, Ask::post("/offline", &body)).text()
    };
    assert!(waiting().contains("c = \"kept\""), "{}", waiting());
    let mut ben = ImClient::dial_in(&gateway, 2, "android", Dialect::Device);
    ben.login(&two);
    ben.take_push("kept");
    eventually("it is gone", || waiting() == "[[response]] status = 0\r\n");
    let cookie = format!("Cookie: token={two}\r\n");
    let made = Ask::post("/group", "name=us&members%5B%5D=1").with(&cookie);
    let made = ask(&gateway, made).text();
    let id = made.split("g_id = ").nth(1).and_then(|rest| rest.split(' ').next());
    let id: u32 = id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{made}"));
    ben.say("a_03", To::Group(GroupId(id)), "to us");
    ann.take_push("to us");
    named.take("to us");
    ben.expect(ImSeen::Ack("a_03".into()));
    let refused = gateway.site().run(&["user", "list"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing to work on"));
}

/// What stands between line ends.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|end| end == b"\r\n") {
        parts.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    parts.push(rest);
    parts
}

#[test]
fn simple_im_trap_17_tokens_end_unless_they_were_used() {
    let gateway = local().set("protocol.simple-im.token_ttl_ms", 1000).start();
    let (used, idle) = (gateway.token(1), gateway.token(1));
    let mut ann = ImClient::dial(&gateway, 1, "android");
    ann.login(&used);
    let reconnect = |token: &str| {
        let body = format!("id=1&token={}", token.replace('+', "%2B"));
        ask(&gateway, Ask::post("/server/reconnect", &body)).text()
    };
    eventually("the token ends", || reconnect(&idle) == "[response] status = 1");
    let mut late = ImClient::dial(&gateway, 1, "ipad");
    late.send_login(false, &idle);
    late.expect_reply("login", Some("token error"));
    late.expect(ImSeen::End);
    assert!(reconnect(&used).starts_with("[response] status = 0 "));
    let mut again = ImClient::dial(&gateway, 1, "android");
    again.send_login(true, &used);
    again.expect_reply("reconnect", None);
    ann.expect(ImSeen::End);
    // Nobody else's, and none at all.
    for (user, token) in [(2, &*used), (1, "nonsense")] {
        let mut thief = ImClient::dial(&gateway, user, "android");
        thief.send_login(true, token);
        thief.expect_reply("reconnect", Some("token error"));
        thief.expect(ImSeen::End);
    }
    again.expect_silence();
}

#[test]
fn a_device_s_new_token_ends_the_session_and_the_token_before_it() {
    let gateway = local().start();
    let (old, new) = (gateway.token(1), gateway.token(1));
    let mut before = ImClient::dial(&gateway, 1, "android");
    before.login(&old);
    let mut tablet = ImClient::dial(&gateway, 1, "ipad");
    tablet.login(&gateway.token(1));
    let mut after = ImClient::dial(&gateway, 1, "android");
    after.login(&new);
    before.expect(ImSeen::End);
    let body = format!("id=1&token={}", old.replace('+', "%2B"));
    let told = ask(&gateway, Ask::post("/server/reconnect", &body)).text();
    assert_eq!(told, "[response] status = 1");
    let mut late = ImClient::dial(&gateway, 1, "android");
    late.send_login(true, &old);
    late.expect_reply("reconnect", Some("token error"));
    late.expect(ImSeen::End);
    tablet.expect_silence();
    after.expect_silence();
}

#[test]
fn every_request_is_answered_whether_it_is_known_or_said_twice() {
    let gateway = local().start();
    let token = gateway.token(1);
    let mut ann = ImClient::dial(&gateway, 1, "android");
    ann.login(&token);
    ann.send_login(true, &token);
    ann.expect_reply("reconnect", None);
    ann.say_safely("a_02", BEN, "still here");
    ann.send_login(false, "another token");
    ann.expect_reply("login", Some("token error"));
    ann.expect(ImSeen::End);
    let mut nobody = ImClient::dial(&gateway, 1, "android");
    nobody.wire.send(b"[r] id = \"q\" t = \"register\" [r.user] id = 1 device = \"ipad\"");
    let refused = Some("Unknown request".to_owned());
    nobody.expect(ImSeen::Reply { id: "q".into(), t: "register".into(), refused });
    nobody.expect(ImSeen::End);
    // What is no request at all gets no word.
    let mut silent = ImClient::dial(&gateway, 1, "android");
    silent.wire.send(b"[m] id = \"q\" c = \"x\" [m.to] id = 2 ");
    silent.expect(ImSeen::End);
}
