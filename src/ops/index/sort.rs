//! Sorts positions by their row, which makes sums over equal indices deterministic without float atomics.

use super::gather::indices;
use crate::case::{Case, Tolerance};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, View, kernel};
use crate::shape::TensorType;

static RADIX_COUNT: Kernel = kernel!("index/radix_count");
static RADIX_SCAN: Kernel = kernel!("index/radix_scan");
static RADIX_SCATTER: Kernel = kernel!("index/radix_scatter");
static SEGMENT_STARTS: Kernel = kernel!("index/segment_starts");

/// Keys of a block of the radix sort, and digits of a pass.
const BLOCK: usize = 256;
/// The most rows: the number past the last one, which means no row, must also be a u32.
const MOST_ROWS: usize = u32::MAX as usize - 1;

/// The positions of an index, sorted by row.
#[derive(Clone, Copy, Debug)]
pub struct SortedIndex {
    /// The index itself, (M) u32.
    pub index: Tensor,
    /// The positions 0..M sorted by row, ascending within a row, (M) u32.
    pub order: Tensor,
    /// The beginning of each row's positions in `order`, and the end of the last row's, (rows + 1) u32.
    pub starts: Tensor,
    /// The number of rows.
    pub rows: usize,
}

/// Sorts the positions of `index` (M) u32 by row; positions without a row (`rows` or more) come last.
/// `order` = the stable argsort of `min(index, rows)`, `starts[r] = #{m : index[m] < r}`. Integers, no gradient.
///
/// Share it among all sums by the same index. Cost: a radix sort of M keys, three dispatches per 8 bits of `rows`, and a binary search per
/// row.
///
/// # Errors
/// [`Error::Shape`] if `index` is no u32 vector or there are no rows, or 2³² − 1 or more.
pub fn sort_index(g: &mut Graph, index: Tensor, rows: usize) -> Result<SortedIndex> {
    let found = g.put(SortIndex { rows }, &[index])?;
    Ok(SortedIndex { index, order: found[0], starts: found[1], rows })
}

/// See [`sort_index`].
#[derive(Debug)]
struct SortIndex {
    rows: usize,
}

impl SortIndex {
    /// The number of 8-bit passes for keys up to and including `rows`.
    fn passes(&self) -> usize {
        ((usize::BITS - self.rows.leading_zeros()) as usize).div_ceil(8)
    }
}

impl Op for SortIndex {
    fn name(&self) -> &'static str {
        "sort_index"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let ty = &inputs[0];
        if ty.dtype != DType::U32 || ty.shape.rank() != 1 || ty.shape.numel() == 0 || self.rows == 0 {
            let what =
                format!("expected a u32 vector of row indices and at least one row, got {ty} and {} rows", self.rows);
            return Err(Error::shape("sort_index", what));
        }
        if self.rows > MOST_ROWS {
            let what = format!("there are {} rows, but a u32 can number at most {MOST_ROWS}", self.rows);
            return Err(Error::shape("sort_index", what));
        }
        Ok(vec![ty.clone(), TensorType::new([self.rows + 1], DType::U32)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let keys: Vec<usize> = inputs[0].data.iter().map(|&row| (row as usize).min(self.rows)).collect();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|&m| keys[m]);
        let mut starts = vec![0; self.rows + 1];
        for &key in &keys {
            if key < self.rows {
                starts[key + 1] += 1;
            }
        }
        for row in 0..self.rows {
            starts[row + 1] += starts[row];
        }
        Ok(vec![
            Array::from_fn([order.len()], |i| order[i] as f64),
            Array::from_fn([starts.len()], |i| starts[i] as f64),
        ])
    }

    fn below(&self, index: usize, inputs: &[TensorType]) -> Option<usize> {
        // The order is a permutation, and a group begins at most one past the last position.
        Some(inputs[0].shape.numel() + index)
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (index, order, starts) = (cx.input(0), cx.output(0), cx.output(1));
        let count = index.numel();
        let counts = cx.scratch([count.div_ceil(BLOCK), BLOCK], DType::U32);
        let keys = [cx.scratch([count], DType::U32), cx.scratch([count], DType::U32)];
        let spare = cx.scratch([count], DType::U32);
        let passes = self.passes();
        // Values end up in `order` after the last pass.
        let values = if passes % 2 == 1 { [order, spare] } else { [spare, order] };
        let mut from = [index.clone(), index];
        for pass in 0..passes {
            let to = [keys[pass % 2].clone(), values[pass % 2].clone()];
            self.pass(cx, pass, &from, &counts, &to)?;
            from = to;
        }
        let rows = self.rows;
        let search = Dispatch::new(&SEGMENT_STARTS).read(from[0].clone()).write(starts).param(count).param(rows);
        cx.dispatch(search.groups_for(rows + 1, 256))
    }
}

impl SortIndex {
    /// One stable pass over 8 bits: keys and values move from `from` to `to`.
    fn pass(&self, cx: &mut Launch<'_>, pass: usize, from: &[View; 2], counts: &View, to: &[View; 2]) -> Result<()> {
        let count = from[0].numel();
        let blocks = count.div_ceil(BLOCK);
        cx.dispatch(
            Dispatch::new(&RADIX_COUNT)
                .read(from[0].clone())
                .write(counts.clone())
                .param(count)
                .param(pass * 8)
                .param(self.rows)
                .groups(blocks),
        )?;
        cx.dispatch(Dispatch::new(&RADIX_SCAN).update(counts.clone()).param(blocks).groups(1))?;
        cx.dispatch(
            Dispatch::new(&RADIX_SCATTER)
                .read(from[0].clone())
                .read(from[1].clone())
                .read(counts.clone())
                .write(to[0].clone())
                .write(to[1].clone())
                .param(count)
                .param(pass * 8)
                .param(self.rows)
                .param(usize::from(pass == 0))
                .groups(blocks),
        )
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, count) in [(1, 3), (255, 1000), (256, 257), (50257, 1000), (200_003, 513)] {
        let values =
            (0..count).map(|i: u32| f64::from(i.wrapping_mul(2_654_435_761) % (rows + rows / 7 + 1))).collect();
        let case = Case::new(format!("sort_index {count} by {rows} rows"), vec![indices(values)], move |g, x| {
            let sorted = sort_index(g, x[0], rows as usize)?;
            Ok(vec![sorted.order, sorted.starts])
        });
        cases.push(case.tolerance(Tolerance::EXACT, Tolerance::EXACT));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{limit_capacity, load_counts, route, scatter_rows, scatter_rows_sorted};

    #[test]
    fn passes_cover_the_key_behind_the_last_row() {
        let passes = |rows| SortIndex { rows }.passes();
        assert_eq!([passes(1), passes(255), passes(256), passes(65535), passes(65536)], [1, 1, 2, 2, 3]);
    }

    #[test]
    fn misfits_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let index = g.input("index", [2, 3], DType::U32)?;
        let message = sort_index(&mut g, index, 4).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(
            message,
            "sort_index: expected a u32 vector of row indices and at least one row, got u32[2, 3] and 4 rows"
        );
        Ok(())
    }

    #[test]
    fn more_rows_than_a_u32_tells_apart_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let index = g.input("index", [6], DType::U32)?;
        let x = g.input("x", [6, 2], DType::F32)?;
        let chosen = g.input("chosen", [3, 2], DType::U32)?;
        for rows in [usize::MAX, u32::MAX as usize] {
            let refused = [
                sort_index(&mut g, index, rows).unwrap_err(),
                scatter_rows(&mut g, x, index, rows).unwrap_err(),
                route(&mut g, chosen, rows).unwrap_err(),
            ];
            for error in refused {
                assert!(error.to_string().contains("a u32 can number at most 4294967294"), "{error}");
            }
        }
        sort_index(&mut g, index, u32::MAX as usize - 1)?;
        Ok(())
    }

    #[test]
    fn an_index_that_was_sorted_by_other_rows_is_refused() -> Result<()> {
        let mut g = Graph::new();
        let index = g.input("index", [6], DType::U32)?;
        let x = g.input("x", [6, 2], DType::F32)?;
        let sorted = SortedIndex { rows: usize::MAX, ..sort_index(&mut g, index, 3)? };
        assert!(load_counts(&mut g, sorted).is_err());
        assert!(scatter_rows_sorted(&mut g, x, sorted).is_err());
        assert!(limit_capacity(&mut g, sorted, 2).is_err());
        Ok(())
    }
}
