//! Users, contacts and groups, as the later clients ask for them: a token as a cookie says who
//! asks.

use axum::extract::State;
use codec::{GroupId, UserId};
use storage::StoreError;
use storage::accounts::{Account, Asked, GroupChange, is_short};

use super::answer::Answer;
use super::{Face, Form, Holder, Named, Said, now_ms, token_bytes};

/// `POST /user name, phone, password`
pub(super) async fn create(State(face): State<Face>, form: Form) -> Said {
    let unknown = || Answer::double(2).reason("Unknown reason");
    if !face.0.settings.registration {
        return Err(unknown());
    }
    let (name, phone, password) =
        (required(&form, "name")?, required(&form, "phone")?, required(&form, "password")?);
    let fit = is_short(name.as_bytes()) && phone.chars().count() <= PHONE_CHARS;
    if !fit || password.len() > PASSWORD_BYTES {
        return Err(unknown());
    }
    let made = face.call(move |accounts| {
        accounts.create_user(name.as_bytes(), phone.as_bytes(), password.as_bytes())
    });
    match made.await {
        Ok(Some(_)) => Ok(Answer::double(0)),
        Ok(None) => Err(Answer::double(1).reason("User Exist")),
        Err(_) => Err(unknown()),
    }
}

fn required(form: &Form, key: &str) -> Result<String, Answer> {
    let value = form.get(key).filter(|value| !value.is_empty()).map(str::to_owned);
    value.ok_or_else(|| Answer::double(3).reason(&format!("{key} Required")))
}

/// `GET /user/phone/P`
pub(super) async fn by_phone(
    State(face): State<Face>,
    _: Holder,
    Named(phone): Named<String>,
) -> Said {
    Ok(user(face.call(move |accounts| accounts.user_by_phone(phone.as_bytes())).await?))
}

/// `GET /user/id/N`
pub(super) async fn by_id(State(face): State<Face>, _: Holder, Named(id): Named<u32>) -> Said {
    Ok(user(face.call(move |accounts| accounts.user_by_id(UserId(id))).await?))
}

fn user(found: Option<Account>) -> Answer {
    let answer = Answer::double(0);
    found.iter().fold(answer, |answer, account| put_account(answer, "[[user]]", account))
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
    Holder { record, .. }: Holder,
    Named(id): Named<u32>,
    form: Form,
) -> Said {
    let message = form.get("message").or_else(|| form.get("ask")).unwrap_or_default();
    let message: String = message.chars().take(ASK_CHARS).collect();
    let asked = face.call(move |accounts| {
        accounts.ask_contact(record.user, UserId(id), message.as_bytes(), now_ms())
    });
    match asked.await? {
        Asked::Done => Ok(Answer::double(0)),
        Asked::AlreadyContacts => Err(Answer::double(1).reason("Contact exists")),
        Asked::Pending => Err(Answer::double(1).reason("Waiting for accept")),
        Asked::UnknownUser => Err(Answer::double(1).reason("User doesn't exist!")),
    }
}

/// `PUT /contact/ID`: accepts what was asked.
pub(super) async fn accept(
    State(face): State<Face>,
    Holder { record, .. }: Holder,
    Named(id): Named<u32>,
) -> Said {
    match face.call(move |accounts| accounts.accept_contact(record.user, UserId(id))).await? {
        Some((version, _)) => Ok(Answer::double(0).number("contact_version", version)),
        None => Err(Answer::double(1).reason("Unauthorized operate")),
    }
}

/// `DELETE /contact/ID`
pub(super) async fn part(
    State(face): State<Face>,
    Holder { record, .. }: Holder,
    Named(id): Named<u32>,
) -> Said {
    match face.call(move |accounts| accounts.delete_contact(record.user, UserId(id))).await? {
        true => Ok(Answer::double(0)),
        false => Err(Answer::double(1).reason("Unauthorized operate")),
    }
}

/// `GET /contact/version/V`: contacts that came after that version.
pub(super) async fn contacts(
    State(face): State<Face>,
    Holder { record, .. }: Holder,
    Named(version): Named<u64>,
) -> Said {
    let found = face.call(move |accounts| accounts.contacts_after(record.user, version)).await?;
    Ok(found.iter().fold(Answer::double(0), |answer, contact| {
        put_account(answer, "[[contact]]", &contact.account)
            .number("contact_version", contact.version)
    }))
}

/// `GET /pre_contact/TS`: who asked since then and waits.
pub(super) async fn asked(
    State(face): State<Face>,
    Holder { record, .. }: Holder,
    Named(since): Named<u64>,
) -> Said {
    let found = face.call(move |accounts| accounts.asked_since(record.user, since)).await?;
    Ok(found.iter().fold(Answer::double(0), |answer, asked| {
        answer
            .raw(b"\r\n")
            .table("[[pre_contact]]")
            .number("user_id", asked.user.0.into())
            .text("message", &asked.message)
            .number("timestamp", asked.time_s)
    }))
}

/// `POST /group name, members[]...`
pub(super) async fn create_group(
    State(face): State<Face>,
    Holder { record, .. }: Holder,
    form: Form,
) -> Said {
    let name = required(&form, "name")?;
    if !is_short(name.as_bytes()) {
        return Err(Answer::double(3).reason("Unknow Error"));
    }
    let members = form.all("members[]").chain(form.all("members"));
    let members: Vec<UserId> = members.filter_map(|id| id.parse().ok()).map(UserId).collect();
    if members.is_empty() {
        return Err(Answer::double(3).reason("members Required!"));
    }
    let made =
        face.call(move |accounts| accounts.create_group(name.as_bytes(), record.user, &members));
    let group = made.await.map_err(|_| Answer::double(3).reason("Unknow Error"))?;
    let answer = Answer::double(0).number("g_id", group.id.0.into());
    Ok(answer.text("g_key", group.key.as_bytes()))
}

/// `DELETE /group/G`, by its creator.
pub(super) async fn delete_group(
    State(face): State<Face>,
    Holder { record, .. }: Holder,
    Named(group): Named<u32>,
) -> Said {
    let group = GroupId(group);
    changed(face.call(move |accounts| accounts.delete_group(group, record.user)).await)
}

/// `POST /group/G/member g_key`
pub(super) async fn join(
    State(face): State<Face>,
    Holder { record, .. }: Holder,
    Named(group): Named<u32>,
    form: Form,
) -> Said {
    let (group, key) = (GroupId(group), token_bytes(&required(&form, "g_key")?));
    changed(face.call(move |accounts| accounts.join_group(group, record.user, &key)).await)
}

/// `POST /group/G/member/U`, by its creator.
pub(super) async fn add_member(
    State(face): State<Face>,
    Holder { record, .. }: Holder,
    Named((group, user)): Named<(u32, u32)>,
) -> Said {
    let (group, user) = (GroupId(group), UserId(user));
    changed(face.call(move |accounts| accounts.add_member(group, record.user, user)).await)
}

/// `DELETE /group/G/member`: leaves it.
pub(super) async fn leave(
    State(face): State<Face>,
    Holder { record, .. }: Holder,
    Named(group): Named<u32>,
) -> Said {
    let group = GroupId(group);
    changed(face.call(move |accounts| accounts.leave_group(group, record.user)).await)
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

/// The columns of the original's tables, beside those of names.
const PHONE_CHARS: usize = 15;
const ASK_CHARS: usize = 100;
const PASSWORD_BYTES: usize = 1024;
