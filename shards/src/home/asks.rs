//! Questions that other parts must answer before a client hears: the store about contacts and
//! groups, the other shards about who is online.
//!
//! Owns: who asked, and what has been said so far. Never: the answers themselves.

use std::sync::Arc;

use codec::{Answer, Failure, MessageId, Outgoing, Query, TenantId, UserId, UserKey};
use storage::{Request, StoreError};

use crate::home::Home;
use crate::home::answers::Ended;
use crate::home::effects::Effects;
use crate::io::{Now, ShardIndex, Slot};
use crate::mesh::ShardMessage;
use crate::router::home_of_user;

/// A question under way.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) slot: Slot,
    /// Shards that have not answered.
    pub(crate) remaining: u16,
    pub(crate) asked: Asked,
}

#[derive(Debug)]
pub(crate) enum Asked {
    /// Names in the public room so far.
    Room(Vec<Box<[u8]>>),
    Query {
        number: Option<u32>,
        id: MessageId,
        by: UserKey,
        name: Option<Arc<[u8]>>,
        /// Once the store has answered, and only who is online is missing.
        answer: Option<Box<Answer>>,
    },
}

impl Home {
    /// A question about contacts or groups.
    pub(super) fn query(
        &mut self,
        slot: Slot,
        id: MessageId,
        query: &Query,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(session) = self.session(slot) else { return };
        let index = session.user;
        let user = self.users.at(index);
        let binding = user.name.as_deref().filter(|_| user.binds).map(Box::from);
        let (user, name) = (user.key, user.name.clone());
        let number = self.open_request(slot, now, fx);
        if let Query::Refused(why) = query {
            return self.say_answer(slot, number, id, Box::new(Answer::Failed(*why)), now, fx);
        }
        self.set_waiting(slot, true, fx);
        let asked = Asked::Query { number, id, by: user, name, answer: None };
        let token = u64::from(self.asks.insert(Ask { slot, remaining: 0, asked }));
        fx.store(Request::Query { token, user, query: query.clone(), binding });
    }

    /// The store's answer to a query.
    pub fn answered(
        &mut self,
        token: u64,
        result: Result<Answer, StoreError>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Ok(request) = u32::try_from(token) else { return };
        let reply = Box::new(result.unwrap_or(Answer::Failed(Failure::Busy)));
        let Some(Ask { slot, asked, .. }) = self.asks.get_mut(request) else { return };
        let Asked::Query { by, name, answer, .. } = asked else { return };
        let (slot, by, name) = (*slot, *by, name.take());
        let (mut contacts, mut added) = (Vec::new(), None);
        match &*reply {
            Answer::Contacts(list) => contacts.extend(list.iter().map(|contact| contact.id)),
            Answer::ContactAdded(contact) => added = Some(*contact),
            _ => {}
        }
        *answer = Some(reply);
        // Also if who has added him is gone by now.
        if let Some(contact) = added {
            self.contact_added(by, name.as_deref(), contact, fx);
        }
        if self.session(slot).is_none() {
            self.asks.remove(request);
            return;
        }
        self.ask_online(request, by.tenant, &contacts, now, fx);
    }

    /// Asks the home shards of `users` which of them are online; those at home here at once.
    fn ask_online(
        &mut self,
        request: u32,
        tenant: TenantId,
        users: &[UserId],
        now: Now,
        fx: &mut impl Effects,
    ) {
        let shards = self.config.shards;
        let mut lists: Vec<Vec<UserId>> = vec![Vec::new(); usize::from(shards)];
        for &id in users {
            lists[usize::from(home_of_user(UserKey { tenant, id }, shards))].push(id);
        }
        let here = self.identity.shard;
        let own = std::mem::take(&mut lists[usize::from(here)]);
        let asked = lists.iter().filter(|list| !list.is_empty()).count() as u16;
        if let Some(ask) = self.asks.get_mut(request) {
            // One more than are asked, so that the answer waits for the end of this function.
            ask.remaining = asked + 1;
        }
        for (shard, users) in lists.into_iter().enumerate().filter(|(_, list)| !list.is_empty()) {
            let message = ShardMessage::AreOnline { tenant, users: users.into(), request };
            fx.route(shard as ShardIndex, message);
        }
        let online = self.online_of(tenant, &own);
        self.online(request, &online, now, fx);
    }

    /// Those of `users`, all at home here, who have a terminal.
    pub(super) fn online_of(&mut self, tenant: TenantId, users: &[UserId]) -> Arc<[UserId]> {
        let mut online = Vec::new();
        for &id in users {
            let index = self.users.find(UserKey { tenant, id });
            if index.is_some_and(|index| !self.users.at(index).terminals.is_empty()) {
                online.push(id);
            }
        }
        online.into()
    }

    /// A shard's answer has come.
    pub(super) fn online(
        &mut self,
        request: u32,
        users: &[UserId],
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(ask) = self.asks.get_mut(request) else { return };
        ask.remaining -= 1;
        if let Asked::Query { answer: Some(answer), .. } = &mut ask.asked
            && let Answer::Contacts(contacts) = &mut **answer
        {
            // The store gives contacts by rising id, and the shards keep the order.
            for contact in contacts.iter_mut() {
                contact.online |= users.binary_search(&contact.id).is_ok();
            }
        }
        if ask.remaining > 0 {
            return;
        }
        let Some(Ask { slot, asked, .. }) = self.asks.remove(request) else { return };
        if let Asked::Query { number, id, answer: Some(answer), .. } = asked {
            self.say_answer(slot, number, id, answer, now, fx);
            self.set_waiting(slot, false, fx);
        }
    }

    fn say_answer(
        &mut self,
        slot: Slot,
        number: Option<u32>,
        id: MessageId,
        answer: Box<Answer>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        match number {
            Some(number) => self.answer(slot, number, Ended::Query(id, answer), now, fx),
            None => {
                if self.session(slot).is_some() {
                    fx.transmit(slot, &Outgoing::Answer(id, &answer));
                }
            }
        }
    }
}
