//! Failures that only somebody with the connection in hand can cause.

use codec::{Message, MessageId, ProtocolId, Target};
use rusqlite::StatementStatus;
use tempfile::TempDir;

use super::*;
use crate::request::Append;

fn open() -> (TempDir, SqliteStore) {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(&dir.path().join("store.db"), Options::default()).unwrap();
    (dir, store)
}

fn user(id: u32) -> UserKey {
    UserKey { tenant: TenantId(0), id: UserId(id) }
}

fn append(seq: u64, len: usize) -> Write {
    let message = Arc::new(Message {
        stamp: u128::from(seq),
        id: MessageId::new(b"id").unwrap(),
        from: None,
        from_name: [].into(),
        to: Target::User(user(1)),
        protocol: ProtocolId::ALL[0],
        time_ms: 1,
        body: vec![7; len].into(),
    });
    Write::Append(Append { user: user(1), seq, message, binding: Some(Box::from(*b"name")) })
}

fn pragma(store: &SqliteStore, name: &str, value: i64) {
    store.db.as_ref().unwrap().conn.pragma_update(None, name, value).unwrap();
}

fn pragma_value(store: &SqliteStore, name: &str) -> i64 {
    store.db.as_ref().unwrap().conn.pragma_query_value(None, name, |row| row.get(0)).unwrap()
}

fn seqs(store: &mut SqliteStore) -> Vec<u64> {
    let (rows, _) = store.read(user(1), 0, u32::MAX, u32::MAX).unwrap();
    rows.iter().map(|row| row.seq).collect()
}

#[test]
fn every_commit_is_flushed_to_the_log() {
    let (_dir, store) = open();
    let conn = &store.db.as_ref().unwrap().conn;
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    assert_eq!(pragma_value(&store, "synchronous"), 2, "FULL");
}

#[test]
fn a_full_disk_changes_nothing_and_the_store_works_again_when_there_is_room() {
    let (_dir, mut store) = open();
    assert_eq!(store.write(&[append(1, 10)]), [Ok(())]);
    let pages = pragma_value(&store, "page_count");
    pragma(&store, "max_page_count", pages + 2);
    let writes = [append(2, 10), append(3, 100_000), append(4, 10)];
    assert_eq!(store.write(&writes), [Err(StoreError::Unavailable); 3]);
    assert!(store.trouble().unwrap().contains("full"), "{:?}", store.trouble());
    assert_eq!((seqs(&mut store), store.max_seq()), (vec![1], Ok(1)));
    pragma(&store, "max_page_count", 1 << 20);
    assert_eq!(store.write(&writes), [Ok(()); 3]);
    assert_eq!((seqs(&mut store), store.trouble()), (vec![1, 2, 3, 4], None));
}

#[test]
fn a_connection_that_cannot_write_is_replaced() {
    let (_dir, mut store) = open();
    assert_eq!(store.write(&[append(1, 10)]), [Ok(())]);
    pragma(&store, "query_only", 1);
    assert_eq!(store.write(&[append(2, 10)]), [Err(StoreError::Unavailable)]);
    assert!(store.db.is_none());
    assert_eq!(store.write(&[append(2, 10)]), [Ok(())]);
    assert_eq!(store.changed(), Ok(true), "what happened in between is unknown");
    assert_eq!((seqs(&mut store), store.changed()), (vec![1, 2], Ok(false)));
}

#[test]
fn a_transaction_left_open_by_a_failure_is_not_joined_by_the_next() {
    let (_dir, mut store) = open();
    let failed = store.run(|db, _| {
        db.conn.execute_batch("BEGIN IMMEDIATE; DELETE FROM totals")?;
        Err::<(), _>(rusqlite::Error::InvalidQuery)
    });
    assert!(failed.is_err());
    assert_eq!(store.write(&[append(1, 10)]), [Ok(())]);
    assert_eq!(store.max_seq(), Ok(1), "the delete was undone");
}

#[test]
fn a_usage_that_was_forgotten_is_counted_again() {
    let (_dir, mut store) = open();
    store.options.caps.user_rows = 2;
    assert_eq!(store.write(&[append(1, 1)]), [Ok(())]);
    store.db.as_mut().unwrap().usages.clear();
    let refused = Err(StoreError::Full);
    assert_eq!(store.write(&[append(2, 1), append(3, 1)]), [Ok(()), refused]);
}

#[test]
fn a_file_that_went_away_is_not_replaced_by_an_empty_one() {
    let (dir, mut store) = open();
    assert_eq!(store.write(&[append(1, 1)]), [Ok(())]);
    store.db = None;
    let away = dir.path().join("away.db");
    std::fs::rename(&store.path, &away).unwrap();
    assert_eq!(store.write(&[append(2, 1)]), [Err(StoreError::Unavailable)]);
    assert_eq!(store.max_seq(), Err(StoreError::Unavailable));
    assert!(!store.path.exists());
    std::fs::rename(&away, &store.path).unwrap();
    assert_eq!(store.write(&[append(2, 1)]), [Ok(())]);
    assert_eq!(seqs(&mut store), [1, 2]);
}

#[test]
fn a_file_without_a_write_ahead_log_is_not_used() {
    let (_dir, mut store) = open();
    let conn = &store.db.as_ref().unwrap().conn;
    conn.pragma_update(None, "journal_mode", "delete").unwrap();
    let error = file::flush_log(&mut store.db.as_mut().unwrap().conn, &store.path).unwrap_err();
    assert!(matches!(error, OpenError::NoLog(_)), "{error}");
}

/// Which costs several times as much as running them.
#[test]
fn statements_are_compiled_once_whatever_is_bound_to_them() {
    let (_dir, mut store) = open();
    for seq in 1..5 {
        assert_eq!(store.write(&[append(seq, 10)]), [Ok(())]);
        assert_eq!(store.read(user(1), seq - 1, 9, 99).unwrap().0.len(), 1);
        let found = store.name_and_id(TenantId(0), b"name", UserId(seq as u32));
        assert_eq!(found, Ok((Some(UserId(1)), seq == 1)));
    }
    for sql in [READ, NAME_AND_ID] {
        let again = store.select(|conn| {
            let statement = conn.prepare_cached(sql)?;
            assert!(statement.get_status(StatementStatus::Run) >= 4, "it was in the cache");
            Ok(statement.get_status(StatementStatus::RePrepare))
        });
        assert_eq!(again.ok(), Some(0), "{sql}");
    }
}
