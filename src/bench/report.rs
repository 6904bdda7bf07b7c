//! What a benchmark found, as plain data that is kept as JSON.

use super::step::Setup;
#[cfg(feature = "files")]
use crate::error::{Error, Result};
use crate::gpu::AdapterClass;
use serde::{Deserialize, Serialize};
#[cfg(feature = "files")]
use std::path::Path;

/// The version of the JSON; another one is not compared.
pub const FORMAT: u32 = 1;

/// What a benchmark found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of this crate.
    pub version: String,
    /// Whether the code was compiled without optimisation, which slows recording and encoding.
    pub debug_build: bool,
    /// Seconds since 1970, when it began.
    pub time: u64,
    /// The adapter.
    pub adapter: Adapter,
    /// What the adapter can do at best.
    pub ceilings: Ceilings,
    /// Whose clock kernels were timed with: `gpu` (timestamps) or `cpu` (submitting to the end of waiting).
    pub kernel_clock: String,
    /// Kernels, then whole steps.
    pub rows: Vec<Row>,
    /// How long the first training step takes, if it was measured.
    pub first_step: Option<FirstStep>,
    /// Where the time of the training step goes, if it was measured: the longest kernel first.
    pub kernels: Vec<KernelShare>,
    /// Time by length and by width, if asked for.
    pub scaling: Option<Scaling>,
}

/// The adapter, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What an adapter can do at best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Floating-point operations a second, multiplications and additions in registers.
    pub arithmetic: Ceiling,
    /// Bytes a second, read and written.
    pub memory: Ceiling,
}

impl Ceilings {
    /// The seconds that parts of work, as operations and bytes, would take.
    pub(super) fn seconds(&self, parts: &[[f64; 2]]) -> f64 {
        let by = |[flops, bytes]: &[f64; 2]| (flops / self.arithmetic.per_second).max(bytes / self.memory.per_second);
        parts.iter().map(by).sum()
    }

    /// The ceiling that parts of work, as operations and bytes, run into for most of their time.
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
pub struct Ceiling {
    /// Operations or bytes a second: the best run of the best variant.
    pub per_second: f64,
    /// The variant.
    pub variant: String,
}

/// What kind of row it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One op.
    Kernel,
    /// A step of a model, as a caller sees it.
    Step,
}

/// Which ceiling a row runs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Multiplications and additions.
    Arithmetic,
    /// Reading and writing memory.
    Memory,
}

/// One measured thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is, sizes included; rows of two reports are compared by it.
    pub name: String,
    /// Op or step.
    pub kind: Kind,
    /// The median of all runs, in seconds.
    pub seconds: f64,
    /// The quickest run, in seconds.
    pub fastest: f64,
    /// The range that holds the middle half of the runs, divided by the median.
    pub spread: f64,
    /// How many runs.
    pub runs: usize,
    /// Floating-point operations of a run.
    pub flops: f64,
    /// Bytes that a run must move at least.
    pub bytes: f64,
    /// Tokens of a run, if it is a step.
    pub tokens: Option<usize>,
    /// The ceiling that it runs into.
    pub bound: Bound,
    /// Operations (of arithmetic-bound kernels), bytes (of memory-bound ones) or tokens (of steps) a second, from the median.
    pub rate: f64,
    /// What `rate` counts: `flop/s`, `B/s`, `token/s`.
    pub unit: String,
    /// The time that the ceilings, measured right beside each run, would allow, divided by the time that it took: the
    /// median over the runs.
    pub share: f64,
    /// The range that holds the middle half of the shares, divided by their median.
    pub share_spread: f64,
}

/// The seconds until a training step runs for the first time, and how long that takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstStep {
    /// Making it ready.
    #[serde(flatten)]
    pub setup: Setup,
    /// The first run, in which drivers compile.
    pub first_run: f64,
    /// The second.
    pub second_run: f64,
}

/// The time of one kernel within a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
pub struct Scaling {
    /// With the length of the sequence, one sequence a batch.
    pub lengths: Vec<LengthPoint>,
    /// With the width of the model.
    pub widths: Vec<WidthPoint>,
}

/// The time of a training step at one length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthPoint {
    /// Tokens of the sequence.
    pub tokens: usize,
    /// Seconds a token of the attention kernels, forward and backward: they grow with the length.
    pub attention: f64,
    /// Seconds a token of everything else.
    pub rest: f64,
    /// The time that the ceilings would allow, divided by the time that it took.
    pub share: f64,
    /// The seconds a token that the ceilings at the head of the report would allow: divided by `share`, it is what a token would
    /// take if the machine had always been as it was then.
    pub ideal: f64,
}

impl LengthPoint {
    /// What [`LengthPoint::attention`] and [`LengthPoint::rest`] are to be multiplied with, so that the state of the machine at
    /// the moment does not count.
    #[must_use]
    pub fn steady(&self) -> f64 {
        self.ideal / self.share / (self.attention + self.rest)
    }
}

/// The time of a training step at one width.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WidthPoint {
    /// The width of hidden states.
    pub width: usize,
    /// Parameters of the model.
    pub parameters: usize,
    /// Seconds of a step.
    pub seconds: f64,
    /// Seconds of a step, a parameter.
    pub per_parameter: f64,
    /// The time that the ceilings would allow, divided by the time that it took.
    pub share: f64,
    /// The seconds a parameter that the ceilings at the head of the report would allow.
    pub ideal: f64,
}

impl WidthPoint {
    /// What [`WidthPoint::per_parameter`] is to be multiplied with, so that the state of the machine at the moment does not
    /// count.
    #[must_use]
    pub fn steady(&self) -> f64 {
        self.ideal / self.share / self.per_parameter
    }
}

impl Report {
    /// Reads a report that was written as JSON.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Format`] if it is no report, or one of another version.
    #[cfg(feature = "files")]
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let value = crate::io::read_json(path)?;
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            let message = format!("it is no report of this version (format {FORMAT}) of `wgformer bench --json`");
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
