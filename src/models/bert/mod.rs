//! BERT: Devlin et al., "BERT: pre-training of deep bidirectional transformers for language understanding", arXiv 1810.04805.

mod config;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};
use crate::models::{Dimensions, Encoder, EncoderHead, Hidden, Initial, LmHead, Model, TokenInputs};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, LinearConfig, LinearUse, Mask, NormKind, NormOrder, QkvNames,
    Stack,
};
use crate::ops::{self, Activation, WeightLayout};
use serde_json::Value;
use std::ops::Range;

/// Where what is dropped behind the blocks begins to be counted.
const HEAD_SALT: u32 = 1 << 24;

/// A BERT encoder: learned positions and parts of a text, layer norm behind each half of a block, and the head that
/// `architectures` names.
///
/// In training, `hidden_dropout_prob`, `attention_probs_dropout_prob` and `classifier_dropout` are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Bert {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub max_position: usize,
    /// Parts of a text that are told apart.
    pub types: usize,
    /// Features of a hidden state.
    pub d_model: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Features inside a feed-forward network.
    pub d_ff: usize,
    /// The activation of the feed-forward network, and of the head of a language model.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub epsilon: f32,
    /// The rate of dropout on embeddings and on the results of attention and feed-forward network.
    pub dropout: f32,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The rate of dropout in front of classes.
    pub classifier_dropout: f32,
    /// The token of padding, whose embedding learns nothing from being looked up.
    pub padding: Option<u32>,
    /// What it was made for.
    pub head: EncoderHead,
    /// Whether a model without a head has the pooler.
    pub pooler: bool,
    /// The standard deviation of fresh weights.
    pub init_std: f64,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl Bert {
    /// What stands in front of the names of all but the head's weights.
    fn base(&self) -> &'static str {
        if self.head == EncoderHead::None { "" } else { "bert." }
    }

    fn block(&self, layer: usize) -> Block {
        let (linear, head_dim) = (LinearConfig::out_in(true), self.d_model / self.heads);
        Block {
            prefix: format!("{}encoder.layer.{layer}", self.base()),
            norm: NormKind::Layer { eps: self.epsilon },
            order: NormOrder::Post,
            attention_norm: "attention.output.LayerNorm".into(),
            attention: Attention {
                module: "attention",
                qkv: QkvNames::Separate(["self.query", "self.key", "self.value"]),
                output: "output.dense",
                linear,
                output_linear: linear,
                heads: Heads { query: self.heads, key_value: self.heads, head_dim },
                scale: None,
                mask: Mask::Bidirectional,
                rotary: None,
                relative: None,
                window: None,
                soft_cap: None,
                dropout: self.attention_dropout,
            },
            cross: None,
            feed_forward_norm: "output.LayerNorm".into(),
            feed_forward: FeedForward::Plain {
                names: ["intermediate.dense", "output.dense"],
                d_ff: self.d_ff,
                activation: self.activation,
                linear,
            },
            parallel: false,
            dropout: self.dropout,
            activation_dropout: 0.0,
        }
    }

    fn embeddings(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Tensor> {
        let name = |name: &str| format!("{}embeddings.{name}", self.base());
        let words = g.matrix(&name("word_embeddings.weight"), [self.vocabulary, self.d_model])?;
        let words = ops::embedding_with_padding(g, words, inputs.ids, self.padding)?;
        let types = match inputs.type_ids {
            Some(types) => types,
            None => {
                let shape = g.shape(inputs.ids).clone();
                g.constant("type_ids", Array::zeros(shape), DType::U32)
            }
        };
        let types = nn::embedding(g, &name("token_type_embeddings"), types, [self.types, self.d_model])?;
        let table = [self.max_position, self.d_model];
        let positions = nn::embedding(g, &name("position_embeddings"), inputs.positions, table)?;
        let x = ops::add(g, words, types)?;
        let x = ops::add(g, x, positions)?;
        let x = NormKind::Layer { eps: self.epsilon }.apply(g, &name("LayerNorm"), x)?;
        nn::dropout(g, x, self.dropout, inputs.dropout_seed, 0)
    }

    /// `tanh` of a layer on the state of the first token, `(B, C)`.
    fn pooler(&self, g: &mut Graph, states: Tensor) -> Result<Tensor> {
        let first = nn::first_states(g, states)?;
        let with = LinearUse { activation: Some(Activation::Tanh), lengths: None };
        let name = format!("{}pooler.dense", self.base());
        g.scope("pooler", |g| nn::linear_with(g, &name, first, self.d_model, LinearConfig::out_in(true), with))
    }

    fn has_language_head(&self) -> bool {
        matches!(self.head, EncoderHead::MaskedLanguageModel | EncoderHead::PreTraining)
    }
}

impl Model for Bert {
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

    fn adapt_to_tensors(&mut self, has: &dyn Fn(&str) -> bool) {
        self.pooler = has("pooler.dense.weight");
    }

    fn declare(&self, g: &mut Graph) -> Result<()> {
        let ids = g.input("ids", [1, 1], DType::U32)?;
        let inputs = TokenInputs::new(g, ids)?;
        let states = self.encode(g, &inputs)?.states;
        if self.has_language_head() {
            self.mlm_head(g, states)?;
        }
        match self.head {
            EncoderHead::None if self.pooler => self.pooler(g, states).map(|_| ()),
            EncoderHead::None | EncoderHead::MaskedLanguageModel => Ok(()),
            _ => self.class_logits(g, states, &inputs).map(|_| ()),
        }
    }

    fn has_dropout(&self) -> bool {
        [self.dropout, self.attention_dropout, self.classifier_dropout].iter().any(|rate| *rate > 0.0)
    }

    fn initial(&self, parameter: &str) -> Initial {
        if parameter.ends_with("bias") {
            Initial::Zeros
        } else if parameter.ends_with("LayerNorm.weight") {
            Initial::Ones
        } else {
            Initial::Normal(self.init_std)
        }
    }

    fn base_prefix(&self) -> &'static str {
        self.base()
    }

    fn ignores(&self, tensor: &str) -> bool {
        // Buffers of older versions, and the tied layer of the language model's head, which may be stored twice.
        let tied = ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"];
        tensor.ends_with("embeddings.position_ids")
            || tensor.ends_with("embeddings.token_type_ids")
            || tied.contains(&tensor)
    }

    fn aliases(&self, parameter: &str) -> Vec<String> {
        let old = [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];
        old.iter().filter_map(|(new, old)| Some(format!("{}{old}", parameter.strip_suffix(new)?))).collect()
    }

    fn idle(&self, parameter: &str) -> Vec<Range<usize>> {
        (0..self.layers).flat_map(|layer| self.block(layer).idle(parameter)).collect()
    }

    fn forward_flops(&self, context: usize) -> u64 {
        let block = 4 * self.d_model * self.d_model + 2 * self.d_model * self.d_ff;
        let head = if self.has_language_head() { (self.vocabulary + self.d_model) * self.d_model } else { 0 };
        2 * (self.layers * block + head) as u64 + 4 * (self.layers * self.d_model * context) as u64
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}

impl Encoder for Bert {
    fn head_kind(&self) -> EncoderHead {
        self.head
    }

    fn encode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        inputs.check(self.max_position, "max_position_embeddings")?;
        let x = g.scope("embedding", |g| self.embeddings(g, inputs))?;
        let blocks = (0..self.layers).map(|layer| self.block(layer)).collect();
        Stack { blocks, recursion: None, final_norm: None, balance: Balance::default(), salt: 0 }.run(g, x, inputs)
    }

    fn pooled(&self, g: &mut Graph, states: Tensor) -> Result<Option<Tensor>> {
        let pools = self.head == EncoderHead::None && self.pooler;
        if pools { self.pooler(g, states).map(Some) } else { Ok(None) }
    }

    fn mlm_head(&self, g: &mut Graph, states: Tensor) -> Result<(Tensor, LmHead)> {
        if !self.has_language_head() {
            return Err(Error::Graph("this model has no head of a language model".into()));
        }
        let with = LinearUse { activation: Some(self.activation), lengths: None };
        let x = g.scope("transform", |g| {
            let name = "cls.predictions.transform";
            let linear = LinearConfig::out_in(true);
            let x = nn::linear_with(g, &format!("{name}.dense"), states, self.d_model, linear, with)?;
            NormKind::Layer { eps: self.epsilon }.apply(g, &format!("{name}.LayerNorm"), x)
        })?;
        let weight = g.matrix("bert.embeddings.word_embeddings.weight", [self.vocabulary, self.d_model])?;
        let bias = Some(g.parameter("cls.predictions.bias", [self.vocabulary], DType::F32)?);
        Ok((x, LmHead { weight, bias, layout: WeightLayout::OutIn }))
    }

    fn class_logits(&self, g: &mut Graph, states: Tensor, inputs: &TokenInputs) -> Result<Tensor> {
        let (name, pooled, labels) = match self.head {
            EncoderHead::NextSentence | EncoderHead::PreTraining => ("cls.seq_relationship", true, 2),
            EncoderHead::SequenceClassification { labels } => ("classifier", true, labels),
            EncoderHead::MultipleChoice => ("classifier", true, 1),
            EncoderHead::TokenClassification { labels } => ("classifier", false, labels),
            EncoderHead::QuestionAnswering => ("qa_outputs", false, 2),
            EncoderHead::None | EncoderHead::MaskedLanguageModel => {
                return Err(Error::Graph("this model has no classes".into()));
            }
        };
        let mut x = if pooled { self.pooler(g, states)? } else { states };
        if name == "classifier" {
            x = nn::dropout(g, x, self.classifier_dropout, inputs.dropout_seed, HEAD_SALT)?;
        }
        g.scope("head", |g| nn::linear(g, name, x, labels, LinearConfig::out_in(true)))
    }
}
