//! A small regression, its data, and runs of it.

pub(crate) use super::losses::losses;
use wgformer::graph::Storage;
use wgformer::ops::{self, Activation};
use wgformer::train::{
    AdamOptions, BatchSource, Decay, Feeds, HeldOut, Objective, RunOptions, Schedule, StepOptions, Trainer,
};
use wgformer::{DType, Gpu, Graph, Result, Tensor, TensorType, Weights};

pub(crate) const INPUTS: usize = 7;

const HIDDEN: usize = 13;

/// `mean((gelu(tanh(x w + b)) u - y)²)`.
#[derive(Clone)]
pub(crate) struct Regression {
    pub(crate) rows: usize,
    pub(crate) storage: DType,
}

impl Regression {
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows, storage: DType::F32 }
    }
}

impl Objective for Regression {
    fn parameters(&self, _: &Storage) -> Result<Vec<(String, TensorType)>> {
        Ok(vec![
            ("w".into(), TensorType::new([INPUTS, HIDDEN], self.storage)),
            ("b".into(), TensorType::f32([HIDDEN])),
            ("u".into(), TensorType::new([HIDDEN, 1], self.storage)),
        ])
    }

    fn loss(&self, g: &mut Graph, _training: bool) -> Result<Tensor> {
        let x = g.input("x", [self.rows, INPUTS], DType::F32)?;
        let y = g.input("y", [self.rows, 1], DType::F32)?;
        let w = g.parameter("w", [INPUTS, HIDDEN], self.storage)?;
        let b = g.parameter("b", [HIDDEN], DType::F32)?;
        let u = g.parameter("u", [HIDDEN, 1], self.storage)?;
        let hidden = g.scope("blocks.0", |g| {
            let hidden = ops::matmul(g, x, w)?;
            let hidden = ops::add_row(g, hidden, b)?;
            let hidden = ops::activation(g, hidden, Activation::Tanh)?;
            ops::activation(g, hidden, Activation::GeluTanh)
        })?;
        let guess = ops::matmul(g, hidden, u)?;
        let error = ops::sub(g, guess, y)?;
        let square = ops::mul(g, error, error)?;
        ops::mean(g, square)
    }
}

/// Rows of a smooth function, a fixed set of micro-batches over and over.
pub(crate) struct Rows {
    pub(crate) rows: usize,
    count: u64,
    pub(crate) next: u64,
}

pub(crate) fn wave(seed: u64, index: u64) -> f32 {
    let bits = (seed.wrapping_mul(0x9e37_79b9) ^ index).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((bits >> 40) as f32 / (1 << 24) as f32 - 0.5) * 2.0
}

impl Rows {
    pub(crate) fn new(rows: usize, count: u64) -> Self {
        Self { rows, count, next: 0 }
    }

    pub(crate) fn x(&self, index: u64) -> Vec<f32> {
        let first = (index % self.count) * (self.rows * INPUTS) as u64;
        (0..(self.rows * INPUTS) as u64).map(|i| wave(1, first + i)).collect()
    }

    pub(crate) fn y(&self, index: u64) -> Vec<f32> {
        self.x(index).chunks_exact(INPUTS).map(|row| (row[0] * 2.0 + row[1]).sin() + row[2] * row[3]).collect()
    }

    fn feeds(&self, index: u64) -> Feeds {
        let bytes = |values: Vec<f32>| values.iter().flat_map(|x| x.to_le_bytes()).collect();
        vec![("x".into(), bytes(self.x(index))), ("y".into(), bytes(self.y(index)))]
    }

    pub(crate) fn all(&self) -> Vec<HeldOut> {
        (0..self.count).map(|index| HeldOut { feeds: self.feeds(index), weight: self.rows as f64 }).collect()
    }
}

impl BatchSource for Rows {
    fn next_feeds(&mut self) -> Result<Feeds> {
        self.next += 1;
        Ok(self.feeds(self.next - 1))
    }

    fn position(&self) -> serde_json::Value {
        self.next.into()
    }

    fn tokens(&self) -> u64 {
        self.rows as u64
    }
}

/// Fresh weights, the same for every call.
pub(crate) fn weights(gpu: &Gpu, objective: &Regression) -> Result<Weights> {
    let weights = Weights::new(gpu);
    for (seed, (name, ty)) in objective.parameters(&Storage::default())?.into_iter().enumerate() {
        weights.ensure(&name, &ty)?;
        let values: Vec<f64> =
            (0..ty.shape.numel()).map(|i| f64::from(wave(seed as u64 + 7, i as u64)) * 0.5).collect();
        weights.upload(&name, &wgformer::program::pack(&values, ty.dtype))?;
    }
    Ok(weights)
}

pub(crate) fn options() -> StepOptions {
    let adam = AdamOptions { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.01 };
    StepOptions::default().with_adam(adam)
}

/// A learning rate that changes at every step.
pub(crate) fn schedule() -> Schedule {
    Schedule { peak: 0.02, warmup: 2, steps: 400, decay: Decay::Linear { floor: 0.1 } }
}

pub(crate) fn trainer(gpu: &Gpu, objective: &Regression, options: StepOptions, run: RunOptions) -> Result<Trainer> {
    Trainer::new(gpu, &weights(gpu, objective)?, objective, options, run, schedule())
}

pub(crate) fn download(trainer: &Trainer, name: &str) -> Result<Vec<f32>> {
    Ok(bytemuck::pod_collect_to_vec(&trainer.weights().download(name)?))
}

/// The largest difference over the largest value.
pub(crate) fn difference(a: &[f32], b: &[f32]) -> f64 {
    let largest = a.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
    let worst = a.iter().zip(b).fold(0.0, |m: f32, (a, b)| if (a - b).abs() <= m { m } else { (a - b).abs() });
    if a.len() == b.len() { f64::from(worst / largest) } else { f64::NAN }
}
