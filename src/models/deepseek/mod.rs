//! DeepSeek-V3: DeepSeek-AI, arXiv 2412.19437.

mod config;
mod mscale;

use crate::models::causal::{CausalFamily, CausalParts};
use crate::models::{Dimensions, Naming};
use crate::nn::{
    Attention, Balance, Block, Experts, FeedForward, GATED, Latent, LinearConfig, Mask, NormKind, NormOrder, QkvNames,
    Stack,
};
use crate::ops::{Activation, RopeOptions};
use serde_json::Value;

/// A DeepSeek-V3 decoder: latent attention ([`Latent`]), RMS norm in front of each half of a block, dense blocks first and experts behind them,
/// which a sigmoid of the router scores and a bias that does not weigh them helps to choose, in groups.
///
/// Caches hold keys and values by head, not the few features that they are made of. In training, `attention_dropout` is applied, and
/// [`Balance::bias_rate`] moves the bias.
#[derive(Clone, Debug, PartialEq)]
pub struct DeepSeek {
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
    /// The sizes of attention.
    pub latent: Latent,
    /// Features inside a dense feed-forward network.
    pub d_ff: usize,
    /// Blocks with a dense feed-forward network, from the first on.
    pub dense_layers: usize,
    /// The experts of the others.
    pub experts: Experts,
    /// Load balancing.
    pub balance: Balance,
    /// The activation of gates.
    pub activation: Activation,
    /// Added to the mean square in RMS norms.
    pub epsilon: f32,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// The token of padding, whose embedding learns nothing from being looked up.
    pub padding: Option<u32>,
    /// Whether the layers to the few features, and the projection behind attention, have biases.
    pub attention_bias: bool,
    /// The rotary positions.
    pub rope: RopeOptions,
    /// YaRN's `mscale_all_dim`, with which scores are multiplied by `(0.1 · mscale_all_dim · ln(factor) + 1)²`; 0: by nothing.
    pub score_mscale: f32,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The standard deviation of fresh weights.
    pub init_std: f64,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl DeepSeek {
    fn block(&self, layer: usize) -> Block {
        let output_std = self.init_std / (2.0 * self.layers as f64).sqrt();
        let linear = LinearConfig::out_in(self.attention_bias).with_std(self.init_std);
        let names = ("self_attn", QkvNames::Latent(self.latent), "o_proj");
        let std = [self.init_std, output_std];
        let feed_forward = match layer < self.dense_layers {
            true => FeedForward::Gated {
                module: "mlp",
                names: GATED,
                d_ff: self.d_ff,
                activation: self.activation,
                linear: LinearConfig::out_in(false).with_std(self.init_std),
                output_linear: LinearConfig::out_in(false).with_std(output_std),
            },
            false => {
                FeedForward::Experts { experts: self.experts.clone(), activation: self.activation, choice: None, std }
            }
        };
        Block {
            prefix: format!("model.layers.{layer}"),
            norm: NormKind::Rms { eps: self.epsilon },
            order: NormOrder::Pre,
            attention_norm: "input_layernorm".into(),
            attention: Attention {
                output_linear: linear.with_std(output_std),
                rotary: Some(self.rope.clone()),
                scale: Some(self.scale()),
                dropout: self.attention_dropout,
                ..Attention::new(names, linear, self.latent.heads(self.heads), Mask::Causal)
            },
            cross: None,
            feed_forward_norm: "post_attention_layernorm".into(),
            feed_forward,
            parallel: false,
            dropout: 0.0,
            activation_dropout: 0.0,
            residual_scale: 1.0,
        }
    }

    /// The factor of scores.
    fn scale(&self) -> f32 {
        let factor = f64::from(self.rope.scaling.factor());
        let all = if factor > 1.0 { 0.1 * f64::from(self.score_mscale) * factor.ln() + 1.0 } else { 1.0 };
        (all * all / (self.latent.key_dim() as f64).sqrt()) as f32
    }
}

impl CausalFamily for DeepSeek {
    fn written(&self) -> Value {
        self.to_config()
    }

    fn stack(&self) -> Stack {
        let final_norm = Some((NormKind::Rms { eps: self.epsilon }, "model.norm".into()));
        let blocks = (0..self.layers).map(|layer| self.block(layer)).collect();
        Stack { blocks, recursion: None, final_norm, balance: self.balance, salt: 0 }
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
                ignored: &[".rotary_emb.inv_freq"],
                tied: &[("lm_head.weight", WORDS)],
                ..Naming::default()
            },
            words: WORDS,
            padding: self.padding,
            scale: 1.0,
            positions: None,
            dropout: 0.0,
            head: if self.tied { WORDS } else { "lm_head.weight" },
            logit_scale: 1.0,
            logit_cap: None,
            std: self.init_std,
        }
    }
}
