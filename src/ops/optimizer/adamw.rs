//! Adam with decoupled weight decay.

use super::as_state;
use super::{BLOCK, OptimizerControl, expect_count, expect_flat, expect_vector};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static ADAMW: Kernel = kernel!("optimizer/adamw");

/// [`adamw`] as an op. Inputs: x, grad, m, v (n each), table (n / 64, 2), control (16). Outputs: x, m, v.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdamW;

impl Op for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_count("adamw", inputs, 6)?;
        let count = expect_flat("adamw", "the parameter range", &inputs[0])?;
        for (what, input) in ["the gradient range", "the first moment", "the second moment"].iter().zip(&inputs[1..]) {
            if expect_flat("adamw", what, input)? != count {
                return Err(Error::shape("adamw", format!("{what} is {input}, but the parameter range {}", inputs[0])));
            }
        }
        expect_vector("adamw", "the table", &inputs[4], count / BLOCK * 2)?;
        expect_vector("adamw", "the control tensor", &inputs[5], OptimizerControl::LEN)?;
        Ok(vec![inputs[0].clone(), inputs[2].clone(), inputs[3].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [mut x, mut m, mut v] = [inputs[0], inputs[2], inputs[3]].map(Array::clone);
        let (grad, table, control) = (&inputs[1].data, &inputs[4].data, &inputs[5].data);
        let (beta1, beta2) = (1.0 - control[4], 1.0 - control[5]);
        if control[8] != 0.0 {
            return Ok(vec![x, m, v]);
        }
        for (i, x) in x.data.iter_mut().enumerate() {
            let g = grad[i] * control[0];
            let (rate, decay) = (table[i / BLOCK * 2], table[i / BLOCK * 2 + 1]);
            m.data[i] = beta1 * m.data[i] + (1.0 - beta1) * g;
            v.data[i] = beta2 * v.data[i] + (1.0 - beta2) * g * g;
            let direction = (m.data[i] / control[2]) / ((v.data[i] / control[3]).sqrt() + control[6]);
            *x -= control[1] * rate * (direction + control[7] * decay * *x);
        }
        Ok(vec![x, m, v])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        for range in cx.windows(cx.input(0).numel()) {
            let vectors = range.len() / 4;
            let rows = range.start / BLOCK * 2..range.end / BLOCK * 2;
            cx.dispatch(
                Dispatch::new(&ADAMW)
                    .read(cx.input(1).window(&range))
                    .read(cx.input(4).window(&rows))
                    .read(cx.input(5))
                    .update(cx.output(0).window(&range))
                    .update(cx.output(1).window(&range))
                    .update(cx.output(2).window(&range))
                    .param(vectors)
                    .groups_for(vectors, 64)
                    .flops(range.len() as u64 * 16),
            )?;
        }
        Ok(())
    }

    fn alias(&self, index: usize) -> Option<Alias> {
        Some(Alias::InPlace([0, 2, 3][index.min(2)]))
    }
}

/// One step of AdamW over a flat range, in place; returns the updated parameters, first and second moments.
///
/// ```text
/// g = coefficient · grad      m ← β1 m + (1 − β1) g      v ← β2 v + (1 − β2) g²
/// x ← x − lr · a · ((m / c1) / (√(v / c2) + ε) + wd · d · x)
/// ```
///
/// with the multipliers `a` (learning rate) and `d` (decay) of the element's block from `table` (n / 64, 2), and everything else from the
/// `control` (16) of [`optimizer_control`](super::optimizer_control). A skipped step changes nothing. Parameters x, gradients and moments (n) f32; no gradient.
///
/// Loshchilov and Hutter, `Decoupled Weight Decay Regularization`, 2017 (arXiv 1711.05101).
///
/// # Errors
/// [`Error::Shape`] if an operand is no flat range or their sizes differ.
pub fn adamw(
    g: &mut Graph,
    parameters: Tensor,
    gradients: Tensor,
    moments: [Tensor; 2],
    table: Tensor,
    control: Tensor,
) -> Result<[Tensor; 3]> {
    let inputs = [parameters, gradients, moments[0], moments[1], table, control];
    match g.put(AdamW, &inputs)?[..] {
        [parameters, first, second] => Ok([parameters, first, second]),
        _ => Err(Error::Graph("adamw returned a wrong number of tensors".into())),
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    vec![case(1, 0.0), case(31, 0.0), case(257, 0.0), case(3, 1.0)]
}

fn case(blocks: usize, skip: f64) -> Case {
    let count = blocks * BLOCK;
    let control = [0.5, 0.01, 0.271, 0.0297, 0.1, 0.01, 1e-6, 0.1, skip, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let squares = Feed::given("v", [count], DType::F32, (0..count).map(|i| DType::F32.round((i % 37) as f64 * 0.01)));
    let table = (0..2 * blocks).map(|i| if i % 2 == 0 { 1.0 - (i % 3) as f64 * 0.25 } else { (i % 4 / 2) as f64 });
    let feeds = vec![
        Feed::normal("x", [count]).fixed(),
        Feed::normal("grad", [count]).fixed(),
        Feed::normal("m", [count]).fixed(),
        squares,
        Feed::given("table", [blocks, 2], DType::F32, table),
        Feed::given("control", [16], DType::F32, control.map(|x| DType::F32.round(x))),
    ];
    Case::new(format!("adamw blocks {blocks}{}", if skip == 0.0 { "" } else { ", skipped" }), feeds, |g, x| {
        let parameters = as_state(g, "parameters", x[0])?;
        let gradients = as_state(g, "gradients", x[1])?;
        let moments = [as_state(g, "first", x[2])?, as_state(g, "second", x[3])?];
        Ok(adamw(g, parameters, gradients, moments, x[4], x[5])?.to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn ranges_of_different_sizes_are_refused() {
        let mut g = Graph::new();
        let x = g.state("x", [128], DType::F32).unwrap();
        let y = g.state("y", [64], DType::F32).unwrap();
        let table = g.input("table", [2, 2], DType::F32).unwrap();
        let control = g.input("control", [16], DType::F32).unwrap();
        let error = adamw(&mut g, x, x, [x, y], table, control).unwrap_err().to_string();
        assert!(error.contains("the second moment is f32[64], but the parameter range f32[128]"), "{error}");
        let error = adamw(&mut g, x, x, [x, x], control, control).unwrap_err().to_string();
        assert!(error.contains("the table is f32[16], expected f32[4]"), "{error}");
    }
}
