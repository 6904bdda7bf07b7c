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

    /// The values.
    #[must_use]
    pub fn value(&self) -> &Array {
        &self.value
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
    /// The sum of squared errors over the sum of squared values.
    pub nmse: f64,
    /// The largest single error over the largest value.
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
        Self { name: name.into(), forward, backward, feeds, build: Box::new(build) }
    }

    /// The same case with other tolerances.
    #[must_use]
    pub fn tolerance(mut self, forward: Tolerance, backward: Tolerance) -> Self {
        self.forward = forward;
        self.backward = backward;
        self
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
            comparisons.push(compare(name, &got, &expected.data, tolerance));
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
            comparisons.push(compare(name, &analytic, &numeric, tolerance));
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

fn compare(what: &str, got: &[f64], expected: &[f64], tolerance: Tolerance) -> Comparison {
    let squares: f64 = expected.iter().map(|x| x * x).sum();
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let errors = || got.iter().zip(expected).map(|(a, b)| a - b);
    let squared_error: f64 = errors().map(|e| e * e).sum();
    // Not f64::max: it would drop a NaN.
    let largest_error = errors().fold(0.0, |m: f64, e| if m.is_nan() || e.abs() <= m { m } else { e.abs() });
    let ratio = |error: f64, scale: f64| if error == 0.0 { 0.0 } else { error / scale.max(1e-30) };
    let (nmse, worst) = (ratio(squared_error, squares), ratio(largest_error, largest));
    let passed = got.len() == expected.len() && nmse <= tolerance.nmse && worst <= tolerance.worst;
    Comparison { what: what.into(), nmse, worst, passed }
}
