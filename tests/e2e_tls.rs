//! Goal: over TLS everything goes as without it, whatever version, keys and record boundaries the
//! client has, and what a client does to his own TLS ends his connection alone.
//!
//! Method: rustls and OpenSSL as clients of the real program on real sockets.

mod common;

use std::io::{ErrorKind, Read, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use codec::PublishKind::User;
use codec::binary::client::Tail;
use common::{Client, PATIENCE, Setup, Stream, Want, connect_packet, eventually, hear, id};
use rustls::ClientConnection;

#[test]
fn a_tls_12_client_is_served_on_every_shard() {
    let gateway = Setup::new().shards(3).start();
    let mut clients: Vec<Client> = (1..=6)
        .map(|user| {
            let stream = Stream::tls_12(gateway.site().wss());
            let mut client = Client::upgrade(stream, "wss://localhost/wss");
            client.login(&format!("u{user}"), "x", Tail::Plain);
            client
        })
        .collect();
    let body = "long ".repeat(6_000);
    for n in 0..6_usize {
        let to = (n + 1) % 6;
        clients[n].publish(Want::User(to as u32 + 1), id(n as u32), &body);
        clients[to].take_push(id(n as u32), &body);
        clients[n].expect_ack(User, id(n as u32));
    }
    assert!(gateway.metric("ringpost_handed_over_total") > 0, "six users live on three shards");
}

#[test]
fn keys_may_change_before_and_after_the_hand_over() {
    let gateway = Setup::new().shards(3).start();
    let mut user = 0;
    // Where a connection comes in is the kernel's choice: until some have been handed over.
    eventually("users live on three shards", || {
        user += 1;
        let mut client = gateway.dial_wss();
        let update = |client: &mut Client| {
            let session = client.socket.get_mut().session();
            session.refresh_traffic_keys().expect("the session is TLS 1.3");
        };
        update(&mut client);
        client.login(&format!("u{user}"), "x", Tail::Plain);
        for n in 0..3 {
            update(&mut client);
            client.note_to_self(user, id(user * 10 + n), "under new keys");
        }
        user > 5 && gateway.metric("ringpost_handed_over_total") > 0
    });
}

#[test]
fn records_in_pieces_of_every_size_are_understood() {
    let gateway = Setup::new().start();
    for piece in [1, 2, 3, 5, 7, 21, 22, 23, 64, 1_000] {
        let mut stream = Stream::tls(gateway.site().wss(), true);
        stream.socket().set_read_timeout(Some(PATIENCE)).expect("a time-out");
        // The handshake as it comes; then every record in pieces of `piece` bytes.
        stream.write_all(UPGRADE).expect("sent");
        read_until(&mut stream, b"\r\n\r\n");
        let connect = connect_packet(&format!("u{piece}"), "x", Tail::Plain);
        let ping = masked(0x89, b"are you there");
        let wire = wire_of(&mut stream, |session| {
            for plain in [masked(0x82, &connect), ping] {
                session.writer().write_all(&plain).expect("memory");
            }
        });
        for bytes in wire.chunks(piece) {
            let mut socket = stream.socket();
            socket.write_all(bytes).expect("sent");
        }
        read_until(&mut stream, b"\x8a\x0dare you there");
    }
}

#[test]
fn a_garbage_record_gets_its_alert_and_ends_its_own_connection() {
    let gateway = Setup::new().start();
    let mut good = gateway.dial_wss();
    good.login("u1", "x", Tail::Plain);
    let mut bad = gateway.dial_wss();
    bad.login("u2", "x", Tail::Plain);
    let mut socket = bad.socket.get_ref().socket();
    socket.write_all(&[&[23, 3, 3, 0, 32][..], &[0x5a; 32]].concat()).expect("sent");
    // rustls turns the alert into an error of this name.
    let error = loop {
        match bad.socket.get_mut().read(&mut [0; 1_000]) {
            Ok(0) => panic!("the end, and no alert"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    bad.cut();
    good.note_to_self(1, id(1), "fine");
    eventually("it is counted", || {
        gateway.metric("ringpost_closed_total{shard=\"0\",reason=\"tls\"") == 1
    });
}

#[test]
fn what_comes_ahead_of_close_notify_is_taken() {
    let gateway = Setup::new().patient().start();
    let mut to = gateway.dial_wss();
    to.login("u2", "x", Tail::Plain);
    let mut from = gateway.dial_wss();
    from.login("u1", "x", Tail::Plain);
    let publish = masked(0x82, &Want::User(2).publish(id(7), b"the last"));
    let wire = wire_of(from.socket.get_mut(), |session| {
        session.writer().write_all(&publish).expect("memory");
        session.send_close_notify();
    });
    let mut socket = from.socket.get_ref().socket();
    socket.write_all(&wire).expect("sent, all of it together");
    to.take_push(id(7), "the last");
    eventually("the half-closed connection ends", || gateway.metric("ringpost_sessions") == 1);
}

/// OpenSSL's own client on the wss port.
struct Openssl {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Openssl {
    /// `None`: there is no such program.
    fn start(to: std::net::SocketAddr, more: &[&str]) -> Option<Self> {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &to.to_string()]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("SKIPPED: there is no openssl to be the judge");
                return None;
            }
            child => child.expect("openssl runs"),
        };
        let input = child.stdin.take().expect("it is piped");
        let (told, output) = channel();
        read_on(child.stdout.take().expect("it is piped"), told.clone());
        // Where it confirms its commands.
        read_on(child.stderr.take().expect("it is piped"), told);
        Some(Self { child, input, output, seen: Vec::new() })
    }

    #[track_caller]
    fn send(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).expect("openssl reads");
    }

    /// Waits for `text` behind what was waited for before.
    #[track_caller]
    fn expect(&mut self, text: &[u8]) {
        while !self.seen.windows(text.len()).any(|seen| seen == text) {
            let more = hear(&self.output, &format!("{:?}", String::from_utf8_lossy(text)));
            self.seen.extend(more);
        }
        let at = self.seen.windows(text.len()).position(|seen| seen == text);
        self.seen.drain(..at.expect("just found") + text.len());
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_on(mut from: impl Read + Send + 'static, told: Sender<Vec<u8>>) {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            if told.send(bytes[..len].to_vec()).is_err() {
                return;
            }
        }
    });
}

/// Upgrade, login and a ping through OpenSSL; `between` happens after the upgrade.
fn judge(openssl: &mut Openssl, user: &str, between: impl FnOnce(&mut Openssl)) {
    openssl.send(UPGRADE);
    openssl.expect(b"101 Switching Protocols");
    openssl.expect(b"\r\n\r\n");
    between(openssl);
    openssl.send(&masked(0x82, &connect_packet(user, "x", Tail::Plain)));
    openssl.send(&masked(0x89, b"judge"));
    openssl.expect(b"\x8a\x05judge");
}

#[test]
fn openssl_speaks_both_versions_and_changes_its_keys() {
    let gateway = Setup::new().shards(2).start();
    for (version, user) in [("-tls1_2", "u1"), ("-tls1_3", "u2")] {
        let Some(mut openssl) = Openssl::start(gateway.site().wss(), &[version]) else { return };
        judge(&mut openssl, user, |openssl| {
            if version == "-tls1_3" {
                // A command of s_client: update the keys, and ask the server to do the same.
                openssl.send(b"K\n");
                openssl.expect(b"KEYUPDATE");
            }
        });
    }
}

#[test]
fn openssl_resumes_with_its_ticket() {
    let gateway = Setup::new().start();
    for version in ["-tls1_2", "-tls1_3"] {
        let ticket = gateway.site().path(version);
        let ticket = ticket.to_str().expect("a plain path");
        let first = ["-sess_out", ticket, version];
        let Some(mut openssl) = Openssl::start(gateway.site().wss(), &first) else { return };
        openssl.expect(b"New, TLS");
        judge(&mut openssl, "u1", |_| {
            eventually("the ticket is kept", || Path::new(ticket).exists());
        });
        let second = ["-sess_in", ticket, version];
        let mut openssl = Openssl::start(gateway.site().wss(), &second).expect("it ran before");
        openssl.expect(b"Reused, TLS");
        judge(&mut openssl, "u1", |_| {});
    }
}

/// What a session has to send after `act`, as it goes over the wire.
fn wire_of(stream: &mut Stream, act: impl FnOnce(&mut ClientConnection)) -> Vec<u8> {
    let session = stream.session();
    act(session);
    let mut wire = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut wire).expect("memory");
    }
    wire
}

/// Reads until `end` has come.
#[track_caller]
fn read_until(stream: &mut Stream, end: &[u8]) {
    let mut seen = Vec::new();
    while !seen.windows(end.len()).any(|window| window == end) {
        let mut more = [0; 1_000];
        let len = stream.read(&mut more).expect("the connection is open");
        assert_ne!(len, 0, "the end, after {seen:02x?}");
        seen.extend_from_slice(&more[..len]);
    }
}

/// A ws frame as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).expect("a short frame");
    assert!(len < 126, "a short frame");
    // The key of zeros leaves the payload as it is.
    [&[first, 0x80 | len, 0, 0, 0, 0][..], payload].concat()
}

const UPGRADE: &[u8] = b"GET /wss HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
