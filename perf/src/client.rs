//! One client of one protocol, without a socket: bytes in, events and bytes out.
//!
//! Owns: the trait that scenarios are written against. A protocol is one file below and one row in
//! the command line. Never: sockets, clocks, counting.

pub(crate) mod binary;
pub(crate) mod im_demo;
mod message_id;
pub(crate) mod mqtt;
pub(crate) mod relay;
pub(crate) mod simple_im;
pub(crate) mod simple_text;
#[cfg(test)]
mod testing;
pub(crate) mod text;

use codec::ws::handshake::client::ResponseError;
use std::borrow::Cow;
use std::net::SocketAddr;

/// A client's protocol state. It answers pings and acknowledges pushes by itself.
pub(crate) trait Client: Sized {
    /// The state before the first byte; `login` is all it will ever know of itself.
    fn new(login: Login) -> Self;

    /// Appends everything that is said before the server speaks.
    fn hello(&mut self, endpoint: &Endpoint, out: &mut Vec<u8>);

    /// Takes the next frame from `input`. `None` if it is not complete; otherwise how many bytes
    /// it took and what it meant. Answers owed by the protocol are appended to `out`.
    ///
    /// # Errors
    /// [`Refused`] if the server said no, or said something it may not.
    fn next<'a>(&mut self, input: &'a mut [u8], out: &mut Vec<u8>) -> Parsed<'a>;

    /// Appends one message. `slot` is the sender's in-flight slot, `seq` its place in his stream.
    fn publish(&mut self, to: Target, slot: u16, seq: u64, payload: &[u8], out: &mut Vec<u8>);

    /// Appends the orderly good-bye.
    fn goodbye(&mut self, out: &mut Vec<u8>);
}

/// See [`Client::next`].
pub(crate) type Parsed<'a> = Result<Option<(usize, Event<'a>)>, Refused>;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub address: SocketAddr,
    /// As written, for the HTTP head.
    pub host: String,
    pub path: String,
    pub tls: bool,
    /// WebSocket; else the protocol's own framing.
    pub ws: bool,
}

/// Who logs in, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Login {
    /// Logs in as `u{user}`, any password.
    pub user: u32,
    /// The group whose messages he gets; protocols with server-side membership ignore it.
    pub group: Option<u32>,
    /// MQTT's quality of service, 0 or 1; other protocols ignore it.
    pub qos: u8,
    /// The run's number; message ids of different runs differ.
    pub run: u32,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    User(u32),
    Group(u32),
}

impl Target {
    /// The number without its kind, as it stands in payloads.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::User(number) | Self::Group(number) => number,
        }
    }
}

/// What a frame meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// Nothing that a scenario needs to know (handshake steps).
    Nothing,
    /// The server asked for a sign of life and gets one.
    Pinged,
    /// Logged in and able to receive.
    Ready,
    /// The server has the message of that slot; `seq` where the acknowledgement tells it.
    Acked { slot: u16, seq: Option<u64> },
    /// A message.
    Delivered(Arrival<'a>),
}

/// A message as it arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arrival<'a> {
    pub payload: Cow<'a, [u8]>,
    /// The sender and his sequence, where the push tells them beside the payload.
    pub from: Option<u32>,
    pub seq: Option<u64>,
    /// Where the server says what it was sent to: a group, or (`Some(None)`) the user himself.
    pub label: Option<Option<u32>>,
}

impl Arrival<'_> {
    /// What stands beside the payload is what the payload says.
    pub(crate) fn agrees_with(&self, from: u32, seq: u64) -> bool {
        self.from.is_none_or(|named| named == from) && self.seq.is_none_or(|named| named == seq)
    }
}

impl Event<'_> {
    /// The same, without borrowing; copies a payload.
    pub(crate) fn into_owned(self) -> Event<'static> {
        match self {
            Self::Nothing => Event::Nothing,
            Self::Pinged => Event::Pinged,
            Self::Ready => Event::Ready,
            Self::Acked { slot, seq } => Event::Acked { slot, seq },
            Self::Delivered(Arrival { payload, from, seq, label }) => {
                let payload = Cow::Owned(payload.into_owned());
                Event::Delivered(Arrival { payload, from, seq, label })
            }
        }
    }
}

/// Why a server's answer ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The WebSocket upgrade failed.
    Upgrade(ResponseError),
    /// The login was refused, with the protocol's code.
    Login(u16),
    /// A message was refused, with the protocol's code.
    Message(u16),
    /// The bytes make no sense.
    Malformed(&'static str),
    /// The server said good-bye.
    Goodbye,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upgrade(why) => why.fmt(f),
            Self::Login(code) => write!(f, "the server refused the login (code {code})"),
            Self::Message(code) => write!(f, "the server refused a message (code {code})"),
            Self::Malformed(what) => write!(f, "the server's bytes make no sense: {what}"),
            Self::Goodbye => write!(f, "the server said good-bye"),
        }
    }
}
