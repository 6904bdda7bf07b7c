//! Activation functions and their gated forms.

use crate::case::{Case, Feed, Tolerance};
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Rematerialization, RematerializeInput, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::ops::rows;
use crate::shape::TensorType;
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::sync::Arc;

/// The functions of `shaders/common/activation.wgsl`, for kernels with a fused activation.
pub(crate) static ACTIVATION_SNIPPET: Snippet = kernel!("common/activation");

static ACTIVATION: Kernel = kernel!("arithmetic/activation");
static ACTIVATION_BACKWARD: Kernel = kernel!("arithmetic/activation_backward");
static GATED: Kernel = kernel!("arithmetic/gated");
static GATED_BACKWARD: Kernel = kernel!("arithmetic/gated_backward");

/// An activation function. σ is the logistic function, Φ the normal distribution function and φ its density.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `max(x, 0)`; its derivative at 0 is taken as 0.
    Relu,
    /// `½x(1 + tanh(√(2/π)(x + 0.044715x³)))` (Hendrycks and Gimpel 2016, arXiv 1606.08415).
    GeluTanh,
    /// `xΦ(x)` (the same paper).
    GeluErf,
    /// `xσ(x)` (Elfwing et al. 2017, arXiv 1702.03118).
    Silu,
    /// `tanh x`.
    Tanh,
    /// `σ(x)`.
    Sigmoid,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Relu, Self::GeluTanh, Self::GeluErf, Self::Silu, Self::Tanh, Self::Sigmoid];

    /// The value of the constant `ACTIVATION` in kernels; 0 means none.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Relu => 1,
            Self::GeluTanh => 2,
            Self::GeluErf => 3,
            Self::Silu => 4,
            Self::Tanh => 5,
            Self::Sigmoid => 6,
        }
    }

    /// The function in f64.
    #[must_use]
    pub fn value(self, x: f64) -> f64 {
        match self {
            Self::Relu => x.max(0.0),
            Self::GeluTanh => 0.5 * x * (1.0 + gelu_argument(x).tanh()),
            Self::GeluErf => x * normal_cdf(x),
            Self::Silu => x * sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => sigmoid(x),
        }
    }

    /// The derivative in f64: of relu `[x > 0]`, of tanh `1 − tanh²x`, of the sigmoid `σ(1 − σ)`, of silu
    /// `σ(1 + x(1 − σ))`, of `xΦ(x)` `Φ + xφ`, of its tanh form `½(1 + t) + ½x(1 − t²)√(2/π)(1 + 0.134145x²)`.
    #[must_use]
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            Self::Relu => f64::from(u8::from(x > 0.0)),
            Self::GeluTanh => {
                let t = gelu_argument(x).tanh();
                let slope = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
            }
            Self::GeluErf => normal_cdf(x) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
            Self::Silu => sigmoid(x) * (1.0 + x * sigmoid(-x)),
            Self::Tanh => 1.0 - x.tanh() * x.tanh(),
            Self::Sigmoid => sigmoid(x) * sigmoid(-x),
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu_argument(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2))
}

/// The error function by `2/√π e^(−x²) Σ 2ⁿ x^(2n+1) / (2n+1)!!`, whose terms all have one sign: accurate to the last digits.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// `out = f(x)`, element by element; `x` f32 of any shape.
///
/// Gradient: `dx = dout f′(x)`, one kernel.
///
/// # Errors
/// [`Error::Shape`] if `x` is not f32.
pub fn activation(g: &mut Graph, x: Tensor, kind: Activation) -> Result<Tensor> {
    g.put1(Activate { kind }, &[x])
}

/// `out = f(gate) · up`, element by element, f32 of one shape: SwiGLU with [`Activation::Silu`], GEGLU with a GELU.
///
/// Gradients: `dgate = dout up f′(gate)`, `dup = dout f(gate)`, both in one kernel.
///
/// Shazeer, `GLU Variants Improve Transformer`, 2020 (arXiv 2002.05202).
///
/// # Errors
/// [`Error::Shape`] if the types differ or are not f32.
pub fn gated(g: &mut Graph, gate: Tensor, up: Tensor, kind: Activation) -> Result<Tensor> {
    g.put1(Gated { kind }, &[gate, up])
}

/// `dout f′(x)`: the gradient of an activation, for other ops.
pub(crate) fn activation_backward(g: &mut Graph, x: Tensor, dout: Tensor, kind: Activation) -> Result<Tensor> {
    g.put1(ActivateBackward { kind }, &[x, dout])
}

/// See [`activation`].
#[derive(Debug)]
pub(in crate::ops) struct Activate {
    pub(in crate::ops) kind: Activation,
}

impl Op for Activate {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        rows::same_f32(self.name(), inputs, 1)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream(0)?;
        Ok(vec![Some(cx.graph.put1(ActivateBackward { kind: self.kind }, &[cx.inputs[0], dout])?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].map(|x| self.kind.value(x))])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch(cx, &ACTIVATION, 1, self.kind)
    }

    fn rematerialize(&self, _index: usize) -> Option<Rematerialization> {
        Some(Rematerialization { op: Arc::new(Self { kind: self.kind }), from: vec![RematerializeInput::Input(0)] })
    }
}

/// `dx = dout f′(x)`: the gradient of [`Activate`], from `x` and `dout`.
#[derive(Debug)]
struct ActivateBackward {
    kind: Activation,
}

impl Op for ActivateBackward {
    fn name(&self) -> &'static str {
        "activation_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        rows::same_f32(self.name(), inputs, 2)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].zip(inputs[1], |x, dout| dout * self.kind.derivative(x))])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch(cx, &ACTIVATION_BACKWARD, 1, self.kind)
    }
}

/// See [`gated`].
#[derive(Debug)]
struct Gated {
    kind: Activation,
}

impl Op for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        rows::same_f32(self.name(), inputs, 2)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream(0)?;
        let both = cx.graph.put(GatedBackward { kind: self.kind }, &[cx.inputs[0], cx.inputs[1], dout])?;
        Ok(both.into_iter().map(Some).collect())
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].zip(inputs[1], |gate, up| self.kind.value(gate) * up)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch(cx, &GATED, 1, self.kind)
    }

    fn rematerialize(&self, _index: usize) -> Option<Rematerialization> {
        let from = vec![RematerializeInput::Input(0), RematerializeInput::Input(1)];
        Some(Rematerialization { op: Arc::new(Self { kind: self.kind }), from })
    }
}

/// The gradients of [`Gated`] with respect to both inputs, from `gate`, `up` and `dout`.
#[derive(Debug)]
struct GatedBackward {
    kind: Activation,
}

impl Op for GatedBackward {
    fn name(&self) -> &'static str {
        "gated_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let one = rows::same_f32(self.name(), inputs, 3)?;
        Ok([one.clone(), one].concat())
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [gate, up, dout] = inputs else {
            return Err(Error::shape(self.name(), "expected 3 tensors"));
        };
        let dgate = gate.zip(&up.zip(dout, |up, dout| up * dout), |gate, d| self.kind.derivative(gate) * d);
        Ok(vec![dgate, gate.zip(dout, |gate, dout| self.kind.value(gate) * dout)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch(cx, &GATED_BACKWARD, 2, self.kind)
    }
}

/// Records `out = f(gate) up` on given views, for other ops.
pub(in crate::ops) fn gated_into(cx: &mut Launch<'_>, [gate, up, out]: [View; 3], kind: Activation) -> Result<()> {
    let (count, width) = (out.numel(), rows::width(out.numel()));
    let dispatch = Dispatch::new(&GATED).constant("ACTIVATION", kind.code()).snippet(&ACTIVATION_SNIPPET);
    let dispatch = dispatch.snippet(rows::elements(width)).param(count / width).read(gate).read(up).write(out);
    cx.dispatch(dispatch.groups_for(count / width, 64).flops(count as u64))
}

/// Launches a kernel that reads all inputs and writes all outputs element by element.
fn launch(cx: &mut Launch<'_>, kernel: &'static Kernel, outputs: usize, kind: Activation) -> Result<()> {
    let dispatch = Dispatch::new(kernel).constant("ACTIVATION", kind.code()).snippet(&ACTIVATION_SNIPPET);
    rows::elementwise(cx, outputs, dispatch)
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let forward = Tolerance { nmse: 1e-12, worst: 2e-6 };
    let backward = Tolerance { nmse: 1e-12, worst: 2e-6 };
    for kind in Activation::ALL {
        // The deviations cover the middle, the tails, and arguments at which a naive exp or tanh overflows.
        for (shape, deviation) in [(vec![1], 1.0), (vec![31, 33], 1.0), (vec![4, 256], 3.0), (vec![257], 200.0)] {
            let feeds = vec![Feed::normal_scaled("x", shape.clone(), 0.0, deviation)];
            let name = format!("activation {kind:?} {shape:?} deviation {deviation}");
            let case = Case::new(name, feeds, move |g, x| Ok(vec![activation(g, x[0], kind)?]));
            cases.push(case.tolerance(forward, backward));
        }
        for shape in [[1, 1], [33, 31], [16, 64]] {
            let feeds = vec![Feed::normal_scaled("gate", shape, 0.0, 2.0), Feed::normal("up", shape)];
            let case = Case::new(format!("gated {kind:?} {shape:?}"), feeds, move |g, x| {
                Ok(vec![gated(g, x[0], x[1], kind)?])
            });
            cases.push(case.tolerance(forward, backward));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn erf_is_exact_to_the_last_digits() {
        // Values of DLMF table 7.23 and of mpmath.
        for (x, expected) in
            [(0.5, 0.520_499_877_813_046_5), (1.0, 0.842_700_792_949_714_9), (2.0, 0.995_322_265_018_952_7)]
        {
            assert!((erf(x) - expected).abs() <= 5e-16, "erf({x}) = {}", erf(x));
            assert!((erf(-x) + expected).abs() <= 5e-16);
        }
        assert!((erf(6.5) - 1.0).abs() <= 0.0 && erf(0.0).abs() <= 0.0);
    }

    #[test]
    fn gated_wants_one_shape() {
        let mut g = Graph::new();
        let gate = g.input("gate", [2, 3], DType::F32).unwrap();
        let up = g.input("up", [3, 2], DType::F32).unwrap();
        let message = gated(&mut g, gate, up, Activation::Silu).unwrap_err().to_string();
        assert!(message.contains("[2, 3]") && message.contains("[3, 2]"), "{message}");
        let ids = g.input("ids", [2], DType::U32).unwrap();
        let message = activation(&mut g, ids, Activation::Relu).unwrap_err().to_string();
        assert!(message.contains("u32"), "{message}");
    }
}
