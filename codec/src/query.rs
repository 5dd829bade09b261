//! Questions about contacts and groups, and their answers: answered by the store.
//!
//! Names and ids are opaque bytes of the asking user's tenant. Rare, so owned.

use crate::ids::UserId;
use crate::packet::Failure;

/// What a user asks about his own contacts and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    Contacts,
    /// Does nothing if he is a contact already, and answers [`Answer::Done`].
    AddContact(Box<[u8]>),
    /// Does nothing if he is none.
    RemoveContact(Box<[u8]>),
    /// The groups that he is a member of, without their members.
    Groups,
    /// `id`: the name it shall have; empty: any free one. Users who do not exist are left out.
    CreateGroup {
        id: Box<[u8]>,
        title: Box<[u8]>,
        users: Vec<Box<[u8]>>,
    },
    JoinGroup(Box<[u8]>),
    /// Does nothing if he is not in it.
    LeaveGroup(Box<[u8]>),
    Members(Box<[u8]>),
    /// The request's payload made no sense, or its kind is not known: answered in its turn.
    Refused(Failure),
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// He is a contact now, and was none: he may be told.
    ContactAdded(UserId),
    Contacts(Vec<Contact>),
    Groups(Vec<Group>),
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    pub id: UserId,
    pub name: Box<[u8]>,
    /// Has a terminal at the moment. The store says `false`; the shards fill it in.
    pub online: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name, or the id in decimal where it has none.
    pub id: Box<[u8]>,
    pub title: Box<[u8]>,
    /// The owner's name; empty for a group without one.
    pub owner: Box<[u8]>,
    /// Names of the members, where they were asked for.
    pub users: Vec<Box<[u8]>>,
}
