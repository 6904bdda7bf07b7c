//! Numbers by the distance of a query and a key.

use crate::case::{Case, Feed, mixed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static BY_DISTANCE: Kernel = kernel!("index/by_distance");

/// `out[b, i, j] = values[keys[b, j] − queries[b, i] + N / 2]`: `values` (N) u32, N odd, the middle one for distance 0; positions `queries`
/// (B, Tq) and `keys` (B, Tk) u32, out (B, Tq, Tk) u32. Distances beyond the ends have the value at the end. No gradient.
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit together.
pub fn by_distance(g: &mut Graph, values: Tensor, queries: Tensor, keys: Tensor) -> Result<Tensor> {
    g.put1(ByDistance, &[values, queries, keys])
}

/// See [`by_distance()`].
#[derive(Debug)]
struct ByDistance;

impl Op for ByDistance {
    fn name(&self) -> &'static str {
        "by_distance"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let words = inputs.iter().all(|ty| ty.dtype == DType::U32 && ty.shape.numel() > 0);
        let dims = inputs.iter().map(|ty| ty.shape.dims()).collect::<Vec<_>>();
        match *dims.as_slice() {
            [&[count], &[batch, queries], &[of_keys, keys]] if words && count % 2 == 1 && batch == of_keys => {
                Ok(vec![TensorType::new([batch, queries, keys], DType::U32)])
            }
            _ => {
                let got = inputs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let what = format!("expected u32 values (N), N odd, queries (B, Tq) and keys (B, Tk), got {got}");
                Err(Error::shape("by_distance", what))
            }
        }
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (values, queries, keys) = (inputs[0], inputs[1], inputs[2]);
        let ([batch, tq], [_, tk]) = (queries.shape.expect("queries")?, keys.shape.expect("keys")?);
        let last = values.data.len() as f64 - 1.0;
        let value = |i: usize| {
            let (b, query, key) = (i / (tq * tk), i / tk % tq, i % tk);
            let distance = keys.data[b * tk + key] - queries.data[b * tq + query];
            values.data[(distance + last / 2.0).clamp(0.0, last) as usize]
        };
        Ok(vec![Array::from_fn([batch, tq, tk], value)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (values, queries, keys, out) = (cx.input(0), cx.input(1), cx.input(2), cx.output(0));
        let ([_, tq], [_, tk]) = (queries.shape.expect::<2>("queries")?, keys.shape.expect::<2>("keys")?);
        let (count, last) = (out.numel(), values.numel() - 1);
        let dispatch = Dispatch::new(&BY_DISTANCE).read(values).read(queries).read(keys).write(out);
        cx.dispatch(dispatch.param(count).param(tq).param(tk).param(last).groups_for(count, 64))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // The last has distances beyond the values.
    for (values, batch, queries, keys, positions) in
        [(1, 1, 1, 3, 1), (65, 2, 1, 33, 33), (257, 3, 9, 17, 129), (7, 2, 5, 31, 99)]
    {
        let feeds = vec![
            Feed::given("values", [values], DType::U32, mixed(values, 31)),
            Feed::given("queries", [batch, queries], DType::U32, mixed(batch * queries, positions)),
            Feed::given("keys", [batch, keys], DType::U32, mixed(batch * keys, positions)),
        ];
        let name = format!("by_distance [{batch}, {queries}, {keys}] of {values}");
        cases.push(Case::new(name, feeds, |g, x| Ok(vec![by_distance(g, x[0], x[1], x[2])?])));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let (values, even) = (g.input("values", [5], DType::U32)?, g.input("even", [4], DType::U32)?);
        let (queries, keys) = (g.input("queries", [2, 3], DType::U32)?, g.input("keys", [2, 4], DType::U32)?);
        let (other, float) = (g.input("other", [1, 4], DType::U32)?, g.input("float", [2, 4], DType::F32)?);
        let out = by_distance(&mut g, values, queries, keys)?;
        assert_eq!(g.shape(out).dims(), [2, 3, 4]);
        for [values, queries, keys] in
            [[even, queries, keys], [values, queries, other], [values, queries, float], [queries, queries, keys]]
        {
            let message = by_distance(&mut g, values, queries, keys).unwrap_err().to_string();
            assert!(message.starts_with("by_distance: expected u32 values (N), N odd"), "{message}");
        }
        Ok(())
    }
}
