//! What an op sees when it is recorded: its tensors, the adapter's abilities, and where its dispatches go.

use super::{Dispatch, View};
use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::Caps;
use crate::shape::Shape;
use std::ops::Range;

/// What an op sees when it is recorded.
#[derive(Debug)]
pub struct Launch<'a> {
    caps: &'a Caps,
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
        Self { caps, inputs, outputs, used, next_slot, scratch: Vec::new(), dispatches: Vec::new() }
    }

    /// Says which outputs anything reads; all of them, unless said.
    #[must_use]
    pub fn with_used(mut self, used: Vec<bool>) -> Self {
        self.used = used;
        self
    }

    /// The adapter's abilities.
    #[must_use]
    pub fn caps(&self) -> &'a Caps {
        self.caps
    }

    /// Input `index`.
    #[must_use]
    pub fn input(&self, index: usize) -> View {
        self.inputs[index].clone()
    }

    /// Output `index`.
    #[must_use]
    pub fn output(&self, index: usize) -> View {
        self.outputs[index].clone()
    }

    /// Whether anything reads output `index`. One that nothing reads need not be computed, and then has no memory.
    #[must_use]
    pub fn output_used(&self, index: usize) -> bool {
        self.used.get(index).copied().unwrap_or(true)
    }

    /// The number of inputs.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Cuts `count` elements of 4 bytes into windows that one binding can hold, for ops that go over a tensor element by
    /// element. Windows begin at multiples of 4096, which keeps the offsets of whatever goes along aligned.
    #[must_use]
    pub fn windows(&self, count: usize) -> Vec<Range<usize>> {
        const GRAIN: usize = 4096;
        let limit = ((self.caps.max_binding_bytes / 4) as usize / GRAIN * GRAIN).max(GRAIN);
        (0..count).step_by(limit).map(|start| start..count.min(start + limit)).collect()
    }

    /// Memory that only this op's dispatches use.
    pub fn scratch(&mut self, shape: impl Into<Shape>, dtype: DType) -> View {
        let view = View { slot: self.next_slot + self.scratch.len(), start: 0, shape: shape.into(), dtype };
        self.scratch.push(view.clone());
        view
    }

    /// Records a dispatch.
    ///
    /// # Errors
    /// None today; the limits of the adapter are checked when the recording is planned.
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
