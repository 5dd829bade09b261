//! A blend of everything from a TOML file: a crowd, messages between any two, groups, users who
//! come and go, and the whole crowd leaving and returning.
//!
//! Owns: the file format and the phases. Never: sends anything.

use super::crowd::{self, Kind, Plan, Stream};
use super::exchange::Group;
use super::{REPEATS, Setup};
use crate::phase::{Phase, Step, Until, Who};
use serde::Deserialize;
use std::time::Duration;

/// A scenario file; see `perf/scenarios/`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Blend {
    /// Users, all connected, from `--first-user` on.
    pub users: u32,
    /// Logins begun per second; as fast as they go if not given.
    pub ramp_per_s: Option<f64>,
    /// Logins in progress at a time.
    #[serde(default = "concurrency")]
    pub concurrency: u16,
    /// Seconds between the last login and the first reading of memory.
    #[serde(default = "settle_s")]
    pub settle_s: f64,
    /// Seconds of load in each round.
    pub seconds: f64,
    /// How often the crowd connects; between two rounds everybody is disconnected.
    #[serde(default = "once")]
    pub rounds: u32,
    /// Users who leave per second and come back two seconds later.
    #[serde(default)]
    pub churn_per_s: f64,
    pub direct: Option<Direct>,
    #[serde(default, rename = "group")]
    pub groups: Vec<GroupLoad>,
}

/// Messages between any two users.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Direct {
    pub rate_per_s: f64,
    #[serde(default = "payload")]
    pub payload: usize,
}

/// A group that exists at the server, and what is said in it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupLoad {
    pub id: u32,
    pub first_user: u32,
    pub members: u32,
    pub rate_per_s: f64,
    #[serde(default = "payload")]
    pub payload: usize,
}

impl Blend {
    /// # Errors
    /// Names the line and what is wrong with it, or the values that contradict each other.
    pub(crate) fn parse(text: &str, setup: &Setup) -> Result<Self, String> {
        let mut blend: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        blend.check(setup)?;
        let payloads = blend.groups.iter_mut().map(|group| &mut group.payload);
        for payload in payloads.chain(blend.direct.as_mut().map(|direct| &mut direct.payload)) {
            *payload = setup.payload(*payload)?;
        }
        Ok(blend)
    }

    fn check(&self, setup: &Setup) -> Result<(), String> {
        let last = setup.first_user + self.users;
        let payloads = self.groups.iter().map(|group| group.payload);
        let mut payloads = payloads.chain(self.direct.map(|direct| direct.payload));
        if self.users < 2 || self.users > 2_000_000 {
            return Err("users: from 2 to 2000000".into());
        }
        if let Some(long) = payloads.find(|&size| size > 32_767) {
            return Err(format!("payload {long}: at most 32767"));
        }
        let rates = self.groups.iter().map(|group| group.rate_per_s);
        let rates = rates.chain(self.direct.map(|direct| direct.rate_per_s));
        let mut rates = rates.chain([self.churn_per_s]).chain(self.ramp_per_s);
        if !rates.all(|rate| (0.0..=RATE_MAX).contains(&rate)) {
            return Err(format!("rates per second: from 0 to {RATE_MAX}"));
        }
        if self.rounds == 0 {
            return Err("rounds: at least 1".into());
        }
        let (shortest, longest) = (0.1, 86_400.0);
        if !(shortest..=longest).contains(&self.seconds)
            || !(0.0..=longest).contains(&self.settle_s)
        {
            return Err(format!("seconds: from {shortest} to {longest}; settle_s: up to that"));
        }
        for group in &self.groups {
            if group.id < last {
                return Err(format!("group id {}: above all users ({last})", group.id));
            }
            let end = group.first_user.saturating_add(group.members);
            if group.members < 2 || group.first_user < setup.first_user || end > last {
                return Err(format!("group {}: at least two members, all of them users", group.id));
            }
        }
        if self.churn_per_s > 0.0 && !(setup.stores && setup.acked) {
            let why = "churn_per_s: what this protocol brings to a user who leaves is lost";
            return Err(why.into());
        }
        if self.rounds > 1 && setup.stores && !setup.acked {
            let why = "rounds: what this protocol brings to a user who leaves may come again";
            return Err(why.into());
        }
        Ok(())
    }

    pub(crate) fn plan(&self) -> Plan {
        let group = |load: &GroupLoad| {
            let GroupLoad { id, first_user, members, .. } = *load;
            Group { id, first_user, members }
        };
        let direct = self.direct.iter().map(|direct| Stream {
            kind: Kind::Direct,
            rate_per_s: direct.rate_per_s,
            payload: direct.payload,
        });
        let in_groups = self.groups.iter().map(|load| Stream {
            kind: Kind::Group(group(load)),
            rate_per_s: load.rate_per_s,
            payload: load.payload,
        });
        Plan {
            users: self.users,
            streams: direct.chain(in_groups).collect(),
            groups: self.groups.iter().map(group).collect(),
            churn_per_s: self.churn_per_s,
        }
    }

    pub(crate) fn phases(&self, setup: &Setup) -> Vec<Phase> {
        let elapsed = |seconds: f64| Until::Elapsed(Duration::from_secs_f64(seconds));
        let load = Step::Load { rate_per_s: None };
        let mut phases = vec![Phase::new("empty", Step::Hold, elapsed(0.0)).quiet().mark("empty")];
        for round in 1..=self.rounds {
            let prefix = if round == 1 { String::new() } else { format!("round{round}_") };
            let suffix = if round == 1 { String::new() } else { round.to_string() };
            let log_in = Phase::new("log in", Step::LogIn(Who::All), Until::Reached);
            phases.push(Phase { stubborn: round > 1, ..log_in.measured(format!("{prefix}ramp_")) });
            let settle = Phase::new("settle", Step::Hold, elapsed(self.settle_s)).quiet();
            phases.push(settle.mark(format!("full{suffix}")));
            let quiet = !self.talks();
            let mut pushed = Phase::new("load", load.clone(), elapsed(self.seconds));
            pushed.watched = !quiet;
            phases.push(pushed.measured(prefix));
            let drain = Step::Drain { arrivals: true };
            let patience = Until::ReachedWithin(setup.patience);
            let drained = Phase::new("drain", drain, patience).quiet();
            phases.push(drained.mark(format!("loaded{suffix}")));
            if round < self.rounds {
                phases.push(Phase::new("leave", Step::Leave, Until::Reached));
                let gone = Phase::new("gone", Step::Hold, elapsed(self.settle_s)).quiet();
                phases.push(gone.mark(format!("gone{suffix}")));
            }
        }
        if !self.talks() {
            phases.push(crowd::probe());
        }
        // Long enough for what the server repeats: this is once per run.
        phases.push(Phase::new("linger", Step::Hold, Until::Elapsed(REPEATS)).quiet());
        phases
    }

    fn talks(&self) -> bool {
        let group = self.groups.iter().map(|group| group.rate_per_s).sum::<f64>();
        group + self.direct.map_or(0.0, |direct| direct.rate_per_s) > 0.0
    }
}

/// More than a ring can send.
const RATE_MAX: f64 = 1e7;

fn concurrency() -> u16 {
    256
}

fn settle_s() -> f64 {
    2.0
}

fn once() -> u32 {
    1
}

fn payload() -> usize {
    100
}
