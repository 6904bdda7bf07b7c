//! Activation functions and gated linear units.

use crate::check::{Case, Feed, Tolerance};
use crate::ops::{self, Activation};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let forward = Tolerance { nmse: 1e-12, worst: 2e-6 };
    let backward = Tolerance { nmse: 1e-12, worst: 2e-6 };
    for kind in Activation::ALL {
        // The deviations reach the middle, the tails and arguments at which a careless exp or tanh overflows.
        for (shape, deviation) in [(vec![1], 1.0), (vec![31, 33], 1.0), (vec![4, 256], 3.0), (vec![257], 200.0)] {
            let feeds = vec![Feed::normal_scaled("x", shape.clone(), 0.0, deviation)];
            let name = format!("activation {kind:?} {shape:?} deviation {deviation}");
            let case = Case::new(name, feeds, move |g, x| Ok(vec![ops::activation(g, x[0], kind)?]));
            cases.push(case.tolerance(forward, backward));
        }
        for shape in [[1, 1], [33, 31], [16, 64]] {
            let feeds = vec![Feed::normal_scaled("gate", shape, 0.0, 2.0), Feed::normal("up", shape)];
            let case = Case::new(format!("gated {kind:?} {shape:?}"), feeds, move |g, x| {
                Ok(vec![ops::gated(g, x[0], x[1], kind)?])
            });
            cases.push(case.tolerance(forward, backward));
        }
    }
    cases
}
