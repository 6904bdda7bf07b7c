//! BERT: Devlin et al., "BERT: pre-training of deep bidirectional transformers for language understanding", arXiv 1810.04805.

mod config;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};
use crate::models::{Decoder, Dimensions, Encoder, EncoderHead, Hidden, Initial, LmHead, Model, Naming, TokenInputs};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, LinearConfig, LinearUse, Mask, NormKind, NormOrder, QkvNames,
    Stack,
};
use crate::ops::{self, Activation};
use serde_json::Value;

/// The salt of dropout after the blocks.
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
    /// Token types (segments of a text).
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
    /// Its head.
    pub head: EncoderHead,
    /// Whether tokens see only those in front of them.
    pub causal: bool,
    /// Whether a model without a head has the pooler.
    pub pooler: bool,
    /// Whether the last layer of a language model is the embedding table.
    pub tied: bool,
    /// The standard deviation of fresh weights.
    pub init_std: f64,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl Bert {
    /// The prefix of the names of all weights but the head's.
    fn base(&self) -> &'static str {
        if self.head == EncoderHead::None { "" } else { "bert." }
    }

    fn linear(&self) -> LinearConfig {
        LinearConfig::out_in(true).with_std(self.init_std)
    }

    fn norm(&self) -> NormKind {
        NormKind::Layer { eps: self.epsilon }
    }

    fn stack(&self) -> Stack {
        let blocks = (0..self.layers).map(|layer| self.block(layer)).collect();
        Stack { blocks, recursion: None, final_norm: None, balance: Balance::default(), salt: 0 }
    }

    fn block(&self, layer: usize) -> Block {
        let (linear, head_dim) = (self.linear(), self.d_model / self.heads);
        let qkv = QkvNames::Separate(["self.query", "self.key", "self.value"]);
        let heads = Heads { query: self.heads, key_value: self.heads, head_dim };
        let mask = if self.causal { Mask::Causal } else { Mask::Bidirectional };
        Block {
            prefix: format!("{}encoder.layer.{layer}", self.base()),
            norm: self.norm(),
            order: NormOrder::Post,
            attention_norm: "attention.output.LayerNorm".into(),
            attention: Attention {
                dropout: self.attention_dropout,
                ..Attention::new(("attention", qkv, "output.dense"), linear, heads, mask)
            },
            cross: None,
            feed_forward_norm: "output.LayerNorm".into(),
            feed_forward: FeedForward::Plain {
                names: ["intermediate.dense", "output.dense"],
                d_ff: self.d_ff,
                activation: self.activation,
                linear,
                output_linear: linear,
            },
            parallel: false,
            dropout: self.dropout,
            activation_dropout: 0.0,
        }
    }

    fn embeddings(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Tensor> {
        let name = |name: &str| format!("{}embeddings.{name}", self.base());
        let std = self.init_std;
        let table = [self.vocabulary, self.d_model];
        let words = g.matrix(&name("word_embeddings.weight"), table, Initial::Normal(std))?;
        let words = ops::embedding_with_padding(g, words, inputs.ids, self.padding)?;
        let types = match inputs.type_ids {
            Some(types) => types,
            None => {
                let shape = g.shape(inputs.ids).clone();
                g.constant("type_ids", Array::zeros(shape), DType::U32)
            }
        };
        let types = nn::embedding(g, &name("token_type_embeddings"), types, [self.types, self.d_model], std)?;
        let table = [self.max_position, self.d_model];
        let positions = nn::embedding(g, &name("position_embeddings"), inputs.positions, table, std)?;
        let x = ops::add(g, words, types)?;
        let x = ops::add(g, x, positions)?;
        let x = self.norm().apply(g, &name("LayerNorm"), x)?;
        nn::dropout(g, x, self.dropout, inputs.dropout_seed, 0)
    }

    /// `tanh` of a layer on the state of the first token, `(B, C)`.
    fn pooler(&self, g: &mut Graph, states: Tensor) -> Result<Tensor> {
        let first = nn::first_states(g, states)?;
        let with = LinearUse { activation: Some(Activation::Tanh), lengths: None };
        let name = format!("{}pooler.dense", self.base());
        g.scope("pooler", |g| nn::linear_with(g, &name, first, self.d_model, self.linear(), with))
    }

    /// What goes into the last layer of a language model.
    fn transform(&self, g: &mut Graph, states: Tensor) -> Result<Tensor> {
        let with = LinearUse { activation: Some(self.activation), lengths: None };
        g.scope("transform", |g| {
            let name = "cls.predictions.transform";
            let x = nn::linear_with(g, &format!("{name}.dense"), states, self.d_model, self.linear(), with)?;
            self.norm().apply(g, &format!("{name}.LayerNorm"), x)
        })
    }

    /// The last layer of a language model.
    fn word_head(&self, g: &mut Graph) -> Result<LmHead> {
        let mut bias = g.full_precision("cls.predictions.bias", [self.vocabulary], Initial::Zeros)?;
        let mut weight = "bert.embeddings.word_embeddings.weight";
        if !self.tied {
            // Files have the bias of a tied layer as well, which nothing reads.
            weight = "cls.predictions.decoder.weight";
            bias = g.full_precision("cls.predictions.decoder.bias", [self.vocabulary], Initial::Zeros)?;
        }
        let head = LmHead::new(g, weight, [self.vocabulary, self.d_model], self.init_std)?;
        Ok(LmHead { bias: Some(bias), ..head })
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

    fn naming(&self) -> Naming {
        Naming {
            base: self.base(),
            // Buffers of older versions.
            ignored: &["embeddings.position_ids", "embeddings.token_type_ids"],
            aliases: &[
                ("LayerNorm.weight", "LayerNorm.gamma"),
                ("LayerNorm.bias", "LayerNorm.beta"),
                // Older versions of transformers have one bias for tied and untied layers.
                ("cls.predictions.decoder.bias", "cls.predictions.bias"),
            ],
            tied: &[
                ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
                ("cls.predictions.decoder.bias", "cls.predictions.bias"),
            ],
        }
    }

    fn stacks(&self) -> Vec<Stack> {
        vec![self.stack()]
    }

    fn dropout_rates(&self) -> Vec<f32> {
        vec![self.dropout, self.classifier_dropout]
    }

    fn adapt_to_tensors(&mut self, has: &dyn Fn(&str) -> bool) {
        self.pooler = has("pooler.dense.weight");
    }

    fn frozen(&self) -> Vec<String> {
        // Nothing reads it there.
        let idle = !self.tied && self.head.predicts_tokens();
        if idle { vec!["cls.predictions.bias".into()] } else { Vec::new() }
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        if self.head == EncoderHead::NextToken { None } else { Some(self) }
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        if self.head == EncoderHead::NextToken { Some(self) } else { None }
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        if self.head == EncoderHead::NextToken { Some(self) } else { None }
    }
}

impl Decoder for Bert {
    fn decode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        let mut hidden = self.encode(g, inputs)?;
        hidden.states = self.transform(g, hidden.states)?;
        Ok(hidden)
    }

    fn lm_head(&self, g: &mut Graph) -> Result<LmHead> {
        self.word_head(g)
    }
}

impl Encoder for Bert {
    fn head_kind(&self) -> EncoderHead {
        self.head
    }

    fn encode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        inputs.check(self.max_position, "max_position_embeddings")?;
        let x = g.scope("embedding", |g| self.embeddings(g, inputs))?;
        self.stack().run(g, x, inputs)
    }

    fn pooled(&self, g: &mut Graph, states: Tensor) -> Result<Option<Tensor>> {
        let pools = self.head == EncoderHead::None && self.pooler;
        if pools { self.pooler(g, states).map(Some) } else { Ok(None) }
    }

    fn mlm_head(&self, g: &mut Graph, states: Tensor) -> Result<(Tensor, LmHead)> {
        if !self.head.predicts_tokens() {
            return Err(Error::Graph("this model has no head of a language model".into()));
        }
        Ok((self.transform(g, states)?, self.word_head(g)?))
    }

    fn class_logits(&self, g: &mut Graph, states: Tensor, inputs: &TokenInputs) -> Result<Tensor> {
        let (name, pooled, labels) = match self.head {
            EncoderHead::NextSentence | EncoderHead::PreTraining => ("cls.seq_relationship", true, 2),
            EncoderHead::SequenceClassification { labels } => ("classifier", true, labels),
            EncoderHead::MultipleChoice => ("classifier", true, 1),
            EncoderHead::TokenClassification { labels } => ("classifier", false, labels),
            EncoderHead::QuestionAnswering => ("qa_outputs", false, 2),
            EncoderHead::None | EncoderHead::MaskedLanguageModel | EncoderHead::NextToken => {
                return Err(Error::Graph("this model has no classes".into()));
            }
        };
        let mut x = if pooled { self.pooler(g, states)? } else { states };
        if name == "classifier" {
            x = nn::dropout(g, x, self.classifier_dropout, inputs.dropout_seed, HEAD_SALT)?;
        }
        g.scope("head", |g| nn::linear(g, name, x, labels, self.linear()))
    }
}
