//! Steps of training.

use wgformer::Result;
use wgformer::train::{BatchSource, Event, Trainer};

/// Runs some steps and gives their losses.
pub(crate) fn losses(trainer: &mut Trainer, data: &mut dyn BatchSource, steps: u64) -> Result<Vec<f32>> {
    let mut losses = Vec::new();
    let mut note = |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.report.loss);
        }
    };
    for _ in 0..steps {
        trainer.submit_step(data)?;
        trainer.reports(3, &mut note)?;
    }
    trainer.reports(0, &mut note)?;
    Ok(losses)
}
