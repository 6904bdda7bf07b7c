//! Sums the rows of each token.

use super::linear::entry;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Op};
use crate::kernel::{Dispatch, Kernel, Launch, View, kernel};
use crate::ops::rows::{elements, width};
use crate::shape::TensorType;

static EXPERT_COMBINE: Kernel = kernel!("experts/expert_combine");

/// `y[t] = Σ_k x[rows[t K + k]]`: x (M, C) f32, rows (M) u32, y (M / K, C), summed in the order of k. The gradient of the
/// gather that grouped products do; has none itself.
#[derive(Debug)]
pub(super) struct Combine {
    pub(super) top_k: usize,
}

impl Op for Combine {
    fn name(&self) -> &'static str {
        "expert_combine"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [slots, columns] = inputs[0].shape.expect("expert_combine, x (M, C)")?;
        if inputs[0].dtype != DType::F32 || inputs[1] != TensorType::new([slots], DType::U32) {
            let what = format!("x is {} and rows {}, but every slot needs one row", inputs[0], inputs[1]);
            return Err(Error::shape(self.name(), what));
        }
        Ok(vec![TensorType::f32([slots / self.top_k, columns])])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![sum(inputs[0], inputs[1], self.top_k, |_| 1.0)?])
    }

    fn relies_on(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        vec![(1, inputs[0].shape.rows())]
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        combine(cx, &cx.input(0), &cx.input(1), None, &cx.output(0), self.top_k)
    }
}

/// The f64 twin: `y[t] = Σ_k weight(t K + k) · x[rows[t K + k]]`.
pub(super) fn sum(x: &Array, rows: &Array, top_k: usize, weight: impl Fn(usize) -> f64) -> Result<Array> {
    let slots = rows.data.len();
    let mut y = Array::zeros([slots / top_k, x.shape.last()]);
    for slot in 0..slots {
        let x = x.row(entry("rows", rows, slot, x.shape.rows())?);
        for (y, x) in y.row_mut(slot / top_k).iter_mut().zip(x) {
            *y += weight(slot) * x;
        }
    }
    Ok(y)
}

/// Records the sum, with weights (M) if they are there.
pub(super) fn combine(
    cx: &mut Launch<'_>,
    x: &View,
    rows: &View,
    weights: Option<&View>,
    y: &View,
    top_k: usize,
) -> Result<()> {
    let columns = y.shape.last();
    let size = width(columns);
    let count = y.numel() / size;
    let dispatch = Dispatch::new(&EXPERT_COMBINE).constant("WEIGHTED", weights.is_some()).snippet(elements(size));
    // A binding that is not read still needs a buffer.
    let dispatch = dispatch.read(x.clone()).read(rows.clone()).read(weights.unwrap_or(rows).clone()).write(y.clone());
    let dispatch = dispatch.param(count).param(columns / size).param(top_k);
    cx.dispatch(dispatch.groups_for(count, 64).flops(2 * x.numel() as u64))
}
