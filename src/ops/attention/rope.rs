//! Rotary positions.

use super::rope_scaling::RopeScaling;
use super::sinusoidal::check_table;
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, kernel};
use crate::ops::rows::width;
use crate::shape::TensorType;
use derive_setters::Setters;

static ROPE: Kernel = kernel!("attention/rope");
static PAIRS1: Snippet = kernel!("common/pairs1");
static PAIRS4: Snippet = kernel!("common/pairs4");

/// Options of [`rope`].
#[derive(Clone, Debug, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct RopeOptions {
    /// The base: pair i is rotated by the angle `position · theta^(−2i / rotary_dim)`.
    pub theta: f32,
    /// The number of rotated elements of a head; all if not given. The rest is unchanged. Of an odd number the next even one is rotated.
    pub rotary_dim: Option<usize>,
    /// The rotated elements are the last of a head; else the first.
    pub last: bool,
    /// The number of positions: the length of the table.
    pub max_positions: usize,
    /// Changes of the frequencies for long texts.
    pub scaling: RopeScaling,
    /// Pairs of neighbours (2i, 2i + 1), as in the paper; else (i, i + rotary_dim / 2), as in Hugging Face's models.
    pub interleaved: bool,
}

impl Default for RopeOptions {
    fn default() -> Self {
        Self {
            theta: 10000.0,
            rotary_dim: None,
            last: false,
            max_positions: 2048,
            scaling: RopeScaling::None,
            interleaved: false,
        }
    }
}

/// The table that [`rope`] reads, (max_positions, rotary_dim / 2, 2) f32: cosine and sine of each position's angle for
/// each pair. Create it once and share it among the layers.
///
/// It is computed in f64 on the CPU: WGSL's own functions are inexact for large angles.
///
/// # Errors
/// [`Error::Shape`] if `rotary_dim` is odd, 0 or larger than a head, or there are no positions, or
/// too many for a table of 2³¹ elements.
pub fn rope_table(g: &mut Graph, head_dim: usize, options: &RopeOptions) -> Result<Tensor> {
    let frequencies = checked(head_dim, options)?;
    table_of(g, options, vec![(options.max_positions, frequencies)])
}

/// The frequencies for so many positions.
pub(super) fn checked(head_dim: usize, options: &RopeOptions) -> Result<Vec<f64>> {
    if options.max_positions == 0 {
        return Err(Error::shape("rope", "max_positions is 0, but must be at least 1"));
    }
    options.frequencies(head_dim)
}

/// A table whose parts have so many positions, from 0 on, and such frequencies.
pub(super) fn table_of(g: &mut Graph, options: &RopeOptions, parts: Vec<(usize, Vec<f64>)>) -> Result<Tensor> {
    let pairs = parts.iter().map(|(_, frequencies)| frequencies.len()).max().unwrap_or(0);
    let rows = parts.iter().fold(0, |rows: usize, (positions, _)| rows.saturating_add(*positions));
    check_table("rope", rows, 2 * pairs)?;
    let shape = [rows, pairs, 2];
    let factor = options.scaling.attention();
    let table = move || {
        let rows = parts.iter().flat_map(|(positions, frequencies)| (0..*positions).map(move |at| (at, frequencies)));
        let angles = rows.flat_map(|(at, frequencies)| frequencies.iter().map(move |frequency| at as f64 * frequency));
        let data = angles.flat_map(|angle| [factor * angle.cos(), factor * angle.sin()]).collect();
        Array { shape: shape.into(), data }
    };
    Ok(g.constant_with("rope_table", shape, DType::F32, table))
}

/// Rotary positions: `(a, b) → (a cos θ − b sin θ, b cos θ + a sin θ)` for each pair of a head's elements, θ the angle
/// of its position and pair in the `table` of [`rope_table`].
///
/// `x` (B, T, H, D) f32, `positions` (B, T) u32. A position past the table is an error of the reference; the GPU uses
/// the table's last row. Gradient: the rotation by −θ.
///
/// Su et al., `RoFormer`, 2021 (arXiv 2104.09864).
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit together.
pub fn rope(g: &mut Graph, x: Tensor, positions: Tensor, table: Tensor, options: &RopeOptions) -> Result<Tensor> {
    g.put1(Rope { interleaved: options.interleaved, last: options.last, back: false }, &[x, positions, table])
}

/// See [`rope`].
#[derive(Debug)]
struct Rope {
    interleaved: bool,
    last: bool,
    back: bool,
}

impl Op for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn bounds(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        vec![(1, inputs[2].shape.dims().first().copied().unwrap_or(0))]
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (x, positions, table) = (&inputs[0], &inputs[1], &inputs[2]);
        let fits = match (x.shape.dims(), positions.shape.dims(), table.shape.dims()) {
            (&[b, t, _, d], &[positions_b, positions_t], &[_, pairs, 2]) => {
                let filled = x.shape.numel() > 0 && table.shape.numel() > 0;
                [b, t] == [positions_b, positions_t] && pairs <= d / 2 && filled
            }
            _ => false,
        };
        if !fits || [x.dtype, positions.dtype, table.dtype] != [DType::F32, DType::U32, DType::F32] {
            let what = format!(
                "expected x f32(B, T, H, D), positions u32(B, T) and a table f32(positions, D / 2 or less, 2), \
                 got {x}, {positions} and {table}"
            );
            return Err(Error::shape("rope", what));
        }
        Ok(vec![x.clone()])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        if cx.needed[2] {
            return Err(Error::NotDifferentiable { op: "rope with respect to its table".into() });
        }
        let rotate = Self { back: !self.back, ..*self };
        let upstream = cx.upstream(0)?;
        Ok(vec![Some(cx.graph.put1(rotate, &[upstream, cx.inputs[1], cx.inputs[2]])?), None, None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (x, positions, table) = (inputs[0], inputs[1], inputs[2]);
        let [_, _, heads, head_dim] = x.shape.expect("rope")?;
        let [rows, pairs, _] = table.shape.expect("rope")?;
        let first = if self.last { head_dim - 2 * pairs } else { 0 };
        let mut out = x.clone();
        for (row, head) in out.data.chunks_exact_mut(head_dim).enumerate() {
            let position = positions.data[row / heads] as usize;
            if position >= rows {
                let message = format!("position {position} is out of range: the rope table has {rows}");
                return Err(Error::input("positions", message));
            }
            for pair in 0..pairs {
                let (a, b) = if self.interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + pairs) };
                let (a, b) = (first + a, first + b);
                let at = (position * pairs + pair) * 2;
                let (cos, sin) = (table.data[at], if self.back { -table.data[at + 1] } else { table.data[at + 1] });
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
            }
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, positions, table, out) = (cx.input(0), cx.input(1), cx.input(2), cx.output(0));
        let [_, _, heads, head_dim] = x.shape.expect("rope")?;
        let [table_rows, pairs, _] = table.shape.expect("rope")?;
        let size = width(head_dim).min(width(pairs));
        let rows = x.numel() / head_dim;
        let (head, half) = (head_dim / size, pairs / size);
        cx.dispatch(
            Dispatch::new(&ROPE)
                .constant("INTERLEAVED", self.interleaved)
                .snippet(if size == 4 { &PAIRS4 } else { &PAIRS1 })
                .read(x)
                .read(positions)
                .read(table)
                .write(out)
                .param(rows)
                .param(heads)
                .param(head)
                .param(half)
                .param(table_rows)
                .param_f32(if self.back { -1.0 } else { 1.0 })
                .param(if self.last { head - 2 * half } else { 0 })
                .groups_for(rows * (head - half), 64)
                .flops((rows * pairs * 6) as u64),
        )
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let llama3 =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 64 };
    let (short, long) = ([1.0, 1.5].into(), [2.0, 7.0].into());
    let long = RopeScaling::Long { short, long, attention: 1.25, original_max_position: 128 };
    for (shape, rotary_dim, scaling) in [
        ([1, 1, 1, 2], None, RopeScaling::None),
        ([2, 31, 3, 6], None, RopeScaling::None),
        ([1, 33, 2, 64], None, llama3),
        ([2, 7, 3, 24], Some(16), RopeScaling::Linear { factor: 4.0 }),
        ([1, 9, 5, 11], Some(6), RopeScaling::None),
        ([2, 5, 2, 10], Some(3), RopeScaling::None),
        ([1, 7, 2, 12], Some(4), long),
    ] {
        for (interleaved, last) in [(false, false), (true, false), (false, true), (true, true)] {
            if last && rotary_dim.is_none() {
                continue;
            }
            let scaling = scaling.clone();
            let options = RopeOptions { theta: 500.0, rotary_dim, last, max_positions: 257, scaling, interleaved };
            let count = shape[0] * shape[1];
            let positions = (0..count).map(|i| (i * 29 % 257) as f64);
            let feeds =
                vec![Feed::normal("x", shape), Feed::given("positions", [shape[0], shape[1]], DType::U32, positions)];
            let place = if last { "last " } else { "" };
            let name = format!("rope {shape:?} rotated {place}{rotary_dim:?} interleaved {interleaved}");
            cases.push(Case::new(name, feeds, move |g, x| {
                let table = rope_table(g, shape[3], &options)?;
                Ok(vec![rope(g, x[0], x[1], table, &options)?])
            }));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let options = RopeOptions { rotary_dim: Some(9), ..RopeOptions::default() };
        let message = rope_table(&mut g, 8, &options).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "rope: rotary_dim is 9; at least 1 and at most 8 of a head of 8 can be rotated");
        let options = RopeOptions { max_positions: 4, ..RopeOptions::default() };
        let table = rope_table(&mut g, 8, &options)?;
        let x = g.input("x", [1, 2, 3, 8], DType::F32)?;
        let positions = g.input("positions", [2, 1], DType::U32)?;
        let message =
            rope(&mut g, x, positions, table, &options).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert!(message.contains("got f32[1, 2, 3, 8], u32[2, 1] and f32[4, 4, 2]"), "{message}");
        Ok(())
    }

    #[test]
    fn a_position_past_the_table_is_named() -> Result<()> {
        let (x, positions) = (Array::zeros([1, 1, 1, 2]), Array::new([1, 1], vec![4.0])?);
        let op = Rope { interleaved: false, last: false, back: false };
        let result = op.reference(&[&x, &positions, &Array::zeros([4, 1, 2])]);
        let message = result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "positions: position 4 is out of range: the rope table has 4");
        Ok(())
    }

    #[test]
    fn tables_that_are_too_large_are_refused() {
        let mut g = Graph::new();
        let long = RopeOptions { max_positions: usize::MAX, ..RopeOptions::default() };
        let refused = [
            rope_table(&mut g, 64, &long).map(|_| ()),
            rope_table(&mut g, usize::MAX - 1, &RopeOptions::default()).map(|_| ()),
            rope_table(&mut g, usize::MAX - 1, &RopeOptions { max_positions: 1, ..long }).map(|_| ()),
        ];
        for result in refused {
            let message = result.map(|()| String::new()).unwrap_or_else(|e| e.to_string());
            assert!(message.contains("make too large a table: lower the context"), "{message}");
        }
    }

    #[test]
    fn a_table_without_positions_is_refused_and_has_no_gradient() -> Result<()> {
        let mut g = Graph::new();
        let options = RopeOptions::default();
        let x = g.parameter("x", [1, 2, 3, 8], DType::F32)?;
        let positions = g.input("positions", [1, 2], DType::U32)?;
        let empty = g.parameter("empty", [0, 4, 2], DType::F32)?;
        let message = rope(&mut g, x, positions, empty, &options).unwrap_err().to_string();
        assert!(message.contains("and f32[0, 4, 2]"), "{message}");
        let table = g.parameter("table", [5, 4, 2], DType::F32)?;
        let rotated = rope(&mut g, x, positions, table, &options)?;
        let loss = crate::ops::mean(&mut g, rotated)?;
        assert!(g.differentiate(loss, &[x])?[0].is_some());
        let message = g.differentiate(loss, &[x, table]).unwrap_err().to_string();
        assert!(message.contains("rope with respect to its table has no gradient"), "{message}");
        Ok(())
    }
}
