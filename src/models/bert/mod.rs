//! BERT: Devlin et al., "BERT: pre-training of deep bidirectional transformers for language understanding", arXiv 1810.04805, and its
//! relatives ([`BertFamily`]): they differ in names, in widths, in what shares weights, and in heads.

mod config;
mod graph;
mod keys;
mod names;
mod relatives;

pub use names::BertFamily;

use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::models::{Decoder, Dimensions, Encoder, EncoderHead, Hidden, LmHead, Model, Naming, TokenInputs};
use crate::nn::{self, LinearUse, Stack};
use crate::ops::Activation;
use names::ClassHead;
use serde_json::Value;

/// The salts of dropout after the blocks: in front of a head's first layer and of its last.
const HEAD_SALTS: [u32; 2] = [1 << 25, 1 << 24];

/// A BERT encoder, or one of its relatives: learned positions, parts of a text in most, layer norm behind each half of a block, and
/// the head that `architectures` names.
///
/// In training, the three rates of dropout are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Bert {
    /// The family whose keys, names and heads it has.
    pub family: BertFamily,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Rows of the table of positions: the longest sequence, and in a RoBERTa the padding's number and 1 more.
    pub max_position: usize,
    /// Token types (segments of a text); `DistilBERT` has none, 0.
    pub types: usize,
    /// Features of an embedding, which in ELECTRA and ALBERT may be fewer than those of a hidden state.
    pub embedding_size: usize,
    /// Features of a hidden state.
    pub d_model: usize,
    /// Layers; in ALBERT the uses of groups of them.
    pub layers: usize,
    /// Groups of layers, each with its weights: as many as layers but in ALBERT.
    pub groups: usize,
    /// Layers of a group: 1 but in ALBERT.
    pub group_layers: usize,
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
    /// The activation of the layer by which an ELECTRA chooses among several rows, if it has one there.
    pub summary_activation: Option<Activation>,
    /// Whether fresh positions are sines and cosines: `DistilBERT`.
    pub sinusoidal: bool,
    /// Whether the last layer of a language model is the embedding table.
    pub tied: bool,
    /// The standard deviation of fresh weights.
    pub init_std: f64,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl Bert {
    /// The longest sequence.
    fn longest(&self) -> usize {
        match self.padding.filter(|_| self.family.counts_from_padding()) {
            Some(padding) => self.max_position.saturating_sub(padding as usize + 1),
            None => self.max_position,
        }
    }

    fn class_head(&self) -> Option<ClassHead> {
        self.family.class_head(self.head, self.activation, self.summary_activation)
    }
}

impl Model for Bert {
    fn config(&self) -> Value {
        self.to_config()
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions {
            vocabulary: self.vocabulary,
            max_position: self.longest(),
            d_model: self.d_model,
            layers: self.layers,
        }
    }

    fn naming(&self) -> Naming {
        Naming { base: self.base(), ..self.family.names().naming }
    }

    fn stacks(&self) -> Vec<Stack> {
        vec![self.stack()]
    }

    fn dropout_rates(&self) -> Vec<f32> {
        vec![self.dropout, self.classifier_dropout]
    }

    fn adapt_to_tensors(&mut self, has: &dyn Fn(&str) -> bool) {
        self.pooler = self.family.names().pooler.is_some_and(|name| has(&format!("{name}.weight")));
    }

    fn frozen(&self) -> Vec<String> {
        // Beside a bias of a last layer of its own nothing reads the other.
        let words = &self.family.names().words;
        let idle = !self.tied && self.head.predicts_tokens() && words.own_bias.is_some();
        if idle { vec![words.bias.into()] } else { Vec::new() }
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
        inputs.check(self.longest(), "max_position_embeddings")?;
        let x = g.scope("embedding", |g| self.embeddings(g, inputs))?;
        self.stack().run(g, x, inputs)
    }

    fn pooled(&self, g: &mut Graph, states: Tensor) -> Result<Option<Tensor>> {
        let name = self.family.names().pooler.filter(|_| self.head == EncoderHead::None && self.pooler);
        let Some(name) = name else { return Ok(None) };
        let first = nn::first_states(g, states)?;
        let with = LinearUse { activation: Some(Activation::Tanh), lengths: None };
        g.scope("pooler", |g| nn::linear_with(g, name, first, self.d_model, self.linear(), with)).map(Some)
    }

    fn mlm_head(&self, g: &mut Graph, states: Tensor) -> Result<(Tensor, LmHead)> {
        if !self.head.predicts_tokens() {
            return Err(Error::Graph("this model has no head of a language model".into()));
        }
        Ok((self.transform(g, states)?, self.word_head(g)?))
    }

    fn class_logits(&self, g: &mut Graph, states: Tensor, inputs: &TokenInputs) -> Result<Tensor> {
        let Some(head) = self.class_head() else {
            return Err(Error::Graph("this model has no classes".into()));
        };
        let drop = |g: &mut Graph, x: Tensor, drops: bool, salt: u32| match drops {
            true => nn::dropout(g, x, self.classifier_dropout, inputs.dropout_seed, salt),
            false => Ok(x),
        };
        let x = if head.first { nn::first_states(g, states)? } else { states };
        let mut x = drop(g, x, head.drop_first, HEAD_SALTS[0])?;
        if let Some((name, activation)) = head.dense {
            let with = LinearUse { activation, lengths: None };
            x = g.scope("pooler", |g| nn::linear_with(g, &name, x, self.d_model, self.linear(), with))?;
        }
        let x = drop(g, x, head.drop_last, HEAD_SALTS[1])?;
        g.scope("head", |g| nn::linear(g, head.last, x, head.labels, self.linear()))
    }
}
