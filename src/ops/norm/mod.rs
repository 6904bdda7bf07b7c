//! Normalisation of rows: layer norm, RMS norm, softmax.

mod norm;
mod norm_cases;
mod norm_gain;
mod softmax;

pub use norm::{add_layer_norm, add_rms_norm, layer_norm, rms_norm, rms_norm_plus_one};
pub use softmax::{log_softmax, softmax};

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    [norm_cases::cases(), softmax::cases()].into_iter().flatten().collect()
}
