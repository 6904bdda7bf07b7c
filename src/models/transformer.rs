//! Encoders, decoders and both on one plan: Vaswani et al., "Attention is all you need", arXiv 1706.03762, and what BART and Marian
//! change of it. Families are ways to read a `config.json` into it.

use super::mixture::Mixture;
use super::{Decoder, Dimensions, Encoder, EncoderHead, Head, Hidden, Initial, Inputs, Model, bart, plain, sides};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Storage, Tensor};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames, Recursion,
    Stack,
};
use crate::ops::{self, Activation, WeightLayout};
use serde_json::Value;

/// Whose keys and names a [`Transformer`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformerFamily {
    /// This project's own.
    Plain,
    /// BART's.
    Bart,
    /// Marian's.
    Marian,
}

/// Where positions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// A table that is learned, whose first rows, so many of them, stand for nothing.
    Learned {
        /// The number of these rows.
        offset: usize,
    },
    /// Sines and cosines in turn, as the paper has them.
    Sinusoidal,
    /// All sines in front of the cosines, as Marian has them.
    SinusoidalHalves,
}

/// A side of a [`Transformer`].
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Layers, those that recur counted as often as they are used.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// The width of the feed-forward network.
    pub d_ff: usize,
    /// Experts in place of the feed-forward networks.
    pub mixture: Option<Mixture>,
    /// In an encoder experts may choose their tokens: how many a token has on average.
    pub expert_choice: Option<f32>,
    /// Layers that are used several times.
    pub recursion: Option<Recursion>,
}

/// A transformer with an encoder, a decoder or both, which share one table of words.
///
/// In training, dropout is applied to embeddings, the results of all parts, attention probabilities and inside feed-forward networks.
#[derive(Clone, Debug, PartialEq)]
pub struct Transformer {
    /// The family whose keys and names it has.
    pub family: TransformerFamily,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub max_position: usize,
    /// The width of hidden states.
    pub d_model: usize,
    /// The side that reads a text as a whole.
    pub encoder: Option<Side>,
    /// The side that continues a text.
    pub decoder: Option<Side>,
    /// The activation of feed-forward networks.
    pub activation: Activation,
    /// Where the norms of a block stand.
    pub order: NormOrder,
    /// Whether there is a norm behind the last block of a side.
    pub final_norm: bool,
    /// Whether there is a norm behind the embeddings.
    pub embedding_norm: bool,
    /// Whether embeddings are multiplied by the root of their width.
    pub scale_embedding: bool,
    /// Where positions come from.
    pub positions: Positions,
    /// Added to the variance in norms.
    pub epsilon: f32,
    /// The rate of dropout on embeddings and results of parts.
    pub dropout: f32,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The rate of dropout inside feed-forward networks.
    pub inner_dropout: f32,
    /// The token of padding, whose embedding learns nothing from being looked up.
    pub padding: Option<u32>,
    /// The token that answers begin with.
    pub start: Option<u32>,
    /// Whether logits get a bias that does not learn, `final_logits_bias`.
    pub logits_bias: bool,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// The standard deviation of fresh weights.
    pub deviation: f64,
    /// How matrices lie in GPU memory.
    pub storage: Storage,
    pub(super) extra: Vec<(String, Value)>,
}

impl Transformer {
    fn norm(&self) -> NormKind {
        NormKind::Layer { eps: self.epsilon }
    }

    fn attention(&self, module: &'static str, heads: usize, mask: Mask) -> Attention {
        Attention {
            module,
            qkv: QkvNames::Separate(["q_proj", "k_proj", "v_proj"]),
            output: "out_proj",
            linear: LinearConfig::out_in(true),
            output_linear: LinearConfig::out_in(true),
            heads: Heads { query: heads, key_value: heads, width: self.d_model / heads },
            scale: None,
            mask,
            rotary: None,
            relative: None,
            dropout: self.attention_dropout,
        }
    }

    fn feed_forward(&self, side: &Side, layer: usize) -> FeedForward {
        let activation = self.activation;
        match side.mixture.as_ref().filter(|mixture| !mixture.dense_layers.contains(&layer)) {
            Some(mixture) => {
                FeedForward::Experts { experts: mixture.experts.clone(), activation, choice: side.expert_choice }
            }
            None => {
                let linear = LinearConfig::out_in(true);
                FeedForward::Plain { names: ["fc1", "fc2"], d_ff: side.d_ff, activation, linear }
            }
        }
    }

    fn stack(&self, side: &Side, decodes: bool) -> Stack {
        let name = if decodes { "decoder" } else { "encoder" };
        let mask = if decodes { Mask::Causal } else { Mask::Bidirectional };
        let cross = || {
            let attention = self.attention("encoder_attn", side.heads, Mask::Bidirectional);
            ("encoder_attn_layer_norm".into(), attention)
        };
        let block = |layer: usize| Block {
            prefix: format!("model.{name}.layers.{layer}"),
            norm: self.norm(),
            order: self.order,
            attention_norm: "self_attn_layer_norm".into(),
            attention: self.attention("self_attn", side.heads, mask),
            cross: (decodes && self.encoder.is_some()).then(cross),
            feed_forward_norm: "final_layer_norm".into(),
            feed_forward: self.feed_forward(side, layer),
            parallel: false,
            dropout: self.dropout,
            inner_dropout: self.inner_dropout,
        };
        let stored = side.recursion.as_ref().map_or(side.layers, Recursion::stored);
        Stack {
            blocks: (0..stored).map(block).collect(),
            recursion: side.recursion.clone(),
            final_norm: self.final_norm.then(|| (self.norm(), format!("model.{name}.layer_norm"))),
            balance: side.mixture.as_ref().map_or_else(Balance::default, |mixture| mixture.balance),
            salt: if decodes { sides::DECODER_SALT } else { 0 },
        }
    }

    /// Words and positions.
    fn embeddings(&self, g: &mut Graph, name: &str, inputs: &Inputs, salt: u32) -> Result<Tensor> {
        let table = g.matrix("model.shared.weight", [self.vocabulary, self.d_model])?;
        let mut x = ops::embedding_with_padding(g, table, inputs.ids, self.padding)?;
        if self.scale_embedding {
            x = ops::scale(g, x, (self.d_model as f32).sqrt())?;
        }
        let (count, width) = (self.max_position, self.d_model);
        let positions = match self.positions {
            Positions::Learned { offset } => {
                let table = g.matrix(&format!("model.{name}.embed_positions.weight"), [count + offset, width])?;
                let ids = ops::shift_ids(g, inputs.positions, offset as u32)?;
                ops::embedding(g, table, ids)?
            }
            Positions::Sinusoidal | Positions::SinusoidalHalves => {
                let shape = [inputs.max_position, width];
                let table = match self.positions {
                    Positions::Sinusoidal => ops::sinusoidal_table(shape[0], shape[1])?,
                    _ => ops::sinusoidal_table_halves(shape[0], shape[1])?,
                };
                let table = g.constant("sinusoids", table, DType::F32);
                ops::embedding(g, table, inputs.positions)?
            }
        };
        x = ops::add(g, x, positions)?;
        if self.embedding_norm {
            x = self.norm().apply(g, &format!("model.{name}.layernorm_embedding"), x)?;
        }
        nn::dropout(g, x, self.dropout, inputs.dropout_seed, 2 * salt)
    }

    /// The states of a side.
    fn run(&self, g: &mut Graph, side: Option<&Side>, decodes: bool, inputs: &Inputs) -> Result<Hidden> {
        let name = if decodes { "decoder" } else { "encoder" };
        let side = side.ok_or_else(|| Error::Graph(format!("this model has no {name}")))?;
        inputs.check(self.max_position, "max_position_embeddings")?;
        g.set_storage(&self.storage);
        let stack = self.stack(side, decodes);
        let run = |g: &mut Graph| {
            let x = g.scope("embedding", |g| self.embeddings(g, name, inputs, stack.salt))?;
            stack.run(g, x, inputs)
        };
        // A model of one side has the names of one.
        if self.encoder.is_some() && self.decoder.is_some() { g.scope(name, run) } else { run(g) }
    }

    fn sides(&self) -> impl Iterator<Item = (&Side, bool)> {
        self.encoder.iter().map(|side| (side, false)).chain(self.decoder.iter().map(|side| (side, true)))
    }

    fn table_head(&self, g: &mut Graph) -> Result<Head> {
        g.set_storage(&self.storage);
        let name = if self.tied { "model.shared.weight" } else { "lm_head.weight" };
        let weight = g.matrix(name, [self.vocabulary, self.d_model])?;
        let bias = match self.logits_bias {
            true => {
                let bias = g.parameter("final_logits_bias", [1, self.vocabulary], DType::F32)?;
                let bias = ops::detach(g, bias)?;
                Some(ops::reshape(g, bias, [self.vocabulary])?)
            }
            false => None,
        };
        Ok(Head { weight, bias, layout: WeightLayout::OutIn })
    }
}

impl Model for Transformer {
    fn config(&self) -> Value {
        let mut config = match self.family {
            TransformerFamily::Plain => plain::write(self),
            family => bart::write(self, family),
        };
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }

    fn dimensions(&self) -> Dimensions {
        let layers = self.sides().map(|(side, _)| side.layers).sum();
        Dimensions { vocabulary: self.vocabulary, positions: self.max_position, width: self.d_model, layers }
    }

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn set_storage(&mut self, storage: Storage) {
        self.storage = storage;
    }

    fn fit(&mut self, has: &dyn Fn(&str) -> bool) {
        self.logits_bias = has("final_logits_bias");
    }

    fn declare(&self, g: &mut Graph) -> Result<()> {
        if self.encoder.is_some() && self.decoder.is_some() {
            return sides::declare(self, self, g);
        }
        let ids = g.input("ids", [1, 1], DType::U32)?;
        let inputs = Inputs::new(g, ids)?;
        match self.decoder {
            Some(_) => self.hidden(g, &inputs)?,
            None => self.encode(g, &inputs)?,
        };
        self.table_head(g).map(|_| ())
    }

    fn drops(&self) -> bool {
        let noisy = |(side, _): (&Side, bool)| side.mixture.as_ref().is_some_and(|mixture| mixture.experts.noisy);
        [self.dropout, self.attention_dropout, self.inner_dropout].iter().any(|rate| *rate > 0.0)
            || self.sides().any(noisy)
    }

    fn initial(&self, parameter: &str) -> Initial {
        if parameter.ends_with("bias") || parameter.ends_with(nn::CAPACITY_STEP) {
            Initial::Zeros
        } else if parameter.ends_with("norm.weight") || parameter.ends_with("layernorm_embedding.weight") {
            Initial::Ones
        } else {
            Initial::Normal(self.deviation)
        }
    }

    fn ways(&self, router: &str) -> usize {
        let sides = || self.sides().map(|(side, _)| side);
        if let Some(recursion) = sides().find_map(|side| side.recursion.as_ref()).filter(|_| router == "depth") {
            return recursion.recursions * recursion.modules();
        }
        sides().find_map(|side| side.mixture.as_ref()).map_or(1, |mixture| mixture.experts.count)
    }

    fn base_prefix(&self) -> &'static str {
        "model."
    }

    fn ignores(&self, tensor: &str) -> bool {
        // Copies of the table, and tables that are computed.
        let sinusoids =
            tensor.ends_with("coder.embed_positions.weight") && !matches!(self.positions, Positions::Learned { .. });
        tensor.ends_with("coder.embed_tokens.weight")
            || (self.tied && tensor == "lm_head.weight")
            || sinusoids
            || tensor.ends_with(nn::CAPACITY_STEP)
    }

    fn forward_flops(&self, context: usize) -> u64 {
        let side = |(side, decodes): (&Side, bool)| {
            let stack = self.stack(side, decodes);
            let uses = side.layers as u64;
            sides::flops(&stack, self.d_model, context) * uses / (stack.blocks.len() as u64).max(1)
        };
        self.sides().map(side).sum::<u64>() + 2 * (self.vocabulary * self.d_model) as u64
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        self.encoder.as_ref().map(|_| self as &dyn Encoder)
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        self.decoder.as_ref().map(|_| self as &dyn Decoder)
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        if self.decoder.is_some() { Some(self) } else { None }
    }
}

impl Encoder for Transformer {
    fn head_kind(&self) -> EncoderHead {
        EncoderHead::MaskedLanguageModel
    }

    fn encode(&self, g: &mut Graph, inputs: &Inputs) -> Result<Hidden> {
        self.run(g, self.encoder.as_ref(), false, inputs)
    }

    fn language_head(&self, g: &mut Graph, states: Tensor) -> Result<(Tensor, Head)> {
        Ok((states, self.table_head(g)?))
    }
}

impl Decoder for Transformer {
    fn hidden(&self, g: &mut Graph, inputs: &Inputs) -> Result<Hidden> {
        self.run(g, self.decoder.as_ref(), true, inputs)
    }

    fn head(&self, g: &mut Graph) -> Result<Head> {
        self.table_head(g)
    }

    fn start(&self) -> Option<u32> {
        self.start.filter(|_| self.encoder.is_some())
    }

    fn keep_context(&self, g: &mut Graph, states: Tensor, capacity: usize) -> Result<()> {
        match &self.decoder {
            Some(side) => self.stack(side, true).keep_context(g, states, capacity),
            None => Err(Error::Graph("this model has no decoder".into())),
        }
    }
}
