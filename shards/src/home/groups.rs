//! Group messages on the group's home shard: who the members are, and one request to every shard
//! that has any.
//!
//! The member list is fixed when a message is accepted; messages wait in order while it loads.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use codec::{Failure, GroupKey, Message, Target, UserId, UserKey};
use storage::{Request, StoreError};

use crate::home::Home;
use crate::home::dedup::IdHash;
use crate::home::effects::Effects;
use crate::home::inbox::Owed;
use crate::home::outcome::Outcome;
use crate::io::{Now, ShardIndex};
use crate::limits::{GROUP_CACHE, GROUP_MEMBERS, GROUP_UNFINISHED, GROUP_WAITING};
use crate::mesh::{Sending, ShardMessage};
use crate::router::home_of_user;

/// The members of a group, sorted, and the same by home shard.
#[derive(Debug)]
struct Members {
    sorted: Arc<[UserId]>,
    by_shard: Box<[Arc<[UserId]>]>,
    loaded_at: Now,
}

#[derive(Debug, Default)]
struct Group {
    members: Option<Members>,
    loading: bool,
    waiting: VecDeque<Job>,
}

/// A group message waiting for its recipients.
#[derive(Debug)]
struct Job {
    message: Arc<Message>,
    /// Only these, as far as they are members.
    part: Option<Arc<[UserId]>>,
    sending: Sending,
    owed: Owed,
}

/// The groups whose home this shard is, as far as they are in use.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: HashMap<GroupKey, Group>,
    /// Messages waiting in all groups together.
    waiting: usize,
    /// Recipients for whom a message was not safe: a resend goes to them only.
    unfinished: HashMap<IdHash, Arc<[UserId]>>,
    unfinished_order: VecDeque<IdHash>,
}

impl Groups {
    /// Members are read again at the next use.
    pub(crate) fn forget(&mut self) {
        for group in self.groups.values_mut() {
            group.members = None;
        }
    }

    /// The same of one group.
    pub(crate) fn forget_one(&mut self, key: GroupKey) {
        if let Some(group) = self.groups.get_mut(&key) {
            group.members = None;
        }
    }

    fn take_unfinished(&mut self, hash: IdHash) -> Option<Arc<[UserId]>> {
        let users = self.unfinished.remove(&hash)?;
        self.unfinished_order.retain(|other| *other != hash);
        Some(users)
    }

    fn remember_unfinished(&mut self, hash: IdHash, users: Arc<[UserId]>) {
        if self.unfinished.insert(hash, users).is_none() {
            self.unfinished_order.push_back(hash);
        }
        while self.unfinished_order.len() > GROUP_UNFINISHED {
            if let Some(oldest) = self.unfinished_order.pop_front() {
                self.unfinished.remove(&oldest);
            }
        }
    }
}

/// A group message on its way to the shards that have members.
#[derive(Debug)]
pub(crate) struct Fan {
    /// Shards that have not answered.
    remaining: u16,
    failed: Vec<UserId>,
    stored: bool,
    owed: Owed,
    sender: UserKey,
    /// Under which the members not reached are remembered; `None`: nobody sends it to them again.
    hash: Option<IdHash>,
}

impl Home {
    /// A message for a group whose home this is.
    pub(super) fn accept_group(
        &mut self,
        message: Arc<Message>,
        part: Option<Arc<[UserId]>>,
        sending: Sending,
        owed: Owed,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Target::Group(key) = message.to else { return };
        let Some(owed) = self.door_dedup(&message, owed, sender_of(&message), now, fx) else {
            self.counters.duplicates += 1;
            return;
        };
        let job = Job { message, part, sending, owed };
        let cache_ms = self.config.group_cache_ms;
        self.make_room_for_group(key);
        let group = self.groups.groups.entry(key).or_default();
        let fresh = group
            .members
            .as_ref()
            .is_some_and(|members| now.ms_since(members.loaded_at) < cache_ms);
        if fresh && group.waiting.is_empty() {
            return self.fan_out(key, job, now, fx);
        }
        if self.groups.waiting >= GROUP_WAITING {
            self.counters.group_overflow += 1;
            return self.settle(job.owed, sender_of(&job.message), Outcome::FAILED, now, fx);
        }
        group.waiting.push_back(job);
        self.groups.waiting += 1;
        if !group.loading {
            group.loading = true;
            fx.store(Request::Members { group: key });
        }
    }

    /// The members of a group, or that nobody knows them now.
    pub fn members(
        &mut self,
        key: GroupKey,
        result: Result<Arc<[UserId]>, StoreError>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let shards = self.config.shards;
        let Some(group) = self.groups.groups.get_mut(&key) else { return };
        group.loading = false;
        let jobs = std::mem::take(&mut group.waiting);
        self.groups.waiting -= jobs.len();
        match result {
            Ok(members) if members.len() <= GROUP_MEMBERS => {
                group.members = Some(Members::new(key, &members, shards, now));
                for job in jobs {
                    self.fan_out(key, job, now, fx);
                }
            }
            _ => {
                self.counters.group_loads_failed += 1;
                for job in jobs {
                    self.settle(job.owed, sender_of(&job.message), Outcome::FAILED, now, fx);
                }
            }
        }
    }

    /// One request to every shard with recipients.
    fn fan_out(&mut self, key: GroupKey, job: Job, now: Now, fx: &mut impl Effects) {
        let sender = sender_of(&job.message);
        let hash = job.sending.resends.then(|| self.unfinished_hash(&job.message, key));
        let again = hash.and_then(|hash| self.groups.take_unfinished(hash));
        let Some(members) = self.groups.groups.get(&key).and_then(|group| group.members.as_ref())
        else {
            return self.settle(job.owed, sender, Outcome::FAILED, now, fx);
        };
        let is_member = members.sorted.binary_search(&sender.id).is_ok();
        if !is_member && !job.sending.open {
            self.counters.not_a_member += 1;
            let refused = Outcome::Refused(Failure::NotAllowed);
            return self.settle(job.owed, sender, refused, now, fx);
        }
        let chosen: Box<[Arc<[UserId]>]> = match (again, &job.part) {
            (Some(users), _) => {
                let still = |user: &UserId| members.sorted.binary_search(user).is_ok();
                by_shard(key, users.iter().copied().filter(still), self.config.shards)
            }
            (None, Some(part)) => {
                let mut part: Vec<UserId> = part.to_vec();
                part.sort_unstable();
                part.dedup();
                part.retain(|user| members.sorted.binary_search(user).is_ok());
                by_shard(key, part.into_iter(), self.config.shards)
            }
            (None, None) => members.by_shard.clone(),
        };
        self.send_fan(&job, chosen, hash, now, fx);
    }

    fn send_fan(
        &mut self,
        job: &Job,
        chosen: Box<[Arc<[UserId]>]>,
        hash: Option<IdHash>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let sender = sender_of(&job.message);
        let remaining = chosen.iter().filter(|members| !members.is_empty()).count() as u16;
        if remaining == 0 {
            return self.settle(job.owed, sender, Outcome::Safe, now, fx);
        }
        let request = match job.owed {
            Owed::Nobody => ShardMessage::NO_REPLY,
            owed => {
                let (failed, stored) = (Vec::new(), false);
                self.fans.insert(Fan { remaining, failed, stored, owed, sender, hash })
            }
        };
        let (here, sending) = (self.identity.shard, job.sending);
        for (shard, members) in chosen.into_iter().enumerate().filter(|(_, m)| !m.is_empty()) {
            let (shard, message) = (shard as ShardIndex, Arc::clone(&job.message));
            if shard == here {
                let owed = match request {
                    ShardMessage::NO_REPLY => Owed::Nobody,
                    request => Owed::Request { shard, request },
                };
                self.fan_in(message, &members, sending, owed, now, fx);
            } else {
                fx.route(shard, ShardMessage::FanOut { message, members, sending, request });
            }
        }
    }

    /// A shard has answered for its members.
    pub(super) fn fan_done(
        &mut self,
        request: u32,
        failed: &[UserId],
        stored: bool,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(fan) = self.fans.get_mut(request) else {
            debug_assert!(false, "every shard answers once");
            return;
        };
        fan.remaining -= 1;
        fan.failed.extend_from_slice(failed);
        fan.stored |= stored;
        if fan.remaining > 0 {
            return;
        }
        let Some(fan) = self.fans.remove(request) else { return };
        let outcome = match (fan.failed.is_empty(), fan.stored) {
            (true, false) => Outcome::Safe,
            (true, true) => Outcome::Stored,
            (false, _) => Outcome::FAILED,
        };
        if let (false, Some(hash)) = (outcome.is_safe(), fan.hash) {
            self.groups.remember_unfinished(hash, fan.failed.into());
        }
        self.settle(fan.owed, fan.sender, outcome, now, fx);
    }

    /// Keeps the cache in its bound: an idle group goes when it is full.
    fn make_room_for_group(&mut self, key: GroupKey) {
        let groups = &mut self.groups.groups;
        if groups.len() >= GROUP_CACHE && !groups.contains_key(&key) {
            let idle = groups.iter().find(|(_, g)| !g.loading && g.waiting.is_empty());
            if let Some(key) = idle.map(|(key, _)| *key) {
                groups.remove(&key);
            }
        }
    }

    fn unfinished_hash(&self, message: &Message, group: GroupKey) -> IdHash {
        let sender = message.from.map_or(u64::MAX, |from| u64::from(from.id.0));
        let hash = self.hasher.hash(codec::PublishKind::Group, group.id.0, &message.id);
        let hash = self.hasher.with_sender(hash, u64::from(group.tenant.0));
        self.hasher.with_sender(hash, sender)
    }
}

impl Members {
    fn new(group: GroupKey, members: &[UserId], shards: ShardIndex, now: Now) -> Self {
        let mut sorted = members.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let by_shard = by_shard(group, sorted.iter().copied(), shards);
        Self { sorted: sorted.into(), by_shard, loaded_at: now }
    }
}

fn by_shard(
    group: GroupKey,
    users: impl Iterator<Item = UserId>,
    shards: ShardIndex,
) -> Box<[Arc<[UserId]>]> {
    let mut lists = vec![Vec::new(); usize::from(shards)];
    for id in users {
        let home = home_of_user(UserKey { tenant: group.tenant, id }, shards);
        lists[usize::from(home)].push(id);
    }
    lists.into_iter().map(Arc::from).collect()
}

/// The sender, or for the door's messages a stand-in that only fills the reply's address.
fn sender_of(message: &Message) -> UserKey {
    message.from.unwrap_or_default()
}
