//! The open questions and the traps of the binary protocol's specification that the codec decides
//! alone, one test per row, numbered as there.

mod common;

use codec::binary::client::{self, ServerPacket, Tail};
use codec::binary::{Binary, GroupPush, PayloadLen, Settings, stream};
use codec::error::Malformed;
use codec::protocol::Protocol;
use codec::{
    CloseReason, Connect, Decoded, Destination, GroupId, GroupKey, Message, Outgoing, Packet,
    ProtocolId, Refusal, Target, Terminal, UserId, UserKey,
};
use common::{accepted, hex, id, packet, password, push, scratch};

#[test]
fn ambiguity_01_role_is_told_by_the_bytes_after_the_password() {
    assert_eq!(connect(&packet("binary", "connect_plain")).role, None);
    assert_eq!(connect(&packet("binary", "connect_document")).role, Some(1));
    let bytes = packet("binary", "connect_terminal");
    let terminal = connect(&bytes);
    assert_eq!((terminal.role, terminal.terminal), (Some(2), Terminal::Kind(2)));
    for client in [0, 128, 255] {
        let bytes = connect_with(&[2, client]);
        assert_eq!(refused(&bytes), Malformed::ConnectLayout, "client kind {client}");
    }
    assert_eq!(connect(&connect_with(&[2, 1])).terminal, Terminal::Kind(1));
    assert_eq!(connect(&connect_with(&[2, 127])).terminal, Terminal::Kind(127));
}

#[test]
fn ambiguity_02_role_for_the_user_centre_is_absent_or_a_decimal_value() {
    assert_eq!(connect(&connect_with(&[])).role, None);
    assert_eq!(connect(&connect_with(&[0])).role, Some(0), "present, though it is the default");
    assert_eq!(connect(&connect_with(&[7])).role, Some(7));
    assert_eq!(connect(&connect_with(&[0xff])).role, Some(255));
}

#[test]
fn ambiguity_06_group_push_form_follows_the_client_and_the_setting() {
    let publish = hex("03 M 00 02 68 69");
    let group_publish = hex("05 ff ff ff fe M 00 02 68 69");
    let clients = ["connect_document", "connect_browser", "connect_plain", "connect_vhost"];
    for client in clients {
        assert_eq!(group_push(GroupPush::Auto, client), publish, "{client}");
    }
    assert_eq!(group_push(GroupPush::Auto, "connect_terminal"), group_publish);
    assert_eq!(group_push(GroupPush::Publish, "connect_terminal"), publish);
    assert_eq!(group_push(GroupPush::GroupPublish, "connect_plain"), group_publish);
    assert_eq!(push_to_user("connect_terminal"), publish, "a single message is always a PUBLISH");
}

#[test]
fn ambiguity_11_stream_length_is_big_endian_and_excludes_itself() {
    let input = hex("00 00 01 02");
    assert_eq!(stream::frame(&input), Ok(Decoded::NeedMore { total: 4 + 0x0102 }));
    let input = hex("00 00 00 01 08 ff");
    assert_eq!(stream::frame(&input), Ok(Decoded::Frame { value: 4..5, consumed: 5 }));
}

#[test]
fn ambiguity_13_every_unknown_command_is_refused_and_answered_with_0a() {
    let known = [1, 3, 4, 5, 6, 8, 9, 11, 12];
    for command in (0..=u8::MAX).filter(|command| !known.contains(command)) {
        let mut bytes = packet("binary", "publish");
        bytes[0] = command;
        assert_eq!(refused(&bytes), Malformed::UnknownCommand, "{command:#x}");
        assert_eq!(refused(&[command]), Malformed::UnknownCommand, "{command:#x}");
    }
    assert_eq!(encode(&Binary::new(), &Outgoing::Invalid(Malformed::Syntax)), hex("0a"));
}

#[test]
fn ambiguity_15_zero_length_payload_is_valid() {
    for (bytes, part) in [("03 00 00 00 01 M 00 00", ""), ("0b 00 00 00 01 M", "00 00 00 00")] {
        assert_eq!(body(&hex(&format!("{bytes} {part}"))), b"");
    }
    let empty = message(Target::User(UserKey::default()), b"");
    assert_eq!(encode(&Binary::new(), &push(&empty)), hex("03 M 00 00"));
}

#[test]
fn ambiguity_16_sender_is_not_in_the_push() {
    let mut from_user = message(Target::User(UserKey::default()), br#"{"from":7}"#);
    let from_door = encode(&Binary::new(), &push(&from_user));
    from_user.from = Some(UserKey { id: UserId(0x4242_4242), ..UserKey::default() });
    assert_eq!(encode(&Binary::new(), &push(&from_user)), from_door);
    let expected = ServerPacket::Push { id: id(), body: br#"{"from":7}"# };
    assert_eq!(client::decode_server(&from_door), Ok(expected));
}

#[test]
fn ambiguity_17_two_packets_in_one_message_are_malformed() {
    let publish = packet("binary", "publish");
    let mut twice = [publish.clone(), publish].concat();
    assert_eq!(refused(&twice), Malformed::TrailingBytes);
    for single in ["08", "09"] {
        twice = hex(&format!("{single} {single}"));
        assert_eq!(refused(&twice), Malformed::TrailingBytes, "{single}");
    }
    let login_and_publish =
        [packet("binary", "connect_terminal"), packet("binary", "publish")].concat();
    assert_eq!(refused(&login_and_publish), Malformed::ConnectLayout);
}

#[test]
fn ambiguity_19_trailing_bytes_are_malformed_except_utf16_lengths_and_acks() {
    for name in ["publish", "group_publish", "group_part_publish"] {
        let mut bytes = packet("binary", name);
        bytes.push(b'!');
        assert_eq!(refused(&bytes), Malformed::TrailingBytes, "{name}");
    }
    let utf16 = packet("binary", "publish_utf16_len");
    assert_eq!(body(&utf16), "你好!".as_bytes(), "pushed with its true length");
    let strict = Settings { payload_len: PayloadLen::Strict, ..Settings::default() };
    assert_eq!(
        Binary::new().decode(&strict, &utf16, scratch()).map_err(|error| error.what),
        Err(Malformed::TrailingBytes)
    );
    // A character outside the BMP is two units and four bytes.
    assert_eq!(body(&hex("03 00 00 00 01 M 00 02 f0 9f 98 80")), "😀".as_bytes());
    // Not UTF-8, or UTF-8 of another length.
    assert_eq!(refused(&hex("03 00 00 00 01 M 00 01 ff ff")), Malformed::TrailingBytes);
    assert_eq!(refused(&hex("03 00 00 00 01 M 00 01 e4 bd a0 21")), Malformed::TrailingBytes);
    for command in ["04", "06", "0c"] {
        let bytes = hex(&format!("{command} M \"_0123456789abcdef0123456789abcdef\""));
        assert_eq!(decode(&bytes), Ok(Packet::Ack(id())), "{command}");
    }
}

#[test]
fn ambiguity_20_code_2_answers_only_an_unknown_vhost() {
    let any = Settings::default();
    let one = Settings { vhosts: vec![b"com.xywy.default"[..].into()], ..Settings::default() };
    let vhost = packet("binary", "connect_vhost");
    let vhost = connect(&vhost);
    assert_eq!(Binary::check_connect(&any, &vhost), Ok(()));
    assert_eq!(Binary::check_connect(&one, &vhost), Ok(()));
    let other = Connect { vhost: Some(b"com.xywy.Default"), ..vhost };
    assert_eq!(Binary::check_connect(&one, &other), Err(Refusal::UnknownVhost));
    let plain = packet("binary", "connect_plain");
    assert_eq!(Binary::check_connect(&one, &connect(&plain)), Ok(()));
    let refused = Outgoing::Refused(Refusal::UnknownVhost);
    assert_eq!(encode(&Binary::new(), &refused), hex("02 02"));
}

#[test]
fn trap_01_publish_has_the_user_id_only_towards_the_gateway() {
    let up = packet("binary", "publish");
    let Ok(Packet::Publish(publish)) = decode(&up) else { panic!("a publish") };
    assert_eq!(publish.to, Destination::User(UserId(1234)));
    let message = message(Target::User(UserKey::default()), publish.body);
    let down = encode(&Binary::new(), &push(&message));
    assert_eq!(down.len() + 4, up.len());
    assert_eq!(down[1..], up[5..]);
    assert_eq!(refused(&down), Malformed::Truncated, "the push layout is not taken upwards");
}

#[test]
fn trap_02_shifted_packets_of_the_browser_client_are_rejected() {
    let json = r#"{"content_type":"text","content":"hello","action":"talk","to":"1001"}"#;
    let len = format!("{:02x} {:02x}", json.len() >> 8, json.len() & 0xff);
    // A string `to` is not written: all that follows comes four bytes early, zeros fill the end.
    let mut no_user = hex(&format!("03 M {len}"));
    no_user.extend_from_slice(json.as_bytes());
    no_user.extend_from_slice(&[0; 4]);
    assert_eq!(refused(&no_user), Malformed::Truncated);
    // A dashed UUID has 36 characters: its last four stand where the length should.
    let mut dashed = hex("03 00 00 03 e9 \"550e8400-e29b-41d4-a716-446655440000\"");
    dashed.extend(hex(&len));
    dashed.extend_from_slice(json.as_bytes());
    assert_eq!(refused(&dashed), Malformed::Truncated);
}

#[test]
fn trap_03_push_ends_with_its_payload() {
    for len in [0, 1, 2, 255, 256, 32_767, 65_535] {
        let long = message(Target::User(UserKey::default()), &vec![b'x'; len]);
        assert_eq!(encode(&Binary::new(), &push(&long)).len(), 35 + len);
    }
}

#[test]
fn trap_04_role_is_an_ascii_digit_or_a_number() {
    for digit in 0..=9 {
        assert_eq!(connect(&connect_with(&[b'0' + digit])).role, Some(digit));
        assert_eq!(connect(&connect_with(&[digit])).role, Some(digit));
        assert_eq!(connect(&connect_with(&[b'0' + digit, 2])).role, Some(digit));
    }
    assert_eq!(connect(&connect_with(b"\"")).role, Some(0x22), "a role given as a string");
    assert_eq!(connect(&connect_with(b"/")).role, Some(0x2f));
    assert_eq!(connect(&connect_with(b":")).role, Some(0x3a));
}

#[test]
fn trap_06_login_is_acknowledged_and_both_length_bytes_count() {
    assert_eq!(encode(&Binary::new(), &accepted()), hex("02 00"));
    let long = vec![b'x'; 0x0102];
    let mut bytes = hex("03 00 00 00 01 M 01 02");
    bytes.extend_from_slice(&long);
    assert_eq!(body(&bytes), long);
    assert_eq!(refused(&bytes[..bytes.len() - 0x100]), Malformed::Truncated);
}

#[test]
fn trap_07_replaced_terminal_hears_logout_and_nobody_else_does() {
    for &reason in &CloseReason::ALL {
        let word = Outgoing::Goodbye(reason);
        let replaced = reason == CloseReason::Replaced;
        let terminal = if replaced { hex("14") } else { Vec::new() };
        assert_eq!(encode(&after("connect_terminal"), &word), terminal, "{reason:?}");
        for client in ["connect_document", "connect_browser", "connect_plain", "connect_vhost"] {
            let other = if replaced { hex("09") } else { Vec::new() };
            assert_eq!(encode(&after(client), &word), other, "{client} {reason:?}");
        }
    }
}

#[test]
fn trap_10_user_count_is_two_bytes_and_checked_before_the_list() {
    let list = |bytes: &[u8]| match decode(bytes) {
        Ok(Packet::Publish(publish)) => match publish.to {
            Destination::GroupPart(_, users) => Ok(users.len()),
            other => panic!("{other:?}"),
        },
        Ok(other) => panic!("{other:?}"),
        Err(what) => Err(what),
    };
    assert_eq!(list(&packet("binary", "group_part_publish")), Ok(2));
    assert_eq!(list(&hex("0b 00 00 04 d2 M 00 00 00 00")), Ok(0));
    let mut many = hex("0b 00 00 04 d2 M 01 00");
    many.resize(many.len() + 256 * 4, 0);
    many.extend(hex("00 00"));
    assert_eq!(list(&many), Ok(256));
    let liar = hex("0b 00 00 04 d2 M ff ff 00 00 04 d2 00 00");
    assert_eq!(list(&liar), Err(Malformed::Truncated));
    // The document's own sample, with a count of one byte.
    let sample = hex("0b 00 00 04 d2 M 02 00 00 04 d2 00 00 04 d3 00 0b \"helloworld!\"");
    assert_eq!(list(&sample), Err(Malformed::Truncated));
}

#[test]
fn trap_11_ids_are_unsigned() {
    let bytes = packet("binary", "publish_empty");
    let Ok(Packet::Publish(publish)) = decode(&bytes) else { panic!("a publish") };
    assert_eq!(publish.to, Destination::User(UserId(u32::MAX)));
    assert_eq!(UserId(u32::MAX).to_string(), "4294967295");
    assert_eq!(GroupId(0x8000_0000).to_string(), "2147483648");
}

#[test]
fn trap_12_names_are_opaque_bytes() {
    for name in [&b" Test\t"[..], b"demo|##|h5|##|1001", b"\0\xff\xfe", "Ünïcode".as_bytes()] {
        let mut bytes = Vec::new();
        client::connect(name, b" Pass ", Tail::Plain, &mut bytes).unwrap();
        assert_eq!(connect(&bytes).name, name);
        assert_eq!(password(&connect(&bytes)), b" Pass ");
    }
}

fn decode(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    Binary::new().decode(&Settings::default(), bytes, scratch()).map_err(|error| error.what)
}

fn refused(bytes: &[u8]) -> Malformed {
    decode(bytes).expect_err("a malformed packet")
}

fn connect(bytes: &[u8]) -> Connect<'_> {
    match decode(bytes) {
        Ok(Packet::Connect(connect)) => connect,
        other => panic!("{other:?}"),
    }
}

fn body(bytes: &[u8]) -> &[u8] {
    match decode(bytes) {
        Ok(Packet::Publish(publish)) => publish.body,
        other => panic!("{other:?}"),
    }
}

/// A CONNECT without vhost, and what follows the password.
fn connect_with(tail: &[u8]) -> Vec<u8> {
    [&packet("binary", "connect_plain"), tail].concat()
}

/// The codec of a connection that sent this CONNECT.
fn after(name: &str) -> Binary {
    let mut binary = Binary::new();
    binary.decode(&Settings::default(), &packet("binary", name), scratch()).unwrap();
    binary
}

fn encode(binary: &Binary, outgoing: &Outgoing<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    binary.encode(&Settings::default(), outgoing, false, &mut out);
    out
}

fn group_push(group_push: GroupPush, client: &str) -> Vec<u8> {
    let settings = Settings { group_push, ..Settings::default() };
    let group = GroupKey { id: GroupId(0xffff_fffe), ..GroupKey::default() };
    let mut out = Vec::new();
    let message = message(Target::Group(group), b"hi");
    after(client).encode(&settings, &push(&message), false, &mut out);
    out
}

fn push_to_user(client: &str) -> Vec<u8> {
    let message = message(Target::User(UserKey::default()), b"hi");
    encode(&after(client), &push(&message))
}

fn message(to: Target, body: &[u8]) -> Message {
    let protocol = ProtocolId::Binary;
    Message {
        stamp: 1,
        id: id(),
        from: None,
        from_name: Default::default(),
        to,
        protocol,
        time_ms: 2,
        body: body.into(),
    }
}
