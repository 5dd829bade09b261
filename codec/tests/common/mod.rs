//! Test vectors: hexadecimal bytes and quoted ASCII strings; `# ` comments end with the line.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::path::PathBuf;

use codec::{Accepted, Connect, Message, MessageId, Outgoing, Proof, Push, UserId};

/// The message id of the protocol document's samples.
pub(crate) const M: &str = "550e8400e29b41d4a716446655440000";

pub(crate) fn id() -> MessageId {
    MessageId::new(M.as_bytes()).unwrap()
}

/// Where a codec may put what it took out of a packet.
pub(crate) fn scratch() -> &'static mut Vec<u8> {
    Box::leak(Box::default())
}

pub(crate) fn accepted() -> Outgoing<'static> {
    let (user, time_ms) = (UserId(7), 1_700_000_000_000);
    Outgoing::Accepted(Accepted { user, name: b"alice", session: 9, time_ms, heartbeat_s: 30 })
}

pub(crate) fn push(message: &Message) -> Outgoing<'_> {
    Outgoing::Push(Push { message, stored: false })
}

/// The password of a login.
pub(crate) fn password<'a>(connect: &Connect<'a>) -> &'a [u8] {
    match connect.proof {
        Proof::Password(password) => password,
        _ => panic!("{connect:?} has no password"),
    }
}

/// Bytes of a vector; `M` stands for the document's message id. Strings hold no space and no `#`.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split("# ").next().unwrap());
    lines.flat_map(str::split_whitespace).flat_map(token).collect()
}

fn token(token: &str) -> Vec<u8> {
    if token == "M" {
        return M.as_bytes().to_vec();
    }
    match token.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').expect("a closing quote").as_bytes().to_vec(),
        None => vec![u8::from_str_radix(token, 16).unwrap_or_else(|_| panic!("{token}"))],
    }
}

/// The packets a client of `protocol` may send, from `vectors/<protocol>/*.hex`, by file name.
pub(crate) fn packets(protocol: &str) -> Vec<(String, Vec<u8>)> {
    let mut packets: Vec<_> = std::fs::read_dir(folder(protocol))
        .unwrap_or_else(|error| panic!("vectors of {protocol}: {error}"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, hex(&std::fs::read_to_string(path).unwrap()))
        })
        .filter(|(name, _)| name != STREAM)
        .collect();
    packets.sort();
    assert!(!packets.is_empty(), "{protocol} has no vectors");
    packets
}

pub(crate) fn packet(protocol: &str, name: &str) -> Vec<u8> {
    let path = folder(protocol).join(name).with_extension("hex");
    hex(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")))
}

/// Several whole packets as they come over tcp.
pub(crate) fn stream(protocol: &str) -> Vec<u8> {
    packet(protocol, STREAM)
}

fn folder(protocol: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(protocol)
}

const STREAM: &str = "stream";
