//! Logs: one line per event, to stderr, for the operator.
//!
//! Owns: the format and the level, which SIGHUP changes. Never: secrets, or a line per bad packet:
//! what a peer can provoke is a counter, and what floods can provoke goes through [`Throttle`].

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::keys::LogLevel;

/// Changes the level of a running process.
pub(crate) struct LevelHandle(reload::Handle<LevelFilter, Registry>);

impl LevelHandle {
    pub(crate) fn set(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, that is never before the process ends.
        let _ = self.0.modify(|filter| *filter = filter_of(level));
    }
}

/// Starts logging; once per process.
pub(crate) fn init(level: LogLevel) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(filter_of(level));
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    LevelHandle(handle)
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Lets one event per period through and counts the others.
#[derive(Debug)]
pub(crate) struct Throttle {
    period: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    pub(crate) const fn new(period: Duration) -> Self {
        Self { period, last: None, suppressed: 0 }
    }

    /// `Some`: write the line; so many were suppressed since the last.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < self.period) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_lets_one_event_per_period_through_and_counts_the_rest() {
        let mut throttle = Throttle::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.pass(at(0)), Some(0));
        assert_eq!(throttle.pass(at(1)), None);
        assert_eq!(throttle.pass(at(9)), None);
        assert_eq!(throttle.pass(at(10)), Some(2));
        assert_eq!(throttle.pass(at(20)), Some(0));
    }
}
