//! Local users: passwords in the store as argon2id, and what a login costs.

mod doubles;

use std::sync::Arc;

use codec::{TenantId, UserId, UserKey};
use doubles::{Handle, auth, double, pass, stored};
use storage::auth::{Authenticator, Local, hash_password};
use storage::{AuthRequest, AuthVerdict, Proof, TenantRef};

fn local(users: &[(&str, u32, &str)]) -> (Local, Handle) {
    let (store, handle) = double();
    handle.set(|state| {
        for &(name, id, hash) in users {
            let user = stored(id, name.as_bytes(), hash);
            state.users.insert(name.as_bytes().to_vec(), user);
        }
    });
    (Local::new(Box::new(store)), handle)
}

#[test]
fn the_right_password_passes_and_nothing_else_does() {
    let hash = hash_password("pässword 1".as_bytes());
    let (mut local, store) = local(&[("alice", 7, &hash), ("guest", 8, ""), ("odd", 9, "md5?")]);
    let mut verdict = |name, password| local.authenticate(&auth(1, name, password));
    assert_eq!(verdict("alice", "pässword 1"), pass(7));
    for (name, password) in [
        ("alice", "password 1"),
        ("alice", ""),
        ("Alice", "pässword 1"),
        ("alice ", "pässword 1"),
        ("guest", ""),
        ("odd", "md5?"),
        ("nobody", "pässword 1"),
    ] {
        assert_eq!(verdict(name, password), AuthVerdict::Denied, "{name} {password}");
    }
    store.set(|state| state.down = true);
    assert_eq!(verdict("alice", "pässword 1"), AuthVerdict::Unavailable, "down is not denied");
}

#[test]
fn an_unknown_user_costs_the_time_of_a_wrong_password() {
    let hash = hash_password(b"secret");
    let (mut local, _store) = local(&[("alice", 7, &hash), ("guest", 8, ""), ("odd", 9, "x")]);
    let mut cheapest = |name: &str| -> u64 {
        let cost = |_| {
            let start = processor_ns();
            assert_eq!(local.authenticate(&auth(1, name, "wrong")), AuthVerdict::Denied);
            processor_ns() - start
        };
        (0..5).map(cost).min().expect("five times")
    };
    let wrong = cheapest("alice");
    for name in ["nobody", "guest", "odd"] {
        let other = cheapest(name);
        // Without the decoy it would be thousands of times less.
        assert!(other * 5 > wrong && wrong * 5 > other, "{name}: {other} ns, wrong: {wrong} ns");
    }
}

/// What this thread has used of a processor: other than the clock, the same on a busy machine.
fn processor_ns() -> u64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    statistics.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_phone_number_finds_its_user_and_names_him() {
    let (mut local, store) = local(&[]);
    let alice = stored(7, b"alice", &hash_password(b"secret"));
    store.set(|state| drop(state.phones.insert(b"123".to_vec(), alice)));
    let login = |name, proof| AuthRequest { proof, ..auth(1, name, "") };
    let secret = || Box::from(*b"secret");
    let user = UserKey { tenant: TenantId(0), id: UserId(7) };
    let named = AuthVerdict::Pass { user, name: Some(Arc::from(&b"alice"[..])) };
    assert_eq!(local.authenticate(&login("123", Proof::Phone(secret()))), named);
    for (name, proof) in [
        ("123", Proof::Password(secret())),
        ("123", Proof::Phone(Box::default())),
        ("alice", Proof::Phone(secret())),
        ("123", Proof::Token(secret())),
        ("123", Proof::Nothing),
    ] {
        assert_eq!(local.authenticate(&login(name, proof)), AuthVerdict::Denied, "{name}");
    }
}

#[test]
fn a_tenant_by_name_is_looked_for_in_the_directory() {
    let (mut local, _store) = local(&[("alice", 7, &hash_password(b"secret"))]);
    let login = |appkey: &[u8]| {
        let tenant = TenantRef::Named { org: (*b"acme").into(), appkey: appkey.into() };
        AuthRequest { tenant, ..auth(1, "alice", "secret") }
    };
    let pass = AuthVerdict::pass(TenantId(5), UserId(7));
    assert_eq!(local.authenticate(&login(b"dev")), pass);
    assert_eq!(local.authenticate(&login(b"prod")), AuthVerdict::UnknownTenant);
}

#[test]
fn a_password_of_simple_im_still_passes() {
    // printf 888888c2FsdHNhbHRzYWx0 | md5sum
    let hash = "$simple-im-md5$c2FsdHNhbHRzYWx0$e17a95830288e2f1d1973884327d9aa6";
    let (mut local, _store) = local(&[("alice", 7, hash)]);
    assert_eq!(local.authenticate(&auth(1, "alice", "888888")), pass(7));
    assert_eq!(local.authenticate(&auth(1, "alice", "888889")), AuthVerdict::Denied);
}
