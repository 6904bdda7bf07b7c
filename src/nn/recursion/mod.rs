//! Mixture of recursions: a block of layers is used several times, and routers decide which tokens go on.
//! Bae et al., arXiv 2507.10524.
//!
//! The tokens that a recursion takes lie side by side: norms, products and attention run over them alone. Their rows are
//! gathered by an index without repetitions and put back by its inverse, so that neither direction sorts, sums or uses
//! atomics. What is decided stays on the GPU.

mod expert_choice;
mod router;
mod sharing;
mod token_choice;
mod tokens;

pub use expert_choice::ExpertChoiceRouting;
pub use router::{Router, RouterFunction, RouterKind};
pub use sharing::{Recursion, RecursionRouting, Sharing};
pub use token_choice::TokenChoiceRouting;
pub use tokens::Tokens;

use super::attention::KvSource;
use super::router_stats::RouterStats;
use crate::graph::Tensor;

/// The end of the name of the parameter without a gradient that counts the steps of training of a stack whose capacities warm up,
/// `(1)` f32.
pub(crate) const CAPACITY_STEP: &str = "capacity_step";

/// The inputs of the routers of a stack besides the tokens.
#[derive(Clone, Copy, Debug)]
pub struct RecursionUse<'a> {
    /// The prefix of the names of the routers' weights: `model.`
    pub prefix: &'a str,
    /// The source of keys and values.
    pub kv: KvSource,
    /// Whether tokens come one after the other, so that decisions may not depend on later ones.
    pub one_by_one: bool,
    /// Whether scores have a bias by distance: then caches of some of the tokens keep their positions.
    pub by_distance: bool,
    /// Whether this is a step of training.
    pub training: bool,
    /// The standard deviation of fresh routers.
    pub std: f64,
}

/// One use of the block.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// The module, of several blocks to choose from.
    pub module: usize,
    /// The number of uses of the block before.
    pub recursion: usize,
    /// The tokens.
    pub tokens: Tokens,
    /// The source of their keys and values, unless these are shared.
    pub kv: KvSource,
}

/// The outputs of recursions.
#[derive(Clone, Debug)]
pub struct RecursionOutput {
    /// The states of all tokens, `(B, T, C)`.
    pub states: Tensor,
    /// The losses of the routers, each times its coefficient.
    pub auxiliary: Tensor,
    /// The decisions of the routers, by name.
    pub routing: Vec<(String, Tensor)>,
    /// Their statistics to report.
    pub routers: Vec<RouterStats>,
}
