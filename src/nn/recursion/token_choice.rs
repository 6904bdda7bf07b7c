//! Tokens that choose how often they recur.

use super::router::Router;
use super::tokens::Tokens;
use super::{Pass, RecursionOutput, RecursionUse};
use crate::error::Result;
use crate::graph::{Graph, Initial, Tensor};
use crate::nn::router_stats::{RouterDecision, RouterStats};
use crate::ops::{self, Assignment, SelectOptions, SelectRule};

/// Each token chooses how often the block is used for it, before the first time.
///
/// With `p = alpha · f(x · Wᵀ)` and `depth = argmax(p)`, `x += p[depth] · h`, `h` being the token's state after `depth + 1`
/// uses. How many tokens a recursion has is known on the GPU only: kv is for all tokens, products skip those that are not
/// there.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenChoiceRouting {
    /// The router of all recursions, `PREFIXrouter`.
    pub router: Router,
    /// The largest number of uses.
    pub recursions: usize,
    /// Blocks to choose from; the router has an output for every module and depth.
    pub modules: usize,
    /// Recursions after the first attend to keys and values of the first.
    pub kv_sharing: bool,
    /// Above 0, `PREFIXrouter.bias` is added to `p` where the depth is chosen, and each step of training moves it by so much
    /// towards even loads (arXiv 2408.15664).
    pub bias_rate: f32,
}

impl TokenChoiceRouting {
    /// Adds the recursions, `block` adds one use of a block and gives its states.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn run(
        &self,
        g: &mut Graph,
        tokens: Tokens,
        with: RecursionUse<'_>,
        mut block: impl FnMut(&mut Graph, Pass) -> Result<Tensor>,
    ) -> Result<RecursionOutput> {
        let shape = g.shape(tokens.states).clone();
        let [batch, time, _] = shape.expect("states")?;
        let num_choices = self.modules * self.recursions;
        let rows = tokens.rows(g)?;
        let (logits, choice, gates, auxiliary, sums) = g.scope("router", |g| {
            let logits = self.router.logits(g, &format!("{}router", with.prefix), rows, num_choices, with.std)?;
            let chances = self.router.gates(g, logits)?;
            let bias = match self.bias_rate > 0.0 {
                true => {
                    Some(g.full_precision(&format!("{}router.bias", with.prefix), [num_choices], Initial::Zeros)?)
                }
                false => None,
            };
            let choice = ops::argmax_rows(g, chances, bias)?;
            let lengths = tokens.lengths;
            let [loss, shares] = ops::balance_loss_and_shares(g, logits, chances, choice, lengths, self.router.loss)?;
            if let Some(bias) = bias.filter(|_| with.training) {
                ops::update_bias(g, bias, shares, self.bias_rate)?;
            }
            let decision = RouterDecision::Depth { recursions: self.recursions };
            let sums = RouterStats::new(g, decision, chances, Assignment::Choice(choice), lengths)?;
            Ok((logits, choice, ops::pick(g, chances, choice)?, loss, sums))
        })?;
        let choice_of_rows = ops::reshape(g, choice, [batch, time])?;
        let mut states = rows;
        for (module, recursion) in
            (0..self.modules).flat_map(|module| (0..self.recursions).map(move |recursion| (module, recursion)))
        {
            let scope = format!("recursions.{}", module * self.recursions + recursion);
            let (taken, selected) = g.scope(&scope, |g| {
                if self.modules == 1 && recursion == 0 {
                    return Ok((tokens, None));
                }
                let first = (module * self.recursions) as u32;
                let range =
                    SelectRule::Between { low: first + recursion as u32, high: first + self.recursions as u32 - 1 };
                let options = SelectOptions { lengths: tokens.lengths, positions: Some(tokens.positions), most: None };
                let selected = ops::select(g, choice_of_rows, range, &options)?;
                Ok((tokens.selected(g, states, &selected)?, Some(selected)))
            })?;
            let caches = module * self.recursions + recursion;
            let kv = taken.kv(g, with, caches, self.kv_sharing)?;
            let out = block(g, Pass { module, recursion, tokens: taken, kv })?;
            states = g.scope(&scope, |g| {
                let out = Tokens { states: out, ..taken }.rows(g)?;
                match selected {
                    Some(selected) => ops::place_rows(g, states, out, selected.index, selected.inverse),
                    None => Ok(out),
                }
            })?;
        }
        let sum = ops::gated_add(g, rows, states, gates)?;
        let logits = ops::reshape(g, logits, [batch, time, num_choices])?;
        let name = if self.modules == 1 { "depth" } else { "choice" };
        let routing = [("router_logits", logits), (name, choice_of_rows), ("aux_loss", auxiliary)];
        let routing = routing.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
        Ok(RecursionOutput { states: ops::reshape(g, sum, shape)?, auxiliary, routing, routers: vec![sums] })
    }
}
