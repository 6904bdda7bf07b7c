//! Sums and means.

use crate::check::{Case, Feed, Tolerance};
use crate::ops;
use crate::ops::reduce::{Over, Reduce};
use crate::ops::rows::RowVariant;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // The values have a mean, so that the sums do not cancel and a relative error means something.
    let x = |shape: &[usize]| vec![Feed::normal_scaled("x", shape, 0.5, 1.0)];
    let tolerance = Tolerance { nmse: 1e-12, worst: 2e-6 };
    for shape in [&[1][..], &[257], &[31, 33], &[3, 70_001], &[8, 33_000]] {
        let case = Case::new(format!("sum {shape:?}"), x(shape), |g, x| Ok(vec![ops::sum(g, x[0])?]));
        cases.push(case.tolerance(tolerance, tolerance));
        let case = Case::new(format!("mean {shape:?}"), x(shape), |g, x| Ok(vec![ops::mean(g, x[0])?]));
        cases.push(case.tolerance(tolerance, tolerance));
    }
    for shape in [&[1, 1][..], &[257], &[1, 31], &[64, 4], &[65, 33], &[3, 31, 260], &[9001, 8], &[1000, 257]] {
        let case = Case::new(format!("sum_rows {shape:?}"), x(shape), |g, x| Ok(vec![ops::sum_rows(g, x[0])?]));
        cases.push(case.tolerance(tolerance, tolerance));
    }
    for shape in [&[1, 1][..], &[257], &[31, 1], &[33, 31], &[2, 5, 1028], &[3, 2049]] {
        for variant in RowVariant::ALL {
            let case = Case::new(format!("sum_last {shape:?} {variant:?}"), x(shape), move |g, x| {
                let op = Reduce { variant: Some(variant), ..Reduce::new(Over::Last, 1.0) };
                Ok(vec![g.put1(op, &[x[0]])?])
            });
            cases.push(case.tolerance(tolerance, tolerance));
        }
        let case = Case::new(format!("mean_last {shape:?}"), x(shape), |g, x| Ok(vec![ops::mean_last(g, x[0])?]));
        cases.push(case.tolerance(tolerance, tolerance));
    }
    // The gradient of a gradient: a sum of a broadcast.
    let name = "sum_last through broadcast [17, 36]";
    cases.push(Case::new(name, x(&[17, 36]), |g, x| {
        let total = ops::sum_last(g, x[0])?;
        let back = g.differentiate_from(&[(total, total)], &[x[0]])?;
        back[0].map(|t| vec![t]).ok_or_else(|| crate::Error::Graph("no gradient".into()))
    }));
    cases
}
