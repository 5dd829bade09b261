//! PostgreSQL, the half of the external store that keeps tenants, users, groups and contacts.
//!
//! Owns: one session, its time limits and its recovery, transactions. Never: messages or tokens
//! (`redis`), the rules of names and rosters, the tables of other systems (`simple_im.sql`, whose
//! triggers keep both in step).
//!
//! - A call is one statement or one transaction; statements are prepared once per session, and
//!   values are parameters only.
//! - A change takes the tenant's advisory lock first, so that counts that are looked at before a
//!   change still hold when it is made, whichever gateway makes it.
//! - A call that gets no answer in its time closes the session, and the next opens another. A
//!   commit whose answer is lost may have happened.
//! - Whatever a gateway may have cached is announced by triggers (`NOTIFY`), whoever changes it.

mod accounts;
mod admin;
mod roster;
mod schema;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use codec::{TenantId, UserKey};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, Statement};

pub(crate) use self::roster::Tables;
pub use self::schema::PostgresProblem;
use crate::breaker::{Breaker, Policy};
use crate::request::StoreError;

/// How to use PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Bounds connecting, and a call or transaction as a whole.
    pub(crate) timeout: Duration,
    /// The operator takes what a server without `fsync` loses.
    pub(crate) durability_accepted: bool,
    /// Members of a group; a larger one cannot be made, and is refused when read.
    pub(crate) group_members_max: u32,
}

/// Users, groups and contacts in PostgreSQL.
pub(crate) struct Postgres {
    // Before the runtime that drives it.
    session: Option<Session>,
    runtime: Runtime,
    config: Config,
    options: Options,
    breaker: Breaker,
    trouble: Option<String>,
    /// What others did since the last question is unknown.
    missed: bool,
}

/// A connection and the statements that it knows.
struct Session {
    client: Client,
    statements: HashMap<&'static str, Statement>,
    /// Somebody else changed what may be cached.
    told: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One statement; no transaction.
    Single,
    /// Sees one moment; changes nothing.
    Snapshot,
    /// Alone in the tenant.
    Change(TenantId),
}

/// Why a call did not do it.
#[derive(Debug)]
pub(crate) enum CallError {
    Postgres(tokio_postgres::Error),
    Problem(PostgresProblem),
    Timeout,
    /// A value beyond what can be in a sound table.
    Value,
    /// The answer to a commit was lost.
    Commit,
    /// Too soon after the last failure.
    Resting,
}

pub(crate) type Result<T> = std::result::Result<T, CallError>;
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Postgres {
    /// Connects and brings the tables up to date.
    pub(crate) fn open(url: &str, options: Options) -> std::result::Result<Self, PostgresProblem> {
        let config: Config = url.parse().map_err(|_| PostgresProblem::Url)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| PostgresProblem::Unreachable(error.to_string()))?;
        let breaker = Breaker::new(BREAKER);
        let mut postgres =
            Self { session: None, runtime, config, options, breaker, trouble: None, missed: false };
        let opened = postgres.connect().and_then(|mut session| {
            schema::migrate(&postgres.runtime, &mut session)?;
            schema::check(&postgres.runtime, &mut session, &postgres.options)?;
            Ok(session)
        });
        match opened {
            Ok(session) => postgres.session = Some(session),
            Err(CallError::Problem(problem)) => return Err(problem),
            Err(error) => return Err(PostgresProblem::Unreachable(error.to_string())),
        }
        Ok(postgres)
    }

    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether somebody else changed what may be cached since the last call.
    pub(crate) fn changed(&mut self) -> Result<bool> {
        // What was announced before comes before the answer.
        self.run(Kind::Single, |tables| tables.value::<i32>("SELECT 1", &[]).map(drop))?;
        let told = self.session.as_ref().is_some_and(|s| s.told.swap(false, Relaxed));
        Ok(std::mem::take(&mut self.missed) || told)
    }

    /// One statement, or one transaction that ends with a commit if `call` succeeds and changes
    /// nothing if it does not.
    pub(crate) fn run<T>(
        &mut self,
        kind: Kind,
        mut call: impl FnMut(&mut Tables<'_>) -> Result<T>,
    ) -> Result<T> {
        self.attempt(kind, |tables| call(tables).map(Ok::<_, StoreError>)).map(|done| match done {
            Ok(done) => done,
            Err(_) => unreachable!("there is no inner error"),
        })
    }

    /// As [`Self::run`]; an inner error rolls back, too.
    pub(crate) fn attempt<T, E>(
        &mut self,
        kind: Kind,
        mut call: impl FnMut(&mut Tables<'_>) -> Result<std::result::Result<T, E>>,
    ) -> Result<std::result::Result<T, E>> {
        let fresh = self.session.is_none();
        let mut done = self.once(kind, &mut call);
        // A kept session that the server closed meanwhile (a restart) is no failure; what was asked
        // has not been done, or not been committed.
        if !fresh && self.session.is_none() && done.as_ref().is_err_and(CallError::is_closed) {
            done = self.once(kind, &mut call);
        }
        match &done {
            Ok(_) => self.trouble = None,
            Err(error) => self.trouble = Some(error.to_string()),
        }
        done
    }

    fn once<T, E>(
        &mut self,
        kind: Kind,
        call: &mut impl FnMut(&mut Tables<'_>) -> Result<std::result::Result<T, E>>,
    ) -> Result<std::result::Result<T, E>> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.reconnect()?,
        };
        let done = session.transact(&self.runtime, &self.options, kind, call);
        if !done.as_ref().is_err_and(CallError::is_broken) {
            self.session = Some(session);
        }
        done
    }

    fn reconnect(&mut self) -> Result<Session> {
        let permit = self.breaker.enter(Instant::now()).ok_or(CallError::Resting)?;
        let session = self.connect()?;
        permit.succeed();
        self.missed = true;
        Ok(session)
    }

    fn connect(&self) -> Result<Session> {
        let Options { timeout, .. } = self.options;
        let connecting = async {
            let (client, mut connection) = self.config.connect(NoTls).await?;
            let told = Arc::new(AtomicBool::new(false));
            let own = Arc::new(AtomicI32::new(0));
            let (flag, myself) = (Arc::clone(&told), Arc::clone(&own));
            let driver = tokio::spawn(async move {
                loop {
                    let next = std::future::poll_fn(|context| connection.poll_message(context));
                    match next.await {
                        Some(Ok(AsyncMessage::Notification(by))) => {
                            if by.process_id() != myself.load(Relaxed) {
                                flag.store(true, Relaxed);
                            }
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    }
                }
            });
            client.batch_execute(&settings(timeout)).await?;
            let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
            own.store(get(&row, 0)?, Relaxed);
            Ok::<_, CallError>(Session { client, statements: HashMap::new(), told, driver })
        };
        Session::wait(&self.runtime, Instant::now() + timeout, connecting)
    }
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("trouble", &self.trouble).finish_non_exhaustive()
    }
}

impl Session {
    fn transact<T, E>(
        &mut self,
        runtime: &Runtime,
        options: &Options,
        kind: Kind,
        call: &mut impl FnMut(&mut Tables<'_>) -> Result<std::result::Result<T, E>>,
    ) -> Result<std::result::Result<T, E>> {
        let deadline = Instant::now() + options.timeout;
        let members_max = options.group_members_max;
        let mut tables = Tables { runtime, session: self, deadline, members_max };
        match kind {
            Kind::Single => return call(&mut tables),
            Kind::Snapshot => {
                tables.control("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            }
            Kind::Change(tenant) => {
                tables.control("BEGIN")?;
                let lock = (TENANT_LOCK, tenant.0.cast_signed());
                let sql = "SELECT pg_advisory_xact_lock($1, $2)";
                tables.rows(sql, &[&lock.0, &lock.1], |_| Ok(()))?;
            }
        }
        let done = call(&mut tables);
        if !matches!(done, Ok(Ok(_))) {
            // A session that does not even take this is of no use any more.
            tables.control("ROLLBACK")?;
            return done;
        }
        match tables.control("COMMIT") {
            Ok(()) => done,
            Err(error) if error.is_broken() => Err(CallError::Commit),
            Err(error) => Err(error),
        }
    }

    /// Drives the session until `call` is done, or its time is over.
    fn wait<T>(
        runtime: &Runtime,
        deadline: Instant,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        // Timers belong to a runtime, so they begin inside it.
        let call = async { tokio::time::timeout_at(deadline.into(), call).await };
        runtime.block_on(call).unwrap_or(Err(CallError::Timeout))
    }

    async fn prepared(&mut self, sql: &'static str) -> Result<Statement> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What a session needs whatever the server's defaults are. A statement that nobody waits for any
/// more ends by itself.
fn settings(timeout: Duration) -> String {
    let ms = timeout.as_millis().clamp(1, 1 << 30);
    format!(
        "SET statement_timeout = {ms}; SET lock_timeout = {ms};
         SET idle_in_transaction_session_timeout = {};
         SET synchronous_commit = on; SET client_min_messages = warning;
         LISTEN ringpost",
        ms * 10
    )
}

impl CallError {
    /// The session is of no use any more: anything but an error that the server reports and
    /// survives.
    fn is_broken(&self) -> bool {
        match self {
            Self::Postgres(error) => error
                .as_db_error()
                .is_none_or(|error| matches!(error.severity(), "FATAL" | "PANIC")),
            Self::Timeout | Self::Commit | Self::Problem(_) => true,
            Self::Value | Self::Resting => false,
        }
    }

    /// The server ended the session, and that was all.
    fn is_closed(&self) -> bool {
        matches!(self, Self::Postgres(_)) && self.is_broken()
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgreSQL: ")?;
        match self {
            // The code and message without the detail, which may quote values.
            Self::Postgres(error) => match error.as_db_error() {
                Some(error) => write!(f, "{} ({})", error.message(), error.code().code()),
                None => error.fmt(f),
            },
            Self::Problem(problem) => problem.fmt(f),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Value => f.write_str("a number that is none of ours"),
            Self::Commit => f.write_str("the answer to a commit was lost"),
            Self::Resting => f.write_str("down a moment ago"),
        }
    }
}

impl From<tokio_postgres::Error> for CallError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<CallError> for StoreError {
    fn from(_: CallError) -> Self {
        Self::Unavailable
    }
}

/// A value of a row.
pub(crate) fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Result<T> {
    Ok(row.try_get(column)?)
}

/// An id or another number that fits.
pub(crate) fn number<T: TryFrom<i64>>(row: &Row, column: usize) -> Result<T> {
    T::try_from(get::<i64>(row, column)?).map_err(|_| CallError::Value)
}

/// A user as two parameters.
pub(crate) fn key(user: UserKey) -> (i64, i64) {
    (user.tenant.0.into(), user.id.0.into())
}

/// The first failure opens it: every call behind a dead server would wait for the time-out.
const BREAKER: Policy = Policy {
    failures_max: 1,
    pause: Duration::from_millis(100),
    pause_max: Duration::from_secs(1),
};

/// The first half of the advisory locks of tenants: "ring" in ASCII.
const TENANT_LOCK: i32 = 0x7269_6E67;
