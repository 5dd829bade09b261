//! The bound of a shard's publishes that are not safe: what comes on top waits in the sockets, and
//! is taken up again in the order in which it was left.
//!
//! Method: one real shard on each engine, more senders than the bound has room for, all to
//! somebody who is away, and a store that answers nothing until it is told to. All on this thread.

mod common;
#[path = "common/loopback.rs"]
mod loopback;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use codec::binary::client::{self, ServerPacket, Tail};
use codec::binary::stream;
use codec::{Decoded, MessageId, ProtocolId, PublishKind, UserId};
use crossbeam_channel::{Sender, bounded, unbounded};
use shards::io::epoll::EpollIo;
use shards::io::uring::UringIo;
use shards::io::{Engine, Sizes};
use shards::limits::PUBLISHES_OUTSTANDING_SHARD;
use shards::{Backend, Control, Shard, Snapshot};
use storage::{Reply, Request};

#[test]
fn publishers_over_the_bound_wait_and_go_on_in_their_order_on_io_uring() {
    publishers_over_the_bound_wait_and_go_on_in_their_order::<UringIo>();
}

#[test]
fn publishers_over_the_bound_wait_and_go_on_in_their_order_on_epoll() {
    publishers_over_the_bound_wait_and_go_on_in_their_order::<EpollIo>();
}

fn publishers_over_the_bound_wait_and_go_on_in_their_order<E: Engine>() {
    const { assert!(SENDERS as usize * PUBLISHES > PUBLISHES_OUTSTANDING_SHARD) };
    let mut gateway = Gateway::<E>::start();
    let mut senders: Vec<Client> =
        (1..=SENDERS).map(|user| Client::login(&mut gateway, user)).collect();
    senders.iter_mut().for_each(|sender| sender.publish_all());

    let full = gateway.turn_until(|snapshot| snapshot.publishers_held > 0);
    // Nothing more comes of the others either: all has been read that will be.
    let full = gateway.turn_until(|snapshot| snapshot.counters.turns > full.counters.turns + 200);
    let unsafe_now = full.gauges.publishes as usize;
    assert!(unsafe_now > PUBLISHES_OUTSTANDING_SHARD, "{unsafe_now}");
    // Each sender may be one publish over the bound: it is held for it.
    assert!(unsafe_now <= PUBLISHES_OUTSTANDING_SHARD + SENDERS as usize, "{unsafe_now}");
    assert!(full.counters.publishers_held > 0);
    let before = std::mem::take(&mut gateway.store.borrow_mut().senders);
    let held = in_order_of_last(&before);
    assert_eq!(held.len() as u64, full.publishers_held, "who is not done is held");

    gateway.store.borrow_mut().answers = true;
    for sender in &mut senders {
        sender.expect_all(&mut gateway);
    }
    let after = &gateway.store.borrow().senders;
    assert_eq!(in_order_of_first(after), held, "first held, first resumed");
    assert_eq!(before.len() + after.len(), SENDERS as usize * PUBLISHES);
}

/// Senders whose publishes are not all there, by their last one.
fn in_order_of_last(senders: &[u32]) -> Vec<u32> {
    let mut seen: Vec<u32> = Vec::new();
    for sender in senders.iter().rev() {
        if !seen.contains(sender) {
            seen.push(*sender);
        }
    }
    seen.reverse();
    seen.retain(|user| senders.iter().filter(|sender| *sender == user).count() < PUBLISHES);
    seen
}

fn in_order_of_first(senders: &[u32]) -> Vec<u32> {
    let mut seen = Vec::new();
    for sender in senders {
        if !seen.contains(sender) {
            seen.push(*sender);
        }
    }
    seen
}

/// Lets everybody in, and answers appends once it may.
#[derive(Debug, Default)]
struct Store {
    answers: bool,
    replies: VecDeque<Reply>,
    waiting: VecDeque<Reply>,
    /// Whose messages were appended, in order.
    senders: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
struct Clerk(std::rc::Rc<std::cell::RefCell<Store>>);

impl Backend for Clerk {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let mut store = self.0.borrow_mut();
        match loopback::login_reply(request) {
            Ok(reply) => store.replies.push_back(reply),
            Err(Request::Append(append)) => {
                let sender = append.message.from.expect("a user's").id.0;
                store.senders.push(sender);
                let (user, seq) = (append.user, append.seq);
                store.waiting.push_back(Reply::Appended { user, seq, result: Ok(()) });
            }
            Err(other) => panic!("nobody asks for that: {other:?}"),
        }
        Ok(())
    }

    fn poll(&mut self) -> Option<Reply> {
        let mut store = self.0.borrow_mut();
        let answers = store.answers;
        let waiting = if answers { store.waiting.pop_front() } else { None };
        waiting.or_else(|| store.replies.pop_front())
    }

    fn load(&self) -> f32 {
        0.0
    }
}

struct Gateway<E: Engine> {
    shard: Shard<E, Clerk>,
    store: std::rc::Rc<std::cell::RefCell<Store>>,
    control: Sender<Control>,
    address: SocketAddr,
}

impl<E: Engine> Gateway<E> {
    fn start() -> Self {
        let (control, receiver) = unbounded();
        let clerk = Clerk::default();
        let store = std::rc::Rc::clone(&clerk.0);
        let config = common::config(ProtocolId::Binary);
        let (shard, address) = loopback::start(config, SIZES, clerk, receiver);
        Self { shard, store, control, address }
    }

    fn turn_until(&mut self, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
        for _ in 0..TURNS_MAX {
            let (reply, answer) = bounded(1);
            self.control.send(Control::Snapshot(reply)).expect("it runs");
            self.shard.turn();
            let snapshot = answer.recv().expect("answered in the turn");
            if done(&snapshot) {
                return snapshot;
            }
        }
        panic!("not within {TURNS_MAX} turns");
    }
}

/// A client on the thread of the shard: while it waits, the shard takes its turns.
struct Client {
    user: u32,
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    fn login<E: Engine>(gateway: &mut Gateway<E>, user: u32) -> Self {
        let stream = TcpStream::connect(gateway.address).expect("connected");
        stream.set_nonblocking(true).expect("an option");
        let mut client = Self { user, stream, input: Vec::new() };
        let name = user.to_string();
        client.send(|out| client::connect(name.as_bytes(), b"x", Tail::Plain, out));
        let accepted = ServerPacket::ConnectAck(codec::binary::code::ACCEPTED);
        let answer = client.packet(gateway);
        assert_eq!(client::decode_server(&answer), Ok(accepted));
        client
    }

    fn publish_all(&mut self) {
        for number in 0..PUBLISHES {
            let id = id(self.user, number);
            self.send(|out| client::publish(ABSENT, &id, b"later", out));
        }
    }

    fn expect_all<E: Engine>(&mut self, gateway: &mut Gateway<E>) {
        for number in 0..PUBLISHES {
            let packet = self.packet(gateway);
            let expected = ServerPacket::PublishAck(PublishKind::User, id(self.user, number));
            assert_eq!(client::decode_server(&packet), Ok(expected), "user {}", self.user);
        }
    }

    fn send(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), client::TooLong>) {
        let mut out = Vec::new();
        stream::framed(true, &mut out, write).expect("short");
        self.stream.write_all(&out).expect("the socket has room");
    }

    /// The next packet.
    fn packet<E: Engine>(&mut self, gateway: &mut Gateway<E>) -> Vec<u8> {
        loop {
            let found = stream::frame(&self.input).expect("the gateway's frames are right");
            if let Decoded::Frame { value, consumed } = found {
                let packet = self.input[value].to_vec();
                self.input.drain(..consumed);
                return packet;
            }
            let mut bytes = [0; 32 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the gateway hung up"),
                Ok(len) => self.input.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    gateway.turn_until(|_| true);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn id(user: u32, number: usize) -> MessageId {
    let text = format!("{user:016x}{number:016x}");
    let id: [u8; 32] = text.as_bytes().try_into().expect("32 digits");
    id.into()
}

/// Each below the bound of one connection, all together above that of the shard.
const PUBLISHES: usize = 250;
const SENDERS: u32 = 80;
const ABSENT: UserId = UserId(999);
const TURNS_MAX: u32 = 1_000_000;
const SIZES: Sizes = Sizes {
    slots: 128,
    slot_reserve: 1,
    buffers: 128,
    buffer_size: 4 * 1024,
    accepts_per_listener: 2,
};
