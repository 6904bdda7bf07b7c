//! T5: Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer", arXiv 1910.10683;
//! mT5: Xue et al., arXiv 2010.11934.

mod config;
mod stack;
mod switch;

pub use switch::Switch;

use crate::error::Result;
use crate::graph::{Graph, Initial, Tensor};
use crate::models::{Decoder, Dimensions, Encoder, EncoderHead, Hidden, LmHead, Model, Naming, TokenInputs};
use crate::nn::{self, Stack};
use crate::ops::{self, Activation};
use serde_json::Value;

/// The table of words.
const SHARED: &str = "shared.weight";
/// The salt of dropout after the last block of a side.
const LAST_SALT: u32 = 1 << 27;

/// A T5 encoder-decoder: RMS norm in front of each part of a block, no biases, scores without a scale but with a bias by distance
/// that all layers of a side share.
///
/// In training, `dropout_rate` is applied to embeddings, attention probabilities, the results of all parts, inside feed-forward
/// networks and behind the last norms.
#[derive(Clone, Debug, PartialEq)]
pub struct T5 {
    /// Its `model_type`: t5, mt5 or `switch_transformers`.
    pub family: &'static str,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Features of a hidden state.
    pub d_model: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Features inside a feed-forward network.
    pub d_ff: usize,
    /// Layers of the encoder.
    pub layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Whether it is the encoder alone, `T5EncoderModel`.
    pub encoder_only: bool,
    /// The activation of the feed-forward networks.
    pub activation: Activation,
    /// Whether they are gated.
    pub gated: bool,
    /// Buckets of distances.
    pub buckets: usize,
    /// The distance from which all share a bucket.
    pub max_distance: usize,
    /// Added to the mean square in norms.
    pub epsilon: f32,
    /// The rate of dropout.
    pub dropout: f32,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// Whether each side has a table of words of its own, as in files of a Switch Transformer whose head is not tied.
    pub own_tables: bool,
    /// Whether files have the table of words for both sides beside them, which nothing reads.
    pub unused_shared: bool,
    /// Whether what goes into the head is divided by the root of `d_model`.
    pub scaled: bool,
    /// The experts in some layers, of a Switch Transformer.
    pub switch: Option<Switch>,
    /// The factor of fresh weights.
    pub factor: f64,
    /// The token that answers begin with.
    pub start: u32,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl T5 {
    fn sides(&self) -> &'static [&'static str] {
        if self.encoder_only { &["encoder"] } else { &["encoder", "decoder"] }
    }

    /// The states of a side.
    fn run(&self, g: &mut Graph, side: &'static str, inputs: &TokenInputs) -> Result<Hidden> {
        let (stack, table, seed) = (self.stack(side), [self.vocabulary, self.d_model], inputs.dropout_seed);
        if self.unused_shared {
            g.matrix(SHARED, table, Initial::Normal(self.factor))?;
        }
        let words = if self.own_tables { format!("{side}.embed_tokens.weight") } else { SHARED.to_owned() };
        g.scope(side, |g| {
            let x = g.scope("embedding", |g| {
                let table = g.matrix(&words, table, Initial::Normal(self.factor))?;
                ops::embedding(g, table, inputs.ids)
            })?;
            let x = nn::dropout(g, x, self.dropout, seed, 2 * stack.salt)?;
            let mut hidden = stack.run(g, x, inputs)?;
            hidden.states = nn::dropout(g, hidden.states, self.dropout, seed, LAST_SALT + stack.salt)?;
            Ok(hidden)
        })
    }
}

impl Model for T5 {
    fn config(&self) -> Value {
        self.to_config()
    }

    fn dimensions(&self) -> Dimensions {
        // Distances have no end; caches have.
        let layers = self.layers + if self.encoder_only { 0 } else { self.decoder_layers };
        Dimensions { vocabulary: self.vocabulary, max_position: 1 << 16, d_model: self.d_model, layers }
    }

    fn naming(&self) -> Naming {
        Naming {
            // A bias that nothing reads.
            ignored: &["EncDecAttention.relative_attention_bias.weight"],
            tied: &[("encoder.embed_tokens.weight", SHARED), ("decoder.embed_tokens.weight", SHARED)],
            ..Naming::default()
        }
    }

    fn stacks(&self) -> Vec<Stack> {
        self.sides().iter().map(|side| self.stack(side)).collect()
    }

    fn adapt_to_tensors(&mut self, has: &dyn Fn(&str) -> bool) {
        if !self.encoder_only {
            self.tied = !has("lm_head.weight");
        }
        let own = || self.sides().iter().all(|side| has(&format!("{side}.embed_tokens.weight")));
        // Older files of the other families have copies there.
        if self.switch.is_some() && !self.tied && own() {
            self.own_tables = true;
            self.unused_shared = has(SHARED);
        }
    }

    fn frozen(&self) -> Vec<String> {
        if self.unused_shared { vec![SHARED.into()] } else { Vec::new() }
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        if self.encoder_only { None } else { Some(self) }
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        if self.encoder_only { None } else { Some(self) }
    }
}

impl Encoder for T5 {
    fn head_kind(&self) -> EncoderHead {
        EncoderHead::None
    }

    fn encode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        self.run(g, "encoder", inputs)
    }
}

impl Decoder for T5 {
    fn decode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        let mut hidden = self.run(g, "decoder", inputs)?;
        if self.scaled {
            hidden.states = ops::scale(g, hidden.states, 1.0 / (self.d_model as f32).sqrt())?;
        }
        Ok(hidden)
    }

    fn lm_head(&self, g: &mut Graph) -> Result<LmHead> {
        let name = if self.tied { SHARED } else { "lm_head.weight" };
        LmHead::new(g, name, [self.vocabulary, self.d_model], self.factor)
    }

    fn start_token(&self) -> Option<u32> {
        Some(self.start)
    }

    fn cache_context(&self, g: &mut Graph, states: Tensor, capacity: usize) -> Result<()> {
        self.stack("decoder").cache_context(g, states, capacity)
    }
}
