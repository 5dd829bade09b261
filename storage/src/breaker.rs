//! A circuit breaker: after failures in a row a dead peer is not asked for a while, then by one
//! probe at a time, so that it holds no thread and no queue.
//!
//! Owns: when to try. Never: the call itself, nor what counts as a failure.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Failures in a row that open it; at least 1.
    pub(crate) failures_max: u32,
    /// The first pause; each failed probe doubles it, up to `pause_max`.
    pub(crate) pause: Duration,
    pub(crate) pause_max: Duration,
}

/// Shared by all threads that call one peer.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: Policy,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { pause: Duration },
}

/// The right to make one call. Dropped without [`Permit::succeed`], the call has failed: a panic
/// or an early return cannot leave the breaker waiting for a probe for ever.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// `None`: the peer is held to be dead, answer without it.
    pub(crate) fn enter(&self, now: Instant) -> Option<Permit<'_>> {
        let mut state = self.lock();
        match *state {
            State::Closed { .. } => Some(Permit { breaker: self, probe: false }),
            State::Open { until, pause } if until <= now => {
                *state = State::Probing { pause };
                Some(Permit { breaker: self, probe: true })
            }
            State::Open { .. } | State::Probing { .. } => None,
        }
    }

    fn failed(&self, probe: bool, now: Instant) {
        let mut state = self.lock();
        match *state {
            State::Closed { failures } if failures + 1 < self.policy.failures_max => {
                *state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } => {
                let pause = self.policy.pause;
                *state = State::Open { until: now + pause, pause };
            }
            State::Probing { pause } if probe => {
                let pause = (pause * 2).min(self.policy.pause_max);
                *state = State::Open { until: now + pause, pause };
            }
            // A call from before it opened says nothing new.
            State::Open { .. } | State::Probing { .. } => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The peer answered: it is alive.
    pub(crate) fn succeed(self) {
        *self.breaker.lock() = State::Closed { failures: 0 };
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breaker.failed(self.probe, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        failures_max: 2,
        pause: Duration::from_secs(1),
        pause_max: Duration::from_secs(3),
    };

    #[test]
    fn it_opens_after_the_failures_in_a_row_and_not_before() {
        let breaker = Breaker::new(POLICY);
        let now = Instant::now();
        drop(breaker.enter(now).unwrap());
        breaker.enter(now).unwrap().succeed();
        drop(breaker.enter(now).unwrap());
        drop(breaker.enter(now).unwrap());
        assert!(breaker.enter(now).is_none());
    }

    #[test]
    fn one_probe_at_a_time_decides_and_each_failed_one_doubles_the_pause() {
        let breaker = Breaker::new(POLICY);
        let now = Instant::now();
        breaker.failed(false, now);
        breaker.failed(false, now);
        assert!(breaker.enter(now + Duration::from_millis(999)).is_none());
        let probe = breaker.enter(now + Duration::from_secs(1)).unwrap();
        assert!(breaker.enter(now + Duration::from_secs(9)).is_none(), "a second probe");
        drop(probe);
        let State::Open { pause, .. } = *breaker.lock() else { panic!("not open") };
        assert_eq!(pause, Duration::from_secs(2));
        let probe = breaker.enter(now + Duration::from_secs(60)).unwrap();
        probe.succeed();
        assert!(matches!(*breaker.lock(), State::Closed { failures: 0 }));
        assert!(breaker.enter(now).is_some());
    }
}
