//! Encoders, decoders and both on one plan: Vaswani et al., "Attention is all you need", arXiv 1706.03762, and what BART and Marian
//! change of it. Families are ways to read a `config.json` into it.

pub(super) mod bart;
mod graph;
pub(super) mod plain;

use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::models::mixture::Mixture;
use crate::models::{Decoder, Dimensions, Encoder, EncoderHead, Hidden, LmHead, Model, Naming, TokenInputs};
use crate::nn::{self, NormOrder, Recursion, Stack};
use crate::ops::Activation;
use serde_json::Value;

/// The salt of dropout in front of classes.
const HEAD_SALT: u32 = 1 << 24;
/// The table of words of both sides.
const SHARED: &str = "model.shared.weight";

/// Whose keys and names a [`Transformer`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformerFamily {
    /// This project's own.
    Plain,
    /// BART's.
    Bart,
    /// Marian's.
    Marian,
    /// mBART's, with norms in front of parts and behind the last block: Liu et al., arXiv 2001.08210.
    MBart,
    /// Pegasus', as mBART's with sinusoidal positions and without a norm of embeddings: Zhang et al., arXiv 1912.08777.
    Pegasus,
}

/// The kind of position embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// A table that is learned, whose first rows, so many of them, stand for nothing.
    Learned {
        /// The number of these rows.
        offset: usize,
    },
    /// Sines and cosines in turn, as the paper has them.
    Sinusoidal,
    /// All sines in front of the cosines, as Marian has them.
    SinusoidalHalves,
}

/// A side of a [`Transformer`].
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Layers, those that recur counted as often as they are used.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Features inside a feed-forward network.
    pub d_ff: usize,
    /// Experts in place of the feed-forward networks.
    pub mixture: Option<Mixture>,
    /// In an encoder experts may choose their tokens: how many a token has on average.
    pub expert_choice: Option<f32>,
    /// Layers that are used several times.
    pub recursion: Option<Recursion>,
}

/// A transformer with an encoder, a decoder or both, which share one table of words or have one each.
///
/// In training, dropout is applied to embeddings, the results of all parts, attention probabilities and inside feed-forward networks.
#[derive(Clone, Debug, PartialEq)]
pub struct Transformer {
    /// The family whose keys and names it has.
    pub family: TransformerFamily,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Tokens of the decoder's vocabulary, if it has a table of its own; none: both sides look up in one table.
    pub decoder_vocabulary: Option<usize>,
    /// Whether there is a table of both sides beside the own ones, which nothing reads: transformers has it where the head is not tied.
    pub unused_shared: bool,
    /// The longest sequence.
    pub max_position: usize,
    /// Features of a hidden state.
    pub d_model: usize,
    /// The side that reads a text as a whole.
    pub encoder: Option<Side>,
    /// The side that continues a text.
    pub decoder: Option<Side>,
    /// The activation of feed-forward networks.
    pub activation: Activation,
    /// The order of norms and residual sums.
    pub order: NormOrder,
    /// Whether there is a norm behind the last block of a side.
    pub final_norm: bool,
    /// Whether there is a norm behind the embeddings.
    pub embedding_norm: bool,
    /// Whether embeddings are multiplied by the root of `d_model`.
    pub scale_embedding: bool,
    /// The kind of position embedding.
    pub positions: Positions,
    /// Added to the variance in norms.
    pub epsilon: f32,
    /// The rate of dropout on embeddings and results of parts.
    pub dropout: f32,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The rate of dropout inside feed-forward networks.
    pub activation_dropout: f32,
    /// The token of padding, whose embedding learns nothing from being looked up.
    pub padding: Option<u32>,
    /// The token that answers begin with.
    pub start: Option<u32>,
    /// Whether logits get a bias that does not learn, `final_logits_bias`.
    pub logits_bias: bool,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// The head of an encoder without a decoder: the words behind masks, or classes.
    pub head: EncoderHead,
    /// The standard deviation of fresh weights.
    pub init_std: f64,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

impl Model for Transformer {
    fn config(&self) -> Value {
        let mut config = match self.family {
            TransformerFamily::Plain => plain::write(self),
            family => bart::write(self, family),
        };
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }

    fn dimensions(&self) -> Dimensions {
        let layers = self.sides().map(|(side, _)| side.layers).sum();
        Dimensions {
            vocabulary: self.target_vocabulary(),
            max_position: self.max_position,
            d_model: self.d_model,
            layers,
        }
    }

    fn naming(&self) -> Naming {
        Naming {
            base: "model.",
            // Tables of positions that are computed, where they are no parameters.
            ignored: &["coder.embed_positions.weight", nn::CAPACITY_STEP],
            aliases: &[],
            tied: &[
                ("model.encoder.embed_tokens.weight", "model.shared.weight"),
                ("model.decoder.embed_tokens.weight", "model.shared.weight"),
                ("lm_head.weight", "model.shared.weight"),
                ("lm_head.weight", "model.decoder.embed_tokens.weight"),
            ],
            in_out: false,
        }
    }

    fn stacks(&self) -> Vec<Stack> {
        self.sides().map(|(side, decodes)| self.stack(side, decodes)).collect()
    }

    fn dropout_rates(&self) -> Vec<f32> {
        vec![self.dropout]
    }

    fn adapt_to_tensors(&mut self, has: &dyn Fn(&str) -> bool) {
        self.logits_bias = has("final_logits_bias");
        let own = || ["encoder", "decoder"].iter().all(|side| has(&format!("{side}.embed_tokens.weight")));
        if self.decoder_vocabulary.is_none() && !self.tied && own() {
            self.decoder_vocabulary = Some(self.vocabulary);
            self.unused_shared = has("shared.weight");
        }
    }

    fn frozen(&self) -> Vec<String> {
        let all = [(self.logits_bias, "final_logits_bias"), (self.unused_shared, SHARED)];
        all.into_iter().filter(|(there, _)| *there).map(|(_, name)| name.into()).collect()
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        self.encoder.as_ref().map(|_| self as &dyn Encoder)
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        self.decoder.as_ref().map(|_| self as &dyn Decoder)
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        if self.decoder.is_some() { Some(self) } else { None }
    }
}

impl Encoder for Transformer {
    fn head_kind(&self) -> EncoderHead {
        self.head
    }

    fn encode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        self.run(g, self.encoder.as_ref(), false, inputs)
    }

    fn mlm_head(&self, g: &mut Graph, states: Tensor) -> Result<(Tensor, LmHead)> {
        Ok((states, self.table_head(g)?))
    }

    fn class_logits(&self, g: &mut Graph, states: Tensor, inputs: &TokenInputs) -> Result<Tensor> {
        let (name, labels, first) = match self.head {
            EncoderHead::SequenceClassification { labels } => ("classifier", labels, true),
            EncoderHead::TokenClassification { labels } => ("classifier", labels, false),
            EncoderHead::QuestionAnswering => ("qa_outputs", 2, false),
            _ => return Err(Error::Graph("this model has no classes".into())),
        };
        let x = if first { nn::first_states(g, states)? } else { states };
        let x = nn::dropout(g, x, self.dropout, inputs.dropout_seed, HEAD_SALT)?;
        g.scope("head", |g| nn::linear(g, name, x, labels, self.linear()))
    }
}

impl Decoder for Transformer {
    fn decode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        self.run(g, self.decoder.as_ref(), true, inputs)
    }

    fn lm_head(&self, g: &mut Graph) -> Result<LmHead> {
        self.table_head(g)
    }

    fn start_token(&self) -> Option<u32> {
        self.start.filter(|_| self.encoder.is_some())
    }

    fn starts_with_last(&self) -> bool {
        self.family == TransformerFamily::MBart
    }

    fn source_vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn cache_context(&self, g: &mut Graph, states: Tensor, capacity: usize) -> Result<()> {
        match &self.decoder {
            Some(side) => self.stack(side, true).cache_context(g, states, capacity),
            None => Err(Error::Graph("this model has no decoder".into())),
        }
    }
}
