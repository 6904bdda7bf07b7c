//! One case of the conformance suite: a small graph, its inputs, and how close the GPU must come.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Array, Graph, Tensor, Values, finite_difference};
use crate::kernel::Caps;
use crate::program::{Program, Recording, Weights, pack, unpack};
use crate::shape::{Shape, TensorType};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt;

/// Values that are drawn for a tensor; larger ones repeat them. A prime, so that no row is like another.
const DRAWN: usize = 65_537;

/// One input of a case.
#[derive(Clone, Debug)]
pub struct Feed {
    name: &'static str,
    value: Array,
    dtype: DType,
    differentiate: bool,
}

impl Feed {
    /// Standard normal values, differentiated.
    pub fn normal(name: &'static str, shape: impl Into<Shape>) -> Self {
        Self::normal_scaled(name, shape, 0.0, 1.0)
    }

    /// Normal values with a mean and a standard deviation, differentiated. The same name and shape give the same values.
    pub fn normal_scaled(name: &'static str, shape: impl Into<Shape>, mean: f64, deviation: f64) -> Self {
        let shape = shape.into();
        let seed = name.bytes().chain(shape.dims().iter().flat_map(|d| d.to_le_bytes()));
        let seed = seed.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The sum of twelve uniform numbers is close enough to normal for test data, and bounded.
        let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let drawn: Vec<f64> = (0..shape.numel().min(DRAWN)).map(|_| normal()).collect();
        let value = Array::from_fn(shape, |i| DType::F32.round(mean + deviation * drawn[i % DRAWN]));
        Self { name, value, dtype: DType::F32, differentiate: true }
    }

    /// Given values that are not differentiated (indices, lengths, masks).
    ///
    /// Panics never: a length that does not fit the shape shows when the case is built.
    pub fn given(
        name: &'static str,
        shape: impl Into<Shape>,
        dtype: DType,
        values: impl IntoIterator<Item = f64>,
    ) -> Self {
        let value = Array { shape: shape.into(), data: values.into_iter().collect() };
        Self { name, value, dtype, differentiate: false }
    }

    /// The same values, stored in another type (they are rounded to it). A quantised one is not differentiated.
    #[must_use]
    pub fn stored_as(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        if dtype.is_quantised() {
            self.value.data = unpack(&pack(&self.value.data, dtype), dtype, self.value.data.len());
            return self.fixed();
        }
        self.value = self.value.map(|x| dtype.round(x));
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The values.
    #[must_use]
    pub fn value(&self) -> &Array {
        &self.value
    }

    /// Asks for this input's gradient.
    #[must_use]
    pub fn differentiated(mut self) -> Self {
        self.differentiate = true;
        self
    }

    /// Does not ask for this input's gradient.
    #[must_use]
    pub fn fixed(mut self) -> Self {
        self.differentiate = false;
        self
    }
}

/// How close a GPU result must come to its f64 twin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// The sum of squared errors over the sum of squared values.
    pub nmse: f64,
    /// The largest single error over the largest value.
    pub worst: f64,
}

type Build = Box<dyn Fn(&mut Graph, &[Tensor]) -> Result<Vec<Tensor>> + Send + Sync>;

/// A small graph with inputs: what one test of the suite checks.
pub struct Case {
    /// What prints.
    pub name: String,
    /// How close outputs must come.
    pub forward: Tolerance,
    /// How close gradients must come.
    pub backward: Tolerance,
    feeds: Vec<Feed>,
    build: Build,
    terms: Vec<(&'static str, f64)>,
    differenced: Option<&'static [&'static str]>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One compared tensor.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// `out0`, `grad.x`, …
    pub what: String,
    /// The sum of squared errors over the sum of squared values; infinite where all values should be zero and one is not.
    pub nmse: f64,
    /// The largest single error over the largest value; infinite as above.
    pub worst: f64,
    /// Whether both are within the tolerance.
    pub passed: bool,
}

struct Built {
    graph: Graph,
    values: Values,
    results: Vec<(String, Tensor)>,
    loss: Option<Tensor>,
}

impl Case {
    /// A case with the tolerances of ordinary forward ops and gradients.
    pub fn new(
        name: impl Into<String>,
        feeds: Vec<Feed>,
        build: impl Fn(&mut Graph, &[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Self {
        let forward = Tolerance { nmse: 1e-10, worst: 2e-5 };
        let backward = Tolerance { nmse: 1e-8, worst: 2e-4 };
        let (terms, differenced) = (Vec::new(), None);
        Self { name: name.into(), forward, backward, feeds, build: Box::new(build), terms, differenced }
    }

    /// The same case with other tolerances.
    #[must_use]
    pub fn tolerance(mut self, forward: Tolerance, backward: Tolerance) -> Self {
        self.forward = forward;
        self.backward = backward;
        self
    }

    /// Says that the gradient of an input is a sum whose terms are about so large and may cancel. Where they do so in all of its
    /// elements, what is left in f32 is their rounding, so errors are measured by the terms.
    #[must_use]
    pub fn cancelling(mut self, input: &'static str, terms: f64) -> Self {
        self.terms.push((input, terms));
        self
    }

    /// Takes finite differences of these inputs alone: those of others show nothing, where steps are lost beside larger numbers
    /// that are added, or are too long beside larger numbers that they are multiplied by.
    #[must_use]
    pub fn differences_of(mut self, inputs: &'static [&'static str]) -> Self {
        self.differenced = Some(inputs);
        self
    }

    /// How large the terms of a result are that may cancel, if the case says so.
    fn terms_of(&self, result: &str) -> f64 {
        let input = result.strip_prefix("grad.").unwrap_or_default();
        self.terms.iter().find(|(name, _)| *name == input).map_or(0.0, |(_, terms)| *terms)
    }

    /// The graph with every output multiplied by a random upstream gradient, and the gradients of the inputs.
    fn build(&self) -> Result<Built> {
        let mut graph = Graph::new();
        let mut values = Values::new();
        let mut inputs = Vec::new();
        for feed in &self.feeds {
            Array::new(feed.value.shape.clone(), feed.value.data.clone())?;
            inputs.push(graph.input(feed.name, feed.value.shape.clone(), feed.dtype)?);
            values.insert(feed.name.into(), feed.value.clone());
        }
        let outputs = (self.build)(&mut graph, &inputs)?;
        let mut results: Vec<(String, Tensor)> =
            outputs.iter().enumerate().map(|(i, &t)| (format!("out{i}"), t)).collect();
        let wrt: Vec<usize> = (0..inputs.len()).filter(|&i| self.feeds[i].differentiate).collect();
        let mut loss = None;
        if !wrt.is_empty() {
            let mut from = Vec::new();
            for (index, &output) in outputs.iter().enumerate() {
                if graph.dtype(output) != DType::F32 {
                    continue;
                }
                let name = ["upstream0", "upstream1", "upstream2", "upstream3"][index.min(3)];
                let feed = Feed::normal(name, graph.shape(output).clone());
                let upstream = graph.input(name, feed.value.shape.clone(), DType::F32)?;
                values.insert(name.into(), feed.value);
                from.push((output, upstream));
            }
            loss = Some(weighted_sum(&mut graph, &from)?);
            let tensors: Vec<Tensor> = wrt.iter().map(|&i| inputs[i]).collect();
            let grads = graph.differentiate_from(&from, &tensors)?;
            for (&index, grad) in wrt.iter().zip(grads) {
                let name = self.feeds[index].name;
                let grad = grad.ok_or_else(|| Error::Graph(format!("no gradient reached {name}")))?;
                results.push((format!("grad.{name}"), grad));
            }
        }
        for (name, tensor) in &results {
            graph.output(name, *tensor)?;
        }
        Ok(Built { graph, values, results, loss })
    }

    /// What the case would launch on an adapter with these abilities.
    ///
    /// # Errors
    /// Those of building the graph and of recording it.
    pub fn recording(&self, caps: &Caps) -> Result<Recording> {
        Recording::new(&self.build()?.graph, caps)
    }

    /// Runs the case on a GPU and compares every output and gradient with the f64 twin.
    ///
    /// # Errors
    /// Whatever keeps the case from running at all.
    pub fn run(&self, gpu: &Gpu) -> Result<Vec<Comparison>> {
        self.run_as(gpu, gpu.caps())
    }

    /// As [`Case::run`], recorded for other abilities than the GPU's, which must have at least these: to see what is
    /// launched under tighter limits, or by a class of adapter that is not there.
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
                DType::U32 | DType::I32 => Tolerance { nmse: 0.0, worst: 0.0 },
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
    /// Whatever keeps the case from being evaluated.
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
            // Differences have their own errors: less than a GPU's, but where a case says that its gradients are hard to tell.
            let tolerance = Tolerance { nmse: self.backward.nmse.max(1e-10), worst: self.backward.worst.max(1e-5) };
            comparisons.push(compare(name, &analytic, &numeric, self.terms_of(name), tolerance));
        }
        Ok(comparisons)
    }
}

/// `Σ tensor · upstream` over all pairs, as a scalar: its gradients are what `upstream` asks for.
fn weighted_sum(graph: &mut Graph, pairs: &[(Tensor, Tensor)]) -> Result<Tensor> {
    let inputs: Vec<Tensor> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    graph.apply1(WeightedSum, &inputs)
}

/// The scalar that finite differences are taken of. It is evaluated on the CPU only.
#[derive(Debug)]
struct WeightedSum;

impl crate::graph::Op for WeightedSum {
    fn name(&self) -> &'static str {
        "weighted_sum"
    }

    fn infer(&self, _inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![TensorType::f32(Shape::default())])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let pairs = inputs.chunks_exact(2).map(|p| p[0].zip(p[1], |a, b| a * b).data.iter().sum::<f64>());
        Ok(vec![Array::scalar(pairs.sum())])
    }

    fn launch(&self, _cx: &mut crate::kernel::Launch<'_>) -> Result<()> {
        Err(Error::Graph("weighted_sum is evaluated on the CPU only".into()))
    }
}

/// Beside terms of which this share is left, f32 knows no more than zero.
const CANCELLED: f64 = 1e-7;

/// Compares a result with its twin: errors are measured by the twin's values, or, if they are what is left where terms cancel, by
/// those. Without such terms, what is zero must be zero.
fn compare(what: &str, got: &[f64], expected: &[f64], terms: f64, tolerance: Tolerance) -> Comparison {
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let cancelled = largest < CANCELLED * terms;
    let largest = if cancelled { terms } else { largest };
    let squares: f64 = expected.iter().map(|x| if cancelled { terms * terms } else { x * x }).sum();
    let errors = || got.iter().zip(expected).map(|(a, b)| a - b);
    let squared_error: f64 = errors().map(|e| e * e).sum();
    // Not f64::max: it would drop a NaN.
    let largest_error = errors().fold(0.0, |m: f64, e| if m.is_nan() || e.abs() <= m { m } else { e.abs() });
    // Without an error, zeros are not to be divided; with one, zero makes infinity.
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
