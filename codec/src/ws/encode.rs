//! Frames out: each message is one frame, appended to a buffer that may hold others before it.
//!
//! Owns: where the header goes. Never: random keys (a client's caller brings them), flushing.

use super::header::{self, Written};
use super::mask::apply_mask;
use super::{CONTROL_MAX, Opcode};

/// Appends one whole frame. `payload` appends the payload to the buffer it is given and nothing
/// else; the header is filled in afterwards.
///
/// `len_hint` is the expected length of the payload. A right guess of the length's form (up to
/// 125, up to 65,535, more) costs nothing; a wrong one moves the payload once. `key` is `None` on
/// the server; a client passes four unpredictable bytes (RFC 6455 section 5.3).
#[inline]
pub fn encode(
    out: &mut Vec<u8>,
    opcode: Opcode,
    key: Option<[u8; 4]>,
    len_hint: usize,
    payload: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    let reserved = header::size(key, len_hint);
    out.reserve(reserved + len_hint);
    out.extend_from_slice(&[0; header::HEADER_MAX][..reserved]);
    payload(out);
    let payload_start = start + reserved;
    if let Some(key) = key {
        apply_mask(&mut out[payload_start..], key);
    }
    let header = Written::new(opcode, key, out.len() - payload_start);
    if header.bytes().len() == reserved {
        out[start..payload_start].copy_from_slice(header.bytes());
    } else {
        out.splice(start..payload_start, header.bytes().iter().copied());
    }
}

/// Appends the header alone, for a payload that is sent from where it is. A client masks that
/// payload itself with [`apply_mask`].
pub fn encode_header(out: &mut Vec<u8>, opcode: Opcode, key: Option<[u8; 4]>, payload_len: usize) {
    out.extend_from_slice(Written::new(opcode, key, payload_len).bytes());
}

/// Appends a Ping, Pong or Close frame.
///
/// # Panics
/// If the payload is over [`CONTROL_MAX`] bytes: what [`super::Ws`] decoded never is.
pub fn encode_control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) {
    assert!(payload.len() <= CONTROL_MAX, "a control frame has at most 125 bytes of payload");
    encode(out, opcode, key, payload.len(), |out| out.extend_from_slice(payload));
}

/// Appends a Close frame with a code and no reason, or with an empty body.
pub fn encode_close(out: &mut Vec<u8>, code: Option<u16>, key: Option<[u8; 4]>) {
    match code {
        Some(code) => encode_control(out, Opcode::Close, &code.to_be_bytes(), key),
        None => encode_control(out, Opcode::Close, &[], key),
    }
}
