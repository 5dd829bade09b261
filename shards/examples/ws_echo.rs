//! Echoes WebSocket messages through the gateway's own engine and codec, for outside conformance
//! suites: `cargo run --release --example ws_echo -- 127.0.0.1:9001`.
//!
//! ```text
//!   Upgrade --101--> Open --peer's Close: reply--> Closing --all sent--> closed
//!      |               `----our error: Close-----> Closing --all sent, then the peer's Close, its
//!      `--refusal--------------------------------> Closing   end of stream, or LINGER_MS--> closed
//! ```
//!
//! Bounded: a message by 16 MiB; the output of a connection by one message over
//! [`OUTPUT_HIGH_WATER`], above which it is not read; the time of an upgrade, of a send without
//! progress, and of a peer's last words. Never: extensions, subprotocols, more than one thread.

use std::error::Error;
use std::net::SocketAddr;

use codec::ws::handshake::{self, HttpRefusal};
use codec::ws::{self, Event, Opcode, Payload, Role, Ws};
use codec::{CloseReason, Decoded};
use shards::io::sys::{self, ListenOptions};
use shards::io::uring::{RecvBuf, UringConfig, UringIo};
use shards::io::{Completion, Io, Piece, SendBatch, Slot, Wait};
use shards::timers::{TimerId, TimerWheel};

const MESSAGE_MAX: usize = 16 * 1024 * 1024;
/// Unsent bytes of one connection above which it is not read.
const OUTPUT_HIGH_WATER: usize = 256 * 1024;
/// Payloads up to this size are copied behind earlier output, larger ones sent from where they
/// are.
const COPY_BYTES: usize = 4 * 1024;
const UPGRADE_MS: u64 = 10_000;
/// A send that makes no progress for this long ends the connection.
const STALL_MS: u64 = 30_000;
/// How long a peer may take to answer our Close. A client that is done waits for us to end the
/// connection, so this is short.
const LINGER_MS: u64 = 500;
/// The most one wait sleeps.
const TURN_MS: u64 = 1_000;
const SIZES: UringConfig = UringConfig {
    entries: 256,
    cq_entries: 1024,
    slots: 1024,
    slot_reserve: 1,
    buffers: 128,
    buffer_size: 64 * 1024,
    accepts_per_listener: 16,
};

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let address: SocketAddr = argument.as_deref().unwrap_or("127.0.0.1:9001").parse()?;
    sys::raise_file_limit()?;
    let listener = sys::listen(address, ListenOptions::default())?;
    let bound = listener.local_addr()?.as_socket().ok_or("not an IP address")?;
    let io = UringIo::new(SIZES, vec![listener.into()])?;
    println!("listening on ws://{bound}");
    Echo::new(io).run()
}

struct Echo {
    io: UringIo,
    /// By slot index.
    conns: Vec<Option<Conn>>,
    timers: TimerWheel<Slot>,
}

struct Conn {
    generation: u32,
    phase: Phase,
    output: SendBatch,
    /// Bytes in `output` and in flight.
    unsent: usize,
    sending: bool,
    receiving: bool,
    /// Nothing more is expected of the peer.
    peer_done: bool,
    deadline: Option<TimerId>,
}

enum Phase {
    /// The upgrade request so far.
    Upgrade(Vec<u8>),
    Open(Ws),
    /// Our Close, or the refusal of the upgrade, is in the output or sent.
    Closing(Ws),
}

impl Echo {
    fn new(io: UringIo) -> Self {
        let conns = (0..io.capacity()).map(|_| None).collect();
        Self { io, conns, timers: TimerWheel::new() }
    }

    fn run(&mut self) -> ! {
        self.io.set_accepting(true);
        loop {
            while let Some(completion) = self.io.next() {
                self.completion(completion);
            }
            let now = self.io.now();
            while let Some(slot) = self.timers.expired(now) {
                if let Some(conn) = self.conn(slot) {
                    conn.deadline = None;
                    self.io.close(slot);
                }
            }
            let longest = now.plus_ms(TURN_MS);
            let next = self.timers.next_deadline().unwrap_or(longest);
            self.io.wait(Wait::Until(next.min(longest)));
        }
    }

    fn completion(&mut self, completion: Completion<RecvBuf>) {
        match completion {
            Completion::Accepted { slot, .. } => {
                self.conns[slot.index as usize] = Some(Conn::new(slot.generation));
                self.limit_time(slot, Some(UPGRADE_MS));
                self.settle(slot);
            }
            Completion::Received { slot, mut buf } => {
                if let Some(conn) = self.conn(slot) {
                    conn.receiving = false;
                    conn.input(&mut buf);
                    self.settle(slot);
                }
                self.io.recycle(buf);
            }
            Completion::ReceiveEnded { slot, .. } => {
                if let Some(conn) = self.conn(slot) {
                    conn.receiving = false;
                    conn.end_of_stream();
                    self.settle(slot);
                }
            }
            Completion::Sent { slot, bytes, batch } => {
                if let Some(conn) = self.conn(slot) {
                    conn.unsent -= bytes;
                    conn.sending = batch.is_none();
                    let stall = conn.sending.then_some(STALL_MS);
                    self.limit_time(slot, stall);
                    self.settle(slot);
                }
            }
            Completion::SendFailed { slot, .. } => self.io.close(slot),
            Completion::Closed { slot } => {
                self.limit_time(slot, None);
                self.conns[slot.index as usize] = None;
            }
            // Accepts are tried again by the engine; the others answer what is never asked.
            Completion::AcceptFailed { .. }
            | Completion::HandedIn { .. }
            | Completion::Unsent { .. }
            | Completion::HandedOver { .. }
            | Completion::Dialed { .. } => {}
        }
    }

    /// Sends what is queued, reads if there is room, closes what is over.
    fn settle(&mut self, slot: Slot) {
        let Some(conn) = self.conn(slot) else { return };
        let closing = matches!(conn.phase, Phase::Closing(_));
        if closing && conn.unsent == 0 && conn.peer_done {
            return self.io.close(slot);
        }
        let reads = !conn.receiving && !conn.peer_done && conn.unsent < OUTPUT_HIGH_WATER;
        conn.receiving |= reads;
        let batch = (!conn.sending && !conn.output.is_empty()).then(|| {
            conn.sending = true;
            std::mem::take(&mut conn.output)
        });
        let lingers = closing && conn.unsent == 0 && conn.deadline.is_none();
        if reads {
            self.io.receive(slot);
        }
        if let Some(batch) = batch {
            self.io.send(slot, batch);
            self.limit_time(slot, Some(STALL_MS));
        } else if lingers {
            self.limit_time(slot, Some(LINGER_MS));
        }
    }

    /// Replaces the connection's deadline.
    fn limit_time(&mut self, slot: Slot, ms: Option<u64>) {
        let now = self.io.now();
        let Self { conns, timers, .. } = self;
        let Some(conn) = conns[slot.index as usize].as_mut() else { return };
        if let Some(timer) = conn.deadline.take() {
            timers.cancel(timer);
        }
        conn.deadline = ms.map(|ms| timers.arm(slot, now.plus_ms(ms)));
    }

    fn conn(&mut self, slot: Slot) -> Option<&mut Conn> {
        let conn = self.conns[slot.index as usize].as_mut()?;
        (conn.generation == slot.generation).then_some(conn)
    }
}

impl Conn {
    fn new(generation: u32) -> Self {
        Self {
            generation,
            phase: Phase::Upgrade(Vec::new()),
            output: SendBatch::default(),
            unsent: 0,
            sending: false,
            receiving: false,
            peer_done: false,
            deadline: None,
        }
    }

    fn input(&mut self, bytes: &mut [u8]) {
        match std::mem::replace(&mut self.phase, Phase::Closing(Ws::new(Role::Server))) {
            Phase::Upgrade(head) => self.upgrade(head, bytes),
            Phase::Open(ws) => self.frames(ws, bytes),
            Phase::Closing(ws) => self.last_words(ws, bytes),
        }
    }

    /// The peer sends nothing more. Without a Close it is gone altogether.
    fn end_of_stream(&mut self) {
        self.peer_done = true;
        if !matches!(self.phase, Phase::Closing(_)) {
            self.phase = Phase::Closing(Ws::new(Role::Server));
            self.unsent -= self.output.len();
            self.output = SendBatch::default();
        }
    }

    fn upgrade(&mut self, mut head: Vec<u8>, bytes: &[u8]) {
        let seen = head.len();
        head.extend_from_slice(bytes);
        let path = path_of(&head).to_owned();
        match handshake::parse_upgrade(&head, seen, &[path]) {
            Ok(Decoded::NeedMore { .. } | Decoded::Unsure) => self.phase = Phase::Upgrade(head),
            Ok(Decoded::Frame { value, consumed }) => {
                self.write(|out| handshake::write_accept(out, value.key, None));
                self.frames(Ws::new(Role::Server), &mut head[consumed..]);
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn refuse(&mut self, refusal: HttpRefusal) {
        self.write(|out| refusal.write(out));
        self.phase = Phase::Closing(Ws::new(Role::Server));
    }

    fn frames(&mut self, mut ws: Ws, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match ws.decode(&mut bytes[at..], MESSAGE_MAX) {
                Ok(step) => {
                    at += step.consumed;
                    if let Some(event) = step.event {
                        self.event(event);
                    }
                }
                Err(error) => {
                    let code = CloseReason::from(error).ws_code();
                    self.write(|out| ws::encode_close(out, code, None));
                    // What follows a broken frame may be anything; a Close sent in answer to ours
                    // begins anew.
                    self.phase = Phase::Closing(Ws::new(Role::Server));
                    return;
                }
            }
        }
        self.phase = if self.peer_done { Phase::Closing(ws) } else { Phase::Open(ws) };
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Message { opcode, payload: Payload::Owned(payload) }
                if payload.len() > COPY_BYTES =>
            {
                self.write(|out| ws::encode_header(out, opcode, None, payload.len()));
                self.unsent += payload.len();
                self.output.pieces.push(Piece::Owned(payload));
            }
            Event::Message { opcode, payload } => self.write(|out| {
                ws::encode(out, opcode, None, payload.len(), |out| out.extend_from_slice(&payload));
            }),
            Event::Ping(payload) => {
                self.write(|out| ws::encode_control(out, Opcode::Pong, &payload, None));
            }
            Event::Pong(_) => {}
            Event::Close { code, .. } => {
                self.peer_done = true;
                self.write(|out| ws::encode_close(out, code, None));
            }
        }
    }

    /// Looks for the peer's Close in what comes after ours.
    fn last_words(&mut self, mut ws: Ws, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let Ok(step) = ws.decode(&mut bytes[at..], MESSAGE_MAX) else {
                ws = Ws::new(Role::Server);
                break;
            };
            at += step.consumed;
            self.peer_done |= matches!(step.event, Some(Event::Close { .. }));
        }
        self.phase = Phase::Closing(ws);
    }

    /// Appends to the output.
    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let pieces = &mut self.output.pieces;
        let mut tail = match pieces.pop() {
            Some(Piece::Owned(bytes)) if bytes.len() < OUTPUT_HIGH_WATER => bytes,
            piece => {
                pieces.extend(piece);
                Vec::new()
            }
        };
        let before = tail.len();
        write(&mut tail);
        self.unsent += tail.len() - before;
        pieces.push(Piece::Owned(tail));
    }
}

/// The path that a request asks for, so that every path is accepted. Empty while it is not there.
fn path_of(head: &[u8]) -> &str {
    let target = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    std::str::from_utf8(path).unwrap_or_default()
}
