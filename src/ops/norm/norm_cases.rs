//! Layer norm and RMS norm.

use super::norm::{NormKind, norm};
use crate::case::{Case, Feed, Tolerance};
use crate::ops;
use crate::ops::rows::RowVariant;
use crate::shape::Shape;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in [&[1, 1][..], &[5, 3], &[257], &[31, 33], &[2, 37, 64], &[700, 36], &[9, 1028], &[3, 2049], &[2, 5000]]
    {
        for variant in RowVariant::ALL {
            for (centered, bias) in [(true, true), (true, false), (false, false)] {
                for residual in [false, true] {
                    // Of one element x̂ is ±1 whatever it is, so the gradient is 0 but for eps and rounding.
                    if shape.ends_with(&[1]) && !centered {
                        continue;
                    }
                    let kind = NormKind { variant: Some(variant), ..NormKind::new(centered, 1e-5) };
                    cases.push(case(shape, kind, bias, residual));
                    if !centered && shape.len() < 3 {
                        cases.push(case(shape, NormKind { plus_one: true, ..kind }, bias, residual));
                    }
                }
            }
        }
    }
    // Rows that a subgroup may hold: of blocks of 32 or 64 columns.
    for shape in [&[31, 64][..], &[8, 192], &[257, 448], &[90, 1024]] {
        for (centered, bias, residual) in
            [(true, true, false), (true, true, true), (true, false, true), (false, false, false)]
        {
            cases.push(case(shape, NormKind::new(centered, 1e-5), bias, residual));
        }
        cases.push(case(shape, NormKind { plus_one: true, ..NormKind::new(false, 1e-5) }, false, true));
    }
    cases.extend([260, 256].map(far_from_zero));
    cases.push(one_output("rms_norm_plus_one", |g, x| {
        let sum = ops::add(g, x[0], x[1])?;
        Ok(vec![ops::rms_norm_plus_one(g, sum, x[2], 1e-6)?])
    }));
    cases.push(one_output("norm of add_rms_norm only", |g, x| {
        Ok(vec![ops::add_rms_norm(g, x[0], x[1], x[2], 1e-6)?.1])
    }));
    cases
}

fn case(shape: &[usize], kind: NormKind, bias: bool, residual: bool) -> Case {
    let last = Shape::from(shape).last();
    let mut feeds = vec![Feed::normal_scaled("x", shape, 0.3, 1.5), Feed::normal_scaled("gain", [last], 1.0, 0.3)];
    if residual {
        feeds.push(Feed::normal("residual", shape));
    }
    if bias {
        feeds.push(Feed::normal("bias", [last]));
    }
    let name = match (kind.centered, bias, kind.plus_one) {
        (true, true, _) => "layer_norm",
        (true, false, _) => "layer_norm without bias",
        (false, _, true) => "rms_norm plus one",
        _ => "rms_norm",
    };
    let name = format!("{}{name} {shape:?} {:?}", if residual { "add_" } else { "" }, kind.variant);
    let case = Case::new(name, feeds, move |g, x| {
        let residual = residual.then(|| x[2]);
        let (sum, normed) = norm(g, kind, x[0], residual, x[1], bias.then(|| x[x.len() - 1]))?;
        Ok(if residual.is_some() { vec![normed, sum] } else { vec![normed] })
    });
    case.tolerance(Tolerance { nmse: 1e-12, worst: 5e-6 }, Tolerance { nmse: 1e-11, worst: 1e-5 })
}

/// Rows whose mean is far larger than their deviation: `E[x²] − μ²` would have no correct digit left.
fn far_from_zero(columns: usize) -> Case {
    let feeds = vec![Feed::normal_scaled("x", [19, columns], 3000.0, 1.0), Feed::normal("gain", [columns])];
    let name = format!("layer_norm of {columns} far from zero");
    let case = Case::new(name, feeds, |g, x| Ok(vec![ops::layer_norm(g, x[0], x[1], None, 1e-5)?]));
    // The mean itself is rounded: 3000 has an ulp of 2.4e-4, which the sums over rows add up.
    case.tolerance(Tolerance { nmse: 1e-7, worst: 5e-4 }, Tolerance { nmse: 1e-6, worst: 2e-3 })
}

fn one_output(
    name: &str,
    build: impl Fn(&mut crate::Graph, &[crate::Tensor]) -> crate::Result<Vec<crate::Tensor>> + Send + Sync + 'static,
) -> Case {
    let feeds = vec![Feed::normal("x", [7, 40]), Feed::normal("residual", [7, 40]), Feed::normal("gain", [40])];
    Case::new(name, feeds, build)
}
