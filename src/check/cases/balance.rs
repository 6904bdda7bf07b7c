//! Loads of experts, their losses and bias, noise, capacity.

use super::index::mixed;
use crate::check::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::ops::{self, Choice, GateOptions, SelectOptions, Sent};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(loads());
    cases.extend(losses());
    cases.extend(biases());
    cases.extend(noise());
    cases.extend(sums());
    cases
}

fn slots(count: usize, experts: usize) -> Feed {
    Feed::given("slots", [count], DType::U32, mixed(count, experts))
}

/// Counts and capacities, exactly; some slots name no expert.
fn loads() -> Vec<Case> {
    let exact = Tolerance { nmse: 0.0, worst: 0.0 };
    let mut cases = Vec::new();
    for (count, experts, capacity) in [(1, 1, 1), (31, 3, 4), (33, 8, 0), (257, 11, 31), (1000, 256, 3)] {
        for none in [0, 2] {
            let name = format!("load_counts and limit_capacity {capacity}, {count} slots, {experts} experts + {none}");
            cases.push(
                Case::new(name, vec![slots(count, experts + none)], move |g, x| {
                    let sorted = ops::sort_index(g, x[0], experts)?;
                    let limited = ops::limit_capacity(g, sorted, capacity)?;
                    let kept = ops::sort_index(g, limited, experts)?;
                    Ok(vec![ops::load_counts(g, sorted)?, limited, ops::load_counts(g, kept)?])
                })
                .tolerance(exact, exact),
            );
        }
    }
    cases
}

/// Both losses of one gate and of two, through to the logits; the entropy.
fn losses() -> Vec<Case> {
    let mut cases = Vec::new();
    for (tokens, experts, k) in [(1, 1, 1), (31, 8, 2), (257, 3, 1), (33, 64, 8)] {
        let feeds = vec![Feed::normal("logits", [tokens, experts]), Feed::normal("more", [2 * tokens, experts])];
        let name = format!("load_balance_loss and router_z_loss [{tokens}, {experts}], k {k}");
        cases.push(Case::new(name, feeds, move |g, x| {
            let (mut scores, mut counts, mut lse) = (Vec::new(), Vec::new(), Vec::new());
            for &logits in x {
                let gate = ops::top_k_gate(g, logits, None, &GateOptions::new(k))?;
                let count = g.shape(gate.experts).numel();
                let slots = ops::reshape(g, gate.experts, [count])?;
                let sorted = ops::sort_index(g, slots, experts)?;
                scores.push(gate.scores);
                counts.push(ops::load_counts(g, sorted)?);
                lse.push(gate.lse);
            }
            Ok(vec![
                ops::load_balance_loss(g, &scores[..1], &counts[..1])?,
                ops::load_balance_loss(g, &scores, &counts)?,
                ops::router_z_loss(g, lse[1])?,
            ])
        }));
        let feeds = vec![Feed::normal_scaled("logits", [tokens, experts], 0.0, 8.0).fixed()];
        cases.push(Case::new(format!("routing_entropy [{tokens}, {experts}]"), feeds, |g, x| {
            let scores = ops::softmax(g, x[0])?;
            Ok(vec![ops::routing_entropy(g, scores)?])
        }));
    }
    let sure = Feed::given("scores", [2, 3], DType::F32, [0.0, 1.0, 0.0, 0.5, 0.0, 0.5]);
    cases.push(Case::new("routing_entropy, zeros", vec![sure], |g, x| Ok(vec![ops::routing_entropy(g, x[0])?])));
    cases
}

/// What is reported of a gate, with a capacity and without, of a router of ways and of one that says yes or no.
fn sums() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, time, ways, k) in [(1, 1, 1, 1), (3, 11, 5, 2), (2, 257, 31, 3), (1, 31, 256, 1)] {
        for padded in [false, true] {
            let tokens = batch * time;
            let mut feeds = vec![
                Feed::normal_scaled("logits", [tokens, ways], 0.0, 3.0).fixed(),
                Feed::normal_scaled("on", [batch, time], 0.3, 6.0).fixed(),
            ];
            if padded {
                let lengths = (0..batch).map(|b| (time - b * 5 % time) as f64);
                feeds.push(Feed::given("lengths", [batch], DType::U32, lengths));
            }
            let name = format!("router_sums [{batch} · {time}, {ways}], k {k}, padded: {padded}");
            cases.push(Case::new(name, feeds, move |g, x| {
                let lengths = x.get(2).copied();
                let gate = ops::top_k_gate(g, x[0], None, &GateOptions::new(k))?;
                let slots = ops::reshape(g, gate.experts, [tokens * k])?;
                let sorted = ops::sort_index(g, slots, ways)?;
                let limited = ops::limit_capacity(g, sorted, (tokens * k).div_ceil(2 * ways))?;
                let kept = ops::sort_index(g, limited, ways)?;
                let all = Sent::Slots { starts: sorted.starts, kept: None };
                let some = Sent::Slots { starts: sorted.starts, kept: Some(kept.starts) };
                let way = ops::argmax_rows(g, gate.scores, None)?;
                let options = SelectOptions { lengths, ..SelectOptions::default() };
                let selected = ops::select(g, x[1], Choice::Top(time.div_ceil(3)), &options)?;
                let on = ops::reshape(g, x[1], [tokens, 1])?;
                Ok(vec![
                    ops::row_entropy(g, gate.scores, lengths)?,
                    ops::binary_entropy(g, on, lengths)?,
                    ops::router_sums(g, gate.scores, all, lengths)?,
                    ops::router_sums(g, gate.scores, some, lengths)?,
                    ops::router_sums(g, gate.scores, Sent::Ways(way), lengths)?,
                    ops::router_sums(g, on, Sent::On(selected.inverse), lengths)?,
                ])
            }));
        }
    }
    cases
}

/// Counts below, above and at the mean.
fn biases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (experts, mean) in [(1, 7), (3, 5), (31, 100), (257, 3000)] {
        let counts = (0..experts).map(|e| f64::from(mean + (e % 3 - 1) * i32::from(e / 3 < experts / 3)));
        let feeds = vec![
            Feed::normal("bias", [experts as usize]).fixed(),
            Feed::given("counts", [experts as usize], DType::F32, counts),
        ];
        cases.push(Case::new(format!("update_bias {experts}"), feeds, |g, x| {
            // An input can't be updated in place.
            let bias = ops::scale(g, x[0], 0.5)?;
            Ok(vec![ops::update_bias(g, bias, x[1], 0.001)?])
        }));
    }
    cases
}

fn noise() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, width, salt) in [([1, 1], 1.0, 0), ([31, 8], 4.0, 3), ([257, 33], 1.0, u32::MAX), ([3, 11], 60.0, 9)] {
        let feeds = vec![
            Feed::normal("clean", shape),
            Feed::normal_scaled("raw", shape, 0.5, width),
            Feed::given("seed", [2], DType::U32, [4_000_000_007.0, 12_345.0]),
        ];
        cases.push(Case::new(format!("noisy_logits {shape:?}, width {width}"), feeds, move |g, x| {
            Ok(vec![ops::noisy_logits(g, x[0], x[1], x[2], salt)?])
        }));
    }
    cases
}
