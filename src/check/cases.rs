//! All cases: those of the ops, each beside its op, and those of the kernels that measure an adapter's ceilings; with whole models the suite.

use super::models;
use crate::case::Case;
use crate::{bench, ops};

/// Every case of an op or a kernel.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = ops::cases();
    cases.extend(bench::cases());
    cases
}

/// The whole suite: [`all`], small models of all families, and single layers as wide as those that people run.
#[must_use]
pub fn suite() -> Vec<Case> {
    let mut cases = all();
    cases.extend(models::small());
    cases.extend(models::wide());
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Kind;
    use crate::kernel::Caps;
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    /// The names of the ops in `src/ops`, and their files.
    fn ops() -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap_or_default();
                for body in text.split("fn name(&self) -> &'static str {").skip(1) {
                    let body = body.split("\n    }\n").next().unwrap_or_default();
                    found.extend(body.split('"').skip(1).step_by(2).map(|name| (name.to_owned(), path.clone())));
                }
            }
        }
        found
    }

    #[test]
    fn every_op_is_in_a_case() {
        let mut missing = ops();
        assert!(missing.len() > 80, "found only {missing:?}");
        let cases = all();
        for case in &cases {
            for node in case.build().unwrap().graph.nodes() {
                if let Kind::Op(op) = &node.kind {
                    missing.remove(op.name());
                }
            }
        }
        // Fused ops are launched under names of their own.
        for case in &cases {
            if missing.is_empty() {
                break;
            }
            for dispatch in case.recording(&Caps::baseline()).unwrap().dispatches {
                missing.remove(dispatch.label.rsplit('.').next().unwrap_or_default());
            }
        }
        assert!(missing.is_empty(), "no case has {missing:?}");
    }
}
