//! A client of im-demo, of either level.

use std::time::{Duration, Instant};

use codec::im_demo::client::{self, ServerPacket};
use codec::im_demo::types::{
    ChatType, Command, ConAck, Connect, ContactItem, ContactList, ContactOp, Group, GroupItem,
    GroupList, Message, MessageAck, MessageTxt, Response, Status,
};
use codec::im_demo::{PACKET_MAX, stream};
use prost::Message as _;

use super::gateway::{Gateway, PASSWORD};
use super::wire::{Got, Wire};
use super::{PATIENCE, SILENCE};

/// What a client saw.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DemoSeen {
    Packet(ServerPacket),
    End,
}

/// A push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DemoPush {
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) group: bool,
    pub(crate) text: String,
    /// It waited in the store.
    pub(crate) stored: bool,
}

impl DemoPush {
    pub(crate) fn of(id: &str, message: &Message, stored: bool) -> Self {
        let text = MessageTxt::decode(&*message.payload).expect("a text");
        Self {
            id: id.into(),
            from: message.from.clone(),
            to: message.to.clone(),
            group: message.chat == i32::from(ChatType::Group),
            text: text.txt,
            stored,
        }
    }
}

pub(crate) struct DemoClient {
    pub(crate) wire: Wire,
    /// Pings are answered and not seen.
    pub(crate) answers_pings: bool,
}

impl DemoClient {
    /// A connection that has not logged in.
    pub(crate) fn dial(gateway: &Gateway) -> Self {
        Self::over(Wire::dial(gateway.site().of("im-demo")))
    }

    /// As [`DemoClient::dial`], wherever it is connected to.
    pub(crate) fn over(wire: Wire) -> Self {
        Self { wire, answers_pings: true }
    }

    /// User `u<user>` of the listener's tenant.
    #[track_caller]
    pub(crate) fn logged_in(gateway: &Gateway, user: u32) -> Self {
        let mut client = Self::dial(gateway);
        client.login(Self::connect(&format!("u{user}")));
        client
    }

    /// The login of a client that knows the extension, into the listener's tenant.
    pub(crate) fn connect(user: &str) -> Connect {
        Connect { user: user.into(), token: PASSWORD.into(), ext: 1, ..Connect::default() }
    }

    /// Sends a login and expects to be accepted.
    #[track_caller]
    pub(crate) fn login(&mut self, connect: Connect) -> ConAck {
        self.put(|out| client::connect(connect, true, out));
        match self.next() {
            DemoSeen::Packet(ServerPacket::ConAck(ack)) => {
                assert_eq!((ack.status(), &ack.reason), (Status::Ok, &None));
                ack
            }
            other => panic!("{other:?} after a login"),
        }
    }

    /// Sends a login and expects to be refused, and the end.
    #[track_caller]
    pub(crate) fn login_refused(mut self, connect: Connect) {
        self.put(|out| client::connect(connect, true, out));
        match self.next() {
            DemoSeen::Packet(ServerPacket::ConAck(ack)) => {
                assert_eq!(ack.status(), Status::Fail);
                assert!(ack.reason.is_some_and(|reason| !reason.is_empty()));
            }
            other => panic!("{other:?} after a login"),
        }
        self.expect_end();
    }

    /// Sends what `write` appends.
    #[track_caller]
    pub(crate) fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.wire.send(&out);
    }

    #[track_caller]
    pub(crate) fn command(&mut self, command: &Command) {
        self.put(|out| client::put(command, true, out));
    }

    /// A text to a user; whoever is away finds it later.
    #[track_caller]
    pub(crate) fn say(&mut self, to: &str, id: &str, text: &str) {
        self.send((ChatType::Single, to), id, text, Some(true));
    }

    #[track_caller]
    pub(crate) fn send(&mut self, to: (ChatType, &str), id: &str, text: &str, keep: Option<bool>) {
        self.put(|out| client::send(to, id, text, keep, true, out));
    }

    /// Acknowledges a push.
    #[track_caller]
    pub(crate) fn ack(&mut self, id: &str) {
        self.put(|out| client::ack(id, true, out));
    }

    /// Asks about groups; the answer is owed.
    #[track_caller]
    pub(crate) fn ask_group(&mut self, group: &Group, id: &str) {
        self.put(|out| client::group(group, id, true, out));
    }

    #[track_caller]
    pub(crate) fn ask_contact(&mut self, op: ContactOp, user: &str, id: &str) {
        self.put(|out| client::contact(op, user, id, true, out));
    }

    /// A question about groups and its answer: the code, and the groups.
    #[track_caller]
    pub(crate) fn group(&mut self, group: &Group) -> (i32, Vec<GroupItem>) {
        self.ask_group(group, "group");
        let response = self.expect_response("group");
        let list = GroupList::decode(&*response.payload).expect("a list");
        (response.code, list.items)
    }

    /// A question about contacts and its answer: the code, and the contacts.
    #[track_caller]
    pub(crate) fn contact(&mut self, op: ContactOp, user: &str) -> (i32, Vec<ContactItem>) {
        self.ask_contact(op, user, "contact");
        let response = self.expect_response("contact");
        let list = ContactList::decode(&*response.payload).expect("a list");
        (response.code, list.items)
    }

    /// The next thing within `patience`; `None`: nothing came.
    pub(crate) fn see(&mut self, patience: Duration) -> Option<DemoSeen> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let found = self.wire.see(left, |read, _| stream::frame(PACKET_MAX as u32, read))?;
            let Got::Packet(packet) = found else { return Some(DemoSeen::End) };
            let packet = client::decode_server(&packet);
            match packet.expect("the gateway sends only what its protocol has") {
                ServerPacket::Ping(ping) if self.answers_pings => {
                    self.put(|out| client::pong(ping, true, out));
                }
                packet => return Some(DemoSeen::Packet(packet)),
            }
        }
    }

    #[track_caller]
    pub(crate) fn next(&mut self) -> DemoSeen {
        self.see(PATIENCE).expect("nothing came")
    }

    /// The next packet, which must be the answer to request `id`.
    #[track_caller]
    pub(crate) fn expect_response(&mut self, id: &str) -> Response {
        match self.next() {
            DemoSeen::Packet(ServerPacket::Response(response)) => {
                assert_eq!(response.id, id);
                response
            }
            other => panic!("{other:?} is no response to {id}"),
        }
    }

    /// The answer to a message that is taken over.
    #[track_caller]
    pub(crate) fn expect_taken(&mut self, id: &str) -> MessageAck {
        let response = self.expect_response(id);
        assert_eq!((response.code, &*response.reason), (0, ""));
        let ack = MessageAck::decode(&*response.payload).expect("an acknowledgement");
        assert!(!ack.id.is_empty() && ack.time > 0, "{ack:?}");
        ack
    }

    /// The answer to a request that is refused.
    #[track_caller]
    pub(crate) fn expect_code(&mut self, id: &str, code: i32) {
        assert_eq!(self.expect_response(id).code, code);
    }

    /// The next push, not acknowledged.
    #[track_caller]
    pub(crate) fn expect_push(&mut self, text: &str) -> DemoPush {
        match self.next() {
            DemoSeen::Packet(ServerPacket::Push { id, message, stored }) => {
                let push = DemoPush::of(&id, &message, stored);
                assert_eq!(push.text, text);
                push
            }
            other => panic!("{other:?} is no push"),
        }
    }

    /// Expects a push and acknowledges it.
    #[track_caller]
    pub(crate) fn take_push(&mut self, text: &str) -> DemoPush {
        let push = self.expect_push(text);
        self.ack(&push.id);
        push
    }

    /// The news that the user called `user` has made a contact of the client's: its id.
    #[track_caller]
    pub(crate) fn expect_added_by(&mut self, user: &str) -> String {
        match self.next() {
            DemoSeen::Packet(ServerPacket::Contact { id, contact }) => {
                assert_eq!((contact.op(), &*contact.user), (ContactOp::Add, user));
                id
            }
            other => panic!("{other:?} is no news of a contact"),
        }
    }

    /// A farewell with this code, and the end.
    #[track_caller]
    pub(crate) fn expect_disconnect(&mut self, code: i32) {
        match self.next() {
            DemoSeen::Packet(ServerPacket::Disconnect(disconnect)) => {
                assert_eq!(disconnect.code, code, "{}", disconnect.reason);
            }
            other => panic!("{other:?} is no farewell"),
        }
        self.expect_end();
    }

    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.next(), DemoSeen::End);
    }

    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        assert_eq!(self.see(SILENCE), None);
    }
}
