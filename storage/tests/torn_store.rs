//! Torn store: the database is rebuilt from only what was flushed when each reply was given, and
//! every acknowledged row is found.
//!
//! A writer runs under `strace`, which sees every write and flush of the database and its log, and
//! every line of the writer's account of what was acknowledged. The calls are replayed on a model
//! of a disk; at every account line and at many calls in between the model crashes, the embedded
//! store opens what is left, and its content is held against the account. Controls show that the
//! test can fail: a disk whose flushes do nothing, and acknowledgements one batch early.

#[path = "torn_store/disk.rs"]
mod disk;
#[path = "torn_store/trace.rs"]
mod trace;
#[path = "torn_store/workload.rs"]
mod workload;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use disk::{Disk, Image};
use rusqlite::Connection;
use storage::Admin as _;
use storage::Store as _;
use storage::sqlite::{Options, SqliteStore};
use tempfile::TempDir;
use trace::Event;
use workload::{Account, DATABASE, DIR_VARIABLE, Key, Random, USERS, message, user};

/// Also the program that the other tests trace; then they check what it leaves.
#[test]
fn writer_finds_its_own_rows() {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        assert!(workload::run(Path::new(&dir)).done > 0);
        return;
    }
    let dir = TempDir::new().unwrap();
    let account = workload::run(dir.path());
    assert_eq!((account.done, check(dir.path(), &account)), (48, vec![]));
}

#[test]
fn every_acknowledged_row_is_in_what_was_flushed() {
    let Some(events) = record(&[]) else { return };
    assert_exercised(&events);
    let replay = Replay { lies: false, images: &ALL_IMAGES, every: 3 };
    assert_eq!(replay.run(&events), Vec::<String>::new());
}

#[test]
fn a_disk_that_does_not_flush_is_found_out() {
    let Some(events) = record(&[]) else { return };
    let replay = Replay { lies: true, images: &[Image::Nothing], every: usize::MAX };
    assert!(!replay.run(&events).is_empty());
}

#[test]
fn acknowledging_one_batch_early_is_found_out() {
    let Some(mut events) = record(&[]) else { return };
    let mut previous = 0;
    for index in 0..events.len() {
        if matches!(&events[index], Event::Mark(text) if text.contains("done")) {
            let mark = events.remove(index);
            events.insert(previous, mark);
            previous = index + 1;
        }
    }
    let replay = Replay { lies: false, images: &[Image::Nothing], every: usize::MAX };
    assert!(!replay.run(&events).is_empty());
}

/// Each rule lets some calls of the writer fail, from opening the new file to the last session. A
/// failed flush is the hard one: what it was to flush is lost, though the system's cache shows it.
#[test]
fn nothing_acknowledged_is_lost_when_the_disk_is_full_or_fails_for_a_while() {
    let mut failed = 0;
    for inject in [
        "pwrite64:error=ENOSPC:when=1..9",
        "pwrite64:error=ENOSPC:when=200..206",
        "pwrite64:error=EIO:when=300..306",
        "ftruncate:error=EIO:when=1..4",
        "unlink:error=EIO:when=2..3",
        "fsync,fdatasync:error=EIO:when=2",
        "fsync,fdatasync:error=EIO:when=5",
        "fsync,fdatasync:error=EIO:when=7",
        "fsync,fdatasync:error=EIO:when=12..14",
        "fsync,fdatasync:error=EIO:when=30..32",
        "fsync,fdatasync:error=EIO:when=44",
    ] {
        let Some(events) = record(&[inject]) else { return };
        let account = account_of(&events);
        let last = events.iter().rfind(|event| matches!(event, Event::Mark(_)));
        let recovered = matches!(last, Some(Event::Mark(text)) if text.contains("done"));
        assert!(recovered, "{inject}: the store did not come back");
        assert_eq!(account.done + account.failed, 48, "{inject}");
        failed += account.failed;
        let replay = Replay { lies: false, images: &ALL_IMAGES, every: usize::MAX };
        assert_eq!(replay.run(&events), Vec::<String>::new(), "{inject}");
    }
    assert!(failed > 5, "{failed} batches failed");
}

fn record(inject: &[&str]) -> Option<Vec<Event>> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("writer");
    std::fs::create_dir(&path).unwrap();
    let events = trace::record(&path, "writer_finds_its_own_rows", inject);
    if events.is_none() {
        // Past the test harness, which shows the output of failed tests only.
        let text = b"\nSKIPPED: torn_store needs strace and the right to trace (ptrace)\n\n";
        std::io::stderr().write_all(text).unwrap();
    }
    events
}

fn account_of(events: &[Event]) -> Account {
    let mut account = Account::default();
    for event in events {
        if let Event::Mark(text) = event {
            account.add(text);
        }
    }
    account
}

/// The trace holds what makes the test worth running.
fn assert_exercised(events: &[Event]) {
    let account = account_of(events);
    assert_eq!((account.done, account.failed), (48, 0));
    let written = |suffix: &str, start: Option<u64>| {
        let matches = |event: &&Event| match event {
            Event::Write { name, at, .. } => {
                name.ends_with(suffix) && start.is_none_or(|s| s == *at)
            }
            _ => false,
        };
        events.iter().filter(matches).count()
    };
    assert!(written(".db", None) > 50, "the log was written back");
    assert!(written("-wal", Some(0)) > 5, "the log was begun anew");
    let wal_unlinked =
        |event: &&Event| matches!(event, Event::Unlink(name) if name.ends_with("-wal"));
    assert!(events.iter().filter(wal_unlinked).count() >= 2, "the store was closed and opened");
}

struct Replay<'a> {
    lies: bool,
    images: &'a [Image],
    /// Between account lines, one crash of the last kind of image per so many calls.
    every: usize,
}

const ALL_IMAGES: [Image; 4] =
    [Image::Nothing, Image::Everything, Image::SomeSectors, Image::SomeSectors];

impl Replay<'_> {
    /// What was wrong after crashes, with the number of the call.
    fn run(&self, events: &[Event]) -> Vec<String> {
        let mut disk = Disk::new(self.lies);
        let mut account = Account::default();
        let mut random = Random(1);
        let mut wrong = Vec::new();
        for (number, event) in events.iter().enumerate() {
            disk.apply(event);
            let images = match event {
                Event::Mark(text) => {
                    account.add(text);
                    self.images
                }
                _ if number.is_multiple_of(self.every) => &self.images[self.images.len() - 1..],
                _ => &[],
            };
            for image in images {
                let dir = scratch();
                disk.crash(*image, &mut random, dir.path());
                let found = check(dir.path(), &account);
                wrong.extend(found.into_iter().map(|text| format!("{number} {image:?}: {text}")));
            }
        }
        wrong
    }
}

/// In memory where possible: nothing in it needs to last.
fn scratch() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// What is wrong with the store in `dir`: what it does not have although it must, or has although
/// it cannot.
fn check(dir: &Path, account: &Account) -> Vec<String> {
    try_check(&dir.join(DATABASE), account).unwrap_or_else(|error| vec![error])
}

fn try_check(path: &Path, account: &Account) -> Result<Vec<String>, String> {
    let open = SqliteStore::open(path, Options::default());
    let mut store = open.map_err(|error| format!("it cannot be opened: {error}"))?;
    let mut wrong = Vec::new();
    let mut kept: BTreeSet<Key> = BTreeSet::new();
    for id in 1..=USERS {
        let read = store.read(user(id), 0, u32::MAX, u32::MAX);
        for row in read.map_err(|_| format!("rows: {:?}", store.trouble()))?.0 {
            if *row.message != message((id, row.seq)) {
                wrong.push(format!("row {} of {id} is not what was written", row.seq));
            }
            kept.insert((id, row.seq));
        }
    }
    let letters = store.dead_letters(0, u32::MAX).map_err(|error| error.to_string())?;
    let dead: BTreeSet<Key> = letters.iter().map(|d| (d.user.id.0, d.seq)).collect();
    for (key, fate) in &account.rows {
        if !fate.allows(kept.contains(key), dead.contains(key)) {
            wrong.push(format!("{fate:?} row {key:?}"));
        }
    }
    let unknown = |key: &&Key| !account.rows.contains_key(*key);
    wrong.extend(kept.iter().chain(&dead).filter(unknown).map(|key| format!("unknown {key:?}")));
    wrong.extend(unsound(path, kept.len() + dead.len()).map_err(|error| error.to_string())?);
    Ok(wrong)
}

/// What SQLite says against the file, or its totals.
fn unsound(path: &Path, rows: usize) -> rusqlite::Result<Option<String>> {
    let conn = Connection::open(path)?;
    let integrity: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let total: i64 = conn.query_row("SELECT rows FROM totals", [], |row| row.get(0))?;
    let sound = integrity == "ok" && total == rows as i64;
    Ok((!sound).then(|| format!("integrity: {integrity}; {total} rows counted, {rows} there")))
}
