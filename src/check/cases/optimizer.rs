//! Flat ranges, their norm, the control of a step, AdamW, casts.

use crate::check::{Case, Feed};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::{self, BLOCK, OptimizerScalars};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(pack());
    cases.extend(norm());
    cases.extend(control());
    cases.extend([adamw(1, 0.0), adamw(31, 0.0), adamw(257, 0.0), adamw(3, 1.0)]);
    cases.extend([cast(DType::F16, 1), cast(DType::F16, 33), cast(DType::BF16, 1), cast(DType::BF16, 33)]);
    cases
}

fn pack() -> Vec<Case> {
    let parts = || {
        vec![
            Feed::normal("a", [1]).fixed(),
            Feed::normal("b", [31, 33]).fixed(),
            Feed::normal("c", [257]).fixed(),
            Feed::normal("d", [64]).fixed(),
        ]
    };
    let place = |x: &[Tensor]| [(x[0], 0), (x[1], 128), (x[2], 128 + 1024), (x[3], 1664 - 64)];
    let mut cases = vec![Case::new("pack", parts(), move |g, x| {
        let flat = g.state("flat", [1664], DType::F32)?;
        Ok(vec![ops::pack(g, flat, &place(x), None)?])
    })];
    for keep in [0.0, 1.0] {
        let mut feeds = parts();
        feeds.push(Feed::given("keep", [1], DType::F32, [keep]));
        cases.push(Case::new(format!("pack_accumulate keep {keep}"), feeds, move |g, x| {
            let flat = g.state("flat", [1664], DType::F32)?;
            let before = ops::pack(g, flat, &place(x), None)?;
            Ok(vec![ops::pack(g, before, &place(x), Some(x[4]))?])
        }));
    }
    cases
}

/// The flat range `name` holding `x`.
fn flat(g: &mut Graph, name: &str, x: Tensor) -> Result<Tensor> {
    let state = g.state(name, g.shape(x).clone(), DType::F32)?;
    ops::pack(g, state, &[(x, 0)], None)
}

fn norm() -> Vec<Case> {
    let mut cases = Vec::new();
    for blocks in [vec![1], vec![31], vec![33, 1, 257]] {
        let names = ["a", "b", "c"];
        let feeds = blocks.iter().zip(names).map(|(n, name)| Feed::normal(name, [n * BLOCK]).fixed()).collect();
        cases
            .push(Case::new(format!("global_norm blocks {blocks:?}"), feeds, |g, x| Ok(vec![ops::global_norm(g, x)?])));
    }
    cases
}

fn scalars() -> OptimizerScalars {
    OptimizerScalars {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-6,
        weight_decay: 0.1,
        max_norm: 1.0,
        share: 0.5,
        initial_scale: 1024.0,
        growth: 2.0,
        backoff: 0.5,
        interval: 3.0,
        largest_scale: 65536.0,
    }
}

fn scalar_feed() -> Feed {
    Feed::given("scalars", [OptimizerScalars::LEN], DType::F32, scalars().to_array().map(f64::from))
}

fn control() -> Vec<Case> {
    let states = [("first step", [0.0; 8]), ("scale grows", [2048.0, 2.0, 1.0, 7.0, 0.3, 0.05, 0.7, 1.0])];
    let mut cases = Vec::new();
    for (what, state) in states {
        for norm in [100.0, 9000.0] {
            let feeds = vec![
                Feed::given("norm", [1], DType::F32, [norm]),
                Feed::given("loss", [1], DType::F32, [2.5]),
                scalar_feed(),
                Feed::given(
                    "before",
                    [64],
                    DType::F32,
                    (0..64).map(|i| state.get(i).map_or(0.0, |&x| DType::F32.round(x))),
                ),
            ];
            let name = format!("optimizer_control {what}, norm {norm}");
            cases.push(Case::new(name, feeds, |g, x| {
                let before = flat(g, "state", x[3])?;
                let seed = ops::loss_seed(g, x[1], before, x[2])?;
                let (control, state) = ops::optimizer_control(g, x[0], x[1], x[2], before)?;
                Ok(vec![seed, control, state])
            }));
        }
    }
    cases
}

fn adamw(blocks: usize, skip: f64) -> Case {
    let count = blocks * BLOCK;
    let control = [0.5, 0.01, 0.271, 0.0297, 0.9, 0.99, 1e-6, 0.1, skip, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let squares = Feed::given("v", [count], DType::F32, (0..count).map(|i| DType::F32.round((i % 37) as f64 * 0.01)));
    let table = (0..2 * blocks).map(|i| if i % 2 == 0 { 1.0 - (i % 3) as f64 * 0.25 } else { (i % 4 / 2) as f64 });
    let feeds = vec![
        Feed::normal("x", [count]).fixed(),
        Feed::normal("grad", [count]).fixed(),
        Feed::normal("m", [count]).fixed(),
        squares,
        Feed::given("table", [blocks, 2], DType::F32, table),
        Feed::given("control", [16], DType::F32, control.map(|x| DType::F32.round(x))),
    ];
    Case::new(format!("adamw blocks {blocks}{}", if skip == 0.0 { "" } else { ", skipped" }), feeds, |g, x| {
        let parameters = flat(g, "parameters", x[0])?;
        let gradients = flat(g, "gradients", x[1])?;
        let moments = [flat(g, "first", x[2])?, flat(g, "second", x[3])?];
        Ok(ops::adamw(g, parameters, gradients, moments, x[4], x[5])?.to_vec())
    })
}

/// Values around every edge: ties, subnormals, the ends of the range.
fn cast(dtype: DType, blocks: usize) -> Case {
    let count = blocks * BLOCK;
    let edges = [
        0.0,
        -0.0,
        1.0,
        1.000_488_281_25,
        1.001_464_843_75,
        65504.0,
        65519.99,
        65520.0,
        -70000.0,
        6.1e-5,
        6.097_555e-5,
        5.96e-8,
        2.98e-8,
        2.980_232_3e-8,
        8.94e-8,
        1e-9,
        -3.4e38,
        3.39e38,
        1.003_906_25,
        1.011_718_75,
        2049.0,
        2051.0,
        -6.103_515_6e-5,
        6.100_5e-5,
    ];
    let value = move |i: usize| match edges.get(i) {
        Some(&edge) => edge,
        None => ((i * 7919) as f64).sin() * 10_f64.powi((i % 13) as i32 - 9),
    };
    let feeds = vec![Feed::given("x", [count], DType::F32, (0..count).map(move |i| DType::F32.round(value(i))))];
    let exact = crate::check::Tolerance { nmse: 0.0, worst: 0.0 };
    Case::new(format!("cast_half {dtype} blocks {blocks}"), feeds, move |g, x| {
        let source = flat(g, "source", x[0])?;
        let target = g.state("target", [count], dtype)?;
        Ok(vec![ops::cast_half(g, source, target)?])
    })
    .tolerance(exact, exact)
}
