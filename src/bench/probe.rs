//! The ceilings of an adapter: searched once, and measured again next to every other measurement.

use super::ceiling::{Copy, MultiplyAdd};
use super::report::{Ceiling, Ceilings};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::{AdapterClass, Gpu, Timestamps};
use crate::graph::{Graph, Op};
use crate::program::{Program, Weights};

/// The seconds of a sample of a ceiling or kernel: long compared with the start of a dispatch.
const SECONDS_GPU: f64 = 4e-3;
/// The same for CPU drivers: long compared with the time slices of a busy system.
const SECONDS_CPU: f64 = 10e-3;
/// Elements of the arithmetic ceiling: enough invocations for every core of any adapter.
const ELEMENTS_GPU: usize = 1 << 20;
/// The same for CPU drivers.
const ELEMENTS_CPU: usize = 1 << 14;
/// Copies of this many MiB are tried; caches that hold both sides count, since they serve kernels, too.
const COPIES: [usize; 3] = [4, 16, 64];
/// Runs of each variant in the search for ceilings.
const TRIES: usize = 5;
/// The most runs in one submission.
const REPEATS: f64 = 64.0;

/// The clock of programs: the GPU's timestamps if it has them.
pub(super) struct Stopwatch {
    timestamps: Option<Timestamps>,
    /// The seconds of a sample.
    sample: f64,
}

impl Stopwatch {
    pub(super) fn new(gpu: &Gpu) -> Result<Self> {
        let sample = if gpu.caps().class == AdapterClass::Gpu { SECONDS_GPU } else { SECONDS_CPU };
        Ok(Self { timestamps: Timestamps::new(gpu, 2)?, sample })
    }

    /// Seconds of one run, as the mean of `repeats`.
    pub(super) fn time(&self, program: &Program, repeats: u32) -> Result<f64> {
        program.time(self.timestamps.as_ref(), repeats)
    }

    /// The number of runs in one submission that last long enough. Afterwards the program is compiled and warm.
    pub(super) fn warm_up(&self, program: &Program) -> Result<u32> {
        program.run()?;
        program.gpu().wait(None)?;
        let once = self.time(program, 1)?;
        Ok((self.sample / once.max(1e-9)).ceil().clamp(1.0, REPEATS) as u32)
    }

    pub(super) fn name(&self) -> &'static str {
        if self.timestamps.is_some() { "gpu" } else { "cpu" }
    }
}

/// A prepared ceiling and its number of runs in one submission.
struct Prepared {
    program: Program,
    repeats: u32,
    /// Operations, or bytes, of one run.
    work: f64,
}

impl Prepared {
    fn new(gpu: &Gpu, watch: &Stopwatch, op: impl Op, elements: usize, work: f64) -> Result<Self> {
        let mut g = Graph::new();
        let x = g.parameter("x", [elements], DType::F32)?;
        let out = g.put1(op, &[x])?;
        g.output("out", out)?;
        let program = Program::new(gpu, &g, &Weights::new(gpu))?;
        let repeats = watch.warm_up(&program)?;
        Ok(Self { program, repeats, work })
    }

    /// Operations or bytes per second, over at least `seconds`.
    fn rate(&self, watch: &Stopwatch, seconds: f64) -> Result<f64> {
        let (mut runs, mut taken) = (0.0, 0.0);
        while runs == 0.0 || taken < seconds {
            let repeats = f64::from(self.repeats);
            taken += repeats * watch.time(&self.program, self.repeats)?;
            runs += repeats;
        }
        Ok(runs * self.work / taken)
    }

    fn best_rate(&self, watch: &Stopwatch) -> Result<f64> {
        (0..TRIES).try_fold(0.0, |best: f64, _| Ok(best.max(self.rate(watch, 0.0)?)))
    }
}

/// Operations and bytes per second at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peak {
    pub(super) flops: f64,
    pub(super) bytes: f64,
}

impl Peak {
    /// The seconds of parts of work (operations and bytes) at this peak.
    pub(super) fn seconds(&self, parts: &[[f64; 2]]) -> f64 {
        parts.iter().map(|[flops, bytes]| (flops / self.flops).max(bytes / self.bytes)).sum()
    }
}

/// The ceilings, ready to be measured again.
pub(super) struct Probe {
    arithmetic: Prepared,
    copy: Prepared,
    ceilings: Ceilings,
    pub(super) watch: Stopwatch,
}

impl Probe {
    /// Tries all variants and sizes, and keeps the best.
    pub(super) fn new(gpu: &Gpu, quick: bool) -> Result<Self> {
        let watch = Stopwatch::new(gpu)?;
        let (arithmetic, flops) = arithmetic(gpu, &watch)?;
        let sizes = if quick { &COPIES[..2] } else { &COPIES[..] };
        let (copy, bytes) = copy(gpu, &watch, sizes)?;
        let ceilings = Ceilings { arithmetic: flops, memory: bytes };
        Ok(Self { arithmetic, copy, ceilings, watch })
    }

    /// The ceilings of the search.
    pub(super) fn ceilings(&self) -> &Ceilings {
        &self.ceilings
    }

    /// Both ceilings now, each over at least `seconds`.
    pub(super) fn peak(&self, seconds: f64) -> Result<Peak> {
        let (flops, bytes) = (self.arithmetic.rate(&self.watch, seconds)?, self.copy.rate(&self.watch, seconds)?);
        Ok(Peak { flops, bytes })
    }
}

fn arithmetic(gpu: &Gpu, watch: &Stopwatch) -> Result<(Prepared, Ceiling)> {
    let elements = match gpu.caps().class {
        AdapterClass::Gpu => ELEMENTS_GPU,
        AdapterClass::Cpu => ELEMENTS_CPU,
    };
    let mut best: Option<(Prepared, Ceiling)> = None;
    for op in MultiplyAdd::variants(gpu.caps()) {
        let flops = |op: MultiplyAdd| 2.0 * f64::from(op.chains * op.unroll) * f64::from(op.rounds) * elements as f64;
        let first = MultiplyAdd { rounds: 8, ..op };
        let trial = Prepared::new(gpu, watch, first, elements, flops(first))?;
        let seconds = watch.time(&trial.program, trial.repeats)?;
        let rounds = (8.0 * watch.sample / seconds.max(1e-9)).clamp(8.0, 1e6) as u32;
        let op = MultiplyAdd { rounds, ..op };
        let prepared = Prepared::new(gpu, watch, op, elements, flops(op))?;
        let how = if op.unrolled { "fully unrolled" } else { "unrolled" };
        let variant = format!("{} chains of 4, {how} {} times, {} lanes", op.chains, op.unroll, op.lanes);
        let rate = prepared.best_rate(watch)?;
        keep_better(&mut best, prepared, Ceiling { per_second: rate, variant });
    }
    best.ok_or_else(|| Error::Graph("no variant of the arithmetic ceiling could run".into()))
}

fn copy(gpu: &Gpu, watch: &Stopwatch, sizes: &[usize]) -> Result<(Prepared, Ceiling)> {
    let mut best: Option<(Prepared, Ceiling)> = None;
    for size in sizes {
        for op in Copy::variants(gpu.caps()) {
            let elements = size << 18;
            let prepared = Prepared::new(gpu, watch, op, elements, 8.0 * elements as f64)?;
            let variant = format!("{size} MiB, {} vec4 an invocation, {} lanes", op.each, op.lanes);
            let rate = prepared.best_rate(watch)?;
            keep_better(&mut best, prepared, Ceiling { per_second: rate, variant });
        }
    }
    best.ok_or_else(|| Error::Graph("no variant of the copying ceiling could run".into()))
}

fn keep_better(best: &mut Option<(Prepared, Ceiling)>, prepared: Prepared, ceiling: Ceiling) {
    if best.as_ref().is_none_or(|(_, known)| ceiling.per_second > known.per_second) {
        *best = Some((prepared, ceiling));
    }
}
