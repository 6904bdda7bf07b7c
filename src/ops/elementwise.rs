//! Elementwise arithmetic and broadcasts along rows.
