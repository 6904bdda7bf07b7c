//! The same workloads in wgformer and in burn, in turns, on one adapter: `cargo run --release` in this folder.
//!
//! Machines are shared and vary by factors of two within seconds, so what counts is the ratio of two turns that follow each other;
//! the table gives its median and the range of the middle half. A turn is one long run or the median of several short ones.

mod burn_side;
mod our_side;
mod workload;

use clap::Parser;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use std::error::Error;
use std::time::{Duration, Instant};
use wgformer::Gpu;
use wgformer::gpu::{AdapterChoice, AdapterSummary};
use workload::Workload;

/// How long a side's turn lasts at least.
const TURN: Duration = Duration::from_millis(100);

/// What runs once, waits for the end, and says how many seconds of it count.
type Run = Box<dyn FnMut() -> Result<f64, Box<dyn Error>>>;

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
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let adapters = Gpu::adapters();
    let summaries: Vec<_> = adapters.iter().enumerate().map(|(i, a)| AdapterSummary::new(i, a)).collect();
    let choice = match &arguments.adapter {
        Some(text) => text.parse()?,
        None => AdapterChoice::from_env(),
    };
    let adapter = &adapters[choice.pick(&summaries)?];
    let gpu = Gpu::open(adapter)?;
    let device = burn_side::open(adapter)?;
    println!("{} ({})", gpu.info().name, gpu.info().backend);
    let head = ["", "wgformer", "burn", "burn / wgformer", "middle half", "turns", "first run: wgformer", "burn"];
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(head);
    let wanted =
        |w: &Workload| arguments.only.is_empty() || arguments.only.iter().any(|o| w.name().contains(o.as_str()));
    for workload in workload::all().into_iter().filter(wanted) {
        let result = compare(&arguments, &workload, &gpu, &device)?;
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
    gpu: &Gpu,
    device: &burn::prelude::Device,
) -> Result<Vec<String>, Box<dyn Error>> {
    let mut sides = [our_side::prepare(workload, gpu)?, burn_side::prepare(workload, device)?];
    let mut first = [0.0; 2];
    for (side, first) in sides.iter_mut().zip(&mut first) {
        let start = Instant::now();
        side()?;
        *first = start.elapsed().as_secs_f64();
        side()?;
    }
    let (start, mut times, mut ratios) = (Instant::now(), [Vec::new(), Vec::new()], Vec::new());
    while ratios.len() < 3 || (ratios.len() < arguments.runs && start.elapsed().as_secs_f64() < arguments.seconds) {
        let (ours, theirs) = (turn(&mut sides[0])?, turn(&mut sides[1])?);
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

/// The median of a side's runs, back to back for a while: the first one finds the caches full of the other side's data.
fn turn(side: &mut Run) -> Result<f64, Box<dyn Error>> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || start.elapsed() < TURN {
        times.push(side()?);
    }
    Ok(quantile(&mut times, 0.5))
}

/// The value below which this share of the values lies.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = share * (values.len() - 1) as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
