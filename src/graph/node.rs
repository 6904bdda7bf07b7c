//! The nodes of a graph, and handles to their outputs.

use super::{Alias, Constant, Op};
use crate::shape::TensorType;
use std::sync::Arc;

/// A handle to one output of a node of a [`Graph`](super::Graph).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor {
    pub(crate) node: u32,
    pub(crate) output: u32,
}

/// Where a node's value comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// Written by the caller before a run.
    Input(String),
    /// A trained weight, found by name in the weights store.
    Parameter(String),
    /// Memory that persists between runs: optimiser moments, caches, counters. Initially zero.
    State(String),
    /// A value that is known when the graph is built.
    Constant(Arc<Constant>),
    /// Computed by an op.
    Op(Arc<dyn Op>),
}

/// One node of a graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value comes from.
    pub kind: Kind,
    /// The tensors the op reads.
    pub inputs: Vec<Tensor>,
    /// The types of its outputs.
    pub outputs: Vec<TensorType>,
    /// A dotted path for people: `blocks.3.attention.scores`.
    pub label: String,
    /// Whether the op belongs to the crate and was added by the crate.
    pub(crate) own: bool,
    /// How each output shares memory with an input.
    pub(crate) aliases: Vec<Option<Alias>>,
}
