//! Embeddings, blocks and the head of a language model.

use super::{Bert, BertFamily};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Array, Graph, Initial, Tensor};
use crate::models::{EncoderHead, LmHead, TokenInputs};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, KvSource, LinearConfig, LinearUse, Mask, NormKind, NormOrder,
    QkvNames, Stack,
};
use crate::ops::{self, SelectOptions, SelectRule};

impl Bert {
    /// The prefix of the names of all weights but the head's.
    pub(super) fn base(&self) -> &'static str {
        if self.head == EncoderHead::None { "" } else { self.family.names().naming.base }
    }

    pub(super) fn linear(&self) -> LinearConfig {
        LinearConfig::out_in(true).with_std(self.init_std)
    }

    fn norm(&self) -> NormKind {
        NormKind::Layer { eps: self.epsilon }
    }

    /// The blocks in the order of their uses: use i of `layers` is of the group `i · groups / layers`. Those of one prefix share their weights.
    pub(super) fn stack(&self) -> Stack {
        let group = |layer: usize| layer * self.groups / self.layers;
        let uses = (0..self.layers).flat_map(|layer| (0..self.group_layers).map(move |inner| (group(layer), inner)));
        let blocks = uses.map(|(group, inner)| self.block(group, inner)).collect();
        Stack { blocks, recursion: None, final_norm: None, balance: Balance::default(), salt: 0 }
    }

    fn block(&self, group: usize, inner: usize) -> Block {
        let (names, linear, head_dim) = (self.family.names(), self.linear(), self.d_model / self.heads);
        let heads = Heads { query: self.heads, key_value: self.heads, head_dim };
        let mask = if self.causal { Mask::Causal } else { Mask::Bidirectional };
        let place = format!("{}{}{group}", self.base(), names.layer);
        // DistilBERT drops nothing of attention's result, ALBERT nothing of the network's.
        let [attended, dropout] = match self.family {
            BertFamily::DistilBert => [0.0, self.dropout],
            BertFamily::Albert => [self.dropout, 0.0],
            _ => [self.dropout; 2],
        };
        let attention = ("attention", QkvNames::Separate(names.qkv), names.attention_output);
        Block {
            prefix: match self.family {
                BertFamily::Albert => format!("{place}.albert_layers.{inner}"),
                _ => place,
            },
            norm: self.norm(),
            order: NormOrder::Post,
            attention_norm: names.attention_norm.into(),
            attention: Attention {
                dropout: self.attention_dropout,
                output_dropout: Some(attended),
                ..Attention::new(attention, linear, heads, mask)
            },
            cross: None,
            feed_forward_norm: names.feed_forward_norm.into(),
            feed_forward: FeedForward::Plain {
                names: names.feed_forward,
                d_ff: self.d_ff,
                activation: self.activation,
                linear,
                output_linear: linear,
            },
            parallel: false,
            dropout,
            activation_dropout: 0.0,
            residual_scale: 1.0,
        }
    }

    pub(super) fn embeddings(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Tensor> {
        let name = |name: &str| format!("{}embeddings.{name}", self.base());
        let (std, width) = (self.init_std, self.embedding_size);
        let words = g.matrix(&name("word_embeddings.weight"), [self.vocabulary, width], Initial::Normal(std))?;
        let mut x = ops::embedding_with_padding(g, words, inputs.ids, self.padding)?;
        if self.types > 0 {
            let types = inputs.types_or_first(g);
            let types = nn::embedding(g, &name("token_type_embeddings"), types, [self.types, width], std)?;
            x = ops::add(g, x, types)?;
        }
        let rows = if self.sinusoidal { Initial::Sinusoids { columns: width } } else { Initial::Normal(std) };
        let table = g.matrix(&name("position_embeddings.weight"), [self.max_position, width], rows)?;
        let counted = self.padding.filter(|_| self.family.counts_from_padding());
        let positions = match counted {
            Some(padding) => positions_from(g, inputs, padding)?,
            None => inputs.positions,
        };
        let positions = ops::embedding_with_padding(g, table, positions, counted)?;
        x = ops::add(g, x, positions)?;
        x = self.norm().apply(g, &name("LayerNorm"), x)?;
        x = nn::dropout(g, x, self.dropout, inputs.dropout_seed, 0)?;
        if self.family == BertFamily::Albert || width != self.d_model {
            let name = format!("{}{}", self.base(), self.family.names().projection);
            x = g.scope("projection", |g| nn::linear(g, &name, x, self.d_model, self.linear()))?;
        }
        Ok(x)
    }

    /// What goes into the last layer of a language model.
    pub(super) fn transform(&self, g: &mut Graph, states: Tensor) -> Result<Tensor> {
        let words = &self.family.names().words;
        let with = LinearUse { activation: Some(words.activation.unwrap_or(self.activation)), lengths: None };
        g.scope("transform", |g| {
            let x = nn::linear_with(g, words.dense, states, self.embedding_size, self.linear(), with)?;
            self.norm().apply(g, words.norm, x)
        })
    }

    /// The last layer of a language model.
    pub(super) fn word_head(&self, g: &mut Graph) -> Result<LmHead> {
        let words = &self.family.names().words;
        let mut bias = g.full_precision(words.bias, [self.vocabulary], Initial::Zeros)?;
        let mut weight = format!("{}embeddings.word_embeddings.weight", self.base());
        if !self.tied {
            weight = format!("{}.weight", words.decoder);
            if let Some(own) = words.own_bias {
                // Files have the bias of a tied layer as well, which nothing reads.
                bias = g.full_precision(own, [self.vocabulary], Initial::Zeros)?;
            }
        }
        let head = LmHead::new(g, &weight, [self.vocabulary, self.embedding_size], self.init_std)?;
        Ok(LmHead { bias: Some(bias), ..head })
    }
}

/// The positions of tokens, `(B, T)`, that count those that are no padding, from `padding + 1` on; padding has the position `padding`.
fn positions_from(g: &mut Graph, inputs: &TokenInputs, padding: u32) -> Result<Tensor> {
    let behind = padding.wrapping_add(1);
    if inputs.documents.is_some() || !matches!(inputs.kv, KvSource::Uncached { .. } | KvSource::Packed { .. }) {
        // Neither have texts that are continued padding in front of their tokens, nor texts that are packed.
        return ops::shift_ids(g, inputs.positions, behind);
    }
    let shape = g.shape(inputs.ids).clone();
    // Moved so, padding is the last of all numbers.
    let moved = ops::shift_ids(g, inputs.ids, behind.wrapping_neg())?;
    let real = SelectRule::Between { low: 0, high: ops::NONE - 1 };
    let slots = ops::select(g, moved, real, &SelectOptions::default())?.inverse;
    // A table by slots, which go on from row to row; what has no slot gets 0 of it.
    let [rows, time] = shape.expect("ids")?;
    let numbers = Array::from_fn([rows * time, 1], |slot| (slot % time.max(1) + 1) as f64);
    let numbers = g.constant("numbers", numbers, DType::U32);
    let numbers = ops::gather_words(g, numbers, slots)?;
    let numbers = ops::reshape(g, numbers, shape)?;
    ops::shift_ids(g, numbers, padding)
}
