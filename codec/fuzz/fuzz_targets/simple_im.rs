//! Any bytes of a client, as one packet and as a stream: an answer, never a panic; nothing
//! is a packet before its end; and what is understood is pushed as the client's side reads it.
#![no_main]

use codec::protocol::Protocol;
use codec::simple_im::{Settings, SimpleIm, client};
use codec::{Decoded, Message, Outgoing, Packet, ProtocolId, Push, Target, UserKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let settings = Settings::default();
    let _ = client::decode_server(input);
    let _ = SimpleIm::new().decode(&settings, input, &mut Vec::new());
    let (mut codec, mut bytewise) = (SimpleIm::new(), SimpleIm::new());
    let mut rest = input;
    while let Ok(Decoded::Frame { value, consumed }) = codec.frame(&settings, rest, true) {
        for len in 0..consumed {
            if !matches!(
                bytewise.frame(&settings, &rest[..len], false),
                Ok(Decoded::NeedMore { .. } | Decoded::Unsure)
            ) {
                return;
            }
        }
        let _ = bytewise.frame(&settings, &rest[..consumed], true);
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
