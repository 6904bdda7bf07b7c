//! The cases, one file a family of ops.

mod arithmetic;

use super::Case;

/// Every case of the suite.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(arithmetic::cases());
    cases
}
