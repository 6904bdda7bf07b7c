//! Gradient clipping, AdamW, casts of weights, loss scaling.
