//! Llama: Touvron et al., arXiv 2302.13971 and 2307.09288; Grattafiori et al., arXiv 2407.21783.

mod config;

use crate::error::Result;
use crate::graph::Graph;
use crate::models::mixture::Mixture;
use crate::models::{Decoder, Dimensions, Hidden, LmHead, Model, Naming, TokenInputs};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, GATED, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames,
    Recursion, Stack,
};
use crate::ops::{Activation, RopeOptions};
use serde_json::Value;

/// Layers whose tokens see themselves and those in front of them, so many in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sliding {
    /// How many.
    pub size: usize,
    /// The layers.
    pub layers: Vec<usize>,
}

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
    /// Layers whose tokens see only so many.
    pub sliding: Option<Sliding>,
    /// Layers that are used several times.
    pub recursion: Option<Recursion>,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl Llama {
    /// The standard deviation of fresh projections back to the residual stream.
    fn output_std(&self) -> f64 {
        self.init_std / (2.0 * self.layers as f64).sqrt()
    }

    /// The blocks, as their weights are stored.
    fn stack(&self) -> Stack {
        let recursion = self.recursion.clone().map(|recursion| Recursion { std: self.init_std, ..recursion });
        let stored = recursion.as_ref().map_or(self.layers, Recursion::stored);
        let blocks = (0..stored).map(|layer| self.block(layer)).collect();
        let balance = self.mixture.as_ref().map_or_else(Balance::default, |mixture| mixture.balance);
        let final_norm = Some((NormKind::Rms { eps: self.epsilon }, "model.norm".into()));
        Stack { blocks, recursion, final_norm, balance, salt: 0 }
    }

    fn block(&self, layer: usize) -> Block {
        let window = self.sliding.as_ref().filter(|sliding| sliding.layers.contains(&layer));
        Block {
            prefix: format!("model.layers.{layer}"),
            norm: NormKind::Rms { eps: self.epsilon },
            order: NormOrder::Pre,
            attention_norm: "input_layernorm".into(),
            attention: Attention {
                output_linear: LinearConfig::out_in(self.output_bias).with_std(self.output_std()),
                rotary: Some(self.rope.clone()),
                window: window.map(|sliding| sliding.size),
                dropout: self.attention_dropout,
                ..Attention::new(
                    ("self_attn", QkvNames::Separate(["q_proj", "k_proj", "v_proj"]), "o_proj"),
                    LinearConfig::out_in(self.attention_bias).with_std(self.init_std),
                    self.heads,
                    Mask::Causal,
                )
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
            Some(mixture) => {
                let experts = mixture.experts.clone();
                FeedForward::Experts { experts, activation, choice: None, std: [self.init_std, self.output_std()] }
            }
            None => FeedForward::Gated {
                module: "mlp",
                names: GATED,
                d_ff: self.d_ff,
                activation,
                linear: LinearConfig::out_in(self.mlp_bias).with_std(self.init_std),
                output_linear: LinearConfig::out_in(self.mlp_bias).with_std(self.output_std()),
            },
        }
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

    fn naming(&self) -> Naming {
        Naming {
            base: "model.",
            // Old checkpoints have rotary frequencies; a run without a warm-up of recursions may go on from one that had it.
            ignored: &[".rotary_emb.inv_freq", nn::CAPACITY_STEP],
            tied: &[("lm_head.weight", "model.embed_tokens.weight")],
            ..Naming::default()
        }
    }

    fn stacks(&self) -> Vec<Stack> {
        vec![self.stack()]
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        Some(self)
    }
}

impl Decoder for Llama {
    fn decode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        inputs.check(self.max_position, "max_position_embeddings")?;
        let table = [self.vocabulary, self.d_model];
        let x = g.scope("embedding", |g| nn::embedding(g, "model.embed_tokens", inputs.ids, table, self.init_std))?;
        self.stack().run(g, x, inputs)
    }

    fn lm_head(&self, g: &mut Graph) -> Result<LmHead> {
        let name = if self.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        LmHead::new(g, name, [self.vocabulary, self.d_model], self.init_std)
    }
}
