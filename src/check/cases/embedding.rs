//! Row lookup in tables.

use super::index::mixed;
use crate::check::{Case, Feed};
use crate::dtype::DType;
use crate::ops;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let f32s = [(1, 1, [1, 3]), (97, 33, [3, 31]), (97, 64, [2, 129]), (257, 5, [1, 33])];
    let halves = [(97, 33, [3, 11]), (33, 8, [2, 31])];
    let all = f32s.iter().map(|&(v, c, ids)| (DType::F32, v, c, ids)).chain(
        [DType::F16, DType::BF16].into_iter().flat_map(|d| halves.iter().map(move |&(v, c, ids)| (d, v, c, ids))),
    );
    for (dtype, rows, columns, shape) in all {
        let ids = mixed(shape.iter().product(), rows);
        let feeds =
            vec![Feed::normal("table", [rows, columns]).stored_as(dtype), Feed::given("ids", shape, DType::U32, ids)];
        let name = format!("embedding {dtype} [{rows}, {columns}] ids {shape:?}");
        cases.push(Case::new(name, feeds, |g, x| Ok(vec![ops::embedding(g, x[0], x[1])?])));
    }
    for dtype in DType::QUANTISED {
        for (rows, columns, ids) in [(33, 96, 31), (257, 32, 1)] {
            let table = Feed::normal("table", [rows, columns]).stored_as(dtype);
            let feeds = vec![table, Feed::given("ids", [ids], DType::U32, mixed(ids, rows))];
            let name = format!("embedding {dtype} [{rows}, {columns}] ids {ids}");
            cases.push(Case::new(name, feeds, |g, x| Ok(vec![ops::embedding(g, x[0], x[1])?])));
        }
    }
    let feeds = vec![
        Feed::normal("table", [50257, 3]),
        Feed::given("ids", [40], DType::U32, (0..40).map(|i| f64::from(i * 1289 % 50257))),
    ];
    cases.push(Case::new("embedding of a large vocabulary", feeds, |g, x| Ok(vec![ops::embedding(g, x[0], x[1])?])));
    cases
}
