//! The public room of a tenant: everybody who speaks a protocol that has one and is logged in at
//! the moment.
//!
//! What is said there goes to all of them at once, is acknowledged by nobody and never stored. A
//! receiver who does not keep up loses his connection, never anybody else's time.
//!
//! Owns: who of this shard's users is in it. Never: whole lists of other shards' users.

use std::sync::Arc;

use codec::{CloseReason, Message, Outgoing, Publish, Push, Target, TenantId};

use crate::home::Home;
use crate::home::answers::Published;
use crate::home::asks::{Ask, Asked};
use crate::home::effects::Effects;
use crate::io::{Now, ShardIndex, Slot};
use crate::limits::{PRESENT_NAMES, ROOM_BACKLOG};
use crate::mesh::ShardMessage;

/// Something to tell everybody in a room.
#[derive(Clone, Debug)]
pub enum RoomEvent {
    Said(Arc<Message>),
    Joined(Arc<[u8]>),
    Left(Arc<[u8]>),
}

impl RoomEvent {
    fn outgoing(&self) -> Outgoing<'_> {
        match self {
            Self::Said(message) => Outgoing::Push(Push { message, stored: false }),
            Self::Joined(name) => Outgoing::Joined(name),
            Self::Left(name) => Outgoing::Left(name),
        }
    }
}

impl Home {
    /// A message for everybody in the sender's room but himself.
    pub(super) fn say(
        &mut self,
        slot: Slot,
        publish: &Publish<'_>,
        number: Option<u32>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(session) = self.session(slot) else { return };
        let index = session.user;
        let user = self.users.at(index);
        let (key, name) = (user.key, user.name.clone());
        let (_, protocol) = fx.origin(slot);
        let message = Arc::new(Message {
            stamp: self.stamp(),
            id: publish.id,
            from: Some(key),
            from_name: name.unwrap_or_default(),
            to: Target::Room(key.tenant),
            protocol,
            time_ms: fx.unix_ms(),
            body: publish.body.into(),
        });
        self.tell_room(key.tenant, RoomEvent::Said(message), Some(slot), fx);
        let publish = Published { kind: publish.to.kind(), id: publish.id, receipt: None };
        self.say_safe(slot, number, publish, now, fx);
    }

    /// A terminal comes in; the others hear of a user's first one.
    pub(super) fn enter_room(&mut self, slot: Slot, index: u32, fx: &mut impl Effects) {
        let first = !self.has_room_terminal(index);
        let user = self.users.at(index);
        let (tenant, name) = (user.key.tenant, user.name.clone().unwrap_or_default());
        if first {
            self.tell_room(tenant, RoomEvent::Joined(name), Some(slot), fx);
        }
        self.rooms.entry(tenant).or_default().push(slot);
    }

    /// A terminal has gone and is no longer among the user's; the others hear of his last one.
    pub(super) fn leave_room(&mut self, slot: Slot, index: u32, fx: &mut impl Effects) {
        let last = !self.has_room_terminal(index);
        let user = self.users.at(index);
        let (tenant, name) = (user.key.tenant, user.name.clone().unwrap_or_default());
        if let Some(slots) = self.rooms.get_mut(&tenant) {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.rooms.remove(&tenant);
            }
        }
        // When the gateway stops everybody leaves, and nobody needs to hear of it.
        if last && !self.draining {
            self.tell_room(tenant, RoomEvent::Left(name), None, fx);
        }
    }

    /// Everybody of the room on this shard but `except`.
    pub(super) fn hear_in_room(
        &mut self,
        tenant: TenantId,
        event: &RoomEvent,
        except: Option<Slot>,
        fx: &mut impl Effects,
    ) {
        let slots = self.rooms.get(&tenant).cloned().unwrap_or_default();
        for slot in slots.into_iter().filter(|slot| Some(*slot) != except) {
            if fx.backlog(slot) > ROOM_BACKLOG {
                // Not here: others would hear of it and find the next slow one, before this ends.
                self.slow.push(slot);
            } else if self.session(slot).is_some() {
                fx.transmit(slot, &event.outgoing());
            }
        }
    }

    /// Ends the members that do not keep up. The others hear of it, and may find more of them.
    pub fn end_slow(&mut self, now: Now, fx: &mut impl Effects) {
        while let Some(slot) = self.slow.pop() {
            if self.session(slot).is_some() {
                self.hang_up(slot, CloseReason::SlowConsumer, now, fx);
            }
        }
    }

    fn tell_room(
        &mut self,
        tenant: TenantId,
        event: RoomEvent,
        except: Option<Slot>,
        fx: &mut impl Effects,
    ) {
        for shard in (0..self.config.shards).filter(|shard| *shard != self.identity.shard) {
            fx.route(shard, ShardMessage::Room { tenant, event: event.clone() });
        }
        self.hear_in_room(tenant, &event, except, fx);
    }

    /// Asks every shard who is in the room.
    pub(super) fn who_is_here(&mut self, slot: Slot, fx: &mut impl Effects) {
        let Some(tenant) = self.tenant_of(slot) else { return };
        let others = self.config.shards - 1;
        let names: Vec<Box<[u8]>> = self.names_here(tenant).iter().map(|n| (**n).into()).collect();
        if others == 0 {
            return self.say_who(slot, names, fx);
        }
        self.set_waiting(slot, true, fx);
        let asked = Asked::Room(names);
        let request = self.asks.insert(Ask { slot, remaining: others, asked });
        for shard in (0..self.config.shards).filter(|shard| *shard != self.identity.shard) {
            fx.route(shard, ShardMessage::WhoIsHere { tenant, request });
        }
    }

    /// Answers another shard's [`ShardMessage::WhoIsHere`].
    pub(super) fn say_who_is_here(
        &self,
        to: ShardIndex,
        tenant: TenantId,
        request: u32,
        fx: &mut impl Effects,
    ) {
        let names = self.names_here(tenant).into();
        fx.route(to, ShardMessage::Here { request, names });
    }

    /// A shard's answer has come.
    pub(super) fn here(&mut self, request: u32, names: &[Arc<[u8]>], fx: &mut impl Effects) {
        let Some(ask) = self.asks.get_mut(request) else { return };
        let Asked::Room(known) = &mut ask.asked else { return };
        known.extend(names.iter().map(|name| Box::from(&**name)));
        ask.remaining -= 1;
        if ask.remaining > 0 {
            return;
        }
        if let Some(Ask { slot, asked: Asked::Room(names), .. }) = self.asks.remove(request) {
            self.say_who(slot, names, fx);
            self.set_waiting(slot, false, fx);
        }
    }

    fn say_who(&mut self, slot: Slot, mut names: Vec<Box<[u8]>>, fx: &mut impl Effects) {
        let Some(session) = self.session(slot) else { return };
        let index = session.user;
        let own = self.users.at(index).name.clone().unwrap_or_default();
        names.retain(|name| **name != *own);
        names.sort_unstable();
        names.truncate(PRESENT_NAMES);
        fx.transmit(slot, &Outgoing::Present(&names));
    }

    /// Names of this shard's users in the room, each once.
    fn names_here(&self, tenant: TenantId) -> Vec<Arc<[u8]>> {
        let mut names = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for slot in self.rooms.get(&tenant).into_iter().flatten() {
            let Some(session) = self.sessions.get(slot.index) else { continue };
            if names.len() < PRESENT_NAMES
                && seen.insert(session.user)
                && let Some(name) = self.users.get(session.user).and_then(|u| u.name.clone())
            {
                names.push(name);
            }
        }
        names
    }

    fn has_room_terminal(&mut self, index: u32) -> bool {
        let terminals = self.terminals(index);
        terminals
            .iter()
            .any(|slot| self.sessions.get(slot.index).is_some_and(|session| session.manners.room))
    }
}
