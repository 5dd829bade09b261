//! Every protocol on every transport: what is TCP elsewhere in these tests is ws, TLS and wss here.

mod common;

use std::time::{Duration, Instant};

use codec::im_demo::client as demo;
use codec::im_demo::types::ChatType;
use codec::simple_im::client::{self as im, To};
use codec::simple_text::Dialect;
use codec::simple_text::client as text;
use codec::{UserId, simple_im};
use common::{
    DemoClient, Gateway, Got, ImClient, PATIENCE, Seen, Setup, Stream, TextClient, TextSeen, Want,
    Wire, id,
};
use tungstenite::{Message, WebSocket};

const PROTOCOLS: [&str; 3] = ["simple-text", "simple-im", "im-demo"];

/// Two shards, every protocol on `transport`, nothing stored for silence.
fn on(transport: &'static str) -> Gateway {
    let setup = Setup::new().shards(2).patient().set("delivery.persist_after_ms", 60_000);
    PROTOCOLS.into_iter().fold(setup, |setup, protocol| setup.listener(protocol, transport)).start()
}

#[test]
fn protocols_over_tls_are_those_over_tcp() {
    let gateway = on("tls");
    let wire = |protocol| Wire::new(Stream::tls(gateway.site().of(protocol), true));
    let mut ann = gateway.login(1);
    for user in [2, 3, 4, 5] {
        let mut ben = TextClient::over(wire("simple-text"));
        ben.login(&format!("u{user}"), None);
        // Nothing but what his kernel says of ciphertext makes it safe.
        for n in 0..20 {
            let (id, body) = (id(100 * user + n), format!("number {n} {}", "x".repeat(500)));
            ann.publish(Want::User(user), id, &body);
            ben.expect(TextSeen::private("u1", &body));
            ann.expect_ack(codec::PublishKind::User, id);
        }
    }
    let mut carol = ImClient::over(wire("simple-im"), 6, "android");
    carol.login("any token");
    let mut dan = DemoClient::over(wire("im-demo"));
    dan.login(DemoClient::connect("u7"));
    carol.say("a_02", To::User(UserId(7)), "to dan");
    let push = dan.take_push("to dan");
    assert_eq!(push.from, "6");
    carol.expect(common::ImSeen::Ack("a_02".into()));
    dan.say("u6", "m1", "to carol");
    carol.take_push("to carol");
    dan.expect_taken("m1");
}

/// A connection over ws or wss: one message is one packet, text where the protocol is.
struct Socket(WebSocket<Stream>);

impl Socket {
    fn dial(gateway: &Gateway, protocol: &str, secure: bool) -> Self {
        let to = gateway.site().of(protocol);
        let (stream, scheme, path) = match secure {
            true => (Stream::tls(to, true), "wss", "/wss"),
            false => (Stream::plain(to), "ws", "/ws"),
        };
        stream.socket().set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let url = format!("{scheme}://localhost{path}");
        Self(tungstenite::client(url, stream).expect("an upgrade").0)
    }

    #[track_caller]
    fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        let text = String::from_utf8(out).expect("a text protocol");
        self.0.send(Message::text(text)).expect("the connection is open");
    }

    #[track_caller]
    fn binary(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.0.send(Message::binary(out)).expect("the connection is open");
    }

    #[track_caller]
    fn read_text(&mut self) -> String {
        match self.0.read().expect("something came") {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("{other:?} is no text"),
        }
    }

    #[track_caller]
    fn read_demo(&mut self) -> demo::ServerPacket {
        match self.0.read().expect("something came") {
            Message::Binary(packet) => demo::decode_server(&packet).expect("a packet"),
            other => panic!("{other:?} is no packet"),
        }
    }
}

#[test]
fn protocols_over_ws_and_wss_are_one_packet_per_message() {
    for secure in [false, true] {
        let gateway = on(if secure { "wss" } else { "ws" });
        let mut ann = Socket::dial(&gateway, "simple-text", secure);
        ann.text(|out| text::login("u1", None, Dialect::Source, out));
        ann.text(text::list);
        assert_eq!(
            text::decode_server(ann.read_text().as_bytes()),
            Ok(text::ServerPacket::List(vec![]))
        );
        let ben =
            im::Client { dialect: simple_im::Dialect::Single, user: UserId(2), device: b"android" };
        let mut ben_socket = Socket::dial(&gateway, "simple-im", secure);
        ben_socket.text(|out| ben.login(b"a_01", false, b"any", out));
        let reply = ben_socket.read_text();
        assert!(reply.starts_with("[rr] s = 0"), "{reply}");
        let mut carol = Socket::dial(&gateway, "im-demo", secure);
        carol.binary(|out| demo::connect(DemoClient::connect("u3"), false, out));
        assert!(matches!(carol.read_demo(), demo::ServerPacket::ConAck(_)));

        ann.text(|out| text::send(Some("u2"), "from text", out));
        let push = ben_socket.read_text();
        let Ok(im::ServerPacket::Push(push)) = im::decode_server(push.as_bytes()) else {
            panic!("{push} is no push")
        };
        assert_eq!((push.from, &*push.text), (Some(UserId(1)), &b"from text"[..]));
        ben_socket.text(|out| ben.ack(&push.id, out));
        ben_socket.text(|out| ben.message(b"a_02", To::User(UserId(3)), b"from im", out));
        let demo::ServerPacket::Push { id, message, .. } = carol.read_demo() else {
            panic!("no push")
        };
        assert_eq!(message.from, "2");
        carol.binary(|out| demo::ack(&id, false, out));
        assert_eq!(ben_socket.read_text(), "[a] id = \"a_02\"");
        let to = (ChatType::Single, "u1");
        carol.binary(|out| demo::send(to, "m1", "from demo", Some(true), false, out));
        let line = ann.read_text();
        let Ok(text::ServerPacket::Message { user, text, private, .. }) =
            text::decode_server(line.as_bytes())
        else {
            panic!("{line} is no message")
        };
        assert_eq!((&*user, &*text, private), ("u3", "from demo", true));
        let demo::ServerPacket::Response(response) = carol.read_demo() else {
            panic!("no response")
        };
        assert_eq!((response.code, &*response.id), (0, "m1"));
    }
}

#[test]
fn what_comes_with_a_login_in_one_message_is_answered_too() {
    // Goal: exactly one response per request, on ws as on a stream, handed over or not.
    let gateway = on("ws");
    for user in 10..16 {
        let mut socket = Socket::dial(&gateway, "im-demo", false);
        socket.binary(|out| {
            let to = (ChatType::Single, "u7");
            demo::send(to, "m1", "hello", Some(true), false, out);
            demo::connect(DemoClient::connect(&format!("u{user}")), false, out);
        });
        assert!(matches!(socket.read_demo(), demo::ServerPacket::ConAck(_)));
        let demo::ServerPacket::Response(response) = socket.read_demo() else {
            panic!("no response")
        };
        assert_eq!((response.code, &*response.id), (0, "m1"));
    }
}

/// The longest that a peer may leave a packet unfinished, and some time to notice.
const STALL: Duration = Duration::from_secs(30);

#[test]
fn a_packet_that_does_not_go_on_ends_its_connection_on_every_protocol() {
    let setup = Setup::new().everyone().set("heartbeat.interval_ms", 600_000);
    let gateway = setup.start();
    let mut text = TextClient::logged_in(&gateway, "u1").wire;
    let mut im = ImClient::logged_in(&gateway, 2).wire;
    let mut demo = DemoClient::logged_in(&gateway, 3).wire;
    let mut slow = DemoClient::logged_in(&gateway, 4).wire;
    let mut door = Wire::dial(gateway.site().door());
    let mut ws = gateway.login(5);
    let mut diligent = DemoClient::logged_in(&gateway, 6);
    text.send(b"{\"command\":\"");
    im.send(b"[m] id = \"a_02\" c = \"");
    demo.send(&[0xff, 0xff, 0x3f]);
    slow.send(&[0xff, 0xff, 0x3f]);
    door.send(&[0, 0, 0x7f, 0xff, 3]);
    let frame = ws.socket.get_mut();
    std::io::Write::write_all(frame, &[0x82, 0x80 | 60, 0, 0, 0, 0, 3]).expect("open");
    let mut message = Vec::new();
    let to = (ChatType::Single, "u6");
    demo::send(to, "m1", &"x".repeat(100_000), Some(true), true, &mut message);
    let mut message = &message[..];

    let begin = Instant::now();
    let mut open = vec![text, im, demo, slow, door];
    while !open.is_empty() && begin.elapsed() < 2 * STALL {
        // A byte now and then is no progress, some kilobytes are.
        let (some, rest) = message.split_at(message.len().min(256));
        diligent.wire.send(some);
        message = rest;
        for wire in &mut open {
            // Whoever is cut already cannot be written to.
            let _ = std::io::Write::write_all(&mut wire.stream, b"x");
        }
        open.retain_mut(|wire| {
            loop {
                match wire.chunk(Duration::from_millis(50)) {
                    None => return true,
                    Some(Got::Packet(_)) => {}
                    Some(Got::End) => return false,
                }
            }
        });
    }
    assert!(open.is_empty(), "{} are still open", open.len());
    assert!(begin.elapsed() >= STALL, "{:?}", begin.elapsed());
    ws.expect(Seen::Invalid);
    ws.expect_close(1002);
    let cut = "ringpost_malformed_total{shard=\"0\",reason=\"unfinished\"}";
    assert_eq!(gateway.metric(cut), 6);
    diligent.wire.send(message);
    diligent.take_push(&"x".repeat(100_000));
    diligent.expect_taken("m1");
}
