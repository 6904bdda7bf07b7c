//! T5: Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer", arXiv 1910.10683;
//! mT5: Xue et al., arXiv 2010.11934.

mod config;

use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::models::{Decoder, Dimensions, Encoder, EncoderHead, Hidden, Initial, LmHead, Model, TokenInputs, sides};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames,
    RelativeBias, RelativeBuckets, Stack,
};
use crate::ops::{self, Activation, WeightLayout};
use serde_json::Value;

/// A T5 encoder-decoder: RMS norm in front of each part of a block, no biases, scores without a scale but with a bias by distance
/// that all layers of a side share.
///
/// In training, `dropout_rate` is applied to embeddings, attention probabilities, the results of all parts, inside feed-forward
/// networks and behind the last norms.
#[derive(Clone, Debug, PartialEq)]
pub struct T5 {
    /// Its `model_type`: t5 or mt5.
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
    /// Whether what goes into the head is divided by the root of `d_model`.
    pub scaled: bool,
    /// What fresh weights are multiplied by.
    pub factor: f64,
    /// The token that answers begin with.
    pub start: u32,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl T5 {
    fn norm(&self) -> NormKind {
        NormKind::Rms { eps: self.epsilon }
    }

    fn attention(&self, module: &'static str, mask: Mask, relative: Option<RelativeBias>) -> Attention {
        Attention {
            module,
            qkv: QkvNames::Separate(["q", "k", "v"]),
            output: "o",
            linear: LinearConfig::out_in(false),
            output_linear: LinearConfig::out_in(false),
            heads: Heads { query: self.heads, key_value: self.heads, head_dim: self.head_dim },
            scale: Some(1.0),
            mask,
            rotary: None,
            relative,
            window: None,
            soft_cap: None,
            dropout: self.dropout,
        }
    }

    fn stack(&self, side: &'static str) -> Stack {
        let decodes = side == "decoder";
        let (layers, mask) =
            if decodes { (self.decoder_layers, Mask::Causal) } else { (self.layers, Mask::Bidirectional) };
        let relative = RelativeBias::Buckets(RelativeBuckets {
            name: format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
            buckets: self.buckets,
            max_distance: self.max_distance,
            bidirectional: !decodes,
        });
        let (module, norm) = match decodes {
            true => ("layer.2.DenseReluDense", "layer.2.layer_norm"),
            false => ("layer.1.DenseReluDense", "layer.1.layer_norm"),
        };
        let (d_ff, activation, linear) = (self.d_ff, self.activation, LinearConfig::out_in(false));
        let feed_forward = match (self.gated, decodes) {
            (true, _) => FeedForward::Gated { module, names: ["wi_0", "wi_1", "wo"], d_ff, activation, linear },
            (false, true) => {
                let names = ["layer.2.DenseReluDense.wi", "layer.2.DenseReluDense.wo"];
                FeedForward::Plain { names, d_ff, activation, linear }
            }
            (false, false) => {
                let names = ["layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wo"];
                FeedForward::Plain { names, d_ff, activation, linear }
            }
        };
        let cross =
            || ("layer.1.layer_norm".into(), self.attention("layer.1.EncDecAttention", Mask::Bidirectional, None));
        let block = |layer: usize| Block {
            prefix: format!("{side}.block.{layer}"),
            norm: self.norm(),
            order: NormOrder::Pre,
            attention_norm: "layer.0.layer_norm".into(),
            attention: self.attention("layer.0.SelfAttention", mask, Some(relative.clone())),
            cross: decodes.then(cross),
            feed_forward_norm: norm.into(),
            feed_forward: feed_forward.clone(),
            parallel: false,
            dropout: self.dropout,
            activation_dropout: self.dropout,
        };
        Stack {
            blocks: (0..layers).map(block).collect(),
            recursion: None,
            final_norm: Some((self.norm(), format!("{side}.final_layer_norm"))),
            balance: Balance::default(),
            salt: if decodes { sides::DECODER_SALT } else { 0 },
        }
    }

    /// The states of a side.
    fn run(&self, g: &mut Graph, side: &'static str, inputs: &TokenInputs) -> Result<Hidden> {
        let (stack, table, seed) = (self.stack(side), [self.vocabulary, self.d_model], inputs.dropout_seed);
        g.scope(side, |g| {
            let x = g.scope("embedding", |g| nn::embedding(g, "shared", inputs.ids, table))?;
            let x = nn::dropout(g, x, self.dropout, seed, 2 * stack.salt)?;
            let mut hidden = stack.run(g, x, inputs)?;
            hidden.states = nn::dropout(g, hidden.states, self.dropout, seed, sides::LAST_SALT + stack.salt)?;
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
        let layers = self.layers + self.decoder_layers;
        Dimensions { vocabulary: self.vocabulary, max_position: 1 << 16, d_model: self.d_model, layers }
    }

    fn adapt_to_tensors(&mut self, has: &dyn Fn(&str) -> bool) {
        self.tied = !has("lm_head.weight");
    }

    fn declare(&self, g: &mut Graph) -> Result<()> {
        sides::declare(self, self, g)
    }

    fn has_dropout(&self) -> bool {
        self.dropout > 0.0
    }

    fn initial(&self, parameter: &str) -> Initial {
        let scaled = |features: usize| Initial::Normal(self.factor / (features as f64).sqrt());
        if parameter.ends_with("norm.weight") {
            Initial::Ones
        } else if parameter.ends_with(".q.weight") {
            scaled(self.d_model * self.head_dim)
        } else if parameter.ends_with(".o.weight") {
            scaled(self.heads * self.head_dim)
        } else if parameter.ends_with(".wo.weight") {
            scaled(self.d_ff)
        } else if parameter == "shared.weight" || parameter == "lm_head.weight" {
            Initial::Normal(self.factor)
        } else {
            scaled(self.d_model)
        }
    }

    fn base_prefix(&self) -> &'static str {
        ""
    }

    fn ignores(&self, tensor: &str) -> bool {
        // Copies of the table, and a bias that nothing reads.
        tensor.ends_with("coder.embed_tokens.weight")
            || tensor.ends_with("EncDecAttention.relative_attention_bias.weight")
    }

    fn forward_flops(&self, context: usize) -> u64 {
        let (encoder, decoder) = (self.stack("encoder"), self.stack("decoder"));
        let blocks = sides::flops(&encoder, self.d_model, context) + sides::flops(&decoder, self.d_model, context);
        blocks + 2 * (self.vocabulary * self.d_model) as u64
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        Some(self)
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
        let name = if self.tied { "shared.weight" } else { "lm_head.weight" };
        let weight = g.matrix(name, [self.vocabulary, self.d_model])?;
        Ok(LmHead { weight, bias: None, layout: WeightLayout::OutIn })
    }

    fn start_token(&self) -> Option<u32> {
        Some(self.start)
    }

    fn cache_context(&self, g: &mut Graph, states: Tensor, capacity: usize) -> Result<()> {
        self.stack("decoder").cache_context(g, states, capacity)
    }
}
