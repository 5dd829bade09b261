//! Any bytes of a client, as one packet and as a stream: an answer, never a panic; nothing
//! is a packet before its end; and what is understood is pushed as the client's side reads it.
#![no_main]

use codec::protocol::Protocol;
use codec::simple_im::{Settings, SimpleIm, client, read_message};
use codec::{Decoded, Message, Outgoing, Packet, ProtocolId, Push, Target, UserKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let settings = Settings::default();
    let _ = client::decode_server(input);
    let _ = read_message(input);
    let _ = SimpleIm::new().decode(&settings, input, &mut Vec::new());
    let (mut codec, mut bytewise) = (SimpleIm::new(), SimpleIm::new());
    let mut rest = input;
    while let Ok(Decoded::Frame { value, consumed }) = codec.frame(&settings, rest, true) {
        if !bytewise_alike(&mut bytewise, &settings, rest, consumed) {
            return;
        }
        let mut scratch = Vec::new();
        if let Ok(Packet::Publish(publish)) =
            codec.decode(&settings, &rest[value.clone()], &mut scratch)
        {
            assert!(publish.body.len() <= value.len() + 2 + codec::simple_im::NAME_MAX);
            let message = Message {
                stamp: 1,
                id: publish.id,
                from: Some(UserKey::default()),
                from_name: (*b"").into(),
                to: Target::User(UserKey::default()),
                protocol: ProtocolId::SimpleIm,
                time_ms: 2,
                body: publish.body.into(),
            };
            let push = Outgoing::Push(Push { message: &message, stored: false });
            let mut out = Vec::new();
            codec.encode(&settings, &push, false, &mut out);
            let Ok(client::ServerPacket::Push(push)) = client::decode_server(&out) else {
                panic!("{}", out.escape_ascii());
            };
            assert_eq!(push.id, publish.id);
        }
        let _ = bytewise.decode(&settings, &rest[value], &mut Vec::new());
        rest = &rest[consumed..];
    }
});

/// Whether the same frame comes of single bytes; an earlier end is one that only silence would have
/// told from it.
fn bytewise_alike(codec: &mut SimpleIm, settings: &Settings, rest: &[u8], consumed: usize) -> bool {
    for len in 0..=rest.len() {
        match codec.frame(settings, &rest[..len], false) {
            Ok(Decoded::NeedMore { total }) => assert!(total > len),
            Ok(Decoded::Unsure) => {}
            Ok(Decoded::Frame { consumed: end, .. }) => {
                assert!(end <= consumed);
                return end == consumed;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let last = codec.frame(settings, rest, true);
    assert!(matches!(last, Ok(Decoded::Frame { consumed: end, .. }) if end == consumed));
    true
}
