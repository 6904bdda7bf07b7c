//! Gathers rows by index, with windows of tables that are too large for one binding.

use super::scatter::scatter_rows;
use crate::case::{Case, Feed, mixed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Caps, Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::ops::matmul::weight_snippets;
use crate::shape::TensorType;
use std::ops::Range;

static TABLE_F32: Snippet = kernel!("common/table_f32");
static TABLE_F32X4: Snippet = kernel!("common/table_f32x4");
static TABLE_F16: Snippet = kernel!("common/table_f16");
static TABLE_F16X4: Snippet = kernel!("common/table_f16x4");
static TABLE_BF16: Snippet = kernel!("common/table_bf16");
static TABLE_BF16X4: Snippet = kernel!("common/table_bf16x4");
static TABLE_BLOCKS: Snippet = kernel!("common/table_blocks");
static TABLE_U32: Snippet = kernel!("common/table_u32");
static GATHER_ROWS: Kernel = kernel!("index/gather_rows");

/// `out[m, c] = x[index[m], c]`, zero where `index[m] ≥ N`: `x` (N, C) f32, `index` (M) u32, out (M, C).
///
/// Gradient: `dx` = [`scatter_rows`] of the upstream gradient.
///
/// # Errors
/// [`Error::Shape`] if `x` is no f32 matrix or `index` no u32 vector.
pub fn gather_rows(g: &mut Graph, x: Tensor, index: Tensor) -> Result<Tensor> {
    g.put1(GatherRows, &[x, index])
}

/// See [`gather_rows`].
#[derive(Debug)]
struct GatherRows;

impl Op for GatherRows {
    fn name(&self) -> &'static str {
        "gather_rows"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [_, columns] = matrix("gather_rows", "x", &inputs[0])?;
        let count = vector("gather_rows", &inputs[1])?;
        Ok(vec![TensorType::f32([count, columns])])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let (upstream, rows) = (cx.upstream(0)?, cx.graph.shape(cx.inputs[0]).dims()[0]);
        Ok(vec![Some(scatter_rows(cx.graph, upstream, cx.inputs[1], rows)?), None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![gathered(inputs[0], inputs[1])])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch_gather(cx)
    }
}

/// Gathers rows of input 0 by input 1 into output 0: see [`gather_into`].
pub(in crate::ops) fn launch_gather(cx: &mut Launch<'_>) -> Result<()> {
    let (table, index, out) = (cx.input(0), cx.input(1), cx.output(0));
    gather_into(cx, &table, &index, &out)
}

/// Gathers rows of `table` (rows, C), of words or of any float or quantised type, by `index`.
///
/// A table larger than a binding takes one dispatch per window.
pub(in crate::ops) fn gather_into(cx: &mut Launch<'_>, table: &View, index: &View, out: &View) -> Result<()> {
    let columns = table.shape.last();
    let (snippet, size) = match (table.dtype, columns.is_multiple_of(4)) {
        (DType::F16, false) => (&TABLE_F16, 1),
        (DType::F16, true) => (&TABLE_F16X4, 4),
        (DType::BF16, false) => (&TABLE_BF16, 1),
        (DType::BF16, true) => (&TABLE_BF16X4, 4),
        (dtype, _) if dtype.is_quantised() => (&TABLE_BLOCKS, 4),
        (DType::U32, _) => (&TABLE_U32, 1),
        (_, false) => (&TABLE_F32, 1),
        (_, true) => (&TABLE_F32X4, 4),
    };
    let count = out.numel() / size;
    for rows in row_windows(cx.caps(), table)? {
        let part = window(table, &rows);
        let dispatch = Dispatch::new(&GATHER_ROWS).snippet(snippet);
        let dispatch = if table.dtype.is_quantised() {
            let [quants, scales] = part.blocks(table.numel());
            let weights = weight_snippets(table.dtype).iter();
            let dispatch = weights.fold(dispatch, |dispatch, snippet| dispatch.snippet(snippet));
            dispatch.read(quants).read(index.clone()).update(out.clone()).read(scales)
        } else {
            dispatch.read(part).read(index.clone()).update(out.clone())
        };
        cx.dispatch(
            dispatch
                .param(count)
                .param(columns / size)
                .param(rows.start)
                .param(rows.len())
                .param(usize::from(rows.start == 0))
                .groups_for(count, 256),
        )?;
    }
    Ok(())
}

/// The rows of a matrix, in ranges that fit a binding and begin at an aligned offset.
pub(super) fn row_windows(caps: &Caps, matrix: &View) -> Result<Vec<Range<usize>>> {
    // 128 rows of any width and type are a multiple of 256 bytes, the largest offset alignment.
    const STEP: usize = 128;
    let rows = matrix.shape.rows();
    if matrix.bytes() <= caps.max_binding_bytes {
        return Ok(std::iter::once(0..rows).collect());
    }
    let step_bytes = matrix.dtype.bytes(STEP * matrix.shape.last()).max(1);
    let length = (caps.max_binding_bytes / step_bytes) as usize * STEP;
    if length == 0 {
        return Err(Error::Unsupported {
            what: format!("a matrix of shape {}", matrix.shape),
            needs: format!("storage bindings of {step_bytes} bytes"),
            adapter: caps.name.clone(),
            hint: "Use a model with a smaller d_model".into(),
        });
    }
    Ok((0..rows).step_by(length).map(|first| first..(first + length).min(rows)).collect())
}

/// A range of rows of a matrix.
pub(super) fn window(matrix: &View, rows: &Range<usize>) -> View {
    let columns = matrix.shape.last();
    View { start: matrix.start + rows.start * columns, shape: [rows.len(), columns].into(), ..matrix.clone() }
}

pub(super) fn matrix(op: &str, operand: &str, ty: &TensorType) -> Result<[usize; 2]> {
    match (ty.dtype, ty.shape.dims()) {
        (DType::F32, &[rows, columns]) if rows * columns > 0 => Ok([rows, columns]),
        _ => Err(Error::shape(op, format!("expected {operand} to be an f32 matrix, got {ty}"))),
    }
}

pub(super) fn vector(op: &str, ty: &TensorType) -> Result<usize> {
    match (ty.dtype, ty.shape.dims()) {
        (DType::U32, &[count]) if count > 0 => Ok(count),
        _ => Err(Error::shape(op, format!("expected the index to be a u32 vector, got {ty}"))),
    }
}

/// The rows of `x` that `index` names, zero where it names none.
pub(super) fn gathered(x: &Array, index: &Array) -> Array {
    let mut out = Array::zeros([index.data.len(), x.shape.last()]);
    for (m, &row) in index.data.iter().enumerate().filter(|(_, row)| (**row as usize) < x.shape.rows()) {
        out.row_mut(m).copy_from_slice(x.row(row as usize));
    }
    out
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns, count) in [(1, 1, 1), (5, 33, 31), (97, 4, 33), (31, 7, 257)] {
        let feeds = vec![Feed::normal("x", [rows, columns]), indices(mixed(count, rows))];
        let name = format!("gather_rows {count} of [{rows}, {columns}]");
        cases.push(Case::new(name, feeds, |g, x| Ok(vec![gather_rows(g, x[0], x[1])?])));
    }
    cases
}

/// An index of a case.
pub(super) fn indices(values: Vec<f64>) -> Feed {
    Feed::given("index", [values.len()], DType::U32, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [4, 3], DType::F32)?;
        let index = g.input("index", [5], DType::U32)?;
        let float = g.input("float", [4], DType::F32)?;
        let refused = |result: Result<Tensor>| result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let message = refused(scatter_rows(&mut g, x, index, 7));
        assert_eq!(message, "scatter_rows: x is f32[4, 3] and index u32[5]: each row needs one index");
        let message = refused(gather_rows(&mut g, x, float));
        assert_eq!(message, "gather_rows: expected the index to be a u32 vector, got f32[4]");
        let message = refused(gather_rows(&mut g, float, index));
        assert_eq!(message, "gather_rows: expected x to be an f32 matrix, got f32[4]");
        Ok(())
    }

    #[test]
    fn large_tables_are_cut_at_aligned_rows() -> Result<()> {
        let view = View { slot: 0, start: 0, shape: [50257, 769].into(), dtype: DType::F32 };
        let windows = row_windows(&Caps::baseline(), &view)?;
        assert_eq!(windows.first().map(|w| w.start), Some(0));
        assert_eq!(windows.last().map(|w| w.end), Some(50257));
        for pair in windows.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
            assert_eq!(DType::F32.bytes(pair[1].start * 769) % 256, 0);
        }
        assert!(windows.iter().all(|w| window(&view, w).bytes() <= Caps::baseline().max_binding_bytes));
        Ok(())
    }
}
