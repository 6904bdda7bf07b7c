//! Permutations of axes.

use super::columns::{is_word, widest_word};
use super::reshape::reshape;
use crate::case::{Case, Feed, Tolerance};
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{AdapterClass, Dispatch, Kernel, Launch, kernel};
use crate::shape::{Shape, TensorType, product};

static PERMUTE: Kernel = kernel!("layout/permute");
static TRANSPOSE: Kernel = kernel!("layout/transpose");

/// The most axes of a permutation after neighbours that stay together are merged.
const MAX_AXES: usize = 5;

/// The tensor with axis `axes[k]` of `x` as its axis `k`. Types of 4 bytes. Gradient: the inverse permutation.
///
/// Where only axes of extent 1 move, nothing is copied. On GPUs a swap of the last two (merged) axes goes through tiles
/// of workgroup memory; everything else gathers.
///
/// # Errors
/// [`Error::Shape`] if `axes` is not a permutation, the type is packed, or more than five groups of axes are permuted.
pub fn transpose(g: &mut Graph, x: Tensor, axes: &[usize]) -> Result<Tensor> {
    let op = Transpose { axes: axes.to_vec(), tiles: None };
    let out = op.infer(std::slice::from_ref(g.ty(x)))?.remove(0);
    if Merged::new(g.shape(x), axes).axes.len() <= 1 {
        return reshape(g, x, out.shape);
    }
    g.put1(op, &[x])
}

/// See [`transpose`].
#[derive(Debug)]
pub(crate) struct Transpose {
    /// Which axis of the input is axis `k` of the output.
    pub(crate) axes: Vec<usize>,
    /// Whether swaps go through workgroup memory; by default on GPUs.
    pub(crate) tiles: Option<bool>,
}

/// A permutation without axes of extent 1 and with neighbours that stay neighbours merged.
#[derive(Debug)]
struct Merged {
    /// Extents of `x`.
    dims: Vec<usize>,
    /// Which axis of `x` is axis `k` of the result.
    axes: Vec<usize>,
}

impl Merged {
    fn new(shape: &Shape, axes: &[usize]) -> Self {
        let dims = shape.dims();
        // Runs of axes of x, in the order of the result.
        let mut runs: Vec<(usize, usize)> = Vec::new();
        let next_real = |axis: usize| (axis..dims.len()).find(|&a| dims[a] != 1).unwrap_or(dims.len());
        for &axis in axes.iter().filter(|&&axis| dims[axis] != 1) {
            match runs.last_mut() {
                Some((_, end)) if next_real(*end) == axis => *end = axis + 1,
                _ => runs.push((axis, axis + 1)),
            }
        }
        if runs.is_empty() {
            return Self { dims: vec![1], axes: vec![0] };
        }
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by_key(|&run| runs[run].0);
        let mut axes = vec![0; runs.len()];
        for (position, &run) in order.iter().enumerate() {
            axes[run] = position;
        }
        let extent = |&run: &usize| product(&dims[runs[run].0..runs[run].1]);
        Self { dims: order.iter().map(extent).collect(), axes }
    }

    /// Strides in `x` of the axes of `x`.
    fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.dims.len()];
        for axis in (1..self.dims.len()).rev() {
            strides[axis - 1] = strides[axis] * self.dims[axis];
        }
        strides
    }

    /// (batch, rows, columns) if the last two axes are swapped and all others stay.
    fn swap(&self) -> Option<[usize; 3]> {
        match (self.dims.as_slice(), self.axes.as_slice()) {
            (&[rows, columns], [1, 0]) => Some([1, rows, columns]),
            (&[batch, rows, columns], [0, 2, 1]) => Some([batch, rows, columns]),
            _ => None,
        }
    }
}

impl Op for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let ty = &inputs[0];
        let dims = ty.shape.dims();
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if sorted != (0..dims.len()).collect::<Vec<_>>() {
            return Err(Error::shape("transpose", format!("{:?} is not a permutation of the axes of {ty}", self.axes)));
        }
        if !is_word(ty.dtype) {
            return Err(Error::shape("transpose", format!("{ty} is packed in pairs; cast it to f32 first")));
        }
        if Merged::new(&ty.shape, &self.axes).axes.len() > MAX_AXES {
            let what =
                format!("{:?} permutes more than {MAX_AXES} groups of axes of {ty}: do it in two steps", self.axes);
            return Err(Error::shape("transpose", what));
        }
        let moved: Vec<usize> = self.axes.iter().map(|&axis| dims[axis]).collect();
        Ok(vec![TensorType::new(moved, ty.dtype)])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut inverse = vec![0; self.axes.len()];
        for (position, &axis) in self.axes.iter().enumerate() {
            inverse[axis] = position;
        }
        let upstream = cx.upstream(0)?;
        Ok(vec![Some(transpose(cx.graph, upstream, &inverse)?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let dims = inputs[0].shape.dims();
        let mut strides = vec![1; dims.len()];
        for axis in (1..dims.len()).rev() {
            strides[axis - 1] = strides[axis] * dims[axis];
        }
        let moved: Vec<usize> = self.axes.iter().map(|&axis| dims[axis]).collect();
        let element = |mut index: usize| {
            let mut source = 0;
            for (&axis, &extent) in self.axes.iter().zip(&moved).rev() {
                source += index % extent * strides[axis];
                index /= extent;
            }
            inputs[0].data[source]
        };
        Ok(vec![Array::from_fn(moved.clone(), element)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, out) = (cx.input(0), cx.output(0));
        let merged = Merged::new(&x.shape, &self.axes);
        let through_tiles = self.tiles.unwrap_or(cx.caps().class == AdapterClass::Gpu);
        if let (Some([batch, rows, columns]), true) = (merged.swap(), through_tiles) {
            let tiles = [rows.div_ceil(32), columns.div_ceil(32)];
            return cx.dispatch(
                Dispatch::new(&TRANSPOSE)
                    .read(x)
                    .write(out)
                    .param(rows)
                    .param(columns)
                    .param(tiles[0])
                    .param(tiles[1])
                    .groups(batch * tiles[0] * tiles[1]),
            );
        }
        // Where the last axis stays the last, whole words of it move; then all strides are counted in words.
        let last = merged.axes.len() - 1;
        let stays = merged.axes[last] == last;
        let (word, size) = if stays { widest_word(&[merged.dims[last]]) } else { widest_word(&[1]) };
        let strides = merged.strides();
        let mut extents = vec![1; MAX_AXES - merged.axes.len()];
        let mut steps = vec![0; MAX_AXES - merged.axes.len()];
        for (position, &axis) in merged.axes.iter().enumerate() {
            let is_word_axis = stays && position == last;
            extents.push(if is_word_axis { merged.dims[axis] / size } else { merged.dims[axis] });
            steps.push(if is_word_axis { 1 } else { strides[axis] / size });
        }
        let count = out.numel() / size;
        let mut dispatch = Dispatch::new(&PERMUTE).snippet(word).read(x).write(out).param(count);
        for &extent in &extents[1..] {
            dispatch = dispatch.param(extent);
        }
        for &step in &steps {
            dispatch = dispatch.param(step);
        }
        cx.dispatch(dispatch.groups_for(count, 256))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, axes) in [
        (vec![1, 31], vec![1, 0]),
        (vec![33, 257], vec![1, 0]),
        (vec![3, 70, 36], vec![0, 2, 1]),
        (vec![2, 5, 3, 8], vec![0, 2, 1, 3]),
        (vec![2, 5, 3, 7], vec![0, 2, 1, 3]),
        (vec![2, 3, 4, 5], vec![3, 1, 0, 2]),
        (vec![2, 3, 2, 5, 4], vec![4, 3, 2, 1, 0]),
    ] {
        let feeds = vec![Feed::normal("x", shape.clone())];
        cases.push(Case::new(format!("transpose {shape:?} to {axes:?}"), feeds, move |g, x| {
            Ok(vec![transpose(g, x[0], &axes)?])
        }));
    }
    for shape in [[1, 1, 33], [2, 32, 64], [3, 33, 257]] {
        for tiles in [false, true] {
            let name = format!("transpose {shape:?}, tiles {tiles}");
            cases.push(Case::new(name, vec![Feed::normal("x", shape)], move |g, x| {
                Ok(vec![g.put1(Transpose { axes: vec![0, 2, 1], tiles: Some(tiles) }, &[x[0]])?])
            }));
        }
    }
    cases.into_iter().map(|case| case.tolerance(Tolerance::EXACT, Tolerance::EXACT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn neighbours_merge() {
        let merged = Merged::new(&Shape::from([2, 3, 4, 5]), &[0, 2, 1, 3]);
        assert_eq!((merged.dims, merged.axes), (vec![2, 3, 4, 5], vec![0, 2, 1, 3]));
        let merged = Merged::new(&Shape::from([2, 3, 4, 5]), &[2, 3, 0, 1]);
        assert_eq!((merged.dims, merged.axes), (vec![6, 20], vec![1, 0]));
        let merged = Merged::new(&Shape::from([2, 1, 4, 5]), &[0, 2, 1, 3]);
        assert_eq!(merged.axes.len(), 1);
        let merged = Merged::new(&Shape::from([1, 7, 1, 5]), &[3, 0, 1, 2]);
        assert_eq!((merged.dims, merged.axes), (vec![7, 5], vec![1, 0]));
    }

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [2, 6], DType::F32)?;
        let message = transpose(&mut g, x, &[1, 1]).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "transpose: [1, 1] is not a permutation of the axes of f32[2, 6]");
        Ok(())
    }
}
