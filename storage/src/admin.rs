//! What the command line does to a store, possibly while gateways use it: users, groups, tenants,
//! dead letters.
//!
//! Owns: the words for it. Never: password hashing (`auth`), talking to a gateway; a running one
//! sees the change by [`Store::changed`] and [`Store::take_requeued`].

use codec::{GroupId, GroupKey, Message, TenantId, UserId, UserKey};

use crate::store::Store;

/// A user to make.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub key: UserKey,
    pub name: Box<[u8]>,
    /// PHC string, see [`crate::auth::hash_password`]; empty if only open authentication knows him.
    pub password_hash: String,
    pub phone: Option<String>,
}

/// A user as the operator sees him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserInfo {
    pub id: UserId,
    pub name: Box<[u8]>,
    pub phone: Option<String>,
    pub has_password: bool,
}

/// A group to make.
#[derive(Clone, Debug, Default)]
pub struct NewGroup {
    pub key: GroupKey,
    /// What it is addressed by, besides its id.
    pub name: Option<Box<[u8]>>,
    pub title: Box<[u8]>,
    /// Becomes a member, the first one.
    pub owner: Option<UserId>,
    pub members: Vec<UserId>,
}

/// A group as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    pub id: GroupId,
    pub name: Option<Box<[u8]>>,
    pub title: Box<[u8]>,
    pub owner: Option<UserId>,
    pub members: u64,
}

/// A message that was given up and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Never used again for another one.
    pub id: i64,
    pub user: UserKey,
    pub seq: u64,
    /// As [`crate::DeadReason::label`], or what a newer version wrote.
    pub reason: String,
    /// Milliseconds since 1970.
    pub died_ms: u64,
    /// `None`: this version cannot decode it.
    pub message: Option<std::sync::Arc<Message>>,
}

/// A tenant and its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    pub org: String,
    pub appkey: String,
}

/// Why nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub enum AdminError {
    IdTaken(UserId),
    NameTaken(Box<[u8]>),
    PhoneTaken(String),
    NoUser(UserId),
    GroupTaken(GroupId),
    GroupNameTaken(Box<[u8]>),
    NoGroup(GroupId),
    /// More members than the bound.
    GroupTooLarge(GroupId, u32),
    NoDeadLetter(i64),
    /// The store did not do it; for people.
    Store(String),
}

impl std::fmt::Display for AdminError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IdTaken(id) => write!(f, "the user id {id} is taken"),
            Self::NameTaken(name) => write!(f, "the name \"{}\" is taken", name.escape_ascii()),
            Self::PhoneTaken(phone) => write!(f, "the phone number {phone} is taken"),
            Self::NoUser(id) => write!(f, "there is no user {id}"),
            Self::GroupTaken(id) => write!(f, "the group id {id} is taken"),
            Self::GroupNameTaken(name) => {
                write!(f, "the group name \"{}\" is taken", name.escape_ascii())
            }
            Self::NoGroup(id) => write!(f, "there is no group {id}"),
            Self::GroupTooLarge(id, max) => {
                write!(f, "group {id} would have more than {max} members")
            }
            Self::NoDeadLetter(id) => write!(f, "there is no dead letter {id}"),
            Self::Store(text) => write!(f, "the store: {text}"),
        }
    }
}

impl std::error::Error for AdminError {}

/// What an operator changes in a store, possibly while gateways use it.
pub trait Admin: Store {
    /// Makes users, all or none. The time is that of one commit.
    ///
    /// # Errors
    /// The first whose id, name or phone number is taken; [`AdminError::Store`].
    fn add_users(&mut self, users: &[NewUser]) -> Result<(), AdminError>;

    /// Makes one user.
    ///
    /// # Errors
    /// As [`Self::add_users`].
    fn add_user(&mut self, user: NewUser) -> Result<(), AdminError>;

    /// Forgets a user and everything kept for him: memberships, contacts, tokens, messages, dead
    /// letters. Whoever gets the id later reads none of it. His groups pass to the member who is
    /// there the longest, or to nobody.
    ///
    /// # Errors
    /// [`AdminError::NoUser`], [`AdminError::Store`].
    fn delete_user(&mut self, user: UserKey) -> Result<(), AdminError>;

    /// Users of a tenant by rising id, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    fn list_users(
        &mut self,
        tenant: TenantId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<UserInfo>, AdminError>;

    /// Makes a group.
    ///
    /// # Errors
    /// [`AdminError::GroupTaken`], [`AdminError::GroupNameTaken`], [`AdminError::GroupTooLarge`],
    /// [`AdminError::Store`].
    fn create_group(&mut self, group: &NewGroup) -> Result<(), AdminError>;

    /// Adds members; those who are in it already stay in it.
    ///
    /// # Errors
    /// [`AdminError::NoGroup`], [`AdminError::GroupTooLarge`], [`AdminError::Store`].
    fn add_members(&mut self, group: GroupKey, members: &[UserId]) -> Result<(), AdminError>;

    /// Removes members; those who are not in it do not matter. Returns how many were. A group that
    /// loses its owner passes to the member who is there the longest, or to nobody.
    ///
    /// # Errors
    /// [`AdminError::NoGroup`], [`AdminError::Store`].
    fn remove_members(&mut self, group: GroupKey, members: &[UserId]) -> Result<u64, AdminError>;

    /// Forgets a group.
    ///
    /// # Errors
    /// [`AdminError::NoGroup`], [`AdminError::Store`].
    fn delete_group(&mut self, group: GroupKey) -> Result<(), AdminError>;

    /// Groups of a tenant by rising id, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    fn list_groups(
        &mut self,
        tenant: TenantId,
        after: Option<GroupId>,
        limit: u32,
    ) -> Result<Vec<GroupInfo>, AdminError>;

    /// Dead letters by rising id, those after `after` (0: from the first), at most `limit`.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    fn dead_letters(&mut self, after: i64, limit: u32) -> Result<Vec<DeadLetter>, AdminError>;

    /// Puts dead letters back in their old places, without charges, even above the user's cap; all
    /// or none. A running gateway delivers them within its polling time.
    ///
    /// # Errors
    /// [`AdminError::NoDeadLetter`], [`AdminError::Store`].
    fn requeue(&mut self, ids: &[i64]) -> Result<(), AdminError>;

    /// Forgets dead letters, all or none.
    ///
    /// # Errors
    /// [`AdminError::NoDeadLetter`], [`AdminError::Store`].
    fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<(), AdminError>;

    /// The tenant of that name, made if it is new.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    fn tenant_id(&mut self, org: &str, appkey: &str) -> Result<TenantId, AdminError>;

    /// All tenants by rising id.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    fn tenants(&mut self) -> Result<Vec<Tenant>, AdminError>;
}
