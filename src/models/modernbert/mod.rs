//! `ModernBERT`: Warner et al., "Smarter, better, faster, longer: a modern bidirectional encoder for fast, memory efficient, and long context
//! finetuning and inference", arXiv 2412.13663.

mod config;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Initial, Tensor};
use crate::models::{Dimensions, Encoder, EncoderHead, Hidden, LmHead, Model, Naming, TokenInputs};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, KvSource, LinearConfig, LinearUse, Mask, NormKind, NormOrder,
    QkvNames, Stack,
};
use crate::ops::{self, Activation, RopeOptions};
use serde_json::Value;

/// The salt of dropout after the blocks.
const HEAD_SALT: u32 = 1 << 24;

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

/// The mean of the states `(B, T, C)` of real tokens, `(B, C)`.
fn mean_states(g: &mut Graph, states: Tensor, inputs: &TokenInputs) -> Result<Tensor> {
    let [batch, time, width] = g.shape(states).expect("states")?;
    let ones = |g: &mut Graph| g.constant("ones", Array::from_fn([batch, time], |_| 1.0), DType::U32);
    let mask = match inputs.kv {
        KvSource::Uncached { key_mask: Some(mask) } => mask,
        KvSource::Packed { lengths: Some(lengths) } => {
            let ones = ones(g);
            ops::fill_rows(g, ones, lengths, 0)?
        }
        _ => ones(g),
    };
    // A softmax of scores that are all 0, or far below, gives each real token the same share.
    let scores = g.constant("scores", Array::new([2, 1], vec![-1e9, 0.0])?, DType::F32);
    let scores = ops::embedding(g, scores, mask)?;
    let scores = ops::reshape(g, scores, [batch, time])?;
    let shares = ops::softmax(g, scores)?;
    let shares = ops::reshape(g, shares, [batch, 1, time])?;
    let mean = ops::matmul(g, shares, states)?;
    ops::reshape(g, mean, [batch, width])
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

impl Encoder for ModernBert {
    fn head_kind(&self) -> EncoderHead {
        self.head
    }

    fn encode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        inputs.check(self.max_position, "max_position_embeddings")?;
        let mut x = g.scope("embedding", |g| self.embeddings(g, inputs))?;
        let mut hidden = Hidden::from(x);
        for stack in self.stacks() {
            hidden = stack.run(g, x, inputs)?;
            x = hidden.states;
        }
        Ok(hidden)
    }

    fn mlm_head(&self, g: &mut Graph, states: Tensor) -> Result<(Tensor, LmHead)> {
        if !self.head.predicts_tokens() {
            return Err(Error::Graph("this model has no head of a language model".into()));
        }
        let states = self.transform(g, states)?;
        let name = if self.tied { "model.embeddings.tok_embeddings.weight" } else { "decoder.weight" };
        let bias = match self.biases.decoder {
            true => Some(g.full_precision("decoder.bias", [self.vocabulary], Initial::Zeros)?),
            false => None,
        };
        let std = if self.tied { self.init_std } else { self.out_std() };
        Ok((states, LmHead { bias, ..LmHead::new(g, name, [self.vocabulary, self.d_model], std)? }))
    }

    fn class_logits(&self, g: &mut Graph, states: Tensor, inputs: &TokenInputs) -> Result<Tensor> {
        let (of_text, labels) = match self.head {
            EncoderHead::SequenceClassification { labels } => (true, labels),
            EncoderHead::TokenClassification { labels } => (false, labels),
            EncoderHead::QuestionAnswering => (false, 2),
            _ => return Err(Error::Graph("this model has no classes".into())),
        };
        let x = match (of_text, self.mean_pooling) {
            (false, _) => states,
            (true, true) => g.scope("mean", |g| mean_states(g, states, inputs))?,
            (true, false) => nn::first_states(g, states)?,
        };
        let x = self.transform(g, x)?;
        let x = nn::dropout(g, x, self.classifier_dropout, inputs.dropout_seed, HEAD_SALT)?;
        let linear = LinearConfig::out_in(true).with_std(1.0 / (self.d_model as f64).sqrt());
        g.scope("head", |g| nn::linear(g, "classifier", x, labels, linear))
    }
}
