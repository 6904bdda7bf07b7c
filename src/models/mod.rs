//! Model families: configuration, graph, names of weights.
