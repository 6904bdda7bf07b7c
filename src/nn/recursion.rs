//! Mixture of recursions: a block of layers is used several times, and routers decide which tokens go on.
//! Bae et al., arXiv 2507.10524.
//!
//! The tokens that a recursion takes lie side by side: norms, products and attention run over them alone. Their rows are
//! gathered by an index without repetitions and put back by its inverse, so that neither direction sorts, sums or uses
//! atomics. What is decided stays on the GPU.

use super::attention::Memory;
use super::dense::{Style, activated_linear, linear};
use super::statistics::{Routed, RouterSums};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};
use crate::ops::{self, Activation, Choice, RouterLoss, SelectOptions, Selected, Sent, WeightLayout};

/// What makes a gate of a router's logit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterFunction {
    /// `σ(l)`.
    Sigmoid,
    /// `tanh l`.
    Tanh,
    /// `l` itself.
    Identity,
    /// `softmax(l)` over the ways, where a router chooses one of several.
    Softmax,
}

/// How logits are made of hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterKind {
    /// One product.
    Linear,
    /// Two, the width twice the model's between them, with a GELU.
    Mlp,
}

/// A router without biases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// How logits are made.
    pub kind: RouterKind,
    /// What makes a gate of a logit.
    pub function: RouterFunction,
    /// What gates are multiplied by.
    pub alpha: f32,
    /// What its losses are multiplied by.
    pub loss: RouterLoss,
}

impl Router {
    /// The logits `(…, outputs)` of states `(…, C)`: `PREFIX.weight`, or `PREFIX.up_proj.weight` and
    /// `PREFIX.down_proj.weight`, f32 in any model.
    fn logits(&self, g: &mut Graph, prefix: &str, x: Tensor, outputs: usize) -> Result<Tensor> {
        let style = Style { layout: WeightLayout::OutIn, storage: DType::F32, bias: false, lengths: None };
        match self.kind {
            RouterKind::Linear => linear(g, prefix, x, outputs, style),
            RouterKind::Mlp => {
                let (width, act) = (g.shape(x).last(), Activation::GeluErf);
                let up = activated_linear(g, &format!("{prefix}.up_proj"), x, 2 * width, Some(act), style)?;
                linear(g, &format!("{prefix}.down_proj"), up, outputs, style)
            }
        }
    }

    /// `alpha · f(logits)`.
    fn gates(&self, g: &mut Graph, logits: Tensor) -> Result<Tensor> {
        let gates = match self.function {
            RouterFunction::Sigmoid => ops::activation(g, logits, Activation::Sigmoid)?,
            RouterFunction::Tanh => ops::activation(g, logits, Activation::Tanh)?,
            RouterFunction::Identity => logits,
            RouterFunction::Softmax => ops::softmax(g, logits)?,
        };
        if self.alpha == 1.0 { Ok(gates) } else { ops::scale(g, gates, self.alpha) }
    }
}

/// Tokens of each row side by side.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// Their states, `(B, K, C)`.
    pub states: Tensor,
    /// The position of each in its text, `(B, K)` u32.
    pub positions: Tensor,
    /// The spans of each, `(B, K, 3)` u32, if the text has a structure.
    pub structure: Option<Tensor>,
    /// How many of a row are there, `(B)` u32; none: all.
    pub lengths: Option<Tensor>,
    /// Whether some tokens of the text may be missing among them.
    pub compact: bool,
}

impl Tokens {
    /// The states as a matrix.
    fn rows(&self, g: &mut Graph) -> Result<Tensor> {
        let (rows, width) = (g.shape(self.states).rows(), g.shape(self.states).last());
        ops::reshape(g, self.states, [rows, width])
    }

    /// The tokens that were selected of these; their states are rows of `matrix`, which has a row for each of these.
    fn kept(&self, g: &mut Graph, matrix: Tensor, selected: &Selected) -> Result<Self> {
        let rows = ops::gather_unique(g, matrix, selected.index, selected.inverse)?;
        let [batch, _] = g.shape(self.positions).expect("positions")?;
        let states = ops::reshape(g, rows, [batch, selected.slots, g.shape(matrix).last()])?;
        let structure = match self.structure {
            Some(structure) => {
                let rows = g.shape(structure).rows();
                let spans = ops::reshape(g, structure, [rows, 3])?;
                let spans = ops::gather_words(g, spans, selected.index)?;
                Some(ops::reshape(g, spans, [batch, selected.slots, 3])?)
            }
            None => None,
        };
        let positions = selected.positions;
        Ok(Self { states, positions, structure, lengths: Some(selected.counts), compact: true })
    }

    /// The lengths that products are told, so that rows that are not there cost nothing. Few rows of several texts are better
    /// taken as one matrix.
    #[must_use]
    pub fn ragged(&self, g: &Graph) -> Option<Tensor> {
        let worth = matches!(*g.shape(self.positions).dims(), [batch, count] if batch == 1 || count > 8);
        self.lengths.filter(|_| self.compact && worth)
    }

    /// What attention is told of these tokens in turn `turn` of the block, given what it is told of all tokens. `shared`:
    /// later turns keep nothing of their own.
    fn memory(&self, g: &mut Graph, whole: Memory, turn: usize, shared: bool) -> Result<Memory> {
        let (capacity, lengths, fresh) = match whole {
            Memory::Prefill { capacity, lengths } => (capacity, lengths, true),
            Memory::Decode { capacity, lengths } => (capacity, lengths, false),
            _ => return Ok(Memory::Compact { lengths: self.lengths }),
        };
        match self.lengths.filter(|_| self.compact) {
            _ if shared && turn > 0 => Ok(Memory::Compact { lengths: self.lengths }),
            Some(counts) => {
                let [batch, places] = g.shape(self.positions).expect("positions")?;
                let used = g.state(&format!("model.turns.{turn}.used"), [batch], DType::U32)?;
                let claimed = ops::claim_slots(g, used, counts, places, fresh)?;
                Ok(Memory::Slots { turn, capacity, slots: claimed.slots, lengths: claimed.lengths, fresh })
            }
            None => Ok(Memory::Slots { turn, capacity, slots: self.positions, lengths, fresh }),
        }
    }
}

/// One use of the block.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Which of several blocks: its module.
    pub module: usize,
    /// How often the block was used before.
    pub turn: usize,
    /// The tokens.
    pub tokens: Tokens,
    /// Where their keys and values are, unless they are shared.
    pub memory: Memory,
}

/// What recursions give.
#[derive(Clone, Debug)]
pub struct Recursed {
    /// The states of all tokens, `(B, T, C)`.
    pub states: Tensor,
    /// The losses of the routers, each times its coefficient.
    pub auxiliary: Tensor,
    /// What the routers did, by name.
    pub routing: Vec<(String, Tensor)>,
    /// What is reported of them.
    pub routers: Vec<RouterSums>,
}

/// Whether tokens come one after the other, so that decisions may not depend on later ones.
fn is_causal(memory: Memory) -> bool {
    matches!(memory, Memory::Prefill { .. } | Memory::Decode { .. })
}

/// Recursions that choose their tokens: each takes a share of the text, out of what the one before took.
///
/// With `S` the tokens taken, `x[S] += alpha · f(logit[S]) · block(x[S])`. In training `S` are the `k` largest logits; where
/// tokens come one after the other, the logits of at least 0, which is what the auxiliary loss (binary cross-entropy of the
/// logits against `S`) trains them for.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertChoice {
    /// The router of each recursion, `model.routers.R`.
    pub router: Router,
    /// The share of the text that each recursion takes; none takes more than the one before.
    pub capacity: Vec<f64>,
    /// A second router on states without a gradient, `model.aux_routers.R`, has the auxiliary loss and decides where tokens
    /// come one after the other.
    pub second: bool,
    /// Recursions after the first attend to keys and values of the first.
    pub shared: bool,
    /// Above 0, recursions take all tokens at first and their share after so many steps of training, down a half cosine;
    /// `model.capacity_step` counts the steps.
    pub warmup: usize,
}

/// The parameter without a gradient that counts the steps of training of a model whose capacities warm up, `(1)` f32.
pub(crate) const CAPACITY_STEP: &str = "model.capacity_step";

/// What routers leave behind: their losses, and what they did.
#[derive(Default)]
struct Record {
    losses: Vec<Tensor>,
    routing: Vec<(String, Tensor)>,
    routers: Vec<RouterSums>,
}

/// How many tokens of each row a recursion takes.
#[derive(Clone, Copy)]
enum Limit {
    /// So many.
    Count(usize),
    /// As many as this entry of counts says, which are known on the GPU only.
    Entry(Tensor, usize),
}

/// One recursion's tokens before and behind its choice.
struct Level {
    rows: Tensor,
    selected: Option<Selected>,
}

impl ExpertChoice {
    /// How many of `time` tokens recursion `turn` takes.
    #[must_use]
    pub fn count(&self, turn: usize, time: usize) -> usize {
        ((self.share(turn) * time as f64) as usize).clamp(1, time.max(1))
    }

    /// The share of recursion `turn`; one that is not there takes nothing.
    fn share(&self, turn: usize) -> f64 {
        self.capacity.get(turn).copied().unwrap_or(0.0)
    }

    /// Whether recursion `turn` takes all that the one before took: then there is nothing to decide.
    fn takes_all(&self, turn: usize) -> bool {
        self.share(turn) >= if turn == 0 { 1.0 } else { self.share(turn - 1) }
    }

    /// Adds the recursions, `training` if this is a step of training; `block` adds one use of the block and gives its states.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn run(
        &self,
        g: &mut Graph,
        tokens: Tokens,
        memory: Memory,
        training: bool,
        mut block: impl FnMut(&mut Graph, Pass) -> Result<Tensor>,
    ) -> Result<Recursed> {
        let [_, time, _] = g.shape(tokens.states).expect("states")?;
        let warm = self.warm(g, time, training)?;
        let (mut tokens, mut levels, mut record) = (tokens, Vec::new(), Record::default());
        for turn in 0..self.capacity.len() {
            let scope = format!("recursions.{turn}");
            let limit = warm.map_or(Limit::Count(self.count(turn, time)), |counts| Limit::Entry(counts, turn));
            let (level, kept, gates) =
                g.scope(&scope, |g| self.choose(g, &tokens, memory, turn, limit, &mut record))?;
            let pass = Pass { module: 0, turn, tokens: kept, memory: kept.memory(g, memory, turn, self.shared)? };
            let out = block(g, pass)?;
            tokens = g.scope(&scope, |g| {
                let (rows, shape) = (kept.rows(g)?, g.shape(kept.states).clone());
                let out = Tokens { states: out, ..kept }.rows(g)?;
                let sum = ops::gated_add(g, rows, out, gates)?;
                Ok(Tokens { states: ops::reshape(g, sum, shape)?, ..kept })
            })?;
            levels.push(level);
        }
        let shape = g.shape(tokens.states).clone();
        let mut rows = tokens.rows(g)?;
        let mut dims = shape.dims().to_vec();
        dims[1] = time;
        for level in levels.iter().rev() {
            if let Some(selected) = &level.selected {
                rows = ops::place_rows(g, level.rows, rows, selected.index, selected.inverse)?;
            }
        }
        let Record { losses, mut routing, routers } = record;
        let auxiliary = total(g, &losses)?;
        routing.push(("aux_loss".into(), auxiliary));
        Ok(Recursed { states: ops::reshape(g, rows, dims)?, auxiliary, routing, routers })
    }

    /// How many tokens each recursion takes in a step of training while it warms up, `(R)` u32, and counts the step.
    fn warm(&self, g: &mut Graph, time: usize, training: bool) -> Result<Option<Tensor>> {
        if self.warmup == 0 {
            return Ok(None);
        }
        // Files have it, so every graph of the model does.
        let step = g.parameter(CAPACITY_STEP, [1], DType::F32)?;
        if !training {
            return Ok(None);
        }
        let counts: Vec<usize> = (0..self.capacity.len()).map(|turn| self.count(turn, time)).collect();
        let warm = g.scope("capacity", |g| ops::warm_capacity(g, step, &counts, time, self.warmup))?;
        Ok(Some(warm.counts))
    }

    /// The choice of one recursion: what it was made of, the tokens that were taken, and their gates `(B·K)`.
    fn choose(
        &self,
        g: &mut Graph,
        tokens: &Tokens,
        memory: Memory,
        turn: usize,
        limit: Limit,
        record: &mut Record,
    ) -> Result<(Level, Tokens, Tensor)> {
        let [batch, count] = g.shape(tokens.positions).expect("positions")?;
        let logits_of = |g: &mut Graph, prefix: &str, states: Tensor| {
            let logits = self.router.logits(g, &format!("model.{prefix}.{turn}"), states, 1)?;
            ops::reshape(g, logits, [batch, count])
        };
        let logits = logits_of(g, "routers", tokens.states)?;
        let (mut trained, mut decides) = (logits, logits);
        if self.second {
            let states = ops::detach(g, tokens.states)?;
            trained = logits_of(g, "aux_routers", states)?;
            decides = if is_causal(memory) { trained } else { logits };
        }
        let options = SelectOptions { lengths: tokens.lengths, positions: Some(tokens.positions), most: None };
        let selected = match self.takes_all(turn) {
            true => None,
            false if is_causal(memory) => Some(ops::select(g, decides, Choice::AtLeast(0.0), &options)?),
            false => {
                let (top, most) = match limit {
                    Limit::Count(taken) => (taken.min(count), None),
                    Limit::Entry(counts, entry) => (count, Some((counts, entry))),
                };
                let options = SelectOptions { most, ..options };
                Some(ops::select(g, decides, Choice::Top(top), &options)?)
            }
        };
        let inverse = match &selected {
            Some(selected) => selected.inverse,
            None => g.constant("all", Array::from_fn([batch * count], |i| i as f64), DType::U32),
        };
        record.losses.push(ops::selection_loss(g, trained, inverse, tokens.lengths, self.router.loss)?);
        let rows = tokens.rows(g)?;
        let mut flat = ops::reshape(g, logits, [batch * count, 1])?;
        let sums = RouterSums::new(g, Routed::Recursion, flat, Sent::On(inverse), tokens.lengths)?;
        record.routers.push(sums);
        let kept = match &selected {
            Some(selected) => {
                flat = ops::gather_unique(g, flat, selected.index, selected.inverse)?;
                let kept = tokens.kept(g, rows, selected)?;
                // The largest k of full rows are k in every row.
                let all = !is_causal(memory) && tokens.lengths.is_none() && matches!(limit, Limit::Count(_));
                Tokens { lengths: kept.lengths.filter(|_| !all), ..kept }
            }
            None => *tokens,
        };
        record.routing.push((format!("router_logits.{turn}"), logits));
        record.routing.push((format!("selected.{turn}"), kept.positions));
        record.routing.extend(kept.lengths.map(|lengths| (format!("taken.{turn}"), lengths)));
        let gates = self.router.gates(g, flat)?;
        let gates = ops::reshape(g, gates, [g.shape(flat).rows()])?;
        Ok((Level { rows, selected }, kept, gates))
    }
}

/// Each token chooses how often the block is used for it, before the first time.
///
/// With `p = alpha · f(x · Wᵀ)` and `depth = argmax(p)`, `x += p[depth] · h`, `h` being the token's state after `depth + 1`
/// uses. How many tokens a recursion has is known on the GPU only: memory is for all tokens, products skip those that are not
/// there.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenChoice {
    /// The router of all recursions, `model.router`.
    pub router: Router,
    /// The largest number of uses.
    pub recursions: usize,
    /// Blocks to choose from; the router has an output for every module and depth.
    pub modules: usize,
    /// Recursions after the first attend to keys and values of the first.
    pub shared: bool,
    /// Above 0, `model.router.bias` is added to `p` where the depth is chosen, and each step of training moves it by so much
    /// towards even loads (arXiv 2408.15664).
    pub bias_rate: f32,
}

impl TokenChoice {
    /// Adds the recursions, `training` if this is a step of training; `block` adds one use of a block and gives its states.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn run(
        &self,
        g: &mut Graph,
        tokens: Tokens,
        memory: Memory,
        training: bool,
        mut block: impl FnMut(&mut Graph, Pass) -> Result<Tensor>,
    ) -> Result<Recursed> {
        let shape = g.shape(tokens.states).clone();
        let [batch, time, _] = shape.expect("states")?;
        let ways = self.modules * self.recursions;
        let rows = tokens.rows(g)?;
        let (logits, way, gates, auxiliary, sums) = g.scope("router", |g| {
            let logits = self.router.logits(g, "model.router", rows, ways)?;
            let chances = self.router.gates(g, logits)?;
            let bias = match self.bias_rate > 0.0 {
                true => Some(g.parameter("model.router.bias", [ways], DType::F32)?),
                false => None,
            };
            let way = ops::argmax_rows(g, chances, bias)?;
            let lengths = tokens.lengths;
            let [loss, shares] = ops::balance_loss_and_shares(g, logits, chances, way, lengths, self.router.loss)?;
            if let Some(bias) = bias.filter(|_| training) {
                ops::update_bias(g, bias, shares, self.bias_rate)?;
            }
            let routed = Routed::Depth { recursions: self.recursions };
            let sums = RouterSums::new(g, routed, chances, Sent::Ways(way), lengths)?;
            Ok((logits, way, ops::pick(g, chances, way)?, loss, sums))
        })?;
        let ways_of_rows = ops::reshape(g, way, [batch, time])?;
        let mut states = rows;
        for (module, turn) in (0..self.modules).flat_map(|module| (0..self.recursions).map(move |turn| (module, turn)))
        {
            let scope = format!("recursions.{}", module * self.recursions + turn);
            let (kept, selected) = g.scope(&scope, |g| {
                if self.modules == 1 && turn == 0 {
                    return Ok((tokens, None));
                }
                let first = (module * self.recursions) as u32;
                let choice = Choice::Between { low: first + turn as u32, high: first + self.recursions as u32 - 1 };
                let options = SelectOptions { lengths: tokens.lengths, positions: Some(tokens.positions), most: None };
                let selected = ops::select(g, ways_of_rows, choice, &options)?;
                Ok((tokens.kept(g, states, &selected)?, Some(selected)))
            })?;
            let caches = module * self.recursions + turn;
            let memory = kept.memory(g, memory, caches, self.shared)?;
            let out = block(g, Pass { module, turn, tokens: kept, memory })?;
            states = g.scope(&scope, |g| {
                let out = Tokens { states: out, ..kept }.rows(g)?;
                match selected {
                    Some(selected) => ops::place_rows(g, states, out, selected.index, selected.inverse),
                    None => Ok(out),
                }
            })?;
        }
        let sum = ops::gated_add(g, rows, states, gates)?;
        let logits = ops::reshape(g, logits, [batch, time, ways])?;
        let name = if self.modules == 1 { "depth" } else { "way" };
        let routing = [("router_logits", logits), (name, ways_of_rows), ("aux_loss", auxiliary)];
        let routing = routing.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
        Ok(Recursed { states: ops::reshape(g, sum, shape)?, auxiliary, routing, routers: vec![sums] })
    }
}

/// The sum of scalars in their order.
fn total(g: &mut Graph, losses: &[Tensor]) -> Result<Tensor> {
    let Some((&first, rest)) = losses.split_first() else {
        return Err(Error::input("capacity", "it is empty; a share for each recursion is needed"));
    };
    let mut sum = first;
    for &loss in rest {
        sum = ops::add(g, sum, loss)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_without_axes_have_no_lengths() -> Result<()> {
        let mut g = Graph::new();
        let states = g.input("states", [1, 9, 4], DType::F32)?;
        let lengths = Some(g.input("lengths", [1], DType::U32)?);
        let [flat, positions] = [g.input("flat", Vec::new(), DType::U32)?, g.input("positions", [1, 9], DType::U32)?];
        let tokens = Tokens { states, positions: flat, structure: None, lengths, compact: true };
        assert_eq!(tokens.ragged(&g), None);
        assert_eq!(Tokens { positions, ..tokens }.ragged(&g), lengths);
        Ok(())
    }
}
