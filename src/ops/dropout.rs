//! Dropout from a counter-based generator.
