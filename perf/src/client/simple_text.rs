//! SimpleTextIM over TCP: JSON objects, one per line, logins in the document's form, which is
//! answered.
//!
//! ```text
//!   {"command":"login u7/perf"}                              {"command":"message","messages":[]}
//!   { "command": "send", "message": "..", "to": "u8"}        no answer if it goes well
//!   { "command": "send", "message": "..", "to": "#9000"}     to a group, by its number
//! ```
//!
//! Nobody acknowledges anything, and everybody hears of everybody who comes or goes.

use super::{Arrival, Client, Endpoint, Event, Login, Parsed, Refused, Target, text};
use codec::simple_text::client::{self as packet, ServerPacket};
use codec::simple_text::{Dialect, line};
use std::borrow::Cow;

/// One session.
#[derive(Debug)]
pub(crate) struct SimpleText {
    login: Login,
    ready: bool,
}

impl Client for SimpleText {
    fn new(login: Login) -> Self {
        Self { login, ready: false }
    }

    fn hello(&mut self, _endpoint: &Endpoint, out: &mut Vec<u8>) {
        let name = text::name(self.login.user);
        line(true, out, |out| packet::login(&name, Some(PASSWORD), Dialect::Doc, out));
    }

    fn next<'a>(&mut self, input: &'a mut [u8], _out: &mut Vec<u8>) -> Parsed<'a> {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        Ok(Some((end + 1, self.handle(&input[..end])?)))
    }

    fn publish(&mut self, to: Target, _slot: u16, _seq: u64, payload: &[u8], out: &mut Vec<u8>) {
        let to = match to {
            Target::User(user) => text::name(user),
            Target::Group(group) => format!("#{group}"),
        };
        let said = text::write(payload);
        line(true, out, |out| packet::send(Some(&to), &said, out));
    }

    fn goodbye(&mut self, out: &mut Vec<u8>) {
        line(true, out, packet::exit);
    }
}

impl SimpleText {
    /// One line, with the CR before its end.
    fn handle<'a>(&mut self, line: &'a [u8]) -> Result<Event<'a>, Refused> {
        let packet = packet::decode_server(line);
        match packet.map_err(|why| Refused::Malformed(why.what.label()))? {
            ServerPacket::Messages(0) if !self.ready => {
                self.ready = true;
                Ok(Event::Ready)
            }
            ServerPacket::Messages(_) => Err(Refused::Malformed("messages in place of a login")),
            ServerPacket::Fail { code, .. } if self.ready => Err(Refused::Message(code)),
            ServerPacket::Fail { code, .. } => Err(Refused::Login(code)),
            ServerPacket::List(_) => Err(Refused::Malformed("a list that nobody asked for")),
            ServerPacket::Message { text, private: false, group: None, .. } => match &*text {
                "Online !" | "Offline !" => Ok(Event::Nothing),
                _ => Err(Refused::Malformed("a message to everybody")),
            },
            ServerPacket::Message { user, text, private: true, group: None } => {
                pushed(&user, text, None)
            }
            ServerPacket::Message { user, text, group: Some(group), .. } => {
                let group =
                    group.parse().map_err(|_| Refused::Malformed("a group of no number"))?;
                pushed(&user, text, Some(group))
            }
        }
    }
}

fn pushed<'a>(user: &str, text: Cow<'a, str>, group: Option<u32>) -> Result<Event<'a>, Refused> {
    let from = text::user(user).ok_or(Refused::Malformed("a message of nobody"))?;
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    let payload = text::read(text);
    Ok(Event::Delivered(Arrival { payload, from: Some(from), seq: None, label: Some(group) }))
}

/// Open auth takes any.
const PASSWORD: &str = "perf";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{ENDPOINT, LOGIN, Server, hear, message};
    use codec::packet::Failure;
    use codec::{Destination, Outgoing, Packet, Proof, ProtocolId, Push, Refusal};

    /// A client that is logged in, and its gateway.
    fn ready() -> (SimpleText, Server) {
        let (mut client, mut server) =
            (SimpleText::new(LOGIN), Server::new(ProtocolId::SimpleText));
        let mut out = Vec::new();
        client.hello(&ENDPOINT, &mut out);
        server.hears(&out, |packet| {
            let Packet::Connect(connect) = packet else { panic!("no login: {packet:?}") };
            assert_eq!(connect.name, &b"u42"[..]);
            assert!(connect.proof == Proof::Password(b"perf"));
        });
        let answer = server.says(&Outgoing::Accepted(Server::ACCEPTED));
        assert_eq!(hear(&mut client, &answer), Ok(Event::Ready));
        (client, server)
    }

    #[test]
    fn a_login_and_a_publish_are_what_the_gateway_expects() {
        let (mut client, mut server) = ready();
        for (to, name) in [(Target::User(43), &b"u43"[..]), (Target::Group(9), b"#9")] {
            let mut out = Vec::new();
            client.publish(to, 3, 9, &[0xff; 75], &mut out);
            server.hears(&out, |packet| {
                let Packet::Publish(publish) = packet else { panic!("no publish: {packet:?}") };
                assert_eq!(publish.to, Destination::Name(name));
                assert_eq!(publish.body.len(), 100);
                assert_eq!(text::read(publish.body.into()), &[0xff; 75][..]);
            });
        }
    }

    #[test]
    fn pushes_are_read_where_they_are_complete_and_notices_are_not_messages() {
        let (mut client, mut server) = ready();
        let to_user = message(ProtocolId::SimpleText, None, text::write(b"payload"));
        let to_group = message(ProtocolId::SimpleText, Some(7), text::write(b"payload"));
        for (message, label) in [(to_user, None), (to_group, Some(7))] {
            let push = server.says(&Outgoing::Push(Push { message: &message, stored: false }));
            for split in 0..push.len() {
                assert_eq!(client.next(&mut push[..split].to_vec(), &mut Vec::new()), Ok(None));
            }
            let arrival = Arrival {
                payload: Cow::Borrowed(b"payload"),
                from: Some(41),
                seq: None,
                label: Some(label),
            };
            assert_eq!(hear(&mut client, &push), Ok(Event::Delivered(arrival)));
        }
        let notice = server.says(&Outgoing::Joined(b"u1"));
        assert_eq!(hear(&mut client, &notice), Ok(Event::Nothing));
    }

    #[test]
    fn refusals_and_nonsense_end_the_connection() {
        let (mut client, mut server) = ready();
        let refused = server.says(&Outgoing::Refused(Refusal::BadCredentials));
        assert_eq!(hear(&mut SimpleText::new(LOGIN), &refused), Err(Refused::Login(404)));
        let failed = Outgoing::PublishFailed { id: [].into(), why: Failure::Unknown, to: b"u43" };
        let failed = server.says(&failed);
        assert_eq!(hear(&mut client, &failed), Err(Refused::Message(400)));
        let list = server.says(&Outgoing::Present(&[]));
        for bad in [&b"\r\n"[..], b"hello\n", b"{}\n", b"{\"command\":\"message\"}\n", &list] {
            let heard = hear(&mut client, bad);
            assert!(matches!(heard, Err(Refused::Malformed(_))), "{}", bad.escape_ascii());
        }
    }
}
