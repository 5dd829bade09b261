//! The client's side of a conversation with the gateway, without a socket.
//!
//! Owns: what was said and is not acknowledged yet, resends, which pushes were seen, the answers to
//! pushes and pings. Never: sockets, clocks, the terminal. Packets come in, packets and events go
//! out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use codec::binary::client::{self, ServerPacket, Tail};
use codec::binary::code;
use codec::{GroupId, MessageId, PublishKind, UserId};

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    User(UserId),
    Group(GroupId),
}

/// What the person at the terminal should know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Logged in; so many messages that had waited were sent.
    Accepted { sent: usize },
    /// A message came in.
    Message { group: Option<GroupId>, body: Vec<u8> },
    /// The gateway has the message safe.
    Safe { label: String },
    /// The gateway ends it and coming back would not help; why.
    Final(&'static str),
}

/// What a call produced.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) packets: Vec<Vec<u8>>,
    pub(crate) events: Vec<Event>,
}

/// A message the gateway has not acknowledged.
struct Pending {
    id: MessageId,
    packet: Vec<u8>,
    label: String,
    sent: Instant,
}

/// One login name over any number of connections.
pub(crate) struct Session {
    name: String,
    password: String,
    accepted: bool,
    ever_accepted: bool,
    outbox: VecDeque<Pending>,
    /// The latest pushes, newest last: deliveries may repeat, they are shown once.
    seen: VecDeque<MessageId>,
}

/// Why a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Too many unacknowledged ones.
    OutboxFull,
    TooLong,
}

impl Session {
    pub(crate) fn new(name: &str, password: &str) -> Self {
        Self {
            name: name.to_owned(),
            password: password.to_owned(),
            accepted: false,
            ever_accepted: false,
            outbox: VecDeque::new(),
            seen: VecDeque::new(),
        }
    }

    /// The first packet of a new connection.
    pub(crate) fn connected(&mut self) -> Result<Vec<u8>, client::TooLong> {
        let mut packet = Vec::new();
        // The form that names the kind of terminal: its group pushes name the group.
        let tail = Tail::Terminal { role: ROLE_USER, client: CLIENT_PC };
        client::connect(self.name.as_bytes(), self.password.as_bytes(), tail, &mut packet)?;
        Ok(packet)
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self) {
        self.accepted = false;
    }

    /// Takes a message. It is sent now, or after the next login.
    pub(crate) fn say(
        &mut self,
        to: To,
        id: MessageId,
        body: &[u8],
        label: &str,
        now: Instant,
    ) -> Result<Output, NotTaken> {
        if self.outbox.len() >= OUTBOX_MAX {
            return Err(NotTaken::OutboxFull);
        }
        let mut packet = Vec::new();
        let packed = match to {
            To::User(user) => client::publish(user, &id, body, &mut packet),
            To::Group(group) => client::group_publish(group, &id, body, &mut packet),
        };
        packed.map_err(|client::TooLong| NotTaken::TooLong)?;
        let mut output = Output::default();
        if self.accepted {
            output.packets.push(packet.clone());
        }
        self.outbox.push_back(Pending { id, packet, label: label.to_owned(), sent: now });
        Ok(output)
    }

    /// Whether any login was accepted.
    pub(crate) fn ever_accepted(&self) -> bool {
        self.ever_accepted
    }

    /// Messages that were said and are not safe yet.
    pub(crate) fn unsafe_count(&self) -> usize {
        self.outbox.len()
    }

    /// Sends again what has waited too long for its acknowledgement.
    pub(crate) fn tick(&mut self, now: Instant) -> Output {
        let mut output = Output::default();
        if self.accepted {
            let late = |pending: &&mut Pending| now.duration_since(pending.sent) >= RESEND_AFTER;
            for pending in self.outbox.iter_mut().filter(late) {
                pending.sent = now;
                output.packets.push(pending.packet.clone());
            }
        }
        output
    }

    /// Takes one packet of the gateway. What makes no sense is ignored.
    pub(crate) fn packet(&mut self, bytes: &[u8], now: Instant) -> Output {
        let mut output = Output::default();
        let Ok(packet) = client::decode_server(bytes) else { return output };
        match packet {
            ServerPacket::ConnectAck(code::ACCEPTED) => self.accept(now, &mut output),
            ServerPacket::ConnectAck(refusal) => {
                output.events.push(Event::Final(refusal_text(refusal)));
            }
            ServerPacket::Push { id, body } => self.push(None, id, body, &mut output),
            ServerPacket::GroupPush { group, id, body } => {
                self.push(Some(group), id, body, &mut output);
            }
            ServerPacket::PublishAck(_, id) => {
                if let Some(at) = self.outbox.iter().position(|pending| pending.id == id) {
                    let label = self.outbox.remove(at).map(|pending| pending.label);
                    output.events.extend(label.map(|label| Event::Safe { label }));
                }
            }
            ServerPacket::Ping => {
                let mut packet = Vec::new();
                client::ping_resp(&mut packet);
                output.packets.push(packet);
            }
            ServerPacket::Logout => {
                output.events.push(Event::Final("logged in elsewhere under the same name"));
            }
            ServerPacket::Disconnect | ServerPacket::Invalid => {}
        }
        output
    }

    fn accept(&mut self, now: Instant, output: &mut Output) {
        self.accepted = true;
        self.ever_accepted = true;
        output.events.push(Event::Accepted { sent: self.outbox.len() });
        for pending in &mut self.outbox {
            pending.sent = now;
            output.packets.push(pending.packet.clone());
        }
    }

    /// Acknowledged every time, shown once.
    fn push(&mut self, group: Option<GroupId>, id: MessageId, body: &[u8], output: &mut Output) {
        let kind = if group.is_some() { PublishKind::Group } else { PublishKind::User };
        let mut packet = Vec::new();
        client::ack(kind, &id, &mut packet);
        output.packets.push(packet);
        if self.seen.contains(&id) {
            return;
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(id);
        output.events.push(Event::Message { group, body: body.to_vec() });
    }
}

fn refusal_text(refusal: u8) -> &'static str {
    match refusal {
        code::DUPLICATE => "refused: this name is logged in elsewhere",
        code::UNKNOWN_VHOST => "refused: unknown virtual host",
        code::BAD_CREDENTIALS => "refused: wrong name or password",
        _ => "refused",
    }
}

/// What the login says about us.
const ROLE_USER: u8 = 3;
const CLIENT_PC: u8 = 1;

/// Nobody types more into a dead line.
const OUTBOX_MAX: usize = 256;
/// Repeated deliveries come soon after the first or not at all.
const SEEN_MAX: usize = 1024;
/// The gateway withholds the acknowledgement while its store is down.
const RESEND_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> MessageId {
        [byte; 32].into()
    }

    fn first() -> MessageId {
        id(b'a')
    }

    fn with_id(head: &[u8], id: MessageId, tail: &[u8]) -> Vec<u8> {
        [head, id.as_bytes(), tail].concat()
    }

    fn accepted() -> (Session, Instant) {
        let (mut session, now) = (Session::new("alice", "pw"), Instant::now());
        session.packet(&[2, 0], now);
        (session, now)
    }

    #[test]
    fn the_login_names_a_terminal() {
        let packet = Session::new("test", "123456").connected().expect("short");
        assert_eq!(packet, b"\x01\x00\x04test\x00\x06123456\x03\x01");
    }

    #[test]
    fn what_is_said_before_the_login_leaves_with_it_and_is_safe_once_acknowledged() {
        let (mut session, now) = (Session::new("alice", "pw"), Instant::now());
        let output = session.say(To::User(UserId(1234)), first(), b"hi", "bob: hi", now);
        assert!(output.expect("room").packets.is_empty());
        let output = session.packet(&[2, 0], now);
        assert_eq!(output.events, [Event::Accepted { sent: 1 }]);
        assert_eq!(output.packets, [with_id(&[3, 0, 0, 4, 0xd2], first(), b"\x00\x02hi")]);
        let output = session.packet(&with_id(&[4], first(), &[]), now);
        assert_eq!(output.events, [Event::Safe { label: "bob: hi".into() }]);
        assert_eq!(session.unsafe_count(), 0);
        assert!(session.packet(&with_id(&[4], first(), &[]), now).events.is_empty(), "only once");
    }

    #[test]
    fn a_new_connection_sends_again_what_is_not_acknowledged_in_order() {
        let (mut session, now) = accepted();
        for byte in [b'a', b'b', b'c'] {
            let said = session.say(To::Group(GroupId(1)), id(byte), b"x", "", now);
            assert_eq!(said.expect("room").packets.len(), 1);
        }
        session.packet(&with_id(&[6], id(b'b'), &[]), now);
        session.lost();
        assert!(session.tick(now + RESEND_AFTER * 2).packets.is_empty(), "not while offline");
        let packets = session.packet(&[2, 0], now).packets;
        let ids: Vec<_> = packets.iter().map(|packet| packet[5]).collect();
        assert_eq!(ids, *b"ac");
    }

    #[test]
    fn a_late_acknowledgement_is_asked_for_again() {
        let (mut session, now) = accepted();
        session.say(To::User(UserId(1)), first(), b"x", "", now).expect("room");
        assert!(session.tick(now + RESEND_AFTER / 2).packets.is_empty());
        assert_eq!(session.tick(now + RESEND_AFTER).packets.len(), 1);
        assert!(session.tick(now + RESEND_AFTER).packets.is_empty(), "the clock starts again");
    }

    #[test]
    fn pushes_are_acknowledged_each_time_and_shown_once() {
        let (mut session, now) = accepted();
        let push = with_id(&[3], first(), b"\x00\x02hi");
        let output = session.packet(&push, now);
        assert_eq!(output.packets, [with_id(&[4], first(), &[])]);
        assert_eq!(output.events, [Event::Message { group: None, body: b"hi".to_vec() }]);
        let output = session.packet(&push, now);
        assert_eq!((output.packets.len(), output.events.len()), (1, 0));
        let group = with_id(&[5, 0, 0, 0, 1], id(b'g'), b"\x00\x01x");
        let output = session.packet(&group, now);
        assert_eq!(output.packets, [with_id(&[6], id(b'g'), &[])]);
        let message = Event::Message { group: Some(GroupId(1)), body: b"x".to_vec() };
        assert_eq!(output.events, [message]);
    }

    #[test]
    fn pings_are_answered_and_nonsense_is_ignored() {
        let (mut session, now) = accepted();
        assert_eq!(session.packet(&[7], now).packets, [[8]]);
        for nonsense in [&[][..], &[0xff], &[3, 1], &[9], &[10]] {
            let output = session.packet(nonsense, now);
            assert!(output.packets.is_empty() && output.events.is_empty(), "{nonsense:?}");
        }
    }

    #[test]
    fn refusals_and_a_logout_are_final() {
        let (mut session, now) = accepted();
        for packet in [&[2, 1][..], &[2, 2], &[2, 3], &[2, 9], &[0x14]] {
            let events = session.packet(packet, now).events;
            assert!(matches!(events[..], [Event::Final(_)]), "{packet:?}");
        }
    }

    #[test]
    fn the_outbox_is_bounded_and_long_texts_are_refused() {
        let (mut session, now) = (Session::new("alice", "pw"), Instant::now());
        let to = To::User(UserId(1));
        assert_eq!(session.say(to, first(), &[0; 65_536], "", now).err(), Some(NotTaken::TooLong));
        for _ in 0..OUTBOX_MAX {
            session.say(to, first(), b"x", "", now).expect("room");
        }
        assert_eq!(session.say(to, first(), b"x", "", now).err(), Some(NotTaken::OutboxFull));
    }
}
