//! The interface of models: [`Model`], and its sides, [`Encoder`] and [`Decoder`].

use super::initialise::initialise_some;
use super::naming::Naming;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Initial, Storage, Tensor};
use crate::nn::{Block, Context, FeedForward, Hidden, Stack, TokenInputs, scaled};
use crate::ops::{self, Activation, CrossEntropyOptions, WeightLayout};
use crate::program::Weights;
use crate::shape::TensorType;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Debug;
use std::ops::Range;

/// The sizes that training and generation need to know of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dimensions {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub max_position: usize,
    /// Features of a hidden state.
    pub d_model: usize,
    /// Layers.
    pub layers: usize,
}

/// The last layer of a language model: from hidden states to logits.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LmHead {
    /// The weight; with tied embeddings the table itself.
    pub weight: Tensor,
    /// The bias.
    pub bias: Option<Tensor>,
    /// The order of the axes of the weight.
    pub layout: WeightLayout,
    /// The factor of the states, and so of the logits.
    pub scale: f32,
    /// c: a logit z is `c tanh(z / c)`.
    pub soft_cap: Option<f32>,
}

impl LmHead {
    /// A head without a bias whose weight, or table of words, of that name is `(V, C)`; fresh ones have a standard deviation of `std`.
    ///
    /// # Errors
    /// Those of [`Graph::matrix`].
    pub(super) fn new(g: &mut Graph, name: &str, table: [usize; 2], std: f64) -> Result<Self> {
        let weight = g.matrix(name, table, Initial::Normal(std))?;
        Ok(Self { weight, bias: None, layout: WeightLayout::OutIn, scale: 1.0, soft_cap: None })
    }

    /// The logits, `(…, V)`, of hidden states `(…, C)`.
    ///
    /// # Errors
    /// Those of [`ops::linear`].
    pub fn logits(&self, g: &mut Graph, states: Tensor) -> Result<Tensor> {
        g.scope("head", |g| {
            let states = scaled(g, states, self.scale)?;
            let logits = ops::linear(g, states, self.weight, self.bias, self.layout)?;
            let Some(cap) = self.soft_cap else { return Ok(logits) };
            let share = ops::scale(g, logits, 1.0 / cap)?;
            let share = ops::activation(g, share, Activation::Tanh)?;
            ops::scale(g, share, cap)
        })
    }

    /// The mean cross-entropy of the logits against `labels (…)` i32; negative ones do not count. All logits are never in memory
    /// at once.
    ///
    /// # Errors
    /// Those of [`ops::linear_cross_entropy`].
    pub fn loss(&self, g: &mut Graph, states: Tensor, labels: Tensor, options: &CrossEntropyOptions) -> Result<Tensor> {
        let Self { weight, bias, layout, scale, soft_cap } = *self;
        let options = CrossEntropyOptions { soft_cap: soft_cap.or(options.soft_cap), ..*options };
        g.scope("head", |g| {
            let states = scaled(g, states, scale)?;
            ops::linear_cross_entropy(g, states, weight, bias, layout, labels, &options)
        })
    }
}

/// A model, as files, stores and tasks see it.
pub trait Model: Debug + Send + Sync {
    /// The `config.json` that describes the model, with the keys that Hugging Face uses.
    fn config(&self) -> Value;

    /// The sizes.
    fn dimensions(&self) -> Dimensions;

    /// The names of its parameters in files.
    fn naming(&self) -> Naming;

    /// Its blocks, the encoder's first.
    fn stacks(&self) -> Vec<Stack>;

    /// Takes up what a file's tensors say and its configuration does not; `has` tells whether one has a name with that end.
    fn adapt_to_tensors(&mut self, _has: &dyn Fn(&str) -> bool) {}

    /// The rates of dropout beside those of its blocks.
    fn dropout_rates(&self) -> Vec<f32> {
        Vec::new()
    }

    /// Parameters that do not learn.
    fn frozen(&self) -> Vec<String> {
        Vec::new()
    }

    /// The side that reads a text as a whole.
    fn encoder(&self) -> Option<&dyn Encoder> {
        None
    }

    /// The side that continues a text.
    fn decoder(&self) -> Option<&dyn Decoder> {
        None
    }

    /// The model as a decoder, if it is one.
    #[must_use]
    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        None
    }

    /// Asks a graph for every parameter, in the order of their first use.
    ///
    /// # Errors
    /// Those of the ops: a configuration whose numbers do not fit together.
    fn declare(&self, g: &mut Graph) -> Result<()> {
        let ids = g.input("ids", [1, 1], DType::U32)?;
        let mut inputs = TokenInputs::new(g, ids)?;
        if let Some(encoder) = self.encoder() {
            let states = encoder.encode(g, &inputs)?.states;
            if self.decoder().is_none() {
                return declare_head(encoder, g, states, &inputs);
            }
            inputs = inputs.with_context(Context::States { states, key_mask: None });
        }
        let Some(decoder) = self.decoder() else { return Ok(()) };
        decoder.decode(g, &inputs)?;
        decoder.lm_head(g).map(|_| ())
    }

    /// Whether training drops anything, so that it needs a seed.
    fn has_dropout(&self) -> bool {
        self.dropout_rates().iter().any(|rate| *rate > 0.0)
            || self.stacks().iter().flat_map(|stack| &stack.blocks).any(Block::has_dropout)
    }

    /// The number of choices of the router of that name, as [`Hidden::routing`] has it; 1 without routers.
    fn num_choices(&self, router: &str) -> usize {
        let stacks = self.stacks();
        let recursion = stacks.iter().find_map(|stack| stack.recursion.as_ref());
        if let Some(recursion) = recursion.filter(|_| matches!(router, "depth" | "choice")) {
            return recursion.recursions * recursion.modules();
        }
        let experts = |block: &Block| match &block.feed_forward {
            FeedForward::Experts { experts, .. } => Some(experts.count),
            FeedForward::Switch(experts) => Some(experts.count),
            _ => None,
        };
        stacks.iter().flat_map(|stack| &stack.blocks).find_map(experts).unwrap_or(1)
    }

    /// The elements of a parameter that no output depends on, so that training makes noise of them: see [`Block::no_gradient`].
    fn no_gradient(&self, parameter: &str) -> Vec<Range<usize>> {
        self.stacks().iter().flat_map(|stack| &stack.blocks).flat_map(|block| block.no_gradient(parameter)).collect()
    }

    /// Floating-point operations of the forward pass for one token that sees `context` keys, of blocks and the head of a language
    /// model; training takes three times as many.
    fn forward_flops(&self, context: usize) -> u64 {
        let Dimensions { vocabulary, d_model, .. } = self.dimensions();
        let blocks: u64 = self.stacks().iter().map(|stack| stack.forward_flops(d_model, context)).sum();
        let masked = |encoder: &dyn Encoder| encoder.head_kind().predicts_tokens();
        let has_head = self.decoder().is_some() || self.encoder().is_some_and(masked);
        blocks + if has_head { 2 * (vocabulary * d_model) as u64 } else { 0 }
    }

    /// The parameters in the order of their first use: names as Hugging Face gives them, and types where all are f32.
    ///
    /// # Errors
    /// As [`Model::declare`].
    fn parameters(&self) -> Result<Vec<(String, TensorType)>> {
        self.parameters_in(&Storage::default())
    }

    /// [`Model::parameters`] with the types that they have in a store of that kind.
    ///
    /// # Errors
    /// As [`Model::declare`].
    fn parameters_in(&self, storage: &Storage) -> Result<Vec<(String, TensorType)>> {
        let mut g = Graph::with_storage(storage);
        self.declare(&mut g)?;
        Ok(g.parameters().map(|(name, tensor)| (name.to_owned(), g.ty(tensor).clone())).collect())
    }

    /// The initialisation of each parameter.
    ///
    /// # Errors
    /// As [`Model::declare`]; [`Error::Graph`] that names a parameter whose layer does not say.
    fn initials(&self) -> Result<HashMap<String, Initial>> {
        let mut g = Graph::new();
        self.declare(&mut g)?;
        let unsaid = |name: &str| Error::Graph(format!("the layer of \"{name}\" does not say what a fresh one is"));
        let of = |name: &str| Ok((name.to_owned(), g.initial(name).ok_or_else(|| unsaid(name))?));
        g.parameters().map(|(name, _)| of(name)).collect()
    }

    /// The number of trained values.
    ///
    /// # Errors
    /// As [`Model::parameters`].
    fn parameter_count(&self) -> Result<usize> {
        Ok(self.parameters()?.iter().map(|(_, ty)| ty.shape.numel()).sum())
    }

    /// Fills the store with fresh weights. The same seed gives the same weights.
    ///
    /// # Errors
    /// As [`Model::initials`]; [`Error::OutOfMemory`].
    fn initialise(&self, weights: &Weights, seed: u64) -> Result<()> {
        initialise_some(self, weights, seed, &|_| true)
    }
}

/// Asks a graph for the parameters behind an encoder's blocks.
fn declare_head(encoder: &dyn Encoder, g: &mut Graph, states: Tensor, inputs: &TokenInputs) -> Result<()> {
    let kind = encoder.head_kind();
    if kind.predicts_tokens() {
        encoder.mlm_head(g, states)?;
    }
    match kind {
        EncoderHead::None => encoder.pooled(g, states).map(|_| ()),
        EncoderHead::MaskedLanguageModel | EncoderHead::NextToken => Ok(()),
        _ => encoder.class_logits(g, states, inputs).map(|_| ()),
    }
}

/// The number of a decoder's first block where something is dropped: an encoder's blocks come before.
pub(super) const DECODER_SALT: u32 = 1 << 16;

/// A model that continues a text.
pub trait Decoder: Model {
    /// The hidden states, and the decisions of the routers, if there are any.
    ///
    /// # Errors
    /// Those of the ops.
    fn decode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden>;

    /// The last layer.
    ///
    /// # Errors
    /// Those of the graph.
    fn lm_head(&self, g: &mut Graph) -> Result<LmHead>;

    /// The token that answers begin with, if the model reads what they answer with an encoder.
    fn start_token(&self) -> Option<u32> {
        None
    }

    /// Whether an answer to learn begins with its own last token, which is a language's in mBART, and not with [`Decoder::start_token`].
    fn starts_with_last(&self) -> bool {
        false
    }

    /// Tokens that the encoder knows, if one reads what answers are given to.
    fn source_vocabulary(&self) -> usize {
        self.dimensions().vocabulary
    }

    /// Makes the keys and values of all cross-attention of an encoder's states, `(B, S, C)`, and keeps them in caches of `capacity`
    /// positions, for [`crate::nn::Context::Cached`].
    ///
    /// # Errors
    /// Those of the ops; [`Error::Graph`] if there is no cross-attention.
    fn cache_context(&self, _g: &mut Graph, _states: Tensor, _capacity: usize) -> Result<()> {
        Err(Error::Graph("this model has no cross-attention".into()))
    }

    /// The logits, `(…, V)`, of hidden states `(…, C)`.
    ///
    /// # Errors
    /// Those of the ops.
    fn logits(&self, g: &mut Graph, hidden: Tensor) -> Result<Tensor> {
        self.lm_head(g)?.logits(g, hidden)
    }

    /// The mean cross-entropy against `labels (B, T)` i32. `labels[t]` is the token behind `ids[t]`; negative ones do not
    /// count. All logits are never in memory at once. The losses of the routers are not in it.
    ///
    /// # Errors
    /// Those of the ops.
    fn loss_of(&self, g: &mut Graph, hidden: Tensor, labels: Tensor, options: &CrossEntropyOptions) -> Result<Tensor> {
        self.lm_head(g)?.loss(g, hidden, labels, options)
    }
}

/// The head of an encoder: the layers after its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncoderHead {
    /// Nothing: hidden states.
    None,
    /// The words behind masks.
    MaskedLanguageModel,
    /// The next token, each token seeing those in front of it: the model is a [`Decoder`].
    NextToken,
    /// Whether the second part of a text follows the first: two logits a row.
    NextSentence,
    /// Both of these.
    PreTraining,
    /// The words behind masks, and whether the parts of a text are in their order: two logits a row.
    SentenceOrder,
    /// Which tokens were put in place of others: a logit a token.
    ReplacedTokens,
    /// A class of each row.
    SequenceClassification {
        /// Classes.
        labels: usize,
    },
    /// A class of each token.
    TokenClassification {
        /// Classes.
        labels: usize,
    },
    /// Where an answer begins and ends: two logits a token.
    QuestionAnswering,
    /// Which of several rows fits: a logit a row.
    MultipleChoice,
}

impl EncoderHead {
    /// Whether it has the head of a language model.
    #[must_use]
    pub fn predicts_tokens(self) -> bool {
        matches!(self, Self::MaskedLanguageModel | Self::PreTraining | Self::SentenceOrder | Self::NextToken)
    }
}

/// A model that reads a text as a whole.
pub trait Encoder: Model {
    /// The kind of its head.
    fn head_kind(&self) -> EncoderHead;

    /// The hidden states, `(B, T, C)`.
    ///
    /// # Errors
    /// Those of the ops.
    fn encode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden>;

    /// The vector of a whole text, `(B, C)`, from states `(B, T, C)`, if the model has a pooler.
    ///
    /// # Errors
    /// Those of the ops.
    fn pooled(&self, _g: &mut Graph, _states: Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// The head of a masked language model: the input of its last layer, `(B, T, E)`, and that layer.
    ///
    /// # Errors
    /// [`Error::Graph`] if the model has none; those of the ops.
    fn mlm_head(&self, _g: &mut Graph, _states: Tensor) -> Result<(Tensor, LmHead)> {
        Err(Error::Graph("this model has no head of a language model".into()))
    }

    /// The logits of its classes from states `(B, T, C)`: `(B, T, labels)` or `(B, labels)` by what it was made for.
    ///
    /// # Errors
    /// [`Error::Graph`] if the model has none; those of the ops.
    fn class_logits(&self, _g: &mut Graph, _states: Tensor, _inputs: &TokenInputs) -> Result<Tensor> {
        Err(Error::Graph("this model has no classes".into()))
    }
}
