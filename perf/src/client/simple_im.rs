//! simple_im over TCP: packets of a TOML of its own, in the dialect of the document.
//!
//! ```text
//!   [r] id = ".." t = "login" [r.user] id = 7 device = "perf" token = "perf"
//!                                                      [rr] s = 0 id = ".." t = "login"
//!   [m] id = ".." c = ".." [m.from] id = 7 device = "perf" [m.to] id = 8
//!                                                      [a] id = ".."
//! ```
//!
//! A packet ends where the next one begins, or with its last number, of which only the end of the
//! input tells that it is whole. What is whole and for this user or his group is taken at once.

use super::message_id::Key;
use super::{Arrival, Client, Endpoint, Event, Login, Parsed, Refused, Target, text};
use codec::error::Decoded;
use codec::simple_im::Dialect;
use codec::simple_im::client::{self as packet, Framer, Push, ServerPacket, To};
use codec::{GroupId, UserId};

/// One session.
#[derive(Debug)]
pub(crate) struct SimpleIm {
    login: Login,
    framer: Framer,
}

impl Client for SimpleIm {
    fn new(login: Login) -> Self {
        Self { login, framer: Framer::new(DIALECT) }
    }

    fn hello(&mut self, _endpoint: &Endpoint, out: &mut Vec<u8>) {
        let Login { run, user: sender, .. } = self.login;
        let id = Key { run, sender, slot: 0, seq: 0 }.encode();
        self.speaker().login(id.as_bytes(), false, TOKEN, out);
    }

    fn next<'a>(&mut self, input: &'a mut [u8], out: &mut Vec<u8>) -> Parsed<'a> {
        let malformed = |why: codec::error::WireError| Refused::Malformed(why.what.label());
        let input: &'a [u8] = input;
        let mut found = self.framer.frame(input, false).map_err(malformed)?;
        let before = self.framer;
        let cut = found == Decoded::Unsure;
        if cut {
            found = self.framer.frame(input, true).map_err(malformed)?;
        }
        let Decoded::Frame { value, consumed } = found else { return Ok(None) };
        let packet = packet::decode_server(&input[value]).map_err(malformed)?;
        if cut && !self.is_whole(&packet) {
            self.framer = before;
            return Ok(None);
        }
        Ok(Some((consumed, self.handle(packet, out)?)))
    }

    fn publish(&mut self, to: Target, slot: u16, seq: u64, payload: &[u8], out: &mut Vec<u8>) {
        let Login { run, user: sender, .. } = self.login;
        let id = Key { run, sender, slot, seq }.encode();
        let to = match to {
            Target::User(user) => To::User(UserId(user)),
            Target::Group(group) => To::Group(GroupId(group)),
        };
        self.speaker().message(id.as_bytes(), to, text::write(payload).as_bytes(), out);
    }

    /// The wire has no word for it.
    fn goodbye(&mut self, _out: &mut Vec<u8>) {}
}

impl SimpleIm {
    fn speaker(&self) -> packet::Client<'static> {
        packet::Client { dialect: DIALECT, user: UserId(self.login.user), device: DEVICE }
    }

    /// Whether the number that the input ends with is one that may come, and not the first digits
    /// of it.
    fn is_whole(&self, packet: &ServerPacket<'_>) -> bool {
        match packet {
            ServerPacket::Push(push) => {
                let to = number(push.to);
                to == self.login.user || Some(to) == self.login.group
            }
            _ => true,
        }
    }

    fn handle<'a>(
        &mut self,
        packet: ServerPacket<'a>,
        out: &mut Vec<u8>,
    ) -> Result<Event<'a>, Refused> {
        match packet {
            ServerPacket::Reply { refused: None, .. } => Ok(Event::Ready),
            ServerPacket::Reply { refused: Some(_), .. } => Err(Refused::Login(1)),
            ServerPacket::Notice(_) => Err(Refused::Malformed("news of contacts")),
            ServerPacket::PublishAck(id) => {
                let key = Key::acked(&id, &self.login)?;
                Ok(Event::Acked { slot: key.slot, seq: Some(key.seq) })
            }
            ServerPacket::Push(Push { id, from, to, text, .. }) => {
                let from = from.ok_or(Refused::Malformed("a message of nobody"))?.0;
                self.speaker().ack(&id, out);
                let to = number(to);
                if from == self.login.user && to != from {
                    // His own: in this dialect a group's messages go to every member.
                    return Ok(Event::Nothing);
                }
                // No message of ours has the sequence of an id that is not his.
                let key = Key::decode(&id).filter(|key| key.sender == from);
                let seq = key.map_or(u64::MAX, |key| key.seq);
                let payload = text::read(text);
                // These clients get a group's messages with its number where theirs would be.
                let label = Some((to != self.login.user).then_some(to));
                let (from, seq) = (Some(from), Some(seq));
                Ok(Event::Delivered(Arrival { payload, from, seq, label }))
            }
        }
    }
}

fn number(to: To) -> u32 {
    match to {
        To::User(user) => user.0,
        To::Group(group) => group.0,
    }
}

/// The document's.
const DIALECT: Dialect = Dialect::Single;
const DEVICE: &[u8] = b"perf";
/// Open auth takes any.
const TOKEN: &[u8] = b"perf";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{ENDPOINT, LOGIN, Server, hear, message};
    use codec::{
        Destination, MessageId, Outgoing, Packet, Proof, ProtocolId, PublishKind, Refusal,
    };

    /// A client that is logged in, and its gateway.
    fn ready() -> (SimpleIm, Server) {
        let (mut client, mut server) = (SimpleIm::new(LOGIN), Server::new(ProtocolId::SimpleIm));
        let mut out = Vec::new();
        client.hello(&ENDPOINT, &mut out);
        server.hears(&out, |packet| {
            let Packet::Connect(connect) = packet else { panic!("no login: {packet:?}") };
            assert_eq!(connect.name, &b"42"[..]);
            assert!(connect.proof == Proof::Token(b"perf"));
        });
        let answer = server.says(&Outgoing::Accepted(Server::ACCEPTED));
        assert_eq!(hear(&mut client, &answer), Ok(Event::Ready));
        (client, server)
    }

    /// What the gateway makes of a publish of user 41.
    fn published(to: Target, payload: &[u8]) -> (MessageId, Vec<u8>) {
        let mut server = Server::new(ProtocolId::SimpleIm);
        let mut sender = SimpleIm::new(Login { user: 41, ..LOGIN });
        let mut out = Vec::new();
        sender.hello(&ENDPOINT, &mut out);
        server.hears(&out, |_| {});
        out.clear();
        sender.publish(to, 3, 9, payload, &mut out);
        server.hears(&out, |packet| {
            let Packet::Publish(publish) = packet else { panic!("no publish: {packet:?}") };
            let expected = match to {
                Target::User(user) => Destination::User(UserId(user)),
                Target::Group(group) => Destination::Group(GroupId(group)),
            };
            assert_eq!(publish.to, expected);
            (publish.id, publish.body.to_vec())
        })
    }

    #[test]
    fn a_publish_is_acknowledged_by_its_id() {
        let (mut client, mut server) = ready();
        let id = Key { run: LOGIN.run, sender: LOGIN.user, slot: 3, seq: 9 }.encode();
        let ack = server.says(&Outgoing::PublishAck(PublishKind::User, id, None));
        assert_eq!(hear(&mut client, &ack), Ok(Event::Acked { slot: 3, seq: Some(9) }));
        let other = Key { run: LOGIN.run, sender: 41, slot: 3, seq: 9 }.encode();
        let ack = server.says(&Outgoing::PublishAck(PublishKind::User, other, None));
        assert!(matches!(hear(&mut client, &ack), Err(Refused::Malformed(_))));
    }

    #[test]
    fn a_push_is_read_at_its_last_digit_and_acknowledged() {
        let (mut client, mut server) = ready();
        for (to, label) in [(Target::User(42), None), (Target::Group(700), Some(700))] {
            let (id, body) = published(to, &[0xff; 75]);
            let group = label.filter(|_| label.is_some());
            let message = codec::Message { id, ..message(ProtocolId::SimpleIm, group, body) };
            let push = Outgoing::Push(codec::Push { message: &message, stored: false });
            let push = server.says(&push);
            for split in 0..push.len() {
                let (mut part, mut out) = (push[..split].to_vec(), Vec::new());
                assert_eq!(client.next(&mut part, &mut out), Ok(None), "{split}");
                assert!(out.is_empty());
            }
            let (mut input, mut out) = (push.clone(), Vec::new());
            let arrival = Arrival {
                payload: (&[0xff; 75][..]).into(),
                from: Some(41),
                seq: Some(9),
                label: Some(label),
            };
            let event = Event::Delivered(arrival);
            assert_eq!(client.next(&mut input, &mut out), Ok(Some((push.len(), event))));
            server.hears(&out, |packet| assert_eq!(packet, Packet::Ack(id)));
            // Somebody else's is only seen to be whole when the next packet begins.
            let mut other = SimpleIm::new(Login { user: 4, group: None, ..LOGIN });
            let mut twice = [&push[..], &push].concat();
            assert_eq!(other.next(&mut push.clone(), &mut Vec::new()), Ok(None));
            let heard = other.next(&mut twice, &mut Vec::new()).expect("well-formed");
            assert_eq!(heard.map(|(used, _)| used), Some(push.len()));
        }
    }

    #[test]
    fn ones_own_group_messages_are_acknowledged_and_not_counted() {
        let mut sender = SimpleIm::new(Login { user: 41, ..LOGIN });
        let mut server = ready().1;
        let (id, body) = published(Target::Group(700), &[7; 75]);
        let message = codec::Message { id, ..message(ProtocolId::SimpleIm, Some(700), body) };
        let mut push =
            server.says(&Outgoing::Push(codec::Push { message: &message, stored: false }));
        let mut out = Vec::new();
        let heard = sender.next(&mut push, &mut out).expect("well-formed");
        assert_eq!(heard.map(|(_, event)| event), Some(Event::Nothing));
        server.hears(&out, |packet| assert_eq!(packet, Packet::Ack(id)));
    }

    #[test]
    fn refusals_and_nonsense_end_the_connection() {
        let (mut client, mut server) = ready();
        let refused = server.says(&Outgoing::Refused(Refusal::BadCredentials));
        assert_eq!(hear(&mut SimpleIm::new(LOGIN), &refused), Err(Refused::Login(1)));
        for bad in [&b"hello world"[..], b"[rr] id \"x\"", b"[x] [a]", b"[a] id = \"x\"", b"\x16"] {
            let heard = hear(&mut client, bad);
            assert!(matches!(heard, Err(Refused::Malformed(_))), "{}", bad.escape_ascii());
        }
    }
}
