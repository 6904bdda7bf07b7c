//! Gather and scatter of rows by index.

use super::sort::{SortedIndex, sort_index};
use crate::case::{Case, Feed, mixed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Caps, Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::ops::layout::zeros::fill_zeros;
use crate::ops::matmul::weight_snippet;
use crate::ops::rows::{elements, width};
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
static SCATTER_ROWS: Kernel = kernel!("index/scatter_rows");
static SCATTER_PARTIALS: Kernel = kernel!("index/scatter_partials");

/// Rows of `x` (N, C) f32 in the order of `index` (M) u32: (M, C). An index of N or more gives a row of zeros.
///
/// # Errors
/// [`Error::Shape`] if `x` is no f32 matrix or `index` no u32 vector.
pub fn gather_rows(g: &mut Graph, x: Tensor, index: Tensor) -> Result<Tensor> {
    g.put1(GatherRows, &[x, index])
}

/// Sums of the rows of `x` (M, C) f32 that have the same `index` (M) u32, at that row of the result (rows, C); zeros
/// where no index points. Rows whose index is `rows` or more are left out. The same bits on every run.
///
/// # Errors
/// [`Error::Shape`] if `x` is no f32 matrix, or `index` no u32 vector of as many entries as `x` has rows.
pub fn scatter_rows(g: &mut Graph, x: Tensor, index: Tensor, rows: usize) -> Result<Tensor> {
    let sorted = sort_index(g, index, rows)?;
    scatter_rows_sorted(g, x, sorted)
}

/// [`scatter_rows`] by an index that has been sorted already.
///
/// # Errors
/// As [`scatter_rows`].
pub fn scatter_rows_sorted(g: &mut Graph, x: Tensor, sorted: SortedIndex) -> Result<Tensor> {
    g.put1(ScatterRows { rows: sorted.rows }, &[x, sorted.index, sorted.order, sorted.starts])
}

/// `out[m, c] = x[index[m], c]`, zero where `index[m] ≥ N`; gradient: `dx` = [`scatter_rows`] of the upstream gradient.
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
        let (x, index) = (inputs[0], inputs[1]);
        let mut out = Array::zeros([index.data.len(), x.shape.last()]);
        for (m, &row) in index.data.iter().enumerate() {
            if (row as usize) < x.shape.rows() {
                out.row_mut(m).copy_from_slice(x.row(row as usize));
            }
        }
        Ok(vec![out])
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
/// A table that is larger than a binding takes one dispatch for each window of it.
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
        let dispatch = match weight_snippet(table.dtype).filter(|_| table.dtype.is_quantised()) {
            Some(weight) => {
                let [quants, scales] = part.blocks(table.numel());
                let dispatch = Dispatch::new(&GATHER_ROWS).snippet(weight).snippet(snippet).read(quants);
                dispatch.read(index.clone()).update(out.clone()).read(scales)
            }
            None => Dispatch::new(&GATHER_ROWS).snippet(snippet).read(part).read(index.clone()).update(out.clone()),
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

/// `out[r, c] = Σ_{m : index[m] = r} x[m, c]` in ascending order of m; gradient: `dx` = [`gather_rows`] of the
/// upstream gradient.
///
/// Inputs: x (M, C), index (M), and its [`SortedIndex`]: order (M), starts (rows + 1). A table with more rows than there are
/// positions is filled with zeros first. Then one invocation sums a column of a row; rows that many positions name are summed in two stages, so that the cost does not depend on how the
/// indices are distributed: M·C loads and rows·C stores.
#[derive(Debug)]
struct ScatterRows {
    rows: usize,
}

impl Op for ScatterRows {
    fn name(&self) -> &'static str {
        "scatter_rows"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [count, columns] = matrix("scatter_rows", "x", &inputs[0])?;
        let (index, order) = (vector("scatter_rows", &inputs[1])?, vector("scatter_rows", &inputs[2])?);
        if index != count || order != count || vector("scatter_rows", &inputs[3])? != self.rows.saturating_add(1) {
            let what = format!("x is {} and index {}: one index a row is needed", inputs[0], inputs[1]);
            return Err(Error::shape("scatter_rows", what));
        }
        Ok(vec![TensorType::f32([self.rows, columns])])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let upstream = cx.upstream(0)?;
        Ok(vec![Some(gather_rows(cx.graph, upstream, cx.inputs[1])?), None, None, None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let mut out = Array::zeros([self.rows, inputs[0].shape.last()]);
        for (m, &row) in inputs[1].data.iter().enumerate() {
            if (row as usize) < self.rows {
                for (sum, x) in out.row_mut(row as usize).iter_mut().zip(inputs[0].row(m)) {
                    *sum += x;
                }
            }
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, index, order, starts, out) = (cx.input(0), cx.input(1), cx.input(2), cx.input(3), cx.output(0));
        let (positions, columns) = (x.shape.rows(), x.shape.last());
        let size = width(columns);
        let (snippet, width) = (elements(size), columns / size);
        let chunk = chunk_length(positions);
        let chunks = positions.div_ceil(chunk);
        let partials = cx.scratch([2 * chunks, columns], DType::F32);
        cx.dispatch(
            Dispatch::new(&SCATTER_PARTIALS)
                .snippet(snippet)
                .read(x.clone())
                .read(index.clone())
                .read(order.clone())
                .read(starts.clone())
                .write(partials.clone())
                .param(chunks * width)
                .param(width)
                .param(positions)
                .param(self.rows)
                .param(chunk)
                .groups_for(chunks * width, 64)
                .flops((positions * columns) as u64),
        )?;
        for rows in row_windows(cx.caps(), &out)? {
            let by_row = self.rows <= positions;
            if !by_row {
                fill_zeros(cx, window(&out, &rows))?;
            }
            let count = if by_row { rows.len() } else { positions } * width;
            cx.dispatch(
                Dispatch::new(&SCATTER_ROWS)
                    .constant("BY_ROW", by_row)
                    .snippet(snippet)
                    .read(x.clone())
                    .read(index.clone())
                    .read(order.clone())
                    .read(starts.clone())
                    .read(partials.clone())
                    .update(window(&out, &rows))
                    .param(count)
                    .param(width)
                    .param(positions)
                    .param(rows.start)
                    .param(rows.len())
                    .param(chunk)
                    .groups_for(count, 64)
                    .flops((positions * columns) as u64),
            )?;
        }
        Ok(())
    }
}

/// Positions of a chunk: about the square root, so that neither of the two stages walks far.
fn chunk_length(positions: usize) -> usize {
    positions.isqrt().next_power_of_two().clamp(16, 512)
}

/// The rows of a matrix in as many ranges as bindings need; each begins where a binding may.
fn row_windows(caps: &Caps, matrix: &View) -> Result<Vec<Range<usize>>> {
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
            hint: "Use a narrower model".into(),
        });
    }
    Ok((0..rows).step_by(length).map(|first| first..(first + length).min(rows)).collect())
}

/// Some rows of a matrix.
fn window(matrix: &View, rows: &Range<usize>) -> View {
    let columns = matrix.shape.last();
    View { start: matrix.start + rows.start * columns, shape: [rows.len(), columns].into(), ..matrix.clone() }
}

fn matrix(op: &str, operand: &str, ty: &TensorType) -> Result<[usize; 2]> {
    match (ty.dtype, ty.shape.dims()) {
        (DType::F32, &[rows, columns]) if rows * columns > 0 => Ok([rows, columns]),
        _ => Err(Error::shape(op, format!("expected {operand} to be an f32 matrix, got {ty}"))),
    }
}

fn vector(op: &str, ty: &TensorType) -> Result<usize> {
    match (ty.dtype, ty.shape.dims()) {
        (DType::U32, &[count]) if count > 0 => Ok(count),
        _ => Err(Error::shape(op, format!("expected the index to be a u32 vector, got {ty}"))),
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns, count) in [(1, 1, 1), (5, 33, 31), (97, 4, 33), (31, 7, 257)] {
        let feeds = vec![Feed::normal("x", [rows, columns]), index(mixed(count, rows))];
        let name = format!("gather_rows {count} of [{rows}, {columns}]");
        cases.push(Case::new(name, feeds, |g, x| Ok(vec![gather_rows(g, x[0], x[1])?])));
        let feeds = vec![Feed::normal("x", [count, columns]), index(mixed(count, rows))];
        let name = format!("scatter_rows {count} to [{rows}, {columns}]");
        cases.push(Case::new(name, feeds, move |g, x| Ok(vec![scatter_rows(g, x[0], x[1], rows)?])));
    }
    // Long segments: one row; two rows whose border lies inside a chunk; a short one between long ones.
    let patterns: [(&str, fn(usize) -> usize); 3] = [
        ("one row", |_| 2),
        ("two rows", |i| usize::from(i % 5 == 0) * 3),
        ("long, short, long", |i| if i == 100 { 1 } else { (i % 3).min(1) * 2 }),
    ];
    for (name, row) in patterns {
        for columns in [1, 8] {
            let values = (0..301).map(|i| row(i) as f64).collect();
            let feeds = vec![Feed::normal("x", [301, columns]), index(values)];
            let name = format!("scatter_rows, long segments: {name}, {columns} columns");
            cases.push(Case::new(name, feeds, |g, x| Ok(vec![scatter_rows(g, x[0], x[1], 4)?])));
        }
    }
    let outside: Vec<f64> = (0..40).map(|i| if i % 3 == 0 { 4_000_000_000.0 } else { f64::from(i % 7) }).collect();
    let feeds = vec![Feed::normal("x", [5, 6]), Feed::normal("y", [40, 6]), index(outside)];
    cases.push(Case::new("gather_rows and scatter_rows, rows that are not there", feeds, |g, x| {
        Ok(vec![gather_rows(g, x[0], x[2])?, scatter_rows(g, x[1], x[2], 5)?])
    }));
    cases
}

fn index(values: Vec<f64>) -> Feed {
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
        assert_eq!(message, "scatter_rows: x is f32[4, 3] and index u32[5]: one index a row is needed");
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
