//! Properties of simple_im under any bytes: however a stream is cut the same packets come out of
//! it, whatever is said arrives as it was said, and nothing that is said becomes anything else.

#[path = "common/simple_im.rs"]
mod common;

use codec::Decoded;
use codec::UserId;
use codec::protocol::Protocol;
use codec::simple_im::client::{Framer, To as SendTo, decode_server};
use codec::simple_im::{Dialect, Settings, SimpleIm};
use common::{
    Connection, DIALECTS, Heard, Original, To, body, client, decode, login, message, pushed,
    to_group, to_user,
};
use proptest::prelude::*;

/// Texts with all that a lexer might stumble over.
fn said() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\"".to_vec()),
        Just(b"\\".to_vec()),
        Just(b"\\\"".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"#".to_vec()),
        Just(b"[m]".to_vec()),
        Just(b"[[m]]".to_vec()),
        Just(b"\" [m.to] id = 9 ".to_vec()),
        Just(b" id = \"y\" ".to_vec()),
        Just("界".as_bytes().to_vec()),
        Just(b"\0\t".to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// What packets are made of.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        " ",
        "\r\n",
        "# no [m]\n",
        "[m]",
        "[[m]]",
        "[a]",
        "[[a]]",
        "[gm]",
        "[r]",
        "[x]",
        "[m.to]",
        "[gm.group]",
        "[r.user]",
        " id = \"a_1\" ",
        " id = 7",
        " id = [1, 2]",
        " c = \"say \\\"no\\\"\" ",
        " to = 8 ",
        " t = \"login\"",
        " device = \"ipad\" token = \"x\"",
    ])
}

fn dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(&DIALECTS[..])
}

/// What is left of a text in a dialect.
fn sayable(dialect: Dialect, said: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| if *byte == b'"' { b'\'' } else { *byte };
    match dialect {
        Dialect::Single => said.to_vec(),
        _ => said.iter().map(plain).collect(),
    }
}

/// A login and what follows: messages, acknowledgements, in any layout between them.
fn stream(dialect: Dialect, texts: &[Vec<u8>], gap: &str) -> (Vec<u8>, Vec<Heard>) {
    let client = client(dialect);
    let mut stream = login(dialect).into_bytes();
    let mut expected = Vec::new();
    for (number, text) in (1..).zip(texts) {
        stream.extend_from_slice(gap.as_bytes());
        let id = format!("a_{number}");
        let (to, heard) = match number % 2 {
            0 => (SendTo::User(UserId(number * 1234)), To::User(number * 1234)),
            _ => (SendTo::Group(codec::GroupId(number * 999)), To::Group(number * 999)),
        };
        client.message(id.as_bytes(), to, text, &mut stream);
        let body = body(&sayable(dialect, text));
        expected.push(Heard::Publish { id: id.clone(), to: heard, body });
        stream.extend_from_slice(gap.as_bytes());
        client.ack(&codec::MessageId::new(id.as_bytes()).unwrap(), &mut stream);
        expected.push(Heard::Ack(id));
    }
    (stream, expected)
}

/// Everything heard but the login and tails.
fn meant(heard: Vec<Heard>) -> Vec<Heard> {
    let means = |heard: &Heard| !matches!(heard, Heard::Nothing | Heard::Connect { .. });
    heard.into_iter().filter(means).collect()
}

proptest! {
    #[test]
    fn a_stream_cut_anywhere_gives_the_same_packets(
        dialect in dialect(),
        texts in prop::collection::vec(said(), 1..4),
        gap in prop::sample::select(vec!["", " ", "\r\n", "\n# and [x] = \"\n"]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (stream, expected) = stream(dialect, &texts, gap);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut connection = Connection::new();
        let mut heard = Vec::new();
        for cut in cuts.windows(2) {
            heard.extend(connection.receive(&stream[cut[0]..cut[1]]));
        }
        heard.extend(connection.quiet());
        prop_assert_eq!(meant(heard), expected);
        prop_assert_eq!(connection.pending(), 0);
    }

    #[test]
    fn a_stream_byte_by_byte_and_every_truncation(
        dialect in dialect(),
        texts in prop::collection::vec(said(), 1..3),
    ) {
        let (stream, expected) = stream(dialect, &texts, "");
        let mut connection = Connection::new();
        let mut heard = Vec::new();
        for byte in &stream {
            heard.extend(connection.receive(&[*byte]));
        }
        heard.extend(connection.quiet());
        prop_assert_eq!(meant(heard), expected.clone());
        for len in 0..stream.len() {
            let mut connection = Connection::new();
            let heard = meant(connection.receive(&stream[..len]));
            // Nothing is heard that was not said.
            prop_assert!(expected.starts_with(&heard), "{} {:?}", len, heard);
        }
    }

    /// Injection: what a receiver of any dialect parses is what was sent, to the byte.
    #[test]
    fn whatever_is_said_arrives_and_is_nothing_else(
        from in dialect(),
        to in dialect(),
        text in said(),
        group in any::<bool>(),
        as_message in any::<bool>(),
    ) {
        let mut packet = Vec::new();
        client(from).message(b"a_02", SendTo::User(UserId(3)), &text, &mut packet);
        let sender = &mut Connection::of(from);
        let heard = decode(&mut sender.codec, &Settings::default(), &packet);
        let Heard::Publish { id, body, .. } = heard else { panic!("{heard:?}") };
        prop_assert_eq!(id, "a_02");
        let target = if group { to_group(3) } else { to_user(3) };
        let mut receiver = Connection::of(to);
        receiver.settings.group_as_message = as_message;
        let bytes = receiver.push(&message(target, &body));
        let expected = sayable(to, &sayable(from, &text));
        let push = pushed(&bytes);
        prop_assert_eq!(&*push.text, &*expected);
        prop_assert_eq!(push.from, Some(UserId(1)));
        let original = Original::parse(&bytes, to);
        prop_assert_eq!(original.text("c"), &*expected);
        prop_assert_eq!(original.text("id"), b"a_02");
        // Nothing but what every packet of this shape has.
        prop_assert!(original.values.len() <= 8);
        let mut framer = Framer::new(to);
        let whole = Decoded::Frame { value: 0..bytes.len(), consumed: bytes.len() };
        prop_assert_eq!(framer.frame(&bytes, true), Ok(whole));
    }

    #[test]
    fn every_flipped_bit_is_a_packet_or_an_error(
        dialect in dialect(),
        text in said(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let (mut stream, _) = stream(dialect, &[text], "");
        let at = at.index(stream.len());
        stream[at] ^= 1u8 << bit;
        let mut whole = Connection::new();
        let mut heard = whole.receive(&stream);
        heard.extend(whole.quiet());
        prop_assert!(heard.len() <= stream.len());
        let _ = decode(&mut SimpleIm::new(), &Settings::default(), &stream);
        let _ = decode_server(&stream);
    }

    /// What was seen of a packet when it was framed is what is in it.
    #[test]
    fn what_was_framed_means_the_same_as_on_its_own(
        dialect in dialect(),
        pieces in prop::collection::vec(piece(), 1..10),
    ) {
        let (stream, settings) = (pieces.concat(), Settings::default());
        let mut framed = Connection::of(dialect).codec;
        let mut at = 0;
        while let Ok(Decoded::Frame { value, consumed }) =
            framed.frame(&settings, &stream.as_bytes()[at..], true)
        {
            let packet = &stream.as_bytes()[at..][value];
            let alone = decode(&mut Connection::of(dialect).codec, &settings, packet);
            let mut again = Connection::of(dialect).codec;
            again.frame(&settings, &stream.as_bytes()[at..], true).expect("as before");
            prop_assert_eq!(decode(&mut again, &settings, packet), alone);
            at += consumed;
            if consumed == 0 || at == stream.len() {
                break;
            }
        }
    }

    #[test]
    fn an_error_leaves_the_state_as_it_was(
        dialect in dialect(),
        bytes in prop::collection::vec(prop::sample::select(&b"[]rma.=\"\\# 1dicgt\n"[..]), 0..64),
    ) {
        let mut connection = Connection::of(dialect);
        let before = format!("{:?}", connection.codec);
        let heard = decode(&mut connection.codec, &Settings::default(), &bytes);
        if matches!(heard, Heard::Wrong(_) | Heard::Nothing) {
            prop_assert_eq!(format!("{:?}", connection.codec), before);
        }
    }

    #[test]
    fn arbitrary_bytes_are_framed_alike_however_they_are_cut(
        bytes in prop::collection::vec(prop::sample::select(&b"[]rma.=\"\\# 1dicgt\n"[..]), 0..64),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = if bytes.is_empty() { 0 } else { cut.index(bytes.len()) };
        let settings = Settings::default();
        let whole = SimpleIm::new().frame(&settings, &bytes, true);
        let mut codec = SimpleIm::new();
        match codec.frame(&settings, &bytes[..cut], false) {
            Ok(Decoded::NeedMore { .. } | Decoded::Unsure) => {
                prop_assert_eq!(codec.frame(&settings, &bytes, true), whole);
            }
            // What is whole at the cut is not longer without it, but may be shorter.
            Ok(Decoded::Frame { consumed, .. }) => prop_assert!(consumed <= cut),
            Err(_) => prop_assert!(whole.is_err()),
        }
    }
}
