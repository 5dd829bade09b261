//! The embedded store: one SQLite file, WAL, `synchronous=FULL`.
//!
//! Owns: the connection, its transactions, and its recovery. Never: what a write means (that is
//! `batch`), the operator's changes (`admin`).
//!
//! - One call of [`Store::write`] is one `BEGIN IMMEDIATE` transaction; it returns after `COMMIT`
//!   has returned, which is after the log was flushed to the disk.
//! - Any failure rolls the transaction back. What may have harmed the connection closes it, and the
//!   next call opens another: when the cause has ended, the store works again.
//! - Other processes may use the file at the same time. What is remembered in memory (the usage
//!   of users) is checked against `data_version` inside each write transaction. What a gateway may
//!   have cached (users, groups) is counted in `changes` by whoever changes it.

mod admin;
mod batch;
mod file;
pub(crate) mod record;
mod roster;
pub mod simple_im;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use codec::{Answer, GroupId, GroupKey, Message, Query, TenantId, UserId, UserKey};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Params, TransactionBehavior};

pub(crate) use self::batch::{Batch, unsigned};
use self::batch::{Usages, signed};
pub use self::file::OpenError;
pub(crate) use self::roster::Tables;
use crate::names::{self, Names as _};
use crate::request::{DeadReason, Found, NameKind, Row, StoreError};
use crate::roster::{MEMBERS_MAX, answer, changes};
use crate::store::{Caps, ReadBudget, SEQ_MAX, Store, StoredUser, Write};

/// How an embedded store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    pub caps: Caps,
    /// Messages older than this become dead letters by [`Store::expire`]; `None`: never.
    pub age_max_ms: Option<u64>,
    /// How long a call waits for another process that holds the write lock.
    pub busy_timeout: Duration,
    /// Members of a group; a larger one cannot be made, and is refused when read.
    pub group_members_max: u32,
    /// Pages of 8 KiB in the log after which it is written back into the file. More: fewer writes
    /// of the same page, a larger log.
    pub checkpoint_pages: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            caps: Caps::default(),
            age_max_ms: None,
            busy_timeout: Duration::from_secs(1),
            group_members_max: MEMBERS_MAX,
            checkpoint_pages: 2000,
        }
    }
}

/// The embedded store.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    options: Options,
    /// `None` after a failure, until the next call.
    db: Option<Db>,
    /// The connection was opened again: what others did meanwhile is unknown.
    reopened: bool,
    trouble: Option<String>,
    unreadable: u64,
}

/// A connection and what is remembered with it.
#[derive(Debug)]
struct Db {
    conn: Connection,
    usages: Usages,
    /// `data_version` when `usages` was last right.
    usages_version: i64,
    /// `data_version` and the count of `changes` at the last [`Store::changed`].
    told_version: i64,
    told_changes: i64,
}

impl SqliteStore {
    /// Opens the file, making it and its directory if needed.
    ///
    /// # Errors
    /// The file cannot be made, is no database, or belongs to a newer version.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        file::create(path)?;
        let db = Db::open(path, &options)?;
        let path = path.to_owned();
        Ok(Self { path, options, db: Some(db), reopened: false, trouble: None, unreadable: 0 })
    }

    /// Rows passed over by reads because this version cannot decode them; they stay stored.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn find_tenant(
        &mut self,
        org: &str,
        appkey: &str,
    ) -> Result<Option<TenantId>, CallError> {
        let sql = "SELECT id FROM tenants WHERE org = ?1 AND appkey = ?2";
        self.select(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            statement.query_row([org, appkey], |row| row.get(0).map(TenantId)).optional()
        })
    }

    /// One transaction of writes: committed if `change` succeeds, rolled back if it does not.
    pub(crate) fn transact<T, E>(
        &mut self,
        change: impl FnOnce(&mut Batch<'_>) -> rusqlite::Result<Result<T, E>>,
    ) -> Result<Result<T, E>, CallError> {
        let done = self.run(|db, options| db.transact(options, change))?;
        if done.is_ok() {
            self.trouble = None;
        }
        Ok(done)
    }

    /// One reading call outside a transaction.
    pub(crate) fn select<T>(
        &mut self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CallError> {
        self.run(|db, _| query(&db.conn))
    }

    /// Runs one call on the connection, opened again if it was lost.
    fn run<T>(
        &mut self,
        call: impl FnOnce(&mut Db, &Options) -> rusqlite::Result<T>,
    ) -> Result<T, CallError> {
        let result = match self.db() {
            Ok((db, options)) => call(db, options).map_err(CallError::Sqlite),
            Err(error) => Err(CallError::Open(error)),
        };
        if let Err(error) = &result {
            self.trouble = Some(error.to_string());
            if let Some(db) = &mut self.db {
                db.usages.clear();
                if !error.is_harmless() || !db.conn.is_autocommit() {
                    self.db = None;
                }
            }
        }
        result
    }

    fn db(&mut self) -> Result<(&mut Db, &Options), OpenError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => {
                self.reopened = true;
                Db::open(&self.path, &self.options)?
            }
        };
        Ok((self.db.insert(db), &self.options))
    }
}

impl Store for SqliteStore {
    fn write(&mut self, writes: &[Write]) -> Vec<Result<(), StoreError>> {
        let done = self.transact(|batch| {
            let results: rusqlite::Result<_> = writes.iter().map(|w| batch.apply(w)).collect();
            results.map(Ok::<_, StoreError>)
        });
        match done {
            Ok(Ok(results)) => results,
            Ok(Err(error)) => vec![Err(error); writes.len()],
            Err(_) => vec![Err(StoreError::Unavailable); writes.len()],
        }
    }

    fn read(
        &mut self,
        user: UserKey,
        after: u64,
        rows: u32,
        bytes: u32,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        if after >= SEQ_MAX {
            return Ok((Vec::new(), false));
        }
        let budget = ReadBudget::new(rows, bytes);
        let read = self.select(|conn| read_rows(conn, user, after, budget))?;
        self.unreadable += read.unreadable;
        Ok((read.rows, read.more))
    }

    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError> {
        let members_max = self.options.group_members_max;
        let sql = "SELECT user FROM group_members WHERE tenant = ?1 AND group_id = ?2 LIMIT ?3";
        let members: Vec<_> = self.select(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let key = (group.tenant.0, group.id.0, i64::from(members_max) + 1);
            statement.query_map(key, |row| row.get(0).map(UserId))?.collect()
        })?;
        if members.len() > members_max as usize {
            Err(StoreError::Full)
        } else {
            Ok(members.into())
        }
    }

    fn max_seq(&mut self) -> Result<u64, StoreError> {
        let sql = "SELECT seq_max FROM totals";
        Ok(self.select(|conn| conn.prepare_cached(sql)?.query_row([], |row| unsigned(row, 0)))?)
    }

    fn tenant_named(&mut self, org: &[u8], appkey: &[u8]) -> Result<Option<TenantId>, StoreError> {
        // Names that are no text are nobody's.
        let (Ok(org), Ok(appkey)) = (str::from_utf8(org), str::from_utf8(appkey)) else {
            return Ok(None);
        };
        Ok(self.find_tenant(org, appkey)?)
    }

    fn resolve(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        what: NameKind,
    ) -> Result<Option<Found>, StoreError> {
        Ok(self.select(|conn| names::find(&mut Tables::for_names(conn), tenant, name, what))?)
    }

    fn query(
        &mut self,
        user: UserKey,
        query: &Query,
    ) -> Result<(Answer, Option<GroupId>), StoreError> {
        let members_max = self.options.group_members_max;
        if !changes(query) {
            return Ok(self.select(|conn| {
                let snapshot = conn.unchecked_transaction()?;
                answer(&mut Tables { conn: &snapshot, members_max }, user, query)
            })?);
        }
        self.transact(|batch| {
            answer(&mut Tables { conn: batch.conn(), members_max }, user, query).map(Ok)
        })?
    }

    fn queries(
        &mut self,
        queries: &[(UserKey, Query)],
    ) -> Vec<Result<(Answer, Option<GroupId>), StoreError>> {
        let members_max = self.options.group_members_max;
        let done = self.transact(|batch| {
            let mut tables = Tables { conn: batch.conn(), members_max };
            let answers = queries.iter().map(|(user, query)| answer(&mut tables, *user, query));
            answers.collect::<rusqlite::Result<Vec<_>>>().map(Ok::<_, StoreError>)
        });
        match done {
            Ok(Ok(answers)) => answers.into_iter().map(Ok).collect(),
            Ok(Err(error)) => vec![Err(error); queries.len()],
            Err(_) => vec![Err(StoreError::Unavailable); queries.len()],
        }
    }

    fn user_by_name(
        &mut self,
        tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        let sql = "SELECT id, name, password_hash FROM users WHERE tenant = ?1 AND name = ?2";
        Ok(self.select(|conn| stored_user(conn, sql, (tenant.0, name)))?)
    }

    fn user_by_phone(
        &mut self,
        tenant: TenantId,
        phone: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        let Ok(phone) = str::from_utf8(phone) else { return Ok(None) };
        let sql = "SELECT id, name, password_hash FROM users WHERE tenant = ?1 AND phone = ?2";
        Ok(self.select(|conn| stored_user(conn, sql, (tenant.0, phone)))?)
    }

    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, StoreError> {
        Ok(self.select(|conn| Tables::for_names(conn).name_of(user))?)
    }

    fn name_and_id(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        id: UserId,
    ) -> Result<(Option<UserId>, bool), StoreError> {
        let found = self.select(|conn| {
            let key = (tenant.0, name, id.0);
            conn.prepare_cached(NAME_AND_ID)?
                .query_row(key, |row| Ok((row.get::<_, Option<u32>>(0)?.map(UserId), row.get(1)?)))
        })?;
        Ok(found)
    }

    fn changed(&mut self) -> Result<bool, StoreError> {
        let changed = self.run(|db, _| {
            let version = data_version(&db.conn)?;
            if std::mem::replace(&mut db.told_version, version) == version {
                return Ok(false);
            }
            let changes = changes_count(&db.conn)?;
            Ok(std::mem::replace(&mut db.told_changes, changes) != changes)
        })?;
        Ok(std::mem::take(&mut self.reopened) || changed)
    }

    fn take_requeued(&mut self) -> Result<Vec<UserKey>, StoreError> {
        let sql = "SELECT 1 FROM requeued LIMIT 1";
        if !self.select(|conn| conn.prepare_cached(sql)?.exists([]))? {
            return Ok(Vec::new());
        }
        self.transact(|batch| {
            let sql = "DELETE FROM requeued RETURNING tenant, user";
            let mut statement = batch.conn().prepare_cached(sql)?;
            let users = statement.query_map([], user_key)?;
            Ok(Ok(users.collect::<rusqlite::Result<_>>()?))
        })?
    }

    fn expire(&mut self, now_ms: u64) -> Result<u64, StoreError> {
        let Some(age_max_ms) = self.options.age_max_ms else { return Ok(0) };
        let oldest_ms = now_ms.saturating_sub(age_max_ms).cast_signed();
        let sql = "SELECT tenant, user, seq FROM delivery
                   WHERE time_ms >= 0 AND time_ms < ?1 ORDER BY time_ms LIMIT ?2";
        self.transact(|batch| {
            let mut statement = batch.conn().prepare_cached(sql)?;
            let old = statement.query_map([oldest_ms, EXPIRED_MAX], |row| {
                Ok((user_key(row)?, unsigned(row, 2)?))
            })?;
            let old = old.collect::<rusqlite::Result<Vec<_>>>()?;
            for (user, seq) in &old {
                batch.bury(*user, *seq, DeadReason::Expired)?;
            }
            Ok(Ok(old.len() as u64))
        })?
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

impl Db {
    fn open(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Sqlite(path.to_owned(), error);
        let conn = file::connect(path, options)?;
        let version = data_version(&conn).map_err(failed)?;
        Ok(Self {
            told_changes: changes_count(&conn).map_err(failed)?,
            told_version: version,
            usages_version: version,
            usages: Usages::new(),
            conn,
        })
    }

    fn transact<T, E>(
        &mut self,
        options: &Options,
        change: impl FnOnce(&mut Batch<'_>) -> rusqlite::Result<Result<T, E>>,
    ) -> rusqlite::Result<Result<T, E>> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // From here on nobody else can commit, so what is remembered stays right.
        let version = data_version(&tx)?;
        if std::mem::replace(&mut self.usages_version, version) != version {
            self.usages.clear();
        }
        let mut batch = Batch::new(&tx, &options.caps, &mut self.usages, now_ms())?;
        let done = change(&mut batch)?;
        if done.is_ok() {
            let noted = batch.finish()?;
            tx.commit()?;
            // Our own; one of somebody else before it is still to be told.
            self.told_changes += i64::from(noted);
        } else {
            drop(batch);
            self.usages.clear();
            tx.rollback()?;
        }
        Ok(done)
    }
}

/// Why a call did not do it.
#[derive(Debug)]
pub(crate) enum CallError {
    Open(OpenError),
    Sqlite(rusqlite::Error),
}

impl CallError {
    /// The connection is as good as before: somebody else holds the lock, or the disk is full.
    fn is_harmless(&self) -> bool {
        use ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
        let Self::Sqlite(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | DiskFull))
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Sqlite(error) => error.fmt(f),
        }
    }
}

impl From<CallError> for StoreError {
    fn from(_: CallError) -> Self {
        Self::Unavailable
    }
}

struct ReadRows {
    rows: Vec<Row>,
    more: bool,
    unreadable: u64,
}

fn read_rows(
    conn: &Connection,
    user: UserKey,
    after: u64,
    mut budget: ReadBudget,
) -> rusqlite::Result<ReadRows> {
    let mut statement = conn.prepare_cached(READ)?;
    let mut found = statement.query((user.tenant.0, user.id.0, signed(after)))?;
    let mut read = ReadRows { rows: Vec::new(), more: false, unreadable: 0 };
    while let Some(row) = found.next()? {
        // What a newer version wrote waits for one; it must not keep the rest from the user.
        let Some(message) = message(row, 3)? else {
            read.unreadable += 1;
            continue;
        };
        if !budget.take(message.body.len()) {
            read.more = true;
            break;
        }
        read.rows.push(Row {
            seq: unsigned(row, 0)?,
            message: Arc::new(message),
            charges: row.get(1)?,
            suspect: row.get(2)?,
        });
    }
    Ok(read)
}

/// The message whose stamp, time, head and body stand in the columns from `first` on; `None` if
/// this version cannot decode it.
pub(crate) fn message(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Option<Message>> {
    let stamp: [u8; 16] = row.get(first)?;
    let time_ms: i64 = row.get(first + 1)?;
    let head = row.get_ref(first + 2)?.as_blob_or_null()?;
    let body = row.get_ref(first + 3)?.as_blob_or_null()?;
    Ok(head.zip(body).and_then(|(head, body)| record::decode(head, stamp, time_ms, body)))
}

/// A user from the first two columns.
pub(crate) fn user_key(row: &rusqlite::Row<'_>) -> rusqlite::Result<UserKey> {
    Ok(UserKey { tenant: TenantId(row.get(0)?), id: UserId(row.get(1)?) })
}

fn data_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn changes_count(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT count FROM changes")?.query_row([], |row| row.get(0))
}

/// The user whom `sql` finds, as id, name and password hash.
fn stored_user(
    conn: &Connection,
    sql: &str,
    key: impl Params,
) -> rusqlite::Result<Option<StoredUser>> {
    let user = conn.prepare_cached(sql)?.query_row(key, |row| {
        let name: Vec<u8> = row.get(1)?;
        Ok(StoredUser { id: UserId(row.get(0)?), name: name.into(), password_hash: row.get(2)? })
    });
    user.optional()
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

const READ: &str = "SELECT d.seq, d.charges, d.suspect, d.stamp, d.time_ms,
    coalesce(d.head, b.head), coalesce(d.body, b.body)
    FROM delivery d LEFT JOIN bodies b ON d.head IS NULL AND b.stamp = d.stamp
    WHERE d.tenant = ?1 AND d.user = ?2 AND d.seq > ?3 ORDER BY d.seq";

const NAME_AND_ID: &str = "SELECT
    (SELECT id FROM users WHERE tenant = ?1 AND name = ?2),
    EXISTS (SELECT 1 FROM users WHERE tenant = ?1 AND id = ?3)";

/// Rows that expire in one transaction: some ten milliseconds.
const EXPIRED_MAX: i64 = 1000;
