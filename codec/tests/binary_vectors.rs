//! The byte samples of the protocol document and of real clients, both ways.

mod common;

use codec::binary::client::{self, ServerPacket, Tail};
use codec::binary::door::BinaryPublish;
use codec::binary::{Binary, Settings, code, stream};
use codec::error::Malformed;
use codec::protocol::Protocol;
use codec::{
    Connect, Decoded, Destination, GroupId, GroupKey, Message, Outgoing, Packet, Proof, ProtocolId,
    Publish, PublishKind, Refusal, Target, Terminal, UserId, UserKey, UserList,
};
use common::{M, accepted, hex, id, packet, push, scratch};

const HELLO: &[u8] = b"hello world";
const HELLO_FIELD: &str = "00 0b 68 65 6c 6c 6f 20 77 6f 72 6c 64";

#[test]
fn connect_of_every_client() {
    let test = Connect {
        name: b"test",
        proof: Proof::Password(b"123456"),
        role: None,
        terminal: Terminal::Kind(0),
        vhost: None,
        tenant: None,
    };
    let expected = [
        ("connect_document", Connect { role: Some(1), ..test }),
        ("connect_browser", Connect { role: Some(2), ..test }),
        ("connect_plain", test),
        (
            "connect_terminal",
            Connect {
                name: b"xyb|##|app|##|1234",
                role: Some(2),
                terminal: Terminal::Kind(2),
                ..test
            },
        ),
        (
            "connect_vhost",
            Connect {
                name: b"test1234",
                proof: Proof::Password(b"password1234"),
                vhost: Some(b"com.xywy.default"),
                ..test
            },
        ),
    ];
    for (name, connect) in expected {
        let bytes = packet("binary", name);
        assert_eq!(decode(&bytes), Packet::Connect(connect), "{name}");
    }
}

#[test]
fn connect_is_written_as_every_client_writes_it() {
    let written = |name: &[u8], password: &[u8], tail| {
        let mut out = Vec::new();
        client::connect(name, password, tail, &mut out).unwrap();
        out
    };
    let vector = |name| packet("binary", name);
    assert_eq!(written(b"test", b"123456", Tail::Plain), vector("connect_plain"));
    assert_eq!(written(b"test", b"123456", Tail::Role(1)), vector("connect_document"));
    assert_eq!(written(b"test", b"123456", Tail::Role(b'2')), vector("connect_browser"));
    let terminal = Tail::Terminal { role: 2, client: 2 };
    assert_eq!(written(b"xyb|##|app|##|1234", b"123456", terminal), vector("connect_terminal"));
    let vhost = Tail::Vhost(b"com.xywy.default");
    assert_eq!(written(b"test1234", b"password1234", vhost), vector("connect_vhost"));
}

#[test]
fn connect_ack_carries_the_documented_codes() {
    let cases = [
        (accepted(), "02 00", code::ACCEPTED),
        (Outgoing::Refused(Refusal::Duplicate), "02 01", code::DUPLICATE),
        (Outgoing::Refused(Refusal::Taken), "02 01", code::DUPLICATE),
        (Outgoing::Refused(Refusal::UnknownVhost), "02 02", code::UNKNOWN_VHOST),
        (Outgoing::Refused(Refusal::BadCredentials), "02 03", code::BAD_CREDENTIALS),
    ];
    for (outgoing, bytes, code) in cases {
        assert_eq!(encode(&outgoing), hex(bytes));
        assert_eq!(client::decode_server(&hex(bytes)), Ok(ServerPacket::ConnectAck(code)));
    }
}

#[test]
fn publish_and_its_ack() {
    let bytes = packet("binary", "publish");
    let to = Destination::User(UserId(1234));
    assert_eq!(decode(&bytes), Packet::Publish(Publish { id: id(), to, body: HELLO, keep: true }));
    let mut out = Vec::new();
    client::publish(UserId(1234), &id(), HELLO, &mut out).unwrap();
    assert_eq!(out, bytes);
    assert_ack(PublishKind::User, "04 M");
}

#[test]
fn group_publish_and_its_ack() {
    let bytes = packet("binary", "group_publish");
    let to = Destination::Group(GroupId(1234));
    assert_eq!(decode(&bytes), Packet::Publish(Publish { id: id(), to, body: HELLO, keep: true }));
    let mut out = Vec::new();
    client::group_publish(GroupId(1234), &id(), HELLO, &mut out).unwrap();
    assert_eq!(out, bytes);
    assert_ack(PublishKind::Group, "06 M");
}

#[test]
fn group_part_publish_and_its_ack() {
    let bytes = packet("binary", "group_part_publish");
    let list = hex("00 00 04 d2 00 00 09 29");
    let users = UserList::new(&list);
    assert_eq!(users.iter().collect::<Vec<_>>(), [UserId(1234), UserId(2345)]);
    let to = Destination::GroupPart(GroupId(1234), users);
    assert_eq!(decode(&bytes), Packet::Publish(Publish { id: id(), to, body: HELLO, keep: true }));
    let mut out = Vec::new();
    let listed = [UserId(1234), UserId(2345)];
    client::group_part_publish(GroupId(1234), &id(), &listed, HELLO, &mut out).unwrap();
    assert_eq!(out, bytes);
    assert_ack(PublishKind::GroupPart, "0c M");
}

#[test]
fn push_and_its_ack() {
    let user = Target::User(UserKey { id: UserId(1234), ..UserKey::default() });
    let bytes = hex(&format!("03 M {HELLO_FIELD}"));
    assert_eq!(encode(&push(&message(user))), bytes);
    assert_eq!(client::decode_server(&bytes), Ok(ServerPacket::Push { id: id(), body: HELLO }));
    assert_eq!(decode(&packet("binary", "pub_ack")), Packet::Ack(id()));
    let mut out = Vec::new();
    client::ack(PublishKind::User, &id(), &mut out);
    assert_eq!(out, packet("binary", "pub_ack"));
}

#[test]
fn group_push_and_its_ack() {
    let group = Target::Group(GroupKey { id: GroupId(1234), ..GroupKey::default() });
    let bytes = hex(&format!("05 00 00 04 d2 M {HELLO_FIELD}"));
    assert_eq!(bytes, packet("binary", "group_publish"), "the same both ways");
    let mut terminal = Binary::new();
    let connect = packet("binary", "connect_terminal");
    terminal.decode(&Settings::default(), &connect, scratch()).unwrap();
    let mut out = Vec::new();
    let message = message(group);
    terminal.encode(&Settings::default(), &push(&message), false, &mut out);
    assert_eq!(out, bytes);
    assert_eq!(
        client::decode_server(&bytes),
        Ok(ServerPacket::GroupPush { group: GroupId(1234), id: id(), body: HELLO })
    );
    assert_eq!(decode(&packet("binary", "group_pub_ack")), Packet::Ack(id()));
}

#[test]
fn heartbeat_and_goodbye() {
    assert_eq!(encode(&Outgoing::Ping), hex("07"));
    assert_eq!(client::decode_server(&hex("07")), Ok(ServerPacket::Ping));
    assert_eq!(decode(&hex("08")), Packet::Pong);
    assert_eq!(decode(&hex("09")), Packet::Disconnect);
    assert_eq!(client::decode_server(&hex("09")), Ok(ServerPacket::Disconnect));
    assert_eq!(encode(&Outgoing::Invalid(Malformed::Syntax)), hex("0a"));
    assert_eq!(client::decode_server(&hex("0a")), Ok(ServerPacket::Invalid));
    assert_eq!(client::decode_server(&hex("14")), Ok(ServerPacket::Logout));
    let mut out = Vec::new();
    client::ping_resp(&mut out);
    client::disconnect(&mut out);
    assert_eq!(out, hex("08 09"));
}

#[test]
fn door_request_and_response() {
    let settings = codec::binary::door::Settings::default();
    let request = hex(&format!("00 00 00 32 03 00 00 04 d2 M {HELLO_FIELD}"));
    let mut written = Vec::new();
    stream::framed(true, &mut written, |out| {
        client::publish(UserId(1234), &id(), HELLO, out).unwrap();
    });
    assert_eq!(written, request);
    let mut door = BinaryPublish::new();
    let frame = door.frame(&settings, &request, false);
    let Ok(Decoded::Frame { value, consumed }) = frame else { panic!("a whole request") };
    assert_eq!(consumed, request.len());
    let to = Destination::User(UserId(1234));
    assert_eq!(
        door.decode(&settings, &request[value], scratch()),
        Ok(Packet::Publish(Publish { id: id(), to, body: HELLO, keep: true }))
    );
    let mut out = Vec::new();
    door.encode(&settings, &Outgoing::PublishAck(PublishKind::User, id(), None), true, &mut out);
    door.encode(&settings, &Outgoing::Invalid(Malformed::Syntax), true, &mut out);
    assert_eq!(out, hex("00 00 00 21 04 M 00 00 00 01 0a"));
}

fn assert_ack(kind: PublishKind, bytes: &str) {
    assert_eq!(encode(&Outgoing::PublishAck(kind, id(), None)), hex(bytes));
    let decoded = client::decode_server(&hex(bytes)).map(|packet| match packet {
        ServerPacket::PublishAck(kind, id) => (kind, id.as_bytes().to_vec()),
        other => panic!("{other:?}"),
    });
    assert_eq!(decoded, Ok((kind, M.as_bytes().to_vec())));
}

fn decode(bytes: &[u8]) -> Packet<'_> {
    Binary::new().decode(&Settings::default(), bytes, scratch()).unwrap()
}

/// As a client without a client kind hears it.
fn encode(outgoing: &Outgoing<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Binary::new().encode(&Settings::default(), outgoing, false, &mut out);
    out
}

fn message(to: Target) -> Message {
    let protocol = ProtocolId::Binary;
    Message {
        stamp: 1,
        id: id(),
        from: None,
        from_name: Default::default(),
        to,
        protocol,
        time_ms: 2,
        body: HELLO.into(),
    }
}
