//! An outside judge: tungstenite reads what we write and writes what we read, over memory.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use codec::Decoded;
use codec::ws::handshake::client::{parse_response, write_request};
use codec::ws::handshake::{HttpRefusal, parse_upgrade, write_accept};
use codec::ws::{Event, Opcode, Role, Ws, encode, encode_close, encode_control};
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role as JudgeRole, WebSocket};
use tungstenite::{Error, HandshakeError, Message};

const MAX: usize = 1 << 20;
const KEY: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];

/// The judge's socket: we fill `to_judge` and empty `from_judge`.
#[derive(Debug, Default)]
struct Pipe {
    to_judge: VecDeque<u8>,
    from_judge: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.to_judge.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.to_judge.read(buf)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.from_judge.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// We and the judge at the two ends of one connection.
struct Pair {
    judge: WebSocket<Pipe>,
    ws: Ws,
    /// Our masking key, if we are the client.
    key: Option<[u8; 4]>,
}

impl Pair {
    fn new(role: Role) -> Self {
        let (judge_role, key) = match role {
            Role::Server => (JudgeRole::Client, None),
            Role::Client => (JudgeRole::Server, Some(KEY)),
        };
        let judge = WebSocket::from_raw_socket(Pipe::default(), judge_role, None);
        Self { judge, ws: Ws::new(role), key }
    }

    /// What the judge wrote, as we read it in inputs of `chunk_len`.
    fn receive(&mut self, chunk_len: usize) -> Vec<Message> {
        let mut bytes = std::mem::take(&mut self.judge.get_mut().from_judge);
        let mut received = Vec::new();
        for mut input in bytes.chunks_mut(chunk_len) {
            while !input.is_empty() {
                let step = self.ws.decode(input, MAX).expect("the judge writes right frames");
                let consumed = step.consumed;
                received.extend(step.event.map(to_message));
                input = &mut input[consumed..];
            }
        }
        received
    }

    fn send(&mut self, bytes: &[u8]) {
        self.judge.get_mut().to_judge.extend(bytes);
    }
}

fn to_message(event: Event<'_>) -> Message {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("checked by the decoder");
    match event {
        Event::Message { opcode: Opcode::Text, payload } => Message::text(text(&payload)),
        Event::Message { payload, .. } => Message::binary(payload.to_vec()),
        Event::Ping(payload) => Message::Ping(payload.to_vec().into()),
        Event::Pong(payload) => Message::Pong(payload.to_vec().into()),
        Event::Close { code, reason } => {
            Message::Close(code.map(|code| CloseFrame {
                code: CloseCode::from(code),
                reason: text(&reason).into(),
            }))
        }
    }
}

fn messages() -> Vec<Message> {
    let mut messages: Vec<Message> = [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 200_000]
        .into_iter()
        .map(|len: usize| Message::binary((0..len).map(|i| i as u8).collect::<Vec<u8>>()))
        .collect();
    messages.push(Message::text("grüße 😀"));
    messages.push(Message::text(""));
    messages.push(Message::Ping(vec![1; 125].into()));
    messages.push(Message::Pong(vec![].into()));
    messages
}

#[test]
fn we_read_what_the_judge_writes() {
    for role in [Role::Server, Role::Client] {
        for chunk_len in [1, 13, 4096, usize::MAX] {
            let mut pair = Pair::new(role);
            for message in messages() {
                pair.judge.send(message).expect("memory takes everything");
            }
            assert_eq!(pair.receive(chunk_len), messages());
            let close = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
            pair.judge.close(Some(close.clone())).expect("memory takes everything");
            assert_eq!(pair.receive(chunk_len), [Message::Close(Some(close))]);
            assert_eq!(pair.ws.heap_bytes(), 0);
        }
    }
}

#[test]
fn we_read_the_judges_fragments_with_a_ping_between() {
    for role in [Role::Server, Role::Client] {
        for chunk_len in 1..30 {
            let mut pair = Pair::new(role);
            let fragment = |payload: &'static [u8], opcode, is_final| {
                Message::Frame(Frame::message(payload, OpCode::Data(opcode), is_final))
            };
            for message in [
                fragment(b"one \xf0\x9f", Data::Text, false),
                Message::Ping(vec![5; 5].into()),
                fragment(b"\x98\x80 two", Data::Continue, true),
            ] {
                pair.judge.send(message).expect("memory takes everything");
            }
            let expected = [Message::Ping(vec![5; 5].into()), Message::text("one 😀 two")];
            assert_eq!(pair.receive(chunk_len), expected, "in inputs of {chunk_len}");
        }
    }
}

#[test]
fn the_judge_reads_what_we_write() {
    for role in [Role::Server, Role::Client] {
        let mut pair = Pair::new(role);
        let key = pair.key;
        for message in messages() {
            let mut out = Vec::new();
            let data = message.clone().into_data();
            match message {
                Message::Ping(_) => encode_control(&mut out, Opcode::Ping, &data, key),
                Message::Pong(_) => encode_control(&mut out, Opcode::Pong, &data, key),
                _ => {
                    let opcode = if message.is_text() { Opcode::Text } else { Opcode::Binary };
                    encode(&mut out, opcode, key, data.len(), |out| out.extend(&data));
                }
            }
            pair.send(&out);
            assert_eq!(pair.judge.read().expect("a right frame"), message);
        }
        let mut out = Vec::new();
        encode_close(&mut out, Some(1001), key);
        pair.send(&out);
        let close = CloseFrame { code: CloseCode::Away, reason: "".into() };
        assert_eq!(pair.judge.read().expect("a right frame"), Message::Close(Some(close)));
    }
}

#[test]
fn our_close_ends_the_judges_connection_properly() {
    let mut pair = Pair::new(Role::Server);
    pair.judge.close(None).expect("memory takes everything");
    assert_eq!(pair.receive(usize::MAX), [Message::Close(None)]);
    let mut out = Vec::new();
    encode_close(&mut out, None, None);
    pair.send(&out);
    assert!(matches!(pair.judge.read(), Ok(Message::Close(None))));
    assert!(matches!(pair.judge.read(), Err(Error::Io(_) | Error::ConnectionClosed)));
}

#[test]
fn the_judge_as_client_accepts_our_acceptance() {
    let Err(HandshakeError::Interrupted(mut handshake)) =
        tungstenite::client("ws://localhost:9095/ws?x=1", Pipe::default())
    else {
        panic!("there is no response yet")
    };
    let pipe = handshake.get_mut().get_mut();
    let request = std::mem::take(&mut pipe.from_judge);
    let Ok(Decoded::Frame { value, consumed }) = parse_upgrade(&request, 0, &["/ws"]) else {
        panic!("{}", request.escape_ascii())
    };
    assert_eq!(consumed, request.len());
    assert_eq!(parse_upgrade(&request, 0, &["/"]), Err(HttpRefusal::Path));
    let mut response = Vec::new();
    write_accept(&mut response, value.key, None);
    pipe.to_judge.extend(response);
    assert!(handshake.handshake().is_ok());
}

#[test]
fn the_judge_as_client_reads_our_refusals() {
    for refusal in HttpRefusal::ALL {
        let Err(HandshakeError::Interrupted(mut handshake)) =
            tungstenite::client("ws://localhost:9095/", Pipe::default())
        else {
            panic!("there is no response yet")
        };
        let mut response = Vec::new();
        refusal.write(&mut response);
        handshake.get_mut().get_mut().to_judge.extend(response);
        match handshake.handshake() {
            Err(HandshakeError::Failure(Error::Http(response))) => {
                assert_eq!(response.status().as_u16(), refusal.status());
            }
            other => panic!("{refusal:?}: {other:?}"),
        }
    }
}

#[test]
fn the_judge_as_server_accepts_our_request() {
    let mut pipe = Pipe::default();
    let mut request = Vec::new();
    write_request(&mut request, "localhost:9095", "/ws", [3; 16], None);
    pipe.to_judge.extend(request);
    let mut judge = tungstenite::accept(pipe).expect("a right request");
    let response = std::mem::take(&mut judge.get_mut().from_judge);
    let expected = Decoded::Frame { value: (), consumed: response.len() };
    assert_eq!(parse_response(&response, [3; 16], None), Ok(expected));
}
