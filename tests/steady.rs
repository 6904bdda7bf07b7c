//! A thousand training steps on every adapter of this machine: no buffer is created and the process does not grow. Dropped
//! objects are freed.

mod common;

use libtest_mimic::{Arguments, Failed};
use serde_json::json;
use std::sync::Arc;
use wgformer::io::Config;
use wgformer::ops::{self, CrossEntropyOptions};
use wgformer::train::{Batches, Event, LanguageModel, RunOptions, Schedule, StepOptions, Trainer};
use wgformer::{DType, Gpu, Graph, Program, Weights, models};

const STEPS: u64 = 1000;
/// The steps until all pools are filled.
const WARM: u64 = 200;
/// Staging buffers that a moment with more work in flight may add.
const FEW: u64 = 8;
/// Growth by allocators that is no leak: a step has about 100 dispatches, so a leak of 100 bytes in each exceeds it.
const ALLOWED: u64 = 8 << 20;

fn main() {
    let mut trials = Vec::new();
    for (name, device) in common::adapters(&mut trials) {
        trials.push(device.trial(format!("[{name}] {STEPS} steps without growth"), steps_without_growth));
        trials.push(device.trial(format!("[{name}] what is dropped is freed"), what_is_dropped_is_freed));
    }
    // One at a time: the memory that is measured is the process's.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit();
}

/// The resident bytes of the process, where the system reports them.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Weights and programs of 64 MiB, one after the other.
fn what_is_dropped_is_freed(gpu: &Gpu) -> Result<(), Failed> {
    let mut graph = Graph::new();
    let x = graph.parameter("x", [2048, 4096], DType::F32)?;
    let doubled = ops::scale(&mut graph, x, 2.0)?;
    graph.output("doubled", doubled)?;
    let mut first = None;
    for _ in 0..10 {
        let weights = Weights::new(gpu);
        let program = Program::new(gpu, &graph, &weights)?;
        program.run()?;
        gpu.wait(None)?;
        drop((program, weights));
        gpu.wait(None)?;
        first = first.or_else(resident);
    }
    let grown = resident().zip(first).map_or(0, |(last, first)| last.saturating_sub(first)) >> 20;
    if grown < 200 { Ok(()) } else { Err(format!("{grown} MiB more after nine more programs").into()) }
}

fn steps_without_growth(gpu: &Gpu) -> Result<(), Failed> {
    let config = json!({"model_type": "gpt2", "vocab_size": 61, "n_embd": 24, "n_head": 3, "n_layer": 2,
                        "n_positions": 32, "resid_pdrop": 0.1, "embd_pdrop": 0.1});
    let model: Arc<dyn models::Decoder> = models::decoder(&Config::new("config.json", config)?)?.into();
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    let objective = LanguageModel { model, rows: 2, length: 17, options: CrossEntropyOptions::default() };
    let run = RunOptions::default().with_seed(9);
    let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, Schedule::constant(0.01))?;
    let tokens: Arc<[u32]> = (0..4000).map(|i| (i * i + 7 * i) as u32 % 61).collect();
    let mut data = Batches::new(tokens, 2, 17, 3)?;
    let mut seen = 0_u64;
    let mut at_first = None;
    for step in 1..=STEPS {
        trainer.submit_step(&mut data)?;
        trainer.reports(3, &mut |event: &Event| seen += u64::from(matches!(event, Event::Step(_))))?;
        if step == WARM {
            gpu.wait(None)?;
            at_first = Some((gpu.buffers_created(), resident()));
        }
    }
    trainer.reports(0, &mut |event: &Event| seen += u64::from(matches!(event, Event::Step(_))))?;
    let (buffers, memory) = at_first.ok_or("no measurement")?;
    if seen != STEPS {
        return Err(format!("{seen} reports of {STEPS} steps").into());
    }
    let created = gpu.buffers_created() - buffers;
    if created > FEW {
        return Err(format!("{created} buffers were created in {} steps", STEPS - WARM).into());
    }
    if let (Some(before), Some(after)) = (memory, resident()) {
        println!("{}: {:.1} MiB, then {:.1} MiB", gpu.info().name, before as f64 / 1048576.0, after as f64 / 1048576.0);
        if after > before + ALLOWED {
            return Err(format!("the process grew by {} KiB in {} steps", (after - before) >> 10, STEPS - WARM).into());
        }
    }
    Ok(())
}
