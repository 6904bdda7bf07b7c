//! The growth of a training step with the length of the sequence and with d_model.

use super::measure::{parts, step_samples};
use super::probe::Probe;
use super::report::{LengthPoint, Scaling, WidthPoint};
use super::step::{Step, StepKind, StepSize, gpt};
use super::{Options, Progress};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::Storage;

/// Layers of the models: enough that the work between them counts.
const LAYERS: usize = 2;
/// The vocabulary of the models: small, so that blocks dominate.
const VOCABULARY: usize = 256;
/// The d_model of the model whose sequence grows; head_dim is 64.
const D_MODEL: usize = 256;
/// Tokens of a sequence of the models whose d_model grows.
const LENGTH: usize = 128;
/// The shortest sequence and the smallest d_model.
const SMALLEST: usize = 128;

/// Powers of two from [`SMALLEST`] on.
fn doubling(up_to: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(SMALLEST), |size| Some(size * 2)).take_while(move |size| *size <= up_to)
}

pub(super) fn scaling(
    gpu: &Gpu,
    probe: &Probe,
    options: &Options,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<Scaling> {
    let (longest, widest) = if options.quick { (256, 256) } else { (4096, 1024) };
    let mut lengths = Vec::new();
    for tokens in doubling(longest) {
        watch(Progress::Began(&format!("scaling: T{tokens}")));
        lengths.push(length_point(gpu, probe, options, tokens)?);
    }
    let mut widths = Vec::new();
    for d_model in doubling(widest) {
        watch(Progress::Began(&format!("scaling: d_model {d_model}")));
        widths.push(width_point(gpu, probe, options, d_model)?);
    }
    Ok(Scaling { lengths, widths })
}

/// The number of points, for progress.
pub(super) fn points(options: &Options) -> usize {
    let (longest, widest) = if options.quick { (256, 256) } else { (4096, 1024) };
    doubling(longest).count() + doubling(widest).count()
}

fn length_point(gpu: &Gpu, probe: &Probe, options: &Options, tokens: usize) -> Result<LengthPoint> {
    let model = gpt(LAYERS, D_MODEL, D_MODEL / 64, tokens, VOCABULARY)?;
    let step = Step::prepare(gpu, StepKind::Train, &model, &Storage::default(), StepSize { batch: 1, length: tokens })?;
    step.run()?;
    let samples = step_samples(probe, options, &step)?;
    let profile = step.program.profile()?;
    let attention = profile.launches.iter().filter(|l| l.kernel.starts_with("attention_"));
    let attention = attention.map(|l| l.duration).sum::<u64>() as f64 / profile.total().max(1) as f64;
    let per_token = samples.median() / tokens as f64;
    Ok(LengthPoint {
        tokens,
        attention: per_token * attention,
        rest: per_token * (1.0 - attention),
        share: samples.share(),
        ideal: probe.ceilings().seconds(&parts(step.program.recording())) / tokens as f64,
    })
}

fn width_point(gpu: &Gpu, probe: &Probe, options: &Options, d_model: usize) -> Result<WidthPoint> {
    let model = gpt(LAYERS, d_model, d_model / 64, LENGTH, VOCABULARY)?;
    let step = Step::prepare(gpu, StepKind::Train, &model, &Storage::default(), StepSize { batch: 1, length: LENGTH })?;
    step.run()?;
    let samples = step_samples(probe, options, &step)?;
    let (parameters, seconds) = (model.parameter_count()?, samples.median());
    Ok(WidthPoint {
        d_model,
        parameters,
        seconds,
        per_parameter: seconds / parameters as f64,
        share: samples.share(),
        ideal: probe.ceilings().seconds(&parts(step.program.recording())) / parameters as f64,
    })
}
