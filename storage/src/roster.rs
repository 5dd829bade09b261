//! What users may do with their contacts and groups (specs/im-demo-protobuf.md section 2.3).
//!
//! Owns: these rules and their bounds, once for all backends. Never: where anything is kept; a
//! backend brings the primitives of `Roster` and runs `answer` in a transaction.

use codec::{Answer, Contact, Failure, Group, GroupId, GroupKey, Query, TenantId, UserId, UserKey};

use crate::names::{Names, decimal, find_group, find_user};

/// Contacts of one user.
pub const CONTACTS_MAX: u32 = 1000;
/// Groups that one user makes, joins, or is put into by others; an operator is not bound by it.
pub const GROUPS_MAX: u32 = 1000;
/// Members of a group, where nothing else is configured.
pub const MEMBERS_MAX: u32 = 1 << 18;
/// Members that are listed: with names of 64 bytes, some 700 KB.
pub const LISTED_MAX: u32 = 10_000;
/// Bytes of a group's name and of its title.
pub const GROUP_NAME_LEN_MAX: usize = 64;
pub const GROUP_TITLE_LEN_MAX: usize = 255;

/// The first id of groups that ask for none. Far from the numbers that people choose and from the
/// ids that [`crate::auth::FIRST_ID`] begins; up to [`LAST_GROUP_ID`], which is still positive for
/// clients that read ids as signed.
pub const FIRST_GROUP_ID: u32 = 2_000_000_000;
pub const LAST_GROUP_ID: u32 = i32::MAX as u32;

/// What the rules take of a backend.
pub(crate) trait Roster: Names {
    /// Members that a group may have.
    fn members_max(&self) -> u32;

    /// Contacts by rising id, with their names.
    fn contacts(&mut self, user: UserKey) -> Result<Vec<(UserId, Name)>, Self::Error>;
    fn is_contact(&mut self, user: UserKey, contact: UserId) -> Result<bool, Self::Error>;
    fn contact_count(&mut self, user: UserKey) -> Result<u32, Self::Error>;
    fn add_contact(&mut self, user: UserKey, contact: UserId) -> Result<(), Self::Error>;
    fn remove_contact(&mut self, user: UserKey, contact: UserId) -> Result<(), Self::Error>;

    /// Groups that he is a member of, by rising id, at most `limit`.
    fn groups_of(&mut self, user: UserKey, limit: u32) -> Result<Vec<GroupHead>, Self::Error>;
    fn group_count(&mut self, user: UserKey) -> Result<u32, Self::Error>;
    fn group(&mut self, group: GroupKey) -> Result<Option<GroupHead>, Self::Error>;
    /// An id between [`FIRST_GROUP_ID`] and [`LAST_GROUP_ID`] that no group has, and none had
    /// lately.
    fn free_group_id(&mut self, tenant: TenantId) -> Result<Option<GroupId>, Self::Error>;
    /// Neither the id nor the name is taken.
    fn add_group(&mut self, group: GroupKey, about: &NewGroup<'_>) -> Result<(), Self::Error>;
    fn delete_group(&mut self, group: GroupKey) -> Result<(), Self::Error>;
    fn set_owner(&mut self, group: GroupKey, owner: UserId) -> Result<(), Self::Error>;

    /// Members by the time they came, at most `limit`, with their names.
    fn members(&mut self, group: GroupKey, limit: u32) -> Result<Vec<(UserId, Name)>, Self::Error>;
    fn is_member(&mut self, group: GroupKey, user: UserId) -> Result<bool, Self::Error>;
    fn member_count(&mut self, group: GroupKey) -> Result<u32, Self::Error>;
    /// He is none yet.
    fn add_member(&mut self, group: GroupKey, user: UserId) -> Result<(), Self::Error>;
    fn remove_member(&mut self, group: GroupKey, user: UserId) -> Result<(), Self::Error>;
}

/// A user's name, if he has one.
pub(crate) type Name = Option<Box<[u8]>>;

/// A group without its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupHead {
    pub(crate) id: GroupId,
    pub(crate) name: Name,
    pub(crate) title: Box<[u8]>,
    pub(crate) owner: Option<(UserId, Name)>,
}

/// A group to make.
#[derive(Clone, Copy, Default)]
pub(crate) struct NewGroup<'a> {
    pub(crate) name: Option<&'a [u8]>,
    pub(crate) title: &'a [u8],
    pub(crate) owner: Option<UserId>,
    /// Who knows it may join.
    pub(crate) key: Option<&'a str>,
}

/// The answer, and the group whose members the query has changed.
pub(crate) type Answered = (Answer, Option<GroupId>);

/// Answers a query. An inner refusal is an [`Answer::Failed`] and has changed nothing; an error
/// ends the transaction.
///
/// - Names are those of `names::find`; in answers, a user or group without a name has its
///   id in decimal.
/// - Contacts are directed. Joining is open. Members of a group are for members to see.
/// - A new group's maker owns it. The ownership of one who leaves passes to the member who is there
///   the longest; the last one out deletes the group.
pub(crate) fn answer<R: Roster>(
    roster: &mut R,
    user: UserKey,
    query: &Query,
) -> Result<Answered, R::Error> {
    let tenant = user.tenant;
    match query {
        Query::Contacts => contacts(roster, user).map(unchanged),
        Query::AddContact(name) => add_contact(roster, user, name).map(unchanged),
        Query::RemoveContact(name) => {
            if let Some(contact) = find_user(roster, tenant, name)? {
                roster.remove_contact(user, contact)?;
            }
            Ok(unchanged(Answer::Done))
        }
        Query::Groups => groups(roster, user).map(unchanged),
        Query::CreateGroup { id, title, users } => create_group(roster, user, id, title, users),
        Query::JoinGroup(name) => match find_group(roster, tenant, name)? {
            Some(group) => join(roster, user, group),
            None => Ok(failed(Failure::Unknown)),
        },
        Query::LeaveGroup(name) => match find_group(roster, tenant, name)? {
            Some(id) if leave(roster, GroupKey { tenant, id }, user.id)? => {
                Ok((Answer::Done, Some(id)))
            }
            // The last one out may well say so twice.
            Some(_) | None => Ok(unchanged(Answer::Done)),
        },
        Query::Members(name) => match find_group(roster, tenant, name)? {
            Some(group) => members(roster, user, group).map(unchanged),
            None => Ok(failed(Failure::Unknown)),
        },
        Query::Refused(failure) => Ok(failed(*failure)),
    }
}

/// Whether a query may change something.
pub(crate) fn changes(query: &Query) -> bool {
    match query {
        Query::AddContact(_)
        | Query::RemoveContact(_)
        | Query::CreateGroup { .. }
        | Query::JoinGroup(_)
        | Query::LeaveGroup(_) => true,
        Query::Contacts | Query::Groups | Query::Members(_) | Query::Refused(_) => false,
    }
}

/// The names of users in a query that makes something of them.
pub(crate) fn users_named(query: &Query) -> &[Box<[u8]>] {
    match query {
        Query::AddContact(name) => std::slice::from_ref(name),
        Query::CreateGroup { users, .. } => users,
        _ => &[],
    }
}

/// Takes a user out of a group, which passes on or ends as [`answer`] says. `false`: he is not in
/// it.
pub(crate) fn leave<R: Roster>(
    roster: &mut R,
    group: GroupKey,
    user: UserId,
) -> Result<bool, R::Error> {
    if !roster.is_member(group, user)? {
        return Ok(false);
    }
    roster.remove_member(group, user)?;
    let Some((oldest, _)) = roster.members(group, 1)?.into_iter().next() else {
        roster.delete_group(group)?;
        return Ok(true);
    };
    let owner = roster.group(group)?.and_then(|head| head.owner);
    if owner.is_some_and(|(owner, _)| owner == user) {
        roster.set_owner(group, oldest)?;
    }
    Ok(true)
}

/// Whether one more may come into the group, and the user into one more.
pub(crate) fn has_room<R: Roster>(
    roster: &mut R,
    group: GroupKey,
    user: UserId,
) -> Result<bool, R::Error> {
    let user = UserKey { tenant: group.tenant, id: user };
    Ok(roster.member_count(group)? < roster.members_max() && roster.group_count(user)? < GROUPS_MAX)
}

fn contacts<R: Roster>(roster: &mut R, user: UserKey) -> Result<Answer, R::Error> {
    let contact = |(id, name)| Contact { id, name: shown(id, name), online: false };
    Ok(Answer::Contacts(roster.contacts(user)?.into_iter().map(contact).collect()))
}

fn add_contact<R: Roster>(roster: &mut R, user: UserKey, name: &[u8]) -> Result<Answer, R::Error> {
    let Some(contact) = find_user(roster, user.tenant, name)? else {
        return Ok(Answer::Failed(Failure::Unknown));
    };
    if roster.is_contact(user, contact)? {
        return Ok(Answer::Done);
    }
    if roster.contact_count(user)? >= CONTACTS_MAX {
        return Ok(Answer::Failed(Failure::TooMany));
    }
    roster.add_contact(user, contact)?;
    Ok(Answer::ContactAdded(contact))
}

fn groups<R: Roster>(roster: &mut R, user: UserKey) -> Result<Answer, R::Error> {
    let heads = roster.groups_of(user, LISTED_MAX)?;
    Ok(Answer::Groups(heads.into_iter().map(|head| shown_group(head, Vec::new())).collect()))
}

fn members<R: Roster>(roster: &mut R, user: UserKey, id: GroupId) -> Result<Answer, R::Error> {
    let group = GroupKey { tenant: user.tenant, id };
    if !roster.is_member(group, user.id)? {
        return Ok(Answer::Failed(Failure::NotAllowed));
    }
    let members = roster.members(group, LISTED_MAX + 1)?;
    if members.len() > LISTED_MAX as usize {
        return Ok(Answer::Failed(Failure::TooLarge));
    }
    let users = members.into_iter().map(|(id, name)| shown(id, name)).collect();
    let head = roster.group(group)?;
    Ok(Answer::Groups(head.map(|head| shown_group(head, users)).into_iter().collect()))
}

fn join<R: Roster>(roster: &mut R, user: UserKey, id: GroupId) -> Result<Answered, R::Error> {
    let group = GroupKey { tenant: user.tenant, id };
    if roster.is_member(group, user.id)? {
        return Ok(unchanged(Answer::Done));
    }
    if !has_room(roster, group, user.id)? {
        return Ok(failed(Failure::TooMany));
    }
    roster.add_member(group, user.id)?;
    Ok((Answer::Done, Some(id)))
}

fn create_group<R: Roster>(
    roster: &mut R,
    user: UserKey,
    wanted: &[u8],
    title: &[u8],
    users: &[Box<[u8]>],
) -> Result<Answered, R::Error> {
    if wanted.len() > GROUP_NAME_LEN_MAX || title.len() > GROUP_TITLE_LEN_MAX {
        return Ok(failed(Failure::TooLarge));
    }
    // The maker is one more.
    if users.len() >= roster.members_max() as usize || roster.group_count(user)? >= GROUPS_MAX {
        return Ok(failed(Failure::TooMany));
    }
    if !wanted.is_empty() && find_group(roster, user.tenant, wanted)?.is_some() {
        return Ok(failed(Failure::Exists));
    }
    let (id, name) = match decimal(wanted) {
        Some(id) => (Some(GroupId(id)), None),
        None => (roster.free_group_id(user.tenant)?, Some(wanted).filter(|name| !name.is_empty())),
    };
    let Some(id) = id else { return Ok(failed(Failure::TooMany)) };
    let mut members = vec![user.id];
    for name in users {
        members.extend(find_user(roster, user.tenant, name)?);
    }
    let group = GroupKey { tenant: user.tenant, id };
    let about = NewGroup { name, title, owner: Some(user.id), key: None };
    populate(roster, group, &about, &members)?;
    let heads = roster.group(group)?.map(|head| shown_group(head, Vec::new()));
    Ok((Answer::Groups(heads.into_iter().collect()), Some(id)))
}

/// Makes a group with members, each once and in this order; who is in too many groups is left out,
/// except the first. Returns those who came in.
pub(crate) fn populate<R: Roster>(
    roster: &mut R,
    group: GroupKey,
    about: &NewGroup<'_>,
    members: &[UserId],
) -> Result<Vec<UserId>, R::Error> {
    roster.add_group(group, about)?;
    let mut taken = Vec::new();
    for (place, &member) in members.iter().enumerate() {
        let user = UserKey { tenant: group.tenant, id: member };
        let fits = place == 0 || roster.group_count(user)? < GROUPS_MAX;
        if fits && !roster.is_member(group, member)? {
            roster.add_member(group, member)?;
            taken.push(member);
        }
    }
    Ok(taken)
}

fn unchanged(answer: Answer) -> Answered {
    (answer, None)
}

fn failed(failure: Failure) -> Answered {
    unchanged(Answer::Failed(failure))
}

fn shown(id: UserId, name: Name) -> Box<[u8]> {
    name.unwrap_or_else(|| id.to_string().into_bytes().into())
}

fn shown_group(head: GroupHead, users: Vec<Box<[u8]>>) -> Group {
    let GroupHead { id, name, title, owner } = head;
    Group {
        id: name.unwrap_or_else(|| id.to_string().into_bytes().into()),
        title,
        owner: owner.map(|(id, name)| shown(id, name)).unwrap_or_default(),
        users,
    }
}
