//! How fast the engine is on an adapter, measured against what the adapter can do at best.
//!
//! Machines are shared, throttle and vary by factors of two within seconds. So the adapter's ceilings (arithmetic in
//! registers, copying) are measured right before and behind every single run, and what is reported first is the share: the
//! time that the ceilings of that moment would allow, divided by the time that it took. Figures are medians.

mod ceiling;
mod compare;
pub mod experiment;
mod kernels;
mod measure;
mod probe;
mod report;
mod scaling;
mod step;

pub use ceiling::{Copy, MultiplyAdd};
pub use compare::{Change, Comparison};
pub use report::{
    Adapter, Bound, Ceiling, Ceilings, FORMAT, FirstStep, KernelShare, Kind, LengthPoint, Report, Row, Scaling,
    WidthPoint,
};
pub use step::{Setup, Step, StepKind, StepSize, gpt, step_graph};

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::program::Profile;
use probe::Probe;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Few rows, few runs, small models: less than half a minute on a driver for the CPU.
    pub quick: bool,
    /// Only rows whose name contains this, in any case of letters.
    pub only: Option<String>,
    /// Growth with length and width as well, which takes minutes.
    pub scaling: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.to_lowercase().contains(&only.to_lowercase()))
    }
}

/// What a benchmark tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// How many things will be measured.
    Total(usize),
    /// One of them begins.
    Began(&'a str),
    /// A row is there.
    Measured(&'a Row),
}

/// The sizes of the model whose steps are timed: layers, width, heads, tokens of a sequence, sequences in a batch.
#[derive(Clone, Copy)]
struct ModelSize {
    layers: usize,
    width: usize,
    heads: usize,
    length: usize,
    batch: usize,
}

/// The vocabulary of that model: characters.
const VOCABULARY: usize = 65;

/// The steps and how their rows begin. Training comes first: it finds no pipeline compiled for anything else.
const STEPS: [(StepKind, &str); 4] = [
    (StepKind::Train, "train"),
    (StepKind::Forward, "forward"),
    (StepKind::Prefill, "prefill"),
    (StepKind::Decode, "decode"),
];

impl ModelSize {
    fn of(options: &Options) -> Self {
        match options.quick {
            true => Self { layers: 2, width: 128, heads: 4, length: 64, batch: 2 },
            false => Self { layers: 6, width: 384, heads: 6, length: 256, batch: 4 },
        }
    }

    /// Generation answers one prompt.
    fn step(self, kind: StepKind) -> StepSize {
        let batch = if matches!(kind, StepKind::Prefill | StepKind::Decode) { 1 } else { self.batch };
        StepSize { batch, length: self.length }
    }

    fn name(self, kind: StepKind, what: &str) -> String {
        let StepSize { batch, length } = self.step(kind);
        format!("{what} {}x{} T{length} B{batch}", self.layers, self.width)
    }
}

/// Runs the benchmark on an adapter.
///
/// # Errors
/// [`Error::Input`] if `only` fits no row; [`Error::OutOfMemory`], [`Error::DeviceLost`].
pub fn run(gpu: &Gpu, options: &Options, mut watch: impl FnMut(Progress<'_>)) -> Result<Report> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let size = ModelSize::of(options);
    let steps: Vec<(StepKind, String)> = STEPS.iter().map(|(kind, what)| (*kind, size.name(*kind, what))).collect();
    let kernels: Vec<_> = kernels::all(gpu.caps()).into_iter().filter(|k| k.quick || !options.quick).collect();
    let names: Vec<&str> =
        steps.iter().map(|(_, name)| name.as_str()).chain(kernels.iter().map(|k| k.name.as_str())).collect();
    let wanted = names.iter().filter(|name| options.wants(name)).count();
    if wanted == 0 {
        let only = options.only.as_deref().unwrap_or_default();
        return Err(Error::input(
            "only",
            format!("no row's name contains \"{only}\"; there are: {}", names.join(", ")),
        ));
    }
    watch(Progress::Total(1 + wanted + if options.scaling { scaling::points(options) } else { 0 }));
    watch(Progress::Began("ceilings"));
    let probe = Probe::new(gpu, options.quick)?;
    let mut report = Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        debug_build: cfg!(debug_assertions),
        time,
        adapter: Adapter::of(gpu),
        ceilings: probe.ceilings().clone(),
        kernel_clock: probe.watch.name().into(),
        rows: Vec::new(),
        first_step: None,
        kernels: Vec::new(),
        scaling: None,
    };
    let model = gpt(size.layers, size.width, size.heads, size.length, VOCABULARY)?;
    for (kind, name) in steps.iter().filter(|(_, name)| options.wants(name)) {
        watch(Progress::Began(name));
        let step = Step::prepare(gpu, *kind, &model, size.step(*kind))?;
        let (_, first_run) = step::timed(|| step.run())?;
        let (_, second_run) = step::timed(|| step.run())?;
        let row = measure::step(&probe, options, name, &step)?;
        watch(Progress::Measured(&row));
        report.rows.push(row);
        if *kind == StepKind::Train {
            report.first_step = Some(FirstStep { setup: step.setup, first_run, second_run });
            report.kernels = kernel_shares(&step.program.profile()?);
        }
    }
    let mut rows = Vec::new();
    for kernel in kernels.iter().filter(|kernel| options.wants(&kernel.name)) {
        watch(Progress::Began(&kernel.name));
        let program = kernel.prepare(gpu)?;
        let row = measure::kernel(&probe, options, &kernel.name, &program, kernel.work)?;
        watch(Progress::Measured(&row));
        rows.push(row);
    }
    rows.append(&mut report.rows);
    report.rows = rows;
    if options.scaling {
        report.scaling = Some(scaling::scaling(gpu, &probe, options, &mut watch)?);
    }
    Ok(report)
}

impl Adapter {
    fn of(gpu: &Gpu) -> Self {
        let info = gpu.info();
        Self {
            name: info.name.clone(),
            backend: info.backend.to_str().into(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
            class: gpu.caps().class,
        }
    }
}

fn kernel_shares(profile: &Profile) -> Vec<KernelShare> {
    let total = profile.total().max(1) as f64;
    let share = |(kernel, time): (&'static str, crate::program::KernelTime)| KernelShare {
        kernel: kernel.into(),
        launches: time.launches,
        seconds: time.duration as f64 / 1e9,
        share: time.duration as f64 / total,
    };
    profile.by_kernel().into_iter().map(share).collect()
}
