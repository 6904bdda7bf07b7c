//! The inputs and outputs of a model's blocks.

use super::attention::KvSource;
use super::router_stats::RouterStats;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};

/// The most tokens of one step: more than a device holds, and few enough for tables with an entry for each on the CPU.
const MOST_TOKENS: usize = 1 << 26;

/// The inputs of a model's blocks.
#[derive(Clone, Copy, Debug)]
pub struct TokenInputs {
    /// Token ids, `(B, T)` u32.
    pub ids: Tensor,
    /// The position of each token, `(B, T)` u32.
    pub positions: Tensor,
    /// The segment of each token, `(B, T)` u32, for encoders with token types; none: all are 0.
    pub type_ids: Option<Tensor>,
    /// The keys and values of cross-attention, in decoders that have it.
    pub context: Option<Context>,
    /// Exclusive upper bound of the positions.
    pub max_position: usize,
    /// The source of keys and values.
    pub kv: KvSource,
    /// The spans of the tokens, `(B, T, 3)` u32, by which attention is limited as [`crate::ops::AttentionOptions`] says:
    /// only with whole sequences.
    pub tree: Option<Tensor>,
    /// How many tokens of each row, from the first on, all tokens of the row see, `(B)` u32, with
    /// [`Mask::Prefix`](super::Mask::Prefix): not more than are there.
    pub prefix: Option<Tensor>,
    /// Several texts in each row: only with whole sequences.
    pub documents: Option<Documents>,
    /// The seed of dropout and noise, `(2)` u32; none: nothing is dropped.
    pub dropout_seed: Option<Tensor>,
    /// Whether this is a step of training: experts have a capacity, and what balances them learns.
    pub training: bool,
}

impl TokenInputs {
    /// Whole sequences without padding, at positions 0, 1, 2, …
    ///
    /// # Errors
    /// [`Error::Shape`] if the ids are not `(B, T)`, or more than 2²⁶ tokens.
    pub fn new(g: &mut Graph, ids: Tensor) -> Result<Self> {
        let [batch, time] = g.shape(ids).expect("ids")?;
        if batch.saturating_mul(time) > MOST_TOKENS {
            let what = format!("{batch} × {time} tokens are more than the {MOST_TOKENS} of a step: lower the batch");
            return Err(Error::shape("ids", what));
        }
        let positions = Array::from_fn([batch, time], |i| (i % time.max(1)) as f64);
        let positions = g.constant("positions", positions, DType::U32);
        let kv = KvSource::Uncached { key_mask: None };
        Ok(Self {
            ids,
            type_ids: None,
            context: None,
            positions,
            max_position: time,
            kv,
            tree: None,
            prefix: None,
            documents: None,
            dropout_seed: None,
            training: false,
        })
    }

    /// The same with a mask `(B, T)` u32 that is 0 on padding.
    #[must_use]
    pub fn with_mask(self, mask: Tensor) -> Self {
        Self { kv: KvSource::Uncached { key_mask: Some(mask) }, ..self }
    }

    /// The same with other positions, `(B, T)` u32, all of them below `max_position`.
    #[must_use]
    pub fn with_positions(self, positions: Tensor, max_position: usize) -> Self {
        Self { positions, max_position, ..self }
    }

    /// The same with what cross-attention reads.
    #[must_use]
    pub fn with_context(self, context: Context) -> Self {
        Self { context: Some(context), ..self }
    }

    /// The same with the part that each token belongs to, `(B, T)` u32.
    #[must_use]
    pub fn with_types(self, type_ids: Tensor) -> Self {
        Self { type_ids: Some(type_ids), ..self }
    }

    /// The part that each token belongs to, `(B, T)` u32; the first, 0, where the inputs do not say.
    pub(crate) fn types_or_first(&self, g: &mut Graph) -> Tensor {
        self.type_ids.unwrap_or_else(|| {
            let shape = g.shape(self.ids).clone();
            g.constant("type_ids", Array::zeros(shape), DType::U32)
        })
    }

    /// The same with attention limited by a tree mask, `(B, T, 3)` u32.
    #[must_use]
    pub fn with_tree(self, tree: Tensor) -> Self {
        Self { tree: Some(tree), ..self }
    }

    /// The same with prefixes that all tokens of a row see, `(B)` u32.
    #[must_use]
    pub fn with_prefix(self, prefix: Tensor) -> Self {
        Self { prefix: Some(prefix), ..self }
    }

    /// The same with several texts in each row. Positions, `(B, T)` u32, begin at 0 in each of them, and are below `longest`.
    #[must_use]
    pub fn with_documents(self, documents: Documents, positions: Tensor, longest: usize) -> Self {
        Self { documents: Some(documents), ..self.with_positions(positions, longest) }
    }

    /// The same as a step of training.
    #[must_use]
    pub fn for_training(self) -> Self {
        Self { training: true, ..self }
    }

    /// The same with dropout, as in training.
    #[must_use]
    pub fn with_dropout(self, seed: Tensor) -> Self {
        Self { dropout_seed: Some(seed), ..self }
    }

    /// What tells the lengths of the texts, as [`crate::ops::rope_rows`] takes it; none where all are taken to be as long as a row.
    pub(crate) fn text_lengths(&self) -> Option<Tensor> {
        match self.kv {
            KvSource::Prefill { lengths, .. } | KvSource::Decode { lengths, .. } | KvSource::Pages { lengths, .. } => {
                Some(lengths)
            }
            KvSource::Packed { lengths } => lengths,
            _ => self.documents.map(|documents| documents.ranges),
        }
    }

    /// Refuses more positions than a model has.
    pub(crate) fn check(&self, positions: usize, key: &str) -> Result<()> {
        if self.max_position <= positions {
            return Ok(());
        }
        let message = format!("{} tokens are too many: the model has {positions} positions ({key})", self.max_position);
        Err(Error::shape("ids", message))
    }
}

/// Several texts side by side in each row: tokens attend to those of their own text only.
#[derive(Clone, Copy, Debug)]
pub struct Documents {
    /// The first token of each token's text in its row, and one past the last, `(B, T, 2)` u32; equal on padding.
    pub ranges: Tensor,
    /// The same of the encoder's tokens that it sees by cross-attention, `(B, T, 2)` u32.
    pub context: Option<Tensor>,
}

/// The source of the keys and values of cross-attention.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Context {
    /// It makes them of the encoder's states.
    States {
        /// The states, `(B, S, C)`.
        states: Tensor,
        /// 0 on padding, `(B, S)` u32; none: all are real.
        key_mask: Option<Tensor>,
    },
    /// They were made once, by [`Stack::cache_context`](super::Stack::cache_context), and are kept.
    Cached {
        /// Positions of a cache.
        capacity: usize,
        /// Positions in use per row, `(B)` u32.
        lengths: Tensor,
    },
}

/// The outputs of a model's blocks.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// The hidden states behind the last norm, `(B, T, C)`.
    pub states: Tensor,
    /// The losses of the routers, each times its coefficient: a scalar that training adds to its loss.
    pub auxiliary: Option<Tensor>,
    /// The decisions of the routers, by name: `router_logits.0`, `selected.0`, `depth`, `aux_loss`, `experts.3` and, where that gate saw
    /// some of the tokens only, their `positions.3`.
    pub routing: Vec<(String, Tensor)>,
    /// Loads, entropy and drops of each router, in the order of the pass: what training reports. It costs nothing unless
    /// something reads it.
    pub routers: Vec<RouterStats>,
}

/// Without routers.
impl From<Tensor> for Hidden {
    fn from(states: Tensor) -> Self {
        Self { states, auxiliary: None, routing: Vec::new(), routers: Vec::new() }
    }
}
