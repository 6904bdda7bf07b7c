//! Experts: routing, grouped products, and the whole feed-forward network, however tokens are distributed.

use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::ops::matmul::Variant;
use crate::ops::{self, Activation, ExpertWeights, GroupedLinear};

/// Which expert slot `(t, k)` goes to, of `experts`.
type Pattern = fn(usize, usize, usize) -> usize;

const PATTERNS: [(&str, Pattern); 5] = [
    ("mixed", |t, k, experts| (t * t + 7 * t + k) % experts),
    ("all to one expert", |_, _, experts| experts / 2),
    ("first and last expert only", |t, k, experts| (t + k) % 2 * (experts - 1)),
    ("some to none", |t, k, experts| (t * 5 + k) % (experts + 2)),
    ("one token for an expert", |t, k, experts| if t == 3 { experts - 1 } else { k % experts.min(2) }),
];

fn chosen(pattern: Pattern, [tokens, top_k, experts]: [usize; 3]) -> Feed {
    let expert = |slot: usize| pattern(slot / top_k, slot % top_k, experts) as f64;
    Feed::given("chosen", [tokens, top_k], DType::U32, (0..tokens * top_k).map(expert))
}

fn routes() -> impl Iterator<Item = Case> {
    let sizes = [[1, 1, 1], [1, 2, 8], [31, 3, 11], [257, 2, 8], [33, 5, 5], [129, 1, 64]];
    sizes.into_iter().flat_map(|size| {
        PATTERNS.into_iter().map(move |(name, pattern)| {
            Case::new(format!("route {size:?}, {name}"), vec![chosen(pattern, size)], move |g, x| {
                let routing = ops::route(g, x[0], size[2])?;
                Ok(vec![routing.sorted.order, routing.sorted.starts, routing.tokens, routing.rows])
            })
        })
    })
}

/// Quantised weights: of every type with the default kernel, of three with every kernel; few rows of an expert and more.
fn quantised() -> impl Iterator<Item = Case> {
    let kernels = Variant::ALL.into_iter().filter(|variant| variant.takes_groups());
    let by_kernel =
        kernels.flat_map(|variant| [DType::Q8_0, DType::Q4K, DType::Q3K].map(|dtype| (Some(variant), dtype)));
    let all = DType::QUANTISED.into_iter().map(|dtype| (None, dtype)).chain(by_kernel);
    all.flat_map(|(variant, dtype)| {
        [([40, 2, 3], 33), ([9, 2, 8], 36)].into_iter().map(move |(size @ [tokens, _, experts], outputs)| {
            let d_model = usize::next_multiple_of(64, dtype.block());
            let feeds = vec![
                Feed::normal("x", [tokens, d_model]),
                Feed::normal("weight", [experts, outputs, d_model]).stored_as(dtype),
                chosen(PATTERNS[0].1, size),
            ];
            let by = variant.map_or("the default", Variant::name);
            let name = format!("grouped_linear {dtype} {size:?} {d_model} to {outputs} by {by}");
            let case = Case::new(name, feeds, move |g, x| {
                let routing = ops::route(g, x[2], experts)?;
                let linear = GroupedLinear { variant, ..GroupedLinear::new(&routing) };
                Ok(vec![linear.apply(g, x[0], x[1], &routing)?])
            });
            match variant {
                Some(variant) => variant.case(case),
                None => case,
            }
        })
    })
}

/// Every kernel, rows gathered while they are loaded and before.
fn linears() -> impl Iterator<Item = Case> {
    // Tokens, slots of a token, experts; inputs, outputs.
    let sizes = [([40, 2, 3], [36, 68]), ([37, 3, 5], [33, 31]), ([9, 2, 8], [40, 36])];
    let kernels = Variant::ALL.into_iter().filter(|variant| variant.takes_groups());
    kernels.flat_map(move |variant| {
        sizes.into_iter().flat_map(move |(size, [d_model, outputs])| {
            [true, false].into_iter().map(move |on_load| {
                let [tokens, _, experts] = size;
                let feeds = vec![
                    Feed::normal("x", [tokens, d_model]),
                    Feed::normal("weight", [experts, outputs, d_model]),
                    chosen(PATTERNS[0].1, size),
                ];
                let when = if on_load { "on load" } else { "before" };
                let name =
                    format!("grouped_linear {size:?} {d_model} to {outputs}, gathered {when}, by {}", variant.name());
                variant.case(Case::new(name, feeds, move |g, x| {
                    let routing = ops::route(g, x[2], size[2])?;
                    let linear = GroupedLinear {
                        variant: Some(variant),
                        gather_on_load: Some(on_load),
                        ..GroupedLinear::new(&routing)
                    };
                    Ok(vec![linear.apply(g, x[0], x[1], &routing)?])
                }))
            })
        })
    })
}

fn networks() -> impl Iterator<Item = Case> {
    let sizes = [
        ([1, 1, 1], [1, 1]),
        ([1, 2, 8], [8, 12]),
        ([31, 3, 11], [33, 31]),
        ([257, 2, 4], [20, 36]),
        ([33, 5, 5], [12, 7]),
        ([33, 1, 64], [5, 33]),
        ([40, 2, 3], [256, 512]),
    ];
    sizes.into_iter().flat_map(|(size @ [tokens, top_k, experts], [d_model, d_ff])| {
        // Every pattern with the one size that tells most of them apart, two with the others.
        let patterns = if tokens == 31 { 0..5 } else { tokens % 3..tokens % 3 + 2 };
        patterns.map(move |index| {
            let (name, pattern) = PATTERNS[index];
            let dtype = match d_model {
                256 => [DType::Q4K, DType::MXFP4][index % 2],
                _ => [DType::F32, DType::BF16, DType::F16][index % 3],
            };
            let feeds = vec![
                Feed::normal("x", [tokens, d_model]),
                Feed::normal_scaled("gate", [experts, d_ff, d_model], 0.0, 0.4).stored_as(dtype),
                Feed::normal_scaled("up", [experts, d_ff, d_model], 0.0, 0.4).stored_as(dtype),
                Feed::normal_scaled("down", [experts, d_model, d_ff], 0.0, 0.4).stored_as(dtype),
                Feed::normal("weights", [tokens, top_k]),
                chosen(pattern, size),
            ];
            let name = format!("expert_feed_forward {size:?} {d_model} and {d_ff} in {dtype}, {name}");
            Case::new(name, feeds, move |g, x| {
                let routing = ops::route(g, x[5], experts)?;
                let experts = ExpertWeights { gate: x[1], up: x[2], down: x[3] };
                let y = ops::expert_feed_forward(g, x[0], experts, x[4], &routing, Activation::Silu)?;
                Ok(vec![y])
            })
        })
    })
}

pub(super) fn cases() -> Vec<Case> {
    routes().chain(linears()).chain(quantised()).chain(networks()).collect()
}
