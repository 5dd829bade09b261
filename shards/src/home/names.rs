//! Publishes to names: the store says who that is, and the answer is remembered for a while.
//!
//! Messages to a name that is being looked up wait behind each other, so that none overtakes
//! another. That a name is unknown is never remembered.
//!
//! Owns: the names looked up lately, and the publishes that wait for one. Never: routing.

use std::collections::{HashMap, VecDeque};

use codec::{Destination, Failure, MessageId, Publish, TenantId};
use storage::{Found, NameKind, Request, StoreError};

use crate::home::Home;
use crate::home::effects::Effects;
use crate::home::publish::Refused;
use crate::io::{Now, Slot};
use crate::limits::{NAMES_CACHE, NAMES_MS};
use crate::table::Slab;

/// A publish whose recipient is being looked up.
#[derive(Debug)]
struct Parked {
    slot: Slot,
    number: Option<u32>,
    id: MessageId,
    keep: bool,
    body: Box<[u8]>,
}

#[derive(Debug)]
enum Entry {
    Known {
        found: Found,
        at: Now,
    },
    /// Oldest first.
    Waiting(VecDeque<Parked>),
}

#[derive(Debug)]
struct LookUp {
    tenant: TenantId,
    what: NameKind,
    name: Box<[u8]>,
}

type ByName = HashMap<Box<[u8]>, Entry>;

/// The names that this shard's users address.
#[derive(Debug)]
pub(crate) struct Names {
    /// By tenant, and whether only groups are meant.
    entries: HashMap<(TenantId, bool), ByName>,
    len: usize,
    look_ups: Slab<LookUp>,
    /// Publishes waiting for all names together.
    parked: usize,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self { entries: HashMap::new(), len: 0, look_ups: Slab::new(), parked: 0 }
    }

    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    /// Every name is looked up again at its next use.
    pub(crate) fn forget(&mut self) {
        for names in self.entries.values_mut() {
            names.retain(|_, entry| matches!(entry, Entry::Waiting(_)));
        }
        self.len = self.entries.values().map(HashMap::len).sum();
    }

    fn known(&self, tenant: TenantId, what: NameKind, name: &[u8], now: Now) -> Option<Found> {
        match self.entries.get(&key(tenant, what))?.get(name)? {
            Entry::Known { found, at } if now.ms_since(*at) < NAMES_MS => Some(*found),
            _ => None,
        }
    }

    /// Puts a publish behind the others for its name. The request to make, if it is the first.
    fn park(
        &mut self,
        tenant: TenantId,
        what: NameKind,
        name: &[u8],
        parked: Parked,
    ) -> Option<Request> {
        if self.len >= NAMES_CACHE {
            self.forget();
        }
        self.parked += 1;
        let names = self.entries.entry(key(tenant, what)).or_default();
        if let Some(Entry::Waiting(queue)) = names.get_mut(name) {
            queue.push_back(parked);
            return None;
        }
        let known = names.insert(name.into(), Entry::Waiting(VecDeque::from([parked])));
        self.len += usize::from(known.is_none());
        let token = self.look_ups.insert(LookUp { tenant, what, name: name.into() });
        Some(Request::Resolve { token: u64::from(token), tenant, name: name.into(), what })
    }

    /// Ends a look-up: the name, and who waited for it.
    fn settle(
        &mut self,
        token: u64,
        found: Option<Found>,
        now: Now,
    ) -> Option<(LookUp, VecDeque<Parked>)> {
        let look_up = self.look_ups.remove(u32::try_from(token).ok()?)?;
        let names = self.entries.get_mut(&key(look_up.tenant, look_up.what))?;
        let Some(Entry::Waiting(queue)) = names.remove(&look_up.name) else { return None };
        self.parked -= queue.len();
        match found {
            Some(found) => {
                names.insert(look_up.name.clone(), Entry::Known { found, at: now });
            }
            None => self.len -= 1,
        }
        Some((look_up, queue))
    }
}

impl Home {
    /// A publish to a name: at once if it is known, else when the store has said whose it is.
    pub(super) fn publish_to_name(
        &mut self,
        slot: Slot,
        publish: &Publish<'_>,
        number: Option<u32>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let (name, what) = match publish.to {
            Destination::Name(name) => (name, NameKind::Any),
            Destination::GroupName(name) => (name, NameKind::Group),
            _ => return,
        };
        let Some(tenant) = self.tenant_of(slot) else { return };
        if let Some(found) = self.names.known(tenant, what, name, now) {
            let publish = Publish { to: destination(found), ..*publish };
            return self.publish_to(slot, &publish, number, now, fx);
        }
        let Publish { id, keep, body, .. } = *publish;
        let parked = Parked { slot, number, id, keep, body: body.into() };
        self.set_waiting(slot, true, fx);
        if let Some(request) = self.names.park(tenant, what, name, parked) {
            fx.store(request);
        }
    }

    /// The store's answer to a look-up.
    pub fn resolved(
        &mut self,
        token: u64,
        result: Result<Option<Found>, StoreError>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let found = result.ok().flatten();
        let Some((look_up, queue)) = self.names.settle(token, found, now) else { return };
        let why = match result {
            Ok(_) => Failure::Unknown,
            Err(_) => Failure::Busy,
        };
        for Parked { slot, number, id, keep, body } in queue {
            // A sender who has gone was owed nothing yet: he sends it again.
            if self.session(slot).is_none() {
                continue;
            }
            match found {
                Some(found) => {
                    let publish = Publish { id, to: destination(found), body: &body, keep };
                    self.publish_to(slot, &publish, number, now, fx);
                }
                None => {
                    let refused = Refused { slot, number, id, why, to: &look_up.name };
                    self.refuse(refused, now, fx);
                }
            }
            self.set_waiting(slot, false, fx);
        }
    }
}

fn key(tenant: TenantId, what: NameKind) -> (TenantId, bool) {
    (tenant, what == NameKind::Group)
}

fn destination(found: Found) -> Destination<'static> {
    match found {
        Found::User(id) => Destination::User(id),
        Found::Group(id) => Destination::Group(id),
    }
}
