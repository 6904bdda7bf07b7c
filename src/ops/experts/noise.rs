//! Noise on the logits of a gate.

use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, kernel};
use crate::ops::random::{normal, threefry};
use crate::ops::rows;
use crate::shape::TensorType;

static NOISY_LOGITS: Kernel = kernel!("experts/noisy_logits");
static RANDOM: Snippet = kernel!("common/random");
static NORMAL: Snippet = kernel!("common/normal");

/// `out[i] = clean[i] + n[i] · softplus(raw[i])`, `n[i]` standard normal, by Box and Muller from Threefry keyed by
/// `seed` at counter (i, `salt`): logits of a gate with noise of a learned standard deviation, for training.
///
/// `clean` and `raw` are f32 of the same shape. `seed` (2) u32 is written by the caller for each step; `salt` distinguishes the layers of one
/// step, and this op from dropout.
///
/// Gradients: `dclean = dout`, `draw = dout · n · σ(raw)`. No noise is stored.
///
/// Shazeer et al., `Outrageously Large Neural Networks`, 2017 (arXiv 1701.06538).
///
/// # Errors
/// [`Error::Shape`] if `clean` and `raw` differ or are not f32, or `seed` is not (2) u32.
pub fn noisy_logits(g: &mut Graph, clean: Tensor, raw: Tensor, seed: Tensor, salt: u32) -> Result<Tensor> {
    g.put1(NoisyLogits { salt, backward: false }, &[clean, raw, seed])
}

/// See [`noisy_logits`]. Its gradient by `raw` is the same op, `backward`, with the upstream gradient in place of the
/// logits.
#[derive(Debug)]
struct NoisyLogits {
    salt: u32,
    backward: bool,
}

impl Op for NoisyLogits {
    fn name(&self) -> &'static str {
        if self.backward { "noisy_logits_backward" } else { "noisy_logits" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if inputs[2] != TensorType::new([2], DType::U32) {
            return Err(Error::shape(self.name(), format!("expected the seed to be u32[2], got {}", inputs[2])));
        }
        rows::same_f32(self.name(), &inputs[..2], 2)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        if self.backward {
            return Err(Error::NotDifferentiable { op: self.name().into() });
        }
        let (dout, raw, seed) = (cx.upstream(0)?, cx.inputs[1], cx.inputs[2]);
        let op = Self { salt: self.salt, backward: true };
        let draw = if cx.needed[1] { Some(cx.graph.put1(op, &[dout, raw, seed])?) } else { None };
        Ok(vec![Some(dout), draw, None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (a, raw) = (&inputs[0].data, &inputs[1].data);
        let seed = [inputs[2].data[0] as u32, inputs[2].data[1] as u32];
        let element = |i: usize| {
            let noise = normal(threefry(seed, [i as u32, self.salt]));
            let e = (-raw[i].abs()).exp();
            match self.backward {
                false => a[i] + noise * (raw[i].max(0.0) + e.ln_1p()),
                true => a[i] * noise / (1.0 + (-raw[i]).exp()),
            }
        };
        Ok(vec![Array::from_fn(inputs[0].shape.clone(), element)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (a, raw, seed, out) = (cx.input(0), cx.input(1), cx.input(2), cx.output(0));
        let count = out.numel();
        cx.dispatch(
            Dispatch::new(&NOISY_LOGITS)
                .constant("BACKWARD", self.backward)
                .snippet(&RANDOM)
                .snippet(&NORMAL)
                .read(a)
                .read(raw)
                .read(seed)
                .write(out)
                .param(count)
                .param(self.salt as usize)
                .groups_for(count, 64)
                .flops(40 * count as u64),
        )
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, std, salt) in [([1, 1], 1.0, 0), ([31, 8], 4.0, 3), ([257, 33], 1.0, u32::MAX), ([3, 11], 60.0, 9)] {
        let feeds = vec![
            Feed::normal("clean", shape),
            Feed::normal_scaled("raw", shape, 0.5, std),
            Feed::given("seed", [2], DType::U32, [4_000_000_007.0, 12_345.0]),
        ];
        cases.push(Case::new(format!("noisy_logits {shape:?}, std {std}"), feeds, move |g, x| {
            Ok(vec![noisy_logits(g, x[0], x[1], x[2], salt)?])
        }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_is_normal_and_another_salt_gives_other_noise() -> Result<()> {
        let clean = Array::zeros([20_000]);
        // softplus(ln(e − 1)) = 1.
        let raw = clean.map(|_| (std::f64::consts::E - 1.0).ln());
        let seed = Array::new([2], vec![5.0, 8.0])?;
        let noise = |salt| -> Result<Vec<f64>> {
            Ok(NoisyLogits { salt, backward: false }.reference(&[&clean, &raw, &seed])?.remove(0).data)
        };
        let (a, b) = (noise(0)?, noise(1)?);
        let mean = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).sum::<f64>() / a.len() as f64;
        assert!(mean(&|i| a[i]).abs() < 0.02);
        assert!((mean(&|i| a[i] * a[i]) - 1.0).abs() < 0.03);
        assert!((mean(&|i| a[i].powi(4)) - 3.0).abs() < 0.2);
        assert!(mean(&|i| a[i] * b[i]).abs() < 0.02);
        assert!(mean(&|i| a[i] * a[(i + 1) % a.len()]).abs() < 0.02);
        Ok(())
    }

    #[test]
    fn misfits_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let clean = g.input("clean", [2, 3], DType::F32)?;
        let raw = g.input("raw", [3, 2], DType::F32)?;
        let seed = g.input("seed", [2], DType::U32)?;
        let refused = |result: Result<Tensor>| result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let message = refused(noisy_logits(&mut g, clean, raw, seed, 0));
        assert_eq!(message, "noisy_logits: f32[2, 3] and f32[3, 2] differ");
        let message = refused(noisy_logits(&mut g, clean, clean, raw, 0));
        assert_eq!(message, "noisy_logits: expected the seed to be u32[2], got f32[3, 2]");
        Ok(())
    }
}
