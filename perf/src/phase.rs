//! The parts of a run, one after the other, the same for all workers.
//!
//! Owns: what a phase is. Never: carries one out.

use std::time::Duration;

/// What workers do in a phase.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Logs in those of the given crowd who are not, then holds them.
    LogIn(Who),
    /// The same, until everything that waits for them has arrived, too.
    Fetch,
    /// Holds what is connected; everybody answers pings.
    Hold,
    /// Everybody writes a note to his neighbour, so that both show that they are alive at the
    /// server.
    Probe,
    /// Messages: closed loop, or at a rate of so many per second over all workers.
    Load { rate_per_s: Option<f64> },
    /// Sends no more and waits for the acknowledgements under way, and for the arrivals, too.
    Drain { arrivals: bool },
    /// Logins as fast as they go: whoever is in leaves at once.
    Cycle,
    /// Everybody leaves without a word.
    Leave,
    /// The server goes away and comes back: whoever loses his connection logs in again.
    Outage,
}

/// Which connections of each worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Who {
    All,
    /// The first ones, this share of all: 0 to 1.
    Share(f64),
    /// Those who send; the others are offline.
    Senders,
}

/// When a phase ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Until {
    /// Every worker has reached the step's goal.
    Reached,
    Elapsed(Duration),
    /// The goal, or this long without it: what is missing is counted afterwards.
    ReachedWithin(Duration),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Phase {
    pub name: String,
    pub step: Step,
    pub until: Until,
    /// Figures of this phase are reported, their names starting with this.
    pub measured: Option<String>,
    /// At its end, the server's memory is noted under this name.
    pub mark: Option<String>,
    /// Something must happen all the time, or the server counts as stuck.
    pub watched: bool,
    /// Logins that fail and connections that are lost are tried again instead of ending the run.
    pub stubborn: bool,
    /// Run by the shell when the phase begins.
    pub command: Option<String>,
}

impl Phase {
    pub(crate) fn new(name: impl Into<String>, step: Step, until: Until) -> Self {
        Self {
            name: name.into(),
            step,
            until,
            measured: None,
            mark: None,
            watched: true,
            stubborn: false,
            command: None,
        }
    }

    /// Nothing needs to happen in it.
    pub(crate) fn quiet(self) -> Self {
        Self { watched: false, ..self }
    }

    pub(crate) fn measured(self, prefix: impl Into<String>) -> Self {
        Self { measured: Some(prefix.into()), ..self }
    }

    pub(crate) fn mark(self, name: impl Into<String>) -> Self {
        Self { mark: Some(name.into()), ..self }
    }
}
