//! Prints a recording as a table, and sums its memory by kind.

use super::{Plan, Recording, Source};
use crate::error::human_bytes;
use crate::kernel::Binding;
use crate::software::texture_bytes;
use std::fmt;

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>4}  {:<28} {:>7} {:>9} {:>10}  tensors", "", "kernel", "groups", "flops", "bytes")?;
        for (index, dispatch) in self.dispatches.iter().enumerate() {
            let name = |b: &Binding| {
                let part = if b.view.start > 0 { format!("+{}", b.view.start) } else { String::new() };
                let how = if b.access.is_buffer() { "" } else { "~" };
                format!("%{}{part}:{}{}{how}", b.view.slot, b.view.dtype, b.view.shape)
            };
            let side = |read: bool| -> Vec<String> {
                dispatch.bindings.iter().filter(|b| b.access.only_reads() == read).map(name).collect()
            };
            let variant: Vec<String> =
                dispatch.constants.iter().map(|(name, value)| format!("{name}={value}")).collect();
            writeln!(
                f,
                "{index:>4}  {:<28} {:>7} {:>9} {:>10}  {} -> {}  {} {}",
                dispatch.kernel.name,
                dispatch.groups,
                human_count(dispatch.flops),
                human_bytes(dispatch.bytes()),
                side(true).join(" "),
                side(false).join(" "),
                dispatch.label,
                variant.join(" "),
            )?;
        }
        writeln!(
            f,
            "{} dispatches, {}flop, at least {} moved",
            self.dispatches.len(),
            human_count(self.flops()),
            human_bytes(self.bytes())
        )
    }
}

/// A count with a unit prefix: `12.3G`.
#[must_use]
pub(crate) fn human_count(count: u64) -> String {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 { count.to_string() } else { format!("{size:.1}{}", UNITS[unit]) }
}

/// The memory of a program in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MemoryReport {
    /// Arenas for temporaries.
    pub temporaries: u64,
    /// The most bytes of temporaries that are alive at the same time.
    pub lower_bound: u64,
    /// The number of arenas.
    pub arenas: usize,
    /// Weights that the program reads, as stored. In training they are part of the states.
    pub parameters: u64,
    /// States.
    pub states: u64,
    /// Inputs and constants.
    pub inputs: u64,
    /// Textures through which kernels read tensors.
    pub textures: u64,
}

impl MemoryReport {
    /// The memory of a recording under a plan.
    #[must_use]
    pub fn new(recording: &Recording, plan: &Plan) -> Self {
        let sum =
            |pick: fn(&Source) -> bool| recording.slots.iter().filter(|s| pick(&s.source)).map(|s| s.ty.bytes()).sum();
        Self {
            temporaries: plan.peak(),
            lower_bound: plan.lower_bound,
            arenas: plan.arenas.len(),
            parameters: sum(|s| matches!(s, Source::Parameter(_))),
            states: sum(|s| matches!(s, Source::State(_))),
            inputs: sum(|s| matches!(s, Source::Input(_) | Source::Constant(..))),
            textures: texture_bytes(recording),
        }
    }
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.temporaries as f64 / self.lower_bound.max(1) as f64;
        writeln!(
            f,
            "temporaries {} in {} arena{} ({ratio:.3} × the {} alive at once)",
            human_bytes(self.temporaries),
            self.arenas,
            if self.arenas == 1 { "" } else { "s" },
            human_bytes(self.lower_bound)
        )?;
        write!(
            f,
            "parameters {}, states {}, inputs and constants {}",
            human_bytes(self.parameters),
            human_bytes(self.states),
            human_bytes(self.inputs)
        )?;
        if self.textures > 0 {
            write!(f, ", textures for operands {}", human_bytes(self.textures))?;
        }
        Ok(())
    }
}
