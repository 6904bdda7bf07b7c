//! Row lookup in a table, with a deterministic backward.

use super::gather::launch_gather;
use super::ids::omit_id;
use super::scatter::scatter_rows;
use crate::case::{Case, Feed, mixed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::Launch;
use crate::ops::reshape;
use crate::shape::TensorType;

/// `out[…, c] = table[ids[…], c]`: `table` (V, C) f32, f16, bf16 or quantised, `ids` (…) u32, out (…, C) f32.
///
/// Gradient: `dtable[v, c] = Σ_{n : ids[n] = v} dout[n, c]`, f32, for all rows (zeros where no id points), by sorting
/// the positions by id on the GPU and summing each row's in ascending order: no float atomics, the same bits on every
/// run. Cost for N ids: a radix sort of N keys, N·C loads and V·C stores.
///
/// Ids of V or more are an error of the reference; on the GPU they give zeros and no gradient.
///
/// # Errors
/// [`Error::Shape`] if the table is not a matrix of weights or the ids are not u32.
pub fn embedding(g: &mut Graph, table: Tensor, ids: Tensor) -> Result<Tensor> {
    embedding_with_padding(g, table, ids, None)
}

/// [`embedding`] without a gradient for the row `padding`, as with PyTorch's `padding_idx`.
///
/// # Errors
/// As [`embedding`].
pub fn embedding_with_padding(g: &mut Graph, table: Tensor, ids: Tensor, padding: Option<u32>) -> Result<Tensor> {
    g.put1(Embedding { padding }, &[table, ids])
}

/// See [`embedding`].
#[derive(Debug)]
struct Embedding {
    /// The row that gets no gradient.
    padding: Option<u32>,
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (table, ids) = (&inputs[0], &inputs[1]);
        let columns = match table.shape.dims() {
            &[rows, columns] if table.dtype.is_weight() && table.dtype.holds_rows_of(columns) && rows * columns > 0 => {
                columns
            }
            _ => {
                return Err(Error::shape("embedding", format!("expected the table to be a float matrix, got {table}")));
            }
        };
        if ids.dtype != DType::U32 || ids.shape.numel() == 0 {
            return Err(Error::shape("embedding", format!("expected the ids to be u32, got {ids}")));
        }
        let mut shape = ids.shape.dims().to_vec();
        shape.push(columns);
        Ok(vec![TensorType::f32(shape)])
    }

    fn bounds(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        vec![(1, inputs[0].shape.rows())]
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let [rows, columns] = cx.graph.shape(cx.inputs[0]).expect("embedding")?;
        let count = cx.graph.shape(cx.inputs[1]).numel();
        let upstream = cx.upstream(0)?;
        let upstream = reshape(cx.graph, upstream, [count, columns])?;
        let ids = reshape(cx.graph, cx.inputs[1], [count])?;
        let ids = match self.padding {
            Some(padding) => omit_id(cx.graph, ids, padding)?,
            None => ids,
        };
        Ok(vec![Some(scatter_rows(cx.graph, upstream, ids, rows)?), None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (table, ids) = (inputs[0], inputs[1]);
        let rows = table.shape.rows();
        let mut data = Vec::with_capacity(ids.data.len() * table.shape.last());
        for (n, &id) in ids.data.iter().enumerate() {
            if id as usize >= rows {
                let message = format!("ids[{n}] = {id} is out of range: the table has {rows} rows");
                return Err(Error::input("ids", message));
            }
            data.extend_from_slice(table.row(id as usize));
        }
        let mut shape = ids.shape.dims().to_vec();
        shape.push(table.shape.last());
        Ok(vec![Array::new(shape, data)?])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch_gather(cx)
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let f32s = [(1, 1, [1, 3]), (97, 33, [3, 31]), (97, 64, [2, 129]), (257, 5, [1, 33])];
    let halves = [(97, 33, [3, 11]), (33, 8, [2, 31])];
    let all = f32s.iter().map(|&(v, c, ids)| (DType::F32, v, c, ids)).chain(
        [DType::F16, DType::BF16].into_iter().flat_map(|d| halves.iter().map(move |&(v, c, ids)| (d, v, c, ids))),
    );
    for (dtype, rows, columns, shape) in all {
        let ids = mixed(shape.iter().product(), rows);
        let feeds =
            vec![Feed::normal("table", [rows, columns]).stored_as(dtype), Feed::given("ids", shape, DType::U32, ids)];
        let name = format!("embedding {dtype} [{rows}, {columns}] ids {shape:?}");
        cases.push(Case::new(name, feeds, |g, x| Ok(vec![embedding(g, x[0], x[1])?])));
    }
    for dtype in DType::QUANTISED {
        for (rows, columns, ids) in [(33, 96, 31), (257, 32, 1)] {
            let columns = usize::next_multiple_of(columns, dtype.block());
            let table = Feed::normal("table", [rows, columns]).stored_as(dtype);
            let feeds = vec![table, Feed::given("ids", [ids], DType::U32, mixed(ids, rows))];
            let name = format!("embedding {dtype} [{rows}, {columns}] ids {ids}");
            cases.push(Case::new(name, feeds, |g, x| Ok(vec![embedding(g, x[0], x[1])?])));
        }
    }
    let feeds = vec![
        Feed::normal("table", [50257, 3]),
        Feed::given("ids", [40], DType::U32, (0..40).map(|i| f64::from(i * 1289 % 50257))),
    ];
    cases.push(Case::new("embedding of a large vocabulary", feeds, |g, x| Ok(vec![embedding(g, x[0], x[1])?])));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_outside_the_table_is_named() -> Result<()> {
        let table = Array::zeros([3, 2]);
        let ids = Array::new([2], vec![1.0, 3.0])?;
        let message = Embedding { padding: None }
            .reference(&[&table, &ids])
            .map(|_| String::new())
            .unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "ids: ids[1] = 3 is out of range: the table has 3 rows");
        Ok(())
    }

    #[test]
    fn the_row_of_padding_gets_no_gradient() -> Result<()> {
        let gradient = |padding: Option<u32>| -> Result<Vec<f64>> {
            let mut g = Graph::new();
            let (table, ids) = (g.parameter("table", [3, 1], DType::F32)?, g.input("ids", [5], DType::U32)?);
            let rows = embedding_with_padding(&mut g, table, ids, padding)?;
            let loss = crate::ops::sum(&mut g, rows)?;
            let gradient = g.differentiate(loss, &[table])?[0].unwrap_or(loss);
            let ids = Array::new([5], vec![1.0, 0.0, 1.0, 2.0, 1.0])?;
            let values = [("table".to_owned(), Array::zeros([3, 1])), ("ids".to_owned(), ids)].into();
            Ok(g.evaluate(&values, &[gradient])?.remove(0).data)
        };
        assert_eq!(gradient(None)?, [1.0, 3.0, 1.0]);
        assert_eq!(gradient(Some(1))?, [1.0, 0.0, 1.0]);
        Ok(())
    }

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let table = g.input("table", [3, 2], DType::F32)?;
        let ids = g.input("ids", [4], DType::I32)?;
        let message = embedding(&mut g, table, ids).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "embedding: expected the ids to be u32, got i32[4]");
        Ok(())
    }
}
