//! The store thread's logic without the thread: batches of requests in, replies out.
//!
//! Owns: the store, group commit, the order of reads and writes, and what happens while the store
//! is unavailable. Never: queues, threads, waking; `now` is an argument, so the simulator runs the
//! same code under its own clock.
//!
//! A batch is carried out in segments, nearly always one:
//!
//! ```text
//!   requests      W(a) W(b) R(c) R(a) W(d) ...
//!   at once                  R(c)                 no write of c is pending
//!   one commit    W(a) W(b)           W(d)
//!   then                          R(a)            sees W(a)
//! ```
//!
//! A segment ends early only at a write of a user whose read is pending, which must not see it.
//! Queries are committed together, too, and before the next name is looked up; members of groups
//! are looked up last, so that no reply of a batch is older than what its queries changed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::{GroupKey, Query, TenantId, UserKey};

use super::retained::Retained;
use crate::auth::OpenIds;
use crate::metrics::{Counters, StoreFigures};
use crate::request::{AuthVerdict, Found, NameKind, Reply, Request, ShardIndex, StoreError};
use crate::roster::{Answered, changes, users_named};
use crate::store::{Store, Write};

/// Carries out store requests in the order given, per user.
///
/// - Writes are committed together; their replies are given out after the commit.
/// - A read sees every earlier write of its user and no later one.
/// - While the store is unavailable, appends are answered so at once, without asking it again
///   before a back-off is over. Writes without a reply are retained and repeated, before any later
///   write and before any read of their user.
pub struct StoreWorker {
    store: Box<dyn Store>,
    open_ids: Option<Arc<OpenIds>>,
    retained: Retained,
    /// The store failed: no write before this time.
    down_until: Option<Duration>,
    backoff: Duration,
    /// Users with dead letters put back that were not announced yet.
    requeued: Vec<UserKey>,
    segment: Segment,
    queries: Queries,
    /// Groups whose members are asked for, each with the place of its answer.
    members: Vec<(usize, GroupKey)>,
    changed_groups: Vec<GroupKey>,
    answers: Vec<(ShardIndex, Option<Reply>)>,
    counters: Arc<Counters>,
}

/// What waits for the next commit.
#[derive(Default)]
struct Segment {
    writes: Vec<Write>,
    /// Per write, the place of its answer.
    slots: Vec<Option<usize>>,
    writers: HashSet<UserKey>,
    reads: Vec<(usize, Read)>,
    readers: HashSet<UserKey>,
}

/// Queries that wait for their commit.
#[derive(Default)]
struct Queries {
    queries: Vec<(UserKey, Query)>,
    /// Per query, the place of its answer and its token.
    slots: Vec<(usize, u64)>,
    /// Those who ask and whom the store may not know yet.
    bindings: Vec<Write>,
}

struct Read {
    user: UserKey,
    after: u64,
    rows: u32,
    bytes: u32,
}

impl StoreWorker {
    /// Retains at most `retained_len_max` writes while the store is unavailable.
    pub fn new(store: Box<dyn Store>, retained_len_max: usize) -> Self {
        Self::with_counters(store, retained_len_max, Arc::default())
    }

    pub(super) fn with_counters(
        store: Box<dyn Store>,
        retained_len_max: usize,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            store,
            open_ids: None,
            retained: Retained::new(retained_len_max),
            down_until: None,
            backoff: BACKOFF,
            requeued: Vec::new(),
            segment: Segment::default(),
            queries: Queries::default(),
            members: Vec::new(),
            changed_groups: Vec::new(),
            answers: Vec::new(),
            counters,
        }
    }

    /// With open authentication: names that the store does not know are looked for among the ids
    /// handed out.
    #[must_use]
    pub fn with_open_ids(mut self, open_ids: Option<Arc<OpenIds>>) -> Self {
        self.open_ids = open_ids;
        self
    }

    /// Carries out `requests`, which it empties, and appends one reply per request that has one to
    /// `replies`, in the order of the requests. `now` counts from any fixed point.
    pub fn run(
        &mut self,
        requests: &mut Vec<(ShardIndex, Request)>,
        now: Duration,
        replies: &mut Vec<(ShardIndex, Reply)>,
    ) {
        self.recover(now);
        for (shard, request) in requests.drain(..) {
            self.take(shard, request, now);
        }
        self.commit(now);
        self.answer_queries(now);
        self.look_up_members();
        self.counters.store.retained.set(self.retained.len() as u64);
        replies.extend(self.answers.drain(..).map(|(shard, reply)| {
            (shard, reply.expect("a commit fills every slot of its segment"))
        }));
    }

    /// Groups whose members the last [`Self::run`] has changed: every shard is told
    /// ([`Reply::GroupChanged`]) before the replies of that run are handed out.
    pub fn changed_groups(&mut self) -> impl Iterator<Item = GroupKey> {
        self.changed_groups.drain(..)
    }

    /// When [`Self::run`] shall be called even without a request: retained writes are due.
    pub fn retry_at(&self) -> Option<Duration> {
        if self.retained.is_empty() { None } else { self.down_until }
    }

    /// Tries retained writes a last time, back-off or not.
    pub fn finish(&mut self, now: Duration) {
        self.down_until = None;
        self.flush_retained(now);
        self.counters.store.retained.set(self.retained.len() as u64);
    }

    /// Whether another process changed the store since the last call. Asks what it has found of
    /// another system, too.
    pub fn changed(&mut self) -> bool {
        if let Ok(imports) = self.store.imports() {
            self.counters.store.set_imports(imports);
        }
        self.store.changed().unwrap_or(false)
    }

    /// Users whose dead letters another process put back: at most `len_max`, then others.
    pub fn requeued(&mut self, len_max: usize) -> Vec<UserKey> {
        if self.requeued.is_empty() {
            self.requeued = self.store.take_requeued().unwrap_or_default();
        }
        self.requeued.drain(..len_max.min(self.requeued.len())).collect()
    }

    /// Makes dead letters of some rows that are too old; `true`: there may be more. `now_ms` is
    /// milliseconds since 1970.
    pub fn expire(&mut self, now_ms: u64) -> bool {
        let expired = match self.down_until {
            None => self.store.expire(now_ms).unwrap_or(0),
            Some(_) => 0,
        };
        self.counters.store.expired.add(expired);
        expired > 0
    }

    /// The figures so far.
    pub fn figures(&self) -> StoreFigures {
        self.counters.store.figures()
    }

    /// Once the back-off is over: retained writes first, so that all later ones come after them.
    /// Without any, the next write is the probe.
    fn recover(&mut self, now: Duration) {
        if self.down_until.is_some_and(|until| until <= now) {
            self.down_until = None;
            self.flush_retained(now);
        }
    }

    fn flush_retained(&mut self, now: Duration) {
        while self.down_until.is_none() && !self.retained.is_empty() {
            let writes = self.retained.oldest(RETRY_LEN_MAX);
            let results = write(&mut *self.store, writes, &self.counters);
            for result in &results {
                self.count_update(*result);
            }
            self.retained.settle(&results);
            self.note_outcome(results.contains(&Err(StoreError::Unavailable)), now);
        }
    }

    fn take(&mut self, shard: ShardIndex, request: Request, now: Duration) {
        match request {
            Request::Append(append) => {
                let slot = self.reserve(shard);
                self.write(Write::Append(append), Some(slot), now);
            }
            Request::Delete { user, seq } => self.write(Write::Delete { user, seq }, None, now),
            Request::FailedRound { user, seq, charge } => {
                self.write(Write::FailedRound { user, seq, charge }, None, now);
            }
            Request::DeadLetter { user, seq, reason } => {
                self.write(Write::DeadLetter { user, seq, reason }, None, now);
            }
            Request::Read { user, after, rows, bytes } => {
                let slot = self.reserve(shard);
                self.read(slot, Read { user, after, rows, bytes });
            }
            Request::Members { group } => {
                let slot = self.reserve(shard);
                self.members.push((slot, group));
            }
            Request::Resolve { token, tenant, name, what } => {
                self.answer_queries(now);
                let result = self.resolve(tenant, &name, what);
                self.counters.store.resolved.add(1);
                self.answers.push((shard, Some(Reply::Resolved { token, result })));
            }
            Request::Query { token, user, query, binding } => {
                let slot = self.reserve(shard);
                let binding = binding.filter(|_| changes(&query));
                self.queries.bindings.extend(binding.map(|name| Write::Bind { user, name }));
                self.queries.queries.push((user, query));
                self.queries.slots.push((slot, token));
            }
            // Never routed here; owed a reply all the same.
            Request::Auth(request) => {
                let (token, verdict) = (request.token, AuthVerdict::Unavailable);
                self.answers.push((shard, Some(Reply::Auth { token, verdict })));
            }
        }
    }

    fn resolve(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        what: NameKind,
    ) -> Result<Option<Found>, StoreError> {
        let found = self.store.resolve(tenant, name, what)?;
        match (&self.open_ids, found) {
            (Some(_), Some(Found::User(_))) | (None, _) => Ok(found),
            (Some(_), _) if what == NameKind::Group || name.starts_with(b"#") => Ok(found),
            // A user comes before a group, in the store or not.
            (Some(ids), _) => {
                let user = ids.peek(&mut *self.store, tenant, name)?;
                Ok(user.map(Found::User).or(found))
            }
        }
    }

    /// Carries out the queries so far: together, if any changes something and the store is up.
    fn answer_queries(&mut self, now: Duration) {
        let Queries { queries, slots, bindings } = std::mem::take(&mut self.queries);
        let changing = queries.iter().any(|(_, query)| changes(query));
        let results = if !changing || self.down_until.is_some() {
            queries.iter().map(|(user, query)| self.read_query(*user, query)).collect()
        } else {
            let results = match self.bind(bindings, &queries) {
                Ok(()) => self.store.queries(&queries),
                Err(error) => vec![Err(error); queries.len()],
            };
            assert_eq!(results.len(), queries.len(), "a store gives one result per query");
            let failed = |result: &Result<_, _>| matches!(result, Err(StoreError::Unavailable));
            self.note_outcome(results.iter().any(failed), now);
            results
        };
        self.counters.store.queries.add(results.len() as u64);
        for ((result, (slot, token)), (user, _)) in results.into_iter().zip(slots).zip(queries) {
            let result = result.map(|(answer, changed)| {
                let tenant = user.tenant;
                self.changed_groups.extend(changed.map(|id| GroupKey { tenant, id }));
                answer
            });
            self.answers[slot].1 = Some(Reply::Answer { token, result });
        }
    }

    /// A query that changes nothing; one that does is not tried now.
    fn read_query(&mut self, user: UserKey, query: &Query) -> Result<Answered, StoreError> {
        if changes(query) { Err(StoreError::Unavailable) } else { self.store.query(user, query) }
    }

    /// Commits the names of those who ask and of those whom they make something of: the store has
    /// to know them.
    fn bind(
        &mut self,
        mut bindings: Vec<Write>,
        queries: &[(UserKey, Query)],
    ) -> Result<(), StoreError> {
        if let Some(ids) = self.open_ids.clone() {
            for (UserKey { tenant, .. }, query) in queries {
                for name in users_named(query) {
                    if self.store.resolve(*tenant, name, NameKind::Any)?.is_none_or(is_group)
                        && let Some(id) = ids.peek(&mut *self.store, *tenant, name)?
                    {
                        let user = UserKey { tenant: *tenant, id };
                        bindings.push(Write::Bind { user, name: name.clone() });
                    }
                }
            }
        }
        if bindings.is_empty() {
            return Ok(());
        }
        write(&mut *self.store, &bindings, &self.counters).into_iter().collect()
    }

    fn look_up_members(&mut self) {
        for (slot, group) in std::mem::take(&mut self.members) {
            let result = self.store.members(group);
            self.count_read(result.is_err());
            self.answers[slot].1 = Some(Reply::Members { group, result });
        }
    }

    fn reserve(&mut self, shard: ShardIndex) -> usize {
        self.answers.push((shard, None));
        self.answers.len() - 1
    }

    fn write(&mut self, write: Write, slot: Option<usize>, now: Duration) {
        let user = user_of(&write);
        if self.segment.readers.contains(&user) {
            self.commit(now);
        }
        if self.down_until.is_some() {
            self.settle(write, slot, Err(StoreError::Unavailable));
        } else {
            self.segment.writers.insert(user);
            self.segment.writes.push(write);
            self.segment.slots.push(slot);
        }
    }

    fn read(&mut self, slot: usize, read: Read) {
        if self.segment.writers.contains(&read.user) {
            self.segment.readers.insert(read.user);
            self.segment.reads.push((slot, read));
        } else {
            self.answer_read(slot, &read);
        }
    }

    fn answer_read(&mut self, slot: usize, read: &Read) {
        // Rows whose delete is retained would be delivered again.
        let result = if self.retained.has(read.user) {
            Err(StoreError::Unavailable)
        } else {
            self.store.read(read.user, read.after, read.rows, read.bytes)
        };
        self.count_read(result.is_err());
        self.answers[slot].1 = Some(Reply::Rows { user: read.user, result });
    }

    /// Ends the segment: its writes in one transaction, then its reads.
    fn commit(&mut self, now: Duration) {
        if self.segment.writes.is_empty() {
            return;
        }
        let mut segment = std::mem::take(&mut self.segment);
        let results = write(&mut *self.store, &segment.writes, &self.counters);
        self.note_outcome(results.contains(&Err(StoreError::Unavailable)), now);
        let slots = segment.slots.drain(..);
        for ((write, slot), result) in segment.writes.drain(..).zip(slots).zip(results) {
            self.settle(write, slot, result);
        }
        for (slot, read) in segment.reads.drain(..) {
            self.answer_read(slot, &read);
        }
        segment.writers.clear();
        segment.readers.clear();
        self.segment = segment;
    }

    fn note_outcome(&mut self, unavailable: bool, now: Duration) {
        if unavailable {
            self.down_until = Some(now + self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
            self.counters.store.set_trouble(self.store.trouble().unwrap_or("unavailable"));
        } else if self.backoff != BACKOFF {
            self.backoff = BACKOFF;
            self.counters.store.set_trouble("");
        }
    }

    /// Answers an append; keeps another write if it can still be done later.
    fn settle(&mut self, write: Write, slot: Option<usize>, result: Result<(), StoreError>) {
        let store = &self.counters.store;
        match (write, slot) {
            (Write::Append(append), Some(slot)) => {
                match result {
                    Ok(()) => store.rows.add(1),
                    Err(StoreError::Full) => store.full.add(1),
                    Err(StoreError::Unavailable) => store.unavailable.add(1),
                }
                let reply = Reply::Appended { user: append.user, seq: append.seq, result };
                self.answers[slot].1 = Some(reply);
            }
            (write, _) => {
                self.count_update(result);
                if result == Err(StoreError::Unavailable) {
                    let dropped = self.retained.push(write);
                    self.counters.store.retained_dropped.add(dropped);
                }
            }
        }
    }

    fn count_update(&self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.counters.store.updates.add(1),
            Err(StoreError::Full) => self.counters.store.updates_refused.add(1),
            Err(StoreError::Unavailable) => {}
        }
    }

    fn count_read(&self, failed: bool) {
        self.counters.store.reads.add(1);
        self.counters.store.reads_unavailable.add(u64::from(failed));
    }
}

fn write(
    store: &mut dyn Store,
    writes: &[Write],
    counters: &Counters,
) -> Vec<Result<(), StoreError>> {
    let start = Instant::now();
    let results = store.write(writes);
    counters.store.committed(start.elapsed());
    assert_eq!(results.len(), writes.len(), "a store gives one result per write");
    results
}

pub(super) fn user_of(write: &Write) -> UserKey {
    match write {
        Write::Append(append) => append.user,
        Write::Delete { user, .. }
        | Write::FailedRound { user, .. }
        | Write::DeadLetter { user, .. }
        | Write::Bind { user, .. } => *user,
    }
}

fn is_group(found: Found) -> bool {
    matches!(found, Found::Group(_))
}

/// The first pause of a store that failed, doubled by each further failure.
const BACKOFF: Duration = Duration::from_millis(50);
/// Half of what a client of `binary` waits before it sends again.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Retained writes per transaction: some milliseconds each.
const RETRY_LEN_MAX: usize = 1024;
