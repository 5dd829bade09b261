//! Merging is addition: nothing is lost, and the order of the parts does not matter.

use super::*;
use crate::engine::histogram;
use crate::sample::ServerSample;
use proptest::prelude::*;

fn part(name: &str, rate: f64) -> Part {
    let mut report = Report { ok: true, scenario: "pairs".into(), ..Report::default() };
    report.label = "ringpost".into();
    report.shape = "pairs 10".into();
    report.figure("rate_per_s", rate);
    (name.to_owned(), report)
}

fn with_values(name: &str, values: &[u64]) -> Part {
    let mut histogram = histogram();
    for value in values {
        histogram.saturating_record(*value);
    }
    let mut part = part(name, 1.0);
    part.1.percentiles("latency", &histogram);
    part
}

/// Counters that only grow, sampled at uneven times.
fn any_series() -> impl Strategy<Value = Vec<Sample>> {
    let step = (0.2f64..3.0, 0u64..1000, 0u64..50, prop::option::of(0.0f64..9e6));
    prop::collection::vec(step, 0..40).prop_map(|steps| {
        let mut now = Sample::default();
        let mut samples = Vec::new();
        for (seconds, messages, logins, p99) in steps {
            now.at_s += seconds;
            now.sent += messages;
            now.acked += messages / 2;
            now.delivered += messages / 3;
            now.logins += logins;
            now.connections = logins;
            now.load_cpu_s += seconds / 2.0;
            now.latency_us = p99.map(|p99| [p99 / 4.0, p99 / 2.0, p99]);
            samples.push(now.clone());
        }
        samples
    })
}

fn any_parts() -> impl Strategy<Value = Vec<Part>> {
    let one = (any_series(), 0.0f64..5.0);
    prop::collection::vec(one, 1..5).prop_map(|list| {
        let mut parts = Vec::new();
        for (at, (series, start)) in list.into_iter().enumerate() {
            let mut part = part(&format!("{at}.json"), 1.0);
            part.1.series = series;
            part.1.manifest.start_unix_s = 1e9 + start;
            parts.push(part);
        }
        parts
    })
}

proptest! {
    #[test]
    fn the_merged_histogram_is_the_histogram_of_the_union(
        a in prop::collection::vec(0u64..60_000_000_000, 1..100),
        b in prop::collection::vec(0u64..60_000_000_000, 1..100),
    ) {
        let merged = merge(&[with_values("a", &a), with_values("b", &b)]).expect("one run");
        let (_, union) = with_values("u", &[a, b].concat());
        prop_assert_eq!(&merged.histograms, &union.histograms);
        for name in ["latency_p50_us", "latency_p90_us", "latency_p99_us", "latency_max_us"] {
            prop_assert_eq!(merged.figures[name], union.figures[name]);
        }
    }

    #[test]
    fn the_merged_series_loses_nothing(parts in any_parts()) {
        let merged = merge(&parts).expect("one run").series;
        let ends: Vec<_> = parts.iter().filter_map(|(_, part)| part.series.last()).collect();
        let end = merged.last().cloned().unwrap_or_default();
        prop_assert_eq!(end.sent, ends.iter().map(|end| end.sent).sum::<u64>());
        prop_assert_eq!(end.acked, ends.iter().map(|end| end.acked).sum::<u64>());
        prop_assert_eq!(end.delivered, ends.iter().map(|end| end.delivered).sum::<u64>());
        prop_assert_eq!(end.logins, ends.iter().map(|end| end.logins).sum::<u64>());
        // Time and counters only grow, and one sample stands for a second.
        for pair in merged.windows(2) {
            prop_assert!(pair[0].at_s < pair[1].at_s);
            prop_assert!(pair[0].at_s as u64 != pair[1].at_s as u64);
            prop_assert!(pair[0].sent <= pair[1].sent && pair[0].logins <= pair[1].logins);
        }
        // The worst moment of each part is as bad in the merged series.
        let p99s = |series: &[Sample]| {
            series.iter().filter_map(|sample| sample.latency_us).map(|of| of[2]).fold(0.0, f64::max)
        };
        let worst = parts.iter().map(|(_, part)| p99s(&part.series)).fold(0.0, f64::max);
        prop_assert_eq!(p99s(&merged), worst);
    }

    #[test]
    fn the_order_of_the_parts_does_not_matter(parts in any_parts()) {
        let forward = merge(&parts).expect("one run");
        let backward: Vec<_> = parts.into_iter().rev().collect();
        let backward = merge(&backward).expect("one run");
        prop_assert_eq!(forward.figures, backward.figures);
        prop_assert_eq!(forward.shape, backward.shape);
        prop_assert_eq!(forward.series.len(), backward.series.len());
        for (a, b) in forward.series.iter().zip(&backward.series) {
            prop_assert_eq!((a.at_s, a.sent, a.connections), (b.at_s, b.sent, b.connections));
        }
    }

    #[test]
    fn a_single_part_keeps_its_last_sample(series in any_series()) {
        let mut one = part("a", 5.0);
        one.1.series = series;
        let merged = merge(std::slice::from_ref(&one)).expect("one run");
        prop_assert_eq!(&merged.figures, &one.1.figures);
        // Two samples of one second are one; the worse latency of both stays.
        let end = |report: &Report| {
            report.series.last().map(|end| Sample { latency_us: None, ..end.clone() })
        };
        prop_assert_eq!(end(&merged), end(&one.1));
    }
}

#[test]
fn rates_add_up_and_the_server_counts_once() {
    let (mut a, mut b) = (part("a", 3000.0), part("b", 1000.0));
    for (name, value) in [
        ("server_cpu_us", 8.0),
        ("server_busy_percent", 90.0),
        ("full_rss_kib", 500.0),
        ("rss_per_connection_bytes", 700.0),
        ("load_busy_percent", 40.0),
        ("window_s", 10.0),
        ("pings_answered", 10.0),
    ] {
        b.1.figure(name, value);
    }
    for (name, value) in [("load_busy_percent", 88.0), ("window_s", 11.0), ("pings_answered", 20.0)]
    {
        a.1.figure(name, value);
    }
    let mut sample = Sample { at_s: 1.0, connections: 7, ..Sample::default() };
    a.1.series.push(sample.clone());
    sample.server = Some(ServerSample { rss_bytes: 9, ..ServerSample::default() });
    b.1.series.push(sample);

    let merged = merge(&[a, b]).expect("one run");
    let figure = |name: &str| merged.figures.get(name).copied();
    assert_eq!(figure("rate_per_s"), Some(4000.0));
    // b saw a quarter of the messages that the server's time went into.
    assert_eq!(figure("server_cpu_us"), Some(2.0));
    assert_eq!(figure("server_busy_percent"), Some(90.0));
    assert_eq!(figure("full_rss_kib"), Some(500.0));
    assert_eq!(figure("rss_per_connection_bytes"), None);
    assert_eq!(figure("load_busy_percent"), Some(88.0));
    assert_eq!(figure("window_s"), Some(11.0));
    assert_eq!(figure("pings_answered"), Some(30.0));
    assert_eq!(merged.series.len(), 1);
    assert_eq!(merged.series[0].connections, 14);
    assert_eq!(merged.series[0].server.expect("b watched it").rss_bytes, 9);
}

#[test]
fn the_connections_of_a_part_that_ended_are_gone_and_its_messages_are_not() {
    let mut parts = [part("short", 1.0), part("long", 1.0)];
    let sample =
        |at_s| Sample { at_s, connections: 5, sent: 100 * at_s as u64, ..Sample::default() };
    parts[0].1.series = vec![sample(1.0)];
    parts[1].1.series = vec![sample(1.5), sample(2.5)];
    let series = merge(&parts).expect("one run").series;
    let seen: Vec<_> = series.iter().map(|at| (at.at_s, at.connections, at.sent)).collect();
    assert_eq!(seen, [(1.5, 10, 200), (2.5, 5, 300)]);
}

#[test]
fn a_failed_part_fails_the_whole_under_its_name() {
    let mut bad = part("b.json", 1.0);
    bad.1.abort("the server is gone".into());
    bad.1.tally.lost = 3;
    bad.1.conclude();
    let merged = merge(&[part("a.json", 1.0), bad]).expect("one run");
    assert!(!merged.ok && merged.partial);
    assert_eq!(merged.failures, ["b.json: the server is gone", "b.json: 3 lost"]);
    assert_eq!(merged.tally.lost, 3);
    assert_eq!(merged.shape, "2 x (pairs 10)");
}

#[test]
fn parts_of_different_runs_are_refused() {
    assert!(merge(&[]).is_err());
    let mut other = part("b", 1.0);
    other.1.scenario = "idle".into();
    assert!(merge(&[part("a", 1.0), other]).expect_err("scenario").contains("\"idle\""));
    let mut other = part("b", 1.0);
    other.1.label = "mosquitto".into();
    assert!(merge(&[part("a", 1.0), other]).expect_err("label").contains("\"mosquitto\""));
}

/// A part with one measured window, and ten users from `first` on.
fn window(name: &str, start_unix_s: f64, start_s: f64, first: u32) -> Part {
    let mut part = part(name, 1.0);
    part.1.manifest.start_unix_s = start_unix_s;
    let phase = |name: &str, start_s, measured: Option<&str>| Phase {
        name: name.into(),
        start_s,
        measured: measured.map(Into::into),
    };
    part.1.phases = vec![phase("load", start_s, Some("")), phase("drain", start_s + 10.0, None)];
    part.1.users = (first, first + 10);
    part
}

#[test]
fn parts_that_did_not_measure_at_the_same_time_are_no_run() {
    // The processes began 5 s apart: the windows fit if the later one had less to do before.
    for (start_s, is_good) in [(2.0, true), (3.9, true), (4.1, false), (7.0, false), (99.0, false)]
    {
        let parts = [window("a", 1000.0, 7.0, 1), window("b", 1005.0, start_s, 11)];
        let merged = merge(&parts).expect("one scenario");
        assert_eq!(merged.ok, is_good, "{start_s}: {:?}", merged.failures);
        assert_eq!(merged.users, (1, 21));
        let told = merged.failures.iter().any(|why| why.contains("in common"));
        assert_eq!(told, !is_good);
    }
}

#[test]
fn parts_that_log_in_as_the_same_users_are_no_run() {
    let parts = [window("a", 1000.0, 0.0, 11), window("b", 1000.0, 0.0, 1)];
    assert!(merge(&parts).expect("one scenario").ok);
    let parts = [window("a", 1000.0, 0.0, 10), window("b", 1000.0, 0.0, 1)];
    let merged = merge(&parts).expect("one scenario");
    assert!(!merged.ok && merged.failures[0].contains("--first-user"), "{:?}", merged.failures);
}
