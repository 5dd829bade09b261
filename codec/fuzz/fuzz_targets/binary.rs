//! Any bytes of a client, as one packet and as a stream of packets: an answer, never a panic; and
//! what is understood is what the client's side writes.
#![no_main]

use codec::binary::{Binary, PayloadLen, Settings, client, stream};
use codec::protocol::Protocol;
use codec::{Decoded, Destination, Packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut binary = Binary::new();
    let _ = binary.decode(&Settings::default(), input, &mut Vec::new());
    let _ = client::decode_server(input);
    let strict = Settings { payload_len: PayloadLen::Strict, ..Settings::default() };
    let mut rest = input;
    while let Ok(Decoded::Frame { value, consumed }) = stream::frame(rest) {
        let mut scratch = Vec::new();
        let decoded = binary.decode(&strict, &rest[value.clone()], &mut scratch);
        if let Ok(Packet::Publish(publish)) = decoded {
            let mut out = Vec::new();
            let written = match publish.to {
                Destination::User(to) => client::publish(to, &publish.id, publish.body, &mut out),
                Destination::Group(group) => {
                    client::group_publish(group, &publish.id, publish.body, &mut out)
                }
                Destination::GroupPart(group, users) => {
                    let users: Vec<_> = users.iter().collect();
                    client::group_part_publish(group, &publish.id, &users, publish.body, &mut out)
                }
                other => panic!("{other:?}"),
            };
            assert!(written.is_ok() && out == rest[value]);
        }
        rest = &rest[consumed..];
    }
});
