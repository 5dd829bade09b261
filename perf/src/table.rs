//! One table from many runs: the median of each figure, and its ratio to the first label's.
//!
//! Owns: grouping and medians. Never: hides a failed run; its column says so.

use crate::report::{Report, number};
use std::collections::{BTreeMap, BTreeSet};

/// Renders `reports`; labels and shapes stand in the order of their first appearance.
pub(crate) fn render(reports: &[Report]) -> String {
    let mut text = String::new();
    let labels = in_order(reports.iter().map(|report| report.label.as_str()));
    for shape in in_order(reports.iter().map(|report| report.shape.as_str())) {
        let columns: Vec<_> = labels
            .iter()
            .map(|label| Column::of(reports, shape, label))
            .filter(|column| column.runs > 0)
            .collect();
        text.push_str(&render_shape(shape, &columns));
    }
    text
}

fn render_shape(shape: &str, columns: &[Column<'_>]) -> String {
    let mut text = format!("\n{shape}\n  {:<30}", "");
    for column in columns {
        let failed =
            if column.failed > 0 { format!(", {} FAILED", column.failed) } else { String::new() };
        text += &format!(" {:>26}", format!("{} ({} runs{failed})", column.label, column.runs));
    }
    text.push('\n');
    let names: BTreeSet<_> = columns.iter().flat_map(|column| column.medians.keys()).collect();
    for name in names {
        text += &format!("  {name:<30}");
        let base = columns.first().and_then(|column| column.medians.get(*name)).copied();
        for (at, column) in columns.iter().enumerate() {
            let cell = match (column.medians.get(*name), base) {
                (None, _) => "-".to_owned(),
                (Some(&value), Some(base)) if at > 0 && base != 0.0 => {
                    format!("{} ({:.2} x)", number(value), value / base)
                }
                (Some(&value), _) => number(value),
            };
            text += &format!(" {cell:>26}");
        }
        text.push('\n');
    }
    text
}

/// The runs of one label in one shape.
struct Column<'a> {
    label: &'a str,
    runs: usize,
    failed: usize,
    medians: BTreeMap<&'a str, f64>,
}

impl<'a> Column<'a> {
    fn of(reports: &'a [Report], shape: &str, label: &'a str) -> Self {
        let mine =
            || reports.iter().filter(|report| report.shape == shape && report.label == label);
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, value) in mine().flat_map(|report| &report.figures) {
            values.entry(name).or_default().push(*value);
        }
        let medians = values.into_iter().map(|(name, values)| (name, median(values))).collect();
        Self { label, runs: mine().count(), failed: mine().filter(|r| !r.ok).count(), medians }
    }
}

/// The middle value, or the mean of the two in the middle; `values` is not empty.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn in_order<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(label: &str, ok: bool, rate: f64) -> Report {
        let mut report =
            Report { label: label.into(), shape: "pairs".into(), ok, ..Report::default() };
        report.figure("rate_per_s", rate);
        report
    }

    #[test]
    fn medians_and_ratios_stand_beside_each_other_and_failures_show() {
        let reports = [
            report("a", true, 100.0),
            report("b", true, 300.0),
            report("a", true, 900.0),
            report("b", false, 100.0),
            report("a", true, 200.0),
        ];
        let text = render(&reports);
        assert!(text.contains("a (3 runs)"), "{text}");
        assert!(text.contains("b (2 runs, 1 FAILED)"), "{text}");
        assert!(text.contains("200.0") && text.contains("200.0 (1.00 x)"), "{text}");
    }
}
