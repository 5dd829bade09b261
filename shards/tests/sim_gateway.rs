//! The gateway under seeded faults: nothing acknowledged is lost, orders are kept, nobody gets
//! what is not his, and everything comes to rest.
//!
//! `SIM_SEED=n` runs one seed and prints what it was like; `SIM_SEEDS=n` runs that many.

mod sim;

use sim::plan::Plan;
use sim::world::{Report, run};

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = number("SIM_SEED") {
        println!("{:#?}", run(Plan::seeded(seed)));
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let workers: Vec<_> = (0..threads)
        .map(|first| {
            std::thread::spawn(move || {
                let own = (first..seeds).step_by(threads as usize);
                own.map(|seed| run(Plan::seeded(seed))).collect::<Vec<_>>()
            })
        })
        .collect();
    let results = workers.into_iter().flat_map(|worker| worker.join().expect("no panic"));
    let (reports, failures): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
    let failures: Vec<String> = failures.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{} of {seeds}:\n{}", failures.len(), failures.join("\n"));
    let reports: Vec<Report> = reports.into_iter().filter_map(Result::ok).collect();
    every_fault_was_met(&reports);
}

/// The seeds together are only worth something if they went through everything.
fn every_fault_was_met(reports: &[Report]) {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    for (what, count) in [
        ("virtual seconds", sum(|r| r.virtual_ms / 1_000)),
        ("turns", sum(|r| r.turns)),
        ("messages", sum(|r| r.messages as u64)),
        ("resends", sum(|r| u64::from(r.resends))),
        ("crashes", sum(|r| u64::from(r.crashes))),
        ("hand-overs", sum(|r| r.stats.handed_over)),
        ("failed hand-overs", sum(|r| r.stats.hand_overs_failed)),
        ("resets", sum(|r| r.stats.resets)),
        ("stalls", sum(|r| r.stats.stalls)),
        ("short receives", sum(|r| r.stats.short_receives)),
        ("short sends", sum(|r| r.stats.short_sends)),
        ("blocked sends", sum(|r| r.stats.blocked_sends)),
        ("empty pools", sum(|r| r.stats.starved)),
        ("failed accepts", sum(|r| r.stats.accepts_failed)),
        ("failed writes", sum(|r| r.store_writes_failed)),
        ("full store queues", sum(|r| r.store_refused)),
        ("full mesh rings", sum(|r| r.mesh_full)),
        ("pushes given up", sum(|r| r.given_up)),
        ("late acknowledgements", sum(|r| r.acknowledged_late)),
        ("dead letters", sum(|r| r.dead_letters as u64)),
    ] {
        println!("{what}: {count}");
        assert!(count > 0, "no {what} in {} seeds", reports.len());
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..4 {
        assert_eq!(run(Plan::seeded(seed)), run(Plan::seeded(seed)));
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

const SEEDS: u64 = 1_000;
