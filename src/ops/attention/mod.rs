//! Attention, rotary and sinusoidal positions, and the cache of keys and values.

mod attention;
mod backward;
mod cache;
mod cache_cases;
mod cases;
mod forward;
mod key_limits;
mod reference;
mod ring;
mod rope;
mod rope_rows;
mod rope_scaling;
mod score_cases;
mod sinusoidal;
mod spec;
mod variant;
mod weights;
mod window;
mod window_cases;

pub(crate) use attention::AttentionDropout;
pub use attention::{AttentionOptions, KeyPages, attention};
pub use cache::cache_write;
pub use ring::ring_slots;
pub use rope::{RopeOptions, rope, rope_table};
pub use rope_rows::{rope_rows, rope_table_by_length};
pub use rope_scaling::RopeScaling;
pub use sinusoidal::{sinusoidal_table, sinusoidal_table_halves};
pub(crate) use variant::AttentionVariant;
pub use weights::{AttentionWeights, attention_weights};
pub(in crate::ops) use window::check_cap;

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    [cases::cases(), cache::cases(), ring::cases(), rope::cases(), rope_rows::cases()].into_iter().flatten().collect()
}
