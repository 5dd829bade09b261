//! What every protocol owes its callers, checked for each row of the table of protocols.
//!
//! A new row is covered on arrival: it only has to bring `tests/vectors/<name>/*.hex`, the packets
//! its clients send and one stream of several of them.

mod common;

use std::ops::Range;
use std::sync::LazyLock;

use codec::{
    AnyProtocol, CloseReason, Decoded, GroupId, GroupKey, Message, Outgoing, Packet, ProtocolId,
    PublishKind, Refusal, Settings, Target, UserId, UserKey,
};
use proptest::prelude::*;

#[test]
fn names_and_numbers_find_their_row() {
    for &id in ProtocolId::ALL {
        assert_eq!(ProtocolId::from_name(id.name()), Some(id));
        assert_eq!(ProtocolId::from_number(id.number()), Some(id));
        assert_eq!(AnyProtocol::new(id).id(), id);
    }
    assert_eq!(ProtocolId::from_name("no such protocol"), None);
    assert_eq!(ProtocolId::from_number(u8::MAX), None);
}

/// A million idle connections carry one of these each.
#[test]
fn the_state_of_a_connection_is_tiny() {
    assert!(size_of::<AnyProtocol>() <= 4, "{} bytes", size_of::<AnyProtocol>());
}

#[test]
fn every_vector_decodes_and_borrows_from_its_bytes() {
    for &(id, ref name, ref bytes) in vectors() {
        let packet = AnyProtocol::new(id).decode(&Settings::default(), bytes).map(|packet| {
            for part in borrowed(&packet) {
                let inside = part.is_empty() || bytes.as_ptr_range().contains(&part.as_ptr());
                assert!(inside, "{}/{name}: {packet:?} owns bytes", id.name());
            }
        });
        assert_eq!(packet, Ok(()), "{}/{name}", id.name());
        assert!(bytes.len() <= id.packet_max(), "{}/{name}", id.name());
    }
}

#[test]
fn every_truncation_and_every_changed_byte_is_a_packet_or_an_error() {
    for &(id, ref name, ref bytes) in vectors() {
        let is_whole = |bytes: &[u8]| decodes(id, bytes);
        assert!(!is_whole(&[]), "{}: no bytes are no packet", id.name());
        for len in 0..bytes.len() {
            is_whole(&bytes[..len]);
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            let refused = (1..=u8::MAX).filter(|flip| {
                changed[at] = bytes[at] ^ flip;
                !is_whole(&changed)
            });
            let refused = refused.count();
            assert!(at > 0 || refused > 0, "{}/{name}: the first byte matters", id.name());
        }
    }
}

#[test]
fn an_error_leaves_the_state_as_it_was() {
    let settings = Settings::default();
    for mut protocol in states() {
        let id = protocol.id();
        for (_, name, bytes) in vectors().iter().filter(|(of, ..)| *of == id) {
            for len in 0..bytes.len() {
                let before = format!("{protocol:?}");
                if protocol.decode(&settings, &bytes[..len]).is_err() {
                    assert_eq!(format!("{protocol:?}"), before, "{name} cut to {len}");
                }
            }
        }
    }
}

#[test]
fn a_stream_split_anywhere_gives_the_same_packets() {
    for &id in ProtocolId::ALL {
        let stream = common::stream(id.name());
        let whole = frames(id, &stream);
        assert!(whole.len() > 1, "{}: the stream has several packets", id.name());
        for split in 0..=stream.len() {
            let mut pieces = frames(id, &stream[..split]);
            let done = pieces.last().map_or(0, |(_, end)| *end);
            let rest = frames(id, &stream[done..]);
            pieces.extend(rest.into_iter().map(|(packet, end)| (packet, end + done)));
            assert_eq!(pieces, whole, "{} split at {split}", id.name());
        }
        assert_eq!(whole.last().map(|(_, end)| *end), Some(stream.len()), "{}", id.name());
    }
}

#[test]
fn every_packet_of_the_stream_decodes() {
    for &id in ProtocolId::ALL {
        let settings = Settings::default();
        let mut protocol = AnyProtocol::new(id);
        for (packet, _) in frames(id, &common::stream(id.name())) {
            assert!(protocol.decode(&settings, &packet).is_ok(), "{}: {packet:x?}", id.name());
        }
    }
}

#[test]
fn what_is_encoded_for_a_stream_is_one_frame_of_what_is_encoded_for_a_message() {
    let settings = Settings::default();
    for protocol in states() {
        for message in messages() {
            for outgoing in words(&message) {
                let mut packet = b"kept".to_vec();
                protocol.encode(&settings, &outgoing, false, &mut packet);
                let mut framed = b"kept".to_vec();
                protocol.encode(&settings, &outgoing, true, &mut framed);
                let (packet, framed) = (&packet[4..], &framed[4..]);
                let frames = frames(protocol.id(), framed);
                match packet {
                    [] => assert!(framed.is_empty(), "{protocol:?} {outgoing:?}"),
                    _ => assert_eq!(frames, [(packet.to_vec(), framed.len())], "{outgoing:?}"),
                }
            }
        }
    }
}

#[test]
fn equal_push_variants_encode_equal_pushes() {
    let settings = Settings::default();
    for a in states() {
        for b in states() {
            if a.push_variant(&settings) != b.push_variant(&settings) {
                continue;
            }
            for message in messages() {
                let bytes = [&a, &b].map(|protocol| {
                    let mut out = Vec::new();
                    protocol.encode(&settings, &Outgoing::Push(&message), false, &mut out);
                    out
                });
                assert_eq!(bytes[0], bytes[1], "{a:?} {b:?}");
            }
        }
    }
}

/// A body beyond what a wire can carry must not panic or corrupt what was queued before it.
#[test]
fn a_body_over_the_wire_s_bound_leaves_the_output_usable() {
    let message = message(Target::User(UserKey::default()), &vec![b'x'; 1 << 17]);
    for protocol in states() {
        let mut out = b"kept".to_vec();
        protocol.encode(&Settings::default(), &Outgoing::Push(&message), true, &mut out);
        assert_eq!(out[..4], *b"kept");
        assert!(frames(protocol.id(), &out[4..]).len() <= 1, "{protocol:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_a_packet_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..256)
    ) {
        for &id in ProtocolId::ALL {
            decodes(id, &bytes);
            frame_checked(id, &bytes);
        }
    }

    /// Several bytes changed at once reach deeper than one.
    #[test]
    fn mangled_vectors_are_a_packet_or_an_error(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        tail in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let vectors = vectors();
        let (id, _, mut bytes) = vectors[pick.index(vectors.len())].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(tail);
        decodes(id, &bytes);
        frame_checked(id, &bytes);
    }
}

/// Whether a fresh connection takes these bytes for a packet.
fn decodes(id: ProtocolId, bytes: &[u8]) -> bool {
    AnyProtocol::new(id).decode(&Settings::default(), bytes).is_ok()
}

/// The next frame's range and end, after checking what `frame` promises about them.
fn frame_checked(id: ProtocolId, input: &[u8]) -> Option<(Range<usize>, usize)> {
    match AnyProtocol::new(id).frame(&Settings::default(), input).ok()? {
        Decoded::NeedMore { total } => {
            assert!(total > input.len(), "{}: {total} bytes are there", id.name());
            None
        }
        Decoded::Frame { value, consumed } => {
            assert!(0 < consumed && consumed <= input.len(), "{}: {consumed}", id.name());
            assert!(value.start <= value.end && value.end <= consumed, "{}", id.name());
            assert!(value.len() <= id.packet_max(), "{}", id.name());
            Some((value, consumed))
        }
    }
}

/// All whole packets of `input`, each with the offset where its frame ends.
fn frames(id: ProtocolId, input: &[u8]) -> Vec<(Vec<u8>, usize)> {
    let mut found = Vec::new();
    let mut done = 0;
    while let Some((range, consumed)) = frame_checked(id, &input[done..]) {
        found.push((input[done..][range].to_vec(), done + consumed));
        done += consumed;
    }
    found
}

/// All vectors of all protocols: row, file name, bytes.
fn vectors() -> &'static [(ProtocolId, String, Vec<u8>)] {
    static VECTORS: LazyLock<Vec<(ProtocolId, String, Vec<u8>)>> = LazyLock::new(|| {
        let of = |id: ProtocolId| {
            common::packets(id.name()).into_iter().map(move |(name, bytes)| (id, name, bytes))
        };
        ProtocolId::ALL.iter().copied().flat_map(of).collect()
    });
    &VECTORS
}

/// A fresh codec, and the codec after each vector, for all protocols.
fn states() -> impl Iterator<Item = AnyProtocol> {
    let fresh = ProtocolId::ALL.iter().copied().map(AnyProtocol::new);
    let after = vectors().iter().map(|(id, name, bytes)| {
        let mut protocol = AnyProtocol::new(*id);
        let decoded = protocol.decode(&Settings::default(), bytes);
        assert!(decoded.is_ok(), "{}/{name}", id.name());
        protocol
    });
    fresh.chain(after)
}

fn messages() -> Vec<Message> {
    let group = Target::Group(GroupKey { id: GroupId(u32::MAX), ..GroupKey::default() });
    let user = Target::User(UserKey { id: UserId(7), ..UserKey::default() });
    vec![message(user, b"hello"), message(group, b"hello"), message(group, b"")]
}

fn message(to: Target, body: &[u8]) -> Message {
    let protocol = ProtocolId::ALL[0];
    Message { stamp: 1, id: common::id(), from: None, to, protocol, time_ms: 2, body: body.into() }
}

/// Everything the gateway can say.
fn words(message: &Message) -> Vec<Outgoing<'_>> {
    let mut words = vec![
        Outgoing::Accepted,
        Outgoing::Refused(Refusal::Duplicate),
        Outgoing::Refused(Refusal::UnknownVhost),
        Outgoing::Refused(Refusal::BadCredentials),
        Outgoing::PublishAck(PublishKind::User, message.id),
        Outgoing::PublishAck(PublishKind::Group, message.id),
        Outgoing::PublishAck(PublishKind::GroupPart, message.id),
        Outgoing::Push(message),
        Outgoing::Ping,
        Outgoing::Invalid,
    ];
    words.extend(CloseReason::ALL.map(Outgoing::Goodbye));
    words
}

fn borrowed<'a>(packet: &Packet<'a>) -> Vec<&'a [u8]> {
    match packet {
        Packet::Connect(connect) => {
            [connect.name, connect.password].into_iter().chain(connect.vhost).collect()
        }
        Packet::Publish(publish) => vec![publish.body],
        Packet::Ack(_) | Packet::Pong | Packet::Disconnect => Vec::new(),
    }
}
