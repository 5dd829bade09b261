//! Arrivals on a schedule: when the next thing is due, whatever happened to the ones before.
//!
//! Owns: the schedule. Never: catches up by forgetting what was missed.

/// Arrivals at a constant mean rate, the gaps between them exponential, as independent users'.
#[derive(Debug)]
pub(crate) struct Pace {
    mean_gap_ns: f64,
    /// When the next one is due, in nanoseconds of the run.
    due_ns: f64,
    random: u64,
}

impl Pace {
    /// `per_s`: above 0.
    pub(crate) fn new(per_s: f64) -> Self {
        Self { mean_gap_ns: 1e9 / per_s.max(1e-9), due_ns: f64::INFINITY, random: 0x9e37_79b9 }
    }

    /// The schedule begins at `now_ns`.
    pub(crate) fn start(&mut self, now_ns: u64) {
        self.random ^= now_ns << 1 | 1;
        self.due_ns = now_ns as f64 + self.gap();
    }

    /// When the next one is due.
    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns as u64
    }

    /// The time at which one was due, if that has come; the next one is scheduled.
    pub(crate) fn next_due(&mut self, now_ns: u64) -> Option<u64> {
        if self.due_ns > now_ns as f64 {
            return None;
        }
        let due_ns = self.due_ns as u64;
        self.due_ns += self.gap();
        Some(due_ns)
    }

    fn gap(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // Never 0, so that the logarithm is finite.
        let uniform = ((self.random >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        -uniform.ln() * self.mean_gap_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_keeps_its_rate_however_late_it_is_asked() {
        // Asked every 10 ms, every 1 s: the arrivals are the same, at the times they were due.
        let arrivals = |step_ns: u64| {
            let mut pace = Pace::new(1000.0);
            pace.start(0);
            let mut due = Vec::new();
            for now_ns in (0..=10_000_000_000).step_by(step_ns as usize) {
                due.extend(std::iter::from_fn(|| pace.next_due(now_ns)));
            }
            due
        };
        let fine = arrivals(10_000_000);
        assert_eq!(fine, arrivals(1_000_000_000));
        assert!(fine.is_sorted());
        assert!((9_000..11_000).contains(&fine.len()), "{} in 10 s", fine.len());
    }
}
