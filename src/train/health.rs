//! Whether training goes well: finite weights, losses and gradients; the loss of held-out data.

use super::objective::HeldOut;
use super::sizes::fitting;
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::gpu::Readback;
use crate::ops::StepReport;
use std::collections::VecDeque;

/// The most consecutive steps with non-finite gradients before the run ends, without loss scaling.
const MAX_SKIPPED: u64 = 10;
/// The same with loss scaling, which needs some steps to find its scale.
const MAX_SKIPPED_SCALED: u64 = 60;
/// The most evaluation batches in flight.
const EVALUATIONS_IN_FLIGHT: usize = 4;

/// Whether all numbers are finite.
fn is_finite(bytes: &[u8]) -> bool {
    bytemuck::pod_collect_to_vec::<u8, f32>(bytes).iter().all(|x| x.is_finite())
}

fn too_large() -> Error {
    let message = "the weights have grown beyond 1e14. Resume from the last checkpoint with a lower learning rate";
    Error::NonFinite { what: "the norm of the weights".into(), message: message.into() }
}

impl Trainer {
    /// Checks that all weights are finite. The first step and every save do so, since activations that clamp can hide a NaN from the loss.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the name of a weight that is not finite.
    pub fn check_weights(&self) -> Result<()> {
        self.health.run()?;
        if is_finite(&self.health.read("norm")?) {
            return Ok(());
        }
        for slot in self.step.layout().parameters() {
            self.check_weight(&slot.name, &self.weights.download(&slot.master())?)?;
        }
        Err(too_large())
    }

    /// The async form of [`Trainer::check_weights`].
    ///
    /// # Errors
    /// As [`Trainer::check_weights`].
    pub async fn check_weights_async(&self) -> Result<()> {
        self.health.run_async(&[]).await?;
        if is_finite(&self.health.read_async("norm").await?) {
            return Ok(());
        }
        for slot in self.step.layout().parameters() {
            self.check_weight(&slot.name, &self.weights.download_async(&slot.master()).await?)?;
        }
        Err(too_large())
    }

    fn check_weight(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
        let Some(at) = values.iter().position(|x| !x.is_finite()) else { return Ok(()) };
        let message = format!(
            "element {at} is {} after step {}. Load other weights, or resume from the last checkpoint",
            values[at], self.state.step
        );
        Err(Error::NonFinite { what: format!("the weight \"{name}\""), message })
    }

    /// Refuses a loss that is not finite, and gradients that were not for too many steps.
    pub(super) fn check_finite(&self, step: u64, report: &StepReport) -> Result<()> {
        if !report.loss.is_finite() {
            let message = format!(
                "it is {} at step {step}, so this step changed no weights. Resume from the last checkpoint with a lower \
                 learning rate, a longer warm-up or a smaller max_norm",
                report.loss
            );
            return Err(Error::NonFinite { what: "the loss".into(), message });
        }
        let scaled = self.step.options().loss_scaling.is_some();
        let most = if scaled { MAX_SKIPPED_SCALED } else { MAX_SKIPPED };
        if report.skipped_in_row < most {
            return Ok(());
        }
        let message = format!(
            "{most} consecutive steps up to step {step} were skipped because of it; the loss is {}. Resume from the last \
             checkpoint with a lower learning rate, or train in f32",
            report.loss
        );
        Err(Error::NonFinite { what: "the norm of the gradients".into(), message })
    }

    /// The mean loss over held-out batches, without dropout.
    ///
    /// # Errors
    /// [`Error::Input`] if there are no batches, or one does not fit the model's inputs; [`Error::NonFinite`]; [`Error::DeviceLost`].
    pub fn evaluate(&mut self, held_out: &[HeldOut]) -> Result<f64> {
        let weights: f64 = held_out.iter().map(|batch| batch.weight).sum();
        if weights.is_nan() || weights <= 0.0 {
            return Err(Error::input("held-out data", "it is empty: hold out more text, or do not evaluate"));
        }
        let mut sum = 0.0;
        let mut in_flight: VecDeque<(Readback, f64)> = VecDeque::new();
        let mut collect = |(readback, weight): (Readback, f64)| -> Result<()> {
            sum += weight * readback.wait_with(|bytes| f64::from(bytemuck::pod_read_unaligned::<f32>(&bytes[..4])))?;
            Ok(())
        };
        for batch in held_out {
            let program = &self.sizes[fitting(&self.sizes, &batch.feeds)].evaluation;
            for (name, bytes) in &batch.feeds {
                program.write(name, bytes)?;
            }
            let readbacks = program.run_reading(&["loss"])?;
            in_flight.extend(readbacks.into_iter().map(|readback| (readback, batch.weight)));
            if in_flight.len() > EVALUATIONS_IN_FLIGHT {
                in_flight.pop_front().map_or(Ok(()), &mut collect)?;
            }
        }
        in_flight.into_iter().try_for_each(collect)?;
        // Evaluation is not training time.
        self.mark = None;
        let loss = sum / weights;
        if loss.is_finite() {
            return Ok(loss);
        }
        let message = format!(
            "it is {loss} after step {}. Resume from the last checkpoint with a lower learning rate or a longer warm-up",
            self.state.step
        );
        Err(Error::NonFinite { what: "the held-out loss".into(), message })
    }
}
