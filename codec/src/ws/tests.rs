//! Single frames, every rule of RFC 6455 by name, and streams cut and broken at every place.

use super::*;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MAX: usize = 1024;

/// An event that outlives its input.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Message(Opcode, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
}

/// What a stream says: events up to its end or its first fault.
type Said = (Vec<Kept>, Option<WsError>);

fn keep(event: Event<'_>) -> Kept {
    match event {
        Event::Message { opcode, payload } => Kept::Message(opcode, payload.to_vec()),
        Event::Ping(payload) => Kept::Ping(payload.to_vec()),
        Event::Pong(payload) => Kept::Pong(payload.to_vec()),
        Event::Close { code, reason } => Kept::Close(code, reason.to_vec()),
    }
}

/// Decodes the inputs one after the other, checking progress and memory at each step.
fn decode_inputs(ws: &mut Ws, inputs: &[&[u8]]) -> Said {
    let mut events = Vec::new();
    let mut given = 0;
    for input in inputs {
        let mut input = input.to_vec();
        given += input.len();
        let mut at = 0;
        while at < input.len() {
            let step = match ws.decode(&mut input[at..], MAX) {
                Ok(step) => step,
                Err(error) => return (events, Some(error)),
            };
            assert!(step.consumed > 0, "no progress at {at}");
            at += step.consumed;
            events.extend(step.event.map(keep));
        }
        let bound = size_of::<Assembly>() + 2 * CONTROL_MAX + MAX.min(2 * given);
        assert!(ws.heap_bytes() <= bound, "{} bytes for {given}", ws.heap_bytes());
    }
    (events, None)
}

fn decode(role: Role, stream: &[u8]) -> Said {
    decode_inputs(&mut Ws::new(role), &[stream])
}

fn decode_bytewise(role: Role, stream: &[u8]) -> Said {
    let inputs: Vec<&[u8]> = stream.chunks(1).collect();
    decode_inputs(&mut Ws::new(role), &inputs)
}

/// One frame, right except for what the arguments make wrong.
fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, opcode, Some(KEY), payload.len(), |out| out.extend_from_slice(payload));
    if !fin {
        out[0] &= 0x7f;
    }
    out
}

fn text(payload: &[u8]) -> Kept {
    Kept::Message(Opcode::Text, payload.to_vec())
}

#[test]
fn examples_of_section_5_7() {
    let hello = || text(b"Hello");
    let unmasked = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(decode(Role::Client, &unmasked), (vec![hello()], None));
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(Role::Server, &masked), (vec![hello()], None));
    let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(decode(Role::Client, &fragmented), (vec![hello()], None));
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(decode(Role::Client, &ping), (vec![Kept::Ping(b"Hello".to_vec())], None));
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(Role::Server, &pong), (vec![Kept::Pong(b"Hello".to_vec())], None));

    let mut out = Vec::new();
    encode(&mut out, Opcode::Text, None, 5, |out| out.extend_from_slice(b"Hello"));
    assert_eq!(out, unmasked);
    out.clear();
    encode(&mut out, Opcode::Text, Some(KEY), 5, |out| out.extend_from_slice(b"Hello"));
    assert_eq!(out, masked);
    out.clear();
    encode_control(&mut out, Opcode::Ping, b"Hello", None);
    assert_eq!(out, ping);
}

#[test]
fn lengths_take_their_shortest_form_whatever_was_guessed() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload = vec![7; len];
        for hint in [0, 125, 126, 65_535, 65_536] {
            for key in [None, Some(KEY)] {
                let mut out = b"before".to_vec();
                encode(&mut out, Opcode::Binary, key, hint, |out| out.extend(&payload));
                let size = [2, 4, 10][usize::from(len > 125) + usize::from(len > 65_535)];
                assert_eq!(out.len(), 6 + size + key.map_or(0, |_| 4) + len);
                assert_eq!(out[..6], *b"before");
                let role = if key.is_some() { Role::Server } else { Role::Client };
                let step = Ws::new(role).decode(&mut out[6..], len).expect("a right frame").event;
                let expected = Kept::Message(Opcode::Binary, payload.clone());
                assert_eq!(step.map(keep), Some(expected), "{len} guessed as {hint}");

                let mut header = Vec::new();
                encode_header(&mut header, Opcode::Binary, key, len);
                assert_eq!(out[6..6 + header.len()], header);
            }
        }
    }
}

#[test]
fn every_framing_rule_has_its_error() {
    let long = |form: u8, len: &[u8]| [&[0x82, 0x80 | form], len, &KEY].concat();
    let cases: [(&str, Vec<u8>, WsError); 18] = [
        ("rsv1", vec![0xc2, 0x80], WsError::ReservedBits),
        ("rsv2", vec![0xa2, 0x80], WsError::ReservedBits),
        ("rsv3", vec![0x92, 0x80], WsError::ReservedBits),
        ("opcode 3", vec![0x83, 0x80], WsError::ReservedOpcode),
        ("opcode 7", vec![0x87, 0x80], WsError::ReservedOpcode),
        ("opcode 11", vec![0x8b, 0x80], WsError::ReservedOpcode),
        ("opcode 15", vec![0x8f, 0x80], WsError::ReservedOpcode),
        ("not masked", vec![0x82, 0x00], WsError::Unmasked),
        ("125 as 16 bits", long(126, &[0, 125]), WsError::LengthNotMinimal),
        ("0 as 16 bits", long(126, &[0, 0]), WsError::LengthNotMinimal),
        ("65535 as 64 bits", long(127, &65_535u64.to_be_bytes()), WsError::LengthNotMinimal),
        ("top bit", long(127, &(1u64 << 63).to_be_bytes()), WsError::LengthTopBit),
        ("over the bound", long(126, &1025u16.to_be_bytes()), WsError::TooLarge),
        ("i64::MAX", long(127, &i64::MAX.to_be_bytes()), WsError::TooLarge),
        ("fragmented ping", vec![0x09, 0x80], WsError::ControlFragmented),
        ("ping of 126", vec![0x89, 0xfe, 0, 126], WsError::ControlTooLong),
        (
            "nothing to continue",
            frame(true, Opcode::Continuation, b"x"),
            WsError::NothingToContinue,
        ),
        (
            "new message inside another",
            [frame(false, Opcode::Text, b"x"), frame(true, Opcode::Binary, b"y")].concat(),
            WsError::MessageUnfinished,
        ),
    ];
    for (name, stream, error) in cases {
        assert_eq!(decode(Role::Server, &stream), (vec![], Some(error)), "{name}");
        assert_eq!(decode_bytewise(Role::Server, &stream), (vec![], Some(error)), "{name}");
    }
    assert_eq!(decode(Role::Client, &[0x82, 0x80]), (vec![], Some(WsError::Masked)));
}

#[test]
fn the_bound_is_for_the_message_and_is_applied_before_the_payload_comes() {
    let full = frame(true, Opcode::Binary, &[1; MAX]);
    assert_eq!(decode(Role::Server, &full).0.len(), 1);
    let half = frame(false, Opcode::Binary, &[1; MAX / 2]);
    let rest = frame(true, Opcode::Continuation, &[1; MAX / 2]);
    assert_eq!(decode(Role::Server, &[&half[..], &rest].concat()).0.len(), 1);
    let over = frame(true, Opcode::Continuation, &[1; MAX / 2 + 1]);
    let header = &over[..8];
    let stream = [&half[..], header].concat();
    assert_eq!(decode(Role::Server, &stream), (vec![], Some(WsError::TooLarge)));

    let mut ws = Ws::new(Role::Server);
    let mut before_login = frame(true, Opcode::Binary, &[1; 40]);
    assert_eq!(ws.decode(&mut before_login, 39), Err(WsError::TooLarge));
    assert_eq!(Ws::new(Role::Server).decode(&mut before_login, 40).map(|s| s.consumed), Ok(46));
}

#[test]
fn fragments_without_a_byte_are_counted_and_others_are_not() {
    let stream = |filler: &[u8], count: usize| {
        let mut stream = frame(false, Opcode::Binary, b"a");
        for _ in 0..count {
            stream.extend(frame(false, Opcode::Continuation, filler));
        }
        stream.extend(frame(true, Opcode::Continuation, b""));
        decode(Role::Server, &stream)
    };
    let message = |len| vec![Kept::Message(Opcode::Binary, vec![b'a'; len])];
    assert_eq!(stream(b"", EMPTY_FRAGMENTS_MAX), (message(1), None));
    assert_eq!(stream(b"", EMPTY_FRAGMENTS_MAX + 1), (vec![], Some(WsError::EmptyFragments)));
    assert_eq!(stream(b"a", 1000), (message(1001), None));
}

/// Goal: a whole frame costs no heap, a split one gives it back. Method: look after each input.
#[test]
fn the_heap_is_used_only_while_something_is_split() {
    let mut ws = Ws::new(Role::Server);
    let mut whole = frame(true, Opcode::Text, b"hi");
    let step = ws.decode(&mut whole, MAX).expect("a right frame");
    let Some(Event::Message { payload: Payload::Borrowed(payload), .. }) = step.event else {
        panic!("{step:?}")
    };
    assert_eq!(payload, b"hi");
    assert_eq!(ws.heap_bytes(), 0);
    for split in 1..whole.len() {
        let stream = frame(true, Opcode::Text, b"hi");
        let (head, tail) = stream.split_at(split);
        assert_eq!(decode_inputs(&mut ws, &[head]), (vec![], None));
        assert!(ws.heap_bytes() > 0);
        assert_eq!(decode_inputs(&mut ws, &[tail]), (vec![text(b"hi")], None));
        assert_eq!(ws.heap_bytes(), 0, "split at {split}");
    }
    // A claim of the whole bound brings no more than twice what came.
    let claim = frame(true, Opcode::Binary, &[0; MAX]);
    decode_inputs(&mut ws, &[&claim[..20]]);
    assert!(ws.heap_bytes() <= size_of::<Assembly>() + 24);
    assert_eq!(decode_inputs(&mut ws, &[&claim[20..]]).0.len(), 1);
    assert_eq!(ws.heap_bytes(), 0);
}

#[test]
fn after_a_close_or_an_error_everything_is_ignored() {
    for end in [frame(true, Opcode::Close, &[3, 232]), vec![0xff, 0xff]] {
        let mut ws = Ws::new(Role::Server);
        let open = frame(false, Opcode::Binary, b"never finished");
        decode_inputs(&mut ws, &[&open, &end]);
        assert_eq!(ws.heap_bytes(), 0);
        assert_eq!(decode_inputs(&mut ws, &[&open, &end, &[0xff; 50]]), (vec![], None));
    }
}

#[test]
fn close_codes_and_bodies() {
    let close = |body: &[u8]| decode(Role::Server, &frame(true, Opcode::Close, body));
    for code in 0..=u16::MAX {
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let body = [&code.to_be_bytes()[..], b"bye"].concat();
        let expected = match valid {
            true => (vec![Kept::Close(Some(code), b"bye".to_vec())], None),
            false => (vec![], Some(WsError::CloseCode)),
        };
        assert_eq!(close(&body), expected, "{code}");
    }
    assert_eq!(close(b""), (vec![Kept::Close(None, vec![])], None));
    assert_eq!(close(&[3]), (vec![], Some(WsError::CloseBody)));
    assert_eq!(close(&[3, 232]), (vec![Kept::Close(Some(1000), vec![])], None));
    assert_eq!(close(&[3, 232, 0xc3]), (vec![], Some(WsError::NotUtf8)));
    let longest = [&[3, 232][..], &[b'x'; 123]].concat();
    let kept = Kept::Close(Some(1000), vec![b'x'; 123]);
    assert_eq!(decode_bytewise(Role::Server, &frame(true, Opcode::Close, &longest)).0, [kept]);

    for (code, expected) in [(Some(1001), &[0x88, 2, 3, 233][..]), (None, &[0x88, 0])] {
        let mut out = Vec::new();
        encode_close(&mut out, code, None);
        assert_eq!(out, expected);
    }
}

#[test]
fn errors_map_to_close_codes() {
    for error in WsError::ALL {
        let expected = match error {
            WsError::NotUtf8 => 1007,
            WsError::TooLarge => 1009,
            _ => 1002,
        };
        assert_eq!(crate::CloseReason::from(error).ws_code(), Some(expected), "{error}");
    }
}

/// Goal: text is judged alike however it is cut, and a broken text as soon as it cannot be mended.
/// Method: every split into two fragments, and byte by byte, against the standard library.
#[test]
fn text_is_utf8_across_fragments_and_inputs() {
    let texts: [&[u8]; 22] = [
        b"",
        "κόσμε \u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}".as_bytes(),
        "\u{d7ff}\u{e000}\u{fffd}".as_bytes(),
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xff",
        b"\x80",
        b"ok\xc3",
        b"ok\xe2\x82",
        b"ok\xf0\x9f\x98",
        b"ok\xe2\x28\xa1",
        b"\xf0\x9f\x98\x80\xf0\x9f\x98",
        b"\xc3\xc3\xa9",
    ];
    for bytes in texts {
        let expected = match std::str::from_utf8(bytes) {
            Ok(_) => (vec![text(bytes)], None),
            Err(_) => (vec![], Some(WsError::NotUtf8)),
        };
        let whole = frame(true, Opcode::Text, bytes);
        assert_eq!(decode(Role::Server, &whole), expected, "{bytes:x?}");
        assert_eq!(decode_bytewise(Role::Server, &whole), expected, "{bytes:x?} bytewise");
        for split in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(split);
            let head = frame(false, Opcode::Text, head);
            let stream = [head.clone(), frame(true, Opcode::Continuation, tail)].concat();
            assert_eq!(decode(Role::Server, &stream), expected, "{bytes:x?} at {split}");
            let hopeless = std::str::from_utf8(&bytes[..split])
                .is_err_and(|error| error.error_len().is_some());
            let early = decode(Role::Server, &head).1;
            assert_eq!(early, hopeless.then_some(WsError::NotUtf8), "{bytes:x?} at {split}");
        }
    }
}

/// One of everything: text in fragments with a ping between, a long binary, a pong, a close.
fn everything() -> (Vec<u8>, Vec<Kept>) {
    let stream = [
        frame(false, Opcode::Text, "grü".as_bytes()),
        frame(true, Opcode::Ping, b"are you there"),
        frame(false, Opcode::Continuation, b""),
        frame(true, Opcode::Continuation, "ße".as_bytes()),
        frame(true, Opcode::Binary, &[9; 130]),
        frame(true, Opcode::Binary, b""),
        frame(true, Opcode::Pong, b""),
        frame(true, Opcode::Close, &[3, 232, b'x']),
    ];
    let events = vec![
        Kept::Ping(b"are you there".to_vec()),
        text("grüße".as_bytes()),
        Kept::Message(Opcode::Binary, vec![9; 130]),
        Kept::Message(Opcode::Binary, vec![]),
        Kept::Pong(vec![]),
        Kept::Close(Some(1000), b"x".to_vec()),
    ];
    (stream.concat(), events)
}

#[test]
fn every_split_point_and_every_truncation() {
    let (stream, events) = everything();
    assert_eq!(decode(Role::Server, &stream), (events.clone(), None));
    assert_eq!(decode_bytewise(Role::Server, &stream), (events.clone(), None));
    for split in 0..=stream.len() {
        let (head, tail) = stream.split_at(split);
        let mut ws = Ws::new(Role::Server);
        assert_eq!(decode_inputs(&mut ws, &[head, tail]), (events.clone(), None), "at {split}");
        let (truncated, error) = decode(Role::Server, head);
        assert!(events.starts_with(&truncated) && error.is_none(), "truncated to {split}");
        assert_eq!(decode_bytewise(Role::Server, head), (truncated, None));
    }
}

#[test]
fn every_bit_flip_is_judged_alike_in_one_input_and_byte_by_byte() {
    let (stream, _) = everything();
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        for role in [Role::Server, Role::Client] {
            assert_eq!(decode(role, &flipped), decode_bytewise(role, &flipped), "bit {bit}");
        }
    }
}
