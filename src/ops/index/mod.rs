//! Rows by index: gathered, scattered, sorted, counted.

mod embedding;
pub(super) mod gather;
mod gather_words;
pub(super) mod mask_rows;
pub(super) mod sort;
pub(super) mod unique;

pub use embedding::embedding;
pub use gather::{gather_rows, scatter_rows, scatter_rows_sorted};
pub use gather_words::gather_words;
pub use mask_rows::{fill_rows, mask_rows};
pub use sort::{SortedIndex, sort_index};
pub use unique::{gather_unique, place_rows};

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) const CASES: &[fn() -> Vec<Case>] =
    &[embedding::cases, gather::cases, gather_words::cases, sort::cases, unique::cases];
