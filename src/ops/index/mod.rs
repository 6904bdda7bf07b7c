//! Rows by index: gathered, scattered, sorted, counted.

mod by_distance;
mod embedding;
pub(super) mod gather;
mod gather_words;
mod ids;
mod mask_rows;
mod scatter;
pub(super) mod sort;
pub(super) mod unique;

pub use by_distance::by_distance;
pub use embedding::{embedding, embedding_with_padding};
pub use gather::gather_rows;
pub use gather_words::gather_words;
pub use ids::{offset_ids, omit_id, shift_ids};
pub use mask_rows::{fill_rows, mask_rows};
pub use scatter::{scatter_rows, scatter_rows_sorted};
pub use sort::{SortedIndex, sort_index};
pub use unique::{gather_unique, place_rows};

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    let of_ops = [
        by_distance::cases(),
        embedding::cases(),
        gather::cases(),
        gather_words::cases(),
        ids::cases(),
        scatter::cases(),
        sort::cases(),
        unique::cases(),
    ];
    of_ops.into_iter().flatten().collect()
}
