//! The gradients of layer norm and RMS norm by gain and bias.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Op};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::rows;
use crate::shape::TensorType;

static GAIN_BACKWARD: Kernel = kernel!("norm/norm_gain_backward");

/// The gradients of a norm with respect to gain and bias (if there is one). Inputs: the norm's input, (μ, r) and dout.
#[derive(Debug)]
pub(super) struct NormGainBackward {
    pub(super) bias: bool,
}

impl Op for NormGainBackward {
    fn name(&self) -> &'static str {
        "norm_gain_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [x, stats, dout] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 3 tensors, got {}", inputs.len())));
        };
        rows::same_f32(self.name(), &[x.clone(), dout.clone()], 2)?;
        check_stats(self.name(), x, stats)?;
        Ok(vec![TensorType::f32([x.shape.last()]); 1 + usize::from(self.bias)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (x, stats, dout) = (inputs[0], inputs[1], inputs[2]);
        let (mut dgain, mut dbias) = (Array::zeros([x.shape.last()]), Array::zeros([x.shape.last()]));
        for row in 0..x.shape.rows() {
            for (c, (x, d)) in x.row(row).iter().zip(dout.row(row)).enumerate() {
                dgain.data[c] += d * (x - stats.data[2 * row]) * stats.data[2 * row + 1];
                dbias.data[c] += d;
            }
        }
        Ok(if self.bias { vec![dgain, dbias] } else { vec![dgain] })
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, dgain) = (cx.input(0), cx.output(0));
        let (rows, columns) = (x.shape.rows(), x.shape.last());
        let (block, blocks) = rows::blocks(rows);
        let width = rows::width(columns);
        let partial = |cx: &mut Launch<'_>, whole| {
            if blocks == 1 { whole } else { cx.scratch([blocks, columns], DType::F32) }
        };
        let gain = partial(cx, dgain.clone());
        let bias = if self.bias { partial(cx, cx.output(1)) } else { cx.scratch([4], DType::F32) };
        let dispatch = Dispatch::new(&GAIN_BACKWARD).constant("BIAS", self.bias).snippet(rows::elements(width));
        let dispatch = dispatch.param(rows).param(columns / width).param(block).flops(5 * x.numel() as u64);
        let dispatch = dispatch.read(x).read(cx.input(1)).read(cx.input(2)).write(gain.clone()).write(bias.clone());
        cx.dispatch(dispatch.groups(blocks * (columns / width).div_ceil(64)))?;
        if blocks > 1 {
            rows::sum_blocks(cx, gain, dgain)?;
            if self.bias {
                rows::sum_blocks(cx, bias, cx.output(1))?;
            }
        }
        Ok(())
    }
}

/// The rule that there is a pair (μ, r) for each row.
pub(super) fn check_stats(op: &str, x: &TensorType, stats: &TensorType) -> Result<()> {
    rows::has_rows(op, x)?;
    if *stats != TensorType::f32([x.shape.rows(), 2]) {
        return Err(Error::shape(op, format!("the statistics {stats} do not fit {x}")));
    }
    Ok(())
}
