//! Whom a name means.
//!
//! Owns: the one order in which users and groups are looked for. Never: where they are kept.

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};

use crate::request::{Found, NameKind};

/// What looking for a name takes of a backend.
pub(crate) trait Names {
    type Error;

    fn user_named(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<UserId>, Self::Error>;

    /// The name bound to an id.
    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, Self::Error>;

    fn group_named(
        &mut self,
        tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<GroupId>, Self::Error>;

    fn has_group(&mut self, group: GroupKey) -> Result<bool, Self::Error>;
}

/// Finds whom `name` means in a tenant:
///
/// - a user with exactly that name;
/// - the user with that id, if it is a canonical decimal and somebody's;
/// - a group with exactly that name;
/// - the group with that id.
///
/// With [`NameKind::Group`] only the last two; a leading `#` asks for a group, too, but after a
/// user who is really called so.
pub(crate) fn find<N: Names>(
    names: &mut N,
    tenant: TenantId,
    name: &[u8],
    what: NameKind,
) -> Result<Option<Found>, N::Error> {
    if what == NameKind::Group {
        return Ok(find_group(names, tenant, name)?.map(Found::Group));
    }
    if let Some(user) = find_user(names, tenant, name)? {
        return Ok(Some(Found::User(user)));
    }
    let name = name.strip_prefix(b"#").unwrap_or(name);
    Ok(find_group(names, tenant, name)?.map(Found::Group))
}

/// A user by name, else by his id in decimal.
pub(crate) fn find_user<N: Names>(
    names: &mut N,
    tenant: TenantId,
    name: &[u8],
) -> Result<Option<UserId>, N::Error> {
    if let Some(user) = names.user_named(tenant, name)? {
        return Ok(Some(user));
    }
    let Some(id) = decimal(name).map(UserId) else { return Ok(None) };
    Ok(names.name_of(UserKey { tenant, id })?.map(|_| id))
}

/// A group by name, else by its id in decimal.
pub(crate) fn find_group<N: Names>(
    names: &mut N,
    tenant: TenantId,
    name: &[u8],
) -> Result<Option<GroupId>, N::Error> {
    if let Some(group) = names.group_named(tenant, name)? {
        return Ok(Some(group));
    }
    let Some(id) = decimal(name).map(GroupId) else { return Ok(None) };
    Ok(names.has_group(GroupKey { tenant, id })?.then_some(id))
}

/// The number that a name is, written as we would write it: so that each id has one such name.
pub(crate) fn decimal(name: &[u8]) -> Option<u32> {
    let canonical = match name {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    canonical.then(|| str::from_utf8(name).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_only_in_the_form_in_which_it_is_printed() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"42"), Some(42));
        assert_eq!(decimal(b"4294967295"), Some(u32::MAX));
        for none in [&b""[..], b"00", b"042", b"+1", b"-1", b"1 ", b"4294967296", b"x1", b"\xff"] {
            assert_eq!(decimal(none), None, "{}", none.escape_ascii());
        }
    }
}
