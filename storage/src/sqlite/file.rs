//! Opening the database file: permissions, settings, schema.
//!
//! Owns: what must be true of a connection before the store uses it. Never: rows.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::Options;

/// Why a store could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The file or its directory could not be made.
    File(PathBuf, io::Error),
    Sqlite(PathBuf, rusqlite::Error),
    /// The file cannot have a write-ahead log, or not now.
    NoLog(PathBuf),
    /// The file was made by a newer version: its schema, and the newest known here.
    Newer(PathBuf, i64, i64),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Sqlite(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoLog(path) => write!(
                f,
                "{}: no write-ahead log is possible here; the file must be on a local file system",
                path.display()
            ),
            Self::Newer(path, found, known) => write!(
                f,
                "{}: made by a newer version (schema {found}; this one knows {known})",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Sqlite(_, error) => Some(error),
            Self::NoLog(_) | Self::Newer(..) => None,
        }
    }
}

/// Makes the file (mode 0600) and its directory (0700) where they do not exist. SQLite gives its
/// other files the mode of this one.
pub(super) fn create(path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::File(path.to_owned(), error);
    create_dir(directory(path)).map_err(failed)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    Ok(())
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = directory(dir);
    create_dir(parent)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

/// A connection with the settings that durability and speed need, on an up-to-date schema.
pub(super) fn connect(path: &Path, options: &Options) -> Result<Connection, OpenError> {
    let failed = |error| OpenError::Sqlite(path.to_owned(), error);
    // Without CREATE: a file that went away while the gateway runs is an error, not a new store.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    // A close writes the log back into the file. Not before the log is known to be on the disk: a
    // crash in the middle would leave a file that only the log could mend.
    let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    conn.set_db_config(no_checkpoint, true).map_err(failed)?;
    configure(&conn, options).map_err(failed)?;
    flush_log(&mut conn, path)?;
    conn.set_db_config(no_checkpoint, false).map_err(failed)?;
    let known = MIGRATIONS.len() as i64;
    let found = migrate(&mut conn).map_err(failed)?;
    if found > known {
        return Err(OpenError::Newer(path.to_owned(), found, known));
    }
    if options.age_max_ms.is_some() {
        // Only who expires messages pays for the index.
        let sql = "CREATE INDEX IF NOT EXISTS delivery_age ON delivery (time_ms)";
        conn.execute(sql, []).map_err(failed)?;
    }
    Ok(conn)
}

fn configure(conn: &Connection, options: &Options) -> rusqlite::Result<()> {
    conn.busy_timeout(options.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // Has an effect only on an empty file, and only before WAL.
    conn.pragma_update(None, "page_size", PAGE_SIZE)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "wal_autocheckpoint", options.checkpoint_pages)?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    conn.pragma_update(None, "cache_size", CACHE_PAGES)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    // A plan that may depend on a bound value is thrown away with the value: such a statement would
    // be compiled again each time it is taken from the cache, for half the cost of a login.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "trusted_schema", false)
}

/// Makes the log on disk what the system's cache says it is. After a failed flush the two may
/// differ for good: the kernel takes the pages for clean, and a further flush does nothing. The
/// connection that saw the failure knows that the commit failed, but one that opens the log again
/// finds it whole in the cache and would append to it, behind a hole on the disk. So the log is
/// written again, byte for byte, and flushed; the write lock keeps others from changing it. The
/// names of the log and of the file are made durable with it.
pub(super) fn flush_log(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Sqlite(path.to_owned(), error);
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log = PathBuf::from(log);
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    match rewrite(&log) {
        // SQLite went on in another mode, which it does without an error. In that one
        // `synchronous=FULL` does not cover the end of a commit: after a power failure the
        // journal's name may be back, and undo it.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(OpenError::NoLog(path.to_owned()));
        }
        done => done.map_err(|error| OpenError::File(log.clone(), error))?,
    }
    // SQLite does this too when it first flushes a new log, but takes a failure for a success.
    let synced = File::open(directory(path)).and_then(|dir| dir.sync_all());
    synced.map_err(|error| OpenError::File(log, error))?;
    tx.rollback().map_err(failed)
}

fn rewrite(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let len = file.read_at(&mut chunk, at)?;
        if len == 0 {
            return file.sync_data();
        }
        file.write_all_at(&chunk[..len], at)?;
        at += len as u64;
    }
}

/// Brings the schema up to date; returns its version, which is larger than known if a newer
/// program made the file.
fn migrate(conn: &mut Connection) -> rusqlite::Result<i64> {
    if version(conn)? >= MIGRATIONS.len() as i64 {
        return version(conn);
    }
    // Another process may be doing the same: look again with the lock held.
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&tx)?;
    for sql in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.execute_batch(sql)?;
    }
    tx.pragma_update(None, "user_version", found.max(MIGRATIONS.len() as i64))?;
    tx.commit()?;
    version(conn)
}

fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Applied in order; `user_version` counts those a file has had. Never edited, only added to.
const MIGRATIONS: [&str; 2] = [include_str!("schema.sql"), include_str!("schema_2.sql")];

/// Appends and deletes of 100-byte messages cost a tenth to a third less processor time than with
/// 4 KiB; 16 KiB save as much again, but twice the bytes go to the log where users are many.
const PAGE_SIZE: u32 = 8192;
/// 64 MiB of pages.
const CACHE_PAGES: u32 = 8192;
/// A log that grew during a burst is cut down to this once it is written back.
const WAL_KEPT_BYTES: u32 = 64 << 20;
/// Of the log, at once in memory.
const CHUNK_BYTES: usize = 1 << 20;
/// Every statement of the store.
const STATEMENTS_CACHED: usize = 128;
