//! Prints a graph, one node a line.

use super::{Graph, Kind};
use std::fmt;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            let what = match &node.kind {
                Kind::Input(_) => "input",
                Kind::Parameter(_) => "parameter",
                Kind::State(_) => "state",
                Kind::Constant(_) => "constant",
                Kind::Op(op) => op.name(),
            };
            let inputs: Vec<String> = node.inputs.iter().map(|t| format!("%{}.{}", t.node, t.output)).collect();
            let outputs: Vec<String> = node.outputs.iter().map(ToString::to_string).collect();
            writeln!(f, "%{index:<5} {what:<24} {:<40} ({}) -> {}", node.label, inputs.join(" "), outputs.join(" "))?;
        }
        Ok(())
    }
}
