//! The opening handshake, the server's half (RFC 6455 section 4.2); [`client`] has the other.
//!
//! Owns: reading the upgrade request with `httparse`, the HTTP answer to each way it can be wrong,
//! the acceptance. Never: deadlines, and frames that come behind the request (they are the
//! input after `consumed`). Extensions are declined by not naming them.

pub mod client;
mod refusal;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::{Header, Status};
use sha1::{Digest, Sha1};

use crate::error::Decoded;
pub use refusal::HttpRefusal;

/// The longest request or response head. Browsers with cookies stay below half of it.
pub const HEAD_MAX: usize = 8 * 1024;
/// Header lines in a head; browsers send some 20.
pub const HEADERS_MAX: usize = 64;

/// An upgrade request that is right.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// The path without the query: one of the accepted ones.
    pub path: &'a str,
    /// The Sec-WebSocket-Key, for [`write_accept`].
    pub key: &'a str,
    /// The subprotocols offered, in the client's order of preference. Usually none.
    pub protocols: Vec<&'a str>,
}

/// Reads an upgrade request at the start of `input`.
///
/// `seen` is how many bytes of `input` an earlier call has answered with `NeedMore`: they are not
/// searched again, so that a request that comes byte by byte costs no more than one that comes
/// whole. The head is parsed once, when its end is there.
///
/// # Errors
/// [`HttpRefusal`], as soon as the request cannot become right: answer with it and close.
pub fn parse_upgrade<'a>(
    input: &'a [u8],
    seen: usize,
    accepted_paths: &[impl AsRef<str>],
) -> Result<Decoded<Upgrade<'a>>, HttpRefusal> {
    check_method(input)?;
    let Some(end) = head_end(input, seen) else {
        if input.len() >= HEAD_MAX {
            return Err(HttpRefusal::HeadTooLarge);
        }
        return Ok(Decoded::NeedMore { total: input.len() + 1 });
    };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(&input[..end]) {
        Ok(Status::Complete(len)) if len == end => {}
        // The head ends in front of the end: a bare line feed, or blank lines before it.
        Ok(_) => return Err(HttpRefusal::Malformed),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpRefusal::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(HttpRefusal::HttpVersion),
        Err(_) => return Err(HttpRefusal::Malformed),
    }
    if request.version != Some(1) {
        return Err(HttpRefusal::HttpVersion);
    }
    let path = path_of(request.path.unwrap_or_default());
    if !accepted_paths.iter().any(|accepted| accepted.as_ref() == path) {
        return Err(HttpRefusal::Path);
    }
    let value = check_headers(path, &Headers(request.headers))?;
    Ok(Decoded::Frame { value, consumed: end })
}

/// Appends the 101 response. `key` is [`Upgrade::key`]; `protocol` is one of those offered.
pub fn write_accept(out: &mut Vec<u8>, key: &str, protocol: Option<&str>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_value(key));
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Refuses what can no longer become a GET, without waiting for the end of the head.
fn check_method(input: &[u8]) -> Result<(), HttpRefusal> {
    const GET: &[u8] = b"GET ";
    let start = &input[..input.len().min(GET.len())];
    if GET.starts_with(start) {
        return Ok(());
    }
    match start[0] {
        b'A'..=b'Z' => Err(HttpRefusal::Method),
        _ => Err(HttpRefusal::Malformed),
    }
}

/// The path of a request target in origin form or absolute form (RFC 9112 section 3.2).
fn path_of(target: &str) -> &str {
    let target = target.split_once('?').map_or(target, |(path, _query)| path);
    if target.starts_with('/') {
        return target;
    }
    let Some((_scheme, rest)) = target.split_once("://") else { return target };
    rest.find('/').map_or("/", |slash| &rest[slash..])
}

/// The rules for header lines, RFC 6455 section 4.2.1 in its order.
fn check_headers<'a>(path: &'a str, headers: &Headers<'_, 'a>) -> Result<Upgrade<'a>, HttpRefusal> {
    headers.only("host").ok_or(HttpRefusal::Host)?;
    // Bytes of a body would be taken for frames.
    let is_bodyless = headers.all("content-length").all(|len| len == b"0");
    if !is_bodyless || headers.all("transfer-encoding").next().is_some() {
        return Err(HttpRefusal::Body);
    }
    if !headers.lists("upgrade", "websocket") || !headers.lists("connection", "upgrade") {
        return Err(HttpRefusal::NotUpgrade);
    }
    if headers.only("sec-websocket-version") != Some(b"13") {
        return Err(HttpRefusal::Version);
    }
    let key = headers.only("sec-websocket-key").and_then(nonce).ok_or(HttpRefusal::Key)?;
    let mut protocols = Vec::new();
    for line in headers.all("sec-websocket-protocol") {
        let line = std::str::from_utf8(line).map_err(|_| HttpRefusal::Malformed)?;
        protocols.extend(line.split(',').map(str::trim).filter(|name| !name.is_empty()));
    }
    Ok(Upgrade { path, key, protocols })
}

/// The key as text if it is 16 bytes in base64.
fn nonce(key: &[u8]) -> Option<&str> {
    let mut decoded = [0; 18];
    match STANDARD.decode_slice(key, &mut decoded) {
        Ok(16) => std::str::from_utf8(key).ok(),
        _ => None,
    }
}

/// What proves that the server has read the key (section 1.3).
fn accept_value(key: &str) -> [u8; 28] {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut value = [0; 28];
    STANDARD
        .encode_slice(hash.finalize(), &mut value)
        .expect("20 bytes are 28 characters of base64");
    value
}

/// The end of the head behind its blank line, within [`HEAD_MAX`]. The first `seen` bytes are known
/// not to hold it.
fn head_end(input: &[u8], seen: usize) -> Option<usize> {
    const BLANK_LINE: &[u8] = b"\r\n\r\n";
    let from = seen.saturating_sub(BLANK_LINE.len() - 1);
    let until = input.len().min(HEAD_MAX);
    let window = input.get(from..until)?;
    let at = window.windows(BLANK_LINE.len()).position(|bytes| bytes == BLANK_LINE)?;
    Some(from + at + BLANK_LINE.len())
}

/// Header lines, looked up by lower-case name.
struct Headers<'h, 'a>(&'h [Header<'a>]);

impl<'a> Headers<'_, 'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let matching = self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        matching.map(|header| header.value.trim_ascii())
    }

    /// The value of a line that must be there exactly once.
    fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut lines = self.all(name);
        let line = lines.next()?;
        lines.next().is_none().then_some(line)
    }

    /// Whether a comma-separated list has this token, in any case.
    fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|line| line.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}
