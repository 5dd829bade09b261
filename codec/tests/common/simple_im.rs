//! What the tests of simple_im share: a connection fed with chunks, and the parsers of the original
//! clients, written from the specification alone.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use codec::error::Malformed;
use codec::protocol::Protocol;
use codec::simple_im::client::{Client, ServerPacket, decode_server};
use codec::simple_im::{Dialect, Settings, SimpleIm};
use codec::{
    Decoded, Destination, GroupId, GroupKey, Message, MessageId, Outgoing, Packet, Proof,
    ProtocolId, Push, Target, Terminal, UserId, UserKey,
};

pub(crate) const DIALECTS: [Dialect; 4] =
    [Dialect::Single, Dialect::Nested, Dialect::Flat, Dialect::Device];
pub(crate) const TOKEN: &str = "AAklxuC39JJtttUMwKHq3teKwOzWtmJc";

/// A decoded packet, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Connect { name: String, proof: String, device: String },
    Again,
    Publish { id: String, to: To, body: Vec<u8> },
    Ack(String),
    Query(String),
    Nothing,
    Wrong(Malformed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    User(u32),
    Group(u32),
}

/// A connection: the codec and the bytes it has not framed yet.
pub(crate) struct Connection {
    pub(crate) codec: SimpleIm,
    pub(crate) settings: Settings,
    input: Vec<u8>,
}

impl Connection {
    pub(crate) fn new() -> Self {
        Self { codec: SimpleIm::new(), settings: Settings::default(), input: Vec::new() }
    }

    /// Logged in as user 1 with `android`, in `dialect`.
    pub(crate) fn of(dialect: Dialect) -> Self {
        let mut connection = Self::new();
        connection.receive(login(dialect).as_bytes());
        if dialect == Dialect::Flat {
            connection.packet("[[m]] id = \"0\" c = \"\" to = 1");
        }
        connection
    }

    /// What comes at once of these bytes.
    pub(crate) fn receive(&mut self, chunk: &[u8]) -> Vec<Heard> {
        self.input.extend_from_slice(chunk);
        self.heard(false)
    }

    /// Nothing more comes for a while.
    pub(crate) fn quiet(&mut self) -> Vec<Heard> {
        self.heard(true)
    }

    /// A whole packet.
    pub(crate) fn packet(&mut self, packet: &str) -> Heard {
        decode(&mut self.codec, &self.settings, packet.as_bytes())
    }

    pub(crate) fn pending(&self) -> usize {
        self.input.len()
    }

    pub(crate) fn send(&self, outgoing: &Outgoing<'_>) -> String {
        let mut out = b"kept".to_vec();
        self.codec.encode(&self.settings, outgoing, true, &mut out);
        String::from_utf8(out.split_off(4)).unwrap()
    }

    pub(crate) fn push(&self, message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        let push = Outgoing::Push(Push { message, stored: false });
        self.codec.encode(&self.settings, &push, true, &mut out);
        out
    }

    fn heard(&mut self, quiet: bool) -> Vec<Heard> {
        let mut heard = Vec::new();
        loop {
            match self.codec.frame(&self.settings, &self.input, quiet) {
                Ok(Decoded::Frame { value, consumed }) => {
                    assert!(0 < consumed && consumed <= self.input.len());
                    assert!(value.start <= value.end && value.end <= consumed);
                    heard.push(decode(&mut self.codec, &self.settings, &self.input[value]));
                    self.input.drain(..consumed);
                }
                Ok(Decoded::NeedMore { total }) => {
                    assert!(total > self.input.len());
                    return heard;
                }
                Ok(Decoded::Unsure) => {
                    assert!(!quiet, "silence decides");
                    return heard;
                }
                Err(error) => {
                    heard.push(Heard::Wrong(error.what));
                    return heard;
                }
            }
            if self.input.is_empty() {
                return heard;
            }
        }
    }
}

pub(crate) fn decode(codec: &mut SimpleIm, settings: &Settings, bytes: &[u8]) -> Heard {
    let mut scratch = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let id = |id: MessageId| text(id.as_bytes());
    match codec.decode(settings, bytes, &mut scratch) {
        Ok(Packet::Connect(connect)) => {
            let Terminal::Device(device) = connect.terminal else { panic!("{connect:?}") };
            let proof = match connect.proof {
                Proof::Token(token) => format!("token {}", text(token)),
                Proof::Phone(password) => format!("phone {}", text(password)),
                Proof::Password(_) | Proof::Nothing => panic!("{connect:?}"),
            };
            Heard::Connect { name: text(connect.name), proof, device: text(device) }
        }
        Ok(Packet::Publish(publish)) => {
            assert!(publish.keep);
            let to = match publish.to {
                Destination::User(user) => To::User(user.0),
                Destination::Group(group) => To::Group(group.0),
                other => panic!("{other:?}"),
            };
            Heard::Publish { id: id(publish.id), to, body: publish.body.to_vec() }
        }
        Ok(Packet::Ack(acked)) => Heard::Ack(id(acked)),
        Ok(Packet::Query(asked, _)) => Heard::Query(id(asked)),
        Ok(Packet::Nothing) => Heard::Nothing,
        Ok(Packet::ConnectAgain) => Heard::Again,
        Ok(other) => panic!("{other:?}"),
        Err(error) => Heard::Wrong(error.what),
    }
}

pub(crate) fn client(dialect: Dialect) -> Client<'static> {
    Client { dialect, user: UserId(1), device: b"android" }
}

pub(crate) fn login(dialect: Dialect) -> String {
    let mut out = Vec::new();
    client(dialect).login(b"a_01", false, TOKEN.as_bytes(), &mut out);
    String::from_utf8(out).unwrap()
}

/// The body of a text from user 1's `android`.
pub(crate) fn body(text: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x07android".to_vec();
    body.extend_from_slice(text);
    body
}

pub(crate) fn to_user(id: u32) -> Target {
    Target::User(UserKey { id: UserId(id), ..UserKey::default() })
}

pub(crate) fn to_group(id: u32) -> Target {
    Target::Group(GroupKey { id: GroupId(id), ..GroupKey::default() })
}

/// From user 1, at second 1443856541.
pub(crate) fn message(to: Target, body: &[u8]) -> Message {
    Message {
        stamp: 7,
        id: MessageId::new(b"a_02").unwrap(),
        from: Some(UserKey { id: UserId(1), ..UserKey::default() }),
        from_name: (*b"alice").into(),
        to,
        protocol: ProtocolId::SimpleIm,
        time_ms: 1_443_856_541_999,
        body: body.into(),
    }
}

/// What our own client reads there.
pub(crate) fn pushed(bytes: &[u8]) -> codec::simple_im::client::Push<'_> {
    match decode_server(bytes) {
        Ok(ServerPacket::Push(push)) => push,
        other => panic!("{other:?}: {}", bytes.escape_ascii()),
    }
}

/// A packet as the original parsers see it: name, and keys by table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Original {
    pub(crate) name: String,
    pub(crate) values: Vec<(String, Value)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(Vec<u8>),
    Number(u64),
}

impl Original {
    /// Strict: exactly one packet in the one-line layout, to the last byte.
    pub(crate) fn parse(bytes: &[u8], dialect: Dialect) -> Self {
        let double = dialect != Dialect::Single;
        let (open, close) = if double { (&b"[["[..], &b"]]"[..]) } else { (&b"["[..], &b"]"[..]) };
        let rest = bytes.strip_prefix(open).expect("a header at the first byte");
        let (name, mut rest) = cut(rest, close);
        let mut packet = Self { name, values: Vec::new() };
        let mut table = String::new();
        while !rest.is_empty() {
            rest = rest.strip_prefix(b" ").expect("one blank");
            if let Some(header) = rest.strip_prefix(b"[") {
                assert!(!packet.values.is_empty(), "a key before the first child");
                let (child, after) = cut(header, b"]");
                let child = child.strip_prefix(&packet.name).expect("a child of this packet");
                assert!(child.starts_with('.') && !child.contains(['[', '"']), "{child}");
                table = format!("{}.", &child[1..]);
                rest = after;
                continue;
            }
            let (key, after) = cut(rest, b" = ");
            let (value, after) = value(after, !double);
            let key = format!("{table}{key}");
            assert!(packet.values.iter().all(|(known, _)| *known != key), "{key} twice");
            packet.values.push((key, value));
            rest = after;
        }
        packet
    }

    pub(crate) fn text(&self, key: &str) -> &[u8] {
        match self.get(key) {
            Some(Value::Text(text)) => text,
            other => panic!("{key}: {other:?}"),
        }
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        match self.get(key) {
            Some(Value::Number(number)) => *number,
            other => panic!("{key}: {other:?}"),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }
}

fn value(rest: &[u8], escapes: bool) -> (Value, &[u8]) {
    let Some(mut rest) = rest.strip_prefix(b"\"") else {
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = str::from_utf8(&rest[..len]).unwrap().parse().expect("digits");
        return (Value::Number(number), &rest[len..]);
    };
    let mut text = Vec::new();
    loop {
        let (&byte, after) = rest.split_first().expect("a closing quote");
        rest = after;
        match (byte, rest.first()) {
            (b'"', _) => return (Value::Text(text), rest),
            (b'\\', Some(letter)) if escapes => {
                rest = &rest[1..];
                match letter {
                    b'0' => text.push(0),
                    b't' => text.push(b'\t'),
                    b'n' => text.push(b'\n'),
                    b'r' => text.push(b'\r'),
                    b'"' | b'\\' => text.push(*letter),
                    other => text.extend_from_slice(&[b'\\', *other]),
                }
            }
            _ => text.push(byte),
        }
    }
}

fn cut<'a>(bytes: &'a [u8], at: &[u8]) -> (String, &'a [u8]) {
    let found = bytes.windows(at.len()).position(|window| window == at).expect("its end");
    let name = str::from_utf8(&bytes[..found]).unwrap();
    assert!(!name.is_empty() && !name.contains(char::is_whitespace), "{name:?}");
    (name.to_owned(), &bytes[found + at.len()..])
}
