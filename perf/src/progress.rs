//! What a run is doing, while it does it: one living line on a terminal, plain lines elsewhere.
//!
//! Owns: standard error during a run. Never: measures anything; it shows samples.

use crate::report::number;
use crate::sample::{Sample, ServerSample};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;

/// The progress of one run.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `None` writes plain lines.
    bar: Option<ProgressBar>,
    phase: String,
    target: Option<u64>,
    /// When the next plain line is due.
    next_line_s: f64,
}

impl Progress {
    /// Announces the run.
    pub(crate) fn new(shape: &str) -> Self {
        eprintln!("{shape}");
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        Self { bar, phase: String::new(), target: None, next_line_s: 0.0 }
    }

    /// A phase begins; with a `target` it is over when so many connections are logged in.
    pub(crate) fn phase(&mut self, name: &str, target: Option<u64>) {
        name.clone_into(&mut self.phase);
        self.target = target;
        self.next_line_s = 0.0;
        if let Some(bar) = &self.bar {
            let style = if target.is_some() { WITH_TARGET } else { WITHOUT_TARGET };
            bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
            bar.set_prefix(name.to_owned());
            bar.set_position(0);
            match target {
                Some(target) => bar.set_length(target),
                None => bar.unset_length(),
            }
        }
    }

    /// Shows `sample`; rates are of the time since `previous`.
    pub(crate) fn update(&mut self, sample: &Sample, previous: &Sample) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(told(sample, previous));
                bar.set_position(sample.connections);
            }
            None if sample.at_s >= self.next_line_s => {
                eprintln!("{}", self.line(sample, previous));
                self.next_line_s = sample.at_s + LINE_EVERY_S;
            }
            None => {}
        }
    }

    /// Leaves the terminal as it was.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, sample: &Sample, previous: &Sample) -> String {
        let of = self.target.map(|target| format!("/{target}")).unwrap_or_default();
        format!(
            "{:>8.1} s  {:<10} {}{of} connections  {}",
            sample.at_s,
            self.phase,
            sample.connections,
            told(sample, previous)
        )
    }
}

/// Rate, latency, and what the server uses.
fn told(sample: &Sample, previous: &Sample) -> String {
    let seconds = sample.at_s - previous.at_s;
    let rate = |now: u64, before: u64| {
        if seconds > 0.0 { now.saturating_sub(before) as f64 / seconds } else { 0.0 }
    };
    let (deliveries, logins) =
        (rate(sample.delivered, previous.delivered), rate(sample.logins, previous.logins));
    let mut parts = Vec::new();
    if deliveries > 0.0 || logins == 0.0 {
        parts.push(format!("{deliveries:.0} deliveries/s"));
    }
    if logins > 0.0 {
        parts.push(format!("{logins:.0} logins/s"));
    }
    if let Some([_, _, p99]) = sample.latency_us {
        parts.push(format!("p99 {} ms", number(p99 / 1e3)));
    }
    if let Some(server) = &sample.server {
        // CPU time is counted in ticks of 10 ms: of a moment it says nothing.
        if let Some(before) = &previous.server
            && seconds > SHORT_S
        {
            let busy = (cpu_s(server, before) / seconds).max(0.0);
            parts.push(format!("server {:.0} % CPU", busy * 100.0));
        }
        parts.push(format!("RSS {:.1} MiB", server.rss_bytes as f64 / MIB));
    }
    parts.join("  ")
}

fn cpu_s(now: &ServerSample, before: &ServerSample) -> f64 {
    now.user_s + now.system_s - before.user_s - before.system_s
}

const WITH_TARGET: &str = "{elapsed_precise} {prefix:<10} [{bar:24}] {pos}/{len}  {msg}";
const WITHOUT_TARGET: &str = "{elapsed_precise} {prefix:<10} {pos} connections  {msg}";
/// Plain lines end in logs: seldom enough to be read.
const LINE_EVERY_S: f64 = 5.0;
/// The shortest time of which CPU shares are told.
const SHORT_S: f64 = 0.25;
const MIB: f64 = (1u64 << 20) as f64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(at_s: f64, delivered: u64, cpu_s: f64) -> Sample {
        let server = ServerSample { user_s: cpu_s, rss_bytes: 3 << 20, ..ServerSample::default() };
        Sample { at_s, delivered, server: Some(server), connections: 7, ..Sample::default() }
    }

    fn plain() -> Progress {
        Progress { bar: None, phase: "ramp".into(), target: Some(10), next_line_s: 0.0 }
    }

    #[test]
    fn a_plain_line_says_where_the_run_is() {
        let mut now = sample(12.0, 3000, 4.5);
        now.latency_us = Some([100.0, 200.0, 1500.0]);
        let line = plain().line(&now, &sample(10.0, 1000, 3.0));
        for part in [
            "12.0 s",
            "ramp",
            "7/10 connections",
            "1000 deliveries/s",
            "p99 1.500 ms",
            "server 75 % CPU",
            "RSS 3.0 MiB",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn plain_lines_are_seldom_but_a_phase_shows_at_once() {
        let mut progress = plain();
        let mut shown = Vec::new();
        for second in 0..12 {
            let due = progress.next_line_s;
            progress.update(&sample(f64::from(second), 0, 0.0), &Sample::default());
            if progress.next_line_s != due {
                shown.push(second);
            }
            if second == 6 {
                progress.phase("hold", None);
            }
        }
        assert_eq!(shown, [0, 5, 7]);
    }

    #[test]
    fn the_templates_of_the_terminal_are_well_formed() {
        for template in [WITH_TARGET, WITHOUT_TARGET] {
            ProgressStyle::with_template(template).expect("the template is constant");
        }
    }

    proptest! {
        #[test]
        fn no_sample_breaks_a_line_or_writes_control_characters(
            at_s in -1.0f64..1e6,
            delivered in any::<u64>(),
            before in any::<u64>(),
            cpu_s in 0.0f64..1e6,
        ) {
            let line = plain().line(&sample(at_s, delivered, cpu_s), &sample(0.0, before, 0.0));
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}
