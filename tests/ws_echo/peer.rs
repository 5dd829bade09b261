//! The example as a child process, and a client of raw frames written from RFC 6455 apart from
//! the codec, strict about what a server may send.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tungstenite::WebSocket;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The running example; killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Self {
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
        let example = profile.join("examples/ws_echo");
        let mut child = Command::new(&example)
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; build it: cargo build --example ws_echo", example.display())
            });
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().rsplit('/').next().expect("an address").parse();
        Self { child, address: address.unwrap_or_else(|_| panic!("it said {line:?}")) }
    }

    pub(crate) fn tungstenite(&self) -> WebSocket<TcpStream> {
        let url = format!("ws://{}/echo", self.address);
        tungstenite::client(url, self.dial()).expect("an upgrade").0
    }

    pub(crate) fn peer(&self) -> Peer {
        let mut peer = Peer { stream: self.dial() };
        peer.send(UPGRADE);
        peer.expect_upgraded();
        peer
    }

    /// A peer whose upgrade request, too, came byte by byte.
    pub(crate) fn peer_byte_by_byte(&self) -> Peer {
        let mut peer = Peer { stream: self.dial() };
        peer.send_byte_by_byte(UPGRADE);
        peer.expect_upgraded();
        peer
    }

    /// The whole answer to bytes that are no upgrade.
    pub(crate) fn http(&self, request: &str) -> String {
        let mut stream = self.dial();
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer and the end");
        answer
    }

    fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("an option");
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without a test that still runs nobody waits for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a Close, if it has one.
    pub(crate) fn close_code(&self) -> Option<u16> {
        assert_eq!(self.opcode, CLOSE, "{} bytes instead of a Close", self.payload.len());
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// One upgraded connection.
pub(crate) struct Peer {
    stream: TcpStream,
}

impl Peer {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    pub(crate) fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(&[*byte]);
        }
    }

    /// Writes `message` over and over until the socket takes nothing for a while or `most` bytes
    /// are out. How many were taken.
    pub(crate) fn send_until_blocked(&mut self, message: &[u8], most: usize) -> usize {
        let blocked = Some(Duration::from_millis(500));
        self.stream.set_write_timeout(blocked).expect("a time-out");
        let mut sent = 0;
        while sent < most {
            match self.stream.write(&message[sent % message.len()..]) {
                Ok(bytes) => sent += bytes,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => break,
                Err(error) => panic!("{error} after {sent} bytes"),
            }
        }
        self.stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        sent
    }

    /// The next frame; `None`: the server has ended the connection, and not by a reset.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut start = [0; 2];
        if self.stream.read(&mut start[..1]).expect("a frame or the end") == 0 {
            return None;
        }
        self.fill(&mut start[1..]);
        assert_eq!(start[0] & 0xf0, 0x80, "FIN and no reserved bits");
        assert_eq!(start[1] & 0x80, 0, "a server does not mask");
        let len = match start[1] {
            126 => {
                let mut len = [0; 2];
                self.fill(&mut len);
                usize::from(u16::from_be_bytes(len))
            }
            127 => {
                let mut len = [0; 8];
                self.fill(&mut len);
                usize::try_from(u64::from_be_bytes(len)).expect("a length")
            }
            len => usize::from(len),
        };
        let shortest = match len {
            0..=125 => len as u8,
            126..=65_535 => 126,
            _ => 127,
        };
        assert_eq!(start[1], shortest, "the shortest form of {len}");
        let mut payload = vec![0; len];
        self.fill(&mut payload);
        Some(Frame { opcode: start[0] & 0x0f, payload })
    }

    /// Answers a Close of the server.
    pub(crate) fn answer_close(&mut self) {
        self.send(&frame(true, CLOSE, &1000_u16.to_be_bytes()));
    }

    /// The whole closing handshake: nothing else is on its way.
    pub(crate) fn close(mut self) {
        self.answer_close();
        assert_eq!(self.read().and_then(|frame| frame.close_code()), Some(1000));
        assert_eq!(self.read(), None);
    }

    fn expect_upgraded(&mut self) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.fill(&mut byte);
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        self.stream.read_exact(bytes).expect("the rest");
    }
}

/// A masked frame with the shortest length.
pub(crate) fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0xa5, 0x01, 0xff, 0x3c];
    let mut out = vec![u8::from(fin) << 7 | opcode];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// Far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The key and its answer are the example of RFC 6455 section 1.3.
const UPGRADE: &[u8] = b"GET /any/path?query=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
