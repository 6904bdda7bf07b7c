//! Statistics of routers.

use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::{self, Assignment};

/// The decision that a router makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouterDecision {
    /// The experts of a token.
    Experts,
    /// Whether a recursion takes a token.
    Recursion,
    /// How often a token recurs, and through which of several blocks: choice `block · recursions + depth`.
    Depth {
        /// The largest number of recursions.
        recursions: usize,
    },
}

/// The statistics of one router, as sums over the tokens of a pass.
#[derive(Clone, Copy, Debug)]
pub struct RouterStats {
    /// The decision that it makes.
    pub decision: RouterDecision,
    /// The load of each choice, slots dropped, the sum of entropies, tokens: see [`ops::router_stats`].
    pub sums: Tensor,
}

impl RouterStats {
    /// The sums of a router with these scores (N, R), or logits (N, 1) if it says yes or no.
    ///
    /// # Errors
    /// Those of [`ops::router_stats`].
    pub fn new(
        g: &mut Graph,
        decision: RouterDecision,
        scores: Tensor,
        assignment: Assignment,
        lengths: Option<Tensor>,
    ) -> Result<Self> {
        let sums = g.scope("statistics", |g| ops::router_stats(g, scores, assignment, lengths))?;
        Ok(Self { decision, sums })
    }
}
