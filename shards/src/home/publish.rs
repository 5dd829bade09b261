//! A sender's publish on his home shard, from its arrival until it is safe or has failed.
//!
//! Owns: the requests under way, the senders' de-duplication windows, the door's ordered replies.
//! A failed request is never answered: the sender keeps the message, that is what his resend is
//! for.

use std::sync::Arc;

use codec::{
    CloseReason, Destination, GroupKey, Message, MessageId, Outgoing, ProtocolId, Publish,
    PublishKind, Target, TenantId, UserId, UserKey,
};
use smallvec::SmallVec;

use crate::home::Home;
use crate::home::dedup::{Dedup, IdHash, Place, Seen};
use crate::home::effects::{Effects, Timer};
use crate::home::inbox::Owed;
use crate::home::session::{DoorEntry, DoorQueue, Kind, Outcome};
use crate::io::{Now, Slot};
use crate::limits::{
    DEDUP_IDS, DEDUP_MS, DEDUP_SHARD_IDS, DOOR_DEADLINE_MS, DOOR_OUTSTANDING, DOOR_WAITERS,
    PUBLISHES_OUTSTANDING,
};
use crate::mesh::ShardMessage;
use crate::mutants::{self, Mutant};
use crate::router::{home_of_group, home_of_user};

/// A publish that is not safe yet.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The connection to acknowledge: the newest on which the sender sent it.
    slot: Slot,
    kind: PublishKind,
    id: MessageId,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// A user, and the id's place in his window.
    User { user: UserKey, place: Option<Place> },
    /// The request's number on its door connection.
    Door { number: u32 },
}

/// A (target, id) of the door that is being delivered, and everyone who asked for it.
#[derive(Debug)]
pub(crate) struct DoorId {
    place: Option<Place>,
    waiters: SmallVec<[(Owed, UserKey); 1]>,
}

/// A message, and the members it is for if not all of its group.
struct Parcel {
    message: Arc<Message>,
    part: Option<Arc<[UserId]>>,
}

impl Home {
    pub(super) fn publish(
        &mut self,
        slot: Slot,
        publish: &Publish<'_>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        self.counters.publishes += 1;
        let Some(session) = self.session(slot) else { return };
        let at_once = session.ack_at_once;
        if session.kind == Kind::Door {
            let (tenant, protocol) = fx.origin(slot);
            let parcel = self.parcel(tenant, protocol, None, publish, fx);
            let number = self.open_door_request(slot, publish, now, fx);
            let (kind, id) = (publish.to.kind(), publish.id);
            let origin = Origin::Door { number };
            let request = match at_once {
                true => ShardMessage::NO_REPLY,
                false => self.pendings.insert(Pending { slot, kind, id, origin }),
            };
            self.route(parcel, request, now, fx);
            if at_once {
                self.door_answer(slot, number, true, fx);
            }
            return;
        }
        let index = session.user;
        let key = self.users.at(index).key;
        let (_, protocol) = fx.origin(slot);
        let kind = publish.to.kind();
        let hash = self.hasher.hash(kind, target_number(&publish.to), &publish.id);
        // The window is in no cache: while it comes, the message is made, which duplicates waste.
        self.users.at(index).dedup.iter().for_each(|dedup| dedup.fetch(hash));
        let parcel = self.parcel(key.tenant, protocol, Some(key), publish, fx);
        match self.seen(index, hash) {
            Some(Seen::Safe) => {
                self.counters.duplicates += 1;
                fx.transmit(slot, &Outgoing::PublishAck(kind, publish.id));
            }
            Some(Seen::Pending(request)) => {
                self.counters.duplicates += 1;
                self.move_pending(request, slot, fx);
            }
            None if at_once => {
                let request = ShardMessage::NO_REPLY;
                let place = self.remember(index, hash, 0, now, fx);
                self.settle_window(key, slot, place, true);
                fx.transmit(slot, &Outgoing::PublishAck(kind, publish.id));
                self.route(parcel, request, now, fx);
            }
            None => {
                let origin = Origin::User { user: key, place: None };
                let request = self.pendings.insert(Pending { slot, kind, id: publish.id, origin });
                self.count_outstanding(slot, 1);
                let place = self.remember(index, hash, request, now, fx);
                if let Some(pending) = self.pendings.get_mut(request) {
                    pending.origin = Origin::User { user: key, place };
                }
                self.route(parcel, request, now, fx);
            }
        }
    }

    /// A request came to its end: acknowledge, or forget it so that a resend is tried again.
    pub(super) fn settled(&mut self, request: u32, safe: bool, fx: &mut impl Effects) {
        let Some(pending) = self.pendings.remove(request) else {
            debug_assert!(false, "every request is settled once");
            return;
        };
        self.counters.count_settled(safe);
        match pending.origin {
            Origin::User { user, place } => {
                self.settle_window(user, pending.slot, place, safe);
                let Some(session) = self.session(pending.slot) else { return };
                let was_full = session.outstanding >= PUBLISHES_OUTSTANDING;
                session.outstanding = session.outstanding.saturating_sub(1);
                let has_room = session.outstanding < PUBLISHES_OUTSTANDING;
                if safe {
                    fx.transmit(pending.slot, &Outgoing::PublishAck(pending.kind, pending.id));
                }
                if was_full && has_room {
                    fx.resume(pending.slot);
                }
            }
            Origin::Door { number } => self.door_answer(pending.slot, number, safe, fx),
        }
    }

    /// A delivery for a user of this shard; the door's are de-duplicated here, by (target, id).
    pub(super) fn accept_delivery(
        &mut self,
        to: UserKey,
        message: Arc<Message>,
        owed: Owed,
        now: Now,
        fx: &mut impl Effects,
    ) {
        match self.door_dedup(&message, owed, to, now, fx) {
            Some(owed) => self.deliver(to, message, owed, now, fx),
            None => self.counters.duplicates += 1,
        }
    }

    /// `None`: a duplicate, answered or waiting with the first one. Users' publishes pass.
    pub(super) fn door_dedup(
        &mut self,
        message: &Message,
        owed: Owed,
        user: UserKey,
        now: Now,
        fx: &mut impl Effects,
    ) -> Option<Owed> {
        if message.from.is_some() {
            return Some(owed);
        }
        self.door_window.expire(now);
        let (kind, tenant, number) = match message.to {
            Target::User(user) => (PublishKind::User, user.tenant, user.id.0),
            Target::Group(group) => (PublishKind::Group, group.tenant, group.id.0),
        };
        let hash = self.hasher.hash(kind, number, &message.id);
        let hash = self.hasher.with_sender(hash, u64::from(tenant.0));
        match self.door_window.find(hash) {
            Some(Seen::Safe) => self.settle(owed, user, true, fx),
            Some(Seen::Pending(index)) => match self.door_ids.get_mut(index) {
                Some(door) if door.waiters.len() < DOOR_WAITERS => door.waiters.push((owed, user)),
                _ => self.settle(owed, user, false, fx),
            },
            None => {
                let waiters = SmallVec::from_elem((owed, user), 1);
                let index = self.door_ids.insert(DoorId { place: None, waiters });
                let place = self.door_window.insert(hash, index, now);
                if let Some(door) = self.door_ids.get_mut(index) {
                    door.place = Some(place);
                }
                return Some(Owed::Door(index));
            }
        }
        None
    }

    pub(super) fn door_settled(&mut self, index: u32, safe: bool, fx: &mut impl Effects) {
        let Some(door) = self.door_ids.remove(index) else { return };
        if let Some(place) = door.place {
            self.door_window.settle(place, safe);
        }
        for (owed, user) in door.waiters {
            self.settle(owed, user, safe, fx);
        }
    }

    /// When the oldest unanswered request of a door came in.
    pub(super) fn door_front(&mut self, slot: Slot) -> Option<Now> {
        Some(self.session(slot)?.door.as_ref()?.entries.front()?.since)
    }

    /// Drops ids older than the window; returns when to look again.
    pub(super) fn expire_dedup(&mut self, index: u32, now: Now) -> Option<Now> {
        let user = self.users.at(index);
        let dedup = user.dedup.as_mut()?;
        self.dedup_ids -= dedup.expire(now);
        if dedup.len() == 0 {
            user.dedup = None;
            return None;
        }
        Some(now.plus_ms(DEDUP_MS / 2))
    }

    fn route(&mut self, parcel: Parcel, request: u32, now: Now, fx: &mut impl Effects) {
        let Parcel { message, part } = parcel;
        match message.to {
            Target::User(to) => self.route_to_user(to, message, request, now, fx),
            Target::Group(group) => self.route_to_group(group, message, part, request, now, fx),
        }
    }

    fn route_to_user(
        &mut self,
        to: UserKey,
        message: Arc<Message>,
        request: u32,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let home = home_of_user(to, self.config.shards);
        if home == self.identity.shard {
            let owed = self.own_request(request);
            self.accept_delivery(to, message, owed, now, fx);
        } else {
            fx.route(home, ShardMessage::Deliver { to, message, request });
        }
    }

    fn route_to_group(
        &mut self,
        group: GroupKey,
        message: Arc<Message>,
        part: Option<Arc<[UserId]>>,
        request: u32,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let home = home_of_group(group, self.config.shards);
        if home == self.identity.shard {
            let owed = self.own_request(request);
            self.accept_group(message, part, owed, now, fx);
        } else {
            fx.route(home, ShardMessage::Group { message, part, request });
        }
    }

    fn own_request(&self, request: u32) -> Owed {
        match request {
            ShardMessage::NO_REPLY => Owed::Nobody,
            request => Owed::Request { shard: self.identity.shard, request },
        }
    }

    fn parcel(
        &mut self,
        tenant: TenantId,
        protocol: ProtocolId,
        from: Option<UserKey>,
        publish: &Publish<'_>,
        fx: &impl Effects,
    ) -> Parcel {
        let (to, part) = match publish.to {
            Destination::User(id) => (Target::User(UserKey { tenant, id }), None),
            Destination::Group(id) => (Target::Group(GroupKey { tenant, id }), None),
            Destination::GroupPart(id, users) => {
                (Target::Group(GroupKey { tenant, id }), Some(users.iter().collect()))
            }
        };
        let counter = (u64::from(self.identity.shard) << 48) | self.next_stamp;
        self.next_stamp += 1;
        let message = Arc::new(Message {
            stamp: (u128::from(self.identity.boot) << 64) | u128::from(counter),
            id: publish.id,
            from,
            to,
            protocol,
            time_ms: fx.unix_ms(),
            body: publish.body.into(),
        });
        Parcel { message, part }
    }

    fn seen(&mut self, index: u32, hash: IdHash) -> Option<Seen> {
        if mutants::on(Mutant::NoDeduplication) {
            return None;
        }
        self.users.at(index).dedup.as_ref()?.find(hash)
    }

    /// Puts a new id into the sender's window, within the shard's cap; `None`: no room.
    fn remember(
        &mut self,
        index: u32,
        hash: IdHash,
        request: u32,
        now: Now,
        fx: &mut impl Effects,
    ) -> Option<Place> {
        if mutants::on(Mutant::NoDeduplication) {
            return None;
        }
        let user = self.users.at(index);
        let first = user.dedup.is_none();
        let dedup = user.dedup.get_or_insert_with(|| Box::new(Dedup::new(DEDUP_IDS)));
        self.dedup_ids -= dedup.expire(now);
        let before = dedup.len();
        if self.dedup_ids >= DEDUP_SHARD_IDS {
            if dedup.len() == 0 {
                // No room for anyone's first id: this sender's resends may be delivered twice.
                user.dedup = None;
                self.counters.dedup_full += 1;
                return None;
            }
            dedup.pop();
        }
        let place = dedup.insert(hash, request, now);
        self.dedup_ids = self.dedup_ids + dedup.len() - before;
        if first {
            let key = user.key;
            user.deadline.want(fx, Timer::User(key), now.plus_ms(DEDUP_MS));
        }
        Some(place)
    }

    /// `slot`: where the user's session was, which mostly spares a search for his record.
    fn settle_window(&mut self, user: UserKey, slot: Slot, place: Option<Place>, safe: bool) {
        let Some(place) = place else { return };
        let index = self.session(slot).map(|session| session.user);
        let index = index.filter(|&index| self.users.at(index).key == user);
        if let Some(index) = index.or_else(|| self.users.find(user))
            && let Some(dedup) = &mut self.users.at(index).dedup
        {
            dedup.settle(place, safe);
        }
    }

    /// A resend of a publish under way: the newest connection gets the acknowledgement.
    fn move_pending(&mut self, request: u32, slot: Slot, fx: &mut impl Effects) {
        let Some(pending) = self.pendings.get_mut(request) else { return };
        let old = std::mem::replace(&mut pending.slot, slot);
        if old != slot {
            self.count_outstanding(old, -1);
            self.count_outstanding(slot, 1);
            fx.resume(old);
        }
    }

    fn count_outstanding(&mut self, slot: Slot, change: i16) {
        if let Some(session) = self.session(slot) {
            session.outstanding = session.outstanding.saturating_add_signed(change);
            debug_assert!(session.outstanding <= 4 * PUBLISHES_OUTSTANDING);
        }
    }

    /// The request's number on its connection.
    fn open_door_request(
        &mut self,
        slot: Slot,
        publish: &Publish<'_>,
        now: Now,
        fx: &mut impl Effects,
    ) -> u32 {
        let (kind, id) = (publish.to.kind(), publish.id);
        let session = self.sessions.entry(slot.index);
        let door = session.door.get_or_insert_with(Box::<DoorQueue>::default);
        let number = door.first.wrapping_add(door.entries.len() as u32);
        door.entries.push_back(DoorEntry { kind, id, since: now, outcome: None });
        debug_assert!(door.entries.len() <= 4 * usize::from(DOOR_OUTSTANDING));
        session.deadline.want(fx, Timer::Session(slot), now.plus_ms(DOOR_DEADLINE_MS));
        number
    }

    fn door_answer(&mut self, slot: Slot, number: u32, safe: bool, fx: &mut impl Effects) {
        let Some(door) = self.session(slot).and_then(|session| session.door.as_mut()) else {
            return;
        };
        let position = number.wrapping_sub(door.first) as usize;
        if let Some(entry) = door.entries.get_mut(position) {
            entry.outcome = Some(if safe { Outcome::Safe } else { Outcome::Failed });
        }
        self.answer_door(slot, fx);
    }

    /// A request that made no sense is answered in its turn, too.
    pub(super) fn door_malformed(&mut self, slot: Slot, now: Now, fx: &mut impl Effects) {
        let Some(door) = self.session(slot).and_then(|session| session.door.as_mut()) else {
            return;
        };
        let (kind, id) = (PublishKind::User, MessageId::from([0; MessageId::MAX]));
        let outcome = Some(Outcome::Malformed);
        door.deaf = true;
        door.entries.push_back(DoorEntry { kind, id, since: now, outcome });
        self.answer_door(slot, fx);
    }

    /// The door answers in the order of the requests. One that failed or made no sense ends the
    /// connection when it comes to the front, after the answers before it.
    fn answer_door(&mut self, slot: Slot, fx: &mut impl Effects) {
        let Some(door) = self.session(slot).and_then(|session| session.door.as_mut()) else {
            return;
        };
        let mut end = None;
        while end.is_none()
            && let Some(entry) = door.entries.pop_front_if(|entry| entry.outcome.is_some())
        {
            door.first = door.first.wrapping_add(1);
            match entry.outcome {
                Some(Outcome::Failed) => end = Some(CloseReason::DoorTimeout),
                Some(Outcome::Malformed) => {
                    fx.transmit(slot, &Outgoing::Invalid);
                    end = Some(CloseReason::Malformed);
                }
                _ => {
                    fx.transmit(slot, &Outgoing::PublishAck(entry.kind, entry.id));
                }
            }
        }
        match end {
            Some(reason) => self.hang_up(slot, reason, Now::default(), fx),
            None if self.may_read(slot) => fx.resume(slot),
            None => {}
        }
    }
}

fn target_number(to: &Destination<'_>) -> u32 {
    match to {
        Destination::User(id) => id.0,
        Destination::Group(id) | Destination::GroupPart(id, _) => id.0,
    }
}
