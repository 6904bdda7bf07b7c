//! Elementwise arithmetic.

use crate::check::{Case, Feed};
use crate::ops;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in [[1, 1], [31, 3], [33, 257]] {
        let feeds = vec![Feed::normal("a", shape), Feed::normal("b", shape)];
        cases.push(Case::new(format!("add {shape:?}"), feeds, |g, x| Ok(vec![ops::add(g, x[0], x[1])?])));
    }
    cases
}
