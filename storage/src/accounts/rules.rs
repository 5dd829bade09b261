//! The rules of contacts and groups as the accounts know them (the return codes of the original's
//! database functions), once for all backends.
//!
//! Owns: these rules; a group's title here is its name there. Never: where anything is kept; a
//! backend brings the primitives of `Centre` and runs a rule in a transaction, which the inner
//! error rolls back.

use codec::{GroupKey, UserId, UserKey};
use subtle::ConstantTimeEq as _;

use super::{Asked, GroupChange, NewGroup, is_short, new_group_key};
use crate::request::StoreError;
use crate::roster::{self, CONTACTS_MAX, GROUPS_MAX, Roster};

/// What the rules take of a backend, besides the roster.
pub(crate) trait Centre: Roster {
    /// Whether `asker` waits for the answer of `asked`.
    fn has_asked(&mut self, asker: UserId, asked: UserKey) -> Result<bool, Self::Error>;
    /// Requests that wait for `asked` or that `asker` has made, whichever are more.
    fn waiting(&mut self, asker: UserId, asked: UserKey) -> Result<u32, Self::Error>;
    fn put_request(
        &mut self,
        asker: UserId,
        asked: UserKey,
        message: &[u8],
        time_s: u64,
    ) -> Result<(), Self::Error>;
    fn drop_request(&mut self, asker: UserId, asked: UserKey) -> Result<(), Self::Error>;
    /// The version of the user's contacts; each that comes raises it.
    fn contact_version(&mut self, user: UserKey) -> Result<u64, Self::Error>;
    /// What a group's joiners have to know; empty: nobody joins so. `None`: there is no such group.
    fn group_secret(&mut self, group: GroupKey) -> Result<Option<String>, Self::Error>;
}

/// The outer result is the backend's, the inner one rolls back.
pub(crate) type Outcome<T, E> = Result<Result<T, StoreError>, E>;

/// As [`super::Accounts::ask_contact`].
pub(crate) fn ask_contact<C: Centre>(
    centre: &mut C,
    asker: UserKey,
    to: UserId,
    message: &[u8],
    time_s: u64,
) -> Outcome<Asked, C::Error> {
    let asked = UserKey { id: to, ..asker };
    if asker == asked || centre.name_of(asked)?.is_none() {
        return Ok(Ok(Asked::UnknownUser));
    }
    if centre.is_contact(asker, to)? && centre.is_contact(asked, asker.id)? {
        return Ok(Ok(Asked::AlreadyContacts));
    }
    if centre.has_asked(asker.id, asked)? || centre.has_asked(to, asker)? {
        return Ok(Ok(Asked::Pending));
    }
    if centre.waiting(asker.id, asked)? >= CONTACTS_MAX {
        return Ok(Err(StoreError::Full));
    }
    centre.put_request(asker.id, asked, message, time_s)?;
    Ok(Ok(Asked::Done))
}

/// As [`super::Accounts::accept_contact`].
pub(crate) fn accept_contact<C: Centre>(
    centre: &mut C,
    user: UserKey,
    asker: UserId,
) -> Outcome<Option<(u64, u64)>, C::Error> {
    if !centre.has_asked(asker, user)? {
        return Ok(Ok(None));
    }
    let asker = UserKey { id: asker, ..user };
    for (one, other) in [(user, asker), (asker, user)] {
        if !centre.is_contact(one, other.id)? && centre.contact_count(one)? >= CONTACTS_MAX {
            return Ok(Err(StoreError::Full));
        }
    }
    centre.drop_request(asker.id, user)?;
    for (one, other) in [(user, asker), (asker, user)] {
        if !centre.is_contact(one, other.id)? {
            centre.add_contact(one, other.id)?;
        }
    }
    Ok(Ok(Some((centre.contact_version(user)?, centre.contact_version(asker)?))))
}

/// As [`super::Accounts::create_group`].
pub(crate) fn create_group<C: Centre>(
    centre: &mut C,
    creator: UserKey,
    title: &[u8],
    members: &[UserId],
) -> Outcome<NewGroup, C::Error> {
    let tenant = creator.tenant;
    // The creator is one more.
    let fits = is_short(title) && members.len() < centre.members_max() as usize;
    if !fits || centre.group_count(creator)? >= GROUPS_MAX {
        return Ok(Err(StoreError::Full));
    }
    let Some(id) = centre.free_group_id(tenant)? else { return Ok(Err(StoreError::Full)) };
    let mut users = vec![creator.id];
    for &id in members {
        if centre.name_of(UserKey { tenant, id })?.is_some() {
            users.push(id);
        }
    }
    let key = new_group_key();
    let about = roster::NewGroup { name: None, title, owner: Some(creator.id), key: Some(&key) };
    let members = roster::populate(centre, GroupKey { tenant, id }, &about, &users)?;
    Ok(Ok(NewGroup { id, key, members }))
}

/// As [`super::Accounts::delete_group`].
pub(crate) fn delete_group<C: Centre>(
    centre: &mut C,
    group: GroupKey,
    creator: UserId,
) -> Outcome<GroupChange, C::Error> {
    let his = owned(centre, group, creator)?;
    if his == GroupChange::Done {
        centre.delete_group(group)?;
    }
    Ok(Ok(his))
}

/// As [`super::Accounts::join_group`].
pub(crate) fn join_group<C: Centre>(
    centre: &mut C,
    group: GroupKey,
    user: UserId,
    key: &[u8],
) -> Outcome<GroupChange, C::Error> {
    let Some(right) = centre.group_secret(group)? else {
        return Ok(Ok(GroupChange::UnknownGroup));
    };
    if right.is_empty() || !bool::from(right.as_bytes().ct_eq(key)) {
        return Ok(Ok(GroupChange::NotAllowed));
    }
    take_in(centre, group, user)
}

/// As [`super::Accounts::add_member`].
pub(crate) fn add_member<C: Centre>(
    centre: &mut C,
    group: GroupKey,
    creator: UserId,
    user: UserId,
) -> Outcome<GroupChange, C::Error> {
    match owned(centre, group, creator)? {
        GroupChange::Done => take_in(centre, group, user),
        refused => Ok(Ok(refused)),
    }
}

/// As [`super::Accounts::leave_group`].
pub(crate) fn leave_group<C: Centre>(
    centre: &mut C,
    group: GroupKey,
    user: UserId,
) -> Outcome<GroupChange, C::Error> {
    if !centre.has_group(group)? {
        return Ok(Ok(GroupChange::UnknownGroup));
    }
    let left = roster::leave(centre, group, user)?;
    Ok(Ok(if left { GroupChange::Done } else { GroupChange::NotMember }))
}

/// [`GroupChange::Done`] if the group is the creator's.
fn owned<C: Centre>(
    centre: &mut C,
    group: GroupKey,
    creator: UserId,
) -> Result<GroupChange, C::Error> {
    let Some(head) = centre.group(group)? else { return Ok(GroupChange::UnknownGroup) };
    let his = head.owner.is_some_and(|(owner, _)| owner == creator);
    Ok(if his { GroupChange::Done } else { GroupChange::NotAllowed })
}

fn take_in<C: Centre>(
    centre: &mut C,
    group: GroupKey,
    user: UserId,
) -> Outcome<GroupChange, C::Error> {
    if centre.is_member(group, user)? {
        return Ok(Ok(GroupChange::AlreadyMember));
    }
    if centre.name_of(UserKey { tenant: group.tenant, id: user })?.is_none() {
        return Ok(Ok(GroupChange::UnknownUser));
    }
    if !roster::has_room(centre, group, user)? {
        return Ok(Err(StoreError::Full));
    }
    centre.add_member(group, user)?;
    Ok(Ok(GroupChange::Done))
}
