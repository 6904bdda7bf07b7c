//! The second half of gated experts, and the weighted sum of a token's experts.

use super::combine::{combine, sum};
use super::linear::{add_scaled, dot, entry, is_matrix, rows_of};
use super::slots::ExpertDispatch;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Kernel, Launch, kernel};
use crate::ops::arithmetic::activation::{ACTIVATION_SNIPPET, Activation, gated_into};
use crate::ops::matmul::{Form, Grouped, Rows};
use crate::ops::rows::RowVariant;
use crate::shape::TensorType;

static EXPERT_BACKWARD: [Kernel; 2] =
    [kernel!("experts/expert_backward_threads"), kernel!("experts/expert_backward_workgroup")];

/// `y[t] = Σ_k weights[t, k] · (f(gate[i]) ⊙ up[i]) W[e]ᵀ`, i the row of slot (t, k) and e its expert.
///
/// gate and up (M, F) f32 in the order of `routing`, W (E, C, F) f32, f16, bf16 or quantised, weights (T, K) f32, y (T, C).
///
/// Gradients, with `a = f(gate) ⊙ up` computed again and `b[i] = dy[tokens[i]] · W[e]`, so that the experts' outputs are not needed:
/// `dweights[t, k] = ⟨b[i], a[i]⟩`, `da = weight · b`, `dup = da ⊙ f(gate)`, `dgate = da ⊙ up ⊙ f′(gate)`,
/// `dW[e] = Σ_i dy[tokens[i]]ᵀ (weight · a[i])`.
///
/// # Errors
/// [`Error::Shape`] that names the operand that does not fit.
pub fn expert_output(
    g: &mut Graph,
    [gate, up]: [Tensor; 2],
    weight: Tensor,
    weights: Tensor,
    routing: &ExpertDispatch,
    activation: Activation,
) -> Result<Tensor> {
    let op = ExpertOutput { top_k: routing.top_k, activation };
    g.put1(op, &[gate, up, weight, weights, routing.sorted.order, routing.sorted.starts, routing.tokens, routing.rows])
}

/// See [`expert_output`].
#[derive(Debug)]
struct ExpertOutput {
    top_k: usize,
    activation: Activation,
}

impl Op for ExpertOutput {
    fn name(&self) -> &'static str {
        "expert_output"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [slots, d_ff] = inputs[0].shape.expect("expert_output, gate (M, F)")?;
        let [experts, d_model, weight_d_ff] = inputs[2].shape.expect("expert_output, weight (E, C, F)")?;
        let [tokens, top_k] = inputs[3].shape.expect("expert_output, weights (T, K)")?;
        let refuse = |what: String| Err(Error::shape("expert_output", what));
        if inputs[0].dtype != DType::F32 || inputs[1] != inputs[0] {
            return refuse(format!("gate is {} and up {}: both must be the same f32[M, F]", inputs[0], inputs[1]));
        }
        if !is_matrix(&inputs[2]) || weight_d_ff != d_ff || inputs[5] != TensorType::new([experts + 1], DType::U32) {
            return refuse(format!(
                "the weight is {}, expected [E, C, {d_ff}] of a type of weights, with a dispatch to E experts",
                inputs[2]
            ));
        }
        let index = TensorType::new([slots], DType::U32);
        if [4, 6, 7].iter().any(|&i| inputs[i] != index) {
            let [order, tokens, rows] = [4, 6, 7].map(|i| &inputs[i]);
            return refuse(format!("order is {order}, tokens {tokens} and rows {rows}: each must be {index}"));
        }
        if self.top_k == 0 {
            return refuse("a token has 0 slots, but needs at least one".into());
        }
        if inputs[3].dtype != DType::F32 || top_k != self.top_k || tokens * top_k != slots {
            let (k, t) = (self.top_k, slots / self.top_k);
            return refuse(format!("the weights are {}, expected one per slot: f32[{t}, {k}]", inputs[3]));
        }
        Ok(vec![TensorType::f32([tokens, d_model])])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = cx.upstream(0)?;
        let back = ExpertOutputBackward { activation: self.activation };
        let inputs = [&cx.inputs[..7], &[dy]].concat();
        let mut gradients: Vec<Option<Tensor>> = cx.graph.put(back, &inputs)?.into_iter().map(Some).collect();
        gradients.resize(8, None);
        Ok(gradients)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [gate, up, weight, weights, _, starts, _, rows] = inputs else {
            return Err(Error::shape(self.name(), "expected 8 tensors"));
        };
        let d_model = weight.shape.dims()[1];
        let active = gate.zip(up, |gate, up| self.activation.value(gate) * up);
        let mut out = Array::zeros([gate.shape.rows(), d_model]);
        for (e, row) in rows_of(starts, gate.shape.rows())? {
            for (c, out) in out.row_mut(row).iter_mut().enumerate() {
                *out = dot(active.row(row), weight.row(e * d_model + c));
            }
        }
        Ok(vec![sum(&out, rows, self.top_k, |slot| weights.data[slot])?])
    }

    fn relies_on(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        let slots = inputs[0].shape.rows();
        let tokens = (6, slots / self.top_k.max(1));
        vec![(4, slots), (5, slots + 1), tokens, (7, slots)]
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (gate, up, y) = (cx.input(0), cx.input(1), cx.output(0));
        let active = cx.scratch(gate.shape.clone(), DType::F32);
        gated_into(cx, [gate, up, active.clone()], self.activation)?;
        let out = cx.scratch([active.shape.rows(), y.shape.last()], DType::F32);
        let product = Grouped {
            name: self.name(),
            form: Form::Nt,
            a: Rows::of(active),
            b: Rows::of(cx.input(2)),
            starts: cx.input(5),
            out: out.clone(),
            variant: None,
            gather_on_load: None,
        };
        product.launch(cx)?;
        combine(cx, &out, &cx.input(7), Some(&cx.input(3)), &y, self.top_k)
    }
}

/// The gradients of [`expert_output`]. Inputs: gate, up, weight, weights, order, starts, tokens, dy. Outputs: dgate, dup (M, F),
/// dweight (E, C, F), dweights (T, K), all f32.
#[derive(Debug)]
struct ExpertOutputBackward {
    activation: Activation,
}

impl Op for ExpertOutputBackward {
    fn name(&self) -> &'static str {
        "expert_output_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let f32 = |ty: &TensorType| TensorType::f32(ty.shape.clone());
        Ok(inputs[..4].iter().map(f32).collect())
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [gate, up, weight, weights, order, starts, tokens, dy] = inputs else {
            return Err(Error::shape(self.name(), "expected 8 tensors"));
        };
        let d_model = weight.shape.dims()[1];
        let (mut dgate, mut dup) = (Array::zeros(gate.shape.clone()), Array::zeros(gate.shape.clone()));
        let (mut dweight, mut dweights) = (Array::zeros(weight.shape.clone()), Array::zeros(weights.shape.clone()));
        for (e, row) in rows_of(starts, gate.shape.rows())? {
            let slot = entry("order", order, row, weights.data.len())?;
            let dy = dy.row(entry("tokens", tokens, row, dy.shape.rows())?);
            let factor = weights.data[slot];
            let active: Vec<f64> =
                gate.row(row).iter().zip(up.row(row)).map(|(gate, up)| self.activation.value(*gate) * up).collect();
            let mut back = vec![0.0; active.len()];
            for (c, dy) in dy.iter().enumerate() {
                add_scaled(&mut back, *dy, weight.row(e * d_model + c));
                add_scaled(dweight.row_mut(e * d_model + c), dy * factor, &active);
            }
            dweights.data[slot] = dot(&back, &active);
            for (i, back) in back.iter().enumerate() {
                let (gate, up) = (gate.row(row)[i], up.row(row)[i]);
                dgate.row_mut(row)[i] = factor * back * up * self.activation.derivative(gate);
                dup.row_mut(row)[i] = factor * back * self.activation.value(gate);
            }
        }
        Ok(vec![dgate, dup, dweight, dweights])
    }

    fn relies_on(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        let slots = inputs[0].shape.rows();
        let tokens = (6, inputs[7].shape.rows());
        vec![(4, slots), (5, slots + 1), tokens]
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (gate, up, weight, weights) = (cx.input(0), cx.input(1), cx.input(2), cx.input(3));
        let (starts, tokens, dy) = (cx.input(5), cx.input(6), cx.input(7));
        let (slots, d_ff) = (gate.shape.rows(), gate.shape.last());
        // The gradient through the down projection, then the weighted activations in the same memory.
        let back = cx.scratch([slots, d_ff], DType::F32);
        let through = Grouped {
            name: self.name(),
            form: Form::Nn,
            a: Rows::gathered(dy.clone(), tokens.clone()),
            b: Rows::of(weight),
            starts: starts.clone(),
            out: back.clone(),
            variant: None,
            gather_on_load: None,
        };
        through.launch(cx)?;
        let variant = RowVariant::choose(None, cx.caps(), slots, d_ff);
        let dispatch = variant.over_rows(cx.caps(), &EXPERT_BACKWARD, slots, d_ff);
        let dispatch = dispatch.constant("ACTIVATION", self.activation.code()).snippet(&ACTIVATION_SNIPPET);
        let dispatch = dispatch.update(back.clone()).read(gate).read(up).read(cx.input(4)).read(weights);
        let dispatch = dispatch.write(cx.output(0)).write(cx.output(1)).write(cx.output(3));
        cx.dispatch(dispatch.flops(8 * (slots * d_ff) as u64))?;
        if !cx.output_used(2) {
            return Ok(());
        }
        let sums = Grouped {
            name: self.name(),
            form: Form::Tn,
            a: Rows::gathered(dy, tokens),
            b: Rows::of(back),
            starts,
            out: cx.output(2),
            variant: None,
            gather_on_load: None,
        };
        sums.launch(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::route;

    /// The error of a changed dispatch.
    fn refused(change: impl Fn(&mut Graph, ExpertDispatch) -> Result<ExpertDispatch>) -> Result<String> {
        let mut g = Graph::new();
        let chosen = g.input("chosen", [4, 2], DType::U32)?;
        let routing = route(&mut g, chosen, 3)?;
        let routing = change(&mut g, routing)?;
        let gate = g.input("gate", [8, 5], DType::F32)?;
        let weight = g.input("weight", [3, 6, 5], DType::F32)?;
        let weights = g.input("weights", [4, 2], DType::F32)?;
        let out = expert_output(&mut g, [gate, gate], weight, weights, &routing, Activation::Silu);
        Ok(out.map(|_| String::new()).unwrap_or_else(|e| e.to_string()))
    }

    #[test]
    fn a_dispatch_that_does_not_fit_is_refused() -> Result<()> {
        assert_eq!(refused(|_, routing| Ok(routing))?, "");
        let none = refused(|_, routing| Ok(ExpertDispatch { top_k: 0, ..routing }))?;
        assert_eq!(none, "expert_output: a token has 0 slots, but needs at least one");
        let short = refused(|g, routing| Ok(ExpertDispatch { rows: g.input("short", [7], DType::U32)?, ..routing }))?;
        let what = "order is u32[8], tokens u32[8] and rows u32[7]: each must be u32[8]";
        assert_eq!(short, format!("expert_output: {what}"));
        let float = refused(|g, routing| Ok(ExpertDispatch { tokens: g.input("float", [8], DType::F32)?, ..routing }))?;
        assert!(float.contains("tokens f32[8]"), "{float}");
        Ok(())
    }

    #[test]
    fn an_index_out_of_range_is_named() -> Result<()> {
        let index = |data: &[f64]| Array { shape: [data.len()].into(), data: data.to_vec() };
        let (gate, weight, weights) = (Array::zeros([2, 3]), Array::zeros([1, 4, 3]), Array::zeros([2, 1]));
        let (starts, good, bad) = (index(&[0.0, 2.0]), index(&[0.0, 1.0]), index(&[0.0, 9.0]));
        let op = ExpertOutput { top_k: 1, activation: Activation::Silu };
        let back = ExpertOutputBackward { activation: Activation::Silu };
        let dy = Array::zeros([2, 4]);
        let refused = [
            (op.reference(&[&gate, &gate, &weight, &weights, &good, &starts, &good, &bad]), "rows"),
            (op.reference(&[&gate, &gate, &weight, &weights, &good, &bad, &good, &good]), "starts"),
            (back.reference(&[&gate, &gate, &weight, &weights, &bad, &starts, &good, &dy]), "order"),
            (back.reference(&[&gate, &gate, &weight, &weights, &good, &starts, &bad, &dy]), "tokens"),
        ];
        for (result, name) in refused {
            let message = result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
            assert!(message.starts_with(&format!("{name}: 9 at position 1 is out of range")), "{message}");
        }
        Ok(())
    }
}
