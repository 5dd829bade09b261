//! Who talks to whom, and in which phases.
//!
//! Owns: the conversations and phases of `pairs`, `fanout` and `offline`. Never: sends anything.

use super::Shape;
use crate::client::{Login, Target};
use crate::phase::{Phase, Step, Until, Who};
use crate::scenario::{REPEATS, Setup};
use codec::{TenantId, UserId, UserKey};
use shards::io::ShardIndex;
use shards::router::home_of_user;
use std::collections::VecDeque;
use std::time::Duration;

/// One sender and those who hear him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub from: u32,
    pub to: Target,
    /// The receivers: one, or consecutive users from this one on.
    pub first_receiver: u32,
}

/// Where the two users of a pair live in a gateway of several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Placement {
    /// User n and user n + 1, wherever they live.
    Mixed,
    SameShard,
    CrossShard,
}

/// The load over time: one closed loop, or steps of an open loop.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Profile {
    /// Every place in flight is always used.
    Closed,
    /// One after the other: how long, and messages per second.
    Open(Vec<(Duration, f64)>),
}

/// `count` pairs from user `first` on; with `shards` the gateway's number of shards.
pub(crate) fn pairs(
    first: u32,
    count: usize,
    placement: Placement,
    shards: ShardIndex,
) -> Vec<Conversation> {
    let home = |user| home_of_user(UserKey { tenant: TenantId(0), id: UserId(user) }, shards);
    let fits = |a, b| match placement {
        Placement::Mixed => true,
        Placement::SameShard => home(a) == home(b),
        Placement::CrossShard => home(a) != home(b),
    };
    let mut pairs = Vec::with_capacity(count);
    // Users without a partner yet. Their number stays small: homes are spread evenly.
    let mut single: VecDeque<u32> = VecDeque::new();
    for user in first.. {
        if pairs.len() == count {
            break;
        }
        match single.iter().position(|&other| fits(other, user)) {
            None => single.push_back(user),
            Some(at) => {
                let from = single.remove(at).unwrap_or(user);
                pairs.push(Conversation { from, to: Target::User(user), first_receiver: user });
            }
        }
    }
    pairs
}

/// `groups` groups with the given first id, each with `members` members of its own; the first
/// member sends.
pub(crate) fn fanout(first: u32, groups: u32, first_group: u32, members: u32) -> Vec<Conversation> {
    let conversation = |index| {
        let from = first + index * members;
        let to = Target::Group(first_group + index);
        Conversation { from, to, first_receiver: from + 1 }
    };
    (0..groups).map(conversation).collect()
}

/// Senders to users who are not there until the end.
pub(crate) fn offline(first: u32, count: usize) -> Vec<Conversation> {
    pairs(first, count, Placement::Mixed, 1)
}

/// Connection `conn` of a worker.
pub(super) fn login(
    setup: &Setup,
    conversation: &Conversation,
    conn: usize,
    shape: &Shape,
) -> Login {
    let Conversation { from, to, first_receiver } = *conversation;
    match conn % (1 + shape.receivers) {
        // The sender of a group is a member, and gets no echo; where membership is a subscription,
        // he has none.
        0 => setup.login(from, None),
        nth => {
            let group = match to {
                Target::Group(group) => Some(group),
                Target::User(_) => None,
            };
            setup.login(first_receiver + nth as u32 - 1, group)
        }
    }
}

/// The phases of a run. `stored`: the receivers come only when everything was sent.
pub(crate) fn phases(setup: &Setup, profile: &Profile, stored: bool) -> Vec<Phase> {
    let who = if stored { Who::Senders } else { Who::All };
    let mut phases = vec![Phase::new("log in", Step::LogIn(who), Until::Reached)];
    match profile {
        Profile::Closed => {
            let load = |name: &str, time| {
                Phase::new(name, Step::Load { rate_per_s: None }, Until::Elapsed(time))
            };
            phases.push(load("warm up", setup.warm_up));
            phases.push(load("load", setup.duration).measured(""));
        }
        Profile::Open(steps) => {
            let warm = Step::Load { rate_per_s: steps.first().map(|(_, rate)| *rate) };
            phases.push(Phase::new("warm up", warm, Until::Elapsed(setup.warm_up)));
            for (index, &(time, rate)) in steps.iter().enumerate() {
                let prefix =
                    if steps.len() == 1 { String::new() } else { format!("step{}_", index + 1) };
                let step = Step::Load { rate_per_s: Some(rate) };
                let name = format!("{rate:.0}/s");
                phases.push(Phase::new(name, step, Until::Elapsed(time)).measured(prefix));
            }
        }
    }
    let patience = Until::ReachedWithin(setup.patience);
    let drain = |arrivals| Phase::new("drain", Step::Drain { arrivals }, patience).quiet();
    // A moment longer for what should not come: duplicates.
    let linger = |time| Phase::new("linger", Step::Hold, Until::Elapsed(time)).quiet();
    if !stored {
        phases.push(drain(true));
        phases.push(linger(LINGER));
        return phases;
    }
    phases.push(drain(false));
    phases.push(Phase::new("fetch", Step::Fetch, Until::Reached).measured("fetch_"));
    phases.push(linger(REPEATS));
    // What was acknowledged must be gone. Where nobody says what has arrived, it may come again.
    if setup.acked {
        phases.push(Phase::new("leave", Step::Leave, Until::Reached));
        phases.push(Phase::new("nothing left?", Step::LogIn(Who::All), Until::Reached));
        phases.push(linger(AGAIN));
    }
    phases
}

/// Shorter than [`REPEATS`]: what comes again of all but a run's last two seconds comes within it.
const LINGER: Duration = Duration::from_millis(250);
/// What is stored for a user comes at once when he logs in.
const AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_placed_as_asked_and_nobody_is_in_two() {
        let home = |user| home_of_user(UserKey { tenant: TenantId(0), id: UserId(user) }, 4);
        for placement in [Placement::Mixed, Placement::SameShard, Placement::CrossShard] {
            let pairs = pairs(100, 1000, placement, 4);
            assert_eq!(pairs.len(), 1000);
            let mut users: Vec<_> =
                pairs.iter().flat_map(|pair| [pair.from, pair.first_receiver]).collect();
            users.sort_unstable();
            users.dedup();
            assert_eq!(users.len(), 2000, "{placement:?}");
            assert!(users[0] >= 100);
            for pair in &pairs {
                let same = home(pair.from) == home(pair.first_receiver);
                match placement {
                    Placement::Mixed => assert_eq!(pair.first_receiver, pair.from + 1),
                    Placement::SameShard => assert!(same),
                    Placement::CrossShard => assert!(!same),
                }
            }
        }
    }
}
