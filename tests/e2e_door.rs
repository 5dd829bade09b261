//! The back end's publish door of the real program.

mod common;

use codec::PublishKind::{Group, GroupPart, User};
use common::{Seen, Setup, Want, id};

#[test]
fn pipelined_requests_are_answered_in_order_and_delivered_once() {
    // Goal: replies in the order of the requests although they become safe in another. Method: the
    // first recipient is silent, the second quick, the third offline, on different shards.
    let gateway = Setup::new().shards(3).group(7, &[1, 2]).start();
    let mut silent = gateway.login(1);
    let mut quick = gateway.login(2);
    let mut door = gateway.door();
    let requests = [
        (Want::User(1), id(1)),
        (Want::User(2), id(2)),
        (Want::User(3), id(3)),
        (Want::Group(7), id(4)),
        (Want::Part(7, &[2]), id(5)),
    ];
    let packets = requests.map(|(to, id)| to.publish(id, b"from the back end"));
    door.send(packets.iter().map(Vec::as_slice));
    for n in [2, 4, 5] {
        quick.take_push(id(n), "from the back end");
    }
    for n in [1, 4] {
        silent.expect_push(id(n), "from the back end");
    }
    for (to, id) in requests {
        door.expect_ack(to.kind(), id);
    }
    gateway.login(3).take_push(id(3), "from the back end");
}

#[test]
fn resends_are_answered_and_not_delivered_again_even_on_another_connection() {
    let gateway = Setup::new().shards(3).group(7, &[1, 2]).start();
    let mut ben = gateway.login(2);
    for round in 0..3 {
        let mut door = gateway.door();
        door.publish(Want::User(2), id(1), "once");
        door.publish(Want::User(3), id(1), "another target");
        if round == 0 {
            ben.take_push(id(1), "once");
        }
        door.expect_ack(User, id(1));
        door.expect_ack(User, id(1));
    }
    ben.expect_silence();
    assert_eq!(gateway.login(3).take_pushes(1), [id(1)]);
}

#[test]
fn thousands_of_requests_in_one_stream_are_all_answered() {
    // Goal: more than may be unanswered at once. Method: a writer that does not wait.
    const COUNT: u32 = 5000;
    let gateway = Setup::new().shards(2).start();
    let mut door = gateway.door();
    let mut writer = common::Door::new(common::Stream::Plain(
        door.wire.stream.socket().try_clone().expect("a second handle"),
    ));
    let writing = std::thread::spawn(move || {
        for n in 0..COUNT {
            writer.publish(Want::User(n % 50), id(n), "bulk");
        }
    });
    for n in 0..COUNT {
        door.expect_ack(User, id(n));
    }
    writing.join().expect("everything was written");
    let mine: Vec<_> = (0..COUNT).filter(|n| n % 50 == 7).map(id).collect();
    assert_eq!(gateway.login(7).take_pushes(mine.len()), mine);
}

#[test]
fn what_is_no_publish_is_answered_and_ends_the_connection() {
    let gateway = Setup::new().start();
    let good = Want::User(2).publish(id(1), b"good");
    let cut = &good[..good.len() - 1];
    let connect = common::connect_packet("u1", "x", codec::binary::client::Tail::Plain);
    for bad in [cut, &connect, &[0xff], &[3]] {
        let mut door = gateway.door();
        door.send([&good[..]]);
        door.expect_ack(User, id(1));
        door.send([bad, &good]);
        door.expect(Seen::Invalid);
        door.expect(Seen::End);
    }
    // A length that no packet has.
    let mut door = gateway.door();
    door.send_bytes(&[0xff; 4]);
    door.expect(Seen::Invalid);
    door.expect(Seen::End);
    assert_eq!(gateway.login(2).take_pushes(1), [id(1)]);
}

#[test]
fn what_made_no_sense_is_answered_in_its_turn() {
    // Goal: the answer to a bad request does not overtake those before it. Method: the good ones
    // go to users who are offline, so they wait for the store's commit.
    let gateway = Setup::new().start();
    let mut door = gateway.door();
    let good = [2, 3].map(|user| Want::User(user).publish(id(user), b"good"));
    door.send([&good[0][..], &good[1], &[0xff]]);
    door.expect_ack(User, id(2));
    door.expect_ack(User, id(3));
    door.expect(Seen::Invalid);
    door.expect(Seen::End);
}

#[test]
fn nothing_is_taken_from_a_stream_that_lost_its_framing() {
    // Goal: bytes behind a broken length are never read as requests. Method: a request that waits
    // for a silent recipient keeps the connection open while a well-formed one follows the bad
    // length in a segment of its own.
    let gateway = Setup::new().start();
    let mut silent = gateway.login(1);
    let mut victim = gateway.login(2);
    let mut door = gateway.door();
    door.publish(Want::User(1), id(1), "waits");
    silent.expect_push(id(1), "waits");
    door.send_bytes(&[0xff; 4]);
    door.publish(Want::User(2), id(2), "smuggled");
    door.expect_ack(User, id(1));
    door.expect(Seen::Invalid);
    door.expect(Seen::End);
    victim.expect_silence();
}

#[test]
fn zero_length_request_is_malformed() {
    let gateway = Setup::new().start();
    let mut door = gateway.door();
    door.send_bytes(&[0; 4]);
    door.expect(Seen::Invalid);
    door.expect(Seen::End);
}

#[test]
fn group_acknowledgements_have_the_form_of_the_request() {
    let gateway = Setup::new().group(7, &[1]).start();
    let mut door = gateway.door();
    door.publish(Want::Group(7), id(1), "to all");
    door.expect_ack(Group, id(1));
    door.publish(Want::Part(7, &[1]), id(2), "to some");
    door.expect_ack(GroupPart, id(2));
    assert_eq!(gateway.login(1).take_pushes(2), [id(1), id(2)]);
}

#[test]
fn who_is_not_on_the_list_is_closed_without_a_word() {
    let allow = "protocol.binary-publish.allow";
    let gateway = Setup::new().set(allow, "[\"10.0.0.0/8\"]").start();
    let mut door = gateway.door();
    door.expect(Seen::End);
    assert_eq!(gateway.metric("ringpost_closed_total{shard=\"0\",reason=\"not_allowed\"}"), 1);

    let gateway = Setup::new().set(allow, "[\"10.0.0.0/8\", \"127.0.0.0/8\"]").start();
    let mut door = gateway.door();
    door.publish(Want::User(1), id(1), "let in");
    door.expect_ack(User, id(1));
}
