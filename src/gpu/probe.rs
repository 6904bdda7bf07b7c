//! Tests, when a device is opened, the features that the engine relies on beyond WebGPU's guarantees. A feature with wrong results is not used.
//!
//! WebGPU does not guarantee that the lanes of a subgroup are in the order of invocations, and some drivers report a subgroup size with
//! which their functions are wrong. CPU drivers have more to prove (the room `software`). Results are remembered by adapter and driver
//! while the process runs. A device that computes nothing at all is not tested, and its claims are used.

use super::{BindingKind, Caps, Gpu, TENSORS};
use crate::error::{Error, Result};
use crate::software;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

const SUBGROUP: &str = include_str!("probe_subgroup.wgsl");
const SUBGROUPS: &str = include_str!("probe_subgroups.wgsl");
const REDUCTION: &str = include_str!("../../shaders/common/reduce_subgroups.wgsl");
/// Workgroups of the subgroup probe.
const GROUPS: u32 = 4;

/// The claimed capabilities of a device, and its driver.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Claim {
    caps: Caps,
    backend: wgpu::Backend,
    driver: String,
    driver_info: String,
}

/// The proven capabilities for each claim.
fn known() -> &'static Mutex<HashMap<Claim, Caps>> {
    static KNOWN: OnceLock<Mutex<HashMap<Claim, Caps>>> = OnceLock::new();
    KNOWN.get_or_init(Mutex::default)
}

/// The proven capabilities of a device, and whether probes ran on it.
pub(super) fn proven(gpu: &Gpu) -> (Caps, bool) {
    let (caps, info) = (gpu.caps(), gpu.info());
    // A browser answers later, and checks its drivers itself.
    if cfg!(target_arch = "wasm32") || (caps.subgroup_sizes.is_none() && !software::has_to_prove(gpu)) {
        return (caps.clone(), false);
    }
    let (driver, driver_info) = (info.driver.clone(), info.driver_info.clone());
    let claim = Claim { caps: caps.clone(), backend: info.backend, driver, driver_info };
    let known = || known().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(proven) = known().get(&claim) {
        return (proven.clone(), false);
    }
    // A lost device is not tested: the caller gets the loss as an error.
    if gpu.there().is_err() {
        return (caps.clone(), false);
    }
    let mut proven = caps.clone();
    if let Some(lanes) = caps.subgroup
        && refuted(gpu, &format!("functions of subgroups of {lanes}"), subgroup(gpu, lanes))
    {
        (proven.subgroup, proven.subgroup_sizes) = (None, None);
    }
    if let Some([least, most]) = proven.subgroup_sizes
        && refuted(gpu, &format!("sums over subgroups of {least} to {most}"), subgroups(gpu, least))
    {
        proven.subgroup_sizes = None;
    }
    if software::has_to_prove(gpu) {
        proven.quirks = software::proven(gpu);
    }
    if gpu.there().is_ok() {
        known().insert(claim, proven.clone());
    }
    (proven, true)
}

/// Whether a probe found wrong results; they are logged. Results of a lost device do not count.
pub(crate) fn refuted(gpu: &Gpu, what: &str, verdict: Result<Verdict>) -> bool {
    let info = gpu.info();
    let name = format!("{} ({}, {} {})", info.name, info.backend, info.driver, info.driver_info);
    match verdict {
        Ok(Verdict::Right) => false,
        Ok(Verdict::Silent) => {
            log::warn!("{name} computed nothing in the test of {what}");
            false
        }
        Ok(Verdict::Wrong(count)) => {
            log::warn!("{name} computes {what} wrong, at {count} elements: they are not used");
            true
        }
        Err(Error::DeviceLost { .. }) => false,
        Err(error) => {
            log::warn!("{name} refuses {what}: they are not used ({error})");
            true
        }
    }
}

/// The result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All elements are right.
    Right,
    /// This many elements are wrong.
    Wrong(usize),
    /// Nothing was written at all.
    Silent,
}

impl Verdict {
    /// The verdict of words that are 1 where the result is right.
    pub(crate) fn of(words: &[u32]) -> Self {
        match words.iter().filter(|word| **word != 1).count() {
            0 => Self::Right,
            _ if words.iter().all(|word| *word == 0) => Self::Silent,
            wrong => Self::Wrong(wrong),
        }
    }
}

fn subgroup(gpu: &Gpu, lanes: u32) -> Result<Verdict> {
    run(gpu, "probe_subgroup", &format!("const LANES = {lanes}u;\n{SUBGROUP}"), lanes)
}

/// The verdict of a probe with a word for each invocation.
fn run(gpu: &Gpu, entry: &str, text: &str, lanes: u32) -> Result<Verdict> {
    let size = u64::from(4 * GROUPS * lanes);
    let verdict = gpu.buffer("probe", size, TENSORS)?;
    let mut encoder = gpu.encoder("probe");
    let bound = [(BindingKind::Storage { read_only: false }, verdict.as_entire_binding())];
    gpu.probe(&mut encoder, entry, text, &bound, GROUPS)?;
    Ok(Verdict::of(&gpu.probed(encoder, &verdict, size)?))
}

/// Whether sums over workgroups of several subgroups are right, which count on neighbouring lanes.
fn subgroups(gpu: &Gpu, least: u32) -> Result<Verdict> {
    const LANES: u32 = 256;
    let text = format!("const LANES = {LANES}u;\nconst SUBGROUP_MIN = {least}u;\n{REDUCTION}\n{SUBGROUPS}");
    run(gpu, "probe_subgroups", &text, LANES)
}

impl Gpu {
    /// Encodes a launch of a probe in its own pass.
    pub(crate) fn probe(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        entry: &str,
        text: &str,
        bound: &[(BindingKind, wgpu::BindingResource<'_>)],
        groups: u32,
    ) -> Result<()> {
        let kinds: Vec<BindingKind> = bound.iter().map(|(bound, _)| *bound).collect();
        let pipeline = self
            .pipeline(entry, text, &kinds, true)
            .map_err(|refused| Error::Shader { location: format!("{entry}.wgsl"), message: refused.message })?;
        // Pipelines have a uniform at binding 0, which probes do not read.
        let uniform = self.buffer("probe", 16, wgpu::BufferUsages::UNIFORM)?;
        let resources = std::iter::once(uniform.as_entire_binding()).chain(bound.iter().map(|(_, r)| r.clone()));
        let entries: Vec<_> =
            (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
        let group = self.bind_group(entry, &pipeline, &entries)?;
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
        Ok(())
    }

    /// Submits probes and reads their results.
    pub(crate) fn probed(&self, encoder: wgpu::CommandEncoder, found: &wgpu::Buffer, size: u64) -> Result<Vec<u32>> {
        self.submit("a probe", [encoder])?;
        Ok(bytemuck::pod_collect_to_vec(&self.read(found, 0, size)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_place_is_wrong_and_silence_is_neither() {
        assert_eq!(Verdict::of(&[1; 32]), Verdict::Right);
        assert_eq!(Verdict::of(&[1, 1, 2, 1]), Verdict::Wrong(1));
        assert_eq!(Verdict::of(&[1, 1, 0, 0]), Verdict::Wrong(2));
        assert_eq!(Verdict::of(&[0; 32]), Verdict::Silent);
    }
}
