//! A client of simple-text, as strict as the published one: what would end its reader panics.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use codec::Decoded;
use codec::simple_text::Dialect;
use codec::simple_text::client::{self, ServerPacket};

use super::gateway::Gateway;
use super::wire::{Found, Got, Wire};
use super::{PATIENCE, SILENCE};

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TextSeen {
    Message {
        user: String,
        text: String,
        private: bool,
        group: Option<String>,
    },
    /// The document's answer to a login.
    Messages(usize),
    List(Vec<String>),
    Fail(u16, String),
    End,
}

impl TextSeen {
    fn of(line: &[u8]) -> Self {
        let packet = client::decode_server(line);
        match packet.unwrap_or_else(|_| panic!("kills a client: {}", line.escape_ascii())) {
            ServerPacket::Message { user, text, private, group } => Self::Message {
                user: user.into(),
                text: text.into(),
                private,
                group: group.map(Into::into),
            },
            ServerPacket::Messages(count) => Self::Messages(count),
            ServerPacket::List(names) => Self::List(names.into_iter().map(Into::into).collect()),
            ServerPacket::Fail { code, reason } => Self::Fail(code, reason.into()),
        }
    }

    pub(crate) fn private(user: &str, text: &str) -> Self {
        let (user, text) = (user.into(), text.into());
        Self::Message { user, text, private: true, group: None }
    }

    pub(crate) fn public(user: &str, text: &str) -> Self {
        let (user, text) = (user.into(), text.into());
        Self::Message { user, text, private: false, group: None }
    }

    fn is_notice(&self) -> bool {
        matches!(self, Self::Message { private: false, group: None, text, .. }
            if matches!(&**text, "Online !" | "Offline !"))
    }
}

pub(crate) struct TextClient {
    pub(crate) wire: Wire,
    /// Who comes and goes is seen, too.
    pub(crate) hears_notices: bool,
    /// Came before an answer that was waited for.
    early: VecDeque<TextSeen>,
}

impl TextClient {
    /// A connection that has not logged in.
    pub(crate) fn dial(gateway: &Gateway) -> Self {
        Self::over(Wire::dial(gateway.site().of("simple-text")))
    }

    /// As [`TextClient::dial`], wherever it is connected to.
    pub(crate) fn over(wire: Wire) -> Self {
        Self { wire, hears_notices: false, early: VecDeque::new() }
    }

    /// Logs in as the published client and waits until it holds, which only an answer to the next
    /// request shows.
    #[track_caller]
    pub(crate) fn login(&mut self, name: &str, password: Option<&str>) {
        self.put(|out| client::login(name, password, Dialect::Source, out));
        self.list();
    }

    #[track_caller]
    pub(crate) fn logged_in(gateway: &Gateway, name: &str) -> Self {
        let mut client = Self::dial(gateway);
        client.login(name, None);
        client
    }

    /// Sends one request as a line.
    #[track_caller]
    pub(crate) fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        codec::simple_text::line(true, &mut out, write);
        self.wire.send(&out);
    }

    /// A line as it is.
    #[track_caller]
    pub(crate) fn line(&mut self, line: &str) {
        self.put(|out| out.extend_from_slice(line.as_bytes()));
    }

    /// To `to`, or to everybody.
    #[track_caller]
    pub(crate) fn say(&mut self, to: Option<&str>, text: &str) {
        self.put(|out| client::send(to, text, out));
    }

    /// Who is here. What comes before the answer is seen after it.
    #[track_caller]
    pub(crate) fn list(&mut self) -> Vec<String> {
        self.put(client::list);
        loop {
            match self.see_new(PATIENCE).expect("no list came") {
                TextSeen::List(names) => return names,
                other @ TextSeen::Message { .. } => self.early.push_back(other),
                other => panic!("{other:?} is no list"),
            }
        }
    }

    /// The next thing within `patience`; `None`: nothing came.
    pub(crate) fn see(&mut self, patience: Duration) -> Option<TextSeen> {
        self.early.pop_front().or_else(|| self.see_new(patience))
    }

    fn see_new(&mut self, patience: Duration) -> Option<TextSeen> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let seen = match self.wire.see(left, line)? {
                Got::Packet(line) => TextSeen::of(&line),
                Got::End => TextSeen::End,
            };
            if self.hears_notices || !seen.is_notice() {
                return Some(seen);
            }
        }
    }

    #[track_caller]
    pub(crate) fn next(&mut self) -> TextSeen {
        self.see(PATIENCE).expect("nothing came")
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: TextSeen) {
        assert_eq!(self.next(), expected);
    }

    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        assert_eq!(self.see(SILENCE), None);
    }

    /// Says goodbye and waits until the gateway has closed.
    #[track_caller]
    pub(crate) fn exit(mut self) {
        self.put(client::exit);
        while self.next() != TextSeen::End {}
    }
}

/// A line with its end, which must be the one that all readers know.
fn line(read: &[u8], _: bool) -> Found {
    let Some(end) = read.iter().position(|byte| *byte == b'\n') else {
        return Ok(Decoded::NeedMore { total: read.len() + 1 });
    };
    assert!(end > 0 && read[end - 1] == b'\r', "a bare line end: {}", read.escape_ascii());
    Ok(Decoded::Frame { value: 0..end - 1, consumed: end + 1 })
}
