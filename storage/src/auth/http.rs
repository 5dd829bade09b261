//! The HTTP user centre of the `binary` system (specs/binary-ws.md section 10).
//!
//! ```text
//! POST <url>
//! Accept: application/json
//! Content-Type: application/x-www-form-urlencoded;charset=utf-8
//!
//! username=xyb%7C%23%23%7Capp%7C%23%23%7C1234&password=a%2Bb+c[&role=2]
//!
//! {"result":"pass","uid":1234}  or  {"result":"denied"}
//! ```
//!
//! Owns: that request, its time-out, what counts as a verdict. Never: a verdict of its own. "Down"
//! is not "denied": only well-formed JSON under a fitting status decides.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::{TenantId, UserId};
use serde_json::Value;
use ureq::config::AutoHeaderValue;
use zeroize::Zeroize;

use super::{Authenticator, UserDirectory};
use crate::breaker::{Breaker, Policy};
use crate::request::{AuthRequest, AuthVerdict, Proof};

/// How to reach the user centre.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// `http://` or `https://`.
    pub url: String,
    pub forward_role: ForwardRole,
    /// Bounds the whole call: name resolution, connection, request, reply.
    pub timeout: Duration,
    /// Idle connections kept; as many as there are auth threads.
    pub connections: usize,
}

/// Whether the role of a CONNECT goes to the user centre.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardRole {
    /// Only if the client sent one.
    #[default]
    WhenPresent,
    Never,
    /// As 0 if the client sent none.
    Always,
}

/// The URL is none that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfigError(pub String);

impl std::fmt::Display for HttpConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the user centre's URL must be http://host... or https://host...: {}", self.0)
    }
}

impl std::error::Error for HttpConfigError {}

/// Asks the user centre. Siblings share connections and the breaker: one per auth thread, so that
/// the number of threads bounds the calls under way.
pub struct UserCentre {
    /// For names of tenants: the centre knows of one tenant, whichever it is.
    directory: Box<dyn UserDirectory>,
    agent: ureq::Agent,
    url: ureq::http::Uri,
    forward_role: ForwardRole,
    timeout: Duration,
    breaker: Arc<Breaker>,
}

impl UserCentre {
    /// # Errors
    /// [`HttpConfigError`]; nothing is connected yet.
    pub fn new(
        config: &HttpConfig,
        directory: Box<dyn UserDirectory>,
    ) -> Result<Self, HttpConfigError> {
        let refused = || HttpConfigError(config.url.clone());
        let url: ureq::http::Uri = config.url.parse().map_err(|_| refused())?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err(refused());
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry passwords to somewhere that nobody configured.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(AutoHeaderValue::None)
            .accept_encoding(AutoHeaderValue::None)
            .max_idle_connections(config.connections)
            .max_idle_connections_per_host(config.connections)
            .build()
            .new_agent();
        Ok(Self {
            directory,
            agent,
            url,
            forward_role: config.forward_role,
            timeout: config.timeout,
            breaker: Arc::new(Breaker::new(BREAKER)),
        })
    }

    /// Another one for another thread.
    pub fn sibling(&self, directory: Box<dyn UserDirectory>) -> Self {
        Self {
            directory,
            agent: self.agent.clone(),
            url: self.url.clone(),
            forward_role: self.forward_role,
            timeout: self.timeout,
            breaker: Arc::clone(&self.breaker),
        }
    }

    /// Status and body of the reply. A kept connection that the centre closed meanwhile fails at
    /// once; asking twice is harmless, so that is tried again on a new one.
    fn ask(&self, form: &[u8]) -> Result<(u16, Vec<u8>), ureq::Error> {
        let start = Instant::now();
        match self.post(form, self.timeout) {
            Err(ureq::Error::Io(error)) if is_disconnect(&error) => {
                self.post(form, self.timeout.saturating_sub(start.elapsed()))
            }
            reply => reply,
        }
    }

    fn post(&self, form: &[u8], timeout: Duration) -> Result<(u16, Vec<u8>), ureq::Error> {
        let mut response = self
            .agent
            .post(&self.url)
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header("Accept", "application/json")
            .header("Content-Type", "application/x-www-form-urlencoded;charset=utf-8")
            .send(form)?;
        let status = response.status().as_u16();
        match response.body_mut().with_config().limit(REPLY_LEN_MAX).read_to_vec() {
            Ok(body) => Ok((status, body)),
            // It answers, and nothing that long is a verdict.
            Err(ureq::Error::BodyExceedsLimit(_)) => Ok((status, Vec::new())),
            Err(error) => Err(error),
        }
    }
}

impl Authenticator for UserCentre {
    fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict {
        let tenant = match self.directory.tenant(&request.tenant) {
            Ok(Some(tenant)) => tenant,
            Ok(None) => return AuthVerdict::UnknownTenant,
            Err(_) => return AuthVerdict::Unavailable,
        };
        // The centre knows passwords that go with names.
        let Proof::Password(password) = &request.proof else { return AuthVerdict::Denied };
        let Some(permit) = self.breaker.enter(Instant::now()) else {
            return AuthVerdict::Unavailable;
        };
        let mut form = form(request, password, self.forward_role);
        let reply = self.ask(&form);
        form.zeroize();
        let Ok((status, body)) = reply else {
            return AuthVerdict::Unavailable;
        };
        // Any answer shows it alive: one user whose name it chokes on shall not lock out the rest.
        permit.succeed();
        verdict(tenant, status, &body)
    }
}

fn form(request: &AuthRequest, password: &[u8], forward_role: ForwardRole) -> Vec<u8> {
    let role = match forward_role {
        ForwardRole::WhenPresent => request.role,
        ForwardRole::Never => None,
        ForwardRole::Always => Some(request.role.unwrap_or(0)),
    };
    // Large enough at once: a growing buffer would leave copies of the password behind.
    let len_max = 3 * (request.name.len() + password.len()) + 32;
    let mut form = Vec::with_capacity(len_max);
    form.extend_from_slice(b"username=");
    encode(&mut form, &request.name);
    form.extend_from_slice(b"&password=");
    encode(&mut form, password);
    if let Some(role) = role {
        form.extend_from_slice(b"&role=");
        form.extend_from_slice(role.to_string().as_bytes());
    }
    debug_assert!(form.len() <= len_max);
    form
}

/// `application/x-www-form-urlencoded` (WHATWG URL section 5.2).
fn encode(form: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => form.push(byte),
            b' ' => form.push(b'+'),
            _ => {
                let [high, low] = [byte >> 4, byte & 15].map(|half| HEX[usize::from(half)]);
                form.extend_from_slice(&[b'%', high, low]);
            }
        }
    }
}

/// A pass needs a success status and an id; a denial may also come under 4xx, where centres that
/// follow HTTP put it. A server error or a redirect decides nothing, whatever its body says.
fn verdict(tenant: TenantId, status: u16, body: &[u8]) -> AuthVerdict {
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else {
        return AuthVerdict::Unavailable;
    };
    match (status, answer.get("result").and_then(Value::as_str)) {
        (200..=299, Some("pass")) => {
            let user = answer.get("uid").and_then(uid);
            user.map_or(AuthVerdict::Unavailable, |id| AuthVerdict::pass(tenant, id))
        }
        (200..=299 | 400..=499, Some("denied")) => AuthVerdict::Denied,
        _ => AuthVerdict::Unavailable,
    }
}

/// A number, or a string of decimal digits, that fits u32.
fn uid(value: &Value) -> Option<UserId> {
    match value {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok().map(UserId),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().ok().map(UserId)
        }
        _ => None,
    }
}

fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// A verdict is some 30 bytes; PHP warnings in front of one are already nonsense.
const REPLY_LEN_MAX: u64 = 64 * 1024;

/// With a time-out of 5 s, ten auth threads notice a dead centre after 5 s and then lose one call
/// per pause. Short pauses: R4 clients wait at most 5 s between attempts.
const BREAKER: Policy = Policy {
    failures_max: 5,
    pause: Duration::from_millis(500),
    pause_max: Duration::from_secs(4),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_verdict_under_a_fitting_status_decides() {
        use AuthVerdict::{Denied, Unavailable};
        let pass = |id| AuthVerdict::pass(TenantId(3), UserId(id));
        for (status, body, expected) in [
            (200, r#"{"result":"pass","uid":1234}"#, pass(1234)),
            (200, r#" {"uid":"1234","extra":[{}],"result":"pass"} "#, pass(1234)),
            (201, r#"{"result":"pass","uid":4294967295}"#, pass(u32::MAX)),
            (200, r#"{"result":"pa\u0073s","uid":"4294967295"}"#, pass(u32::MAX)),
            (200, r#"{"result":"denied"}"#, Denied),
            (200, r#"{"result":"denied","uid":null}"#, Denied),
            (403, r#"{"result":"denied"}"#, Denied),
            (500, r#"{"result":"denied"}"#, Unavailable),
            (302, r#"{"result":"denied"}"#, Unavailable),
            (404, r#"{"result":"pass","uid":1}"#, Unavailable),
            (503, r#"{"result":"pass","uid":1}"#, Unavailable),
            (200, r#"{"result":"pass"}"#, Unavailable),
            (200, r#"{"result":"pass","uid":4294967296}"#, Unavailable),
            (200, r#"{"result":"pass","uid":-1}"#, Unavailable),
            (200, r#"{"result":"pass","uid":1.5}"#, Unavailable),
            (200, r#"{"result":"pass","uid":""}"#, Unavailable),
            (200, r#"{"result":"pass","uid":"+1"}"#, Unavailable),
            (200, r#"{"result":"pass","uid":"12a"}"#, Unavailable),
            (200, r#"{"result":"PASS","uid":1}"#, Unavailable),
            (200, r#"{"result":"pass","uid":1}x"#, Unavailable),
            (200, r#"{"result":"pass","#, Unavailable),
            (200, r#"["pass",1]"#, Unavailable),
            (200, "", Unavailable),
        ] {
            assert_eq!(verdict(TenantId(3), status, body.as_bytes()), expected, "{status} {body}");
        }
    }

    #[test]
    fn every_byte_that_is_not_unreserved_is_escaped() {
        let mut form = Vec::new();
        encode(&mut form, b"aZ09*-._ ~+&=%|#\x00\xff");
        assert_eq!(form, b"aZ09*-._+%7E%2B%26%3D%25%7C%23%00%FF");
    }

    #[test]
    fn a_url_without_host_or_of_another_scheme_is_refused() {
        for url in ["", "auth", "ftp://host/auth", "http://", "/auth", "redis://host/1"] {
            let config = HttpConfig {
                url: url.into(),
                forward_role: ForwardRole::default(),
                timeout: Duration::from_secs(5),
                connections: 1,
            };
            let directory = Box::new(crate::MemoryStore::default());
            assert!(UserCentre::new(&config, directory).is_err(), "{url}");
        }
    }
}
