//! The programs of a trainer for one size of micro-batches.

use super::loss::Labels;
use super::objective::{DROPOUT_SEED, Feeds, Objective};
use super::routing::RoutingLayout;
use super::step::{Part, TrainStep};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::program::{Program, Source, Weights};

/// The programs for micro-batches of one size. All sizes share weights, gradients and moments.
pub(super) struct Sized {
    pub(super) whole: Program,
    pub(super) gradients: Option<Program>,
    pub(super) evaluation: Program,
}

/// What the graph of a step says besides.
pub(super) struct Told {
    pub(super) routing: RoutingLayout,
    pub(super) labels: Vec<Labels>,
    pub(super) has_dropout: bool,
}

impl Sized {
    pub(super) fn new(
        gpu: &Gpu,
        weights: &Weights,
        step: &TrainStep,
        objective: &dyn Objective,
    ) -> Result<(Self, Told)> {
        let mut routing = RoutingLayout::default();
        let mut labels = Vec::new();
        let whole = step.graph(Part::Whole, |g| {
            let measured = objective.loss_and_stats(g)?;
            routing = RoutingLayout::new(g, &measured.routers);
            labels = measured.labels();
            Ok(measured)
        })?;
        let has_dropout = whole.find(DROPOUT_SEED).is_some();
        let gradients = match step.options().accumulation {
            1 => None,
            _ => {
                let graph = step.graph(Part::Gradients, |g| objective.loss_and_stats(g))?;
                Some(Program::new(gpu, &graph, weights)?)
            }
        };
        let mut evaluation = Graph::with_storage(weights.storage());
        let loss = objective.loss(&mut evaluation, false)?;
        evaluation.output("loss", loss)?;
        let whole = Program::new(gpu, &whole, weights)?;
        let evaluation = Program::new(gpu, &evaluation, weights)?;
        Ok((Self { whole, gradients, evaluation }, Told { routing, labels, has_dropout }))
    }

    /// Whether micro-batches of this size are its inputs.
    fn fits(&self, feeds: &Feeds) -> bool {
        let slots = self.whole.recording().slots();
        feeds.iter().all(|(name, bytes)| {
            let named = |source: &Source| matches!(source, Source::Input(known) if known == name);
            slots.iter().any(|slot| named(&slot.source) && slot.ty.bytes() == bytes.len() as u64)
        })
    }
}

/// The programs for a micro-batch, by number; the first where none fits, which then says what does not.
pub(super) fn fitting(sizes: &[Sized], feeds: &Feeds) -> usize {
    if sizes.len() < 2 { 0 } else { sizes.iter().position(|size| size.fits(feeds)).unwrap_or(0) }
}
