//! Messages on their way to a client, in the shape of his revision.
//!
//! ```text
//!   Single, Nested   m  id c ts [m.from] id device [m.to] id
//!                    gm id c ts [gm.user] id device [gm.group] id
//!   Flat             m  to from ts id c                gm  group g_id from ts id c
//!   Device           m  to from ts id d t c            gm  g_id from ts id d t c
//! ```
//!
//! Keys have no order; ours end a flat packet with a text, so that a reader knows at once that it
//! has all of it. A flat group message names the group twice, since the two revisions between which
//! nothing tells have a key each, and ignore what they do not know. A device that is not known is
//! left out, and so is a sender who is none: the back end.
//!
//! A packet over 1,460 bytes never reaches the original TCP clients in one piece and makes them
//! close; it is written all the same, since any other reader of a stream takes it.
//!
//! Owns: these shapes. Never: who gets what, and when.

use super::Dialect;
use super::body::{Body, Media};
use super::emit::Emitter;
use crate::message::{Content, Message, Target};
use crate::protocol::ProtocolId;

/// Appends the packet. `group_as_message`: an `m` to those who do not survive a `gm`.
pub(super) fn put(dialect: Dialect, group_as_message: bool, message: &Message, out: &mut Vec<u8>) {
    let mut text = String::new();
    let said = said(message, &mut text);
    let (to, group) = match message.to {
        Target::User(user) => (user.id.0, false),
        Target::Group(group) => (group.id.0, true),
        Target::Room(_) => (0, true),
    };
    let id = message.id_for(ProtocolId::SimpleIm);
    let tables = !dialect.is_flat();
    // Those who are told of a group in an `m` see its number where theirs would be: the packet is
    // the same for all of them, and no client looks there.
    let group = group && !(tables && group_as_message);
    let name = if group { "gm" } else { "m" };
    let mut packet = Emitter::new(name, dialect.is_double(), out);
    let from = message.from.map(|from| u64::from(from.id.0));
    let seconds = message.time_ms / 1000;
    if tables {
        packet.text("id", id.as_bytes()).text("c", said.text).number("ts", seconds);
        if let Some(from) = from {
            packet.child(if group { "user" } else { "from" }).number("id", from);
            if !said.device.is_empty() {
                packet.text("device", said.device);
            }
        }
        packet.child(if group { "group" } else { "to" }).number("id", to.into());
        return;
    }
    let targets: &[&str] = match (group, dialect) {
        (false, _) => &["to"],
        (true, Dialect::Device) => &["g_id"],
        (true, _) => &["group", "g_id"],
    };
    for key in targets {
        packet.number(key, to.into());
    }
    if let Some(from) = from {
        packet.number("from", from);
    }
    packet.number("ts", seconds).text("id", id.as_bytes());
    if dialect == Dialect::Device {
        if !said.device.is_empty() {
            packet.text("d", said.device);
        }
        packet.text("t", said.media.name().as_bytes());
    }
    packet.text("c", said.text);
}

/// What it says, whatever protocol it came by. `text` takes what has to be made readable first.
fn said<'a>(message: &'a Message, text: &'a mut String) -> Body<'a> {
    if message.protocol == ProtocolId::SimpleIm
        && let Some(body) = Body::parse(&message.body)
    {
        return body;
    }
    let content = message.content();
    let (media, said) = match content {
        Content::Text(said) => (Media::Text, said),
        Content::Image(said) => (Media::Image, said),
        Content::Audio(said) => (Media::Audio, said),
        Content::Video(said) => (Media::Video, said),
        Content::Opaque(_) => {
            content.write_text(text);
            (Media::Text, &**text)
        }
    };
    Body { media, device: b"", text: said.as_bytes() }
}
