//! The text of `/metrics`: OpenMetrics 1.0.
//!
//! Owns: names with their prefix and suffixes, labels, escaping, one block per family. Never: where
//! figures come from.

use std::fmt::Write as _;

use crate::gateway::{Figure, Sample, Snapshot};

/// The media type of [`encode`]'s text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures of `snapshot`, each family once, in the order of first appearance.
pub(crate) fn encode(snapshot: &Snapshot) -> String {
    let up: Vec<_> = snapshot
        .shards
        .iter()
        .map(|shard| (Some(shard.shard), shard_up(shard.samples.is_some())))
        .collect();
    let process = snapshot.process.iter().map(|sample| (None, sample));
    let shards = snapshot
        .shards
        .iter()
        .flat_map(|shard| shard.samples.iter().flatten().map(|sample| (Some(shard.shard), sample)));
    let up = up.iter().map(|(shard, sample)| (*shard, sample));
    let all: Vec<(Option<u16>, &Sample)> = process.chain(up).chain(shards).collect();

    let mut names: Vec<&str> = Vec::new();
    for (_, sample) in &all {
        if !names.contains(&sample.name) {
            names.push(sample.name);
        }
    }
    let mut out = String::new();
    for name in names {
        let family = all.iter().filter(|(_, sample)| sample.name == name);
        for (index, (shard, sample)) in family.enumerate() {
            if index == 0 {
                head(&mut out, sample);
            }
            put(&mut out, *shard, sample);
        }
    }
    out.push_str("# EOF\n");
    out
}

fn shard_up(answered: bool) -> Sample {
    let help = "Whether the shard answers: 0 means that its loop is stuck.";
    Sample::gauge("shard_up", help, u64::from(answered))
}

fn head(out: &mut String, sample: &Sample) {
    let (kind, name) = match sample.figure {
        Figure::Counter(_) => ("counter", sample.name),
        Figure::Gauge(_) => ("gauge", sample.name),
        Figure::Times { .. } => ("histogram", sample.name),
    };
    let _ = writeln!(out, "# TYPE {PREFIX}{name} {kind}");
    for unit in ["seconds", "bytes"] {
        if name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')) {
            let _ = writeln!(out, "# UNIT {PREFIX}{name} {unit}");
        }
    }
    let _ = writeln!(out, "# HELP {PREFIX}{name} {}", escaped(sample.help));
}

fn put(out: &mut String, shard: Option<u16>, sample: &Sample) {
    let name = sample.name;
    let mut labels: Vec<String> = Vec::new();
    labels.extend(shard.map(|shard| format!("shard=\"{shard}\"")));
    labels.extend(sample.label.map(|(key, value)| format!("{key}=\"{}\"", escaped(value))));
    let braces = |labels: &[String]| match labels {
        [] => String::new(),
        labels => format!("{{{}}}", labels.join(",")),
    };
    match &sample.figure {
        Figure::Counter(value) => {
            let _ = writeln!(out, "{PREFIX}{name}_total{} {value}", braces(&labels));
        }
        Figure::Gauge(value) => {
            let _ = writeln!(out, "{PREFIX}{name}{} {value}", braces(&labels));
        }
        Figure::Times { bounds_us, counts, sum_us } => {
            let mut below = 0;
            for (index, count) in counts.iter().enumerate() {
                below += count;
                let bound =
                    bounds_us.get(index).map_or_else(|| "+Inf".to_owned(), |us| seconds(*us));
                labels.push(format!("le=\"{bound}\""));
                let _ = writeln!(out, "{PREFIX}{name}_bucket{} {below}", braces(&labels));
                labels.pop();
            }
            let _ = writeln!(out, "{PREFIX}{name}_count{} {below}", braces(&labels));
            let _ = writeln!(out, "{PREFIX}{name}_sum{} {}", braces(&labels), seconds(*sum_us));
        }
    }
}

/// Exactly, without binary fractions.
fn seconds(us: u64) -> String {
    let fraction = format!("{:06}", us % 1_000_000);
    let fraction = fraction.trim_end_matches('0');
    format!("{}.{}", us / 1_000_000, if fraction.is_empty() { "0" } else { fraction })
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

const PREFIX: &str = "ringpost_";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::ShardSnapshot;

    #[test]
    fn families_stand_together_with_type_help_and_labels_and_the_text_ends() {
        let logins = |value| Sample::counter("logins", "Logins accepted.", value);
        let closed = |reason, value| {
            Sample::counter("closed", "Connections \"ended\".", value).labelled("reason", reason)
        };
        let snapshot = Snapshot {
            process: vec![Sample::gauge("memory_bytes", "Resident memory.", 9)],
            shards: vec![
                ShardSnapshot { shard: 0, samples: Some(vec![logins(3), closed("tls", 1)]) },
                ShardSnapshot { shard: 1, samples: None },
                ShardSnapshot { shard: 2, samples: Some(vec![closed("\n", 2), logins(4)]) },
            ],
        };
        let expected = "\
# TYPE ringpost_memory_bytes gauge
# UNIT ringpost_memory_bytes bytes
# HELP ringpost_memory_bytes Resident memory.
ringpost_memory_bytes 9
# TYPE ringpost_shard_up gauge
# HELP ringpost_shard_up Whether the shard answers: 0 means that its loop is stuck.
ringpost_shard_up{shard=\"0\"} 1
ringpost_shard_up{shard=\"1\"} 0
ringpost_shard_up{shard=\"2\"} 1
# TYPE ringpost_logins counter
# HELP ringpost_logins Logins accepted.
ringpost_logins_total{shard=\"0\"} 3
ringpost_logins_total{shard=\"2\"} 4
# TYPE ringpost_closed counter
# HELP ringpost_closed Connections \\\"ended\\\".
ringpost_closed_total{shard=\"0\",reason=\"tls\"} 1
ringpost_closed_total{shard=\"2\",reason=\"\\n\"} 2
# EOF
";
        assert_eq!(encode(&snapshot), expected);
        assert_eq!(snapshot.stuck(), [1]);
    }

    #[test]
    fn times_are_cumulative_seconds() {
        let figure = Figure::Times {
            bounds_us: &[125, 2_000_000],
            counts: vec![1, 2, 3],
            sum_us: 9_000_010,
        };
        let sample = Sample { name: "commit_seconds", help: "Commits.", label: None, figure };
        let text = encode(&Snapshot { process: vec![sample], shards: Vec::new() });
        let expected = "\
# TYPE ringpost_commit_seconds histogram
# UNIT ringpost_commit_seconds seconds
# HELP ringpost_commit_seconds Commits.
ringpost_commit_seconds_bucket{le=\"0.000125\"} 1
ringpost_commit_seconds_bucket{le=\"2.0\"} 3
ringpost_commit_seconds_bucket{le=\"+Inf\"} 6
ringpost_commit_seconds_count 6
ringpost_commit_seconds_sum 9.00001
# EOF
";
        assert_eq!(text, expected);
    }
}
