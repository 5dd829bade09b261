//! The store thread's logic under a clock of the test's own: order, group commit, back-off.

mod doubles;

use std::sync::Arc;
use std::time::Duration;

use codec::{GroupId, GroupKey, Query, TenantId};
use doubles::{Handle, append, auth, delete, double, read, stored, user, word};
use storage::auth::{Authenticator as _, Open, OpenIds};
use storage::sidecar::StoreWorker;
use storage::{AuthVerdict, DeadReason, NameKind, Request};

const START: Duration = Duration::from_secs(100);

fn worker(retained_len_max: usize) -> (StoreWorker, Handle) {
    let (store, handle) = double();
    (StoreWorker::new(Box::new(store), retained_len_max), handle)
}

/// Runs one batch of shard 0; the replies in words.
fn run(worker: &mut StoreWorker, now: Duration, requests: Vec<Request>) -> Vec<String> {
    let mut batch = requests.into_iter().map(|request| (0, request)).collect();
    let mut replies = Vec::new();
    worker.run(&mut batch, now, &mut replies);
    assert!(batch.is_empty());
    replies.iter().map(|(_, reply)| word(reply)).collect()
}

fn round(id: u32, seq: u64) -> Request {
    Request::FailedRound { user: user(id), seq, charge: true }
}

fn dead(id: u32, seq: u64) -> Request {
    Request::DeadLetter { user: user(id), seq, reason: DeadReason::Poison }
}

#[test]
fn a_batch_is_one_commit_and_replies_keep_the_order_of_requests_and_the_shards() {
    let (mut worker, store) = worker(8);
    let group = GroupKey { tenant: TenantId(0), id: GroupId(9) };
    let mut batch = vec![
        (3, append(1, 1)),
        (5, delete(1, 1)),
        (5, Request::Members { group }),
        (3, append(2, 2)),
        (5, append(3, 3)),
    ];
    let mut replies = Vec::new();
    worker.run(&mut batch, START, &mut replies);
    let got: Vec<_> = replies.iter().map(|(shard, reply)| (*shard, word(reply))).collect();
    let expected = [(5, "members 9 2"), (3, "appended 2 2"), (5, "appended 3 3")];
    assert_eq!(got[0], (3, "appended 1 1".to_owned()));
    assert_eq!(got[1..], expected.map(|(shard, reply)| (shard, reply.to_owned())));
    assert_eq!(
        store.log(),
        ["append 1 1", "delete 1 1", "append 2 2", "append 3 3", "commit", "members 9"]
    );
}

#[test]
fn a_read_sees_the_earlier_writes_of_its_user_and_not_the_later_ones() {
    let (mut worker, store) = worker(8);
    let replies = run(
        &mut worker,
        START,
        vec![append(1, 1), read(2), append(2, 1), read(1), append(1, 2), read(1), append(3, 1)],
    );
    assert_eq!(
        replies,
        [
            "appended 1 1",
            "rows 2 []",
            "appended 2 1",
            "rows 1 [1]",
            "appended 1 2",
            "rows 1 [1, 2]",
            "appended 3 1"
        ]
    );
    assert_eq!(
        store.log(),
        [
            "read 2",
            "append 1 1",
            "append 2 1",
            "commit",
            "read 1",
            "append 1 2",
            "append 3 1",
            "commit",
            "read 1"
        ],
        "a segment ends only where a write must not be seen"
    );
}

#[test]
fn a_refused_append_does_not_disturb_its_neighbours() {
    let (mut worker, store) = worker(8);
    store.set(|state| state.full = true);
    assert_eq!(
        run(&mut worker, START, vec![append(1, 1), delete(2, 2), append(1, 2)]),
        ["full 1 1", "full 1 2"]
    );
    store.set(|state| state.full = false);
    assert_eq!(run(&mut worker, START, vec![append(1, 3)]), ["appended 1 3"], "no back-off");
    assert_eq!(worker.figures().full, 2);
}

#[test]
fn an_unavailable_store_is_not_asked_again_before_the_back_off_and_appends_are_answered() {
    let (mut worker, store) = worker(8);
    store.set(|state| state.down = true);
    assert_eq!(run(&mut worker, START, vec![append(1, 1)]), ["unavailable 1 1"]);
    for millis in 0..50 {
        let now = START + Duration::from_millis(millis);
        assert_eq!(run(&mut worker, now, vec![append(1, 1)]), ["unavailable 1 1"]);
    }
    assert_eq!(store.get(|state| state.write_calls), 1);
    store.set(|state| state.down = false);
    let now = START + Duration::from_millis(50);
    assert_eq!(run(&mut worker, now, vec![append(1, 1)]), ["appended 1 1"]);
    assert_eq!(worker.figures().unavailable, 51);
}

#[test]
fn the_back_off_doubles_up_to_its_bound_and_starts_over_after_success() {
    let (mut worker, store) = worker(8);
    store.set(|state| state.down = true);
    run(&mut worker, START, vec![delete(1, 1)]);
    let mut now = START;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let next = worker.retry_at().expect("a delete waits");
        pauses.push((next - now).as_millis());
        now = next;
        run(&mut worker, now, vec![]);
    }
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
    store.set(|state| state.down = false);
    now = worker.retry_at().expect("still waits");
    run(&mut worker, now, vec![]);
    assert_eq!(worker.retry_at(), None);
    store.set(|state| state.down = true);
    run(&mut worker, now, vec![delete(1, 2)]);
    assert_eq!(worker.retry_at(), Some(now + Duration::from_millis(50)));
}

#[test]
fn writes_without_a_reply_are_repeated_in_order_before_any_later_write() {
    let (mut worker, store) = worker(100);
    run(&mut worker, START, vec![append(1, 1), append(1, 2), append(2, 3)]);
    store.set(|state| (state.down, state.log) = (true, Vec::new()));
    let failed = vec![delete(1, 1), append(1, 4), round(1, 2)];
    assert_eq!(run(&mut worker, START, failed), ["unavailable 1 4"]);
    assert_eq!(run(&mut worker, START, vec![dead(2, 3), append(2, 5)]), ["unavailable 2 5"]);
    assert_eq!(worker.figures().retained, 3);

    store.set(|state| (state.down, state.log) = (false, Vec::new()));
    let now = START + Duration::from_secs(1);
    assert_eq!(run(&mut worker, now, vec![append(1, 4), delete(1, 2)]), ["appended 1 4"]);
    assert_eq!(
        store.log(),
        ["delete 1 1", "round 1 2", "dead 2 3", "commit", "append 1 4", "delete 1 2", "commit"]
    );
    assert_eq!(worker.figures().retained, 0);
    let left: Vec<u64> = store.get(|state| state.rows.keys().map(|&(_, seq)| seq).collect());
    assert_eq!(left, [4]);
}

#[test]
fn a_read_behind_a_retained_write_waits_for_it_and_other_reads_go_on() {
    let (mut worker, store) = worker(100);
    run(&mut worker, START, vec![append(1, 1), append(2, 2)]);
    store.set(|state| state.down = true);
    assert_eq!(
        run(&mut worker, START, vec![delete(1, 1), read(1), read(2)]),
        ["rows 1 unavailable", "rows 2 [2]"],
        "row 1 would be delivered a second time"
    );
    store.set(|state| state.down = false);
    let now = START + Duration::from_secs(1);
    assert_eq!(run(&mut worker, now, vec![read(1)]), ["rows 1 []"]);
}

#[test]
fn what_is_retained_is_bounded_and_given_up_from_the_oldest_delete_on() {
    let (mut worker, store) = worker(16);
    store.set(|state| state.down = true);
    run(&mut worker, START, vec![round(1, 1)]);
    for seq in 2..=100 {
        run(&mut worker, START, vec![delete(1, seq)]);
    }
    let figures = worker.figures();
    assert!(figures.retained <= 16, "{figures:?}");
    assert_eq!(figures.retained + figures.retained_dropped, 100);
    store.set(|state| (state.down, state.log) = (false, Vec::new()));
    worker.finish(START);
    let log = store.log();
    assert_eq!(log.first().map(String::as_str), Some("round 1 1"));
    assert_eq!(log[log.len() - 2..], ["delete 1 100", "commit"]);
}

#[test]
fn finish_tries_what_is_retained_once_more_whatever_the_back_off() {
    let (mut worker, store) = worker(8);
    store.set(|state| state.down = true);
    run(&mut worker, START, vec![delete(1, 1)]);
    store.set(|state| (state.down, state.log) = (false, Vec::new()));
    worker.finish(START);
    assert_eq!(store.log(), ["delete 1 1", "commit"]);
}

fn resolve(token: u64, name: &str, what: NameKind) -> Request {
    Request::Resolve { token, tenant: TenantId(0), name: name.as_bytes().into(), what }
}

fn query(id: u32, query: Query, binding: Option<&str>) -> Request {
    let binding = binding.map(|name| name.as_bytes().into());
    Request::Query { token: u64::from(id), user: user(id), query, binding }
}

fn text(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

#[test]
fn names_are_resolved_in_the_order_of_the_queue() {
    let (mut worker, store) = worker(8);
    store.set(|state| drop(state.users.insert(b"alice".to_vec(), stored(7, b"alice", ""))));
    let replies = run(
        &mut worker,
        START,
        vec![
            resolve(1, "alice", NameKind::Any),
            append(1, 1),
            resolve(2, "alice", NameKind::Group),
            resolve(3, "lobby", NameKind::Any),
            resolve(4, "u42", NameKind::Any),
        ],
    );
    let expected = ["resolved 1 user 7", "appended 1 1", "resolved 2 nobody", "resolved 3 group 9"];
    assert_eq!(replies[..4], expected);
    assert_eq!(replies[4], "resolved 4 nobody", "nobody is made where logins need an account");
    assert_eq!(worker.figures().resolved, 4);
}

#[test]
fn with_open_authentication_a_name_means_the_id_that_a_login_would_get() {
    let ids = Arc::new(OpenIds::default());
    let (worker, store) = worker(8);
    let mut worker = worker.with_open_ids(Some(Arc::clone(&ids)));
    let mut open = Open::new(Box::new(double().0), ids);
    let mut login = |name| match open.authenticate(&auth(1, name, "")) {
        AuthVerdict::Pass { user, .. } => user.id.0,
        other => panic!("{other:?}"),
    };
    let (carol, lobby) = (login("carol"), login("lobby"));
    store.set(|state| {
        state.users.insert(b"alice".to_vec(), stored(7, b"alice", ""));
        state.bound = vec![50];
    });
    let mut word = |name: &str, what| {
        let reply = run(&mut worker, START, vec![resolve(1, name, what)]).remove(0);
        reply.strip_prefix("resolved 1 ").unwrap().to_owned()
    };
    for (name, expected) in [
        ("alice", "user 7".to_owned()),
        ("carol", format!("user {carol}")),
        ("u42", "user 42".to_owned()),
        ("u50", "nobody".to_owned()),
        (&format!("x{carol}"), "nobody".to_owned()),
        ("nobody", "nobody".to_owned()),
        ("lobby", format!("user {lobby}")),
        ("#lobby", "group 9".to_owned()),
        ("#u42", "nobody".to_owned()),
    ] {
        assert_eq!(word(name, NameKind::Any), expected, "{name}");
    }
    assert_eq!(word("lobby", NameKind::Group), "group 9");
    assert_eq!(word("u42", NameKind::Group), "nobody");
}

#[test]
fn a_query_binds_the_names_it_makes_something_of() {
    let (worker, store) = worker(8);
    let mut worker = worker.with_open_ids(Some(Arc::default()));
    let users = ["u43", "u44", "nobody"].map(text).to_vec();
    let create = Query::CreateGroup { id: text("lobby"), title: text(""), users };
    for (asked, expected) in [
        (Query::Contacts, &["query 1"][..]),
        (
            Query::AddContact(text("u42")),
            &["resolve u42", "bind 1 one", "bind 42 u42", "commit", "query 1"],
        ),
        (Query::RemoveContact(text("u45")), &["bind 1 one", "commit", "query 1"]),
        (
            create,
            &[
                "resolve u43",
                "resolve u44",
                "resolve nobody",
                "bind 1 one",
                "bind 43 u43",
                "bind 44 u44",
                "commit",
                "query 1",
            ],
        ),
    ] {
        store.set(|state| state.log.clear());
        assert_eq!(run(&mut worker, START, vec![query(1, asked, Some("one"))]), ["answer 1 Done"]);
        assert_eq!(store.log(), expected);
    }
    store.set(|state| state.log.clear());
    run(&mut worker, START, vec![query(1, Query::JoinGroup(text("x")), None)]);
    assert_eq!(store.log(), ["query 1"]);
    assert_eq!(worker.figures().queries, 5);
}

#[test]
fn members_are_looked_up_after_the_queries_of_their_batch_which_are_told_first() {
    let (mut worker, store) = worker(8);
    let group = GroupKey { tenant: TenantId(0), id: GroupId(9) };
    let join = query(2, Query::JoinGroup(text("lobby")), None);
    let batch = vec![query(1, Query::Groups, None), Request::Members { group }, join];
    let replies = run(&mut worker, START, batch);
    assert_eq!(replies, ["answer 1 Done", "members 9 2", "answer 2 Done"]);
    assert_eq!(store.log(), ["query 1", "query 2", "members 9"], "whatever the order");
    assert_eq!(worker.changed_groups().collect::<Vec<_>>(), [group]);
    assert_eq!(worker.changed_groups().count(), 0, "told once");
}

#[test]
fn a_query_that_changes_something_waits_for_the_back_off_like_an_append() {
    let (mut worker, store) = worker(8);
    let join = || query(1, Query::JoinGroup(text("lobby")), None);
    let list = || query(2, Query::Groups, None);
    store.set(|state| state.down = true);
    let batch = vec![join(), join(), list(), append(1, 1)];
    let unavailable = ["answer 1 unavailable", "answer 1 unavailable", "answer 2 unavailable"];
    assert_eq!(run(&mut worker, START, batch)[..3], unavailable);
    store.set(|state| state.log.clear());
    assert_eq!(run(&mut worker, START, vec![join(), list()]), unavailable[1..]);
    assert_eq!(store.log(), ["query 2"], "asked only for reading");
    store.set(|state| state.down = false);
    assert_eq!(run(&mut worker, START, vec![join(), list()]), [unavailable[0], "answer 2 Done"]);
    let now = START + Duration::from_millis(50);
    assert_eq!(run(&mut worker, now, vec![join()]), ["answer 1 Done"]);
    assert_eq!(worker.changed_groups().count(), 1);
}
