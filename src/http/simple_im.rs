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
mod news;
mod offline;
mod passwords;
mod server;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{
    DefaultBodyLimit, FromRequest, FromRequestParts, OptionalFromRequestParts, Path, Request,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::{any, delete, get, post};
use codec::TenantId;
use storage::accounts::{Accounts, TokenRecord};
use storage::auth::{Authenticator, Verified};
use storage::{AuthRequest, AuthVerdict, Proof, StoreError, TenantRef};
use tokio::sync::{Mutex as TurnMutex, Semaphore};

use answer::Answer;
use passwords::Passwords;

use crate::config::keys::{AuthMode, Brackets, Registration};
use crate::config::{Address, Config};
use crate::gateway::Gateway;

/// What the routes work with.
#[derive(Clone)]
pub(crate) struct Face(Arc<Shared>);

/// What the configuration says about them.
pub(crate) struct Settings {
    /// Where clients log in over TCP.
    address: Address,
    token_ttl: Duration,
    brackets: Brackets,
    /// Whoever asks becomes a user.
    registration: bool,
    /// `GET /offline` is compressed.
    deflate: bool,
}

impl Settings {
    /// `None`: nobody can log in over TCP.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let (keys, login) = (&config.keys.simple_im, config.login_realm());
        Some(Self {
            address: config.advertised()?,
            token_ttl: Duration::from_millis(keys.token_ttl_ms),
            brackets: keys.http_brackets,
            registration: match keys.registration {
                // Ids are another authority's to give.
                _ if login.is_some_and(|realm| realm.mode != AuthMode::Local) => false,
                Registration::Never => false,
                Registration::Loopback => config.http.is_some_and(|http| http.ip().is_loopback()),
                Registration::Always => true,
            },
            deflate: keys.offline_deflate,
        })
    }
}

struct Shared {
    /// One call at a time, in the order they came: one blocking thread.
    accounts: Arc<TurnMutex<Box<dyn Accounts>>>,
    /// Decides about passwords, where not the accounts do.
    judge: Option<Arc<Mutex<Box<dyn Authenticator>>>>,
    /// Whose accounts these are.
    tenant: TenantId,
    /// Tells users who are there of what is changed here.
    gateway: Arc<dyn Gateway>,
    /// Bounds the calls that wait.
    turns: Semaphore,
    passwords: Passwords,
    verified: Arc<Verified>,
    settings: Settings,
    /// Per token, the stored deliveries that it has read: no others are cleared.
    read: Mutex<Read>,
}

/// By token.
type Read = HashMap<Box<[u8]>, Box<[u64]>>;

impl Face {
    pub(crate) fn new(
        accounts: Box<dyn Accounts>,
        judge: Option<Box<dyn Authenticator>>,
        verified: Verified,
        gateway: Arc<dyn Gateway>,
        settings: Settings,
    ) -> Self {
        Self(Arc::new(Shared {
            tenant: accounts.tenant(),
            accounts: Arc::new(TurnMutex::new(accounts)),
            judge: judge.map(|judge| Arc::new(Mutex::new(judge))),
            gateway,
            turns: Semaphore::new(CALLS_MAX),
            passwords: Passwords::new(),
            verified: Arc::new(verified),
            settings,
            read: Mutex::default(),
        }))
    }

    /// A call of the accounts.
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

    fn read(&self) -> MutexGuard<'_, Read> {
        self.0.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an answer has double brackets; `auto`: by what is asked.
    fn double(&self, auto: bool) -> bool {
        match self.0.settings.brackets {
            Brackets::Auto => auto,
            Brackets::Single => false,
            Brackets::Double => true,
        }
    }

    /// What the judge says about a password, in its turn; `None`: it is the accounts' to say.
    async fn verdict(&self, name: &str, password: &str) -> Result<Option<AuthVerdict>, Answer> {
        let Some(judge) = self.0.judge.clone() else { return Ok(None) };
        let request = AuthRequest {
            token: 0,
            realm: 0,
            tenant: TenantRef::Id(self.0.tenant),
            name: name.as_bytes().into(),
            proof: Proof::Password(password.as_bytes().into()),
            device: Box::default(),
            role: None,
            taken: false,
        };
        let asked = self.0.passwords.run(move || {
            judge.lock().unwrap_or_else(PoisonError::into_inner).authenticate(&request)
        });
        asked.await.map(Some)
    }

    /// What a token stands for; `None`: nothing. An error is no verdict about it.
    async fn holder_of(&self, token: Box<[u8]>) -> Result<Option<Holder>, StoreError> {
        let wanted = token.clone();
        let found = self.call(move |accounts| accounts.token(&wanted, now_ms())).await?;
        Ok(found.map(|record| Holder { token, record }))
    }
}

/// What a handler says; an error ends it early.
type Said = Result<Answer, Answer>;

/// Who asks, by the token of his cookie.
struct Holder {
    token: Box<[u8]>,
    record: TokenRecord,
}

impl OptionalFromRequestParts<Face> for Holder {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, face: &Face) -> Result<Option<Self>, Answer> {
        let Some(token) = cookie_token(&parts.headers) else { return Ok(None) };
        match face.holder_of(token).await? {
            None => Err(Answer::double(1).reason("Token error")),
            holder => Ok(holder),
        }
    }
}

impl FromRequestParts<Face> for Holder {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, face: &Face) -> Result<Self, Answer> {
        let holder = <Option<Self> as FromRequestParts<Face>>::from_request_parts(parts, face);
        holder.await?.ok_or_else(Answer::crash)
    }
}

/// What the path names. What it cannot be ended the original's handler.
struct Named<T>(T);

impl<T> FromRequestParts<Face> for Named<T>
where
    Path<T>: FromRequestParts<Face>,
{
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, face: &Face) -> Result<Self, Answer> {
        let path = <Path<T> as FromRequestParts<Face>>::from_request_parts(parts, face).await;
        path.map(|Path(named)| Self(named)).map_err(|_| Answer::crash())
    }
}

/// The routes, without those of the rest of the gateway.
pub(crate) fn routes(face: Face) -> Router {
    Router::new()
        .route("/health", any(health))
        .route("/server/login", post(server::login).fallback(server::nothing))
        .route("/server/reconnect", post(server::reconnect).fallback(server::nothing))
        .route("/server/failed", post(server::failed).fallback(server::nothing))
        .route("/server/{*rest}", any(server::nothing))
        .route("/offline", get(offline::read).delete(offline::clear).post(offline::read_by_post))
        .route("/offline/get", post(offline::read_by_post))
        .route("/offline/clean", post(offline::clear_by_post))
        .route("/user", post(accounts::create))
        .route("/user/phone/{phone}", get(accounts::by_phone))
        .route("/user/id/{id}", get(accounts::by_id))
        .route("/contact/{id}", post(accounts::ask).put(accounts::accept).delete(accounts::part))
        .route("/contact/version/{version}", get(accounts::contacts))
        .route("/pre_contact/{since}", get(accounts::asked))
        .route("/group", post(accounts::create_group))
        .route("/group/{group}", delete(accounts::delete_group))
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

impl FromRequest<Face> for Form {
    type Rejection = Answer;

    async fn from_request(request: Request, face: &Face) -> Result<Self, Answer> {
        let body = Bytes::from_request(request, face).await;
        let body = body.map_err(|rejection| Answer::empty(rejection.status()))?;
        Ok(Self(form_urlencoded::parse(&body).into_owned().take(FIELDS_MAX).collect()))
    }
}

impl Form {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
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

/// Calls waiting for the accounts; each takes some milliseconds.
const CALLS_MAX: usize = 256;
/// A body of any of the routes is a few short fields.
const BODY_BYTES: usize = 64 * 1024;
const FIELDS_MAX: usize = 1024;
