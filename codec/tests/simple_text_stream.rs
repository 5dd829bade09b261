//! Where requests of the simple-text protocol end on a byte stream, whatever comes and however it
//! is cut, and that both sides understand each other.

mod common;

use codec::error::Malformed;
use codec::protocol::Protocol;
use codec::simple_text::client::{self, ServerPacket};
use codec::simple_text::{Dialect, PACKET_MAX, Settings, SimpleText, line};
use codec::{
    Connect, Decoded, Destination, Message, MessageId, Packet, Proof, ProtocolId, Target, Terminal,
    UserKey, WireError,
};
use common::{packet, push, scratch};
use proptest::prelude::*;

#[test]
fn requests_of_the_published_client_and_of_the_document() {
    let alice = Connect {
        name: b"alice",
        proof: Proof::Nothing,
        role: None,
        terminal: Terminal::Connection,
        vhost: None,
        tenant: None,
    };
    let secret =
        |proof: &'static str| Connect { proof: Proof::Password(proof.as_bytes()), ..alice };
    for (name, connect) in [
        ("login_source", alice),
        ("login_source_password", secret("s3cret")),
        ("login_doc", secret("alice_top_hidden_pwd")),
        ("login_doc_fields", secret("s3cret")),
        ("login_doc_message", secret("s3cret")),
        ("login_escaped", secret("s\"cret")),
    ] {
        assert_eq!(decode(&packet("simple-text", name)), Ok(Packet::Connect(connect)), "{name}");
    }
    let slashes = decode(br#"{"command":"login alice/a b/c"}"#);
    assert_eq!(slashes, Ok(Packet::Connect(secret("a b/c"))), "split at the first slash");
    for (name, to, body) in [
        ("send_public", Destination::Room, "hello"),
        ("send_private", Destination::Name(b"bob"), "hi there"),
        ("send_doc", Destination::Room, "Hello group"),
        ("send_to_null", Destination::Room, "hi"),
        ("send_escaped", Destination::Name(b"bob"), "say \"no\"\n你😀"),
    ] {
        let bytes = packet("simple-text", name);
        let Ok(Packet::Publish(publish)) = decode(&bytes) else { panic!("{name}") };
        assert_eq!((publish.to, publish.body, publish.keep), (to, body.as_bytes(), true), "{name}");
        assert_eq!(publish.id.as_bytes(), b"");
    }
    for (name, expected) in [
        ("list_source", Packet::WhoIsHere),
        ("list_doc", Packet::WhoIsHere),
        ("exit_word", Packet::Disconnect),
        ("exit_doc", Packet::Disconnect),
    ] {
        assert_eq!(decode(&packet("simple-text", name)), Ok(expected), "{name}");
    }
}

#[test]
fn client_writes_what_the_published_one_writes() {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let vector = |name| packet("simple-text", name);
    let login =
        |password, dialect| written(&move |out| client::login("alice", password, dialect, out));
    assert_eq!(login(None, Dialect::Source), vector("login_source"));
    assert_eq!(login(Some("alice_top_hidden_pwd"), Dialect::Doc), vector("login_doc"));
    assert_eq!(written(&|out| client::send(None, "hello", out)), vector("send_public"));
    assert_eq!(written(&|out| client::send(Some("bob"), "hi there", out)), vector("send_private"));
    assert_eq!(written(&client::list), vector("list_source"));
    assert_eq!(written(&client::exit), vector("exit_word"));
}

#[test]
fn blank_lines_are_skipped_and_never_held_back() {
    let blank = b" \r\n\t\n";
    let skipped = Decoded::Frame { value: blank.len()..blank.len(), consumed: blank.len() };
    assert_eq!(SimpleText::new().frame(&Settings::default(), blank, false), Ok(skipped));
    for empty in [&b""[..], blank] {
        assert_eq!(decode(empty), Ok(Packet::Nothing));
    }
    let input = b"\r\n{\"command\":\"list\"}\r\n\r\n";
    let frame = Decoded::Frame { value: 2..20, consumed: input.len() };
    assert_eq!(SimpleText::new().frame(&Settings::default(), input, false), Ok(frame));
}

#[test]
fn exit_without_an_end_of_line_waits_for_silence() {
    let mut text = SimpleText::new();
    assert_eq!(text.frame(&Settings::default(), b"exit", false), Ok(Decoded::Unsure));
    let whole = Decoded::Frame { value: 0..4, consumed: 4 };
    assert_eq!(text.frame(&Settings::default(), b"exit", true), Ok(whole));
    let more = Ok(Decoded::NeedMore { total: 5 });
    assert_eq!(text.frame(&Settings::default(), b"exiu", true), more);
}

#[test]
fn requests_over_the_bound_are_refused_before_they_end() {
    let settings = Settings::default();
    let too_large = Err(WireError::new(Malformed::TooLarge, PACKET_MAX));
    let mut object = br#"{"command":"send","message":""#.to_vec();
    object.resize(PACKET_MAX - 2, b'x');
    object.extend(b"\"}\n");
    let whole = Decoded::Frame { value: 0..PACKET_MAX, consumed: PACKET_MAX + 1 };
    assert_eq!(SimpleText::new().frame(&settings, &object, false), Ok(whole));
    object.insert(0, b'\n');
    let whole = Decoded::Frame { value: 1..PACKET_MAX + 1, consumed: PACKET_MAX + 2 };
    assert_eq!(SimpleText::new().frame(&settings, &object, false), Ok(whole));
    object.insert(40, b'x');
    assert_eq!(SimpleText::new().frame(&settings, &object, false), too_large);
    for byte in [b'x', b'{'] {
        let endless = vec![byte; PACKET_MAX + 1];
        let mut text = SimpleText::new();
        let more = Ok(Decoded::NeedMore { total: PACKET_MAX + 1 });
        assert_eq!(text.frame(&settings, &endless[..PACKET_MAX], false), more);
        assert_eq!(text.frame(&settings, &endless, false), too_large);
    }
}

#[test]
fn client_refuses_what_would_end_the_published_one_s_reader() {
    for line in [
        "",
        "x",
        r#"{"command":"message"}"#,
        r#"{"command":"message","result":{"user":"bob","type":"public"}}"#,
        r#"{"command":"fail","fail":{"error_code":1,"reason":"x"}}"#,
        r#"{"command":"list","list":[]}"#,
        r#"{"command":"list","result":{"users":[1]}}"#,
        "{\"command\":\"fail\",\"result\":{\"error\":1,\"reason\":\"a\nb\"}}",
    ] {
        assert!(client::decode_server(line.as_bytes()).is_err(), "{line}");
    }
}

proptest! {
    /// Any object, printed on one line or on many, is found as it is and read to its end.
    #[test]
    fn objects_are_found_however_they_are_printed(
        objects in prop::collection::vec(object(), 1..4),
        pretty in any::<bool>(),
        end in "(\r|\n|\r\n)[ \t\r\n]{0,3}",
        cut in any::<prop::sample::Index>(),
    ) {
        let print = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
        let printed: Vec<_> = objects.iter().map(|object| print(object).unwrap()).collect();
        let stream: String = printed.iter().flat_map(|object| [&object[..], &end]).collect();
        let cut = cut.index(stream.len());
        prop_assert_eq!(frames(&[&stream.as_bytes()[..cut], &stream.as_bytes()[cut..]]), printed);
    }

    /// However a stream is cut, its requests are the same; and after any nonsense, the next line
    /// but one is understood.
    #[test]
    fn cuts_change_nothing_and_nonsense_passes(
        pieces in prop::collection::vec(nonsense(), 0..12),
        step in 1..9_usize,
    ) {
        let mut stream = pieces.concat();
        stream.extend(b"\n!\n{\"command\":\"list\"}\n");
        let whole = frames(&[&stream]);
        prop_assert_eq!(&frames(&stream.chunks(step).collect::<Vec<_>>()), &whole);
        prop_assert_eq!(whole.last().map(|last| &last[..]), Some("{\"command\":\"list\"}"));
    }

    #[test]
    fn requests_arrive_as_they_were_written(
        user in "[^/]{0,20}",
        password in prop::option::of(".{0,20}"),
        to in ".{1,20}",
        text in ".{0,140}",
    ) {
        for dialect in [Dialect::Source, Dialect::Doc] {
            let mut out = Vec::new();
            client::login(&user, password.as_deref(), dialect, &mut out);
            let Ok(Packet::Connect(connect)) = decode(&out) else { panic!("{out:?}") };
            prop_assert_eq!(connect.name, user.as_bytes());
            let proof = password.as_ref().map_or(Proof::Nothing, |p| Proof::Password(p.as_bytes()));
            prop_assert!(connect.proof == proof);
        }
        let mut out = Vec::new();
        client::send(Some(&to), &text, &mut out);
        let Ok(Packet::Publish(publish)) = decode(&out) else { panic!("{out:?}") };
        let expected =
            if to == "*" { Destination::Room } else { Destination::Name(to.as_bytes()) };
        prop_assert_eq!((publish.to, publish.body), (expected, text.as_bytes()));
    }

    #[test]
    fn pushes_arrive_as_they_were_written(user in ".{1,20}", said in ".{0,200}") {
        let message = Message {
            stamp: 1,
            id: MessageId::from([]),
            from: None,
            from_name: user.as_bytes().into(),
            to: Target::User(UserKey::default()),
            protocol: ProtocolId::SimpleText,
            time_ms: 2,
            body: said.as_bytes().into(),
        };
        let mut out = Vec::new();
        SimpleText::new().encode(&Settings::default(), &push(&message), false, &mut out);
        let expected = ServerPacket::Message {
            user: user.into(),
            text: said.into(),
            private: true,
            group: None,
        };
        prop_assert_eq!(client::decode_server(&out), Ok(expected));
        let mut framed = Vec::new();
        line(true, &mut framed, |framed| framed.extend_from_slice(&out));
        out.extend(b"\r\n");
        prop_assert_eq!(framed, out);
    }

    #[test]
    fn client_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = client::decode_server(&bytes);
    }
}

fn decode(bytes: &[u8]) -> Result<Packet<'_>, WireError> {
    SimpleText::new().decode(&Settings::default(), bytes, scratch())
}

/// The requests of a stream that comes in these chunks, without blank lines.
fn frames(chunks: &[&[u8]]) -> Vec<String> {
    let mut text = SimpleText::new();
    let (mut found, mut input) = (Vec::new(), Vec::new());
    for chunk in chunks {
        input.extend_from_slice(chunk);
        while let Ok(Decoded::Frame { value, consumed }) =
            text.frame(&Settings::default(), &input, false)
        {
            found.push(String::from_utf8_lossy(&input[value]).into_owned());
            input.drain(..consumed);
        }
    }
    found.retain(|request| !request.is_empty());
    found
}

/// Pieces of which requests are made, in any order.
fn nonsense() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"{\"command\":\"send\",\"message\":\"hi\"}".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"{".to_vec()),
        Just(b"}".to_vec()),
        Just(b"[1, 2".to_vec()),
        Just(b"\"a\":".to_vec()),
        Just(b"\\".to_vec()),
        Just(b"tru".to_vec()),
        Just(b" ".to_vec()),
        Just(b",".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"exit".to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ]
}

fn object() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            map(inner).prop_map(Value::from),
        ]
    });
    map(value).prop_map(Value::from)
}

fn map(
    values: impl Strategy<Value = serde_json::Value>,
) -> impl Strategy<Value = serde_json::Map<String, serde_json::Value>> {
    prop::collection::vec((".{0,8}", values), 0..4).prop_map(|fields| fields.into_iter().collect())
}
