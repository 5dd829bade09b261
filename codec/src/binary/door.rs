//! The publish door (`binary-publish`): the back end's way in, port 19095 in the field.
//!
//! ```text
//!   request    u32 len | PUBLISH, GROUP_PUBLISH or GROUP_PART_PUBLISH as a client sends it
//!   response   u32 len | 04, 06 or 0c | 32B msg_id       the message is safe
//!              u32 len | 0a                              no sense in it; the gateway closes
//! ```
//!
//! Owns: the choice of packets. Never: who may connect (an allow-list by address does that), or the
//! order of responses.

use std::ops::Range;

use super::publish::PayloadRule;
use super::wire::{PACKET_MAX, PAYLOAD_DEFAULT, command};
use super::{PayloadLen, publish, stream};
use crate::error::{Decoded, Malformed, WireError};
use crate::message::Content;
use crate::packet::{Outgoing, Packet};
use crate::protocol::Protocol;
use crate::reader::Reader;

/// The door's codec; it has no state.
#[derive(Debug)]
pub struct BinaryPublish;

/// `[protocol.binary-publish]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Longest payload in bytes, at most 65,535. Default 32,767, as for clients.
    pub max_payload: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_payload: PAYLOAD_DEFAULT }
    }
}

impl Protocol for BinaryPublish {
    const NAME: &'static str = "binary-publish";
    const DOOR: bool = true;
    const SYNTAX: &'static str = "binary";
    const PACKET_MAX: usize = PACKET_MAX;
    type Settings = Settings;

    fn new() -> Self {
        Self
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
        if !publish::is_publish(command) {
            return Err(WireError::new(Malformed::UnknownCommand, 0));
        }
        let rule = PayloadRule { max: settings.max_payload, len: PayloadLen::Strict };
        publish::decode(rule, command, &mut reader).map(Packet::Publish)
    }

    fn encode(&self, _: &Settings, outgoing: &Outgoing<'_>, stream: bool, out: &mut Vec<u8>) {
        stream::framed(stream, out, |out| match outgoing {
            Outgoing::PublishAck(kind, id, _) => super::put_ack(*kind, id, out),
            Outgoing::Invalid(_) => out.push(command::INVALID_PACKET),
            _ => {}
        });
    }

    fn push_variant(&self, _: &Settings) -> Option<u8> {
        Some(0)
    }

    fn content(body: &[u8]) -> Content<'_> {
        super::content(body)
    }
}
