//! A feed-forward network of experts in place of a dense one.

use super::dense::{Style, linear};
use super::feed_forward::gated_feed_forward;
use super::statistics::{Routed, RouterSums};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::{self, Activation, ExpertWeights, GateOptions, Routing, Sent};

/// How a network of experts is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Experts, E.
    pub count: usize,
    /// The width inside an expert, F.
    pub inner: usize,
    /// How experts are scored, chosen and weighed.
    pub gate: GateOptions,
    /// An expert beside them that every token goes through.
    pub shared: Option<SharedExpert>,
    /// In training an expert takes at most this share of `T K / E` slots; what is beyond that goes to no expert, and the token
    /// keeps what the residual stream holds. Nothing is dropped without it.
    pub capacity: Option<f32>,
    /// Whether scores have a bias for the choice that [`ops::update_bias`] keeps even (arXiv 2408.15664).
    pub biased: bool,
    /// Whether logits are noisy in training (arXiv 1701.06538).
    pub noisy: bool,
    /// How the weights are called.
    pub names: ExpertNames,
}

/// An expert that every token goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedExpert {
    /// The width inside.
    pub inner: usize,
    /// Whether a sigmoid gate scales what it adds.
    pub gated: bool,
}

/// What the weights are called behind a block's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertNames {
    /// The module of experts.
    pub module: &'static str,
    /// The gate, up and down projections of an expert.
    pub parts: [&'static str; 3],
}

impl ExpertNames {
    /// As Mixtral's files have them.
    pub const MIXTRAL: Self = Self { module: "block_sparse_moe", parts: ["w1", "w3", "w2"] };
    /// As Qwen2-MoE's files have them.
    pub const QWEN2: Self = Self { module: "mlp", parts: ["gate_proj", "up_proj", "down_proj"] };
}

/// What the gate of a layer did.
#[derive(Clone, Copy, Debug)]
pub struct Gated {
    /// Scores of all experts, (N, E).
    pub scores: Tensor,
    /// ln Σ e^logit, (N).
    pub lse: Tensor,
    /// Slots for each expert before any were dropped, (E) f32.
    pub counts: Tensor,
    /// The experts of each token, (N, K) u32; E where a slot was dropped.
    pub chosen: Tensor,
    /// The bias of the choice, (E), if there is one.
    pub bias: Option<Tensor>,
    /// What is reported.
    pub sums: RouterSums,
}

/// How a network of experts is used.
#[derive(Clone, Copy, Debug)]
pub struct ExpertMode {
    /// The activation of the experts' gates.
    pub activation: Activation,
    /// How their matrices lie in GPU memory.
    pub storage: DType,
    /// Whether this is a step of training: the capacity counts.
    pub training: bool,
    /// The seed of noise, `(2)` u32.
    pub seed: Option<Tensor>,
    /// How many tokens of each row of `x (B, T, C)` are there, `(B)` u32; the others go to no expert. None: all.
    pub lengths: Option<Tensor>,
}

/// The network of experts of `x (…, C)` under `prefix`, and what its gate did.
///
/// # Errors
/// Those of the ops.
pub fn expert_feed_forward(
    g: &mut Graph,
    prefix: &str,
    x: Tensor,
    experts: &Experts,
    mode: ExpertMode,
) -> Result<(Tensor, Gated)> {
    let ExpertMode { activation, storage, training, seed, lengths } = mode;
    let shape = g.shape(x).clone();
    let (rows, width) = (shape.rows(), shape.last());
    let x = ops::reshape(g, x, [rows, width])?;
    let module = format!("{prefix}.{}", experts.names.module);
    // A router decides by small differences: f32 whatever else is stored in.
    let router = Style { layout: ops::WeightLayout::OutIn, storage: DType::F32, bias: false, lengths: None };
    let mut logits = linear(g, &format!("{module}.gate"), x, experts.count, router)?;
    if experts.noisy {
        let raw = linear(g, &format!("{module}.noise"), x, experts.count, router)?;
        if let Some(seed) = seed {
            logits = ops::noisy_logits(g, logits, raw, seed, salt(prefix))?;
        }
    }
    let bias = match experts.biased {
        true => Some(g.parameter(&format!("{module}.gate.e_score_correction_bias"), [experts.count], DType::F32)?),
        false => None,
    };
    let gate = ops::top_k_gate(g, logits, bias, &experts.gate)?;
    let mut chosen = gate.experts;
    if let Some(lengths) = lengths {
        let [batch, times, _] = shape.expect("tokens with lengths")?;
        let by_row = ops::reshape(g, chosen, [batch, times, experts.gate.k])?;
        let there = ops::fill_rows(g, by_row, lengths, experts.count as u32)?;
        chosen = ops::reshape(g, there, [rows, experts.gate.k])?;
    }
    let mut routing = ops::route(g, chosen, experts.count)?;
    let counts = ops::load_counts(g, routing.sorted)?;
    let (starts, mut kept) = (routing.sorted.starts, None);
    if let (Some(factor), true) = (experts.capacity, training) {
        (chosen, routing) = limited(g, &routing, factor)?;
        kept = Some(routing.sorted.starts);
    }
    let sums = RouterSums::new(g, Routed::Experts, gate.scores, Sent::Slots { starts, kept }, lengths)?;
    let stack = |g: &mut Graph, part: usize, shape: [usize; 3]| {
        g.parameter(&format!("{module}.experts.*.{}.weight", experts.names.parts[part]), shape, storage)
    };
    let (up, down) = ([experts.count, experts.inner, width], [experts.count, width, experts.inner]);
    let weights = ExpertWeights { gate: stack(g, 0, up)?, up: stack(g, 1, up)?, down: stack(g, 2, down)? };
    let mut y = ops::expert_feed_forward(g, x, weights, gate.weights, &routing, activation)?;
    if let Some(shared) = experts.shared {
        y = with_shared(g, &module, (x, y), shared, activation, storage)?;
    }
    let y = ops::reshape(g, y, shape)?;
    Ok((y, Gated { scores: gate.scores, lse: gate.lse, counts, chosen, bias, sums }))
}

/// The routing without the slots that are beyond the capacity of their expert, `⌈factor T K / E⌉`.
fn limited(g: &mut Graph, routing: &Routing, factor: f32) -> Result<(Tensor, Routing)> {
    let even = routing.slots() as f32 / routing.sorted.rows as f32;
    let capacity = (factor * even).ceil().max(1.0) as usize;
    let kept = ops::limit_capacity(g, routing.sorted, capacity)?;
    let kept = ops::reshape(g, kept, [routing.token_count, routing.top_k])?;
    Ok((kept, ops::route(g, kept, routing.sorted.rows)?))
}

/// Adds the shared expert: the linear layers under `shared_expert`, and its gate `shared_expert_gate`.
fn with_shared(
    g: &mut Graph,
    module: &str,
    (x, y): (Tensor, Tensor),
    shared: SharedExpert,
    activation: Activation,
    storage: DType,
) -> Result<Tensor> {
    let style = Style { layout: ops::WeightLayout::OutIn, storage, bias: false, lengths: None };
    let all = gated_feed_forward(g, &format!("{module}.shared_expert"), x, shared.inner, activation, style)?;
    if !shared.gated {
        return ops::add(g, y, all);
    }
    let gate = linear(g, &format!("{module}.shared_expert_gate"), x, 1, Style { storage: DType::F32, ..style })?;
    let gate = ops::activation(g, gate, Activation::Sigmoid)?;
    let rows = g.shape(x).rows();
    let gate = ops::reshape(g, gate, [rows])?;
    ops::gated_add(g, y, all, gate)
}

/// Tells the noise of layers apart.
fn salt(prefix: &str) -> u32 {
    prefix.bytes().fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}
