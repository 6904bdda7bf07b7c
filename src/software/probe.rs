//! Probes of CPU drivers: how many iterations their loops run, and textures.

use super::Quirks;
use crate::error::Result;
use crate::gpu::{BindingKind, Gpu, TENSORS};

const LOOPS: &str = include_str!("probe_loops.wgsl");

/// Whether a device has to be probed.
pub(crate) fn has_to_prove(gpu: &Gpu) -> bool {
    gpu.caps().quirks != Quirks::default() || gpu.info().device_type == wgpu::DeviceType::Cpu
}

/// The quirks of a device, without the features that it computes wrong.
pub(crate) fn proven(gpu: &Gpu) -> Quirks {
    let mut quirks = gpu.caps().quirks.clone();
    let claimed = quirks.max_loop_iterations;
    match loops(gpu, claimed) {
        Ok(Some(iterations)) => {
            log::warn!("{} leaves loops after {iterations} iterations: kernels stay below that", gpu.info().name);
            quirks.max_loop_iterations = Some(iterations);
        }
        Ok(None) => {}
        Err(error) => log::warn!("the limit of loop iterations could not be tested: {error}"),
    }
    #[cfg(feature = "software-drivers")]
    super::texture_probe::prove(gpu, &mut quirks);
    quirks
}

/// The number of iterations after which a driver leaves loops; `None` if that is no less than claimed.
fn loops(gpu: &Gpu, claimed: Option<u32>) -> Result<Option<u32>> {
    // In nested loops the iterations of both count.
    let wanted = claimed.unwrap_or(70_001);
    let side = (0..).take_while(|side| side * (side + 1) <= wanted).last().unwrap_or(0);
    let iterations = gpu.buffer("probe", 8, TENSORS)?;
    gpu.write(&iterations, 0, bytemuck::cast_slice(&[wanted, side]))?;
    let mut encoder = gpu.encoder("probe");
    let bound = [(BindingKind::Storage { read_only: false }, iterations.as_entire_binding())];
    gpu.probe(&mut encoder, "probe_loops", LOOPS, &bound, 2)?;
    let states = gpu.probed(encoder, &iterations, 8)?;
    if states == [wanted, side] {
        // Nothing was computed.
        return Ok(None);
    }
    let short =
        [(states[0], wanted), (states[1], side * side)].into_iter().map(|(state, most)| iterations_to(state, most));
    Ok(short
        .zip([wanted, side * side])
        .filter(|(iterations, most)| iterations < most)
        .map(|(iterations, _)| iterations)
        .min())
}

/// The number of iterations of the probe's generator to reach a state; 0 if it takes more than `most`.
fn iterations_to(state: u32, most: u32) -> u32 {
    let mut at = 1_u32;
    for iterations in 0..=most {
        if at == state {
            return iterations;
        }
        at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_gives_its_number_of_iterations() {
        assert_eq!([iterations_to(1, 10), iterations_to(1_015_568_748, 10)], [0, 1]);
        let mut state = 1_u32;
        (0..65_535).for_each(|_| state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        assert_eq!(iterations_to(state, 70_001), 65_535);
        assert_eq!(iterations_to(state, 65_534), 0, "too far");
    }
}
