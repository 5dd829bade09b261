//! Clients on the wire: they send what a test says, byte for byte, and see every packet.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use codec::binary::client::{self, ServerPacket, Tail, decode_server};
use codec::binary::stream;
use codec::{GroupId, MessageId, PublishKind, UserId};
use rustls::{ClientConnection, StreamOwned};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Error, Message, WebSocket};

use super::wire::{Got, Wire, is_timeout};
use super::{PATIENCE, SILENCE, tls};

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    ConnectAck(u8),
    Push {
        id: MessageId,
        body: Vec<u8>,
    },
    GroupPush {
        group: u32,
        id: MessageId,
        body: Vec<u8>,
    },
    Ack(PublishKind, MessageId),
    Ping,
    Disconnect,
    Invalid,
    Logout,
    /// A ws Close with its code.
    Close(Option<u16>),
    /// The end of the stream.
    End,
}

impl Seen {
    fn of(packet: &[u8]) -> Self {
        let packet = decode_server(packet);
        match packet.expect("the gateway sends only what its protocol has") {
            ServerPacket::ConnectAck(code) => Self::ConnectAck(code),
            ServerPacket::Push { id, body } => Self::Push { id, body: body.into() },
            ServerPacket::GroupPush { group, id, body } => {
                Self::GroupPush { group: group.0, id, body: body.into() }
            }
            ServerPacket::PublishAck(kind, id) => Self::Ack(kind, id),
            ServerPacket::Ping => Self::Ping,
            ServerPacket::Disconnect => Self::Disconnect,
            ServerPacket::Invalid => Self::Invalid,
            ServerPacket::Logout => Self::Logout,
        }
    }
}

/// A publish, as a client or a back end sends it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want<'a> {
    User(u32),
    Group(u32),
    Part(u32, &'a [u32]),
}

impl Want<'_> {
    pub(crate) fn kind(self) -> PublishKind {
        match self {
            Self::User(_) => PublishKind::User,
            Self::Group(_) => PublishKind::Group,
            Self::Part(..) => PublishKind::GroupPart,
        }
    }

    /// The packet.
    pub(crate) fn publish(self, id: MessageId, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let fits = match self {
            Self::User(to) => client::publish(UserId(to), &id, body, &mut out),
            Self::Group(group) => client::group_publish(GroupId(group), &id, body, &mut out),
            Self::Part(group, users) => {
                let users: Vec<UserId> = users.iter().copied().map(UserId).collect();
                client::group_part_publish(GroupId(group), &id, &users, body, &mut out)
            }
        };
        fits.expect("a test's body fits");
        out
    }
}

/// The CONNECT packet.
pub(crate) fn connect_packet(name: &str, password: &str, tail: Tail<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let fits = client::connect(name.as_bytes(), password.as_bytes(), tail, &mut out);
    fits.expect("a test's name fits");
    out
}

/// A socket, with or without TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub(crate) fn plain(to: SocketAddr) -> Self {
        Self::Plain(dial(to))
    }

    pub(crate) fn tls(to: SocketAddr, sni: bool) -> Self {
        Self::Tls(Box::new(StreamOwned::new(tls::session(sni), dial(to))))
    }

    /// As [`Stream::tls`], in TLS 1.2.
    pub(crate) fn tls_12(to: SocketAddr) -> Self {
        Self::Tls(Box::new(StreamOwned::new(tls::session_12(), dial(to))))
    }

    /// The TLS client, to do with it what an application seldom does.
    pub(crate) fn session(&mut self) -> &mut ClientConnection {
        match self {
            Self::Plain(_) => panic!("there is no TLS"),
            Self::Tls(stream) => &mut stream.conn,
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

fn dial(to: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&to, PATIENCE).expect("the gateway listens");
    socket.set_nodelay(true).expect("an option");
    socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    socket
}

/// A client of the ws or wss door. Answers the gateway's pings by itself unless told not to;
/// acknowledges pushes only when told to.
pub(crate) struct Client {
    pub(crate) socket: WebSocket<Stream>,
    /// Pings are answered and not seen.
    pub(crate) answers_pings: bool,
}

impl Client {
    /// Upgrades.
    pub(crate) fn upgrade(stream: Stream, url: &str) -> Self {
        stream.socket().set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let (socket, _) = tungstenite::client(url, stream).expect("an upgrade");
        Self { socket, answers_pings: true }
    }

    /// As [`Client::upgrade`]; `None`: the connection ended before the answer.
    pub(crate) fn try_upgrade(stream: Stream, url: &str) -> Option<Self> {
        stream.socket().set_read_timeout(Some(PATIENCE)).ok()?;
        let (socket, _) = tungstenite::client(url, stream).ok()?;
        Some(Self { socket, answers_pings: true })
    }

    /// Sends CONNECT and expects to be accepted.
    #[track_caller]
    pub(crate) fn login(&mut self, name: &str, password: &str, tail: Tail<'_>) {
        self.send(connect_packet(name, password, tail));
        self.expect_accepted();
    }

    #[track_caller]
    pub(crate) fn expect_accepted(&mut self) {
        self.expect(Seen::ConnectAck(0));
    }

    /// One packet as one binary message.
    #[track_caller]
    pub(crate) fn send(&mut self, packet: impl Into<Vec<u8>>) {
        self.socket.send(Message::binary(packet.into())).expect("the connection is open");
    }

    /// Many packets, each its own message, in one write.
    #[track_caller]
    pub(crate) fn send_together(&mut self, packets: impl IntoIterator<Item = Vec<u8>>) {
        for packet in packets {
            self.socket.write(Message::binary(packet)).expect("the connection is open");
        }
        self.socket.flush().expect("the connection is open");
    }

    /// One packet as a message of many frames, each in a write of its own.
    #[track_caller]
    pub(crate) fn send_fragmented(&mut self, packet: &[u8], piece: usize) {
        let pieces: Vec<&[u8]> = packet.chunks(piece).collect();
        for (at, data) in pieces.iter().enumerate() {
            let opcode = OpCode::Data(if at == 0 { Data::Binary } else { Data::Continue });
            let frame = Frame::message(data.to_vec(), opcode, at + 1 == pieces.len());
            self.socket.send(Message::Frame(frame)).expect("the connection is open");
        }
    }

    #[track_caller]
    pub(crate) fn publish(&mut self, to: Want<'_>, id: MessageId, body: &str) {
        self.send(to.publish(id, body.as_bytes()));
    }

    /// Publishes and expects the acknowledgement as the next packet.
    #[track_caller]
    pub(crate) fn publish_safely(&mut self, to: Want<'_>, id: MessageId, body: &str) {
        self.publish(to, id, body);
        self.expect(Seen::Ack(to.kind(), id));
    }

    /// Acknowledges a push of the form `kind`.
    #[track_caller]
    pub(crate) fn ack(&mut self, kind: PublishKind, id: MessageId) {
        let mut packet = Vec::new();
        client::ack(kind, &id, &mut packet);
        self.send(packet);
    }

    /// The next thing within `patience`; `None`: nothing came.
    pub(crate) fn see(&mut self, patience: Duration) -> Option<Seen> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let socket = self.socket.get_ref().socket();
            socket.set_read_timeout(Some(left)).expect("a time-out");
            match self.socket.read() {
                Ok(Message::Binary(packet)) => match Seen::of(&packet) {
                    Seen::Ping if self.answers_pings => {
                        let mut packet = Vec::new();
                        client::ping_resp(&mut packet);
                        // The connection may be on its way out; then its end is seen next.
                        let _ = self.socket.send(Message::binary(packet));
                    }
                    seen => return Some(seen),
                },
                Ok(Message::Close(frame)) => {
                    return Some(Seen::Close(frame.map(|frame| frame.code.into())));
                }
                Ok(Message::Pong(_)) => {}
                Ok(other) => panic!("{other:?} is nothing the gateway says"),
                Err(Error::Io(error)) if is_timeout(&error) => return None,
                Err(_) => return Some(Seen::End),
            }
        }
    }

    /// The next thing, which must come.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Seen {
        self.see(PATIENCE).expect("nothing came")
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: Seen) {
        assert_eq!(self.next(), expected);
    }

    /// Publishes to `user`, which is this client itself, and takes both the push and the
    /// acknowledgement: which comes first depends on whether the store is asked.
    #[track_caller]
    pub(crate) fn note_to_self(&mut self, user: u32, id: MessageId, body: &str) {
        self.publish(Want::User(user), id, body);
        let (push, safe) = (Seen::Push { id, body: body.into() }, Seen::Ack(PublishKind::User, id));
        let first = self.next();
        if first == push {
            self.ack(PublishKind::User, id);
            self.expect(safe);
        } else {
            assert_eq!(first, safe);
            self.expect(push);
            self.ack(PublishKind::User, id);
        }
    }

    #[track_caller]
    pub(crate) fn expect_ack(&mut self, kind: PublishKind, id: MessageId) {
        self.expect(Seen::Ack(kind, id));
    }

    #[track_caller]
    pub(crate) fn expect_push(&mut self, id: MessageId, body: &str) {
        self.expect(Seen::Push { id, body: body.into() });
    }

    /// Expects a push and acknowledges it.
    #[track_caller]
    pub(crate) fn take_push(&mut self, id: MessageId, body: &str) {
        self.expect_push(id, body);
        self.ack(PublishKind::User, id);
    }

    /// The next pushes until `count` different messages came, in their order, each acknowledged.
    #[track_caller]
    pub(crate) fn take_pushes(&mut self, count: usize) -> Vec<MessageId> {
        let mut ids = Vec::new();
        while ids.len() < count {
            match self.next() {
                Seen::Push { id, .. } | Seen::GroupPush { id, .. } => {
                    self.ack(PublishKind::User, id);
                    if !ids.contains(&id) {
                        ids.push(id);
                    }
                }
                other => panic!("{other:?} after {} pushes", ids.len()),
            }
        }
        ids
    }

    /// A ws Close with this code, and then the end of the stream.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) {
        self.expect(Seen::Close(Some(code)));
        self.expect(Seen::End);
    }

    /// Nothing comes for [`SILENCE`], pings aside.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        assert_eq!(self.see(SILENCE), None);
    }

    /// Says goodbye in ws and waits until the gateway has closed.
    #[track_caller]
    pub(crate) fn close(mut self) {
        self.socket.close(None).expect("the connection is open");
        while self.next() != Seen::End {}
    }

    /// Breaks the connection without a word.
    pub(crate) fn cut(self) {
        drop(self);
    }
}

/// A byte stream of length-prefixed packets: the publish door, or clients on plain TCP.
pub(crate) struct Door {
    pub(crate) wire: Wire,
}

impl Door {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { wire: Wire::new(stream) }
    }

    /// Packets in one write, each behind its length.
    #[track_caller]
    pub(crate) fn send<'a>(&mut self, packets: impl IntoIterator<Item = &'a [u8]>) {
        let mut out = Vec::new();
        for packet in packets {
            stream::framed(true, &mut out, |out| out.extend_from_slice(packet));
        }
        self.send_bytes(&out);
    }

    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.wire.send(bytes);
    }

    #[track_caller]
    pub(crate) fn publish(&mut self, to: Want<'_>, id: MessageId, body: &str) {
        self.send([&to.publish(id, body.as_bytes())[..]]);
    }

    /// The next thing within `patience`; `None`: nothing came.
    pub(crate) fn see(&mut self, patience: Duration) -> Option<Seen> {
        match self.wire.see(patience, |read, _| stream::frame(read))? {
            Got::Packet(packet) => Some(Seen::of(&packet)),
            Got::End => Some(Seen::End),
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: Seen) {
        assert_eq!(self.see(PATIENCE).expect("nothing came"), expected);
    }

    #[track_caller]
    pub(crate) fn expect_ack(&mut self, kind: PublishKind, id: MessageId) {
        self.expect(Seen::Ack(kind, id));
    }

    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        assert_eq!(self.see(SILENCE), None);
    }
}
