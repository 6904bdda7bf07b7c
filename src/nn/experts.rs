//! A feed-forward network of experts in place of a dense one.

use super::dense::{LinearConfig, linear};
use super::feed_forward::{GATED, gated_feed_forward};
use super::router_stats::{RouterDecision, RouterStats};
use crate::error::{Error, Result};
use crate::graph::{Graph, Initial, Tensor};
use crate::ops::{self, Activation, Assignment, ExpertDispatch, ExpertWeights, GateOptions};
use crate::shape::Shape;

/// The configuration of a network of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Experts, E.
    pub count: usize,
    /// Features inside an expert, F.
    pub d_ff: usize,
    /// The gate: scores, choice and weights of experts.
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
    /// In training their inputs, and so the gate's, are multiplied by random factors from `1 − jitter` to `1 + jitter` (arXiv 2101.03961).
    pub jitter: f32,
    /// The names of the weights.
    pub names: ExpertNames,
}

/// An expert that every token goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedExpert {
    /// Features inside.
    pub d_ff: usize,
    /// Whether a sigmoid gate scales what it adds.
    pub gated: bool,
}

/// Names of the weights of experts, after the block's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertNames {
    /// The module of experts.
    pub module: &'static str,
    /// The gate, up and down projections of an expert.
    pub parts: [&'static str; 3],
    /// The expert that every token goes through, in that module.
    pub shared: &'static str,
}

impl ExpertNames {
    /// As Mixtral's files have them.
    pub const MIXTRAL: Self = Self { module: "block_sparse_moe", parts: ["w1", "w3", "w2"], shared: "shared_expert" };
    /// As Qwen2-MoE's files have them.
    pub const QWEN2: Self =
        Self { module: "mlp", parts: ["gate_proj", "up_proj", "down_proj"], shared: "shared_expert" };
    /// As DeepSeek-V3's files have them.
    pub const DEEPSEEK: Self = Self { shared: "shared_experts", ..Self::QWEN2 };
}

/// The outputs of a layer's gate.
#[derive(Clone, Copy, Debug)]
pub struct GateOutput {
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
    /// Where tokens are missing, whose `lse` is 0: all tokens over those that are there, (1) f32.
    pub share: Option<Tensor>,
    /// Where loads are balanced within each row of a batch: slots of each row and expert before any were dropped, and mean scores, both (B · E)
    /// f32.
    pub by_text: Option<[Tensor; 2]>,
    /// The statistics to report.
    pub sums: RouterStats,
}

/// The inputs of a network of experts besides the states.
#[derive(Clone, Copy, Debug)]
pub struct ExpertMode {
    /// The activation of the experts' gates.
    pub activation: Activation,
    /// Whether this is a step of training: the capacity counts.
    pub training: bool,
    /// The seed of noise, `(2)` u32.
    pub seed: Option<Tensor>,
    /// How many tokens of each row of `x (B, T, C)` are there, `(B)` u32, or which ones, `(B, T)` u32, 0 on those that are not: they go
    /// to no expert and count for no loss. None: all are there.
    pub lengths: Option<Tensor>,
    /// The standard deviation of fresh weights: of all but the down projections, and of these.
    pub std: [f64; 2],
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
) -> Result<(Tensor, GateOutput)> {
    let ExpertMode { activation, training, lengths, std, .. } = mode;
    let shape = g.shape(x).clone();
    let (rows, d_model) = (shape.rows(), shape.last());
    let x = ops::reshape(g, x, [rows, d_model])?;
    let x = jittered(g, prefix, x, experts.jitter, mode.seed)?;
    let module = format!("{prefix}.{}", experts.names.module);
    let logits = logits(g, prefix, x, experts, mode)?;
    let bias = match experts.biased {
        true => {
            let name = format!("{module}.gate.e_score_correction_bias");
            Some(g.full_precision(&name, [experts.count], Initial::Zeros)?)
        }
        false => None,
    };
    let gate = ops::top_k_gate(g, logits, bias, &experts.gate)?;
    let (mut chosen, mut scores, mut lse) = (gate.experts, gate.scores, gate.lse);
    let there = there(g, &shape, lengths)?;
    if let Some(There { lengths, batch, time }) = there {
        let by_row = ops::reshape(g, chosen, [batch, time, experts.gate.k])?;
        let filled = ops::fill_rows(g, by_row, lengths, experts.count as u32)?;
        chosen = ops::reshape(g, filled, [rows, experts.gate.k])?;
        for (tensor, columns) in [(&mut scores, experts.count), (&mut lse, 1)] {
            let flat = g.shape(*tensor).clone();
            let by_row = ops::reshape(g, *tensor, [batch, time, columns])?;
            let masked = ops::mask_rows(g, by_row, lengths)?;
            *tensor = ops::reshape(g, masked, flat)?;
        }
    }
    let mut routing = ops::route(g, chosen, experts.count)?;
    let counts = ops::load_counts(g, routing.sorted)?;
    let share = match there {
        Some(_) => {
            let [_, inverse] = ops::load_factors(g, counts, experts.gate.k)?;
            Some(ops::scale(g, inverse, rows as f32)?)
        }
        None => None,
    };
    let (starts, mut limited) = (routing.sorted.starts, None);
    if let (Some(factor), true) = (experts.capacity, training) {
        (chosen, routing) = within_capacity(g, &routing, factor)?;
        limited = Some(routing.sorted.starts);
    }
    let sums = RouterStats::new(
        g,
        RouterDecision::Experts,
        gate.scores,
        Assignment::Slots { starts, limited },
        there.map(|t| t.lengths),
    )?;
    let weights = stacks(g, &module, experts, d_model, std)?;
    let mut y = ops::expert_feed_forward(g, x, weights, gate.weights, &routing, activation)?;
    if let Some(shared) = experts.shared {
        y = with_shared(g, (&module, experts.names.shared), (x, y), shared, mode)?;
    }
    let y = ops::reshape(g, y, shape)?;
    Ok((y, GateOutput { scores, lse, share, counts, chosen, bias, by_text: None, sums }))
}

/// The network of experts of `x (…, C)` under `prefix` where experts choose: each takes the `⌈factor T / E⌉` of all T tokens that
/// score highest with it ([`ops::expert_choice`]), so that a token has `factor` experts on average. And what they chose. Rows that
/// `mode.lengths` leaves out get nothing and count for nothing.
///
/// For encoders: what a token gets depends on the tokens behind it. The weights are those of [`expert_feed_forward`]; gate, capacity
/// and bias of `experts`, by which tokens choose, are not heeded. Loads are even by themselves, so there is nothing to balance.
///
/// # Errors
/// [`Error::Input`] if the factor is no positive number; those of the ops.
pub fn expert_choice_feed_forward(
    g: &mut Graph,
    prefix: &str,
    x: Tensor,
    experts: &Experts,
    factor: f32,
    mode: ExpertMode,
) -> Result<(Tensor, ops::ExpertSelection)> {
    if !(factor > 0.0 && factor.is_finite()) {
        let message = format!("is {factor}; it must be a positive number, 2 for two experts a token on average");
        return Err(Error::input("factor of experts that choose", message));
    }
    let ExpertMode { activation, lengths, std, .. } = mode;
    let shape = g.shape(x).clone();
    let (rows, d_model) = (shape.rows(), shape.last());
    let module = format!("{prefix}.{}", experts.names.module);
    let flat = ops::reshape(g, x, [rows, d_model])?;
    let flat = jittered(g, prefix, flat, experts.jitter, mode.seed)?;
    let logits = logits(g, prefix, flat, experts, mode)?;
    let each = (f64::from(factor) * rows as f64 / experts.count as f64).ceil() as usize;
    let mut scores = ops::softmax(g, logits)?;
    if let Some(There { lengths, batch, time }) = there(g, &shape, lengths)? {
        let by_row = ops::reshape(g, scores, [batch, time, experts.count])?;
        let there = ops::mask_rows(g, by_row, lengths)?;
        scores = ops::reshape(g, there, [rows, experts.count])?;
    }
    let choice = ops::expert_choice_by_scores(g, scores, each.clamp(1, rows))?;
    let weights = stacks(g, &module, experts, d_model, std)?;
    let mut y = ops::expert_choice_feed_forward(g, flat, weights, &choice, activation)?;
    if let Some(shared) = experts.shared {
        y = with_shared(g, (&module, experts.names.shared), (flat, y), shared, mode)?;
    }
    Ok((ops::reshape(g, y, shape)?, choice))
}

/// Which tokens are there: the first `lengths` of the `time` in each of `batch` rows.
#[derive(Clone, Copy)]
struct There {
    lengths: Tensor,
    batch: usize,
    time: usize,
}

/// [`ExpertMode::lengths`] of tokens of that shape. A token that a mask has is a row of its own, of one token or none.
fn there(g: &mut Graph, shape: &Shape, lengths: Option<Tensor>) -> Result<Option<There>> {
    let Some(lengths) = lengths else { return Ok(None) };
    let [batch, time, _] = shape.expect("tokens with lengths")?;
    if g.shape(lengths).rank() == 1 {
        return Ok(Some(There { lengths, batch, time }));
    }
    let lengths = ops::reshape(g, lengths, [batch * time])?;
    Ok(Some(There { lengths, batch: batch * time, time: 1 }))
}

/// The router's logits (N, E), noisy if the experts want it and there is a seed.
fn logits(g: &mut Graph, prefix: &str, x: Tensor, experts: &Experts, mode: ExpertMode) -> Result<Tensor> {
    let module = format!("{prefix}.{}", experts.names.module);
    let router = LinearConfig::router().with_std(mode.std[0]);
    let logits = linear(g, &format!("{module}.gate"), x, experts.count, router)?;
    if !experts.noisy {
        return Ok(logits);
    }
    let raw = linear(g, &format!("{module}.noise"), x, experts.count, router)?;
    match mode.seed {
        Some(seed) => ops::noisy_logits(g, logits, raw, seed, salt(prefix)),
        None => Ok(logits),
    }
}

/// The experts' weights, stacked.
fn stacks(g: &mut Graph, module: &str, experts: &Experts, d_model: usize, std: [f64; 2]) -> Result<ExpertWeights> {
    let mut stack = |part: usize, shape: [usize; 3], std: f64| {
        g.matrix(&format!("{module}.experts.*.{}.weight", experts.names.parts[part]), shape, Initial::Normal(std))
    };
    let (up, down) = ([experts.count, experts.d_ff, d_model], [experts.count, d_model, experts.d_ff]);
    Ok(ExpertWeights { gate: stack(0, up, std[0])?, up: stack(1, up, std[0])?, down: stack(2, down, std[1])? })
}

/// The routing without the slots that are beyond the capacity of their expert, `⌈factor T K / E⌉`.
fn within_capacity(g: &mut Graph, routing: &ExpertDispatch, factor: f32) -> Result<(Tensor, ExpertDispatch)> {
    let even = routing.slots() as f32 / routing.sorted.rows as f32;
    let capacity = (factor * even).ceil().max(1.0) as usize;
    let experts = ops::limit_capacity(g, routing.sorted, capacity)?;
    let experts = ops::reshape(g, experts, [routing.token_count, routing.top_k])?;
    Ok((experts, ops::route(g, experts, routing.sorted.rows)?))
}

/// Adds the shared expert: its linear layers under its name, `shared_expert` with most families, and its gate `shared_expert_gate`.
fn with_shared(
    g: &mut Graph,
    (module, name): (&str, &str),
    (x, y): (Tensor, Tensor),
    shared: SharedExpert,
    mode: ExpertMode,
) -> Result<Tensor> {
    let names = GATED.map(|part| format!("{module}.{name}.{part}"));
    let names = [names[0].as_str(), &names[1], &names[2]];
    let configs = mode.std.map(|std| LinearConfig::out_in(false).with_std(std));
    let all = gated_feed_forward(g, names, x, shared.d_ff, mode.activation, configs, None)?;
    if !shared.gated {
        return ops::add(g, y, all);
    }
    let gate = linear(g, &format!("{module}.{name}_gate"), x, 1, LinearConfig::router().with_std(mode.std[0]))?;
    let gate = ops::activation(g, gate, Activation::Sigmoid)?;
    let rows = g.shape(x).rows();
    let gate = ops::reshape(g, gate, [rows])?;
    ops::gated_add(g, y, all, gate)
}

/// The inputs of experts under `prefix`, times random factors around 1 where there is a seed.
pub(super) fn jittered(g: &mut Graph, prefix: &str, x: Tensor, amount: f32, seed: Option<Tensor>) -> Result<Tensor> {
    match seed {
        Some(seed) => ops::jitter(g, x, amount, seed, salt(&format!("{prefix}.jitter"))),
        None => Ok(x),
    }
}

/// Tells the noise of layers apart.
fn salt(prefix: &str) -> u32 {
    prefix.bytes().fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::{Array, Values};

    const D_MODEL: usize = 3;

    fn experts(count: usize) -> Experts {
        Experts {
            count,
            d_ff: 4,
            gate: GateOptions::new(1),
            shared: None,
            capacity: None,
            biased: false,
            noisy: false,
            jitter: 0.0,
            names: ExpertNames::MIXTRAL,
        }
    }

    fn mode(lengths: Option<Tensor>) -> ExpertMode {
        ExpertMode { activation: Activation::Silu, training: true, seed: None, lengths, std: [1.0; 2] }
    }

    /// What two rows of three tokens get from three experts, two experts a token on average.
    fn outputs(lengths: [f64; 2], change: f64) -> Result<Vec<f64>> {
        let mut g = Graph::new();
        let (x, there) = (g.input("x", [2, 3, D_MODEL], DType::F32)?, g.input("there", [2], DType::U32)?);
        let (y, choice) = expert_choice_feed_forward(&mut g, "layer", x, &experts(3), 2.0, mode(Some(there)))?;
        assert_eq!(g.shape(choice.gates).dims(), [3, 4]);
        let named = |name: &str, shape: Vec<usize>| {
            let phase = name.len() as f64;
            (name.to_owned(), Array::from_fn(shape, |i| 2.0 * (7.3 * i as f64 + phase).sin()))
        };
        let mut values: Values = g.parameters().map(|(n, t)| named(n, g.shape(t).dims().to_vec())).collect();
        values.extend([named("x", vec![2, 3, D_MODEL]), ("there".into(), Array::new([2], lengths.to_vec())?)]);
        if let Some(x) = values.get_mut("x") {
            x.data[5 * D_MODEL] += change;
        }
        Ok(g.evaluate(&values, &[y])?.remove(0).data)
    }

    #[test]
    fn rows_left_out_get_nothing_and_change_nothing() -> Result<()> {
        let all = outputs([3.0, 3.0], 0.0)?;
        assert!(all.iter().any(|y| *y != 0.0));
        let some = outputs([3.0, 2.0], 0.0)?;
        assert!(some[5 * D_MODEL..].iter().all(|y| *y == 0.0), "{some:?}");
        assert!(some[..5 * D_MODEL].iter().any(|y| *y != 0.0), "{some:?}");
        assert_eq!(some, outputs([3.0, 2.0], 9.0)?);
        assert_ne!(all, outputs([3.0, 3.0], 9.0)?);
        Ok(())
    }

    #[test]
    fn a_factor_is_a_positive_number() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [4, D_MODEL], DType::F32)?;
        let refused = expert_choice_feed_forward(&mut g, "layer", x, &experts(2), f32::NAN, mode(None));
        let message = refused.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert!(message.contains("factor of experts that choose: is NaN; it must be a positive number"), "{message}");
        Ok(())
    }
}
