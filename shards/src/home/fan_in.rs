//! A shard's share of a group message: delivered to each member here, answered once for all.

use std::sync::Arc;

use codec::{Echo, Message, Target, UserId, UserKey};

use crate::home::Home;
use crate::home::effects::Effects;
use crate::home::inbox::Owed;
use crate::home::outcome::Outcome;
use crate::io::Now;
use crate::mesh::{Sending, ShardMessage};
use crate::mutants::{self, Mutant};

/// Members of this shard for whom a group message is not safe yet.
#[derive(Debug)]
pub(crate) struct FanIn {
    remaining: u32,
    failed: Vec<UserId>,
    /// For one of them at least it was stored.
    stored: bool,
    owed: Owed,
}

impl Home {
    pub(super) fn fan_in(
        &mut self,
        message: Arc<Message>,
        members: &[UserId],
        sending: Sending,
        owed: Owed,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Target::Group(group) = message.to else { return };
        let index = match owed {
            Owed::Nobody => None,
            // One more than there are members, so that the answer waits for the end of the loop.
            owed => Some(self.fan_ins.insert(FanIn {
                remaining: 1,
                failed: Vec::new(),
                stored: false,
                owed,
            })),
        };
        let sender = message.from.map(|from| from.id);
        for &id in members {
            let to = UserKey { tenant: group.tenant, id };
            match sending.echo {
                Echo::Nowhere if Some(id) == sender => continue,
                Echo::Elsewhere if Some(id) == sender => {
                    self.copy(to, &message, sending.slot, now, fx);
                    continue;
                }
                _ => {}
            }
            let owed = index.map_or(Owed::Nobody, Owed::FanIn);
            if let Some(fan_in) = index.and_then(|index| self.fan_ins.get_mut(index)) {
                fan_in.remaining += 1;
            }
            self.deliver(to, Arc::clone(&message), true, owed, now, fx);
        }
        if let Some(index) = index {
            self.fan_in_settled(index, UserId(0), Outcome::Safe, now, fx);
        }
    }

    /// One member's delivery came to its end.
    pub(super) fn fan_in_settled(
        &mut self,
        index: u32,
        user: UserId,
        outcome: Outcome,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(fan_in) = self.fan_ins.get_mut(index) else { return };
        fan_in.remaining -= 1;
        if !outcome.is_safe() {
            fan_in.failed.push(user);
        }
        fan_in.stored |= outcome == Outcome::Stored;
        if fan_in.remaining > 0 && !mutants::on(Mutant::FirstMemberSafe) {
            return;
        }
        let Some(FanIn { failed, stored, owed, .. }) = self.fan_ins.remove(index) else { return };
        let Owed::Request { shard, request } = owed else { return };
        if shard == self.identity.shard {
            self.fan_done(request, &failed, stored, now, fx);
        } else {
            let failed = (!failed.is_empty()).then(|| failed.into());
            fx.route(shard, ShardMessage::FanOutDone { request, stored, failed });
        }
    }
}
