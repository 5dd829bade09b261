//! The contract of `Accounts`, run over every backend that has them, and the logins that stand on
//! them: tokens, and no password at all.

mod doubles;
#[path = "external/logins.rs"]
mod logins;
#[path = "external/servers.rs"]
mod servers;

use std::sync::Arc;
use std::time::Duration;

use codec::{GroupId, GroupKey, MessageId, ProtocolId, Target, TenantId, UserId, UserKey};
use doubles::{auth, pass};
use servers::Place;
use storage::Admin;
use storage::accounts::{
    Account, Asked, GroupChange, NAME_CHARS_MAX, PhoneLogin, PreContact, Refusal, TOKEN_TTL,
    TokenRecord, USER_TOKENS_MAX, new_token,
};
use storage::admin::NewGroup;
use storage::auth::{Authenticator, Local, NoPassword, Tokens, Verified, hash_password};
use storage::memory::MemoryAccounts;
use storage::roster::CONTACTS_MAX;
use storage::sqlite::Options;
use storage::sqlite::simple_im::SimpleIm;
use storage::store::Write;
use storage::{
    Accounts, Append, AuthRequest, AuthVerdict, ExternalStore, MemoryStore, Proof, SqliteStore,
    Store, StoreError, TenantRef,
};
use tempfile::TempDir;

/// Accounts under test, and further handles on what they are kept in.
trait Backend {
    fn open() -> Self;
    type Store: Store + 'static;
    fn accounts(&self) -> Box<dyn Accounts>;
    fn store(&self) -> Self::Store;
    /// As an operator.
    fn make_group(store: &mut Self::Store, group: &NewGroup);
}

impl Backend for MemoryStore {
    type Store = Self;

    fn open() -> Self {
        Self::default()
    }

    fn accounts(&self) -> Box<dyn Accounts> {
        Box::new(MemoryAccounts::new(self.handle(), TenantId(0)))
    }

    fn store(&self) -> Self {
        self.handle()
    }

    fn make_group(store: &mut Self, group: &NewGroup) {
        store.set_members(group.key, &group.members);
    }
}

struct Embedded(TempDir);

impl Backend for Embedded {
    type Store = SqliteStore;

    fn open() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn accounts(&self) -> Box<dyn Accounts> {
        Box::new(SimpleIm::new(self.store(), TenantId(0)))
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.0.path().join("store.db"), Options::default()).unwrap()
    }

    fn make_group(store: &mut SqliteStore, group: &NewGroup) {
        Admin::create_group(store, group).unwrap();
    }
}

impl Backend for Place {
    type Store = ExternalStore;

    fn open() -> Self {
        Self::new().expect("asked before")
    }

    fn accounts(&self) -> Box<dyn Accounts> {
        Box::new(self.store())
    }

    fn store(&self) -> ExternalStore {
        Self::open(self)
    }

    fn make_group(store: &mut ExternalStore, group: &NewGroup) {
        Admin::create_group(store, group).unwrap();
    }
}

/// Every function named here runs once per backend.
macro_rules! suite {
    ($($name:ident)*) => {
        mod memory { $(#[test] fn $name() { super::$name::<super::MemoryStore>(); })* }
        mod sqlite { $(#[test] fn $name() { super::$name::<super::Embedded>(); })* }
        mod postgres_and_redis {
            $(#[test] fn $name() {
                if super::Place::is_available() {
                    super::$name::<super::Place>();
                }
            })*
        }
    };
}

suite! {
    a_user_is_made_once_and_found_by_id_and_number
    a_login_needs_the_number_and_the_password
    a_password_that_was_changed_counts_at_once
    an_upgrade_never_overwrites_a_changed_password
    contacts_and_requests_for_them_are_bounded
    a_token_expires_unless_it_was_made_permanent
    a_device_s_new_token_ends_the_one_it_used_before
    tokens_are_independent_of_each_other_and_bounded_per_user
    a_contact_is_asked_for_and_accepted_and_is_then_mutual
    contacts_are_listed_by_what_came_after_a_version
    a_group_is_made_of_users_who_exist_and_changed_by_who_may
    what_waits_for_a_user_is_read_and_cleared_apart
    a_token_login_needs_a_token_of_that_user_and_makes_it_permanent
    proofs_other_than_tokens_are_the_inner_authenticators
    without_a_proof_a_known_name_passes_where_passwords_are_optional
}

const NOW: u64 = 1_800_000_000_000;

fn three(accounts: &mut dyn Accounts) -> [UserId; 3] {
    let hash = hash_password(b"secret");
    ["alice", "bob", "carol"].map(|name| {
        let phone = format!("phone-{name}");
        let made = accounts.create_user(name.as_bytes(), phone.as_bytes(), &hash);
        made.unwrap().expect("free")
    })
}

fn a_user_is_made_once_and_found_by_id_and_number<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let made = accounts.create_user(b"alice", b"18501260698", "a hash");
    assert_eq!(made, Ok(Some(UserId(1))));
    assert_eq!(accounts.create_user(b"alice", b"1", ""), Ok(None), "the name is taken");
    assert_eq!(accounts.create_user(b"bob", b"18501260698", ""), Ok(None), "so is the number");
    let bob = accounts.create_user(b"bob", b"13833665577", "").unwrap().unwrap();
    assert_ne!(bob, UserId(1));
    assert_eq!(accounts.create_user(b"carol", b"\xff", ""), Ok(None), "no number");
    let alice = Account {
        id: UserId(1),
        name: (*b"alice").into(),
        phone: (*b"18501260698").into(),
        avatar: Box::default(),
    };
    assert_eq!(accounts.user_by_id(UserId(1)), Ok(Some(alice.clone())));
    assert_eq!(accounts.user_by_phone(b"18501260698"), Ok(Some(alice)));
    assert_eq!(accounts.user_by_id(UserId(99)), Ok(None));
    assert_eq!(accounts.user_by_phone(b"\xff"), Ok(None));
    let hash = b.store().user_by_name(TenantId(0), b"alice").unwrap().unwrap().password_hash;
    assert_eq!(hash, "a hash");
}

fn a_login_needs_the_number_and_the_password<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let [alice, ..] = three(&mut *accounts);
    let verified = verified();
    let mut log_in = |phone, password| logins::log_in(&mut *accounts, &verified, phone, password);
    let entered = log_in("phone-alice", "secret").unwrap();
    assert_eq!((entered.account.id, entered.checks), (alice, 1));
    assert_eq!(entered.account.name, (*b"alice").into());
    assert_eq!(log_in("phone-alice", "secret").unwrap().checks, 0, "it is known to be right");
    assert_eq!(log_in("phone-alice", "Secret"), Err(Refusal::WrongPassword));
    assert_eq!(log_in("phone-alice", ""), Err(Refusal::WrongPassword));
    assert_eq!(log_in("alice", "secret"), Err(Refusal::UnknownPhone));
    assert_eq!(log_in("\u{ff}", "secret"), Err(Refusal::UnknownPhone));
    assert_eq!(accounts.credentials(b"\xff"), Ok(None));
}

fn verified() -> Arc<Verified> {
    Arc::new(Verified::new(100, Duration::from_secs(600)))
}

fn a_password_that_was_changed_counts_at_once<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let [alice, ..] = three(&mut *accounts);
    let verified = verified();
    assert!(logins::log_in(&mut *accounts, &verified, "phone-alice", "secret").is_ok());
    let mut change = |password: &[u8]| {
        let old = accounts.credentials(b"phone-alice").unwrap().unwrap().password_hash;
        accounts.upgrade_hash(alice, &old, &hash_password(password)).unwrap();
        b.accounts()
    };
    let mut accounts = change(b"other");
    let mut log_in = |password| logins::log_in(&mut *accounts, &verified, "phone-alice", password);
    assert_eq!(log_in("secret"), Err(Refusal::WrongPassword));
    assert_eq!(log_in("other").unwrap().checks, 1);
    // Between the check of a password and the second step.
    let mut login = PhoneLogin::new(verified, b"phone-alice", b"other");
    let mut accounts = change(b"other");
    assert_eq!(login.enter(&mut *accounts), Ok(None));
    assert_eq!(login.check(), None);
    let mut accounts = change(b"another");
    assert_eq!(login.enter(&mut *accounts), Ok(None), "verified against what is gone");
    assert_eq!(login.check(), Some(Refusal::WrongPassword));
}

fn an_upgrade_never_overwrites_a_changed_password<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let [alice, ..] = three(&mut *accounts);
    let hash = |accounts: &mut dyn Accounts| {
        accounts.credentials(b"phone-alice").unwrap().unwrap().password_hash
    };
    let old = hash(&mut *accounts);
    accounts.upgrade_hash(alice, "another", "new").unwrap();
    assert_eq!(hash(&mut *accounts), old);
    accounts.upgrade_hash(alice, &old, "new").unwrap();
    accounts.upgrade_hash(UserId(99), &old, "new").unwrap();
    assert_eq!(hash(&mut *accounts), "new");
    assert_eq!(accounts.credentials(b"phone-bob").unwrap().unwrap().password_hash, old);
}

fn record(user: u32) -> TokenRecord {
    TokenRecord {
        user: UserId(user),
        name: Some((*b"alice").into()),
        device: (*b"android").into(),
        ip: (*b"192.0.2.1").into(),
        port: 1987,
        permanent: false,
    }
}

fn a_token_expires_unless_it_was_made_permanent<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let end = NOW + 100_000;
    for token in [b"one", b"two"] {
        accounts.put_token(token, &record(1), TOKEN_TTL, NOW).unwrap();
    }
    assert_eq!(accounts.token(b"one", end - 1), Ok(Some(record(1))));
    assert_eq!(accounts.token(b"one", end), Ok(None));
    let user = UserId(1);
    assert_eq!(accounts.persist_token(b"one", user, b"ipad", end), Ok(false), "too late");
    assert_eq!(accounts.persist_token(b"two", user, b"ipad", end - 1), Ok(true));
    assert_eq!(accounts.persist_token(b"two", user, b"ipad", end + 1), Ok(true), "again");
    let permanent = TokenRecord { permanent: true, device: (*b"ipad").into(), ..record(1) };
    assert_eq!(b.accounts().token(b"two", u64::MAX), Ok(Some(permanent)));
    assert_eq!(accounts.token(b"", NOW), Ok(None));
}

fn a_device_s_new_token_ends_the_one_it_used_before<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    three(&mut *accounts);
    for token in [&b"old"[..], b"new", b"unused", b"tablet's"] {
        accounts.put_token(token, &record(1), TOKEN_TTL, NOW).unwrap();
    }
    accounts.put_token(b"bob's", &record(2), TOKEN_TTL, NOW).unwrap();
    let mut tokens = Tokens::new(b.accounts(), Box::new(b.store()), local(&b), || NOW);
    let mut login = |user: &str, token: &[u8], device: &[u8]| {
        let request = AuthRequest { device: device.into(), ..token_login(user, token) };
        matches!(tokens.authenticate(&request), AuthVerdict::Pass { .. })
    };
    assert!(login("1", b"old", b"android") && login("1", b"old", b"android"));
    assert!(login("1", b"tablet's", b"ipad") && login("2", b"bob's", b"android"));
    assert!(login("1", b"new", b"android"), "the same device, another token");
    assert!(!login("1", b"old", b"android"), "its place is taken");
    let mut there = |token: &[u8]| accounts.token(token, NOW).unwrap().is_some();
    assert!(!there(b"old"));
    for other in [&b"new"[..], b"unused", b"tablet's", b"bob's"] {
        assert!(there(other), "{}", other.escape_ascii());
    }
}

fn tokens_are_independent_of_each_other_and_bounded_per_user<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let other = new_token();
    accounts.put_token(other.as_bytes(), &record(2), TOKEN_TTL, NOW).unwrap();
    let tokens: Vec<_> = (0..=USER_TOKENS_MAX).map(|_| new_token()).collect();
    for token in &tokens {
        accounts.put_token(token.as_bytes(), &record(1), Duration::MAX, NOW).unwrap();
    }
    let there = |token: &String| b.accounts().token(token.as_bytes(), NOW).unwrap().is_some();
    assert!(!there(&tokens[0]), "the oldest went");
    assert!(tokens[1..].iter().all(there) && there(&other));
}

fn a_contact_is_asked_for_and_accepted_and_is_then_mutual<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let [alice, bob, carol] = three(&mut *accounts);
    let mut asks = |from, to| accounts.ask_contact(from, to, b"hello", NOW + 1_999).unwrap();
    assert_eq!(asks(alice, bob), Asked::Done);
    assert_eq!(asks(alice, bob), Asked::Pending);
    assert_eq!(asks(bob, alice), Asked::Pending);
    assert_eq!(asks(carol, bob), Asked::Done);
    assert_eq!(asks(alice, UserId(99)), Asked::UnknownUser);
    assert_eq!(asks(alice, alice), Asked::UnknownUser);
    let time_s = NOW / 1000 + 1;
    let asked = |user| PreContact { user, message: (*b"hello").into(), time_s };
    assert_eq!(accounts.asked_since(bob, 0), Ok(vec![asked(alice), asked(carol)]));
    assert_eq!(accounts.asked_since(bob, time_s).unwrap().len(), 2);
    assert_eq!(accounts.asked_since(bob, time_s + 1), Ok(vec![]));
    assert_eq!(accounts.asked_since(alice, 0), Ok(vec![]));
    assert_eq!(accounts.accept_contact(alice, bob), Ok(None), "it was alice who asked");
    assert_eq!(accounts.accept_contact(bob, alice), Ok(Some((1, 1))));
    assert_eq!(accounts.accept_contact(bob, alice), Ok(None));
    assert_eq!(accounts.accept_contact(bob, carol), Ok(Some((2, 1))));
    assert_eq!(accounts.asked_since(bob, 0), Ok(vec![]));
    let again = accounts.ask_contact(bob, alice, b"", NOW);
    assert_eq!(again, Ok(Asked::AlreadyContacts));
    assert_eq!(accounts.delete_contact(alice, bob), Ok(true));
    assert_eq!(accounts.delete_contact(bob, alice), Ok(false), "it ended for both");
    assert_eq!(accounts.ask_contact(bob, alice, b"", NOW), Ok(Asked::Done));
}

fn contacts_and_requests_for_them_are_bounded<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let mut user = |n: u32| {
        let name = format!("n{n}");
        accounts.create_user(name.as_bytes(), name.as_bytes(), "").unwrap().expect("free")
    };
    let (alice, bob) = (user(0), user(1));
    let others: Vec<_> = (2..CONTACTS_MAX + 2).map(user).collect();
    for &other in &others {
        assert_eq!(accounts.ask_contact(other, alice, b"", NOW), Ok(Asked::Done));
    }
    assert_eq!(accounts.ask_contact(bob, alice, b"", NOW), Err(StoreError::Full), "so many wait");
    for &other in &others {
        assert!(accounts.accept_contact(alice, other).unwrap().is_some());
    }
    assert_eq!(accounts.ask_contact(bob, alice, b"", NOW), Ok(Asked::Done));
    assert_eq!(accounts.accept_contact(alice, bob), Err(StoreError::Full));
    assert_eq!(accounts.asked_since(alice, 0).unwrap().len(), 1, "it still waits");
    assert_eq!(accounts.contacts_after(bob, 0), Ok(vec![]), "half a contact is none");
    assert_eq!(accounts.delete_contact(alice, others[0]), Ok(true));
    assert!(accounts.accept_contact(alice, bob).unwrap().is_some());
}

fn contacts_are_listed_by_what_came_after_a_version<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let [alice, bob, carol] = three(&mut *accounts);
    for other in [bob, carol] {
        accounts.ask_contact(other, alice, b"", NOW).unwrap();
        accounts.accept_contact(alice, other).unwrap();
    }
    let mut after = |version| {
        let contacts = accounts.contacts_after(alice, version).unwrap();
        contacts.iter().map(|c| (c.account.id, c.version)).collect::<Vec<_>>()
    };
    assert_eq!(after(0), [(bob, 1), (carol, 2)]);
    assert_eq!(after(1), [(carol, 2)]);
    assert_eq!(after(2), []);
    assert_eq!(after(u64::MAX), []);
    let phone = accounts.contacts_after(alice, 1).unwrap().remove(0).account.phone;
    assert_eq!(*phone, *b"phone-carol");
}

fn a_group_is_made_of_users_who_exist_and_changed_by_who_may<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let mut gateway = b.store();
    let [alice, bob, carol] = three(&mut *accounts);
    let made = accounts.create_group(b"Friends", alice, &[bob, UserId(99), alice]).unwrap();
    assert_eq!((made.key.len(), &*made.members), (16, &[alice, bob][..]));
    assert_eq!(gateway.changed(), Ok(true), "a running gateway hears of it");
    let (id, key) = (made.id, made.key.as_bytes());
    use GroupChange::{AlreadyMember, Done, NotAllowed, NotMember, UnknownGroup, UnknownUser};
    assert_eq!(accounts.join_group(GroupId(1), carol, key), Ok(UnknownGroup));
    assert_eq!(accounts.join_group(id, carol, b"0123456789abcdef"), Ok(NotAllowed));
    assert_eq!(accounts.join_group(id, carol, b""), Ok(NotAllowed));
    assert_eq!(accounts.join_group(id, carol, key), Ok(Done));
    assert_eq!(accounts.join_group(id, carol, key), Ok(AlreadyMember));
    let group = GroupKey { tenant: TenantId(0), id };
    let mut members = || {
        let mut members = gateway.members(group).unwrap().to_vec();
        members.sort_unstable();
        members
    };
    assert_eq!(members(), [alice, bob, carol]);
    assert_eq!(accounts.group_members(id, 9), Ok(vec![alice, bob, carol]));
    assert_eq!(accounts.group_members(id, 2), Ok(vec![alice, bob]));
    assert_eq!(accounts.leave_group(id, bob), Ok(Done));
    assert_eq!(accounts.leave_group(id, bob), Ok(NotMember));
    assert_eq!(accounts.leave_group(GroupId(1), bob), Ok(UnknownGroup));
    assert_eq!(accounts.add_member(id, carol, bob), Ok(NotAllowed));
    assert_eq!(accounts.add_member(id, alice, UserId(99)), Ok(UnknownUser));
    assert_eq!(accounts.add_member(id, alice, bob), Ok(Done));
    assert_eq!(accounts.add_member(id, alice, bob), Ok(AlreadyMember));
    assert_eq!(accounts.add_member(GroupId(1), alice, bob), Ok(UnknownGroup));
    assert_eq!(accounts.delete_group(id, bob), Ok(NotAllowed));
    assert_eq!(accounts.leave_group(id, alice), Ok(Done));
    assert_eq!(accounts.delete_group(id, carol), Ok(Done), "it had passed to the oldest");
    assert_eq!(accounts.delete_group(id, carol), Ok(UnknownGroup));
    assert_eq!(members(), []);
    let name = |len| "\u{540d}".repeat(len);
    let mut create = |name: String| accounts.create_group(name.as_bytes(), alice, &[]);
    assert!(create(name(NAME_CHARS_MAX)).is_ok());
    assert!(create(name(NAME_CHARS_MAX + 1)) == Err(StoreError::Full), "the original's column");
    assert_eq!(accounts.group_members(id, 9), Ok(vec![]));
    // Made by an operator: without a key nobody joins by one.
    let key = GroupKey { tenant: TenantId(0), id: GroupId(5) };
    let group = NewGroup { key, ..NewGroup::default() };
    B::make_group(&mut gateway, &group);
    assert_eq!(accounts.join_group(GroupId(5), carol, b""), Ok(NotAllowed));
}

fn what_waits_for_a_user_is_read_and_cleared_apart<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    let mut gateway = b.store();
    let key = UserKey { tenant: TenantId(0), id: UserId(1) };
    let append = |seq: u64| {
        let message = codec::Message {
            stamp: u128::from(seq),
            id: MessageId::new(b"a_02").unwrap(),
            from: None,
            from_name: [].into(),
            to: Target::User(key),
            protocol: ProtocolId::ALL[0],
            time_ms: NOW,
            body: (*b"hello").into(),
        };
        Write::Append(Append { user: key, seq, message: message.into(), binding: None })
    };
    gateway.write(&(1..=3).map(append).collect::<Vec<_>>());
    let mut read = |rows| {
        let (rows, more) = accounts.offline_read(UserId(1), rows).unwrap();
        (rows.iter().map(|row| row.seq).collect::<Vec<_>>(), more)
    };
    assert_eq!(read(2), (vec![1, 2], true));
    assert_eq!(read(9), (vec![1, 2, 3], false), "reading removes nothing");
    b.accounts().offline_clear(UserId(1), &[1, 3]).unwrap();
    assert_eq!(read(9), (vec![2], false), "and no other");
    b.accounts().offline_clear(UserId(1), &[1, 2, 7]).unwrap();
    assert_eq!(read(9), (vec![], false));
    assert_eq!(gateway.changed(), Ok(false), "rows are not cached, and tokens neither");
}

fn token_login(user: &str, token: &[u8]) -> AuthRequest {
    AuthRequest { proof: Proof::Token(token.into()), ..auth(1, user, "") }
}

fn local<B: Backend>(b: &B) -> Box<dyn Authenticator> {
    Box::new(Local::new(Box::new(b.store())))
}

fn named(user: u32, name: &str) -> AuthVerdict {
    let user = UserKey { tenant: TenantId(0), id: UserId(user) };
    AuthVerdict::Pass { user, name: Some(name.as_bytes().into()) }
}

fn a_token_login_needs_a_token_of_that_user_and_makes_it_permanent<B: Backend>() {
    let b = B::open();
    let mut accounts = b.accounts();
    three(&mut *accounts);
    let anonymous = TokenRecord { name: None, ..record(2) };
    accounts.put_token(b"of alice", &record(1), TOKEN_TTL, NOW - 99_999).unwrap();
    accounts.put_token(b"of bob", &anonymous, TOKEN_TTL, NOW - 99_999).unwrap();
    accounts.put_token(b"late", &record(1), TOKEN_TTL, NOW - 100_000).unwrap();
    let mut tokens = Tokens::new(b.accounts(), Box::new(b.store()), local(&b), || NOW);
    let mut verdict = |user, token: &[u8]| tokens.authenticate(&token_login(user, token));
    for (user, token) in [
        ("2", &b"of alice"[..]),
        ("01", b"of alice"),
        ("alice", b"of alice"),
        ("", b"of alice"),
        ("1", b"late"),
        ("1", b"of alice "),
        ("1", b""),
    ] {
        assert_eq!(verdict(user, token), AuthVerdict::Denied, "{user}");
    }
    let permanent = |token: &[u8]| b.accounts().token(token, NOW).unwrap().unwrap().permanent;
    assert!(!permanent(b"of alice"), "a login that failed changes nothing");
    assert_eq!(verdict("1", b"of alice"), named(1, "alice"));
    assert!(permanent(b"of alice"));
    assert_eq!(verdict("1", b"of alice"), named(1, "alice"), "again");
    assert_eq!(verdict("2", b"of bob"), named(2, "bob"), "named by the directory");
    let elsewhere = |tenant| AuthRequest { tenant, ..token_login("1", b"of alice") };
    let other = elsewhere(TenantRef::Id(TenantId(1)));
    assert_eq!(tokens.authenticate(&other), AuthVerdict::Denied);
    let [org, appkey] = [b"nobody", b"knows!"].map(|name| Box::from(&name[..]));
    let unknown = elsewhere(TenantRef::Named { org, appkey });
    assert_eq!(tokens.authenticate(&unknown), AuthVerdict::UnknownTenant);
}

fn proofs_other_than_tokens_are_the_inner_authenticators<B: Backend>() {
    let b = B::open();
    three(&mut *b.accounts());
    let mut tokens = Tokens::new(b.accounts(), Box::new(b.store()), local(&b), || NOW);
    assert_eq!(tokens.authenticate(&auth(1, "alice", "secret")), pass(1));
    let phone = |password: &[u8]| AuthRequest {
        proof: Proof::Phone(password.into()),
        ..auth(1, "phone-bob", "")
    };
    assert_eq!(tokens.authenticate(&phone(b"secret")), named(2, "bob"));
    assert_eq!(tokens.authenticate(&phone(b"wrong")), AuthVerdict::Denied);
    let nothing = AuthRequest { proof: Proof::Nothing, ..auth(1, "alice", "") };
    assert_eq!(tokens.authenticate(&nothing), AuthVerdict::Denied);
}

fn without_a_proof_a_known_name_passes_where_passwords_are_optional<B: Backend>() {
    let b = B::open();
    three(&mut *b.accounts());
    let mut optional = NoPassword::new(Box::new(b.store()), local(&b));
    let nothing = |name| AuthRequest { proof: Proof::Nothing, ..auth(1, name, "") };
    assert_eq!(optional.authenticate(&nothing("bob")), pass(2));
    assert_eq!(optional.authenticate(&nothing("nobody")), AuthVerdict::Denied);
    assert_eq!(optional.authenticate(&auth(1, "bob", "secret")), pass(2));
    assert_eq!(optional.authenticate(&auth(1, "bob", "wrong")), AuthVerdict::Denied);
    assert_eq!(optional.authenticate(&auth(1, "bob", "")), AuthVerdict::Denied, "empty, but given");
}
