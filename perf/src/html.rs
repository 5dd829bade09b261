//! A report as one HTML file that needs nothing else: no script, no font, no picture from outside.
//!
//! Owns: the page. Never: computes a figure, never hides a verdict.

mod chart;
mod plots;
mod scale;

use crate::manifest::ServerManifest;
use crate::report::{Report, Verdict, number};
use std::path::Path;

/// Writes the page to `path`.
///
/// # Errors
/// If a chart cannot be drawn or the file cannot be written; the message names the file.
pub(crate) fn save(report: &Report, path: &Path) -> Result<(), String> {
    let page = render(report)?;
    std::fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))
}

fn render(report: &Report) -> Result<String, String> {
    let title = escaped(&format!("{} on {}", report.shape, report.label));
    let charts = match plots::render(report)? {
        charts if charts.is_empty() => "<p>The run took no samples.</p>".to_owned(),
        charts => charts,
    };
    let head = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{} {title}</title>\n<style>\n{STYLE}</style></head>\n<body>\n",
        report.verdict()
    );
    let sections = [
        header(report, &title),
        messages(report),
        tiles(report),
        format!("<h2>Over the run</h2>\n{charts}"),
        format!(
            "<div class=\"columns\"><section><h2>Figures</h2>\n{}</section>\n\
             <section><h2>Messages</h2>\n{}</section></div>\n",
            figures(report),
            tally(report)
        ),
        format!("<h2>Where and how</h2>\n{}", manifest(report)),
    ];
    Ok(head + &sections.concat() + "</body></html>\n")
}

fn header(report: &Report, title: &str) -> String {
    let class = match report.verdict() {
        Verdict::Ok => "ok",
        Verdict::Failed => "failed",
        Verdict::Partial => "partial",
    };
    format!(
        "<header><p class=\"kicker\">ringpost-perf report</p>\n<h1>{title}</h1>\n\
         <p class=\"summary\">{}</p></header>\n<p class=\"verdict {class}\">{}</p>\n",
        escaped(&report.manifest.summary()),
        escaped(&report.verdict_line())
    )
}

/// Failures first, then what to know.
fn messages(report: &Report) -> String {
    let failures = report.failures.iter().map(|text| ("failure", text));
    let all = failures.chain(report.notes.iter().map(|text| ("note", text)));
    let items: String = all
        .map(|(class, text)| format!("<li class=\"{class}\">{}</li>\n", escaped(text)))
        .collect();
    if items.is_empty() { items } else { format!("<ul class=\"messages\">\n{items}</ul>\n") }
}

/// The figures that people ask for first, as far as the run has them.
fn tiles(report: &Report) -> String {
    let found = TILES.iter().filter_map(|(name, words, scale, unit)| {
        let value = grouped(report.figures.get(*name)? / scale);
        Some(format!("<div><b>{value} <small>{unit}</small></b><span>{words}</span></div>\n"))
    });
    format!("<div class=\"tiles\">\n{}</div>\n", found.collect::<String>())
}

fn figures(report: &Report) -> String {
    let row = |(name, value): (&String, &f64)| {
        format!(
            "<tr><th><code>{}</code></th><td class=\"number\">{}</td></tr>\n",
            escaped(name),
            grouped(*value)
        )
    };
    format!("<table>{}</table>\n", report.figures.iter().map(row).collect::<String>())
}

fn tally(report: &Report) -> String {
    let counters = serde_json::to_value(report.tally).unwrap_or_default();
    let mut counters: Vec<_> = counters.as_object().into_iter().flatten().collect();
    let rank = |name: &str| EXPECTED.iter().position(|expected| *expected == name);
    counters.sort_by_key(|(name, _)| rank(name).unwrap_or(EXPECTED.len()));
    let mut rows = String::new();
    for (name, count) in counters {
        let count = count.as_u64().unwrap_or_default();
        let is_fault = count > 0 && !EXPECTED.contains(&name.as_str());
        let class = if is_fault { " class=\"fault\"" } else { "" };
        rows += &format!(
            "<tr{class}><th>{}</th><td class=\"number\">{}</td></tr>\n",
            escaped(&name.replace('_', " ")),
            grouped(count as f64)
        );
    }
    format!("<table>{rows}</table>\n")
}

fn manifest(report: &Report) -> String {
    let of = &report.manifest;
    let limit = |files: u64| match files {
        u64::MAX => "unlimited".to_owned(),
        files => grouped(files as f64),
    };
    let mut rows = vec![
        ("date", of.date.clone()),
        ("kernel", of.kernel.clone()),
        ("processor", format!("{} x {}", of.cores, of.cpu_model)),
        ("memory", format!("{:.1} GiB", of.memory_bytes as f64 / GIB)),
        (
            "open files",
            format!(
                "{} (at most {}), machine: {}",
                limit(of.open_files_soft),
                limit(of.open_files_hard),
                limit(of.file_max)
            ),
        ),
        ("local ports", of.port_range.clone()),
        ("tcp_mem (pages)", of.tcp_mem.clone()),
        ("ringpost-perf", format!("{} {}", of.version, of.revision)),
        ("cores of the load", of.load_affinity.clone()),
        ("load command", of.command.clone()),
    ];
    if !of.server_version.is_empty() {
        rows.push(("server's version", of.server_version.clone()));
    }
    if let Some(server) = &of.server {
        let ServerManifest { pid, executable, executable_bytes, executable_date, .. } = server;
        let file = format!("{} bytes, {executable_date}", grouped(*executable_bytes as f64));
        rows.push(("server", format!("{executable} ({file}; process {pid})")));
        rows.push(("cores of the server", server.affinity.clone()));
        rows.push(("server command", server.command.clone()));
    }
    let rows = rows.iter().map(|(name, value)| {
        format!("<tr><th>{name}</th><td><code>{}</code></td></tr>\n", escaped(value))
    });
    format!("<table>{}</table>\n", rows.collect::<String>())
}

/// Text that cannot become markup.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// [`number`] with its thousands apart.
fn grouped(value: f64) -> String {
    let text = number(value);
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut spaced = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            spaced.push(',');
        }
        spaced.push(digit);
    }
    format!("{sign}{spaced}{rest}")
}

/// Figure, words, divisor, unit.
const TILES: [(&str, &str, f64, &str); 8] = [
    ("rate_per_s", "throughput", 1.0, "/s"),
    ("server_cpu_us", "server CPU per message or login", 1.0, "µs"),
    ("latency_p50_us", "latency, median", 1e3, "ms"),
    ("latency_p99_us", "latency, p99", 1e3, "ms"),
    ("login_p99_us", "login, p99", 1e3, "ms"),
    ("rss_per_connection_bytes", "server memory per connection", 1.0, "bytes"),
    ("full_connections", "connections held", 1.0, ""),
    ("load_busy_percent", "load tool busy", 1.0, "%"),
];
/// The counters that do not fail a run.
const EXPECTED: [&str; 5] = ["sent", "acked", "delivered", "stale", "unsent"];
const STYLE: &str = include_str!("html/style.css");
const GIB: f64 = (1u64 << 30) as f64;

#[cfg(test)]
mod tests;
