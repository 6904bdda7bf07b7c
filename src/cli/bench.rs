//! `wgformer bench`: the adapter's ceilings, and kernels and steps as a share of them.

use super::args::BenchArgs;
use super::device::Device;
use super::progress::{Progress as Shown, SOON};
use super::{outln, page, print_json, table};
use crate::bench::{self, Bound, Comparison, FirstStep, Options, Progress, Report, Row, Scaling};
use crate::error::Result;
use serde_json::json;
use std::process::ExitCode;

pub(super) fn run(options: &BenchArgs) -> Result<ExitCode> {
    // Read the old report first, so that an error does not come after minutes.
    let old = options.compare.as_ref().map(Report::read).transpose()?;
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let wanted = Options { quick: options.quick, only: options.only.clone(), scaling: options.scaling };
    let bar = Shown::new(0, "measurements", SOON);
    let report = bench::run(&gpu, &wanted, |progress| show(&bar, progress))?;
    bar.finish();
    let comparison = old.map(|old| (Comparison::new(&old, &report, options.threshold), old));
    if options.common.json {
        let mut value = json!(report);
        if let Some((comparison, _)) = &comparison {
            value["comparison"] = json!(comparison);
        }
        print_json(&value)?;
    } else {
        print(&report)?;
        if let Some((comparison, old)) = &comparison {
            print_comparison(comparison, old, &report, options.threshold)?;
        }
    }
    // Last, so that the results are printed even if the page can't be written.
    if let Some(path) = &options.html {
        crate::io::write_atomic(path, page::page(&report)?.as_bytes())?;
        if !options.common.json {
            outln!("page written to {}", path.display())?;
        }
    }
    let slower = comparison.is_some_and(|(comparison, _)| comparison.slower());
    Ok(if slower { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn show(bar: &Shown, progress: Progress<'_>) {
    match progress {
        Progress::Total(count) => bar.set_total(count as u64),
        Progress::Began(name) => bar.begin(name),
        Progress::Measured(row) => {
            bar.println(&format!("{:<36} {:>12} {:>6.1} %", row.name, seconds(row.seconds), 100.0 * row.share));
        }
    }
}

fn print(report: &Report) -> Result<()> {
    let adapter = &report.adapter;
    outln!("{} ({}, {})", adapter.name, adapter.backend, adapter.driver)?;
    let ceilings = [(&report.ceilings.arithmetic, "flop/s"), (&report.ceilings.memory, "B/s")];
    for (ceiling, unit) in ceilings {
        outln!("ceiling {:>14}  ({})", rate(ceiling.per_second, unit), ceiling.variant)?;
    }
    let mut table = table(&["", "median", "spread", "rate", "bound", "share of ceiling", "spread", "runs"]);
    for row in &report.rows {
        table.add_row(cells(row));
    }
    outln!("{table}")?;
    outln!(
        "Kernels by the {} clock, steps by the caller's. Spread: the range of the middle half of the runs, divided by the median. Share: the \
         time at the ceilings, measured next to each run, divided by the time taken.",
        report.kernel_clock.to_uppercase()
    )?;
    if let Some(first) = &report.first_step {
        outln!("{}", first_step(first))?;
    }
    if let Some(scaling) = &report.scaling {
        print_scaling(scaling)?;
    }
    if report.debug_build {
        outln!("This is a debug build: the CPU part of every step is many times slower than in a release build.")?;
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 8] {
    let bound = match row.bound {
        Bound::Arithmetic => "arithmetic",
        Bound::Memory => "memory",
    };
    [
        row.name.clone(),
        seconds(row.seconds),
        percent(row.spread),
        rate(row.rate, &row.unit),
        bound.into(),
        percent(row.share),
        percent(row.share_spread),
        row.runs.to_string(),
    ]
}

/// The first training step in a sentence.
pub(super) fn first_step(first: &FirstStep) -> String {
    let bench::Setup { record, plan, prepare } = first.setup;
    format!(
        "First training step: {} to build and record, {} to prepare (of which {} to plan memory), {} for the first run, in which \
         drivers compile what they have not kept on disk, {} for the second.",
        seconds(record),
        seconds(prepare),
        seconds(plan),
        seconds(first.first_run),
        seconds(first.second_run)
    )
}

fn print_scaling(scaling: &Scaling) -> Result<()> {
    let mut lengths = table(&["tokens", "per token", "attention", "the rest", "share of ceiling"]);
    for point in &scaling.lengths {
        let total = point.attention + point.rest;
        let times = [total, point.attention, point.rest].map(seconds);
        lengths.add_row([&[point.tokens.to_string()], &times[..], &[percent(point.share)]].concat());
    }
    let mut widths = table(&["d_model", "parameters", "step", "per parameter", "share of ceiling"]);
    for point in &scaling.widths {
        widths.add_row([
            point.d_model.to_string(),
            point.parameters.to_string(),
            seconds(point.seconds),
            seconds(point.per_parameter),
            percent(point.share),
        ]);
    }
    outln!("Training step by length, one sequence\n{lengths}\nTraining step by d_model, 128 tokens\n{widths}")
}

fn print_comparison(comparison: &Comparison, old: &Report, new: &Report, threshold: f64) -> Result<()> {
    if old.adapter != new.adapter {
        outln!("The older report is from another adapter or driver: {} ({})", old.adapter.name, old.adapter.driver)?;
    }
    let mut table = table(&["", "old", "new", "old share", "new share", "ratio", ""]);
    for change in &comparison.changes {
        table.add_row([
            change.name.clone(),
            seconds(change.old_seconds),
            seconds(change.new_seconds),
            percent(change.old_share),
            percent(change.new_share),
            format!("{:.2}", change.ratio),
            match (change.slower, change.clear) {
                (true, true) => "SLOWER",
                (true, false) => "SLOWER, or noise",
                (false, _) => "",
            }
            .into(),
        ]);
    }
    outln!("{table}")?;
    outln!(
        "Ratio: old share divided by new share of the ceilings measured in the same run, so that a slower or busier machine does not look \
         like slower code. Above {threshold} counts as slower; where the spreads overlap, measure again with --only."
    )?;
    for (what, names) in [("removed", &comparison.gone), ("new", &comparison.added)] {
        if !names.is_empty() {
            outln!("{what}: {}", names.join(", "))?;
        }
    }
    Ok(())
}

/// A time with a unit.
pub(super) fn seconds(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1.0 => (value, "s"),
        v if v >= 1e-3 => (value * 1e3, "ms"),
        v if v >= 1e-6 => (value * 1e6, "µs"),
        _ => (value * 1e9, "ns"),
    };
    format!("{} {unit}", three_digits(scaled))
}

/// A rate with a unit.
pub(super) fn rate(value: f64, unit: &str) -> String {
    let unit = unit.replace("flop", "FLOP").replace("token", "tokens");
    let (scaled, prefix) = match value {
        v if unit.starts_with("token") || v < 1e6 => (value, ""),
        v if v >= 1e12 => (value / 1e12, "T"),
        v if v >= 1e9 => (value / 1e9, "G"),
        _ => (value / 1e6, "M"),
    };
    format!("{} {prefix}{unit}", three_digits(scaled))
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(seconds(4.56e-7), "456 ns");
        assert_eq!(rate(74.2e9, "flop/s"), "74.2 GFLOP/s");
        assert_eq!(rate(1234.5, "token/s"), "1234 tokens/s");
        assert_eq!(rate(9.87e9, "B/s"), "9.87 GB/s");
        assert_eq!(percent(0.4567), "45.7 %");
    }
}
