//! Dropout.

use crate::check::{Case, Feed};
use crate::dtype::DType;
use crate::ops;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, rate, salt) in
        [(vec![1], 0.5, 0), (vec![31, 33], 0.1, 3), (vec![257, 3], 0.4, 7), (vec![2, 5, 128], 0.9, u32::MAX)]
    {
        let seed = Feed::given("seed", [2], DType::U32, [4_000_000_007.0, 12_345.0]);
        let feeds = vec![Feed::normal("x", shape.clone()), seed];
        cases.push(Case::new(format!("dropout {shape:?} rate {rate}"), feeds, move |g, x| {
            Ok(vec![ops::dropout(g, x[0], rate, x[1], salt)?])
        }));
    }
    cases
}
