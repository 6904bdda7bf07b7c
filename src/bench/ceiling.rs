//! The two ops that measure an adapter's ceilings: arithmetic in registers, and copying.

use crate::case::{Case, Feed};
use crate::error::{Error, Result};
use crate::graph::{Array, Op};
use crate::kernel::{AdapterClass, Caps, Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static MULTIPLY_ADD: Kernel = kernel!("bench/bench_multiply_add");
static UNROLLED: Kernel = kernel!("bench/bench_multiply_add_unrolled");
static COPY: Kernel = kernel!("bench/bench_copy");

/// The factor of every step of [`MultiplyAdd`]: errors shrink, and compilers can't simplify it.
const FACTOR: f32 = 0.875;
/// The addend of every step of [`MultiplyAdd`].
const TERM: f32 = 0.125;

/// `a_0 = x + c`, `a_{s+1} = 0.875 a_s + 0.125`, `out = Σ_c a_S` over `chains` values of c; x, out (n) f32, n a multiple of 4.
///
/// It takes `2 · chains` floating-point operations per element and step, and no memory except x and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MultiplyAdd {
    /// Invocations of a workgroup.
    pub lanes: u32,
    /// Independent sums of an invocation.
    pub chains: u32,
    /// Steps per iteration of the loop.
    pub unroll: u32,
    /// The number of iterations of the loop.
    pub rounds: u32,
    /// The unrolled kernel, for 2 chains and 16 steps; else the one with loops.
    pub unrolled: bool,
}

impl MultiplyAdd {
    /// The candidate variants for an adapter's ceiling, with `rounds` of 1.
    #[must_use]
    pub(super) fn variants(caps: &Caps) -> Vec<Self> {
        let most = caps.max_invocations.min(256);
        let of = |lanes, chains, unroll| Self { lanes, chains, unroll, rounds: 1, unrolled: false };
        let lines = |lanes| Self { unrolled: true, ..of(lanes, 2, 16) };
        match caps.class {
            AdapterClass::Gpu => vec![lines(most), of(most, 4, 16), of(most, 8, 16)],
            // Eight vector registers hide the latency of additions; with sixteen none are left for the rest. The driver masks every register
            // in each iteration.
            AdapterClass::Cpu => vec![lines(8), of(8, 2, 32), of(8, 4, 4)],
        }
    }

    fn steps(&self) -> u64 {
        u64::from(self.rounds) * u64::from(self.unroll)
    }
}

impl Op for MultiplyAdd {
    fn name(&self) -> &'static str {
        "bench_multiply_add"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if self.unrolled && (self.chains, self.unroll) != (2, 16) {
            return Err(Error::shape(self.name(), "the unrolled kernel has 2 chains and 16 steps"));
        }
        vectors(self.name(), inputs)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let value = |x: f64| {
            let chain =
                |c: u32| (0..self.steps()).fold(x + f64::from(c), |a, _| a * f64::from(FACTOR) + f64::from(TERM));
            (0..self.chains).map(chain).sum()
        };
        Ok(vec![inputs[0].map(value)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let count = cx.input(0).numel();
        let dispatch = match self.unrolled {
            true => Dispatch::new(&UNROLLED).constant("LANES", self.lanes),
            false => Dispatch::new(&MULTIPLY_ADD)
                .constant("LANES", self.lanes)
                .constant("CHAINS", self.chains)
                .constant("UNROLL", self.unroll),
        };
        cx.dispatch(
            dispatch
                .read(cx.input(0))
                .write(cx.output(0))
                .param(count / 4)
                .param(self.rounds as usize)
                .param_f32(FACTOR)
                .param_f32(TERM)
                .groups_for(count / 4, self.lanes as usize)
                .flops(2 * u64::from(self.chains) * self.steps() * count as u64),
        )
    }
}

/// `out = x`, element by element; x, out (n) f32, n a multiple of 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Invocations of a workgroup.
    pub lanes: u32,
    /// Groups of four elements per invocation.
    pub each: u32,
}

impl Copy {
    /// The candidate variants for an adapter's ceiling.
    #[must_use]
    pub(super) fn variants(caps: &Caps) -> Vec<Self> {
        [1, 4].map(|each| Self { lanes: caps.max_invocations.min(256), each }).to_vec()
    }
}

impl Op for Copy {
    fn name(&self) -> &'static str {
        "bench_copy"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        vectors(self.name(), inputs)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].clone()])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let count = cx.input(0).numel();
        cx.dispatch(
            Dispatch::new(&COPY)
                .constant("LANES", self.lanes)
                .constant("EACH", self.each)
                .read(cx.input(0))
                .write(cx.output(0))
                .param(count / 4)
                .groups_for(count / 4, (self.lanes * self.each) as usize),
        )
    }
}

/// One tensor of f32 in groups of four, and a result like it.
fn vectors(op: &str, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
    match inputs {
        [x] if *x == TensorType::f32(x.shape.clone()) && x.shape.numel().is_multiple_of(4) => Ok(vec![x.clone()]),
        _ => Err(Error::shape(op, "expected one f32 tensor with a multiple of 4 elements")),
    }
}

/// The conformance cases.
pub(crate) fn cases() -> Vec<Case> {
    let classes = [AdapterClass::Gpu, AdapterClass::Cpu];
    let caps = || classes.into_iter().map(|class| Caps { class, ..Caps::baseline() });
    let mut cases = Vec::new();
    for count in [4, 31 * 4, 33 * 4, 257 * 4, 5000] {
        let feeds = || vec![Feed::normal("x", [count]).fixed()];
        for op in caps().flat_map(|caps| MultiplyAdd::variants(&caps)).map(|op| MultiplyAdd { rounds: 3, ..op }) {
            let name = format!("multiply and add {count}, {} chains, {} steps, {}", op.chains, op.unroll, op.lanes);
            cases.push(Case::new(name, feeds(), move |g, x| Ok(vec![g.put1(op, x)?])));
        }
        for op in Copy::variants(&Caps::baseline()) {
            let name = format!("copy {count}, {} by {}", op.lanes, op.each);
            cases.push(Case::new(name, feeds(), move |g, x| Ok(vec![g.put1(op, x)?])));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::Graph;

    #[test]
    fn only_groups_of_four_floats_are_taken() {
        let mut g = Graph::new();
        let (odd, whole) = (g.input("odd", [5], DType::F32).unwrap(), g.input("whole", [8], DType::I32).unwrap());
        let op = Copy { lanes: 64, each: 1 };
        for tensor in [odd, whole] {
            assert!(g.apply1(op, &[tensor]).unwrap_err().to_string().contains("bench_copy: expected one f32 tensor"));
        }
    }
}
