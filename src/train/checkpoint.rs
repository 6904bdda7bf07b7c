//! A trainer to disk and back: the rest of a resumed run is the same, bit by bit, as if it had never ended.
//!
//! Tensors are stored by name, in f32, whatever the layout in memory: `model.safetensors` has the weights as any tool
//! reads them (the masters, if the model reads half-precision copies; each expert by itself), `optimizer.safetensors` the moments.

use super::Schedule;
use super::layout::{Placed, Range};
use super::step::{STATE, StepOptions};
use super::trainer::{RunState, Trainer};
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

/// The ranges that hold a number for each parameter, and what stands in front of the names.
const MOMENTS: [(Range, &str); 2] = [(Range::FirstMoment, "first_moment."), (Range::SecondMoment, "second_moment.")];

/// What `state.json` holds of a trainer.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    run: RunState,
    options: StepOptions,
    /// The schedule of the learning rate. The first checkpoints lack it and the seed.
    #[serde(default)]
    schedule: Option<Schedule>,
    /// What dropout is seeded with: with the step, all that is random in a run besides the data's order.
    #[serde(default)]
    seed: Option<u64>,
    /// The position of the data.
    data: Value,
}

impl Trainer {
    /// Saves everything that a resumed run needs, with the data's position and small files of the caller. All reports
    /// should have been handed out, so that nothing is saved that was not finite.
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

    /// Goes on from a checkpoint, with its seed; gives the data's position. Options and schedule are the trainer's: that they are
    /// others than those of the checkpoint, so that the run is another, is a warning in the log.
    ///
    /// # Errors
    /// [`Error::Format`] if the checkpoint is of another model; [`Error::NonFinite`] if a weight in it is not finite.
    pub fn resume(&mut self, loaded: &Loaded) -> Result<Value> {
        let saved: Saved = serde_json::from_value(loaded.state.clone())
            .map_err(|e| Error::format(&loaded.path, format!("state.json is not that of a training run: {e}")))?;
        if saved.options != *self.step.options() {
            log::warn!("the run goes on with other options than it had: {:?} before", saved.options);
        }
        if let Some(before) = saved.schedule.filter(|before| *before != self.schedule) {
            log::warn!("the run goes on with another schedule than it had: {before:?} before, {:?} now", self.schedule);
        }
        self.upload(Range::Parameters, &loaded.model, "")?;
        for (range, prefix) in MOMENTS {
            self.upload(range, &loaded.optimizer, prefix)?;
        }
        let shape = TensorType::f32([OptimizerControl::STATE]);
        let mut state = loaded.optimizer.expect_shape(STATE, &shape.shape)?.to_words(DType::F32)?;
        if saved.options.loss_scaling.is_some() != self.step.options().loss_scaling.is_some() {
            // The scale, and the steps since it grew, mean nothing to the other kind of run: they begin again.
            state[..2 * size_of::<f32>()].fill(0);
        }
        self.weights.upload(STATE, &state)?;
        self.run.seed = saved.seed.unwrap_or(self.run.seed);
        self.state = saved.run;
        Ok(saved.data)
    }

    /// The parameters' pieces of the flat ranges of a kind, by name, each read back when it is written.
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

    /// Fills the flat ranges of a kind from named tensors, and the half-precision copies if it is the parameters.
    fn upload(&self, range: Range, tensors: &Tensors, prefix: &str) -> Result<()> {
        for (index, shard) in self.step.layout().shards.iter().enumerate() {
            let mut flat = vec![0_u8; shard.total * 4];
            for (name, ty, offset) in shard.parameters.iter().flat_map(pieces) {
                let name = format!("{prefix}{name}");
                let words = tensors.expect_shape(&name, &ty.shape)?.to_words(DType::F32)?;
                if words.chunks_exact(4).any(|w| !f32::from_le_bytes([w[0], w[1], w[2], w[3]]).is_finite()) {
                    let message =
                        format!("{} holds a NaN or an infinity; go back to an older one", tensors.path().display());
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

/// The tensors that a parameter is in a file, and their places in the flat range in elements.
fn pieces(placed: &Placed) -> Vec<(String, TensorType, usize)> {
    let mut offset = placed.offset;
    let parts = file_tensors(&placed.name, &TensorType::f32(placed.ty.shape.clone())).into_iter();
    parts
        .map(|(name, ty)| {
            let first = offset;
            offset += ty.shape.numel();
            (name, ty, first)
        })
        .collect()
}
