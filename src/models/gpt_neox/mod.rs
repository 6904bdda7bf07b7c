//! GPT-NeoX: Black et al., arXiv 2204.06745; Pythia: Biderman et al., arXiv 2304.01373.

mod config;

use crate::models::causal::{CausalFamily, CausalParts};
use crate::models::{Dimensions, Naming};
use crate::nn::{
    Attention, Balance, Block, FeedForward, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames, Stack,
};
use crate::ops::{Activation, RopeOptions};
use serde_json::Value;

/// A GPT-NeoX decoder: rotary positions of a part of each head, layer norms, attention and feed-forward network side by side or one behind the
/// other, one projection for q, k and v.
///
/// In training, `attention_dropout` is applied, and `hidden_dropout` to embeddings and to the results of both parts.
#[derive(Clone, Debug, PartialEq)]
pub struct GptNeoX {
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
    /// Whether the projections of attention have biases.
    pub attention_bias: bool,
    /// Whether attention and feed-forward network read the same states.
    pub parallel: bool,
    /// The rotary positions.
    pub rope: RopeOptions,
    /// The rate of dropout on embeddings, and on the results of attention and feed-forward network.
    pub dropout: f32,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The standard deviation of fresh weights.
    pub init_std: f64,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl GptNeoX {
    fn block(&self, layer: usize) -> Block {
        let heads = Heads { query: self.heads, key_value: self.heads, head_dim: self.d_model / self.heads };
        let output_std = self.init_std / (2.0 * self.layers as f64).sqrt();
        let linear = LinearConfig::out_in(self.attention_bias).with_std(self.init_std);
        let names = ("attention", QkvNames::Interleaved("query_key_value"), "dense");
        Block {
            prefix: format!("gpt_neox.layers.{layer}"),
            norm: NormKind::Layer { eps: self.epsilon },
            order: NormOrder::Pre,
            attention_norm: "input_layernorm".into(),
            attention: Attention {
                output_linear: linear.with_std(output_std),
                rotary: Some(self.rope.clone()),
                dropout: self.attention_dropout,
                ..Attention::new(names, linear, heads, Mask::Causal)
            },
            cross: None,
            feed_forward_norm: "post_attention_layernorm".into(),
            feed_forward: FeedForward::Plain {
                names: ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
                d_ff: self.d_ff,
                activation: self.activation,
                linear: LinearConfig::out_in(true).with_std(self.init_std),
                output_linear: LinearConfig::out_in(true).with_std(output_std),
            },
            parallel: self.parallel,
            dropout: self.dropout,
            activation_dropout: 0.0,
            residual_scale: 1.0,
        }
    }
}

impl CausalFamily for GptNeoX {
    fn written(&self) -> Value {
        self.to_config()
    }

    fn stack(&self) -> Stack {
        let final_norm = Some((NormKind::Layer { eps: self.epsilon }, "gpt_neox.final_layer_norm".into()));
        let blocks = (0..self.layers).map(|layer| self.block(layer)).collect();
        Stack { blocks, recursion: None, final_norm, balance: Balance::default(), salt: 0 }
    }

    fn parts(&self) -> CausalParts {
        const WORDS: &str = "gpt_neox.embed_in.weight";
        CausalParts {
            dimensions: Dimensions {
                vocabulary: self.vocabulary,
                max_position: self.max_position,
                d_model: self.d_model,
                layers: self.layers,
            },
            longest: "max_position_embeddings",
            naming: Naming {
                base: "gpt_neox.",
                // The causal mask and rotary frequencies, which old checkpoints have.
                ignored: &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
                aliases: &[("embed_out.weight", "lm_head.weight")],
                // The newer name of a head that is not tied is an alias.
                tied: if self.tied { &[("embed_out.weight", WORDS), ("lm_head.weight", WORDS)] } else { &[] },
                in_out: false,
            },
            words: WORDS,
            padding: None,
            scale: 1.0,
            positions: None,
            dropout: self.dropout,
            head: if self.tied { WORDS } else { "embed_out.weight" },
            logit_scale: 1.0,
            logit_cap: None,
            std: self.init_std,
        }
    }
}
