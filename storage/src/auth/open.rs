//! Open authentication: any password is right and unknown users are made on the fly.
//!
//! Owns: which id a name gets: the number it ends in while that is free, else the next free id.
//! Never: the binding's commit (it goes with the first message stored for the id), nor who is on an
//! id at the moment: its home shard knows, and asks again with `taken` if the name is another.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codec::{TenantId, UserId, UserKey};

use super::{Authenticator, UserDirectory};
use crate::names::decimal;
use crate::request::{AuthRequest, AuthVerdict, Proof, StoreError};
use crate::store::Store;

/// The first id handed out to a name without a number. Far above the numbers that load tools and
/// people put into names, and positive for clients that read ids as signed.
pub const FIRST_ID: u32 = 1_000_000_000;

/// The decimal number a name ends in, if it fits an id: `u42` is 42, `user-007` is 7 (leading
/// zeros do not count), `42` is 42; `alice`, `x4294967296` and the empty name have none.
pub fn numeric_suffix(name: &[u8]) -> Option<UserId> {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = &name[name.len() - digits..];
    let (first, rest) = digits.split_first()?;
    rest.iter()
        .try_fold(u32::from(first - b'0'), |value, digit| {
            value.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
        })
        .map(UserId)
}

/// Passes everybody. One per auth thread, all on the same [`OpenIds`].
pub struct Open {
    directory: Box<dyn UserDirectory>,
    ids: Arc<OpenIds>,
}

impl Open {
    pub fn new(directory: Box<dyn UserDirectory>, ids: Arc<OpenIds>) -> Self {
        Self { directory, ids }
    }

    fn check(&mut self, request: &AuthRequest) -> Result<AuthVerdict, StoreError> {
        let Some(tenant) = self.directory.tenant(&request.tenant)? else {
            return Ok(AuthVerdict::UnknownTenant);
        };
        // Who comes with a token has been told his id.
        if let (Proof::Token(_), Some(id)) = (&request.proof, decimal(&request.name)) {
            let user = UserKey { tenant, id: UserId(id) };
            let name = self.directory.name_of(user)?.filter(|name| *name != request.name);
            return Ok(AuthVerdict::Pass { user, name: name.map(Into::into) });
        }
        Ok(AuthVerdict::pass(tenant, self.id_of(tenant, request)?))
    }

    fn id_of(&mut self, tenant: TenantId, request: &AuthRequest) -> Result<UserId, StoreError> {
        let suffix = numeric_suffix(&request.name);
        let asked = suffix.filter(|_| !request.taken);
        let (user, is_bound) = self.look_up(tenant, &request.name, asked)?;
        // What is committed is final, whoever else may claim the id.
        if let Some(id) = user {
            return Ok(id);
        }
        // The shard found somebody else on the id that the name asks for, or, where the name asks
        // for none, on the id that it was handed before.
        let taken = |id: UserId| request.taken && suffix.is_none_or(|suffix| suffix == id);
        let name = (tenant, Arc::from(&*request.name));
        if let Some(id) = self.ids.standing(&name, asked.filter(|_| !is_bound), taken) {
            return Ok(id);
        }
        let id = self.free_id(tenant)?;
        Ok(self.ids.lock().remember(name, id, taken, self.ids.len_max))
    }

    /// Whose name it is, and whether the id that it asks for is bound.
    fn look_up(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        asked: Option<UserId>,
    ) -> Result<(Option<UserId>, bool), StoreError> {
        match asked {
            Some(id) => self.directory.find_and_is_bound(tenant, name, id),
            None => Ok((self.directory.find(tenant, name)?.map(|user| user.id), false)),
        }
    }

    /// An id that is neither bound nor handed out. Where a run of ids is bound, from before a
    /// restart, the steps double: any free id will do.
    fn free_id(&mut self, tenant: TenantId) -> Result<UserId, StoreError> {
        let mut step = 1;
        for _ in 0..TRIES_MAX {
            let id = self.ids.lock().advance(tenant, step);
            if self.directory.name_of(UserKey { tenant, id })?.is_none() {
                return Ok(id);
            }
            step = (step * 2).min(STEP_MAX);
        }
        Err(StoreError::Unavailable)
    }
}

impl Authenticator for Open {
    fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict {
        self.check(request).unwrap_or(AuthVerdict::Unavailable)
    }

    /// A name's id may change while it is not committed, and asking is cheap.
    fn cacheable(&self) -> bool {
        false
    }
}

/// The ids handed out and not yet seen in the store, so that a name keeps its id. Bounded: at the
/// bound the oldest name is forgotten, and gets another id unless its own is committed by then.
#[derive(Debug)]
pub struct OpenIds {
    len_max: usize,
    table: Mutex<Table>,
}

type Name = (TenantId, Arc<[u8]>);

#[derive(Debug)]
struct Table {
    ids: HashMap<Name, UserId>,
    handed_out: HashSet<UserKey>,
    /// Oldest first. A name that got another id is in it twice, each time with the id of then.
    order: VecDeque<(Name, UserId)>,
    next: u32,
}

impl OpenIds {
    /// Remembers at most `len_max` names (at least one).
    pub fn new(len_max: usize) -> Self {
        let table = Table {
            ids: HashMap::new(),
            handed_out: HashSet::new(),
            order: VecDeque::new(),
            next: FIRST_ID,
        };
        Self { len_max: len_max.max(1), table: Mutex::new(table) }
    }

    /// The id that a login of `name`, whom the store does not know, would get without handing out a
    /// new one: the one handed out to it, else the number it ends in while that is free.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(crate) fn peek(
        &self,
        store: &mut dyn Store,
        tenant: TenantId,
        name: &[u8],
    ) -> Result<Option<UserId>, StoreError> {
        let free = match numeric_suffix(name) {
            Some(id) if store.name_of(UserKey { tenant, id })?.is_none() => Some(id),
            _ => None,
        };
        Ok(self.standing(&(tenant, Arc::from(name)), free, |_| false))
    }

    /// The id handed out to `name` unless it is `taken`, else `free` unless that is handed out.
    fn standing(
        &self,
        name: &Name,
        free: Option<UserId>,
        taken: impl Fn(UserId) -> bool,
    ) -> Option<UserId> {
        let table = self.lock();
        let handed_out = table.ids.get(name).copied().filter(|id| !taken(*id));
        // Not remembered: the shard sees who is on it, the store who was there before.
        let is_free =
            |id: &UserId| !table.handed_out.contains(&UserKey { tenant: name.0, id: *id });
        handed_out.or_else(|| free.filter(is_free))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for OpenIds {
    fn default() -> Self {
        Self::new(LEN_MAX)
    }
}

impl Table {
    /// Moves on by `step` and past what is handed out; after the last id from the first again.
    fn advance(&mut self, tenant: TenantId, step: u32) -> UserId {
        let mut id = self.next.checked_add(step - 1).unwrap_or(FIRST_ID);
        // Ends: the table is far smaller than the range of ids.
        while self.handed_out.contains(&UserKey { tenant, id: UserId(id) }) {
            id = id.checked_add(1).unwrap_or(FIRST_ID);
        }
        self.next = id.checked_add(1).unwrap_or(FIRST_ID);
        UserId(id)
    }

    /// Binds `name` to `id`, unless another thread just gave it an id that is not `taken`.
    fn remember(
        &mut self,
        name: Name,
        id: UserId,
        taken: impl Fn(UserId) -> bool,
        len_max: usize,
    ) -> UserId {
        if let Some(&theirs) = self.ids.get(&name)
            && !taken(theirs)
        {
            return theirs;
        }
        while self.order.len() >= len_max
            && let Some((oldest, its_id)) = self.order.pop_front()
        {
            self.handed_out.remove(&UserKey { tenant: oldest.0, id: its_id });
            if self.ids.get(&oldest) == Some(&its_id) {
                self.ids.remove(&oldest);
            }
        }
        self.handed_out.insert(UserKey { tenant: name.0, id });
        self.order.push_back((name.clone(), id));
        self.ids.insert(name, id);
        id
    }
}

/// 262,144 names of at most a few hundred bytes: under 100 MB when names are as long as they may
/// be, under 40 MB for usual ones.
const LEN_MAX: usize = 1 << 18;
/// Doubling steps pass a million bound ids in 20 tries; the rest is for gaps between runs.
const TRIES_MAX: u32 = 64;
const STEP_MAX: u32 = 1 << 24;
