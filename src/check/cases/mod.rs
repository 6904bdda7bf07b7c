//! The cases, one file a family of ops.

mod activation;
mod arithmetic;
mod attention;
mod attention_scores;
mod balance;
mod bench;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod experts;
mod gate;
mod index;
mod layout;
mod long;
mod matmul;
mod norm;
mod optimizer;
mod position;
mod reduce;
mod router;
mod select;
mod softmax;

use super::Case;

/// Every case of the suite.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(activation::cases());
    cases.extend(arithmetic::cases());
    cases.extend(elementwise::cases());
    cases.extend(norm::cases());
    cases.extend(reduce::cases());
    cases.extend(softmax::cases());
    cases.extend(optimizer::cases());
    cases.extend(cross_entropy::cases());
    cases.extend(dropout::cases());
    cases.extend(position::cases());
    cases.extend(embedding::cases());
    cases.extend(gate::cases());
    cases.extend(balance::cases());
    cases.extend(index::cases());
    cases.extend(experts::cases());
    cases.extend(layout::cases());
    cases.extend(long::cases());
    cases.extend(matmul::cases());
    cases.extend(attention::cases());
    cases.extend(select::cases());
    cases.extend(router::cases());
    cases.extend(bench::cases());
    cases
}
