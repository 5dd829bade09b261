//! Redis sets `im_group:<id>` of decimal user ids (specs/binary-ws.md section 11).
//!
//! Owns: a pool of connections, and the bound on a set's size. Never: a write; the business side
//! maintains the sets. A dead Redis is answered at once and tried again without a restart.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use codec::{GroupKey, UserId};
use redis::{Client, Connection, RedisError};

use super::GroupSource;
use crate::breaker::{Breaker, Policy};
use crate::request::StoreError;

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port]/database` or `unix:///path?db=1`.
    pub url: String,
    /// Idle connections kept.
    pub pool_size: usize,
    /// Connections in use at a time: one per clone of the source, so as many clones are made.
    pub pool_max: usize,
    /// Bounds connecting, and each wait for an answer.
    pub timeout: Duration,
    /// Larger groups are refused.
    pub members_max: u32,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/1".into(),
            pool_size: 10,
            pool_max: 20,
            timeout: Duration::from_secs(2),
            members_max: 1 << 20,
        }
    }
}

/// The URL is none of Redis. The text does not repeat it: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfigError(String);

impl fmt::Display for RedisConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Redis URL must be redis://host:port/database: {}", self.0)
    }
}

impl std::error::Error for RedisConfigError {}

/// Reads group sets. Clones share the pool: one clone per group thread.
#[derive(Clone)]
pub struct RedisGroups {
    pool: Arc<Pool>,
}

struct Pool {
    client: Client,
    config: RedisConfig,
    /// The last one used is on top: under low load the others stay idle.
    idle: Mutex<Vec<Connection>>,
    breaker: Breaker,
    skipped: AtomicU64,
}

impl RedisGroups {
    /// # Errors
    /// [`RedisConfigError`]; nothing is connected yet.
    pub fn new(config: RedisConfig) -> Result<Self, RedisConfigError> {
        let client = Client::open(config.url.as_str())
            .map_err(|error| RedisConfigError(error.category().to_owned()))?;
        let idle = Mutex::default();
        let breaker = Breaker::new(BREAKER);
        let skipped = AtomicU64::new(0);
        Ok(Self { pool: Arc::new(Pool { client, config, idle, breaker, skipped }) })
    }

    /// One clone for each connection that may be in use.
    pub fn into_sources(self) -> Vec<Box<dyn GroupSource>> {
        let clones = self.pool.config.pool_max.max(1);
        (0..clones).map(|_| Box::new(self.clone()) as Box<dyn GroupSource>).collect()
    }
}

impl GroupSource for RedisGroups {
    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError> {
        let pool = &*self.pool;
        let permit = pool.breaker.enter(Instant::now()).ok_or(StoreError::Unavailable)?;
        let members = pool.look_up(group);
        match &members {
            Err(error) if is_broken(error) => drop(permit),
            // A reply, if only an error reply, shows it alive.
            _ => permit.succeed(),
        }
        match members {
            Ok(Some(members)) => Ok(self.parse(&members)),
            Ok(None) => Err(StoreError::Full),
            Err(_) => Err(StoreError::Unavailable),
        }
    }

    fn skipped(&self) -> u64 {
        self.pool.skipped.load(Relaxed)
    }
}

impl RedisGroups {
    fn parse(&self, members: &[Vec<u8>]) -> Arc<[UserId]> {
        let mut ids: Vec<UserId> = members.iter().filter_map(|member| user_id(member)).collect();
        let skipped = members.len() - ids.len();
        self.pool.skipped.fetch_add(skipped as u64, Relaxed);
        // "7" and "007" are two members of the set and one user.
        ids.sort_unstable();
        ids.dedup();
        ids.into()
    }
}

type Members = Vec<Vec<u8>>;

impl Pool {
    /// The raw members; `None` if there are too many. A kept connection that Redis closed meanwhile
    /// (a restart) is no failure: that, and only that, is tried again on a new one.
    fn look_up(&self, group: GroupKey) -> Result<Option<Members>, RedisError> {
        let idle = self.lock().pop();
        if let Some(mut connection) = idle {
            match self.query(&mut connection, group) {
                Err(error) if error.is_connection_dropped() => {
                    // Its siblings are of the same age.
                    self.lock().clear();
                }
                Err(error) if is_broken(&error) => return Err(error),
                reply => {
                    self.keep(connection);
                    return reply;
                }
            }
        }
        let mut connection = self.connect()?;
        let reply = self.query(&mut connection, group);
        if !reply.as_ref().is_err_and(is_broken) {
            self.keep(connection);
        }
        reply
    }

    fn connect(&self) -> Result<Connection, RedisError> {
        let timeout = self.config.timeout;
        let connection = self.client.get_connection_with_timeout(timeout)?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        Ok(connection)
    }

    /// The size first, since a reply is read whole: a set beyond the bound is never read at all.
    fn query(
        &self,
        connection: &mut Connection,
        group: GroupKey,
    ) -> Result<Option<Members>, RedisError> {
        let key = format!("im_group:{}", group.id);
        let count: u64 = redis::cmd("SCARD").arg(&key).query(connection)?;
        match count {
            0 => Ok(Some(Vec::new())),
            _ if count > u64::from(self.config.members_max) => Ok(None),
            _ => redis::cmd("SMEMBERS").arg(&key).query(connection).map(Some),
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.lock();
        if idle.len() < self.config.pool_size {
            idle.push(connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the connection is of no use any more: anything but an error reply.
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error()
}

/// Decimal digits that fit u32.
fn user_id(member: &[u8]) -> Option<UserId> {
    let digits = member.iter().all(u8::is_ascii_digit).then_some(member)?;
    str::from_utf8(digits).ok()?.parse().ok().map(UserId)
}

/// The first failure opens it: every lookup behind a dead Redis would wait for the time-out.
const BREAKER: Policy = Policy {
    failures_max: 1,
    pause: Duration::from_millis(100),
    pause_max: Duration::from_secs(1),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_an_unsigned_decimal_number_that_fits() {
        assert_eq!(user_id(b"0"), Some(UserId(0)));
        assert_eq!(user_id(b"4294967295"), Some(UserId(u32::MAX)));
        for none in [&b""[..], b"4294967296", b"-1", b"+1", b"1 ", b"1.0", b"alice", b"\xff"] {
            assert_eq!(user_id(none), None, "{}", none.escape_ascii());
        }
    }

    #[test]
    fn a_refused_url_is_not_repeated_in_the_error() {
        let url = "http://:topsecret@host".to_owned();
        let error = RedisGroups::new(RedisConfig { url, ..RedisConfig::default() });
        let error = error.err().expect("refused");
        assert!(!error.to_string().contains("topsecret"), "{error}");
    }
}
