//! What a relayed message costs in allocations: the shared message, and nothing else.
//!
//! Goal: invariant 10, "a payload is copied once into the shared message that is routed". Method:
//! one real shard on each engine, two real clients on this very thread, and a counter of
//! this thread's allocations that runs only during the shard's turns.

mod common;
#[path = "common/loopback.rs"]
mod loopback;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use codec::binary::client::{self, ServerPacket, Tail};
use codec::ws::{self, Opcode};
use codec::{MessageId, ProtocolId, PublishKind, UserId};
use crossbeam_channel::bounded;
use shards::io::epoll::EpollIo;
use shards::io::uring::UringIo;
use shards::io::{Engine, Sizes};
use shards::limits::DEDUP_IDS;
use shards::{Backend, Shard};
use storage::{Reply, Request};

/// The counted block of the shared message, and its body.
const SHARED_MESSAGE: u64 = 2;
/// What puts a frame in two receives together: its state, and the payload in a buffer that has
/// room for the rest because more than half of it came first.
const SPLIT_FRAME: u64 = 2;
/// Tables grow in chunks: so many allocations of a thousand messages may be nobody's.
const SLACK: u64 = 10;
const MESSAGES: u64 = 1_000;

/// Makes a test of each property for each engine.
macro_rules! on_every_engine {
    ($($property:ident,)+) => {$(
        mod $property {
            #[test]
            fn uring() {
                super::$property::<super::UringIo>();
            }

            #[test]
            fn epoll() {
                super::$property::<super::EpollIo>();
            }
        }
    )+};
}

on_every_engine! {
    a_message_relayed_alone_costs_its_shared_form,
    messages_relayed_together_cost_no_more,
    only_a_frame_in_two_receives_is_copied_once_more,
}

fn a_message_relayed_alone_costs_its_shared_form<E: Engine>() {
    for body_len in [1, 100, 1_000, 4_000] {
        let mut pair = Pair::<E>::connect(body_len);
        let cost = pair.cost_of(|pair| {
            (0..MESSAGES).for_each(|_| pair.relay(1, Split::Whole));
        });
        assert_cost(cost, SHARED_MESSAGE, body_len);
    }
}

fn messages_relayed_together_cost_no_more<E: Engine>() {
    for body_len in [100, 400] {
        let mut pair = Pair::<E>::connect(body_len);
        let cost = pair.cost_of(|pair| {
            (0..MESSAGES / 20).for_each(|_| pair.relay(20, Split::Whole));
        });
        assert_cost(cost, SHARED_MESSAGE, body_len);
    }
}

fn only_a_frame_in_two_receives_is_copied_once_more<E: Engine>() {
    for body_len in [100, 4_000] {
        let mut pair = Pair::<E>::connect(body_len);
        let cost = pair.cost_of(|pair| {
            (0..MESSAGES).for_each(|_| pair.relay(1, Split::InTwo));
        });
        assert_cost(cost, SHARED_MESSAGE + SPLIT_FRAME, body_len);
    }
}

fn assert_cost(cost: Cost, per_message: u64, body_len: usize) {
    println!("{body_len} bytes: {cost:?} for {MESSAGES} messages");
    let expected = per_message * MESSAGES;
    assert!(
        (expected..=expected + SLACK).contains(&cost.allocations),
        "{body_len} bytes: {cost:?} for {MESSAGES} messages, {per_message} allocations each"
    );
}

/// What the shard's turns allocated.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    allocations: u64,
    bytes: u64,
}

/// How a publish arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Split {
    Whole,
    /// In two receives, the first of them three quarters.
    InTwo,
}

/// A shard with two users on it.
struct Pair<E: Engine> {
    gateway: Gateway<E>,
    sender: Client,
    recipient: Client,
    body: Vec<u8>,
    next_id: u64,
}

impl<E: Engine> Pair<E> {
    fn connect(body_len: usize) -> Self {
        let mut gateway = Gateway::start();
        let sender = Client::login(&mut gateway, SENDER);
        let recipient = Client::login(&mut gateway, RECIPIENT);
        Self { gateway, sender, recipient, body: vec![b'x'; body_len], next_id: 0 }
    }

    /// Of `run`, once everything that is kept for reuse is there: the sender's window of ids is
    /// full by then.
    fn cost_of(&mut self, run: impl Fn(&mut Self)) -> Cost {
        while self.next_id <= DEDUP_IDS as u64 * 2 {
            run(self);
        }
        self.gateway.cost = Cost::default();
        run(self);
        self.gateway.cost
    }

    /// `count` publishes in one write, pushed, acknowledged, and acknowledged to the sender.
    fn relay(&mut self, count: usize, split: Split) {
        let ids: Vec<MessageId> = (0..count).map(|_| self.id()).collect();
        let mut publishes = Vec::new();
        for id in &ids {
            let mut packet = Vec::new();
            client::publish(RECIPIENT, id, &self.body, &mut packet).expect("a short body");
            put_frame(&packet, &mut publishes);
        }
        match split {
            Split::Whole => self.sender.send(&publishes),
            Split::InTwo => {
                let (first, second) = publishes.split_at(publishes.len() * 3 / 4);
                self.sender.send_and_see_received(first, &mut self.gateway);
                self.sender.send(second);
            }
        }
        let mut acks = Vec::new();
        for id in &ids {
            let packet = self.recipient.packet(&mut self.gateway);
            let expected = ServerPacket::Push { id: *id, body: &self.body };
            assert_eq!(client::decode_server(&packet), Ok(expected));
            let mut ack = Vec::new();
            client::ack(PublishKind::User, id, &mut ack);
            put_frame(&ack, &mut acks);
        }
        self.recipient.send(&acks);
        for id in &ids {
            let packet = self.sender.packet(&mut self.gateway);
            let expected = ServerPacket::PublishAck(PublishKind::User, *id);
            assert_eq!(client::decode_server(&packet), Ok(expected));
        }
    }

    fn id(&mut self) -> MessageId {
        self.next_id += 1;
        let text = format!("{:032x}", self.next_id);
        let id: [u8; 32] = text.as_bytes().try_into().expect("32 digits");
        id.into()
    }
}

struct Gateway<E: Engine> {
    shard: Shard<E, Clerk>,
    address: SocketAddr,
    cost: Cost,
}

impl<E: Engine> Gateway<E> {
    fn start() -> Self {
        let mut config = common::config(ProtocolId::Binary);
        config.listeners[0].ws_paths = Some(vec!["/ws".to_owned()]);
        let (_, control) = bounded(1);
        let (shard, address) = loopback::start(config, SIZES, Clerk::default(), control);
        Self { shard, address, cost: Cost::default() }
    }

    /// One turn, counted.
    fn turn(&mut self) {
        let counted = allocation_counter::measure(|| {
            self.shard.turn();
        });
        self.cost.allocations += counted.count_total;
        self.cost.bytes += counted.bytes_total;
    }
}

/// Lets everybody in, and has nothing stored.
#[derive(Default)]
struct Clerk {
    replies: VecDeque<Reply>,
}

impl Backend for Clerk {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let reply = loopback::login_reply(request);
        self.replies.push_back(reply.expect("everything is acknowledged at once"));
        Ok(())
    }

    fn poll(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    fn load(&self) -> f32 {
        0.0
    }
}

/// A client on the thread of the shard: while it waits, the shard takes its turns.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    fn login<E: Engine>(gateway: &mut Gateway<E>, user: UserId) -> Self {
        let stream = TcpStream::connect(gateway.address).expect("connected");
        stream.set_nodelay(true).expect("an option");
        stream.set_nonblocking(true).expect("an option");
        let mut client = Self { stream, input: Vec::new() };
        client.send(UPGRADE);
        while !client.input.ends_with(b"\r\n\r\n") {
            gateway.turn();
            client.read();
        }
        client.input.clear();
        let (mut packet, mut frame) = (Vec::new(), Vec::new());
        let name = user.0.to_string();
        client::connect(name.as_bytes(), b"secret", Tail::Plain, &mut packet).expect("short");
        put_frame(&packet, &mut frame);
        client.send(&frame);
        let answer = client.packet(gateway);
        let accepted = ServerPacket::ConnectAck(codec::binary::code::ACCEPTED);
        assert_eq!(client::decode_server(&answer), Ok(accepted));
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the socket has room");
    }

    /// Sends bytes behind a ping: once it is answered they, too, have been received.
    fn send_and_see_received<E: Engine>(&mut self, bytes: &[u8], gateway: &mut Gateway<E>) {
        let mut out = Vec::new();
        ws::encode_control(&mut out, Opcode::Ping, b"", KEY);
        out.extend_from_slice(bytes);
        self.send(&out);
        assert_eq!(self.frame(gateway), (PONG, Vec::new()));
    }

    /// The next packet.
    fn packet<E: Engine>(&mut self, gateway: &mut Gateway<E>) -> Vec<u8> {
        let (first, packet) = self.frame(gateway);
        assert_eq!(first, BINARY, "one binary frame per packet");
        packet
    }

    /// The first byte and the payload of the next frame.
    fn frame<E: Engine>(&mut self, gateway: &mut Gateway<E>) -> (u8, Vec<u8>) {
        loop {
            if let Some(frame) = self.take_frame() {
                return frame;
            }
            if !self.read() {
                gateway.turn();
            }
        }
    }

    fn read(&mut self) -> bool {
        let mut bytes = [0; 32 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => panic!("the gateway hung up"),
            Ok(len) => self.input.extend_from_slice(&bytes[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        true
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let &[first, len, ..] = &self.input[..] else { return None };
        let (start, len) = match len {
            126 => (4, usize::from(u16::from_be_bytes(*self.input[2..].first_chunk()?))),
            len => (2, usize::from(len)),
        };
        let packet = self.input.get(start..start + len)?.to_vec();
        self.input.drain(..start + len);
        Some((first, packet))
    }
}

fn put_frame(packet: &[u8], out: &mut Vec<u8>) {
    ws::encode(out, Opcode::Binary, KEY, packet.len(), |out| out.extend_from_slice(packet));
}

/// First bytes of whole frames.
const BINARY: u8 = 0x82;
const PONG: u8 = 0x8a;
const KEY: Option<[u8; 4]> = Some([0x11, 0x22, 0x33, 0x44]);
const SENDER: UserId = UserId(1);
const RECIPIENT: UserId = UserId(2);
const SIZES: Sizes = Sizes {
    slots: 64,
    slot_reserve: 1,
    buffers: 16,
    buffer_size: 16 * 1024,
    accepts_per_listener: 2,
};
const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
