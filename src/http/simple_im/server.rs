//! Login, reconnect, and a server that has failed: who is it, and where does he connect to?

use axum::extract::State;
use axum::http::HeaderMap;
use codec::UserId;
use storage::accounts::{Account, Login, TokenRecord, new_token};
use storage::{AuthVerdict, StoreError};
use tokio::net::TcpStream;

use super::answer::Answer;
use super::{Face, Form, Holder, Said, cookie_token, now_ms, token_bytes};
use crate::config::Address;

/// `POST phone, password[, device]`: a token and where to use it.
pub(super) async fn login(State(face): State<Face>, form: Form) -> Said {
    if form.is_empty() {
        return Err(nothing().await);
    }
    // Who names a device reads double brackets.
    let device = form.get("device").map(|device| Box::from(device.as_bytes()));
    let double = face.double(device.is_some());
    let Some((phone, password)) = form.pair("phone", "password") else {
        return Err(if double { missing(&form) } else { Answer::crash() });
    };
    let account = match judged(&face, phone, password).await {
        Ok(Login::User(account)) => account,
        Ok(Login::WrongPassword) if double => return Err(Answer::double(1).reason("Mismatch")),
        Ok(Login::WrongPassword) => return Err(Answer::single(1)),
        Ok(Login::UnknownPhone) if double => {
            return Err(Answer::double(2).reason("User doesn't exist!"));
        }
        Ok(Login::UnknownPhone) => return Err(Answer::single(2)),
        Err(_) if double => return Err(Answer::double(3).reason("Unkown Error")),
        Err(_) => return Err(Answer::single(2)),
    };
    let token = new_token();
    let record = record_of(&face, &account, device.unwrap_or_default());
    let (kept, ttl) = (token.clone(), face.0.settings.token_ttl);
    let put =
        face.call(move |accounts| accounts.put_token(kept.as_bytes(), &record, ttl, now_ms()));
    if put.await.is_err() {
        return Err(Answer::of(double, if double { 3 } else { 2 }));
    }
    Ok(at(Answer::of(double, 0), &face.0.settings.address)
        .table(" [response.user]")
        .text("token", token.as_bytes())
        .number("id", account.id.0.into()))
}

/// Whose phone number and password these are: as on the socket, the realm decides.
async fn judged(face: &Face, phone: String, password: String) -> Result<Login, StoreError> {
    match face.verdict(&phone, &password).await.transpose()? {
        None => {
            face.call(move |accounts| accounts.login(phone.as_bytes(), password.as_bytes())).await
        }
        Some(AuthVerdict::Pass { user, name }) => {
            let name = name.map_or_else(|| phone.into_bytes().into(), |name| (*name).into());
            Ok(Login::User(Account { id: user.id, name, ..Account::default() }))
        }
        Some(AuthVerdict::Denied) => Ok(Login::WrongPassword),
        Some(AuthVerdict::UnknownTenant | AuthVerdict::Unavailable) => Err(StoreError::Unavailable),
    }
}

fn missing(form: &Form) -> Answer {
    let field = if form.get("phone").is_none() { "phone" } else { "password" };
    Answer::double(3).reason(&format!("{field} Required"))
}

fn record_of(face: &Face, account: &Account, device: Box<[u8]>) -> TokenRecord {
    let Address { host, port } = &face.0.settings.address;
    TokenRecord {
        user: account.id,
        name: Some(account.name.clone()).filter(|name| !name.is_empty()),
        device,
        ip: host.as_bytes().into(),
        port: *port,
        permanent: false,
    }
}

/// `POST id, token`, or `id` with the token as a cookie: where that user's session is.
pub(super) async fn reconnect(State(face): State<Face>, headers: HeaderMap, form: Form) -> Said {
    if form.is_empty() {
        return Err(nothing().await);
    }
    let cookie = cookie_token(&headers);
    let double = face.double(cookie.is_some());
    let (id, token) = match cookie {
        Some(token) => (form.get("id").map(str::to_owned), token),
        None => match form.pair("id", "token") {
            Some((id, token)) => (Some(id), token_bytes(&token)),
            None => return Err(Answer::crash()),
        },
    };
    let id = id.and_then(|id| id.parse().ok()).map(UserId).ok_or_else(Answer::crash)?;
    match face.call(move |accounts| accounts.token(&token, now_ms())).await {
        Ok(Some(record)) if record.user == id => {
            Ok(at(Answer::of(double, 0), &face.0.settings.address))
        }
        Ok(Some(_)) | Err(_) => Err(refused(double, 2, "Unkown Error")),
        Ok(None) => Err(refused(double, 1, "Token Error")),
    }
}

/// The reason is for those who read double brackets.
fn refused(double: bool, status: u32, reason: &str) -> Answer {
    match double {
        true => Answer::double(status).reason(reason),
        false => Answer::single(status),
    }
}

/// `POST token`, in the body or as a cookie: is the node that the token names still there? If not,
/// the token moves to one that is.
pub(super) async fn failed(State(face): State<Face>, headers: HeaderMap, form: Form) -> Said {
    let cookie = cookie_token(&headers);
    let double = face.double(cookie.is_some());
    let Some(token) = cookie.or_else(|| form.get("token").map(token_bytes)) else {
        return Err(nothing().await);
    };
    let Holder { token, record } = match face.holder_of(token).await {
        Ok(Some(holder)) => holder,
        Ok(None) => return Err(refused(double, 1, "Token error")),
        Err(_) => return Err(refused(double, 2, "Unkown Error")),
    };
    let Address { host, port } = &face.0.settings.address;
    let same = *record.ip == *host.as_bytes() && record.port == *port;
    if is_there(&record).await {
        return Err(match double {
            true => Answer::double(1).reason("IM is online"),
            false => Answer::single(3).text("r", b"IM is online"),
        });
    }
    if !same {
        let moved = TokenRecord { ip: host.as_bytes().into(), port: *port, ..record };
        let ttl = face.0.settings.token_ttl;
        let put = face.call(move |accounts| accounts.put_token(&token, &moved, ttl, now_ms()));
        put.await.map_err(|_| refused(double, 2, "Unkown Error"))?;
    }
    Ok(at(Answer::of(double, 0), &face.0.settings.address))
}

/// Whether somebody listens where the token says.
async fn is_there(record: &TokenRecord) -> bool {
    let Ok(host) = std::str::from_utf8(&record.ip) else { return false };
    let tried = TcpStream::connect((host, record.port));
    tokio::time::timeout(PROBE_TIME, tried).await.is_ok_and(|connected| connected.is_ok())
}

/// Everything else under this path.
pub(super) async fn nothing() -> Answer {
    Answer::single(404).not_found()
}

fn at(answer: Answer, address: &Address) -> Answer {
    // The port is text: the original's clients convert it.
    let port = address.port.to_string();
    answer.text("server", address.host.as_bytes()).text("port", port.as_bytes())
}

/// A node on the same network answers in a few milliseconds.
const PROBE_TIME: std::time::Duration = std::time::Duration::from_secs(1);
