//! What is encoded decodes to the same, in both roles: random messages, fragments, pings between
//! them and cuts of the stream.

use codec::ws::{Event, Opcode, Role, Ws, encode, encode_control};
use proptest::collection::vec;
use proptest::prelude::*;

const MAX: usize = 1 << 20;

/// A message and how it goes over the wire.
#[derive(Debug, Clone)]
struct Sent {
    text: Option<String>,
    binary: Vec<u8>,
    /// Where it is fragmented, reduced modulo its length.
    fragment_ends: Vec<usize>,
    /// The payload of a ping behind each fragment but the last.
    ping: Option<Vec<u8>>,
    key: [u8; 4],
}

impl Sent {
    fn opcode(&self) -> Opcode {
        if self.text.is_some() { Opcode::Text } else { Opcode::Binary }
    }

    fn payload(&self) -> &[u8] {
        self.text.as_ref().map_or(&self.binary, |text| text.as_bytes())
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let payload = prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 65_500..66_000)];
    let text = proptest::option::of("\\PC{0,80}");
    let ping = proptest::option::of(vec(any::<u8>(), 0..=125));
    (text, payload, vec(any::<usize>(), 0..5), ping, any::<[u8; 4]>()).prop_map(
        |(text, binary, fragment_ends, ping, key)| Sent { text, binary, fragment_ends, ping, key },
    )
}

/// Writes the message from `sender`; returns what the receiver should say to it.
fn write(out: &mut Vec<u8>, sent: &Sent, sender: Role) -> Vec<(Opcode, Vec<u8>)> {
    let payload = sent.payload();
    let key = (sender == Role::Client).then_some(sent.key);
    let mut ends: Vec<usize> =
        sent.fragment_ends.iter().map(|end| end % (payload.len() + 1)).collect();
    ends.sort_unstable();
    let mut said = Vec::new();
    let mut from = 0;
    let mut opcode = sent.opcode();
    for end in ends {
        let start = out.len();
        encode(out, opcode, key, end - from, |out| out.extend_from_slice(&payload[from..end]));
        out[start] &= 0x7f;
        (from, opcode) = (end, Opcode::Continuation);
        if let Some(ping) = &sent.ping {
            encode_control(out, Opcode::Ping, ping, key);
            said.push((Opcode::Ping, ping.clone()));
        }
    }
    encode(out, opcode, key, 0, |out| out.extend_from_slice(&payload[from..]));
    said.push((sent.opcode(), payload.to_vec()));
    said
}

fn receive(ws: &mut Ws, mut input: &mut [u8], said: &mut Vec<(Opcode, Vec<u8>)>) {
    while !input.is_empty() {
        let step = ws.decode(input, MAX).expect("right frames");
        let consumed = step.consumed;
        assert!(consumed > 0);
        said.extend(step.event.map(|event| match event {
            Event::Message { opcode, payload } => (opcode, payload.to_vec()),
            Event::Ping(payload) => (Opcode::Ping, payload.to_vec()),
            other => panic!("never sent: {other:?}"),
        }));
        input = &mut input[consumed..];
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(
        messages in vec(sent(), 1..6),
        cuts in vec(any::<usize>(), 0..20),
        is_server in any::<bool>(),
    ) {
        let (receiver, sender) =
            if is_server { (Role::Server, Role::Client) } else { (Role::Client, Role::Server) };
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for message in &messages {
            expected.extend(write(&mut stream, message, sender));
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % stream.len()).collect();
        cuts.push(stream.len());
        cuts.sort_unstable();

        let mut ws = Ws::new(receiver);
        let mut said = Vec::new();
        let mut from = 0;
        for cut in cuts {
            receive(&mut ws, &mut stream[from..cut], &mut said);
            from = cut;
        }
        prop_assert_eq!(said, expected);
        prop_assert_eq!(ws.heap_bytes(), 0);
    }

    #[test]
    fn random_bytes_decode_alike_however_they_are_cut(
        stream in vec(prop_oneof![any::<u8>(), Just(0x81), Just(0x82), Just(0x80)], 0..200),
        chunk_len in 1usize..40,
    ) {
        for role in [Role::Server, Role::Client] {
            let mut whole = stream.clone();
            let expected = debug_all(role, &mut whole, usize::MAX);
            let mut cut = stream.clone();
            prop_assert_eq!(debug_all(role, &mut cut, chunk_len), expected);
        }
    }
}

/// Everything a stream says, printed; the last line is the error, if there is one.
fn debug_all(role: Role, stream: &mut [u8], chunk_len: usize) -> Vec<String> {
    let mut ws = Ws::new(role);
    let mut said = Vec::new();
    for mut input in stream.chunks_mut(chunk_len) {
        while !input.is_empty() {
            let step = match ws.decode(input, MAX) {
                Ok(step) => step,
                Err(error) => {
                    said.push(error.to_string());
                    return said;
                }
            };
            let consumed = step.consumed;
            said.extend(step.event.map(|event| match event {
                Event::Message { opcode, payload } => format!("{opcode:?} {:?}", &*payload),
                Event::Ping(payload) => format!("ping {:?}", &*payload),
                Event::Pong(payload) => format!("pong {:?}", &*payload),
                Event::Close { code, reason } => format!("close {code:?} {:?}", &*reason),
            }));
            input = &mut input[consumed..];
        }
    }
    said
}
