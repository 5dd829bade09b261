//! Names, contacts and groups: what every store does with them.

use codec::{Answer, Contact, Failure, Group, GroupId, Query, TenantId, UserId, UserKey};
use storage::roster::{
    CONTACTS_MAX, FIRST_GROUP_ID, GROUP_NAME_LEN_MAX, GROUP_TITLE_LEN_MAX, GROUPS_MAX, LISTED_MAX,
};
use storage::store::Write;
use storage::{Found, NameKind};

use crate::forms::*;
use crate::kit::*;

const ALICE: u32 = 1;
const BOB: u32 = 2;
const CAROL: u32 = 3;

fn open<B: Backend>() -> B {
    let mut b = B::open(NO_CAPS, None);
    for (id, name) in [(ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")] {
        assert!(b.add_user(user(id), name.as_bytes(), ""));
    }
    b
}

fn bytes(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn ask<B: Backend>(b: &mut B, id: u32, query: Query) -> (Answer, Option<u32>) {
    let (answer, changed) = b.store().query(user(id), &query).unwrap();
    (answer, changed.map(|group| group.0))
}

fn failed(failure: Failure) -> (Answer, Option<u32>) {
    (Answer::Failed(failure), None)
}

const UNCHANGED: (Answer, Option<u32>) = (Answer::Done, None);

fn create<B: Backend>(b: &mut B, id: u32, name: &str, users: &[&str]) -> (Answer, Option<u32>) {
    let users = users.iter().map(|name| bytes(name)).collect();
    ask(b, id, Query::CreateGroup { id: bytes(name), title: bytes("Title"), users })
}

fn made(id: &str, owner: &str) -> Answer {
    Answer::Groups(vec![shown(id, owner, &[])])
}

fn shown(id: &str, owner: &str, users: &[&str]) -> Group {
    let users = users.iter().map(|name| bytes(name)).collect();
    Group { id: bytes(id), title: bytes("Title"), owner: bytes(owner), users }
}

fn join(name: &str) -> Query {
    Query::JoinGroup(bytes(name))
}

fn leave(name: &str) -> Query {
    Query::LeaveGroup(bytes(name))
}

fn members(name: &str) -> Query {
    Query::Members(bytes(name))
}

pub(crate) fn tenants_are_found_by_both_of_their_names<B: Backend>() {
    let mut b = B::open(NO_CAPS, None);
    let acme = b.add_tenant("acme", "dev");
    let mut found = |org: &[u8], appkey: &[u8]| b.store().tenant_named(org, appkey).unwrap();
    assert_eq!(found(b"default", b"default"), Some(TenantId(0)));
    assert_eq!(found(b"acme", b"dev"), Some(acme));
    for (org, appkey) in
        [(&b"acme"[..], &b""[..]), (b"", b"dev"), (b"ac", b"medev"), (b"\xff", b"x")]
    {
        assert_eq!(found(org, appkey), None);
    }
}

pub(crate) fn a_name_means_a_user_then_a_group_and_each_by_name_before_number<B: Backend>() {
    let mut b = open::<B>();
    assert!(b.add_user(user(50), b"12", ""));
    assert!(b.add_user(user(51), b"#lobby", ""));
    for (id, name) in [(1, "alice"), (12, "lobby"), (13, "1"), (14, "x"), (60, "007")] {
        b.set_members(group(id), &[]);
        assert!(b.set_group_name(group(id), name.as_bytes()), "{name}");
    }
    b.set_members(group(99), &[]);
    let mut found = |name: &[u8], what| b.store().resolve(TenantId(0), name, what).unwrap();
    let (user, group) = (|id| Some(Found::User(UserId(id))), |id| Some(Found::Group(GroupId(id))));
    for (name, any, only_group) in [
        (&b"alice"[..], user(ALICE), group(1)),
        (b"12", user(50), group(12)),
        (b"1", user(ALICE), group(13)),
        (b"50", user(50), None),
        (b"99", group(99), group(99)),
        (b"lobby", group(12), group(12)),
        (b"#lobby", user(51), None),
        (b"#x", group(14), None),
        (b"#99", group(99), None),
        (b"#alice", group(1), None),
        (b"#50", None, None),
        (b"099", None, None),
        (b"007", group(60), group(60)),
        (b"nobody", None, None),
        (b"", None, None),
        (b"#", None, None),
        (b"4294967296", None, None),
    ] {
        let name_ = name.escape_ascii();
        assert_eq!(found(name, NameKind::Any), any, "{name_}");
        assert_eq!(found(name, NameKind::Group), only_group, "{name_}");
    }
    let elsewhere = b.store().resolve(TenantId(1), b"alice", NameKind::Any);
    assert_eq!(elsewhere, Ok(None), "names are a tenant's own");
}

pub(crate) fn users_are_found_by_phone_and_bindings_need_no_message<B: Backend>() {
    let mut b = open::<B>();
    assert!(b.set_phone(user(ALICE), "18501260698"));
    let mut phone =
        |tenant, phone: &[u8]| b.store().user_by_phone(TenantId(tenant), phone).unwrap();
    assert_eq!(phone(0, b"18501260698").map(|user| (user.id, user.name)), {
        Some((UserId(ALICE), bytes("alice")))
    });
    assert_eq!(phone(1, b"18501260698"), None);
    assert_eq!(phone(0, b"\xff"), None);
    let bind = |id, name: &str| Write::Bind { user: user(id), name: bytes(name) };
    let writes = [bind(7, "dave"), bind(7, "eve"), bind(8, "dave"), bind(8, "alice")];
    assert_eq!(b.store().write(&writes), [OK; 4]);
    assert_eq!(b.store().name_of(user(7)), Ok(Some(bytes("dave"))));
    assert_eq!(b.store().name_of(user(8)), Ok(None));
}

pub(crate) fn a_message_to_the_public_room_is_never_stored<B: Backend>() {
    let mut b = open::<B>();
    let write = append_message(user(1), 1, to_room(1));
    assert_eq!(b.store().write(&[write, append(user(1), 2, b"")]), [FULL, OK]);
    assert_eq!(seqs(b.store(), user(1)), [2]);
}

pub(crate) fn contacts_are_directed_and_adding_and_removing_may_be_repeated<B: Backend>() {
    let mut b = open::<B>();
    let add = |name: &str| Query::AddContact(bytes(name));
    let remove = |name: &str| Query::RemoveContact(bytes(name));
    for (name, id) in [("carol", CAROL), ("bob", BOB)] {
        let added = (Answer::ContactAdded(UserId(id)), None);
        assert_eq!(ask(&mut b, ALICE, add(name)), added, "{name}");
    }
    for name in ["carol", "bob", "2"] {
        assert_eq!(ask(&mut b, ALICE, add(name)), UNCHANGED, "{name}");
    }
    assert_eq!(ask(&mut b, ALICE, add("nobody")), failed(Failure::Unknown));
    assert_eq!(ask(&mut b, ALICE, add("99")), failed(Failure::Unknown));
    let contact = |id, name| Contact { id: UserId(id), name: bytes(name), online: false };
    let both = Answer::Contacts(vec![contact(BOB, "bob"), contact(CAROL, "carol")]);
    assert_eq!(ask(&mut b, ALICE, Query::Contacts), (both, None));
    assert_eq!(ask(&mut b, BOB, Query::Contacts), (Answer::Contacts(vec![]), None));
    for name in ["carol", "carol", "nobody"] {
        assert_eq!(ask(&mut b, ALICE, remove(name)), UNCHANGED, "{name}");
    }
    let mut b = b.restart();
    let bob = Answer::Contacts(vec![contact(BOB, "bob")]);
    assert_eq!(ask(&mut b, ALICE, Query::Contacts), (bob, None));
    let namesake = UserKey { tenant: TenantId(1), id: UserId(ALICE) };
    let elsewhere = b.store().query(namesake, &Query::AddContact(bytes("bob")));
    assert_eq!(elsewhere, Ok((Answer::Failed(Failure::Unknown), None)));
}

pub(crate) fn contacts_are_bounded<B: Backend>() {
    let mut b = open::<B>();
    let binds: Vec<_> = (0..=CONTACTS_MAX)
        .map(|n| Write::Bind { user: user(1000 + n), name: bytes(&format!("u{n}")) })
        .collect();
    b.store().write(&binds);
    let add = |n: u32| (user(ALICE), Query::AddContact(bytes(&format!("u{n}"))));
    let all: Vec<_> = (0..=CONTACTS_MAX).chain([0]).map(add).collect();
    let mut answers = b.store().queries(&all);
    assert_eq!(answers.pop(), Some(Ok((Answer::Done, None))), "he is one already");
    assert_eq!(answers.pop(), Some(Ok((Answer::Failed(Failure::TooMany), None))));
    let added = (1000..).map(|id| Ok((Answer::ContactAdded(UserId(id)), None)));
    assert!(answers.into_iter().eq(added.take(CONTACTS_MAX as usize)));
}

pub(crate) fn a_group_gets_the_name_or_number_it_asks_for_or_a_free_one<B: Backend>() {
    let mut b = open::<B>();
    let first = FIRST_GROUP_ID;
    assert_eq!(create(&mut b, ALICE, "lobby", &[]), (made("lobby", "alice"), Some(first)));
    assert_eq!(create(&mut b, ALICE, "12", &[]), (made("12", "alice"), Some(12)));
    let unnamed = (made(&(first + 1).to_string(), "alice"), Some(first + 1));
    assert_eq!(create(&mut b, ALICE, "", &[]), unnamed);
    assert_eq!(create(&mut b, ALICE, "", &[]).1, Some(first + 2));
    for taken in ["lobby", "12", &first.to_string()] {
        assert_eq!(create(&mut b, BOB, taken, &[]), failed(Failure::Exists), "{taken}");
    }
    assert_eq!(create(&mut b, ALICE, "012", &[]).1, Some(first + 3), "a name, not a number");
    assert_eq!(ask(&mut b, ALICE, leave(&(first + 3).to_string())).1, Some(first + 3));
    let mut b = b.restart();
    assert_eq!(create(&mut b, ALICE, "", &[]).1, Some(first + 4), "not that of the deleted one");
    let claimed = (first + 5).to_string();
    assert_eq!(create(&mut b, ALICE, &claimed, &[]).1, Some(first + 5));
    assert_eq!(create(&mut b, ALICE, "", &[]).1, Some(first + 6), "somebody has taken the next");
}

pub(crate) fn a_groups_maker_owns_it_and_unknown_users_are_left_out<B: Backend>() {
    let mut b = open::<B>();
    let users = ["carol", "nobody", "2", "carol", "alice"];
    let (answer, id) = create(&mut b, ALICE, "lobby", &users);
    assert_eq!(answer, made("lobby", "alice"));
    let all = Answer::Groups(vec![shown("lobby", "alice", &["alice", "carol", "bob"])]);
    assert_eq!(ask(&mut b, BOB, members("lobby")), (all, None));
    let mut ids = b.store().members(group(id.unwrap())).unwrap().to_vec();
    ids.sort_unstable();
    assert_eq!(ids, [ALICE, BOB, CAROL].map(UserId));
    create(&mut b, BOB, "7", &["alice"]);
    let both = Answer::Groups(vec![shown("7", "bob", &[]), shown("lobby", "alice", &[])]);
    assert_eq!(ask(&mut b, ALICE, Query::Groups), (both, None));
    let one = Answer::Groups(vec![shown("lobby", "alice", &[])]);
    assert_eq!(ask(&mut b, CAROL, Query::Groups), (one, None));
}

pub(crate) fn users_without_a_name_are_shown_by_their_number<B: Backend>() {
    let mut b = open::<B>();
    assert_eq!(create(&mut b, 70, "lobby", &["alice"]).0, made("lobby", "70"));
    let all = Answer::Groups(vec![shown("lobby", "70", &["70", "alice"])]);
    assert_eq!(ask(&mut b, ALICE, members("lobby")), (all, None));
}

pub(crate) fn joining_is_open_and_leaving_may_be_repeated<B: Backend>() {
    let mut b = open::<B>();
    let id = create(&mut b, ALICE, "lobby", &[]).1;
    assert_eq!(ask(&mut b, BOB, members("lobby")), failed(Failure::NotAllowed));
    assert_eq!(ask(&mut b, BOB, join("lobby")), (Answer::Done, id));
    assert_eq!(ask(&mut b, BOB, join("lobby")), UNCHANGED);
    assert_eq!(b.store().members(group(id.unwrap())).unwrap().len(), 2);
    assert_eq!(ask(&mut b, BOB, leave("lobby")), (Answer::Done, id));
    assert_eq!(ask(&mut b, BOB, leave("lobby")), UNCHANGED);
    assert_eq!(ask(&mut b, BOB, leave("nothing")), UNCHANGED);
    assert_eq!(ask(&mut b, BOB, join("nothing")), failed(Failure::Unknown));
    assert_eq!(ask(&mut b, BOB, members("nothing")), failed(Failure::Unknown));
    let refused = Query::Refused(Failure::Unsupported);
    assert_eq!(ask(&mut b, BOB, refused), failed(Failure::Unsupported));
}

pub(crate) fn a_group_passes_to_its_oldest_member_and_ends_with_the_last<B: Backend>() {
    let mut b = open::<B>();
    let id = create(&mut b, ALICE, "lobby", &[]).1;
    ask(&mut b, CAROL, join("lobby"));
    ask(&mut b, BOB, join("lobby"));
    ask(&mut b, CAROL, leave("lobby"));
    ask(&mut b, CAROL, join("lobby"));
    let mut b = b.restart();
    ask(&mut b, ALICE, leave("lobby"));
    let rest = Answer::Groups(vec![shown("lobby", "bob", &["bob", "carol"])]);
    assert_eq!(ask(&mut b, CAROL, members("lobby")), (rest, None), "bob was there before carol");
    ask(&mut b, CAROL, leave("lobby"));
    assert_eq!(ask(&mut b, BOB, leave("lobby")), (Answer::Done, id));
    assert_eq!(ask(&mut b, BOB, members("lobby")), failed(Failure::Unknown));
    assert_eq!(b.store().members(group(id.unwrap())).unwrap().len(), 0);
    assert_eq!(create(&mut b, BOB, "lobby", &[]).0, made("lobby", "bob"), "the name is free");
}

pub(crate) fn groups_are_bounded_and_nothing_is_left_of_one_that_was_refused<B: Backend>() {
    let mut b = B::with_members_max(2);
    for (id, name) in [(ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")] {
        assert!(b.add_user(user(id), name.as_bytes(), ""));
    }
    let long = "x".repeat(GROUP_NAME_LEN_MAX + 1);
    assert_eq!(create(&mut b, ALICE, &long, &[]), failed(Failure::TooLarge));
    let title = vec![b'x'; GROUP_TITLE_LEN_MAX + 1].into();
    let large = Query::CreateGroup { id: bytes("lobby"), title, users: vec![] };
    assert_eq!(ask(&mut b, ALICE, large), failed(Failure::TooLarge));
    assert_eq!(create(&mut b, ALICE, "lobby", &["bob", "carol"]), failed(Failure::TooMany));
    assert_eq!(ask(&mut b, ALICE, join("lobby")), failed(Failure::Unknown));
    assert_eq!(create(&mut b, ALICE, "lobby", &["bob"]).0, made("lobby", "alice"));
    assert_eq!(ask(&mut b, CAROL, join("lobby")), failed(Failure::TooMany));
    assert_eq!(ask(&mut b, BOB, join("lobby")), UNCHANGED);
}

pub(crate) fn a_user_is_in_a_bounded_number_of_groups<B: Backend>() {
    let mut b = open::<B>();
    let new = |n: u32, users: &[&str]| Query::CreateGroup {
        id: bytes(&format!("g{n}")),
        title: bytes(""),
        users: users.iter().map(|name| bytes(name)).collect(),
    };
    let all: Vec<_> = (0..=GROUPS_MAX).map(|n| (user(ALICE), new(n, &[]))).collect();
    let mut answers = b.store().queries(&all);
    assert_eq!(answers.pop(), Some(Ok((Answer::Failed(Failure::TooMany), None))));
    assert!(answers.iter().all(|answer| matches!(answer, Ok((Answer::Groups(_), Some(_))))));
    create(&mut b, BOB, "lobby", &["alice", "carol"]);
    let without = Answer::Groups(vec![shown("lobby", "bob", &["bob", "carol"])]);
    assert_eq!(ask(&mut b, BOB, members("lobby")), (without, None), "nobody is put into more");
    assert_eq!(ask(&mut b, ALICE, join("lobby")), failed(Failure::TooMany));
    ask(&mut b, ALICE, leave("g0"));
    assert!(ask(&mut b, ALICE, join("lobby")).1.is_some());
}

pub(crate) fn members_of_a_large_group_are_not_listed<B: Backend>() {
    let mut b = open::<B>();
    let ids: Vec<_> = (0..=LISTED_MAX).map(UserId).collect();
    b.set_members(group(7), &ids[1..]);
    let (answer, _) = ask(&mut b, ALICE, members("7"));
    assert!(matches!(answer, Answer::Groups(groups) if groups[0].users.len() == 10_000));
    b.set_members(group(7), &ids);
    assert_eq!(ask(&mut b, ALICE, members("7")), failed(Failure::TooLarge));
}
