//! The report of a benchmark, as plain data that is saved as JSON.

use super::step::Setup;
#[cfg(feature = "files")]
use crate::error::{Error, Result};
use crate::gpu::AdapterClass;
use serde::{Deserialize, Serialize};
#[cfg(feature = "files")]
use std::path::Path;

/// The version of the JSON format; other versions are not compared.
pub const FORMAT: u32 = 1;

/// The report of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of this crate.
    pub version: String,
    /// Whether the code was compiled without optimisation, which slows recording and encoding.
    pub debug_build: bool,
    /// The start in seconds since 1970.
    pub time: u64,
    /// The adapter.
    pub adapter: Adapter,
    /// The ceilings of the adapter.
    pub ceilings: Ceilings,
    /// The clock of kernels: `gpu` (timestamps) or `cpu` (from submission to the end of the wait).
    pub kernel_clock: String,
    /// Kernels, then whole steps.
    pub rows: Vec<Row>,
    /// The times of the first training step, if measured.
    pub first_step: Option<FirstStep>,
    /// The time of the training step by kernel, if measured, the longest first.
    pub kernels: Vec<KernelShare>,
    /// Time by length and by d_model, if requested.
    pub scaling: Option<Scaling>,
}

/// The description of the adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Adapter {
    /// Its name.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: String,
    /// The driver and its version; may be empty.
    pub driver: String,
    /// GPU or CPU.
    pub class: AdapterClass,
}

/// The ceilings of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ceilings {
    /// Floating-point operations per second, multiplications and additions in registers.
    pub arithmetic: Ceiling,
    /// Bytes per second, read and written.
    pub memory: Ceiling,
}

impl Ceilings {
    /// The seconds of parts of work (operations and bytes) at the ceilings.
    pub(super) fn seconds(&self, parts: &[[f64; 2]]) -> f64 {
        let by = |[flops, bytes]: &[f64; 2]| (flops / self.arithmetic.per_second).max(bytes / self.memory.per_second);
        parts.iter().map(by).sum()
    }

    /// The ceiling that bounds parts of work (operations and bytes) for most of their time.
    pub(super) fn bound(&self, parts: &[[f64; 2]]) -> Bound {
        let (mut arithmetic, mut memory) = (0.0, 0.0);
        for [flops, bytes] in parts {
            let (by_flops, by_bytes) = (flops / self.arithmetic.per_second, bytes / self.memory.per_second);
            *(if by_flops > by_bytes { &mut arithmetic } else { &mut memory }) += by_flops.max(by_bytes);
        }
        if arithmetic > memory { Bound::Arithmetic } else { Bound::Memory }
    }
}

/// One ceiling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ceiling {
    /// Operations or bytes per second: the best run of the best variant.
    pub per_second: f64,
    /// The variant.
    pub variant: String,
}

/// The kind of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// One op.
    Kernel,
    /// A step of a model, as a caller sees it.
    Step,
}

/// The ceiling that bounds a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Bound {
    /// Multiplications and additions.
    Arithmetic,
    /// Reading and writing memory.
    Memory,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Row {
    /// The name with sizes, by which rows of two reports are compared.
    pub name: String,
    /// Op or step.
    pub kind: Kind,
    /// The median of all runs, in seconds.
    pub seconds: f64,
    /// The fastest run, in seconds.
    pub fastest: f64,
    /// The range of the middle half of the runs, divided by the median.
    pub spread: f64,
    /// The number of runs.
    pub runs: usize,
    /// Floating-point operations of a run.
    pub flops: f64,
    /// The least bytes that a run must move.
    pub bytes: f64,
    /// Tokens of a run, if it is a step.
    pub tokens: Option<usize>,
    /// The ceiling that bounds it.
    pub bound: Bound,
    /// Operations (of arithmetic-bound kernels), bytes (of memory-bound ones) or tokens (of steps) per second, from the median.
    pub rate: f64,
    /// The unit of `rate`: `flop/s`, `B/s`, `token/s`.
    pub unit: String,
    /// The time at the ceilings, measured next to each run, divided by the time taken: the median over the runs.
    pub share: f64,
    /// The range of the middle half of the shares, divided by their median.
    pub share_spread: f64,
}

/// The seconds of preparing and running the first training step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FirstStep {
    /// The preparation.
    #[serde(flatten)]
    pub setup: Setup,
    /// The first run, in which drivers compile.
    pub first_run: f64,
    /// The second.
    pub second_run: f64,
}

/// The time of one kernel within a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KernelShare {
    /// The kernel.
    pub kernel: String,
    /// How many launches.
    pub launches: u64,
    /// Seconds of all launches.
    pub seconds: f64,
    /// The share of the step.
    pub share: f64,
}

/// How a training step grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scaling {
    /// With the length of the sequence, one sequence per batch.
    pub lengths: Vec<LengthPoint>,
    /// With d_model.
    pub widths: Vec<WidthPoint>,
}

/// The time of a training step at one length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LengthPoint {
    /// Tokens of the sequence.
    pub tokens: usize,
    /// Seconds per token of the attention kernels, forward and backward, which grow with the length.
    pub attention: f64,
    /// Seconds per token of everything else.
    pub rest: f64,
    /// The time at the ceilings divided by the time taken.
    pub share: f64,
    /// Seconds per token at the ceilings at the top of the report; divided by `share`, the time of a token at the machine's speed then.
    pub ideal: f64,
}

impl LengthPoint {
    /// The factor for [`LengthPoint::attention`] and [`LengthPoint::rest`] that removes the load of the machine at the moment.
    #[must_use]
    pub fn steady(&self) -> f64 {
        self.ideal / self.share / (self.attention + self.rest)
    }
}

/// The time of a training step at one d_model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WidthPoint {
    /// d_model.
    #[serde(alias = "width")]
    pub d_model: usize,
    /// Parameters of the model.
    pub parameters: usize,
    /// Seconds of a step.
    pub seconds: f64,
    /// Seconds of a step per parameter.
    pub per_parameter: f64,
    /// The time at the ceilings divided by the time taken.
    pub share: f64,
    /// Seconds per parameter at the ceilings at the top of the report.
    pub ideal: f64,
}

impl WidthPoint {
    /// The factor for [`WidthPoint::per_parameter`] that removes the load of the machine at the moment.
    #[must_use]
    pub fn steady(&self) -> f64 {
        self.ideal / self.share / self.per_parameter
    }
}

impl Report {
    /// Reads a report that was written as JSON.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Format`] if it is not a report, or one of another version.
    #[cfg(feature = "files")]
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let value = crate::io::read_json(path)?;
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            let message = format!("it is not a report of this version of `wgformer bench --json` (format {FORMAT})");
            return Err(Error::format(path, message));
        }
        serde_json::from_value(value).map_err(|e| Error::format(path, e.to_string()))
    }

    /// The row of that name.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}
