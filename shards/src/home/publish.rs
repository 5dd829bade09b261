//! A sender's publish on his home shard, from its arrival until it is safe or has failed.
//!
//! Owns: the requests under way, the senders' de-duplication windows. A failed request is answered
//! only where the protocol has a word for it: the sender keeps the message, that is what his resend
//! is for.

use std::sync::Arc;

use codec::{
    Destination, Echo, Failure, GroupKey, Manners, Message, MessageId, Outgoing, ProtocolId,
    Publish, PublishKind, Receipt, Target, TenantId, UserId, UserKey,
};
use smallvec::SmallVec;

use crate::home::Home;
use crate::home::answers::{Ended, Published};
use crate::home::dedup::{Dedup, IdHash, Place, Seen};
use crate::home::effects::{Effects, Timer};
use crate::home::inbox::Owed;
use crate::home::outcome::Outcome;
use crate::home::session::Kind;
use crate::io::{Now, Slot};
use crate::limits::{DEDUP_IDS, DEDUP_MS, DEDUP_SHARD_IDS, DOOR_WAITERS, PUBLISHES_OUTSTANDING};
use crate::mesh::{Sending, ShardMessage};
use crate::mutants::{self, Mutant};
use crate::router::{home_of_group, home_of_user};

/// A publish that is not safe yet.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The connection to acknowledge: the newest on which the sender sent it.
    slot: Slot,
    publish: Published,
    origin: Origin,
}

type Numbers = SmallVec<[u32; 1]>;

#[derive(Debug)]
enum Origin {
    /// A user, the id's place in his window, the places of the request and of its resends in the
    /// order of his answers, and whether he understands refusals.
    User { user: UserKey, place: Option<Place>, numbers: Numbers, refusals: bool },
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
    keep: bool,
    copies: bool,
    sending: Sending,
}

/// Whose message it is.
struct Sender {
    tenant: TenantId,
    protocol: ProtocolId,
    from: Option<UserKey>,
    from_name: Arc<[u8]>,
    copies: bool,
    sending: Sending,
}

/// A publish that is not taken over. `to`: the name that was addressed, if it was one.
pub(super) struct Refused<'a> {
    pub(super) slot: Slot,
    pub(super) number: Option<u32>,
    pub(super) id: MessageId,
    pub(super) why: Failure,
    pub(super) to: &'a [u8],
}

impl Home {
    /// A publish of a terminal or of a back end.
    pub(super) fn publish(
        &mut self,
        slot: Slot,
        publish: &Publish<'_>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        self.counters.publishes += 1;
        let number = self.open_request(slot, now, fx);
        match publish.to {
            Destination::Name(_) | Destination::GroupName(_) => {
                self.publish_to_name(slot, publish, number, now, fx);
            }
            Destination::Room => self.say(slot, publish, number, now, fx),
            Destination::User(_) | Destination::Group(_) | Destination::GroupPart(..) => {
                self.publish_to(slot, publish, number, now, fx);
            }
        }
    }

    /// A publish whose recipient is known by number.
    pub(super) fn publish_to(
        &mut self,
        slot: Slot,
        publish: &Publish<'_>,
        number: Option<u32>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(session) = self.session(slot) else { return };
        if session.kind == Kind::Door {
            return self.publish_at_door(slot, publish, number, now, fx);
        }
        let (at_once, manners) = (session.ack_at_once, session.manners);
        let index = session.user;
        let kind = publish.to.kind();
        let hash = self.hasher.hash(kind, target_number(&publish.to), &publish.id);
        // The window is in no cache: while it comes, the message is made, which duplicates waste.
        self.users.at(index).dedup.iter().for_each(|dedup| dedup.fetch(hash));
        let Some(parcel) = self.parcel_of(slot, index, publish, fx) else { return };
        let unique = manners.unique_ids && !publish.id.as_bytes().is_empty();
        let seen = if unique { self.seen(index, hash) } else { None };
        // Where no answer speaks of it, none is remembered.
        let receipt = match number {
            Some(_) => self.receipt_of(index, hash, seen, &parcel.message),
            None => None,
        };
        let published = Published { kind, id: publish.id, receipt };
        let user = self.users.at(index).key;
        match seen {
            Some(Seen::Safe) => {
                self.counters.duplicates += 1;
                self.say_safe(slot, number, published, now, fx);
            }
            Some(Seen::Pending(request)) => {
                self.counters.duplicates += 1;
                self.move_pending(request, slot, number, receipt, now, fx);
            }
            None if at_once => {
                let request = ShardMessage::NO_REPLY;
                let remembered = unique.then(|| self.remember(index, hash, 0, receipt, now, fx));
                self.settle_window(user, slot, remembered.flatten(), Outcome::Safe);
                self.say_safe(slot, number, published, now, fx);
                self.route(parcel, request, now, fx);
            }
            None => {
                let numbers = number.into_iter().collect();
                let refusals = manners.refusals;
                let origin = Origin::User { user, place: None, numbers, refusals };
                let request = self.pendings.insert(Pending { slot, publish: published, origin });
                self.count_outstanding(slot, 1);
                if unique {
                    let remembered = self.remember(index, hash, request, receipt, now, fx);
                    if let Some(Pending { origin: Origin::User { place, .. }, .. }) =
                        self.pendings.get_mut(request)
                    {
                        *place = remembered;
                    }
                }
                self.route(parcel, request, now, fx);
            }
        }
    }

    fn publish_at_door(
        &mut self,
        slot: Slot,
        publish: &Publish<'_>,
        number: Option<u32>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let at_once = self.session(slot).is_some_and(|session| session.ack_at_once);
        let (tenant, protocol) = fx.origin(slot);
        // The back end is nobody's member and has no terminal.
        let sending = Sending { slot, echo: Echo::Nowhere, open: true, resends: true };
        let (from, from_name) = (None, Arc::default());
        let sender = Sender { tenant, protocol, from, from_name, copies: false, sending };
        let Some(parcel) = self.parcel(sender, publish, fx) else { return };
        let Some(number) = number else { return };
        let publish = Published { kind: publish.to.kind(), id: publish.id, receipt: None };
        let origin = Origin::Door { number };
        let request = match at_once {
            true => ShardMessage::NO_REPLY,
            false => self.pendings.insert(Pending { slot, publish, origin }),
        };
        self.route(parcel, request, now, fx);
        if at_once {
            self.answer(slot, number, Ended::Safe(publish), now, fx);
        }
    }

    pub(super) fn say_safe(
        &mut self,
        slot: Slot,
        number: Option<u32>,
        publish: Published,
        now: Now,
        fx: &mut impl Effects,
    ) {
        match number {
            Some(number) => self.answer(slot, number, Ended::Safe(publish), now, fx),
            None => {
                fx.transmit(slot, &publish.safe());
            }
        }
    }

    /// A publish that never got a request is refused, where the protocol has a word for it.
    pub(super) fn refuse(&mut self, refused: Refused<'_>, now: Now, fx: &mut impl Effects) {
        let Refused { slot, number, id, why, to } = refused;
        self.counters.publishes_failed += 1;
        match number {
            Some(number) => self.answer(slot, number, Ended::Failed(id, why), now, fx),
            None => {
                fx.transmit(slot, &Outgoing::PublishFailed { id, why, to });
            }
        }
    }

    /// A request came to its end: acknowledge, or forget it so that a resend is tried again.
    pub(super) fn settled(
        &mut self,
        request: u32,
        outcome: Outcome,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(pending) = self.pendings.remove(request) else {
            debug_assert!(false, "every request is settled once");
            return;
        };
        let Pending { slot, publish, origin } = pending;
        let (user, place, numbers, refusals) = match origin {
            Origin::User { user, place, numbers, refusals } => (user, place, numbers, refusals),
            Origin::Door { number } => {
                self.counters.count_settled(outcome.is_safe());
                return self.answer(slot, number, Ended::of(publish, outcome), now, fx);
            }
        };
        let outcome = match outcome {
            // Where there is no word for it, it is acknowledged, and goes nowhere.
            Outcome::Refused(Failure::NotAllowed) if !refusals => Outcome::Safe,
            outcome => outcome,
        };
        self.counters.count_settled(outcome.is_safe());
        self.settle_window(user, slot, place, outcome);
        let Some(session) = self.session(slot) else { return };
        let was_full = session.outstanding >= PUBLISHES_OUTSTANDING;
        session.outstanding = session.outstanding.saturating_sub(1);
        let has_room = session.outstanding < PUBLISHES_OUTSTANDING;
        for number in &numbers {
            self.answer(slot, *number, Ended::of(publish, outcome), now, fx);
        }
        match outcome {
            _ if !numbers.is_empty() => {}
            Outcome::Safe | Outcome::Stored => {
                fx.transmit(slot, &publish.safe());
            }
            Outcome::Refused(why) if refusals => {
                fx.transmit(slot, &Outgoing::PublishFailed { id: publish.id, why, to: &[] });
            }
            Outcome::Refused(_) => {}
        }
        if was_full && has_room {
            fx.resume(slot);
        }
    }

    /// A delivery for a user of this shard; the door's are de-duplicated here, by (target, id).
    pub(super) fn accept_delivery(
        &mut self,
        to: UserKey,
        message: Arc<Message>,
        keep: bool,
        owed: Owed,
        now: Now,
        fx: &mut impl Effects,
    ) {
        match self.door_dedup(&message, owed, to, now, fx) {
            Some(owed) => self.deliver(to, message, keep, owed, now, fx),
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
            Target::Room(_) => return Some(owed),
        };
        let hash = self.hasher.hash(kind, number, &message.id);
        let hash = self.hasher.with_sender(hash, u64::from(tenant.0));
        match self.door_window.find(hash) {
            Some(Seen::Safe) => self.settle(owed, user, Outcome::Safe, now, fx),
            Some(Seen::Pending(index)) => match self.door_ids.get_mut(index) {
                Some(door) if door.waiters.len() < DOOR_WAITERS => door.waiters.push((owed, user)),
                _ => self.settle(owed, user, Outcome::FAILED, now, fx),
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

    pub(super) fn door_settled(
        &mut self,
        index: u32,
        outcome: Outcome,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(door) = self.door_ids.remove(index) else { return };
        if let Some(place) = door.place {
            self.door_window.settle(place, outcome);
        }
        for (owed, user) in door.waiters {
            self.settle(owed, user, outcome, now, fx);
        }
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
        match parcel.message.to {
            Target::User(to) => {
                self.copy_own(to, &parcel, now, fx);
                self.route_to_user(to, parcel.message, parcel.keep, request, now, fx);
            }
            Target::Group(group) => self.route_to_group(group, parcel, request, now, fx),
            Target::Room(_) => unreachable!("a parcel is for users or groups"),
        }
    }

    /// What is said to somebody else, where the sender's other terminals hear of it.
    fn copy_own(&mut self, to: UserKey, parcel: &Parcel, now: Now, fx: &mut impl Effects) {
        if let Some(user) = parcel.message.from.filter(|&user| parcel.copies && user != to) {
            self.copy(user, &parcel.message, parcel.sending.slot, now, fx);
        }
    }

    fn route_to_user(
        &mut self,
        to: UserKey,
        message: Arc<Message>,
        keep: bool,
        request: u32,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let home = home_of_user(to, self.config.shards);
        if home == self.identity.shard {
            let owed = self.own_request(request);
            self.accept_delivery(to, message, keep, owed, now, fx);
        } else {
            fx.route(home, ShardMessage::Deliver { to, message, keep, request });
        }
    }

    fn route_to_group(
        &mut self,
        group: GroupKey,
        parcel: Parcel,
        request: u32,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Parcel { message, part, sending, .. } = parcel;
        let home = home_of_group(group, self.config.shards);
        if home == self.identity.shard {
            let owed = self.own_request(request);
            self.accept_group(message, part, sending, owed, now, fx);
        } else {
            fx.route(home, ShardMessage::Group { message, part, sending, request });
        }
    }

    fn own_request(&self, request: u32) -> Owed {
        match request {
            ShardMessage::NO_REPLY => Owed::Nobody,
            request => Owed::Request { shard: self.identity.shard, request },
        }
    }

    /// `None`: it is for nobody that has a number.
    fn parcel_of(
        &mut self,
        slot: Slot,
        index: u32,
        publish: &Publish<'_>,
        fx: &impl Effects,
    ) -> Option<Parcel> {
        let (_, protocol) = fx.origin(slot);
        let manners = self.session(slot)?.manners;
        let Manners { group_echo: echo, open_groups: open, copies, unique_ids, .. } = manners;
        let resends = unique_ids && !publish.id.as_bytes().is_empty();
        let sending = Sending { slot, echo, open, resends };
        let user = self.users.at(index);
        let (from, tenant) = (Some(user.key), user.key.tenant);
        let from_name = user.name.clone().unwrap_or_default();
        self.parcel(Sender { tenant, protocol, from, from_name, copies, sending }, publish, fx)
    }

    fn parcel(
        &mut self,
        sender: Sender,
        publish: &Publish<'_>,
        fx: &impl Effects,
    ) -> Option<Parcel> {
        let Sender { tenant, protocol, from, from_name, copies, sending } = sender;
        let (to, part) = match publish.to {
            Destination::User(id) => (Target::User(UserKey { tenant, id }), None),
            Destination::Group(id) => (Target::Group(GroupKey { tenant, id }), None),
            Destination::GroupPart(id, users) => {
                (Target::Group(GroupKey { tenant, id }), Some(users.iter().collect()))
            }
            Destination::Name(_) | Destination::GroupName(_) | Destination::Room => return None,
        };
        let message = Arc::new(Message {
            stamp: self.stamp(),
            id: publish.id,
            from,
            from_name,
            to,
            protocol,
            time_ms: fx.unix_ms(),
            body: publish.body.into(),
        });
        Some(Parcel { message, part, keep: publish.keep, copies, sending })
    }

    /// The next message's, unique over all gateways and restarts.
    pub(super) fn stamp(&mut self) -> u128 {
        let counter = (u64::from(self.identity.shard) << 48) | self.next_stamp;
        self.next_stamp += 1;
        (u128::from(self.identity.boot) << 64) | u128::from(counter)
    }

    /// What is said of a publish that is safe: of a resend what was said of the first one.
    fn receipt_of(
        &mut self,
        index: u32,
        hash: IdHash,
        seen: Option<Seen>,
        message: &Message,
    ) -> Option<Receipt> {
        match seen {
            None => {
                let &Message { stamp, time_ms, .. } = message;
                Some(Receipt { stamp, time_ms, stored: false })
            }
            Some(_) => self.users.at(index).dedup.as_ref()?.receipt(hash, self.identity.boot),
        }
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
        receipt: Option<Receipt>,
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
        if let Some(receipt) = receipt {
            dedup.keep_receipt(place, receipt);
        }
        self.dedup_ids = self.dedup_ids + dedup.len() - before;
        if first {
            let key = user.key;
            user.deadline.want(fx, Timer::User(key), now.plus_ms(DEDUP_MS));
        }
        Some(place)
    }

    /// `slot`: where the user's session was, which mostly spares a search for his record.
    fn settle_window(&mut self, user: UserKey, slot: Slot, place: Option<Place>, outcome: Outcome) {
        let Some(place) = place else { return };
        let index = self.session(slot).map(|session| session.user);
        let index = index.filter(|&index| self.users.at(index).key == user);
        if let Some(index) = index.or_else(|| self.users.find(user))
            && let Some(dedup) = &mut self.users.at(index).dedup
        {
            dedup.settle(place, outcome);
        }
    }

    /// A resend of a publish under way: the newest connection gets the acknowledgement.
    fn move_pending(
        &mut self,
        request: u32,
        slot: Slot,
        number: Option<u32>,
        receipt: Option<Receipt>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(pending) = self.pendings.get_mut(request) else { return };
        let (old, id) = (std::mem::replace(&mut pending.slot, slot), pending.publish.id);
        pending.publish.receipt = receipt;
        let left = match &mut pending.origin {
            Origin::User { numbers, .. } => {
                let left = if old == slot { Numbers::new() } else { std::mem::take(numbers) };
                numbers.extend(number);
                left
            }
            Origin::Door { .. } => Numbers::new(),
        };
        if old != slot {
            self.count_outstanding(old, -1);
            self.count_outstanding(slot, 1);
            fx.resume(old);
        }
        // Their places in the order of the old connection must not stay open.
        for number in left {
            self.answer(old, number, Ended::Failed(id, Failure::Busy), now, fx);
        }
    }

    pub(super) fn count_outstanding(&mut self, slot: Slot, change: i16) {
        if let Some(session) = self.session(slot) {
            session.outstanding = session.outstanding.saturating_add_signed(change);
            debug_assert!(session.outstanding <= 4 * PUBLISHES_OUTSTANDING);
        }
    }
}

fn target_number(to: &Destination<'_>) -> u32 {
    match to {
        Destination::User(id) => id.0,
        Destination::Group(id) | Destination::GroupPart(id, _) => id.0,
        Destination::Name(_) | Destination::GroupName(_) | Destination::Room => 0,
    }
}
