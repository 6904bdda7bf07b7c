//! GPT-2: Radford et al., "Language models are unsupervised multitask learners", 2019.

mod config;

use crate::models::causal::{CausalFamily, CausalParts};
use crate::models::{Dimensions, Naming};
use crate::nn::{
    Attention, Balance, Block, FeedForward, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames, Stack,
};
use crate::ops::Activation;
use serde_json::Value;

/// A GPT-2 decoder: learned positions, layer norm in front of each half of a block, one projection for q, k and v.
///
/// In training, `embd_pdrop`, `resid_pdrop` and `attn_pdrop`, which drops attention probabilities, are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2 {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub max_position: usize,
    /// Features of a hidden state.
    pub d_model: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Features inside a feed-forward network.
    pub d_ff: usize,
    /// The activation of the feed-forward network.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub epsilon: f32,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// Whether scores are divided by the root of the features of a head.
    pub scaled: bool,
    /// Whether scores are divided by the layer's number, counted from 1, as well.
    pub scaled_by_layer: bool,
    /// The rate of dropout on embeddings.
    pub embedding_dropout: f32,
    /// The rate of dropout on the results of attention and feed-forward network.
    pub residual_dropout: f32,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The standard deviation of fresh weights.
    pub init_std: f64,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl Gpt2 {
    fn block(&self, layer: usize) -> Block {
        let head_dim = self.d_model / self.heads;
        let mut scale = if self.scaled { 1.0 / (head_dim as f32).sqrt() } else { 1.0 };
        if self.scaled_by_layer {
            scale /= (layer + 1) as f32;
        }
        let heads = Heads { query: self.heads, key_value: self.heads, head_dim };
        let linear = LinearConfig::in_out(true).with_std(self.init_std);
        let output_linear = linear.with_std(self.init_std / (2.0 * self.layers as f64).sqrt());
        Block {
            prefix: format!("transformer.h.{layer}"),
            norm: NormKind::Layer { eps: self.epsilon },
            order: NormOrder::Pre,
            attention_norm: "ln_1".into(),
            attention: Attention {
                output_linear,
                scale: Some(scale),
                dropout: self.attention_dropout,
                ..Attention::new(("attn", QkvNames::Fused("c_attn"), "c_proj"), linear, heads, Mask::Causal)
            },
            cross: None,
            feed_forward_norm: "ln_2".into(),
            feed_forward: FeedForward::Plain {
                names: ["mlp.c_fc", "mlp.c_proj"],
                d_ff: self.d_ff,
                activation: self.activation,
                linear,
                output_linear,
            },
            parallel: false,
            dropout: self.residual_dropout,
            activation_dropout: 0.0,
            residual_scale: 1.0,
        }
    }
}

impl CausalFamily for Gpt2 {
    fn written(&self) -> Value {
        self.to_config()
    }

    fn stack(&self) -> Stack {
        let final_norm = Some((NormKind::Layer { eps: self.epsilon }, "transformer.ln_f".into()));
        let blocks = (0..self.layers).map(|layer| self.block(layer)).collect();
        Stack { blocks, recursion: None, final_norm, balance: Balance::default(), salt: 0 }
    }

    fn parts(&self) -> CausalParts {
        const WORDS: &str = "transformer.wte.weight";
        CausalParts {
            dimensions: Dimensions {
                vocabulary: self.vocabulary,
                max_position: self.max_position,
                d_model: self.d_model,
                layers: self.layers,
            },
            longest: "n_positions",
            naming: Naming {
                base: "transformer.",
                // The causal mask, which old checkpoints have.
                ignored: &[".attn.bias", ".attn.masked_bias"],
                tied: &[("lm_head.weight", WORDS)],
                in_out: true,
                ..Naming::default()
            },
            words: WORDS,
            padding: None,
            scale: 1.0,
            positions: Some("transformer.wpe.weight"),
            dropout: self.embedding_dropout,
            head: if self.tied { WORDS } else { "lm_head.weight" },
            logit_scale: 1.0,
            logit_cap: None,
            std: self.init_std,
        }
    }
}
