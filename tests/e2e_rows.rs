//! Rows of the binary protocol's specification that only the whole gateway can show: what it
//! decides after a packet is understood. The others are tests of `codec`.

mod common;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use codec::PublishKind;
use codec::binary::client::Tail;
use common::{Client, Gateway, PATIENCE, Seen, Setup, Stream, Want, connect_packet, id};
use tungstenite::Message;

#[test]
fn ambiguity_03_code_1_answers_a_second_connect_and_a_cross_login_replaces() {
    let gateway = Setup::new().start();
    let mut twice = gateway.login(1);
    twice.send(connect_packet("u1", "x", Tail::Plain));
    twice.expect(Seen::ConnectAck(1));
    twice.expect_close(1002);

    let mut old = gateway.login(2);
    let mut new = gateway.login(2);
    old.expect(Seen::Disconnect);
    old.expect_close(1000);
    new.note_to_self(2, id(1), "still here");
}

#[test]
fn ambiguity_03_code_1_refuses_the_newcomer_if_configured() {
    let gateway = Setup::new().set("protocol.binary.dup_policy", "\"reject_new\"").start();
    let mut old = gateway.login(2);
    let mut new = gateway.dial();
    new.send(connect_packet("u2", "x", Tail::Plain));
    new.expect(Seen::ConnectAck(1));
    new.expect_close(1000);
    old.note_to_self(2, id(1), "still here");
}

#[test]
fn ambiguity_04_first_send_and_three_retries_then_close() {
    let interval = 200;
    let gateway = Setup::new().set("delivery.retry_interval_ms", interval).start();
    let mut silent = gateway.login(2);
    gateway.login(1).publish_safely(Want::User(2), id(1), "hello");
    silent.expect_push(id(1), "hello");
    let first = Instant::now();
    for _ in 0..3 {
        silent.expect_push(id(1), "hello");
    }
    silent.expect_close(1008);
    // Four intervals after the send; the first copy may have been seen late.
    assert!(first.elapsed() > Duration::from_millis(3 * interval), "{:?}", first.elapsed());
    gateway.login(2).take_push(id(1), "hello");
}

#[test]
fn ambiguity_05_silence_is_asked_about_and_then_ends_the_connection() {
    let gateway = Setup::new().set("heartbeat.interval_ms", 500).start();
    let mut quiet = gateway.login(1);
    quiet.answers_pings = false;
    for _ in 0..3 {
        quiet.expect(Seen::Ping);
    }
    quiet.expect_close(1008);

    // Any packet is a sign of life, not only the answer.
    let mut talker = gateway.login(2);
    talker.answers_pings = false;
    let mut pings = 0;
    while pings < 5 {
        match talker.next() {
            Seen::Ping => {
                pings += 1;
                talker.publish(Want::User(99), id(pings), "I am here");
            }
            seen => assert!(matches!(seen, Seen::Ack(..)), "{seen:?}"),
        }
    }
}

#[test]
fn ambiguity_07_group_messages_come_back_to_their_sender_only_if_configured() {
    let gateway = Setup::new().shards(2).group(7, &[1, 2]).start();
    let mut sender = gateway.login(1);
    let mut member = gateway.login(2);
    sender.publish(Want::Group(7), id(1), "to all");
    member.take_push(id(1), "to all");
    sender.expect_ack(PublishKind::Group, id(1));
    sender.expect_silence();

    let echo = Setup::new().shards(2).group(7, &[1, 2]);
    let gateway = echo.set("protocol.binary.echo_to_sender", true).start();
    let mut sender = gateway.login(1);
    let mut member = gateway.login(2);
    sender.note_to_self(1, id(9), "done with the store");
    sender.publish(Want::Group(7), id(1), "to all");
    sender.take_push(id(1), "to all");
    member.take_push(id(1), "to all");
    sender.expect_ack(PublishKind::Group, id(1));
}

#[test]
fn ambiguity_08_who_is_no_member_is_acknowledged_and_not_heard() {
    let gateway = Setup::new().group(7, &[2]).start();
    let mut stranger = gateway.login(1);
    let mut member = gateway.login(2);
    stranger.publish_safely(Want::Group(7), id(1), "let me in");
    stranger.publish_safely(Want::Part(7, &[2]), id(2), "let me in");
    stranger.publish_safely(Want::Group(8), id(3), "is there a group?");
    // Whatever had been routed would stand before this one.
    stranger.publish(Want::User(2), id(4), "the barrier");
    member.take_push(id(4), "the barrier");
    stranger.expect_ack(PublishKind::User, id(4));

    let open = Setup::new().group(7, &[2]).set("protocol.binary.open_groups", true).start();
    let mut stranger = open.login(1);
    let mut member = open.login(2);
    stranger.publish(Want::Group(7), id(1), "hello");
    member.take_push(id(1), "hello");
    stranger.expect_ack(PublishKind::Group, id(1));
}

#[test]
fn ambiguity_09_messages_to_unknown_users_are_kept_up_to_the_cap() {
    let gateway = Setup::new().set("store.user_max_messages", 2).start();
    let mut sender = gateway.login(1);
    for n in 1..=2 {
        sender.publish_safely(Want::User(4_000_000_000), id(n), "whoever you are");
    }
    sender.publish(Want::User(4_000_000_000), id(3), "one too many");
    sender.publish_safely(Want::User(5), id(4), "the store goes on");
    sender.expect_silence();
    let mut late = gateway.login(4_000_000_000);
    assert_eq!(late.take_pushes(2), [id(1), id(2)]);
    late.expect_silence();
}

#[test]
fn ambiguity_10_messages_to_oneself_are_delivered() {
    let gateway = Setup::new().start();
    gateway.login(1).note_to_self(1, id(1), "note to self");
}

#[test]
fn ambiguity_12_three_malformed_packets_are_forgiven() {
    let gateway = Setup::new().start();
    let mut clumsy = gateway.login(1);
    let mut ben = gateway.login(2);
    let short = Want::User(2).publish(id(1), b"cut");
    for n in 10..13 {
        clumsy.send(&short[..short.len() - 1]);
        clumsy.expect(Seen::Invalid);
        clumsy.publish(Want::User(2), id(n), "still connected");
        ben.take_push(id(n), "still connected");
        clumsy.expect_ack(PublishKind::User, id(n));
    }
    clumsy.send(&short[..short.len() - 1]);
    clumsy.expect(Seen::Invalid);
    clumsy.expect_close(1002);
    ben.expect_silence();
}

#[test]
fn ambiguity_12_oversized_payloads_are_answered_and_never_acknowledged() {
    let gateway = Setup::new().start();
    let mut ann = gateway.login(1);
    ann.send(Want::User(2).publish(id(1), &[b'x'; 32_768]));
    ann.expect(Seen::Invalid);
    ann.publish_safely(Want::User(2), id(2), &"x".repeat(32_767));
}

#[test]
fn ambiguity_13_unknown_commands_count_like_malformed_packets() {
    let gateway = Setup::new().start();
    let mut clumsy = gateway.login(1);
    for command in [0x00, 0x07, 0x14] {
        clumsy.send([command]);
        clumsy.expect(Seen::Invalid);
    }
    clumsy.send([0xff]);
    clumsy.expect(Seen::Invalid);
    clumsy.expect_close(1002);
}

#[test]
fn ambiguity_14_the_first_packet_must_be_connect() {
    let gateway = Setup::new().start();
    let mut ben = gateway.login(2);
    for first in [Want::User(2).publish(id(1), b"early"), vec![8], vec![9], vec![0xff], vec![]] {
        let mut hasty = gateway.dial();
        hasty.send(first);
        hasty.expect_close(1002);
    }
    ben.expect_silence();
}

#[test]
fn ambiguity_18_fragments_of_one_message_are_one_packet() {
    let gateway = Setup::new().shards(2).start();
    let mut ann = gateway.dial();
    ann.send_fragmented(&connect_packet("u1", "x", Tail::Plain), 3);
    ann.expect_accepted();
    let mut ben = gateway.login(2);
    let body = "piece by piece ".repeat(100);
    ann.send_fragmented(&Want::User(2).publish(id(1), body.as_bytes()), 7);
    ben.take_push(id(1), &body);
    ann.expect_ack(PublishKind::User, id(1));
}

#[test]
fn trap_05_clients_that_never_acknowledge_are_cut_unless_configured() {
    let gateway = Setup::new().quick_retries().start();
    let mut page = gateway.login(2);
    gateway.login(1).publish_safely(Want::User(2), id(1), "hello");
    for _ in 0..3 {
        page.expect_push(id(1), "hello");
    }
    page.expect_close(1008);

    let lax = Setup::new().quick_retries().set("protocol.binary.require_push_ack", false).start();
    let mut page = lax.login(2);
    lax.login(1).publish_safely(Want::User(2), id(1), "hello");
    page.expect_push(id(1), "hello");
    assert_eq!(page.see(Duration::from_secs(1)), None, "no retry, no close");
    page.close();
    lax.login(2).expect_silence();
}

#[test]
fn trap_07_logout_goes_only_to_the_replaced_and_only_to_those_who_know_it() {
    let gateway = Setup::new().shards(2).start();
    let phone = Tail::Terminal { role: 2, client: 2 };
    for (tail, word) in [
        (phone, Seen::Logout),
        (Tail::Plain, Seen::Disconnect),
        (Tail::Role(1), Seen::Disconnect),
        (Tail::Vhost(b"com.example"), Seen::Disconnect),
    ] {
        let mut old = gateway.login_as(1, tail);
        let _new = gateway.login_as(1, tail);
        old.expect(word);
        old.expect_close(1000);
    }
    // A restart is no reason to stay away.
    let mut client = gateway.login_as(2, phone);
    gateway.signal("TERM");
    client.expect_close(1001);
}

#[test]
fn trap_08_no_text_is_sent_not_even_for_errors() {
    // `Client::see` takes nothing but binary messages and closes.
    let gateway = Setup::new().start();
    let mut before = gateway.dial();
    before.socket.send(Message::text("hello")).expect("sent");
    before.expect_close(1003);

    let mut after = gateway.login(1);
    after.socket.send(Message::text("hello")).expect("sent");
    after.expect_close(1003);

    let mut nameless = gateway.dial();
    nameless.send([1, 0, 0]);
    nameless.expect_close(1002);

    let local = Setup::new().local_users(1).start();
    let mut denied = local.dial();
    denied.send(connect_packet("u1", "wrong", Tail::Plain));
    denied.expect(Seen::ConnectAck(3));
    denied.expect_close(1000);
}

#[test]
fn trap_09_old_tls_is_refused_with_its_alert_and_nobody_else_suffers() {
    let gateway = Setup::new().start();
    let mut modern = gateway.dial_wss();
    modern.login("u1", "x", Tail::Plain);
    for minor in [1, 2] {
        let answer = old_tls(&gateway, minor);
        // A fatal alert: handshake_failure or protocol_version (RFC 8446 section 6).
        let is_refusal = matches!(answer[..], [0x15, 3, _, 0, 2, 2, 40 | 70]);
        assert!(is_refusal, "TLS 1.{}: {answer:02x?}", minor - 1);
    }
    modern.note_to_self(1, id(1), "fine");
    // A client that does not name the host gets the certificate all the same.
    let nameless = Stream::tls(gateway.site().wss(), false);
    Client::upgrade(nameless, "wss://localhost/wss").login("u2", "x", Tail::Plain);
}

/// Everything the wss port says to a client that knows nothing newer than TLS 1.`minor - 1`.
fn old_tls(gateway: &Gateway, minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([0x42; 32]);
    // No session; TLS_RSA_WITH_AES_128_CBC_SHA and its ECDHE form; no compression; no extensions.
    hello.extend([0, 0, 4, 0x00, 0x2f, 0xc0, 0x13, 1, 0]);
    let mut record = vec![0x16, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    let mut stream = Stream::plain(gateway.site().wss());
    stream.socket().set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.write_all(&record).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and the end");
    answer
}
