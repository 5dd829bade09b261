//! The client's half of the opening handshake (RFC 6455 section 4.1), for load clients and tests.
//!
//! Owns: the request and the checks of the response. Never: random numbers: the caller brings the
//! 16 bytes of the key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::Status;

use super::{HEAD_MAX, HEADERS_MAX, Headers, accept_value, head_end};
use crate::error::Decoded;

/// Why a response is not the acceptance of our upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseError {
    /// Not HTTP/1.1, or over [`HEAD_MAX`] bytes or [`HEADERS_MAX`] header lines.
    Malformed,
    /// Not 101: the server's status code.
    Status(u16),
    /// No `Upgrade: websocket` or no `Connection: Upgrade`.
    NotUpgrade,
    /// The Sec-WebSocket-Accept is not the one for our key.
    Accept,
    /// An extension, and we offered none.
    Extension,
    /// A subprotocol that we did not offer.
    Protocol,
}

impl std::fmt::Display for ResponseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed => f.write_str("the response is not HTTP/1.1"),
            Self::Status(code) => write!(f, "the server answered {code} instead of 101"),
            Self::NotUpgrade => f.write_str("the response does not upgrade to websocket"),
            Self::Accept => f.write_str("Sec-WebSocket-Accept does not match the key"),
            Self::Extension => f.write_str("the server uses an extension that was not offered"),
            Self::Protocol => f.write_str("the server uses a subprotocol that was not offered"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// Appends the upgrade request. `host` (with a port unless it is the default one), `path` (with a
/// query, if any) and `protocol` go in as they are: they hold no spaces or control characters.
pub fn write_request(
    out: &mut Vec<u8>,
    host: &str,
    path: &str,
    key: [u8; 16],
    protocol: Option<&str>,
) {
    let key = STANDARD.encode(key);
    let protocol =
        protocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    let request = format!(
        "GET {path} HTTP/1.1\r\n\
         Host: {host}\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\n\
         {protocol}\r\n",
    );
    out.extend_from_slice(request.as_bytes());
}

/// Reads the response at the start of `input`. `key` and `protocol` are those of
/// [`write_request`]; frames may follow at `consumed`.
///
/// # Errors
/// [`ResponseError`]: there is no WebSocket.
pub fn parse_response(
    input: &[u8],
    key: [u8; 16],
    protocol: Option<&str>,
) -> Result<Decoded<()>, ResponseError> {
    let Some(end) = head_end(input, 0) else {
        if input.len() >= HEAD_MAX {
            return Err(ResponseError::Malformed);
        }
        return Ok(Decoded::NeedMore { total: input.len() + 1 });
    };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&input[..end]) {
        Ok(Status::Complete(len)) if len == end && response.version == Some(1) => {}
        _ => return Err(ResponseError::Malformed),
    }
    match response.code {
        Some(101) => {}
        code => return Err(ResponseError::Status(code.unwrap_or_default())),
    }
    let headers = Headers(response.headers);
    if !headers.lists("upgrade", "websocket") || !headers.lists("connection", "upgrade") {
        return Err(ResponseError::NotUpgrade);
    }
    let accept = accept_value(&STANDARD.encode(key));
    if headers.only("sec-websocket-accept") != Some(&accept[..]) {
        return Err(ResponseError::Accept);
    }
    if headers.all("sec-websocket-extensions").any(|line| !line.is_empty()) {
        return Err(ResponseError::Extension);
    }
    let offered = protocol.map(str::as_bytes);
    if headers.all("sec-websocket-protocol").any(|chosen| Some(chosen) != offered) {
        return Err(ResponseError::Protocol);
    }
    Ok(Decoded::Frame { value: (), consumed: end })
}
