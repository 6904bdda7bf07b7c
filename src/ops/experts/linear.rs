//! Linear layers with a weight for each group of rows.

use super::combine::Combine;
use super::slots::ExpertDispatch;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::Launch;
use crate::ops::matmul::{Form, Grouped, Rows, Variant};
use crate::shape::TensorType;

/// `out[i] = x[tokens[i]] · W[e]ᵀ`, e the expert of row i: x (T, C) f32, weight (E, N, C) f32, f16, bf16 or quantised, out (M, N)
/// f32 with the slots in the order of `routing`. Rows of no expert are zeros.
///
/// Gradients: `dx[t] = Σ_k dout[rows[t K + k]] · W[e]`, `dW[e] = Σ_i dout[i]ᵀ x[tokens[i]]` over the expert's rows;
/// zeros for an expert without any. A quantised W has none.
///
/// # Errors
/// [`Error::Shape`] that names the operand that does not fit.
pub fn grouped_linear(g: &mut Graph, x: Tensor, weight: Tensor, routing: &ExpertDispatch) -> Result<Tensor> {
    GroupedLinear::new(routing).apply(g, x, weight, routing)
}

/// [`grouped_linear`] as an op with options.
#[derive(Clone, Debug)]
pub(crate) struct GroupedLinear {
    /// Slots of a token.
    pub top_k: usize,
    /// A kernel to prefer to the default, if it is legal on the adapter.
    pub variant: Option<Variant>,
    /// Whether rows are gathered while they are loaded (else before); the adapter's default if not given.
    pub gather_on_load: Option<bool>,
}

impl GroupedLinear {
    /// The layer with the adapter's defaults.
    #[must_use]
    pub(crate) fn new(routing: &ExpertDispatch) -> Self {
        Self { top_k: routing.top_k, variant: None, gather_on_load: None }
    }

    /// Adds the layer to a graph.
    ///
    /// # Errors
    /// As [`grouped_linear`].
    pub(crate) fn apply(self, g: &mut Graph, x: Tensor, weight: Tensor, routing: &ExpertDispatch) -> Result<Tensor> {
        g.put1(self, &[x, weight, routing.sorted.starts, routing.tokens, routing.rows])
    }
}

impl Op for GroupedLinear {
    fn name(&self) -> &'static str {
        "grouped_linear"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if inputs.len() != 5 || self.top_k == 0 {
            let what = format!(
                "expected 5 tensors and slots, got {} tensors and {} slots per token",
                inputs.len(),
                self.top_k
            );
            return Err(Error::shape(self.name(), what));
        }
        let [tokens, d_model] = inputs[0].shape.expect("grouped_linear, x (T, C)")?;
        let [experts, outputs, weight_d_model] = inputs[1].shape.expect("grouped_linear, weight (E, N, C)")?;
        let slots = tokens.saturating_mul(self.top_k);
        let indices = [(&inputs[2], experts + 1), (&inputs[3], slots), (&inputs[4], slots)];
        let fits = indices.iter().all(|(ty, count)| **ty == TensorType::new([*count], DType::U32));
        if inputs[0].dtype != DType::F32 || !is_matrix(&inputs[1]) || d_model != weight_d_model || !fits {
            let what = format!(
                "x is {} and the weight {}, expected f32[T, C] and [E, N, C] of a type of weights, with a dispatch to E experts",
                inputs[0], inputs[1]
            );
            return Err(Error::shape(self.name(), what));
        }
        Ok(vec![TensorType::f32([slots, outputs])])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let &[x, weight, starts, tokens, rows] = cx.inputs else {
            return Err(Error::Graph("grouped_linear has five inputs".into()));
        };
        let (dout, mut gradients) = (cx.upstream(0)?, vec![None; 5]);
        if cx.needed[0] {
            let back = GroupedBack { variant: self.variant };
            let by_slot = cx.graph.put1(back, &[dout, weight, starts])?;
            gradients[0] = Some(cx.graph.put1(Combine { top_k: self.top_k }, &[by_slot, rows])?);
        }
        if cx.needed[1] {
            let sums = GroupedSums { variant: self.variant, gather_on_load: self.gather_on_load };
            gradients[1] = Some(cx.graph.put1(sums, &[dout, x, starts, tokens])?);
        }
        Ok(gradients)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [x, weight, starts, tokens, _] = inputs else {
            return Err(Error::shape(self.name(), "expected 5 tensors"));
        };
        let outputs = weight.shape.dims()[1];
        let mut out = Array::zeros([tokens.data.len(), outputs]);
        for (e, row) in rows_of(starts, tokens.data.len())? {
            let x = x.row(entry("tokens", tokens, row, x.shape.rows())?);
            for (n, out) in out.row_mut(row).iter_mut().enumerate() {
                *out = dot(x, weight.row(e * outputs + n));
            }
        }
        Ok(vec![out])
    }

    fn relies_on(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        vec![(2, inputs[4].shape.numel() + 1), (3, inputs[0].shape.rows())]
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let product = Grouped {
            name: self.name(),
            form: Form::Nt,
            a: Rows::gathered(cx.input(0), cx.input(3)),
            b: Rows::of(cx.input(1)),
            starts: cx.input(2),
            out: cx.output(0),
            variant: self.variant,
            gather_on_load: self.gather_on_load,
        };
        product.launch(cx)
    }
}

/// `out[i] = d[i] · W[e]`: d (M, N) f32 in the order of the experts, weight (E, N, C), out (M, C). No gradient.
#[derive(Debug)]
struct GroupedBack {
    variant: Option<Variant>,
}

impl Op for GroupedBack {
    fn name(&self) -> &'static str {
        "grouped_linear_dx"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [slots, _] = inputs[0].shape.expect(self.name())?;
        let [_, _, d_model] = inputs[1].shape.expect(self.name())?;
        Ok(vec![TensorType::f32([slots, d_model])])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [d, weight, starts] = inputs else { return Err(Error::shape(self.name(), "expected 3 tensors")) };
        let outputs = weight.shape.dims()[1];
        let mut out = Array::zeros([d.shape.rows(), weight.shape.last()]);
        for (e, row) in rows_of(starts, d.shape.rows())? {
            for (n, d) in d.row(row).iter().enumerate() {
                add_scaled(out.row_mut(row), *d, weight.row(e * outputs + n));
            }
        }
        Ok(vec![out])
    }

    fn relies_on(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        vec![(2, inputs[0].shape.rows() + 1)]
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let product = Grouped {
            name: self.name(),
            form: Form::Nn,
            a: Rows::of(cx.input(0)),
            b: Rows::of(cx.input(1)),
            starts: cx.input(2),
            out: cx.output(0),
            variant: self.variant,
            gather_on_load: None,
        };
        product.launch(cx)
    }
}

/// `out[e] = Σ_i d[i]ᵀ x[tokens[i]]` over the expert's rows: d (M, N), x (T, C), out (E, N, C), all f32. No gradient.
#[derive(Debug)]
struct GroupedSums {
    variant: Option<Variant>,
    gather_on_load: Option<bool>,
}

impl Op for GroupedSums {
    fn name(&self) -> &'static str {
        "grouped_linear_dw"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [_, outputs] = inputs[0].shape.expect(self.name())?;
        let [_, d_model] = inputs[1].shape.expect(self.name())?;
        Ok(vec![TensorType::f32([inputs[2].shape.numel() - 1, outputs, d_model])])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [d, x, starts, tokens] = inputs else { return Err(Error::shape(self.name(), "expected 4 tensors")) };
        let outputs = d.shape.last();
        let mut out = Array::zeros([starts.data.len() - 1, outputs, x.shape.last()]);
        for (e, row) in rows_of(starts, d.shape.rows())? {
            let x = x.row(entry("tokens", tokens, row, x.shape.rows())?);
            for (n, d) in d.row(row).iter().enumerate() {
                add_scaled(out.row_mut(e * outputs + n), *d, x);
            }
        }
        Ok(vec![out])
    }

    fn relies_on(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        vec![(2, inputs[0].shape.rows() + 1), (3, inputs[1].shape.rows())]
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let product = Grouped {
            name: self.name(),
            form: Form::Tn,
            a: Rows::of(cx.input(0)),
            b: Rows::gathered(cx.input(1), cx.input(3)),
            starts: cx.input(2),
            out: cx.output(0),
            variant: self.variant,
            gather_on_load: self.gather_on_load,
        };
        product.launch(cx)
    }
}

/// Whether stacked weights can be of that type.
pub(super) fn is_matrix(ty: &TensorType) -> bool {
    ty.dtype.is_weight() && ty.dtype.holds_rows_of(ty.shape.last())
}

/// Every row of `slots` that belongs to an expert, with its expert.
pub(super) fn rows_of(starts: &Array, slots: usize) -> Result<impl Iterator<Item = (usize, usize)> + '_> {
    (0..starts.data.len()).try_for_each(|e| entry("starts", starts, e, slots + 1).map(|_| ()))?;
    let pairs = starts.data.windows(2).enumerate();
    Ok(pairs.flat_map(|(e, pair)| (pair[0] as usize..pair[1] as usize).map(move |row| (e, row))))
}

/// Entry `at` of an index, refused from `end` on.
pub(super) fn entry(name: &str, index: &Array, at: usize, end: usize) -> Result<usize> {
    let found = index.data[at] as usize;
    if found < end {
        return Ok(found);
    }
    Err(Error::input(name, format!("{found} at position {at} is out of range: it must be below {end}")))
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn add_scaled(to: &mut [f64], factor: f64, x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::route;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let chosen = g.input("chosen", [4, 2], DType::U32)?;
        let routing = route(&mut g, chosen, 3)?;
        let x = g.input("x", [4, 6], DType::F32)?;
        let weight = g.input("weight", [3, 5, 7], DType::F32)?;
        let message = grouped_linear(&mut g, x, weight, &routing).unwrap_err().to_string();
        assert!(message.contains("x is f32[4, 6] and the weight f32[3, 5, 7]"), "{message}");
        let message = g.put1(GroupedLinear::new(&routing), &[x]).unwrap_err().to_string();
        assert!(message.contains("expected 5 tensors and slots, got 1 tensors and 2 slots per token"), "{message}");
        Ok(())
    }

    #[test]
    fn more_slots_than_a_number_holds_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let chosen = g.input("chosen", [4, 2], DType::U32)?;
        let routing = ExpertDispatch { top_k: usize::MAX, ..route(&mut g, chosen, 3)? };
        let (x, weight) = (g.input("x", [4, 6], DType::F32)?, g.input("weight", [3, 5, 6], DType::F32)?);
        let message = grouped_linear(&mut g, x, weight, &routing).unwrap_err().to_string();
        assert!(message.contains("x is f32[4, 6] and the weight f32[3, 5, 6]"), "{message}");
        assert_eq!(routing.slots(), usize::MAX);
        Ok(())
    }

    #[test]
    fn an_index_out_of_range_is_named() -> Result<()> {
        let index = |data: &[f64]| Array { shape: [data.len()].into(), data: data.to_vec() };
        let (x, weight) = (Array::zeros([2, 3]), Array::zeros([1, 4, 3]));
        let (d, out) = (Array::zeros([2, 4]), Array::zeros([2, 3]));
        let (all, good, bad) = (index(&[0.0, 2.0]), index(&[0.0, 1.0]), index(&[0.0, 2.0]));
        let linear = GroupedLinear { top_k: 1, variant: None, gather_on_load: None };
        let sums = GroupedSums { variant: None, gather_on_load: None };
        let past = index(&[0.0, 3.0]);
        let refused = [
            (linear.reference(&[&x, &weight, &all, &bad, &good]), "tokens: 2 at position 1"),
            (linear.reference(&[&x, &weight, &past, &good, &good]), "starts: 3 at position 1"),
            (GroupedBack { variant: None }.reference(&[&d, &weight, &past]), "starts: 3 at position 1"),
            (sums.reference(&[&d, &x, &all, &bad]), "tokens: 2 at position 1"),
            (Combine { top_k: 1 }.reference(&[&out, &bad]), "rows: 2 at position 1"),
        ];
        for (result, what) in refused {
            let message = result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
            assert!(message.starts_with(what), "{message}");
        }
        assert_eq!(linear.reference(&[&x, &weight, &all, &good, &good])?[0].shape.dims(), [2, 4]);
        Ok(())
    }
}
