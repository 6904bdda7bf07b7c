//! What the GPU makes of the logits of a step, and what it gives back.

use super::generator::GenerateLimits;
use super::rules::Allowed;
use super::sampling::SamplingOptions;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::models::Model;
use crate::ops::{self, LogitEdit, SelectOptions, SelectRule};
use std::collections::HashSet;

/// What a step of generation gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenPick {
    /// Output `logits (B, V)` f32.
    Logits,
    /// Output `tokens (B)` u32, chosen by [`ops::draw`] as the input `choices (B, 5)` u32 says. With edits, behind [`ops::edit_logits`] by the
    /// inputs `edits (B, M)` u32 and `penalties (B)` f32.
    Draw {
        /// M: tokens of a row that may be edited; 0: none.
        edits: usize,
    },
    /// The likeliest tokens of each row in no particular order: output `candidates (B · count)` u32, row · V + token, and `log_probs (B · count)`
    /// f32. Edits as for `Draw`, of logarithms of probabilities.
    Best {
        /// How many of each row.
        count: usize,
        /// M: tokens of a row that may be edited; 0: none.
        edits: usize,
    },
}

impl TokenPick {
    /// The choice of one token by such options.
    #[must_use]
    pub fn of(options: &SamplingOptions, limits: GenerateLimits, model: &dyn Model) -> Self {
        Self::Draw { edits: options.most_edits(limits, model.dimensions().vocabulary) }
    }

    /// Adds the inputs and outputs to a graph that computes `logits (B, V)`.
    pub(super) fn outputs(self, g: &mut Graph, logits: Tensor) -> Result<()> {
        let (rows, vocabulary) = (g.shape(logits).rows(), g.shape(logits).last());
        match self {
            Self::Logits => g.output("logits", logits),
            Self::Draw { edits } => {
                let logits = edited(g, logits, edits)?;
                let choices = g.input("choices", [rows, 5], DType::U32)?;
                let tokens = ops::draw(g, logits, choices)?;
                g.output("tokens", tokens)
            }
            Self::Best { count, edits } => {
                let log_probs = ops::log_softmax(g, logits)?;
                let log_probs = edited(g, log_probs, edits)?;
                let best = ops::select(g, log_probs, SelectRule::Top(count), &SelectOptions::default())?.index;
                let all = ops::reshape(g, log_probs, [rows * vocabulary, 1])?;
                let log_probs = ops::gather_rows(g, all, best)?;
                g.output("candidates", best)?;
                g.output("log_probs", log_probs)
            }
        }
    }

    /// The edits of a row.
    pub(super) fn edits(self) -> usize {
        match self {
            Self::Logits => 0,
            Self::Draw { edits } | Self::Best { edits, .. } => edits,
        }
    }
}

fn edited(g: &mut Graph, logits: Tensor, edits: usize) -> Result<Tensor> {
    if edits == 0 {
        return Ok(logits);
    }
    let rows = g.shape(logits).rows();
    let words = g.input("edits", [rows, edits], DType::U32)?;
    let penalties = g.input("penalties", [rows], DType::F32)?;
    ops::edit_logits(g, logits, words, penalties)
}

impl SamplingOptions {
    /// How many tokens of a row penalties and rules may concern, as a power of two.
    pub(super) fn most_edits(&self, limits: GenerateLimits, vocabulary: usize) -> usize {
        let rules = &self.rules;
        let seen = if self.repetition_penalty == 1.0 { 0 } else { limits.max_tokens };
        let repeated = if rules.no_repeat_ngram == 0 { 0 } else { limits.max_tokens };
        let end = if rules.min_new_tokens == 0 { 0 } else { self.end.len() };
        let lists = rules.suppress.len() + rules.suppress_first.len() + rules.bad_words.len() + end;
        match (seen + repeated + lists).min(vocabulary) {
            0 => 0,
            most => most.next_power_of_two(),
        }
    }

    /// The edits of a row behind `history`, whose last `made` tokens are the answer so far, and the tokens of which one is forced, if any are.
    pub(super) fn edits_behind(&self, history: &[u32], made: usize, vocabulary: usize) -> (Vec<u32>, Option<Vec<u32>>) {
        let banned = match self.rules.allowed(history, made, self.max_new_tokens, &self.end) {
            Allowed::Only(forced) => return (Vec::new(), Some(forced)),
            Allowed::AllBut(banned) => banned,
        };
        let seen: HashSet<u32> = match self.repetition_penalty == 1.0 {
            true => HashSet::new(),
            false => history.iter().filter(|token| !banned.contains(token)).copied().collect(),
        };
        let known = |token: &u32| (*token as usize) < vocabulary;
        let bans = banned.iter().copied().filter(known).map(LogitEdit::Ban);
        let penalties = seen.iter().copied().filter(known).map(LogitEdit::Penalise);
        (bans.chain(penalties).map(LogitEdit::word).collect(), None)
    }
}
