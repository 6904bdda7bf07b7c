//! Tests of graphs with huge extents.

use super::*;
use crate::kernel::Caps;
use crate::ops::{self, AttentionOptions, CrossEntropyOptions, WeightLayout};
use crate::program::Recording;

#[test]
fn huge_extents_of_empty_tensors_are_refused() -> Result<()> {
    let mut g = Graph::new();
    let shape = [usize::MAX, 2, 0];
    let empty = Array { shape: shape.into(), data: Vec::new() };
    let constant = g.constant("empty", empty, DType::F32);
    let table = [0, usize::MAX / 2 + 2, 2];
    let refused = [
        g.input("x", shape, DType::F32).unwrap_err(),
        g.parameter("table", table, DType::F32).unwrap_err(),
        ops::zeros(&mut g, shape).unwrap_err(),
        ops::slice(&mut g, constant, 2, 0, 1).unwrap_err(),
        ops::transpose(&mut g, constant, &[2, 1, 0]).unwrap_err(),
        ops::concat(&mut g, &[constant, constant], 0).unwrap_err(),
    ];
    for error in refused {
        assert!(error.to_string().contains("more elements than any device holds"), "{error}");
    }
    g.input("empty", [0, 3], DType::F32)?;
    Ok(())
}

#[test]
fn the_work_of_huge_shapes_saturates() -> Result<()> {
    const MANY: usize = 1 << 36;
    for causal in [false, true] {
        let mut g = Graph::new();
        let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, [1, MANY, 1, 1], DType::F32));
        let options = AttentionOptions { causal, ..AttentionOptions::default() };
        let out = ops::attention(&mut g, q?, k?, v?, &options)?;
        g.output("out", out)?;
        assert!(Recording::new(&g, &Caps::baseline())?.flops() >= 1 << 50);
    }
    let mut g = Graph::new();
    let x = g.input("x", [1 << 39, 1], DType::F32)?;
    let weight = g.parameter("weight", [1, 1 << 39], DType::F32)?;
    let labels = g.input("labels", [1 << 39], DType::I32)?;
    let (layout, options) = (WeightLayout::InOut, CrossEntropyOptions::default());
    let loss = ops::linear_cross_entropy(&mut g, x, weight, None, layout, labels, &options)?;
    assert_eq!(g.shape(loss).numel(), 1);
    Ok(())
}
