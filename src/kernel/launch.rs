//! The context of an op while it is recorded: its tensors, the adapter's capabilities, and the dispatches it adds.

use super::{Dispatch, View};
use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::{Caps, TunedVariants};
use crate::shape::Shape;
use std::fmt::Debug;
use std::ops::Range;

/// A problem that more than one variant of a kernel can solve on the adapter, so that a tuner can time them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuningProblem {
    /// The problem by name: kernel and sizes.
    pub key: String,
    /// The legal variants, the default first.
    pub variants: Vec<String>,
}

/// The context of an op while it is recorded.
#[derive(Debug)]
pub struct Launch<'a> {
    caps: &'a Caps,
    tuned: Option<&'a TunedVariants>,
    problems: Vec<TuningProblem>,
    inputs: &'a [View],
    outputs: &'a [View],
    used: Vec<bool>,
    next_slot: usize,
    scratch: Vec<View>,
    dispatches: Vec<Dispatch>,
}

impl<'a> Launch<'a> {
    /// A launch of an op with these tensors; slots from `next_slot` on are free for scratch memory.
    #[must_use]
    pub fn new(caps: &'a Caps, inputs: &'a [View], outputs: &'a [View], next_slot: usize) -> Self {
        let used = vec![true; outputs.len()];
        Self {
            caps,
            tuned: None,
            problems: Vec::new(),
            inputs,
            outputs,
            used,
            next_slot,
            scratch: Vec::new(),
            dispatches: Vec::new(),
        }
    }

    /// Sets the tuned variants; without them the defaults run.
    #[must_use]
    pub fn with_variants(mut self, tuned: &'a TunedVariants) -> Self {
        self.tuned = Some(tuned);
        self
    }

    /// Sets which outputs are read; without it all of them count as read.
    #[must_use]
    pub fn with_used(mut self, used: Vec<bool>) -> Self {
        self.used = used;
        self
    }

    /// The adapter's capabilities.
    #[must_use]
    pub fn caps(&self) -> &'a Caps {
        self.caps
    }

    /// The variant that solves a problem: the tuned one if there is one and it is legal, else the default. `problem` names
    /// kernel and sizes; a variant's name is its `{:?}`.
    pub fn choose<V: Copy + Debug>(&mut self, problem: String, default: V, legal: &[V]) -> V {
        let name = |variant: &V| format!("{variant:?}");
        let chosen = self.tuned.and_then(|tuned| tuned.get(&problem));
        let chosen = chosen.and_then(|chosen| legal.iter().find(|v| name(v) == chosen).copied());
        let first = name(&default);
        let others = legal.iter().map(name).filter(|other| *other != first);
        let variants: Vec<String> = std::iter::once(first.clone()).chain(others).collect();
        if variants.len() > 1 && self.problems.iter().all(|known| known.key != problem) {
            self.problems.push(TuningProblem { key: problem, variants });
        }
        chosen.unwrap_or(default)
    }

    /// Takes the problems for which [`Launch::choose`] had several variants.
    #[must_use]
    pub fn take_problems(&mut self) -> Vec<TuningProblem> {
        std::mem::take(&mut self.problems)
    }

    /// Input `index`. If the op has no such input, an empty view of no slot, which the recorder refuses.
    #[must_use]
    pub fn input(&self, index: usize) -> View {
        self.inputs.get(index).cloned().unwrap_or_else(no_view)
    }

    /// Output `index`; as [`Launch::input`] if there is none.
    #[must_use]
    pub fn output(&self, index: usize) -> View {
        self.outputs.get(index).cloned().unwrap_or_else(no_view)
    }

    /// Whether anything reads output `index`. An output that no_view reads need not be computed; it then has no memory.
    #[must_use]
    pub fn output_used(&self, index: usize) -> bool {
        self.used.get(index).copied().unwrap_or(true)
    }

    /// The number of inputs.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Cuts `count` elements of 4 bytes into windows that one binding can hold, for elementwise ops. Windows begin at multiples of 4096,
    /// which keeps the offsets of all operands aligned.
    #[must_use]
    pub fn windows(&self, count: usize) -> Vec<Range<usize>> {
        const GRAIN: usize = 4096;
        let bytes = self.caps.quirks.window(self.caps.max_binding_bytes);
        let limit = ((bytes / 4) as usize / GRAIN * GRAIN).max(GRAIN);
        (0..count).step_by(limit).map(|start| start..count.min(start + limit)).collect()
    }

    /// Memory that only this op's dispatches use.
    pub fn scratch(&mut self, shape: impl Into<Shape>, dtype: DType) -> View {
        let view = View { slot: self.next_slot + self.scratch.len(), start: 0, shape: shape.into(), dtype };
        self.scratch.push(view.clone());
        view
    }

    /// Records a dispatch; a dispatch of no workgroups is left out.
    ///
    /// # Errors
    /// None today: its bindings are checked when the op has been recorded, the adapter's limits when memory is planned.
    pub fn dispatch(&mut self, dispatch: Dispatch) -> Result<()> {
        if dispatch.groups > 0 {
            self.dispatches.push(dispatch);
        }
        Ok(())
    }

    /// The dispatches and the scratch memory they use.
    #[must_use]
    pub fn finish(self) -> (Vec<Dispatch>, Vec<View>) {
        (self.dispatches, self.scratch)
    }
}

/// The view in place of a tensor that the op does not have.
fn no_view() -> View {
    View { slot: usize::MAX, start: 0, shape: Shape::new([0]), dtype: DType::F32 }
}
