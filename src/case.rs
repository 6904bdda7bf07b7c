//! A case of the conformance suite as data: a small graph, its inputs, and how close a GPU must come. Cases stand beside their ops; the room
//! `check` runs them.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor, Values};
use crate::kernel::Launch;
use crate::quantised::{dequantise, quantise};
use crate::shape::{Shape, TensorType};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt;

/// The number of drawn values; larger tensors repeat them. A prime, so that rows differ.
const DRAWN: usize = 65_537;

/// Times that values are rounded to a quantised type.
const ROUNDS: usize = 4;

/// One input of a case.
#[derive(Clone, Debug)]
pub struct Feed {
    name: &'static str,
    value: Array,
    dtype: DType,
    differentiate: bool,
    /// Mean and standard deviation of values that are drawn, and may be drawn again.
    drawn: Option<[f64; 2]>,
}

impl Feed {
    /// Standard normal values, differentiated.
    pub fn normal(name: &'static str, shape: impl Into<Shape>) -> Self {
        Self::normal_scaled(name, shape, 0.0, 1.0)
    }

    /// Normal values with a mean and a standard deviation, differentiated. The same name and shape give the same values.
    pub fn normal_scaled(name: &'static str, shape: impl Into<Shape>, mean: f64, deviation: f64) -> Self {
        let value = draw(name, shape.into(), [mean, deviation], 0);
        Self { name, value, dtype: DType::F32, differentiate: true, drawn: Some([mean, deviation]) }
    }

    /// The same input with values of another seed; given values stay.
    fn seeded(self, seed: u64) -> Self {
        let Some(drawn) = self.drawn else { return self };
        let differentiate = self.differentiate;
        let value = draw(self.name, self.value.shape.clone(), drawn, seed);
        let dtype = self.dtype;
        Self { differentiate, ..Self { value, ..self }.stored_as(dtype) }
    }

    /// Given values that are not differentiated (indices, lengths, masks). A length that does not fit the shape is an error when the case is
    /// built.
    pub fn given(
        name: &'static str,
        shape: impl Into<Shape>,
        dtype: DType,
        values: impl IntoIterator<Item = f64>,
    ) -> Self {
        let value = Array { shape: shape.into(), data: values.into_iter().collect() };
        Self { name, value, dtype, differentiate: false, drawn: None }
    }

    /// The same values, stored in another type (they are rounded to it). A quantised one is not differentiated.
    #[must_use]
    pub fn stored_as(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        if dtype.is_quantised() {
            // They are rounded again when they are written, and must stay. Some blocks get there by another round or two; the rest become zeros.
            for round in 0..ROUNDS {
                let values: Vec<f32> = self.value.data.iter().map(|&x| x as f32).collect();
                let rounded = dequantise(dtype, &quantise(dtype, &values), values.len());
                let blocks = self.value.data.chunks_mut(dtype.block()).zip(rounded.chunks(dtype.block()));
                for (block, rounded) in blocks.filter(|(block, rounded)| block != rounded) {
                    if round + 1 < ROUNDS { block.copy_from_slice(rounded) } else { block.fill(0.0) }
                }
            }
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

/// Normal values of a name, a shape and a seed.
fn draw(name: &str, shape: Shape, [mean, deviation]: [f64; 2], seed: u64) -> Array {
    let text = name.bytes().chain(shape.dims().iter().flat_map(|d| d.to_le_bytes()));
    let hash = text.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut rng = ChaCha8Rng::seed_from_u64(hash ^ seed);
    // The sum of twelve uniform numbers is close enough to normal for test data, and bounded.
    let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
    let drawn: Vec<f64> = (0..shape.numel().min(DRAWN)).map(|_| normal()).collect();
    Array::from_fn(shape, |i| DType::F32.round(mean + deviation * drawn[i % DRAWN]))
}

/// `count` indices of 0..rows in no particular order, some rows more often than others.
pub(crate) fn mixed(count: usize, rows: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * i + 7 * i) % 1009 % rows) as f64).collect()
}

/// How close a GPU result must come to its f64 twin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// The sum of squared errors over the sum of squared values.
    pub nmse: f64,
    /// The largest single error over the largest value.
    pub worst: f64,
}

impl Tolerance {
    /// For ops that only move or count: exact.
    pub(crate) const EXACT: Self = Self { nmse: 0.0, worst: 0.0 };
}

type Build = Box<dyn Fn(&mut Graph, &[Tensor]) -> Result<Vec<Tensor>> + Send + Sync>;

/// What a case is made of.
enum Make {
    /// Inputs, and outputs of them.
    Feeds(Vec<Feed>, Build),
    /// A graph of its own, of a seed.
    Whole(Box<dyn Fn(u64) -> Result<Built> + Send + Sync>),
}

/// The results of a case that are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Results {
    /// Outputs and gradients.
    #[default]
    All,
    /// Outputs only; no gradient is computed.
    Outputs,
    /// Gradients only.
    Gradients,
}

/// A small graph with inputs: one test of the suite.
pub struct Case {
    /// The name in reports.
    pub name: String,
    /// How close outputs must come.
    pub forward: Tolerance,
    /// How close gradients must come.
    pub backward: Tolerance,
    make: Make,
    seed: u64,
    pub(crate) terms: Vec<(&'static str, f64)>,
    pub(crate) differenced: Option<&'static [&'static str]>,
    /// The least size that gradients are measured by, as a share of the largest entry of all gradients.
    pub(crate) floor: f64,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The graph of a case, its inputs and results.
pub(crate) struct Built {
    /// The graph, with every result as an output.
    pub(crate) graph: Graph,
    /// The values of inputs, upstream gradients and parameters.
    pub(crate) values: Values,
    /// The outputs of the case and the gradients of its inputs, by name.
    pub(crate) results: Vec<(String, Tensor)>,
    /// The scalar that gradients are taken of, if any.
    pub(crate) loss: Option<Tensor>,
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
        Self {
            name: name.into(),
            forward,
            backward,
            make: Make::Feeds(feeds, Box::new(build)),
            seed: 0,
            terms: Vec::new(),
            differenced: None,
            floor: 0.0,
        }
    }

    /// A case that is a graph with its values, of a seed; gradients below a share of the largest one are measured by that share.
    pub(crate) fn whole(
        name: impl Into<String>,
        floor: f64,
        make: impl Fn(u64) -> Result<Built> + Send + Sync + 'static,
    ) -> Self {
        let none = Self::new(name, Vec::new(), |_, _| Ok(Vec::new()));
        Self { make: Make::Whole(Box::new(make)), floor, ..none }
    }

    /// The same case with inputs drawn by another seed; seed 0 draws those of [`Case::new`]. Inputs that are given stay.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        if let Make::Feeds(feeds, _) = &mut self.make {
            *feeds = std::mem::take(feeds).into_iter().map(|feed| feed.seeded(seed)).collect();
        }
        self.seed = seed;
        self
    }

    /// The type of the inputs' numbers: the first that is not f32, or f32.
    #[must_use]
    pub fn dtype(&self) -> DType {
        let Make::Feeds(feeds, _) = &self.make else { return DType::F32 };
        let mut types = feeds.iter().map(|feed| feed.dtype);
        types.find(|dtype| !matches!(dtype, DType::F32 | DType::U32 | DType::I32)).unwrap_or(DType::F32)
    }

    /// Whether the case is a graph of its own, a whole model.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.make, Make::Whole(_))
    }

    /// The same case with other tolerances.
    #[must_use]
    pub fn tolerance(mut self, forward: Tolerance, backward: Tolerance) -> Self {
        self.forward = forward;
        self.backward = backward;
        self
    }

    /// Declares that the gradient of an input is a sum of terms of about this size that may cancel. Where they cancel in all elements, only
    /// rounding is left in f32, so errors are relative to the terms.
    #[must_use]
    pub fn cancelling(mut self, input: &'static str, terms: f64) -> Self {
        self.terms.push((input, terms));
        self
    }

    /// Takes finite differences of these inputs only. Those of the others are useless: the step is lost beside larger summands, or is too
    /// long beside larger factors.
    #[must_use]
    pub fn differences_of(mut self, inputs: &'static [&'static str]) -> Self {
        self.differenced = Some(inputs);
        self
    }

    /// The graph with every output multiplied by a random upstream gradient, and the gradients of the inputs.
    pub(crate) fn build(&self) -> Result<Built> {
        self.build_for(Results::All)
    }

    /// The same with the results that are wanted.
    pub(crate) fn build_for(&self, wanted: Results) -> Result<Built> {
        let mut built = match &self.make {
            Make::Feeds(feeds, build) => self.build_feeds(feeds, build, wanted)?,
            Make::Whole(make) => make(self.seed)?,
        };
        let is_gradient = |name: &str| name.starts_with("grad.");
        built.results.retain(|(name, _)| match wanted {
            Results::All => true,
            Results::Outputs => !is_gradient(name),
            Results::Gradients => is_gradient(name),
        });
        for (name, tensor) in &built.results {
            built.graph.output(name, *tensor)?;
        }
        Ok(built)
    }

    fn build_feeds(&self, feeds: &[Feed], build: &Build, wanted: Results) -> Result<Built> {
        let mut graph = Graph::new();
        let mut values = Values::new();
        let mut inputs = Vec::new();
        for feed in feeds {
            Array::new(feed.value.shape.clone(), feed.value.data.clone())?;
            inputs.push(graph.input(feed.name, feed.value.shape.clone(), feed.dtype)?);
            values.insert(feed.name.into(), feed.value.clone());
        }
        let outputs = build(&mut graph, &inputs)?;
        let mut results: Vec<(String, Tensor)> =
            outputs.iter().enumerate().map(|(i, &t)| (format!("out{i}"), t)).collect();
        let wrt: Vec<usize> = (0..inputs.len()).filter(|&i| feeds[i].differentiate).collect();
        let mut loss = None;
        if !wrt.is_empty() && wanted != Results::Outputs {
            let mut from = Vec::new();
            for (index, &output) in outputs.iter().enumerate() {
                if graph.dtype(output) != DType::F32 {
                    continue;
                }
                let name = ["upstream0", "upstream1", "upstream2", "upstream3"][index.min(3)];
                let feed = Feed::normal(name, graph.shape(output).clone()).seeded(self.seed);
                let upstream = graph.input(name, feed.value.shape.clone(), DType::F32)?;
                values.insert(name.into(), feed.value);
                from.push((output, upstream));
            }
            loss = Some(weighted_sum(&mut graph, &from)?);
            let tensors: Vec<Tensor> = wrt.iter().map(|&i| inputs[i]).collect();
            let grads = graph.differentiate_from(&from, &tensors)?;
            for (&index, grad) in wrt.iter().zip(grads) {
                let name = feeds[index].name;
                let grad = grad.ok_or_else(|| Error::Graph(format!("no gradient reached {name}")))?;
                results.push((format!("grad.{name}"), grad));
            }
        }
        Ok(Built { graph, values, results, loss })
    }
}

/// `Σ tensor · upstream` over all pairs, as a scalar: the gradient of each tensor is its `upstream`.
fn weighted_sum(graph: &mut Graph, pairs: &[(Tensor, Tensor)]) -> Result<Tensor> {
    let inputs: Vec<Tensor> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    graph.apply1(WeightedSum, &inputs)
}

/// The scalar that finite differences are taken of. It is evaluated on the CPU only.
#[derive(Debug)]
struct WeightedSum;

impl Op for WeightedSum {
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

    fn launch(&self, _cx: &mut Launch<'_>) -> Result<()> {
        Err(Error::Graph("weighted_sum is evaluated on the CPU only".into()))
    }
}
