//! Hidden states, to be used as they are.

use super::{Shapes, Task, TaskGraph, encoder, text};
use crate::error::Result;
use crate::graph::Graph;
use crate::models::Model;
use crate::nn::KvSource;
use crate::ops::{self, Choice, SelectOptions};

/// The states of an encoder without a head: `last_hidden_state (B, T, C)`. The loss is the mean square of the states of real tokens,
/// padding, which is on the right, counting as zero.
#[derive(Debug)]
pub(super) struct Embedding;

impl Task for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn labels(&self) -> &'static [&'static str] {
        &[]
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, training: bool) -> Result<TaskGraph> {
        let inputs = text(g, shapes, training)?;
        let states = encoder(model)?.encode(g, &inputs)?.states;
        let mut real = states;
        if let KvSource::Whole { key_mask: Some(mask) } = inputs.kv {
            let counts = ops::select(g, mask, Choice::Between { low: 1, high: u32::MAX }, &SelectOptions::default())?;
            real = ops::mask_rows(g, states, counts.counts)?;
        }
        let squares = ops::mul(g, real, real)?;
        let loss = ops::mean(g, squares)?;
        Ok(TaskGraph { outputs: vec![("last_hidden_state".into(), states)], routing: Vec::new(), loss })
    }
}
