//! Llama: Touvron et al., arXiv 2302.13971 and 2307.09288; Grattafiori et al., arXiv 2407.21783.

mod config;

use crate::error::Result;
use crate::graph::Graph;
use crate::models::mixture::Mixture;
use crate::models::model::declare_decoder;
use crate::models::recursive;
use crate::models::{Decoder, Dimensions, Hidden, Initial, LmHead, Model, TokenInputs};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, GATED, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames,
    Recursion, Stack,
};
use crate::ops::{Activation, RopeOptions, WeightLayout};
use serde_json::Value;
use std::ops::Range;

/// A Llama decoder: rotary positions, RMS norm in front of each half of a block, grouped queries, gated feed-forward.
///
/// In training, `attention_dropout` is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub max_position: usize,
    /// Features of a hidden state.
    pub d_model: usize,
    /// Layers.
    pub layers: usize,
    /// The attention heads.
    pub heads: Heads,
    /// Features inside a feed-forward network.
    pub d_ff: usize,
    /// The activation of the gate.
    pub activation: Activation,
    /// Added to the mean square in RMS norms.
    pub epsilon: f32,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// Whether the projections to queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether the projection behind attention has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward network has biases.
    pub mlp_bias: bool,
    /// The rotary positions.
    pub rope: RopeOptions,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The standard deviation of fresh weights.
    pub init_std: f64,
    /// Experts in place of the feed-forward networks.
    pub mixture: Option<Mixture>,
    /// Layers that are used several times.
    pub recursion: Option<Recursion>,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl Llama {
    /// Layers that are stored.
    fn stored_layers(&self) -> usize {
        self.recursion.as_ref().map_or(self.layers, Recursion::stored)
    }

    /// The blocks, as their weights are stored.
    fn stack(&self) -> Stack {
        let blocks = (0..self.stored_layers()).map(|layer| self.block(layer)).collect();
        let balance = self.mixture.as_ref().map_or_else(Balance::default, |mixture| mixture.balance);
        let final_norm = Some((NormKind::Rms { eps: self.epsilon }, "model.norm".into()));
        Stack { blocks, recursion: self.recursion.clone(), final_norm, balance, salt: 0 }
    }

    fn block(&self, layer: usize) -> Block {
        Block {
            prefix: format!("model.layers.{layer}"),
            norm: NormKind::Rms { eps: self.epsilon },
            order: NormOrder::Pre,
            attention_norm: "input_layernorm".into(),
            attention: Attention {
                module: "self_attn",
                qkv: QkvNames::Separate(["q_proj", "k_proj", "v_proj"]),
                output: "o_proj",
                linear: LinearConfig::out_in(self.attention_bias),
                output_linear: LinearConfig::out_in(self.output_bias),
                heads: self.heads,
                scale: None,
                mask: Mask::Causal,
                rotary: Some(self.rope),
                relative: None,
                window: None,
                soft_cap: None,
                dropout: self.attention_dropout,
            },
            cross: None,
            feed_forward_norm: "post_attention_layernorm".into(),
            feed_forward: self.feed_forward(layer),
            parallel: false,
            dropout: 0.0,
            activation_dropout: 0.0,
        }
    }

    fn feed_forward(&self, layer: usize) -> FeedForward {
        let activation = self.activation;
        match self.mixture.as_ref().filter(|mixture| !mixture.dense_layers.contains(&layer)) {
            Some(mixture) => FeedForward::Experts { experts: mixture.experts.clone(), activation, choice: None },
            None => {
                let (module, linear) = ("mlp", LinearConfig::out_in(self.mlp_bias));
                FeedForward::Gated { module, names: GATED, d_ff: self.d_ff, activation, linear }
            }
        }
    }

    /// The floating-point operations of so many layers for one token that sees `context` keys.
    fn layer_flops(&self, layers: usize, context: usize) -> u64 {
        let (query, key_value) = (self.heads.query * self.heads.head_dim, self.heads.key_value * self.heads.head_dim);
        let attention = layers * 2 * self.d_model * (query + key_value);
        let feed_forward: usize =
            (0..layers).map(|layer| self.feed_forward(layer).active_parameters(self.d_model)).sum();
        2 * (attention + feed_forward) as u64 + 4 * (layers * query * context) as u64
    }
}

impl Model for Llama {
    fn config(&self) -> Value {
        self.to_config()
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions {
            vocabulary: self.vocabulary,
            max_position: self.max_position,
            d_model: self.d_model,
            layers: self.layers,
        }
    }

    fn declare(&self, g: &mut Graph) -> Result<()> {
        declare_decoder(self, g)
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        Some(self)
    }

    fn has_dropout(&self) -> bool {
        self.attention_dropout > 0.0 || self.mixture.as_ref().is_some_and(|mixture| mixture.experts.noisy)
    }

    fn initial(&self, parameter: &str) -> Initial {
        if parameter.ends_with("bias") || parameter.ends_with(nn::CAPACITY_STEP) {
            Initial::Zeros
        } else if parameter.ends_with("norm.weight") {
            Initial::Ones
        } else if ["o_proj.weight", "down_proj.weight", "w2.weight"].iter().any(|last| parameter.ends_with(last)) {
            Initial::Normal(self.init_std / (2.0 * self.layers as f64).sqrt())
        } else {
            Initial::Normal(self.init_std)
        }
    }

    fn num_choices(&self, router: &str) -> usize {
        if let Some(recursion) = self.recursion.as_ref().filter(|_| router == "depth") {
            return recursion.recursions * recursion.modules();
        }
        self.mixture.as_ref().map_or(1, |mixture| mixture.experts.count)
    }

    fn base_prefix(&self) -> &'static str {
        "model."
    }

    fn ignores(&self, tensor: &str) -> bool {
        // Old checkpoints store the rotary frequencies, and tied ones may store the table twice; a run without a warm-up of
        // recursions may go on from one that had it.
        tensor.ends_with(".rotary_emb.inv_freq")
            || tensor.ends_with(nn::CAPACITY_STEP)
            || (self.tied && tensor == "lm_head.weight")
    }

    fn idle(&self, parameter: &str) -> Vec<Range<usize>> {
        (0..self.stored_layers()).flat_map(|layer| self.block(layer).idle(parameter)).collect()
    }

    fn forward_flops(&self, context: usize) -> u64 {
        let layers = |layers: usize, context: usize| self.layer_flops(layers, context);
        let head = 2 * (self.vocabulary * self.d_model) as u64;
        head + match &self.recursion {
            Some(recursion) => recursive::flops(recursion, context, layers),
            None => layers(self.layers, context),
        }
    }
}

impl Decoder for Llama {
    fn decode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        inputs.check(self.max_position, "max_position_embeddings")?;
        let table = [self.vocabulary, self.d_model];
        let x = g.scope("embedding", |g| nn::embedding(g, "model.embed_tokens", inputs.ids, table))?;
        self.stack().run(g, x, inputs)
    }

    fn lm_head(&self, g: &mut Graph) -> Result<LmHead> {
        let name = if self.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let weight = g.matrix(name, [self.vocabulary, self.d_model])?;
        Ok(LmHead { weight, bias: None, layout: WeightLayout::OutIn })
    }
}
