//! The suite on a device: which cases run, what they gave, and a report of it.

use super::known::KnownFailure;
use super::run::{CaseOptions, CaseRun};
use crate::case::Case;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::kernel::Caps;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;

/// The results of an op with inputs of one type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SuiteRow {
    /// The op.
    pub op: String,
    /// The type of its inputs: the first that is not f32, or f32.
    pub dtype: String,
    /// The cases that were compared.
    pub cases: usize,
    /// How often they ran: once for each choice of kernels' variants.
    pub runs: usize,
    /// The largest [`super::Comparison::nmse`] and [`super::Comparison::worst`] of outputs.
    #[serde(deserialize_with = "or_infinite")]
    pub forward: [f64; 2],
    /// The same of gradients.
    #[serde(deserialize_with = "or_infinite")]
    pub backward: [f64; 2],
    /// The seconds of all runs, without compiling and comparing.
    pub seconds: f64,
    /// What missed.
    pub missed: Vec<Miss>,
    /// Misses that a known failure explains.
    pub known: Vec<Miss>,
    /// Cases that the adapter cannot run, with the reason. They count as neither right nor missed.
    pub unsupported: Vec<Miss>,
}

/// JSON has no infinity and no NaN: they are written as null.
fn or_infinite<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<[f64; 2], D::Error> {
    let read: [Option<f64>; 2] = Deserialize::deserialize(from)?;
    Ok(read.map(|error| error.unwrap_or(f64::INFINITY)))
}

/// A case that missed or did not run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Miss {
    /// The case.
    pub case: String,
    /// The variants of its kernels; empty for the adapter's defaults.
    pub variants: String,
    /// The tensor and how far off it is, or an error.
    pub what: String,
}

/// The results of cases on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceReport {
    /// The adapter.
    pub adapter: String,
    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: String,
    /// The driver's name; may be empty.
    pub driver: String,
    /// The driver's version; may be empty.
    pub driver_info: String,
    /// How the adapter was opened: empty for as it is, `as a GPU`, `matrix units`.
    pub mode: String,
    /// Its capabilities.
    pub caps: Caps,
    /// A row for each op and type.
    pub rows: Vec<SuiteRow>,
    /// Kernels that ran in each run that missed, and in none that was right.
    pub suspects: Vec<String>,
    /// Known failures that passed: they are no longer known.
    pub now_right: Vec<KnownFailure>,
}

impl DeviceReport {
    /// A report of nothing yet.
    #[must_use]
    pub fn new(gpu: &Gpu, mode: &str) -> Self {
        let info = gpu.info();
        Self {
            adapter: info.name.clone(),
            backend: info.backend.to_str().into(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            mode: mode.into(),
            caps: gpu.caps().clone(),
            rows: Vec::new(),
            suspects: Vec::new(),
            now_right: Vec::new(),
        }
    }

    /// Whether nothing missed, something ran, and each known failure still fails.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.missed() == 0 && self.now_right.is_empty() && self.cases() > 0
    }

    /// The cases that were compared.
    #[must_use]
    pub fn cases(&self) -> usize {
        self.rows.iter().map(|row| row.cases).sum()
    }

    /// How often they ran.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.rows.iter().map(|row| row.runs).sum()
    }

    /// How many results missed.
    #[must_use]
    pub fn missed(&self) -> usize {
        self.rows.iter().map(|row| row.missed.len()).sum()
    }

    fn row(&mut self, case: &Case) -> &mut SuiteRow {
        let op = case.name.split([' ', ',']).next().unwrap_or_default().to_owned();
        let dtype = case.dtype().to_string();
        let at = self.rows.iter().position(|row| row.op == op && row.dtype == dtype).unwrap_or_else(|| {
            self.rows.push(SuiteRow { op, dtype, ..SuiteRow::default() });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }
}

/// The most operations of a case that is quick, which its f64 twin takes milliseconds for.
const QUICK: u64 = 2_000_000;

/// Cases of the suite that launch every kernel of such an adapter, forward and backward: few enough for less than a minute.
#[must_use]
pub fn quick_cases(caps: &Caps) -> Vec<Case> {
    chosen(super::cases::all().into_iter().map(|case| Candidate::new(case, caps)).collect())
}

/// The async form of [`quick_cases`], which looks at over a thousand cases: awaits `pause` between them, for who must not be held up.
pub async fn quick_cases_async(caps: &Caps, pause: &mut impl AsyncFnMut()) -> Vec<Case> {
    let mut candidates = Vec::new();
    for case in super::cases::all() {
        candidates.push(Candidate::new(case, caps));
        pause().await;
    }
    chosen(candidates)
}

/// A case with its operations and what it launches.
struct Candidate {
    case: Case,
    work: u64,
    kernels: BTreeSet<&'static str>,
}

impl Candidate {
    fn new(case: Case, caps: &Caps) -> Self {
        let Ok(recording) = case.recording(caps) else {
            return Self { case, work: u64::MAX, kernels: BTreeSet::new() };
        };
        let kernels = recording.dispatches().iter().map(|dispatch| dispatch.kernel.name).collect();
        Self { case, work: recording.flops(), kernels }
    }
}

/// Enough cases to launch every kernel, by name.
fn chosen(mut candidates: Vec<Candidate>) -> Vec<Case> {
    // The largest first, but those that take long last.
    candidates.sort_by_key(|Candidate { work, .. }| if *work > QUICK { (1, *work) } else { (0, QUICK - work) });
    let mut known = BTreeSet::new();
    candidates.retain(|candidate| {
        let before = known.len();
        known.extend(candidate.kernels.iter().copied());
        known.len() > before
    });
    let mut cases: Vec<Case> = candidates.into_iter().map(|candidate| candidate.case).collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// Runs cases on a device and compares every output and gradient with the f64 twin; `done` is told how many have run. A case that fails with an
/// error counts as missed, one that the adapter cannot run by its limits as unsupported.
///
/// # Errors
/// [`Error::DeviceLost`].
pub fn check_cases(
    gpu: &Gpu,
    mode: &str,
    cases: &[Case],
    options: &CaseOptions,
    known: &[KnownFailure],
    done: &mut dyn FnMut(usize, &str),
) -> Result<DeviceReport> {
    check_cases_by(gpu, mode, cases, known, &mut |number, case| {
        done(number, &case.name);
        case.run_with(gpu, options)
    })
}

/// As [`check_cases`], where `run` runs a case, the `usize`-th.
///
/// # Errors
/// [`Error::DeviceLost`].
pub fn check_cases_by(
    gpu: &Gpu,
    mode: &str,
    cases: &[Case],
    known: &[KnownFailure],
    run: &mut dyn FnMut(usize, &Case) -> Result<Vec<Result<CaseRun>>>,
) -> Result<DeviceReport> {
    let mut checking = Checking::new(gpu, mode, known);
    for (number, case) in cases.iter().enumerate() {
        checking.add(case, run(number, case))?;
    }
    Ok(checking.finish())
}

/// The async form of [`check_cases`], in the default of each kernel: awaits `done` before each case.
///
/// # Errors
/// [`Error::DeviceLost`].
pub async fn check_cases_async(
    gpu: &Gpu,
    mode: &str,
    cases: &[Case],
    known: &[KnownFailure],
    done: &mut impl AsyncFnMut(usize, &str),
) -> Result<DeviceReport> {
    let mut checking = Checking::new(gpu, mode, known);
    for (number, case) in cases.iter().enumerate() {
        done(number, &case.name).await;
        let run = case.run_async(gpu).await;
        checking.add(case, Ok(vec![run]))?;
    }
    Ok(checking.finish())
}

/// A report that grows by cases.
struct Checking<'a> {
    report: DeviceReport,
    /// The known failures of this device.
    known: Vec<&'a KnownFailure>,
    /// Of each known failure, whether a case of it ran, and whether one failed.
    seen: Vec<[bool; 2]>,
    /// Kernels of all runs that missed, and of those that were right.
    wrong: Option<BTreeSet<String>>,
    right: BTreeSet<String>,
}

impl<'a> Checking<'a> {
    fn new(gpu: &Gpu, mode: &str, known: &'a [KnownFailure]) -> Self {
        let report = DeviceReport::new(gpu, mode);
        let known: Vec<&KnownFailure> = known.iter().filter(|failure| failure.is_of(&report)).collect();
        Self { seen: vec![[false; 2]; known.len()], report, known, wrong: None, right: BTreeSet::new() }
    }

    /// Adds the runs of a case; an error that the device is lost ends the check.
    fn add(&mut self, case: &Case, runs: Result<Vec<Result<CaseRun>>>) -> Result<()> {
        let runs = match runs {
            Ok(runs) if runs.is_empty() => return Ok(()),
            Ok(runs) => runs,
            Err(error) => vec![Err(error)],
        };
        let Self { report, known, seen, wrong, right } = self;
        let row = report.row(case);
        let mut compared = false;
        for run in runs {
            let miss = |what: String, variants: &str| Miss { case: case.name.clone(), variants: variants.into(), what };
            let (variants, missed, kernels) = match run {
                Err(error @ Error::DeviceLost { .. }) => return Err(error),
                Err(error @ Error::Unsupported { .. }) => {
                    row.unsupported.push(miss(error.to_string(), ""));
                    continue;
                }
                Err(error) => (String::new(), vec![error.to_string()], Vec::new()),
                Ok(run) => {
                    compared = true;
                    row.runs += 1;
                    row.seconds += run.seconds;
                    let mut missed = run.faults;
                    for found in run.comparisons {
                        let worst = if found.what.starts_with("grad.") { &mut row.backward } else { &mut row.forward };
                        for (worst, error) in worst.iter_mut().zip([found.nmse, found.worst]) {
                            *worst = if error.is_nan() || error > *worst { error } else { *worst };
                        }
                        if !found.passed {
                            let (what, off, nmse) = (&found.what, found.worst, found.nmse);
                            missed.push(format!("{what} is off by {off:.1e} of its largest value (NMSE {nmse:.1e})"));
                        }
                    }
                    (run.variants, missed, run.kernels)
                }
            };
            let explains = |failure: &KnownFailure, what: &str| failure.explains(&case.name, what);
            for (failure, seen) in known.iter().zip(seen.iter_mut()).filter(|(failure, _)| failure.has(&case.name)) {
                seen[0] = true;
                seen[1] |= missed.iter().any(|what| explains(failure, what));
            }
            if missed.is_empty() {
                right.extend(kernels);
            } else if !kernels.is_empty() {
                let kernels: BTreeSet<String> = kernels.into_iter().collect();
                *wrong = Some(wrong.take().map_or(kernels.clone(), |wrong| &wrong & &kernels));
            }
            for what in missed {
                let explained = known.iter().any(|failure| explains(failure, &what));
                let list = if explained { &mut row.known } else { &mut row.missed };
                list.push(miss(what, &variants));
            }
        }
        row.cases += usize::from(compared);
        Ok(())
    }

    fn finish(self) -> DeviceReport {
        let Self { mut report, known, seen, wrong, right } = self;
        report.suspects = wrong.unwrap_or_default().into_iter().filter(|kernel| !right.contains(kernel)).collect();
        let stale = known.iter().zip(&seen).filter(|(_, [ran, failed])| *ran && !failed);
        report.now_right = stale.map(|(failure, _)| (*failure).clone()).collect();
        report.rows.sort_by(|a, b| (&a.op, &a.dtype).cmp(&(&b.op, &b.dtype)));
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_choice_launches_every_kernel_of_the_suite() {
        let caps = Caps::baseline();
        let kernels = |cases: &[Case]| -> BTreeSet<&'static str> {
            let recordings = cases.iter().flat_map(|case| case.recording(&caps));
            recordings.flat_map(|r| r.dispatches().iter().map(|d| d.kernel.name).collect::<Vec<_>>()).collect()
        };
        let quick = quick_cases(&caps);
        assert!(quick.len() < 200, "{} cases", quick.len());
        assert_eq!(kernels(&quick), kernels(&super::super::cases::all()));
    }

    #[test]
    fn errors_that_are_no_numbers_survive_a_file() {
        let row = SuiteRow { forward: [f64::NAN, f64::INFINITY], backward: [1.5e-7, 0.0], ..SuiteRow::default() };
        let again: SuiteRow = serde_json::from_str(&serde_json::to_string(&row).unwrap()).unwrap();
        assert_eq!(again.forward, [f64::INFINITY; 2]);
        assert_eq!(again.backward, row.backward);
    }
}
