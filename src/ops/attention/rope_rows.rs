//! Rotary positions whose frequencies go by the length of each text.

use super::rope::{RopeOptions, checked, table_of};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static ROPE_ROWS: Kernel = kernel!("attention/rope_rows");

/// The table that [`rope`](super::rope()) reads at [`rope_rows`], (trained + max_positions, rotary_dim / 2, 2) f32, for LongRoPE
/// ([`RopeScaling::Long`](super::RopeScaling::Long)): rows of the positions of texts that are not longer than the trained length, by the short
/// factors, and behind them those of the positions of longer texts, by the long ones.
///
/// # Errors
/// Those of [`rope_table`](super::rope_table); [`Error::Shape`] unless [`RopeOptions::goes_by_length`].
pub fn rope_table_by_length(g: &mut Graph, head_dim: usize, options: &RopeOptions) -> Result<Tensor> {
    let trained = trained(options)?;
    let short = checked(head_dim, &RopeOptions { max_positions: trained, ..options.clone() })?;
    let long = checked(head_dim, options)?;
    table_of(g, options, vec![(trained, short), (options.max_positions, long)])
}

/// The row of [`rope_table_by_length`] of each token: `positions[b, t] + (trained if its text has more than trained tokens, else 0)`.
///
/// Shapes: `positions` (B, T) u32; `lengths` (B) u32, the number of tokens of each row's text, or (B, T, 2) u32, the first token of each token's
/// text and one past the last; the result (B, T) u32. No gradient.
///
/// # Errors
/// [`Error::Shape`] if an operand does not fit, or unless [`RopeOptions::goes_by_length`].
pub fn rope_rows(g: &mut Graph, positions: Tensor, lengths: Tensor, options: &RopeOptions) -> Result<Tensor> {
    let op = RopeRows { trained: trained(options)?, max_positions: options.max_positions };
    g.put1(op, &[positions, lengths])
}

/// The trained length of rotary positions that go by the length of a text.
fn trained(options: &RopeOptions) -> Result<usize> {
    let what = "the frequencies of these rotary positions do not go by the length of a text";
    options.goes_by_length().ok_or_else(|| Error::shape("rope_rows", what))
}

/// See [`rope_rows`].
#[derive(Debug)]
struct RopeRows {
    trained: usize,
    max_positions: usize,
}

impl Op for RopeRows {
    fn name(&self) -> &'static str {
        "rope_rows"
    }

    fn bounds(&self, _: &[TensorType]) -> Vec<(usize, usize)> {
        vec![(0, self.max_positions)]
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (positions, lengths) = (&inputs[0], &inputs[1]);
        let fits = match (positions.shape.dims(), lengths.shape.dims()) {
            (&[batch, tokens], &[of]) => of == batch && batch * tokens > 0,
            (&[batch, tokens], &[of, each, 2]) => [of, each] == [batch, tokens] && batch * tokens > 0,
            _ => false,
        };
        if !fits || [positions.dtype, lengths.dtype] != [DType::U32; 2] {
            let what = format!(
                "expected positions u32(B, T) and lengths u32(B) or ranges u32(B, T, 2), got {positions} and {lengths}"
            );
            return Err(Error::shape(self.name(), what));
        }
        Ok(vec![positions.clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (positions, lengths) = (inputs[0], inputs[1]);
        let tokens = positions.shape.last();
        let length = |i: usize| match lengths.shape.dims() {
            [_] => lengths.data[i / tokens],
            _ => lengths.data[2 * i + 1] - lengths.data[2 * i],
        };
        let trained = self.trained as f64;
        let row = |i: usize| positions.data[i] + if length(i) > trained { trained } else { 0.0 };
        Ok(vec![Array::from_fn(positions.shape.clone(), row)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (positions, lengths, rows) = (cx.input(0), cx.input(1), cx.output(0));
        let (count, tokens) = (positions.numel(), positions.shape.last());
        let dispatch = Dispatch::new(&ROPE_ROWS).constant("DOCUMENTS", lengths.shape.dims().len() == 3);
        let dispatch = dispatch.read(positions).read(lengths).write(rows);
        cx.dispatch(dispatch.param(count).param(tokens).param(self.trained).groups_for(count, 64))
    }
}

/// The conformance cases: texts of the trained length, shorter and longer ones, one a row and side by side.
pub(super) fn cases() -> Vec<Case> {
    let scaling = super::RopeScaling::Long {
        short: [1.0, 1.5].into(),
        long: [2.0, 7.0].into(),
        attention: 1.25,
        original_max_position: 16,
    };
    let options = RopeOptions { theta: 500.0, max_positions: 40, scaling, ..RopeOptions::default() };
    let mut cases = Vec::new();
    for (batch, tokens, documents) in [(1, 1, false), (4, 33, false), (1, 16, true), (3, 40, true)] {
        // Of a row's texts, one has the trained length or less, and one the rest.
        let first = |b: usize| (16 - b).min(tokens);
        let (lengths, name) = match documents {
            true => {
                let range = |i: usize| if i % tokens < first(i / tokens) { [0, 1] } else { [1, 2] };
                let ends = |i: usize| [0, first(i / tokens), tokens].map(|end| end as f64);
                let ranges = (0..batch * tokens).flat_map(|i| range(i).map(|end| ends(i)[end]));
                (Feed::given("ranges", [batch, tokens, 2], DType::U32, ranges), "texts side by side")
            }
            false => (Feed::given("lengths", [batch], DType::U32, (0..batch).map(|b| (15 + b) as f64)), "a text a row"),
        };
        let position = |i: usize| match documents {
            true if i % tokens >= first(i / tokens) => i % tokens - first(i / tokens),
            _ => i % tokens,
        };
        let positions = (0..batch * tokens).map(|i| position(i) as f64);
        let feeds = vec![
            Feed::given("positions", [batch, tokens], DType::U32, positions),
            lengths,
            Feed::normal("x", [batch, tokens, 2, 4]),
        ];
        let options = options.clone();
        let case = Case::new(format!("rope_rows [{batch}, {tokens}] {name}"), feeds, move |g, x| {
            let rows = rope_rows(g, x[0], x[1], &options)?;
            let table = rope_table_by_length(g, 4, &options)?;
            Ok(vec![rows, super::rope(g, x[2], rows, table, &options)?])
        });
        cases.push(case);
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Values;
    use crate::ops::{RopeScaling, rope, rope_table};

    fn options(max_positions: usize) -> RopeOptions {
        let (short, long) = ([1.0, 2.0].into(), [4.0, 8.0].into());
        let scaling = RopeScaling::Long { short, long, attention: 1.5, original_max_position: 5 };
        RopeOptions { max_positions, scaling, ..RopeOptions::default() }
    }

    /// Rows of 5, 6 and 9 tokens, and one of 5 and 6 side by side, rotated as each text alone.
    #[test]
    fn a_text_is_rotated_as_alone() -> Result<()> {
        let x = |tokens: usize| Array::from_fn([1, tokens, 1, 4], |i| (i as f64).sin() + 2.0);
        let alone = |tokens: usize| -> Result<Vec<f64>> {
            let mut g = Graph::new();
            let input = g.input("x", [1, tokens, 1, 4], DType::F32)?;
            let positions = g.constant("positions", Array::from_fn([1, tokens], |i| i as f64), DType::U32);
            let table = rope_table(&mut g, 4, &options(tokens))?;
            let out = rope(&mut g, input, positions, table, &options(tokens))?;
            Ok(g.evaluate(&Values::from([("x".into(), x(tokens))]), &[out])?.remove(0).data)
        };
        let together = |positions: Vec<f64>, lengths: Array, data: Vec<f64>| -> Result<Vec<f64>> {
            let (mut g, tokens) = (Graph::new(), positions.len());
            let input = g.input("x", [1, tokens, 1, 4], DType::F32)?;
            let positions = g.constant("positions", Array::new([1, tokens], positions)?, DType::U32);
            let lengths = g.constant("lengths", lengths, DType::U32);
            let table = rope_table_by_length(&mut g, 4, &options(11))?;
            let rows = rope_rows(&mut g, positions, lengths, &options(11))?;
            let out = rope(&mut g, input, rows, table, &options(11))?;
            let values = Values::from([("x".into(), Array::new([1, tokens, 1, 4], data)?)]);
            Ok(g.evaluate(&values, &[out])?.remove(0).data)
        };
        for tokens in [5, 6, 9] {
            let positions = (0..tokens).map(|at| at as f64).collect();
            let found = together(positions, Array::new([1], vec![tokens as f64])?, x(tokens).data)?;
            assert_eq!(found, alone(tokens)?, "{tokens} tokens");
        }
        assert!(alone(6)?[..20] != alone(5)?[..], "factors must differ");
        let positions = (0..5).chain(0..6).map(f64::from).collect();
        let ranges = (0..11).flat_map(|at| if at < 5 { [0.0, 5.0] } else { [5.0, 11.0] }).collect();
        let found = together(positions, Array::new([1, 11, 2], ranges)?, [x(5).data, x(6).data].concat())?;
        assert_eq!(found, [alone(5)?, alone(6)?].concat());
        Ok(())
    }

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let positions = g.input("positions", [2, 9], DType::U32)?;
        let lengths = g.input("lengths", [3], DType::U32)?;
        let message = rope_rows(&mut g, positions, lengths, &options(9)).unwrap_err().to_string();
        assert!(message.contains("got u32[2, 9] and u32[3]"), "{message}");
        let message = rope_rows(&mut g, positions, lengths, &options(5)).unwrap_err().to_string();
        assert!(message.contains("do not go by the length of a text"), "{message}");
        let message = rope_table_by_length(&mut g, 4, &options(5)).unwrap_err().to_string();
        assert!(message.contains("do not go by the length of a text"), "{message}");
        Ok(())
    }
}
