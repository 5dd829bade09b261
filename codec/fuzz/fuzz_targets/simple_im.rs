//! Any bytes of a client, as one packet and as a stream: an answer, never a panic; the same however
//! the stream is cut; and what is understood is said to every dialect as it was meant.
#![no_main]

use codec::protocol::Protocol;
use codec::simple_im::{Settings, SimpleIm, client};
use codec::{Decoded, Packet};
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
            SimpleIm::content(publish.body);
        }
        let _ = bytewise.decode(&settings, &rest[value], &mut Vec::new());
        rest = &rest[consumed..];
    }
});
