//! Whether what Redis acknowledges is safe.
//!
//! Owns: what is asked of a server before it is used. Never: the writes.

use std::fmt;

use redis::{Connection, RedisError, RedisResult};

/// Why a Redis is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisProblem {
    /// The URL is none of Redis; it is not repeated, since it may hold a password.
    Url,
    /// It does not answer.
    Unreachable(String),
    /// A setting, what it is, and what it must be.
    Setting(&'static str, String, &'static str),
    /// `CONFIG GET` is not allowed.
    Unknown,
    /// It is a replica, and takes no writes.
    Replica,
}

impl fmt::Display for RedisProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("store.redis must be redis://host:port/database"),
            Self::Unreachable(why) => write!(f, "store.redis does not answer: {why}"),
            Self::Setting(name, found, wanted) => write!(
                f,
                "Redis would lose acknowledged messages: {name} is \"{found}\" and must be \
                 {wanted}, or set store.redis_durability = \"accepted\""
            ),
            Self::Unknown => f.write_str(
                "Redis does not say whether it keeps acknowledged messages (CONFIG GET is \
                 refused): allow it, or set store.redis_durability = \"accepted\"",
            ),
            Self::Replica => f.write_str("store.redis is a replica, which takes no writes"),
        }
    }
}

impl std::error::Error for RedisProblem {}

/// What speaks against acknowledging messages that this server has taken; `None`: nothing.
pub(super) fn check(connection: &mut Connection) -> RedisResult<Option<RedisProblem>> {
    let info: String = redis::cmd("INFO").arg("replication").query(connection)?;
    if field(&info, "role") == Some("slave") {
        return Ok(Some(RedisProblem::Replica));
    }
    for (name, wanted, is_good) in SETTINGS {
        let found: RedisResult<Vec<String>> =
            redis::cmd("CONFIG").arg("GET").arg(name).query(connection);
        match found {
            Ok(found) => {
                let value = found.get(1).map(String::as_str).unwrap_or_default();
                if !is_good(value) {
                    return Ok(Some(RedisProblem::Setting(name, value.to_owned(), wanted)));
                }
            }
            Err(error) if is_reply(&error) => return Ok(Some(RedisProblem::Unknown)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Replicas that are connected.
pub(super) fn replicas(connection: &mut Connection) -> RedisResult<u64> {
    let info: String = redis::cmd("INFO").arg("replication").query(connection)?;
    Ok(field(&info, "connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0))
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn is_reply(error: &RedisError) -> bool {
    !error.is_io_error() && !error.is_unrecoverable_error()
}

type Setting = (&'static str, &'static str, fn(&str) -> bool);

/// The log is on, is flushed before a reply, and nothing is thrown away to make room.
const SETTINGS: [Setting; 3] = [
    ("appendonly", "\"yes\"", |value| value == "yes"),
    ("appendfsync", "\"always\"", |value| value == "always"),
    ("maxmemory-policy", "\"noeviction\" or a volatile one", |value| {
        value == "noeviction" || value.starts_with("volatile-")
    }),
];
