//! Local users: passwords in the store as argon2id, and what a login costs.

mod doubles;

use doubles::{Handle, auth, double, pass, stored};
use storage::AuthVerdict;
use storage::auth::{Authenticator, Local, hash_password};

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
