//! Publishes to names: the store says who that is, and the answer is remembered for a while.
//!
//! Messages to a name that is being looked up wait behind each other, so that none overtakes
//! another. That a name is unknown is never remembered.
//!
//! Owns: the names looked up lately, and the publishes that wait for one. Never: routing.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher, RandomState};

use codec::{Destination, Failure, MessageId, Publish, TenantId};
use hashbrown::{Equivalent, HashMap};
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

/// A name, in whose tenant, and what it may mean.
#[derive(Clone, Debug)]
struct Named<N> {
    tenant: TenantId,
    what: NameKind,
    name: N,
}

type Owned = Named<Box<[u8]>>;

impl<N: AsRef<[u8]>> Named<N> {
    fn owned(&self) -> Owned {
        Owned { tenant: self.tenant, what: self.what, name: self.name.as_ref().into() }
    }

    /// All but the name in one number.
    fn scope(&self) -> u64 {
        u64::from(self.tenant.0) << 1 | u64::from(self.what == NameKind::Group)
    }
}

impl<N: AsRef<[u8]>> Hash for Named<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.scope());
        state.write(self.name.as_ref());
    }
}

impl PartialEq for Owned {
    fn eq(&self, other: &Self) -> bool {
        self.scope() == other.scope() && self.name == other.name
    }
}

impl Eq for Owned {}

impl Equivalent<Owned> for Named<&[u8]> {
    fn equivalent(&self, key: &Owned) -> bool {
        self.scope() == key.scope() && *self.name == *key.name
    }
}

/// The names that this shard's users address.
#[derive(Debug)]
pub(crate) struct Names {
    entries: HashMap<Owned, Entry, RandomState>,
    look_ups: Slab<Owned>,
    /// Publishes waiting for all names together.
    parked: usize,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self { entries: HashMap::default(), look_ups: Slab::new(), parked: 0 }
    }

    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    /// Every name is looked up again at its next use.
    pub(crate) fn forget(&mut self) {
        self.entries.retain(|_, entry| matches!(entry, Entry::Waiting(_)));
    }

    fn known(&self, name: &Named<&[u8]>, now: Now) -> Option<Found> {
        match self.entries.get(name)? {
            Entry::Known { found, at } if now.ms_since(*at) < NAMES_MS => Some(*found),
            _ => None,
        }
    }

    /// Puts a publish behind the others for its name. The request to make, if it is the first.
    fn park(&mut self, name: &Named<&[u8]>, parked: Parked) -> Option<Request> {
        if self.entries.len() >= NAMES_CACHE {
            self.forget();
        }
        self.parked += 1;
        if let Some(Entry::Waiting(queue)) = self.entries.get_mut(name) {
            queue.push_back(parked);
            return None;
        }
        self.entries.insert(name.owned(), Entry::Waiting(VecDeque::from([parked])));
        let token = u64::from(self.look_ups.insert(name.owned()));
        let Named { tenant, what, name } = *name;
        Some(Request::Resolve { token, tenant, name: name.into(), what })
    }

    /// Ends a look-up: the name, and who waited for it.
    fn settle(
        &mut self,
        token: u64,
        found: Option<Found>,
        now: Now,
    ) -> Option<(Owned, VecDeque<Parked>)> {
        let name = self.look_ups.remove(u32::try_from(token).ok()?)?;
        let Some(Entry::Waiting(queue)) = self.entries.remove(&name) else { return None };
        self.parked -= queue.len();
        if let Some(found) = found {
            self.entries.insert(name.clone(), Entry::Known { found, at: now });
        }
        Some((name, queue))
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
        let name = Named { tenant, what, name };
        if let Some(found) = self.names.known(&name, now) {
            let publish = Publish { to: destination(found), ..*publish };
            return self.publish_to(slot, &publish, number, now, fx);
        }
        let Publish { id, keep, body, .. } = *publish;
        let parked = Parked { slot, number, id, keep, body: body.into() };
        self.set_waiting(slot, true, fx);
        if let Some(request) = self.names.park(&name, parked) {
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
        let Some((name, queue)) = self.names.settle(token, found, now) else { return };
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
                    let refused = Refused { slot, number, id, why, to: &name.name };
                    self.refuse(refused, now, fx);
                }
            }
            self.set_waiting(slot, false, fx);
        }
    }
}

fn destination(found: Found) -> Destination<'static> {
    match found {
        Found::User(id) => Destination::User(id),
        Found::Group(id) => Destination::Group(id),
    }
}
