//! Any bytes at the publish door: requests and errors, never a panic, never anything but a publish.
#![no_main]

use codec::binary::door::{BinaryPublish, Settings};
use codec::protocol::Protocol;
use codec::{Decoded, Outgoing, Packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let settings = Settings::default();
    let mut door = BinaryPublish::new();
    let mut rest = input;
    while let Ok(Decoded::Frame { value, consumed }) = door.frame(&settings, rest, false) {
        let mut scratch = Vec::new();
        if let Ok(packet) = door.decode(&settings, &rest[value], &mut scratch) {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            let ack = Outgoing::PublishAck(publish.to.kind(), publish.id, None);
            let mut out = Vec::new();
            door.encode(&settings, &ack, true, &mut out);
            assert_eq!(out.len(), 4 + 33);
        }
        rest = &rest[consumed..];
    }
});
