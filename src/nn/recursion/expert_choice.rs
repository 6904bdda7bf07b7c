//! Recursions that choose their tokens.

use super::router::Router;
use super::tokens::Tokens;
use super::{CAPACITY_STEP, Pass, RecursionOutput, RecursionUse};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Initial, Tensor};
use crate::nn::router_stats::{RouterDecision, RouterStats};
use crate::ops::{self, Assignment, SelectOptions, SelectRule, Selected};

/// Recursions that choose their tokens: each takes a share of the text, out of what the one before took.
///
/// With `S` the tokens taken, `x[S] += alpha · f(logit[S]) · block(x[S])`. In training `S` are the `k` largest logits; where
/// tokens come one after the other, the logits of at least 0, which is what the auxiliary loss (binary cross-entropy of the
/// logits against `S`) trains them for.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertChoiceRouting {
    /// The router of each recursion, `PREFIXrouters.R`.
    pub router: Router,
    /// The share of the text that each recursion takes; none takes more than the one before.
    pub capacity: Vec<f64>,
    /// A second router on states without a gradient, `PREFIXaux_routers.R`, has the auxiliary loss and decides where tokens
    /// come one after the other.
    pub aux_router: bool,
    /// Recursions after the first attend to keys and values of the first.
    pub kv_sharing: bool,
    /// Above 0, recursions take all tokens at first and their share after so many steps of training, down a half cosine;
    /// `PREFIXcapacity_step` counts the steps.
    pub warmup: usize,
}

/// Losses and decisions of the routers so far.
#[derive(Default)]
struct Record {
    losses: Vec<Tensor>,
    routing: Vec<(String, Tensor)>,
    routers: Vec<RouterStats>,
}

/// The number of tokens of each row that a recursion takes.
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

impl ExpertChoiceRouting {
    /// The number of tokens that recursion `recursion` takes of `time`.
    #[must_use]
    pub fn count(&self, recursion: usize, time: usize) -> usize {
        ((self.share(recursion) * time as f64) as usize).clamp(1, time.max(1))
    }

    /// The share of recursion `recursion`; one that is not there takes nothing.
    fn share(&self, recursion: usize) -> f64 {
        self.capacity.get(recursion).copied().unwrap_or(0.0)
    }

    /// Whether recursion `recursion` takes all that the one before took: then there is nothing to decide.
    fn takes_all(&self, recursion: usize) -> bool {
        self.share(recursion) >= if recursion == 0 { 1.0 } else { self.share(recursion - 1) }
    }

    /// Adds the recursions, `block` adds one use of the block and gives its states.
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
        let [_, time, _] = g.shape(tokens.states).expect("states")?;
        let warm = self.warm(g, time, with)?;
        let (mut tokens, mut levels, mut record) = (tokens, Vec::new(), Record::default());
        for recursion in 0..self.capacity.len() {
            let scope = format!("recursions.{recursion}");
            let limit =
                warm.map_or(Limit::Count(self.count(recursion, time)), |counts| Limit::Entry(counts, recursion));
            let (level, taken, gates) =
                g.scope(&scope, |g| self.choose(g, &tokens, with, recursion, limit, &mut record))?;
            let pass = Pass { module: 0, recursion, tokens: taken, kv: taken.kv(g, with, recursion, self.kv_sharing)? };
            let out = block(g, pass)?;
            tokens = g.scope(&scope, |g| {
                let (rows, shape) = (taken.rows(g)?, g.shape(taken.states).clone());
                let out = Tokens { states: out, ..taken }.rows(g)?;
                let sum = ops::gated_add(g, rows, out, gates)?;
                Ok(Tokens { states: ops::reshape(g, sum, shape)?, ..taken })
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
        Ok(RecursionOutput { states: ops::reshape(g, rows, dims)?, auxiliary, routing, routers })
    }

    /// How many tokens each recursion takes in a step of training while it warms up, `(R)` u32, and counts the step.
    fn warm(&self, g: &mut Graph, time: usize, with: RecursionUse<'_>) -> Result<Option<Tensor>> {
        if self.warmup == 0 {
            return Ok(None);
        }
        // Files have it, so every graph of the model does.
        let step = g.full_precision(&format!("{}{CAPACITY_STEP}", with.prefix), [1], Initial::Zeros)?;
        if !with.training {
            return Ok(None);
        }
        let counts: Vec<usize> = (0..self.capacity.len()).map(|recursion| self.count(recursion, time)).collect();
        let warm = g.scope("capacity", |g| ops::warm_capacity(g, step, &counts, time, self.warmup))?;
        Ok(Some(warm.counts))
    }

    /// The choice of one recursion: what it was made of, the tokens that were taken, and their gates `(B·K)`.
    fn choose(
        &self,
        g: &mut Graph,
        tokens: &Tokens,
        with: RecursionUse<'_>,
        recursion: usize,
        limit: Limit,
        record: &mut Record,
    ) -> Result<(Level, Tokens, Tensor)> {
        let [batch, count] = g.shape(tokens.positions).expect("positions")?;
        let logits_of = |g: &mut Graph, prefix: &str, states: Tensor| {
            let logits = self.router.logits(g, &format!("{}{prefix}.{recursion}", with.prefix), states, 1, with.std)?;
            ops::reshape(g, logits, [batch, count])
        };
        let logits = logits_of(g, "routers", tokens.states)?;
        let (mut trained, mut decides) = (logits, logits);
        if self.aux_router {
            let states = ops::detach(g, tokens.states)?;
            trained = logits_of(g, "aux_routers", states)?;
            decides = if with.one_by_one { trained } else { logits };
        }
        let options = SelectOptions { lengths: tokens.lengths, positions: Some(tokens.positions), most: None };
        let selected = match self.takes_all(recursion) {
            true => None,
            false if with.one_by_one => Some(ops::select(g, decides, SelectRule::AtLeast(0.0), &options)?),
            false => {
                let (top, most) = match limit {
                    Limit::Count(taken) => (taken.min(count), None),
                    Limit::Entry(counts, entry) => (count, Some((counts, entry))),
                };
                let options = SelectOptions { most, ..options };
                Some(ops::select(g, decides, SelectRule::Top(top), &options)?)
            }
        };
        let inverse = match &selected {
            Some(selected) => selected.inverse,
            None => g.constant("all", Array::from_fn([batch * count], |i| i as f64), DType::U32),
        };
        record.losses.push(ops::selection_loss(g, trained, inverse, tokens.lengths, self.router.loss)?);
        let rows = tokens.rows(g)?;
        let mut flat = ops::reshape(g, logits, [batch * count, 1])?;
        let sums = RouterStats::new(g, RouterDecision::Recursion, flat, Assignment::Selected(inverse), tokens.lengths)?;
        record.routers.push(sums);
        let taken = match &selected {
            Some(selected) => {
                flat = ops::gather_unique(g, flat, selected.index, selected.inverse)?;
                let taken = tokens.selected(g, rows, selected)?;
                // The largest k of full rows are k in every row.
                let all = !with.one_by_one && tokens.lengths.is_none() && matches!(limit, Limit::Count(_));
                Tokens { lengths: taken.lengths.filter(|_| !all), ..taken }
            }
            None => *tokens,
        };
        record.routing.push((format!("router_logits.{recursion}"), logits));
        record.routing.push((format!("selected.{recursion}"), taken.positions));
        record.routing.extend(taken.lengths.map(|lengths| (format!("taken.{recursion}"), lengths)));
        let gates = self.router.gates(g, flat)?;
        let gates = ops::reshape(g, gates, [g.shape(flat).rows()])?;
        Ok((Level { rows, selected }, taken, gates))
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
