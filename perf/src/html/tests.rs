//! The page is whole whatever the report holds, and nothing in it comes from outside.

use super::*;
use crate::engine::histogram;
use crate::manifest::Manifest;
use crate::report::Phase;
use crate::sample::{HostSample, Sample, ServerSample};
use proptest::prelude::*;

/// A run of two minutes as a healthy server makes it: ramp, load, rest.
fn full() -> Report {
    let mut report = Report {
        label: "ringpost".into(),
        scenario: "pairs".into(),
        shape: "pairs 500 x 16 in flight, 100 bytes".into(),
        manifest: Manifest::read(Some(std::process::id())).expect("this process"),
        ..Report::default()
    };
    let (mut latency, mut ack) = (histogram(), histogram());
    for n in 1..200_000u64 {
        // Most are quick, some are not, few are slow.
        let ns = 180_000 + n * 13 % 90_000 + 90_000_000 / (1 + n * 7919 % 100_003);
        latency.saturating_record(ns);
        ack.saturating_record(ns * 6 / 5);
    }
    report.percentiles("latency", &latency);
    report.percentiles("ack", &ack);
    report.figure("rate_per_s", 412_345.6);
    report.figure("server_cpu_us", 0.98);
    report.figure("load_busy_percent", 71.2);
    for (name, start_s) in [("ramp", 0.0), ("warm-up", 30.0), ("measure", 40.0), ("drain", 110.0)] {
        report.phases.push(Phase { name: name.into(), start_s, ..Phase::default() });
    }
    let mut now = Sample::default();
    for second in 0..120u64 {
        let loaded = (30..110).contains(&second);
        let wave = (second * 37 % 17) as f64;
        now.at_s = second as f64 + wave / 100.0;
        now.connections = (second * 500).min(15_000);
        now.logins = now.connections;
        now.delivered += if loaded { 400_000 + second * 131 % 30_000 } else { 0 };
        (now.sent, now.acked) = (now.delivered + 8000, now.delivered - now.delivered.min(4000));
        now.latency_us = loaded.then_some([230.0 + wave, 410.0 + 3.0 * wave, 900.0 + 40.0 * wave]);
        now.ack_us = now.latency_us.map(|us| us.map(|us| us * 1.2));
        now.load_cpu_s += if loaded { 0.7 } else { 0.1 };
        let before = now.server.unwrap_or_default();
        now.server = Some(ServerSample {
            user_s: before.user_s + if loaded { 0.32 + wave / 300.0 } else { 0.02 },
            system_s: before.system_s + if loaded { 0.55 } else { 0.06 },
            rss_bytes: 14_000_000 + now.connections * 440,
            anon_bytes: 9_000_000 + now.connections * 430,
            threads: 6,
            fds: Some(60),
        });
        now.host = HostSample {
            slab_bytes: 180_000_000 + now.connections * 5_800,
            socket_bytes: if loaded { 4_000_000 } else { 40_000 },
            ..HostSample::default()
        };
        report.series.push(now.clone());
    }
    report.tally.sent = now.sent;
    report.tally.acked = now.sent;
    report.tally.delivered = now.sent;
    report.conclude();
    report
}

fn page(report: &Report) -> String {
    let page = render(report).expect("it can be drawn");
    let count = |text: &str| page.matches(text).count();
    for tag in ["svg", "figure", "table", "section", "header", "ul", "style", "body", "html"] {
        assert_eq!(
            count(&format!("<{tag}>")) + count(&format!("<{tag} ")),
            count(&format!("</{tag}>"))
        );
    }
    assert!(!page.contains("NaN") && !page.contains("inf\""), "a coordinate is no number");
    page
}

/// `PERF_HTML=FILE` keeps the page of this test, to look at.
#[test]
fn a_full_report_has_every_chart_and_figure() {
    let report = full();
    let page = page(&report);
    for title in [
        "Connections",
        "Logins",
        "Throughput",
        "Latency over time",
        "Acknowledgement over time",
        "Latency by percentile",
        "Memory",
        "Memory per connection",
        "CPU",
    ] {
        assert!(page.contains(&format!("<h3>{title}</h3>")), "{title}");
    }
    assert_eq!(page.matches("<svg").count(), 9);
    assert!(page.contains("OK: nothing lost") && page.contains("412,346"));
    assert!(page.contains("99.999 %"), "the ticks of the percentile curve");
    if let Some(path) = std::env::var_os("PERF_HTML") {
        save(&report, Path::new(&path)).expect("it can be written");
    }
}

#[test]
fn every_measured_phase_has_its_curves() {
    let mut report = full();
    let steps = ["step1_", "step2_", "return_"];
    let mut login = histogram();
    (1..1000).for_each(|ms| login.saturating_record(ms * 1_000_000));
    report.phases.truncate(1);
    for prefix in steps {
        let measured = Some(prefix.to_owned());
        report.phases.push(Phase { name: "step".into(), start_s: 50.0, measured });
        report.percentiles(&format!("{prefix}login"), &login);
        report.percentiles(&format!("{prefix}late"), &login);
    }
    // Of a file that does not name its measured phases.
    report.percentiles("round2_ack", &login);
    let page = page(&report);
    for phase in ["", ": step1", ": step2", ": return", ": round2"] {
        let title = format!("<h3>Latency by percentile{phase}</h3>");
        assert_eq!(page.matches(&title).count(), 1, "{title}");
    }
    assert_eq!(page.matches("</i>login</li>").count(), 3);
    assert_eq!(page.matches("own lateness</li>").count(), 3);
}

#[test]
fn a_message_that_was_not_offered_is_no_fault() {
    let mut report = full();
    report.tally.unsent = 5;
    report.figure("full_connections", 15_000.0);
    let page = page(&report);
    assert!(!page.contains("class=\"fault\"") && page.contains("<th>unsent</th>"));
    assert!(page.contains("<b>15,000 <small></small></b><span>connections held</span>"));
}

#[test]
fn nothing_in_the_page_comes_from_outside() {
    let page = page(&full());
    for reference in ["<script", "<link", "<img", "@import", "url(", "src=", "href="] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn a_report_without_samples_says_so_and_has_no_chart() {
    let page = page(&Report::default());
    assert!(page.contains("The run took no samples.") && !page.contains("<svg"));
}

#[test]
fn the_verdict_of_a_bad_run_stands_on_top() {
    let mut report = full();
    report.tally.lost = 7;
    report.conclude();
    let failed = page(&report);
    assert!(failed.contains("class=\"verdict failed\">FAILED"));
    assert!(failed.contains("<li class=\"failure\">7 lost</li>"));
    assert!(failed.contains("<tr class=\"fault\"><th>lost</th>"));
    report.abort("the server is gone".into());
    assert!(page(&report).contains("class=\"verdict partial\">PARTIAL"));
}

#[test]
fn text_of_a_report_never_becomes_markup() {
    let mut report = full();
    let evil = "<script>alert('1')</script>&\"";
    report.label = evil.into();
    report.failures.push(evil.into());
    report.notes.push(evil.into());
    report.phases[2].name = evil.into();
    report.manifest.command = evil.into();
    report.manifest.server.as_mut().expect("there is one").command = evil.into();
    assert!(!page(&report).contains("<script"));
}

#[test]
fn thousands_are_apart() {
    assert_eq!(grouped(0.5), "0.500");
    assert_eq!(grouped(999.0), "999.0");
    assert_eq!(grouped(1234.0), "1,234");
    assert_eq!(grouped(-1_234_567.0), "-1,234,567");
}

proptest! {
    #[test]
    fn no_series_breaks_the_page(
        points in prop::collection::vec(
            (0.0f64..10.0, any::<u32>(), any::<u32>(), prop::option::of(0.0f64..1e12)),
            0..30,
        ),
        starts in prop::collection::vec(-10.0f64..500.0, 0..5),
        with_server in any::<bool>(),
    ) {
        let mut report = Report::default();
        let mut at_s = 0.0;
        for (step, a, b, p99) in points {
            at_s += step;
            let (rss_bytes, user_s) = (a.into(), b.into());
            let server = ServerSample { rss_bytes, user_s, ..ServerSample::default() };
            report.series.push(Sample {
                at_s,
                connections: a.into(),
                delivered: b.into(),
                latency_us: p99.map(|p99| [0.0, p99 / 2.0, p99]),
                server: with_server.then_some(server),
                ..Sample::default()
            });
        }
        for start_s in starts {
            report.phases.push(Phase { name: "phase".into(), start_s, ..Phase::default() });
        }
        page(&report);
    }
}
