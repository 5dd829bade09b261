//! A store for the sidecar's tests: keeps rows in a map, writes down every call, and fails or
//! stalls when told to. Its other end stays with the test.
// Each test file compiles it as its own module and uses its part of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use codec::{
    Answer, GroupId, GroupKey, Message, MessageId, ProtocolId, Query, Target, TenantId, UserId,
    UserKey,
};
use storage::store::{StoredUser, Write};
use storage::{
    Append, AuthRequest, AuthVerdict, Found, NameKind, Proof, Reply, Request, Row, Store,
    StoreError, TenantRef,
};

/// Longer than anything here may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn double() -> (DoubleStore, Handle) {
    let handle = Handle(Arc::default());
    (DoubleStore(handle.clone()), handle)
}

pub struct DoubleStore(Handle);

/// The test's end.
#[derive(Clone)]
pub struct Handle(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
pub struct State {
    pub rows: BTreeMap<(UserKey, u64), Arc<Message>>,
    /// One line per write carried out or refused, and per read; `commit` after each batch.
    pub log: Vec<String>,
    pub write_calls: u64,
    pub users: HashMap<Vec<u8>, StoredUser>,
    pub phones: HashMap<Vec<u8>, StoredUser>,
    pub bound: Vec<u32>,
    /// Writes fail as a whole.
    pub down: bool,
    /// Appends are refused one by one.
    pub full: bool,
    /// Every call but `changed` waits until this is false.
    pub stalled: bool,
    /// Calls that have been waiting at `stalled`.
    pub waiting: u64,
    /// The next `changed` says yes.
    pub changed: bool,
    pub requeued: Vec<u32>,
    /// Rows that `expire` has to do with, ten at once.
    pub old: u64,
}

impl Handle {
    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }

    pub fn get<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock())
    }

    /// Waits until `condition` holds.
    pub fn wait(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        while !condition(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited too long: {what}; log {:?}", state.log);
            state = self.0.1.wait_timeout(state, left).unwrap().0;
        }
    }

    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    fn pass_gate(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.stalled {
            state.waiting += 1;
            self.0.1.notify_all();
        }
        while state.stalled {
            state = self.0.1.wait(state).unwrap();
        }
        state
    }
}

impl Store for DoubleStore {
    fn write(&mut self, writes: &[Write]) -> Vec<Result<(), StoreError>> {
        let mut state = self.0.pass_gate();
        state.write_calls += 1;
        let down = state.down;
        let results = writes.iter().map(|write| state.carry_out(write, down)).collect();
        state.log.push(if down { "abort" } else { "commit" }.into());
        drop(state);
        self.0.0.1.notify_all();
        results
    }

    fn read(
        &mut self,
        user: UserKey,
        after: u64,
        rows: u32,
        _bytes: u32,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        let mut state = self.0.pass_gate();
        state.log.push(format!("read {}", user.id));
        let mut found = state.rows.range((user, after + 1)..=(user, u64::MAX));
        let row = |(&(_, seq), message): (_, &Arc<Message>)| Row {
            seq,
            message: Arc::clone(message),
            charges: 0,
            suspect: false,
        };
        let read = found.by_ref().take(rows as usize).map(row).collect();
        Ok((read, found.next().is_some()))
    }

    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError> {
        self.0.pass_gate().log.push(format!("members {}", group.id));
        Ok([UserId(1), UserId(2)].into())
    }

    fn max_seq(&mut self) -> Result<u64, StoreError> {
        Ok(self.0.lock().rows.keys().map(|&(_, seq)| seq).max().unwrap_or(0))
    }

    fn tenant_named(&mut self, org: &[u8], appkey: &[u8]) -> Result<Option<TenantId>, StoreError> {
        if self.0.get(|state| state.down) {
            return Err(StoreError::Unavailable);
        }
        Ok(((org, appkey) == (b"acme", b"dev")).then_some(TenantId(5)))
    }

    /// Users that are there, and the group "lobby", which is 9.
    fn resolve(
        &mut self,
        _tenant: TenantId,
        name: &[u8],
        what: NameKind,
    ) -> Result<Option<Found>, StoreError> {
        let mut state = self.0.pass_gate();
        state.log.push(format!("resolve {}", name.escape_ascii()));
        let user = state.users.get(name).filter(|_| what == NameKind::Any);
        let name = name.strip_prefix(b"#").unwrap_or(name);
        let group = (name == b"lobby").then_some(Found::Group(GroupId(9)));
        Ok(user.map(|user| Found::User(user.id)).or(group))
    }

    /// Whoever joins anything changes group 9.
    fn query(
        &mut self,
        user: UserKey,
        query: &Query,
    ) -> Result<(Answer, Option<GroupId>), StoreError> {
        let mut state = self.0.pass_gate();
        state.log.push(format!("query {}", user.id));
        match query {
            _ if state.down => Err(StoreError::Unavailable),
            Query::JoinGroup(_) => Ok((Answer::Done, Some(GroupId(9)))),
            _ => Ok((Answer::Done, None)),
        }
    }

    fn user_by_name(
        &mut self,
        _tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        let state = self.0.lock();
        if state.down { Err(StoreError::Unavailable) } else { Ok(state.users.get(name).cloned()) }
    }

    fn user_by_phone(
        &mut self,
        _tenant: TenantId,
        phone: &[u8],
    ) -> Result<Option<StoredUser>, StoreError> {
        let state = self.0.lock();
        if state.down { Err(StoreError::Unavailable) } else { Ok(state.phones.get(phone).cloned()) }
    }

    fn name_of(&mut self, user: UserKey) -> Result<Option<Box<[u8]>>, StoreError> {
        let state = self.0.lock();
        if state.down {
            return Err(StoreError::Unavailable);
        }
        Ok(state.bound.contains(&user.id.0).then(|| b"somebody".as_slice().into()))
    }

    fn changed(&mut self) -> Result<bool, StoreError> {
        Ok(std::mem::take(&mut self.0.lock().changed))
    }

    fn take_requeued(&mut self) -> Result<Vec<UserKey>, StoreError> {
        Ok(self.0.lock().requeued.drain(..).map(user).collect())
    }

    fn expire(&mut self, now_ms: u64) -> Result<u64, StoreError> {
        let mut state = self.0.lock();
        assert!(now_ms > 1_600_000_000_000, "milliseconds since 1970");
        let expired = state.old.min(10);
        state.old -= expired;
        self.0.0.1.notify_all();
        Ok(expired)
    }

    fn trouble(&self) -> Option<&str> {
        self.0.get(|state| state.down).then_some("told to be down")
    }
}

impl State {
    fn carry_out(&mut self, write: &Write, down: bool) -> Result<(), StoreError> {
        let word = match write {
            Write::Append(append) => format!("append {} {}", append.user.id, append.seq),
            Write::Delete { user, seq } => format!("delete {} {seq}", user.id),
            Write::FailedRound { user, seq, .. } => format!("round {} {seq}", user.id),
            Write::DeadLetter { user, seq, .. } => format!("dead {} {seq}", user.id),
            Write::Bind { user, name } => format!("bind {} {}", user.id, name.escape_ascii()),
        };
        self.log.push(word);
        if down {
            return Err(StoreError::Unavailable);
        }
        match write {
            Write::Append(_) if self.full => return Err(StoreError::Full),
            Write::Append(append) => {
                self.rows.insert((append.user, append.seq), Arc::clone(&append.message));
            }
            Write::Delete { user, seq } | Write::DeadLetter { user, seq, .. } => {
                self.rows.remove(&(*user, *seq));
            }
            Write::FailedRound { .. } => {}
            Write::Bind { user, name } => {
                self.bound.push(user.id.0);
                self.users.insert(name.to_vec(), stored(user.id.0, name, ""));
            }
        }
        Ok(())
    }
}

pub fn user(id: u32) -> UserKey {
    UserKey { tenant: TenantId(0), id: UserId(id) }
}

pub fn append(id: u32, seq: u64) -> Request {
    let message = Message {
        stamp: u128::from(seq),
        id: MessageId::new(b"message").unwrap(),
        from: None,
        from_name: [].into(),
        to: Target::User(user(id)),
        protocol: ProtocolId::Binary,
        time_ms: 0,
        body: seq.to_string().into_bytes().into(),
    };
    Request::Append(Append { user: user(id), seq, message: Arc::new(message), binding: None })
}

pub fn delete(id: u32, seq: u64) -> Request {
    Request::Delete { user: user(id), seq }
}

pub fn read(id: u32) -> Request {
    Request::Read { user: user(id), after: 0, rows: 100, bytes: 1 << 20 }
}

pub fn auth(token: u64, name: &str, password: &str) -> AuthRequest {
    AuthRequest {
        token,
        realm: 0,
        tenant: TenantRef::Id(TenantId(0)),
        name: name.as_bytes().into(),
        proof: Proof::Password(password.as_bytes().into()),
        device: Box::default(),
        role: None,
        taken: false,
    }
}

pub fn stored(id: u32, name: &[u8], password_hash: &str) -> StoredUser {
    let password_hash = password_hash.to_owned();
    StoredUser { id: UserId(id), name: name.into(), password_hash }
}

/// A pass of tenant 0 under the name that was given.
pub fn pass(id: u32) -> AuthVerdict {
    AuthVerdict::pass(TenantId(0), UserId(id))
}

/// A reply in one line.
pub fn word(reply: &Reply) -> String {
    match reply {
        Reply::Appended { user, seq, result: Ok(()) } => format!("appended {} {seq}", user.id),
        Reply::Appended { user, seq, result: Err(error) } => {
            format!("{} {} {seq}", error.label(), user.id)
        }
        Reply::Rows { user, result: Ok((rows, _)) } => {
            let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
            format!("rows {} {seqs:?}", user.id)
        }
        Reply::Rows { user, result: Err(error) } => format!("rows {} {}", user.id, error.label()),
        Reply::Members { group, result } => match result {
            Ok(members) => format!("members {} {}", group.id, members.len()),
            Err(error) => format!("members {} {}", group.id, error.label()),
        },
        Reply::Auth { token, verdict: AuthVerdict::Pass { user, name: None } } => {
            format!("auth {token} Pass({})", user.id)
        }
        Reply::Auth { token, verdict } => format!("auth {token} {verdict:?}"),
        Reply::Resolved { token, result } => match result {
            Ok(Some(Found::User(id))) => format!("resolved {token} user {id}"),
            Ok(Some(Found::Group(id))) => format!("resolved {token} group {id}"),
            Ok(None) => format!("resolved {token} nobody"),
            Err(error) => format!("resolved {token} {}", error.label()),
        },
        Reply::Answer { token, result } => match result {
            Ok(answer) => format!("answer {token} {answer:?}"),
            Err(error) => format!("answer {token} {}", error.label()),
        },
        Reply::GroupChanged { group } => format!("group {}", group.id),
        Reply::Requeued { user } => format!("requeued {}", user.id),
        Reply::StoreChanged => "changed".into(),
    }
}
