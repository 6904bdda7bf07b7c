//! Layers as plain functions over a graph.
