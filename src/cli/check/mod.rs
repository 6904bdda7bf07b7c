//! `wgformer check`: compares kernels with their f64 twins, models and training runs with results of PyTorch.

mod page;
mod suite;

use super::args::CheckArgs;
use super::device::Device;
use super::{outln, output, print_json, table};
use crate::check::{GoldenReport, TrajectoryReport, check_golden, check_trajectory};
use crate::error::Result;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run(options: &CheckArgs) -> Result<ExitCode> {
    if options.golden.is_empty() && options.trajectory.is_empty() {
        return suite::run(options);
    }
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let mut reports = Reports { text: !options.common.json, passed: true, all: Vec::new() };
    for folder in &options.golden {
        let report = check_golden(&gpu, folder);
        reports.add(folder, report, GoldenReport::passed, print_golden)?;
    }
    for folder in &options.trajectory {
        let report = check_trajectory(&gpu, folder, options.goldens.as_deref());
        reports.add(folder, report, TrajectoryReport::passed, print_trajectory)?;
    }
    if options.common.json {
        print_json(&reports.all)?;
    }
    Ok(if reports.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The reports so far.
struct Reports {
    text: bool,
    passed: bool,
    all: Vec<Value>,
}

impl Reports {
    /// Adds a report. A comparison that fails with an error counts as missed; the others still run.
    fn add<R: Serialize>(
        &mut self,
        folder: &Path,
        report: Result<R>,
        passed: impl Fn(&R) -> bool,
        print: impl Fn(&R) -> Result<()>,
    ) -> Result<()> {
        match report {
            Ok(report) => {
                self.passed &= passed(&report);
                if self.text {
                    print(&report)?;
                }
                self.all.push(json!(report));
            }
            Err(error) => {
                self.passed = false;
                output::note(format_args!("error: {}: {error}", folder.display()));
                self.all.push(json!({ "folder": folder, "error": error.to_string() }));
            }
        }
        Ok(())
    }
}

fn verdict(passed: bool) -> String {
    if passed { "ok" } else { "MISSED" }.into()
}

fn print_golden(report: &GoldenReport) -> Result<()> {
    outln!("{} ({}) on {}", report.folder, report.model, report.adapter)?;
    let mut table = table(&["compared", "largest relative error", "limit", ""]);
    for row in &report.rows {
        let numbers = [format!("{:.2e}", row.error), format!("{:.0e}", row.limit)];
        table.add_row([row.what.clone(), numbers[0].clone(), numbers[1].clone(), verdict(row.passed)]);
    }
    outln!("{table}")?;
    let missed = report.rows.iter().filter(|row| !row.passed).count();
    outln!("{} compared, {missed} missed\n", report.rows.len())?;
    Ok(())
}

fn print_trajectory(report: &TrajectoryReport) -> Result<()> {
    let TrajectoryReport { folder, model, task, adapter, steps, .. } = report;
    outln!("{folder} ({model}, {task}, {steps} steps) on {adapter}")?;
    let mut rows = table(&["compared", "largest relative error", "limit", "over movement", ""]);
    for row in &report.rows {
        let moved = row.over_movement.map_or_else(String::new, |error| format!("{error:.2e}"));
        let numbers = [format!("{:.2e}", row.error), format!("{:.0e}", row.limit)];
        rows.add_row([row.what.clone(), numbers[0].clone(), numbers[1].clone(), moved, verdict(row.passed)]);
    }
    outln!("{rows}")?;
    let mut figures = table(&["largest of all", "error", "PyTorch in f32"]);
    for figure in &report.figures {
        let pytorch = figure.pytorch_f32.map_or_else(String::new, |error| format!("{error:.2e}"));
        figures.add_row([figure.what.to_owned(), format!("{:.2e}", figure.error), pytorch]);
    }
    outln!("{figures}")?;
    if !report.left_out.is_empty() {
        outln!("biases of keys are not compared, since no output depends on them: {}", report.left_out.join(", "))?;
    }
    let missed = report.rows.iter().filter(|row| !row.passed).count();
    outln!("{} compared, {missed} missed\n", report.rows.len())?;
    Ok(())
}
