//! States, and what heads make of them.

use super::NomicBert;
use crate::error::{Error, Result};
use crate::graph::{Graph, Initial, Tensor};
use crate::models::{Encoder, EncoderHead, Hidden, LmHead, Model, TokenInputs};
use crate::nn::{self, LinearUse};
use crate::ops::Activation;

/// The salt of dropout after the blocks.
const HEAD_SALT: u32 = 1 << 24;
/// The layer on the first token's state.
pub(super) const POOLER: &str = "pooler.dense";
/// The layer in front of the last of a language model.
pub(super) const TRANSFORM: &str = "cls.predictions.transform.dense";

impl NomicBert {
    fn pool(&self, g: &mut Graph, states: Tensor) -> Result<Tensor> {
        let first = nn::first_states(g, states)?;
        let with = LinearUse { activation: Some(Activation::Tanh), lengths: None };
        let name = format!("{}{POOLER}", self.base());
        g.scope("pooler", |g| nn::linear_with(g, &name, first, self.d_model, self.linear(true), with))
    }
}

impl Encoder for NomicBert {
    fn head_kind(&self) -> EncoderHead {
        self.head
    }

    fn encode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        inputs.check(self.max_position, "max_position_embeddings")?;
        let mut hidden = Hidden::from(g.scope("embedding", |g| self.embeddings(g, inputs))?);
        for stack in self.stacks() {
            hidden = stack.run(g, hidden.states, inputs)?;
        }
        Ok(hidden)
    }

    fn pooled(&self, g: &mut Graph, states: Tensor) -> Result<Option<Tensor>> {
        let pools = self.head == EncoderHead::None && self.pooler;
        if pools { self.pool(g, states).map(Some) } else { Ok(None) }
    }

    fn mlm_head(&self, g: &mut Graph, states: Tensor) -> Result<(Tensor, LmHead)> {
        if !self.head.predicts_tokens() {
            return Err(Error::Graph("this model has no head of a language model".into()));
        }
        let with = LinearUse { activation: Some(self.activation), lengths: None };
        let states = g.scope("transform", |g| {
            let x = nn::linear_with(g, TRANSFORM, states, self.d_model, self.linear(self.head_bias), with)?;
            self.norm().apply(g, "cls.predictions.transform.layer_norm", x)
        })?;
        let bias = match self.head_bias {
            true => Some(g.full_precision("cls.predictions.bias", [self.vocabulary], Initial::Zeros)?),
            false => None,
        };
        let name = format!("{}embeddings.word_embeddings.weight", self.base());
        Ok((states, LmHead { bias, ..LmHead::new(g, &name, [self.vocabulary, self.d_model], self.init_std)? }))
    }

    fn class_logits(&self, g: &mut Graph, states: Tensor, inputs: &TokenInputs) -> Result<Tensor> {
        let (x, labels) = match self.head {
            EncoderHead::SequenceClassification { labels } => (self.pool(g, states)?, labels),
            EncoderHead::TokenClassification { labels } => (states, labels),
            _ => return Err(Error::Graph("this model has no classes".into())),
        };
        let x = nn::dropout(g, x, self.classifier_dropout, inputs.dropout_seed, HEAD_SALT)?;
        g.scope("head", |g| nn::linear(g, "classifier", x, labels, self.linear(true)))
    }
}
