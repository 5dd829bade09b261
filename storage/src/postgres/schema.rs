//! The tables: made, and brought up to date, when the store is opened.
//!
//! Owns: the versions of the schema, and what a server must be. Never: rows.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::{CallError, Options, Result, Session};

/// Why a PostgreSQL is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostgresProblem {
    /// The URL is none of PostgreSQL; it is not repeated, since it may hold a password.
    Url,
    /// It does not answer, or does not let us in.
    Unreachable(String),
    /// A newer program made the tables: their version, and the one known here.
    Newer(i32, i32),
    /// It runs without `fsync`.
    NotDurable,
}

impl fmt::Display for PostgresProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => {
                f.write_str("store.postgres must be postgres://user:password@host:port/database")
            }
            Self::Unreachable(why) => write!(f, "store.postgres cannot be used: {why}"),
            Self::Newer(found, known) => write!(
                f,
                "the tables in store.postgres are of version {found}, and this program knows \
                 {known}: use the newer program"
            ),
            Self::NotDurable => f.write_str(
                "PostgreSQL would lose what it has committed: fsync is off; set it, or accept \
                 that as with Redis (store.redis_durability)",
            ),
        }
    }
}

impl std::error::Error for PostgresProblem {}

/// Brings the tables up to date, in one transaction and one process at a time.
pub(super) fn migrate(runtime: &Runtime, session: &mut Session) -> Result<()> {
    let known = MIGRATIONS.len() as i32;
    Session::wait(runtime, Instant::now() + PATIENCE, async {
        let client = &mut session.client;
        let tx = client.transaction().await?;
        tx.batch_execute(BEGIN).await?;
        let row = tx.query_opt("SELECT version FROM ringpost_schema", &[]).await?;
        let found: i32 = row.map_or(Ok(0), |row| row.try_get(0))?;
        if found > known {
            return Err(CallError::Problem(PostgresProblem::Newer(found, known)));
        }
        for sql in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
            tx.batch_execute(sql).await?;
        }
        if found < known {
            tx.execute("DELETE FROM ringpost_schema", &[]).await?;
            tx.execute("INSERT INTO ringpost_schema VALUES ($1)", &[&known]).await?;
        }
        Ok(tx.commit().await?)
    })
}

/// Whether what it has committed stays.
pub(super) fn check(runtime: &Runtime, session: &mut Session, options: &Options) -> Result<()> {
    if options.durability_accepted {
        return Ok(());
    }
    let deadline = Instant::now() + options.timeout;
    let client = &session.client;
    let fsync: String = Session::wait(runtime, deadline, async {
        let row = client.query_one("SELECT current_setting('fsync')", &[]).await?;
        super::get(&row, 0)
    })?;
    match &*fsync {
        "off" => Err(CallError::Problem(PostgresProblem::NotDurable)),
        _ => Ok(()),
    }
}

/// The lock lasts until the commit. Large tables of another system take longer than a call may.
const BEGIN: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
    SELECT pg_advisory_xact_lock(8245928655720514401);
    CREATE TABLE IF NOT EXISTS ringpost_schema (version INTEGER NOT NULL)";

/// Applied in order. Never edited, only added to.
const MIGRATIONS: [&str; 3] =
    [include_str!("schema.sql"), include_str!("simple_im.sql"), include_str!("simple_im_2.sql")];

/// How long tables may take to be made from those of another system.
const PATIENCE: Duration = Duration::from_secs(600);
