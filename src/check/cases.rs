//! The cases: those of every op, which stand beside them, and those of what the benchmark measures an adapter's ceilings with.

use crate::case::Case;
use crate::{bench, ops};

/// Every case of the suite.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = ops::cases();
    cases.extend(bench::cases());
    cases
}
