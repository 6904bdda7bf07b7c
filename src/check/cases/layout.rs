//! Reshape, slice, split, concatenate, transpose.

use crate::check::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::ops;
use crate::ops::transpose::Transpose;

/// Copies are exact; a gradient is one too, wherever no two meet.
const EXACT: Tolerance = Tolerance { nmse: 0.0, worst: 0.0 };

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(slices());
    cases.extend(splits());
    cases.extend(transposes());
    cases.push(Case::new("reshape", vec![Feed::normal("x", [3, 10])], |g, x| Ok(vec![ops::reshape(g, x[0], [5, 6])?])));
    let numbers = (0..3 * 8).map(f64::from);
    let feeds = vec![Feed::given("ids", [3, 8], DType::U32, numbers)];
    cases.push(Case::new("layout of integers", feeds, |g, x| {
        let moved = ops::transpose(g, x[0], &[1, 0])?;
        let cut = ops::slice(g, x[0], 1, 4, 4)?;
        let joined = ops::concat(g, &[cut, x[0]], 1)?;
        let mut outputs = vec![moved, cut, joined];
        outputs.extend(ops::split(g, x[0], 1, &[1, 2, 5])?);
        Ok(outputs)
    }));
    cases.into_iter().map(|case| case.tolerance(EXACT, EXACT)).collect()
}

fn slices() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, axis, start, len) in
        [(vec![7], 0, 3, 1), (vec![33, 5], 0, 31, 2), (vec![3, 8, 12], 1, 4, 3), (vec![31, 257], 1, 100, 57)]
    {
        let feeds = vec![Feed::normal("x", shape.clone())];
        cases.push(Case::new(format!("slice {shape:?} axis {axis} from {start}"), feeds, move |g, x| {
            Ok(vec![ops::slice(g, x[0], axis, start, len)?])
        }));
    }
    cases
}

fn splits() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, axis, lengths) in [
        (vec![33, 24], 1, vec![8, 16]),
        (vec![5, 31, 3], 1, vec![1, 30]),
        (vec![31, 48], 1, vec![16, 16, 16]),
        (vec![9, 17], 1, vec![7, 1, 9]),
        (vec![257, 3], 0, vec![1, 100, 56, 100]),
    ] {
        let parts: Vec<Feed> = ["a", "b", "c", "d"]
            .into_iter()
            .zip(&lengths)
            .map(|(name, &len)| {
                let mut shape = shape.clone();
                shape[axis] = len;
                Feed::normal(name, shape)
            })
            .collect();
        cases.push(Case::new(format!("concat {shape:?} axis {axis} of {lengths:?}"), parts, move |g, x| {
            Ok(vec![ops::concat(g, x, axis)?])
        }));
        let name = format!("split {shape:?} axis {axis} into {lengths:?}");
        let feeds = vec![Feed::normal("x", shape.clone())];
        cases.push(Case::new(name, feeds, move |g, x| ops::split(g, x[0], axis, &lengths)));
    }
    let feeds = vec![Feed::normal("x", [6, 20])];
    for (width, what) in [(64, "where they lie"), (33, "which must be moved")] {
        let name = format!("pieces of one row, {what}");
        cases.push(Case::new(name, vec![Feed::normal("x", [1, 4 * width])], move |g, x| {
            let row = ops::scale(g, x[0], 2.0)?;
            let mut pieces = ops::split(g, row, 1, &[width, 2 * width, width])?;
            pieces[1] = ops::slice(g, pieces[1], 1, width, width)?;
            // By powers of two, so that numbers stay exact.
            Ok(vec![ops::scale(g, pieces[0], 0.5)?, ops::scale(g, pieces[1], 4.0)?, pieces[2]])
        }));
    }
    cases.push(Case::new("split with an unused piece", feeds, |g, x| {
        let pieces = ops::split(g, x[0], 1, &[4, 8, 8])?;
        Ok(vec![pieces[1]])
    }));
    let feeds = vec![Feed::normal("a", [4, 3]), Feed::normal("b", [4, 6]).fixed()];
    cases.push(Case::new("concat with one gradient", feeds, |g, x| Ok(vec![ops::concat(g, x, 1)?])));
    cases
}

fn transposes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, axes) in [
        (vec![1, 31], vec![1, 0]),
        (vec![33, 257], vec![1, 0]),
        (vec![3, 70, 36], vec![0, 2, 1]),
        (vec![2, 5, 3, 8], vec![0, 2, 1, 3]),
        (vec![2, 5, 3, 7], vec![0, 2, 1, 3]),
        (vec![2, 3, 4, 5], vec![3, 1, 0, 2]),
        (vec![2, 3, 2, 5, 4], vec![4, 3, 2, 1, 0]),
    ] {
        let feeds = vec![Feed::normal("x", shape.clone())];
        cases.push(Case::new(format!("transpose {shape:?} to {axes:?}"), feeds, move |g, x| {
            Ok(vec![ops::transpose(g, x[0], &axes)?])
        }));
    }
    for shape in [[1, 1, 33], [2, 32, 64], [3, 33, 257]] {
        for tiles in [false, true] {
            let name = format!("transpose {shape:?}, tiles {tiles}");
            cases.push(Case::new(name, vec![Feed::normal("x", shape)], move |g, x| {
                Ok(vec![g.put1(Transpose { axes: vec![0, 2, 1], tiles: Some(tiles) }, &[x[0]])?])
            }));
        }
    }
    cases
}
