//! Rows normalised: layer norm, RMS norm, softmax.

pub(crate) mod norm;
pub(crate) mod softmax;

pub use norm::{add_layer_norm, add_rms_norm, layer_norm, rms_norm};
pub use softmax::{log_softmax, softmax};
