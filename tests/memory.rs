//! A device that has no more memory, at each allocation of preparing and making a training step in turn: an error that says what did not fit, and
//! nothing else breaks.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use serde_json::json;
use std::sync::Arc;
use wgformer::io::Config;
use wgformer::models::{self, Model};
use wgformer::tasks::{TaskObjective, TextBatches, TextTask};
use wgformer::train::{Batches, Event, RunOptions, Schedule, StepOptions, Trainer};
use wgformer::{Error, Gpu, Result, Weights};

/// Weights, three training steps, an evaluation of the last loss.
fn train(gpu: &Gpu) -> Result<Vec<f32>> {
    let config =
        json!({"model_type": "gpt2", "vocab_size": 61, "n_embd": 24, "n_head": 2, "n_layer": 1, "n_positions": 16});
    let model: Arc<dyn Model> = models::model(&Config::new("config.json", config)?)?.into();
    let objective = TaskObjective::on_text(model.clone(), 2, 8)?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    let run = RunOptions::default().with_seed(9);
    let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, Schedule::constant(1e-2))?;
    let ids = (0..200).map(|i| (i * 7 % 60) as u32).collect();
    let mut data = TextBatches { rows: Batches::new(ids, 2, 8, 2)?, task: TextTask::Next };
    let mut losses = Vec::new();
    let mut note = |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.report.loss);
        }
    };
    for _ in 0..3 {
        trainer.submit_step(&mut data)?;
    }
    trainer.reports(0, &mut note)?;
    Ok(losses)
}

#[test]
fn memory_that_ends_at_any_allocation_is_an_error_and_harms_nothing() {
    let adapters = Gpu::adapters();
    let gpu = Gpu::open(adapters.first().expect("no adapter: install a Vulkan driver")).unwrap();
    let before = gpu.buffers_created();
    let wanted = train(&gpu).unwrap();
    assert_eq!(wanted.len(), 3);
    let allocations = gpu.buffers_created() - before;
    assert!(allocations > 10, "{allocations} allocations");
    let mut failed = 0;
    for nth in 0..allocations {
        gpu.refuse_buffers_from(gpu.buffers_created() + nth);
        match train(&gpu) {
            // Buffers of an earlier attempt may serve again.
            Ok(losses) => assert_eq!(losses, wanted),
            Err(Error::OutOfMemory { what, needed, hint, .. }) => {
                assert!(what.contains("buffer \"") && !needed.is_empty() && !hint.is_empty(), "{what} {needed} {hint}");
                failed += 1;
            }
            Err(other) => panic!("allocation {nth}: {other}"),
        }
        gpu.refuse_buffers_from(u64::MAX);
        gpu.check().unwrap();
    }
    assert!(failed * 4 > allocations * 3, "only {failed} of {allocations} allocations failed");
    assert_eq!(train(&gpu).unwrap(), wanted, "the device still gives the same bits");
}
