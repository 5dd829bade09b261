//! simple_im: packets of a TOML of its own, one after the other without frames.
//!
//! ```text
//!   client to gateway
//!   r    id t ("login", "reconnect") [r.user] id device token     the first packet
//!                                    [r.user] phone device password
//!   m    id c [m.from] id device [m.to] id device
//!   gm   id c [gm.user] id device [gm.group] id
//!   a    id                                   the client has this m or gm; nobody answers it
//!
//!   gateway to client
//!   rr   id t s (0 or 1) r                    the answer to an r
//!   a    id                                   the publish is safe
//!   m, gm                                     see `push`
//!   n, gn                                     see `notice`
//! ```
//!
//! Five revisions of the clients write this in four [`Dialect`]s, told apart by their packets and
//! answered in kind. What a client says of himself in `m.from` and `gm.user` is not looked at.
//!
//! Owns: what is accepted, and the words and the dialect of what is sent. Never: the order of
//! packets, acknowledgement, credentials.

use std::hash::{DefaultHasher, Hasher as _};
use std::ops::Range;

use crate::error::{Decoded, Malformed, WireError};
use crate::ids::{GroupId, MessageId, UserId};
use crate::manners::{Acks, Answers, Echo, Heartbeat, Manners, Patience};
use crate::message::{Content, Message};
use crate::notice::Notice;
use crate::packet::{
    Accepted, Connect, Destination, Failure, Outgoing, Packet, Proof, Publish, Refusal, Terminal,
};
use crate::protocol::Protocol;
use crate::query::{Answer, Query};

mod body;
pub mod client;
mod emit;
mod fields;
mod kept;
mod lexer;
mod notice;
mod push;
mod scan;

pub use fields::NAME_MAX;
pub use kept::{Kept, read_message};
pub use scan::PACKET_MAX;

use body::{Body, Media};
use emit::Emitter;
use fields::Fields;
use scan::{Field, Kind, Scan};

/// How a revision of the clients writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `[m]`, tables for sender and addressee, escapes: the document's, and the one before it.
    Single,
    /// `[[m]]` and tables. From here on texts have no escapes.
    Nested,
    /// `[[m]]`, numbers instead of tables.
    Flat,
    /// As `Flat`, with the sender's device and the kind of content.
    Device,
}

impl Dialect {
    fn is_double(self) -> bool {
        self != Self::Single
    }

    fn is_flat(self) -> bool {
        matches!(self, Self::Flat | Self::Device)
    }

    /// What a first packet tells: not yet whether `Nested` is `Flat`.
    fn of_login(fields: &Fields<'_, '_>) -> Self {
        match (fields.double(), fields.has(Field::D)) {
            (false, _) => Self::Single,
            (true, false) => Self::Nested,
            (true, true) => Self::Device,
        }
    }
}

/// The codec state of one connection.
// Behind a pointer, since a connection of any protocol takes the place of the largest state.
#[derive(Debug, PartialEq, Eq)]
pub struct SimpleIm(Box<State>);

#[derive(Debug, PartialEq, Eq)]
struct State {
    scan: Scan,
    /// `scan` is of a whole packet that was not decoded yet.
    framed: bool,
    session: Session,
}

/// What the packets so far have told.
#[derive(Debug, PartialEq, Eq)]
struct Session {
    dialect: Dialect,
    /// The login decoded last.
    login: Option<Login>,
    /// `t` of the last request that nobody knows.
    asked: Box<[u8]>,
}

/// What of a login is echoed, or known again.
#[derive(Debug, PartialEq, Eq)]
struct Login {
    id: MessageId,
    reconnect: bool,
    /// `name` is a phone number.
    phone: bool,
    name: Box<[u8]>,
    device: Box<[u8]>,
    /// A hash of the token or password.
    proof: u64,
}

/// `[protocol.simple-im]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds between two packets to one client, unless he acknowledges the first. The
    /// original clients take what one receive gives them for exactly one packet.
    pub gap_ms: u16,
    /// The devices that may log in; empty: any.
    pub devices: Vec<Box<[u8]>>,
    /// A group message is an `m` from its sender to clients of [`Dialect::Single`] and
    /// [`Dialect::Nested`]: the original ones do not survive a `gm`.
    pub group_as_message: bool,
    /// Logins with phone and password are taken.
    pub c0_login: bool,
    /// What a refused login is told.
    pub token_error: Box<str>,
    /// What a refused login with phone and password is told.
    pub password_error: Box<str>,
    /// What is said to a request that nobody knows.
    pub unknown_request: Box<str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gap_ms: 5,
            devices: Vec::new(),
            group_as_message: true,
            c0_login: true,
            token_error: "token error".into(),
            password_error: "password not match".into(),
            unknown_request: "Unknown request".into(),
        }
    }
}

/// Appends a message as one packet of a revision, for whoever hands messages out besides the
/// connection.
pub fn write_message(dialect: Dialect, message: &Message, out: &mut Vec<u8>) {
    push::put(dialect, false, message, out);
}

impl Protocol for SimpleIm {
    const NAME: &'static str = "simple-im";
    const PACKET_MAX: usize = PACKET_MAX;
    const TEXT: bool = true;
    type Settings = Settings;

    fn new() -> Self {
        let dialect = Dialect::Single;
        let scan = Scan::new(dialect.is_double());
        let session = Session { dialect, login: None, asked: Box::default() };
        Self(Box::new(State { scan, framed: false, session }))
    }

    fn frame(
        &mut self,
        _: &Settings,
        input: &[u8],
        quiet: bool,
    ) -> Result<Decoded<Range<usize>>, WireError> {
        // What comes late of a packet that was whole without it means nothing; before the first
        // packet there is no such tail.
        let state = &mut *self.0;
        let strays = state.session.login.is_some();
        if state.framed {
            state.rewind();
        }
        let found = state.scan.frame(input, quiet, strays);
        match found {
            Ok(Decoded::Frame { .. }) => state.framed = true,
            Ok(_) => {}
            Err(_) => state.rewind(),
        }
        found
    }

    fn decode<'a>(
        &mut self,
        _: &Settings,
        bytes: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Packet<'a>, WireError> {
        let State { scan, framed, session } = &mut *self.0;
        // Taken apart when it was framed; over ws there are no frames to be found.
        let fields = match *framed && scan.range().len() == bytes.len() {
            true => Ok(Fields::of(scan, bytes)),
            false => {
                *scan = Scan::new(session.dialect.is_double());
                Fields::read(scan, bytes)
            }
        };
        let packet = fields.and_then(|fields| session.packet(&fields, scratch));
        self.0.rewind();
        packet
    }

    fn check_connect(settings: &Settings, connect: &Connect<'_>) -> Result<(), Refusal> {
        let device = match connect.terminal {
            Terminal::Device(device) => device,
            Terminal::Kind(_) | Terminal::Connection => b"",
        };
        let listed = settings.devices.is_empty()
            || settings.devices.iter().any(|listed| **listed == *device);
        let by_phone = matches!(connect.proof, Proof::Phone(_));
        if listed && (settings.c0_login || !by_phone) {
            Ok(())
        } else {
            Err(Refusal::BadCredentials)
        }
    }

    fn encode(
        &self,
        settings: &Settings,
        outgoing: &Outgoing<'_>,
        stream: bool,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        match outgoing {
            Outgoing::Accepted(accepted) => self.0.session.put_accepted(accepted, out),
            Outgoing::Refused(_) => self.0.session.put_refused(settings, out),
            Outgoing::PublishAck(_, id, _) => {
                Emitter::new("a", self.0.session.dialect.is_double(), out)
                    .text("id", id.as_bytes());
            }
            Outgoing::Push(push) => {
                push::put(self.0.session.dialect, settings.group_as_message, push.message, out);
            }
            Outgoing::Notice(_, notice) if self.0.session.is_his_doing(notice) => {}
            Outgoing::Notice(_, notice) => notice::put(self.0.session.dialect, notice, out),
            Outgoing::Answer(id, Answer::Failed(_)) => {
                let reason = Some(&*settings.unknown_request);
                self.0.session.put_reply(reason, id, &self.0.session.asked, out);
            }
            // Clients wait for nothing but `rr` and `a`, and die of words they do not know.
            Outgoing::PublishFailed { .. }
            | Outgoing::Joined(_)
            | Outgoing::Left(_)
            | Outgoing::Present(_)
            | Outgoing::Answer(..)
            | Outgoing::Ping
            | Outgoing::Pong
            | Outgoing::Invalid(_)
            | Outgoing::Goodbye(_) => {}
        }
        if !stream {
            make_text(start, out);
        }
    }

    fn push_variant(&self, _: &Settings) -> Option<u8> {
        Some(self.0.session.dialect as u8)
    }

    fn manners(&self, settings: &Settings) -> Manners {
        let dialect = self.0.session.dialect;
        Manners {
            acks: Acks::Packets,
            resends: None,
            heartbeat: Heartbeat::None,
            unique_ids: false,
            answers: Answers::AsTheyCome,
            gap_ms: settings.gap_ms,
            room: false,
            refusals: false,
            patience: Patience::None,
            keeps_older: false,
            // The older servers' member lists include the sender; the newer ones leave him out, and
            // tell his other devices of all that he says.
            group_echo: if dialect.is_flat() { Echo::Elsewhere } else { Echo::Everywhere },
            copies: dialect.is_flat(),
            open_groups: false,
            // The first message tells whether it is `Flat`.
            tentative: dialect == Dialect::Nested,
        }
    }

    fn content(body: &[u8]) -> Content<'_> {
        Body::parse(body).map_or(Content::Opaque(body), |body| body.content())
    }
}

impl State {
    /// Ready for the next packet.
    fn rewind(&mut self) {
        self.scan = Scan::new(self.session.dialect.is_double());
        self.framed = false;
    }
}

impl Session {
    fn packet<'a>(
        &mut self,
        fields: &Fields<'_, 'a>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Packet<'a>, WireError> {
        match fields.kind() {
            Some(Kind::Request) => self.request(fields, scratch),
            Some(Kind::Message) => {
                let to = UserId(fields.number_of(&[Field::ToTable, Field::To])?);
                self.publish(fields, Destination::User(to), scratch)
            }
            Some(Kind::GroupMessage) => {
                let to = GroupId(fields.number_of(&GROUP_FIELDS)?);
                self.publish(fields, Destination::Group(to), scratch)
            }
            Some(Kind::Ack) => fields.id().map(Packet::Ack),
            Some(Kind::Reply | Kind::Notice | Kind::GroupNotice | Kind::Unknown) => {
                Err(WireError::new(Malformed::UnknownCommand, 0))
            }
            None if self.login.is_some() => Ok(Packet::Nothing),
            None if fields.is_empty() => Err(WireError::new(Malformed::Empty, 0)),
            None => Err(WireError::new(Malformed::Syntax, 0)),
        }
    }

    fn request<'a>(
        &mut self,
        fields: &Fields<'_, 'a>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Packet<'a>, WireError> {
        match fields.name(Field::Type)? {
            b"login" => self.connect(fields, false, scratch),
            b"reconnect" => self.connect(fields, true, scratch),
            unknown => {
                let id = fields.id()?;
                if self.login.is_none() {
                    // The first packet names a user, whatever it asks.
                    let user = if fields.has(Field::User) { Field::User } else { Field::Phone };
                    fields.escaped(user)?;
                    self.dialect = Dialect::of_login(fields);
                }
                self.asked = unknown.into();
                Ok(Packet::Query(id, Query::Refused(Failure::Unsupported)))
            }
        }
    }

    fn connect<'a>(
        &mut self,
        fields: &Fields<'_, 'a>,
        reconnect: bool,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Packet<'a>, WireError> {
        let id = fields.id()?;
        let device = if fields.has(Field::D) { Field::D } else { Field::Device };
        let device = fields.name(device)?;
        let phone = !fields.has(Field::User) && fields.has(Field::Phone);
        let (name, proof) = if phone {
            let password = fields.text(Field::Password, scratch)?;
            (fields.name(Field::Phone)?, Proof::Phone(password))
        } else {
            let token = fields.text(Field::Token, scratch)?;
            (fields.number(Field::User)?.1, Proof::Token(token))
        };
        let login = Login {
            id,
            reconnect,
            phone,
            name: name.into(),
            device: device.into(),
            proof: hash(proof),
        };
        // He says again who he is, and is.
        let again = self.login.as_ref().is_some_and(|before| before.is_same(&login));
        self.login = Some(login);
        if again {
            return Ok(Packet::ConnectAgain);
        }
        self.dialect = Dialect::of_login(fields);
        Ok(Packet::Connect(Connect {
            name,
            proof,
            role: None,
            terminal: Terminal::Device(device),
            vhost: None,
            tenant: None,
        }))
    }

    /// The body is made in `scratch`, see [`body`].
    fn publish<'a>(
        &mut self,
        fields: &Fields<'_, 'a>,
        to: Destination<'a>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Packet<'a>, WireError> {
        let id = fields.id()?;
        let device = self.login.as_ref().map_or(&b""[..], |login| &login.device);
        put_body(fields, device, scratch)?;
        // A login does not tell these two apart; the first message does.
        let tables = fields.has(Field::ToTable) || fields.has(Field::GroupTable);
        if self.dialect == Dialect::Nested && !tables {
            self.dialect = Dialect::Flat;
        }
        Ok(Packet::Publish(Publish { id, to, body: scratch, keep: true }))
    }

    /// Whether the change was made on this very device.
    fn is_his_doing(&self, notice: &Notice) -> bool {
        self.login.as_ref().is_some_and(|login| {
            let same_device = !login.device.is_empty() && login.device == notice.device;
            same_device && *login.name == *notice.by.to_string().as_bytes()
        })
    }

    fn put_accepted(&self, accepted: &Accepted<'_>, out: &mut Vec<u8>) {
        let Some(login) = &self.login else { return };
        let mut packet = self.put_reply(None, &login.id, login.request(), out);
        if login.phone {
            // These clients die without the table, but never use the token, which was meant for
            // other servers: none is made for them.
            packet.child("user").number("id", accepted.user.0.into()).text("token", b"");
        }
    }

    fn put_refused(&self, settings: &Settings, out: &mut Vec<u8>) {
        let Some(login) = &self.login else { return };
        let reason = if login.phone { &settings.password_error } else { &settings.token_error };
        self.put_reply(Some(reason), &login.id, login.request(), out);
    }

    /// `refused`: why. Clients die of a reply without `t`, and of a refusal without a reason.
    fn put_reply<'o>(
        &self,
        refused: Option<&str>,
        id: &MessageId,
        request: &[u8],
        out: &'o mut Vec<u8>,
    ) -> Emitter<'o> {
        let mut packet = Emitter::new("rr", self.dialect.is_double(), out);
        packet.number("s", refused.is_some().into());
        if let Some(reason) = refused {
            packet.text("r", reason.as_bytes());
        }
        packet.text("id", id.as_bytes()).text("t", request);
        packet
    }
}

impl Login {
    /// The same user and device, with the same proof.
    fn is_same(&self, other: &Self) -> bool {
        let who = |login: &Self| (login.phone, login.proof);
        who(self) == who(other) && self.name == other.name && self.device == other.device
    }

    fn request(&self) -> &'static [u8] {
        if self.reconnect { b"reconnect" } else { b"login" }
    }
}

/// Tells whether a proof is said again, for as many bytes as proofs may have.
fn hash(proof: Proof<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    if let Proof::Token(secret) | Proof::Phone(secret) = proof {
        hasher.write(secret);
    }
    hasher.finish()
}

/// Appends the body of a message: what its packet says, from `device`.
fn put_body(fields: &Fields<'_, '_>, device: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    let media = match fields.has(Field::Type) {
        true => Media::from_name(fields.escaped(Field::Type)?.0),
        false => Media::Text,
    };
    body::put_head(media, device, out);
    fields.put_text(Field::Text, out)
}

/// Where the group stands in a `gm`, in any revision.
const GROUP_FIELDS: [Field; 3] = [Field::GroupTable, Field::GroupId, Field::Group];

/// A ws text is UTF-8, but the texts of TCP clients may be anything.
fn make_text(start: usize, out: &mut Vec<u8>) {
    if simdutf8::basic::from_utf8(&out[start..]).is_err() {
        let text = String::from_utf8_lossy(&out[start..]).into_owned();
        out.truncate(start);
        out.extend_from_slice(text.as_bytes());
    }
}
