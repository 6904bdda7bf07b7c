//! Zeros.

use super::columns::widest_word;
use crate::error::Result;
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, View, kernel};
use crate::shape::{Shape, TensorType};

static FILL: Kernel = kernel!("layout/fill");

/// An f32 tensor of zeros, written on every run. No gradient.
///
/// # Errors
/// None today.
pub fn zeros(g: &mut Graph, shape: impl Into<Shape>) -> Result<Tensor> {
    g.put1(Zeros { shape: shape.into() }, &[])
}

/// Writes zeros to a tensor of 4-byte elements.
pub(in crate::ops) fn fill_zeros(cx: &mut Launch<'_>, out: View) -> Result<()> {
    let (word, size) = widest_word(&[out.numel()]);
    let count = out.numel() / size;
    cx.dispatch(Dispatch::new(&FILL).snippet(word).write(out).param(count).groups_for(count, 1024))
}

/// See [`zeros`].
#[derive(Debug)]
struct Zeros {
    shape: Shape,
}

impl Op for Zeros {
    fn name(&self) -> &'static str {
        "zeros"
    }

    fn infer(&self, _inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![TensorType::f32(self.shape.clone())])
    }

    fn reference(&self, _inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![Array::zeros(self.shape.clone())])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let out = cx.output(0);
        fill_zeros(cx, out)
    }
}
