//! The charts of a report, from its series and histograms.
//!
//! Owns: which charts there are and what their lines mean. Never: draws.

use super::chart::{Chart, Line, thinned};
use super::scale::{Axis, byte_unit};
use crate::report::{Report, SavedHistogram};
use crate::sample::{Sample, ServerSample};
use plotters::style::RGBColor;

/// All charts that have something to show, as HTML.
pub(super) fn render(report: &Report) -> Result<String, String> {
    let plots = Plots { report, end_s: report.series.last().map_or(1.0, |last| last.at_s) };
    let over_time = [
        plots.ramp(),
        plots.logins(),
        plots.throughput(),
        plots.latency("Latency over time", LATENCY, |sample| sample.latency_us),
        plots.latency("Acknowledgement over time", ACK, |sample| sample.ack_us),
    ];
    let percentiles = plots.percentiles();
    let of_the_server = [plots.memory(), plots.memory_per_connection(), plots.cpu()];
    let charts = over_time.iter().chain(&percentiles).chain(&of_the_server);
    charts.map(Chart::render).collect()
}

struct Plots<'a> {
    report: &'a Report,
    end_s: f64,
}

impl<'a> Plots<'a> {
    fn ramp(&self) -> Chart<'a> {
        let line = self.line("logged in", BLUE, |sample| Some(sample.connections as f64)).filled();
        self.over_time(
            "Connections",
            "Logged-in connections of the load tool.",
            "connections",
            vec![line],
        )
    }

    fn logins(&self) -> Chart<'a> {
        let line = self.rate("logins", VIOLET, |sample| sample.logins).filled();
        self.over_time(
            "Logins",
            "Per second, between one sample and the next.",
            "logins per second",
            moving([line]),
        )
    }

    fn throughput(&self) -> Chart<'a> {
        let lines = [
            self.rate("sent", ORANGE, |sample| sample.sent),
            self.rate("acknowledged", GREEN, |sample| sample.acked),
            self.rate("delivered", BLUE, |sample| sample.delivered).filled(),
        ];
        self.over_time(
            "Throughput",
            "Per second, between one sample and the next; equal lines hide one another.",
            "messages per second",
            moving(lines),
        )
    }

    fn latency(
        &self,
        title: &'static str,
        caption: &'static str,
        of: impl Fn(&Sample) -> Option<[f64; 3]>,
    ) -> Chart<'a> {
        let percentile = |name, color, at: usize| {
            self.line(name, color, |sample| of(sample).map(|us| us[at] / US_PER_MS))
        };
        let lines = vec![
            percentile("p50", GREEN, 0),
            percentile("p90", BLUE, 1),
            percentile("p99", RED, 2),
        ];
        Chart { y: log_axis("milliseconds", &lines), ..self.over_time(title, caption, "", lines) }
    }

    /// One chart for every measured phase, in their order.
    fn percentiles(&self) -> Vec<Chart<'a>> {
        let mut prefixes: Vec<_> =
            self.report.phases.iter().filter_map(|phase| phase.measured.as_deref()).collect();
        // Of a report that does not say which phases were measured.
        let known = self.report.histograms.keys().map(|key| split_curve(key).0);
        for prefix in known {
            if !prefixes.contains(&prefix) {
                prefixes.push(prefix);
            }
        }
        prefixes.into_iter().map(|prefix| self.percentiles_of(prefix)).collect()
    }

    fn percentiles_of(&self, prefix: &str) -> Chart<'a> {
        let mut lines = Vec::new();
        let mut most = 0;
        for (key, name, color) in CURVES {
            if let Some(histogram) = self.report.histograms.get(&format!("{prefix}{key}")) {
                most = most.max(histogram.0.len());
                lines.push(Line::new(name, color, curve(histogram)));
            }
        }
        let title = match prefix.trim_end_matches('_') {
            "" => "Latency by percentile".into(),
            phase => format!("Latency by percentile: {phase}").into(),
        };
        Chart {
            title,
            caption: "Values of the measured window; each step to the right is ten times rarer.",
            x: Axis::nines("share of all values at or below", most),
            y: log_axis("milliseconds", &lines),
            lines,
            phases: &[],
        }
    }

    fn memory(&self) -> Chart<'a> {
        let max = self.report.series.iter().flat_map(|sample| {
            let server = sample.server.map_or(0, |server| server.rss_bytes);
            [server, sample.host.slab_bytes, sample.host.socket_bytes]
        });
        let (unit, size) = byte_unit(max.max().unwrap_or_default() as f64);
        let server = |bytes: fn(&ServerSample) -> u64| {
            move |sample: &Sample| Some(bytes(sample.server.as_ref()?) as f64 / size)
        };
        let lines = vec![
            self.line("server, resident", BLUE, server(|server| server.rss_bytes)),
            self.line("server, anonymous", GREEN, server(|server| server.anon_bytes)),
            self.line("kernel slab, whole machine", ORANGE, |sample| {
                Some(sample.host.slab_bytes as f64 / size)
            }),
            self.line("TCP buffers, whole machine", RED, |sample| {
                Some(sample.host.socket_bytes as f64 / size)
            }),
        ];
        self.over_time(
            "Memory",
            "The server's own, and the kernel's for all sockets of the machine.",
            unit,
            lines,
        )
    }

    fn memory_per_connection(&self) -> Chart<'a> {
        let most = self.report.series.iter().map(|sample| sample.connections).max().unwrap_or(0);
        let server = |sample: &Sample| Some(sample.server?.rss_bytes as f64);
        let slab = |sample: &Sample| Some(sample.host.slab_bytes as f64);
        // A handful of connections would show what is allocated once as if it were theirs.
        let enough = (most / 10).max(ENOUGH_CONNECTIONS);
        let lines = vec![
            self.growth("server, resident", BLUE, enough, server),
            self.growth(
                "kernel slab, both ends if the load is on this machine",
                ORANGE,
                enough,
                slab,
            ),
        ];
        self.over_time(
            "Memory per connection",
            "Growth since the first sample, divided by the connections; fixed memory is in it.",
            "bytes per connection",
            lines,
        )
    }

    fn cpu(&self) -> Chart<'a> {
        let server = |seconds: fn(&ServerSample) -> f64| {
            move |sample: &Sample| Some(seconds(sample.server.as_ref()?))
        };
        let lines = vec![
            self.share("server, user and system", BLUE, server(|cpu| cpu.user_s + cpu.system_s))
                .filled(),
            self.share("server, user", GREEN, server(|cpu| cpu.user_s)),
            self.share("load tool", GREY, |sample| Some(sample.load_cpu_s)),
        ];
        self.over_time("CPU", "100 % is one core, always busy.", "% of a core", lines)
    }

    fn over_time(
        &self,
        title: &'static str,
        caption: &'static str,
        y_title: &str,
        lines: Vec<Line>,
    ) -> Chart<'a> {
        Chart {
            title: title.into(),
            caption,
            x: Axis::time(self.end_s),
            y: Axis::linear(y_title, values(&lines).fold(0.0, f64::max) * HEADROOM),
            lines,
            phases: &self.report.phases,
        }
    }

    fn line(
        &self,
        name: &'static str,
        color: RGBColor,
        value: impl Fn(&Sample) -> Option<f64>,
    ) -> Line {
        let series = self.report.series.iter();
        let points = series.filter_map(|sample| Some((sample.at_s, value(sample)?))).collect();
        Line::new(name, color, thinned(points))
    }

    /// What a counter gained per second, between each sample and the next.
    fn gain(
        &self,
        name: &'static str,
        color: RGBColor,
        counter: impl Fn(&Sample) -> Option<f64>,
    ) -> Line {
        let pairs = self.report.series.windows(2);
        let points = pairs.filter_map(|pair| {
            let seconds = pair[1].at_s - pair[0].at_s;
            let gained = counter(&pair[1])? - counter(&pair[0])?;
            // A counter that fell is another process's: the server was restarted.
            (seconds > 0.0 && gained >= 0.0).then(|| (pair[1].at_s, gained / seconds))
        });
        Line::new(name, color, thinned(points.collect()))
    }

    fn rate(&self, name: &'static str, color: RGBColor, counter: fn(&Sample) -> u64) -> Line {
        self.gain(name, color, |sample| Some(counter(sample) as f64))
    }

    fn share(
        &self,
        name: &'static str,
        color: RGBColor,
        seconds: impl Fn(&Sample) -> Option<f64>,
    ) -> Line {
        self.gain(name, color, |sample| Some(seconds(sample)? * 100.0))
    }

    fn growth(
        &self,
        name: &'static str,
        color: RGBColor,
        enough: u64,
        bytes: impl Fn(&Sample) -> Option<f64>,
    ) -> Line {
        let first = self.report.series.iter().find_map(&bytes).unwrap_or(0.0);
        self.line(name, color, |sample| {
            let grown = bytes(sample)? - first;
            (sample.connections >= enough).then(|| grown.max(0.0) / sample.connections as f64)
        })
    }
}

/// The prefix and the rest of a histogram's name.
fn split_curve(key: &str) -> (&str, &str) {
    let found = CURVES.iter().find_map(|(curve, ..)| Some((key.strip_suffix(curve)?, *curve)));
    found.unwrap_or(("", key))
}

/// The lines that are not always zero.
fn moving<const N: usize>(lines: [Line; N]) -> Vec<Line> {
    let moves = |line: &Line| line.points.iter().any(|(_, rate)| *rate > 0.0);
    lines.into_iter().filter(moves).collect()
}

/// (1 / (1 - q), milliseconds) of every step of a histogram.
fn curve(histogram: &SavedHistogram) -> Vec<(f64, f64)> {
    let (count, mut seen) = (histogram.0.len() as f64, 0.0);
    let mut points = Vec::new();
    for step in histogram.0.iter_recorded() {
        let ms = step.value_iterated_to() as f64 / NS_PER_MS;
        // From the share below this value to the share that includes it.
        points.push((count / (count - seen), ms));
        seen += step.count_at_value() as f64;
        // The last value stands for one in `count`: beyond, nothing is known.
        points.push(((count / (count - seen)).min(count.max(1.0)), ms));
    }
    points
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value))
}

fn log_axis(title: &str, lines: &[Line]) -> Axis {
    let above_zero = || values(lines).filter(|value| *value > 0.0);
    let min = above_zero().fold(f64::INFINITY, f64::min);
    let max = above_zero().fold(0.0, f64::max);
    if max > 0.0 { Axis::log10(title, min, max) } else { Axis::linear(title, 1.0) }
}

const LATENCY: &str = "From the scheduled or actual sending of a message to its arrival.";
const ACK: &str = "From the same moment to the server's acknowledgement.";
/// Key in the report behind the phase's prefix, name, color.
const CURVES: [(&str, &str, RGBColor); 4] = [
    ("latency", "delivery", BLUE),
    ("ack", "acknowledgement", GREEN),
    ("login", "login", VIOLET),
    ("late", "the load tool's own lateness", GREY),
];
const ENOUGH_CONNECTIONS: u64 = 100;
/// Above the highest line, for the names of the phases.
const HEADROOM: f64 = 1.1;
const US_PER_MS: f64 = 1e3;
const NS_PER_MS: f64 = 1e6;

const BLUE: RGBColor = RGBColor(25, 113, 194);
const GREEN: RGBColor = RGBColor(47, 158, 68);
const ORANGE: RGBColor = RGBColor(232, 137, 12);
const RED: RGBColor = RGBColor(201, 42, 42);
const VIOLET: RGBColor = RGBColor(121, 80, 242);
const GREY: RGBColor = RGBColor(134, 142, 150);
