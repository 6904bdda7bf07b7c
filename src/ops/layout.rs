//! Reshape, slice, split, concatenate, transpose.
