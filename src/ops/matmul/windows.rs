//! Windows of operands of matrix products that are too large for a binding.

use super::problem::Problem;
use crate::dtype::DType;
use crate::error::{Error, Result, human_bytes};
use crate::kernel::{Caps, View};

/// A range of one of the extents.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExtentRange {
    pub(super) start: usize,
    pub(super) len: usize,
}

/// Cuts `extent` into ranges of `chunk`.
pub(super) fn ranges(extent: usize, chunk: usize) -> impl Iterator<Item = ExtentRange> + Clone {
    (0..extent).step_by(chunk).map(move |start| ExtentRange { start, len: chunk.min(extent - start) })
}

/// The most elements of each extent in one dispatch, so that every binding is within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    pub(super) batch: usize,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
}

impl Chunks {
    pub(super) fn new(name: &str, caps: &Caps, p: &Problem) -> Result<Self> {
        // A window begins up to an alignment, or up to a step of rows, before its first element.
        let limit = caps.max_binding_bytes.saturating_sub(front(caps, p.weight, p.stored_b().1));
        let fit = |row: usize, dtype: DType| (limit / row_bytes(dtype, row).max(1)) as usize;
        let whole = fit(p.m * p.k, DType::F32).min(fit(p.k * p.n, p.weight)).min(fit(p.m * p.n, DType::F32));
        if whole > 0 {
            return Ok(Self { batch: whole.min(p.batch), m: p.m, n: p.n, k: p.k.min(deepest(caps)) });
        }
        let (mut m, mut n, mut k) = (fit(p.n, DType::F32), p.n, p.k.min(deepest(caps)));
        let a_rows = if p.form.a_transposed() { &mut k } else { &mut m };
        *a_rows = (*a_rows).min(fit(p.stored_a().1, DType::F32));
        let b_rows = if p.form.b_transposed() { &mut n } else { &mut k };
        *b_rows = (*b_rows).min(fit(p.stored_b().1, p.weight));
        if m.min(n).min(k) == 0 {
            return Err(Error::Unsupported {
                what: format!("{name} ({} × {} × {})", p.m, p.n, p.k),
                needs: "a storage binding that holds a row of each operand".into(),
                adapter: caps.name.clone(),
                hint: format!("Its bindings hold {}: split the matrices.", human_bytes(caps.max_binding_bytes)),
            });
        }
        // Whole tiles, where there is room for them.
        let round = |chunk: usize, extent: usize| match chunk {
            _ if chunk >= extent => extent,
            64.. => chunk / 64 * 64,
            4.. => chunk / 4 * 4,
            _ => chunk,
        };
        Ok(Self { batch: 1, m: round(m, p.m), n: round(n, p.n), k: round(k, p.k) })
    }
}

/// The most elements of k in one launch, at four elements per iteration.
fn deepest(caps: &Caps) -> usize {
    // Whole blocks of quantised weights, with room for loops that are not along k.
    caps.max_loop_iterations().saturating_mul(2) / 64 * 64
}

/// Elements of a load of 16 bytes; `None` for blocks.
pub(super) fn load_width(dtype: DType) -> Option<usize> {
    (!dtype.is_quantised()).then(|| (32 / dtype.bytes(2)) as usize)
}

/// Bytes of a row in the binding that holds most of it.
fn row_bytes(dtype: DType, width: usize) -> u64 {
    if dtype.is_quantised() { (width / dtype.block() * dtype.quant_words()) as u64 * 4 } else { dtype.bytes(width) }
}

/// The most bytes of a window of rows of that type in front of its first element.
pub(super) fn front(caps: &Caps, dtype: DType, width: usize) -> u64 {
    let rows = if dtype.is_quantised() { aligned_rows(caps, dtype, width) as u64 - 1 } else { 0 };
    (row_bytes(dtype, width) * rows).max(caps.offset_alignment)
}

/// The row alignment of bindings of a quantised matrix, for its quants and for its scales.
fn aligned_rows(caps: &Caps, dtype: DType, width: usize) -> usize {
    let words = (caps.offset_alignment / 4).max(1).trailing_zeros();
    let of_block = dtype.quant_words().trailing_zeros().min(dtype.scale_words().trailing_zeros());
    1 << (words - (of_block + (width / dtype.block()).trailing_zeros()).min(words))
}

/// A window of a stack of row-major matrices, with its strides.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) view: View,
    /// The offset of the first wanted element.
    pub(super) offset: usize,
    /// Wanted elements of a row.
    width: usize,
    /// The stride of rows.
    pub(super) stride: usize,
    /// The stride of matrices.
    pub(super) distance: usize,
}

impl Window {
    /// The `rows` and `columns` of each matrix of `batch`, of matrices of `extents`.
    pub(super) fn new(
        caps: &Caps,
        view: &View,
        extents: (usize, usize),
        batch: ExtentRange,
        rows: ExtentRange,
        columns: ExtentRange,
    ) -> Self {
        let (all_rows, stride) = extents;
        let distance = all_rows * stride;
        let start = batch.start * distance + rows.start * stride;
        let end = (batch.start + batch.len - 1) * distance + (rows.start + rows.len) * stride;
        let step = match view.dtype.is_quantised() {
            true => stride * aligned_rows(caps, view.dtype, stride),
            false => (caps.offset_alignment * 2 / view.dtype.bytes(2)).max(1) as usize,
        };
        let first = start - start % step;
        let view = View { start: view.start + first, shape: [end - first].into(), ..view.clone() };
        Self { view, offset: start - first + columns.start, width: columns.len, stride, distance }
    }

    /// What is bound of it: the numbers, or quants and then scales; `whole` is the number of elements of the tensor.
    pub(super) fn parts(&self, whole: usize) -> (View, Option<View>) {
        if !self.view.dtype.is_quantised() {
            return (self.view.clone(), None);
        }
        let [quants, scales] = self.view.blocks(whole);
        (quants, Some(scales))
    }

    /// Whether four elements at a multiple of 4 can be loaded as one vector.
    pub(super) fn vec4(&self) -> bool {
        self.in_steps_of(4)
    }

    /// Whether rows can be loaded 16 bytes at a time; those of blocks always can.
    pub(super) fn wide_loads(&self) -> bool {
        load_width(self.view.dtype).is_none_or(|width| self.in_steps_of(width))
    }

    fn in_steps_of(&self, width: usize) -> bool {
        [self.stride, self.offset, self.width].iter().all(|extent| extent.is_multiple_of(width))
    }
}
