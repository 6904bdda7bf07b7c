//! The probabilities of attentions that a graph has, for people to look at.

use super::forward::Attention;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Array, Graph, Kind, Tensor};
use crate::ops::{concat, slice, transpose};
use std::any::Any;

/// The probabilities of an attention.
#[derive(Clone, Debug)]
pub struct AttentionWeights {
    /// The label of its node, which says the layer.
    pub label: String,
    /// The probabilities, (B, H, Tq, Tk) f32; rows of queries that see keys sum to 1.
    pub weights: Tensor,
    /// What the attention reads, q (B, Tq, H, D), k and v (B, Tk, Hkv, D).
    pub qkv: [Tensor; 3],
    /// What it gives, (B, Tq, H, D).
    pub out: Tensor,
}

/// Adds the probabilities of each attention that a graph has so far, in order.
///
/// `out = P v` is linear in v, so that values which are rows of the identity matrix give P itself: the same op runs again for each D keys, with
/// its masks, biases, caps and windows, and no other kernel is needed. The cost is Tk / D times that of the attention, and a tensor of Tq × Tk
/// a head: this is for short texts.
///
/// # Errors
/// Those of the ops, for tensors that are too large.
pub fn attention_weights(g: &mut Graph) -> Result<Vec<AttentionWeights>> {
    let mut found = Vec::new();
    for number in 0..g.nodes().len() {
        let node = g.nodes()[number].clone();
        let Kind::Op(op) = &node.kind else { continue };
        let (true, &[q, k, v, ..]) = ((op.as_ref() as &dyn Any).is::<Attention>(), node.inputs.as_slice()) else {
            continue;
        };
        let [_, keys, _, head_dim] = g.shape(k).expect("attention, k (B, Tk, Hkv, D)")?;
        let shape = g.shape(v).clone();
        let kv_heads = shape.dims()[2];
        let mut parts = Vec::new();
        for first in (0..keys).step_by(head_dim) {
            let of = shape.clone();
            let rows = g.constant_with("identity", shape.clone(), DType::F32, move || {
                Array::from_fn(of.clone(), |i| {
                    let (key, column) = (i / head_dim / kv_heads % keys, i % head_dim);
                    f64::from(u8::from(key == first + column))
                })
            });
            let mut inputs = node.inputs.clone();
            inputs[2] = rows;
            parts.push(g.add_again(&node, &inputs)?[0]);
        }
        let all = concat(g, &parts, 3)?;
        let all = slice(g, all, 3, 0, keys)?;
        let weights = transpose(g, all, &[0, 2, 1, 3])?;
        let out = Tensor { node: number as u32, output: 0 };
        found.push(AttentionWeights { label: node.label, weights, qkv: [q, k, v], out });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Values;
    use crate::ops::{AttentionOptions, attention};

    #[test]
    fn the_probabilities_are_those_of_the_definition() {
        let (queries, keys, heads, kv_heads, head_dim) = (5, 7, 4, 2, 3);
        let mut g = Graph::new();
        let q = g.input("q", [1, queries, heads, head_dim], DType::F32).unwrap();
        let k = g.input("k", [1, keys, kv_heads, head_dim], DType::F32).unwrap();
        let v = g.input("v", [1, keys, kv_heads, head_dim], DType::F32).unwrap();
        // By distance, as ALiBi and T5 have it.
        let bias = g.input("bias", [heads, queries + keys - 1], DType::F32).unwrap();
        let (window, soft_cap, bias) = (Some(4), Some(2.0), Some(bias));
        let options = AttentionOptions { causal: true, window, soft_cap, bias, ..Default::default() };
        attention(&mut g, q, k, v, &options).unwrap();
        let found = attention_weights(&mut g).unwrap();
        assert_eq!(found.len(), 1);
        let of = |shape: [usize; 4], step: f64| Array::from_fn(shape, |i| (i as f64 * step).sin() * 2.0);
        let values = Values::from([
            ("q".to_owned(), of([1, queries, heads, head_dim], 1.3)),
            ("k".to_owned(), of([1, keys, kv_heads, head_dim], 0.7)),
            ("v".to_owned(), of([1, keys, kv_heads, head_dim], 0.3)),
            (
                "bias".to_owned(),
                of([1, 1, heads, queries + keys - 1], 2.1).reshape([heads, queries + keys - 1]).unwrap(),
            ),
        ]);
        let weights = g.evaluate(&values, &[found[0].weights]).unwrap().remove(0);
        assert_eq!(weights.shape.dims(), [1, heads, queries, keys]);
        for h in 0..heads {
            for i in 0..queries {
                let place = i + keys - queries;
                let score = |j: usize| {
                    let (query, key) = (values["q"].row(i * heads + h), values["k"].row(j * kv_heads + h / 2));
                    let product: f64 = query.iter().zip(key).map(|(a, b)| a * b).sum();
                    let visible = j <= place && j + 4 > place;
                    let bias = values["bias"].row(h)[j + queries - 1 - i];
                    if visible { (2.0 * (product / 3_f64.sqrt() / 2.0).tanh() + bias).exp() } else { 0.0 }
                };
                let sum: f64 = (0..keys).map(score).sum();
                for j in 0..keys {
                    let found = weights.data[(h * queries + i) * keys + j];
                    // The scale is kept in f32.
                    assert!((found - score(j) / sum).abs() <= 1e-7, "{h} {i} {j}: {found} {}", score(j) / sum);
                }
            }
        }
    }
}
