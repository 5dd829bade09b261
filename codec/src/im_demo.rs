//! IM Demo: protobuf Commands, behind a varint length on a byte stream, one per message over ws.
//!
//! ```text
//!   Command   1 version   3 connect   4 conack   5 disconnect   6 request   7 response
//!             8 ping      9 pong
//!
//!   client                                   gateway
//!   connect{org,appkey,user,token}       >
//!                                        <   conack{status}
//!   request{MESSAGE, Message{to}, id}    >
//!                                        <   response{code, id}         one each, in order
//!                                        <   request{MESSAGE, Message{from}, id}
//!   response{id}                         >                              acknowledges the push
//!                                        <   request{CONTACT, Contact{ADD, user}, id}
//!                                                              user has added him; no answer due
//! ```
//!
//! `proto/im_demo.proto` has all fields. The document names no recipient, no id and no push: those
//! are an extension, which a client asks for with `connect.ext`. A client without it gets the
//! documented bytes, and nothing that its decoder would not skip.
//!
//! Owns: these messages, what is accepted in them, what a client of which level is told. Never:
//! credentials, tenants, the order of answers. Number 2 of a Command never gets a meaning.

use std::ops::Range;

use crate::error::{Decoded, Malformed, WireError};
use crate::ids::MessageId;
use crate::manners::{Acks, Answers, Echo, Heartbeat, Manners, Patience, Resends};
use crate::message::Content;
use crate::packet::{Connect, Outgoing, Packet, Proof, Refusal, Terminal};
use crate::protocol::Protocol;

pub mod client;
mod command;
mod fields;
mod reply;
mod request;
pub mod stream;
pub mod types;

use command::{Command, Header, Part};
use fields::Value;
use reply::Response;
use types::MessageType;

/// The codec state of one connection, out of line: all protocols' connections have room for it.
#[derive(Debug)]
pub struct ImDemo(Box<State>);

#[derive(Debug, Default)]
struct State {
    /// The client knows the extension.
    ext: bool,
    /// Who logged in; empty if it can be nobody's name.
    user: Box<[u8]>,
    /// The sub-message of the Command at hand to be decoded next; 0 before the first one.
    next: u8,
    /// What the client's last ping said.
    ping_time: i64,
}

/// `[protocol.im-demo]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Longest Command in bytes, at most [`PACKET_MAX`], which is the default.
    pub max_frame: u32,
    /// A login with neither org nor appkey is one of the listener's tenant. Default true.
    pub default_tenant: bool,
    /// Whether messages without any option wait for recipients who are away. Default false: the
    /// literal reading of an absent field.
    pub offline_default: bool,
    /// The group that gets messages without a recipient, which is all that original clients can
    /// send. Default none: they are refused.
    pub default_to: Option<Box<[u8]>>,
    /// Lists are in the reason of the answer, too, for original clients. Default false.
    pub list_in_reason: bool,
    /// A push that a client of the extension does not acknowledge is sent again after so many
    /// milliseconds, three times, and then waits for his next login. Default 10,000.
    pub retry_interval_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_frame: PACKET_MAX as u32,
            default_tenant: true,
            offline_default: false,
            default_to: None,
            list_in_reason: false,
            retry_interval_ms: 10_000,
        }
    }
}

impl Protocol for ImDemo {
    const NAME: &'static str = "im-demo";
    const PACKET_MAX: usize = PACKET_MAX;
    const SILENT_RECEIVERS: bool = true;
    const PUSHES_STAMPS: bool = true;
    type Settings = Settings;

    fn new() -> Self {
        Self(Box::default())
    }

    fn frame(
        &mut self,
        settings: &Settings,
        input: &[u8],
        _: bool,
    ) -> Result<Decoded<Range<usize>>, WireError> {
        stream::frame(settings.max_frame, input)
    }

    fn decode<'a>(
        &mut self,
        settings: &Settings,
        bytes: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Packet<'a>, WireError> {
        if bytes.len() > settings.max_frame as usize {
            return Err(WireError::new(Malformed::TooLarge, 0));
        }
        let mut command = Command::default();
        command.read(bytes)?;
        let state = &mut *self.0;
        Ok(match state.part(&command) {
            None => Packet::Nothing,
            Some(Part::Connect(connect)) => Packet::Connect(state.connect(settings, connect)),
            Some(Part::Disconnect) => Packet::Disconnect,
            Some(Part::Request(request)) => request::packet(settings, request, scratch),
            Some(Part::Response(b"")) => Packet::AckOldest,
            Some(Part::Response(id)) => match MessageId::new(id) {
                Some(id) => Packet::Ack(id),
                // An id that long is none of ours.
                None => Packet::Nothing,
            },
            Some(Part::Ping(time)) => {
                state.ping_time = time;
                Packet::Ping
            }
            Some(Part::Pong) => Packet::Pong,
        })
    }

    fn has_more(&self) -> bool {
        self.0.next > 0
    }

    fn check_connect(_: &Settings, connect: &Connect<'_>) -> Result<(), Refusal> {
        if connect.tenant.is_some_and(|(org, appkey)| !is_name(org) || !is_name(appkey)) {
            return Err(Refusal::UnknownTenant);
        }
        let device_fits = match connect.terminal {
            Terminal::Device(device) => device.is_empty() || is_name(device),
            Terminal::Kind(_) | Terminal::Connection => true,
        };
        if is_name(connect.name) && device_fits { Ok(()) } else { Err(Refusal::BadCredentials) }
    }

    fn encode(
        &self,
        settings: &Settings,
        outgoing: &Outgoing<'_>,
        stream: bool,
        out: &mut Vec<u8>,
    ) {
        let ext = self.0.ext;
        match outgoing {
            Outgoing::Accepted(accepted) => reply::put_accepted(ext, accepted, stream, out),
            Outgoing::Refused(refusal) => reply::put_refused(*refusal, stream, out),
            Outgoing::PublishAck(_, id, receipt) => {
                Response::done(id, receipt.filter(|_| ext)).put(stream, out);
            }
            Outgoing::PublishFailed { id, why, .. } => Response::failed(id, *why).put(stream, out),
            Outgoing::Push(push) => reply::put_push(push, &self.0.user, stream, out),
            Outgoing::Answer(id, answer) => {
                Response::answer(id, answer, settings.list_in_reason && !ext).put(stream, out);
            }
            Outgoing::Notice(stamp, notice) if ext => {
                reply::put_notice(*stamp, notice, stream, out);
            }
            Outgoing::Ping if ext => reply::put_ping(0, stream, out),
            Outgoing::Pong if ext => reply::put_pong(self.0.ping_time, stream, out),
            Outgoing::Goodbye(reason) => reply::put_goodbye(*reason, stream, out),
            // The original has no heartbeat and no news, and nobody here sits in a room.
            Outgoing::Ping
            | Outgoing::Pong
            | Outgoing::Notice(..)
            | Outgoing::Joined(_)
            | Outgoing::Left(_)
            | Outgoing::Present(_)
            | Outgoing::Invalid(_) => {}
        }
    }

    /// A push is the same for clients of every level: the original skips what it does not know.
    fn push_variant(&self, _: &Settings) -> Option<u8> {
        Some(0)
    }

    fn manners(&self, settings: &Settings) -> Manners {
        let ext = self.0.ext;
        let resends =
            Resends { interval_ms: settings.retry_interval_ms, max: RETRIES, ends: false };
        Manners {
            acks: if ext { Acks::Packets } else { Acks::Bytes },
            resends: ext.then_some(resends),
            heartbeat: if ext { Heartbeat::Expected } else { Heartbeat::None },
            unique_ids: true,
            answers: Answers::InOrder,
            gap_ms: 0,
            room: false,
            refusals: true,
            patience: Patience::None,
            keeps_older: false,
            group_echo: Echo::Elsewhere,
            copies: false,
            open_groups: false,
            tentative: false,
        }
    }

    fn content(body: &[u8]) -> Content<'_> {
        let Ok(header) = Header::parse(body) else { return Content::Opaque(body) };
        let opaque = Content::Opaque(header.payload);
        let Ok(text) = command::text(header.payload, Value::string) else { return opaque };
        match header.kind() {
            Some(MessageType::Txt) => Content::Text(text),
            Some(MessageType::Image) => Content::Image(text),
            None => opaque,
        }
    }
}

impl State {
    /// The next sub-message, in the order of their numbers; `None` if the Command has none.
    fn part<'c, 'a>(&mut self, command: &'c Command<'a>) -> Option<Part<'c, 'a>> {
        let (part, next) = command.part(std::mem::take(&mut self.next))?;
        self.next = next;
        Some(part)
    }

    fn connect<'a>(&mut self, settings: &Settings, connect: &command::Connect<'a>) -> Connect<'a> {
        let user = connect.user;
        self.ext = connect.ext >= 1;
        self.user = if is_name(user) { user.into() } else { Box::default() };
        let tenant = (connect.org, connect.appkey);
        let is_default = settings.default_tenant && tenant.0.is_empty() && tenant.1.is_empty();
        Connect {
            name: user,
            proof: Proof::Password(connect.token),
            role: None,
            terminal: Terminal::Device(connect.device),
            vhost: None,
            tenant: (!is_default).then_some(tenant),
        }
    }
}

/// Whether an organisation, an appkey, a user or a device may be called so.
fn is_name(name: &[u8]) -> bool {
    let text = std::str::from_utf8(name).unwrap_or_default();
    (1..=NAME_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

/// The longest Command in bytes, without its length: the default of [`Settings::max_frame`].
pub const PACKET_MAX: usize = 1 << 20;

/// The longest name in bytes.
pub const NAME_MAX: usize = 64;
/// Copies of a push without acknowledgement after the first.
const RETRIES: u8 = 3;
