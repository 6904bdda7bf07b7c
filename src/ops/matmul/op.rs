//! The matrix product as an op of the graph.

use super::launch::{self, Operands};
use super::problem::{Form, Problem};
use super::variant::Variant;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Add, Array, Gradient, Graph, Op, Rematerialization, RematerializeInput, Tensor};
use crate::kernel::Launch;
use crate::ops::arithmetic::activation::{Activate, Activation, activation_backward};
use crate::ops::arithmetic::elementwise::RowWise;
use crate::ops::{mask_rows, sum_rows};
use crate::shape::TensorType;
use std::any::Any;
use std::sync::Arc;

/// `pre = α op(A) op(B) + bias`, `out = act(pre) + residual`, `op` being a transposition or nothing (see [`Form`]).
///
/// Inputs: A (…, M, K) f32; B f32, f16, bf16 or quantised, with two axes (then all leading axes of A are rows of one product) or with
/// the leading axes of A (then a product each); if `bias`, one of (N); if `residual`, one of the result's shape.
/// Outputs: `out` and, if `keep_pre`, `pre`, which is not written unless something reads it.
///
/// Gradients with d = dout act′(pre): `A · B`: dA = α d Bᵀ, dB = α Aᵀ d. `A · Bᵀ`: dA = α d B, dB = α dᵀ A. `Aᵀ · B`: dA = α B dᵀ,
/// dB = α A d. dbias = the sum of d's rows, dresidual = dout. The gradient of B is f32 whatever B is stored in; a quantised B has none.
#[derive(Clone, Debug)]
pub struct Matmul {
    /// The name in reports.
    pub name: &'static str,
    /// Which operands are transposed.
    pub form: Form,
    /// All leading axes of both operands count as rows: see [`Problem::new`].
    pub flat: bool,
    /// The factor in front of the product.
    pub alpha: f32,
    /// Whether a bias is among the inputs.
    pub bias: bool,
    /// The activation of product and bias.
    pub activation: Option<Activation>,
    /// Whether `pre` is an output: gradients through an activation need it.
    pub keep_pre: bool,
    /// Whether a residual is the last input.
    pub residual: bool,
    /// Whether lengths (B) u32 are the third input, for A (B, T, K) and B with two axes: the rows `t ≥ lengths[b]` of A count as
    /// zero, and tiles of them cost nothing.
    pub ragged: bool,
    /// A kernel to prefer to the default, if it is legal on the adapter.
    pub variant: Option<Variant>,
}

impl Matmul {
    /// A plain product.
    #[must_use]
    pub fn new(form: Form) -> Self {
        let name = match form {
            Form::Nn => "matmul",
            Form::Nt => "matmul_nt",
            Form::Tn => "matmul_tn",
        };
        Self {
            name,
            form,
            flat: false,
            alpha: 1.0,
            bias: false,
            activation: None,
            keep_pre: false,
            residual: false,
            ragged: false,
            variant: None,
        }
    }

    /// With all leading axes of both operands counted as rows.
    #[must_use]
    pub fn flattened(self) -> Self {
        Self { flat: true, ..self }
    }

    /// Records this product on given views, for other ops.
    pub(in crate::ops) fn launch_on(&self, cx: &mut Launch<'_>, operands: &Operands) -> Result<()> {
        launch::launch(self, cx, operands)
    }

    pub(super) fn problem(&self, a: &TensorType, b: &TensorType) -> Result<(Problem, crate::shape::Shape)> {
        let (mut problem, shape) = Problem::new(self.name, self.form, self.flat, a, b)?;
        if self.ragged {
            let &[batch, rows, _] = a.shape.dims() else {
                return Err(Error::shape(self.name, format!("a is {a}, but ragged rows need three axes")));
            };
            if b.shape.rank() != 2 || self.form == Form::Tn {
                return Err(Error::shape(self.name, format!("b is {b}, but ragged rows need one weight for all")));
            }
            (problem.batch, problem.m) = (batch, rows);
        }
        Ok((problem, shape))
    }

    /// The lengths of ragged rows.
    fn lengths(&self, inputs: &[Tensor]) -> Option<Tensor> {
        self.ragged.then(|| inputs[2])
    }

    /// The index of the bias among the inputs, if there is one.
    fn bias_input(&self) -> usize {
        2 + usize::from(self.ragged)
    }

    /// A product of the backward pass, with this one's factor.
    fn product(&self, g: &mut Graph, form: Form, a: Tensor, b: Tensor) -> Result<Tensor> {
        g.put1(Self { alpha: self.alpha, ..Self::new(form) }, &[a, b])
    }

    /// The gradient of the activation's input.
    fn gradient_pre(&self, cx: &mut Gradient<'_>) -> Result<Tensor> {
        let through = match (cx.upstream[0], self.activation) {
            (Some(dout), Some(kind)) => {
                let pre = cx.outputs.get(1).ok_or_else(|| Error::NotDifferentiable { op: self.name.into() })?;
                Some(activation_backward(cx.graph, *pre, dout, kind)?)
            }
            (dout, _) => dout,
        };
        match (through, cx.upstream.get(1).copied().flatten()) {
            (Some(a), Some(b)) => cx.graph.put1(Add, &[a, b]),
            (Some(d), None) | (None, Some(d)) => Ok(d),
            (None, None) => cx.upstream(0),
        }
    }

    fn gradient_a(&self, g: &mut Graph, b: Tensor, d: Tensor, lengths: Option<Tensor>) -> Result<Tensor> {
        if let Some(lengths) = lengths {
            let form = if self.form == Form::Nn { Form::Nt } else { Form::Nn };
            return g.put1(Self { alpha: self.alpha, ragged: true, ..Self::new(form) }, &[d, b, lengths]);
        }
        match self.form {
            Form::Nn => self.product(g, Form::Nt, d, b),
            Form::Nt => self.product(g, Form::Nn, d, b),
            Form::Tn => self.product(g, Form::Nt, b, d),
        }
    }

    fn gradient_b(&self, g: &mut Graph, a: Tensor, b: Tensor, d: Tensor) -> Result<Tensor> {
        let (left, right) = match self.form {
            Form::Nn => (a, d),
            Form::Nt => (d, a),
            Form::Tn => return self.product(g, Form::Nn, a, d),
        };
        let op = Self { alpha: self.alpha, flat: g.shape(b).rank() == 2, ..Self::new(Form::Tn) };
        g.put1(op, &[left, right])
    }
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rematerialize(&self, index: usize) -> Option<Rematerialization> {
        let kind = self.activation.filter(|_| index == 0 && self.keep_pre && !self.residual)?;
        Some(Rematerialization { op: Arc::new(Activate { kind }), from: vec![RematerializeInput::Output(1)] })
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let expected = self.bias_input() + usize::from(self.bias) + usize::from(self.residual);
        let [a, b, rest @ ..] = inputs else {
            return Err(Error::shape(self.name, format!("expected {expected} tensors, got {}", inputs.len())));
        };
        if inputs.len() != expected {
            return Err(Error::shape(self.name, format!("expected {expected} tensors, got {}", inputs.len())));
        }
        let (problem, shape) = self.problem(a, b)?;
        let out = TensorType::f32(shape);
        let mut rest = rest.iter();
        if self.ragged
            && let Some(lengths) = rest.next()
            && *lengths != TensorType::new([problem.batch], DType::U32)
        {
            return Err(Error::shape(
                self.name,
                format!("the lengths are {lengths}, but must be u32[{}]", problem.batch),
            ));
        }
        if self.bias
            && let Some(bias) = rest.next()
            && *bias != TensorType::f32([problem.n])
        {
            return Err(Error::shape(self.name, format!("the bias is {bias}, but must be f32[{}]", problem.n)));
        }
        if self.residual
            && let Some(residual) = rest.next()
            && *residual != out
        {
            return Err(Error::shape(self.name, format!("the residual is {residual}, but the result {out}")));
        }
        Ok(vec![out; 1 + usize::from(self.keep_pre)])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream[0];
        let d = self.gradient_pre(cx)?;
        let (a, b, lengths) = (cx.inputs[0], cx.inputs[1], self.lengths(cx.inputs));
        let mut gradients = vec![None; cx.inputs.len()];
        if cx.needed[0] {
            gradients[0] = Some(self.gradient_a(cx.graph, b, d, lengths)?);
        }
        if cx.needed[1] {
            // Rows past the lengths do not contribute to the weight's gradient, whatever their content.
            let d = lengths.map_or(Ok(d), |lengths| mask_rows(cx.graph, d, lengths))?;
            gradients[1] = Some(self.gradient_b(cx.graph, a, b, d)?);
        }
        let bias = self.bias_input();
        if self.bias && cx.needed[bias] {
            gradients[bias] = Some(sum_rows(cx.graph, d)?);
        }
        if self.residual {
            gradients[cx.inputs.len() - 1] = dout;
        }
        Ok(gradients)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let ty = |x: &Array| TensorType::f32(x.shape.clone());
        let (mut problem, shape) = self.problem(&ty(inputs[0]), &ty(inputs[1]))?;
        let mut a = inputs[0].data.clone();
        if self.ragged {
            for (row, values) in a.chunks_exact_mut(problem.k).enumerate() {
                if (row % problem.m) as f64 >= inputs[2].data[row / problem.m] {
                    values.fill(0.0);
                }
            }
            (problem.m, problem.batch) = (problem.m * problem.batch, 1);
        }
        let mut data = reference_product(&problem, &a, &inputs[1].data);
        let bias = self.bias.then(|| inputs[self.bias_input()]);
        for (i, x) in data.iter_mut().enumerate() {
            *x = *x * f64::from(self.alpha) + bias.map_or(0.0, |bias| bias.data[i % problem.n]);
        }
        let pre = Array { shape, data };
        let mut out = self.activation.map_or_else(|| pre.clone(), |kind| pre.map(|x| kind.value(x)));
        if let (true, Some(residual)) = (self.residual, inputs.last()) {
            out = out.zip(residual, |x, residual| x + residual);
        }
        Ok(if self.keep_pre { vec![out, pre] } else { vec![out] })
    }

    fn epilogue(&self, consumer: &dyn Op, index: usize) -> Option<Arc<dyn Op>> {
        if self.residual {
            return None;
        }
        let consumer: &dyn Any = consumer;
        if consumer.is::<Add>() {
            return Some(Arc::new(Self { residual: true, ..self.clone() }));
        }
        if self.activation.is_some() {
            return None;
        }
        if let Some(Activate { kind }) = consumer.downcast_ref() {
            return Some(Arc::new(Self { activation: Some(*kind), ..self.clone() }));
        }
        let adds_row = consumer.downcast_ref() == Some(&RowWise::Add) && index == 0;
        (adds_row && !self.bias).then(|| Arc::new(Self { bias: true, ..self.clone() }) as Arc<dyn Op>)
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let operands = Operands {
            lengths: self.ragged.then(|| cx.input(2)),
            bias: self.bias.then(|| cx.input(self.bias_input())),
            residual: self.residual.then(|| cx.input(cx.input_count() - 1)),
            pre: (self.keep_pre && cx.output_used(1)).then(|| cx.output(1)),
            ..Operands::new(cx.input(0), cx.input(1), cx.output(0))
        };
        self.launch_on(cx, &operands)
    }
}

/// The products alone, row by row of op(B), so that long rows stay in the cache.
fn reference_product(p: &Problem, a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; p.batch * p.m * p.n];
    for batch in 0..p.batch {
        let a = &a[batch * p.m * p.k..][..p.m * p.k];
        let b = &b[batch * p.n * p.k..][..p.n * p.k];
        for m in 0..p.m {
            let row = &mut out[(batch * p.m + m) * p.n..][..p.n];
            for k in 0..p.k {
                let x = if p.form.a_transposed() { a[k * p.m + m] } else { a[m * p.k + k] };
                for (n, sum) in row.iter_mut().enumerate() {
                    *sum += x * if p.form.b_transposed() { b[n * p.k + k] } else { b[k * p.n + n] };
                }
            }
        }
    }
    out
}
