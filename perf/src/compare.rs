//! Two reports side by side: is the second one worse?
//!
//! Owns: which direction of a figure is better, and the bound. Never: compares what says nothing
//! about the server: a rate or a latency while a load tool was itself the bottleneck, how late that
//! was, what the whole machine used.

use crate::report::{MAX_BUSY, Report, in_phase, number, split_prefix};
use std::collections::BTreeSet;

/// What became of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Better,
    /// Within the bound.
    Same,
    Worse,
    /// Shown, not judged.
    NotJudged(&'static str),
}

/// One figure of both reports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub name: String,
    pub a: Option<f64>,
    pub b: Option<f64>,
    pub change: Change,
}

/// Two reports, figure by figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comparison {
    pub rows: Vec<Row>,
    /// B is not worse: both runs are good, something was judged, and nothing is worse.
    pub ok: bool,
    heads: [String; 2],
    warnings: Vec<String>,
    conclusion: String,
}

/// Compares `b` with `a`; worse is worse by more than `bound_percent`.
///
/// # Errors
/// If their shapes differ and `force` does not say to compare them nevertheless.
pub(crate) fn compare(
    a: &Report,
    b: &Report,
    bound_percent: f64,
    force: bool,
) -> Result<Comparison, String> {
    let mut warnings = Vec::new();
    if a.shape != b.shape {
        let differ = format!("A is {:?} and B is {:?}", a.shape, b.shape);
        if !force {
            return Err(format!("{differ}: not comparable (--force compares them nevertheless)"));
        }
        warnings.push(differ);
    }
    for (of, report) in [("A", a), ("B", b)] {
        warnings.extend(busy_phases(report).map(|(phase, share)| {
            format!(
                "the load tool of {of} was {share:.0} % busy{phase}: rates and latencies say \
                 little about the server; compare CPU per message"
            )
        }));
    }
    warnings.extend(machines_differ(a, b));
    let factor = 1.0 + bound_percent / 100.0;
    let names: BTreeSet<_> = a.figures.keys().chain(b.figures.keys()).collect();
    let row = |name: &String| {
        let busy = is_busy(name, a) || is_busy(name, b);
        let (a, b) = (a.figures.get(name).copied(), b.figures.get(name).copied());
        Row { name: name.clone(), a, b, change: change(name, a, b, factor, busy) }
    };
    let rows: Vec<_> = names.into_iter().map(row).collect();
    let (ok, conclusion) = conclude(a, b, &rows, bound_percent);
    let head = |name, of: &Report| format!("{name}: {} ({})", of.label, of.verdict());
    Ok(Comparison { rows, ok, heads: [head("A", a), head("B", b)], warnings, conclusion })
}

/// Where or on what the two runs were made, if that was not the same.
fn machines_differ(a: &Report, b: &Report) -> Option<String> {
    let facts = |report: &Report| {
        let of = &report.manifest;
        let server = of.server.as_ref().map(|server| server.affinity.clone());
        [
            ("processor", of.cpu_model.clone()),
            ("number of processors", of.cores.to_string()),
            ("kernel", of.kernel.clone()),
            ("processors of the load", of.load_affinity.clone()),
            ("processors of the server", server.unwrap_or_default()),
        ]
    };
    let pairs = facts(a).into_iter().zip(facts(b));
    let differ: Vec<_> = pairs
        .filter(|((_, a), (_, b))| a != b)
        .map(|((what, a), (_, b))| format!("{what} ({a:?} and {b:?})"))
        .collect();
    (!differ.is_empty())
        .then(|| format!("the runs differ in {}: compare ratios, not figures", differ.join(", ")))
}

/// In which phases the load tool was the bottleneck (" in PREFIX", or "" of the only one), and how
/// busy it was.
fn busy_phases(report: &Report) -> impl Iterator<Item = (String, f64)> {
    report.figures.iter().filter_map(|(name, &share)| {
        let prefix = name.strip_suffix("load_busy_percent")?;
        (share >= MAX_BUSY).then(|| (in_phase(prefix), share))
    })
}

/// The load tool was the bottleneck in the phase of this figure.
fn is_busy(figure: &str, report: &Report) -> bool {
    let busy = format!("{}load_busy_percent", split_prefix(figure).0);
    report.figures.get(&busy).is_some_and(|share| *share >= MAX_BUSY)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    UpIsBetter,
    DownIsBetter,
}

/// The unit says it; `None` describes the run rather than the server.
fn direction(name: &str) -> Option<Direction> {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if ends(&["_per_s"]) {
        Some(Direction::UpIsBetter)
    } else if name == "window_s" {
        None
    } else if ends(&["_us", "_ms", "_s", "_bytes", "_kib"]) {
        Some(Direction::DownIsBetter)
    } else {
        None
    }
}

fn change(name: &str, a: Option<f64>, b: Option<f64>, factor: f64, busy: bool) -> Change {
    let Some(direction) = direction(name) else {
        return Change::NotJudged("");
    };
    let (Some(a), Some(b)) = (a, b) else {
        return Change::NotJudged("in one report only");
    };
    if name.ends_with("_max_us") {
        return Change::NotJudged("one message decides it");
    }
    if split_prefix(name).1.starts_with("late_") {
        return Change::NotJudged("the load tool's own");
    }
    if WHOLE_MACHINE.iter().any(|what| name.contains(what)) {
        return Change::NotJudged("of the whole machine");
    }
    // A difference of two readings may be; ratios say nothing there.
    if a != b && (a <= 0.0 || b <= 0.0) {
        return Change::NotJudged("not above zero");
    }
    let is_time_or_rate = name.ends_with("_per_s") || name.ends_with("_us");
    if busy && is_time_or_rate && !split_prefix(name).1.starts_with("server_cpu") {
        return Change::NotJudged("the load tool was busy");
    }
    let (before, after) = match direction {
        Direction::DownIsBetter => (a, b),
        Direction::UpIsBetter => (b, a),
    };
    // The same test both ways: what is worse in one order is better in the other.
    if after > before * factor {
        Change::Worse
    } else if before > after * factor {
        Change::Better
    } else {
        Change::Same
    }
}

/// The kernel's memory, which all processes share.
const WHOLE_MACHINE: [&str; 4] =
    ["slab_kib", "socket_kib", "slab_per_connection", "socket_per_connection"];

fn conclude(a: &Report, b: &Report, rows: &[Row], bound: f64) -> (bool, String) {
    let judged = rows.iter().filter(|row| !matches!(row.change, Change::NotJudged(_))).count();
    let worse: Vec<_> = rows
        .iter()
        .filter(|row| row.change == Change::Worse)
        .map(|row| format!("{} ({})", row.name, row.ratio()))
        .collect();
    let bad: Vec<_> = [("A", a), ("B", b)]
        .into_iter()
        .filter(|(_, report)| !report.ok)
        .map(|(name, report)| format!("{name} is {}", report.verdict()))
        .collect();
    match (bad.is_empty(), worse.is_empty(), judged) {
        (false, _, _) => (false, format!("FAILED: {}", bad.join(", "))),
        (true, false, _) => {
            (false, format!("WORSE: B by more than {bound} % in {}", worse.join(", ")))
        }
        (true, true, 0) => (false, "NOTHING JUDGED: the reports share no such figure".to_owned()),
        (true, true, _) => {
            (true, format!("OK: B is not worse by more than {bound} % in any of {judged} figures"))
        }
    }
}

impl Row {
    /// B / A, for people.
    fn ratio(&self) -> String {
        match (self.a, self.b) {
            (Some(a), Some(b)) if a == b => "1.00 x".to_owned(),
            (Some(a), Some(b)) if a > 0.0 && b >= 0.0 => format!("{:.2} x", b / a),
            _ => "-".to_owned(),
        }
    }
}

impl Comparison {
    pub(crate) fn render(&self) -> String {
        let mut text = format!("{}\n{}\n\n", self.heads[0], self.heads[1]);
        text += &format!("  {:<30} {:>14} {:>14} {:>10}\n", "", "A", "B", "B / A");
        for row in &self.rows {
            let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
            let word = match row.change {
                Change::Better => "better".to_owned(),
                Change::Same => "same".to_owned(),
                Change::Worse => "WORSE".to_owned(),
                Change::NotJudged("") => String::new(),
                Change::NotJudged(why) => format!("({why})"),
            };
            let (a, b, ratio) = (cell(row.a), cell(row.b), row.ratio());
            let line = format!("  {:<30} {a:>14} {b:>14} {ratio:>10}  {word}", row.name);
            text += line.trim_end();
            text.push('\n');
        }
        for warning in &self.warnings {
            text += &format!("  note: {warning}\n");
        }
        text + &self.conclusion + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(figures: &[(&str, f64)]) -> Report {
        let mut report = Report { ok: true, shape: "pairs".into(), ..Report::default() };
        for (name, value) in figures {
            report.figure(name, *value);
        }
        report
    }

    fn change_of(comparison: &Comparison, name: &str) -> Change {
        let row = comparison.rows.iter().find(|row| row.name == name);
        row.expect("the figure is there").change
    }

    fn any_figures() -> impl Strategy<Value = Vec<(&'static str, f64)>> {
        let name = prop::sample::select(vec![
            "rate_per_s",
            "latency_p99_us",
            "latency_max_us",
            "server_cpu_us",
            "full_rss_kib",
            "full_slab_kib",
            "late_p99_us",
            "rss_per_connection_bytes",
            "load_busy_percent",
            "window_s",
            "pings_answered",
        ]);
        prop::collection::vec((name, prop_oneof![Just(0.0), 1e-3f64..1e9, -1e9f64..-1e-3]), 0..12)
    }

    proptest! {
        #[test]
        fn a_report_compared_with_itself_has_ratio_1_everywhere(figures in any_figures()) {
            let a = report(&figures);
            let comparison = compare(&a, &a, 0.0, false).expect("one shape");
            for row in &comparison.rows {
                prop_assert_eq!(row.ratio(), "1.00 x");
                prop_assert!(matches!(row.change, Change::Same | Change::NotJudged(_)));
            }
        }

        #[test]
        fn what_is_worse_in_one_order_is_better_in_the_other(
            a in any_figures(),
            b in any_figures(),
            bound in 0.0f64..100.0,
        ) {
            let (a, b) = (report(&a), report(&b));
            let there = compare(&a, &b, bound, false).expect("one shape");
            let back = compare(&b, &a, bound, false).expect("one shape");
            for (there, back) in there.rows.iter().zip(&back.rows) {
                let swapped = match there.change {
                    Change::Better => Change::Worse,
                    Change::Worse => Change::Better,
                    other => other,
                };
                prop_assert_eq!(swapped, back.change, "{}", &there.name);
            }
        }
    }

    #[test]
    fn the_unit_says_which_direction_is_better() {
        let a = report(&[("rate_per_s", 100.0), ("latency_p99_us", 100.0), ("x_bytes", 100.0)]);
        let b = report(&[("rate_per_s", 80.0), ("latency_p99_us", 80.0), ("x_bytes", 120.0)]);
        let comparison = compare(&a, &b, 10.0, false).expect("one shape");
        assert_eq!(change_of(&comparison, "rate_per_s"), Change::Worse);
        assert_eq!(change_of(&comparison, "latency_p99_us"), Change::Better);
        assert_eq!(change_of(&comparison, "x_bytes"), Change::Worse);
        assert!(!comparison.ok);
        let text = comparison.render();
        assert!(text.contains("WORSE: B by more than 10 % in rate_per_s (0.80 x)"), "{text}");
        assert!(compare(&a, &b, 30.0, false).expect("one shape").ok, "within the bound");
    }

    #[test]
    fn a_busy_load_tool_leaves_only_cpu_and_memory_to_judge() {
        let figures = [("rate_per_s", 100.0), ("latency_p50_us", 1.0), ("server_cpu_us", 5.0)];
        let a = report(&figures);
        let mut b = report(&[("rate_per_s", 10.0), ("latency_p50_us", 9.0)]);
        b.figure("server_cpu_us", 5.1);
        b.figure("load_busy_percent", 85.0);
        let comparison = compare(&a, &b, 10.0, false).expect("one shape");
        for name in ["rate_per_s", "latency_p50_us"] {
            assert_eq!(change_of(&comparison, name), Change::NotJudged("the load tool was busy"));
        }
        assert_eq!(change_of(&comparison, "server_cpu_us"), Change::Same);
        assert!(comparison.ok);
        assert!(comparison.render().contains("the load tool of B was 85 % busy"));
    }

    #[test]
    fn what_says_nothing_about_the_server_is_not_judged() {
        let a = report(&[
            ("full_slab_kib", 100.0),
            ("loaded_socket_kib", 100.0),
            ("slab_per_connection_bytes", 100.0),
            ("step1_late_p99_us", 100.0),
            ("rss_per_connection_bytes", -5.0),
            ("server_cpu_us", 1.0),
        ]);
        let mut b = a.clone();
        b.figures.values_mut().for_each(|value| *value = value.abs() * 3.0);
        b.figure("server_cpu_us", 1.0);
        let comparison = compare(&a, &b, 10.0, false).expect("one shape");
        assert!(comparison.ok, "{}", comparison.render());
        let judged = |row: &&Row| !matches!(row.change, Change::NotJudged(_));
        assert_eq!(comparison.rows.iter().filter(judged).count(), 1);
        assert!(!comparison.render().contains("-3.00 x"), "a ratio of a negative number");
    }

    #[test]
    fn runs_on_different_machines_are_compared_with_a_warning() {
        let a = report(&[("server_cpu_us", 1.0)]);
        let same = compare(&a, &a, 10.0, false).expect("one shape").render();
        assert!(!same.contains("differ"), "{same}");
        let mut b = a.clone();
        (b.manifest.kernel, b.manifest.load_affinity) = ("6.1".into(), "1".into());
        let text = compare(&a, &b, 10.0, false).expect("one shape").render();
        for what in ["kernel", "processors of the load", "\"6.1\""] {
            assert!(text.contains(what), "{what} in {text}");
        }
    }

    #[test]
    fn a_failed_run_and_an_empty_comparison_are_not_ok() {
        let good = report(&[("rate_per_s", 1.0)]);
        let mut bad = good.clone();
        bad.abort("the server is gone".into());
        bad.conclude();
        let comparison = compare(&good, &bad, 10.0, false).expect("one shape");
        assert!(!comparison.ok && comparison.render().contains("FAILED: B is PARTIAL"));
        let comparison = compare(&report(&[]), &good, 10.0, false).expect("one shape");
        assert!(!comparison.ok && comparison.render().contains("NOTHING JUDGED"));
    }

    #[test]
    fn different_shapes_are_compared_only_by_force() {
        let a = report(&[("rate_per_s", 1.0)]);
        let b = Report { shape: "pairs 2".into(), ..a.clone() };
        assert!(compare(&a, &b, 10.0, false).expect_err("shapes").contains("--force"));
        let forced = compare(&a, &b, 10.0, true).expect("forced");
        assert!(forced.ok && forced.render().contains("note: A is \"pairs\""));
    }
}
