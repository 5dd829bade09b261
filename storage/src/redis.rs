//! Redis, the half of the external store that keeps offline messages and tokens.
//!
//! Owns: one connection, its time limits and its recovery, what is durable. Never: users or groups
//! (`postgres`), what a packet looks like (`simple_im`).
//!
//! ```text
//!   ringpost_rows_<tenant>_<user>  ZSET, all scores 0: rows in the order of their first 8 bytes
//!   ringpost_body_<stamp>          HASH: head, body, text of a group's message; refs to it
//!   ringpost_bytes_<tenant>_<user> body bytes of the rows
//!   ringpost_age                   ZSET: user and seq by the time of the message; only once
//!                                  somebody has opened it with an age limit
//!   ringpost_dead                  ZSET, all scores 0: id | reason | died_ms | user | row
//!                                                      8       1        8       8
//!   ringpost_requeued              SET of users
//!   ringpost_totals                HASH: rows, bytes, dead_id, seq_max, aged, calls
//!   ringpost_imports               HASH: the last seq of a row made of what others had put into a
//!                                  list, and how many became what; see `import`
//!   ringpost_aside_<tenant>_<user> LIST: what others had put into his and nobody can read
//!   ringpost_tokens_<tenant>_<id>  ZSET: the keys of a user's tokens by age
//!
//!   row:  seq | charges | marks | stamp | time_ms | bytes | head len | body len
//!          8       1        1      16        8        4        2          4
//!        | head | body | text
//!   marks: 1 suspect, 2 shared (head, body and text stand in ringpost_body)
//! ```
//!
//! Numbers are big-endian. The text is the element that the row has in the list of `simple_im`,
//! kept to find it again there. Our keys are in the same database; a cluster is out of scope, since
//! a change has keys of many slots.
//!
//! - A batch of writes is one call of `rows.lua`, which Redis carries out as a whole and answers,
//!   under `appendfsync always`, after the flush. Where replicas are connected, one of them has to
//!   confirm it, too.
//! - A call that gets no answer in its time may have been carried out: it is then said to be
//!   unavailable, and asking again does it once (except for the charge of a failed round).

mod durability;
mod import;
mod row;
mod simple_im;
mod tokens;

use std::time::{Duration, Instant};

use codec::{Target, UserKey};
use redis::{Client, Cmd, Connection, FromRedisValue, RedisError, Value};

pub use self::durability::RedisProblem;
use self::import::Patience;
use self::row::{DEAD_ROW_AT, Letter, NewRow, seq_bytes, user_bytes, user_of_bytes};
use crate::admin::{AdminError, DeadLetter};
use crate::breaker::{Breaker, Policy};
use crate::request::{DeadReason, Row, StoreError};
use crate::store::{Caps, ReadBudget, SEQ_IMPORTED_MAX, SEQ_MAX, Write};

/// How to use Redis.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) caps: Caps,
    pub(crate) age_max_ms: Option<u64>,
    /// Bounds connecting, and each wait for an answer.
    pub(crate) timeout: Duration,
    /// The operator takes what Redis loses.
    pub(crate) durability_accepted: bool,
}

/// Offline messages and tokens in Redis.
pub(crate) struct Redis {
    client: Client,
    options: Options,
    /// What a server calls [`SCRIPTS`]: every one the same.
    scripts: Scripts,
    live: Option<Live>,
    breaker: Breaker,
    trouble: Option<String>,
    unreadable: u64,
}

/// A connection and what is known of the server behind it.
struct Live {
    connection: Connection,
    replicas: u64,
    replicas_asked: Instant,
}

#[derive(Clone, Copy)]
enum Script {
    Rows,
    Read,
    Token,
}

/// Why a call did not do it.
#[derive(Debug)]
enum CallError {
    Redis(RedisError),
    Problem(RedisProblem),
    /// No replica confirmed it.
    NotReplicated,
    /// Too soon after the last failure.
    Resting,
}

impl Redis {
    /// Connects once, so that what is wrong with the server is said at the start.
    pub(crate) fn open(url: &str, options: Options) -> Result<Self, RedisProblem> {
        let client = Client::open(url).map_err(|_| RedisProblem::Url)?;
        let breaker = Breaker::new(BREAKER);
        let (live, scripts) = match Live::connect(&client, &options) {
            Ok((live, scripts)) => (Some(live), scripts),
            Err(CallError::Problem(problem)) => return Err(problem),
            Err(error) => return Err(RedisProblem::Unreachable(error.to_string())),
        };
        let mut redis =
            Self { client, options, scripts, live, breaker, trouble: None, unreadable: 0 };
        if redis.options.age_max_ms.is_some() {
            let indexed = redis.index_ages();
            indexed.map_err(|error| RedisProblem::Unreachable(error.to_string()))?;
        }
        Ok(redis)
    }

    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Rows passed over by reads because this version cannot decode them; they stay stored.
    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// As [`crate::Store::write`], without bindings.
    pub(crate) fn write(&mut self, writes: &[Write]) -> Vec<Result<(), StoreError>> {
        if writes.is_empty() {
            return Vec::new();
        }
        let Caps { user_rows, user_bytes, store_rows, store_bytes } = self.options.caps;
        let mut cmd = self.change("write");
        cmd.arg(user_rows).arg(user_bytes).arg(store_rows).arg(store_bytes);
        let mut scratch = NewRow::default();
        for write in writes {
            add_write(&mut cmd, write, &mut scratch);
        }
        // A charge must not be counted twice; everything else may be said again.
        let again = !writes.iter().any(|w| matches!(w, Write::FailedRound { charge: true, .. }));
        let done: Result<Vec<u8>, _> = self.commit(&cmd, again);
        match done {
            Ok(results) if results.len() == writes.len() => {
                self.trouble = None;
                results.iter().map(|result| outcome(*result)).collect()
            }
            _ => vec![Err(StoreError::Unavailable); writes.len()],
        }
    }

    /// As [`crate::Store::read`].
    pub(crate) fn read(
        &mut self,
        user: UserKey,
        after: u64,
        rows: u32,
        bytes: u32,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        let mut budget = ReadBudget::new(rows, bytes);
        let (mut taken, mut after) = (Vec::new(), after);
        let (key, list) = (row::key(user), simple_im::list_key(user));
        let mut patience = Patience::new();
        while after < SEQ_MAX {
            // One more than asked for tells whether there are more.
            let limit = (u64::from(rows) + 1).saturating_sub(taken.len() as u64).min(PAGE_ROWS);
            let keys = (key.as_bytes(), list.as_deref());
            let page = self.members(keys, after + 1, limit, bytes.min(PAGE_BYTES), 0)?;
            // What others have put into the list comes first.
            if page.lacks_foreign() && patience.take(after) && self.import(user)? {
                continue;
            }
            if page.members.is_empty() {
                break;
            }
            for (member, head, body) in page.members {
                after = row::seq_of(&member).unwrap_or(SEQ_MAX);
                // What a newer version wrote waits for one, and must not keep the rest from him.
                let Some(row) = row::decode(&member, &head, &body) else {
                    self.unreadable += 1;
                    continue;
                };
                if !budget.take(row.message.body.len()) {
                    return Ok((taken, true));
                }
                taken.push(row);
            }
        }
        Ok((taken, false))
    }

    /// As [`crate::Store::max_seq`].
    pub(crate) fn max_seq(&mut self) -> Result<u64, StoreError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg("ringpost_totals").arg("seq_max");
        let seq: Option<Vec<u8>> = self.ask(&cmd)?;
        seq.map_or(Ok(0), |seq| row::seq_of(&seq).ok_or(StoreError::Unavailable))
    }

    /// As [`crate::Store::expire`].
    pub(crate) fn expire(&mut self, now_ms: u64) -> Result<u64, StoreError> {
        let Some(age_max_ms) = self.options.age_max_ms else { return Ok(0) };
        let mut cmd = self.change("expire");
        let reason = row::reason_byte(DeadReason::Expired);
        cmd.arg(now_ms.saturating_sub(age_max_ms)).arg(EXPIRED_MAX).arg(&[reason][..]);
        Ok(self.commit(&cmd, true)?)
    }

    /// As [`crate::Store::take_requeued`]. Asked for before they are removed: a user may be named
    /// twice if an answer is lost, but is never forgotten.
    pub(crate) fn take_requeued(&mut self) -> Result<Vec<UserKey>, StoreError> {
        let mut cmd = redis::cmd("SMEMBERS");
        let members: Vec<Vec<u8>> = self.ask(cmd.arg("ringpost_requeued"))?;
        if members.is_empty() {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("SREM");
        // Whoever is still in it is named again.
        let _: Result<u64, _> = self.ask(cmd.arg("ringpost_requeued").arg(&members));
        let mut users: Vec<_> = members.iter().filter_map(|user| user_of_bytes(user)).collect();
        users.sort_unstable();
        Ok(users)
    }

    /// Forgets the rows of a user.
    pub(crate) fn clear_rows(&mut self, user: UserKey) -> Result<(), StoreError> {
        let mut cmd = self.change("clear");
        cmd.arg(&user_bytes(user));
        let _: u64 = self.commit(&cmd, true)?;
        Ok(())
    }

    /// As [`crate::Admin::dead_letters`].
    pub(crate) fn dead_letters(
        &mut self,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut after = after.max(0).cast_unsigned();
        let mut letters = Vec::new();
        while letters.len() < limit as usize && after < SEQ_MAX {
            let rest = u64::from(limit).saturating_sub(letters.len() as u64).min(PAGE_ROWS);
            let keys = (&b"ringpost_dead"[..], None);
            let page = self.members(keys, after + 1, rest, PAGE_BYTES, DEAD_ROW_AT)?.members;
            if page.is_empty() {
                break;
            }
            for (member, head, body) in page {
                let letter = Letter::decode(&member, &head, &body);
                after = row::seq_of(&member).unwrap_or(SEQ_MAX);
                letters.extend(letter.map(|Letter(letter)| letter));
            }
        }
        Ok(letters)
    }

    /// As [`crate::Admin::requeue`] and [`crate::Admin::drop_dead_letters`].
    pub(crate) fn settle_dead(&mut self, ids: &[i64], requeue: bool) -> Result<(), AdminError> {
        let mut cmd = self.change(if requeue { "requeue" } else { "drop" });
        for id in ids {
            cmd.arg(&id.to_be_bytes());
        }
        let none: Vec<u8> = match self.commit(&cmd, false) {
            Ok(none) => none,
            Err(error) => return Err(AdminError::Store(error.to_string())),
        };
        match none.first_chunk() {
            None => Ok(()),
            Some(id) => Err(AdminError::NoDeadLetter(i64::from_be_bytes(*id))),
        }
    }

    /// Has the ages of all rows noted, those from before included. Begun again if it was cut short.
    fn index_ages(&mut self) -> Result<(), CallError> {
        let mut cmd = redis::cmd("HGET");
        let aged: Option<String> = self.ask(cmd.arg("ringpost_totals").arg("aged"))?;
        if aged.as_deref() == Some("all") {
            return Ok(());
        }
        let note = |aged| redis::cmd("HSET").arg("ringpost_totals").arg("aged").arg(aged).clone();
        let _: u64 = self.commit(&note("new"), true)?;
        let mut cursor = "0".to_owned();
        loop {
            let mut cmd = redis::cmd("SCAN");
            cmd.arg(&cursor).arg("MATCH").arg("ringpost_rows_*").arg("COUNT").arg(PAGE_ROWS);
            let (next, keys): (String, Vec<String>) = self.ask(&cmd)?;
            for user in keys.iter().filter_map(|key| row::user_of_key(key)) {
                let mut cmd = self.change("index");
                let _: u64 = self.commit(cmd.arg(&user_bytes(user)), true)?;
            }
            if next == "0" {
                let _: u64 = self.commit(&note("all"), true)?;
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Members of a sorted set from their first 8 bytes on, with the head and body that they share;
    /// the second key is of the list that belongs to it.
    fn members(
        &mut self,
        (set, list): (&[u8], Option<&str>),
        from: u64,
        limit: u64,
        bytes: u32,
        row_at: usize,
    ) -> Result<Page, StoreError> {
        let mut cmd = self.script(Script::Read);
        cmd.arg(1 + usize::from(list.is_some())).arg(set).arg(list);
        cmd.arg(&seq_bytes(from)).arg(limit).arg(bytes).arg(row_at);
        let flat: Vec<Vec<u8>> = self.ask(&cmd)?;
        let mut flat = flat.into_iter();
        let mut flag = || flat.next().is_some_and(|flag| flag == b"1");
        let (longer, more) = (flag(), flag());
        let members =
            std::iter::from_fn(|| Some((flat.next()?, flat.next()?, flat.next()?))).collect();
        Ok(Page { members, longer, more })
    }

    fn script(&self, script: Script) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.scripts[script as usize]);
        cmd
    }

    /// A call of `rows.lua`.
    fn change(&self, what: &str) -> Cmd {
        let mut cmd = self.script(Script::Rows);
        cmd.arg(0).arg(what).arg(&crate::external::now_ms().to_be_bytes());
        cmd
    }

    /// A change: done only when it is as safe as it is going to be. `again`: it may be said twice.
    fn commit<T: FromRedisValue>(&mut self, cmd: &Cmd, again: bool) -> Result<T, CallError> {
        self.run(again, |live, options| live.commit(cmd, options.timeout))
    }

    /// A question, or a change that nobody waits for.
    fn ask<T: FromRedisValue>(&mut self, cmd: &Cmd) -> Result<T, CallError> {
        self.run(true, |live, _| live.call(cmd))
    }

    /// Runs one call on the connection, opened again if it was lost.
    fn run<T>(
        &mut self,
        again: bool,
        mut call: impl FnMut(&mut Live, &Options) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let Some(permit) = self.breaker.enter(Instant::now()) else {
            return Err(CallError::Resting);
        };
        let (slot, options) = (&mut self.live, &self.options);
        let kept = slot.take().map(|live| live.lend(slot, options, &mut call));
        let result = match kept {
            // A connection that the server closed meanwhile (a restart) is no failure.
            Some(Err(error)) if again && error.is_dropped() => None,
            kept => kept,
        };
        let result = match result {
            Some(result) => result,
            None => Live::connect(&self.client, options)
                .and_then(|(live, _)| live.lend(slot, options, &mut call)),
        };
        match &result {
            Err(error) if error.is_broken() => drop(permit),
            // A reply, if only an error reply, shows it alive.
            _ => permit.succeed(),
        }
        if let Err(error) = &result {
            self.trouble = Some(error.to_string());
        }
        result
    }
}

impl std::fmt::Debug for Redis {
    // The client holds a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("trouble", &self.trouble).finish_non_exhaustive()
    }
}

impl Live {
    fn connect(client: &Client, options: &Options) -> Result<(Self, Scripts), CallError> {
        let mut connection = client.get_connection_with_timeout(options.timeout)?;
        connection.set_read_timeout(Some(options.timeout))?;
        connection.set_write_timeout(Some(options.timeout))?;
        let problem = durability::check(&mut connection)?;
        if let Some(problem) = problem.filter(|_| !options.durability_accepted) {
            return Err(CallError::Problem(problem));
        }
        let mut scripts = SCRIPTS.map(str::to_owned);
        for text in &mut scripts {
            *text = redis::cmd("SCRIPT").arg("LOAD").arg(&*text).query(&mut connection)?;
        }
        let replicas = durability::replicas(&mut connection)?;
        Ok((Self { connection, replicas, replicas_asked: Instant::now() }, scripts))
    }

    /// Makes a call, and goes into `slot` if it is of use any longer.
    fn lend<T>(
        mut self,
        slot: &mut Option<Self>,
        options: &Options,
        call: &mut impl FnMut(&mut Self, &Options) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let result = call(&mut self, options);
        if !result.as_ref().is_err_and(CallError::is_broken) {
            *slot = Some(self);
        }
        result
    }

    fn call<T: FromRedisValue>(&mut self, cmd: &Cmd) -> Result<T, CallError> {
        Ok(cmd.query(&mut self.connection)?)
    }

    fn commit<T: FromRedisValue>(&mut self, cmd: &Cmd, timeout: Duration) -> Result<T, CallError> {
        if self.replicas_asked.elapsed() > REPLICAS_KNOWN {
            self.replicas = durability::replicas(&mut self.connection)?;
            self.replicas_asked = Instant::now();
        }
        if self.replicas == 0 {
            return self.call(cmd);
        }
        let mut pipe = redis::pipe();
        pipe.add_command(cmd.clone());
        let patience = u64::try_from(timeout.as_millis() / 2).unwrap_or(u64::MAX).max(1);
        pipe.cmd("WAIT").arg(1).arg(patience);
        let (done, confirmed): (Value, u64) = pipe.query(&mut self.connection)?;
        if confirmed == 0 {
            return Err(CallError::NotReplicated);
        }
        Ok(T::from_redis_value(done).map_err(RedisError::from)?)
    }
}

type Scripts = [String; SCRIPTS.len()];
/// A member, and the head and body that it shares.
type Member = (Vec<u8>, Vec<u8>, Vec<u8>);

/// An answer of `read.lua`.
struct Page {
    members: Vec<Member>,
    /// The list has elements for which there are no members.
    longer: bool,
    more: bool,
}

impl Page {
    /// There are elements of others which would come before the page's end.
    fn lacks_foreign(&self) -> bool {
        let last = self.members.last().and_then(|(member, ..)| row::seq_of(member));
        let among_foreign = self.more && last.is_some_and(|last| last <= SEQ_IMPORTED_MAX);
        self.longer && !among_foreign
    }
}

fn add_write(cmd: &mut Cmd, write: &Write, row: &mut NewRow) {
    match write {
        Write::Append(append) => {
            let message = &append.message;
            // The script refuses what it does not know.
            let storable = append.seq <= SEQ_MAX && !matches!(message.to, Target::Room(_));
            row.encode(append.seq, message);
            cmd.arg(if storable { "append" } else { "refuse" });
            cmd.arg(&user_bytes(append.user)).arg(&row.row);
            match message.to {
                Target::Group(_) if storable => {
                    cmd.arg("shared").arg(&row.head).arg(&*message.body).arg(&row.text);
                }
                _ => {
                    cmd.arg("");
                }
            }
        }
        Write::Delete { user, seq } => {
            cmd.arg("delete").arg(&user_bytes(*user)).arg(&seq_bytes(*seq)).arg("");
        }
        Write::FailedRound { user, seq, charge } => {
            cmd.arg("failed").arg(&user_bytes(*user)).arg(&seq_bytes(*seq)).arg(u8::from(*charge));
        }
        Write::DeadLetter { user, seq, reason } => {
            let reason = [row::reason_byte(*reason)];
            cmd.arg("bury").arg(&user_bytes(*user)).arg(&seq_bytes(*seq)).arg(&reason[..]);
        }
        // Nothing here: names are the other half's. See `external.rs`.
        Write::Bind { user, .. } => {
            cmd.arg("bind").arg(&user_bytes(*user)).arg("").arg("");
        }
    }
}

fn outcome(result: u8) -> Result<(), StoreError> {
    match result {
        b'0' => Ok(()),
        b'1' => Err(StoreError::Full),
        _ => Err(StoreError::Unavailable),
    }
}

impl CallError {
    /// The connection is of no use any more: anything but an error reply.
    fn is_broken(&self) -> bool {
        match self {
            // A server that does not know the scripts is another than the one that was connected.
            Self::Redis(error) => {
                error.is_io_error() || error.is_unrecoverable_error() || is_unknown_script(error)
            }
            Self::Problem(_) => true,
            Self::NotReplicated | Self::Resting => false,
        }
    }

    fn is_dropped(&self) -> bool {
        let Self::Redis(error) = self else { return false };
        error.is_connection_dropped() || is_unknown_script(error)
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // The category and code only: a reply may quote what was sent.
            Self::Redis(error) => {
                // What the operating system says quotes nothing.
                if error.is_io_error() {
                    return write!(f, "Redis: {error}");
                }
                write!(f, "Redis: {}", error.category())?;
                error.code().map_or(Ok(()), |code| write!(f, " ({code})"))
            }
            Self::Problem(problem) => problem.fmt(f),
            Self::NotReplicated => f.write_str("Redis: no replica confirmed the write in time"),
            Self::Resting => f.write_str("Redis: down a moment ago"),
        }
    }
}

impl From<RedisError> for CallError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<CallError> for StoreError {
    fn from(_: CallError) -> Self {
        Self::Unavailable
    }
}

/// In the order of [`Script`].
const SCRIPTS: [&str; 3] = [
    include_str!("redis/rows.lua"),
    include_str!("redis/read.lua"),
    include_str!("redis/token.lua"),
];

/// The first failure opens it: every call behind a dead Redis would wait for the time-out.
const BREAKER: Policy = Policy {
    failures_max: 1,
    pause: Duration::from_millis(100),
    pause_max: Duration::from_secs(1),
};

/// How long the number of replicas is believed.
const REPLICAS_KNOWN: Duration = Duration::from_secs(1);
/// Rows that expire at once: some ten milliseconds, during which Redis answers nobody else.
const EXPIRED_MAX: u64 = 500;
/// Of one reply, for the same reason.
const PAGE_ROWS: u64 = 1000;
const PAGE_BYTES: u32 = 4 << 20;
