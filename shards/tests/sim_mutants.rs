//! The test of the tests: every deliberate bug is found by the simulator within 1,000 seeds.
//!
//! A bug counts as found when a promise is broken, a run does not come to rest, or an assertion
//! of the gateway or the simulated kernel fails.

mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use shards::mutants::{Mutant, activate};
use sim::plan::Plan;
use sim::world::run;

/// The first seed that finds the bug; `None` if none of them does.
fn first_seed_that_finds(mutant: Mutant) -> Option<u64> {
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                activate(mutant);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS || found.load(Ordering::Relaxed) < u64::MAX {
                        return;
                    }
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(Plan::seeded(seed))));
                    if !matches!(outcome, Ok(Ok(_))) {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Some(found.into_inner()).filter(|seed| *seed < u64::MAX)
}

macro_rules! mutants {
    ($($test:ident: $mutant:ident;)*) => {
        $(
            #[test]
            fn $test() {
                let seed = first_seed_that_finds(Mutant::$mutant);
                let seed = seed.expect("no seed found it");
                println!("{:?}: seed {seed}", Mutant::$mutant);
                run(Plan::seeded(seed)).expect("the seed finds nothing without the bug");
            }
        )*
    };
}

mutants! {
    finds_ack_before_commit: AckBeforeCommit;
    finds_lost_delete: LostDelete;
    finds_no_generation_check: NoGenerationCheck;
    finds_drop_on_full_ring: DropOnFullRing;
    finds_flush_behind_new: FlushBehindNew;
    finds_close_without_cancel: CloseWithoutCancel;
    finds_no_deduplication: NoDeduplication;
    finds_hand_over_loses_bytes: HandOverLosesBytes;
    finds_forget_on_disconnect: ForgetOnDisconnect;
    finds_ignored_store_error: IgnoreStoreError;
    finds_first_member_safe: FirstMemberSafe;
    finds_ack_of_anything: AckAnything;
    finds_answers_out_of_order: AnswerOutOfOrder;
    finds_giving_up_for_good: GiveUpForGood;
}

const SEEDS: u64 = 1_000;
