//! The binary IM protocol: one packet per ws message, or behind a length on a byte stream.
//!
//! ```text
//!   all integers big-endian; id = 32 opaque bytes; n = payload bytes
//!
//!   client to gateway                                                            size
//!   01 CONNECT             see `connect`
//!   03 PUBLISH             u32 to    | id | u16 n | payload                      39 + n
//!   04 PUB_ACK             id | ...                                              33 or more
//!   05 GROUP_PUBLISH       u32 group | id | u16 n | payload                      39 + n
//!   06 GROUP_PUB_ACK       id | ...                                              33 or more
//!   08 PING_RESP                                                                 1
//!   09 DISCONNECT                                                                1
//!   0b GROUP_PART_PUBLISH  u32 group | id | u16 k | k x u32 user | u16 n | payload
//!                                                                                41 + 4k + n
//!   0c GROUP_PART_PUB_ACK  id | ...                                              33 or more
//!
//!   gateway to client
//!   02 CONNECT_ACK         u8 code                                               2
//!   03 PUBLISH             id | u16 n | payload          no user id this way     35 + n
//!   04, 06, 0c             id                            acknowledges 03, 05, 0b 33
//!   05 GROUP_PUBLISH       u32 group | id | u16 n | payload                      39 + n
//!   07 PING                                                                      1
//!   09 DISCONNECT                                                                1
//!   0a INVALID_PACKET                                                            1
//!   14 LOGOUT              another login took this terminal                      1
//! ```
//!
//! Owns: these layouts, what is accepted in them, and the words chosen by the client's revision.
//! Never: the order of packets, acknowledgement, credentials. Decoding borrows and never allocates.

use std::ops::Range;

use crate::close::CloseReason;
use crate::error::{Decoded, Malformed, WireError};
use crate::ids::MessageId;
use crate::manners::{Acks, Echo, Manners, Patience, Resends};
use crate::message::{Content, Message, Target};
use crate::packet::{Connect, Outgoing, Packet, PublishKind, Refusal};
use crate::protocol::{Protocol, ProtocolId};
use crate::reader::Reader;

pub mod client;
mod connect;
pub mod door;
mod publish;
pub mod stream;
mod wire;

pub use wire::{MESSAGE_ID, PACKET_MAX, PART_USERS_MAX, PAYLOAD_MAX, code};

use connect::Layout;
use publish::PayloadRule;
use wire::{PAYLOAD_DEFAULT, command, message_id};

/// The codec state of one connection: which revision the client is.
#[derive(Debug, PartialEq, Eq)]
pub struct Binary {
    /// `None` until a CONNECT was decoded.
    layout: Option<Layout>,
}

/// `[protocol.binary]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which CONNECT layouts are accepted.
    pub connect_layout: ConnectLayout,
    /// What the length field of a payload may mean.
    pub payload_len: PayloadLen,
    /// Longest payload in bytes, at most [`PAYLOAD_MAX`]. Default 32,767: Java clients read the
    /// length as a signed short.
    pub max_payload: u32,
    /// How a group message is pushed.
    pub group_push: GroupPush,
    /// The vhosts a client may name; empty: any.
    pub vhosts: Vec<Box<[u8]>>,
    /// The same terminal logs in again: the older one stays.
    pub keeps_older: bool,
    /// Malformed packets after the login that one connection is forgiven.
    pub max_invalid: u8,
    /// A push counts as delivered only once the client has acknowledged it; else once it has left.
    pub require_push_ack: bool,
    /// A push without acknowledgement is sent again after so many milliseconds.
    pub retry_interval_ms: u32,
    /// So many times; then the connection is closed.
    pub retry_max: u8,
    /// A group message also goes to its sender.
    pub echo_to_sender: bool,
    /// Everybody may publish to every group; else only members.
    pub open_groups: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectLayout {
    /// All, told apart by their bytes.
    #[default]
    Auto,
    /// All without a vhost.
    Doc,
    /// Only with a vhost.
    Vhost,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadLen {
    /// Bytes, or UTF-16 units where they fit exactly.
    #[default]
    Auto,
    /// Bytes.
    Strict,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupPush {
    /// GROUP_PUBLISH to clients whose CONNECT names a client kind, PUBLISH to all others, which
    /// do not know a pushed GROUP_PUBLISH.
    #[default]
    Auto,
    Publish,
    GroupPublish,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_layout: ConnectLayout::default(),
            payload_len: PayloadLen::default(),
            max_payload: PAYLOAD_DEFAULT,
            group_push: GroupPush::default(),
            vhosts: Vec::new(),
            keeps_older: false,
            max_invalid: 3,
            require_push_ack: true,
            retry_interval_ms: 2_000,
            retry_max: 3,
            echo_to_sender: false,
            open_groups: false,
        }
    }
}

impl Settings {
    /// Whether clients may name this vhost.
    pub fn vhost_known(&self, vhost: &[u8]) -> bool {
        self.vhosts.is_empty() || self.vhosts.iter().any(|known| **known == *vhost)
    }
}

impl Protocol for Binary {
    const NAME: &'static str = "binary";
    const PACKET_MAX: usize = PACKET_MAX;
    type Settings = Settings;

    fn new() -> Self {
        Self { layout: None }
    }

    fn frame(
        &mut self,
        _: &Settings,
        input: &[u8],
        _: bool,
    ) -> Result<Decoded<Range<usize>>, WireError> {
        stream::frame(input)
    }

    fn decode<'a>(
        &mut self,
        settings: &Settings,
        bytes: &'a [u8],
        _: &'a mut Vec<u8>,
    ) -> Result<Packet<'a>, WireError> {
        let mut reader = Reader::new(bytes);
        let command = reader.u8().map_err(|_| WireError::new(Malformed::Empty, 0))?;
        match command {
            _ if publish::is_publish(command) => {
                let rule = PayloadRule { max: settings.max_payload, len: settings.payload_len };
                publish::decode(rule, command, &mut reader).map(Packet::Publish)
            }
            // Some clients append to the id they acknowledge; the rest of the packet means nothing.
            command::PUB_ACK | command::GROUP_PUB_ACK | command::GROUP_PART_PUB_ACK => {
                message_id(&mut reader).map(Packet::Ack)
            }
            command::PING_RESP => reader.finish().map(|()| Packet::Pong),
            command::CONNECT => {
                let (connect, layout) = connect::decode(settings.connect_layout, &mut reader)?;
                self.layout = Some(layout);
                Ok(Packet::Connect(connect))
            }
            command::DISCONNECT => reader.finish().map(|()| Packet::Disconnect),
            _ => Err(WireError::new(Malformed::UnknownCommand, 0)),
        }
    }

    fn check_connect(settings: &Settings, connect: &Connect<'_>) -> Result<(), Refusal> {
        match connect.vhost {
            Some(vhost) if !settings.vhost_known(vhost) => Err(Refusal::UnknownVhost),
            _ => Ok(()),
        }
    }

    fn encode(
        &self,
        settings: &Settings,
        outgoing: &Outgoing<'_>,
        stream: bool,
        out: &mut Vec<u8>,
    ) {
        stream::framed(stream, out, |out| match outgoing {
            Outgoing::Accepted(_) => out.extend_from_slice(&[command::CONNECT_ACK, code::ACCEPTED]),
            Outgoing::Refused(refusal) => {
                out.extend_from_slice(&[command::CONNECT_ACK, refusal_code(*refusal)]);
            }
            Outgoing::PublishAck(kind, id, _) => put_ack(*kind, id, out),
            Outgoing::Push(push) => self.put_push(settings, push.message, out),
            Outgoing::Ping => out.push(command::PING),
            Outgoing::Invalid(_) => out.push(command::INVALID_PACKET),
            Outgoing::Goodbye(CloseReason::Replaced) => out.push(self.replaced_word()),
            // Clients that hear nothing come back by themselves, which is what is wanted here.
            Outgoing::Goodbye(_) => {}
            // Clients that hear nothing of a publish send it again.
            Outgoing::PublishFailed { .. } => {}
            Outgoing::Joined(_)
            | Outgoing::Left(_)
            | Outgoing::Present(_)
            | Outgoing::Answer(..)
            | Outgoing::Notice(..)
            | Outgoing::Pong => {}
        });
    }

    fn push_variant(&self, settings: &Settings) -> Option<u8> {
        Some(u8::from(self.pushes_group_publish(settings)))
    }

    fn manners(&self, settings: &Settings) -> Manners {
        Manners {
            acks: if settings.require_push_ack { Acks::Packets } else { Acks::Sent },
            resends: Some(Resends {
                interval_ms: settings.retry_interval_ms,
                max: settings.retry_max,
                ends: true,
            }),
            patience: Patience::UpTo(settings.max_invalid),
            keeps_older: settings.keeps_older,
            group_echo: if settings.echo_to_sender { Echo::Everywhere } else { Echo::Nowhere },
            open_groups: settings.open_groups,
            ..Manners::default()
        }
    }

    fn content(body: &[u8]) -> Content<'_> {
        content(body)
    }
}

/// Payloads are the clients' own business; most are text.
fn content(body: &[u8]) -> Content<'_> {
    simdutf8::basic::from_utf8(body).map_or(Content::Opaque(body), Content::Text)
}

impl Binary {
    /// A payload that its length field cannot announce has no form on this wire: nothing is
    /// written for it.
    fn put_push(&self, settings: &Settings, message: &Message, out: &mut Vec<u8>) {
        let body = payload(message);
        let Ok(len) = u16::try_from(body.len()) else { return };
        out.reserve(1 + 4 + MESSAGE_ID + 2 + body.len());
        match message.to {
            Target::Group(group) if self.pushes_group_publish(settings) => {
                out.push(command::GROUP_PUBLISH);
                out.extend_from_slice(&group.id.0.to_be_bytes());
            }
            Target::Group(_) | Target::User(_) | Target::Room(_) => out.push(command::PUBLISH),
        }
        out.extend_from_slice(message.id_for(ProtocolId::Binary).padded::<MESSAGE_ID>());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(body);
    }

    fn pushes_group_publish(&self, settings: &Settings) -> bool {
        match settings.group_push {
            GroupPush::Auto => self.layout == Some(Layout::Terminal),
            GroupPush::Publish => false,
            GroupPush::GroupPublish => true,
        }
    }

    /// Without LOGOUT a client that knows it would reconnect, and two devices would take each
    /// other's place for ever; the others know only DISCONNECT.
    fn replaced_word(&self) -> u8 {
        match self.layout {
            Some(Layout::Terminal) => command::LOGOUT,
            _ => command::DISCONNECT,
        }
    }
}

/// A payload of this protocol as it is, one of another as the text or the bytes that it carries:
/// this wire has no place for a sender's name.
fn payload(message: &Message) -> &[u8] {
    if message.protocol.shares_syntax(ProtocolId::Binary) {
        return &message.body;
    }
    match message.content() {
        Content::Text(text)
        | Content::Image(text)
        | Content::Audio(text)
        | Content::Video(text) => text.as_bytes(),
        Content::Opaque(bytes) => bytes,
    }
}

fn refusal_code(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Duplicate | Refusal::Taken => code::DUPLICATE,
        Refusal::UnknownVhost => code::UNKNOWN_VHOST,
        Refusal::BadCredentials | Refusal::UnknownTenant => code::BAD_CREDENTIALS,
    }
}

fn put_ack(kind: PublishKind, id: &MessageId, out: &mut Vec<u8>) {
    out.push(match kind {
        PublishKind::User => command::PUB_ACK,
        PublishKind::Group => command::GROUP_PUB_ACK,
        PublishKind::GroupPart => command::GROUP_PART_PUB_ACK,
    });
    out.extend_from_slice(id.padded::<MESSAGE_ID>());
}
