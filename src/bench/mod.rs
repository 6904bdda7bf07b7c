//! The benchmark: the speed of the engine on an adapter, relative to the adapter's ceilings.
//!
//! Machines are shared, throttle and vary by factors of two within seconds. So the adapter's ceilings (arithmetic in
//! registers, copying) are measured right before and after every run, and the main result is the share: the time at the ceilings of that
//! moment, divided by the time taken. Figures are medians.

mod ceiling;
mod compare;
mod contenders;
#[doc(hidden)]
pub mod experiment;
mod kernels;
mod measure;
mod probe;
mod report;
mod scaling;
mod step;
mod steps;

pub(crate) use ceiling::cases;
pub use compare::{Change, Comparison};
pub use report::{
    Adapter, Bound, Ceiling, Ceilings, FORMAT, FirstStep, KernelShare, Kind, LengthPoint, Report, Row, Scaling,
    WidthPoint,
};
pub use step::{Setup, Step, StepKind, StepSize, gpt, step_graph};

use crate::error::{Error, Result};
use crate::gpu::{Caps, Gpu};
use crate::graph::{Graph, Storage};
use crate::program::Profile;
use derive_setters::Setters;
use probe::Probe;
use web_time::{SystemTime, UNIX_EPOCH};

/// The options of a benchmark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct Options {
    /// Few rows, few runs, small models: less than half a minute on a CPU driver.
    pub quick: bool,
    /// Only rows whose name contains this, case-insensitive.
    pub only: Option<String>,
    /// Also measure growth with length and d_model, which takes minutes.
    pub scaling: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.to_lowercase().contains(&only.to_lowercase()))
    }
}

/// Progress events of a benchmark.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The number of measurements.
    Total(usize),
    /// A measurement begins.
    Began(&'a str),
    /// A row is measured.
    Measured(&'a Row),
}

/// The vocabulary of the models whose steps are timed: characters.
const VOCABULARY: usize = 65;

/// The graphs of all rows, quick or not, on an adapter with these capabilities, by name.
///
/// # Errors
/// Those of the models and the ops.
pub fn graphs(caps: &Caps) -> Result<Vec<(String, Graph)>> {
    let mut graphs = Vec::new();
    for kernel in kernels::all(caps) {
        graphs.push((kernel.name.clone(), kernel.graph()?));
    }
    for quick in [true, false] {
        for row in steps::all(&Options { quick, ..Default::default() })? {
            graphs.push((row.name, step_graph(row.kind, caps, &row.model, &Storage::default(), row.size)?));
        }
    }
    Ok(graphs)
}

/// Runs the benchmark on an adapter.
///
/// # Errors
/// [`Error::Input`] if `only` matches no row; [`Error::OutOfMemory`], [`Error::DeviceLost`].
pub fn run(gpu: &Gpu, options: &Options, mut watch: impl FnMut(Progress<'_>)) -> Result<Report> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let steps = steps::all(options)?;
    let kernels: Vec<_> = kernels::all(gpu.caps()).into_iter().filter(|k| k.quick || !options.quick).collect();
    let names: Vec<&str> =
        steps.iter().map(|step| step.name.as_str()).chain(kernels.iter().map(|k| k.name.as_str())).collect();
    let wanted = names.iter().filter(|name| options.wants(name)).count();
    if wanted == 0 {
        let only = options.only.as_deref().unwrap_or_default();
        return Err(Error::input(
            "only",
            format!("no row's name contains \"{only}\"; the rows are: {}", names.join(", ")),
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
    for steps::Timed { name, kind, size, model } in steps.iter().filter(|step| options.wants(&step.name)) {
        watch(Progress::Began(name));
        let step = Step::prepare(gpu, *kind, model, &Storage::default(), *size)?;
        let (_, first_run) = step::timed(|| step.run())?;
        let (_, second_run) = step::timed(|| step.run())?;
        let row = measure::step(&probe, options, name, &step)?;
        watch(Progress::Measured(&row));
        report.rows.push(row);
        // Only of the first step: later ones find its compiled pipelines.
        if *kind == StepKind::Train && report.first_step.is_none() {
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
