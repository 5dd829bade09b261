//! The binary system over WebSocket or on a byte stream: upgrade, CONNECT, PUBLISH,
//! acknowledgements, pings.
//!
//! Owns: the order of the login and what is answered to a push. Never: wire layouts (`codec` has
//! them), counting.

use super::message_id::Key;
use super::{Arrival, Client, Endpoint, Event, Login, Parsed, Refused, Target};
use codec::binary::client::{self as packet, ServerPacket, Tail};
use codec::binary::stream;
use codec::error::Decoded;
use codec::ws::handshake::client::{parse_response, write_request};
use codec::ws::{self, Opcode, Payload, Role, Ws};
use codec::{GroupId, MessageId, PublishKind, UserId};
use std::borrow::Cow;

/// One session.
#[derive(Debug)]
pub(crate) struct Binary {
    login: Login,
    stage: Stage,
    /// The state of the generator of keys: ours need not be secret, only never the same.
    random: u64,
}

#[derive(Debug)]
enum Stage {
    /// Waits for the answer to an upgrade request with this key.
    Upgrading([u8; 16]),
    Open(Ws),
    /// Without WebSocket.
    Stream,
}

impl Client for Binary {
    fn new(login: Login) -> Self {
        let mut client = Self {
            login,
            stage: Stage::Upgrading([0; 16]),
            random: u64::from(login.run) << 32 | u64::from(login.user),
        };
        client.stage = Stage::Upgrading(std::array::from_fn(|_| client.key()[0]));
        client
    }

    fn hello(&mut self, endpoint: &Endpoint, out: &mut Vec<u8>) {
        if !endpoint.ws {
            self.stage = Stage::Stream;
            self.connect(out);
        } else if let Stage::Upgrading(key) = self.stage {
            write_request(out, &endpoint.host, &endpoint.path, key, None);
        }
    }

    fn next<'a>(&mut self, input: &'a mut [u8], out: &mut Vec<u8>) -> Parsed<'a> {
        let step = match &mut self.stage {
            Stage::Upgrading(key) => match parse_response(input, *key, None) {
                Err(why) => return Err(Refused::Upgrade(why)),
                Ok(Decoded::NeedMore { .. } | Decoded::Unsure) => return Ok(None),
                Ok(Decoded::Frame { consumed, .. }) => {
                    self.stage = Stage::Open(Ws::new(Role::Client));
                    self.connect(out);
                    return Ok(Some((consumed, Event::Nothing)));
                }
            },
            Stage::Open(ws) => ws.decode(input, MESSAGE_MAX),
            Stage::Stream => return self.next_of_stream(input, out),
        };
        let step = step.map_err(|why| Refused::Malformed(why.label()))?;
        let event = match step.event {
            None | Some(ws::Event::Pong(_)) => Event::Nothing,
            Some(ws::Event::Ping(payload)) => {
                ws::encode_control(out, Opcode::Pong, &payload, Some(self.key()));
                Event::Nothing
            }
            Some(ws::Event::Close { .. }) => return Err(Refused::Goodbye),
            Some(ws::Event::Message { payload: Payload::Borrowed(bytes), .. }) => {
                self.handle(bytes, out)?
            }
            Some(ws::Event::Message { payload: Payload::Owned(bytes), .. }) => {
                self.handle(&bytes, out)?.into_owned()
            }
        };
        Ok(Some((step.consumed, event)))
    }

    fn publish(&mut self, to: Target, slot: u16, seq: u64, payload: &[u8], out: &mut Vec<u8>) {
        let Login { run, user: sender, .. } = self.login;
        let id = Key { run, sender, slot, seq }.encode();
        self.send(PUBLISH_HEAD + payload.len(), out, |out| {
            match to {
                Target::User(user) => packet::publish(UserId(user), &id, payload, out),
                Target::Group(group) => packet::group_publish(GroupId(group), &id, payload, out),
            }
            .expect("the command line bounds payloads to 32,767 bytes");
        });
    }

    fn goodbye(&mut self, out: &mut Vec<u8>) {
        self.send(1, out, packet::disconnect);
    }
}

impl Binary {
    fn connect(&mut self, out: &mut Vec<u8>) {
        let name = format!("u{}", self.login.user);
        self.send(5 + name.len() + PASSWORD.len(), out, |out| {
            packet::connect(name.as_bytes(), PASSWORD, Tail::Plain, out).expect("a short name");
        });
    }

    fn next_of_stream<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Parsed<'a> {
        let found = stream::frame(input).map_err(|why| Refused::Malformed(why.what.label()))?;
        let Decoded::Frame { value, consumed } = found else { return Ok(None) };
        Ok(Some((consumed, self.handle(&input[value], out)?)))
    }

    /// Appends one packet, as one masked frame or behind its length; `length` is its expected
    /// length.
    fn send(&mut self, length: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if let Stage::Stream = self.stage {
            return stream::framed(true, out, write);
        }
        let key = self.key();
        ws::encode(out, Opcode::Binary, Some(key), length, write);
    }

    fn handle<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> Result<Event<'a>, Refused> {
        let packet =
            packet::decode_server(bytes).map_err(|why| Refused::Malformed(why.what.label()))?;
        match packet {
            ServerPacket::ConnectAck(0) => Ok(Event::Ready),
            ServerPacket::ConnectAck(code) => Err(Refused::Login(u16::from(code))),
            ServerPacket::PublishAck(_, id) => {
                let key = Key::acked(&id, &self.login)?;
                Ok(Event::Acked { slot: key.slot, seq: Some(key.seq) })
            }
            ServerPacket::Push { id, body } => self.pushed(None, id, body, out),
            ServerPacket::GroupPush { id, group, body } => {
                self.pushed(Some(group.0), id, body, out)
            }
            ServerPacket::Ping => {
                self.send(1, out, packet::ping_resp);
                Ok(Event::Pinged)
            }
            ServerPacket::Disconnect | ServerPacket::Logout => Err(Refused::Goodbye),
            ServerPacket::Invalid => Err(Refused::Malformed("it calls a packet of ours invalid")),
        }
    }

    fn pushed<'a>(
        &mut self,
        group: Option<u32>,
        id: MessageId,
        body: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Event<'a>, Refused> {
        let kind = if group.is_some() { PublishKind::Group } else { PublishKind::User };
        let key = Key::decode(&id).ok_or(Refused::Malformed("a message id of nobody"))?;
        if self.login.qos > 0 {
            self.send(ACK, out, |out| packet::ack(kind, &id, out));
        }
        // Old clients get group messages as plain pushes, which say nothing of a group.
        let label = group.map(Some);
        let (payload, from, seq) = (Cow::Borrowed(body), Some(key.sender), Some(key.seq));
        Ok(Event::Delivered(Arrival { payload, from, seq, label }))
    }

    fn key(&mut self) -> [u8; 4] {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 32) as u32).to_ne_bytes()
    }
}

/// Open auth takes any.
const PASSWORD: &[u8] = b"perf";
/// PUBLISH without its payload.
const PUBLISH_HEAD: usize = 39;
/// PUB_ACK.
const ACK: usize = 33;
/// The longest packet of the gateway is a group push of 65,535 bytes.
const MESSAGE_MAX: usize = PUBLISH_HEAD + 65_535;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{self, Server};
    use codec::ws::handshake::{parse_upgrade, write_accept};
    use codec::{Destination, Outgoing, Packet, ProtocolId};

    const LOGIN: Login = Login { user: 42, group: None, qos: 1, run: 7 };

    /// What the client says, unmasked, message by message.
    fn said(out: &mut [u8]) -> Vec<Vec<u8>> {
        let (mut ws, mut at, mut messages) = (Ws::new(Role::Server), 0, Vec::new());
        while at < out.len() {
            let step = ws.decode(&mut out[at..], MESSAGE_MAX).expect("well-formed");
            at += step.consumed;
            match step.event {
                Some(ws::Event::Message { payload, .. }) => messages.push(payload.to_vec()),
                other => panic!("unexpected {other:?}"),
            }
        }
        messages
    }

    fn frame(packet: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        ws::encode(&mut out, Opcode::Binary, None, packet.len(), |out| out.extend(packet));
        out
    }

    /// What the client makes of one packet.
    fn hear(
        client: &mut Binary,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Event<'static>, Refused> {
        let mut frame = frame(packet);
        let heard = client.next(&mut frame, out)?;
        Ok(heard.map_or(Event::Nothing, |(_, event)| event.into_owned()))
    }

    /// A client behind its upgrade, and what it said then.
    fn upgraded() -> (Binary, Vec<u8>) {
        let endpoint = Endpoint {
            address: ([127, 0, 0, 1], 9095).into(),
            host: "127.0.0.1:9095".to_owned(),
            path: "/ws".to_owned(),
            tls: false,
            ws: true,
        };
        let (mut client, mut request) = (Binary::new(LOGIN), Vec::new());
        client.hello(&endpoint, &mut request);
        let Ok(Decoded::Frame { value, .. }) = parse_upgrade(&request, 0, &["/ws"]) else {
            panic!("the gateway does not understand the request");
        };
        let (mut response, mut out) = (Vec::new(), Vec::new());
        write_accept(&mut response, value.key, None);
        let length = response.len();
        assert_eq!(client.next(&mut response[..length - 1], &mut out), Ok(None));
        assert_eq!(client.next(&mut response, &mut out), Ok(Some((length, Event::Nothing))));
        (client, out)
    }

    /// `hears` and `says`: what becomes of bytes on their way to the gateway, and back.
    fn log_in_and_publish(
        mut client: Binary,
        mut login: Vec<u8>,
        mut server: Server,
        hears: impl Fn(&mut [u8]) -> Vec<u8>,
        says: impl Fn(&[u8]) -> Vec<u8>,
    ) {
        server.hears(&hears(&mut login), |packet| {
            let Packet::Connect(connect) = packet else { panic!("no CONNECT: {packet:?}") };
            assert_eq!(connect.name, b"u42");
        });
        let answer = says(&server.says(&Outgoing::Accepted(Server::ACCEPTED)));
        assert_eq!(testing::hear(&mut client, &answer), Ok(Event::Ready));
        let mut out = Vec::new();
        client.publish(Target::User(43), 3, 9, b"hello", &mut out);
        let id = server.hears(&hears(&mut out), |packet| {
            let Packet::Publish(publish) = packet else { panic!("no PUBLISH: {packet:?}") };
            let to = Destination::User(UserId(43));
            assert_eq!((publish.to, publish.body), (to, &b"hello"[..]));
            publish.id
        });
        let ack = says(&server.says(&Outgoing::PublishAck(PublishKind::User, id, None)));
        let acked = testing::hear(&mut client, &ack);
        assert_eq!(acked, Ok(Event::Acked { slot: 3, seq: Some(9) }));
    }

    #[test]
    fn a_login_and_a_publish_are_what_the_gateway_expects() {
        let (client, login) = upgraded();
        let server = Server::over_ws(ProtocolId::Binary);
        log_in_and_publish(client, login, server, |out| said(out).remove(0), frame);
        let (mut client, mut login) = (Binary::new(LOGIN), Vec::new());
        client.hello(&testing::ENDPOINT, &mut login);
        let server = Server::new(ProtocolId::Binary);
        log_in_and_publish(client, login, server, |out| out.to_vec(), <[u8]>::to_vec);
    }

    #[test]
    fn a_push_split_anywhere_is_delivered_once_and_acknowledged() {
        let id = Key { run: 7, sender: 41, slot: 0, seq: 5 }.encode();
        let push = [&[3], id.as_bytes(), &[0, 5], b"hello"].concat();
        let whole = frame(&push);
        for split in 1..whole.len() {
            let (mut client, mut out) = upgraded();
            out.clear();
            let mut delivered = 0;
            let (mut first, mut second) = (whole[..split].to_vec(), whole[split..].to_vec());
            for part in [&mut first, &mut second] {
                let (_, event) = client.next(part, &mut out).expect("right").expect("consumed");
                if let Event::Delivered(Arrival { payload, from, seq, .. }) = event {
                    assert_eq!((&payload[..], from, seq), (&b"hello"[..], Some(41), Some(5)));
                    delivered += 1;
                }
            }
            assert_eq!(delivered, 1, "split at {split}");
            assert_eq!(said(&mut out), [[&[4], id.as_bytes()].concat()]);
        }
    }

    #[test]
    fn a_receiver_of_quality_zero_acknowledges_nothing() {
        let (mut client, mut out) = upgraded();
        client.login.qos = 0;
        out.clear();
        let id = Key { run: 7, sender: 41, slot: 0, seq: 5 }.encode();
        let mut push = frame(&[&[3], id.as_bytes(), &[0, 5], b"hello"].concat());
        let (_, event) = client.next(&mut push, &mut out).expect("right").expect("consumed");
        assert!(matches!(event, Event::Delivered(_)));
        assert!(out.is_empty());
    }

    #[test]
    fn a_ping_is_answered_and_refusals_are_told() {
        let (mut client, mut out) = upgraded();
        out.clear();
        assert_eq!(hear(&mut client, &[7], &mut out), Ok(Event::Pinged));
        assert_eq!(said(&mut out), [[8]]);
        let mut refusal = |packet: &[u8]| hear(&mut client, packet, &mut Vec::new()).err();
        assert_eq!(refusal(&[2, 3]), Some(Refused::Login(3)));
        assert_eq!(refusal(&[0x14]), Some(Refused::Goodbye));
        assert!(matches!(refusal(&[0x0a]), Some(Refused::Malformed(_))));
        let id = Key { run: 6, sender: 42, slot: 0, seq: 0 }.encode();
        let old = [&[4], id.as_bytes()].concat();
        assert!(matches!(refusal(&old), Some(Refused::Malformed(_))), "an ack of an earlier run");
    }
}
