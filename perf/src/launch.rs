//! From the command line to a run: how many workers, and which users each of them has.
//!
//! Owns: the division of a scenario. Never: a connection.

use crate::args::{LoadArgs, Scenario};
use crate::client::Client;
use crate::dialer::Dialer;
use crate::phase::Phase;
use crate::report::Report;
use crate::run::{Division, run};
use crate::scenario::connect::{self, Connect};
use crate::scenario::crowd::{self, Crowd, Plan};
use crate::scenario::mixed::Blend;
use crate::scenario::traffic::{self, Conversation, Placement, Shape, Traffic};
use crate::scenario::{Abort, Setup};
use shards::io::probe;
use shards::io::sys;
use std::ops::Range;
use std::sync::Arc;
use std::thread::Scope;

/// Runs `scenario` with clients of protocol `C`, on threads of `scope`.
pub(crate) fn launch<'scope, C: Client>(
    scope: &'scope Scope<'scope, '_>,
    scenario: &Scenario,
    load: &LoadArgs,
    report: &mut Report,
) -> Result<(), Abort> {
    // Direct descriptors are bounded by the soft limit, too.
    sys::raise_file_limit()?;
    let mut setup = load.setup();
    let dialer = Dialer::new(load.endpoint().map_err(Abort)?, load.bind_addrs())?;
    match scenario {
        Scenario::Pairs(args) => {
            if args.placement == Placement::CrossShard && args.shards < 2 {
                let why = "--placement cross-shard needs --shards, the server's number of them";
                return Err(Abort(why.into()));
            }
            let count = args.pairs as usize;
            let pairs = traffic::pairs(setup.first_user, count, args.placement, args.shards);
            let phases = traffic::phases(&setup, &args.messages.profile(load), false);
            let shape = args.messages.shape(&setup, 1, !setup.acked).map_err(Abort)?;
            run::<C, _>(scope, &setup, traffic(&setup, phases, pairs, shape)?, &dialer, report)
        }
        Scenario::Fanout(args) => {
            let groups = traffic::fanout(setup.first_user, args.groups, args.group, args.members);
            let phases = traffic::phases(&setup, &args.messages.profile(load), false);
            let receivers = args.members as usize - 1;
            let shape = args.messages.shape(&setup, receivers, true).map_err(Abort)?;
            run::<C, _>(scope, &setup, traffic(&setup, phases, groups, shape)?, &dialer, report)
        }
        Scenario::Offline(args) => {
            may_be_offline(&setup, args.messages.is_open_loop())?;
            let pairs = traffic::offline(setup.first_user, args.pairs as usize);
            let phases = traffic::phases(&setup, &args.messages.profile(load), true);
            let shape = args.messages.shape(&setup, 1, false).map_err(Abort)?;
            run::<C, _>(scope, &setup, traffic(&setup, phases, pairs, shape)?, &dialer, report)
        }
        Scenario::Idle(args) => {
            let base = args.base_share().map_err(Abort)?;
            let phases = crowd::idle(&setup, base, args.crowd.settle());
            let division = quiet(&setup, phases, args.crowd.connections)?;
            run::<C, _>(scope, &setup, division, &dialer, report)
        }
        Scenario::Storm(args) => {
            let phases = crowd::storm(&setup, args.crowd.settle(), args.command.clone());
            let division = quiet(&setup, phases, args.crowd.connections)?;
            run::<C, _>(scope, &setup, division, &dialer, report)
        }
        Scenario::Connect(_) => {
            let division = logins(&setup)?;
            run::<C, _>(scope, &setup, division, &dialer, report)
        }
        Scenario::Mixed(args) => {
            let text = std::fs::read_to_string(&args.file);
            let text = text.map_err(|error| Abort(format!("{}: {error}", args.file.display())))?;
            let blend = Blend::parse(&text, &setup)
                .map_err(|why| Abort(format!("{}: {why}", args.file.display())))?;
            setup.login_concurrency = usize::from(blend.concurrency);
            setup.ramp_per_s = blend.ramp_per_s.or(setup.ramp_per_s);
            let division = crowd(&setup, blend.phases(&setup), blend.plan())?;
            run::<C, _>(scope, &setup, division, &dialer, report)
        }
        Scenario::Smoke(_) => unreachable!("it launches the others"),
    }
}

/// # Errors
/// What of the protocol speaks against messages to absent users.
fn may_be_offline(setup: &Setup, open_loop: bool) -> Result<(), Abort> {
    if !setup.stores {
        return Err(Abort("this protocol's messages to absent users are lost".into()));
    }
    if !setup.acked && !open_loop {
        let why = "this server acknowledges nothing: how fast to send must be said (--rate)";
        return Err(Abort(why.into()));
    }
    Ok(())
}

fn traffic(
    setup: &Setup,
    phases: Vec<Phase>,
    conversations: Vec<Conversation>,
    shape: Shape,
) -> Result<Division<Traffic>, Abort> {
    let (count, each) = (conversations.len(), 1 + shape.receivers);
    let ends = |pair: &Conversation| pair.first_receiver + shape.receivers as u32;
    let users = setup.first_user..conversations.iter().map(ends).max().unwrap_or_default();
    let slices = slices(setup, count, each)?;
    let part = |range: &Range<usize>| {
        let share = range.len() as f64 / count as f64;
        Traffic::new(setup, shape, conversations[range.clone()].to_vec(), share)
    };
    Ok(Division {
        phases,
        parts: slices.iter().map(part).collect(),
        slots: slots(&slices, each),
        connections: (count * each) as u64,
        users,
    })
}

fn quiet(setup: &Setup, phases: Vec<Phase>, users: u32) -> Result<Division<Crowd>, Abort> {
    let plan = Plan { users, streams: Vec::new(), groups: Arc::new([]), churn_per_s: 0.0 };
    crowd(setup, phases, plan)
}

fn crowd(setup: &Setup, phases: Vec<Phase>, plan: Plan) -> Result<Division<Crowd>, Abort> {
    let plan = Arc::new(plan);
    let slices = slices(setup, plan.users as usize, 1)?;
    let part = |range: &Range<usize>| {
        let first = setup.first_user + range.start as u32;
        Crowd::new(setup, plan.clone(), first, range.len())
    };
    Ok(Division {
        phases,
        parts: slices.iter().map(part).collect(),
        slots: slots(&slices, 1),
        connections: u64::from(plan.users),
        users: setup.first_user..setup.first_user.saturating_add(plan.users),
    })
}

fn logins(setup: &Setup) -> Result<Division<Connect>, Abort> {
    let slices = slices(setup, setup.login_concurrency, 1)?;
    let part = |range: &Range<usize>| {
        let first = setup.first_user + range.start as u32 * connect::USERS_PER_PLACE;
        Connect::new(setup, first, range.len())
    };
    Ok(Division {
        phases: connect::phases(setup),
        parts: slices.iter().map(part).collect(),
        slots: slots(&slices, 1),
        connections: setup.login_concurrency as u64,
        users: setup.first_user
            ..setup.first_user + setup.login_concurrency as u32 * connect::USERS_PER_PLACE,
    })
}

/// Divides `count` things of `each` connections among as many workers as are needed, or wished.
fn slices(setup: &Setup, count: usize, each: usize) -> Result<Vec<Range<usize>>, Abort> {
    let most = most_slots() / each;
    if most == 0 {
        return Err(Abort(format!(
            "{each} connections belong together and the limit of open files allows {} in one \
             ring: raise it (ulimit -Hn) or ask for fewer",
            most_slots()
        )));
    }
    let workers = setup.rings.unwrap_or(0).clamp(count.div_ceil(most), count);
    if setup.rings.is_some_and(|rings| rings < workers) {
        return Err(Abort(format!(
            "{} connections need at least {workers} rings (--rings): the limit of open files \
             allows {} in one",
            count * each,
            most_slots()
        )));
    }
    Ok((0..workers).map(|w| count * w / workers..count * (w + 1) / workers).collect())
}

/// Slots of a ring: what the largest slice needs.
fn slots(slices: &[Range<usize>], each: usize) -> u32 {
    (slices.iter().map(Range::len).max().unwrap_or(0) * each) as u32 + SPARE_SLOTS
}

fn most_slots() -> usize {
    probe::most_slots().min(RING_SLOTS).saturating_sub(u64::from(SPARE_SLOTS)) as usize
}

/// Most connections of one thread: above, more threads are the better use of a machine.
const RING_SLOTS: u64 = 65_536;
/// A slot is free again a little after its connection has ended.
const SPARE_SLOTS: u32 = 128;
