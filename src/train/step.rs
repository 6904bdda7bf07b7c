//! A training step as graphs: forward, backward, clipping and AdamW in one recording, or split in two at the gradients.

use super::layout::{FlatLayout, ParameterSlot, Range};
use super::loss::LossAndStats;
use super::routing::RoutingLayout;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Storage, Tensor};
use crate::kernel::Caps;
use crate::ops::{self, BLOCK, OptimizerControl, OptimizerScalars};
use crate::shape::TensorType;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The input with [`OptimizerScalars`].
pub const SCALARS: &str = "optimizer.scalars";
/// The input that adds gradients to those of earlier micro-batches (1) or replaces them (0).
pub const KEEP: &str = "optimizer.keep";
/// The state of [`OptimizerControl`].
pub(super) const STATE: &str = "optimizer.state";
/// The output with [`StepReport`](ops::StepReport), followed by the statistics of routers ([`RoutingLayout::read`]).
pub const REPORT: &str = "report";
/// Elements of the report before the statistics of routers.
pub(super) const REPORTED: usize = OptimizerControl::LEN;
/// The state that sums the statistics of routers over micro-batches.
pub const STATISTICS: &str = "optimizer.statistics";
/// The state that sums the losses of micro-batches.
pub(super) const LOSS: &str = "optimizer.loss";

/// The constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_", strip_option)]
pub struct AdamOptions {
    /// The decay of the first moment.
    pub beta1: f64,
    /// The decay of the second moment.
    pub beta2: f64,
    /// ε, added to the root of the second moment.
    pub epsilon: f32,
    /// The decoupled weight decay.
    pub weight_decay: f32,
}

impl Default for AdamOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 }
    }
}

/// Dynamic loss scaling: the loss is multiplied by a factor that grows while gradients stay finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_", strip_option)]
pub struct LossScaling {
    /// The factor of the first step.
    pub initial: f32,
    /// The growth of the factor after `interval` good steps.
    pub growth: f32,
    /// The reduction of the factor when a gradient is not finite.
    pub backoff: f32,
    /// Good steps between two growths.
    pub interval: u32,
}

impl Default for LossScaling {
    fn default() -> Self {
        Self { initial: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000 }
    }
}

/// The options of a training step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct StepOptions {
    /// The constants of AdamW.
    pub adam: AdamOptions,
    /// Gradients are clipped to this norm; 0 disables clipping.
    pub max_norm: f32,
    /// Whether vectors (gains, biases) decay, too.
    pub decay_vectors: bool,
    /// Parameters whose name contains one of these do not decay.
    pub no_decay: Vec<String>,
    /// Parameters whose name contains the text have this multiple of the learning rate.
    pub rates: Vec<(String, f32)>,
    /// Micro-batches whose gradients are summed before a step, as one batch: see [`LossAndStats`].
    pub accumulation: u32,
    /// Dynamic loss scaling, if any.
    pub loss_scaling: Option<LossScaling>,
    /// Activation checkpointing of the scopes `blocks.0`, `blocks.1`, …: less memory, about a third more time, the same bits.
    pub recompute: bool,
}

impl Default for StepOptions {
    fn default() -> Self {
        Self {
            adam: AdamOptions::default(),
            max_norm: 1.0,
            decay_vectors: false,
            no_decay: Vec::new(),
            rates: Vec::new(),
            accumulation: 1,
            loss_scaling: None,
            recompute: false,
        }
    }
}

impl StepOptions {
    /// The value of [`SCALARS`] for a step with this learning rate.
    #[must_use]
    pub fn scalars(&self, learning_rate: f32) -> OptimizerScalars {
        let none = LossScaling { initial: 1.0, growth: 1.0, backoff: 1.0, interval: 1 };
        let scaling = self.loss_scaling.unwrap_or(none);
        OptimizerScalars {
            learning_rate,
            beta1: self.adam.beta1,
            beta2: self.adam.beta2,
            epsilon: self.adam.epsilon,
            weight_decay: self.adam.weight_decay,
            max_norm: self.max_norm,
            share: 1.0 / self.accumulation.max(1) as f32,
            initial_scale: scaling.initial,
            growth: scaling.growth,
            backoff: scaling.backoff,
            interval: scaling.interval as f32,
            // Gradients of 2^47 count as overflow, so a larger scale is useless.
            largest_scale: 16_777_216.0_f32.max(scaling.initial),
        }
    }

    /// Checks the ranges of all options.
    ///
    /// # Errors
    /// [`Error::Input`] with the option that is out of range.
    pub fn check(&self) -> Result<()> {
        let adam = &self.adam;
        let unit = |x: f64| (0.0..1.0).contains(&x);
        let not_negative = |x: f32| x >= 0.0 && x.is_finite();
        let checks = [
            ("beta1", unit(adam.beta1), "in [0, 1)"),
            ("beta2", unit(adam.beta2), "in [0, 1)"),
            ("epsilon", adam.epsilon > 0.0 && adam.epsilon.is_finite(), "greater than 0"),
            ("weight_decay", not_negative(adam.weight_decay), "0 or greater"),
            ("max_norm", not_negative(self.max_norm), "0 (no clipping) or greater"),
            ("accumulation", self.accumulation > 0, "1 or greater"),
            ("loss_scaling", self.loss_scaling.is_none_or(|s| s.is_usable()), "growing, shrinking and positive"),
            ("rates", self.rates.iter().all(|(_, rate)| not_negative(*rate)), "0 or greater"),
        ];
        match checks.iter().find(|(_, fine, _)| !fine) {
            None => Ok(()),
            Some((name, _, wanted)) => Err(Error::input(*name, format!("it must be {wanted}"))),
        }
    }

    /// The learning-rate and decay multipliers of a parameter.
    fn multipliers(&self, slot: &ParameterSlot) -> [f64; 2] {
        let rate = self.rates.iter().find(|(part, _)| slot.name.contains(part)).map_or(1.0, |(_, rate)| *rate);
        let decays = (self.decay_vectors || slot.ty.shape.rank() > 1)
            && !self.no_decay.iter().any(|part| slot.name.contains(part));
        [f64::from(rate), if decays { 1.0 } else { 0.0 }]
    }
}

impl LossScaling {
    fn is_usable(&self) -> bool {
        let in_range = self.initial > 0.0 && self.initial.is_finite();
        in_range && self.growth >= 1.0 && self.backoff > 0.0 && self.backoff <= 1.0 && self.interval > 0
    }
}

/// The part of a step in a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The whole step.
    Whole,
    /// Forward and backward, up to the gradients. All micro-batches except the last run this part.
    Gradients,
    /// From the gradients on: norm, clipping, AdamW. Between the parts gradients may be averaged over machines.
    Update,
}

/// A training step: the layout of the parameters, and the options of the step.
#[derive(Clone, Debug)]
pub struct TrainStep {
    layout: FlatLayout,
    options: StepOptions,
    routing: RoutingLayout,
    /// How the store holds what is not trained.
    base: Storage,
}

/// The tensors that the first part of a step passes to the second.
struct GradientsAndLoss {
    gradients: Vec<Tensor>,
    loss: Tensor,
    statistics: Option<Tensor>,
}

impl TrainStep {
    /// A step that trains these parameters on an adapter.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if a parameter exceeds a buffer, [`Error::Input`](crate::Error::Input) if there are none, one is no
    /// float or both half-precision types occur; those of [`StepOptions::check`].
    pub fn new(parameters: &[(String, TensorType)], caps: &Caps, options: StepOptions) -> Result<Self> {
        options.check()?;
        let (routing, base) = (RoutingLayout::default(), Storage::default());
        Ok(Self { layout: FlatLayout::new(parameters, caps)?, options, routing, base })
    }

    /// The same step on a store that holds what is not trained like this, with these adapters.
    #[must_use]
    pub fn stored_as(self, base: &Storage) -> Self {
        Self { base: base.clone(), ..self }
    }

    /// The same step with these routers, so that [`Part::Update`], which has no model, also reports their statistics.
    #[must_use]
    pub fn with_routing(self, routing: RoutingLayout) -> Self {
        Self { routing, ..self }
    }

    /// The layout of the parameters.
    #[must_use]
    pub fn layout(&self) -> &FlatLayout {
        &self.layout
    }

    /// The options of the step.
    #[must_use]
    pub fn options(&self) -> &StepOptions {
        &self.options
    }

    /// The graph of a part of the step. `build` adds the model and returns the scalar loss, or [`LossAndStats`] to weight micro-batches by their
    /// labels and to report statistics of routers; the update calls it not. With accumulation, micro-batches have the additional inputs of
    /// [`label_weights`](super::label_weights).
    ///
    /// # Errors
    /// Those of `build`; [`Error::NotDifferentiable`]; [`Error::Graph`] if the loss does not depend on a parameter.
    pub fn graph<M: Into<LossAndStats>>(
        &self,
        part: Part,
        build: impl FnOnce(&mut Graph) -> Result<M>,
    ) -> Result<Graph> {
        let mut g = Graph::with_storage(&self.layout.storage(&self.base));
        let mut forward = 0;
        let halfway = match part {
            Part::Update => self.halfway_states(&mut g)?,
            Part::Whole | Part::Gradients => {
                let measured = build(&mut g)?.into();
                let loss = match self.options.accumulation {
                    0 | 1 => measured.loss(&mut g)?,
                    _ => measured.weighted(&mut g)?,
                };
                let routers = measured.routers;
                let layout = RoutingLayout::new(&g, &routers);
                let keep = self.keep(&mut g)?;
                // Before the backward pass, so that it is not recomputed there.
                let statistics = match statistics_state(&mut g, &layout)? {
                    Some(flat) => {
                        let parts: Vec<(Tensor, usize)> =
                            routers.iter().map(|router| router.sums).zip(layout.offsets()).collect();
                        Some(ops::pack(&mut g, flat, &parts, keep)?)
                    }
                    None => None,
                };
                forward = g.nodes().len();
                GradientsAndLoss { statistics, ..self.gradients(&mut g, loss, keep)? }
            }
        };
        match part {
            Part::Gradients => g.output("loss", halfway.loss)?,
            Part::Whole | Part::Update => g.scope("update", |g| self.update(g, &halfway))?,
        }
        match self.options.recompute {
            true => g.checkpoint_blocks(forward, &g.blocks(forward, "blocks")),
            false => Ok(g.rematerialize(forward)),
        }
    }

    /// A graph with the norm of all parameters as its output `norm`: NaN if one is not finite.
    ///
    /// # Errors
    /// Those of the graph.
    pub fn health_graph(&self) -> Result<Graph> {
        let mut g = Graph::new();
        let flats = self.layout.shards.iter().enumerate();
        let flats: Vec<Tensor> = flats
            .map(|(i, shard)| g.state(&Range::Parameters.name(i), [shard.total], DType::F32))
            .collect::<Result<_>>()?;
        let norm = ops::global_norm(&mut g, &flats)?;
        g.output("norm", norm)?;
        Ok(g)
    }

    /// Gradients and loss from the first part of the step.
    fn halfway_states(&self, g: &mut Graph) -> Result<GradientsAndLoss> {
        let flats = self.layout.shards.iter().enumerate();
        let gradients = flats
            .map(|(i, shard)| g.state(&Range::Gradients.name(i), [shard.total], DType::F32))
            .collect::<Result<_>>()?;
        let statistics = statistics_state(g, &self.routing)?;
        Ok(GradientsAndLoss { gradients, loss: g.state(LOSS, [BLOCK], DType::F32)?, statistics })
    }

    /// The input [`KEEP`], if there are several micro-batches.
    fn keep(&self, g: &mut Graph) -> Result<Option<Tensor>> {
        match self.options.accumulation {
            0 | 1 => Ok(None),
            _ => Ok(Some(g.input(KEEP, [1], DType::F32)?)),
        }
    }

    /// Adds the backward pass and collects gradients and loss in flat ranges.
    fn gradients(&self, g: &mut Graph, loss: Tensor, keep: Option<Tensor>) -> Result<GradientsAndLoss> {
        let mut wrt = Vec::new();
        for ParameterSlot { name, ty, .. } in self.layout.parameters() {
            match g.find(name).filter(|t| g.ty(*t) == ty) {
                Some(tensor) => wrt.push(tensor),
                None => return Err(Error::Graph(format!("the model has no parameter \"{name}\" of type {ty}"))),
            }
        }
        let found = match self.options.loss_scaling {
            None => g.differentiate(loss, &wrt)?,
            Some(_) => {
                let (state, scalars) = control_leaves(g)?;
                let seed = ops::loss_seed(g, loss, state, scalars)?;
                g.differentiate_from(&[(loss, seed)], &wrt)?
            }
        };
        let mut halfway = self.halfway_states(g)?;
        let mut found = found.into_iter();
        for (flat, shard) in halfway.gradients.iter_mut().zip(&self.layout.shards) {
            let mut parts = Vec::with_capacity(shard.parameters.len());
            for (slot, gradient) in shard.parameters.iter().zip(found.by_ref()) {
                match gradient {
                    Some(gradient) => parts.push((gradient, slot.offset)),
                    // Its gradient stays zero, and the optimiser does not change it.
                    None if g.find(&slot.name).is_some_and(|tensor| g.updates_in_place(tensor)) => (),
                    None if self.options.multipliers(slot)[0] <= 0.0 => (),
                    None => return Err(Error::Graph(format!("the loss does not depend on \"{}\"", slot.name))),
                }
            }
            *flat = ops::pack(g, *flat, &parts, keep)?;
        }
        halfway.loss = ops::pack(g, halfway.loss, &[(loss, 0)], keep)?;
        Ok(halfway)
    }

    /// Adds norm, control, AdamW and the casts to half precision.
    fn update(&self, g: &mut Graph, halfway: &GradientsAndLoss) -> Result<()> {
        let norm = ops::global_norm(g, &halfway.gradients)?;
        let (state, scalars) = control_leaves(g)?;
        let (control, _) = ops::optimizer_control(g, norm, halfway.loss, scalars, state)?;
        let made = Arc::new((self.layout.clone(), self.options.clone()));
        for (index, shard) in self.layout.shards.iter().enumerate() {
            let mut flat = |range: Range| g.state(&range.name(index), [shard.total], DType::F32);
            let parameters = flat(Range::Parameters)?;
            let moments = [flat(Range::FirstMoment)?, flat(Range::SecondMoment)?];
            let made = made.clone();
            let table = move || made.0.table(index, |slot| made.1.multipliers(slot));
            let table = g.constant_with("multipliers", FlatLayout::table_shape(shard), DType::F32, table);
            let [parameters, ..] = ops::adamw(g, parameters, halfway.gradients[index], moments, table, control)?;
            if let (Some(dtype), true) = (self.layout.half_type, shard.half > 0) {
                let half = g.state(&Range::Half.name(index), [shard.half], dtype)?;
                ops::cast_half(g, parameters, half)?;
            }
        }
        let report = RoutingLayout::behind(g, control, halfway.statistics)?;
        g.output(REPORT, report)
    }
}

/// The state of [`STATISTICS`], if there are routers.
fn statistics_state(g: &mut Graph, routing: &RoutingLayout) -> Result<Option<Tensor>> {
    match routing.total() {
        0 => Ok(None),
        total => Ok(Some(g.state(STATISTICS, [total], DType::F32)?)),
    }
}

fn control_leaves(g: &mut Graph) -> Result<(Tensor, Tensor)> {
    let state = g.state(STATE, [OptimizerControl::STATE], DType::F32)?;
    let scalars = match g.find(SCALARS) {
        Some(scalars) => scalars,
        None => g.input(SCALARS, [OptimizerScalars::LEN], DType::F32)?,
    };
    Ok((state, scalars))
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
