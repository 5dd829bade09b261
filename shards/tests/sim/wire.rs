//! A client's framing: WebSocket, or lengths of either kind on a byte stream.
//!
//! Written apart from the gateway's own, from RFC 6455, so that a mistake made on both sides does
//! not cancel itself out; and strict about everything the gateway may not send.

use shards::io::sim::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Ws,
    /// Lengths of four bytes.
    Tcp,
    /// Lengths as varints, which is how protobuf streams have them.
    Varint,
}

/// What has come from the gateway.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The upgrade was accepted.
    Upgraded,
    Packet(Vec<u8>),
    /// A ws Close with this code.
    Close(u16),
}

#[derive(Debug)]
pub struct Wire {
    transport: Transport,
    upgraded: bool,
    input: Vec<u8>,
}

impl Wire {
    pub fn new(transport: Transport) -> Self {
        Self { transport, upgraded: transport != Transport::Ws, input: Vec::new() }
    }

    /// What the client sends first.
    pub fn hello(&self) -> Vec<u8> {
        match self.transport {
            Transport::Ws => REQUEST.to_vec(),
            Transport::Tcp | Transport::Varint => Vec::new(),
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next thing that has come whole.
    pub fn next(&mut self) -> Result<Option<Incoming>, String> {
        match (self.transport, self.upgraded) {
            (Transport::Ws, false) => self.next_upgrade(),
            (Transport::Ws, true) => self.next_frame(),
            (Transport::Tcp, _) => Ok(self.next_stream()),
            (Transport::Varint, _) => Ok(self.next_varint()),
        }
    }

    /// One packet as it goes out.
    pub fn packet(&self, packet: &[u8], rng: &mut Rng) -> Vec<u8> {
        let mut out = Vec::new();
        match self.transport {
            Transport::Tcp => {
                out.extend((packet.len() as u32).to_be_bytes());
                out.extend(packet);
            }
            Transport::Varint => {
                let mut len = packet.len();
                while len >= 0x80 {
                    out.push(len as u8 | 0x80);
                    len >>= 7;
                }
                out.push(len as u8);
                out.extend(packet);
            }
            Transport::Ws if packet.len() > 1 && rng.chance(50_000) => {
                let (first, second) = packet.split_at(1 + rng.index(packet.len() - 1));
                put_frame(BINARY, false, first, rng, &mut out);
                put_frame(PING, true, b"still here", rng, &mut out);
                put_frame(CONTINUATION, true, second, rng, &mut out);
            }
            Transport::Ws => put_frame(BINARY, true, packet, rng, &mut out),
        }
        out
    }

    /// The answer to a Close of the gateway, or the client's own.
    pub fn close(&self, code: u16, rng: &mut Rng) -> Vec<u8> {
        let mut out = Vec::new();
        if self.transport == Transport::Ws && self.upgraded {
            put_frame(CLOSE, true, &code.to_be_bytes(), rng, &mut out);
        }
        out
    }

    fn next_upgrade(&mut self) -> Result<Option<Incoming>, String> {
        let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head: Vec<u8> = self.input.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let accept = format!("sec-websocket-accept: {}", ACCEPT.to_ascii_lowercase());
        if !head.starts_with("http/1.1 101 ") || !head.contains(&accept) {
            return Err(format!("the upgrade was answered by {head:?}"));
        }
        self.upgraded = true;
        Ok(Some(Incoming::Upgraded))
    }

    fn next_frame(&mut self) -> Result<Option<Incoming>, String> {
        loop {
            let Some((opcode, body)) = self.take_frame()? else { return Ok(None) };
            return match opcode {
                BINARY => Ok(Some(Incoming::Packet(body))),
                // The answer to the ping between two fragments.
                PONG if body == b"still here" => continue,
                CLOSE => {
                    let code = body.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    Ok(Some(Incoming::Close(code)))
                }
                other => Err(format!("a frame with opcode {other} and {body:?}")),
            };
        }
    }

    fn take_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        let [first, second, rest @ ..] = &self.input[..] else { return Ok(None) };
        let (first, second) = (*first, *second);
        if first & 0xf0 != 0x80 || second & 0x80 != 0 {
            return Err(format!("a frame that begins with {first:02x} {second:02x}"));
        }
        let (header, len) = match (second, rest) {
            (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            (126, _) => return Ok(None),
            (127, _) => return Err("a frame of 64 KiB or more".to_owned()),
            (len, _) => (2, usize::from(len)),
        };
        if header == 4 && len < 126 {
            return Err(format!("the length {len} in two bytes"));
        }
        if self.input.len() < header + len {
            return Ok(None);
        }
        let body = self.input[header..header + len].to_vec();
        self.input.drain(..header + len);
        Ok(Some((first & 0x0f, body)))
    }

    fn next_stream(&mut self) -> Option<Incoming> {
        let len = u32::from_be_bytes(*self.input.first_chunk()?) as usize;
        let body = self.input.get(4..4 + len)?.to_vec();
        self.input.drain(..4 + len);
        Some(Incoming::Packet(body))
    }

    fn next_varint(&mut self) -> Option<Incoming> {
        let last = self.input.iter().position(|byte| *byte < 0x80)?;
        let sevens = self.input[..=last].iter().rev();
        let len = sevens.fold(0, |len, byte| len << 7 | usize::from(byte & 0x7f));
        let body = self.input.get(last + 1..last + 1 + len)?.to_vec();
        self.input.drain(..last + 1 + len);
        Some(Incoming::Packet(body))
    }
}

fn put_frame(opcode: u8, last: bool, body: &[u8], rng: &mut Rng, out: &mut Vec<u8>) {
    out.push(u8::from(last) << 7 | opcode);
    match body.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(len).expect("packets are short").to_be_bytes());
        }
    }
    let mask = (rng.next_u64() as u32).to_be_bytes();
    out.extend(mask);
    out.extend(body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The key and its answer are the example of RFC 6455 section 1.3.
const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
