//! What the fuzz targets check beyond "does not panic".
//!
//! Owns: properties of a parser under any bytes. Never: the choice of the bytes.

use codec::ws::{Event, Opcode, Role, Ws, WsError};

/// An event, kept: opcode, close code, payload.
type Kept = (Opcode, Option<u16>, Vec<u8>);

/// A stream decodes to the same events and the same error however it is cut, and the decoder
/// never holds much more than it was given. The first four bytes choose the cuts and the bound.
pub fn ws_stream(role: Role, data: &[u8]) {
    let Some((&[cut, _, high, low], stream)) = data.split_first_chunk() else { return };
    let message_max = usize::from(u16::from_be_bytes([high, low]));
    let whole = decode_in_chunks(role, stream, usize::MAX, message_max);
    let cut = decode_in_chunks(role, stream, usize::from(cut).max(1), message_max);
    assert_eq!(whole, cut);
}

fn decode_in_chunks(
    role: Role,
    stream: &[u8],
    chunk_len: usize,
    message_max: usize,
) -> (Vec<Kept>, Option<WsError>) {
    let mut ws = Ws::new(role);
    let mut kept = Vec::new();
    let mut stream = stream.to_vec();
    let mut given = 0;
    for chunk in stream.chunks_mut(chunk_len) {
        let mut at = 0;
        while at < chunk.len() {
            let step = match ws.decode(&mut chunk[at..], message_max) {
                Ok(step) => step,
                Err(error) => return (kept, Some(error)),
            };
            assert!(step.consumed > 0);
            at += step.consumed;
            kept.extend(step.event.map(keep));
        }
        given += chunk.len();
        assert!(ws.heap_bytes() <= 1024 + message_max.min(2 * given));
    }
    (kept, None)
}

fn keep(event: Event<'_>) -> Kept {
    match event {
        Event::Message { opcode, payload } => (opcode, None, payload.to_vec()),
        Event::Ping(payload) => (Opcode::Ping, None, payload.to_vec()),
        Event::Pong(payload) => (Opcode::Pong, None, payload.to_vec()),
        Event::Close { code, reason } => (Opcode::Close, code, reason.to_vec()),
    }
}
