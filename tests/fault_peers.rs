//! Goal: whatever a peer does to its own connection, nobody else notices, nothing grows, and what
//! was acknowledged stays safe.
//!
//! Method: peers that freeze, stay silent, talk nonsense, claim absurd lengths, trickle or vanish,
//! while a healthy pair talks the whole time and the process is watched from outside.

mod common;
mod fault;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use codec::PublishKind;
use codec::binary::client::Tail;
use common::{PATIENCE, Seen, Setup, Stream, Want, connect_packet, eventually, id};
use fault::{Healthy, Process, collect, try_send, within};

#[test]
fn a_receiver_that_never_reads_is_closed_and_finds_its_messages_in_the_store() {
    let gateway =
        Setup::new().set("delivery.retry_interval_ms", 100).set("delivery.retry_max", 100).start();
    let healthy = Healthy::talk(&gateway);
    let mut ann = gateway.login(1);
    let frozen = gateway.login(2);
    let memory = Process(gateway.pid()).memory();
    let body = "x".repeat(30_000);
    let ids: Vec<_> = (1..=100).map(id).collect();
    for message in &ids {
        ann.publish_safely(Want::User(2), *message, &body);
    }
    // His window is repeated until his socket is full; then nothing drains for 30 seconds.
    let closed = "ringpost_closed_total{shard=\"0\",reason=\"slow_consumer\"}";
    within(Duration::from_secs(90), "he is given up", || gateway.metric(closed) == 1);
    let grown = Process(gateway.pid()).memory().saturating_sub(memory);
    assert!(grown < 32 << 20, "{grown} bytes for a peer that does not read");
    drop(frozen);
    collect(&mut gateway.login(2), &ids);
    healthy.assert_unaffected();
}

#[test]
fn a_client_process_that_stands_still_is_closed_and_loses_nothing() {
    let gateway = Setup::new().quick_retries().start();
    let healthy = Healthy::talk(&gateway);
    let mut ann = gateway.login(1);
    let url = format!("ws://{}/ws", gateway.site().ws());
    let mut command = gateway.site().program(&["chat", "u2", "--password", "x", "--url", &url]);
    let mut chat = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
    let logged_in = || gateway.metric("ringpost_sessions") >= 4;
    eventually("the client is logged in", logged_in);
    ann.publish_safely(Want::User(2), id(1), "{\"content\":\"while he runs\"}");
    Process(chat.id()).signal("STOP");
    for number in 2..10 {
        ann.publish_safely(Want::User(2), id(number), "while he stands still");
    }
    let closed = "ringpost_closed_total{shard=\"0\",reason=\"ack_timeout\"}";
    eventually("he is given up", || gateway.metric(closed) == 1);
    chat.kill().expect("it is there");
    chat.wait().expect("our child");
    let ids: Vec<_> = (2..10).map(id).collect();
    collect(&mut gateway.login(2), &ids);
    healthy.assert_unaffected();
}

#[test]
fn a_silent_receiver_gets_the_retries_and_is_closed() {
    let gateway = Setup::new().set("delivery.retry_interval_ms", 400).start();
    let mut ann = gateway.login(1);
    let mut ben = gateway.login(2);
    ann.publish(Want::User(2), id(1), "hello?");
    let start = Instant::now();
    for _ in 0..4 {
        ben.expect_push(id(1), "hello?");
    }
    assert!(start.elapsed() >= Duration::from_millis(1100), "{:?}", start.elapsed());
    ben.expect_close(1008);
    ann.expect_ack(PublishKind::User, id(1));
    gateway.login(2).take_push(id(1), "hello?");
}

#[test]
fn claimed_lengths_cost_no_memory() {
    let gateway = Setup::new().start();
    let healthy = Healthy::talk(&gateway);
    let process = Process(gateway.pid());
    let mut peers: Vec<Stream> = Vec::new();
    let ws_claim = |length: u64| {
        let mut frame = vec![0x82, 0x80 | 127];
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(b"\0\0\0\0start");
        frame
    };
    // Whoever is in already when memory is measured pays for what connections cost anyway.
    let mut upgraded: Vec<TcpStream> = (0..200).map(|_| upgrade(gateway.site().ws())).collect();
    let mut members: Vec<_> = (100..300).map(|user| gateway.login(user)).collect();
    let before = process.memory();
    for (number, stream) in upgraded.iter_mut().enumerate() {
        let length = [u64::MAX, 1 << 62, 1 << 40, 4097, 4096][number % 5];
        let _ = stream.write_all(&ws_claim(length));
    }
    for (number, client) in members.iter_mut().enumerate() {
        let length = [u64::MAX, 1 << 33, 327_000, 65_535][number % 4];
        let _ = client.socket.get_mut().write_all(&ws_claim(length));
    }
    for number in 0..200_usize {
        let mut stream = Stream::plain(match number % 2 {
            0 => gateway.site().door(),
            _ => gateway.site().tcp(),
        });
        let length = [u32::MAX, 0x7fff_ffff, 300_000, 4096][number % 4];
        let _ = stream.write_all(&length.to_be_bytes());
        let _ = stream.write_all(&[3, 0, 0, 0, 9]);
        peers.push(stream);
    }
    // A packet whose own counts claim more than it holds.
    let mut liar = gateway.login(99);
    let mut packet = Want::Part(5, &[1, 2]).publish(id(1), b"hello");
    packet[37..39].copy_from_slice(&[0xff, 0xff]);
    liar.send(packet);
    liar.expect(Seen::Invalid);
    let refused = || {
        gateway.metric("ringpost_closed_total{shard=\"0\",reason=\"ws_too_large\"}")
            + gateway.metric("ringpost_closed_total{shard=\"0\",reason=\"ws_protocol\"}")
            + gateway.metric("ringpost_closed_total{shard=\"0\",reason=\"malformed\"}")
    };
    eventually("the absurd ones are closed", || refused() >= 300);
    let grown = process.memory().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for claims");
    healthy.assert_unaffected();
}

#[test]
fn bytes_one_at_a_time_are_understood_and_bytes_without_end_are_not_kept() {
    let gateway = Setup::new().start();
    let healthy = Healthy::talk(&gateway);
    // A whole session in single bytes.
    let mut stream = TcpStream::connect(gateway.site().ws()).expect("the gateway listens");
    stream.set_nodelay(true).expect("an option");
    for byte in UPGRADE.bytes() {
        stream.write_all(&[byte]).expect("it is open");
    }
    assert!(head_of_answer(&mut stream).starts_with("HTTP/1.1 101"));
    for byte in masked(&connect_packet("u5", "", Tail::Plain)) {
        stream.write_all(&[byte]).expect("it is open");
    }
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, [0x82, 2, 2, 0]);
    // An upgrade request beyond its cap.
    let mut stream = TcpStream::connect(gateway.site().ws()).expect("the gateway listens");
    let _ = stream.write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\n");
    for _ in 0..2000 {
        if stream.write_all(b"X-Padding: 0123456789\r\n").is_err() {
            break;
        }
    }
    let said = everything(&mut stream);
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 431"), "{}", said.escape_ascii());
    let closed = "ringpost_closed_total{shard=\"0\",reason=\"upgrade_refused\"}";
    eventually("it is refused", || gateway.metric(closed) == 1);
    // The same in pieces that the gateway has read: then the answer arrives.
    let mut stream = TcpStream::connect(gateway.site().ws()).expect("the gateway listens");
    let padding = "X-Padding: 0123456789\r\n".repeat(400);
    let request = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{padding}");
    stream.write_all(&request.as_bytes()[..8200]).expect("it is open");
    assert!(everything(&mut stream).starts_with(b"HTTP/1.1 431"));
    healthy.assert_unaffected();
}

#[test]
fn nobody_unknown_may_say_more_than_4_kib_or_take_longer_than_the_deadline() {
    let gateway = Setup::new().set("limits.login_deadline_ms", 700).start();
    let healthy = Healthy::talk(&gateway);
    let closed = |reason: &str| {
        gateway.metric(&format!("ringpost_closed_total{{shard=\"0\",reason=\"{reason}\"}}"))
    };
    // Empty fragments, pings and a half packet, none of which is a login.
    let mut flood = upgrade(gateway.site().ws());
    let ping = masked_as(0x89, &[7; 100]);
    for _ in 0..1000 {
        if flood.write_all(&ping).is_err() {
            break;
        }
    }
    eventually("the flood of pings is ended", || closed("malformed") == 1);
    let mut flood = upgrade(gateway.site().ws());
    let _ = flood.write_all(&masked_as(0x02, &[1; 2500]));
    let _ = flood.write_all(&masked_as(0x80, &[1; 2500]));
    eventually("the long login is ended", || closed("malformed") + closed("ws_too_large") == 2);
    // Nothing at all, in every state before the login.
    let before = closed("login_deadline");
    let site = gateway.site();
    let mut waiting: Vec<TcpStream> = [site.ws(), site.wss(), site.tcp()]
        .map(|address| TcpStream::connect(address).expect("the gateway listens"))
        .into();
    waiting.push(upgrade(site.ws()));
    let mut hello = TcpStream::connect(site.wss()).expect("the gateway listens");
    // A TLS record that promises a ClientHello and stops.
    hello.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).expect("it is open");
    waiting.push(hello);
    let mut half = upgrade(site.ws());
    half.write_all(&masked(&connect_packet("u7", "", Tail::Plain))[..9]).expect("it is open");
    waiting.push(half);
    let start = Instant::now();
    for stream in &mut waiting {
        everything(stream);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(closed("login_deadline"), before + waiting.len() as u64);
    healthy.assert_unaffected();
}

#[test]
fn each_violation_ends_its_own_connection_with_its_own_code() {
    let gateway = Setup::new().start();
    let healthy = Healthy::talk(&gateway);
    let mut text = gateway.login(1);
    text.socket.send(tungstenite::Message::text("{}")).expect("it is open");
    text.expect_close(1003);
    for (what, frame) in [
        ("unmasked", &[0x82, 1, 8][..]),
        ("a reserved bit", &[0xc2, 0x81, 0, 0, 0, 0, 8]),
        ("a reserved opcode", &[0x83, 0x81, 0, 0, 0, 0, 8]),
        ("a length that is not minimal", &[0x82, 0xfe, 0, 1, 0, 0, 0, 0, 8]),
        ("a fragmented ping", &[0x09, 0x80, 0, 0, 0, 0]),
        ("a continuation of nothing", &[0x80, 0x80, 0, 0, 0, 0]),
    ] {
        let mut client = gateway.login(2);
        client.socket.get_mut().write_all(frame).expect("it is open");
        assert_eq!(client.next(), Seen::Close(Some(1002)), "{what}");
        client.expect(Seen::End);
    }
    let mut second = gateway.login(3);
    second.send(connect_packet("u3", "", Tail::Plain));
    second.expect(Seen::ConnectAck(1));
    second.expect_close(1002);
    let mut early = gateway.dial();
    early.send(Want::User(1).publish(id(1), b"before any login"));
    early.expect_close(1002);
    for (request, status) in [
        ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("POST /ws HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", "4"),
        ("\u{1}\u{2}\u{3}\r\n\r\n", "400"),
    ] {
        let mut stream = TcpStream::connect(gateway.site().ws()).expect("the gateway listens");
        stream.write_all(request.as_bytes()).expect("it is open");
        let said = everything(&mut stream);
        let expected = format!("HTTP/1.1 {status}");
        assert!(said.starts_with(expected.as_bytes()), "{request}: {}", said.escape_ascii());
    }
    healthy.assert_unaffected();
}

#[test]
fn noise_and_resets_at_every_door_disturb_nobody() {
    let gateway = Setup::new().shards(2).start();
    let healthy = Healthy::talk(&gateway);
    let process = Process(gateway.pid());
    let site = gateway.site();
    let mut noise = Noise(0x0dd_b1a5);
    let round = |noise: &mut Noise| {
        for address in [site.ws(), site.wss(), site.tcp(), site.door()] {
            let mut stream = TcpStream::connect(address).expect("the gateway listens");
            let _ = stream.write_all(&noise.bytes());
            reset(&stream);
        }
        let mut upgraded = upgrade(site.ws());
        let _ = upgraded.write_all(&noise.bytes());
        reset(&upgraded);
        let mut client = gateway.login(40);
        let _ = client.socket.get_mut().write_all(&masked(&noise.bytes()));
        let mut member = gateway.dial_wss();
        member.login("u41", "", Tail::Plain);
        try_send(&mut member, Want::User(42).publish(id(4000), b"and gone"));
        let half = masked(&Want::User(42).publish(id(4001), b"never finished"));
        let _ = client.socket.get_mut().write_all(&half[..half.len() / 2]);
        reset(client.socket.get_ref().socket());
        reset(member.socket.get_ref().socket());
    };
    for _ in 0..10 {
        round(&mut noise);
    }
    let before = process.memory();
    for _ in 0..60 {
        round(&mut noise);
    }
    let grown = process.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    // Two of the pair, and nobody else, once the last of the others are gone.
    within(PATIENCE, "every slot comes back", || gateway.metric("ringpost_connections") == 2);
    healthy.assert_unaffected();
}

/// A connection that has upgraded and said nothing more.
fn upgrade(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.write_all(UPGRADE.as_bytes()).expect("it is open");
    let head = head_of_answer(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

fn head_of_answer(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("HTTP is text")
}

/// What comes until the gateway closes, which it must.
#[track_caller]
fn everything(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("still open, after {}", said.escape_ascii());
        }
        // The end, or a reset where something that we sent was never read.
        _ => said,
    }
}

/// One binary message as a client frames it.
fn masked(packet: &[u8]) -> Vec<u8> {
    masked_as(0x82, packet)
}

fn masked_as(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        0..126 => frame.push(0x80 | payload.len() as u8),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
    }
    // A mask of zeros leaves the payload as it is.
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Once dropped the connection ends with RST.
fn reset(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("an option");
}

/// Random bytes from a fixed seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.next() % 700;
        (0..length).map(|_| self.next() as u8).collect()
    }
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
