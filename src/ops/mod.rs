//! The ops, in folders; their kernels are in folders of the same names.
//!
//! An op is one file: formula, shape rule, gradient, f64 reference, launch, and the conformance cases that check them (in a separate file if
//! they are long). Only the `mod.rs` of its folder names the op: its module, its exports and its cases.

mod arithmetic;
mod attention;
mod experts;
mod index;
mod layout;
mod long_cases;
mod loss;
pub mod matmul;
mod norm;
mod optimizer;
mod random;
mod recursion;
mod rows;
mod sampling;

pub use arithmetic::*;
pub use attention::*;
pub use experts::*;
pub use index::*;
pub use layout::*;
pub use loss::*;
pub use matmul::{
    LinearOptions, Matmul, WeightLayout, linear, linear_fused, matmul, matmul_nt, matmul_tn, matmul_tn_rows,
};
pub use norm::*;
pub use optimizer::*;
pub use recursion::*;
pub use sampling::*;

use crate::case::Case;

/// The conformance cases of every op.
pub(crate) fn cases() -> Vec<Case> {
    let folders = [
        arithmetic::cases(),
        attention::cases(),
        experts::cases(),
        index::cases(),
        layout::cases(),
        loss::cases(),
        matmul::cases(),
        norm::cases(),
        optimizer::cases(),
        recursion::cases(),
        sampling::cases(),
        long_cases::cases(),
    ];
    folders.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::error::Result;
    use crate::graph::{Graph, Tensor};

    type OnFloats = (&'static str, &'static dyn Fn(&mut Graph, Tensor) -> Result<Tensor>);

    /// Ops that compute with floats, of a matrix (4, 8) or of what can be made of one without a look at its type.
    const ON_FLOATS: &[OnFloats] = &[
        ("activation", &|g, x| activation(g, x, Activation::Relu)),
        ("gated", &|g, x| gated(g, x, x, Activation::Silu)),
        ("add", &|g, x| add(g, x, x)),
        ("sub", &|g, x| sub(g, x, x)),
        ("mul", &|g, x| mul(g, x, x)),
        ("scale", &|g, x| scale(g, x, 2.0)),
        ("add_scalar", &|g, x| add_scalar(g, x, 2.0)),
        ("sum", &|g, x| sum(g, x)),
        ("mean", &|g, x| mean(g, x)),
        ("sum_rows", &|g, x| sum_rows(g, x)),
        ("sum_last", &|g, x| sum_last(g, x)),
        ("mean_last", &|g, x| mean_last(g, x)),
        ("softmax", &|g, x| softmax(g, x)),
        ("log_softmax", &|g, x| log_softmax(g, x)),
        ("matmul", &|g, x| matmul_nt(g, x, x)),
        ("top_k_gate", &|g, x| Ok(top_k_gate(g, x, None, &GateOptions::new(2))?.weights)),
        ("expert_choice", &|g, x| Ok(expert_choice(g, x, 2)?.gates)),
        ("argmax_rows", &|g, x| argmax_rows(g, x, None)),
        ("row_entropy", &|g, x| row_entropy(g, x, None)),
        ("routing_entropy", &|g, x| routing_entropy(g, x)),
        ("router_z_loss", &|g, x| router_z_loss(g, x)),
        ("add_row", &|g, x| {
            let row = g.input("row", [8], DType::F32)?;
            add_row(g, x, row)
        }),
        ("mul_row", &|g, x| {
            let row = g.input("row", [8], DType::F32)?;
            mul_row(g, x, row)
        }),
        ("scale_by", &|g, x| {
            let s = g.input("s", [1], DType::F32)?;
            scale_by(g, x, s)
        }),
        ("gated_add", &|g, x| {
            let gate = g.input("gate", [4], DType::F32)?;
            gated_add(g, x, x, gate)
        }),
        ("dropout", &|g, x| {
            let seed = g.input("seed", [2], DType::U32)?;
            dropout(g, x, 0.5, seed, 0)
        }),
        ("noisy_logits", &|g, x| {
            let seed = g.input("seed", [2], DType::U32)?;
            noisy_logits(g, x, x, seed, 0)
        }),
        ("layer_norm", &|g, x| {
            let gain = g.input("gain", [8], DType::F32)?;
            layer_norm(g, x, gain, None, 1e-5)
        }),
        ("add_rms_norm", &|g, x| {
            let gain = g.input("gain", [8], DType::F32)?;
            Ok(add_rms_norm(g, x, x, gain, 1e-5)?.0)
        }),
        ("cross_entropy", &|g, x| {
            let labels = g.input("labels", [4], DType::I32)?;
            cross_entropy(g, x, labels, &CrossEntropyOptions::default())
        }),
        ("gather_rows", &|g, x| {
            let index = g.input("index", [3], DType::U32)?;
            gather_rows(g, x, index)
        }),
        ("scatter_rows", &|g, x| {
            let index = g.input("index", [4], DType::U32)?;
            scatter_rows(g, x, index, 3)
        }),
        ("gather_unique", &|g, x| {
            let (index, inverse) = (g.input("index", [3], DType::U32)?, g.input("inverse", [4], DType::U32)?);
            gather_unique(g, x, index, inverse)
        }),
        ("pick", &|g, x| {
            let index = g.input("index", [4], DType::U32)?;
            pick(g, x, index)
        }),
        ("attention", &|g, x| {
            let x = reshape(g, x, [1, 4, 1, 8])?;
            attention(g, x, x, x, &AttentionOptions::default())
        }),
        ("rope", &|g, x| {
            let options = RopeOptions::default();
            let (x, table) = (reshape(g, x, [1, 4, 1, 8])?, rope_table(g, 8, &options)?);
            let positions = g.input("positions", [1, 4], DType::U32)?;
            rope(g, x, positions, table, &options)
        }),
        ("global_norm", &|g, x| {
            let flat = g.input("flat", [64], g.dtype(x))?;
            global_norm(g, &[flat])
        }),
    ];

    #[test]
    fn what_computes_with_floats_refuses_other_types() -> Result<()> {
        for (name, op) in ON_FLOATS {
            for dtype in [DType::F32, DType::U32, DType::I32, DType::F16, DType::BF16] {
                let mut g = Graph::new();
                let x = g.input("x", [4, 8], dtype)?;
                let result = op(&mut g, x);
                assert_eq!(result.is_ok(), dtype == DType::F32, "{name} of {dtype}: {result:?}");
            }
        }
        Ok(())
    }
}
