//! A client of simple-im.

use std::time::Duration;

use codec::simple_im::Dialect;
use codec::simple_im::client::{Client, Framer, Push, ServerPacket, To, decode_server};
use codec::{Decoded, MessageId, UserId};

use super::gateway::Gateway;
use super::wire::{Got, Wire};
use super::{PATIENCE, SILENCE};

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImSeen {
    /// The answer to request `t`, and why it is refused.
    Reply {
        id: String,
        t: String,
        refused: Option<String>,
    },
    Push(ImPush),
    Ack(String),
    /// A change of contacts or of a group: `t`, by whom, and whom or which it names.
    Notice {
        t: String,
        from: u32,
        to: To,
    },
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImPush {
    pub(crate) id: MessageId,
    pub(crate) from: Option<u32>,
    pub(crate) to: To,
    pub(crate) time_s: u32,
    pub(crate) text: String,
}

impl ImSeen {
    fn of(packet: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let seen = decode_server(packet);
        match seen.unwrap_or_else(|_| panic!("kills a client: {}", packet.escape_ascii())) {
            ServerPacket::Reply { id, request, refused, .. } => Self::Reply {
                id: text(id.as_bytes()),
                t: text(&request),
                refused: refused.map(|why| text(&why)),
            },
            ServerPacket::Push(push) => Self::Push(ImPush::of(&push)),
            ServerPacket::PublishAck(id) => Self::Ack(text(id.as_bytes())),
            ServerPacket::Notice(notice) => {
                Self::Notice { t: text(&notice.what), from: notice.from.0, to: notice.to }
            }
        }
    }
}

impl ImPush {
    fn of(push: &Push<'_>) -> Self {
        Self {
            id: push.id,
            from: push.from.map(|user| user.0),
            to: push.to,
            time_s: push.time_s,
            text: String::from_utf8(push.text.to_vec()).expect("text"),
        }
    }
}

pub(crate) struct ImClient {
    pub(crate) wire: Wire,
    pub(crate) user: u32,
    pub(crate) device: &'static str,
    pub(crate) dialect: Dialect,
    framer: Framer,
}

impl ImClient {
    /// A connection that has not logged in.
    pub(crate) fn dial(gateway: &Gateway, user: u32, device: &'static str) -> Self {
        Self::dial_in(gateway, user, device, Dialect::Single)
    }

    pub(crate) fn dial_in(
        gateway: &Gateway,
        user: u32,
        device: &'static str,
        dialect: Dialect,
    ) -> Self {
        let wire = Wire::dial(gateway.site().of("simple-im"));
        Self { dialect, framer: Framer::new(dialect), ..Self::over(wire, user, device) }
    }

    /// As [`ImClient::dial`], wherever it is connected to.
    pub(crate) fn over(wire: Wire, user: u32, device: &'static str) -> Self {
        let dialect = Dialect::Single;
        Self { wire, user, device, dialect, framer: Framer::new(dialect) }
    }

    /// Logged in as the document's client; in open mode any token will do.
    #[track_caller]
    pub(crate) fn logged_in(gateway: &Gateway, user: u32) -> Self {
        let mut client = Self::dial(gateway, user, "android");
        client.login("any token");
        client
    }

    /// Sends a login and expects to be accepted.
    #[track_caller]
    pub(crate) fn login(&mut self, token: &str) {
        self.send_login(false, token);
        self.expect_reply("login", None);
    }

    #[track_caller]
    pub(crate) fn send_login(&mut self, reconnect: bool, token: &str) {
        let mut out = Vec::new();
        self.side().login(b"a_01", reconnect, token.as_bytes(), &mut out);
        self.wire.send(&out);
    }

    #[track_caller]
    pub(crate) fn expect_reply(&mut self, t: &str, refused: Option<&str>) {
        let refused = refused.map(str::to_owned);
        self.expect(ImSeen::Reply { id: "a_01".into(), t: t.into(), refused });
    }

    #[track_caller]
    pub(crate) fn say(&mut self, id: &str, to: To, text: &str) {
        let mut out = Vec::new();
        self.side().message(id.as_bytes(), to, text.as_bytes(), &mut out);
        self.wire.send(&out);
    }

    /// Sends a message and expects its acknowledgement as the next packet.
    #[track_caller]
    pub(crate) fn say_safely(&mut self, id: &str, to: To, text: &str) {
        self.say(id, to, text);
        self.expect(ImSeen::Ack(id.into()));
    }

    #[track_caller]
    pub(crate) fn ack(&mut self, id: &MessageId) {
        let mut out = Vec::new();
        self.side().ack(id, &mut out);
        self.wire.send(&out);
    }

    /// The next thing within `patience`; `None`: nothing came.
    pub(crate) fn see(&mut self, patience: Duration) -> Option<ImSeen> {
        let framer = &mut self.framer;
        match self.wire.see(patience, |read, quiet| framer.frame(read, quiet))? {
            Got::Packet(packet) => Some(ImSeen::of(&packet)),
            Got::End => Some(ImSeen::End),
        }
    }

    /// As [`ImClient::see`], as the original clients do it: one read is one packet, or they die.
    #[track_caller]
    pub(crate) fn see_chunk(&mut self, patience: Duration) -> Option<ImSeen> {
        let Got::Packet(chunk) = self.wire.chunk(patience)? else { return Some(ImSeen::End) };
        match Framer::new(self.dialect).frame(&chunk, true) {
            Ok(Decoded::Frame { consumed, .. }) if consumed == chunk.len() => {}
            _ => panic!("not one packet: {}", chunk.escape_ascii()),
        }
        Some(ImSeen::of(&chunk))
    }

    /// The next push, read as one chunk and acknowledged.
    #[track_caller]
    pub(crate) fn take_chunk(&mut self, text: &str) -> ImPush {
        match self.see_chunk(PATIENCE) {
            Some(ImSeen::Push(push)) => {
                assert_eq!(push.text, text);
                self.ack(&push.id);
                push
            }
            other => panic!("{other:?} is no push"),
        }
    }

    #[track_caller]
    pub(crate) fn next(&mut self) -> ImSeen {
        self.see(PATIENCE).expect("nothing came")
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: ImSeen) {
        assert_eq!(self.next(), expected);
    }

    /// The next push, not acknowledged.
    #[track_caller]
    pub(crate) fn expect_push(&mut self, text: &str) -> ImPush {
        match self.next() {
            ImSeen::Push(push) => {
                assert_eq!(push.text, text);
                push
            }
            other => panic!("{other:?} is no push"),
        }
    }

    /// Expects a push and acknowledges it.
    #[track_caller]
    pub(crate) fn take_push(&mut self, text: &str) -> ImPush {
        let push = self.expect_push(text);
        self.ack(&push.id);
        push
    }

    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        assert_eq!(self.see(SILENCE), None);
    }

    fn side(&self) -> Client<'static> {
        let (user, device) = (UserId(self.user), self.device.as_bytes());
        Client { dialect: self.dialect, user, device }
    }
}
