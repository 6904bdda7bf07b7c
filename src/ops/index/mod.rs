//! Rows by index: gathered, scattered, sorted, counted.

mod embedding;
pub(super) mod gather;
mod gather_words;
mod mask_rows;
mod scatter;
pub(super) mod sort;
pub(super) mod unique;

pub use embedding::embedding;
pub use gather::gather_rows;
pub use gather_words::gather_words;
pub use mask_rows::{fill_rows, mask_rows};
pub use scatter::{scatter_rows, scatter_rows_sorted};
pub use sort::{SortedIndex, sort_index};
pub use unique::{gather_unique, place_rows};

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    [embedding::cases(), gather::cases(), gather_words::cases(), scatter::cases(), sort::cases(), unique::cases()]
        .into_iter()
        .flatten()
        .collect()
}
