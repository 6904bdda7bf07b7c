//! What a case costs on a device, and whether a device has what it needs.

use super::run::kernels_of;
use crate::case::{Case, Results};
use crate::error::Result;
use crate::gpu::{AdapterClass, Gpu, Timestamps};
use crate::kernel::Caps;
use crate::program::{Plan, Program, Recording, Weights};
use serde::{Deserialize, Serialize};

/// The runs that are timed; their median counts.
const RUNS: usize = 5;
/// The seconds between two timestamps.
const REPEATED: f64 = 2e-3;
/// The most repetitions between two timestamps.
const REPEATS: f64 = 256.0;

/// What a case costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CaseTime {
    /// The case.
    pub case: String,
    /// Its kernels.
    pub kernels: Vec<String>,
    /// The median of the seconds of a run.
    pub seconds: f64,
    /// Floating-point operations a second.
    pub flops: f64,
    /// Bytes a second: all that its launches bind, each once.
    pub bytes: f64,
}

/// Times a case, outputs and gradients together, on zeros: by the GPU's timestamps, else by the caller's clock.
///
/// # Errors
/// Any error that keeps the case from running.
pub fn time_case(gpu: &Gpu, case: &Case, results: Results) -> Result<CaseTime> {
    let recording = Recording::new(&case.build_for(results)?.graph, gpu.caps())?;
    let (flops, bytes, kernels) = (recording.flops() as f64, recording.bytes() as f64, kernels_of(&recording));
    let program = Program::prepare(gpu, recording, &Weights::new(gpu))?;
    let stamps = if gpu.caps().class == AdapterClass::Gpu { Timestamps::new(gpu, 2)? } else { None };
    // The first run may compile.
    program.time(stamps.as_ref(), 1)?;
    let once = program.time(stamps.as_ref(), 1)?;
    let repeats = (REPEATED / once.max(1e-9)).clamp(1.0, REPEATS) as u32;
    let mut times = (0..RUNS).map(|_| program.time(stamps.as_ref(), repeats)).collect::<Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    let seconds = times[RUNS / 2];
    Ok(CaseTime { case: case.name.clone(), kernels, seconds, flops: flops / seconds, bytes: bytes / seconds })
}

/// The kernels of a case on such an adapter, without running it.
///
/// # Errors
/// [`Error::Unsupported`](crate::Error::Unsupported) or [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the adapter lacks something that
/// the case needs.
pub fn support_of(caps: &Caps, case: &Case) -> Result<Vec<String>> {
    let recording = case.recording(caps)?;
    Plan::new(&recording, caps)?;
    Ok(kernels_of(&recording))
}
