//! SimpleTextIM: JSON objects, one per line on a byte stream, one per message over ws.
//!
//! ```text
//!   client to gateway
//!   {"command":"login","message":{"user":U[,"password":P]}}     the source's dialect
//!   {"command":"login U/P"}                                     the document's dialect
//!   {"command":"login","user":U[,"password":P]}                 the same
//!   {"command":"login","message":"U/P"}                         the same
//!   {"command":"send","message":T[,"to":U]}                     no "to", null or "*": everybody
//!   {"command":"list"}                                          who is here?
//!   {"command":"exit"}  or the bare word  exit                  goodbye
//!
//!   gateway to client: see `reply`
//! ```
//!
//! The document and the program that was published later speak different JSON. Replies are in both
//! dialects at once; only the answer to a login differs, and its form tells the dialect.
//!
//! Owns: these forms, which names exist, how long a text may be. Never: credentials, who is online.

use std::ops::Range;

use crate::error::{Decoded, Malformed, WireError};
use crate::ids::MessageId;
use crate::manners::{Acks, Answers, Echo, Heartbeat, Manners, Patience};
use crate::message::Content;
use crate::packet::{Connect, Destination, Outgoing, Packet, Proof, Publish, Refusal, Terminal};
use crate::protocol::Protocol;

pub mod client;
mod frame;
mod reply;
mod request;

use frame::{Scan, is_exit};
use reply::Chat;
use request::{Credentials, Kept, Request};

/// The codec state of one connection, out of line: all protocols' connections have room for it.
#[derive(Debug)]
pub struct SimpleText(Box<State>);

#[derive(Debug, Default)]
struct State {
    scan: Scan,
    /// Of the last login.
    dialect: Option<Dialect>,
    /// Of the last login; empty if it can be nobody's.
    user: Box<[u8]>,
    /// That login holds.
    accepted: bool,
}

/// The two forms of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Of the published program: a login is answered by silence.
    Source,
    /// Of the document: a login is answered by a list of messages.
    Doc,
}

/// `[protocol.simple-text]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Logins of only this form are understood; `None`: of both.
    pub dialect: Option<Dialect>,
    /// Longest text in Unicode scalar values, 0: only [`PACKET_MAX`] bounds it. Default 140, the
    /// document's; the published program bounds nothing.
    pub max_chars: u32,
    /// Private messages wait for users who are away. Default true; the published program refused
    /// them.
    pub offline: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { dialect: None, max_chars: 140, offline: true }
    }
}

impl Protocol for SimpleText {
    const NAME: &'static str = "simple-text";
    const PACKET_MAX: usize = PACKET_MAX;
    const TEXT: bool = true;
    const LOGIN_TRIES: u8 = 3;
    const SILENT_RECEIVERS: bool = true;
    type Settings = Settings;

    fn new() -> Self {
        Self(Box::default())
    }

    fn frame(
        &mut self,
        _: &Settings,
        input: &[u8],
        quiet: bool,
    ) -> Result<Decoded<Range<usize>>, WireError> {
        self.0.scan.frame(input, quiet)
    }

    fn decode<'a>(
        &mut self,
        settings: &Settings,
        bytes: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Packet<'a>, WireError> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Packet::Nothing);
        }
        if is_exit(bytes) {
            return Ok(Packet::Disconnect);
        }
        match Request::parse(bytes)? {
            Request::Login(dialect, credentials) => {
                if settings.dialect.is_some_and(|only| only != dialect) {
                    return Err(WireError::new(Malformed::Field, 0));
                }
                Ok(self.0.login(dialect, credentials, scratch))
            }
            Request::Send { text, to } => {
                let max = settings.max_chars as usize;
                if max > 0 && text.chars().nth(max).is_some() {
                    return Err(WireError::new(Malformed::TooLong, 0));
                }
                let text = Kept::new(text, scratch);
                let to = to.map(|to| Kept::new(to, scratch));
                let to = to.map_or(Destination::Room, |to| Destination::Name(to.bytes(scratch)));
                let (id, body) = (MessageId::from([]), text.bytes(scratch));
                Ok(Packet::Publish(Publish { id, to, body, keep: settings.offline }))
            }
            Request::List => Ok(Packet::WhoIsHere),
            Request::Exit => Ok(Packet::Disconnect),
        }
    }

    fn accepted(&mut self) {
        self.0.accepted = true;
    }

    fn check_connect(_: &Settings, connect: &Connect<'_>) -> Result<(), Refusal> {
        if is_name(connect.name) { Ok(()) } else { Err(Refusal::BadCredentials) }
    }

    fn encode(
        &self,
        settings: &Settings,
        outgoing: &Outgoing<'_>,
        stream: bool,
        out: &mut Vec<u8>,
    ) {
        line(stream, out, |out| match outgoing {
            Outgoing::Accepted(_) if self.0.dialect == Some(Dialect::Doc) => {
                reply::put_no_messages(out);
            }
            Outgoing::Refused(refusal) => reply::put_refused(*refusal, out),
            Outgoing::PublishFailed { why, to, .. } => reply::put_publish_failed(*why, to, out),
            Outgoing::Push(push) => Chat::of(push.message).write(out),
            Outgoing::Joined(user) => Chat::notice(user, "Online !").write(out),
            Outgoing::Left(user) => Chat::notice(user, "Offline !").write(out),
            Outgoing::Present(names) => reply::put_list(names, out),
            Outgoing::Invalid(what) => reply::put_invalid(*what, settings, out),
            // Success is silent, and so is the end.
            Outgoing::Accepted(_)
            | Outgoing::PublishAck(..)
            | Outgoing::Answer(..)
            | Outgoing::Notice(..)
            | Outgoing::Ping
            | Outgoing::Pong
            | Outgoing::Goodbye(_) => {}
        });
    }

    fn push_variant(&self, _: &Settings) -> Option<u8> {
        Some(0)
    }

    fn manners(&self, _: &Settings) -> Manners {
        Manners {
            acks: Acks::Bytes,
            resends: None,
            heartbeat: Heartbeat::None,
            unique_ids: false,
            answers: Answers::AsTheyCome,
            gap_ms: 0,
            room: true,
            refusals: true,
            patience: Patience::Endless,
            keeps_older: false,
            group_echo: Echo::Nowhere,
            copies: false,
            open_groups: false,
            tentative: false,
        }
    }

    fn content(body: &[u8]) -> Content<'_> {
        simdutf8::basic::from_utf8(body).map_or(Content::Opaque(body), Content::Text)
    }
}

impl State {
    /// Once a login holds, another one of the same user means nothing, and one of somebody else
    /// changes nothing here.
    fn login<'a>(
        &mut self,
        dialect: Dialect,
        credentials: Credentials<'a>,
        scratch: &'a mut Vec<u8>,
    ) -> Packet<'a> {
        let (name, password) = match credentials {
            Credentials::Pair(pair) => {
                let pair = Kept::new(pair, scratch).bytes(scratch);
                match pair.iter().position(|byte| *byte == b'/') {
                    Some(slash) => (&pair[..slash], Some(&pair[slash + 1..])),
                    None => (pair, None),
                }
            }
            Credentials::Fields { user, password } => {
                let user = Kept::new(user, scratch);
                let password = password.map(|password| Kept::new(password, scratch));
                let scratch: &'a [u8] = scratch;
                (user.bytes(scratch), password.map(|password| password.bytes(scratch)))
            }
        };
        if self.accepted && *self.user == *name {
            return Packet::Nothing;
        }
        if !self.accepted {
            self.dialect = Some(dialect);
            self.user = if is_name(name) { name.into() } else { Box::default() };
        }
        Packet::Connect(Connect {
            name,
            proof: password.map_or(Proof::Nothing, Proof::Password),
            role: None,
            terminal: Terminal::Connection,
            vhost: None,
            tenant: None,
        })
    }
}

/// Appends to `out` what `write` appends, as a line if `stream`. Nothing written is no line: a
/// blank one would end the original client's reader.
pub fn line(stream: bool, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    if stream && out.len() > start {
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether somebody may be called so.
fn is_name(name: &[u8]) -> bool {
    let forbidden =
        |char: char| char.is_whitespace() || char.is_control() || matches!(char, '/' | '"');
    let text = std::str::from_utf8(name).unwrap_or_default();
    (1..=NAME_MAX).contains(&text.len()) && text != "*" && !text.contains(forbidden)
}

/// The longest request in bytes, without the end of its line.
pub const PACKET_MAX: usize = 64 * 1024;

/// The longest user name in bytes.
pub const NAME_MAX: usize = 64;
