//! im-demo through the real program: rows of its specification that only the whole gateway can
//! show, the order of answers, tenants, contacts and groups. Other rows are tests of `codec`.

mod common;

use std::time::{Duration, Instant};

use codec::im_demo::client::{self, ServerPacket};
use codec::im_demo::types::{
    ChatType, Command, Connect, ContactOp, Disconnect, Group, GroupOp, Request,
};
use codec::{MessageId, PublishKind};
use common::{
    Client, DemoClient, DemoPush, DemoSeen, Gateway, Got, PATIENCE, Seen, Setup, TextClient,
    TextSeen, Want, Wire, eventually, id,
};

/// Two shards and open logins, where nothing is stored for silence.
fn open() -> Setup {
    Setup::new().everyone().shards(2).set("delivery.persist_after_ms", 60_000).patient()
}

fn tenant(org: &str, appkey: &str, user: &str) -> Connect {
    Connect { org: org.into(), appkey: appkey.into(), ..DemoClient::connect(user) }
}

/// One word to a receiver, after which nothing is under way for him: until the store has said after
/// a login that it holds nothing, messages go through it.
fn greet(from: &mut DemoClient, to: &mut DemoClient, name: &str) {
    from.say(name, "greeting", "good morning");
    to.take_push("good morning");
    from.expect_taken("greeting");
}

fn group_op(op: GroupOp, id: &str) -> Group {
    Group { op: op.into(), id: id.into(), ..Group::default() }
}

#[test]
fn im_demo_ambiguity_06_a_refused_login_is_told_why_and_closed() {
    let gateway = Setup::local_person(open(), 1).start();
    let wrong = Connect { token: "wrong".into(), ..DemoClient::connect("u1") };
    DemoClient::dial(&gateway).login_refused(wrong);
    DemoClient::dial(&gateway).login_refused(DemoClient::connect("nobody"));
    DemoClient::dial(&gateway).login_refused(DemoClient::connect(""));
    let original = Connect { ext: 0, token: "wrong".into(), ..DemoClient::connect("u1") };
    DemoClient::dial(&gateway).login_refused(original);
    DemoClient::dial(&gateway).login(DemoClient::connect("u1"));
}

#[test]
fn im_demo_trap_11_responses_come_in_the_order_of_the_requests() {
    // Goal: the slowest request comes first, and nothing behind it may be answered before it.
    let gateway = open().set("delivery.persist_after_ms", 500).start();
    let mut silent = gateway.login(2);
    let mut quick = DemoClient::logged_in(&gateway, 3);
    let mut ann = DemoClient::logged_in(&gateway, 1);
    // Once he has this one, silence is what the next one waits for.
    ann.say("u2", "first", "good morning");
    let first = pushed_id(&mut silent);
    silent.ack(PublishKind::User, first);
    ann.expect_taken("first");
    ann.put(|out| {
        let to = |name| (ChatType::Single, name);
        client::send(to("u2"), "slow", "take your time", Some(true), true, out);
        client::contact(ContactOp::List, "", "contacts", true, out);
        client::send(to("alice"), "unknown", "hello", Some(true), true, out);
        client::group(&group_op(GroupOp::List, ""), "groups", true, out);
        client::send(to("u3"), "quick", "hello", Some(true), true, out);
        client::send(to("u4"), "away", "hello", Some(false), true, out);
        client::send(to(""), "nobody", "hello", None, true, out);
        client::put(&odd_request("odd"), true, out);
        client::send(to("u3"), "", "without an id", Some(true), true, out);
        client::send(to("u2"), "slow again", "take your time", Some(true), true, out);
        client::contact(ContactOp::List, "", "last", true, out);
    });
    let begin = Instant::now();
    quick.take_push("hello");
    quick.take_push("without an id");
    let slow = ann.expect_taken("slow");
    assert!(begin.elapsed() > Duration::from_millis(400), "{:?}", begin.elapsed());
    let slow = MessageId::new(slow.id.as_bytes()).expect("an id");
    silent.expect_push(slow, "take your time");
    for (id, code) in [("contacts", 0), ("unknown", 4), ("groups", 0)] {
        ann.expect_code(id, code);
    }
    ann.expect_taken("quick");
    for (id, code) in [("away", 6), ("nobody", 2), ("odd", 3)] {
        ann.expect_code(id, code);
    }
    ann.expect_taken("");
    ann.expect_taken("slow again");
    ann.expect_code("last", 0);
    ann.expect_silence();
}

/// The id of the next push.
fn pushed_id(client: &mut Client) -> MessageId {
    match client.next() {
        Seen::Push { id, .. } => id,
        other => panic!("{other:?} is no push"),
    }
}

/// A request of a type that nobody knows.
fn odd_request(id: &str) -> Command {
    let request = Request { r#type: 9, id: id.into(), ..Request::default() };
    Command { version: 1, request: Some(request), ..Command::default() }
}

#[test]
fn im_demo_trap_12_little_is_kept_for_somebody_who_has_not_logged_in() {
    let gateway = open().set("limits.login_deadline_ms", 60_000).start();
    // A length of a megabyte, and then more than a login may take.
    let mut greedy = DemoClient::dial(&gateway);
    greedy.wire.send(&[0xff, 0xff, 0x3f]);
    greedy.wire.send(&[0; 4 * 1024]);
    greedy.expect_disconnect(3);
    // Over the bound of any Command.
    let mut liar = DemoClient::dial(&gateway);
    liar.wire.send(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    liar.expect_disconnect(3);
    // The same bytes are welcome afterwards.
    let mut known = DemoClient::logged_in(&gateway, 1);
    let text = "x".repeat(100_000);
    known.say("u1", "m1", &text);
    known.take_push(&text);
    known.expect_taken("m1");
}

#[test]
fn a_login_may_be_four_kilobytes_long_and_no_byte_more() {
    let gateway = open().start();
    let login_of = |bytes: usize| {
        let padded = |token: usize| {
            let mut out = Vec::new();
            let token = "x".repeat(token);
            client::connect(Connect { token, ..DemoClient::connect("u1") }, true, &mut out);
            out
        };
        (0..bytes).rev().map(padded).find(|out| out.len() == bytes).expect("a token of that size")
    };
    for (bytes, accepted) in [(4096, true), (4097, false), (8000, false)] {
        let mut client = DemoClient::dial(&gateway);
        client.wire.send(&login_of(bytes));
        if accepted {
            assert!(matches!(client.next(), DemoSeen::Packet(ServerPacket::ConAck(_))), "{bytes}");
            client.expect_silence();
        } else {
            client.expect_disconnect(3);
        }
    }
}

#[test]
fn the_first_command_must_be_a_login_and_come_in_time() {
    let gateway = open().set("limits.login_deadline_ms", 400).start();
    let mut silent = DemoClient::dial(&gateway);
    let mut slow = DemoClient::dial(&gateway);
    slow.wire.send(&[0x1e, 0x08]);
    let mut hasty = DemoClient::dial(&gateway);
    hasty.say("u2", "m1", "early");
    hasty.expect_disconnect(3);
    silent.expect_disconnect(5);
    slow.expect_disconnect(5);
    let mut twice = DemoClient::logged_in(&gateway, 1);
    twice.put(|out| client::connect(DemoClient::connect("u1"), true, out));
    twice.expect_disconnect(3);
}

#[test]
fn a_login_that_never_ends_is_ended_on_every_protocol() {
    let gateway = open().set("limits.login_deadline_ms", 60_000).start();
    let endless: [(&str, &[u8]); 3] = [
        ("simple-text", b"{\"command\":\"login\",\"message\":{\"user\":\""),
        ("simple-im", b"[r] id = \"a_01\" t = \"login\" [r.user] id = 1 token = \""),
        ("im-demo", &[0xff, 0xff, 0x3f]),
    ];
    for (protocol, beginning) in endless {
        let mut wire = Wire::dial(gateway.site().of(protocol));
        wire.send(beginning);
        wire.send(&[b'x'; 5 * 1024]);
        // Whatever it is told, that is the end.
        while wire.chunk(PATIENCE).expect("an end") != Got::End {}
    }
    let quick = open().set("limits.login_deadline_ms", 300).start();
    for (protocol, beginning) in endless {
        let mut wire = Wire::dial(quick.site().of(protocol));
        wire.send(beginning);
        while wire.chunk(PATIENCE).expect("an end") != Got::End {}
    }
}

#[test]
fn what_comes_with_the_login_in_one_command_comes_after_it() {
    let gateway = open().start();
    for user in 10..16 {
        let mut sent = Vec::new();
        client::send((ChatType::Single, "u7"), "m1", "hello", Some(true), false, &mut sent);
        client::connect(DemoClient::connect(&format!("u{user}")), false, &mut sent);
        // Two Commands behind each other are one, with both sub-messages.
        let mut both = vec![sent.len() as u8];
        both.extend(sent);
        let mut client = DemoClient::dial(&gateway);
        client.wire.send(&both);
        assert!(matches!(client.next(), DemoSeen::Packet(ServerPacket::ConAck(_))));
        client.expect_taken("m1");
    }
    let mut late = DemoClient::logged_in(&gateway, 7);
    for _ in 10..16 {
        assert!(late.take_push("hello").stored);
    }
}

#[test]
fn a_repeated_request_is_answered_again_and_delivered_once() {
    let gateway = open().start();
    let mut ann = DemoClient::logged_in(&gateway, 1);
    let mut ben = DemoClient::logged_in(&gateway, 2);
    ann.say("u2", "m1", "once");
    let push = ben.take_push("once");
    let taken = ann.expect_taken("m1");
    assert_eq!((&taken.id, taken.stored), (&push.id, false));
    ann.say("u2", "m1", "once");
    assert_eq!(ann.expect_taken("m1"), taken, "the same response");
    // Another connection of his, before it is safe: the same message.
    ann.say("u2", "m2", "twice?");
    let push = ben.expect_push("twice?");
    let mut tablet = DemoClient::dial(&gateway);
    tablet.login(Connect { device: "tablet".into(), ..DemoClient::connect("u1") });
    tablet.say("u2", "m2", "twice?");
    eventually("it is known", || gateway.metric("ringpost_duplicates_total") == 2);
    ann.expect_code("m2", 9);
    ben.ack(&push.id);
    assert_eq!(tablet.expect_taken("m2").id, push.id);
    ben.expect_silence();
}

#[test]
fn responses_say_whether_somebody_finds_the_message_later() {
    let gateway = open().group(7, &[1, 2, 3]).group(8, &[1, 2]).start();
    let mut ann = DemoClient::logged_in(&gateway, 1);
    let mut ben = DemoClient::logged_in(&gateway, 2);
    greet(&mut ann, &mut ben, "u2");
    let to = [(ChatType::Single, "u2"), (ChatType::Group, "8"), (ChatType::Group, "7")];
    for (number, to) in to.into_iter().enumerate() {
        let (id, text) = (format!("m{number}"), format!("to {}", to.1));
        ann.send(to, &id, &text, Some(true));
        ben.take_push(&text);
        // Only of the last one somebody is away.
        let taken = ann.expect_taken(&id);
        assert_eq!(taken.stored, to.1 == "7", "{taken:?}");
        ann.send(to, &id, &text, Some(true));
        assert_eq!(ann.expect_taken(&id), taken);
    }
    ann.say("u3", "m9", "see you");
    let taken = ann.expect_taken("m9");
    assert!(taken.stored);
    let mut carol = DemoClient::logged_in(&gateway, 3);
    carol.take_push("to 7");
    assert_eq!(carol.take_push("see you").id, taken.id);
    // He has it, and was told so; what he sends again is answered as before.
    ann.say("u3", "m9", "see you");
    assert_eq!(ann.expect_taken("m9"), taken);
    ben.expect_silence();
    carol.expect_silence();
}

#[test]
fn unacknowledged_pushes_are_sent_four_times_and_then_wait_for_the_next_login() {
    // Binary's rule, by which connections end, is none of this protocol's.
    let setup = Setup::new().everyone().shards(2).quick_retries();
    let gateway = setup.set("protocol.im-demo.retry_interval_ms", 200).start();
    let mut ann = DemoClient::logged_in(&gateway, 1);
    let mut deaf = DemoClient::logged_in(&gateway, 2);
    greet(&mut ann, &mut deaf, "u2");
    ann.say("u2", "m1", "can you hear me?");
    let first = deaf.expect_push("can you hear me?");
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(deaf.expect_push("can you hear me?"), first);
    }
    assert!(begin.elapsed() > Duration::from_millis(500), "{:?}", begin.elapsed());
    ann.expect_taken("m1");
    eventually("it is given up", || gateway.metric("ringpost_given_up_total") == 1);
    // The connection goes on without it.
    ann.say("u2", "m2", "and now?");
    deaf.take_push("and now?");
    ann.expect_taken("m2");
    deaf.expect_silence();
    drop(deaf);
    let mut deaf = DemoClient::logged_in(&gateway, 2);
    let again = deaf.expect_push("can you hear me?");
    assert_eq!((again.id.clone(), again.stored), (first.id, true));
    // He may still say that he has it after all.
    eventually("it is given up", || gateway.metric("ringpost_given_up_total") == 2);
    deaf.ack(&again.id);
    eventually("it counts", || gateway.metric("ringpost_acknowledged_late_total") == 1);
    drop(deaf);
    DemoClient::logged_in(&gateway, 2).expect_silence();
}

#[test]
fn what_is_given_up_makes_room_for_what_comes_behind_it() {
    let setup = Setup::new().everyone().set("protocol.im-demo.retry_interval_ms", 100);
    let gateway = setup.start();
    let mut ann = DemoClient::logged_in(&gateway, 1);
    let mut deaf = DemoClient::logged_in(&gateway, 2);
    greet(&mut ann, &mut deaf, "u2");
    // More than a window.
    let texts: Vec<String> = (0..70).map(|n| format!("number {n}")).collect();
    for text in &texts {
        ann.say("u2", text, text);
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < texts.len() {
        match deaf.next() {
            DemoSeen::Packet(ServerPacket::Push { id, message, stored }) => {
                seen.insert(DemoPush::of(&id, &message, stored).text);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn messages_that_shall_not_be_kept_are_refused_when_nobody_is_there() {
    let gateway = open().start();
    let mut ann = DemoClient::logged_in(&gateway, 1);
    for (id, keep) in [("m1", Some(false)), ("m2", None)] {
        ann.send((ChatType::Single, "u2"), id, "now or never", keep);
        ann.expect_code(id, 6);
    }
    assert_eq!(gateway.metric("ringpost_store_rows_total"), 0);
    let mut ben = DemoClient::logged_in(&gateway, 2);
    greet(&mut ann, &mut ben, "u2");
    ann.send((ChatType::Single, "u2"), "m3", "now", Some(false));
    let push = ben.take_push("now");
    assert!(!push.stored);
    ann.expect_taken("m3");
    drop(ben);
    DemoClient::logged_in(&gateway, 2).expect_silence();
    let kept = open().set("protocol.im-demo.offline_default", true).start();
    let mut ann = DemoClient::logged_in(&kept, 1);
    ann.send((ChatType::Single, "u2"), "m1", "whenever", None);
    ann.expect_taken("m1");
    assert!(DemoClient::logged_in(&kept, 2).take_push("whenever").stored);
}

#[test]
fn tenants_do_not_meet() {
    let people = [("acme", "dev", "1"), ("acme", "ops", "1"), ("acme", "dev", "2")];
    let setup = people.iter().fold(Setup::local_person(open(), 9), |setup, (org, appkey, id)| {
        let name = if *id == "1" { "alice" } else { "bob" };
        let who = ["--org", org, "--appkey", appkey, "--id", id, "--name", name];
        setup.command(&[&["user", "add", "--password", "secret"], &who[..]].concat())
    });
    let member = ["--members", "1,2"];
    let dev = ["group", "create", "--id", "7", "--org", "acme", "--appkey", "dev"];
    let ops = ["group", "create", "--id", "7", "--org", "acme", "--appkey", "ops"];
    let setup = setup.command(&[&dev[..], &member].concat()).command(&[&ops[..], &member].concat());
    let gateway = setup.start();
    let login = |org: &str, appkey: &str, name: &str| {
        let mut client = DemoClient::dial(&gateway);
        client.login(tenant(org, appkey, name));
        client
    };
    let mut dev = login("acme", "dev", "alice");
    let mut bob = login("acme", "dev", "bob");
    // The same name and number, on the same device: nobody is replaced.
    let mut ops = login("acme", "ops", "alice");
    bob.say("alice", "m1", "for dev");
    assert_eq!(dev.take_push("for dev").from, "bob");
    bob.expect_taken("m1");
    bob.send((ChatType::Group, "7"), "m2", "to all of dev", Some(true));
    dev.take_push("to all of dev");
    bob.expect_taken("m2");
    // Who is only elsewhere does not exist here, by name or by number.
    for name in ["bob", "u9", "9", "2"] {
        ops.say(name, "m1", "anybody?");
        ops.expect_code("m1", 4);
        assert_eq!(ops.contact(ContactOp::Add, name).0, 4);
    }
    ops.expect_silence();
    dev.expect_silence();
    for (org, appkey) in [("acme", "none"), ("none", "dev"), ("acme", ""), ("", "dev")] {
        DemoClient::dial(&gateway).login_refused(tenant(org, appkey, "alice"));
    }
    // In the listener's tenant there is no alice.
    DemoClient::dial(&gateway).login_refused(DemoClient::connect("alice"));
    DemoClient::dial(&gateway).login(DemoClient::connect("u9"));
    DemoClient::dial(&gateway).login(tenant("default", "default", "u9"));
}

#[test]
fn contacts_are_directed_and_show_who_is_online_on_both_shards() {
    let gateway = open().start();
    let mut ann = DemoClient::logged_in(&gateway, 1);
    assert_eq!(ann.contact(ContactOp::List, ""), (0, vec![]));
    for user in 2..=7 {
        for _ in 0..2 {
            assert_eq!(ann.contact(ContactOp::Add, &format!("u{user}")).0, 0);
        }
    }
    assert_eq!(ann.contact(ContactOp::Add, "alice").0, 4);
    let here: Vec<_> = (2..=4).map(|user| gateway.login(user)).collect();
    let mut other = DemoClient::logged_in(&gateway, 5);
    let listed = |client: &mut DemoClient| -> Vec<(String, bool)> {
        let (code, items) = client.contact(ContactOp::List, "");
        assert_eq!(code, 0);
        items.into_iter().map(|item| (item.user, item.online)).collect()
    };
    let expected = |online: [u32; 4]| -> Vec<(String, bool)> {
        (2..=7).map(|user| (format!("u{user}"), online.contains(&user))).collect()
    };
    assert_eq!(listed(&mut ann), expected([2, 3, 4, 5]));
    assert_eq!(listed(&mut other), []);
    here.into_iter().for_each(Client::close);
    eventually("they have gone", || listed(&mut ann) == expected([5; 4]));
    for _ in 0..2 {
        assert_eq!(ann.contact(ContactOp::Remove, "u5").0, 0);
    }
    assert_eq!(listed(&mut ann).len(), 5);
}

#[test]
fn who_is_added_hears_of_it_once_while_he_is_there_if_his_client_knows_how() {
    let gateway = open().start();
    let mut ann = DemoClient::logged_in(&gateway, 1);
    let add = |ann: &mut DemoClient, user: u32| {
        assert_eq!(ann.contact(ContactOp::Add, &format!("u{user}")).0, 0);
    };
    // Six, so that all of them live on one shard once in 64 runs of another hash only.
    let mut there: Vec<_> = (2..8).map(|user| DemoClient::logged_in(&gateway, user)).collect();
    let mut tablet = DemoClient::dial(&gateway);
    tablet.login(Connect { device: "tablet".into(), ..DemoClient::connect("u2") });
    let mut original = DemoClient::dial(&gateway);
    original.login(Connect { ext: 0, device: "old".into(), ..DemoClient::connect("u2") });
    let mut text = TextClient::logged_in(&gateway, "u8");
    for (client, user) in there.iter_mut().zip(2..) {
        add(&mut ann, user);
        let id = client.expect_added_by("u1");
        // Whoever answers to it says nothing of a message.
        client.ack(&id);
    }
    tablet.expect_added_by("u1");
    add(&mut ann, 8);
    add(&mut ann, 9);
    add(&mut ann, 1);
    // Again is nothing new, until it was undone.
    add(&mut ann, 3);
    assert_eq!(ann.contact(ContactOp::Remove, "u4").0, 0);
    add(&mut ann, 4);
    there[2].expect_added_by("u1");
    there.iter_mut().chain([&mut ann, &mut tablet]).for_each(DemoClient::expect_silence);
    original.expect_silence();
    text.expect_silence();
    // It waits for nobody.
    DemoClient::logged_in(&gateway, 9).expect_silence();
    assert_eq!(gateway.metric("ringpost_store_rows_total"), 0);
}

#[test]
fn groups_made_by_im_demo_are_everybodys() {
    let gateway = open().start();
    let mut ann = DemoClient::logged_in(&gateway, 1);
    let mut ben = TextClient::logged_in(&gateway, "u2");
    let mut carol = gateway.login(3);
    let mut dan = DemoClient::logged_in(&gateway, 4);
    let users: Vec<String> = ["u2", "u3", "alice"].map(str::to_owned).into();
    let create = Group { name: "The team".into(), users, ..group_op(GroupOp::Create, "") };
    let (code, made) = ann.group(&create);
    assert_eq!((code, made.len()), (0, 1), "{made:?}");
    let number: u32 = made[0].id.parse().expect("a free number");
    assert_eq!((&*made[0].name, &*made[0].owner), ("The team", "u1"));
    // From binary by its number, from simple-text with a hash, from im-demo by its id.
    carol.publish(Want::Group(number), id(1), "from binary");
    ben.expect(in_group(number, "u3", "from binary"));
    let push = ann.take_push("from binary");
    assert_eq!((push.group, &*push.to, &*push.from), (true, &*made[0].id, "u3"));
    carol.expect_ack(PublishKind::Group, id(1));
    ben.say(Some(&format!("#{number}")), "from text");
    assert_eq!(ann.take_push("from text").from, "u2");
    match carol.next() {
        Seen::Push { id, body } => {
            assert_eq!(body, b"from text");
            carol.ack(PublishKind::User, id);
        }
        other => panic!("{other:?}"),
    }
    // Not for strangers, until they join.
    dan.send((ChatType::Group, &made[0].id), "m1", "let me in", Some(true));
    dan.expect_code("m1", 5);
    assert_eq!(dan.group(&group_op(GroupOp::Members, &made[0].id)).0, 5);
    assert_eq!(dan.group(&group_op(GroupOp::Join, &made[0].id)).0, 0);
    let (_, members) = dan.group(&group_op(GroupOp::Members, &made[0].id));
    assert_eq!(members[0].users, ["u1", "u2", "u3", "u4"]);
    dan.send((ChatType::Group, &made[0].id), "m2", "thank you", Some(true));
    ann.take_push("thank you");
    ben.expect(in_group(number, "u4", "thank you"));
    let push = pushed_id(&mut carol);
    carol.ack(PublishKind::User, push);
    dan.expect_taken("m2");
    // A name of its own, which is taken once.
    let named = group_op(GroupOp::Create, "lobby");
    assert_eq!(dan.group(&named).0, 0);
    assert_eq!(ann.group(&named).0, 10);
    let (_, own) = dan.group(&group_op(GroupOp::List, ""));
    let own: Vec<&str> = own.iter().map(|group| &*group.id).collect();
    assert_eq!(own.len(), 2);
    assert!(own.contains(&"lobby") && own.contains(&&*made[0].id), "{own:?}");
    assert_eq!(dan.group(&group_op(GroupOp::Leave, "lobby")).0, 0);
    // The last one out has closed it.
    assert_eq!(ann.group(&group_op(GroupOp::Join, "lobby")).0, 4);
}

#[test]
fn binarys_rules_for_groups_are_none_of_im_demos() {
    let setup = open().group(7, &[1, 2]).set("protocol.binary.echo_to_sender", true);
    let gateway = setup.set("protocol.binary.open_groups", true).start();
    let mut ann = DemoClient::logged_in(&gateway, 1);
    let mut ben = DemoClient::logged_in(&gateway, 2);
    let mut dan = DemoClient::logged_in(&gateway, 3);
    greet(&mut ann, &mut ben, "u2");
    dan.send((ChatType::Group, "7"), "m1", "let me in", Some(true));
    dan.expect_code("m1", 5);
    ann.send((ChatType::Group, "7"), "m2", "to all", Some(true));
    ben.take_push("to all");
    ann.expect_taken("m2");
    ann.expect_silence();
    // Where they hold, they do.
    let mut eve = gateway.login(4);
    eve.publish(Want::Group(7), id(1), "from outside");
    ann.take_push("from outside");
    ben.take_push("from outside");
    eve.expect_ack(PublishKind::Group, id(1));
}

#[test]
fn group_messages_reach_the_senders_other_terminals_too() {
    let setup = Setup::new().everyone().shards(2).patient().group(7, &[1, 2]);
    let gateway = setup.start();
    let login = |device: &str| {
        let mut client = DemoClient::dial(&gateway);
        client.login(Connect { device: device.into(), ..DemoClient::connect("u1") });
        client
    };
    let mut ben = DemoClient::logged_in(&gateway, 2);
    let (mut phone, mut tablet) = (login("phone"), login("tablet"));
    ben.say("u1", "m1", "good morning");
    phone.take_push("good morning");
    tablet.take_push("good morning");
    ben.expect_taken("m1");
    phone.send((ChatType::Group, "7"), "m1", "to all", Some(true));
    // The copy is not what he waits for.
    ben.take_push("to all");
    phone.expect_taken("m1");
    let push = tablet.expect_push("to all");
    assert_eq!((push.group, &*push.to, &*push.from), (true, "7", "u1"));
    tablet.say("u2", "m2", "only to you");
    ben.take_push("only to you");
    tablet.expect_taken("m2");
    phone.expect_silence();
    // Nobody confirmed the copy; it was never kept, neither for the tablet nor for the phone.
    drop((phone, tablet));
    eventually("he is away", || gateway.metric("ringpost_sessions") == 1);
    ben.say("u1", "m2", "good night");
    ben.expect_taken("m2");
    let (mut tablet, mut phone) = (login("tablet"), login("phone"));
    tablet.take_push("good night");
    phone.take_push("good night");
    phone.expect_silence();
    tablet.expect_silence();
}

/// What simple-text shows of a group message.
fn in_group(group: u32, user: &str, text: &str) -> TextSeen {
    let (user, text, group) = (user.into(), text.into(), Some(group.to_string()));
    TextSeen::Message { user, text, private: false, group }
}

#[test]
fn silence_ends_extended_sessions_and_original_ones_never() {
    let gateway = open().set("heartbeat.interval_ms", 500).start();
    let mut original = DemoClient::dial(&gateway);
    let ack = original.login(Connect { ext: 0, ..DemoClient::connect("u1") });
    // The documented bytes and no more.
    assert_eq!((ack.ext, ack.heartbeat, &*ack.session, ack.time), (0, 0, "", 0));
    original.answers_pings = false;
    let mut alive = DemoClient::logged_in(&gateway, 2);
    alive.answers_pings = false;
    let mut quiet = DemoClient::dial(&gateway);
    let ack = quiet.login(DemoClient::connect("u3"));
    assert!(ack.heartbeat >= 1 && !ack.session.is_empty() && ack.time > 0, "{ack:?}");
    quiet.answers_pings = false;
    let ping = |client: &mut DemoClient| {
        let seen = client.next();
        assert!(matches!(seen, DemoSeen::Packet(ServerPacket::Ping(_))), "{seen:?}");
    };
    for round in 0..3 {
        // The third interval of silence is his last.
        if round < 2 {
            ping(&mut quiet);
        }
        // Any sign of life will do: an empty Command, one with a version, a question of his own.
        ping(&mut alive);
        match round {
            0 => alive.wire.send(&[0]),
            1 => alive.put(|out| client::alive(true, out)),
            _ => alive.put(|out| client::ping(42, true, out)),
        }
    }
    match alive.next() {
        DemoSeen::Packet(ServerPacket::Pong(pong)) => assert_eq!(pong.time, 42),
        other => panic!("{other:?}"),
    }
    quiet.expect_disconnect(2);
    ping(&mut alive);
    original.expect_silence();
}

#[test]
fn the_last_word_says_why() {
    let gateway = open().start();
    let mut old = DemoClient::logged_in(&gateway, 1);
    let mut new = DemoClient::logged_in(&gateway, 1);
    old.expect_disconnect(1);
    let mut original = DemoClient::dial(&gateway);
    original.login(Connect { ext: 0, ..DemoClient::connect("u2") });
    let mut polite = DemoClient::logged_in(&gateway, 3);
    polite.command(&Command {
        version: 1,
        disconnect: Some(Disconnect::default()),
        ..Command::default()
    });
    polite.expect_end();
    // Strings that are none: the whole Command is.
    let mut broken = DemoClient::logged_in(&gateway, 4);
    broken.wire.send(&[0x06, 0x32, 0x04, 0x22, 0x02, 0xc3, 0x28]);
    broken.expect_disconnect(3);
    gateway.signal("TERM");
    new.expect_disconnect(4);
    original.expect_disconnect(4);
}

#[test]
fn original_clients_reach_the_group_that_is_configured() {
    let setup = open().group(7, &[1, 2]).set("protocol.im-demo.default_to", "\"7\"");
    let gateway = setup.set("protocol.im-demo.list_in_reason", true).start();
    let login = |gateway: &Gateway| {
        let mut client = DemoClient::dial(gateway);
        client.login(Connect { ext: 0, ..DemoClient::connect("u1") });
        client
    };
    let mut original = login(&gateway);
    let mut ben = DemoClient::logged_in(&gateway, 2);
    original.send((ChatType::Single, ""), "", "to the lobby", Some(true));
    let push = ben.take_push("to the lobby");
    assert_eq!((push.group, &*push.to, &*push.from), (true, "7", "u1"));
    let response = original.expect_response("");
    assert_eq!((response.code, response.payload.len()), (0, 0));
    // He cannot acknowledge, or only without saying what.
    ben.say("u1", "m1", "by TCP");
    original.expect_push("by TCP");
    ben.expect_taken("m1");
    ben.say("u1", "m2", "by an empty response");
    original.expect_push("by an empty response");
    original.ack("");
    ben.expect_taken("m2");
    assert_eq!(ben.contact(ContactOp::Add, "u1").0, 0);
    original.ask_contact(ContactOp::Add, "u2", "");
    assert_eq!(original.expect_response("").code, 0);
    original.put(|out| client::contact(ContactOp::List, "", "", true, out));
    assert_eq!(original.expect_response("").reason, "u2");
    let nowhere = open().start();
    let mut original = login(&nowhere);
    original.send((ChatType::Single, ""), "", "to nobody", Some(true));
    assert_eq!(original.expect_response("").code, 2);
}
