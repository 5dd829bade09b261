//! Any bytes of a client, whole and cut anywhere: the same requests, an answer to each, never a
//! panic; and what is understood is what the client's side writes. The first byte chooses the cuts.
#![no_main]

use codec::protocol::Protocol;
use codec::simple_text::{Settings, SimpleText, client};
use codec::{Decoded, Destination, Packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first() else { return };
    let _ = client::decode_server(stream);
    let whole = requests(stream, stream.len().max(1));
    assert_eq!(requests(stream, usize::from(*step).max(1)), whole);
    for request in whole {
        let (mut text, settings) = (SimpleText::new(), Settings::default());
        let mut scratch = Vec::new();
        let decoded = text.decode(&settings, &request, &mut scratch);
        let Ok(Packet::Publish(publish)) = decoded else { continue };
        let to = match publish.to {
            Destination::Room => None,
            Destination::Name(name) => Some(utf8(name)),
            other => panic!("{other:?}"),
        };
        let mut again = Vec::new();
        client::send(to, utf8(publish.body), &mut again);
        let mut scratch = Vec::new();
        let decoded = SimpleText::new().decode(&settings, &again, &mut scratch);
        assert_eq!(decoded, Ok(Packet::Publish(publish)));
    }
});

fn requests(stream: &[u8], step: usize) -> Vec<Vec<u8>> {
    let mut text = SimpleText::new();
    let (mut found, mut input) = (Vec::new(), Vec::new());
    for chunk in stream.chunks(step) {
        input.extend_from_slice(chunk);
        loop {
            match text.frame(&Settings::default(), &input, false) {
                Ok(Decoded::Frame { value, consumed }) => {
                    found.push(input[value].to_vec());
                    input.drain(..consumed);
                }
                Ok(_) => break,
                Err(_) => return found,
            }
        }
    }
    found.retain(|request| !request.is_empty());
    found
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("JSON strings are UTF-8")
}
