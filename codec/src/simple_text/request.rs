//! What a request says.
//!
//! Owns: the keys of a request and the three forms of a login. Never: who may log in, or where a
//! request ends. Unknown keys are ignored, and of equal ones the last counts.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Dialect;
use crate::error::{Malformed, WireError};

/// A request, and the strings in it still on the wire or unescaped.
pub(super) enum Request<'a> {
    Login(Dialect, Credentials<'a>),
    Send {
        text: Cow<'a, str>,
        /// `None`: everybody.
        to: Option<Cow<'a, str>>,
    },
    List,
    Exit,
}

/// Who logs in.
pub(super) enum Credentials<'a> {
    /// `user/password`, or only the user.
    Pair(Cow<'a, str>),
    Fields {
        /// Empty if missing.
        user: Cow<'a, str>,
        password: Option<Cow<'a, str>>,
    },
}

impl<'a> Request<'a> {
    /// Reads one object.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let object: Object<'a> = serde_json::from_slice(bytes)
            .map_err(|error| WireError::new(Malformed::Syntax, error.column()))?;
        let Field::Text(command) = object.command else { return Err(FIELD) };
        match &*command {
            "send" => Self::send(object.message, object.to),
            "list" => Ok(Self::List),
            "exit" => Ok(Self::Exit),
            "login" => Self::login(object.message, object.user, object.password),
            _ => match without_prefix(command, "login ") {
                Some(pair) => Ok(Self::Login(Dialect::Doc, Credentials::Pair(pair))),
                None => Err(WireError::new(Malformed::UnknownCommand, 0)),
            },
        }
    }

    fn send(message: Field<'a>, to: Field<'a>) -> Result<Self, WireError> {
        let Field::Text(text) = message else { return Err(FIELD) };
        let to = to.optional()?.filter(|to| to != "*");
        if to.as_ref().is_some_and(|to| to.is_empty()) {
            return Err(FIELD);
        }
        Ok(Self::Send { text, to })
    }

    fn login(message: Field<'a>, user: Field<'a>, password: Field<'a>) -> Result<Self, WireError> {
        match message {
            Field::Object(inner) => {
                let user = match inner.user {
                    // The original server took this very name for a missing one.
                    Field::Text(user) if user != "dummy" => user,
                    _ => Cow::Borrowed(""),
                };
                let password = inner.password.optional()?;
                Ok(Self::Login(Dialect::Source, Credentials::Fields { user, password }))
            }
            Field::Text(pair) => Ok(Self::Login(Dialect::Doc, Credentials::Pair(pair))),
            Field::Absent => {
                let Field::Text(user) = user else { return Err(FIELD) };
                let password = password.optional()?;
                Ok(Self::Login(Dialect::Doc, Credentials::Fields { user, password }))
            }
            Field::Other => Err(FIELD),
        }
    }
}

/// A decoded string: a part of the packet, or of what was unescaped.
pub(super) enum Kept<'a> {
    Wire(&'a str),
    Scratch(Range<usize>),
}

impl<'a> Kept<'a> {
    pub(super) fn new(text: Cow<'a, str>, scratch: &mut Vec<u8>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::Wire(text),
            Cow::Owned(text) => {
                let start = scratch.len();
                scratch.extend_from_slice(text.as_bytes());
                Self::Scratch(start..scratch.len())
            }
        }
    }

    pub(super) fn bytes(self, scratch: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Wire(text) => text.as_bytes(),
            Self::Scratch(range) => &scratch[range],
        }
    }
}

fn without_prefix<'a>(text: Cow<'a, str>, prefix: &str) -> Option<Cow<'a, str>> {
    match text {
        Cow::Borrowed(text) => text.strip_prefix(prefix).map(Cow::Borrowed),
        Cow::Owned(text) => text.strip_prefix(prefix).map(|rest| Cow::Owned(rest.to_owned())),
    }
}

const FIELD: WireError = WireError { what: Malformed::Field, offset: 0 };

/// The keys that requests have, on both levels.
#[derive(Default)]
struct Object<'a> {
    command: Field<'a>,
    message: Field<'a>,
    to: Field<'a>,
    user: Field<'a>,
    password: Field<'a>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Command,
    Message,
    To,
    User,
    Password,
    #[serde(other)]
    Unknown,
}

#[derive(Default)]
enum Field<'a> {
    /// Or `null`.
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Object(Box<Object<'a>>),
    Other,
}

impl<'a> Field<'a> {
    fn optional(self) -> Result<Option<Cow<'a, str>>, WireError> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            Self::Object(_) | Self::Other => Err(FIELD),
        }
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        while let Some(key) = map.next_key()? {
            let field = match key {
                Key::Command => &mut object.command,
                Key::Message => &mut object.message,
                Key::To => &mut object.to,
                Key::User => &mut object.user,
                Key::Password => &mut object.password,
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = map.next_value()?;
        }
        Ok(object)
    }
}

impl<'de> Deserialize<'de> for Field<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Field<'de>, E> {
        Ok(Field::Absent)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field<'de>, A::Error> {
        ObjectVisitor.visit_map(map).map(|object| Field::Object(Box::new(object)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }
}
