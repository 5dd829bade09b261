//! Requests and responses, each rule broken in turn.

use super::client::{ResponseError, parse_response, write_request};
use super::*;

const PATHS: [&str; 2] = ["/", "/ws"];
/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const REQUEST: &str = "GET /ws?token=1 HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt, chat\r\n\
    Sec-WebSocket-Protocol: more\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

fn parse(request: &str) -> Result<Decoded<Upgrade<'_>>, HttpRefusal> {
    parse_upgrade(request.as_bytes(), 0, &PATHS)
}

fn refused(request: &str) -> HttpRefusal {
    parse(request).expect_err(request)
}

/// The path of a request that is accepted.
fn accepted(request: &str) -> &str {
    match parse(request) {
        Ok(Decoded::Frame { value, .. }) => value.path,
        other => panic!("{request}: {other:?}"),
    }
}

#[test]
fn a_right_request_is_read_and_what_follows_is_left() {
    let input = [REQUEST.as_bytes(), &[0x82, 0x80]].concat();
    let value = Upgrade { path: "/ws", key: KEY, protocols: vec!["mqtt", "chat", "more"] };
    let expected = Decoded::Frame { value, consumed: REQUEST.len() };
    assert_eq!(parse_upgrade(&input, 0, &PATHS), Ok(expected));
}

#[test]
fn the_acceptance_is_the_one_of_the_rfc() {
    let mut out = Vec::new();
    write_accept(&mut out, KEY, Some("chat"));
    let text = String::from_utf8(out).expect("text");
    assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{text}");
    assert!(text.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
    assert!(text.contains("\r\nSec-WebSocket-Protocol: chat\r\n"), "{text}");
    assert!(!text.contains("Extensions"), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn what_clients_vary_is_accepted() {
    let cases = [
        ("Upgrade: websocket", "UPGRADE: h2c, WebSocket/2,  wEbSoCkEt"),
        ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
        ("keep-alive, Upgrade", "upgrade"),
        ("Host: server.example.com", "host:"),
        ("Host: ", "Content-Length: 0\r\nHost: "),
        ("Version: 13", "Version:   13  "),
        ("/ws?token=1", "http://server.example.com/ws?x=//y"),
    ];
    for (right, variant) in cases {
        let request = REQUEST.replacen(right, variant, 1);
        assert_ne!(request, REQUEST);
        assert_eq!(accepted(&request), "/ws");
    }
    assert_eq!(accepted(&REQUEST.replace("/ws?token=1", "/")), "/");
    assert_eq!(accepted(&REQUEST.replace("/ws?token=1", "ws://host")), "/");
}

#[test]
fn each_wrong_request_has_its_refusal() {
    use HttpRefusal::*;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let cases = [
        ("GET ", "POST ", Method),
        ("GET ", "get ", Malformed),
        ("GET ", "\r\n\r\nGET ", Malformed),
        ("/ws?token=1", "/other", Path),
        ("/ws?token=1", "/ws/", Path),
        ("/ws?token=1", "*", Path),
        ("HTTP/1.1", "HTTP/1.0", HttpVersion),
        ("HTTP/1.1", "HTTP/2.0", HttpVersion),
        ("HTTP/1.1", "HTTX/1.1", HttpVersion),
        ("HTTP/1.1", "", HttpVersion),
        ("Host: server.example.com\r\n", "", Host),
        ("Host: ", "Host: twice\r\nHost: ", Host),
        ("Upgrade: websocket\r\n", "", NotUpgrade),
        ("Upgrade: websocket", "Upgrade: h2c", NotUpgrade),
        ("Upgrade: websocket", "Upgrade: websockets", NotUpgrade),
        ("Connection: keep-alive, Upgrade\r\n", "", NotUpgrade),
        ("keep-alive, Upgrade", "keep-alive", NotUpgrade),
        (version, "", Version),
        ("Version: 13", "Version: 8", Version),
        (version, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n", Version),
        (key, "", Key),
        (key, &key.repeat(2), Key),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n", Key),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", Key),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWU=\r\n", Key),
        (key, "Sec-WebSocket-Key: ************************\r\n", Key),
        ("Host: ", "Content-Length: 5\r\nHost: ", Body),
        ("Host: ", "Transfer-Encoding: chunked\r\nHost: ", Body),
        ("Host: ", "Bad Name: 1\r\nHost: ", Malformed),
        ("Host: server", "Host: \0server", Malformed),
        ("Connection:", "\n\nConnection:", Malformed),
    ];
    for (right, wrong, refusal) in cases {
        let request = REQUEST.replacen(right, wrong, 1);
        assert_ne!(request, REQUEST);
        assert_eq!(refused(&request), refusal, "{right} -> {wrong}");
    }
}

#[test]
fn a_subprotocol_that_is_no_text_is_refused() {
    let mut request = REQUEST.as_bytes().to_vec();
    let at = REQUEST.find("mqtt").expect("offered");
    request[at] = 0xe9;
    assert_eq!(parse_upgrade(&request, 0, &PATHS), Err(HttpRefusal::Malformed));
}

#[test]
fn a_head_over_the_bounds_is_refused() {
    let lines = "X: y\r\n".repeat(HEADERS_MAX);
    let many = REQUEST.replace("Host: ", &format!("{lines}Host: "));
    assert_eq!(refused(&many), HttpRefusal::HeadTooLarge);

    let with_len = |len: usize| {
        let filler = "x".repeat(len - REQUEST.len() - "Cookie: \r\n".len());
        REQUEST.replace("Host: ", &format!("Cookie: {filler}\r\nHost: "))
    };
    assert_eq!(with_len(HEAD_MAX).len(), HEAD_MAX);
    assert_eq!(accepted(&with_len(HEAD_MAX)), "/ws");
    assert_eq!(refused(&with_len(HEAD_MAX + 1)), HttpRefusal::HeadTooLarge);
    let unfinished = &with_len(2 * HEAD_MAX)[..HEAD_MAX];
    assert_eq!(refused(unfinished), HttpRefusal::HeadTooLarge);
    assert!(matches!(parse(&unfinished[..HEAD_MAX - 1]), Ok(Decoded::NeedMore { .. })));
}

#[test]
fn a_request_in_two_inputs_is_found_wherever_it_is_cut() {
    for split in 0..REQUEST.len() {
        let head = parse(&REQUEST[..split]);
        assert_eq!(head, Ok(Decoded::NeedMore { total: split + 1 }), "at {split}");
        let whole = parse_upgrade(REQUEST.as_bytes(), split, &PATHS);
        assert_eq!(whole, parse(REQUEST), "at {split}");
    }
}

#[test]
fn what_is_no_get_is_refused_at_its_first_wrong_byte() {
    assert_eq!(refused("P"), HttpRefusal::Method);
    assert_eq!(refused("GEX"), HttpRefusal::Method);
    assert_eq!(parse_upgrade(&[0x16, 3, 1], 0, &PATHS), Err(HttpRefusal::Malformed));
    assert_eq!(parse("G"), Ok(Decoded::NeedMore { total: 2 }));
}

#[test]
fn every_bit_flip_of_a_request_gives_an_answer() {
    for bit in 0..REQUEST.len() * 8 {
        let mut flipped = REQUEST.as_bytes().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(Decoded::Frame { value, consumed }) = parse_upgrade(&flipped, 0, &PATHS) {
            assert_eq!((value.path, consumed), ("/ws", flipped.len()), "bit {bit}");
        }
    }
}

#[test]
fn refusals_are_whole_responses_that_close() {
    for refusal in HttpRefusal::ALL {
        let mut out = Vec::new();
        refusal.write(&mut out);
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(Status::Complete(head_len)) = response.parse(&out) else {
            panic!("{refusal:?}: no head in {}", out.escape_ascii())
        };
        assert_eq!(response.code, Some(refusal.status()));
        let headers = Headers(response.headers);
        assert!(headers.lists("connection", "close"), "{refusal:?}");
        let body = &out[head_len..];
        let len = body.len().to_string();
        assert_eq!(headers.only("content-length"), Some(len.as_bytes()));
        assert!(body.len() > 10, "{refusal:?}");
        let version = (refusal.status() == 426).then_some(&b"13"[..]);
        assert_eq!(headers.only("sec-websocket-version"), version);
        assert_eq!(headers.only("allow").is_some(), refusal.status() == 405);
    }
}

#[test]
fn our_client_and_our_server_agree() {
    for protocol in [None, Some("mqtt")] {
        let mut request = Vec::new();
        write_request(&mut request, "localhost:9095", "/ws?x=1", [9; 16], protocol);
        let Ok(Decoded::Frame { value, consumed }) = parse_upgrade(&request, 0, &PATHS) else {
            panic!("{}", request.escape_ascii())
        };
        assert_eq!(consumed, request.len());
        assert_eq!(value.protocols, protocol.as_slice());
        let mut response = Vec::new();
        write_accept(&mut response, value.key, protocol);
        let end = response.len();
        response.extend([0x82, 0]);
        let expected = Decoded::Frame { value: (), consumed: end };
        assert_eq!(parse_response(&response, [9; 16], protocol), Ok(expected));
        assert_eq!(parse_response(&response, [8; 16], protocol), Err(ResponseError::Accept));
        for split in 0..end {
            let head = parse_response(&response[..split], [9; 16], protocol);
            assert_eq!(head, Ok(Decoded::NeedMore { total: split + 1 }));
        }
    }
}

#[test]
fn each_wrong_response_has_its_error() {
    use ResponseError::*;
    let mut response = Vec::new();
    write_accept(&mut response, &STANDARD.encode([9; 16]), Some("mqtt"));
    let right = String::from_utf8(response).expect("text");
    let cases = [
        ("HTTP/1.1", "HTTP/1.0", Malformed),
        ("HTTP/1.1", "HTTQ/1.1", Malformed),
        ("101", "404", Status(404)),
        ("websocket", "h2c", NotUpgrade),
        ("Connection: Upgrade", "Connection: close", NotUpgrade),
        ("Accept: ", "Accept: x", Accept),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", Extension),
        ("mqtt", "chat", Protocol),
    ];
    for (part, wrong, error) in cases {
        let response = right.replacen(part, wrong, 1);
        let parsed = parse_response(response.as_bytes(), [9; 16], Some("mqtt"));
        assert_eq!(parsed, Err(error), "{part} -> {wrong}");
    }
    assert_eq!(parse_response(right.as_bytes(), [9; 16], None), Err(Protocol));
    assert_eq!(parse_response(&[b'x'; HEAD_MAX], [9; 16], None), Err(Malformed));
}
