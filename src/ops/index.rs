//! Gather and scatter of rows by index.
