//! What users are told of others' changes to their contacts and groups.
//!
//! Nobody waits for a notice and none is kept: it is for the terminals that are there at the moment
//! and keep up, as far as their protocols have a form for it.
//!
//! Owns: the way from a change to the terminals. Never: who is to be told of an HTTP request's
//! change (the control plane says), nor a notice's form.

use std::sync::Arc;

use codec::{News, Notice, Outgoing, UserId, UserKey};

use crate::home::Home;
use crate::home::effects::Effects;
use crate::limits::ROOM_BACKLOG;
use crate::mesh::ShardMessage;
use crate::router::home_of_user;

impl Home {
    /// `by`, called `name`, has made a contact of somebody, who was none.
    pub(super) fn contact_added(
        &mut self,
        by: UserKey,
        name: Option<&[u8]>,
        contact: UserId,
        fx: &mut impl Effects,
    ) {
        // To himself he is no news.
        if contact == by.id {
            return;
        }
        let notice = Notice {
            by: by.id,
            name: name.map_or_else(|| by.id.to_string().into_bytes().into(), Box::from),
            device: Box::default(),
            time_ms: fx.unix_ms(),
            news: News::ContactAdded,
        };
        let to = UserKey { id: contact, ..by };
        match home_of_user(to, self.config.shards) {
            here if here == self.identity.shard => self.hear(to, &notice, fx),
            shard => fx.route(shard, ShardMessage::Notice { to, notice: Arc::new(notice) }),
        }
    }

    /// Tells every terminal of a user who is at home here.
    pub fn hear(&mut self, to: UserKey, notice: &Notice, fx: &mut impl Effects) {
        let Some(index) = self.users.find(to) else { return };
        let stamp = self.stamp();
        for slot in self.terminals(index) {
            // Who is slow misses it. He is not ended, as in the room: others could do that to him
            // at will, even where his protocol has no form for it.
            if fx.backlog(slot) <= ROOM_BACKLOG {
                fx.transmit(slot, &Outgoing::Notice(stamp, notice));
            }
        }
    }
}
