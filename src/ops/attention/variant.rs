//! The kernels that attention can be computed by, and which adapter gets which.

use super::setting::Sizes;
use crate::kernel::{AdapterClass, Caps};

/// A way to compute attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionVariant {
    /// An invocation for a few rows. Legal everywhere.
    Rows,
}

impl AttentionVariant {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Rows];

    /// Whether the adapter can run it on these sizes.
    pub(super) fn legal(self, _caps: &Caps, _sizes: &Sizes) -> bool {
        match self {
            Self::Rows => true,
        }
    }

    /// The wished-for variant if it is legal, or else the adapter's default.
    pub(super) fn choose(wish: Option<Self>, caps: &Caps, sizes: &Sizes) -> Self {
        wish.filter(|v| v.legal(caps, sizes)).unwrap_or(Self::Rows)
    }
}

/// Rows an invocation of the row kernels owns. On CPU drivers loads are dear and registers spill cheaply, but the time to
/// compile grows with the square of what is spilled.
pub(super) fn rows(caps: &Caps, sizes: &Sizes, count: usize) -> u32 {
    match caps.class {
        AdapterClass::Cpu if count >= 16 => (32 / sizes.width.next_power_of_two()).clamp(1, 4) as u32,
        _ => 1,
    }
}
