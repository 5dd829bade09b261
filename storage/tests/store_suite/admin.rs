//! The operator's changes: all or none, with an error that names what stands in the way.

use codec::{Answer, GroupKey, Query, TenantId, UserId, UserKey};
use storage::Admin as _;
use storage::accounts::{TOKEN_TTL, TokenRecord};
use storage::admin::{AdminError, GroupInfo, NewGroup, NewUser, UserInfo};
use storage::sqlite::Options;
use storage::sqlite::simple_im::SimpleIm;
use storage::{Accounts as _, SqliteStore, Store as _};
use tempfile::TempDir;

use crate::forms::*;

const DEFAULT: TenantId = TenantId(0);

fn open() -> (TempDir, SqliteStore) {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(&dir.path().join("store.db"), Options::default()).unwrap();
    (dir, store)
}

fn new(id: u32, name: &str, phone: Option<&str>) -> NewUser {
    let (password_hash, phone) = ("hash".to_owned(), phone.map(str::to_owned));
    NewUser { key: user(id), name: name.as_bytes().into(), password_hash, phone }
}

fn new_group(id: u32, members: &[UserId]) -> NewGroup {
    NewGroup { key: group(id), members: members.to_vec(), ..NewGroup::default() }
}

#[test]
fn a_taken_id_name_or_phone_is_named_and_nobody_is_made() {
    let (_dir, mut store) = open();
    store.add_user(new(1, "alice", Some("100"))).unwrap();
    let others = [
        (new(1, "bob", None), "the user id 1 is taken"),
        (new(2, "alice", None), "the name \"alice\" is taken"),
        (new(2, "bob", Some("100")), "the phone number 100 is taken"),
    ];
    for (other, text) in others {
        let error = store.add_users(&[new(3, "carol", None), other]).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(store.list_users(DEFAULT, None, 9).unwrap().len(), 1, "carol is not made");
    }
    let elsewhere = UserKey { tenant: TenantId(1), ..user(1) };
    store.add_user(NewUser { key: elsewhere, ..new(1, "alice", Some("100")) }).unwrap();
    let phone = |store: &mut SqliteStore, phone: &[u8]| {
        store.user_by_phone(DEFAULT, phone).unwrap().map(|user| user.id)
    };
    assert_eq!(phone(&mut store, b"100"), Some(UserId(1)));
    assert_eq!(phone(&mut store, b"200"), None);
}

#[test]
fn many_users_are_made_at_once_and_listed_in_pages() {
    let (_dir, mut store) = open();
    let users: Vec<_> = (0..1_000).map(|id| new(id, &format!("u{id}"), None)).collect();
    store.add_users(&users).unwrap();
    let mut listed: Vec<UserInfo> = Vec::new();
    loop {
        let after = listed.last().map(|user| user.id);
        let page = store.list_users(DEFAULT, after, 300).unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed.len(), 1_000);
    let first =
        UserInfo { id: UserId(0), name: Box::from(*b"u0"), phone: None, has_password: true };
    assert_eq!(listed[0], first);
    assert!(listed.is_sorted_by_key(|user| user.id));
}

#[test]
fn a_deleted_user_leaves_nothing_for_the_next_with_his_id() {
    let (_dir, mut store) = open();
    store.add_users(&[new(1, "alice", None), new(2, "bob", None)]).unwrap();
    store.create_group(&new_group(1, &[UserId(1), UserId(2)])).unwrap();
    let shared = to_group(1, group(1), b"shared");
    store.write(&[
        append(user(1), 1, b"private"),
        append_message(user(1), 2, shared.clone()),
        append_message(user(2), 2, shared.clone()),
        append(user(1), 3, b"dead"),
        dead(user(1), 3),
        dead(user(1), 2),
    ]);
    store.delete_user(user(1)).unwrap();
    assert_eq!(store.delete_user(user(1)), Err(AdminError::NoUser(UserId(1))));
    assert_eq!(store.user_by_name(DEFAULT, b"alice"), Ok(None));
    assert_eq!(seqs(&mut store, user(1)), [0; 0]);
    assert_eq!(store.dead_letters(0, 9), Ok(vec![]));
    assert_eq!(&*store.members(group(1)).unwrap(), [UserId(2)]);
    assert_eq!(rows(&mut store, user(2))[0].message, shared);
    store.add_user(new(1, "alice", None)).unwrap();
}

#[test]
fn groups_are_made_changed_listed_and_deleted() {
    let (_dir, mut store) = open();
    let ids = |ids: &[u32]| ids.iter().copied().map(UserId).collect::<Vec<_>>();
    store.create_group(&new_group(7, &ids(&[1, 2, 3]))).unwrap();
    store.create_group(&new_group(8, &[])).unwrap();
    assert_eq!(store.create_group(&new_group(7, &[])), Err(AdminError::GroupTaken(group(7).id)));
    store.add_members(group(7), &ids(&[3, 4])).unwrap();
    assert_eq!(store.remove_members(group(7), &ids(&[1, 9])), Ok(1));
    let listed = [(7, 3), (8, 0)].map(|(id, members)| GroupInfo {
        id: group(id).id,
        name: None,
        title: Box::default(),
        owner: None,
        members,
    });
    assert_eq!(store.list_groups(DEFAULT, None, 9).unwrap(), listed);
    assert_eq!(store.list_groups(DEFAULT, Some(group(7).id), 9).unwrap(), listed[1..]);
    store.delete_group(group(7)).unwrap();
    assert_eq!(store.members(group(7)).unwrap().len(), 0);
    let none = AdminError::NoGroup(group(7).id);
    assert_eq!(store.add_members(group(7), &[]).as_ref(), Err(&none));
    assert_eq!(store.remove_members(group(7), &[]).as_ref(), Err(&none));
    assert_eq!(store.delete_group(group(7)), Err(none));
}

#[test]
fn a_group_does_not_grow_beyond_its_bound() {
    let dir = TempDir::new().unwrap();
    let options = Options { group_members_max: 2, ..Options::default() };
    let mut store = SqliteStore::open(&dir.path().join("store.db"), options).unwrap();
    let too_large = Err(AdminError::GroupTooLarge(group(1).id, 2));
    assert_eq!(store.create_group(&new_group(1, &[UserId(1), UserId(2), UserId(3)])), too_large);
    assert_eq!(store.list_groups(DEFAULT, None, 9), Ok(vec![]), "not even an empty one");
    store.create_group(&new_group(1, &[UserId(1), UserId(2), UserId(2)])).unwrap();
    assert_eq!(store.add_members(group(1), &[UserId(3)]), too_large);
    assert_eq!(store.members(group(1)).unwrap().len(), 2);
}

#[test]
fn dead_letters_are_requeued_and_dropped_all_or_none() {
    let (_dir, mut store) = open();
    let writes: Vec<_> =
        (1..=3).flat_map(|seq| [append(user(1), seq, b"body"), dead(user(1), seq)]).collect();
    store.write(&writes);
    let letters = store.dead_letters(0, 9).unwrap();
    assert_eq!(letters.iter().map(|letter| letter.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(letters.iter().all(|letter| letter.reason == "poison" && letter.died_ms > 0));
    assert_eq!(letters[0].message, Some(direct(user(1), 1, b"body")));
    assert_eq!(store.dead_letters(letters[0].id, 1).unwrap(), letters[1..2], "in pages");
    let unknown = letters[2].id + 1;
    let none = Err(AdminError::NoDeadLetter(unknown));
    assert_eq!(store.requeue(&[letters[0].id, unknown]), none);
    assert_eq!(store.drop_dead_letters(&[letters[0].id, unknown]), none);
    assert_eq!(store.dead_letters(0, 9).unwrap(), letters);
    assert_eq!((seqs(&mut store, user(1)), store.take_requeued()), (vec![], Ok(vec![])));
    store.requeue(&[letters[0].id, letters[1].id]).unwrap();
    store.drop_dead_letters(&[letters[2].id]).unwrap();
    assert_eq!((seqs(&mut store, user(1)), store.dead_letters(0, 9)), (vec![1, 2], Ok(vec![])));
    store.write(&[dead(user(1), 1)]);
    assert!(store.dead_letters(0, 9).unwrap()[0].id > letters[2].id, "an id is not used again");
}

#[test]
fn a_tenant_keeps_its_number() {
    let (dir, mut store) = open();
    assert_eq!(store.tenant_id("default", "default"), Ok(DEFAULT));
    let acme = store.tenant_id("acme", "chat").unwrap();
    let other = store.tenant_id("acme", "mail").unwrap();
    assert!(acme != DEFAULT && other != DEFAULT && acme != other);
    drop(store);
    let mut store = SqliteStore::open(&dir.path().join("store.db"), Options::default()).unwrap();
    assert_eq!(store.tenant_id("acme", "chat"), Ok(acme));
    let names: Vec<_> = store.tenants().unwrap().into_iter().map(|t| (t.id, t.appkey)).collect();
    assert_eq!(names[1..], [(acme, "chat".to_owned()), (other, "mail".to_owned())]);
}

#[test]
fn a_group_may_have_a_name_a_title_and_an_owner_who_is_a_member() {
    let (_dir, mut store) = open();
    let (name, title) = (Some(Box::from(*b"lobby")), Box::from(*b"The Lobby"));
    let owner = Some(UserId(5));
    let members = vec![UserId(1), UserId(5)];
    let named = NewGroup { key: group(7), name: name.clone(), title, owner, members };
    store.create_group(&named).unwrap();
    let taken = NewGroup { key: group(8), ..named.clone() };
    let error = store.create_group(&taken).unwrap_err();
    assert_eq!(error.to_string(), "the group name \"lobby\" is taken");
    let elsewhere = GroupKey { tenant: TenantId(1), ..group(7) };
    store.create_group(&NewGroup { key: elsewhere, ..named.clone() }).unwrap();
    let info = GroupInfo { id: group(7).id, name, title: named.title, owner, members: 2 };
    assert_eq!(store.list_groups(DEFAULT, None, 9), Ok(vec![info]));
}

#[test]
fn a_group_that_loses_its_owner_passes_to_the_oldest_member_or_to_nobody() {
    let (_dir, mut store) = open();
    store.add_users(&[new(1, "alice", None), new(2, "bob", None)]).unwrap();
    let owned = |id, owner| NewGroup { owner: Some(UserId(owner)), ..new_group(id, &[]) };
    store.create_group(&owned(7, 1)).unwrap();
    store.create_group(&owned(8, 1)).unwrap();
    store.add_members(group(7), &[UserId(9)]).unwrap();
    store.add_members(group(7), &[UserId(2)]).unwrap();
    let owners = |store: &mut SqliteStore| -> Vec<_> {
        let groups = store.list_groups(DEFAULT, None, 9).unwrap();
        groups.iter().map(|group| group.owner.map(|id| id.0)).collect()
    };
    store.delete_user(user(1)).unwrap();
    assert_eq!(owners(&mut store), [Some(9), None]);
    store.remove_members(group(7), &[UserId(9)]).unwrap();
    assert_eq!(owners(&mut store), [Some(2), None]);
}

#[test]
fn a_deleted_user_leaves_no_contacts_and_no_tokens() {
    let (dir, mut store) = open();
    store.add_users(&[new(1, "alice", None), new(2, "bob", None)]).unwrap();
    let add = |name: &[u8]| Query::AddContact(name.into());
    for (id, name) in [(1, &b"bob"[..]), (2, b"alice")] {
        store.query(user(id), &add(name)).unwrap();
    }
    let other = SqliteStore::open(&dir.path().join("store.db"), Options::default()).unwrap();
    let mut accounts = SimpleIm::new(other, DEFAULT);
    let record = TokenRecord {
        user: UserId(1),
        name: None,
        device: Box::default(),
        ip: Box::default(),
        port: 0,
        permanent: false,
    };
    accounts.put_token(b"token", &record, TOKEN_TTL, 0).unwrap();
    store.delete_user(user(1)).unwrap();
    assert_eq!(accounts.token(b"token", 0), Ok(None));
    store.add_user(new(1, "mallory", None)).unwrap();
    for id in [1, 2] {
        let answer = store.query(user(id), &Query::Contacts).unwrap().0;
        assert_eq!(answer, Answer::Contacts(vec![]), "{id}");
    }
}
