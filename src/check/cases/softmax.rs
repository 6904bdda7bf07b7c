//! Softmax and its logarithm.

use crate::check::{Case, Feed, Tolerance};
use crate::ops::rows::RowVariant;
use crate::ops::softmax::Softmax;
use crate::shape::Shape;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for log in [false, true] {
        let name = if log { "log_softmax" } else { "softmax" };
        for shape in [&[1, 1][..], &[33, 1], &[257], &[31, 3], &[2, 9, 33], &[5, 1028], &[3, 2049]] {
            for variant in RowVariant::ALL {
                cases.push(case(format!("{name} {shape:?} {variant:?}"), Feed::normal("x", shape), log, variant));
            }
        }
        for variant in RowVariant::ALL {
            // Values at which a naive exp overflows, and a constant that a shift must not change.
            let large = Feed::normal_scaled("x", [17, 67], 1e4, 30.0);
            cases.push(case(format!("{name} of large values {variant:?}"), large, log, variant));
            cases.push(case(format!("{name} of masked values {variant:?}"), masked(), log, variant));
        }
    }
    cases
}

/// Rows of which some elements are masked by a large negative number; the third is masked altogether.
fn masked() -> Feed {
    let shape = Shape::from([4, 37]);
    let value = |i: usize| if i / 37 == 2 || i % 3 == i / 37 { -1e30 } else { (i * 7 % 11) as f64 * 0.25 };
    let values: Vec<f64> = (0..shape.numel()).map(value).collect();
    Feed::given("x", shape, crate::DType::F32, values)
}

fn case(name: String, feed: Feed, log: bool, variant: RowVariant) -> Case {
    let case =
        Case::new(name, vec![feed], move |g, x| Ok(vec![g.put1(Softmax { log, variant: Some(variant) }, &[x[0]])?]));
    case.tolerance(Tolerance { nmse: 1e-11, worst: 5e-6 }, Tolerance { nmse: 1e-10, worst: 2e-5 })
}
