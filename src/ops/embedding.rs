//! Row lookup in a table, with a deterministic backward.
