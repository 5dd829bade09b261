//! One report from those of several load processes that drove one server at the same time.
//!
//! Owns: how each kind of value adds up, and whether the parts were one run at all. Never: hides a
//! part that failed; its failures and notes carry its name. What is read from the server counts
//! once: it is taken from the *primary* part, the first that watched the server's process.

use crate::report::{Phase, Report, SavedHistogram, in_phase, split_prefix};
use crate::sample::Sample;
use std::collections::{BTreeMap, BTreeSet};

/// A report and what to call it.
pub(crate) type Part = (String, Report);

/// # Errors
/// If there are no parts, or they are of different scenarios or servers.
pub(crate) fn merge(parts: &[Part]) -> Result<Report, String> {
    let (first_name, first) = parts.first().ok_or("nothing to merge")?;
    for (name, part) in parts {
        for (what, a, b) in
            [("scenario", &first.scenario, &part.scenario), ("label", &first.label, &part.label)]
        {
            if a != b {
                return Err(format!("{first_name} has the {what} {a:?} and {name} has {b:?}"));
            }
        }
    }
    let primary = primary(parts);
    let mut merged = Report {
        label: first.label.clone(),
        scenario: first.scenario.clone(),
        shape: shape(parts),
        manifest: primary.manifest.clone(),
        ok: parts.iter().all(|(_, part)| part.ok),
        partial: parts.iter().any(|(_, part)| part.partial),
        ..Report::default()
    };
    for (name, part) in parts {
        let named = |text: &String| format!("{name}: {text}");
        merged.failures.extend(part.failures.iter().map(named));
        merged.notes.push(format!("{name}: {}", part.manifest.command));
        merged.notes.extend(part.notes.iter().map(named));
        merged.tally = merged.tally + part.tally;
    }
    merged.failures.extend(windows_apart(parts));
    merged.failures.extend(users_shared(parts));
    merged.ok &= merged.failures.is_empty();
    let all = parts.iter().map(|(_, part)| part.users).filter(|users| *users != (0, 0));
    merged.users = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default();
    figures(parts, &mut merged);
    histograms(parts, &mut merged)?;
    let start_s = offset_s(parts, primary);
    merged.phases = primary.phases.iter().map(|phase| shifted(phase, start_s)).collect();
    merged.series = series(parts);
    Ok(merged)
}

fn primary(parts: &[Part]) -> &Report {
    let watches = |part: &&Report| {
        part.manifest.server.is_some() || part.series.iter().any(|sample| sample.server.is_some())
    };
    let mut reports = parts.iter().map(|(_, part)| part);
    reports.clone().find(watches).or_else(|| reports.next()).expect("there are parts")
}

/// Runs of the same parts are comparable with one another, in whatever order they were named.
fn shape(parts: &[Part]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, part) in parts {
        *counts.entry(&part.shape).or_default() += 1;
    }
    let shapes = counts.iter().map(|(shape, count)| match count {
        1 => (*shape).to_owned(),
        count => format!("{count} x ({shape})"),
    });
    shapes.collect::<Vec<_>>().join(" + ")
}

/// How the values of a figure, one of each part, become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Rates and counts.
    Sum,
    /// Durations and shares: the worst part's.
    Max,
    /// What the server used in all: the primary part's.
    Once,
    /// What the server used per item, of which the primary part saw only its own share.
    PerItem,
    /// Memory per connection: a part divides what all need by what it holds itself.
    Drop,
}

fn rule(figure: &str) -> Rule {
    let (_, figure) = split_prefix(figure);
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| figure.ends_with(suffix));
    if ends(&["_per_connection_bytes"]) {
        Rule::Drop
    } else if figure.starts_with("server_cpu") && ends(&["_us"]) {
        Rule::PerItem
    } else if figure.starts_with("server_") || ends(&["_kib", "_bytes"]) {
        Rule::Once
    } else if ends(&["_per_s"]) {
        Rule::Sum
    } else if ends(&["_s", "_ms", "_us", "_percent"]) {
        Rule::Max
    } else {
        Rule::Sum
    }
}

fn figures(parts: &[Part], merged: &mut Report) {
    let primary = primary(parts);
    let names: BTreeSet<_> = parts.iter().flat_map(|(_, part)| part.figures.keys()).collect();
    for name in names {
        let values = parts.iter().filter_map(|(_, part)| part.figures.get(name).copied());
        let own = primary.figures.get(name).copied();
        let value = match rule(name) {
            Rule::Sum => Some(values.sum()),
            Rule::Max => values.reduce(f64::max),
            Rule::Once => own,
            Rule::PerItem => {
                let rate = format!("{}rate_per_s", split_prefix(name).0);
                let rate = |part: &Report| part.figures.get(&rate).copied();
                let all: f64 = parts.iter().filter_map(|(_, part)| rate(part)).sum();
                own.zip(rate(primary)).map(|(own, rate)| own * rate / all)
            }
            Rule::Drop => {
                merged.notes.push(format!("{name} is not known of parts: left out"));
                None
            }
        };
        if let Some(value) = value {
            merged.figure(name, value);
        }
    }
}

fn histograms(parts: &[Part], merged: &mut Report) -> Result<(), String> {
    let mut sums: BTreeMap<&str, SavedHistogram> = BTreeMap::new();
    for (file, part) in parts {
        for (name, histogram) in &part.histograms {
            let Some(sum) = sums.get_mut(name.as_str()) else {
                sums.insert(name, histogram.clone());
                continue;
            };
            let added = sum.0.add(&histogram.0);
            added.map_err(|error| format!("{file}: the histogram {name} does not fit: {error}"))?;
        }
    }
    for (name, histogram) in sums {
        merged.percentiles(name, &histogram.0);
    }
    Ok(())
}

/// The measured windows that all parts should have had at the same time, and had not: their sums
/// are of nothing that ever happened.
fn windows_apart(parts: &[Part]) -> Vec<String> {
    let mut windows: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for (_, part) in parts {
        for (prefix, from_s, to_s) in measured(part) {
            let at_s = offset_s(parts, part);
            windows.entry(prefix).or_default().push((from_s + at_s, to_s + at_s));
        }
    }
    let apart = |(prefix, windows): (&str, Vec<(f64, f64)>)| {
        let latest_s = windows.iter().map(|(from_s, _)| *from_s).fold(0.0, f64::max);
        let earliest_s = windows.iter().map(|(_, to_s)| *to_s).fold(f64::INFINITY, f64::min);
        let longest_s = windows.iter().map(|(from_s, to_s)| to_s - from_s).fold(0.0, f64::max);
        let share = ((earliest_s - latest_s) / longest_s).max(0.0);
        (share < MIN_OVERLAP).then(|| {
            format!(
                "the measured windows{} of the parts have {:.0} % in common, and {:.0} % are \
                 needed: start the load processes together",
                in_phase(prefix),
                share * 100.0,
                MIN_OVERLAP * 100.0
            )
        })
    };
    windows.into_iter().filter(|(_, windows)| windows.len() > 1).filter_map(apart).collect()
}

/// Prefix, start and end of every measured phase, in seconds of the part.
fn measured(part: &Report) -> impl Iterator<Item = (&str, f64, f64)> {
    part.phases.iter().enumerate().filter_map(|(at, phase)| {
        let next_s = part.phases.get(at + 1).map(|next| next.start_s);
        let end_s = next_s.or_else(|| Some(part.series.last()?.at_s))?;
        Some((phase.measured.as_deref()?, phase.start_s, end_s.max(phase.start_s)))
    })
}

/// Parts that logged in as the same users: each threw the other's out.
fn users_shared(parts: &[Part]) -> Option<String> {
    let mut ranges: Vec<_> = parts
        .iter()
        .filter(|(_, part)| part.users != (0, 0))
        .map(|(name, part)| (part.users, name))
        .collect();
    ranges.sort_unstable();
    let shared = ranges.windows(2).find(|pair| pair[1].0.0 < pair[0].0.1)?;
    let [(_, a), (_, b)] = shared else { return None };
    Some(format!("{a} and {b} have users in common: give each part its own (--first-user)"))
}

/// Seconds from the start of the earliest part to that of `part`.
fn offset_s(parts: &[Part], part: &Report) -> f64 {
    let starts = parts.iter().map(|(_, part)| part.manifest.start_unix_s);
    part.manifest.start_unix_s - starts.fold(f64::INFINITY, f64::min)
}

fn shifted(phase: &Phase, by_s: f64) -> Phase {
    Phase { start_s: phase.start_s + by_s, ..phase.clone() }
}

/// One sample for every second in which any part took one.
fn series(parts: &[Part]) -> Vec<Sample> {
    let primary = primary(parts);
    let mut tracks: Vec<_> = parts
        .iter()
        .map(|(_, part)| Track::new(part, offset_s(parts, part), std::ptr::eq(part, primary)))
        .collect();
    let seconds: BTreeSet<u64> = tracks.iter().flat_map(Track::seconds).collect();
    let at = |second: &u64| {
        let mut sum = Sample::default();
        for track in &mut tracks {
            track.add(*second, &mut sum);
        }
        sum
    };
    seconds.iter().map(at).collect()
}

/// The samples of one part on the time axis of all.
struct Track<'a> {
    rest: &'a [Sample],
    /// The latest sample of the seconds gone by: what counts until there is a newer one.
    last: Option<&'a Sample>,
    offset_s: f64,
    is_primary: bool,
}

impl<'a> Track<'a> {
    fn new(part: &'a Report, offset_s: f64, is_primary: bool) -> Self {
        Self { rest: &part.series, last: None, offset_s, is_primary }
    }

    fn second(&self, sample: &Sample) -> u64 {
        (sample.at_s + self.offset_s).max(0.0) as u64
    }

    fn seconds(&self) -> impl Iterator<Item = u64> {
        self.rest.iter().map(|sample| self.second(sample))
    }

    /// Adds what this part had reached by the end of `second`. Counters stay after its end, its
    /// connections do not. Of percentiles, which do not add up, the worst counts.
    fn add(&mut self, second: u64, sum: &mut Sample) {
        while let Some((sample, rest)) = self.rest.split_first()
            && self.second(sample) <= second
        {
            sum.at_s = sum.at_s.max(sample.at_s + self.offset_s);
            worst(&mut sum.latency_us, sample.latency_us);
            worst(&mut sum.ack_us, sample.ack_us);
            self.last = Some(sample);
            self.rest = rest;
        }
        let Some(last) = self.last else {
            return;
        };
        let is_over = self.rest.is_empty() && self.second(last) < second;
        sum.connections += if is_over { 0 } else { last.connections };
        sum.logins += last.logins;
        sum.sent += last.sent;
        sum.acked += last.acked;
        sum.delivered += last.delivered;
        sum.load_cpu_s += last.load_cpu_s;
        if self.is_primary || sum.phase.is_empty() {
            sum.phase.clone_from(&last.phase);
        }
        if self.is_primary {
            sum.server = last.server.filter(|_| !is_over);
            sum.host = last.host;
        }
    }
}

fn worst(sum: &mut Option<[f64; 3]>, part: Option<[f64; 3]>) {
    *sum = match (*sum, part) {
        (Some(a), Some(b)) => Some([a[0].max(b[0]), a[1].max(b[1]), a[2].max(b[2])]),
        (a, b) => a.or(b),
    };
}

/// With less in common, the windows of the parts are not one.
const MIN_OVERLAP: f64 = 0.8;

#[cfg(test)]
mod tests;
