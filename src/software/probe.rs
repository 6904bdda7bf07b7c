//! What drivers that compute on the CPU have to prove before the engine makes use of it: how long their loops go on, and textures.

use super::Quirks;
use crate::error::Result;
use crate::gpu::{Bound, Gpu, TENSORS};

const LOOPS: &str = include_str!("probe_loops.wgsl");

/// Whether there is anything that a device has to prove.
pub(crate) fn has_to_prove(gpu: &Gpu) -> bool {
    gpu.caps().quirks != Quirks::default() || gpu.info().device_type == wgpu::DeviceType::Cpu
}

/// The quirks of a device, less what it gets wrong.
pub(crate) fn proven(gpu: &Gpu) -> Quirks {
    let mut quirks = gpu.caps().quirks.clone();
    let claimed = quirks.most_turns;
    match loops(gpu, claimed) {
        Ok(Some(turns)) => {
            log::warn!("{} leaves loops after {turns} turns: none go on for longer", gpu.info().name);
            quirks.most_turns = Some(turns);
        }
        Ok(None) => {}
        Err(error) => log::warn!("how long loops go on could not be tried out: {error}"),
    }
    #[cfg(feature = "software-drivers")]
    super::texture_probe::prove(gpu, &mut quirks);
    quirks
}

/// After how many turns a driver leaves loops, if that is sooner than it may.
fn loops(gpu: &Gpu, claimed: Option<u32>) -> Result<Option<u32>> {
    // In a nest the turns of both loops count.
    let wanted = claimed.unwrap_or(70_001);
    let side = (0..).take_while(|side| side * (side + 1) <= wanted).last().unwrap_or(0);
    let turns = gpu.buffer("probe", 8, TENSORS)?;
    gpu.write(&turns, 0, bytemuck::cast_slice(&[wanted, side]))?;
    let mut encoder = gpu.encoder("probe");
    let bound = [(Bound::Storage { read_only: false }, turns.as_entire_binding())];
    gpu.probe(&mut encoder, "probe_loops", LOOPS, &bound, 2)?;
    let states = gpu.probed(encoder, &turns, 8)?;
    if states == [wanted, side] {
        // Nothing was computed.
        return Ok(None);
    }
    let short = [(states[0], wanted), (states[1], side * side)].into_iter().map(|(state, most)| turns_to(state, most));
    Ok(short.zip([wanted, side * side]).filter(|(turns, most)| turns < most).map(|(turns, _)| turns).min())
}

/// The turns of the probe's generator after which it is in a state; 0 if it is not within `most`.
fn turns_to(state: u32, most: u32) -> u32 {
    let mut at = 1_u32;
    for turns in 0..=most {
        if at == state {
            return turns;
        }
        at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_tells_the_turns_to_it() {
        assert_eq!([turns_to(1, 10), turns_to(1_015_568_748, 10)], [0, 1]);
        let mut state = 1_u32;
        (0..65_535).for_each(|_| state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        assert_eq!(turns_to(state, 70_001), 65_535);
        assert_eq!(turns_to(state, 65_534), 0, "out of reach");
    }
}
