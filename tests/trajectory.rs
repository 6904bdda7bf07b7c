//! Training runs of PyTorch on every adapter of this machine: the same steps, by the training step of this crate.
//!
//! `cargo test --test trajectory -- NAME` runs some of it; the errors measured are printed.

mod common;

use libtest_mimic::Failed;
use std::path::PathBuf;
use wgformer::Gpu;
use wgformer::check::check_trajectory;

const RUNS: [&str; 5] = ["gpt2", "llama", "mixtral", "bert-token", "t5"];

fn main() {
    let mut trials = Vec::new();
    for (name, device) in common::adapters_also_as_gpus(&mut trials) {
        for folder in RUNS {
            trials.push(device.trial(format!("[{name}] trajectory {folder}"), move |gpu| run(gpu, folder)));
        }
    }
    common::run(trials);
}

fn run(gpu: &Gpu, folder: &str) -> Result<(), Failed> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/trajectories");
    let report = check_trajectory(gpu, root.join(folder), None)?;
    let mut line = format!("{} {folder}:", report.adapter);
    for figure in &report.figures {
        line += &format!(" {} {:.1e} ({:.1e})", figure.what, figure.error, figure.pytorch_f32.unwrap_or(f64::NAN));
    }
    println!("{line}");
    for kind in ["lr", "counted_labels", "loss", "grad_norm", "final.", "exp_avg.", "exp_avg_sq."] {
        if !report.rows.iter().any(|row| row.what.starts_with(kind)) {
            return Err(format!("{kind} was not compared").into());
        }
    }
    let failed: Vec<String> = report
        .rows
        .iter()
        .filter(|row| !row.passed)
        .map(|row| format!("{}: error {:.1e}, allowed {:.1e}", row.what, row.error, row.limit))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}
