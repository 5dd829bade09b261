//! Any bytes of a client, as one Command and as a stream of them: an answer, never a panic; what
//! prost refuses is refused and nothing else; and a push of what was taken is one Command.
#![no_main]

use codec::im_demo::types::Command;
use codec::im_demo::{ImDemo, Settings, client, stream};
use codec::protocol::Protocol;
use codec::{Decoded, Message, Outgoing, Packet, ProtocolId, Push, Target, UserKey};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|input: &[u8]| {
    command(input);
    let mut rest = input;
    while let Ok(Decoded::Frame { value, consumed }) = stream::frame(u32::MAX, rest) {
        command(&rest[value]);
        rest = &rest[consumed..];
    }
});

fn command(bytes: &[u8]) {
    let mut state = ImDemo::new();
    let is_command = Command::decode(bytes).is_ok();
    for _ in 0..6 {
        let mut scratch = Vec::new();
        let decoded = state.decode(&Settings::default(), bytes, &mut scratch);
        assert_eq!(decoded.is_ok(), is_command);
        if let Ok(Packet::Publish(publish)) = decoded {
            assert!(client::decode_server(&push(publish.body)).is_ok());
        }
        if !state.has_more() {
            return;
        }
    }
    panic!("six kinds of sub-messages");
}

fn push(body: &[u8]) -> Vec<u8> {
    let message = Message {
        stamp: 1,
        id: [].into(),
        from: None,
        from_name: b"alice"[..].into(),
        to: Target::User(UserKey::default()),
        protocol: ProtocolId::ImDemo,
        time_ms: 2,
        body: body.into(),
    };
    let push = Outgoing::Push(Push { message: &message, stored: false });
    let mut out = Vec::new();
    ImDemo::new().encode(&Settings::default(), &push, false, &mut out);
    out
}
