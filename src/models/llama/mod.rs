//! Llama, and the families that are a Llama with differences ([`LlamaFamily`]).

mod config;
mod family;
mod layers;
mod table;
mod write;

pub use family::LlamaFamily;
pub use layers::{Multipliers, Sliding};

use crate::models::causal::{CausalFamily, CausalParts};
use crate::models::mixture::Mixture;
use crate::models::{Dimensions, Naming};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, GATED, Heads, LinearConfig, Mask, NormKind, NormNames, NormOrder,
    QkNorm, QkvNames, Recursion, Stack,
};
use crate::ops::{Activation, RopeOptions};
use family::QkNorms;
use serde_json::Value;

/// The gate and up projections as one layer, and the down projection.
const FUSED_GATED: [&str; 3] = ["gate_up_proj", "gate_up_proj", "down_proj"];

/// A Llama decoder: rotary positions, RMS norm in front of each half of a block, grouped queries, gated feed-forward; with the differences of
/// its family. Those that no `config.json` can change, such as norms of queries and keys, go by [`Llama::family`] alone.
///
/// In training, `attention_dropout` is applied, and Phi-3's `resid_pdrop`.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama {
    /// Whose keys and differences it has.
    pub family: LlamaFamily,
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
    /// The token of padding, whose embedding learns nothing from being looked up.
    pub padding: Option<u32>,
    /// Whether the projections to queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether the projection behind attention has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward network has biases.
    pub mlp_bias: bool,
    /// The rotary positions.
    pub rope: RopeOptions,
    /// Those of layers whose tokens see only so many, where they differ.
    pub local_rope: Option<RopeOptions>,
    /// Layers without rotary positions.
    pub no_rope: Vec<usize>,
    /// Factors of embeddings, scores, residual sums and logits.
    pub multipliers: Multipliers,
    /// The soft cap of scores.
    pub score_cap: Option<f32>,
    /// The soft cap of logits.
    pub logit_cap: Option<f32>,
    /// The limit of queries, keys and values.
    pub clip: Option<f32>,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The rate of dropout on the results of attention and feed-forward network.
    pub residual_dropout: f32,
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

    fn norm(&self) -> NormKind {
        let eps = self.epsilon;
        if self.family.traits().is_gemma { NormKind::RmsPlusOne { eps } } else { NormKind::Rms { eps } }
    }

    fn qk_norm(&self) -> Option<QkNorm> {
        let over_all_heads = match self.family.traits().qk_norm {
            QkNorms::None => return None,
            QkNorms::Heads => false,
            QkNorms::AllHeads => true,
        };
        Some(QkNorm { names: ["q_norm", "k_norm"], norm: self.norm(), over_all_heads })
    }

    fn block(&self, layer: usize) -> Block {
        let both = self.family.traits().both_norms;
        let [attention_norm, feed_forward_norm] = match both {
            true => [
                NormNames { norm: "input_layernorm", post_norm: "post_attention_layernorm" },
                NormNames { norm: "pre_feedforward_layernorm", post_norm: "post_feedforward_layernorm" },
            ],
            false => ["input_layernorm".into(), "post_attention_layernorm".into()],
        };
        let window = self.sliding.as_ref().filter(|sliding| sliding.layers.contains(&layer));
        let rope = self.local_rope.as_ref().filter(|_| window.is_some()).unwrap_or(&self.rope);
        let qkv = match self.family.traits().is_phi {
            true => QkvNames::Fused("qkv_proj"),
            false => QkvNames::Separate(["q_proj", "k_proj", "v_proj"]),
        };
        Block {
            prefix: format!("model.layers.{layer}"),
            norm: self.norm(),
            order: if both { NormOrder::Both } else { NormOrder::Pre },
            attention_norm,
            attention: Attention {
                output_linear: LinearConfig::out_in(self.output_bias).with_std(self.output_std()),
                qk_norm: self.qk_norm(),
                clip: self.clip,
                rotary: if self.no_rope.contains(&layer) { None } else { Some(rope.clone()) },
                scale: self.multipliers.scores,
                soft_cap: self.score_cap,
                window: window.map(|sliding| sliding.size),
                dropout: self.attention_dropout,
                ..Attention::new(
                    ("self_attn", qkv, "o_proj"),
                    LinearConfig::out_in(self.attention_bias).with_std(self.init_std),
                    self.heads,
                    Mask::Causal,
                )
            },
            cross: None,
            feed_forward_norm,
            feed_forward: self.feed_forward(layer),
            parallel: false,
            dropout: self.residual_dropout,
            activation_dropout: 0.0,
            residual_scale: self.multipliers.residual,
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
                names: if self.family.traits().is_phi { FUSED_GATED } else { GATED },
                d_ff: self.d_ff,
                activation,
                linear: LinearConfig::out_in(self.mlp_bias).with_std(self.init_std),
                output_linear: LinearConfig::out_in(self.mlp_bias).with_std(self.output_std()),
            },
        }
    }
}

impl CausalFamily for Llama {
    fn written(&self) -> Value {
        self.to_config()
    }

    /// The blocks, as their weights are stored.
    fn stack(&self) -> Stack {
        let recursion = self.recursion.clone().map(|recursion| Recursion { std: self.init_std, ..recursion });
        let stored = recursion.as_ref().map_or(self.layers, Recursion::stored);
        let blocks = (0..stored).map(|layer| self.block(layer)).collect();
        let balance = self.mixture.as_ref().map_or_else(Balance::default, |mixture| mixture.balance);
        let final_norm = Some((self.norm(), "model.norm".into()));
        Stack { blocks, recursion, final_norm, balance, salt: 0 }
    }

    fn parts(&self) -> CausalParts {
        const WORDS: &str = "model.embed_tokens.weight";
        CausalParts {
            dimensions: Dimensions {
                vocabulary: self.vocabulary,
                max_position: self.max_position,
                d_model: self.d_model,
                layers: self.layers,
            },
            longest: "max_position_embeddings",
            naming: Naming {
                base: "model.",
                // Old checkpoints have rotary frequencies; a run without a warm-up of recursions may go on from one that had it.
                ignored: &[".rotary_emb.inv_freq", nn::CAPACITY_STEP],
                tied: &[("lm_head.weight", WORDS)],
                ..Naming::default()
            },
            words: WORDS,
            padding: self.padding,
            scale: self.multipliers.embedding,
            positions: None,
            dropout: 0.0,
            head: if self.tied { WORDS } else { "lm_head.weight" },
            logit_scale: self.multipliers.logits,
            logit_cap: self.logit_cap,
            std: self.init_std,
        }
    }
}
