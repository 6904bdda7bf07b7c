//! Running cases: on a GPU against the f64 references, and the references' gradients against finite differences.

use crate::case::{Case, Tolerance};
use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{Tensor, finite_difference};
use crate::kernel::Caps;
use crate::program::{Program, Recording, Weights, pack, unpack};

/// One compared tensor.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// `out0`, `grad.x`, …
    pub what: String,
    /// The sum of squared errors over the sum of squared values; infinite if all values should be zero and one is not.
    pub nmse: f64,
    /// The largest single error over the largest value; infinite as above.
    pub worst: f64,
    /// Whether both are within the tolerance.
    pub passed: bool,
}

impl Case {
    /// The size of a result's terms that may cancel; 0 if the case names none.
    fn terms_of(&self, result: &str) -> f64 {
        let input = result.strip_prefix("grad.").unwrap_or_default();
        self.terms.iter().find(|(name, _)| *name == input).map_or(0.0, |(_, terms)| *terms)
    }

    /// The recording of the case for an adapter with these capabilities.
    ///
    /// # Errors
    /// Those of building the graph and of recording it.
    pub fn recording(&self, caps: &Caps) -> Result<Recording> {
        Recording::new(&self.build()?.graph, caps)
    }

    /// Runs the case on a GPU and compares every output and gradient with the f64 twin.
    ///
    /// # Errors
    /// Any error that keeps the case from running.
    pub fn run(&self, gpu: &Gpu) -> Result<Vec<Comparison>> {
        self.run_as(gpu, gpu.caps())
    }

    /// As [`Case::run`], recorded for capabilities of which the GPU must have at least these. So a test covers the kernels
    /// of tighter limits, or of a class of adapter that the machine does not have.
    ///
    /// # Errors
    /// As [`Case::run`].
    pub fn run_as(&self, gpu: &Gpu, caps: &Caps) -> Result<Vec<Comparison>> {
        let built = self.build()?;
        let wanted: Vec<Tensor> = built.results.iter().map(|(_, t)| *t).collect();
        let expected = built.graph.evaluate(&built.values, &wanted)?;
        let weights = Weights::new(gpu);
        let program = Program::prepare(gpu, Recording::new(&built.graph, caps)?, &weights)?;
        program.fill_temporaries(f32::NAN.to_bits())?;
        for (name, tensor) in built.graph.inputs() {
            program.write(name, &pack(&built.values[name].data, built.graph.dtype(tensor)))?;
        }
        program.run()?;
        let mut comparisons = Vec::new();
        for ((name, tensor), expected) in built.results.iter().zip(&expected) {
            let got = unpack(&program.read(name)?, built.graph.dtype(*tensor), expected.data.len());
            let tolerance = match built.graph.dtype(*tensor) {
                DType::U32 | DType::I32 => Tolerance::EXACT,
                _ if name.starts_with("grad.") => self.backward,
                _ => self.forward,
            };
            comparisons.push(compare(name, &got, &expected.data, self.terms_of(name), tolerance));
        }
        Ok(comparisons)
    }

    /// Compares the gradients of the f64 twin with finite differences, at up to `points` elements of each input.
    ///
    /// # Errors
    /// Any error that keeps the case from being evaluated.
    pub fn check_gradients(&self, points: usize) -> Result<Vec<Comparison>> {
        let built = self.build()?;
        let Some(loss) = built.loss else { return Ok(Vec::new()) };
        let mut comparisons = Vec::new();
        for (name, tensor) in built.results.iter().filter(|(name, _)| name.starts_with("grad.")) {
            let input = &name["grad.".len()..];
            if self.differenced.is_some_and(|of| !of.contains(&input)) {
                continue;
            }
            let analytic = built.graph.evaluate(&built.values, &[*tensor])?.remove(0);
            let count = analytic.data.len();
            let chosen: Vec<usize> = (0..points.min(count)).map(|i| i * count / points.min(count)).collect();
            let numeric: Vec<f64> = chosen
                .iter()
                .map(|&i| finite_difference(&built.graph, &built.values, loss, input, i, 1e-5))
                .collect::<Result<_>>()?;
            let analytic: Vec<f64> = chosen.iter().map(|&i| analytic.data[i]).collect();
            // Differences have errors of their own, smaller than a GPU's except where the case's tolerance is wide.
            let tolerance = Tolerance { nmse: self.backward.nmse.max(1e-10), worst: self.backward.worst.max(1e-5) };
            comparisons.push(compare(name, &analytic, &numeric, self.terms_of(name), tolerance));
        }
        Ok(comparisons)
    }
}

/// A sum below this share of its terms is indistinguishable from zero in f32.
const CANCELLED: f64 = 1e-7;

/// Compares a result with its twin. Errors are relative to the twin's values, or to the terms where the terms cancel. Without
/// terms, expected zeros must be zeros.
fn compare(what: &str, got: &[f64], expected: &[f64], terms: f64, tolerance: Tolerance) -> Comparison {
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let cancelled = largest < CANCELLED * terms;
    let largest = if cancelled { terms } else { largest };
    let squares: f64 = expected.iter().map(|x| if cancelled { terms * terms } else { x * x }).sum();
    let errors = || got.iter().zip(expected).map(|(a, b)| a - b);
    let squared_error: f64 = errors().map(|e| e * e).sum();
    // Not f64::max: it would drop a NaN.
    let largest_error = errors().fold(0.0, |m: f64, e| if m.is_nan() || e.abs() <= m { m } else { e.abs() });
    // 0 / 0 counts as no error; a nonzero error over zero is infinite.
    let ratio = |error: f64, scale: f64| if error == 0.0 { 0.0 } else { error / scale };
    let (nmse, worst) = (ratio(squared_error, squares), ratio(largest_error, largest));
    let passed = got.len() == expected.len() && nmse <= tolerance.nmse && worst <= tolerance.worst;
    Comparison { what: what.into(), nmse, worst, passed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_measured_by_values_or_by_terms_that_cancel_and_never_by_rounding() {
        let tolerance = Tolerance { nmse: 1e-10, worst: 1e-5 };
        let compare = |got: &[f64], expected: &[f64], terms| compare("x", got, expected, terms, tolerance);
        assert!(compare(&[1.0, 2.000_001], &[1.0, 2.0], 0.0).passed);
        assert!(!compare(&[1.0, 2.000_1], &[1.0, 2.0], 1e6).passed, "terms that do not cancel are no excuse");
        assert!(compare(&[0.0, 0.0], &[0.0, 0.0], 0.0).passed);
        let off = compare(&[0.0, 1e-40], &[0.0, 0.0], 0.0);
        assert!(!off.passed && off.worst == f64::INFINITY, "{off:?}");
        let rounding = compare(&[3e-7, 0.0], &[1e-17, 0.0], 1.0);
        assert!(rounding.passed && rounding.worst < 4e-7, "{rounding:?}");
        assert!(!compare(&[3e-4, 0.0], &[1e-17, 0.0], 1.0).passed);
        assert!(!compare(&[1e-18; 2], &[2e-18; 2], 0.0).passed, "small values are compared as others");
        assert!(!compare(&[f64::NAN, 0.0], &[1.0, 0.0], 0.0).passed);
        assert!(!compare(&[1.0], &[1.0, 0.0], 0.0).passed);
    }
}
