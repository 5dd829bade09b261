//! The user centre of the simple_im system, as its HTTP face needs it: users by phone number,
//! tokens for the login over TCP, mutual contacts, groups with keys.
//!
//! Owns: the seam and its words; the steps of a login (`login`), the rules of contacts and groups
//! (`rules`). Never: HTTP, the text of answers. Blocking: used from the control
//! plane, and by [`crate::auth::Tokens`], each with a handle of its own.
//!
//! Times are passed in: `now_ms` is milliseconds since 1970.

mod login;
pub(crate) mod rules;

use std::time::Duration;

use codec::{GroupId, TenantId, UserId, UserKey};
use sha2::{Digest as _, Sha256};

pub use login::{PhoneLogin, Refusal};

use crate::request::{Row, StoreError};
use crate::store::{Store, Write};

/// How long a token of the HTTP login may wait for the login over TCP that makes it permanent.
pub const TOKEN_TTL: Duration = Duration::from_secs(100);

/// Bodies of [`Accounts::offline_read`], at once in memory for one request.
pub(crate) const OFFLINE_BYTES_MAX: u32 = 16 << 20;

/// Tokens of one user that are kept; the oldest goes when one more is put.
pub const USER_TOKENS_MAX: u32 = 32;

/// Characters of the name of a user or a group, as the original's columns have them.
pub const NAME_CHARS_MAX: usize = 20;

/// Whether a name has at most [`NAME_CHARS_MAX`] characters; of what is no text, bytes.
pub fn is_short(name: &[u8]) -> bool {
    str::from_utf8(name).map_or(name.len(), |name| name.chars().count()) <= NAME_CHARS_MAX
}

/// The accounts of one tenant. Every call is one transaction; its only error is
/// [`StoreError::Unavailable`] (and [`StoreError::Full`] where a bound is reached), after which
/// nothing is changed. No call hashes a password: whoever waits for the handle waits for the store
/// alone.
pub trait Accounts: Send {
    /// Whose accounts these are.
    fn tenant(&self) -> TenantId;

    /// What a login with that number is checked against; `None`: it is nobody's.
    fn credentials(&mut self, phone: &[u8]) -> Result<Option<Credentials>, StoreError>;

    /// Keeps `new`, a better hash of the same password, unless the user's is no longer `old`.
    fn upgrade_hash(&mut self, user: UserId, old: &str, new: &str) -> Result<(), StoreError>;

    /// Keeps a token for `ttl`; another one of the user stays valid.
    fn put_token(
        &mut self,
        token: &[u8],
        record: &TokenRecord,
        ttl: Duration,
        now_ms: u64,
    ) -> Result<(), StoreError>;

    /// What a token stands for, if it is there and not expired.
    fn token(&mut self, token: &[u8], now_ms: u64) -> Result<Option<TokenRecord>, StoreError>;

    /// `user` uses his token on a device: it is permanent from now on, and takes the place of the
    /// one that was used there before, which is forgotten. `false`: it is not there.
    fn persist_token(
        &mut self,
        token: &[u8],
        user: UserId,
        device: &[u8],
        now_ms: u64,
    ) -> Result<bool, StoreError>;

    /// Makes a user with the next free id, from 1. `None`: the name or the number is taken.
    fn create_user(
        &mut self,
        name: &[u8],
        phone: &[u8],
        password_hash: &str,
    ) -> Result<Option<UserId>, StoreError>;

    fn user_by_id(&mut self, user: UserId) -> Result<Option<Account>, StoreError>;

    fn user_by_phone(&mut self, phone: &[u8]) -> Result<Option<Account>, StoreError>;

    /// `from` asks `to` to become his contact.
    fn ask_contact(
        &mut self,
        from: UserId,
        to: UserId,
        message: &[u8],
        now_ms: u64,
    ) -> Result<Asked, StoreError>;

    /// `user` accepts what `asker` asked; each is then a contact of the other. The new contact
    /// versions of `user` and `asker`; `None`: nothing was asked.
    fn accept_contact(
        &mut self,
        user: UserId,
        asker: UserId,
    ) -> Result<Option<(u64, u64)>, StoreError>;

    /// Neither is a contact of the other any more. `false`: they were not.
    fn delete_contact(&mut self, user: UserId, contact: UserId) -> Result<bool, StoreError>;

    /// Contacts that came after the user's `version`, oldest first.
    fn contacts_after(
        &mut self,
        user: UserId,
        version: u64,
    ) -> Result<Vec<ContactAccount>, StoreError>;

    /// Who asked `user` at `since_s` (seconds since 1970) or later and waits for an answer.
    fn asked_since(&mut self, user: UserId, since_s: u64) -> Result<Vec<PreContact>, StoreError>;

    /// Makes a group of the creator and `members`, as far as they exist, with a fresh key.
    /// [`StoreError::Full`]: a bound of groups or members is reached, or the name's.
    fn create_group(
        &mut self,
        name: &[u8],
        creator: UserId,
        members: &[UserId],
    ) -> Result<NewGroup, StoreError>;

    /// The creator deletes his group.
    fn delete_group(&mut self, group: GroupId, creator: UserId) -> Result<GroupChange, StoreError>;

    /// A user joins with the group's key.
    fn join_group(
        &mut self,
        group: GroupId,
        user: UserId,
        key: &[u8],
    ) -> Result<GroupChange, StoreError>;

    /// The creator adds a user.
    fn add_member(
        &mut self,
        group: GroupId,
        creator: UserId,
        user: UserId,
    ) -> Result<GroupChange, StoreError>;

    /// A user leaves; if he is the owner the group passes on as with `roster::answer`.
    fn leave_group(&mut self, group: GroupId, user: UserId) -> Result<GroupChange, StoreError>;

    /// The first `limit` members of a group by the time they came; nobody if it does not exist.
    fn group_members(&mut self, group: GroupId, limit: u32) -> Result<Vec<UserId>, StoreError>;

    /// The oldest stored deliveries of a user, without removing them, and whether there are more.
    fn offline_read(&mut self, user: UserId, rows: u32) -> Result<(Vec<Row>, bool), StoreError>;

    /// Removes these stored deliveries, and no other: what was not read may lie between them.
    fn offline_clear(&mut self, user: UserId, seqs: &[u64]) -> Result<(), StoreError>;
}

/// As [`Accounts::offline_clear`], in one transaction of the store.
pub(crate) fn delete_all(
    store: &mut impl Store,
    user: UserKey,
    seqs: &[u64],
) -> Result<(), StoreError> {
    let writes: Vec<Write> = seqs.iter().map(|&seq| Write::Delete { user, seq }).collect();
    store.write(&writes).into_iter().collect()
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub id: UserId,
    pub name: Box<[u8]>,
    pub phone: Box<[u8]>,
    /// A path or URL; empty: none.
    pub avatar: Box<[u8]>,
}

/// A user and what proves him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub account: Account,
    /// As [`crate::auth::verify_password`] takes it; empty for a user without a password.
    pub password_hash: String,
    /// The store wants a better hash once a password was verified: [`Accounts::upgrade_hash`].
    pub outdated: bool,
}

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    pub user: UserId,
    /// The user's name, where it was known.
    pub name: Option<Box<[u8]>>,
    /// The device it was made for, or was last used on; empty: none yet.
    pub device: Box<[u8]>,
    /// Where its holder was told to connect to.
    pub ip: Box<[u8]>,
    pub port: u16,
    /// It never expires; ignored by [`Accounts::put_token`].
    pub permanent: bool,
}

/// The outcome of [`Accounts::ask_contact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Done,
    AlreadyContacts,
    /// One of the two asked before, whichever.
    Pending,
    UnknownUser,
}

/// A contact and the user's contact version with which he came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactAccount {
    pub account: Account,
    pub version: u64,
}

/// Somebody who asked to become a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreContact {
    pub user: UserId,
    pub message: Box<[u8]>,
    /// Seconds since 1970.
    pub time_s: u64,
}

/// A group that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct NewGroup {
    pub id: GroupId,
    /// 16 characters; who knows it may join.
    pub key: String,
    /// Its creator among them.
    pub members: Vec<UserId>,
}

impl std::fmt::Debug for NewGroup {
    // The key never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewGroup").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The outcome of a change of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupChange {
    Done,
    UnknownGroup,
    /// A wrong key, or not the creator.
    NotAllowed,
    AlreadyMember,
    /// Who leaves is none.
    NotMember,
    UnknownUser,
}

/// A fresh token: 24 random bytes in base64, so 32 characters, `+` and `/` among them.
///
/// # Panics
/// If the operating system has no randomness.
pub fn new_token() -> String {
    random_text::<24>()
}

/// What a token is kept under where its holder must not be able to read it. Tokens are random and
/// long: a plain hash is enough, and looking one up tells nothing about another.
pub(crate) fn token_hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// A fresh group key: 16 characters.
pub(crate) fn new_group_key() -> String {
    random_text::<12>()
}

fn random_text<const N: usize>() -> String {
    use base64::Engine as _;
    const { assert!(N.is_multiple_of(3), "no padding") };
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_32_characters_and_differ() {
        let tokens: Vec<_> = (0..100).map(|_| new_token()).collect();
        assert!(tokens.iter().all(|token| token.len() == 32 && !token.contains('=')));
        let distinct: std::collections::HashSet<_> = tokens.iter().collect();
        assert_eq!(distinct.len(), 100);
        assert_eq!(new_group_key().len(), 16);
    }
}
