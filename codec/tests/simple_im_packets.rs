//! Every packet of the document and of the specification, and the rules about them one by one.

#[path = "common/simple_im.rs"]
mod common;
#[path = "common/mod.rs"]
mod vectors;

use codec::protocol::Protocol;
use codec::simple_im::client::{Framer, ServerPacket, To as SendTo, decode_server};
use codec::simple_im::{
    Dialect, NAME_MAX, PACKET_MAX, Settings, SimpleIm, read_message, write_message,
};
use codec::{
    Accepted, AnyProtocol, Content, Decoded, Failure, Malformed, Message, MessageId, Outgoing,
    ProtocolId, PublishKind, Push, Refusal, Target, TenantId, UserId,
};
use common::{
    Connection, DIALECTS, Heard, Original, TOKEN, To, body, client, login, message, pushed,
    to_group, to_user,
};

fn accepted(user: u32) -> Outgoing<'static> {
    let user = UserId(user);
    Outgoing::Accepted(Accepted { user, name: b"a", session: 1, time_ms: 2, heartbeat_s: 0 })
}

fn publish(id: &str, to: To, text: &str) -> Heard {
    Heard::Publish { id: id.into(), to, body: body(text.as_bytes()) }
}

fn connect(proof: &str, name: &str, device: &str) -> Heard {
    Heard::Connect { name: name.into(), proof: proof.into(), device: device.into() }
}

fn wrong(packet: &str) -> Malformed {
    match Connection::of(Dialect::Single).packet(packet) {
        Heard::Wrong(what) => what,
        other => panic!("{packet}: {other:?}"),
    }
}

#[test]
fn a_connection_s_state_is_one_pointer() {
    assert_eq!(size_of::<SimpleIm>(), size_of::<usize>());
    assert!(size_of::<AnyProtocol>() <= 2 * size_of::<usize>());
}

#[test]
fn every_vector_is_a_packet_for_a_fresh_connection() {
    for (name, bytes) in vectors::packets("simple-im") {
        let packet = str::from_utf8(&bytes).unwrap();
        let heard = Connection::new().packet(packet);
        assert!(!matches!(heard, Heard::Wrong(_) | Heard::Nothing), "{name}: {heard:?}");
        let mut connection = Connection::new();
        let mut framed = connection.receive(&bytes);
        framed.extend(connection.quiet());
        assert_eq!(framed, [heard], "{name}");
    }
}

#[test]
fn the_stream_s_packets_end_where_the_next_begins() {
    let stream = vectors::stream("simple-im");
    let frames = |codec: &mut SimpleIm, input: &[u8]| {
        let mut ends = vec![0];
        let settings = Settings::default();
        while let from = ends[ends.len() - 1]
            && let Ok(Decoded::Frame { value, consumed }) =
                codec.frame(&settings, &input[from..], false)
        {
            assert_eq!(value, 0..consumed, "nothing stands between them");
            ends.push(from + consumed);
        }
        ends
    };
    let whole = frames(&mut SimpleIm::new(), &stream);
    assert_eq!((whole.len(), whole.last()), (6, Some(&stream.len())));
    for split in 0..stream.len() {
        let ends = frames(&mut SimpleIm::new(), &stream[..split]);
        assert!(whole.starts_with(&ends), "split at {split}: {ends:?}");
    }
}

#[test]
fn the_document_s_logins() {
    for (id, t) in [("a_01", "login"), ("b_01", "reconnect")] {
        let packet = format!(
            "[r]\nid=\"{id}\"\nt=\"{t}\"\n[r.user]\nid=1\ndevice=\"ipad\"\ntoken=\"{TOKEN}\"\n"
        );
        for packet in [packet.clone(), packet.replace('\n', "\r\n")] {
            let mut connection = Connection::new();
            let heard = connection.receive(packet.as_bytes());
            assert_eq!(heard, [connect(&format!("token {TOKEN}"), "1", "ipad")]);
            assert_eq!(connection.pending(), 0);
            let reply = connection.send(&accepted(1));
            let expected = format!(r#"[rr] s = 0 id = "{id}" t = "{t}""#);
            assert_eq!(reply, expected);
            let refused = connection.send(&Outgoing::Refused(Refusal::BadCredentials));
            let expected = format!(r#"[rr] s = 1 r = "token error" id = "{id}" t = "{t}""#);
            assert_eq!(refused, expected);
        }
    }
}

#[test]
fn the_document_s_messages() {
    let mut connection = Connection::of(Dialect::Single);
    let m = "[m]\nid=\"a_02\"\nc=\"hello\"\n[m.from]\nid=1\ndevice=\"android\"\n[m.to]\nid=2\n\
             device=\"ipad\"\n";
    assert_eq!(connection.receive(m.as_bytes()), [publish("a_02", To::User(2), "hello")]);
    assert_eq!(connection.receive(b"[a]\nid=\"a_02\"\n"), [Heard::Ack("a_02".into())]);
    let gm = "[gm]\nid=\"a_02\"\nc=\"hello\"\n[gm.user]\nid=1\ndevice=\"android\"\n\
              [gm.group]\nid=123\n";
    assert_eq!(connection.receive(gm.as_bytes()), [publish("a_02", To::Group(123), "hello")]);
    let id = MessageId::new(b"a_02").unwrap();
    let ack = connection.send(&Outgoing::PublishAck(PublishKind::User, id, None));
    assert_eq!(ack, r#"[a] id = "a_02""#);
}

#[test]
fn the_oldest_client_logs_in_by_phone() {
    let mut connection = Connection::new();
    let packet = concat!(
        r#"[r] id = "a_01" t = "login" "#,
        r#"[r.user] phone = "18501260698" device = "android" password = "888888""#
    );
    let heard = connection.receive(packet.as_bytes());
    assert_eq!(heard, [connect("phone 888888", "18501260698", "android")]);
    let ok = connection.send(&accepted(5));
    assert_eq!(ok, r#"[rr] s = 0 id = "a_01" t = "login" [rr.user] id = 5 token = """#);
    let refused = connection.send(&Outgoing::Refused(Refusal::BadCredentials));
    assert_eq!(refused, r#"[rr] s = 1 r = "password not match" id = "a_01" t = "login""#);
}

#[test]
fn every_dialect_logs_in_and_is_answered_in_kind() {
    for dialect in DIALECTS {
        let mut connection = Connection::new();
        let heard = connection.receive(login(dialect).as_bytes());
        assert_eq!(heard, [connect(&format!("token {TOKEN}"), "1", "android")], "{dialect:?}");
        let reply = connection.send(&accepted(1));
        let brackets = if dialect == Dialect::Single { "[rr] " } else { "[[rr]] " };
        assert!(reply.starts_with(brackets), "{reply}");
        let id = MessageId::new(b"a_01").unwrap();
        let request = b"login"[..].into();
        let expected = ServerPacket::Reply { id, request, refused: None, user: None };
        assert_eq!(decode_server(reply.as_bytes()), Ok(expected));
    }
}

#[test]
fn messages_of_every_dialect_mean_the_same() {
    for (dialect, to, packet) in [
        (Dialect::Single, To::User(3), r#"[m] id = "x" c = "hi" [m.from] id = 1 [m.to] id = 3"#),
        (Dialect::Nested, To::User(3), r#"[[m]] id = "x" c = "hi" [m.from] id = 1 [m.to] id = 3"#),
        (Dialect::Flat, To::User(3), r#"[[m]] id = "x" c = "hi" to = 3"#),
        (Dialect::Device, To::User(3), r#"[[m]] id = "x" t = "text" c = "hi" to = 3 d = "q""#),
        (Dialect::Single, To::Group(3), r#"[gm] id = "x" c = "hi" [gm.group] id = 3"#),
        (Dialect::Nested, To::Group(3), r#"[[gm]] id = "x" c = "hi" [gm.group] id = 3"#),
        (Dialect::Flat, To::Group(3), r#"[[gm]] id = "x" c = "hi" group = 3"#),
        (Dialect::Flat, To::Group(3), r#"[[gm]] id = "x" c = "hi" g_id = 3"#),
        (Dialect::Device, To::Group(3), r#"[[gm]] id = "x" t = "?" c = "hi" g_id = 3 d = "q""#),
    ] {
        assert_eq!(Connection::of(dialect).packet(packet), publish("x", to, "hi"), "{packet}");
    }
}

#[test]
fn the_first_message_tells_tables_from_numbers() {
    let push = message(to_user(3), &body(b"hi"));
    let mut connection = Connection::of(Dialect::Nested);
    assert!(Original::parse(&connection.push(&push), Dialect::Nested).get("to.id").is_some());
    connection.packet(r#"[[m]] id = "x" c = "hi" [m.to] id = 3"#);
    assert!(Original::parse(&connection.push(&push), Dialect::Nested).get("to.id").is_some());
    connection.packet(r#"[[m]] id = "x" c = "hi" to = 3"#);
    assert!(Original::parse(&connection.push(&push), Dialect::Flat).get("to").is_some());
}

#[test]
fn media_are_told_apart_across_protocols() {
    for (t, expected) in [
        ("text", Content::Text("file/1.mp4")),
        ("image", Content::Image("file/1.mp4")),
        ("audio", Content::Audio("file/1.mp4")),
        ("video", Content::Video("file/1.mp4")),
    ] {
        let packet = format!(r#"[[m]] id = "x" t = "{t}" c = "file/1.mp4" to = 3 d = "android""#);
        let heard = Connection::of(Dialect::Device).packet(&packet);
        let Heard::Publish { body, .. } = heard else { panic!("{heard:?}") };
        assert_eq!(SimpleIm::content(&body), expected);
        let bytes = Connection::of(Dialect::Device).push(&message(to_user(3), &body));
        assert_eq!(pushed(&bytes).media, t);
    }
    assert_eq!(SimpleIm::content(&body(b"\xff")), Content::Opaque(b"\xff"));
    for odd in [&b""[..], b"\x00", b"\x09\x00x", b"\x00\x05abcd"] {
        assert_eq!(SimpleIm::content(odd), Content::Opaque(odd));
    }
}

#[test]
fn messages_of_other_protocols_come_as_text_under_the_gateway_s_id() {
    let other = |body: &[u8]| Message { protocol: ProtocolId::Binary, ..message(to_user(3), body) };
    for dialect in DIALECTS {
        let connection = Connection::of(dialect);
        let hello = other("héllo".as_bytes());
        let bytes = connection.push(&hello);
        let push = pushed(&bytes);
        assert_eq!(push.id, MessageId::of_stamp(7));
        assert_eq!(push.text, "héllo".as_bytes());
        assert_eq!((push.from, &*push.device), (Some(UserId(1)), &b""[..]));
        let bytes = connection.push(&other(b"\xff\x00"));
        assert_eq!(pushed(&bytes).text, &b"/wA="[..], "{dialect:?}");
    }
}

#[test]
fn the_back_end_has_no_user() {
    for dialect in DIALECTS {
        for to in [to_user(3), to_group(4), Target::Room(TenantId(0))] {
            let nobody = Message { from: None, ..message(to, &body(b"hi")) };
            let bytes = Connection::of(dialect).push(&nobody);
            Original::parse(&bytes, dialect);
            assert_eq!(pushed(&bytes).from, None);
        }
    }
}

#[test]
fn group_messages_name_sender_and_group() {
    let group = message(to_group(12), &body(b"hi"));
    for dialect in DIALECTS {
        let mut connection = Connection::of(dialect);
        connection.settings.group_as_message = false;
        let bytes = connection.push(&group);
        let push = pushed(&bytes);
        assert_eq!(push.to, SendTo::Group(codec::GroupId(12)));
        assert_eq!((push.from, push.time_s), (Some(UserId(1)), 1_443_856_541));
    }
    let bytes = Connection::of(Dialect::Flat).push(&group);
    let packet = Original::parse(&bytes, Dialect::Flat);
    assert_eq!((packet.number("group"), packet.number("g_id")), (12, 12));
    let push = concat!(
        r#"[m] id = "a_02" c = "hi" ts = 1443856541 "#,
        r#"[m.from] id = 1 device = "android" [m.to] id = 12"#
    );
    assert_eq!(Connection::of(Dialect::Single).push(&group), push.as_bytes());
}

#[test]
fn an_unknown_request_is_answered_and_nothing_else_happens() {
    for (t, id) in [("add_contact", "a_05"), ("x", "y")] {
        let mut connection = Connection::of(Dialect::Single);
        let packet = format!(r#"[r] id = "{id}" t = "{t}" to = 3 members = [1, [2, "]"], "a"]"#);
        assert_eq!(connection.packet(&packet), Heard::Query(id.into()));
        let answer = codec::Answer::Failed(Failure::Unsupported);
        let id_asked = MessageId::new(id.as_bytes()).unwrap();
        let reply = connection.send(&Outgoing::Answer(id_asked, &answer));
        assert_eq!(reply, format!(r#"[rr] s = 1 r = "Unknown request" id = "{id}" t = "{t}""#));
        let again = connection.send(&accepted(1));
        assert_eq!(again, r#"[rr] s = 0 id = "a_01" t = "login""#);
    }
}

#[test]
fn an_unknown_request_before_the_login_is_answered_in_its_own_brackets() {
    for (packet, header) in [
        (r#"[r] id = "a" t = "x" [r.user] id = 1"#, "[rr]"),
        (r#"[[r]] id = "a" t = "x" [r.user] id = 1 device = "d" token = "y""#, "[[rr]]"),
        (r#"[r] id = "a" t = "x" [r.user] phone = "1""#, "[rr]"),
    ] {
        let mut connection = Connection::new();
        assert_eq!(connection.packet(packet), Heard::Query("a".into()), "{packet}");
        let answer = codec::Answer::Failed(Failure::Unsupported);
        let reply = connection.send(&Outgoing::Answer(MessageId::new(b"a").unwrap(), &answer));
        assert_eq!(reply, format!(r#"{header} s = 1 r = "Unknown request" id = "a" t = "x""#));
    }
    for nobody in [r#"[r] id = "a" t = "x""#, r#"[r] t = "x" [r.user] id = 1"#] {
        assert_eq!(Connection::new().packet(nobody), Heard::Wrong(Malformed::Field), "{nobody}");
    }
}

#[test]
fn the_same_login_again_is_accepted_again_and_another_one_is_a_login() {
    for dialect in DIALECTS {
        let mut connection = Connection::of(dialect);
        let same = login(dialect).replace("a_01", "a_09");
        assert_eq!(connection.packet(&same), Heard::Again);
        let reply = connection.send(&accepted(1));
        assert!(reply.contains(r#"s = 0 id = "a_09" t = "login""#), "{reply}");
        let reconnect = same.replace("\"login\"", "\"reconnect\"");
        assert_eq!(connection.packet(&reconnect), Heard::Again);
        let reply = connection.send(&accepted(1));
        assert!(reply.contains(r#"s = 0 id = "a_09" t = "reconnect""#), "{reply}");
        for other in [same.replace("android", "ipad"), same.replace(TOKEN, "another")] {
            let mut connection = Connection::of(dialect);
            assert!(matches!(connection.packet(&other), Heard::Connect { .. }));
            let reply = connection.send(&Outgoing::Refused(Refusal::Duplicate));
            assert!(reply.contains("\"a_09\""), "{reply}");
        }
    }
}

#[test]
fn settings_bound_who_may_log_in() {
    let check = |settings: &Settings, packet: &str| {
        let (mut codec, mut scratch) = (SimpleIm::new(), Vec::new());
        match codec.decode(settings, packet.as_bytes(), &mut scratch) {
            Ok(codec::Packet::Connect(connect)) => SimpleIm::check_connect(settings, &connect),
            other => panic!("{other:?}"),
        }
    };
    let refused = Err(Refusal::BadCredentials);
    let listed = Settings { devices: vec![(*b"ipad").into()], ..Settings::default() };
    assert_eq!(check(&Settings::default(), &login(Dialect::Single)), Ok(()));
    assert_eq!(check(&listed, &login(Dialect::Single)), refused);
    assert_eq!(check(&listed, &login(Dialect::Single).replace("android", "ipad")), Ok(()));
    let phone = r#"[r] id = "a" t = "login" [r.user] phone = "1" device = "d" password = """#;
    assert_eq!(check(&Settings::default(), phone), Ok(()));
    let no_phone = Settings { c0_login: false, ..Settings::default() };
    assert_eq!(check(&no_phone, phone), refused);
    assert_eq!(check(&no_phone, &login(Dialect::Single)), Ok(()));
}

#[test]
fn reasons_are_the_settings_and_cannot_end_their_quotes() {
    let mut connection = Connection::of(Dialect::Single);
    connection.settings.token_error = "a \"b\"".into();
    let refused = connection.send(&Outgoing::Refused(Refusal::BadCredentials));
    assert_eq!(refused, r#"[rr] s = 1 r = "a \"b\"" id = "a_01" t = "login""#);
}

#[test]
fn what_a_packet_must_have() {
    let missing = [
        r#"[r] t = "login" [r.user] id = 1 device = "a" token = "x""#,
        r#"[r] id = "a" [r.user] id = 1 device = "a" token = "x""#,
        r#"[r] id = "a" t = "login" [r.user] device = "a" token = "x""#,
        r#"[r] id = "a" t = "login" [r.user] id = 1 token = "x""#,
        r#"[r] id = "a" t = "login" [r.user] id = 1 device = "" token = "x""#,
        r#"[r] id = "a" t = "login" [r.user] id = 1 device = "a""#,
        r#"[r] id = "a" t = "login" [r.user] phone = "1" device = "a""#,
        r#"[r] id = "a" t = "login" id2 = 1 device = "a" token = "x""#,
        r#"[m] c = "x" [m.to] id = 1"#,
        r#"[m] id = "x" [m.to] id = 1"#,
        r#"[m] id = "x" c = "x""#,
        r#"[m] id = "x" c = ["x"] [m.to] id = 1"#,
        r#"[m] id = "x" c = "x" to = 1 [m.to] id = 2"#,
        r#"[m] id = "" c = "x" [m.to] id = 1"#,
        r#"[gm] id = "x" c = "x""#,
        r#"[gm] id = "x" c = "x" [m.group] id = 1"#,
        r#"[a] t = "x""#,
        r#"[a] id = "a\\b""#,
        r#"[a] id = "a\"b""#,
        "[a] id = \"a\nb\"",
        "[a] id = \"a\0b\"",
    ];
    for packet in missing {
        assert_eq!(wrong(packet), Malformed::Field, "{packet}");
    }
    assert_eq!(wrong(&format!("[a] id = \"{}\"", "x".repeat(NAME_MAX + 1))), Malformed::Field);
    let longest = format!("[a] id = \"{}\"", "x".repeat(NAME_MAX));
    assert!(matches!(Connection::of(Dialect::Single).packet(&longest), Heard::Ack(_)));
    for unknown in [r#"[x] id = "a""#, r#"[rr] id = "a" s = 0"#, "[n]", r#"[[response]] s = 0"#] {
        assert_eq!(wrong(unknown), Malformed::UnknownCommand, "{unknown}");
    }
}

#[test]
fn what_is_no_toml_of_any_kind() {
    let nonsense = [
        "[r",
        "[]",
        "[r x]",
        "[[r]",
        "[[r] ]",
        "[r]]",
        "[r[s]]",
        "[=]",
        "[m] = 1",
        "[m] a",
        "[m] a b",
        "[m] a =",
        "[m] a = ,",
        "[m] a = ]",
        "[m] a = \"x",
        "[m] a = [1",
        "[m] a = 1,",
        "[m] a = x\"y\"",
        "[m] \"a\" = 1",
        "[m] a\"b = 1",
        "[m] a = # 1",
        "[m], a = 1",
        "[a\"] b",
        "[m] a = [[[[[[[[[[1]]]]]]]]]]",
        "[m] a] = 1",
        "[m] \x01 = 1",
        "[#] a = 1",
    ];
    for packet in nonsense {
        let what = wrong(packet);
        assert!(matches!(what, Malformed::Syntax | Malformed::Truncated), "{packet}: {what:?}");
    }
    for twice in [
        r#"[a] id = "x" id = "y""#,
        r#"[m] id = "x" c = "a" c = "b" [m.to] id = 1"#,
        r#"[m] id = "x" c = "a" [m.to] id = 1 [m.to] id = 1"#,
        r#"[m] id = "x" c = "a" [m.to] id = 1 device = "a" device = "a""#,
    ] {
        assert_eq!(wrong(twice), Malformed::Syntax, "{twice}");
    }
    assert_eq!(wrong(r#"[a] id = "x" [a] id = "y""#), Malformed::TrailingBytes);
}

#[test]
fn layouts_that_mean_the_same() {
    for packet in [
        r#"[m] id="x"c="hi"[m.to]id=3"#,
        "\r\n\t [ m ]\r\n id\t=\r\n\"x\"\nc=\"hi\"\n\n# what [x] = \"this\n[m.to]#\nid=3#x\n",
        r#"[m.x] [m] id = "x" c = "hi" [m.to] id = 3"#,
        r#"[m] y = 2015-09-25T12:00Z z = ["a\"]", 1] id = x c = "hi" [q.r] id = 7 [m.to] id = +3"#,
        r#"[m] [m.to] device = "q" id = "3" [m.from] id = 9 [m] id = "x" c = "hi""#,
    ] {
        let heard = Connection::of(Dialect::Single).packet(packet);
        let strays = packet.starts_with("[m.x]") || packet.ends_with("c = \"hi\"");
        match strays {
            // Not one packet.
            true => assert!(matches!(heard, Heard::Wrong(Malformed::TrailingBytes)), "{heard:?}"),
            false => assert_eq!(heard, publish("x", To::User(3), "hi"), "{packet}"),
        }
    }
}

#[test]
fn the_escapes_of_single_brackets() {
    let packet = r#"[m] id = "x" c = "\0\t\n\r\"\\ \x\ü \\n" [m.to] id = 3"#;
    let heard = Connection::of(Dialect::Single).packet(packet);
    assert_eq!(heard, publish("x", To::User(3), "\0\t\n\r\"\\ \\x\\ü \\n"));
}

#[test]
fn silence_ends_what_may_go_on_and_not_what_must() {
    let open = [
        r#"[m] id = "x" c = "hi" [m.to] id = 3"#,
        r#"[m] id = "x" c = "hi" [m.to] id = "3" # and"#,
        r#"[[m]] id = "x" to = 3 c = "hi""#,
        r#"[r] id = "x" t = "other""#,
        r#"[n] id = "x""#,
        "\r\n",
        "[n]",
    ];
    for packet in open {
        let mut connection = Connection::of(Dialect::Single);
        assert_eq!(connection.receive(packet.as_bytes()), [], "{packet}");
        assert_eq!(connection.quiet().len(), 1, "{packet}");
        assert_eq!(connection.pending(), 0, "{packet}");
    }
    let must = [
        r#"[m] id = "x" c = "hi""#,
        r#"[m] id = "x" c = "hi" [m.to] id ="#,
        r#"[m] id = "x" c = "hi" [m.to] id = "3"#,
        r#"[m] id = "x" c = "hi" [m.to] id = 3 [m.fr"#,
        r#"[m] id = "x" c = "hi" [m.to] id = 3 dev"#,
        r#"[r] id = "x" t = "login" [r.user] id = 1 device = "a""#,
        "[a]",
    ];
    for packet in must {
        let mut connection = Connection::of(Dialect::Single);
        assert_eq!(connection.receive(packet.as_bytes()), [], "{packet}");
        assert_eq!(connection.quiet(), [], "{packet}");
        // The next packet ends it.
        assert_eq!(connection.receive(b"").len(), 0);
        assert_eq!(connection.pending(), packet.len());
    }
}

#[test]
fn an_incomplete_packet_ends_with_the_next_one() {
    let mut connection = Connection::of(Dialect::Single);
    let heard = connection.receive(br#"[m] id = "x" c = "hi" [a] id = "y""#);
    assert_eq!(heard, [Heard::Wrong(Malformed::Field), Heard::Ack("y".into())]);
}

#[test]
fn the_tail_of_a_packet_that_was_whole_means_nothing() {
    let mut connection = Connection::of(Dialect::Device);
    assert_eq!(connection.receive(b"[[a]] id=\"a_02\""), [Heard::Ack("a_02".into())]);
    assert_eq!(connection.receive(b" d = \"android\""), []);
    assert_eq!(connection.receive(b"[[a]] id=\"3\""), [Heard::Nothing, Heard::Ack("3".into())]);
    assert_eq!(connection.receive(b" [m.from] id = 7 "), []);
    assert_eq!(connection.quiet(), [Heard::Nothing]);
    assert_eq!(connection.receive(b"\r\n"), []);
    assert_eq!(connection.quiet(), [Heard::Nothing]);
    assert_eq!(connection.pending(), 0);
}

#[test]
fn what_is_no_packet_at_all_is_refused_at_once_before_the_login() {
    for input in ["id = 1", "GET / HTTP/1.1\r\n", "\x16\x03\x01", "{\"a\":1}", "[a.b] c = 1"] {
        let heard = Connection::new().receive(input.as_bytes());
        assert_eq!(heard, [Heard::Wrong(Malformed::Syntax)], "{input}");
    }
    let mut connection = Connection::new();
    assert_eq!(connection.receive(b" \r\n"), []);
    assert_eq!(connection.quiet(), []);
    assert_eq!(connection.packet(""), Heard::Wrong(Malformed::Empty));
}

#[test]
fn the_longest_packet_is_exactly_the_bound() {
    let around = |len: usize| {
        let fixed = r#"[m] id = "x" [m.to] id = "3" [m] c = """#.len() - " [m]".len();
        let text = "x".repeat(len - fixed);
        format!(r#"[m] id = "x" c = "{text}" [m.to] id = "3""#)
    };
    let mut connection = Connection::of(Dialect::Single);
    let whole = around(PACKET_MAX);
    assert_eq!(whole.len(), PACKET_MAX);
    assert!(matches!(connection.receive(whole.as_bytes())[..], [Heard::Publish { .. }]));
    let over = connection.receive(around(PACKET_MAX + 1).as_bytes());
    assert_eq!(over, [Heard::Wrong(Malformed::TooLarge)]);
    let mut connection = Connection::of(Dialect::Single);
    let unfinished = format!("[m] c = \"{}", "x".repeat(PACKET_MAX));
    assert_eq!(connection.receive(unfinished.as_bytes()), [Heard::Wrong(Malformed::TooLarge)]);
    let mut connection = Connection::of(Dialect::Single);
    let comment = format!("[a] id = \"x\" #{}", "x".repeat(PACKET_MAX));
    assert_eq!(connection.receive(comment.as_bytes()), [Heard::Wrong(Malformed::TooLarge)]);
}

/// Looked at anew with each byte, this would be two thousand million bytes.
#[test]
fn a_long_packet_byte_by_byte_is_looked_at_once() {
    let mut connection = Connection::of(Dialect::Single);
    let text = "x\\\"".repeat(PACKET_MAX / 3 - 100);
    let packet = format!(r#"[m] id = "x" c = "{text}" [m.to] id = "3""#);
    let (last, before) = packet.as_bytes().split_last().unwrap();
    for byte in before {
        assert_eq!(connection.receive(&[*byte]), []);
    }
    assert!(matches!(connection.receive(&[*last])[..], [Heard::Publish { .. }]));
}

/// A ws text must be UTF-8 whatever a TCP client said.
#[test]
fn a_text_that_is_none_is_made_one_for_ws() {
    let connection = Connection::of(Dialect::Single);
    let odd = message(to_user(3), &body(b"a\xffb"));
    let push = Outgoing::Push(Push { message: &odd, stored: true });
    let mut out = b"kept\xff".to_vec();
    connection.codec.encode(&connection.settings, &push, false, &mut out);
    assert!(out.starts_with(b"kept\xff"));
    assert_eq!(pushed(&out[5..]).text, "a\u{fffd}b".as_bytes());
    assert_eq!(pushed(&connection.push(&odd)).text, &b"a\xffb"[..]);
    assert_eq!(SimpleIm::TEXT, ProtocolId::SimpleIm.is_text());
}

#[test]
fn the_client_s_side_frames_what_the_gateway_says() {
    for dialect in DIALECTS {
        let mut connection = Connection::of(dialect);
        connection.settings.group_as_message = false;
        let id = MessageId::new(b"a_02").unwrap();
        let mut stream = connection.send(&accepted(1)).into_bytes();
        stream.extend(connection.push(&message(to_user(3), &body(b"hi"))));
        stream.extend(connection.push(&message(to_group(3), &body(b"hi"))));
        stream.extend(
            connection.send(&Outgoing::PublishAck(PublishKind::User, id, None)).into_bytes(),
        );
        let mut framer = Framer::new(dialect);
        let mut found = Vec::new();
        while !stream.is_empty() {
            match framer.frame(&stream, true) {
                Ok(Decoded::Frame { value, consumed }) => {
                    assert!(decode_server(&stream[value.clone()]).is_ok());
                    found.push(value.len());
                    stream.drain(..consumed);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(found.len(), 4, "{dialect:?}");
    }
    assert_eq!(client(Dialect::Device).user, UserId(1));
}

#[test]
fn what_is_written_for_an_absent_user_is_read_again_and_what_is_no_message_is_told_apart() {
    for dialect in DIALECTS {
        let mut out = Vec::new();
        let said = message(to_user(7), &body(b"say it"));
        write_message(dialect, &said, &mut out);
        let kept = read_message(&out).unwrap();
        assert_eq!((kept.id, kept.group), (Some(said.id), None), "{dialect:?}");
        assert_eq!(kept.from, said.from.map(|from| from.id));
        assert_eq!(kept.time_s.map(u64::from), Some(said.time_ms / 1000));
        assert_eq!(SimpleIm::content(&kept.body), Content::Text("say it"));
    }
    let wrong = |packet: &str| read_message(packet.as_bytes()).unwrap_err().what;
    assert_eq!(wrong("[[a]] id = \"x\""), Malformed::UnknownCommand);
    assert_eq!(wrong("[[gn]] id = \"x\" t = \"create_group\""), Malformed::UnknownCommand);
    assert_eq!(wrong("[m] id = \"x\" [m.to] id = 2"), Malformed::Field);
    assert_eq!(wrong("[gm] id = \"x\" c = \"no group\""), Malformed::Field);
    assert_eq!(wrong("[m] c = \"unfinished"), Malformed::Truncated);
    assert_eq!(wrong("[m] c = \"a\" [m] c = \"b\""), Malformed::TrailingBytes);
    assert_eq!(wrong("what"), Malformed::Truncated);
    assert_eq!(wrong(""), Malformed::Syntax);
    let long = format!("[m] c = \"{}\"", "x".repeat(PACKET_MAX));
    assert_eq!(wrong(&long), Malformed::TooLarge);
}
