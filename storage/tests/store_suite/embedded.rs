//! What only the embedded store promises: its file, other processes, locks, versions.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use codec::{Answer, Query, Target, TenantId, UserId};
use rusqlite::Connection;
use storage::Admin as _;
use storage::admin::NewGroup;
use storage::sqlite::{OpenError, Options, SqliteStore};
use storage::{Caps, Store as _, StoreError};
use tempfile::TempDir;

use crate::forms::*;
use crate::kit::*;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn files_and_directories_are_the_owners_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a/b/store.db");
    let mut store = SqliteStore::open(&path, Options::default()).unwrap();
    assert_eq!(store.write(&[append(user(1), 1, b"x")]), [OK]);
    assert_eq!(mode(&dir.path().join("a")), 0o700);
    assert_eq!(mode(&dir.path().join("a/b")), 0o700);
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
}

#[test]
fn a_group_message_is_kept_once_and_goes_with_its_last_row() {
    let mut b = Embedded::open(NO_CAPS, None);
    let shared = to_group(1, group(1), &[1; 1_000]);
    let to = |n| append_message(user(n), 1, Arc::clone(&shared));
    b.store().write(&[to(1), to(2), to(3), append(user(4), 1, b"direct")]);
    let bodies = |b: &Embedded| b.sql("SELECT count(*) FROM bodies");
    let inline = "SELECT count(*) FROM delivery WHERE body IS NOT NULL";
    assert_eq!((bodies(&b), b.sql(inline)), (1, 1));
    assert_eq!(b.sql("SELECT refs FROM bodies"), 3);
    b.store().write(&[delete(user(1), 1), dead(user(2), 1)]);
    b.store().write(&[delete(user(3), 1)]);
    assert_eq!(bodies(&b), 1, "a dead letter still needs it");
    assert!(b.drop_dead(user(2), 1));
    assert_eq!(bodies(&b), 0);
    b.store().write(&[to(1), delete(user(1), 1)]);
    assert_eq!(bodies(&b), 0, "come and gone in one batch");
    assert_eq!(b.sql("SELECT bytes FROM totals"), 6);
}

#[test]
fn another_process_is_noticed_and_ones_own_writes_are_not() {
    let mut b = Embedded::open(NO_CAPS, None);
    b.store().write(&[append(user(1), 1, b"")]);
    assert_eq!(b.store().changed(), Ok(false));
    let mut operator = b.handle();
    assert_eq!(b.store().changed(), Ok(false), "to look is no change");
    operator.create_group(&NewGroup { key: group(1), ..NewGroup::default() }).unwrap();
    assert_eq!(b.store().changed(), Ok(true));
    assert_eq!(b.store().changed(), Ok(false));
    assert_eq!(operator.changed(), Ok(false));
    operator.add_members(group(1), &[user(1).id]).unwrap();
    b.gateway().delete_group(group(1)).unwrap();
    assert_eq!(b.store().changed(), Ok(true), "a change of our own does not hide it");
    assert_eq!(b.store().changed(), Ok(false), "nor is it news to us");
    assert_eq!(operator.changed(), Ok(true));
    operator.write(&[append(user(1), 2, b"")]);
    assert_eq!(b.store().changed(), Ok(false), "nobody has rows of another process in memory");
}

#[test]
fn caps_hold_for_two_processes_together() {
    let mut b = Embedded::open(Caps { user_rows: 3, ..NO_CAPS }, None);
    let mut other = b.handle();
    assert_eq!(b.store().write(&[append(user(1), 1, b"")]), [OK]);
    assert_eq!(other.write(&[append(user(1), 2, b"")]), [OK]);
    assert_eq!(b.store().write(&[append(user(1), 3, b""), append(user(1), 4, b"")]), [OK, FULL]);
    assert_eq!(other.write(&[append(user(1), 5, b"")]), [FULL]);
    assert_eq!(b.store().write(&[delete(user(1), 1), delete(user(1), 2)]), [OK; 2]);
    assert_eq!(other.write(&[append(user(1), 6, b""), append(user(1), 7, b"")]), [OK; 2]);
    assert_eq!(seqs(b.store(), user(1)), [3, 6, 7]);
}

#[test]
fn a_locked_database_changes_nothing_and_works_again_when_it_is_free() {
    let options = Options { busy_timeout: Duration::from_millis(20), ..Options::default() };
    let mut b = Embedded::with(options);
    assert_eq!(b.store().write(&[append(user(1), 1, b"")]), [OK]);
    let lock = Connection::open(b.path()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writes = [append(user(1), 2, b""), delete(user(1), 1)];
    assert_eq!(b.store().write(&writes), [UNAVAILABLE; 2]);
    assert!(b.store().trouble().unwrap().contains("locked"), "{:?}", b.store().trouble());
    assert_eq!(seqs(b.store(), user(1)), [1], "reading goes on");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(b.store().write(&writes), [OK; 2]);
    assert_eq!(b.store().trouble(), None);
    assert_eq!(seqs(b.store(), user(1)), [2]);
}

#[test]
fn a_new_file_may_be_opened_by_many_at_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("data/store.db");
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for n in 1..=8 {
            let (path, barrier) = (&path, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut store = SqliteStore::open(path, Options::default()).unwrap();
                assert_eq!(store.write(&[append(user(n), u64::from(n), b"")]), [OK]);
            });
        }
    });
    let mut store = SqliteStore::open(&path, Options::default()).unwrap();
    assert_eq!(store.max_seq(), Ok(8));
    assert!((1..=8).all(|n| seqs(&mut store, user(n)) == [u64::from(n)]));
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let b = Embedded::open(NO_CAPS, None);
    Connection::open(b.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteStore::open(&b.path(), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Newer(_, 99, 2)), "{error}");
    assert_eq!(b.sql("PRAGMA user_version"), 99);
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let text =
        b"this is a letter, not a database; it is long enough to be read as one. ".repeat(20);
    std::fs::write(&path, &text).unwrap();
    let error = SqliteStore::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Sqlite(..)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), text);
}

#[test]
fn a_row_of_a_newer_version_is_passed_over_and_kept() {
    let mut b = Embedded::open(NO_CAPS, None);
    b.store().write(&[append(user(1), 1, b""), append(user(1), 2, b""), append(user(1), 3, b"")]);
    let sql = "UPDATE delivery SET head = x'FF' WHERE seq = 2";
    Connection::open(b.path()).unwrap().execute(sql, []).unwrap();
    assert_eq!(seqs(b.store(), user(1)), [1, 3]);
    assert_eq!(b.gateway().unreadable(), 1);
    assert_eq!(b.sql("SELECT count(*) FROM delivery"), 3);
}

#[test]
fn a_group_beyond_its_bound_is_refused_when_read() {
    let mut b = Embedded::open(NO_CAPS, None);
    b.set_members(group(1), &[user(1).id, user(2).id, user(3).id]);
    let options = Options { group_members_max: 2, ..Options::default() };
    let mut store = SqliteStore::open(&b.path(), options).unwrap();
    assert_eq!(store.members(group(1)), Err(StoreError::Full));
    b.set_members(group(1), &[user(1).id, user(2).id]);
    assert_eq!(store.members(group(1)).unwrap().len(), 2);
}

/// With the schema as it was, and a direct and a group message in heads of form 1.
#[test]
fn a_file_of_version_1_is_brought_up_to_date_and_keeps_everything() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(include_str!("../../src/sqlite/schema.sql")).unwrap();
    conn.execute_batch(
        "INSERT INTO users VALUES (0, 1, x'616C696365', 'hash', '123');
         INSERT INTO groups VALUES (0, 7);
         INSERT INTO group_members VALUES (0, 7, 9), (0, 7, 1);
         INSERT INTO delivery VALUES
             (0, 1, 5, 2, 1, x'00000000000000000000000000000001', 1000, 3,
              x'01010002696400000000020000000000000001000000', x'666F6F'),
             (0, 1, 6, 0, 0, x'00000000000000000000000000000002', 1000, 3, NULL, NULL);
         INSERT INTO bodies VALUES (x'00000000000000000000000000000002', 1, 3,
              x'010200000000000007000000', x'626172');
         UPDATE totals SET rows = 2, bytes = 6, seq_max = 6;
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(conn);
    let mut store = SqliteStore::open(&path, Options::default()).unwrap();
    assert_eq!(store.max_seq(), Ok(6));
    let rows = rows(&mut store, user(1));
    assert_eq!(rows.iter().map(|row| (row.seq, row.charges)).collect::<Vec<_>>(), [(5, 2), (6, 0)]);
    let [direct, shared] = [&rows[0].message, &rows[1].message];
    assert_eq!((direct.from, direct.to), (Some(user(2)), Target::User(user(1))));
    assert_eq!((direct.id.as_bytes(), &*direct.from_name, &*direct.body), {
        (&b"id"[..], &b""[..], &b"foo"[..])
    });
    assert_eq!((shared.to, &*shared.body), (Target::Group(group(7)), &b"bar"[..]));
    let alice = store.user_by_phone(TenantId(0), b"123").unwrap().unwrap();
    assert_eq!((alice.id, &*alice.name), (UserId(1), &b"alice"[..]));
    let members = store.query(user(1), &Query::Members(Box::from(*b"7"))).unwrap().0;
    let Answer::Groups(groups) = members else { panic!("{members:?}") };
    assert_eq!(groups[0].users, [Box::from(&b"alice"[..]), Box::from(&b"9"[..])]);
    assert_eq!((&*groups[0].id, &*groups[0].owner), (&b"7"[..], &b""[..]));
    store.query(user(1), &Query::LeaveGroup(Box::from(*b"7"))).unwrap();
    assert_eq!(&*store.members(group(7)).unwrap(), [UserId(9)]);
    drop(store);
    let version: i64 = Connection::open(&path)
        .unwrap()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(version, 2);
    assert!(SqliteStore::open(&path, Options::default()).is_ok(), "once is enough");
}
