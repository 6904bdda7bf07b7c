//! Fused softmax attention, forward and backward, without a T×T tensor.
