//! What every protocol owes its callers, checked for each row of the table of protocols.
//!
//! A new row is covered on arrival: it only has to bring `tests/vectors/<name>/*.hex`, the packets
//! its clients send and one stream of several of them.

mod common;

use std::ops::Range;
use std::sync::LazyLock;

use codec::{
    Acks, Answer, AnyProtocol, CloseReason, Contact, Decoded, Destination, Failure, Group, GroupId,
    GroupKey, Malformed, Message, News, Notice, Outgoing, Packet, Proof, ProtocolId, PublishKind,
    Push, Receipt, Refusal, Settings, Target, TenantId, Terminal, UserId, UserKey,
};
use common::{accepted, push, scratch};
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

#[test]
fn a_protocol_has_silent_receivers_if_one_of_its_logins_is_of_such() {
    let settings = Settings::default();
    for &protocol in ProtocolId::ALL {
        let is_silent = |(id, _, bytes): &(ProtocolId, String, Vec<u8>)| {
            let (mut state, mut scratch) = (AnyProtocol::new(*id), Vec::new());
            let login = state.decode(&settings, bytes, &mut scratch);
            let is_login = *id == protocol && matches!(login, Ok(Packet::Connect(_)));
            is_login && state.manners(&settings).acks == Acks::Bytes
        };
        let found = vectors().iter().any(is_silent);
        assert_eq!(found, protocol.has_silent_receivers(), "{}", protocol.name());
    }
}

/// A million idle connections carry one of these each: a protocol with much to remember keeps it
/// elsewhere.
#[test]
fn the_state_of_a_connection_is_tiny() {
    assert!(size_of::<AnyProtocol>() <= 16, "{} bytes", size_of::<AnyProtocol>());
}

#[test]
fn every_vector_decodes_and_is_copied_only_if_it_is_escaped() {
    for &(id, ref name, ref bytes) in vectors() {
        let mut scratch = Vec::new();
        let packet = AnyProtocol::new(id).decode(&Settings::default(), bytes, &mut scratch);
        let packet = packet.unwrap_or_else(|error| panic!("{}/{name}: {error}", id.name()));
        for part in parts(&packet).into_iter().filter(|part| !part.is_empty()) {
            let inside = bytes.as_ptr_range().contains(&part.as_ptr());
            // A body that is put together from several fields is nowhere in the packet as it is.
            let composed = name.ends_with("_escaped") || is_composed(id, &packet);
            assert_eq!(inside, !composed, "{}/{name}: {packet:?}", id.name());
        }
        assert!(bytes.len() <= id.packet_max(), "{}/{name}", id.name());
    }
}

#[test]
fn every_truncation_and_every_changed_byte_is_a_packet_or_an_error() {
    for &(id, ref name, ref bytes) in vectors() {
        let is_whole = |bytes: &[u8]| decodes(id, bytes);
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
                if protocol.decode(&settings, &bytes[..len], scratch()).is_err() {
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
        assert_eq!(whole.last().map(|(_, end)| *end), Some(stream.len()), "{}", id.name());
        let whole = meant(id, whole);
        for split in 0..=stream.len() {
            let mut pieces = frames_so_far(id, &stream[..split]);
            let done = pieces.last().map_or(0, |(_, end)| *end);
            pieces.extend(frames(id, &stream[done..]));
            assert_eq!(meant(id, pieces), whole, "{} split at {split}", id.name());
        }
    }
}

/// One codec sees the input grow byte by byte, as its documentation promises.
#[test]
fn a_stream_that_comes_in_single_bytes_gives_the_same_packets() {
    for &id in ProtocolId::ALL {
        let stream = common::stream(id.name());
        let mut protocol = AnyProtocol::new(id);
        let (mut found, mut done) = (Vec::new(), 0);
        for end in 1..=stream.len() {
            while let Some((range, consumed)) = frame_checked(&mut protocol, &stream[done..end]) {
                found.push((stream[done..][range].to_vec(), done + consumed));
                done += consumed;
            }
        }
        found.extend(frames(id, &stream[done..]));
        assert_eq!(meant(id, found), meant(id, frames(id, &stream)), "{}", id.name());
    }
}

#[test]
fn every_packet_of_the_stream_decodes() {
    for &id in ProtocolId::ALL {
        let settings = Settings::default();
        let mut protocol = AnyProtocol::new(id);
        for (packet, _) in frames(id, &common::stream(id.name())) {
            let mut parts = 0;
            while parts == 0 || protocol.has_more() {
                let decoded = protocol.decode(&settings, &packet, scratch());
                assert!(decoded.is_ok(), "{}: {packet:x?}", id.name());
                parts += 1;
            }
            assert!(parts <= packet.len().max(1), "{}: {parts} parts", id.name());
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
            for message in messages().iter().filter(|message| is_shared(message)) {
                let bytes = [&a, &b].map(|protocol| {
                    let mut out = Vec::new();
                    protocol.encode(&settings, &push(message), false, &mut out);
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
        protocol.encode(&Settings::default(), &push(&message), true, &mut out);
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
            frame_checked(&mut AnyProtocol::new(id), &bytes);
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
        frame_checked(&mut AnyProtocol::new(id), &bytes);
    }
}

/// Whether a fresh connection takes these bytes for a packet.
fn decodes(id: ProtocolId, bytes: &[u8]) -> bool {
    AnyProtocol::new(id).decode(&Settings::default(), bytes, scratch()).is_ok()
}

fn is_composed(id: ProtocolId, packet: &Packet<'_>) -> bool {
    id == ProtocolId::SimpleIm && matches!(packet, Packet::Publish(_))
}

/// The next frame's range and end, after checking what `frame` promises about them.
fn frame_checked(protocol: &mut AnyProtocol, input: &[u8]) -> Option<(Range<usize>, usize)> {
    frame_checked_if(protocol, input, false)
}

/// The same, `quiet` once nothing more will come.
fn frame_checked_if(
    protocol: &mut AnyProtocol,
    input: &[u8],
    quiet: bool,
) -> Option<(Range<usize>, usize)> {
    let id = protocol.id();
    match protocol.frame(&Settings::default(), input, quiet).ok()? {
        Decoded::Unsure => None,
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

/// All whole packets of `input`, each with the offset where its frame ends; nothing comes after it.
fn frames(id: ProtocolId, input: &[u8]) -> Vec<(Vec<u8>, usize)> {
    frames_if(id, input, true)
}

/// The same, with more to come.
fn frames_so_far(id: ProtocolId, input: &[u8]) -> Vec<(Vec<u8>, usize)> {
    frames_if(id, input, false)
}

fn frames_if(id: ProtocolId, input: &[u8], ended: bool) -> Vec<(Vec<u8>, usize)> {
    let mut protocol = AnyProtocol::new(id);
    let (mut found, mut done) = (Vec::new(), 0);
    while let Some((range, consumed)) = frame_checked(&mut protocol, &input[done..])
        .or_else(|| frame_checked_if(&mut protocol, &input[done..], true).filter(|_| ended))
    {
        found.push((input[done..][range].to_vec(), done + consumed));
        done += consumed;
    }
    found
}

/// The packets that mean something: how many blank lines there are depends on the cuts.
fn meant(id: ProtocolId, found: Vec<(Vec<u8>, usize)>) -> Vec<Vec<u8>> {
    let decode = |packet: &[u8]| {
        let mut scratch = Vec::new();
        let mut protocol = AnyProtocol::new(id);
        let decoded = protocol.decode(&Settings::default(), packet, &mut scratch);
        matches!(decoded, Ok(Packet::Nothing))
    };
    found.into_iter().map(|(packet, _)| packet).filter(|packet| !decode(packet)).collect()
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
        let decoded = protocol.decode(&Settings::default(), bytes, scratch());
        assert!(decoded.is_ok(), "{}/{name}", id.name());
        protocol
    });
    fresh.chain(after)
}

fn messages() -> Vec<Message> {
    let group = Target::Group(GroupKey { id: GroupId(u32::MAX), ..GroupKey::default() });
    let user = Target::User(UserKey { id: UserId(7), ..UserKey::default() });
    let room = Target::Room(TenantId::default());
    vec![
        message(user, b"hello"),
        message(group, b"hello"),
        message(group, b""),
        message(room, b"a \"quote\" and\na line"),
        message(group, b"\xff\xfe not text"),
    ]
}

/// A private message has one receiver.
fn is_shared(message: &Message) -> bool {
    !matches!(message.to, Target::User(_))
}

fn message(to: Target, body: &[u8]) -> Message {
    Message {
        stamp: 1,
        id: common::id(),
        from: None,
        from_name: b"bob"[..].into(),
        to,
        protocol: ProtocolId::ALL[0],
        time_ms: 2,
        body: body.into(),
    }
}

/// Everything the gateway can say.
fn words(message: &Message) -> Vec<Outgoing<'_>> {
    let receipt = Receipt { stamp: 5, time_ms: 6, stored: false };
    static NAMES: LazyLock<[Box<[u8]>; 2]> =
        LazyLock::new(|| [b"alice"[..].into(), b"bob"[..].into()]);
    let names: &'static [Box<[u8]>] = &*NAMES;
    let mut words = vec![
        accepted(),
        Outgoing::Refused(Refusal::Duplicate),
        Outgoing::Refused(Refusal::Taken),
        Outgoing::Refused(Refusal::UnknownVhost),
        Outgoing::Refused(Refusal::UnknownTenant),
        Outgoing::Refused(Refusal::BadCredentials),
        Outgoing::PublishAck(PublishKind::User, message.id, None),
        Outgoing::PublishAck(PublishKind::Group, message.id, None),
        Outgoing::PublishAck(PublishKind::GroupPart, message.id, None),
        Outgoing::PublishAck(PublishKind::User, message.id, Some(receipt)),
        Outgoing::Push(Push { message, stored: true }),
        push(message),
        Outgoing::Joined(b"bob"),
        Outgoing::Left(b"bob"),
        Outgoing::Present(names),
        Outgoing::Notice(7, notice()),
        Outgoing::Ping,
        Outgoing::Pong,
    ];
    words.extend(FAILURES.map(|why| Outgoing::PublishFailed { id: message.id, why, to: b"bob" }));
    words.extend(answers().iter().map(|answer| Outgoing::Answer(message.id, answer)));
    words.extend(Malformed::ALL.map(Outgoing::Invalid));
    words.extend(CloseReason::ALL.map(Outgoing::Goodbye));
    words
}

/// One that every protocol with a form for any of them has a form for.
fn notice() -> &'static Notice {
    static NOTICE: LazyLock<Notice> = LazyLock::new(|| Notice {
        by: UserId(7),
        name: b"bob"[..].into(),
        device: b"ipad"[..].into(),
        time_ms: 1_000,
        news: News::ContactAdded,
    });
    &NOTICE
}

fn answers() -> &'static [Answer] {
    static ANSWERS: LazyLock<Vec<Answer>> = LazyLock::new(|| {
        let name = |name: &str| Box::from(name.as_bytes());
        let contact = Contact { id: UserId(7), name: name("bob"), online: true };
        let group = Group {
            id: name("12"),
            title: name("a title"),
            owner: name("alice"),
            users: vec![name("alice"), name("bob")],
        };
        let failed = FAILURES.map(Answer::Failed);
        let added = Answer::ContactAdded(UserId(7));
        let done =
            [Answer::Done, added, Answer::Contacts(vec![contact]), Answer::Groups(vec![group])];
        done.into_iter().chain(failed).collect()
    });
    &ANSWERS
}

const FAILURES: [Failure; 10] = [
    Failure::NoRecipient,
    Failure::Unknown,
    Failure::NotAllowed,
    Failure::Offline,
    Failure::TooLarge,
    Failure::TooMany,
    Failure::Busy,
    Failure::Exists,
    Failure::BadRequest,
    Failure::Unsupported,
];

/// What the packet says in bytes of its own.
fn parts<'a>(packet: &Packet<'a>) -> Vec<&'a [u8]> {
    match packet {
        Packet::Connect(connect) => {
            let proof = match connect.proof {
                Proof::Password(proof) | Proof::Token(proof) | Proof::Phone(proof) => proof,
                Proof::Nothing => b"",
            };
            let device = match connect.terminal {
                Terminal::Device(device) => device,
                Terminal::Kind(_) | Terminal::Connection => b"",
            };
            let tenant = connect.tenant.map_or([&b""[..]; 2], |(org, appkey)| [org, appkey]);
            let vhost = connect.vhost.unwrap_or_default();
            [connect.name, proof, device, vhost].into_iter().chain(tenant).collect()
        }
        Packet::Publish(publish) => match publish.to {
            Destination::Name(name) | Destination::GroupName(name) => vec![publish.body, name],
            _ => vec![publish.body],
        },
        _ => Vec::new(),
    }
}
