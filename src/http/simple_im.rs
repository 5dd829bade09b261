//! The HTTP face of the TOML protocol: login and reconnect, offline messages, users, contacts,
//! groups.
//!
//! ```text
//!   POST /server/login  /server/reconnect  /server/failed         any /health
//!   GET, DELETE /offline      POST /offline  /offline/get  /offline/clean
//!   POST /user                GET /user/phone/P  /user/id/N
//!   POST, PUT, DELETE /contact/ID   GET /contact/version/V  /pre_contact/TS
//!   POST /group   DELETE /group/G   POST /group/G/member  /group/G/member/U   DELETE ...
//! ```
//!
//! Owns: these routes and the text of their answers. Never: accounts (the storage's), sessions. All
//! blocking calls go to the runtime's blocking threads, a bounded number at a time: calls of the
//! accounts one by one, passwords beside them (`passwords`), so that nobody waits for somebody
//! else's password. What does not get a turn is told 503.

mod accounts;
mod answer;
mod offline;
mod passwords;
mod server;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use storage::StoreError;
use storage::accounts::{Accounts, TokenRecord};
use storage::auth::Verified;
use tokio::sync::{Mutex as TurnMutex, Semaphore};

use answer::Answer;
use passwords::Passwords;

use crate::config::Address;

/// What the routes work with.
#[derive(Clone)]
pub(crate) struct Face(Arc<Shared>);

struct Shared {
    /// One call at a time, in the order they came: one blocking thread.
    accounts: Arc<TurnMutex<Box<dyn Accounts>>>,
    /// Bounds the calls that wait.
    turns: Semaphore,
    passwords: Passwords,
    verified: Arc<Verified>,
    /// Where clients log in over TCP.
    address: Address,
    token_ttl: std::time::Duration,
    /// Per token, the newest stored delivery that was read: what came later is not cleared.
    read_up_to: Mutex<HashMap<Box<[u8]>, u64>>,
}

impl Face {
    pub(crate) fn new(
        accounts: Box<dyn Accounts>,
        verified: Verified,
        address: Address,
        token_ttl: std::time::Duration,
    ) -> Self {
        Self(Arc::new(Shared {
            accounts: Arc::new(TurnMutex::new(accounts)),
            turns: Semaphore::new(CALLS_MAX),
            passwords: Passwords::new(),
            verified: Arc::new(verified),
            address,
            token_ttl,
            read_up_to: Mutex::default(),
        }))
    }

    /// Runs a call on a blocking thread, in its turn.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut dyn Accounts) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.0.turns.try_acquire().map_err(|_| StoreError::Unavailable)?;
        let mut accounts = Arc::clone(&self.0.accounts).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || call(&mut **accounts));
        done.await.unwrap_or(Err(StoreError::Unavailable))
    }

    fn verified(&self) -> Arc<Verified> {
        Arc::clone(&self.0.verified)
    }

    /// The token of a request's cookie, and what it stands for.
    async fn holder(&self, headers: &HeaderMap) -> Result<Holder, Answer> {
        let token = cookie_token(headers).ok_or_else(Answer::crash)?;
        self.holder_of(token).await
    }

    async fn holder_of(&self, token: Box<[u8]>) -> Result<Holder, Answer> {
        let wanted = token.clone();
        let found = self.call(move |accounts| accounts.token(&wanted, now_ms())).await;
        match found {
            Ok(Some(record)) => Ok(Holder { token, record }),
            Ok(None) => Err(Answer::double(1).reason("Token error")),
            Err(_) => Err(Answer::unavailable()),
        }
    }
}

/// Who asks, by his token.
struct Holder {
    token: Box<[u8]>,
    record: TokenRecord,
}

/// The routes, without those of the rest of the gateway.
pub(crate) fn routes(face: Face) -> Router {
    Router::new()
        .route("/health", any(health))
        .route("/server/login", any(server::login))
        .route("/server/reconnect", any(server::reconnect))
        .route("/server/failed", any(server::failed))
        .route("/server/{*rest}", any(server::nothing))
        .route("/offline", get(offline::read).delete(offline::clear).post(offline::read_by_body))
        .route("/offline/get", post(offline::read))
        .route("/offline/clean", post(offline::clear))
        .route("/user", post(accounts::create))
        .route("/user/phone/{phone}", get(accounts::by_phone))
        .route("/user/id/{id}", get(accounts::by_id))
        .route("/contact/{id}", post(accounts::ask).put(accounts::accept).delete(accounts::part))
        .route("/contact/version/{version}", get(accounts::contacts))
        .route("/pre_contact/{since}", get(accounts::asked))
        .route("/group", post(accounts::create_group))
        .route("/group/{group}", axum::routing::delete(accounts::delete_group))
        .route("/group/{group}/member", post(accounts::join).delete(accounts::leave))
        .route("/group/{group}/member/{user}", post(accounts::add_member))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(face)
}

async fn health() -> Response {
    Response::new(Body::from("I'm OK! :)\r\n"))
}

/// The fields of a urlencoded body, whatever its type claims to be.
struct Form(Vec<(String, String)>);

impl Form {
    fn of(body: &Bytes) -> Self {
        Self(form_urlencoded::parse(body).into_owned().take(FIELDS_MAX).collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| &**value)
    }

    /// Two fields. The document's own command line encodes the `&` between them, so that the
    /// second one comes inside the first: it is taken out again.
    fn pair(&self, first: &str, second: &str) -> Option<(String, String)> {
        let value = self.get(first)?;
        if let Some(other) = self.get(second) {
            return Some((value.to_owned(), other.to_owned()));
        }
        let (value, other) = value.split_once(&format!("&{second}="))?;
        Some((value.to_owned(), other.to_owned()))
    }
}

/// Tokens have no blanks: one that came so was a `+` before it was decoded.
fn token_bytes(text: &str) -> Box<[u8]> {
    text.replace(' ', "+").into_bytes().into()
}

/// The raw bytes of `token=` in the Cookie header.
fn cookie_token(headers: &HeaderMap) -> Option<Box<[u8]>> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut pairs = cookies.flat_map(|cookie| cookie.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| Some(pair.trim_ascii().strip_prefix(b"token=")?.into()))
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}

/// Ends a handler with the answer, whichever way it came about.
fn said(answer: Result<Answer, Answer>) -> Response {
    answer.unwrap_or_else(|answer| answer).into_response()
}

/// Calls waiting for the accounts; each takes some milliseconds.
const CALLS_MAX: usize = 256;
/// A body of any of the routes is a few short fields.
const BODY_BYTES: usize = 64 * 1024;
const FIELDS_MAX: usize = 1024;
