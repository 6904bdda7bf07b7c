//! A benchmark as a self-contained HTML page.

use super::bench::{first_step, percent, rate, seconds};
use super::picture;
use crate::bench::{Bound, Kind, Report, Row};
use crate::error::Result;
use crate::gpu::AdapterClass;
use std::fmt::Write;

pub(super) const STYLE: &str = "
:root { color-scheme: light; }
body { margin: 0; background: #f3f4f6; color: #262b33; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 0 0 4px; }
p { margin: 4px 0 12px; color: #4b5563; }
section { background: #fff; border: 1px solid #e5e7eb; border-radius: 10px; padding: 20px 24px; margin-top: 20px; }
svg { width: 100%; height: auto; display: block; }
.figures { display: flex; flex-wrap: wrap; gap: 16px; margin-top: 20px; }
.figures div { flex: 1 1 200px; background: #fff; border: 1px solid #e5e7eb; border-radius: 10px; padding: 14px 20px; }
.figures b { display: block; font-size: 24px; }
.figures span { color: #6b7280; font-size: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 5px 8px; text-align: right; border-bottom: 1px solid #eceef1; white-space: nowrap; }
th { color: #6b7280; font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
.key { white-space: nowrap; margin-left: 8px; }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 5px; }
.arithmetic { background: #1f5fa8; } .memory { background: #d95f02; }
";

/// The page of a report.
pub(super) fn page(report: &Report) -> Result<String> {
    let adapter = &report.adapter;
    let class = if adapter.class == AdapterClass::Cpu { ", CPU driver" } else { "" };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>wgformer on {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>wgformer on {name}</h1>\n\
         <p>{backend}, {driver}{class} · wgformer {version} · {date}{debug}</p>\n",
        name = escape(&adapter.name),
        backend = escape(&adapter.backend),
        driver = escape(&adapter.driver),
        version = escape(&report.version),
        date = date(report.time),
        debug = if report.debug_build { " · debug build" } else { "" },
    );
    page += &figures(report);
    if let Some(picture) = picture::roofline(report)? {
        let text = "The grey line is the adapter's ceiling by operations per byte. A point is drawn at its share of the ceiling, measured at \
                    the same time, so that a busy machine does not move it.";
        section(&mut page, "Roofline", text, &picture);
    }
    let key = "Time at the ceilings, measured next to each run, divided by the time taken; the median of the runs. \
                <span class=\"key\"><i class=\"arithmetic\"></i>bound by arithmetic</span> <span class=\"key\"><i class=\"memory\"></i>bound by memory</span>";
    for (kind, title) in
        [(Kind::Kernel, "Kernels: share of the ceiling"), (Kind::Step, "Whole steps: share of the ceiling")]
    {
        let rows: Vec<Row> = report.rows.iter().filter(|row| row.kind == kind).cloned().collect();
        if !rows.is_empty() {
            section(&mut page, title, key, &picture::shares(&rows)?);
        }
    }
    if !report.kernels.is_empty() {
        let text = "Launches × kernel, the longest first; shares of the time on the GPU.";
        section(&mut page, "Time of a training step by kernel", text, &picture::kernels(&report.kernels)?);
    }
    if let Some(scaling) = &report.scaling {
        let text = "Training step of 2 layers, d_model 256, one sequence. Attention grows with the length, the rest does not. \
                    Times are scaled to the ceilings at the top of the page, so that a busy machine does not bend the lines.";
        section(&mut page, "Time per token by length", text, &picture::lengths(scaling)?);
        let text = "Training step of 2 layers over 128 tokens, divided by the number of parameters; scaled likewise.";
        section(&mut page, "Time per parameter by d_model", text, &picture::widths(scaling)?);
    }
    if let Some(first) = &report.first_step {
        section(&mut page, "The first step", &first_step(first), "");
    }
    section(&mut page, "All figures", &method(report), &table(&report.rows));
    page += "</main>\n</body>\n</html>\n";
    Ok(page)
}

pub(super) fn section(page: &mut String, title: &str, text: &str, content: &str) {
    // Writing to a string can't fail.
    let _ = write!(page, "<section>\n<h2>{title}</h2>\n<p>{text}</p>\n{content}\n</section>\n");
}

/// The ceilings, and the tokens per second of the steps.
fn figures(report: &Report) -> String {
    let mut text = String::from("<div class=\"figures\">\n");
    let mut figure = |value: String, what: &str| {
        let _ = writeln!(text, "<div><b>{}</b><span>{}</span></div>", escape(&value), escape(what));
    };
    figure(rate(report.ceilings.arithmetic.per_second, "flop/s"), "arithmetic ceiling, in registers");
    figure(rate(report.ceilings.memory.per_second, "B/s"), "memory ceiling, read and write");
    for row in report.rows.iter().filter(|row| row.kind == Kind::Step) {
        figure(rate(row.rate, &row.unit), &row.name);
    }
    text + "</div>\n"
}

fn method(report: &Report) -> String {
    let clock =
        if report.kernel_clock == "gpu" { "the GPU’s timestamps" } else { "the clock around submitting and waiting" };
    format!(
        "Kernels are timed by {clock}, steps by the caller’s clock. Spread is the range of the middle half of the runs, divided by \
         their median. Ceilings: {} and {}.",
        escape(&report.ceilings.arithmetic.variant),
        escape(&report.ceilings.memory.variant)
    )
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("<div class=\"scroll\"><table>\n<tr>");
    for head in ["", "median", "fastest", "spread", "rate", "bound", "share", "spread", "runs"] {
        let _ = write!(text, "<th>{head}</th>");
    }
    text += "</tr>\n";
    for row in rows {
        let bound = if row.bound == Bound::Arithmetic { "arithmetic" } else { "memory" };
        let cells = [
            escape(&row.name),
            seconds(row.seconds),
            seconds(row.fastest),
            percent(row.spread),
            rate(row.rate, &row.unit),
            bound.into(),
            percent(row.share),
            percent(row.share_spread),
            row.runs.to_string(),
        ];
        let _ = writeln!(text, "<tr>{}</tr>", cells.map(|cell| format!("<td>{cell}</td>")).concat());
    }
    text + "</table></div>"
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The UTC date of seconds since 1970.
fn date(seconds: u64) -> String {
    // Years begin in March here, so that a leap day is the last day of a year.
    let days = seconds / 86400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (number, year) = (if month < 10 { month + 3 } else { month - 9 }, era * 400 + year + u64::from(month >= 10));
    format!("{year}-{number:02}-{:02}", day - (153 * month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, wanted) in [(0, "1970-01-01"), (951_782_399, "2000-02-28"), (951_782_400, "2000-02-29")] {
            assert_eq!(date(seconds), wanted);
        }
        assert_eq!(date(1_709_251_200), "2024-03-01");
        assert_eq!(date(4_107_542_399), "2100-02-28");
        assert_eq!(date(4_107_542_400), "2100-03-01");
    }

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escape("<b> & \"x\""), "&lt;b&gt; &amp; &quot;x&quot;");
    }
}
