//! States, and what heads make of them.

use super::ModernBert;
use crate::error::{Error, Result};
use crate::graph::{Graph, Initial, Tensor};
use crate::models::{Encoder, EncoderHead, Hidden, LmHead, Model, TokenInputs};
use crate::nn::{self, LinearConfig};

/// The salt of dropout after the blocks.
const HEAD_SALT: u32 = 1 << 24;

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
            (true, true) => g.scope("mean", |g| nn::mean_states(g, states, inputs))?,
            (true, false) => nn::first_states(g, states)?,
        };
        let x = self.transform(g, x)?;
        let x = nn::dropout(g, x, self.classifier_dropout, inputs.dropout_seed, HEAD_SALT)?;
        let linear = LinearConfig::out_in(true).with_std(1.0 / (self.d_model as f64).sqrt());
        g.scope("head", |g| nn::linear(g, "classifier", x, labels, linear))
    }
}
