//! Reports of the cases on a device: what was compared, how far off it was, what missed.

use crate::case::Case;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::kernel::Caps;
use serde::Serialize;
use std::collections::BTreeSet;

/// The results of an op.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KernelRow {
    /// The op.
    pub op: String,
    /// The cases that were compared.
    pub cases: usize,
    /// The largest [`super::Comparison::nmse`] and [`super::Comparison::worst`] of outputs.
    pub forward: [f64; 2],
    /// The same of gradients.
    pub backward: [f64; 2],
    /// What missed: the case, the tensor, and how far off it is; or the case and its error.
    pub missed: Vec<String>,
    /// Cases that the adapter cannot run, with the reason. They count as neither right nor missed.
    pub unsupported: Vec<String>,
}

/// The results of cases on a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelReport {
    /// The adapter.
    pub adapter: String,
    /// Its driver.
    pub driver: String,
    /// Its capabilities.
    pub caps: Caps,
    /// A row for each op.
    pub rows: Vec<KernelRow>,
}

impl KernelReport {
    /// Whether nothing missed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.missed.is_empty())
    }
}

/// The most operations of a case that is quick, which its f64 twin takes milliseconds for.
const QUICK: u64 = 2_000_000;

/// Cases of the suite that launch every kernel of such an adapter, forward and backward: few enough for less than a minute.
#[must_use]
pub fn quick_cases(caps: &Caps) -> Vec<Case> {
    let work = |case: &Case| case.recording(caps).map_or(u64::MAX, |recording| recording.flops());
    let mut cases: Vec<(u64, Case)> = super::cases::all().into_iter().map(|case| (work(&case), case)).collect();
    // The largest first, but those that take long last.
    cases.sort_by_key(|(work, _)| if *work > QUICK { (1, *work) } else { (0, QUICK - work) });
    let mut known = BTreeSet::new();
    cases.retain(|(_, case)| {
        let before = known.len();
        if let Ok(recording) = case.recording(caps) {
            known.extend(recording.dispatches().iter().map(|dispatch| dispatch.kernel.name));
        }
        known.len() > before
    });
    cases.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    cases.into_iter().map(|(_, case)| case).collect()
}

/// Runs cases on a device and compares every output and gradient with the f64 twin; `done` is told how many have run. A case that fails with an
/// error counts as missed.
///
/// # Errors
/// [`Error::DeviceLost`].
pub fn check_kernels(gpu: &Gpu, cases: &[Case], done: &mut dyn FnMut(usize, &str)) -> Result<KernelReport> {
    let mut rows: Vec<KernelRow> = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        done(number, &case.name);
        let op = case.name.split(' ').next().unwrap_or_default();
        let place = rows.iter().position(|row| row.op == op).unwrap_or(rows.len());
        if place == rows.len() {
            rows.push(KernelRow { op: op.into(), ..KernelRow::default() });
        }
        let Some(row) = rows.get_mut(place) else { continue };
        match case.run(gpu) {
            Err(error @ Error::DeviceLost { .. }) => return Err(error),
            Err(error @ Error::Unsupported { .. }) => row.unsupported.push(format!("{}: {error}", case.name)),
            Err(error) => row.missed.push(format!("{}: {error}", case.name)),
            Ok(comparisons) => {
                row.cases += 1;
                for found in comparisons {
                    let worst = if found.what.starts_with("grad.") { &mut row.backward } else { &mut row.forward };
                    for (worst, error) in worst.iter_mut().zip([found.nmse, found.worst]) {
                        *worst = if error.is_nan() || error > *worst { error } else { *worst };
                    }
                    if !found.passed {
                        let (what, off) = (&found.what, found.worst);
                        row.missed.push(format!("{}: {what} is off by {off:.1e} of its largest value", case.name));
                    }
                }
            }
        }
    }
    let info = gpu.info();
    let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
    Ok(KernelReport { adapter: format!("{} ({})", info.name, info.backend), driver, caps: gpu.caps().clone(), rows })
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
}
