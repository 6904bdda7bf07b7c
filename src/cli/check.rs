//! `wgformer check --golden`: models against what PyTorch computed from them.

use super::args::CheckArgs;
use super::device::Device;
use super::{print_json, say, table};
use crate::check::{GoldenReport, check_golden};
use crate::error::Result;
use serde_json::json;
use std::process::ExitCode;

pub(super) fn run(options: &CheckArgs) -> Result<ExitCode> {
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let mut reports = Vec::new();
    let mut passed = true;
    for folder in &options.golden {
        // One that cannot be compared counts as missed, and the others are still looked at.
        match check_golden(&gpu, folder) {
            Ok(report) => {
                passed &= report.passed();
                if !options.common.json {
                    print(&report)?;
                }
                reports.push(json!(report));
            }
            Err(error) => {
                passed = false;
                say::tell(format_args!("error: {}: {error}", folder.display()));
                reports.push(json!({ "folder": folder, "error": error.to_string() }));
            }
        }
    }
    if options.common.json {
        print_json(&reports)?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &GoldenReport) -> Result<()> {
    say!("{} ({}) on {}", report.folder, report.model, report.adapter)?;
    let mut table = table(&["compared", "largest relative error", "limit", ""]);
    for row in &report.rows {
        let verdict = if row.passed { "ok" } else { "MISSED" };
        table.add_row([row.what.clone(), format!("{:.2e}", row.error), format!("{:.0e}", row.limit), verdict.into()]);
    }
    say!("{table}")?;
    let missed = report.rows.iter().filter(|row| !row.passed).count();
    say!("{} compared, {missed} missed\n", report.rows.len())?;
    Ok(())
}
