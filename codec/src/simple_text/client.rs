//! The client's side of the protocol, for the load tool, the terminal client and tests.
//!
//! Owns: what clients send, as the published one writes it but escaped, and what they understand.
//! Never: the gateway's own path; nothing in the gateway calls this. Functions append one packet;
//! wrap them in [`super::line`] on a byte stream.

use std::borrow::Cow;

use serde::Deserialize;

use super::Dialect;
use super::reply::put_string;
use crate::error::{Malformed, WireError};

/// What the gateway said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPacket<'a> {
    Message {
        user: Cow<'a, str>,
        text: Cow<'a, str>,
        private: bool,
        /// The group's id in decimal.
        group: Option<Cow<'a, str>>,
    },
    /// The answer to a login in the document's dialect: how many messages it carries.
    Messages(usize),
    /// Who is here.
    List(Vec<Cow<'a, str>>),
    Fail {
        code: u16,
        reason: Cow<'a, str>,
    },
}

/// Appends a login. The document's dialect has no form for a name with a slash in it.
pub fn login(user: &str, password: Option<&str>, dialect: Dialect, out: &mut Vec<u8>) {
    match (dialect, password) {
        (Dialect::Source, _) => {
            out.extend_from_slice(br#"{ "command": "login", "message": {"user": "#);
            put_string(user, out);
            if let Some(password) = password {
                out.extend_from_slice(br#", "password": "#);
                put_string(password, out);
            }
            out.extend_from_slice(b"}}");
        }
        (Dialect::Doc, password) => {
            let slash = if password.is_some() { "/" } else { "" };
            out.extend_from_slice(br#"{"command":"#);
            put_string(&format!("login {user}{slash}{}", password.unwrap_or_default()), out);
            out.push(b'}');
        }
    }
}

/// Appends a message to everybody, or to the user `to`.
pub fn send(to: Option<&str>, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{ "command": "send", "message": "#);
    put_string(text, out);
    out.extend_from_slice(br#", "to": "#);
    put_string(to.unwrap_or("*"), out);
    out.push(b'}');
}

/// Appends the question who is here.
pub fn list(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{ "command": "list", "message": "list", "to": "*"}"#);
}

/// Appends the goodbye.
pub fn exit(out: &mut Vec<u8>) {
    out.extend_from_slice(b"exit");
}

/// Decodes one packet of the gateway, the whole of `bytes`, as strictly as the published client:
/// what would end its reader is an error here.
///
/// # Errors
/// [`WireError`] if the gateway never sends such a packet.
pub fn decode_server(bytes: &[u8]) -> Result<ServerPacket<'_>, WireError> {
    let syntax = |error: serde_json::Error| WireError::new(Malformed::Syntax, error.column());
    let reply: Reply<'_> = serde_json::from_slice(bytes).map_err(syntax)?;
    let missing = WireError::new(Malformed::Field, 0);
    match reply {
        Reply::Message { result: Some(chat), group, .. } => Ok(ServerPacket::Message {
            user: chat.user,
            text: chat.text,
            private: chat.kind != "public",
            group,
        }),
        Reply::Message { messages: Some(messages), .. } => {
            Ok(ServerPacket::Messages(messages.len()))
        }
        Reply::Message { .. } => Err(missing),
        Reply::List { result } => Ok(ServerPacket::List(result.users)),
        Reply::Fail { result } => {
            Ok(ServerPacket::Fail { code: result.error, reason: result.reason })
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
enum Reply<'a> {
    Message {
        #[serde(borrow)]
        result: Option<Chat<'a>>,
        messages: Option<Vec<serde::de::IgnoredAny>>,
        #[serde(borrow)]
        group: Option<Cow<'a, str>>,
    },
    List {
        #[serde(borrow)]
        result: List<'a>,
    },
    Fail {
        #[serde(borrow)]
        result: Fail<'a>,
    },
}

#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    users: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Fail<'a> {
    error: u16,
    #[serde(borrow)]
    reason: Cow<'a, str>,
}
