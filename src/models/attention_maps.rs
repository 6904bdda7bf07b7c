//! The probabilities of attention of a text.

use super::{Model, TokenInputs};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::nn::Context;
use crate::ops;
use crate::program::{Program, Weights};
use derive_setters::Setters;

const ENCODER: &str = "encoder";
const DECODER: &str = "decoder";
/// How blocks call attention to an encoder's states.
const CROSS: &str = "cross_attention";

/// The texts that a model reads.
#[derive(Clone, Copy, Debug, Default, Setters)]
#[setters(prefix = "with_", strip_option)]
pub struct AttentionText<'a> {
    /// Its tokens; of a model of two sides those of the encoder.
    pub ids: &'a [u32],
    /// The tokens of the decoder of a model of two sides; empty: its encoder is looked at alone.
    pub decoder_ids: &'a [u32],
}

/// The probabilities of the heads of an attention.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct AttentionMap {
    /// The layer, as the graph calls it.
    pub layer: String,
    /// Heads.
    pub heads: usize,
    /// Tokens that look.
    pub queries: usize,
    /// Tokens that are looked at.
    pub keys: usize,
    /// Whether those that look are the decoder's.
    pub decoder_queries: bool,
    /// Whether those that are looked at are the decoder's.
    pub decoder_keys: bool,
    /// How much each query looks at each key, (heads, queries, keys); rows sum to 1.
    #[serde(skip)]
    pub weights: Vec<f32>,
}

impl AttentionMap {
    /// The probabilities of a head, (queries, keys).
    #[must_use]
    pub fn head(&self, head: usize) -> &[f32] {
        let size = self.queries * self.keys;
        self.weights.get(head * size..(head + 1) * size).unwrap_or_default()
    }
}

/// Runs a text through a model and gives the probabilities of all its attentions, which [`ops::attention_weights`] adds to the graph.
///
/// # Errors
/// [`Error::Input`] if a text is empty or too long, or the model picks tokens (recursions); those of the run.
pub fn attention_maps(
    gpu: &Gpu,
    model: &dyn Model,
    weights: &Weights,
    text: AttentionText<'_>,
) -> Result<Vec<AttentionMap>> {
    let most = model.dimensions().max_position;
    let longest = text.ids.len().max(text.decoder_ids.len());
    if text.ids.is_empty() || longest > most {
        return Err(Error::input("text", format!("it has {longest} tokens, and the model reads 1 to {most}")));
    }
    if model.stacks().iter().any(|stack| stack.recursion.is_some()) {
        let message = "its recursions pick tokens, so that its attention is not one of the text's tokens";
        return Err(Error::input("model", message));
    }
    let mut g = Graph::with_storage(weights.storage());
    let ids = g.input("ids", [1, text.ids.len()], DType::U32)?;
    let inputs = TokenInputs::new(&mut g, ids)?;
    match (model.encoder(), model.decoder()) {
        (Some(encoder), Some(decoder)) => {
            let states = g.scope(ENCODER, |g| encoder.encode(g, &inputs))?.states;
            if !text.decoder_ids.is_empty() {
                let ids = g.input("decoder_ids", [1, text.decoder_ids.len()], DType::U32)?;
                let context = Context::States { states, key_mask: None };
                let inputs = TokenInputs::new(&mut g, ids)?.with_context(context);
                g.scope(DECODER, |g| decoder.decode(g, &inputs))?;
            }
        }
        (Some(encoder), None) => drop(g.scope(ENCODER, |g| encoder.encode(g, &inputs))?),
        (None, Some(decoder)) => drop(g.scope(DECODER, |g| decoder.decode(g, &inputs))?),
        (None, None) => return Err(Error::input("model", "it has neither an encoder nor a decoder")),
    }
    let found = ops::attention_weights(&mut g)?;
    for (number, attention) in found.iter().enumerate() {
        g.output(&number.to_string(), attention.weights)?;
    }
    let program = Program::new(gpu, &g, weights)?;
    for (name, words) in [("ids", text.ids), ("decoder_ids", text.decoder_ids)] {
        if program.has_input(name) {
            program.write(name, bytemuck::cast_slice(words))?;
        }
    }
    program.run()?;
    let mut maps: Vec<AttentionMap> = Vec::new();
    for (number, attention) in found.into_iter().enumerate() {
        let [_, heads, queries, keys] = g.shape(attention.weights).expect("attention weights")?;
        let layer = attention.label.strip_suffix(".attention").unwrap_or(&attention.label);
        // Families of two sides name them as well.
        let twice = [ENCODER, DECODER]
            .iter()
            .find_map(|side| layer.strip_prefix(&format!("{side}.")).filter(|rest| rest.starts_with(side)));
        let layer = twice.unwrap_or(layer).to_owned();
        let decoder_queries = layer.starts_with(DECODER);
        let decoder_keys = decoder_queries && !layer.ends_with(CROSS);
        let weights = program.read_f32(&number.to_string())?;
        maps.push(AttentionMap { layer, heads, queries, keys, decoder_queries, decoder_keys, weights });
    }
    Ok(maps)
}
