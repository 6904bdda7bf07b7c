//! The `Op` trait: the interface of an operation.

use super::{Array, Graph, Tensor};
use crate::error::{Error, Result};
use crate::kernel::Launch;
use crate::shape::TensorType;
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

/// An operation of the graph: shape rule, gradient, f64 reference and kernels, in one place.
///
/// Applications implement it for their own ops and add them with [`Graph::apply`] (`examples/custom_op.rs`). In safe code such an op can only
/// read its inputs and write its outputs: other views, lengths and accesses are [`Error::Graph`] when the graph is built or recorded, and
/// kernels are compiled with wgpu's checks ([`Kernel::new`](crate::kernel::Kernel::new)).
pub trait Op: Any + Debug + Send + Sync {
    /// The name in tables, errors and traces: lower case with underscores.
    fn name(&self) -> &'static str;

    /// The shape rule: the types of the outputs, or why the inputs do not fit.
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
    /// An invalid value (not shape), such as an index out of range.
    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>>;

    /// Records the dispatches that compute the outputs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if no variant is legal on the adapter.
    fn launch(&self, cx: &mut Launch<'_>) -> Result<()>;

    /// Whether and how output `index` shares the memory of an input.
    fn alias(&self, _index: usize) -> Option<Alias> {
        None
    }

    /// The input of which output `index` is a contiguous slice, and the slice's first element. Nothing is copied if the adapter can bind memory
    /// at that offset and neither tensor is updated in place; `launch` sees it by the output's slot.
    fn slice_of(&self, _index: usize, _inputs: &[TensorType]) -> Option<(usize, usize)> {
        None
    }

    /// Inputs that the op wants their producers to write into another input, so that nothing has to be copied. The recorder does so where it
    /// can; `launch` sees it by the input's slot.
    fn write_into(&self) -> Vec<WriteInto> {
        Vec::new()
    }

    /// The fused op that computes `consumer`'s output, where this op's only output is `consumer`'s input `index` and nothing else reads it. Its
    /// inputs are this op's, then `consumer`'s others in order.
    fn epilogue(&self, _consumer: &dyn Op, _index: usize) -> Option<Arc<dyn Op>> {
        None
    }

    /// The fused op that also does `producer`'s work, where input `index` of this op is `producer`'s only output and no op reads it before this
    /// one. Its inputs are `producer`'s, then this op's others in order; its outputs are this op's, then `producer`'s.
    fn prologue(&self, _producer: &dyn Op, _index: usize) -> Option<Arc<dyn Op>> {
        None
    }

    /// Integer inputs with their exclusive upper bounds: ids of a table's rows, labels of classes. [`Program::write`](crate::Program::write)
    /// refuses values out of range; kernels must still guard against them, since passes of an application may write them.
    fn bounds(&self, _inputs: &[TensorType]) -> Vec<(usize, usize)> {
        Vec::new()
    }

    /// As [`Op::bounds`], for lists that kernels use as indices without checks: orders of rows, and beginnings of groups. If the graph cannot
    /// prove the bound, because an application made the list, the crate's kernels are compiled with checks.
    fn relies_on(&self, _inputs: &[TensorType]) -> Vec<(usize, usize)> {
        Vec::new()
    }

    /// The exclusive upper bound of integer output `index`, for any inputs. Trusted only for ops of the crate.
    fn below(&self, _index: usize, _inputs: &[TensorType]) -> Option<usize> {
        None
    }

    /// How to compute output `index` again from the op's inputs and other outputs, if that costs less than keeping it for the backward pass.
    fn rematerialize(&self, _index: usize) -> Option<Rematerialization> {
        None
    }

    /// Whether output `index` may be written into a larger tensor: false if other dispatches of the op read it.
    fn may_write_into(&self, _index: usize) -> bool {
        true
    }
}

/// How to compute an output again: [`Op::rematerialize`].
#[derive(Clone, Debug)]
pub struct Rematerialization {
    /// The op whose first output is the output.
    pub op: Arc<dyn Op>,
    /// Its inputs.
    pub from: Vec<RematerializeInput>,
}

/// An input of [`Rematerialization::op`], in terms of the original op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RematerializeInput {
    /// An input.
    Input(usize),
    /// Another output.
    Output(usize),
}

/// A request of [`Op::write_into`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteInto {
    /// The input to write.
    pub input: usize,
    /// The input to write it into: a state.
    pub into: usize,
    /// The offset in elements, a multiple of 64.
    pub offset: usize,
}

/// How an output shares memory with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alias {
    /// The output is the same bytes under another shape; nothing is launched.
    View(usize),
    /// The op updates the input in place. Nothing may read the input's old value afterwards.
    InPlace(usize),
}

/// The arguments of [`Op::gradient`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Gradient<'a> {
    /// The graph that receives the gradient's nodes.
    pub graph: &'a mut Graph,
    /// The node's inputs.
    pub inputs: &'a [Tensor],
    /// The node's outputs, for gradients that use the results.
    pub outputs: &'a [Tensor],
    /// The gradient of the loss with respect to each output; `None` where the loss does not depend on it.
    pub upstream: &'a [Option<Tensor>],
    /// Which inputs need a gradient.
    pub needed: &'a [bool],
}

impl Gradient<'_> {
    /// The gradient of the loss with respect to output `index`.
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
