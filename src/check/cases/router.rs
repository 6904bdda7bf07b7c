//! Gated sums and the losses of routers.

use crate::check::{Case, Feed};
use crate::dtype::DType;
use crate::graph::{Graph, Tensor};
use crate::ops::gated_add::GatedAdd;
use crate::ops::rows::RowVariant;
use crate::ops::{self, Choice, RouterLoss, SelectOptions};

fn lengths(batch: usize, time: usize) -> Feed {
    Feed::given("lengths", [batch], DType::U32, (0..batch).map(|b| (time - b * 5 % time) as f64))
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns) in [(1, 1), (31, 33), (33, 257), (257, 4), (5, 1028)] {
        for variant in RowVariant::ALL {
            let feeds = vec![
                Feed::normal("x", [rows, columns]),
                Feed::normal("y", [rows, columns]),
                Feed::normal("gate", [rows]),
            ];
            cases.push(Case::new(format!("gated_add [{rows}, {columns}] {variant:?}"), feeds, move |g, x| {
                Ok(vec![g.put1(GatedAdd { variant: Some(variant) }, x)?])
            }));
        }
    }
    for (batch, candidates, deviation) in [(1, 1, 1.0), (2, 31, 1.0), (3, 33, 40.0), (2, 257, 3.0), (1, 20_011, 2.0)] {
        for padded in [false, true] {
            cases.push(selection(batch, candidates, deviation, padded));
        }
    }
    for (batch, time, ways, deviation) in [(1, 1, 1, 1.0), (1, 31, 3, 1.0), (3, 11, 4, 30.0), (2, 257, 9, 2.0)] {
        for padded in [false, true] {
            cases.push(balance(batch, time, ways, deviation, padded));
        }
    }
    for (rows, columns) in [(1, 1), (31, 3), (257, 5), (33, 64)] {
        let name = format!("argmax_rows and pick [{rows}, {columns}]");
        let feeds = vec![Feed::normal("x", [rows, columns]), Feed::normal("bias", [columns]).fixed()];
        cases.push(Case::new(name, feeds, |g, x| {
            let (plain, biased) = (ops::argmax_rows(g, x[0], None)?, ops::argmax_rows(g, x[0], Some(x[1]))?);
            Ok(vec![plain, biased, ops::pick(g, x[0], biased)?])
        }));
    }
    let equal = Feed::given("x", [33, 4], DType::F32, (0..132).map(|i| f64::from(i * i % 3)));
    cases.push(Case::new("argmax_rows of equal numbers", vec![equal], |g, x| {
        Ok(vec![ops::argmax_rows(g, x[0], None)?])
    }));
    let outside = Feed::given("index", [5], DType::U32, [0.0, 3.0, 4_000_000_000.0, 2.0, 1.0]);
    cases.push(Case::new("pick outside", vec![Feed::normal("x", [5, 3]), outside], |g, x| {
        Ok(vec![ops::pick(g, x[0], x[1])?])
    }));
    cases
}

fn selection(batch: usize, candidates: usize, deviation: f64, padded: bool) -> Case {
    let mut feeds = vec![Feed::normal_scaled("logits", [batch, candidates], 0.0, deviation)];
    if padded {
        feeds.push(lengths(batch, candidates));
    }
    let name = format!("selection_loss [{batch}, {candidates}], deviation {deviation}, padded: {padded}");
    Case::new(name, feeds, move |g, x| {
        let options = SelectOptions { lengths: x.get(1).copied(), ..SelectOptions::default() };
        let selected = ops::select(g, x[0], Choice::Top(candidates.div_ceil(3)), &options)?;
        let loss = RouterLoss { aux: 0.7, z: 0.03 };
        Ok(vec![ops::selection_loss(g, x[0], selected.inverse, options.lengths, loss)?])
    })
}

fn balance(batch: usize, time: usize, ways: usize, deviation: f64, padded: bool) -> Case {
    let mut feeds = vec![Feed::normal_scaled("logits", [batch * time, ways], 0.5, deviation)];
    if padded {
        feeds.push(lengths(batch, time));
    }
    let name = format!("balance_loss [{batch} · {time}, {ways}], deviation {deviation}, padded: {padded}");
    Case::new(name, feeds, |g: &mut Graph, x: &[Tensor]| {
        let chances = ops::softmax(g, x[0])?;
        let way = ops::argmax_rows(g, chances, None)?;
        let loss = RouterLoss { aux: 0.7, z: 0.03 };
        Ok(vec![ops::balance_loss(g, x[0], chances, way, x.get(1).copied(), loss)?])
    })
}
