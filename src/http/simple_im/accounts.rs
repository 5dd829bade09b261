//! Users, contacts and groups, as the later clients ask for them: a token as a cookie says who
//! asks.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use codec::{GroupId, UserId};
use storage::StoreError;
use storage::accounts::{Account, Asked, GroupChange};

use super::answer::Answer;
use super::{Face, Form, Holder, now_ms, said};

type Said = Result<Answer, Answer>;

/// `POST /user name, phone, password`
pub(super) async fn create(State(face): State<Face>, body: Bytes) -> Response {
    let form = Form::of(&body);
    said(do_create(&face, &form).await)
}

async fn do_create(face: &Face, form: &Form) -> Said {
    let field = |key: &str| {
        let value = form.get(key).filter(|value| !value.is_empty()).map(str::to_owned);
        value.ok_or_else(|| Answer::double(3).reason(&format!("{key} Required")))
    };
    let (name, phone, password) = (field("name")?, field("phone")?, field("password")?);
    let too_long = name.len() > NAME_BYTES || phone.len() > PHONE_BYTES;
    if too_long || password.len() > PASSWORD_BYTES {
        return Err(Answer::double(3).reason("Too long"));
    }
    let verified = face.verified();
    let hash = face.0.passwords.run(move || verified.hash(password.as_bytes())).await?;
    let made =
        face.call(move |accounts| accounts.create_user(name.as_bytes(), phone.as_bytes(), &hash));
    match made.await {
        Ok(Some(_)) => Ok(Answer::double(0)),
        Ok(None) => Err(Answer::double(1).reason("User Exist")),
        Err(_) => Err(Answer::double(2).reason("Unknown reason")),
    }
}

/// `GET /user/phone/P`
pub(super) async fn by_phone(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(phone): Path<String>,
) -> Response {
    said(
        async {
            face.holder(&headers).await?;
            user(face.call(move |accounts| accounts.user_by_phone(phone.as_bytes())).await)
        }
        .await,
    )
}

/// `GET /user/id/N`
pub(super) async fn by_id(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(id): Path<u32>,
) -> Response {
    said(
        async {
            face.holder(&headers).await?;
            user(face.call(move |accounts| accounts.user_by_id(UserId(id))).await)
        }
        .await,
    )
}

fn user(found: Result<Option<Account>, StoreError>) -> Said {
    let found = found.map_err(|_| Answer::unavailable())?;
    let answer = Answer::double(0);
    Ok(found.iter().fold(answer, |answer, account| put_account(answer, "[[user]]", account)))
}

fn put_account(answer: Answer, header: &str, account: &Account) -> Answer {
    answer
        .raw(b"\r\n")
        .table(header)
        .number("id", account.id.0.into())
        .text("name", &account.name)
        .text("phone", &account.phone)
        .text("avatar", &account.avatar)
}

/// `POST /contact/ID [message]`: asks somebody to become a contact.
pub(super) async fn ask(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(id): Path<u32>,
    body: Bytes,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let form = Form::of(&body);
            let message = form.get("message").or_else(|| form.get("ask")).unwrap_or_default();
            let message: String = message.chars().take(ASK_CHARS).collect();
            let asked = face.call(move |accounts| {
                accounts.ask_contact(record.user, UserId(id), message.as_bytes(), now_ms())
            });
            match asked.await.map_err(|_| Answer::unavailable())? {
                Asked::Done => Ok(Answer::double(0)),
                Asked::AlreadyContacts => Err(Answer::double(1).reason("Contact exists")),
                Asked::Pending => Err(Answer::double(1).reason("Waiting for accept")),
                Asked::UnknownUser => Err(Answer::double(1).reason("User doesn't exist!")),
            }
        }
        .await,
    )
}

/// `PUT /contact/ID`: accepts what was asked.
pub(super) async fn accept(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(id): Path<u32>,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let accepted =
                face.call(move |accounts| accounts.accept_contact(record.user, UserId(id))).await;
            match accepted.map_err(|_| Answer::unavailable())? {
                Some((version, _)) => Ok(Answer::double(0).number("contact_version", version)),
                None => Err(Answer::double(1).reason("Unauthorized operate")),
            }
        }
        .await,
    )
}

/// `DELETE /contact/ID`
pub(super) async fn part(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(id): Path<u32>,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let parted =
                face.call(move |accounts| accounts.delete_contact(record.user, UserId(id))).await;
            match parted.map_err(|_| Answer::unavailable())? {
                true => Ok(Answer::double(0)),
                false => Err(Answer::double(1).reason("Unauthorized operate")),
            }
        }
        .await,
    )
}

/// `GET /contact/version/V`: contacts that came after that version.
pub(super) async fn contacts(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(version): Path<u64>,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let found =
                face.call(move |accounts| accounts.contacts_after(record.user, version)).await;
            let found = found.map_err(|_| Answer::unavailable())?;
            Ok(found.iter().fold(Answer::double(0), |answer, contact| {
                put_account(answer, "[[contact]]", &contact.account)
                    .number("contact_version", contact.version)
            }))
        }
        .await,
    )
}

/// `GET /pre_contact/TS`: who asked since then and waits.
pub(super) async fn asked(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(since): Path<u64>,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let found = face.call(move |accounts| accounts.asked_since(record.user, since)).await;
            let found = found.map_err(|_| Answer::unavailable())?;
            Ok(found.iter().fold(Answer::double(0), |answer, asked| {
                answer
                    .raw(b"\r\n")
                    .table("[[pre_contact]]")
                    .number("user_id", asked.user.0.into())
                    .text("message", &asked.message)
                    .number("timestamp", asked.time_s)
            }))
        }
        .await,
    )
}

/// `POST /group name, members[]...`
pub(super) async fn create_group(
    State(face): State<Face>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let form = Form::of(&body);
            let name = form.get("name").filter(|name| !name.is_empty()).map(str::to_owned);
            let name = name.ok_or_else(|| Answer::double(3).reason("name Required"))?;
            let members = form.all("members[]").chain(form.all("members"));
            let members: Vec<UserId> =
                members.filter_map(|id| id.parse().ok()).map(UserId).collect();
            if members.is_empty() {
                return Err(Answer::double(3).reason("members Required!"));
            }
            let made = face.call(move |accounts| {
                accounts.create_group(name.as_bytes(), record.user, &members)
            });
            match made.await {
                Ok(group) => Ok(Answer::double(0)
                    .number("g_id", group.id.0.into())
                    .text("g_key", group.key.as_bytes())),
                Err(_) => Err(Answer::double(3).reason("Unknow Error")),
            }
        }
        .await,
    )
}

/// `DELETE /group/G`, by its creator.
pub(super) async fn delete_group(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(group): Path<u32>,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let group = GroupId(group);
            changed(face.call(move |accounts| accounts.delete_group(group, record.user)).await)
        }
        .await,
    )
}

/// `POST /group/G/member g_key`
pub(super) async fn join(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(group): Path<u32>,
    body: Bytes,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let form = Form::of(&body);
            let key = token_bytes_of(&form)?;
            let group = GroupId(group);
            changed(face.call(move |accounts| accounts.join_group(group, record.user, &key)).await)
        }
        .await,
    )
}

fn token_bytes_of(form: &Form) -> Result<Box<[u8]>, Answer> {
    let key = form.get("g_key").map(super::token_bytes);
    key.ok_or_else(|| Answer::double(3).reason("g_key Required"))
}

/// `POST /group/G/member/U`, by its creator.
pub(super) async fn add_member(
    State(face): State<Face>,
    headers: HeaderMap,
    Path((group, user)): Path<(u32, u32)>,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let (group, user) = (GroupId(group), UserId(user));
            changed(face.call(move |accounts| accounts.add_member(group, record.user, user)).await)
        }
        .await,
    )
}

/// `DELETE /group/G/member`: leaves it.
pub(super) async fn leave(
    State(face): State<Face>,
    headers: HeaderMap,
    Path(group): Path<u32>,
) -> Response {
    said(
        async {
            let Holder { record, .. } = face.holder(&headers).await?;
            let group = GroupId(group);
            changed(face.call(move |accounts| accounts.leave_group(group, record.user)).await)
        }
        .await,
    )
}

fn changed(change: Result<GroupChange, StoreError>) -> Said {
    let reason = match change.map_err(|_| Answer::double(3).reason("Unknow Error"))? {
        GroupChange::Done => return Ok(Answer::double(0)),
        GroupChange::UnknownGroup => "Group Not Exist!",
        GroupChange::NotAllowed | GroupChange::NotMember => "Unauthorized",
        GroupChange::AlreadyMember | GroupChange::UnknownUser => "Unknow Error",
    };
    Err(Answer::double(3).reason(reason))
}

/// The columns of the original's tables.
const NAME_BYTES: usize = 20;
const PHONE_BYTES: usize = 15;
const ASK_CHARS: usize = 100;
const PASSWORD_BYTES: usize = 1024;
