//! Matrix products: plain, with either operand transposed, batched, and as the linear layer with its epilogue.

use super::op::Matmul;
use super::problem::Form;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::{Activation, reshape};
use derive_setters::Setters;

/// The layout of a linear layer's weight in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WeightLayout {
    /// (in, out), as in GPT-2's `Conv1D`.
    InOut,
    /// (out, in), as in almost all other models.
    #[default]
    OutIn,
}

impl WeightLayout {
    /// The product of a linear layer with a weight of this layout.
    #[must_use]
    pub fn form(self) -> Form {
        match self {
            Self::InOut => Form::Nn,
            Self::OutIn => Form::Nt,
        }
    }
}

/// `a · b`: a (…, M, K) f32 and b (K, N), or b (…, K, N) with the same leading extents, give (…, M, N). b may be stored
/// in f16, bf16 or quantised.
///
/// Gradients: `da = dout bᵀ`, `db = aᵀ dout`, summed over leading axes that b lacks. The gradient of b is f32
/// whatever b is stored in; a quantised b has none.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) that names the operand that does not fit.
pub fn matmul(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.put1(Matmul::new(Form::Nn), &[a, b])
}

/// `a · bᵀ`: a (…, M, K) and b (N, K), or b (…, N, K) with the same leading extents, give (…, M, N).
///
/// Gradients: `da = dout b`, `db = doutᵀ a`. Else as [`matmul`].
///
/// # Errors
/// As [`matmul`].
pub fn matmul_nt(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.put1(Matmul::new(Form::Nt), &[a, b])
}

/// `aᵀ · b`: a (K, M) and b (K, N) give (M, N); a (…, K, M) and b (…, K, N) with the same leading extents give (…, M,
/// N).
///
/// If b has two axes and a has more, the rows of all leading axes of a are contracted with the rows of b.
/// [`matmul_tn_rows`] contracts the rows of all leading axes of both. Gradients: `da = b doutᵀ`, `db = a dout`. Else as
/// [`matmul`].
///
/// # Errors
/// As [`matmul`].
pub fn matmul_tn(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    let a = match (g.ty(a).shape.rank(), g.ty(b).shape.rank()) {
        (3.., 2) => reshape(g, a, [g.shape(a).rows(), g.shape(a).last()])?,
        _ => a,
    };
    g.put1(Matmul::new(Form::Tn), &[a, b])
}

/// `aᵀ · b` over all rows: a (…, M) and b (…, N) give (M, N). This is the gradient of a weight.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_tn_rows(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.put1(Matmul::new(Form::Tn).flattened(), &[a, b])
}

/// `x · W + bias`: x (…, in) gives (…, out), f32. The weight may be stored in f16, bf16 or quantised; the bias has
/// (out) elements.
///
/// Gradients: `dx = dout Wᵀ`, `dW = xᵀ dout` over all rows, `dbias` = the sum of dout's rows, as in [`Matmul`].
///
/// # Errors
/// As [`matmul`].
pub fn linear(g: &mut Graph, x: Tensor, weight: Tensor, bias: Option<Tensor>, layout: WeightLayout) -> Result<Tensor> {
    linear_fused(g, x, weight, LinearOptions { bias, layout, ..LinearOptions::default() })
}

/// The epilogue of a linear layer, fused into the product's kernel.
#[derive(Clone, Copy, Debug, Default, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct LinearOptions {
    /// (out), added to every row.
    pub bias: Option<Tensor>,
    /// The layout of the weight.
    pub layout: WeightLayout,
    /// Applied to product and bias.
    pub activation: Option<Activation>,
    /// (…, out), added last.
    pub residual: Option<Tensor>,
    /// (B) u32, for x (B, T, in): the rows `t ≥ lengths[b]` count as zero, and cost nothing.
    pub lengths: Option<Tensor>,
}

/// `out = act(x · W + bias) + residual`: x (…, in) gives (…, out), f32. The weight may be stored in f16, bf16 or
/// quantised.
///
/// Gradients with `d = dout act′(x · W + bias)`: `dx = d Wᵀ`, `dW = xᵀ d`, `dbias` = the sum of d's rows, `dresidual =
/// dout`.
///
/// # Errors
/// As [`matmul`].
pub fn linear_fused(g: &mut Graph, x: Tensor, weight: Tensor, options: LinearOptions) -> Result<Tensor> {
    let op = Matmul {
        name: "linear",
        bias: options.bias.is_some(),
        activation: options.activation,
        keep_pre: options.activation.is_some(),
        residual: options.residual.is_some(),
        ragged: options.lengths.is_some(),
        ..Matmul::new(options.layout.form())
    };
    let optional = [options.lengths, options.bias, options.residual];
    let inputs: Vec<Tensor> = [x, weight].into_iter().chain(optional.into_iter().flatten()).collect();
    g.put1(op, &inputs)
}
