//! What the gateway writes: one object per line, in the words of both dialects at once.
//!
//! ```text
//!   {"command":"message","result":{"text":T,"user":U,"type":"public"},
//!                        "messages":[{"user_id":U,"message":T}]}
//!   {"command":"list","result":{"text":"Online list","users":[..]},"list":[..]}
//!   {"command":"fail","result":{"error":N,"reason":R},"fail":{"error_code":N,"reason":R}}
//! ```
//!
//! The original client reads `result` and skips the rest; one without it ends its reader for good.
//!
//! Owns: these lines and their texts. Never: blank lines, banners, anything unescaped.

use std::borrow::Cow;

use super::{PACKET_MAX, Settings};
use crate::error::Malformed;
use crate::ids::GroupId;
use crate::message::{Content, Message, Target};
use crate::packet::{Failure, Refusal};

/// The error number of a login.
const NOT_FOUND: u16 = 404;
/// The error number of everything else.
const BAD_REQUEST: u16 = 400;

/// What a push, or a notice, is shown as.
pub(super) struct Chat<'a> {
    pub(super) user: Cow<'a, str>,
    pub(super) text: Cow<'a, str>,
    pub(super) private: bool,
    pub(super) group: Option<GroupId>,
}

impl<'a> Chat<'a> {
    pub(super) fn of(message: &'a Message) -> Self {
        let user = match message.from {
            _ if !message.from_name.is_empty() => String::from_utf8_lossy(&message.from_name),
            Some(user) => Cow::Owned(user.id.to_string()),
            None => Cow::Borrowed("server"),
        };
        let text = match message.content() {
            Content::Text(text)
            | Content::Image(text)
            | Content::Audio(text)
            | Content::Video(text) => Cow::Borrowed(text),
            opaque @ Content::Opaque(_) => {
                let mut text = String::new();
                opaque.write_text(&mut text);
                Cow::Owned(text)
            }
        };
        let group = match message.to {
            Target::Group(group) => Some(group.id),
            Target::User(_) | Target::Room(_) => None,
        };
        Self { user, text, private: matches!(message.to, Target::User(_)), group }
    }

    /// `user` has come or gone.
    pub(super) fn notice(user: &'a [u8], text: &'a str) -> Self {
        let (user, text) = (String::from_utf8_lossy(user), Cow::Borrowed(text));
        Self { user, text, private: false, group: None }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.reserve(2 * (self.text.len() + self.user.len()) + 128);
        out.extend_from_slice(br#"{"command":"message","result":{"text":"#);
        let text = put_string(&self.text, out);
        out.extend_from_slice(br#","user":"#);
        let user = put_string(&self.user, out);
        out.extend_from_slice(match self.private {
            true => br#","type":"private"},"messages":[{"user_id":"#,
            false => br#","type":"public"},"messages":[{"user_id":"#,
        });
        out.extend_from_within(user);
        out.extend_from_slice(br#","message":"#);
        out.extend_from_within(text);
        out.extend_from_slice(b"}]");
        if let Some(group) = self.group {
            out.extend_from_slice(br#","group":"#);
            put_string(&group.to_string(), out);
        }
        out.push(b'}');
    }
}

/// The document's answer to a login: the original client would not survive it.
pub(super) fn put_no_messages(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"command":"message","messages":[]}"#);
}

pub(super) fn put_list(names: &[Box<[u8]>], out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"command":"list","result":{"text":"Online list","users":"#);
    let start = out.len();
    out.push(b'[');
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_string(&String::from_utf8_lossy(name), out);
    }
    out.push(b']');
    let names = start..out.len();
    out.extend_from_slice(br#"},"list":"#);
    out.extend_from_within(names);
    out.push(b'}');
}

pub(super) fn put_refused(refusal: Refusal, out: &mut Vec<u8>) {
    let reason = match refusal {
        Refusal::Duplicate | Refusal::Taken => "Already logged in under another name",
        Refusal::BadCredentials | Refusal::UnknownTenant | Refusal::UnknownVhost => {
            "Wrong user name or password"
        }
    };
    put_fail(NOT_FOUND, reason, out);
}

pub(super) fn put_publish_failed(why: Failure, to: &[u8], out: &mut Vec<u8>) {
    let to = String::from_utf8_lossy(to);
    let reason = match why {
        // Spelled as clients know it.
        Failure::Unknown | Failure::Offline => {
            &*format!("User <{to}> is offline or user doesn't exists.")
        }
        Failure::NotAllowed => &*format!("Only members may send to <{to}>."),
        Failure::TooLarge => "Message is too long",
        Failure::TooMany => "There are too many messages waiting",
        Failure::Busy => "Server is busy, try again later",
        Failure::NoRecipient | Failure::Exists | Failure::BadRequest | Failure::Unsupported => {
            UNPROCESSED
        }
    };
    put_fail(BAD_REQUEST, reason, out);
}

pub(super) fn put_invalid(what: Malformed, settings: &Settings, out: &mut Vec<u8>) {
    let reason = match what {
        Malformed::LoginFirst => "login first",
        Malformed::TooLong => &*format!("Message is longer than {} characters", settings.max_chars),
        Malformed::TooLarge => &*format!("Request is longer than {PACKET_MAX} bytes"),
        _ => UNPROCESSED,
    };
    put_fail(BAD_REQUEST, reason, out);
}

fn put_fail(code: u16, reason: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(r#"{{"command":"fail","result":{{"error":{code},"#).as_bytes());
    out.extend_from_slice(br#""reason":"#);
    let reason = put_string(reason, out);
    out.extend_from_slice(format!(r#"}},"fail":{{"error_code":{code},"reason":"#).as_bytes());
    out.extend_from_within(reason);
    out.extend_from_slice(b"}}");
}

/// Appends a JSON string; gives where it stands.
pub(super) fn put_string(text: &str, out: &mut Vec<u8>) -> std::ops::Range<usize> {
    let start = out.len();
    serde_json::to_writer(&mut *out, text).expect("a string has a JSON form, a Vec takes it");
    start..out.len()
}

/// The original server's word for all it could not read.
const UNPROCESSED: &str = "Failed while processing the request";
