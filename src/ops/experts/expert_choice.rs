//! Expert choice: experts that choose their tokens.

use super::{ExpertDispatch, ExpertWeights, expert_feed_forward};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::ops::{
    Activation, SelectOptions, SelectRule, gather_rows, gather_unique, reshape, scatter_rows, select, softmax,
    transpose,
};

/// The result of [`expert_choice`] for T tokens, E experts and k tokens per expert.
#[derive(Clone, Copy, Debug)]
pub struct ExpertSelection {
    /// The token of each slot, (E·k) u32: those of expert 0 first, ascending within an expert.
    pub index: Tensor,
    /// The slot of each token with each expert, (E·T) u32; [`NONE`](crate::ops::NONE) where the expert did not choose it.
    pub slots: Tensor,
    /// The weight of each slot, (E, k) f32.
    pub gates: Tensor,
    /// The scores of each token for each expert, (T, E) f32: rows sum to 1.
    pub scores: Tensor,
}

/// Each expert takes the `k` tokens with its highest scores: `p = softmax(logits)` along the experts of (T, E) f32; slots and gates are the
/// `k` largest of each column of p, with ties to the lower token.
///
/// Loads are even by construction, and shapes are fixed. A token may have any number of experts, also none. Its experts depend on later
/// tokens, so this is for encoders. The gradient goes through the gates to the logits, not through the choice.
///
/// Zhou et al., "Mixture-of-Experts with Expert Choice Routing", arXiv:2202.09368, with k = T · factor / E.
///
/// # Errors
/// [`Error::Shape`] if logits or scores are no f32 matrix, or k is 0 or more than T.
pub fn expert_choice(g: &mut Graph, logits: Tensor, k: usize) -> Result<ExpertSelection> {
    let scores = softmax(g, logits)?;
    expert_choice_by_scores(g, scores, k)
}

/// [`expert_choice`] with given scores (T, E). Padding tokens with scores of zero get no expert.
///
/// # Errors
/// As [`expert_choice`].
pub fn expert_choice_by_scores(g: &mut Graph, scores: Tensor, k: usize) -> Result<ExpertSelection> {
    let (experts, tokens) = match (g.dtype(scores), g.shape(scores).dims()) {
        (DType::F32, &[tokens, experts]) if (1..=tokens).contains(&k) && experts > 0 => (experts, tokens),
        _ => {
            let what = format!("each expert can't choose {k} tokens from scores {}", g.ty(scores));
            return Err(Error::shape("expert_choice", what));
        }
    };
    let columns = transpose(g, scores, &[1, 0])?;
    let chosen = select(g, columns, SelectRule::Top(k), &SelectOptions::default())?;
    let flat = reshape(g, columns, [experts * tokens, 1])?;
    let gates = gather_unique(g, flat, chosen.index, chosen.inverse)?;
    Ok(ExpertSelection {
        index: reshape(g, chosen.positions, [experts * k])?,
        slots: chosen.inverse,
        gates: reshape(g, gates, [experts, k])?,
        scores,
    })
}

/// `y[t] = Σ gates[e, j] · E_e(x[t])` over the slots (e, j) whose token is t, `E_e(x) = (f(x Wgᵀ) ⊙ (x Wuᵀ)) Wdᵀ`: x and y (T, C) f32.
/// A token that no expert chose gets zeros.
///
/// Slots are already in the order of their experts, so nothing is sorted. The backward pass keeps the rows of x, (E k, C), and the inputs of
/// the activations, two tensors (E k, F).
///
/// # Errors
/// [`Error::Shape`] that names the operand that does not fit.
pub fn expert_choice_feed_forward(
    g: &mut Graph,
    x: Tensor,
    experts: ExpertWeights,
    choice: &ExpertSelection,
    activation: Activation,
) -> Result<Tensor> {
    let ([tokens, _], [count, k]) = (g.shape(x).expect(NAME)?, g.shape(choice.gates).expect(NAME)?);
    let scored = g.shape(choice.scores).rows();
    if tokens != scored {
        return Err(Error::shape(NAME, format!("x is {}, but the experts chose from {scored} tokens", g.ty(x))));
    }
    // Each slot counts as a token with one expert.
    let routing = ExpertDispatch::even(g, count, k);
    let rows = gather_rows(g, x, choice.index)?;
    let weights = reshape(g, choice.gates, [count * k, 1])?;
    let y = expert_feed_forward(g, rows, experts, weights, &routing, activation)?;
    scatter_rows(g, y, choice.index, tokens)
}

const NAME: &str = "expert_choice_feed_forward";

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    choices().into_iter().chain(networks()).collect()
}

/// Experts that choose: normal logits, equal ones, as many as there are.
fn choices() -> Vec<Case> {
    let mut cases = Vec::new();
    for (tokens, experts, k) in [(1, 1, 1), (31, 3, 31), (33, 8, 9), (257, 11, 47)] {
        let equal = Feed::given("logits", [tokens, experts], DType::F32, vec![-0.5; tokens * experts]);
        for (name, logits) in [("normal", Feed::normal("logits", [tokens, experts])), ("equal", equal)] {
            let name = format!("expert_choice {k} of {tokens} tokens, {experts} experts, {name} logits");
            cases.push(Case::new(name, vec![logits], move |g, x| {
                let choice = expert_choice(g, x[0], k)?;
                Ok(vec![choice.gates, choice.index, choice.slots])
            }));
        }
    }
    cases
}

/// Experts that choose their tokens: some, all, one; tokens with several experts and with none.
fn networks() -> impl Iterator<Item = Case> {
    let sizes = [([1, 1, 1], [1, 1]), ([31, 3, 31], [33, 31]), ([33, 8, 9], [12, 36]), ([257, 11, 1], [20, 7])];
    sizes.into_iter().map(|(size @ [tokens, experts, k], [d_model, d_ff])| {
        let feeds = vec![
            Feed::normal("x", [tokens, d_model]),
            Feed::normal_scaled("gate", [experts, d_ff, d_model], 0.0, 0.4),
            Feed::normal_scaled("up", [experts, d_ff, d_model], 0.0, 0.4),
            Feed::normal_scaled("down", [experts, d_model, d_ff], 0.0, 0.4),
            Feed::normal("logits", [tokens, experts]),
        ];
        let name = format!("expert_choice_feed_forward {size:?} {d_model} and {d_ff}");
        Case::new(name, feeds, move |g, x| {
            let choice = expert_choice(g, x[4], k)?;
            let experts = ExpertWeights { gate: x[1], up: x[2], down: x[3] };
            Ok(vec![expert_choice_feed_forward(g, x[0], experts, &choice, Activation::Silu)?])
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Array, Values};

    #[test]
    fn experts_take_their_best_tokens_in_order() -> Result<()> {
        let mut g = Graph::new();
        let logits = g.input("logits", [4, 2], DType::F32)?;
        let choice = expert_choice(&mut g, logits, 2)?;
        // The first expert likes tokens 3 and 0, the second 1 and, of equals, 0.
        let z = [0.5, 0.5, -2.0, 1.0, 0.0, 0.0, 1.0, -1.0];
        let values = Values::from([("logits".to_owned(), Array::new([4, 2], z.to_vec())?)]);
        let found = g.evaluate(&values, &[choice.index, choice.gates, choice.slots])?;
        assert_eq!(found[0].data, [0.0, 3.0, 0.0, 1.0]);
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        for (gate, x) in found[1].data.iter().zip([0.0, 2.0, 0.0, 3.0]) {
            approx::assert_relative_eq!(*gate, logistic(x), epsilon = 1e-12);
        }
        let none = f64::from(crate::ops::NONE);
        assert_eq!(found[2].data, [0.0, none, none, 1.0, 2.0, 3.0, none, none]);
        Ok(())
    }

    #[test]
    fn a_choice_of_other_tokens_is_refused() -> Result<()> {
        let mut g = Graph::new();
        let logits = g.input("logits", [4, 2], DType::F32)?;
        let choice = expert_choice(&mut g, logits, 2)?;
        let x = g.input("x", [5, 6], DType::F32)?;
        let (up, down) = (g.input("up", [2, 3, 6], DType::F32)?, g.input("down", [2, 6, 3], DType::F32)?);
        let weights = ExpertWeights { gate: up, up, down };
        let refused = expert_choice_feed_forward(&mut g, x, weights, &choice, Activation::Silu);
        let message = refused.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "expert_choice_feed_forward: x is f32[5, 6], but the experts chose from 4 tokens");
        Ok(())
    }

    #[test]
    fn more_tokens_than_there_are_can_not_be_chosen() -> Result<()> {
        let mut g = Graph::new();
        let logits = g.input("logits", [4, 2], DType::F32)?;
        let message = expert_choice(&mut g, logits, 5).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "expert_choice: each expert can't choose 5 tokens from scores f32[4, 2]");
        Ok(())
    }
}
