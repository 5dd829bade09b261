//! Deliberate bugs, for the test of the tests: `tests/sim_mutants.rs` switches them on one by one
//! and the simulator must catch each. Without the `sim` feature every answer is a constant `false`.

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    None,
    /// The sender is acknowledged when the append is asked for.
    AckBeforeCommit,
    /// A stored delivery stays in the store after its acknowledgement.
    LostDelete,
    /// Completions are not checked for the generation of their slot.
    NoGenerationCheck,
    /// A message for a full mesh ring is dropped.
    DropOnFullRing,
    /// New messages overtake the rows of the store.
    FlushBehindNew,
    /// A connection's end leaves its session behind.
    CloseWithoutCancel,
    /// A resend is delivered again.
    NoDeduplication,
    /// Bytes that were read but not parsed are lost in the hand-over.
    HandOverLosesBytes,
    /// When the last terminal goes, what is only in memory goes too.
    ForgetOnDisconnect,
    /// A failed append counts as done.
    IgnoreStoreError,
    /// One member's safety counts for the whole group.
    FirstMemberSafe,
    /// An acknowledgement finishes the oldest delivery, whatever its id.
    AckAnything,
    /// Answers that have an order are given as they come.
    AnswerOutOfOrder,
    /// A push that is given up is taken out of the store, too.
    GiveUpForGood,
}

#[cfg(feature = "sim")]
mod switch {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Mutant> = const { Cell::new(Mutant::None) };
    }

    /// Switches one bug on for this thread.
    pub fn activate(mutant: Mutant) {
        ACTIVE.set(mutant);
    }

    pub(crate) fn on(mutant: Mutant) -> bool {
        ACTIVE.get() == mutant
    }
}

#[cfg(not(feature = "sim"))]
mod switch {
    #[inline(always)]
    pub(crate) fn on(_: super::Mutant) -> bool {
        false
    }
}

#[cfg(feature = "sim")]
pub use switch::activate;
pub(crate) use switch::on;
