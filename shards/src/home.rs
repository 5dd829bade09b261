//! Everything a shard keeps of the users whose home it is: sessions, deliveries, groups.
//!
//! Sans-io: packets, mesh messages, store replies, send completions and timeouts come in through
//! the methods below, each with `now`; everything that must happen goes out through
//! [`Effects`]. Never: sockets, clocks, bytes of a protocol, other shards' memory.
//!
//! ```text
//!   publish.rs   a sender's request until it is safe          (his home shard)
//!   groups.rs    members, and one request per shard with any  (the group's home shard)
//!   fan_in.rs    a shard's share of a group message           (the members' home shards)
//!   deliver.rs   a delivery until a terminal has it           (the recipient's home shard)
//!   login.rs     sessions come and go; heartbeats, retries
//!   names.rs     publishes to a name, until it is known whose it is
//!   answers.rs   requests that are answered in their order
//!   room.rs      the public room
//!   asks.rs      contacts, groups, who is online
//! ```

pub(crate) mod answers;
pub(crate) mod asks;
pub(crate) mod dedup;
mod deliver;
pub mod effects;
mod fan_in;
mod groups;
pub(crate) mod inbox;
mod login;
mod names;
pub mod outcome;
mod publish;
pub mod room;
pub(crate) mod session;
mod store_replies;
pub(crate) mod users;

use std::collections::HashMap;
use std::sync::Arc;

use codec::{Packet, TenantId, UserKey};
use smallvec::SmallVec;

use crate::config::{AckPolicy, ShardConfig};
use crate::home::asks::Ask;
use crate::home::dedup::{Dedup, IdHasher};
use crate::home::effects::Effects;
use crate::home::fan_in::FanIn;
use crate::home::groups::{Fan, Groups};
use crate::home::inbox::{Inbox, Owed};
use crate::home::names::Names;
use crate::home::outcome::Outcome;
use crate::home::publish::{DoorId, Pending};
use crate::home::session::{FlightPool, Kind, Session};
use crate::home::users::Users;
use crate::io::{ListenerIndex, Now, ShardIndex, Slot};
use crate::limits::{DEDUP_DOOR_IDS, DOOR_OUTSTANDING, PUBLISHES_OUTSTANDING};
use crate::mesh::ShardMessage;
use crate::metrics::Counters;
use crate::table::{Slab, Table};

pub use login::{Login, Round};

/// What a shard is told at start and cannot know itself.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub shard: ShardIndex,
    /// Above every `seq` in the store.
    pub first_seq: u64,
    /// Random per process: makes message stamps unique over restarts.
    pub boot: u64,
    /// Random keys of the shard's hash tables.
    pub hash_key: [u64; 2],
}

/// The sans-io core of one shard.
#[derive(Debug)]
pub struct Home {
    config: Arc<ShardConfig>,
    identity: Identity,
    next_seq: u64,
    next_stamp: u64,
    sessions: Table<Session>,
    users: Users,
    /// Inboxes kept for reuse, empty.
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is reused")]
    spare_inboxes: Vec<Box<Inbox>>,
    spare_flights: FlightPool,
    pendings: Slab<Pending>,
    hasher: IdHasher,
    /// Ids in all senders' windows together.
    dedup_ids: usize,
    door_window: Dedup,
    door_ids: Slab<DoorId>,
    groups: Groups,
    fans: Slab<Fan>,
    fan_ins: Slab<FanIn>,
    names: Names,
    rooms: HashMap<TenantId, Vec<Slot>>,
    asks: Slab<Ask>,
    /// Members of the public room that do not keep up, to be ended.
    slow: Vec<Slot>,
    draining: bool,
    pub(crate) counters: Counters,
}

impl Home {
    /// `slots`: the size of the connection table, about the number of users to expect.
    pub fn new(config: Arc<ShardConfig>, identity: Identity, slots: u32) -> Self {
        Self {
            config,
            identity,
            next_seq: identity.first_seq,
            next_stamp: 0,
            sessions: Table::new(),
            users: Users::new(slots, identity.hash_key[0]),
            spare_inboxes: Vec::new(),
            spare_flights: FlightPool::default(),
            pendings: Slab::new(),
            hasher: IdHasher::new(identity.hash_key),
            dedup_ids: 0,
            door_window: Dedup::new(DEDUP_DOOR_IDS),
            door_ids: Slab::new(),
            groups: Groups::default(),
            fans: Slab::new(),
            fan_ins: Slab::new(),
            names: Names::new(),
            rooms: HashMap::new(),
            asks: Slab::new(),
            slow: Vec::new(),
            draining: false,
            counters: Counters::default(),
        }
    }

    /// A packet of a logged-in terminal or of a door connection.
    pub fn packet(&mut self, slot: Slot, packet: &Packet<'_>, now: Now, fx: &mut impl Effects) {
        let Some(session) = self.session(slot) else { return };
        session.missed = 0;
        match packet {
            Packet::Publish(publish) => self.publish(slot, publish, now, fx),
            Packet::Ack(id) => self.acknowledged(slot, id, now, fx),
            Packet::AckOldest => self.acknowledged_oldest(slot, now, fx),
            Packet::Query(id, query) => self.query(slot, *id, query, now, fx),
            Packet::WhoIsHere => self.who_is_here(slot, fx),
            Packet::Ping => {
                fx.transmit(slot, &codec::Outgoing::Pong);
            }
            Packet::Pong | Packet::Nothing => {}
            Packet::Disconnect => {
                self.hang_up(slot, codec::CloseReason::PeerDisconnected, now, fx);
            }
            Packet::ConnectAgain => self.accept_again(slot, fx),
            Packet::Connect(_) => {
                fx.transmit(slot, &codec::Outgoing::Refused(codec::Refusal::Duplicate));
                self.hang_up(slot, codec::CloseReason::DuplicateConnect, now, fx);
            }
        }
    }

    /// A message from another shard. Hand-overs are the shard's own business and not seen here.
    pub fn message(
        &mut self,
        from: ShardIndex,
        message: ShardMessage,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let owed = |request| match request {
            ShardMessage::NO_REPLY => Owed::Nobody,
            request => Owed::Request { shard: from, request },
        };
        match message {
            ShardMessage::Deliver { to, message, keep, request } => {
                self.accept_delivery(to, message, keep, owed(request), now, fx);
            }
            ShardMessage::Group { message, part, request } => {
                self.accept_group(message, part, owed(request), now, fx);
            }
            ShardMessage::Settled { request, outcome } => self.settled(request, outcome, now, fx),
            ShardMessage::FanOut { message, members, except, request } => {
                self.fan_in(message, &members, except, owed(request), now, fx);
            }
            ShardMessage::FanOutDone { request, failed } => {
                self.fan_done(request, failed.as_deref().unwrap_or_default(), now, fx);
            }
            ShardMessage::Room { tenant, event } => {
                self.hear_in_room(tenant, &event, None, fx);
            }
            ShardMessage::WhoIsHere { tenant, request } => {
                self.say_who_is_here(from, tenant, request, fx);
            }
            ShardMessage::Here { request, names } => self.here(request, &names, fx),
            ShardMessage::AreOnline { tenant, users, request } => {
                let users = self.online_of(tenant, &users);
                fx.route(from, ShardMessage::Online { request, users });
            }
            ShardMessage::Online { request, users } => self.online(request, &users, now, fx),
            ShardMessage::Adopt { .. } => unreachable!("the shard keeps hand-overs to itself"),
        }
    }

    /// Tells whoever waits how a delivery for `user` ended.
    fn settle(
        &mut self,
        owed: Owed,
        user: UserKey,
        outcome: Outcome,
        now: Now,
        fx: &mut impl Effects,
    ) {
        match owed {
            Owed::Nobody => {}
            Owed::Request { shard, request } if shard == self.identity.shard => {
                self.settled(request, outcome, now, fx);
            }
            Owed::Request { shard, request } => {
                fx.route(shard, ShardMessage::Settled { request, outcome });
            }
            Owed::FanIn(index) => self.fan_in_settled(index, user.id, outcome, now, fx),
            Owed::Door(index) => self.door_settled(index, outcome, now, fx),
        }
    }

    /// May this connection be read? Not while it is over its bound of unsafe publishes.
    pub fn may_read(&self, slot: Slot) -> bool {
        let Some(session) = self.sessions.get(slot.index).filter(|session| session.is(slot)) else {
            return true;
        };
        let unanswered = session.answers.as_ref().map_or(0, |answers| answers.len());
        match session.kind {
            Kind::Door => !self.is_deaf(slot) && unanswered < usize::from(DOOR_OUTSTANDING),
            _ => {
                !session.waiting
                    && session.outstanding < PUBLISHES_OUTSTANDING
                    && unanswered < usize::from(PUBLISHES_OUTSTANDING)
            }
        }
    }

    /// What still comes on this connection means nothing.
    pub fn is_deaf(&self, slot: Slot) -> bool {
        let session = self.sessions.get(slot.index).filter(|session| session.is(slot));
        session.and_then(|session| session.answers.as_ref()).is_some_and(|door| door.deaf)
    }

    /// Publishes that are not safe yet.
    pub fn publishes(&self) -> usize {
        self.pendings.len() + self.names.parked()
    }

    /// Nothing is on its way: no session, no request, no append outstanding.
    pub fn is_quiet(&self) -> bool {
        self.pendings.len() == 0
            && self.fans.len() == 0
            && self.fan_ins.len() == 0
            && self.users.iter().all(|user| user.terminals.is_empty() && user.inbox.is_none())
    }

    /// Users known at the moment, sessions, deliveries in memory: gauges for the metrics.
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges { users: self.users.len() as u64, ..Gauges::default() };
        for user in self.users.iter() {
            gauges.sessions += user.terminals.len() as u64;
            let inbox = user.inbox.as_deref();
            gauges.deliveries +=
                inbox.map_or(0, |inbox| (inbox.queue.len() + inbox.behind.len()) as u64);
        }
        gauges.publishes = self.pendings.len() as u64;
        gauges.dedup_ids = (self.dedup_ids + self.door_window.len()) as u64;
        gauges
    }

    /// Nothing more is taken from a terminal until its question is answered.
    fn set_waiting(&mut self, slot: Slot, waiting: bool, fx: &mut impl Effects) {
        if let Some(session) = self.session(slot) {
            session.waiting = waiting;
            if !waiting {
                fx.resume(slot);
            }
        }
    }

    fn session(&mut self, slot: Slot) -> Option<&mut Session> {
        self.sessions.get_mut(slot.index).filter(|session| session.is(slot))
    }

    /// The tenant of a terminal's user.
    fn tenant_of(&mut self, slot: Slot) -> Option<TenantId> {
        let index = self.session(slot).filter(|session| session.kind == Kind::Terminal)?.user;
        Some(self.users.at(index).key.tenant)
    }

    /// Sessions of a user; a copy, since they change while they are walked.
    fn terminals(&mut self, user: u32) -> SmallVec<[Slot; 2]> {
        self.users.at(user).terminals.clone()
    }

    fn take_inbox(&mut self) -> Box<Inbox> {
        self.spare_inboxes.pop().unwrap_or_else(|| Box::new(Inbox::new(inbox::Mode::Offline)))
    }

    /// Frees what an idle user does not need, down to the record itself.
    fn tidy_user(&mut self, index: u32, fx: &mut impl Effects) {
        let user = self.users.at(index);
        if user.inbox.as_ref().is_some_and(|inbox| inbox.is_idle())
            && let Some(inbox) = user.inbox.take()
            && self.spare_inboxes.len() < crate::limits::SPARE_INBOXES
            && inbox.queue.capacity() <= usize::from(crate::limits::WINDOW_MESSAGES)
        {
            self.spare_inboxes.push(inbox);
        }
        let user = self.users.at(index);
        if user.terminals.is_empty() && user.inbox.is_none() && user.dedup.is_none() {
            user.deadline.cancel(fx);
            self.users.remove(index);
        }
    }

    /// The listener's senders are acknowledged on receipt, whatever becomes of the message.
    fn acks_at_once(&self, listener: ListenerIndex) -> bool {
        let listener = self.config.listeners.get(usize::from(listener));
        listener.is_some_and(|listener| listener.ack == AckPolicy::Received)
    }
}

/// Gauges of one shard's core.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    pub users: u64,
    pub sessions: u64,
    /// Deliveries in memory.
    pub deliveries: u64,
    /// Publishes not yet safe.
    pub publishes: u64,
    pub dedup_ids: u64,
}
