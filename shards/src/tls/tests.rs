//! Goal: whatever way a peer's records come, the same plaintext comes out, and what cannot be read
//! gets its alert; an idle connection costs what rustls keeps, and nothing of ours.
//!
//! Method: rustls's own client on the other end of memory.

use std::io::{Read as _, Write as _};
use std::ops::RangeInclusive;

use rustls::crypto::ring;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore,
    SupportedProtocolVersion, version,
};

use super::*;
use crate::io::Piece;

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// Heap bytes of an idle connection, [`Tls`] itself not counted: keys, traffic secrets and the
/// state they hang on, all of it rustls's. A read buffer of 4 KiB would not fit.
const IDLE_BYTES: RangeInclusive<i64> = 1_000..=2_500;
/// And [`Tls`], once per connection on the heap.
const TLS_BYTES: usize = 1_280;

/// The two sides' configurations.
struct Site {
    server: Arc<ServerConfig>,
    client: ClientConfig,
}

impl Site {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let cert = params.self_signed(&key).expect("a certificate").der().clone();
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider's")
            .with_no_client_auth()
            .with_single_cert(vec![cert.clone()], private)
            .expect("a pair");
        server.ticketer = ring::Ticketer::new().expect("a ticketer");
        server.send_tls13_tickets = 1;
        let mut roots = RootCertStore::empty();
        roots.add(cert).expect("a root");
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("the provider's")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server: Arc::new(server), client }
    }

    /// A connection that has not begun.
    fn dial(&self) -> Pair {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::new(self.client.clone()), name).expect("a client");
        let mut pair =
            Pair { client, server: None, received: Vec::new(), kept: 0, cut: usize::MAX };
        let config = &self.server;
        pair.counted(|server| *server = Some(Tls::new(config).expect("a server")));
        pair
    }

    fn connect(&self) -> Pair {
        let mut pair = self.dial();
        pair.handshake();
        pair
    }
}

/// A client, its server, and what the server has kept of what it allocated.
struct Pair {
    client: ClientConnection,
    server: Option<Tls>,
    /// Plaintext the server has had.
    received: Vec<u8>,
    kept: i64,
    /// Bytes of one receive.
    cut: usize,
}

impl Pair {
    fn counted<R>(&mut self, run: impl FnOnce(&mut Option<Tls>) -> R) -> R {
        let mut result = None;
        let cost = allocation_counter::measure(|| result = Some(run(&mut self.server)));
        self.kept += cost.bytes_current;
        result.expect("it has run")
    }

    fn server(&mut self) -> &mut Tls {
        self.server.as_mut().expect("made at once")
    }

    fn handshake(&mut self) {
        while self.client.is_handshaking() || self.server().is_handshaking() {
            self.send().expect("a handshake");
            self.receive().expect("a handshake");
        }
        self.send().expect("the last flight");
        self.receive().expect("the tickets");
    }

    /// What the client has to send, as it goes over the wire.
    fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).expect("memory");
        }
        wire
    }

    fn send(&mut self) -> Result<bool, TlsFailed> {
        let wire = self.wire();
        self.give(wire)
    }

    /// Gives the server bytes, [`Self::cut`] in a receive.
    fn give(&mut self, mut wire: Vec<u8>) -> Result<bool, TlsFailed> {
        let mut closed = false;
        for bytes in wire.chunks_mut(self.cut) {
            let mut plain = Vec::with_capacity(64 * 1024);
            closed = self
                .counted(|server| server.as_mut().expect("made at once").open(bytes, &mut plain))?;
            self.received.extend_from_slice(&plain);
        }
        Ok(closed)
    }

    /// Gives the client what the server has to say, `plain` last.
    fn say(&mut self, plain: Option<&SendBatch>) -> Result<Vec<u8>, Error> {
        let mut cipher = Vec::with_capacity(256 * 1024);
        self.counted(|server| server.as_mut().expect("made at once").seal(plain, &mut cipher))
            .expect("sealed");
        self.take(&cipher)
    }

    fn take(&mut self, mut wire: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        while !wire.is_empty() {
            self.client.read_tls(&mut wire).expect("memory");
            let ready = self.client.process_new_packets()?.plaintext_bytes_to_read();
            let start = plain.len();
            plain.resize(start + ready, 0);
            self.client.reader().read_exact(&mut plain[start..]).expect("it is ready");
        }
        Ok(plain)
    }

    fn receive(&mut self) -> Result<Vec<u8>, Error> {
        self.say(None)
    }

    fn write(&mut self, plain: &[u8]) {
        self.client.writer().write_all(plain).expect("memory");
    }

    /// Both ways, and nothing is left behind.
    #[track_caller]
    fn assert_works(&mut self) {
        self.received.clear();
        self.write(b"from the client");
        assert!(!self.send().expect("whole records"));
        assert_eq!(self.received, b"from the client");
        let said = self.say(Some(&batch([b"from the server"]))).expect("whole records");
        assert_eq!(said, b"from the server");
        self.assert_idle();
    }

    /// What was written before comes ahead of what is written now.
    #[track_caller]
    fn assert_works_after(&mut self, first: &[u8], more: usize) {
        self.send().expect("whole records in the end");
        assert_eq!(self.received, [first, &vec![b'x'; more]].concat(), "{} at once", self.cut);
        self.assert_works();
    }

    #[track_caller]
    fn assert_idle(&mut self) {
        let server = self.server();
        assert_eq!((server.spill.capacity(), server.answers.capacity()), (0, 0));
    }
}

fn batch<const N: usize>(pieces: [&[u8]; N]) -> SendBatch {
    pieces.iter().map(|bytes| Piece::Owned(bytes.to_vec())).collect()
}

/// Content types and lengths of the records in `wire`.
fn records(mut wire: &[u8]) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = wire {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        found.push((*kind, len));
        wire = &rest[len..];
    }
    found
}

/// A record of zeros that claims `len` bytes, of which `given` are there.
fn zeros(kind: u8, len: u16, given: usize) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    [&[kind, 3, 3, high, low][..], &vec![0; given]].concat()
}

#[test]
fn an_idle_connection_keeps_what_rustls_keeps_and_no_buffer() {
    assert!(size_of::<Tls>() <= TLS_BYTES, "{} bytes", size_of::<Tls>());
    for version in BOTH {
        let site = Site::new(version);
        // Once-only initialisation is nobody's.
        site.connect().assert_works();
        let mut pair = site.connect();
        pair.assert_idle();
        let established = pair.kept;
        assert!(IDLE_BYTES.contains(&established), "{version:?}: {established} bytes");
        for _ in 0..100 {
            pair.assert_works();
        }
        println!("{version:?}: {established} bytes, {} after traffic", pair.kept);
        assert!(IDLE_BYTES.contains(&pair.kept), "{version:?}: {} bytes", pair.kept);
    }
}

#[test]
fn records_cut_at_every_byte_are_the_same_records() {
    for version in BOTH {
        let site = Site::new(version);
        // The longest flight of the client is his hello.
        let mut pair = site.dial();
        let longest = pair.wire().len();
        for cut in (1..=longest).rev() {
            let mut pair = site.dial();
            pair.cut = cut;
            pair.handshake();
            pair.write(b"one");
            pair.write(&[b'x'; 300]);
            pair.assert_works_after(b"one", 300);
        }
    }
}

#[test]
fn a_hello_in_many_records_is_a_hello() {
    for version in BOTH {
        let mut site = Site::new(version);
        site.client.max_fragment_size = Some(64);
        for cut in [usize::MAX, 1, 63, 64, 65] {
            let mut pair = site.dial();
            pair.cut = cut;
            pair.handshake();
            pair.write(&[b'x'; 1_000]);
            pair.assert_works_after(b"", 1_000);
        }
    }
}

#[test]
fn many_records_in_one_receive_give_their_plaintext_in_order() {
    for version in BOTH {
        let mut pair = Site::new(version).connect();
        let mut expected = Vec::new();
        for number in 0..200_u32 {
            pair.write(&number.to_be_bytes());
            expected.extend(number.to_be_bytes());
        }
        // And the first half of one more.
        let mut wire = pair.wire();
        pair.write(b"last");
        let last = pair.wire();
        let (head, tail) = last.split_at(last.len() / 2);
        wire.extend_from_slice(head);
        pair.give(wire).expect("whole records");
        assert_eq!(pair.received, expected);
        assert_eq!(pair.server().spill, head);
        pair.give(tail.to_vec()).expect("the rest");
        assert_eq!(pair.received[expected.len()..], *b"last");
        pair.assert_works();
    }
}

#[test]
fn what_a_turn_queues_goes_in_as_few_records_as_hold_it() {
    for (version, overhead) in [(&version::TLS12, 24), (&version::TLS13, 17)] {
        let mut pair = Site::new(version).connect();
        let large = vec![7; TLS_PLAIN_BYTES + 1];
        let queued = batch([b"one two three", &large]);
        let mut cipher = Vec::new();
        pair.server().seal(Some(&queued), &mut cipher).expect("sealed");
        let expected = [(23, 13 + overhead), (23, TLS_PLAIN_BYTES + overhead), (23, 1 + overhead)];
        assert_eq!(records(&cipher), expected);
        assert!(overhead + 5 <= TLS_RECORD_OVERHEAD);
        let said = pair.take(&cipher).expect("whole records");
        assert_eq!(said, [&b"one two three"[..], &large].concat());
    }
}

#[test]
fn what_cannot_be_read_gets_its_alert_and_nothing_more_is_read_or_said() {
    let limit = u16::try_from(TLS_RECORD_BYTES - 5).expect("a length");
    for (wire, alert) in [
        (zeros(23, 40, 40), AlertDescription::BadRecordMac),
        // Refused at its header: nothing of it is waited for.
        (zeros(23, limit + 1, 0), AlertDescription::DecodeError),
        (zeros(99, 40, 0), AlertDescription::DecodeError),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), AlertDescription::DecodeError),
    ] {
        for (version, cut) in BOTH.into_iter().flat_map(|version| [(version, 1), (version, 64)]) {
            let mut pair = Site::new(version).connect();
            pair.write(b"before");
            let before = pair.wire();
            pair.give(before).expect("a good record");
            pair.cut = cut;
            pair.give(wire.clone()).expect_err("a bad record");
            assert_eq!(pair.received, b"before");
            assert!(pair.server().has_output() && !pair.server().may_close());
            let said = pair.say(Some(&batch([b"last words"])));
            assert_eq!(said, Err(Error::AlertReceived(alert)), "{version:?}");
            pair.give(zeros(23, 40, 40)).expect_err("it stays broken");
            pair.assert_idle();
        }
    }
}

#[test]
fn nonsense_after_our_close_gets_no_answer() {
    for version in BOTH {
        let mut pair = Site::new(version).connect();
        let mut last = Vec::new();
        pair.server().close(&mut last).expect("a close_notify");
        assert!(!last.is_empty());
        assert!(pair.give(zeros(23, 64, 64)).is_err());
        assert!(!pair.server().has_output(), "the last word was said");
    }
}

#[test]
fn a_record_of_the_largest_kind_is_kept_until_it_is_whole_and_no_further() {
    let limit = TLS_RECORD_BYTES - 5;
    let mut pair = Site::new(&version::TLS13).connect();
    let mut wire = zeros(23, limit as u16 - 1, limit - 1);
    let last = wire.pop().expect("a byte");
    pair.cut = 4096;
    pair.give(wire).expect("not whole yet");
    assert_eq!(pair.server().spill.len(), TLS_RECORD_BYTES - 2);
    pair.give(vec![last]).expect_err("it is of no key");
    assert_eq!(pair.receive(), Err(Error::AlertReceived(AlertDescription::BadRecordMac)));
    pair.assert_idle();
}

#[test]
fn a_handshake_message_without_end_is_not_kept() {
    let mut pair = Site::new(&version::TLS13).dial();
    // A hello of 64 KiB, in records of 16.
    let mut hello = vec![1, 0, 0xff, 0xff];
    hello.resize(TLS_PLAIN_BYTES, 0);
    let record = [&[22, 3, 1, 0x40, 0][..], &hello].concat();
    pair.give(record).expect("the first part");
    let more = [&[22, 3, 1, 0x40, 0][..], &[0; TLS_PLAIN_BYTES]].concat();
    pair.give(more).expect_err("more than a record is not kept");
    pair.assert_idle();
}

#[test]
fn the_clients_key_update_is_followed_and_answered() {
    let site = Site::new(&version::TLS13);
    for cut in 1..40 {
        let mut pair = site.connect();
        pair.cut = cut;
        for _ in 0..3 {
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
            pair.assert_works();
        }
        // The answer takes one record, ahead of the next that is sent anyway.
        pair.client.refresh_traffic_keys().expect("TLS 1.3");
        pair.send().expect("whole records");
        let mut cipher = Vec::new();
        pair.server().seal(Some(&batch([b"x"])), &mut cipher).expect("sealed");
        assert_eq!(records(&cipher).len(), 2);
        assert_eq!(pair.take(&cipher).expect("both"), b"x");
    }
}

#[test]
fn a_half_closed_connection_can_still_be_written_to() {
    for version in BOTH {
        let mut pair = Site::new(version).connect();
        pair.write(b"all");
        pair.client.send_close_notify();
        let mut wire = pair.wire();
        // What follows is not looked at.
        wire.extend_from_slice(b"noise");
        assert!(pair.give(wire).expect("closed"), "{version:?}");
        assert_eq!(pair.received, b"all");
        pair.assert_idle();
        assert_eq!(pair.say(Some(&batch([b"bye"]))), Ok(b"bye".to_vec()));
        let mut cipher = Vec::new();
        pair.server().close(&mut cipher).expect("once");
        assert_eq!(records(&cipher).len(), 1);
        pair.take(&cipher).expect("close_notify");
        let state = pair.client.process_new_packets().expect("closed");
        assert!(state.peer_has_closed());
        pair.server().close(&mut cipher).expect("twice");
        assert_eq!(records(&cipher).len(), 1, "it is said once");
    }
}

#[test]
fn nothing_is_sealed_before_the_handshake_or_after_the_close() {
    let site = Site::new(&version::TLS13);
    let mut early = site.dial();
    let mut cipher = Vec::new();
    early.server().seal(Some(&batch([b"x"])), &mut cipher).expect_err("no keys");
    assert!(!early.server().may_close() && cipher.is_empty());
    let mut pair = site.connect();
    pair.server().close(&mut cipher).expect("once");
    let len = cipher.len();
    pair.server().seal(Some(&batch([b"x"])), &mut cipher).expect("nothing to do");
    assert_eq!(cipher.len(), len);
    // The other direction is open still.
    pair.write(b"late");
    pair.send().expect("a good record");
    assert_eq!(pair.received, b"late");
}

#[test]
fn a_ticket_resumes_the_session() {
    for version in BOTH {
        let site = Site::new(version);
        let mut first = site.connect();
        assert_eq!(first.client.handshake_kind(), Some(HandshakeKind::Full));
        first.assert_works();
        let mut second = site.connect();
        assert_eq!(second.client.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        second.assert_works();
    }
}
