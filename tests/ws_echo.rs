//! RFC 6455 against `shards/examples/ws_echo.rs`, through real sockets: the engine, the codec and
//! the closing handshake together, in the categories of the well-known conformance suites.
//!
//! The example is built by `cargo test`; each test starts its own on a free port.

#[path = "ws_echo/peer.rs"]
mod peer;

use peer::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Server, TEXT, frame};
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

const MIB: usize = 1024 * 1024;
const MESSAGE_MAX: usize = 16 * MIB;

#[test]
fn messages_of_every_length_form_come_back() {
    // Goal: all three forms of the length, the largest message. Method: another implementation.
    let server = Server::start();
    let mut socket = server.tungstenite();
    for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536, MIB, MESSAGE_MAX] {
        let text = Message::text("*".repeat(len));
        let binary = Message::binary(vec![0xfe; len]);
        for message in [text, binary] {
            socket.send(message.clone()).expect("sent");
            let echo = socket.read().expect("an echo");
            assert!(echo == message, "{len} bytes changed on the way");
        }
    }
}

#[test]
fn a_close_is_answered_with_its_code_and_then_the_connection_ends() {
    let server = Server::start();
    let mut socket = server.tungstenite();
    let frame = CloseFrame { code: CloseCode::from(3999), reason: "good bye".into() };
    socket.close(Some(frame)).expect("sent");
    match socket.read() {
        Ok(Message::Close(Some(answer))) => assert_eq!(answer.code, CloseCode::from(3999)),
        other => panic!("{other:?} instead of a Close"),
    }
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
}

#[test]
fn pings_are_answered_in_order_and_pongs_are_not() {
    let server = Server::start();
    let mut peer = server.peer();
    for len in [0, 1, 125] {
        peer.send(&frame(true, PONG, b"unasked"));
        peer.send(&frame(true, PING, &vec![0xff; len]));
        assert_eq!(peer.read(), Some(Frame { opcode: PONG, payload: vec![0xff; len] }));
    }
    let pings: Vec<u8> = (0..100).flat_map(|n| frame(true, PING, &[n])).collect();
    peer.send(&pings);
    for n in 0..100 {
        assert_eq!(peer.read(), Some(Frame { opcode: PONG, payload: vec![n] }));
    }
    peer.close();
}

#[test]
fn fragments_become_one_message_and_pings_between_them_are_answered_first() {
    let server = Server::start();
    let mut peer = server.peer();
    peer.send(&frame(false, TEXT, "Hellö".as_bytes()));
    peer.send(&frame(true, PING, b"between"));
    assert_eq!(peer.read(), Some(Frame { opcode: PONG, payload: b"between".to_vec() }));
    peer.send(&frame(false, CONTINUATION, b""));
    peer.send(&frame(true, PONG, b"ignored"));
    peer.send(&frame(true, CONTINUATION, b" world"));
    assert_eq!(peer.read(), Some(Frame { opcode: TEXT, payload: "Hellö world".into() }));
    let pieces: Vec<u8> = (0..1_000)
        .flat_map(|n| frame(n == 999, if n == 0 { BINARY } else { CONTINUATION }, &[n as u8; 100]))
        .collect();
    peer.send(&pieces);
    let expected: Vec<u8> = (0..1_000).flat_map(|n| [n as u8; 100]).collect();
    assert_eq!(peer.read(), Some(Frame { opcode: BINARY, payload: expected }));
    peer.close();
}

#[test]
fn broken_framing_is_a_protocol_error() {
    let server = Server::start();
    let mut cases = vec![
        ("a continuation of nothing", frame(true, CONTINUATION, b"?")),
        ("a message in a message", [frame(false, TEXT, b"a"), frame(true, TEXT, b"b")].concat()),
        ("a ping in fragments", frame(false, PING, b"")),
        ("a long ping", frame(true, PING, &[0; 126])),
        ("not masked", vec![0x82, 1, b'x']),
        ("a length in too long a form", vec![0x82, 0xfe, 0, 125]),
        ("a length over 2^63", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for bit in [0x40, 0x20, 0x10] {
        let mut reserved = frame(true, TEXT, b"x");
        reserved[0] |= bit;
        cases.push(("a reserved bit", reserved));
    }
    for opcode in (3..=7).chain(11..=15) {
        cases.push(("a reserved opcode", frame(true, opcode, b"x")));
    }
    for (what, bytes) in cases {
        let mut peer = server.peer();
        peer.send(&frame(true, TEXT, b"before"));
        assert_eq!(peer.read(), Some(Frame { opcode: TEXT, payload: b"before".to_vec() }));
        peer.send(&bytes);
        assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(1002)), "{what}");
        peer.answer_close();
        assert_eq!(peer.read(), None, "{what}");
    }
}

#[test]
fn text_that_cannot_become_utf8_is_refused_before_it_ends() {
    let server = Server::start();
    let cases: [&[u8]; 6] = [
        b"\xce\xba\xed\xa0\x80", // a surrogate
        b"\xf4\x90",             // above U+10FFFF
        b"\xc0\xaf",             // overlong
        b"abc\xff",
        b"\xce\xbaabc\xce ",
        b"\x80",
    ];
    for bytes in cases {
        let mut peer = server.peer();
        // More is announced than is sent, so that only the bytes themselves can be the reason.
        let mut cut = frame(true, TEXT, &[bytes, &[b'x'; 100]].concat());
        cut.truncate(cut.len() - 100);
        peer.send(&cut);
        assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(1007)), "{bytes:x?}");
        let mut peer = server.peer();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        peer.send(&frame(false, TEXT, first));
        peer.send(&frame(false, CONTINUATION, second));
        assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(1007)), "{bytes:x?}");
    }
    let mut peer = server.peer();
    peer.send(&frame(true, TEXT, b"\xf0\x9f\x98"));
    assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(1007)), "cut short");
    let mut peer = server.peer();
    for (index, byte) in "κ😀".bytes().enumerate() {
        peer.send(&frame(index == 5, if index == 0 { TEXT } else { CONTINUATION }, &[byte]));
    }
    assert_eq!(peer.read(), Some(Frame { opcode: TEXT, payload: "κ😀".into() }));
}

#[test]
fn close_codes_that_may_be_sent_are_echoed_and_others_are_protocol_errors() {
    let server = Server::start();
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let mut peer = server.peer();
        let body = [&u16::to_be_bytes(code)[..], &[b'r'; 123]].concat();
        peer.send(&frame(true, CLOSE, &body));
        assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(code)));
        assert_eq!(peer.read(), None);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let mut peer = server.peer();
        peer.send(&frame(true, CLOSE, &u16::to_be_bytes(code)));
        assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(1002)), "{code}");
        peer.answer_close();
        assert_eq!(peer.read(), None);
    }
    let bodies: [(&[u8], Option<u16>); 4] = [
        (b"", None),
        (b"\x03", Some(1002)),
        (b"\x03\xe8\xff", Some(1007)),
        (&[3; 126], Some(1002)),
    ];
    for (body, answer) in bodies {
        let mut peer = server.peer();
        peer.send(&frame(true, CLOSE, body));
        assert_eq!(peer.read().map(|frame| frame.close_code()), Some(answer), "{body:x?}");
    }
}

#[test]
fn nothing_after_a_close_is_answered() {
    let server = Server::start();
    let mut peer = server.peer();
    let close = frame(true, CLOSE, &1000_u16.to_be_bytes());
    let after = [frame(true, PING, b"?"), frame(true, TEXT, b"?"), close.clone()].concat();
    peer.send(&[frame(true, TEXT, b"first"), close, after].concat());
    assert_eq!(peer.read(), Some(Frame { opcode: TEXT, payload: b"first".to_vec() }));
    assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(1000)));
    assert_eq!(peer.read(), None);
}

#[test]
fn a_message_over_the_bound_is_refused_at_its_header() {
    let server = Server::start();
    let mut peer = server.peer();
    let mut header = vec![0x82, 0xff];
    header.extend((MESSAGE_MAX as u64 + 1).to_be_bytes());
    header.extend([1, 2, 3, 4]);
    peer.send(&header);
    assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(1009)));
    peer.answer_close();
    assert_eq!(peer.read(), None);
    let mut peer = server.peer();
    peer.send(&frame(false, BINARY, &vec![0; MESSAGE_MAX]));
    peer.send(&frame(true, CONTINUATION, b"x"));
    assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(1009)), "in fragments");
}

#[test]
fn bytes_may_come_one_by_one() {
    let server = Server::start();
    let mut peer = server.peer_byte_by_byte();
    let text = "Grüße, κόσμε 😀".repeat(10);
    let ping = frame(true, PING, b"p");
    let message = [
        frame(false, TEXT, &text.as_bytes()[..5]),
        ping,
        frame(true, CONTINUATION, &text.as_bytes()[5..]),
    ];
    peer.send_byte_by_byte(&message.concat());
    assert_eq!(peer.read(), Some(Frame { opcode: PONG, payload: b"p".to_vec() }));
    assert_eq!(peer.read(), Some(Frame { opcode: TEXT, payload: text.into() }));
    peer.send_byte_by_byte(&frame(true, CLOSE, &1000_u16.to_be_bytes()));
    assert_eq!(peer.read().map(|frame| frame.close_code()), Some(Some(1000)));
    assert_eq!(peer.read(), None);
}

#[test]
fn a_peer_that_does_not_read_is_not_read_and_then_gets_everything() {
    // Goal: output is bounded by not reading, and nothing is lost. Method: sends without reading
    // until its own socket is full, which only happens if the server stops reading.
    let server = Server::start();
    let mut peer = server.peer();
    let message = frame(true, BINARY, &[7; 60_000]);
    let sent = peer.send_until_blocked(&message, 64 * MIB);
    assert!(sent < 64 * MIB, "the server read {sent} bytes that it could not send back");
    let whole = sent / message.len();
    for _ in 0..whole {
        assert_eq!(peer.read(), Some(Frame { opcode: BINARY, payload: vec![7; 60_000] }));
    }
    peer.send(&message[sent % message.len()..]);
    assert_eq!(peer.read(), Some(Frame { opcode: BINARY, payload: vec![7; 60_000] }));
    peer.close();
}

#[test]
fn what_is_no_upgrade_is_refused_over_http() {
    let server = Server::start();
    let answer = server.http("GET /any/path?query HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    let answer = server.http("POST / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let answer = server.http(&format!("GET / HTTP/1.1\r\nX: {}\r\n", "y".repeat(9_000)));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}
