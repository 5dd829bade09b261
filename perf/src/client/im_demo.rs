//! IM Demo over TCP: protobuf Commands behind their length, with the extension.
//!
//! A request's id is the message's key, which its response brings back; pushes have the gateway's
//! ids, and are acknowledged by them.

use super::message_id::Key;
use super::{Arrival, Client, Endpoint, Event, Login, Parsed, Refused, Target, text};
use codec::MessageId;
use codec::error::Decoded;
use codec::im_demo::client::{self as packet, ServerPacket};
use codec::im_demo::types::{ChatType, Connect, Message, Response, Status};
use codec::im_demo::{PACKET_MAX, stream};

/// One session.
#[derive(Debug)]
pub(crate) struct ImDemo {
    login: Login,
}

impl Client for ImDemo {
    fn new(login: Login) -> Self {
        Self { login }
    }

    fn hello(&mut self, _endpoint: &Endpoint, out: &mut Vec<u8>) {
        let connect = Connect {
            org: TENANT.to_owned(),
            appkey: TENANT.to_owned(),
            user: text::name(self.login.user),
            token: TOKEN.to_owned(),
            ext: 1,
            device: String::new(),
        };
        packet::connect(connect, true, out);
    }

    fn next<'a>(&mut self, input: &'a mut [u8], out: &mut Vec<u8>) -> Parsed<'a> {
        let malformed = |why: codec::error::WireError| Refused::Malformed(why.what.label());
        let found = stream::frame(PACKET_MAX as u32, input).map_err(malformed)?;
        let Decoded::Frame { value, consumed } = found else { return Ok(None) };
        let packet = packet::decode_server(&input[value]).map_err(malformed)?;
        Ok(Some((consumed, self.handle(packet, out)?)))
    }

    fn publish(&mut self, to: Target, slot: u16, seq: u64, payload: &[u8], out: &mut Vec<u8>) {
        let Login { run, user: sender, .. } = self.login;
        let id = Key { run, sender, slot, seq }.encode();
        let id = str::from_utf8(id.as_bytes()).expect("a key is written in hexadecimal digits");
        let (chat, to) = match to {
            Target::User(user) => (ChatType::Single, text::name(user)),
            Target::Group(group) => (ChatType::Group, group.to_string()),
        };
        // Kept for those who are away, as all other protocols do without being told.
        packet::send((chat, &to), id, &text::write(payload), Some(true), true, out);
    }

    fn goodbye(&mut self, out: &mut Vec<u8>) {
        packet::disconnect(true, out);
    }
}

impl ImDemo {
    fn handle(
        &mut self,
        packet: ServerPacket,
        out: &mut Vec<u8>,
    ) -> Result<Event<'static>, Refused> {
        match packet {
            ServerPacket::ConAck(answer) if answer.status == i32::from(Status::Ok) => {
                Ok(Event::Ready)
            }
            ServerPacket::ConAck(answer) => Err(Refused::Login(answer.status as u16)),
            ServerPacket::Disconnect(_) => Err(Refused::Goodbye),
            ServerPacket::Response(Response { code: 0, id, .. }) => {
                let id = MessageId::new(id.as_bytes()).ok_or(Refused::Malformed("a long id"))?;
                let key = Key::acked(&id, &self.login)?;
                Ok(Event::Acked { slot: key.slot, seq: Some(key.seq) })
            }
            ServerPacket::Response(refused) => Err(Refused::Message(refused.code as u16)),
            ServerPacket::Ping(ping) => {
                packet::pong(ping, true, out);
                Ok(Event::Pinged)
            }
            ServerPacket::Pong(_) => Err(Refused::Malformed("an answer to no ping")),
            ServerPacket::Contact { .. } => Err(Refused::Malformed("news of contacts")),
            ServerPacket::Push { id, message, .. } => {
                packet::ack(&id, true, out);
                self.pushed(&message)
            }
        }
    }

    fn pushed(&self, message: &Message) -> Result<Event<'static>, Refused> {
        let from = text::user(&message.from).ok_or(Refused::Malformed("a message of nobody"))?;
        let group = match message.chat() {
            ChatType::Single if text::user(&message.to) == Some(self.login.user) => None,
            ChatType::Single => return Err(Refused::Malformed("a message to somebody else")),
            ChatType::Group => {
                let group = message.to.parse();
                Some(group.map_err(|_| Refused::Malformed("a group of no number"))?)
            }
        };
        let said = packet::text(message);
        let said = said.map_err(|_| Refused::Malformed("a message that is no text"))?;
        let payload = text::read(said.as_bytes().into()).into_owned().into();
        Ok(Event::Delivered(Arrival { payload, from: Some(from), seq: None, label: Some(group) }))
    }
}

/// Both halves of the tenant that a gateway has by default.
const TENANT: &str = "default";
/// Open auth takes any.
const TOKEN: &str = "perf";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{ENDPOINT, LOGIN, Server, hear, message};
    use codec::packet::Failure;
    use codec::{
        CloseReason, Destination, Outgoing, Packet, Proof, ProtocolId, PublishKind, Push, Receipt,
        Refusal,
    };

    /// A client that is logged in, and its gateway.
    fn ready() -> (ImDemo, Server) {
        let (mut client, mut server) = (ImDemo::new(LOGIN), Server::new(ProtocolId::ImDemo));
        let mut out = Vec::new();
        client.hello(&ENDPOINT, &mut out);
        server.hears(&out, |packet| {
            let Packet::Connect(connect) = packet else { panic!("no login: {packet:?}") };
            assert_eq!(connect.name, &b"u42"[..]);
            assert!(connect.proof == Proof::Password(b"perf"));
            assert_eq!(connect.tenant, Some((&b"default"[..], &b"default"[..])));
        });
        let answer = server.says(&Outgoing::Accepted(Server::ACCEPTED));
        assert_eq!(hear(&mut client, &answer), Ok(Event::Ready));
        (client, server)
    }

    /// A publish in slot 3 with sequence 9, as the gateway has it.
    fn published(to: Target, expected: Destination<'_>) -> (MessageId, Vec<u8>) {
        let (mut client, mut server) = ready();
        let mut out = Vec::new();
        client.publish(to, 3, 9, &[0xff; 75], &mut out);
        server.hears(&out, |packet| {
            let Packet::Publish(publish) = packet else { panic!("no publish: {packet:?}") };
            assert_eq!((publish.to, publish.keep), (expected, true));
            (publish.id, publish.body.to_vec())
        })
    }

    #[test]
    fn a_publish_is_acknowledged_by_its_id() {
        let (id, _) = published(Target::User(43), Destination::Name(b"u43"));
        let (mut client, mut server) = ready();
        let receipt = Some(Receipt { stamp: 5, time_ms: 6, stored: false });
        let ack = server.says(&Outgoing::PublishAck(PublishKind::User, id, receipt));
        assert_eq!(hear(&mut client, &ack), Ok(Event::Acked { slot: 3, seq: Some(9) }));
    }

    #[test]
    fn a_push_waits_for_its_last_byte_and_is_acknowledged() {
        let (mut client, mut server) = ready();
        let to_user = (Target::User(42), Destination::Name(b"u42"), None);
        let to_group = (Target::Group(7), Destination::GroupName(b"7"), Some(7));
        for (to, destination, group) in [to_user, to_group] {
            let (_, body) = published(to, destination);
            let message = message(ProtocolId::ImDemo, group, body);
            let push = server.says(&Outgoing::Push(Push { message: &message, stored: false }));
            for split in 0..push.len() {
                assert_eq!(client.next(&mut push[..split].to_vec(), &mut Vec::new()), Ok(None));
            }
            let (mut input, mut out) = (push.clone(), Vec::new());
            let payload = (&[0xff; 75][..]).into();
            let arrival = Arrival { payload, from: Some(41), seq: None, label: Some(group) };
            let event = Event::Delivered(arrival);
            assert_eq!(client.next(&mut input, &mut out), Ok(Some((push.len(), event))));
            let id = MessageId::of_stamp(message.stamp);
            server.hears(&out, |packet| assert_eq!(packet, Packet::Ack(id)));
        }
    }

    #[test]
    fn pings_are_answered() {
        let (mut client, mut server) = ready();
        let (mut ping, mut out) = (server.says(&Outgoing::Ping), Vec::new());
        let length = ping.len();
        assert_eq!(client.next(&mut ping, &mut out), Ok(Some((length, Event::Pinged))));
        server.hears(&out, |packet| assert_eq!(packet, Packet::Pong));
    }

    #[test]
    fn refusals_and_nonsense_end_the_connection() {
        let (mut client, mut server) = ready();
        let refused = server.says(&Outgoing::Refused(Refusal::UnknownTenant));
        assert_eq!(hear(&mut ImDemo::new(LOGIN), &refused), Err(Refused::Login(1)));
        let failed = Outgoing::PublishFailed { id: [].into(), why: Failure::Busy, to: b"" };
        assert_eq!(hear(&mut client, &server.says(&failed)), Err(Refused::Message(9)));
        let goodbye = server.says(&Outgoing::Goodbye(CloseReason::Shutdown));
        assert_eq!(hear(&mut client, &goodbye), Err(Refused::Goodbye));
        for bad in [&b"\x00"[..], b"\x02\x08\x01", b"\x02\xff\xff", b"\xff\xff\xff\xff\xff\x01"] {
            let heard = hear(&mut client, bad);
            assert!(matches!(heard, Err(Refused::Malformed(_))), "{}", bad.escape_ascii());
        }
    }
}
