//! What the GPU makes of the logits of a step, and what it gives back.

use super::generator::GenerateLimits;
use super::hypotheses::{BeamOptions, Hypotheses};
use super::rules::Allowed;
use super::sampling::SamplingOptions;
use super::warp::MOST_CANDIDATES;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::models::Model;
use crate::ops::{self, LogitEdit, SelectOptions, SelectRule};
use std::collections::{BTreeMap, BTreeSet};

/// What a step of generation gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TokenPick {
    /// Output `logits (B, V)` f32.
    Logits,
    /// Output `tokens (B)` u32, chosen by [`ops::draw`] as the input `choices (B, 5)` u32 says. With edits, behind [`ops::edit_logits`] by the
    /// input `edits (B, M, 4)` u32.
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
        /// Whether the probabilities sum to 1 again behind the edits.
        renormalise: bool,
    },
}

impl TokenPick {
    /// The choice of one token by such options.
    #[must_use]
    pub fn of(options: &SamplingOptions, limits: GenerateLimits, model: &dyn Model) -> Self {
        Self::Draw { edits: options.most_edits(limits, model.dimensions().vocabulary) }
    }

    /// The choice among the likeliest tokens of each row, of which a beam needs so many.
    #[must_use]
    pub fn of_beams(beams: BeamOptions, options: &SamplingOptions, limits: GenerateLimits, model: &dyn Model) -> Self {
        let vocabulary = model.dimensions().vocabulary;
        let count = match beams.drawn {
            true => options.top_k.max(options.least()).min(MOST_CANDIDATES),
            false => Hypotheses::of_a_row(beams.beams, options),
        };
        let renormalise = options.renormalise && !beams.drawn;
        Self::Best { count: count.min(vocabulary), edits: options.most_edits(limits, vocabulary), renormalise }
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
            Self::Best { count, edits, renormalise } => {
                let log_probs = ops::log_softmax(g, logits)?;
                let mut log_probs = edited(g, log_probs, edits)?;
                if renormalise && edits > 0 {
                    log_probs = ops::log_softmax(g, log_probs)?;
                }
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
    let words = g.input("edits", [rows, edits, 4], DType::U32)?;
    ops::edit_logits(g, logits, words)
}

/// A row that a token is chosen for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind<'a> {
    /// The tokens that the model itself has read.
    pub(super) history: &'a [u32],
    /// How many of them, the last ones, are the answer so far.
    pub(super) made: usize,
    /// The prompt, whichever side reads it.
    pub(super) prompt: &'a [u32],
}

impl SamplingOptions {
    /// How many tokens of a row penalties and rules may concern, as a power of two.
    pub(super) fn most_edits(&self, limits: GenerateLimits, vocabulary: usize) -> usize {
        let rules = &self.rules;
        let texts = [
            self.repetition_penalty != 1.0,
            rules.prompt_penalty.is_some(),
            rules.no_repeat_ngram > 0,
            rules.no_prompt_ngram > 0,
        ];
        let seen = texts.into_iter().filter(|counts| *counts).count().saturating_mul(limits.max_tokens);
        let ends = rules.min_new_tokens > 0 || rules.end_decay.is_some();
        let end = if ends { self.end.len() } else { 0 };
        let lists =
            rules.suppress.len() + rules.suppress_first.len() + rules.bad_words.len() + rules.biases.len() + end;
        match seen.saturating_add(lists).min(vocabulary) {
            0 => 0,
            most => most.next_power_of_two(),
        }
    }

    /// The edits of a row, and the tokens of which one is forced, if any are.
    pub(super) fn edits_of(&self, row: &Behind<'_>, vocabulary: usize) -> (Vec<LogitEdit>, Option<Vec<u32>>) {
        let rules = &self.rules;
        let banned = match rules.allowed(row, self.max_new_tokens, &self.end) {
            Allowed::Only(forced) => return (Vec::new(), Some(forced)),
            Allowed::AllBut(banned) => banned,
        };
        // In the order of transformers: each finds what those before it made.
        let mut changes: BTreeMap<u32, Change> = BTreeMap::new();
        for (token, bias) in rules.biases_behind(row.history) {
            changes.entry(token).or_default().add += bias;
        }
        let penalties =
            [(row.prompt, rules.prompt_penalty.map(f32::recip)), (row.history, Some(self.repetition_penalty))];
        for (text, penalty) in penalties {
            let Some(penalty) = penalty.filter(|penalty| *penalty != 1.0) else { continue };
            for token in text.iter().collect::<BTreeSet<_>>() {
                changes.entry(*token).or_default().penalise(penalty);
            }
        }
        if let Some(factor) = rules.end_factor(row.made) {
            for token in self.end.iter().collect::<BTreeSet<_>>() {
                let change = changes.entry(*token).or_default();
                (change.divide, change.multiply) = (change.divide / factor, change.multiply * (2.0 - factor));
            }
        }
        let known = |token: &u32| (*token as usize) < vocabulary;
        let bans = banned.iter().copied().filter(known).map(LogitEdit::Ban);
        let changed = changes.into_iter().filter(|(token, _)| known(token) && !banned.contains(token));
        (bans.chain(changed.map(|(token, change)| change.edit(token))).collect(), None)
    }
}

/// What becomes of one logit.
#[derive(Clone, Copy, Debug)]
struct Change {
    add: f32,
    divide: f32,
    multiply: f32,
}

impl Default for Change {
    fn default() -> Self {
        Self { add: 0.0, divide: 1.0, multiply: 1.0 }
    }
}

impl Change {
    fn penalise(&mut self, penalty: f32) {
        self.divide *= penalty;
        self.multiply *= penalty;
    }

    fn edit(self, token: u32) -> LogitEdit {
        let Self { add, divide, multiply } = self;
        LogitEdit::Change { token, add, divide, multiply }
    }
}
