//! What the binary protocol accepts at the ends of its bounds and settings, and that the client's
//! side and the gateway's side understand each other whatever is said.

mod common;

use codec::binary::client::{self, ServerPacket, Tail, TooLong};
use codec::binary::door::{self, BinaryPublish};
use codec::binary::{
    Binary, ConnectLayout, PACKET_MAX, PART_USERS_MAX, PAYLOAD_MAX, Settings, stream,
};
use codec::error::Malformed;
use codec::protocol::Protocol;
use codec::{
    Decoded, Destination, GroupId, GroupKey, Message, MessageId, Outgoing, Packet, ProtocolId,
    PublishKind, Target, Terminal, UserId, UserKey, WireError,
};
use common::{hex, id, packet, push, scratch};
use proptest::prelude::*;

#[test]
fn a_connection_s_state_is_at_most_four_bytes() {
    assert!(size_of::<Binary>() <= 4);
}

#[test]
fn payload_over_the_configured_bound_is_too_large() {
    assert_eq!(longest_payload(&Settings::default()), 32_767);
    assert_eq!(longest_payload(&Settings { max_payload: 0, ..Settings::default() }), 0);
    assert_eq!(longest_payload(&Settings { max_payload: 100, ..Settings::default() }), 100);
    let wire = Settings { max_payload: u32::MAX, ..Settings::default() };
    assert_eq!(longest_payload(&wire), PAYLOAD_MAX);
}

/// The true length counts, not the announced one.
#[test]
fn text_with_a_utf16_length_is_bound_by_its_bytes() {
    let text = |characters: u16| {
        let mut bytes = hex("03 00 00 00 01 M");
        bytes.extend_from_slice(&characters.to_be_bytes());
        bytes.extend_from_slice("界".repeat(characters.into()).as_bytes());
        bytes
    };
    let settings = Settings { max_payload: 300, ..Settings::default() };
    assert!(Binary::new().decode(&settings, &text(100), scratch()).is_ok());
    let error = Binary::new().decode(&settings, &text(101), scratch()).expect_err("303 bytes");
    assert_eq!(error, WireError::new(Malformed::TooLarge, 37));
}

#[test]
fn the_largest_legal_packet_is_exactly_the_bound() {
    let users = vec![UserId(u32::MAX); PART_USERS_MAX];
    let mut bytes = Vec::new();
    stream::framed(true, &mut bytes, |out| {
        client::group_part_publish(GroupId(1), &id(), &users, &vec![b'x'; PAYLOAD_MAX], out)
    })
    .unwrap();
    assert_eq!(bytes.len(), 4 + PACKET_MAX);
    assert_eq!(ProtocolId::Binary.packet_max(), PACKET_MAX);
    let whole = Decoded::Frame { value: 4..bytes.len(), consumed: bytes.len() };
    assert_eq!(stream::frame(&bytes), Ok(whole));
    let settings = Settings { max_payload: PAYLOAD_MAX as u32, ..Settings::default() };
    assert!(Binary::new().decode(&settings, &bytes[4..], scratch()).is_ok());
}

#[test]
fn stream_announcing_more_than_the_bound_fails_at_its_header() {
    let announce = |len: usize| stream::frame(&u32::try_from(len).unwrap().to_be_bytes());
    assert_eq!(announce(PACKET_MAX), Ok(Decoded::NeedMore { total: 4 + PACKET_MAX }));
    let too_large = Err(WireError::new(Malformed::TooLarge, 0));
    assert_eq!(announce(PACKET_MAX + 1), too_large);
    assert_eq!(announce(u32::MAX as usize), too_large);
    for input in [&[][..], &[0xff], &[0xff, 0xff, 0xff]] {
        assert_eq!(stream::frame(input), Ok(Decoded::NeedMore { total: 4 }), "{input:x?}");
    }
}

#[test]
fn empty_packet_is_an_error_on_every_transport() {
    let empty = Err(WireError::new(Malformed::Empty, 0));
    assert_eq!(Binary::new().decode(&Settings::default(), &[], scratch()), empty);
    assert_eq!(BinaryPublish::new().decode(&door::Settings::default(), &[], scratch()), empty);
    assert_eq!(client::decode_server(&[]).map(drop), Err(WireError::new(Malformed::Empty, 0)));
    let frame = Decoded::Frame { value: 4..4, consumed: 4 };
    assert_eq!(stream::frame(&[0; 4]), Ok(frame));
}

#[test]
fn connect_layout_setting_narrows_what_is_accepted() {
    let all = ["document", "browser", "plain", "terminal", "vhost"];
    let accepted = |connect_layout| {
        let settings = Settings { connect_layout, ..Settings::default() };
        all.map(|client| {
            let bytes = packet("binary", &format!("connect_{client}"));
            Binary::new().decode(&settings, &bytes, scratch()).is_ok()
        })
    };
    assert_eq!(accepted(ConnectLayout::Auto), [true; 5]);
    assert_eq!(accepted(ConnectLayout::Doc), [true, true, true, true, false]);
    assert_eq!(accepted(ConnectLayout::Vhost), [false, false, false, false, true]);
}

#[test]
fn third_string_of_a_connect_must_end_with_the_packet() {
    let base = hex("01 00 01 \"v\" 00 01 \"u\"");
    let outcome = |tail: &str| {
        let bytes = [base.clone(), hex(tail)].concat();
        let decoded = Binary::new().decode(&Settings::default(), &bytes, scratch()).map(|packet| {
            let Packet::Connect(connect) = packet else { panic!("{packet:?}") };
            (
                connect.name.to_vec(),
                common::password(&connect).to_vec(),
                connect.vhost.map(<[u8]>::to_vec),
            )
        });
        decoded.map_err(|error| error.what)
    };
    let vhost = Some(b"v".to_vec());
    assert_eq!(outcome("00 01 \"p\""), Ok((b"u".to_vec(), b"p".to_vec(), vhost.clone())));
    // Role 0 and client kind 0 are no terminal, but they are an empty third string.
    assert_eq!(outcome("00 00"), Ok((b"u".to_vec(), Vec::new(), vhost)));
    for tail in ["00 02 \"p\"", "00 01 \"pp\"", "01 00", "00 01 \"p\" 01", "ff ff \"p\""] {
        assert_eq!(outcome(tail), Err(Malformed::ConnectLayout), "{tail}");
    }
}

#[test]
fn door_takes_the_three_publishes_and_nothing_else() {
    let settings = door::Settings::default();
    for (name, bytes) in common::packets("binary") {
        let publish = ["publish", "publish_empty", "group_publish", "group_part_publish"];
        let decoded = BinaryPublish::new().decode(&settings, &bytes, scratch());
        let expected = match name.as_str() {
            name if publish.contains(&name) => Ok(()),
            "publish_utf16_len" => Err(Malformed::TrailingBytes),
            _ => Err(Malformed::UnknownCommand),
        };
        assert_eq!(decoded.map(drop).map_err(|error| error.what), expected, "{name}");
    }
}

#[test]
fn ack_shorter_than_its_id_is_truncated() {
    for ack in ["pub_ack", "group_pub_ack", "group_part_pub_ack"] {
        let bytes = packet("binary", ack);
        assert_eq!(bytes.len(), 33);
        for len in 1..33 {
            let error = Binary::new().decode(&Settings::default(), &bytes[..len], scratch());
            assert_eq!(error, Err(WireError::new(Malformed::Truncated, 1)), "{ack} {len}");
        }
    }
}

#[test]
fn every_truncated_publish_is_refused() {
    for name in ["publish", "group_publish", "group_part_publish"] {
        let bytes = packet("binary", name);
        for len in 0..bytes.len() {
            let decoded = Binary::new().decode(&Settings::default(), &bytes[..len], scratch());
            assert!(decoded.is_err(), "{name} {len}");
        }
    }
}

#[test]
fn shorter_ids_of_other_protocols_do_not_shift_the_packet() {
    let short = MessageId::new(b"abc").unwrap();
    let mut out = Vec::new();
    let word = Outgoing::PublishAck(PublishKind::User, short, None);
    Binary::new().encode(&Settings::default(), &word, false, &mut out);
    assert_eq!(out.len(), 33);
    assert_eq!(out[..6], *b"\x04abc\0\0");
}

#[test]
fn client_refuses_what_its_length_fields_cannot_say_and_writes_nothing() {
    let long = vec![b'x'; PAYLOAD_MAX + 1];
    let users = vec![UserId(1); PART_USERS_MAX + 1];
    let mut out = b"kept".to_vec();
    let refusals = [
        client::connect(&long, b"p", Tail::Plain, &mut out),
        client::connect(b"u", &long, Tail::Plain, &mut out),
        client::connect(b"u", b"p", Tail::Vhost(&long), &mut out),
        client::publish(UserId(1), &id(), &long, &mut out),
        client::group_publish(GroupId(1), &id(), &long, &mut out),
        client::group_part_publish(GroupId(1), &id(), &[], &long, &mut out),
        client::group_part_publish(GroupId(1), &id(), &users, b"", &mut out),
    ];
    assert_eq!(refusals, [Err(TooLong); 7]);
    assert_eq!(out, b"kept");
}

#[test]
fn client_refuses_packets_the_gateway_never_sends() {
    for (bytes, what) in [
        ("01", Malformed::UnknownCommand),
        ("08", Malformed::UnknownCommand),
        ("0b 00 00 00 01 M 00 00 00 00", Malformed::UnknownCommand),
        ("02", Malformed::Truncated),
        ("02 00 00", Malformed::TrailingBytes),
        ("03 M 00 02 68", Malformed::Truncated),
        ("03 M 00 01 68 69", Malformed::TrailingBytes),
        ("04 M 00", Malformed::TrailingBytes),
        ("07 07", Malformed::TrailingBytes),
    ] {
        let error = client::decode_server(&hex(bytes)).map(drop).map_err(|error| error.what);
        assert_eq!(error, Err(what), "{bytes}");
    }
}

proptest! {
    #[test]
    fn logins_arrive_as_they_were_written(
        name in bytes(0..300),
        password in bytes(1..300),
        role in any::<u8>(),
        client in 1..128_u8,
        vhost in bytes(0..300),
    ) {
        let ascii = if role.is_ascii_digit() { role - b'0' } else { role };
        let cases = [
            (Tail::Plain, None, 0, None),
            (Tail::Role(role), Some(ascii), 0, None),
            (Tail::Terminal { role, client }, Some(ascii), client, None),
            (Tail::Vhost(&vhost), None, 0, Some(&vhost[..])),
        ];
        for (tail, role, client, vhost) in cases {
            let mut out = Vec::new();
            client::connect(&name, &password, tail, &mut out).unwrap();
            let packet = Binary::new().decode(&Settings::default(), &out, scratch());
            let Ok(Packet::Connect(connect)) = packet else { panic!("{packet:?}") };
            prop_assert_eq!(connect.name, &name[..]);
            prop_assert_eq!(common::password(&connect), &password[..]);
            let terminal = Terminal::Kind(client);
            prop_assert_eq!((connect.role, connect.terminal), (role, terminal));
            prop_assert_eq!(connect.vhost, vhost);
        }
    }

    #[test]
    fn publishes_arrive_as_they_were_written(
        target in any::<u32>(),
        id in any::<[u8; 32]>(),
        users in prop::collection::vec(any::<u32>().prop_map(UserId), 0..50),
        body in bytes(0..600),
    ) {
        let id = MessageId::from(id);
        let mut packets = [Vec::new(), Vec::new(), Vec::new()];
        client::publish(UserId(target), &id, &body, &mut packets[0]).unwrap();
        client::group_publish(GroupId(target), &id, &body, &mut packets[1]).unwrap();
        client::group_part_publish(GroupId(target), &id, &users, &body, &mut packets[2]).unwrap();
        for (bytes, kind) in packets.iter().zip(KINDS) {
            let packet = Binary::new().decode(&Settings::default(), bytes, scratch());
            let Ok(Packet::Publish(publish)) = packet else { panic!("{packet:?}") };
            prop_assert_eq!((publish.id, publish.body, publish.to.kind()), (id, &body[..], kind));
            match publish.to {
                Destination::User(user) => prop_assert_eq!(user.0, target),
                Destination::Group(group) => prop_assert_eq!(group.0, target),
                Destination::GroupPart(group, list) => {
                    prop_assert_eq!(group.0, target);
                    prop_assert_eq!(list.len(), users.len());
                    prop_assert_eq!(list.iter().collect::<Vec<_>>(), users.clone());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn pushes_and_acks_arrive_as_they_were_written(
        group in any::<u32>(),
        id in any::<[u8; 32]>(),
        body in bytes(0..600),
    ) {
        let id = MessageId::from(id);
        let key = GroupKey { id: GroupId(group), ..GroupKey::default() };
        let mut terminal = Binary::new();
        let connect = packet("binary", "connect_terminal");
        terminal.decode(&Settings::default(), &connect, scratch()).unwrap();
        let hears = |outgoing: &Outgoing<'_>, expected: ServerPacket<'_>| {
            let mut out = Vec::new();
            terminal.encode(&Settings::default(), outgoing, false, &mut out);
            prop_assert_eq!(client::decode_server(&out), Ok(expected));
            Ok(())
        };
        let to_user = message(Target::User(UserKey::default()), id, &body);
        hears(&push(&to_user), ServerPacket::Push { id, body: &body })?;
        let to_group = message(Target::Group(key), id, &body);
        let group = key.id;
        hears(&push(&to_group), ServerPacket::GroupPush { group, id, body: &body })?;
        for kind in KINDS {
            hears(&Outgoing::PublishAck(kind, id, None), ServerPacket::PublishAck(kind, id))?;
            let mut out = Vec::new();
            client::ack(kind, &id, &mut out);
            prop_assert_eq!(
                Binary::new().decode(&Settings::default(), &out, scratch()),
                Ok(Packet::Ack(id))
            );
        }
    }

    /// The announced length may be anything: what is taken is always the rest of the packet.
    #[test]
    fn payload_is_the_rest_of_the_packet_or_refused(
        announced in any::<u16>(),
        body in prop_oneof![bytes(0..80), ".{0,30}".prop_map(String::into_bytes)],
        near in any::<bool>(),
    ) {
        let announced = if near { announced % 100 } else { announced };
        let mut packet = hex("03 00 00 00 01 M");
        packet.extend_from_slice(&announced.to_be_bytes());
        packet.extend_from_slice(&body);
        let exact = usize::from(announced) == body.len();
        let units = String::from_utf8(body.clone()).ok().map(|text| text.encode_utf16().count());
        let utf16 = units == Some(announced.into());
        match Binary::new().decode(&Settings::default(), &packet, scratch()) {
            Ok(Packet::Publish(publish)) => {
                prop_assert!(exact || utf16);
                prop_assert_eq!(publish.body, &body[..]);
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => prop_assert!(!exact && !utf16),
        }
    }

    #[test]
    fn client_survives_any_bytes(bytes in bytes(0..120)) {
        if let Ok(ServerPacket::Push { body, .. }) = client::decode_server(&bytes) {
            prop_assert_eq!(body.len() + 35, bytes.len());
        }
    }
}

const KINDS: [PublishKind; 3] = [PublishKind::User, PublishKind::Group, PublishKind::GroupPart];

fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

fn message(to: Target, id: MessageId, body: &[u8]) -> Message {
    let protocol = ProtocolId::Binary;
    Message {
        stamp: 1,
        id,
        from: None,
        from_name: Default::default(),
        to,
        protocol,
        time_ms: 2,
        body: body.into(),
    }
}

/// The longest payload that is accepted; the next longer one is [`Malformed::TooLarge`] unless the
/// wire cannot announce it.
fn longest_payload(settings: &Settings) -> usize {
    let outcome = |len: usize| {
        let mut out = Vec::new();
        client::publish(UserId(1), &id(), &vec![b'x'; len], &mut out).ok()?;
        Some(Binary::new().decode(settings, &out, scratch()).map(drop).map_err(|error| error.what))
    };
    let max = (settings.max_payload as usize).min(PAYLOAD_MAX);
    assert_eq!(outcome(max), Some(Ok(())));
    let next = (max < PAYLOAD_MAX).then_some(Err(Malformed::TooLarge));
    assert_eq!(outcome(max + 1), next);
    max
}
