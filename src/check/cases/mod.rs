//! The cases, one file a family of ops.

mod activation;
mod arithmetic;
mod elementwise;
mod embedding;
mod index;
mod layout;
mod optimizer;
mod reduce;

use super::Case;

/// Every case of the suite.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(activation::cases());
    cases.extend(arithmetic::cases());
    cases.extend(elementwise::cases());
    cases.extend(reduce::cases());
    cases.extend(optimizer::cases());
    cases.extend(embedding::cases());
    cases.extend(index::cases());
    cases.extend(layout::cases());
    cases
}
