//! Saves and resumes a trainer. A resumed run is bit-identical to one that was never interrupted.
//!
//! Tensors are stored by name, in f32, whatever the layout in memory: `model.safetensors` has the weights in the usual format (the f32
//! masters, if the model reads half-precision copies; each expert separately), `optimizer.safetensors` the moments.

use super::Schedule;
use super::layout::{ParameterSlot, Range};
use super::run::RunState;
use super::step::{STATE, StepOptions};
use super::trainer::Trainer;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::checkpoint::Loaded;
use crate::io::{Checkpoint, Checkpoints, NamedTensor, Tensors};
use crate::models::file_tensors;
use crate::ops::{CastHalf, OptimizerControl};
use crate::program::pack;
use crate::shape::TensorType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// The ranges of moments, and the prefix of their names.
const MOMENTS: [(Range, &str); 2] = [(Range::FirstMoment, "first_moment."), (Range::SecondMoment, "second_moment.")];

/// The content of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    run: RunState,
    options: StepOptions,
    /// The schedule of the learning rate. Checkpoints of the first versions lack it and the seed.
    #[serde(default)]
    schedule: Option<Schedule>,
    /// The seed of dropout: with the step, the only randomness of a run besides the order of the data.
    #[serde(default)]
    seed: Option<u64>,
    /// The position of the data.
    data: Value,
}

impl Trainer {
    /// Saves everything that a resumed run needs, with the data's position and small files of the caller. Take all reports first, so that only
    /// finite values are saved.
    ///
    /// # Errors
    /// Those of [`Checkpoints::save`]; [`Error::DeviceLost`].
    pub fn save(&self, checkpoints: &Checkpoints, data: &Value, files: &[(String, Vec<u8>)]) -> Result<PathBuf> {
        let model = self.named(Range::Parameters, "");
        let mut optimizer: Vec<NamedTensor<'_>> =
            MOMENTS.iter().flat_map(|(range, prefix)| self.named(*range, prefix)).collect();
        let state = self.weights.download(STATE)?;
        optimizer.push(NamedTensor::new(STATE, TensorType::f32([OptimizerControl::STATE]), state));
        let saved = Saved {
            run: self.state,
            options: self.step.options().clone(),
            schedule: Some(self.schedule),
            seed: Some(self.run.seed),
            data: data.clone(),
        };
        let state = serde_json::to_value(saved).map_err(|e| Error::input("the state of the run", e.to_string()))?;
        let step = self.state.step;
        checkpoints.save(&Checkpoint { step, model: &model, optimizer: &optimizer, state: &state, files })
    }

    /// Continues from a checkpoint with its seed; returns the data's position. Options and schedule are the trainer's; a difference from the
    /// checkpoint's, which changes the run, is logged as a warning.
    ///
    /// # Errors
    /// [`Error::Format`] if the checkpoint belongs to another model; [`Error::NonFinite`] if a weight in it is not finite.
    pub fn resume(&mut self, loaded: &Loaded) -> Result<Value> {
        let saved: Saved = serde_json::from_value(loaded.state.clone())
            .map_err(|e| Error::format(&loaded.path, format!("state.json is not from a training run: {e}")))?;
        if saved.options != *self.step.options() {
            log::warn!("the run continues with options other than before: {:?}", saved.options);
        }
        if let Some(before) = saved.schedule.filter(|before| *before != self.schedule) {
            log::warn!("the run continues with another schedule: {before:?} before, {:?} now", self.schedule);
        }
        self.upload(Range::Parameters, &loaded.model, "")?;
        for (range, prefix) in MOMENTS {
            self.upload(range, &loaded.optimizer, prefix)?;
        }
        let shape = TensorType::f32([OptimizerControl::STATE]);
        let mut state = loaded.optimizer.expect_shape(STATE, &shape.shape)?.to_words(DType::F32)?;
        if saved.options.loss_scaling.is_some() != self.step.options().loss_scaling.is_some() {
            // The loss scale and its steps have no meaning for the other kind of run, so they start again.
            state[..2 * size_of::<f32>()].fill(0);
        }
        self.weights.upload(STATE, &state)?;
        self.run.seed = saved.seed.unwrap_or(self.run.seed);
        self.state = saved.run;
        Ok(saved.data)
    }

    /// The tensors of the flat ranges of a kind, by name, each read back when it is written.
    fn named(&self, range: Range, prefix: &str) -> Vec<NamedTensor<'_>> {
        let piece = |shard: usize, (name, ty, offset): (String, TensorType, usize)| {
            let first = offset as u64 * 4;
            let part = first..first + ty.bytes();
            let bytes = move || self.weights.download_part(&range.name(shard), part.clone());
            NamedTensor::later(format!("{prefix}{name}"), ty, bytes)
        };
        let shards = self.step.layout().shards.iter().enumerate();
        let pieces = shards
            .flat_map(|(index, shard)| shard.parameters.iter().flat_map(pieces).map(move |part| piece(index, part)));
        pieces.collect()
    }

    /// Fills the flat ranges of a kind from named tensors, also the half-precision copies of parameters.
    fn upload(&self, range: Range, tensors: &Tensors, prefix: &str) -> Result<()> {
        for (index, shard) in self.step.layout().shards.iter().enumerate() {
            let mut flat = vec![0_u8; shard.total * 4];
            for (name, ty, offset) in shard.parameters.iter().flat_map(pieces) {
                let name = format!("{prefix}{name}");
                let words = tensors.expect_shape(&name, &ty.shape)?.to_words(DType::F32)?;
                if words.chunks_exact(4).any(|w| !f32::from_le_bytes([w[0], w[1], w[2], w[3]]).is_finite()) {
                    let message = format!(
                        "{} contains a NaN or an infinity: resume from an older checkpoint",
                        tensors.path().display()
                    );
                    return Err(Error::NonFinite { what: name, message });
                }
                flat[offset * 4..offset * 4 + words.len()].copy_from_slice(&words);
            }
            self.weights.upload(&range.name(index), &flat)?;
            if let (Range::Parameters, Some(dtype), true) = (range, self.step.layout().half_type, shard.half > 0) {
                let cast = CastHalf { dtype };
                let masters = flat[..shard.half * 4].chunks_exact(4);
                let halves: Vec<f64> =
                    masters.map(|w| cast.round(f64::from(f32::from_le_bytes([w[0], w[1], w[2], w[3]])))).collect();
                self.weights.upload(&Range::Half.name(index), &pack(&halves, dtype))?;
            }
        }
        Ok(())
    }
}

/// The tensors of a parameter in a file, with their offsets in the flat range in elements.
fn pieces(slot: &ParameterSlot) -> Vec<(String, TensorType, usize)> {
    let mut offset = slot.offset;
    let parts = file_tensors(&slot.name, &TensorType::f32(slot.ty.shape.clone())).into_iter();
    parts
        .map(|(name, ty)| {
            let first = offset;
            offset += ty.shape.numel();
            (name, ty, first)
        })
        .collect()
}
