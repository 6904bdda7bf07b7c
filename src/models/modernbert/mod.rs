//! `ModernBERT`: Warner et al., "Smarter, better, faster, longer: a modern bidirectional encoder for fast, memory efficient, and long context
//! finetuning and inference", arXiv 2412.13663.

mod config;
mod graph;

use crate::error::Result;
use crate::graph::{Graph, Initial, Tensor};
use crate::models::{Dimensions, Encoder, EncoderHead, Model, Naming, TokenInputs};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, LinearConfig, LinearUse, Mask, NormKind, NormOrder, QkvNames,
    Stack,
};
use crate::ops::{self, Activation, RopeOptions};
use serde_json::Value;

/// A `ModernBERT` encoder: layer norm in front of each half of a block but the first, rotary positions, gated feed-forward networks,
/// and layers that see all tokens between layers that see the near ones.
///
/// In training, the four rates of dropout are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct ModernBert {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub max_position: usize,
    /// Features of a hidden state.
    pub d_model: usize,
    /// Attention heads.
    pub heads: usize,
    /// Features inside a feed-forward network.
    pub d_ff: usize,
    /// Whether each layer sees near tokens only.
    pub local: Vec<bool>,
    /// Tokens in sight of a local layer: half of them on each side.
    pub local_attention: usize,
    /// The rotary positions of layers that see all tokens, and of local ones.
    pub rope: [RopeOptions; 2],
    /// The activation of the feed-forward networks.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub epsilon: f32,
    /// Whether norms, attention, feed-forward networks, the layer in front of a head's last, and the last layer of a language model have biases.
    pub biases: ModernBertBiases,
    /// The activation in front of a head's norm.
    pub classifier_activation: Activation,
    /// Whether classes of texts come of the mean of their tokens' states, not of the first one.
    pub mean_pooling: bool,
    /// The rate of dropout on embeddings.
    pub embedding_dropout: f32,
    /// The rate of dropout on attention probabilities, and on attention's result.
    pub attention_dropout: f32,
    /// The rate of dropout inside feed-forward networks.
    pub mlp_dropout: f32,
    /// The rate of dropout in front of classes.
    pub classifier_dropout: f32,
    /// The token of padding, whose embedding learns nothing from being looked up.
    pub padding: Option<u32>,
    /// Its head.
    pub head: EncoderHead,
    /// Whether the last layer of a language model is the embedding table.
    pub tied: bool,
    /// The standard deviation of fresh weights, but of those whose results are added to others.
    pub init_std: f64,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

/// Which layers of a [`ModernBert`] have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModernBertBiases {
    /// Norms.
    pub norm: bool,
    /// The projections of attention.
    pub attention: bool,
    /// Feed-forward networks.
    pub mlp: bool,
    /// The layer in front of a head's last one.
    pub classifier: bool,
    /// The last layer of a language model.
    pub decoder: bool,
}

impl ModernBert {
    fn base(&self) -> &'static str {
        if self.head == EncoderHead::None { "" } else { "model." }
    }

    fn norm(&self) -> NormKind {
        match self.biases.norm {
            true => NormKind::Layer { eps: self.epsilon },
            false => NormKind::LayerGain { eps: self.epsilon },
        }
    }

    /// The standard deviation of fresh layers whose results are added to others.
    fn out_std(&self) -> f64 {
        self.init_std / (2.0 * self.local.len() as f64).sqrt()
    }

    fn block(&self, layer: usize, local: bool) -> Block {
        let linear = |bias: bool, std: f64| LinearConfig::out_in(bias).with_std(std);
        let heads = Heads { query: self.heads, key_value: self.heads, head_dim: self.d_model / self.heads };
        let (biases, names) = (self.biases, ("attn", QkvNames::Fused("Wqkv"), "Wo"));
        let projections = linear(biases.attention, self.init_std);
        Block {
            prefix: format!("{}layers.{layer}", self.base()),
            norm: self.norm(),
            order: NormOrder::Pre,
            // Embeddings come out of a norm.
            attention_norm: if layer == 0 { "" } else { "attn_norm" }.into(),
            attention: Attention {
                output_linear: linear(biases.attention, self.out_std()),
                rotary: Some(self.rope[usize::from(local)].clone()),
                window: local.then_some(self.local_attention / 2),
                dropout: self.attention_dropout,
                output_dropout: Some(self.attention_dropout),
                ..Attention::new(names, projections, heads, Mask::Bidirectional)
            },
            cross: None,
            feed_forward_norm: "mlp_norm".into(),
            feed_forward: FeedForward::Gated {
                module: "mlp",
                names: ["Wi", "Wi", "Wo"],
                d_ff: self.d_ff,
                activation: self.activation,
                linear: linear(biases.mlp, self.init_std),
                output_linear: linear(biases.mlp, self.out_std()),
            },
            parallel: false,
            residual_scale: 1.0,
            dropout: 0.0,
            activation_dropout: self.mlp_dropout,
        }
    }

    fn embeddings(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Tensor> {
        let name = format!("{}embeddings", self.base());
        let table = [self.vocabulary, self.d_model];
        let table = g.matrix(&format!("{name}.tok_embeddings.weight"), table, Initial::Normal(self.init_std))?;
        let x = ops::embedding_with_padding(g, table, inputs.ids, self.padding)?;
        let x = self.norm().apply(g, &format!("{name}.norm"), x)?;
        nn::dropout(g, x, self.embedding_dropout, inputs.dropout_seed, 0)
    }

    /// What goes into the last layer of a head.
    fn transform(&self, g: &mut Graph, states: Tensor) -> Result<Tensor> {
        let linear = LinearConfig::out_in(self.biases.classifier).with_std(self.out_std());
        let with = LinearUse { activation: Some(self.classifier_activation), lengths: None };
        g.scope("transform", |g| {
            let x = nn::linear_with(g, "head.dense", states, self.d_model, linear, with)?;
            self.norm().apply(g, "head.norm", x)
        })
    }
}

impl Model for ModernBert {
    fn config(&self) -> Value {
        self.to_config()
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions {
            vocabulary: self.vocabulary,
            max_position: self.max_position,
            d_model: self.d_model,
            layers: self.local.len(),
        }
    }

    fn naming(&self) -> Naming {
        let tied = &[("decoder.weight", "model.embeddings.tok_embeddings.weight")];
        Naming { base: self.base(), tied, ..Naming::default() }
    }

    fn stacks(&self) -> Vec<Stack> {
        vec![Stack {
            blocks: self.local.iter().enumerate().map(|(layer, local)| self.block(layer, *local)).collect(),
            recursion: None,
            final_norm: Some((self.norm(), format!("{}final_norm", self.base()))),
            balance: Balance::default(),
            salt: 0,
        }]
    }

    fn dropout_rates(&self) -> Vec<f32> {
        vec![self.embedding_dropout, self.classifier_dropout]
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}
