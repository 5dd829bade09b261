//! Open authentication: which id a name gets.

mod doubles;

use std::collections::HashSet;
use std::sync::Arc;

use codec::{TenantId, UserId, UserKey};
use doubles::{Handle, auth, double, stored};
use storage::auth::{Authenticator, FIRST_ID, Open, OpenIds, numeric_suffix};
use storage::{AuthRequest, AuthVerdict, Proof, TenantRef};

fn open(ids: &Arc<OpenIds>) -> (Open, Handle) {
    let (store, handle) = double();
    (Open::new(Box::new(store), Arc::clone(ids)), handle)
}

fn ask(open: &mut Open, name: &str, taken: bool) -> u32 {
    match open.authenticate(&AuthRequest { taken, ..auth(1, name, "anything") }) {
        AuthVerdict::Pass { user, name: None } => user.id.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_decimal_number_at_the_end_of_a_name_is_its_id_if_it_fits() {
    for (name, id) in [
        (&b"u42"[..], Some(42)),
        (b"42", Some(42)),
        (b"0", Some(0)),
        (b"user-007", Some(7)),
        (b"a1b2", Some(2)),
        (b"xyb|##|app|##|1234", Some(1234)),
        (b"u4294967295", Some(u32::MAX)),
        (b"u0000000000004294967295", Some(u32::MAX)),
        (b"u4294967296", None),
        (b"13800138000", None),
        (b"99999999999999999999999999", None),
        (b"alice", None),
        (b"42u", None),
        (b"42 ", None),
        (b"", None),
        ("u٤٢".as_bytes(), None),
    ] {
        assert_eq!(numeric_suffix(name), id.map(UserId), "{}", name.escape_ascii());
    }
}

#[test]
fn a_name_keeps_its_id_over_all_threads_and_no_two_names_share_one() {
    let ids = Arc::new(OpenIds::default());
    let all: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut open, _store) = open(&ids);
                    (0..500).map(|i| ask(&mut open, &format!("name{i}x"), false)).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|ids| *ids == all[0]));
    let distinct: HashSet<_> = all[0].iter().collect();
    assert_eq!(distinct.len(), 500);
    assert!(all[0].iter().all(|id| *id >= FIRST_ID));
}

#[test]
fn tenants_do_not_share_names() {
    let ids = Arc::new(OpenIds::default());
    let (mut open, _store) = open(&ids);
    let mut ask = |tenant| {
        let tenant = TenantRef::Id(TenantId(tenant));
        open.authenticate(&AuthRequest { tenant, ..auth(1, "alice", "") })
    };
    assert_ne!(ask(0), ask(1));
    assert_eq!(ask(1), ask(1));
}

#[test]
fn what_is_committed_comes_first() {
    let ids = Arc::new(OpenIds::default());
    let (mut open, store) = open(&ids);
    let before = ask(&mut open, "alice", false);
    store.set(|state| {
        state.users.insert(b"alice".to_vec(), stored(5, b"alice", ""));
    });
    assert_eq!(ask(&mut open, "alice", false), 5);
    assert_eq!(ask(&mut open, "alice", true), 5, "committed is final");
    assert_ne!(before, 5);
}

#[test]
fn a_name_whose_number_is_taken_gets_another_id_and_keeps_it() {
    let ids = Arc::new(OpenIds::default());
    let (mut open, _store) = open(&ids);
    let id = ask(&mut open, "u42", true);
    assert!(id >= FIRST_ID);
    assert_eq!(ask(&mut open, "u42", true), id, "taken means 42, not what it got instead");
    let alice = ask(&mut open, "alice", false);
    let again = ask(&mut open, "alice", true);
    assert_ne!(alice, again, "somebody else is on the id that alice was handed");
    assert_eq!(ask(&mut open, "alice", false), again);
}

#[test]
fn ids_bound_in_the_store_are_passed_over_in_few_steps() {
    let ids = Arc::new(OpenIds::default());
    let (mut open, store) = open(&ids);
    store.set(|state| state.bound = (FIRST_ID..FIRST_ID + 1000).collect());
    let alice = ask(&mut open, "alice", false);
    assert!((FIRST_ID + 1000..FIRST_ID + 3000).contains(&alice), "{alice}");
    assert_eq!(ask(&mut open, "bob", false), alice + 1, "no gaps where nothing is bound");
}

#[test]
fn the_table_is_bounded_and_forgets_the_oldest_name() {
    let ids = Arc::new(OpenIds::new(3));
    let (mut open, _store) = open(&ids);
    let first: Vec<u32> =
        ["a", "b", "c", "d"].map(|name| ask(&mut open, name, false)).into_iter().collect();
    assert_eq!(ask(&mut open, "d", false), first[3]);
    assert_eq!(ask(&mut open, "b", false), first[1]);
    let again = ask(&mut open, "a", false);
    assert!(!first.contains(&again), "an id is not handed out twice while others are left");
}

#[test]
fn a_store_that_is_down_gives_no_verdict() {
    let ids = Arc::new(OpenIds::default());
    let (mut open, store) = open(&ids);
    store.set(|state| state.down = true);
    assert_eq!(open.authenticate(&auth(1, "alice", "")), AuthVerdict::Unavailable);
    assert!(!open.cacheable());
}

#[test]
fn a_token_passes_for_the_id_it_comes_with_under_its_bound_name() {
    let ids = Arc::new(OpenIds::default());
    let (mut open, store) = open(&ids);
    store.set(|state| state.bound = vec![7]);
    let mut login = |name| {
        let proof = Proof::Token((*b"anything").into());
        open.authenticate(&AuthRequest { proof, ..auth(1, name, "") })
    };
    let user = |id| UserKey { tenant: TenantId(0), id: UserId(id) };
    let somebody = Some(Arc::from(&b"somebody"[..]));
    assert_eq!(login("7"), AuthVerdict::Pass { user: user(7), name: somebody });
    assert_eq!(login("8"), AuthVerdict::Pass { user: user(8), name: None });
    assert_eq!(login("u9"), AuthVerdict::Pass { user: user(9), name: None }, "a name like others");
}

#[test]
fn a_tenant_must_exist_even_here() {
    let ids = Arc::new(OpenIds::default());
    let (mut open, _store) = open(&ids);
    let mut login = |org: &[u8]| {
        let tenant = TenantRef::Named { org: org.into(), appkey: (*b"dev").into() };
        open.authenticate(&AuthRequest { tenant, ..auth(1, "u42", "") })
    };
    assert_eq!(login(b"acme"), AuthVerdict::pass(TenantId(5), UserId(42)));
    assert_eq!(login(b"other"), AuthVerdict::UnknownTenant);
}
