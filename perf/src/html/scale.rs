//! Axes: where the ticks stand, what they say, which unit keeps numbers short.
//!
//! Owns: values to positions and back to words. Never: draws.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// One axis of a chart, in positions that are linear on paper.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub title: String,
    pub range: Range<f64>,
    /// Position and word of each tick.
    pub ticks: Vec<(f64, String)>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear,
    Log10,
}

impl Axis {
    /// From 0 (or the smallest value, if that is negative) to above `max`.
    pub(super) fn linear(title: &str, max: f64) -> Self {
        let max = if max.is_finite() && max > 0.0 { max } else { 1.0 };
        let step = nice_step(max / TICKS);
        let count = (max / step).ceil() as usize;
        let ticks = (0..=count).map(|tick| tick as f64 * step);
        let unit = unit(count as f64 * step);
        let ticks = ticks.map(|value| (value, in_unit(value, unit))).collect();
        Self { title: title.to_owned(), range: 0.0..count as f64 * step, ticks, kind: Kind::Linear }
    }

    /// Time; it ends with the run, not at a round number.
    pub(super) fn time(end_s: f64) -> Self {
        let mut axis = Self::linear("time since the start of the run (s)", end_s);
        axis.range.end = end_s;
        axis.ticks.retain(|(value, _)| *value <= end_s);
        axis
    }

    /// Whole decades around `min` and `max`, both above 0.
    pub(super) fn log10(title: &str, min: f64, max: f64) -> Self {
        let first = min.log10().floor() as i32;
        let last = (max.log10().ceil() as i32).max(first + 1);
        // A few decades have room for ticks at 2 and 5.
        let within: &[f64] = if last - first <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let mut ticks = Vec::new();
        for decade in first..=last {
            for factor in within {
                let value = factor * 10f64.powi(decade);
                let position = value.log10();
                if position <= f64::from(last) + 1e-9 {
                    ticks.push((position, short(value)));
                }
            }
        }
        let range = f64::from(first)..f64::from(last);
        Self { title: title.to_owned(), range, ticks, kind: Kind::Log10 }
    }

    /// Share of all values, the more nines the farther to the right: 1 / (1 - q), in decades.
    pub(super) fn nines(title: &str, count: u64) -> Self {
        let last = (count.max(10) as f64).log10().ceil() as usize;
        let word = |nines: usize| match nines {
            0 => "0 %".to_owned(),
            1 => "90 %".to_owned(),
            2 => "99 %".to_owned(),
            nines => format!("99.{} %", "9".repeat(nines - 2)),
        };
        let ticks = (0..=last).map(|nines| (nines as f64, word(nines))).collect();
        Self { title: title.to_owned(), range: 0.0..last as f64, ticks, kind: Kind::Log10 }
    }

    /// `None` if the value has no place on this axis.
    pub(super) fn position(&self, value: f64) -> Option<f64> {
        let position = match self.kind {
            Kind::Linear => value,
            Kind::Log10 => value.log10(),
        };
        position.is_finite().then(|| position.clamp(self.range.start, self.range.end))
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, position: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (position - self.range.start) / (self.range.end - self.range.start);
        from + (share * f64::from(to - from)).round() as i32
    }

    /// All of them, whatever the hint: there are few.
    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(position: &f64) -> String {
        short(*position)
    }

    /// The word of the tick at `position`.
    fn format_ext(&self, position: &f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| at == position);
        tick.map_or_else(|| Self::format(position), |(_, word)| word.clone())
    }
}

/// The largest binary unit that keeps `max_bytes` at least 1, and its size.
pub(super) fn byte_unit(max_bytes: f64) -> (&'static str, f64) {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let fits = units.into_iter().find(|(_, size)| max_bytes >= *size as f64);
    fits.map_or(("bytes", 1.0), |(name, size)| (name, size as f64))
}

/// 1, 2 or 5 times a power of ten, at least `raw`.
fn nice_step(raw: f64) -> f64 {
    let decade = 10f64.powf(raw.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
    nice.into_iter().find(|step| *step >= raw * 0.999_999).unwrap_or(10.0 * decade)
}

/// A value with as few characters as it needs.
fn short(value: f64) -> String {
    in_unit(value, unit(value))
}

/// The size and letter that keep `value` short.
fn unit(value: f64) -> (f64, &'static str) {
    match value.abs() {
        size if size >= 1e9 => (1e9, "G"),
        size if size >= 1e6 => (1e6, "M"),
        size if size >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    }
}

fn in_unit(value: f64, (size, letter): (f64, &str)) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = format!("{:.6}", value / size);
    format!("{}{letter}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// About as many ticks as are easy to read on a chart of this size.
const TICKS: f64 = 6.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, word)| word.as_str()).collect()
    }

    #[test]
    fn ticks_stand_at_round_values() {
        assert_eq!(words(&Axis::linear("y", 11.0)), ["0", "2", "4", "6", "8", "10", "12"]);
        assert_eq!(words(&Axis::linear("y", 14_000.0))[..3], ["0", "5k", "10k"]);
        assert_eq!(words(&Axis::linear("y", 0.03))[1], "0.005");
        assert_eq!(words(&Axis::log10("y", 0.02, 3000.0))[..3], ["0.01", "0.1", "1"]);
        assert_eq!(words(&Axis::log10("y", 1.5, 80.0))[..4], ["1", "2", "5", "10"]);
        let nines = Axis::nines("x", 20_000);
        assert_eq!(words(&nines), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]);
    }

    #[test]
    fn byte_units_keep_numbers_short() {
        assert_eq!(byte_unit(900.0), ("bytes", 1.0));
        assert_eq!(byte_unit(5e6), ("MiB", 1_048_576.0));
    }

    proptest! {
        #[test]
        fn every_value_has_a_place_within_its_axis(max in 1e-9f64..1e15, share in 0.0f64..=1.0) {
            for axis in [
                Axis::linear("y", max),
                Axis::time(max),
                Axis::log10("y", max * 1e-4, max),
            ] {
                let position = axis.position(max * share.max(1e-4)).expect("it is finite");
                prop_assert!(axis.range.start <= position && position <= axis.range.end);
                prop_assert!(axis.range.start < axis.range.end);
                prop_assert!((1..=40).contains(&axis.ticks.len()), "{}", axis.ticks.len());
            }
        }
    }
}
