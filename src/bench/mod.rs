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
mod steps;

pub(crate) use ceiling::cases;
pub use ceiling::{Copy, MultiplyAdd};
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
use probe::Probe;
use web_time::{SystemTime, UNIX_EPOCH};

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

/// The vocabulary of the models whose steps are timed: characters.
const VOCABULARY: usize = 65;

/// The graphs of all rows, quick or not, on an adapter with these abilities, by their names.
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
/// [`Error::Input`] if `only` fits no row; [`Error::OutOfMemory`], [`Error::DeviceLost`].
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
    for steps::Timed { name, kind, size, model } in steps.iter().filter(|step| options.wants(&step.name)) {
        watch(Progress::Began(name));
        let step = Step::prepare(gpu, *kind, model, &Storage::default(), *size)?;
        let (_, first_run) = step::timed(|| step.run())?;
        let (_, second_run) = step::timed(|| step.run())?;
        let row = measure::step(&probe, options, name, &step)?;
        watch(Progress::Measured(&row));
        report.rows.push(row);
        // Of the first one only: the others find pipelines that it has compiled.
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
