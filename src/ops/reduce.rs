//! Sums and means.
