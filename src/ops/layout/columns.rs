//! The common parts of ops along an axis: windows of columns, and the word size of copies.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Array;
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::shape::{Shape, TensorType, product};

static WORD: Snippet = kernel!("common/word");
static WORD4: Snippet = kernel!("common/word4");
static WINDOW: Kernel = kernel!("layout/window");

/// A shape as (outer, extent, inner) around one axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    pub(super) outer: usize,
    pub(super) extent: usize,
    pub(super) inner: usize,
}

impl Around {
    pub(super) fn axis(op: &str, ty: &TensorType, axis: usize) -> Result<Self> {
        let dims = ty.shape.dims();
        if axis >= dims.len() {
            return Err(Error::shape(op, format!("there is no axis {axis} in {ty}")));
        }
        if !is_word(ty.dtype) {
            let what = format!("{ty} is packed in pairs and can only be reshaped; cast it to f32 first");
            return Err(Error::shape(op, what));
        }
        Ok(Self::of(&ty.shape, axis))
    }

    pub(super) fn of(shape: &Shape, axis: usize) -> Self {
        let dims = shape.dims();
        Self { outer: product(&dims[..axis]), extent: dims[axis], inner: product(&dims[axis + 1..]) }
    }
}

/// Whether elements are whole words, so that kernels can copy them whatever the type.
pub(in crate::ops) fn is_word(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::U32 | DType::I32)
}

/// The widest word that divides all these element counts: its snippet and its number of elements.
pub(in crate::ops) fn widest_word(counts: &[usize]) -> (&'static Snippet, usize) {
    if counts.iter().all(|count| count % 4 == 0) { (&WORD4, 4) } else { (&WORD, 1) }
}

pub(super) fn with_axis(shape: &Shape, axis: usize, extent: usize) -> Shape {
    let mut dims = shape.dims().to_vec();
    dims[axis] = extent;
    Shape::new(dims)
}

/// The window of `width` columns from `start` on of a matrix with rows of `pitch` elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    pub(super) start: usize,
    pub(super) pitch: usize,
}

/// Copies `rows` rows of `width` elements from a window of `x` to a window of `out`.
pub(super) fn copy_window(
    cx: &mut Launch<'_>,
    x: (View, Columns),
    out: (View, Columns),
    rows: usize,
    width: usize,
) -> Result<()> {
    let (word, size) = widest_word(&[x.1.start, x.1.pitch, out.1.start, out.1.pitch, width]);
    let count = rows * width / size;
    cx.dispatch(
        Dispatch::new(&WINDOW)
            .snippet(word)
            .read(x.0)
            .update(out.0)
            .param(count)
            .param(width / size)
            .param(x.1.start / size)
            .param(x.1.pitch / size)
            .param(out.1.start / size)
            .param(out.1.pitch / size)
            .groups_for(count, 256),
    )
}

pub(super) fn copy_window_f64(x: (&Array, Columns), out: (&mut Array, Columns), rows: usize, width: usize) {
    for row in 0..rows {
        let (from, to) = (x.1.start + row * x.1.pitch, out.1.start + row * out.1.pitch);
        out.0.data[to..to + width].copy_from_slice(&x.0.data[from..from + width]);
    }
}
