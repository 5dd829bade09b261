//! The codec reads Commands in place: it must take and refuse exactly what prost does, and see the
//! same in them, whatever a peer sends.

mod common;

use codec::error::Malformed;
use codec::im_demo::types::{self, Command};
use codec::im_demo::{ImDemo, PACKET_MAX, Settings, stream};
use codec::protocol::Protocol;
use codec::{Decoded, Destination, Failure, Packet, Proof, Query, Terminal, WireError};
use common::{packets, scratch};
use proptest::prelude::*;
use prost::Message as _;

#[test]
fn lengths_over_the_bound_fail_at_their_header() {
    let too_large_packet = WireError::new(Malformed::TooLarge, 0);
    let too_large = Err(too_large_packet);
    let announce = |max, len: usize| {
        let mut prefix = Vec::new();
        prost::encoding::encode_varint(len as u64, &mut prefix);
        stream::frame(max, &prefix)
    };
    let max = PACKET_MAX as u32;
    assert_eq!(announce(max, PACKET_MAX), Ok(Decoded::NeedMore { total: 3 + PACKET_MAX }));
    assert_eq!(announce(max, PACKET_MAX + 1), too_large);
    assert_eq!(announce(u32::MAX, PACKET_MAX + 1), too_large);
    assert_eq!(announce(100, 100), Ok(Decoded::NeedMore { total: 101 }));
    assert_eq!(announce(100, 101), too_large);
    assert_eq!(stream::frame(max, &[0xff; 10]), too_large, "negative");
    assert_eq!(stream::frame(max, &[0x80; 5]), too_large, "more than five bytes");
    for len in 0..5 {
        let more = Ok(Decoded::NeedMore { total: len + 1 });
        assert_eq!(stream::frame(max, &vec![0x80; len]), more);
    }
    // Over ws there is no length.
    let settings = Settings { max_frame: 3, ..Settings::default() };
    assert_eq!(ImDemo::new().decode(&settings, &[8, 1, 66, 0], scratch()), Err(too_large_packet));
    assert_eq!(stream::frame(max, &[0]), Ok(Decoded::Frame { value: 1..1, consumed: 1 }));
}

#[test]
fn groups_are_skipped_as_deep_as_prost_skips_them() {
    for (head, tail) in [(&b""[..], &b""[..]), (b"\x08\x01", b"\x42\0")] {
        for depth in 95..105 {
            let opened = [0x7b].repeat(depth);
            let closed = [0x7c].repeat(depth);
            agree(&[head, &opened, &closed, tail].concat());
            agree(&[head, &opened, &closed[1..], tail].concat());
            for number in [0x1a, 0x32] {
                let len = [number, (2 * depth) as u8 | 0x80, ((2 * depth) >> 7) as u8];
                agree(&[head, &len, &opened, &closed, tail].concat());
            }
        }
    }
}

#[test]
fn a_text_is_utf8_or_not_wherever_its_odd_bytes_are() {
    for len in 2..40 {
        for at in 0..len - 1 {
            for odd in [[0xff, b'x'], [0xc3, 0xa9], [0xe9, b'x'], [b'x', 0x80]] {
                let mut id = vec![b'x'; len];
                id[at..at + 2].copy_from_slice(&odd);
                let len = len as u8;
                agree(&[&[0x3a, len + 2, 0x1a, len][..], &id].concat());
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_as_prost_reads_them(
        bytes in prop::collection::vec(any::<u8>(), 0..64)
    ) {
        agree(&bytes);
    }

    #[test]
    fn mangled_commands_are_read_as_prost_reads_them(
        mut bytes in command(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        tail in command(),
    ) {
        // Two Commands in a row are one, merged.
        bytes.extend(tail);
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        agree(&bytes);
    }

    /// Every byte of every vector, every bit.
    #[test]
    fn flipped_vectors_are_read_as_prost_reads_them(pick in any::<prop::sample::Index>()) {
        let packets = packets("im-demo");
        let (_, bytes) = &packets[pick.index(packets.len())];
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            agree(&flipped);
        }
        for len in 0..bytes.len() {
            agree(&bytes[..len]);
        }
    }
}

/// Both readers refuse the bytes, or see the same in them.
fn agree(bytes: &[u8]) {
    let mut state = ImDemo::new();
    let expected = Command::decode(bytes);
    let mut seen = Command::default();
    // Otherwise who names no tenant is of none that he has named.
    let settings = Settings { default_tenant: false, ..Settings::default() };
    loop {
        let decoded = state.decode(&settings, bytes, scratch());
        let (Ok(packet), Ok(expected)) = (&decoded, &expected) else {
            assert_eq!(decoded.is_ok(), expected.is_ok(), "{bytes:x?} {decoded:?} {expected:?}");
            return;
        };
        match packet {
            Packet::Connect(connect) => {
                let Proof::Password(token) = connect.proof else { panic!("a token") };
                let Terminal::Device(device) = connect.terminal else { panic!("a device") };
                let (org, appkey) = connect.tenant.unwrap();
                let ext = expected.connect.as_ref().map_or(0, |connect| connect.ext);
                let [org, appkey, user, token, device] =
                    [org, appkey, connect.name, token, device].map(utf8);
                seen.connect = Some(types::Connect { org, appkey, user, token, ext, device });
            }
            Packet::Disconnect => seen.disconnect = expected.disconnect.clone(),
            Packet::Publish(_) | Packet::Query(..) => {
                let request = expected.request.clone().expect("a request");
                check_request(&request, packet);
                seen.request = Some(request);
            }
            Packet::Ack(id) => assert_eq!(id.as_bytes(), response_id(expected).as_bytes()),
            Packet::AckOldest => assert_eq!(response_id(expected), ""),
            Packet::Ping => seen.ping = expected.ping.clone(),
            Packet::Pong => seen.pong = expected.pong.clone(),
            Packet::Nothing => {}
            Packet::WhoIsHere | Packet::ConnectAgain => panic!("nobody asked"),
        }
        if !state.has_more() {
            break;
        }
    }
    let expected = Command { version: 0, conack: None, response: None, ..expected.unwrap() };
    assert_eq!(seen, expected, "{bytes:x?}");
}

fn check_request(request: &types::Request, packet: &Packet<'_>) {
    let failure = match packet {
        Packet::Query(_, Query::Refused(why)) => Some(*why),
        _ => None,
    };
    if request.id.len() > 64 {
        return assert_eq!(failure, Some(Failure::BadRequest));
    }
    let payload = &*request.payload;
    let is_bad = match request.r#type {
        0 => types::Message::decode(payload).map_or(true, |message| {
            message.r#type & !1 == 0 && types::MessageTxt::decode(&*message.payload).is_err()
        }),
        1 => types::Contact::decode(payload).is_err(),
        2 => types::Group::decode(payload).is_err(),
        _ => return assert_eq!(failure, Some(Failure::Unsupported)),
    };
    if is_bad {
        return assert_eq!(failure, Some(Failure::BadRequest), "{request:?}");
    }
    if let Packet::Publish(publish) = packet {
        let message = types::Message::decode(payload).unwrap();
        let to = match publish.to {
            Destination::Name(name) => (name, 0),
            Destination::GroupName(name) => (name, 1),
            other => panic!("{other:?}"),
        };
        assert_eq!(to, (message.to.as_bytes(), message.chat));
        assert_eq!((publish.body, publish.id.as_bytes()), (payload, request.id.as_bytes()));
        assert_eq!(publish.keep, request.opts.iter().any(|option| option.offline));
    }
}

fn response_id(command: &Command) -> &str {
    &command.response.as_ref().expect("a response").id
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Commands with anything in them.
fn command() -> impl Strategy<Value = Vec<u8>> {
    let text = || ".{0,6}";
    let connect = (text(), text(), text(), text(), any::<i32>(), text()).prop_map(
        |(org, appkey, user, token, ext, device)| types::Connect {
            org,
            appkey,
            user,
            token,
            ext,
            device,
        },
    );
    let message = (-1..3_i32, text(), text(), -1..3_i32).prop_map(|(r#type, txt, to, chat)| {
        let payload = types::MessageTxt { txt }.encode_to_vec();
        types::Message { r#type, payload, to, chat, ..types::Message::default() }.encode_to_vec()
    });
    let group =
        (0..6_i32, text(), prop::collection::vec(text(), 0..3)).prop_map(|(op, id, users)| {
            let name = id.clone();
            types::Group { op, id, name, users }.encode_to_vec()
        });
    let payload = prop_oneof![message, group, prop::collection::vec(any::<u8>(), 0..8)];
    let opts = prop::collection::vec(any::<bool>(), 0..3);
    let request = (0..4_i32, payload, opts, text()).prop_map(|(r#type, payload, opts, id)| {
        let opts = opts.into_iter().map(|offline| types::RequestOption { offline }).collect();
        types::Request { r#type, payload, opts, id }
    });
    let response = (any::<i32>(), text(), text()).prop_map(|(code, reason, id)| types::Response {
        code,
        reason,
        id,
        payload: Vec::new(),
    });
    let rest = (any::<i32>(), any::<Option<bool>>(), any::<Option<i64>>(), any::<Option<i64>>());
    let parts =
        (prop::option::of(connect), prop::option::of(request), prop::option::of(response), rest);
    parts.prop_map(|(connect, request, response, (version, con_ack, ping, pong))| {
        let conack = con_ack.map(|_| types::ConAck::default());
        let ping = ping.map(|time| types::Ping { time });
        let pong = pong.map(|time| types::Ping { time });
        let disconnect = (version < 0).then(types::Disconnect::default);
        let command =
            Command { version, connect, conack, disconnect, request, response, ping, pong };
        command.encode_to_vec()
    })
}
