//! `NomicBERT`: Nussbaum et al., "Nomic Embed: training a reproducible long context text embedder", arXiv 2402.01613.

mod config;
mod graph;

use crate::error::Result;
use crate::graph::{Graph, Initial, Tensor};
use crate::models::{Dimensions, Encoder, EncoderHead, Model, Naming, TokenInputs};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames, Stack,
};
use crate::ops::{self, Activation, RopeOptions};
use serde_json::Value;

/// A `NomicBERT` encoder: rotary positions, layer norm behind each half of a block, gated feed-forward networks, no biases but those of norms and
/// heads.
///
/// In training, the three rates of dropout are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct NomicBert {
    /// Whose keys its `config.json` has.
    pub spelling: NomicSpelling,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub max_position: usize,
    /// Token types (segments of a text); 0: none.
    pub types: usize,
    /// Features of a hidden state.
    pub d_model: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Features inside a feed-forward network.
    pub d_ff: usize,
    /// The activation of the gate of a feed-forward network, and of the head of a language model.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub epsilon: f32,
    /// The rotary positions.
    pub rope: RopeOptions,
    /// The rate of dropout on embeddings and on the results of attention and feed-forward network.
    pub dropout: f32,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The rate of dropout in front of classes.
    pub classifier_dropout: f32,
    /// The token of padding, whose embedding learns nothing from being looked up.
    pub padding: Option<u32>,
    /// Its head.
    pub head: EncoderHead,
    /// Whether a model without a head has the pooler.
    pub pooler: bool,
    /// Whether the head of a language model has biases.
    pub head_bias: bool,
    /// The standard deviation of fresh weights.
    pub init_std: f64,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

/// Whose keys the `config.json` of a [`NomicBert`] has, and what its heads call the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NomicSpelling {
    /// Those of transformers (`hidden_size`).
    Transformers,
    /// Those of the files that Nomic published, which are GPT-2's (`n_embd`).
    Published,
}

impl NomicBert {
    /// The prefix of the names of all weights but the head's.
    fn base(&self) -> &'static str {
        match (self.head, self.spelling) {
            (EncoderHead::None, _) => "",
            (_, NomicSpelling::Transformers) => "nomic_bert.",
            (_, NomicSpelling::Published) => "bert.",
        }
    }

    fn norm(&self) -> NormKind {
        NormKind::Layer { eps: self.epsilon }
    }

    fn linear(&self, bias: bool) -> LinearConfig {
        LinearConfig::out_in(bias).with_std(self.init_std)
    }

    fn block(&self, layer: usize) -> Block {
        let heads = Heads { query: self.heads, key_value: self.heads, head_dim: self.d_model / self.heads };
        let names = ("attn", QkvNames::Fused("Wqkv"), "out_proj");
        Block {
            prefix: format!("{}encoder.layers.{layer}", self.base()),
            norm: self.norm(),
            order: NormOrder::Post,
            attention_norm: "norm1".into(),
            attention: Attention {
                rotary: Some(self.rope.clone()),
                dropout: self.attention_dropout,
                ..Attention::new(names, self.linear(false), heads, Mask::Bidirectional)
            },
            cross: None,
            feed_forward_norm: "norm2".into(),
            feed_forward: FeedForward::Gated {
                module: "mlp",
                names: ["fc12", "fc11", "fc2"],
                d_ff: self.d_ff,
                activation: self.activation,
                linear: self.linear(false),
                output_linear: self.linear(false),
            },
            parallel: false,
            residual_scale: 1.0,
            dropout: self.dropout,
            activation_dropout: 0.0,
        }
    }

    fn embeddings(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Tensor> {
        let name = |name: &str| format!("{}{name}", self.base());
        let (std, table) = (self.init_std, [self.vocabulary, self.d_model]);
        let words = g.matrix(&name("embeddings.word_embeddings.weight"), table, Initial::Normal(std))?;
        let mut x = ops::embedding_with_padding(g, words, inputs.ids, self.padding)?;
        if self.types > 0 {
            let types = inputs.types_or_first(g);
            let table = [self.types, self.d_model];
            let types = nn::embedding(g, &name("embeddings.token_type_embeddings"), types, table, std)?;
            x = ops::add(g, x, types)?;
        }
        let x = self.norm().apply(g, &name("emb_ln"), x)?;
        nn::dropout(g, x, self.dropout, inputs.dropout_seed, 0)
    }
}

impl Model for NomicBert {
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
        let tied = match self.spelling {
            NomicSpelling::Transformers => TIED[0],
            NomicSpelling::Published => TIED[1],
        };
        // Biases of the last layer of a language model: the files that Nomic published have one name, transformers' the other.
        let aliases = &[("cls.predictions.bias", "cls.predictions.decoder.bias")];
        Naming { base: self.base(), tied, aliases, ..Naming::default() }
    }

    fn stacks(&self) -> Vec<Stack> {
        vec![Stack {
            blocks: (0..self.layers).map(|layer| self.block(layer)).collect(),
            recursion: None,
            final_norm: None,
            balance: Balance::default(),
            salt: 0,
        }]
    }

    fn dropout_rates(&self) -> Vec<f32> {
        vec![self.dropout, self.classifier_dropout]
    }

    fn adapt_to_tensors(&mut self, has: &dyn Fn(&str) -> bool) {
        self.pooler = has(&format!("{}.weight", graph::POOLER));
        self.head_bias = has(&format!("{}.bias", graph::TRANSFORM)) || !has(&format!("{}.weight", graph::TRANSFORM));
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}

/// Copies of the table of words that files may have: of both spellings.
const TIED: [&[(&str, &str)]; 2] = [
    &[("cls.predictions.decoder.weight", "nomic_bert.embeddings.word_embeddings.weight")],
    &[("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight")],
];
