//! Gather, scatter and the sort behind them.

use crate::check::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::ops;

/// `count` indices of 0..rows in no particular order, some rows more often than others.
pub(super) fn mixed(count: usize, rows: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * i + 7 * i) % 1009 % rows) as f64).collect()
}

fn index(values: Vec<f64>) -> Feed {
    Feed::given("index", [values.len()], DType::U32, values)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns, count) in [(1, 1, 1), (5, 33, 31), (97, 4, 33), (31, 7, 257)] {
        let feeds = vec![Feed::normal("x", [rows, columns]), index(mixed(count, rows))];
        let name = format!("gather_rows {count} of [{rows}, {columns}]");
        cases.push(Case::new(name, feeds, |g, x| Ok(vec![ops::gather_rows(g, x[0], x[1])?])));
        let feeds = vec![Feed::normal("x", [count, columns]), index(mixed(count, rows))];
        let name = format!("scatter_rows {count} to [{rows}, {columns}]");
        cases.push(Case::new(name, feeds, move |g, x| Ok(vec![ops::scatter_rows(g, x[0], x[1], rows)?])));
    }
    for (rows, columns, count) in [(1, 3, 1), (31, 3, 33), (97, 4, 257)] {
        let words = Feed::given("x", [rows, columns], DType::U32, mixed(rows * columns, 997));
        let mut values = mixed(count, rows);
        values[count / 2] = 4_000_000_000.0;
        let name = format!("gather_words {count} of [{rows}, {columns}]");
        cases.push(Case::new(name, vec![words, index(values)], |g, x| Ok(vec![ops::gather_words(g, x[0], x[1])?])));
    }
    // Long segments: one row; two rows whose border lies inside a chunk; a short one between long ones.
    let patterns: [(&str, fn(usize) -> usize); 3] = [
        ("one row", |_| 2),
        ("two rows", |i| usize::from(i % 5 == 0) * 3),
        ("long, short, long", |i| if i == 100 { 1 } else { (i % 3).min(1) * 2 }),
    ];
    for (name, row) in patterns {
        for columns in [1, 8] {
            let values = (0..301).map(|i| row(i) as f64).collect();
            let feeds = vec![Feed::normal("x", [301, columns]), index(values)];
            let name = format!("scatter_rows, long segments: {name}, {columns} columns");
            cases.push(Case::new(name, feeds, |g, x| Ok(vec![ops::scatter_rows(g, x[0], x[1], 4)?])));
        }
    }
    let outside: Vec<f64> = (0..40).map(|i| if i % 3 == 0 { 4_000_000_000.0 } else { f64::from(i % 7) }).collect();
    let feeds = vec![Feed::normal("x", [5, 6]), Feed::normal("y", [40, 6]), index(outside)];
    cases.push(Case::new("gather_rows and scatter_rows, rows that are not there", feeds, |g, x| {
        Ok(vec![ops::gather_rows(g, x[0], x[2])?, ops::scatter_rows(g, x[1], x[2], 5)?])
    }));
    cases.extend(sorts());
    cases
}

fn sorts() -> Vec<Case> {
    let exact = Tolerance { nmse: 0.0, worst: 0.0 };
    let mut cases = Vec::new();
    for (rows, count) in [(1, 3), (255, 1000), (256, 257), (50257, 1000), (200_003, 513)] {
        let values =
            (0..count).map(|i: u32| f64::from(i.wrapping_mul(2_654_435_761) % (rows + rows / 7 + 1))).collect();
        let case = Case::new(format!("sort_index {count} by {rows} rows"), vec![index(values)], move |g, x| {
            let sorted = ops::sort_index(g, x[0], rows as usize)?;
            Ok(vec![sorted.order, sorted.starts])
        });
        cases.push(case.tolerance(exact, exact));
    }
    cases
}
