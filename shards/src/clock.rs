//! A shard's time, which everything with a deadline goes by: it stands still while the shard does.
//!
//! A thread that is not run for seconds (a busy machine, a stopped process, a paused guest) wakes
//! up with its deadlines behind it, while what its peers answered lies unread in the sockets. So
//! no turn counts for more than [`TURN_COUNTS_MS`], and after one that came later than that no
//! timer fires before [`TURNS_TO_READ`] have passed in which nothing was received: a peer has the
//! time he was promised, and what came is read first.
//!
//! Never: reads a clock.

use crate::io::{Now, Wait};
use crate::limits::{READ_FIRST_MS, TURN_COUNTS_MS, TURNS_TO_READ};

#[derive(Debug)]
pub(crate) struct Clock {
    /// The engine's time at the beginning of this turn.
    engine: Now,
    /// The engine's time at which the next turn was to begin at the latest.
    expected: Now,
    /// Microseconds that were not counted.
    stood_still_us: u64,
    /// Turns until timers fire again, if nothing is received in them.
    reading: u8,
    /// The engine's time from which on what is received holds timers back no longer.
    read_until: Now,
}

impl Clock {
    pub(crate) fn new(engine: Now) -> Self {
        // The first turn begins when the process is ready, and is not late.
        Self { engine, expected: Now(u64::MAX), stood_still_us: 0, reading: 0, read_until: engine }
    }

    /// A turn begins at `engine`, by the engine's time; the shard's.
    pub(crate) fn begin(&mut self, engine: Now) -> Now {
        let late_us = engine.0.saturating_sub(self.expected.0).saturating_sub(TURN_COUNTS_US);
        self.stood_still_us += late_us;
        // Not begun anew before timers have fired: where every turn is late, they still do.
        if self.reading == 0 && late_us > 0 {
            self.reading = TURNS_TO_READ;
            self.read_until = engine.plus_ms(READ_FIRST_MS);
        } else {
            self.reading = self.reading.saturating_sub(1);
        }
        self.engine = engine;
        Now(engine.0 - self.stood_still_us)
    }

    /// Something was received in this turn: more may lie behind it.
    pub(crate) fn received(&mut self) {
        if self.reading > 0 && self.engine < self.read_until {
            self.reading = TURNS_TO_READ;
        }
    }

    /// What was there when this turn began has been read, as far as one can tell.
    pub(crate) fn may_fire(&self) -> bool {
        self.reading == 0
    }

    /// The wait at the end of a turn, from the shard's time to the engine's.
    pub(crate) fn end(&mut self, wait: Wait) -> Wait {
        let wait = match wait {
            Wait::Poll => Wait::Poll,
            Wait::Until(Now(at)) => Wait::Until(Now(at + self.stood_still_us)),
        };
        self.expected = match wait {
            Wait::Until(at) => self.engine.max(at),
            Wait::Poll => self.engine,
        };
        wait
    }

    /// The engine's time at the beginning of this turn.
    pub(crate) fn engine(&self) -> Now {
        self.engine
    }

    /// Milliseconds that were not counted, in all.
    pub(crate) fn stood_still_ms(&self) -> u64 {
        self.stood_still_us / 1_000
    }
}

const TURN_COUNTS_US: u64 = TURN_COUNTS_MS * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Now {
        Now(0).plus_ms(ms)
    }

    #[test]
    fn a_wait_as_long_as_asked_for_counts_in_full() {
        let mut clock = Clock::new(ms(0));
        assert_eq!(clock.begin(ms(5)), ms(5));
        assert_eq!(clock.end(Wait::Until(ms(1_005))), Wait::Until(ms(1_005)));
        assert_eq!(clock.begin(ms(1_005 + TURN_COUNTS_MS)), ms(1_005 + TURN_COUNTS_MS));
        assert!(clock.may_fire());
        assert_eq!(clock.stood_still_ms(), 0);
    }

    #[test]
    fn a_late_turn_counts_little_and_fires_nothing_before_what_came_is_read() {
        let mut clock = Clock::new(ms(0));
        clock.end(Wait::Until(ms(100)));
        let now = clock.begin(ms(3_000));
        assert_eq!(now, ms(100 + TURN_COUNTS_MS));
        for _ in 0..TURNS_TO_READ {
            assert!(!clock.may_fire());
            clock.end(Wait::Poll);
            assert_eq!(clock.begin(ms(3_000)), now, "time does not run back");
        }
        assert!(clock.may_fire());
        // Deadlines are the shard's, waits the engine's.
        let lost = 3_000 - 100 - TURN_COUNTS_MS;
        assert_eq!(clock.end(Wait::Until(now.plus_ms(10))), Wait::Until(ms(3_010)));
        assert_eq!((clock.stood_still_ms(), clock.engine()), (lost, ms(3_000)));
    }

    #[test]
    fn what_is_received_holds_timers_back_for_a_bounded_time() {
        let mut clock = Clock::new(ms(0));
        clock.end(Wait::Poll);
        let mut at = 3_000;
        while at < 3_000 + READ_FIRST_MS {
            clock.begin(ms(at));
            clock.received();
            assert!(!clock.may_fire(), "{at}");
            clock.end(Wait::Poll);
            at += 10;
        }
        let turns = (1..100).find(|turn| {
            clock.begin(ms(at + turn));
            clock.received();
            clock.end(Wait::Poll);
            clock.may_fire()
        });
        assert_eq!(turns, Some(u64::from(TURNS_TO_READ)));
    }

    #[test]
    fn where_every_turn_is_late_time_goes_on_and_timers_fire() {
        let mut clock = Clock::new(ms(0));
        clock.end(Wait::Poll);
        let (mut fired, mut now) = (0, ms(0));
        for turn in 1..=100 {
            now = clock.begin(ms(turn * 400));
            fired += u32::from(clock.may_fire());
            clock.end(Wait::Poll);
        }
        assert_eq!(now, ms(100 * TURN_COUNTS_MS));
        assert_eq!(fired, 100 / (u32::from(TURNS_TO_READ) + 1));
    }
}
