//! Elementwise arithmetic and broadcasts along rows.

use crate::check::{Case, Feed, Tolerance};
use crate::ops;
use crate::shape::Shape;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let tolerance = Tolerance { nmse: 1e-12, worst: 1e-6 };
    for shape in [&[1][..], &[31, 3], &[2, 33, 128], &[257]] {
        let pair = || vec![Feed::normal("a", shape), Feed::normal("b", shape)];
        let one = || vec![Feed::normal("x", shape)];
        cases.push(Case::new(format!("sub {shape:?}"), pair(), |g, x| Ok(vec![ops::sub(g, x[0], x[1])?])));
        cases.push(Case::new(format!("mul {shape:?}"), pair(), |g, x| Ok(vec![ops::mul(g, x[0], x[1])?])));
        cases.push(Case::new(format!("square {shape:?}"), one(), |g, x| Ok(vec![ops::mul(g, x[0], x[0])?])));
        cases.push(Case::new(format!("scale {shape:?}"), one(), |g, x| Ok(vec![ops::scale(g, x[0], -0.3)?])));
        cases.push(Case::new(format!("add_scalar {shape:?}"), one(), |g, x| Ok(vec![ops::add_scalar(g, x[0], 7.5)?])));
        for factor in [Shape::default(), Shape::from([1])] {
            let feeds = vec![Feed::normal("x", shape), Feed::normal_scaled("s", factor.clone(), 2.0, 0.5)];
            let name = format!("scale_by {shape:?} by {factor}");
            cases.push(Case::new(name, feeds, |g, x| Ok(vec![ops::scale_by(g, x[0], x[1])?])));
        }
    }
    for shape in [&[1, 1][..], &[257], &[31, 33], &[300, 2], &[2, 40, 260]] {
        let last = Shape::from(shape).last();
        let feeds = || vec![Feed::normal("x", shape), Feed::normal("row", [last])];
        cases.push(Case::new(format!("add_row {shape:?}"), feeds(), |g, x| Ok(vec![ops::add_row(g, x[0], x[1])?])));
        cases.push(Case::new(format!("mul_row {shape:?}"), feeds(), |g, x| Ok(vec![ops::mul_row(g, x[0], x[1])?])));
    }
    cases.into_iter().map(|case| case.tolerance(tolerance, Tolerance { nmse: 1e-11, worst: 1e-5 })).collect()
}
