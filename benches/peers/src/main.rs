//! The same workloads in wgformer and in burn, in turns, on one adapter: `cargo run --release` in this folder.
//!
//! Machines are shared and vary by factors of two within seconds, so what counts is the ratio of two turns that follow each other;
//! the table gives its median and the range of the middle half. A turn is one long run or the median of several short ones. Each side
//! is a process of its own, which sleeps in the other's turns.

mod burn_side;
mod our_side;
mod side;
mod workload;

use clap::Parser;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use side::{Side, SideProcess};
use std::error::Error;
use std::time::Instant;
use wgformer::Gpu;
use wgformer::gpu::{AdapterChoice, AdapterSummary};
use workload::Workload;

/// wgformer and burn 0.22.1 (wgpu) side by side.
#[derive(Debug, Parser)]
struct Arguments {
    /// Adapter: index, part of the name, backend, or backend:name [default: $WGFORMER_ADAPTER, else the best]
    #[arg(long)]
    adapter: Option<String>,
    /// Only workloads whose name contains this; give it more than once for several
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Turns of each side that count
    #[arg(long, default_value_t = 11)]
    runs: usize,
    /// Seconds after which a workload gets no more turns than three
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Be one of the two sides, which takes its orders from standard input
    #[arg(long, hide = true)]
    side: Option<Side>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let adapters = Gpu::adapters();
    let summaries: Vec<_> = adapters.iter().enumerate().map(|(i, a)| AdapterSummary::new(i, a)).collect();
    let choice = match &arguments.adapter {
        Some(text) => text.parse()?,
        None => AdapterChoice::from_env(),
    };
    let index = choice.pick(&summaries)?;
    if let Some(side) = arguments.side {
        return side.serve(&adapters[index]);
    }
    let info = adapters[index].get_info();
    println!("{} ({})", info.name, info.backend);
    let mut sides = [SideProcess::start(Side::Wgformer, index)?, SideProcess::start(Side::Burn, index)?];
    let head = ["", "wgformer", "burn", "burn / wgformer", "middle half", "turns", "first run: wgformer", "burn"];
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(head);
    let wanted =
        |w: &Workload| arguments.only.is_empty() || arguments.only.iter().any(|o| w.name().contains(o.as_str()));
    for workload in workload::all().into_iter().filter(wanted) {
        let result = compare(&arguments, &workload, &mut sides)?;
        println!("{}", result.join("  "));
        table.add_row(result);
    }
    println!("{table}");
    println!("Times and ratios are medians; a ratio above 1 says that wgformer took less time.");
    Ok(())
}

/// A row of the table: both sides warmed up, then in turns.
fn compare(
    arguments: &Arguments,
    workload: &Workload,
    [wgformer, burn]: &mut [SideProcess; 2],
) -> Result<Vec<String>, Box<dyn Error>> {
    let first = [wgformer.prepare(workload)?, burn.prepare(workload)?];
    let (start, mut times, mut ratios) = (Instant::now(), [Vec::new(), Vec::new()], Vec::new());
    while ratios.len() < 3 || (ratios.len() < arguments.runs && start.elapsed().as_secs_f64() < arguments.seconds) {
        let (ours, theirs) = (wgformer.turn()?, burn.turn()?);
        times[0].push(ours);
        times[1].push(theirs);
        ratios.push(theirs / ours);
    }
    let [ours, theirs] = times.map(|mut t| quantile(&mut t, 0.5));
    let count = ratios.len();
    let [low, middle, high] = [0.25, 0.5, 0.75].map(|q| quantile(&mut ratios, q));
    Ok(vec![
        workload.name(),
        workload.figure(ours),
        workload.figure(theirs),
        format!("{middle:.2}"),
        format!("{low:.2} to {high:.2}"),
        count.to_string(),
        format!("{:.2} s", first[0]),
        format!("{:.2} s", first[1]),
    ])
}

/// The value below which this share of the values lies.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = share * (values.len() - 1) as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
