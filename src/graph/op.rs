//! The `Op` trait: what an operation must say of itself.

use super::{Array, Graph, Tensor};
use crate::error::{Error, Result};
use crate::kernel::Launch;
use crate::shape::TensorType;
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

/// An operation of the graph: shape rule, gradient, f64 reference and kernels, in one place.
///
/// Embedders implement it for ops of their own and add them with [`Graph::apply`] (`examples/custom_op.rs`). Whatever such an op says or
/// launches in safe code, it reads its inputs and writes its outputs and no more: other views, lengths and accesses are
/// [`Error::Graph`] when the graph is built or recorded, and kernels are compiled with wgpu's checks
/// ([`Kernel::new`](crate::kernel::Kernel::new)).
pub trait Op: Any + Debug + Send + Sync {
    /// The name that prints, errors and traces use: lower case with underscores.
    fn name(&self) -> &'static str;

    /// The types of the outputs, or why the inputs do not fit.
    ///
    /// # Errors
    /// [`Error::Shape`] that names the offending operand.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>>;

    /// The gradients of the inputs, as more nodes of the graph; `None` for an input that has none.
    ///
    /// # Errors
    /// [`Error::NotDifferentiable`] unless overridden.
    fn gradient(&self, _cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(Error::NotDifferentiable { op: self.name().into() })
    }

    /// The same arithmetic on the CPU in f64: the oracle of every test.
    ///
    /// # Errors
    /// Whatever makes the values (not the shapes) unusable, such as an index out of range.
    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>>;

    /// Records the dispatches that compute the outputs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if no variant is legal on the adapter.
    fn launch(&self, cx: &mut Launch<'_>) -> Result<()>;

    /// Whether output `index` lies in the memory of an input, and how.
    fn alias(&self, _index: usize) -> Option<Alias> {
        None
    }

    /// The input that output `index` is a part of, in one piece, and the part's first element. Where the adapter can bind memory from
    /// there on and neither changes in place, nothing is copied; `launch` sees it by the output's slot.
    fn part_of(&self, _index: usize, _inputs: &[TensorType]) -> Option<(usize, usize)> {
        None
    }

    /// Inputs that the op would like to find inside another input: the recorder has their producers write there, so
    /// that nothing is left to copy. `launch` sees that it happened by the input's slot.
    fn placements(&self) -> Vec<Placement> {
        Vec::new()
    }

    /// The op that computes `consumer`'s output at once, where this op's only output is `consumer`'s input `index` and
    /// nothing else reads it. Its inputs are this op's, then `consumer`'s others in their order.
    fn epilogue(&self, _consumer: &dyn Op, _index: usize) -> Option<Arc<dyn Op>> {
        None
    }

    /// The op that does `producer`'s work as well, where input `index` of this op is `producer`'s only output and no other op reads it
    /// before this one. Its inputs are `producer`'s, then this op's others in their order; its outputs are this op's, then `producer`'s.
    fn prologue(&self, _producer: &dyn Op, _index: usize) -> Option<Arc<dyn Op>> {
        None
    }

    /// Inputs of whole numbers that must be below a bound, with it: ids of a table's rows, labels of classes. Where the caller
    /// writes such an input, [`Program::write`](crate::Program::write) refuses others; kernels must not crash on them, since
    /// passes of an application may write them as well.
    fn bounds(&self, _inputs: &[TensorType]) -> Vec<(usize, usize)> {
        Vec::new()
    }

    /// As [`Op::bounds`], for lists that the kernels follow without a look at their values: orders of rows, and where groups begin. Where
    /// the graph cannot tell that they stay below, because an application made them, kernels of the crate are compiled with checks.
    fn relies_on(&self, _inputs: &[TensorType]) -> Vec<(usize, usize)> {
        Vec::new()
    }

    /// What the values of output `index`, whole numbers, are below, whatever the inputs hold; believed of ops of the crate.
    fn below(&self, _index: usize, _inputs: &[TensorType]) -> Option<usize> {
        None
    }

    /// How output `index` is made again from the op's inputs and other outputs at less cost than keeping it from the forward to the
    /// backward pass.
    fn remake(&self, _index: usize) -> Option<Remake> {
        None
    }

    /// Whether output `index` may lie inside a larger tensor: not if other dispatches of the op read it.
    fn placeable(&self, _index: usize) -> bool {
        true
    }
}

/// A way to make an output again: [`Op::remake`].
#[derive(Clone, Debug)]
pub struct Remake {
    /// The op, whose first output is the one that is made.
    pub op: Arc<dyn Op>,
    /// What it takes.
    pub from: Vec<RemakeInput>,
}

/// What [`Remake::op`] takes, as the op that is made again has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemakeInput {
    /// An input.
    Input(usize),
    /// Another output.
    Output(usize),
}

/// A wish of [`Op::placements`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The input to be placed.
    pub input: usize,
    /// The input inside which it should lie: a state.
    pub into: usize,
    /// The offset in elements, a multiple of 64.
    pub offset: usize,
}

/// How an output shares memory with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// The output is the same bytes under another shape; nothing is launched.
    View(usize),
    /// The op updates the input where it lies. Nothing may read the input's old value afterwards.
    InPlace(usize),
}

/// What an op sees when it is differentiated.
#[derive(Debug)]
#[non_exhaustive]
pub struct Gradient<'a> {
    /// The graph that the gradient's nodes go into.
    pub graph: &'a mut Graph,
    /// The node's inputs.
    pub inputs: &'a [Tensor],
    /// The node's outputs, for gradients in terms of results.
    pub outputs: &'a [Tensor],
    /// The gradient of the loss by each output; `None` where the loss does not depend on it.
    pub upstream: &'a [Option<Tensor>],
    /// Which inputs need a gradient at all.
    pub needed: &'a [bool],
}

impl Gradient<'_> {
    /// The gradient of the loss by output `index`.
    ///
    /// # Errors
    /// [`Error::Graph`] if the loss does not depend on that output.
    pub fn upstream(&self, index: usize) -> Result<Tensor> {
        self.upstream
            .get(index)
            .copied()
            .flatten()
            .ok_or_else(|| Error::Graph(format!("no gradient reaches output {index}")))
    }
}
