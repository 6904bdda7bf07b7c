//! Training runs of PyTorch: the same steps from the same weights, by the training step of this crate.
//!
//! A folder holds `trajectory.json` (the settings, and of each step its micro-batches, loss and gradient norm) and `trajectory.safetensors`
//! (the micro-batches, the weights after the last step as `final.NAME`, and AdamW's moments of some of them as `exp_avg.NAME` and
//! `exp_avg_sq.NAME`). The weights at the start are those of a golden folder.

mod compare;
mod file;

use super::golden::{larger, relative_error};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, Tensor};
use crate::io::ModelFolder;
use crate::models::{self, Model, file_tensors};
use crate::ops::{OptimizerScalars, StepReport};
use crate::program::{Program, Weights, unpack};
use crate::shape::{Shape, TensorType};
use crate::tasks::TaskMode;
use crate::tasks::{Task, task_of};
use crate::train::{Feeds, KEEP, Labels, Part, REPORT, Range, SCALARS, StepOptions, TrainStep, label_weights};
use file::{Step, Trajectory};
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// The relative error of a loss.
const LOSS_LIMIT: f64 = 1e-5;
/// The relative error of the norm of the gradients.
const NORM_LIMIT: f64 = 1e-4;
/// The relative error of a learning rate.
const RATE_LIMIT: f64 = 1e-6;
/// The name of the balancing loss of routers.
const AUXILIARY: &str = "aux_loss";

/// One compared result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TrajectoryRow {
    /// `lr`, `counted_labels`, `loss`, `grad_norm` and `aux_loss` with the step of the largest error; `final.NAME`, `exp_avg.NAME`,
    /// `exp_avg_sq.NAME`.
    pub what: String,
    /// For a number the relative error, for a tensor the largest error over its largest entry, for labels the count of wrong numbers.
    pub error: f64,
    /// The largest error allowed.
    pub limit: f64,
    /// Whether the error is within the limit.
    pub passed: bool,
    /// For a weight: the largest error over the largest change from start to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_movement: Option<f64>,
}

impl TrajectoryRow {
    fn new(what: impl Into<String>, error: f64, limit: f64) -> Self {
        Self { what: what.into(), error, limit, passed: error <= limit, over_movement: None }
    }
}

/// The largest error of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Figure {
    /// `loss`, `grad_norm`, `weights`, `weights_over_movement`, `exp_avg`, `exp_avg_sq`.
    pub what: &'static str,
    /// The error.
    pub error: f64,
    /// PyTorch's in f32, if the file has it.
    pub pytorch_f32: Option<f64>,
}

/// How close training on one adapter comes to a run of PyTorch.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TrajectoryReport {
    /// The folder.
    pub folder: String,
    /// The architecture.
    pub model: String,
    /// The task.
    pub task: &'static str,
    /// The adapter.
    pub adapter: String,
    /// Steps.
    pub steps: usize,
    /// The results.
    pub rows: Vec<TrajectoryRow>,
    /// The largest errors.
    pub figures: Vec<Figure>,
    /// Elements that were not compared: biases of keys that no output depends on.
    pub left_out: Vec<String>,
}

impl TrajectoryReport {
    /// Whether all results are within their limits.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.passed)
    }
}

/// Trains the model of a trajectory's folder on the GPU as its settings say, and compares: learning rates, losses, gradient norms, weights and
/// moments. The model's folder is the one that `trajectory.json` names, in `goldens` or else in `../../goldens` as seen from `folder`.
///
/// # Errors
/// Any error that keeps the model from being trained. A result outside its limit is a row of the report, not an error.
pub fn check_trajectory(gpu: &Gpu, folder: impl AsRef<Path>, goldens: Option<&Path>) -> Result<TrajectoryReport> {
    let folder = folder.as_ref();
    let file = Trajectory::open(folder, goldens)?;
    let (model, weights) = models::load_model(gpu, &ModelFolder::open(&file.model)?, DType::F32)?;
    let start = downloaded(model.as_ref(), &weights)?;
    let run = Run::new(gpu, &file, model.as_ref(), &weights)?;
    let mut taken = Vec::new();
    for step in &file.steps {
        taken.push(run.step(step)?);
    }
    let mut rows = number_rows(&file, &taken);
    let parts = run.parts(start, &weights)?;
    let (tensors, left_out) = compare::rows(model.as_ref(), &parts, &file.tensors)?;
    rows.extend(tensors);
    Ok(TrajectoryReport {
        folder: folder.display().to_string(),
        model: model.config()["model_type"].as_str().unwrap_or_default().to_owned(),
        task: run.task.name(),
        adapter: format!("{:?} {}", gpu.info().backend, gpu.info().name),
        steps: file.steps.len(),
        figures: compare::figures(&rows, &file.pytorch_f32),
        rows,
        left_out,
    })
}

/// The results of a step.
struct Taken {
    report: StepReport,
    counted: Vec<usize>,
    auxiliary: Vec<f64>,
}

/// The programs of a run.
struct Run<'a> {
    file: &'a Trajectory,
    model: &'a dyn Model,
    task: &'static dyn Task,
    layout: TrainStep,
    /// The inputs of the task.
    inputs: Vec<(String, Shape)>,
    labels: Vec<Labels>,
    /// A step of one micro-batch.
    single: Option<Program>,
    /// All micro-batches but the last of a step, and the last.
    several: Option<[Program; 2]>,
    has_auxiliary: bool,
}

impl<'a> Run<'a> {
    fn new(gpu: &Gpu, file: &'a Trajectory, model: &'a dyn Model, weights: &Weights) -> Result<Self> {
        let task = task_of(model)?;
        let shapes = |name: &str| file.shape(name);
        let mut g = Graph::new();
        let made = task.graph(&mut g, model, &shapes, TaskMode::default())?;
        let measured = made.loss_and_stats(&mut g, true)?;
        let loss = measured.loss(&mut g)?;
        let trained = trained(&mut g, loss)?;
        let has_auxiliary = made.routing.iter().any(|(name, _)| name == AUXILIARY);
        let build = |g: &mut Graph| {
            // Without dropout.
            let made = task.graph(g, model, &shapes, TaskMode::default())?;
            if let Some((name, auxiliary)) = made.routing.iter().find(|(name, _)| name == AUXILIARY) {
                g.output(name, *auxiliary)?;
            }
            made.loss_and_stats(g, true)
        };
        let step = |accumulation: usize| {
            let accumulation = u32::try_from(accumulation).unwrap_or(u32::MAX);
            TrainStep::new(&trained, gpu.caps(), StepOptions { accumulation, ..file.options.clone() })
        };
        let layout = step(1)?;
        layout.layout().move_into_flat(weights)?;
        let most = file.steps.iter().map(|step| step.micro_batches.len()).max().unwrap_or(1);
        let single = match file.steps.iter().any(|step| step.micro_batches.len() == 1) {
            true => Some(Program::new(gpu, &layout.graph(Part::Whole, build)?, weights)?),
            false => None,
        };
        let several = match most {
            0 | 1 => None,
            _ => {
                let program = |part| Program::new(gpu, &step(most)?.graph(part, build)?, weights);
                Some([program(Part::Gradients)?, program(Part::Whole)?])
            }
        };
        let inputs = g.inputs().map(|(name, tensor)| (name.to_owned(), g.shape(tensor).clone())).collect();
        Ok(Self { file, model, task, layout, inputs, labels: measured.labels(), single, several, has_auxiliary })
    }

    /// The inputs of a micro-batch.
    fn feeds(&self, batch: usize) -> Result<Feeds> {
        let values = |name: &str| self.file.values(name, batch);
        let feed = |(name, shape): &(String, Shape)| {
            let lacks = || Error::format(self.file.tensors.path(), format!("has no {name}, which the model reads"));
            let values = self.task.feed(self.model, name, shape, &values).ok_or_else(lacks)?;
            Ok((name.clone(), bytemuck::cast_slice(&values).to_vec()))
        };
        self.inputs.iter().map(feed).collect()
    }

    /// Makes a step, and waits for it.
    fn step(&self, step: &Step) -> Result<Taken> {
        let count = step.micro_batches.len();
        let batches: Vec<Feeds> = step.micro_batches.iter().map(|batch| self.feeds(*batch)).collect::<Result<_>>()?;
        let counted = match self.labels.first() {
            Some(labels) => batches.iter().map(|feeds| labels.counted(feeds)).collect::<Result<_>>()?,
            None => step.counted_labels.clone(),
        };
        let weights = label_weights(&self.labels, &batches)?;
        let scalars = self.layout.options().scalars(step.lr as f32);
        let scalars = OptimizerScalars { share: 1.0 / count as f32, ..scalars }.to_array();
        let (mut auxiliary, mut report) = (Vec::new(), None);
        for (micro, (feeds, weights)) in batches.iter().zip(&weights).enumerate() {
            let last = micro + 1 == count;
            let program = match (&self.single, &self.several) {
                (Some(single), _) if count == 1 => single,
                (_, Some([gradients, whole])) => {
                    if last {
                        whole
                    } else {
                        gradients
                    }
                }
                _ => return Err(Error::Graph(format!("no program takes {count} micro-batches"))),
            };
            for (name, bytes) in feeds {
                program.write(name, bytes)?;
            }
            if count > 1 {
                for (name, bytes) in weights {
                    program.write(name, bytes)?;
                }
                program.write(KEEP, bytemuck::bytes_of(&if micro == 0 { 0.0_f32 } else { 1.0 }))?;
            }
            if last {
                program.write(SCALARS, bytemuck::cast_slice(&scalars))?;
            }
            program.run()?;
            if self.has_auxiliary {
                auxiliary.extend(program.read_f32(AUXILIARY)?.into_iter().map(f64::from));
            }
            if last {
                report = StepReport::from_slice(&program.read_f32(REPORT)?);
            }
        }
        let report = report.ok_or_else(|| Error::Graph("the report of a step is too short".into()))?;
        Ok(Taken { report, counted, auxiliary })
    }

    /// Every tensor of the model as files store it, after the steps.
    fn parts(&self, start: HashMap<String, Vec<f64>>, weights: &Weights) -> Result<Vec<compare::Part>> {
        let ends = downloaded(self.model, weights)?;
        let moments = self.moments(weights)?;
        let mut parts = Vec::new();
        for (parameter, ty) in self.model.parameters()? {
            let tensors = file_tensors(&parameter, &ty);
            let size = (ty.shape.numel() / tensors.len().max(1)).max(1);
            let no_gradient = if tensors.len() == 1 { self.model.no_gradient(&parameter) } else { Vec::new() };
            for (index, (name, _)) in tensors.iter().enumerate() {
                let range = index * size..(index + 1) * size;
                let part = |values: &[f64]| values.get(range.clone()).unwrap_or_default().to_vec();
                let of = |all: &HashMap<String, Vec<f64>>| all.get(&parameter).map(|v| part(v)).unwrap_or_default();
                parts.push(compare::Part {
                    names: compare::names(self.model, name),
                    start: of(&start),
                    weight: of(&ends),
                    moments: moments.get(&parameter).map(|[first, second]| [part(first), part(second)]),
                    no_gradient: no_gradient.clone(),
                });
            }
        }
        Ok(parts)
    }

    /// AdamW's moments of the trained parameters.
    fn moments(&self, weights: &Weights) -> Result<HashMap<String, [Vec<f64>; 2]>> {
        let mut found = HashMap::new();
        for (index, shard) in self.layout.layout().shards.iter().enumerate() {
            let download = |range: Range| -> Result<Vec<f64>> {
                Ok(unpack(&weights.download(&range.name(index))?, DType::F32, shard.total))
            };
            let flats = [download(Range::FirstMoment)?, download(Range::SecondMoment)?];
            for placed in &shard.parameters {
                let range = placed.offset..placed.offset + placed.ty.shape.numel();
                let of = |flat: &[f64]| flat.get(range.clone()).unwrap_or_default().to_vec();
                found.insert(placed.name.clone(), [of(&flats[0]), of(&flats[1])]);
            }
        }
        Ok(found)
    }
}

/// The parameters that the loss depends on, and those that steps update in place. PyTorch's optimiser does not change the others.
fn trained(g: &mut Graph, loss: Tensor) -> Result<Vec<(String, TensorType)>> {
    let all: Vec<(String, Tensor)> = g.parameters().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    let gradients = g.differentiate(loss, &all.iter().map(|(_, tensor)| *tensor).collect::<Vec<_>>())?;
    let learns = |((name, tensor), gradient): ((String, Tensor), Option<Tensor>)| {
        (gradient.is_some() || g.updates_in_place(tensor)).then(|| (name, g.ty(tensor).clone()))
    };
    Ok(all.into_iter().zip(gradients).filter_map(learns).collect())
}

/// All parameters by name.
fn downloaded(model: &dyn Model, weights: &Weights) -> Result<HashMap<String, Vec<f64>>> {
    let read = |(name, ty): (String, TensorType)| {
        Ok((name.clone(), unpack(&weights.download(&name)?, ty.dtype, ty.shape.numel())))
    };
    model.parameters()?.into_iter().map(read).collect()
}

/// A row for each kind of number of a step, with the step of the largest error.
fn number_rows(file: &Trajectory, taken: &[Taken]) -> Vec<TrajectoryRow> {
    let worst = |what: &str, limit: f64, error: &dyn Fn(usize, &Step, &Taken) -> f64| {
        let errors = file.steps.iter().zip(taken).enumerate().map(|(at, (step, taken))| error(at, step, taken));
        let off = |(most, step): (f64, usize), (at, error): (usize, f64)| {
            if larger(most, error).to_bits() == most.to_bits() { (most, step) } else { (error, at + 1) }
        };
        let (error, step) = errors.enumerate().fold((0.0, 1), off);
        TrajectoryRow::new(format!("{what}, step {step}"), error, limit)
    };
    let relative = |got: f64, expected: f64| relative_error(&[got], &[expected], 0.0);
    let counts = |_: usize, step: &Step, taken: &Taken| {
        let pairs = step.counted_labels.iter().zip(&taken.counted);
        pairs.filter(|(expected, got)| expected != got).count() as f64
    };
    let mut rows = vec![
        worst("lr", RATE_LIMIT, &|at, step, _| relative(file.rate(at), step.lr)),
        worst("counted_labels", 0.0, &counts),
        worst("loss", LOSS_LIMIT, &|_, step, taken| relative(f64::from(taken.report.loss), step.loss)),
        worst("grad_norm", NORM_LIMIT, &|_, step, taken| relative(f64::from(taken.report.norm), step.grad_norm)),
    ];
    if file.steps.iter().any(|step| step.aux_loss.is_some()) {
        rows.push(worst(AUXILIARY, LOSS_LIMIT, &|_, step, taken| {
            let Some(expected) = &step.aux_loss else { return 0.0 };
            let off = expected.iter().zip(&taken.auxiliary).map(|(expected, got)| relative(*got, *expected));
            if expected.len() == taken.auxiliary.len() { off.fold(0.0, larger) } else { f64::NAN }
        }));
    }
    rows
}
