//! The gate of a mixture of experts and its gradient.

use super::gate::top_k_gate_by;
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::ops::rows::RowVariant;
use crate::ops::{GateGroups, GateOptions, GateScores};

/// Which results are read: weights, experts, scores and lse.
type Read = [bool; 4];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for variant in RowVariant::ALL {
        cases.extend(sweep(variant));
    }
    for variant in [RowVariant::Threads, RowVariant::Workgroup] {
        cases.extend(ties(variant));
    }
    cases
}

fn mixtral(k: usize) -> GateOptions {
    GateOptions { renormalise: true, ..GateOptions::new(k) }
}

fn deepseek(k: usize, count: usize, keep: usize) -> GateOptions {
    let groups = Some(GateGroups { count, keep });
    GateOptions { k, scores: GateScores::Sigmoid, renormalise: true, scale: 2.5, groups }
}

/// Tokens and experts of many sizes, every kind of gate, every set of results.
fn sweep(variant: RowVariant) -> Vec<Case> {
    const ALL: Read = [true; 4];
    let sigmoid = |k| GateOptions { scores: GateScores::Sigmoid, scale: 0.7, ..GateOptions::new(k) };
    let plain = GateOptions::new;
    let rows: [(&str, usize, usize, GateOptions, bool, Read); 27] = [
        ("plain", 1, 1, plain(1), false, ALL),
        ("renormalised", 33, 1, mixtral(1), false, ALL),
        ("Switch", 31, 8, plain(1), false, ALL),
        ("Switch", 257, 3, plain(1), false, [true, true, false, false]),
        ("Mixtral", 257, 8, mixtral(2), false, ALL),
        ("Mixtral", 33, 11, mixtral(3), false, [true, true, false, false]),
        ("Mixtral, all experts", 1, 3, mixtral(3), false, ALL),
        ("one renormalised choice", 31, 8, mixtral(1), false, [true, true, true, false]),
        ("plain", 33, 64, plain(8), false, ALL),
        ("plain, all experts", 31, 31, plain(31), false, ALL),
        ("plain, all experts", 3, 256, plain(256), false, ALL),
        ("plain with a bias", 33, 31, plain(3), true, ALL),
        (
            "renormalised with a bias and groups",
            31,
            64,
            GateOptions { scale: 1.5, groups: Some(GateGroups { count: 4, keep: 2 }), ..mixtral(8) },
            true,
            ALL,
        ),
        ("sigmoid", 33, 8, sigmoid(2), false, ALL),
        ("sigmoid", 31, 3, sigmoid(3), false, [true, true, true, false]),
        ("sigmoid, without lse", 257, 11, sigmoid(3), true, [true, true, false, false]),
        ("DeepSeek", 33, 256, deepseek(8, 8, 4), true, ALL),
        ("DeepSeek", 31, 64, deepseek(6, 8, 3), true, [true, true, false, false]),
        ("DeepSeek without a bias", 33, 12, deepseek(3, 4, 2), false, ALL),
        ("groups of one", 31, 32, deepseek(8, 32, 9), true, ALL),
        ("one group", 3, 11, deepseek(11, 1, 1), true, ALL),
        (
            "softmax in groups",
            33,
            24,
            GateOptions { groups: Some(GateGroups { count: 6, keep: 2 }), ..plain(5) },
            true,
            ALL,
        ),
        ("only scores", 33, 11, plain(2), false, [false, false, true, false]),
        ("only lse", 33, 64, mixtral(2), false, [false, false, false, true]),
        ("only lse, sigmoid", 31, 8, sigmoid(2), false, [false, false, false, true]),
        ("only weights", 33, 33, mixtral(3), false, [true, false, false, false]),
        ("scores and lse", 31, 31, sigmoid(3), false, [false, false, true, true]),
    ];
    // A subgroup is the same kernel, if it is large enough.
    let tried = |experts: usize| variant != RowVariant::Subgroup || experts <= 8 || experts == 32;
    rows.into_iter()
        .filter(|&(_, _, experts, ..)| tried(experts))
        .map(|(name, tokens, experts, options, biased, read)| {
            let logits = Feed::normal_scaled("logits", [tokens, experts], 0.3, 2.0);
            case(&format!("{name} [{tokens}, {experts}], k {}", options.k), logits, options, biased, read, variant)
        })
        .collect()
}

/// Logits with many equal ones, zeros of both signs among them, and large ones.
fn ties(variant: RowVariant) -> Vec<Case> {
    let values = [0.0, -1.5, 2.0, -0.0, 2.0, 0.5, -1.5];
    let equal = |i: usize| values[(i * i + i / 11) % 7];
    let large = |i: usize| DType::F32.round((i * 7919 % 1009) as f64 * 40.0 - 20_000.0);
    let feed = |experts: usize, value: &dyn Fn(usize) -> f64| {
        Feed::given("logits", [33, experts], DType::F32, (0..33 * experts).map(value))
    };
    let mut cases = Vec::new();
    for (name, options) in [
        ("Mixtral", mixtral(5)),
        ("all experts", GateOptions::new(12)),
        ("DeepSeek", deepseek(5, 4, 2)),
        ("all but one group", deepseek(9, 4, 3)),
    ] {
        cases.push(case(&format!("{name}, ties"), feed(12, &equal), options, false, [true; 4], variant));
    }
    cases.push(case("all equal", feed(64, &|_| 0.25), mixtral(8), false, [true; 4], variant));
    cases.push(case("large logits", feed(31, &large), mixtral(4), false, [true; 4], variant));
    let sigmoid = GateOptions { scores: GateScores::Sigmoid, ..mixtral(4) };
    cases.push(case("large logits, sigmoid", feed(31, &large), sigmoid, false, [true; 4], variant));
    cases
}

fn case(name: &str, logits: Feed, options: GateOptions, biased: bool, read: Read, variant: RowVariant) -> Case {
    let mut feeds = vec![logits];
    if biased {
        let experts = feeds[0].value().shape.last();
        feeds.push(Feed::normal_scaled("bias", [experts], -0.1, 0.3).fixed());
    }
    Case::new(format!("top_k_gate {variant:?}, {name}"), feeds, move |g, x| {
        let gate = top_k_gate_by(g, x[0], x.get(1).copied(), &options, Some(variant))?;
        let results = [gate.weights, gate.experts, gate.scores, gate.lse];
        Ok(results.into_iter().zip(read).filter(|(_, read)| *read).map(|(result, _)| result).collect())
    })
}
