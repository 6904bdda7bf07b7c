//! The symbolic graph: ops on shapes, before there is a GPU or data.
//!
//! A [`Graph`] grows in the order in which its nodes are added, and that order is the order of execution. A
//! [`Tensor`] is a handle to one output of a node. [`Graph::differentiate`] adds the backward pass as more nodes.

mod add;
mod array;
mod bounds;
mod checkpoint;
mod constant;
mod differentiate;
mod display;
mod evaluate;
mod fuse;
mod initial;
mod live;
mod node;
mod op;
mod rematerialize;
mod storage;

pub use add::Add;
pub use array::Array;
pub use constant::Constant;
pub use evaluate::{Values, finite_difference};
pub use initial::Initial;
pub use node::{Kind, Node, Tensor};
pub use op::{Alias, Gradient, Op, Rematerialization, RematerializeInput, WriteInto};
pub use storage::{Adapters, LOW_RANK, LowRank, Storage};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, TensorType, product};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// The most elements of a tensor: four terabytes of f32, or a gigabyte on 32-bit machines.
const MOST_ELEMENTS: usize = 1 << if usize::BITS > 32 { 40 } else { 28 };

/// A model or a training step as symbolic operations.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    named: HashMap<String, Tensor>,
    outputs: Vec<(String, Tensor)>,
    scope: Vec<String>,
    storage: Storage,
    initial: HashMap<String, Initial>,
}

impl Graph {
    /// An empty graph, whose matrices are f32.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty graph whose matrices lie in GPU memory as `storage` says: that of the [`Weights`](crate::program::Weights) it is to run on.
    #[must_use]
    pub fn with_storage(storage: &Storage) -> Self {
        Self { storage: storage.clone(), ..Self::default() }
    }

    /// How the store that the graph is to run on holds matrices.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// A tensor that the caller writes before each run.
    ///
    /// # Errors
    /// [`Error::Graph`] if the name is taken.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        if self.named.contains_key(name) {
            return Err(Error::Graph(format!("the name \"{name}\" is taken")));
        }
        self.leaf(Kind::Input(name.into()), name, TensorType::new(shape, dtype))
    }

    /// The weight of that name. Repeated calls return the same tensor, so tied weights are one tensor.
    ///
    /// Its type is `dtype` unless the graph's storage has another one for the name; [`DType::for_rows_of`] if its rows are not whole blocks.
    ///
    /// # Errors
    /// [`Error::Graph`] if the name is taken by another kind of node or the type differs.
    pub fn parameter(&mut self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let shape = shape.into();
        let wanted = self.storage.by_name.get(name).copied().unwrap_or(dtype);
        let dtype = wanted.for_rows_of(shape.last());
        self.leaf(Kind::Parameter(name.into()), name, TensorType::new(shape, dtype))
    }

    /// The weight of that name as a matrix of the model, or a stack of them, in the type that the graph's storage has for it.
    ///
    /// # Errors
    /// As [`Graph::parameter`]; [`Error::Graph`] if it was to be filled with something else before.
    pub fn matrix(&mut self, name: &str, shape: impl Into<Shape>, initial: Initial) -> Result<Tensor> {
        self.initialised(name, shape, self.storage.dtype, initial)
    }

    /// The weight of that name in f32, independent of the storage of matrices: gains, biases, routers.
    ///
    /// # Errors
    /// As [`Graph::matrix`].
    pub fn full_precision(&mut self, name: &str, shape: impl Into<Shape>, initial: Initial) -> Result<Tensor> {
        self.initialised(name, shape, DType::F32, initial)
    }

    fn initialised(&mut self, name: &str, shape: impl Into<Shape>, dtype: DType, initial: Initial) -> Result<Tensor> {
        let tensor = self.parameter(name, shape, dtype)?;
        match self.initial.insert(name.into(), initial) {
            Some(before) if before != initial => {
                Err(Error::Graph(format!("fresh \"{name}\" is {before:?} already and can't also be {initial:?}")))
            }
            _ => Ok(tensor),
        }
    }

    /// The initialisation of a fresh weight of that name, if [`Graph::matrix`] or [`Graph::full_precision`] asked for it.
    #[must_use]
    pub fn initial(&self, name: &str) -> Option<Initial> {
        self.initial.get(name).copied()
    }

    /// Memory that persists between runs, initially zero.
    ///
    /// # Errors
    /// [`Error::Graph`] if the name is taken by another kind of node or the type differs.
    pub fn state(&mut self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        self.leaf(Kind::State(name.into()), name, TensorType::new(shape, dtype))
    }

    /// A constant.
    pub fn constant(&mut self, label: &str, value: Array, dtype: DType) -> Tensor {
        self.leaf_constant(label, Constant::stored(value), dtype)
    }

    /// A constant that is computed when a program is prepared and each time the graph is evaluated, for large tables. `make` returns an array
    /// of this shape.
    pub fn constant_with(
        &mut self,
        label: &str,
        shape: impl Into<Shape>,
        dtype: DType,
        make: impl Fn() -> Array + Send + Sync + 'static,
    ) -> Tensor {
        self.leaf_constant(label, Constant::computed(shape, make), dtype)
    }

    fn leaf_constant(&mut self, label: &str, value: Constant, dtype: DType) -> Tensor {
        let ty = TensorType::new(value.shape().clone(), dtype);
        self.push(Kind::Constant(Arc::new(value)), Vec::new(), vec![ty], label.into())
    }

    fn leaf(&mut self, kind: Kind, name: &str, ty: TensorType) -> Result<Tensor> {
        check_size(name, &ty)?;
        if let Some(&tensor) = self.named.get(name) {
            let node = &self.nodes[tensor.node as usize];
            let same_kind = std::mem::discriminant(&node.kind) == std::mem::discriminant(&kind);
            if !same_kind || node.outputs[0] != ty {
                return Err(Error::Graph(format!("\"{name}\" is already {} and can't also be {ty}", node.outputs[0])));
            }
            return Ok(tensor);
        }
        let tensor = self.push(kind, Vec::new(), vec![ty], name.into());
        self.named.insert(name.into(), tensor);
        Ok(tensor)
    }

    fn push(&mut self, kind: Kind, inputs: Vec<Tensor>, outputs: Vec<TensorType>, label: String) -> Tensor {
        let node = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let aliases = vec![None; outputs.len()];
        self.nodes.push(Node { kind, inputs, outputs, label, own: false, aliases });
        Tensor { node, output: 0 }
    }

    /// Adds an op and returns all its outputs.
    ///
    /// # Errors
    /// Those of the op's shape rule.
    pub fn apply(&mut self, op: impl Op, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.add_op(Arc::new(op), inputs, false)
    }

    /// Adds an op and returns its first output.
    ///
    /// # Errors
    /// Those of the op's shape rule; [`Error::Graph`] if the op has no output.
    pub fn apply1(&mut self, op: impl Op, inputs: &[Tensor]) -> Result<Tensor> {
        let name = op.name();
        first(name, self.apply(op, inputs)?)
    }

    /// As [`Graph::apply`], for ops of the crate: their launches of the crate's kernels are trusted.
    pub(crate) fn put(&mut self, op: impl Op, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.add_op(Arc::new(op), inputs, true)
    }

    /// As [`Graph::apply1`], for ops of the crate.
    pub(crate) fn put1(&mut self, op: impl Op, inputs: &[Tensor]) -> Result<Tensor> {
        let name = op.name();
        first(name, self.put(op, inputs)?)
    }

    /// Adds a node's op on other inputs of the same types, whose values are known to be valid indices (for example zeros).
    pub(crate) fn add_again(&mut self, node: &Node, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let Kind::Op(op) = &node.kind else { return Ok(Vec::new()) };
        let outputs = self.add_op(op.clone(), inputs, node.own)?;
        if let Some(last) = self.nodes.last_mut() {
            last.own = node.own;
        }
        Ok(outputs)
    }

    /// Adds an op, of the crate or another one.
    fn add_op(&mut self, op: Arc<dyn Op>, inputs: &[Tensor], own: bool) -> Result<Vec<Tensor>> {
        for input in inputs {
            self.check_handle(*input)?;
        }
        let types: Vec<TensorType> = inputs.iter().map(|&t| self.ty(t).clone()).collect();
        // Constants are not checked before, and shape rules multiply and add extents.
        types.iter().try_for_each(|ty| check_size(&self.scoped(op.name()), ty))?;
        let outputs = op.infer(&types).map_err(|error| self.in_scope(error))?;
        outputs.iter().try_for_each(|ty| check_size(&self.scoped(op.name()), ty))?;
        let count = outputs.len() as u32;
        let label = self.scoped(op.name());
        let own = own && self.lists_are_bounded(op.as_ref(), inputs, &types);
        let aliases = aliases(op.as_ref(), &types, &outputs)?;
        let first = self.push(Kind::Op(op), inputs.to_vec(), outputs, label);
        let node = &mut self.nodes[first.node as usize];
        (node.own, node.aliases) = (own, aliases);
        Ok((0..count).map(|output| Tensor { node: first.node, output }).collect())
    }

    fn check_handle(&self, tensor: Tensor) -> Result<()> {
        let fits = self.nodes.get(tensor.node as usize).is_some_and(|n| (tensor.output as usize) < n.outputs.len());
        if fits { Ok(()) } else { Err(Error::Graph("the tensor belongs to another graph".into())) }
    }

    fn in_scope(&self, error: Error) -> Error {
        match error {
            Error::Shape { op, what } => Error::Shape { op: self.scoped(&op), what },
            other => other,
        }
    }

    fn scoped(&self, name: &str) -> String {
        let mut label = self.scope.join(".");
        if !label.is_empty() {
            label.push('.');
        }
        label + name
    }

    /// Runs `build` with `name` in front of the labels of the nodes it adds.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn scope<T>(&mut self, name: impl Into<String>, build: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.scope.push(name.into());
        let result = build(self);
        self.scope.pop();
        result
    }

    /// Names a tensor as a result that can be read after a run.
    ///
    /// # Errors
    /// [`Error::Graph`] if there is an output of that name already.
    pub fn output(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        self.check_handle(tensor)?;
        if self.outputs.iter().any(|(n, _)| n == name) {
            return Err(Error::Graph(format!("there is already an output \"{name}\"")));
        }
        self.outputs.push((name.into(), tensor));
        Ok(())
    }

    /// The named results.
    #[must_use]
    pub fn outputs(&self) -> &[(String, Tensor)] {
        &self.outputs
    }

    /// The input, parameter or state of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.named.get(name).copied()
    }

    /// The type of a tensor. A tensor of another graph has no type here; it counts as f32\\[1\\] until an op refuses it.
    #[must_use]
    pub fn ty(&self, tensor: Tensor) -> &TensorType {
        static FOREIGN: LazyLock<TensorType> = LazyLock::new(|| TensorType::new([1], DType::F32));
        let found = self.nodes.get(tensor.node as usize).and_then(|node| node.outputs.get(tensor.output as usize));
        found.unwrap_or(&FOREIGN)
    }

    /// The shape of a tensor.
    #[must_use]
    pub fn shape(&self, tensor: Tensor) -> &Shape {
        &self.ty(tensor).shape
    }

    /// The element type of a tensor.
    #[must_use]
    pub fn dtype(&self, tensor: Tensor) -> DType {
        self.ty(tensor).dtype
    }

    /// All nodes in the order of execution.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The parameters in the order in which they were added: name and tensor.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.leaves(|kind| match kind {
            Kind::Parameter(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The inputs in order: name and tensor.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.leaves(|kind| match kind {
            Kind::Input(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The states in order: name and tensor.
    pub fn states(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.leaves(|kind| match kind {
            Kind::State(name) => Some(name.as_str()),
            _ => None,
        })
    }

    fn leaves<'a>(
        &'a self,
        pick: impl Fn(&'a Kind) -> Option<&'a str> + 'a,
    ) -> impl Iterator<Item = (&'a str, Tensor)> {
        self.nodes.iter().enumerate().filter_map(move |(index, node)| {
            pick(&node.kind).map(|name| (name, Tensor { node: index as u32, output: 0 }))
        })
    }
}

/// How each output of an op shares memory with an input; an error if the output is larger than the input.
fn aliases(op: &dyn Op, inputs: &[TensorType], outputs: &[TensorType]) -> Result<Vec<Option<Alias>>> {
    let alias = |(index, output): (usize, &TensorType)| {
        let alias = op.alias(index);
        let Some(Alias::View(input) | Alias::InPlace(input)) = alias else { return Ok(alias) };
        match inputs.get(input) {
            Some(whole) if output.bytes() <= whole.bytes() => Ok(alias),
            Some(whole) => {
                let message = format!("output {index} ({output}) does not fit the memory of input {input} ({whole})");
                Err(Error::Graph(format!("{}: {message}", op.name())))
            }
            None => Err(Error::Graph(format!(
                "{}: output {index} shares the memory of input {input}, which does not exist",
                op.name()
            ))),
        }
    };
    outputs.iter().enumerate().map(alias).collect()
}

fn first(op: &str, outputs: Vec<Tensor>) -> Result<Tensor> {
    outputs.first().copied().ok_or_else(|| Error::Graph(format!("{op} has no output")))
}

/// Refuses tensors that no device can hold, before sizes overflow. Extents next to an empty axis count, too.
pub(crate) fn check_size(what: &str, ty: &TensorType) -> Result<()> {
    let extents: Vec<usize> = ty.shape.dims().iter().copied().filter(|extent| *extent > 0).collect();
    if product(&extents) <= MOST_ELEMENTS {
        return Ok(());
    }
    let message =
        format!("{ty} has more elements than any device holds: lower the batch, the context or the model's sizes");
    Err(Error::shape(what, message))
}

#[cfg(test)]
mod tests;
