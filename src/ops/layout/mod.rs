//! Layout ops: shapes, slices, concatenation, the order of axes.

pub(super) mod columns;
mod concat;
mod detach;
mod reshape;
mod slice;
mod split;
mod transpose;
pub(super) mod zeros;

pub use concat::concat;
pub use detach::detach;
pub use reshape::reshape;
pub use slice::slice;
pub use split::split;
pub use transpose::transpose;
pub use zeros::zeros;

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    [concat::cases(), detach::cases(), reshape::cases(), slice::cases(), transpose::cases()]
        .into_iter()
        .flatten()
        .collect()
}
