//! Steps of training.

use crate::forward::{TokenBatch, bytes, next_labels};
use crate::session::Session;
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use wgformer::ops::CrossEntropyOptions;
use wgformer::train::{
    AdamOptions, BatchSource, Event, Feeds, IDS, LABELS, LanguageModel, LossScaling, RunOptions, Schedule, StepOptions,
    Trainer,
};
use wgformer::{DType, Error, Result};

/// Options of training, which hold for all steps.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// AdamW's β₁, β₂, ε and weight decay.
    pub adam: AdamOptions,
    /// Gradients are clipped to this norm; 0: they are not.
    pub max_norm: f32,
    /// Batches are cut into so many parts, one after another, with the gradients of the whole: less memory.
    pub accumulation: u32,
    /// Blocks are computed again in the backward pass: less memory, a third more time.
    pub recompute: bool,
    /// The seed of dropout.
    pub seed: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        let StepOptions { adam, max_norm, accumulation, recompute, .. } = StepOptions::default();
        Self { adam, max_norm, accumulation, recompute, seed: 0 }
    }
}

/// What a step gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The number of the step, from 1.
    pub step: u64,
    /// The mean cross-entropy before the step.
    pub loss: f32,
    /// The norm of the gradients before they were clipped.
    pub norm: f32,
    /// Whether gradients were not finite, so that the weights are as before.
    pub skipped: bool,
}

/// The state of training: AdamW's moments, and programs by shape.
pub(crate) struct Training {
    options: TrainOptions,
    trainer: Option<Trainer>,
    shapes: BTreeSet<[usize; 2]>,
}

/// The parts of a batch.
struct Parts(VecDeque<Feeds>, u64);

impl BatchSource for Parts {
    fn next_feeds(&mut self) -> Result<Feeds> {
        self.0.pop_front().ok_or_else(|| Error::Graph("a step asked for more parts than its batch has".into()))
    }

    fn position(&self) -> Value {
        Value::Null
    }

    fn tokens(&self) -> u64 {
        self.1
    }
}

impl Session {
    /// Sets the options of training, before its first step.
    ///
    /// # Errors
    /// [`Error::Input`] if an option is out of range, the model is no decoder without an encoder, or it trains already.
    pub fn begin_training(&mut self, options: TrainOptions) -> Result<()> {
        self.expect_decoder()?;
        if self.model.encoder().is_some() {
            return Err(Error::input(
                "model",
                "an encoder feeds its decoder, which steps of tokens alone cannot train",
            ));
        }
        if self.training.as_ref().is_some_and(|training| training.trainer.is_some()) {
            let message = "the model trains already: load it again to train it with other options";
            return Err(Error::input("options", message));
        }
        step_options(&options, DType::F32).check()?;
        self.training = Some(Training { options, trainer: None, shapes: BTreeSet::new() });
        Ok(())
    }

    /// One step of AdamW with this learning rate, on labels as [`Session::loss`] takes them. Batches of a new shape prepare programs of their own.
    ///
    /// # Errors
    /// [`Error::Input`] if the batch does not fit the model or the rate is not finite; [`Error::NonFinite`] if the loss is not finite;
    /// [`Error::OutOfMemory`]; [`Error::DeviceLost`].
    pub fn train_step(&mut self, batch: TokenBatch<'_>, labels: Option<&[i32]>, learning_rate: f64) -> Result<Step> {
        if self.training.is_none() {
            self.begin_training(TrainOptions::default())?;
        }
        batch.check(self.model.as_ref())?;
        let labels = next_labels(batch, labels)?;
        if labels.iter().all(|label| *label < 0) {
            return Err(Error::input(
                "labels",
                "none counts: a row needs two tokens, and a label that is not negative",
            ));
        }
        if batch.mask.is_some() || batch.types.is_some() {
            return Err(Error::input("mask", "training takes none: give labels of -100 at padding, behind the text"));
        }
        let schedule = Schedule::constant(learning_rate);
        schedule.check()?;
        self.trainer_for(batch, schedule)?;
        let lost = || Error::Graph("the trainer is missing".into());
        let Training { options, trainer, .. } = self.training.as_mut().ok_or_else(lost)?;
        let trainer = trainer.as_mut().ok_or_else(lost)?;
        trainer.set_schedule(schedule)?;
        let size = batch.ids.len() / options.accumulation as usize;
        let parts = batch.ids.chunks_exact(size).zip(labels.chunks_exact(size));
        let parts = parts.map(|(ids, labels)| {
            vec![(IDS.into(), bytes(ids.iter().copied())), (LABELS.into(), bytes(labels.iter().copied()))]
        });
        trainer.submit_step(&mut Parts(parts.collect(), size as u64))?;
        let mut done = None;
        trainer.reports(0, &mut |event: &Event| {
            if let Event::Step(event) = event {
                let report = event.report;
                let skipped = report.skipped_in_row > 0;
                done = Some(Step { step: event.step, loss: report.loss, norm: report.norm, skipped });
            }
        })?;
        done.ok_or_else(|| Error::Graph("the step gave no report".into()))
    }

    /// Makes the trainer, or its programs for a batch of a new shape.
    fn trainer_for(&mut self, batch: TokenBatch<'_>, schedule: Schedule) -> Result<()> {
        let model = self.expect_decoder()?.clone();
        let Some(training) = &mut self.training else { return Ok(()) };
        let parts = training.options.accumulation as usize;
        if !batch.rows.is_multiple_of(parts) {
            let message = format!("its {} rows cannot be cut into {parts} equal parts (accumulation)", batch.rows);
            return Err(Error::input("ids", message));
        }
        let shape = [batch.rows / parts, batch.length];
        if training.shapes.contains(&shape) {
            return Ok(());
        }
        let [rows, length] = shape;
        let objective = LanguageModel { model, rows, length, options: CrossEntropyOptions::default() };
        if let Some(trainer) = &mut training.trainer {
            trainer.add_size(&objective)?;
            training.shapes.insert(shape);
            return Ok(());
        }
        let options = step_options(&training.options, self.weights.storage().common());
        let run = RunOptions::default().with_steps(u64::MAX).with_seed(training.options.seed);
        let trainer = Trainer::new(&self.gpu, &self.weights, &objective, options, run, schedule)?;
        training.shapes.insert(shape);
        training.trainer = Some(trainer);
        // Weights lie elsewhere now.
        self.forget_programs();
        Ok(())
    }
}

fn step_options(options: &TrainOptions, dtype: DType) -> StepOptions {
    let TrainOptions { adam, max_norm, accumulation, recompute, .. } = *options;
    let step = StepOptions::default().with_adam(adam).with_max_norm(max_norm).with_accumulation(accumulation);
    let step = step.with_recompute(recompute);
    // Small gradients would vanish in f16.
    if dtype == DType::F16 { step.with_loss_scaling(LossScaling::default()) } else { step }
}
