//! Golden folders: a small model as Hugging Face writes it, with what PyTorch computed from it in f64.
//!
//! A folder holds `config.json`, `model.safetensors`, `golden.safetensors` (inputs, outputs, `loss`, and `grad.NAME` of
//! every parameter) and, for models that generate, `generated.safetensors` (see `generated.rs`).

use super::generated::check_generated;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, Tensor};
use crate::io::{ModelFolder, TensorRef, Tensors};
use crate::models::{self, Model, file_tensors, lora};
use crate::program::{Program, Weights, unpack};
use crate::tasks::TaskMode;
use crate::tasks::{TaskGraph, task_of};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Inputs that a golden file may have, even if the model does not read them.
const INPUTS: [&str; 8] = [
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "labels",
    "next_sentence_label",
    "sentence_order_label",
    "decoder_input_ids",
];
/// The largest error of an output, over its largest entry.
const OUTPUT_LIMIT: f64 = 1e-4;
/// The largest error of a gradient, over its largest entry.
const GRADIENT_LIMIT: f64 = 1e-3;
/// The relative error of the loss.
const LOSS_LIMIT: f64 = 1e-5;
/// A gradient that is small beside the model's largest (a key bias has none in exact arithmetic) is measured by this
/// share of the largest.
const GRADIENT_FLOOR: f64 = 1e-3;

/// One compared result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GoldenRow {
    /// `logits`, `loss`, `grad.NAME`, `greedy` or `beam4`.
    pub what: String,
    /// The largest error over the largest entry; for `greedy` and beams the number of wrong tokens.
    pub error: f64,
    /// The largest error allowed.
    pub limit: f64,
    /// Whether the error is within the limit.
    pub passed: bool,
}

impl GoldenRow {
    pub(super) fn new(what: impl Into<String>, error: f64, limit: f64) -> Self {
        Self { what: what.into(), error, limit, passed: error <= limit }
    }
}

/// How close a model on one adapter comes to a golden folder.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct GoldenReport {
    /// The folder.
    pub folder: String,
    /// The architecture.
    pub model: String,
    /// The adapter.
    pub adapter: String,
    /// The results.
    pub rows: Vec<GoldenRow>,
}

impl GoldenReport {
    /// Whether all results are within their limits.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.passed)
    }

    /// The largest error among the rows whose names begin with `prefix`; NaN if one is NaN.
    #[must_use]
    pub fn worst(&self, prefix: &str) -> f64 {
        let errors = self.rows.iter().filter(|row| row.what.starts_with(prefix)).map(|row| row.error);
        errors.fold(0.0, larger)
    }
}

/// Runs the model of a golden folder on the GPU and compares it: outputs, loss, every gradient, generated tokens.
///
/// # Errors
/// Any error that keeps the model from running. A result outside its limit is a row of the report, not an error.
pub fn check_golden(gpu: &Gpu, folder: impl AsRef<Path>) -> Result<GoldenReport> {
    let folder = folder.as_ref();
    let files = ModelFolder::open(folder)?;
    let (model, weights) = models::load_model(gpu, &files, DType::F32)?;
    let golden = Tensors::open(folder.join("golden.safetensors"))?;
    let mut names = models::names_in(model.as_ref(), &files.tensors)?;
    let adapters = model.parameters_in(weights.storage())?.into_iter().filter(|_| weights.storage().adapters.is_some());
    names.extend(adapters.map(|(name, _)| (name.clone(), format!("{}{name}", lora::PREFIX))));
    // transformers adds the losses of routers only where the config asks for it.
    let routers_count =
        golden.get("aux_loss").is_some() || files.config.optional("output_router_logits")? != Some(false);
    let mut rows = check_step(gpu, model.as_ref(), &weights, &names, routers_count, &golden)?;
    let generated = folder.join("generated.safetensors");
    let family = model.config()["model_type"].as_str().unwrap_or_default().to_owned();
    if let (true, Some(decoder)) = (generated.exists(), model.into_decoder()) {
        rows.extend(check_generated(gpu, &decoder.into(), &weights, &files, &Tensors::open(generated)?, &golden)?);
    }
    Ok(GoldenReport {
        folder: folder.display().to_string(),
        model: family,
        adapter: format!("{:?} {}", gpu.info().backend, gpu.info().name),
        rows,
    })
}

/// Outputs, loss and gradients of one step of the task that the model was made for.
fn check_step(
    gpu: &Gpu,
    model: &dyn Model,
    weights: &Weights,
    names: &HashMap<String, String>,
    routers_count: bool,
    golden: &Tensors,
) -> Result<Vec<GoldenRow>> {
    let task = task_of(model)?;
    let mut g = Graph::with_storage(weights.storage());
    let shapes = |name: &str| Some(golden.get(name)?.shape.clone());
    let made = task.graph(&mut g, model, &shapes, TaskMode::default())?;
    let loss = made.loss_and_stats(&mut g, routers_count)?.loss(&mut g)?;
    let TaskGraph { outputs, routing, routers, .. } = made;
    // The routing that the file has.
    let wanted = |(name, _): &(String, Tensor)| golden.get(name).is_some();
    for (name, tensor) in outputs.into_iter().chain(routing).filter(wanted) {
        g.output(&name, tensor)?;
    }
    g.output("loss", loss)?;
    // A file without gradients has outputs only.
    let trained = golden.names().any(|name| name.starts_with("grad."));
    let parameters: Vec<(String, Tensor)> = g
        .parameters()
        .filter(|(name, _)| trained && weights.storage().trains(name))
        .map(|(name, t)| (name.to_owned(), t))
        .collect();
    let wrt: Vec<Tensor> = parameters.iter().map(|(_, t)| *t).collect();
    let gradients = g.differentiate(loss, &wrt)?;
    for ((name, _), gradient) in parameters.iter().zip(&gradients) {
        if let Some(gradient) = gradient {
            g.output(&format!("grad.{name}"), *gradient)?;
        }
    }
    let program = Program::new(gpu, &g, weights)?;
    for (name, input) in g.inputs() {
        // Floats are written as their bits.
        let file = |name: &str| {
            let tensor = golden.get(name)?;
            match g.ty(input).dtype {
                DType::F32 => Some(numbers(&tensor).ok()?.iter().map(|x| (*x as f32).to_bits() as i32).collect()),
                _ => tensor.to_i32().ok(),
            }
        };
        let missing =
            || Error::format(golden.path(), format!("has no {name} of {}, which the model reads", g.ty(input)));
        let values = task.feed(model, name, g.shape(input), &file).ok_or_else(missing)?;
        program.write(name, bytemuck::cast_slice(&values))?;
    }
    program.run()?;
    let mut read = read_step(&program, &g)?;
    // Parameters that the loss does not depend on have a gradient of zero.
    for (name, ty) in model.parameters()?.iter().flat_map(|(name, ty)| file_tensors(name, ty)) {
        let name = format!("grad.{name}");
        let wanted = golden.get(&name).is_some() || golden.get(&as_called(&name, names)).is_some();
        if wanted && !read.contains_key(&name) {
            read.insert(name, vec![0.0; ty.shape.numel()]);
        }
    }
    // The file may use the names of its own model file.
    let called = |name: String| if golden.get(&name).is_some() { name } else { as_called(&name, names) };
    let read = read.into_iter().map(|(name, values)| (called(name), values)).collect();
    // Experts leave padding out; no output depends on it.
    let real = if routers.is_empty() { None } else { golden.get("attention_mask") };
    compare_step(&read, &g, real.map(|mask| mask.to_i32()).transpose()?.as_deref(), golden)
}

/// The outputs of a step under the names of the file; a stacked gradient as its parts.
fn read_step(program: &Program, g: &Graph) -> Result<HashMap<String, Vec<f64>>> {
    let mut read = HashMap::new();
    for (name, tensor) in g.outputs() {
        let ty = g.ty(*tensor);
        let values = unpack(&program.read(name)?, ty.dtype, ty.shape.numel());
        let parts = file_tensors(name, ty);
        for ((name, _), part) in parts.iter().zip(values.chunks(values.len().div_ceil(parts.len()).max(1))) {
            read.insert(name.clone(), part.to_vec());
        }
    }
    Ok(read)
}

/// The gradient of a parameter under the name that the model's file gives the parameter; other names as they are.
fn as_called(name: &str, names: &HashMap<String, String>) -> String {
    let called = name.strip_prefix("grad.").and_then(|parameter| names.get(parameter));
    called.map_or_else(|| name.to_owned(), |called| format!("grad.{called}"))
}

/// The values at real tokens, if there is one or several per token.
fn of_real(values: &[f64], real: &[i32]) -> Vec<f64> {
    let size = values.len() / real.len().max(1);
    if size == 0 || size * real.len() != values.len() {
        return values.to_vec();
    }
    values
        .chunks_exact(size)
        .zip(real)
        .filter(|(_, real)| **real != 0)
        .flat_map(|(values, _)| values.to_vec())
        .collect()
}

/// A row for each result of the golden file; logits are compared at `real` tokens only.
fn compare_step(
    read: &HashMap<String, Vec<f64>>,
    g: &Graph,
    real: Option<&[i32]>,
    golden: &Tensors,
) -> Result<Vec<GoldenRow>> {
    let inputs: HashSet<&str> = g.inputs().map(|(name, _)| name).chain(INPUTS).collect();
    let names = || golden.names().filter(|name| !inputs.contains(name));
    let mut largest_gradient = 0.0_f64;
    for name in names().filter(|n| n.starts_with("grad.")) {
        largest_gradient = largest_gradient.max(largest(&numbers(&golden.expect(name)?)?));
    }
    let mut rows = Vec::new();
    for name in names() {
        let tensor = golden.expect(name)?;
        let expected = numbers(&tensor)?;
        let got = read.get(name).map_or(&[] as &[f64], Vec::as_slice);
        let (floor, limit) = match name {
            name if name.ends_with("loss") => (0.0, LOSS_LIMIT),
            // Selected tokens and depths must agree exactly.
            _ if tensor.dtype.is_integer() => (0.0, 0.0),
            _ if name.starts_with("grad.") => (GRADIENT_FLOOR * largest_gradient, GRADIENT_LIMIT),
            _ => (0.0, OUTPUT_LIMIT),
        };
        let error = match real.filter(|_| name.ends_with("logits") && got.len() == expected.len()) {
            Some(real) => relative_error(&of_real(got, real), &of_real(&expected, real), floor),
            None => relative_error(got, &expected, floor),
        };
        rows.push(GoldenRow::new(name, error, limit));
    }
    let unchecked = read.keys().filter(|name| golden.get(name).is_none());
    rows.extend(unchecked.map(|name| GoldenRow::new(format!("{name} (not in the golden file)"), f64::NAN, 0.0)));
    Ok(rows)
}

/// Floats or integers.
fn numbers(tensor: &TensorRef<'_>) -> Result<Vec<f64>> {
    Ok(match tensor.dtype.is_integer() {
        true => tensor.to_i32()?.into_iter().map(f64::from).collect(),
        false => tensor.to_f32()?.into_iter().map(f64::from).collect(),
    })
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// The larger of two numbers; unlike `f64::max` it keeps a NaN.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

/// The largest error over the largest expected entry or the floor; NaN if a value is.
pub(super) fn relative_error(got: &[f64], expected: &[f64], floor: f64) -> f64 {
    if got.len() != expected.len() {
        return f64::NAN;
    }
    let errors = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let (error, scale) = (errors.fold(0.0, larger), largest(expected).max(floor));
    // Expected zeros must be zeros.
    if error == 0.0 { 0.0 } else { error / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_measured_by_the_largest_entry_or_the_floor_and_nan_never_passes() {
        assert_eq!(relative_error(&[1.0, 4.0], &[1.5, -4.0], 0.0), 2.0);
        assert_eq!(relative_error(&[0.5], &[0.0], 2.0), 0.25);
        assert_eq!(relative_error(&[0.0], &[0.0], 0.0), 0.0);
        assert_eq!(relative_error(&[1e-40], &[0.0], 0.0), f64::INFINITY);
        assert!(!GoldenRow::new("x", relative_error(&[f64::NAN, 0.0], &[1.0, 0.0], 0.0), 1.0).passed);
        assert!(!GoldenRow::new("x", relative_error(&[1.0], &[1.0, 0.0], 0.0), 1.0).passed);
        assert_eq!(of_real(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1, 0, 1]), [1.0, 2.0, 5.0, 6.0]);
        assert_eq!(of_real(&[1.0, 2.0], &[1, 0, 1]), [1.0, 2.0]);
    }
}
