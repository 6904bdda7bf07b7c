//! Scatters rows by index: sums the rows with the same index.

use super::gather::{gather_rows, indices, matrix, row_windows, vector, window};
use super::sort::{SortedIndex, sort_index};
use crate::case::{Case, Feed, mixed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::layout::zeros::fill_zeros;
use crate::ops::rows::{elements, width};
use crate::shape::TensorType;

static SCATTER_ROWS: Kernel = kernel!("index/scatter_rows");
static SCATTER_PARTIALS: Kernel = kernel!("index/scatter_partials");

/// `out[r, c] = Σ_{m : index[m] = r} x[m, c]` in ascending order of m: `x` (M, C) f32, `index` (M) u32, out (rows, C),
/// zeros where no index points. Rows whose index is `rows` or more are left out. The same bits on every run.
///
/// Gradient: `dx` = [`gather_rows`] of the upstream gradient. Cost: a radix sort of M keys, M·C loads and rows·C
/// stores, however the indices are distributed.
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

/// See [`scatter_rows`]. Inputs: x (M, C), index (M), and its [`SortedIndex`]: order (M), starts (rows + 1).
///
/// A table with more rows than positions is filled with zeros first. Then one invocation sums a column of a row; rows with many positions are
/// summed in two stages.
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
            let what = format!("x is {} and index {}: each row needs one index", inputs[0], inputs[1]);
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

/// Positions of a chunk: about the square root, so that both stages are short.
fn chunk_length(positions: usize) -> usize {
    positions.isqrt().next_power_of_two().clamp(16, 512)
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns, count) in [(1, 1, 1), (5, 33, 31), (97, 4, 33), (31, 7, 257)] {
        let feeds = vec![Feed::normal("x", [count, columns]), indices(mixed(count, rows))];
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
            let feeds = vec![Feed::normal("x", [301, columns]), indices(values)];
            let name = format!("scatter_rows, long segments: {name}, {columns} columns");
            cases.push(Case::new(name, feeds, |g, x| Ok(vec![scatter_rows(g, x[0], x[1], 4)?])));
        }
    }
    let outside: Vec<f64> = (0..40).map(|i| if i % 3 == 0 { 4_000_000_000.0 } else { f64::from(i % 7) }).collect();
    let feeds = vec![Feed::normal("x", [5, 6]), Feed::normal("y", [40, 6]), indices(outside)];
    cases.push(Case::new("gather_rows and scatter_rows, rows that are not there", feeds, |g, x| {
        Ok(vec![gather_rows(g, x[0], x[2])?, scatter_rows(g, x[1], x[2], 5)?])
    }));
    cases
}
