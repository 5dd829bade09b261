//! Users, groups and contacts in memory: the primitives of names and of the roster's rules.
//!
//! Owns: these look-ups, as plainly as possible. Never: a rule.

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};

use super::{Group, Tables};
use crate::names::Names;
use crate::request::StoreError;
use crate::roster::{FIRST_GROUP_ID, GroupHead, LAST_GROUP_ID, Name, NewGroup, Roster};

type Result<T> = std::result::Result<T, StoreError>;

impl Tables {
    pub(super) fn name(&self, user: UserKey) -> Name {
        self.users.get(&user).map(|user| user.name.clone())
    }

    fn head(&self, key: GroupKey, group: &Group) -> GroupHead {
        let tenant = key.tenant;
        GroupHead {
            id: key.id,
            name: group.name.clone(),
            title: group.title.clone(),
            owner: group.owner.map(|id| (id, self.name(UserKey { tenant, id }))),
        }
    }

    fn groups_with(&self, user: UserKey) -> impl Iterator<Item = (GroupKey, &Group)> {
        let groups = self.groups.iter().map(|(key, group)| (*key, group));
        groups.filter(move |(key, group)| {
            key.tenant == user.tenant && group.members.contains_key(&user.id)
        })
    }
}

impl Names for Tables {
    type Error = StoreError;

    fn user_named(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<UserId>> {
        Ok(self.id_of(tenant, name).map(|user| user.id))
    }

    fn name_of(&mut self, user: UserKey) -> Result<Name> {
        Ok(self.name(user))
    }

    fn group_named(&mut self, tenant: TenantId, name: &[u8]) -> Result<Option<GroupId>> {
        let called = |(key, group): &(&GroupKey, &Group)| {
            key.tenant == tenant && group.name.as_deref() == Some(name)
        };
        Ok(self.groups.iter().find(called).map(|(key, _)| key.id))
    }

    fn has_group(&mut self, group: GroupKey) -> Result<bool> {
        Ok(self.groups.contains_key(&group))
    }
}

impl Roster for Tables {
    fn members_max(&self) -> u32 {
        self.members_max
    }

    fn contacts(&mut self, user: UserKey) -> Result<Vec<(UserId, Name)>> {
        let UserKey { tenant, .. } = user;
        let range = (user, UserId(0))..=(user, UserId(u32::MAX));
        let contact = |(&(_, id), _): (&(_, UserId), _)| (id, self.name(UserKey { tenant, id }));
        Ok(self.contacts.range(range).map(contact).collect())
    }

    fn is_contact(&mut self, user: UserKey, contact: UserId) -> Result<bool> {
        Ok(self.contacts.contains_key(&(user, contact)))
    }

    fn contact_count(&mut self, user: UserKey) -> Result<u32> {
        let range = (user, UserId(0))..=(user, UserId(u32::MAX));
        Ok(self.contacts.range(range).count() as u32)
    }

    fn add_contact(&mut self, user: UserKey, contact: UserId) -> Result<()> {
        // A user that open authentication made and nobody has written to yet has no version.
        let version = self.users.get_mut(&user).map_or(0, |user| {
            user.contact_version += 1;
            user.contact_version
        });
        self.contacts.insert((user, contact), version);
        Ok(())
    }

    fn remove_contact(&mut self, user: UserKey, contact: UserId) -> Result<()> {
        self.contacts.remove(&(user, contact));
        Ok(())
    }

    fn groups_of(&mut self, user: UserKey, limit: u32) -> Result<Vec<GroupHead>> {
        let heads = self.groups_with(user).map(|(key, group)| self.head(key, group));
        Ok(heads.take(limit as usize).collect())
    }

    fn group_count(&mut self, user: UserKey) -> Result<u32> {
        Ok(self.groups_with(user).count() as u32)
    }

    fn group(&mut self, key: GroupKey) -> Result<Option<GroupHead>> {
        Ok(self.groups.get(&key).map(|group| self.head(key, group)))
    }

    fn free_group_id(&mut self, tenant: TenantId) -> Result<Option<GroupId>> {
        let next = self.next_groups.get(&tenant).copied().unwrap_or(FIRST_GROUP_ID);
        let is_free = |id: &u32| !self.groups.contains_key(&GroupKey { tenant, id: GroupId(*id) });
        let ids = (next..=LAST_GROUP_ID).chain(FIRST_GROUP_ID..next);
        let Some(id) = ids.into_iter().find(is_free) else { return Ok(None) };
        self.next_groups.insert(tenant, id + 1);
        Ok(Some(GroupId(id)))
    }

    fn add_group(&mut self, key: GroupKey, about: &NewGroup<'_>) -> Result<()> {
        let group = Group {
            name: about.name.map(Into::into),
            title: about.title.into(),
            owner: about.owner,
            key: about.key.unwrap_or_default().to_owned(),
            ..Group::default()
        };
        self.groups.insert(key, group);
        Ok(())
    }

    fn delete_group(&mut self, group: GroupKey) -> Result<()> {
        self.groups.remove(&group);
        Ok(())
    }

    fn set_owner(&mut self, group: GroupKey, owner: UserId) -> Result<()> {
        if let Some(group) = self.groups.get_mut(&group) {
            group.owner = Some(owner);
        }
        Ok(())
    }

    fn members(&mut self, key: GroupKey, limit: u32) -> Result<Vec<(UserId, Name)>> {
        let Some(group) = self.groups.get(&key) else { return Ok(Vec::new()) };
        let mut members: Vec<_> = group.members.iter().map(|(id, joined)| (joined, *id)).collect();
        members.sort_unstable();
        let named = |(_, id)| (id, self.name(UserKey { tenant: key.tenant, id }));
        Ok(members.into_iter().take(limit as usize).map(named).collect())
    }

    fn is_member(&mut self, group: GroupKey, user: UserId) -> Result<bool> {
        Ok(self.groups.get(&group).is_some_and(|group| group.members.contains_key(&user)))
    }

    fn member_count(&mut self, group: GroupKey) -> Result<u32> {
        Ok(self.groups.get(&group).map_or(0, |group| group.members.len() as u32))
    }

    fn add_member(&mut self, group: GroupKey, user: UserId) -> Result<()> {
        if let Some(group) = self.groups.get_mut(&group) {
            group.joins += 1;
            group.members.insert(user, group.joins);
        }
        Ok(())
    }

    fn remove_member(&mut self, group: GroupKey, user: UserId) -> Result<()> {
        if let Some(group) = self.groups.get_mut(&group) {
            group.members.remove(&user);
        }
        Ok(())
    }
}
