//! The external store: users, groups and contacts in PostgreSQL, messages and tokens in Redis.
//!
//! Owns: which half does what, and what takes both. Never: SQL (`postgres`), Redis commands
//! (`redis`).
//!
//! - The two halves fail apart: while PostgreSQL is down, messages go on to be stored and read;
//!   while Redis is down, logins with a password go on. What needs the one that is down is
//!   [`StoreError::Unavailable`], never "unknown".
//! - Every call is bounded in time, and a server that comes back is used again by the next call.
//! - A binding of a name goes to PostgreSQL after its message has gone to Redis, and the append is
//!   only then a success. If the second step fails the message may be stored all the same; the
//!   append is said to have failed, and saying it again does the rest.
//! - Several gateways and the command line may share the servers.

mod accounts;
mod admin;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use codec::{Answer, GroupId, GroupKey, Query, TenantId, UserId, UserKey};

use crate::names::{self, Names as _};
pub use crate::postgres::PostgresProblem;
use crate::postgres::{self, Kind, Postgres};
pub use crate::redis::RedisProblem;
use crate::redis::{self, Redis};
use crate::request::{Append, Found, NameKind, Row, StoreError};
use crate::roster::{answer, changes};
use crate::store::{Caps, Imports, Store, StoredUser, Write};

/// Where the servers are, and how they are used.
#[derive(Clone)]
pub struct ExternalConfig {
    /// `postgres://user:password@host:port/database`, or the words of libpq; without TLS.
    pub postgres: String,
    /// `redis://[user:password@]host[:port]/database` or `unix:///path?db=0`; without TLS.
    pub redis: String,
    pub caps: Caps,
    /// Messages older than this become dead letters by [`Store::expire`]; `None`: never.
    pub age_max_ms: Option<u64>,
    /// Members of a group; a larger one cannot be made, and is refused when read.
    pub group_members_max: u32,
    /// Bounds connecting, a call of PostgreSQL with all its statements, and each answer of Redis.
    pub timeout: Duration,
    /// Servers are used that lose acknowledged messages when they crash.
    pub durability_accepted: bool,
    /// A right password whose hash is the MD5 of the original simple_im gets one of ours beside it.
    pub upgrade_hashes: bool,
}

impl Default for ExternalConfig {
    fn default() -> Self {
        Self {
            postgres: String::new(),
            redis: String::new(),
            caps: Caps::default(),
            age_max_ms: None,
            group_members_max: 1 << 18,
            timeout: Duration::from_secs(1),
            durability_accepted: false,
            upgrade_hashes: false,
        }
    }
}

impl fmt::Debug for ExternalConfig {
    // The URLs hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalConfig")
            .field("timeout", &self.timeout)
            .field("durability_accepted", &self.durability_accepted)
            .finish_non_exhaustive()
    }
}

/// Why the store cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalError {
    Postgres(PostgresProblem),
    Redis(RedisProblem),
}

impl fmt::Display for ExternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(problem) => problem.fmt(f),
            Self::Redis(problem) => problem.fmt(f),
        }
    }
}

impl std::error::Error for ExternalError {}

/// One handle on both servers: one connection to each.
#[derive(Debug)]
pub struct ExternalStore {
    postgres: Postgres,
    redis: Redis,
    config: ExternalConfig,
    /// Of the accounts; see [`Self::for_tenant`].
    tenant: TenantId,
    /// Bindings that are known to have been offered to PostgreSQL.
    bound: HashSet<UserKey>,
    /// The half that failed last in a write.
    in_postgres: bool,
}

impl ExternalStore {
    /// Connects to both and makes the tables.
    ///
    /// # Errors
    /// A server does not answer, would lose what it acknowledges, or belongs to a newer version.
    pub fn open(config: &ExternalConfig) -> Result<Self, ExternalError> {
        let redis = redis::Options {
            caps: config.caps,
            age_max_ms: config.age_max_ms,
            timeout: config.timeout,
            durability_accepted: config.durability_accepted,
        };
        let postgres = postgres::Options {
            timeout: config.timeout,
            durability_accepted: config.durability_accepted,
            group_members_max: config.group_members_max,
        };
        Ok(Self {
            redis: Redis::open(&config.redis, redis).map_err(ExternalError::Redis)?,
            postgres: Postgres::open(&config.postgres, postgres)
                .map_err(ExternalError::Postgres)?,
            config: config.clone(),
            tenant: TenantId(0),
            bound: HashSet::new(),
            in_postgres: false,
        })
    }

    /// The same handle with the accounts of another tenant than the default one.
    #[must_use]
    pub fn for_tenant(self, tenant: TenantId) -> Self {
        Self { tenant, ..self }
    }

    /// Rows passed over by reads because this version cannot decode them; they stay stored.
    pub fn unreadable(&self) -> u64 {
        self.redis.unreadable()
    }

    /// Commits the bindings of what was done, and takes back what was said of those that fail.
    fn bind(&mut self, writes: &[Write], results: &mut [Result<(), StoreError>]) {
        if self.bound.len() > BOUND_MAX {
            self.bound.clear();
        }
        let names: Vec<(UserKey, &[u8])> = writes
            .iter()
            .zip(&*results)
            .filter(|(_, result)| result.is_ok())
            .filter_map(|(write, _)| binding(write))
            .filter(|(user, _)| !self.bound.contains(user))
            .collect();
        if names.is_empty() {
            return;
        }
        if self.postgres.bind(&names).is_ok() {
            self.bound.extend(names.iter().map(|(user, _)| *user));
            return;
        }
        self.in_postgres = true;
        for (write, result) in writes.iter().zip(results) {
            let unbound = binding(write).is_some_and(|(user, _)| !self.bound.contains(&user));
            if unbound && result.is_ok() {
                *result = Err(StoreError::Unavailable);
            }
        }
    }
}

/// The binding of a write, if it has one.
fn binding(write: &Write) -> Option<(UserKey, &[u8])> {
    match write {
        Write::Append(Append { user, binding, .. }) => Some((*user, binding.as_deref()?)),
        Write::Bind { user, name } => Some((*user, name)),
        Write::Delete { .. } | Write::FailedRound { .. } | Write::DeadLetter { .. } => None,
    }
}

impl Store for ExternalStore {
    fn write(&mut self, writes: &[Write]) -> Vec<Result<(), StoreError>> {
        self.in_postgres = false;
        let only_bindings = writes.iter().all(|write| matches!(write, Write::Bind { .. }));
        let mut results =
            if only_bindings { vec![Ok(()); writes.len()] } else { self.redis.write(writes) };
        self.bind(writes, &mut results);
        results
    }

    fn read(
        &mut self,
        user: UserKey,
        after: u64,
        rows: u32,
        bytes: u32,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        self.redis.read(user, after, rows, bytes)
    }

    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError> {
        let members_max = self.config.group_members_max;
        let key = (i64::from(group.tenant.0), i64::from(group.id.0));
        let sql = "SELECT user_id FROM ringpost_members
                   WHERE tenant = $1 AND group_id = $2 LIMIT $3";
        let members = self.postgres.run(Kind::Single, |tables| {
            tables.rows(sql, &[&key.0, &key.1, &(i64::from(members_max) + 1)], |row| {
                postgres::number(row, 0).map(UserId)
            })
        })?;
        if members.len() > members_max as usize {
            Err(StoreError::Full)
        } else {
            Ok(members.into())
        }
    }

    fn max_seq(&mut self) -> Result<u64, StoreError> {
        self.redis.max_seq()
    }

    fn tenant_named(&mut self, org: &[u8], appkey: &[u8]) -> Result<Option<TenantId>, StoreError> {
        // Names that are no text are nobody's.
        let (Some(org), Some(appkey)) = (text(org), text(appkey)) else { return Ok(None) };
        Ok(self.postgres.find_tenant(org, appkey)?)
    }

    fn resolve(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        what: NameKind,
    ) -> Result<Option<Found>, StoreError> {
        let found =
            self.postgres.run(Kind::Snapshot, |tables| names::find(tables, tenant, name, what));
        Ok(found?)
    }

    fn query(
        &mut self,
        user: UserKey,
        query: &Query,
    ) -> Result<(Answer, Option<GroupId>), StoreError> {
        let kind = if changes(query) { Kind::Change(user.tenant) } else { Kind::Snapshot };
        Ok(self.postgres.run(kind, |tables| answer(tables, user, query))?)
    }

    fn queries(
        &mut self,
        queries: &[(UserKey, Query)],
    ) -> Vec<Result<(Answer, Option<GroupId>), StoreError>> {
        let Some((first, _)) = queries.first() else { return Vec::new() };
        let tenant = first.tenant;
        if queries.iter().any(|(user, _)| user.tenant != tenant) {
            return queries.iter().map(|(user, query)| self.query(*user, query)).collect();
        }
        let done = self.postgres.run(Kind::Change(tenant), |tables| {
            queries.iter().map(|(user, query)| answer(tables, *user, query)).collect()
        });
        match done {
            Ok::<Vec<_>, _>(answers) => answers.into_iter().map(Ok).collect(),
            Err(_) => vec![Err(StoreError::Unavailable); queries.len()],
        }
    }

    fn user_by_name(
        &mut self,
        tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        let sql = "SELECT id, name, password_hash FROM ringpost_users
                   WHERE tenant = $1 AND name = $2 AND NOT twin";
        Ok(self.postgres.stored_user(sql, &[&i64::from(tenant.0), &name])?)
    }

    fn user_by_phone(
        &mut self,
        tenant: TenantId,
        phone: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        let Some(phone) = text(phone) else { return Ok(None) };
        let sql = "SELECT id, name, password_hash FROM ringpost_users
                   WHERE tenant = $1 AND phone = $2";
        Ok(self.postgres.stored_user(sql, &[&i64::from(tenant.0), &phone])?)
    }

    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, StoreError> {
        Ok(self.postgres.run(Kind::Single, |tables| tables.name_of(user))?)
    }

    fn name_and_id(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        id: UserId,
    ) -> Result<(Option<UserId>, bool), StoreError> {
        let key = (i64::from(tenant.0), i64::from(id.0));
        let found = self.postgres.run(Kind::Single, |tables| {
            tables.row(NAME_AND_ID, &[&key.0, &name, &key.1], |row| {
                let named = postgres::get::<Option<i64>>(row, 0)?;
                let named = named.map(|_| postgres::number(row, 0)).transpose()?;
                Ok((named.map(UserId), postgres::get(row, 1)?))
            })
        })?;
        found.ok_or(StoreError::Unavailable)
    }

    fn changed(&mut self) -> Result<bool, StoreError> {
        Ok(self.postgres.changed()?)
    }

    fn take_requeued(&mut self) -> Result<Vec<UserKey>, StoreError> {
        self.redis.take_requeued()
    }

    fn expire(&mut self, now_ms: u64) -> Result<u64, StoreError> {
        self.redis.expire(now_ms)
    }

    fn imports(&mut self) -> Result<Imports, StoreError> {
        self.redis.imports()
    }

    fn trouble(&self) -> Option<&str> {
        if self.in_postgres { self.postgres.trouble() } else { self.redis.trouble() }
    }
}

/// As text that PostgreSQL takes; whatever else it is, nobody is called so.
fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// Milliseconds since 1970, for what is noted about dead letters.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

const NAME_AND_ID: &str = "SELECT
    (SELECT id FROM ringpost_users WHERE tenant = $1 AND name = $2 AND NOT twin),
    EXISTS (SELECT 1 FROM ringpost_users WHERE tenant = $1 AND id = $3)";

/// Bindings remembered, some 16 B each; at the bound all are forgotten and offered again.
const BOUND_MAX: usize = 1 << 18;
