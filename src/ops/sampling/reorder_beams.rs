//! The states of beams.

use crate::case::{Case, Feed, Tolerance};
use crate::dtype::{BLOCK, DType};
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops;
use crate::shape::TensorType;

static REORDER_BEAMS: Kernel = kernel!("sampling/reorder_beams");

/// The most beams of a group, whose words an invocation holds.
pub const MAX_BEAMS: usize = 64;

/// `state[g, k, s] = state[g, parents[g, k], s]` where `s < used[g, 0]`, in place: each of `beams` beams of a group goes on from another beam
/// of its group. A cache is moved within itself, and only what is in use of it.
///
/// Shapes: `state` (G·beams, S, …) of 32-bit words, of f16 in whole words a position, or of q8_0 in whole blocks a position, a state, or (G·beams), one word a beam; `parents` (G·beams) u32, less than `beams`; `used`
/// (G·beams) u32, the number of positions in use, which the beams of a group share. The result is the state afterwards; nothing may read the
/// old one. No gradient.
///
/// # Errors
/// [`Error::Shape`] with the operand that does not fit, or more than [`MAX_BEAMS`] beams.
pub fn reorder_beams(g: &mut Graph, state: Tensor, parents: Tensor, used: Tensor, beams: usize) -> Result<Tensor> {
    g.put1(ReorderBeams { beams }, &[state, parents, used])
}

/// See [`reorder_beams`].
#[derive(Debug)]
struct ReorderBeams {
    beams: usize,
}

/// Rows, positions of a row and words of a position.
fn extents(state: &TensorType) -> [usize; 3] {
    match state.shape.dims() {
        [rows] => [*rows, 1, 1],
        [rows, positions, rest @ ..] => [*rows, *positions, rest.iter().product()],
        [] => [0, 0, 0],
    }
}

impl Op for ReorderBeams {
    fn name(&self) -> &'static str {
        "reorder_beams"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [state, parents, used] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 3 tensors, got {}", inputs.len())));
        };
        let [rows, ..] = extents(state);
        let words = match state.dtype {
            DType::F16 => extents(state)[2].is_multiple_of(2),
            DType::Q8_0 => state.shape.rank() > 1 && state.shape.last().is_multiple_of(BLOCK),
            dtype => matches!(dtype, DType::F32 | DType::U32 | DType::I32),
        };
        if !words || state.shape.numel() == 0 || !(1..=MAX_BEAMS).contains(&self.beams) || rows % self.beams != 0 {
            let beams = self.beams;
            let what = format!("expected words of groups of {beams} beams (at most {MAX_BEAMS}), got {state}");
            return Err(Error::shape(self.name(), what));
        }
        let expected = TensorType::new([rows], DType::U32);
        for (what, given) in [("parents", parents), ("used", used)] {
            if *given != expected {
                return Err(Error::shape(self.name(), format!("{what} is {given}, expected {expected}")));
            }
        }
        Ok(vec![state.clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [_, positions, width] = extents(&TensorType::f32(inputs[0].shape.clone()));
        let (size, mut state) = (positions * width, inputs[0].clone());
        for (row, &parent) in inputs[1].data.iter().enumerate() {
            let first = row / self.beams * self.beams;
            let used = (inputs[2].data[first] as usize).min(positions) * width;
            let from = (first + (parent as usize).min(self.beams - 1)) * size;
            state.data[row * size..][..used].copy_from_slice(&inputs[0].data[from..from + used]);
        }
        Ok(vec![state])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let state = cx.output(0);
        let [rows, positions, width] = extents(&TensorType::new(state.shape.clone(), state.dtype));
        // Where words of all positions begin, and those of a position; scales stand behind all quants.
        let parts = match state.dtype {
            DType::Q8_0 => vec![(0, width / 4), (state.dtype.first_scale(state.numel()), width / BLOCK)],
            DType::F16 => vec![(0, width / 2)],
            _ => vec![(0, width)],
        };
        for (first, width) in parts {
            let count = rows / self.beams * positions * width;
            let dispatch = Dispatch::new(&REORDER_BEAMS).constant("BEAMS", self.beams as u32);
            let dispatch = dispatch.read(cx.input(1)).read(cx.input(2)).update(cx.output(0));
            let dispatch = dispatch.param(count).param(positions).param(width).param(first);
            cx.dispatch(dispatch.groups_for(count, 64))?;
        }
        Ok(())
    }

    fn alias(&self, index: usize) -> Option<Alias> {
        Some(Alias::InPlace(index))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let plain = [[1, 1, 1], [2, 4, 9], [1, 33, 5]].map(|sizes| case(sizes, [3, 5], DType::F32));
    plain.into_iter().chain([case([2, 3, 7], [3, 4], DType::F16), case([2, 3, 7], [3, 64], DType::Q8_0)]).collect()
}

fn case([groups, beams, positions]: [usize; 3], [heads, head_dim]: [usize; 2], dtype: DType) -> Case {
    let rows = groups * beams;
    let words = |name, step: usize, below: usize| {
        Feed::given(name, [rows], DType::U32, (0..rows).map(move |b| (b * step % below) as f64))
    };
    let used = (0..rows).map(move |b| (positions - b / beams) as f64);
    let all = (0..rows * positions).map(move |i| (i % positions) as f64);
    let new = |name| Feed::normal(name, [rows, positions, heads, head_dim]).fixed();
    let feeds = vec![
        new("keys"),
        new("values"),
        Feed::given("positions", [rows, positions], DType::U32, all),
        words("parents", 3, beams),
        Feed::given("used", [rows], DType::U32, used),
        words("counts", 5, 7),
    ];
    let name = format!("reorder_beams [{groups}, {beams}, {positions}]");
    let name = if dtype == DType::F32 { name } else { format!("{name}, {dtype}") };
    let case = Case::new(name, feeds, move |g, x| {
        let [keys, values] =
            ["key_cache", "value_cache"].map(|name| g.state(name, [rows, positions, heads, head_dim], dtype));
        let (keys, values) = ops::cache_write(g, [keys?, values?], [x[0], x[1]], x[2])?;
        let slots = g.state("slots.used", [rows], DType::U32)?;
        let slots = ops::claim_slots(g, slots, x[5], 1, true)?.used;
        let reordered = |g: &mut Graph, state| reorder_beams(g, state, x[3], x[4], beams);
        Ok(vec![reordered(g, keys)?, reordered(g, values)?, reordered(g, slots)?])
    });
    // What goes into a cache is rounded there.
    let tolerance = match dtype {
        DType::F16 => Tolerance { nmse: 1e-6, worst: 1e-3 },
        DType::Q8_0 => Tolerance { nmse: 1e-4, worst: 1e-2 },
        _ => Tolerance::EXACT,
    };
    case.tolerance(tolerance, tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_do_not_fit_are_named() -> Result<()> {
        let mut g = Graph::new();
        let state = g.state("cache", [6, 4, 2], DType::F32)?;
        let parents = g.input("parents", [6], DType::U32)?;
        let few = g.input("few", [3], DType::U32)?;
        let mut refused = |parents, used, beams| {
            let refused = reorder_beams(&mut g, state, parents, used, beams);
            refused.unwrap_err().to_string()
        };
        let message = refused(parents, parents, 4);
        assert_eq!(message, "reorder_beams: expected words of groups of 4 beams (at most 64), got f32[6, 4, 2]");
        assert_eq!(refused(few, parents, 3), "reorder_beams: parents is u32[3], expected u32[6]");
        assert_eq!(refused(parents, few, 2), "reorder_beams: used is u32[3], expected u32[6]");
        assert!(refused(parents, parents, 0).contains("groups of 0 beams"));
        Ok(())
    }
}
