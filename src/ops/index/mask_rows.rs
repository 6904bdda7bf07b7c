//! Masks rows past a length.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static MASK_ROWS: Kernel = kernel!("index/mask_rows");

/// `out[b, t] = x[b, t]` if `t < lengths[b]`, else 0: `x` (B, T, …) f32, `lengths` (B) u32.
///
/// Gradient: `dx` = the same of the upstream gradient.
///
/// # Errors
/// [`Error::Shape`] if `lengths` does not fit `x`.
pub fn mask_rows(g: &mut Graph, x: Tensor, lengths: Tensor) -> Result<Tensor> {
    g.put1(MaskRows { fill: 0 }, &[x, lengths])
}

/// `out[b, t] = x[b, t]` if `t < lengths[b]`, else `fill`: `x` (B, T, …) u32, `lengths` (B) u32. No gradient.
///
/// # Errors
/// As [`mask_rows`], and if `x` is f32 and `fill` is not 0.
pub fn fill_rows(g: &mut Graph, x: Tensor, lengths: Tensor, fill: u32) -> Result<Tensor> {
    g.put1(MaskRows { fill }, &[x, lengths])
}

/// See [`mask_rows`] and [`fill_rows`].
#[derive(Debug)]
struct MaskRows {
    fill: u32,
}

impl Op for MaskRows {
    fn name(&self) -> &'static str {
        "mask_rows"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (x, lengths) = (&inputs[0], &inputs[1]);
        let words = matches!(x.dtype, DType::F32 | DType::U32) && x.shape.rank() >= 2 && x.shape.numel() > 0;
        if !words || *lengths != TensorType::new([x.shape.dims()[0]], DType::U32) {
            return Err(Error::shape(
                "mask_rows",
                format!("x is {x} and lengths {lengths}: each batch row needs one length"),
            ));
        }
        // Kernels write the integer word, which is not the float of that value.
        if x.dtype != DType::U32 && self.fill != 0 {
            return Err(Error::shape("mask_rows", format!("x is {x}: only u32 rows can be filled with {}", self.fill)));
        }
        Ok(vec![x.clone()])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let upstream = cx.upstream(0)?;
        Ok(vec![Some(mask_rows(cx.graph, upstream, cx.inputs[1])?), None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let mut out = inputs[0].clone();
        let (batch, times) = (out.shape.dims()[0], out.shape.dims()[1]);
        let width = out.data.len() / (batch * times);
        for (row, values) in out.data.chunks_exact_mut(width).enumerate() {
            if (row % times) as f64 >= inputs[1].data[row / times] {
                values.fill(f64::from(self.fill));
            }
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, out) = (cx.input(0), cx.output(0));
        let (count, times) = (x.numel(), x.shape.dims()[1]);
        let width = count / (x.shape.dims()[0] * times);
        let dispatch = Dispatch::new(&MASK_ROWS).read(x).read(cx.input(1)).write(out);
        let dispatch = dispatch.param(count).param(width).param(times).param(self.fill as usize);
        cx.dispatch(dispatch.groups_for(count, 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_filled_with_zeros_only() -> Result<()> {
        let mut g = Graph::new();
        let (x, ids) = (g.input("x", [2, 3], DType::F32)?, g.input("ids", [2, 3], DType::U32)?);
        let lengths = g.input("lengths", [2], DType::U32)?;
        let message = fill_rows(&mut g, x, lengths, 7).unwrap_err().to_string();
        assert_eq!(message, "mask_rows: x is f32[2, 3]: only u32 rows can be filled with 7");
        fill_rows(&mut g, x, lengths, 0)?;
        fill_rows(&mut g, ids, lengths, 7)?;
        Ok(())
    }
}
