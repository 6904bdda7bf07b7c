//! The training loop: steps, reports that arrive a few steps later, evaluation, early stopping, checkpoints.

use super::Schedule;
use super::layout::Range;
use super::loss::{Labels, label_weights};
use super::objective::{BatchSource, DROPOUT_SEED, Feeds, HeldOut, Objective};
use super::progress::{Event, Measure, Measured, Progress, Speed};
use super::reports::Pending;
use super::routing::RoutingLayout;
use super::run::{Outcome, RunOptions, RunState};
use super::sizes::{Sized, Told, fitting};
use super::step::{KEEP, LOSS, REPORT, SCALARS, STATISTICS, StepOptions, TrainStep};
use crate::error::Result;
use crate::gpu::{Gpu, Readback};
use crate::program::{Program, Source, Weights};
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use web_time::Instant;

/// The most batches of an accumulated step in flight.
const BATCHES_IN_FLIGHT: usize = 1;
/// A callback that may write a checkpoint of the trainer and the data's position, and returns its path.
pub type Save<'a> = dyn FnMut(&Trainer, &Value) -> Result<Option<PathBuf>> + 'a;

/// Trains a model: owns the programs, counts steps and keeps the GPU busy.
pub struct Trainer {
    gpu: Gpu,
    pub(super) weights: Weights,
    pub(super) step: TrainStep,
    pub(super) state: RunState,
    /// The first is that of the objective, the others are those of further sizes.
    pub(super) sizes: Vec<Sized>,
    pub(super) health: Program,
    pub(super) routing: RoutingLayout,
    labels: Vec<Labels>,
    checked: bool,
    has_dropout: bool,
    pub(super) run: RunOptions,
    pub(super) schedule: Schedule,
    pub(super) pending: VecDeque<(Pending, Readback)>,
    pub(super) speed: Speed,
    pub(super) mark: Option<Instant>,
}

/// The dispatches in front of the first that writes what the next step goes on from: behind any of them a step may be given up.
fn free_dispatches(program: &Program) -> usize {
    let recording = program.recording();
    let gradients = Range::Gradients.name(0);
    let kept = |slot: usize| match recording.slots().get(slot).map(|slot| &slot.source) {
        Some(Source::Parameter(_)) => true,
        Some(Source::State(name)) => name != LOSS && name != STATISTICS && !name.starts_with(&gradients),
        _ => false,
    };
    let dispatches = recording.dispatches();
    let writes = dispatches.iter().position(|dispatch| {
        dispatch.bindings.iter().any(|binding| !binding.access.only_reads() && kept(binding.view.slot))
    });
    writes.unwrap_or(dispatches.len())
}

impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer").field("state", &self.state).field("run", &self.run).finish_non_exhaustive()
    }
}

impl Trainer {
    /// A trainer of the weights in the store, which are moved into flat ranges.
    ///
    /// # Errors
    /// Those of the model and of recording; [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(
        gpu: &Gpu,
        weights: &Weights,
        objective: &dyn Objective,
        options: StepOptions,
        run: RunOptions,
        schedule: Schedule,
    ) -> Result<Self> {
        schedule.check()?;
        let mut options = options;
        options.rates.extend(objective.frozen().into_iter().map(|name| (name, 0.0)));
        let storage = weights.storage();
        let mut parameters = objective.parameters(storage)?;
        parameters.retain(|(name, _)| storage.trains(name));
        let step = TrainStep::new(&parameters, gpu.caps(), options)?.stored_as(storage);
        step.layout().move_into_flat(weights)?;
        let (first, Told { routing, labels, has_dropout }) = Sized::new(gpu, weights, &step, objective)?;
        Ok(Self {
            gpu: gpu.clone(),
            sizes: vec![first],
            health: Program::new(gpu, &step.health_graph()?, weights)?,
            routing,
            labels,
            checked: false,
            weights: weights.clone(),
            step,
            state: RunState::default(),
            has_dropout,
            run,
            schedule,
            pending: VecDeque::new(),
            speed: Speed::default(),
            mark: None,
        })
    }

    /// Adds programs for micro-batches of another size of the same model: those that have the shapes of this objective's inputs run in them.
    /// Weights, gradients and moments are shared; the activations take memory for each size.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn add_size(&mut self, objective: &dyn Objective) -> Result<()> {
        let (size, _) = Sized::new(&self.gpu, &self.weights, &self.step, objective)?;
        self.sizes.push(size);
        Ok(())
    }

    /// The state of the run. Steps are counted when they are submitted.
    #[must_use]
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The program of a whole step of the first size, for reports of its memory and dispatches.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.sizes[0].whole
    }

    /// The number of values that are trained.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.step.layout().parameters().map(|slot| slot.ty.shape.numel()).sum()
    }

    /// The weights.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Sets the learning rates of the steps to come, by their numbers since the first step of the run.
    ///
    /// # Errors
    /// Those of [`Schedule::check`].
    pub fn set_schedule(&mut self, schedule: Schedule) -> Result<()> {
        schedule.check()?;
        self.schedule = schedule;
        Ok(())
    }

    /// Submits one step; [`Trainer::reports`] returns its report.
    ///
    /// # Errors
    /// Those of the data; [`Error::Input`](crate::Error::Input) if it does not fit the model's inputs; [`Error::DeviceLost`](crate::Error::DeviceLost).
    pub fn submit_step(&mut self, data: &mut dyn BatchSource) -> Result<()> {
        self.submit_unless(data, &AtomicBool::new(false)).map(|_| ())
    }

    /// The async form of [`Trainer::submit_step`] and [`Trainer::reports`], in frames if the application draws them ([`Gpu::begin_frame`]): waits until at
    /// most `in_flight` reports are missing. A future that is dropped within a step may leave a part of the weights updated.
    ///
    /// # Errors
    /// As theirs.
    pub async fn step_async(
        &mut self,
        data: &mut dyn BatchSource,
        in_flight: usize,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        if !self.checked {
            self.check_weights_async().await?;
            self.checked = true;
        }
        self.submit(data, &AtomicBool::new(false), false).await?;
        self.reports_async(in_flight, progress).await
    }

    /// Submits one step, or abandons it when `stop` is set, in the middle of a batch as well: then weights and moments stay those of the previous
    /// step. Returns whether it was submitted. It waits for earlier work, so that little is in flight when `stop` is set.
    fn submit_unless(&mut self, data: &mut dyn BatchSource, stop: &AtomicBool) -> Result<bool> {
        pollster::block_on(self.submit(data, stop, true))
    }

    /// As [`Trainer::submit_unless`] with `blocks`; without, in an application's frames, or without waiting.
    async fn submit(&mut self, data: &mut dyn BatchSource, stop: &AtomicBool, blocks: bool) -> Result<bool> {
        if !self.checked {
            self.check_weights()?;
            self.checked = true;
        }
        self.mark.get_or_insert_with(Instant::now);
        let learning_rate = self.schedule.rate(self.state.step) as f32;
        let scalars = self.step.options().scalars(learning_rate).to_array();
        let scaled = self.step.options().loss_scaling.is_some();
        let count = u64::from(self.step.options().accumulation);
        let mut report = None;
        let mut in_flight = VecDeque::new();
        let mut batches = Vec::new();
        let (mut tokens, mut positions) = (0, 0);
        for _ in 0..count {
            batches.push(data.next_feeds()?);
            tokens += data.tokens();
            positions += data.positions();
        }
        let weights = if count > 1 { label_weights(&self.labels, &batches)? } else { vec![Feeds::new()] };
        // Whether what the next step goes on from is still that of the step before.
        let mut clean = true;
        for (micro, (feeds, weights)) in (0..).zip(batches.into_iter().zip(weights)) {
            let leaves = || stop.load(Ordering::Relaxed);
            if micro > 0 && clean && leaves() {
                return Ok(false);
            }
            let index = self.state.step * count + micro;
            let size = &self.sizes[fitting(&self.sizes, &feeds)];
            let (program, last) = match &size.gradients {
                Some(gradients) if micro + 1 < count => (gradients, false),
                _ => (&size.whole, true),
            };
            for (name, bytes) in feeds.into_iter().chain(weights) {
                program.write(&name, &bytes)?;
            }
            if self.has_dropout {
                program.write(DROPOUT_SEED, bytemuck::bytes_of(&mix(self.run.seed, index).to_le()))?;
            }
            if count > 1 {
                program.write(KEEP, bytemuck::bytes_of(&(if micro == 0 { 0.0_f32 } else { 1.0 })))?;
            }
            if last || scaled {
                program.write(SCALARS, bytemuck::cast_slice(&scalars))?;
            }
            let free = if clean { free_dispatches(program) } else { 0 };
            let output = if last { REPORT } else { "loss" };
            let read = match blocks {
                true => program.run_unless(&[output], &|dispatch| dispatch < free && leaves())?,
                false => Some(program.run_async(&[output]).await?),
            };
            let Some(mut read) = read else {
                return Ok(false);
            };
            clean &= free == program.recording().dispatches().len();
            if last {
                report = read.pop();
                continue;
            }
            // A stop waits for the batches in flight.
            in_flight.extend(read);
            if blocks
                && in_flight.len() > BATCHES_IN_FLIGHT
                && let Some(oldest) = in_flight.pop_front()
            {
                oldest.wait()?;
            }
        }
        self.state.step += 1;
        let step = self.state.step;
        self.pending.extend(report.map(|report| (Pending { step, learning_rate, tokens, positions }, report)));
        Ok(true)
    }

    /// Notes an evaluation; returns whether it is better than all before, by the measure if there is one, else by the loss.
    fn note(&mut self, loss: f64, measured: Option<&Measured>) -> bool {
        let better = match measured {
            Some(measured) => self.state.best_measure.is_none_or(|best| measured.value > best),
            None => self.state.best_loss.is_none_or(|best| loss < best),
        };
        if self.state.best_loss.is_none_or(|best| loss < best) {
            self.state.best_loss = Some(loss);
        }
        if let Some(measured) = measured.filter(|_| better) {
            self.state.best_measure = Some(measured.value);
        }
        self.state.without_progress = if better { 0 } else { self.state.without_progress + 1 };
        better
    }

    /// Runs to the end, to an early stop, or until `stop` is set, which abandons the step that is computed. Calls `save` with the data's
    /// position at the interval of the options and before it returns. A run with evaluations also evaluates after its last step.
    ///
    /// # Errors
    /// As [`Trainer::submit_step`], [`Trainer::reports`], [`Trainer::evaluate`] and `save`.
    pub fn run(
        &mut self,
        data: &mut dyn BatchSource,
        held_out: &[HeldOut],
        stop: &AtomicBool,
        save: &mut Save<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Outcome> {
        self.run_measured(data, held_out, None, stop, save, progress)
    }

    /// As [`Trainer::run`], but evaluations also take a measure, by which runs stop early and the best weights are known.
    ///
    /// # Errors
    /// As [`Trainer::run`], and those of the measure.
    pub fn run_measured(
        &mut self,
        data: &mut dyn BatchSource,
        held_out: &[HeldOut],
        mut measure: Option<&mut dyn Measure>,
        stop: &AtomicBool,
        save: &mut Save<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Outcome> {
        let every = |interval: u64, step: u64| interval > 0 && step.is_multiple_of(interval);
        let mut outcome = Outcome::Finished;
        let mut saved_at = None;
        // The position of the data after the last whole step.
        let mut position = None;
        while self.state.step < self.run.steps {
            if stop.load(Ordering::Relaxed) {
                outcome = Outcome::Interrupted;
                break;
            }
            position = Some(data.position());
            if !self.submit_unless(data, stop)? {
                outcome = Outcome::Interrupted;
                break;
            }
            position = None;
            self.reports(self.run.in_flight, progress)?;
            let step = self.state.step;
            let due = every(self.run.evaluate_every, step);
            let last = self.run.evaluate_every > 0 && step == self.run.steps;
            if !held_out.is_empty() && (due || last) {
                self.reports(0, progress)?;
                let loss = self.evaluate(held_out)?;
                let measured = match &mut measure {
                    Some(measure) => Some(measure.measure(self)?),
                    None => None,
                };
                self.mark = None;
                let before = self.state;
                let better = self.note(loss, measured.as_ref());
                let best = self.state.best_loss.unwrap_or(loss);
                let first = self.state.best_measure;
                if !due {
                    // Only the data's position: a resumed run is then the same as an uninterrupted one.
                    self.state = before;
                }
                progress.event(&Event::Evaluated { step, loss, best, measured, better });
                if let Some(measure) = measure.as_mut().filter(|_| better && first.is_some()) {
                    measure.keep(self)?;
                }
                if due && self.run.patience.is_some_and(|patience| self.state.without_progress >= patience) {
                    outcome = Outcome::StoppedEarly;
                    break;
                }
            }
            if every(self.run.save_every, step) {
                self.save_through(save, &data.position(), progress)?;
                saved_at = Some(step);
            }
        }
        if saved_at != Some(self.state.step) {
            self.save_through(save, &position.unwrap_or_else(|| data.position()), progress)?;
        }
        Ok(outcome)
    }

    fn save_through(&mut self, save: &mut Save<'_>, position: &Value, progress: &mut dyn Progress) -> Result<()> {
        // Only weights that were reported as finite are saved.
        self.reports(0, progress)?;
        self.check_weights()?;
        if let Some(path) = save(self, position)? {
            progress.event(&Event::Saved { step: self.state.step, path });
        }
        self.mark = None;
        Ok(())
    }
}

/// The seed of micro-batch `index`: SplitMix64 (Steele et al. 2014) of both arguments.
fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
