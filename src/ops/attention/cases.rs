//! Attention in all its forms.

use super::cache_cases;
use super::score_cases::{self, Scores};
use super::window_cases;
use crate::case::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::ops::{self, AttentionDropout, AttentionOptions, AttentionVariant};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Sizes of a case: batch, queries, keys, query heads, key heads, head_dim.
pub(super) type Sizes = [usize; 6];

/// Which tokens of a text with a tree mask are used.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Tree {
    /// All of them.
    Whole,
    /// Every third token; ancestors stay ancestors.
    Picked,
    /// Every second token as query, all as keys.
    Queries,
}

/// The options of a case beyond plain attention.
#[derive(Clone, Copy, Default)]
pub(super) struct Wish {
    pub(super) causal: bool,
    pub(super) window: Option<usize>,
    pub(super) prefix: Option<[u32; 2]>,
    pub(super) scale: Option<f32>,
    pub(super) cap: Option<f32>,
    pub(super) lengths: Option<[usize; 2]>,
    pub(super) mask: bool,
    pub(super) bias: Option<bool>,
    pub(super) by_distance: bool,
    pub(super) positions: bool,
    /// Texts side by side: queries of a text see its keys.
    pub(super) ranges: bool,
    /// Positions that no key has are among the positions.
    pub(super) far: bool,
    pub(super) tree: Option<Tree>,
    pub(super) drop: Option<f32>,
    pub(super) scores: Option<Scores>,
    pub(super) variant: Option<AttentionVariant>,
}

pub(super) fn case(name: &str, sizes: Sizes, wish: Wish) -> Case {
    let [batch, queries, keys, heads, kv_heads, head_dim] = sizes;
    let mut feeds = vec![
        Feed::normal("q", [batch, queries, heads, head_dim]),
        Feed::normal("k", [batch, keys, kv_heads, head_dim]),
        Feed::normal("v", [batch, keys, kv_heads, head_dim]),
    ];
    let counted = |n: usize| (0..n).map(|i| i as f64);
    if let Some(lengths) = wish.lengths {
        feeds.push(Feed::given("lengths", [batch], DType::U32, (0..batch).map(|b| lengths[b % 2] as f64)));
    }
    if wish.mask {
        // Every third key is padding, and in the last batch row all are.
        let real = counted(batch * keys)
            .map(|i| f64::from(u8::from(i as usize % 3 != 1 && (i as usize) < (batch - 1).max(1) * keys)));
        feeds.push(Feed::given("key_mask", [batch, keys], DType::U32, real));
    }
    if let Some(batched) = wish.bias {
        let plane = [heads, queries, keys];
        feeds.push(match (batched, wish.by_distance) {
            (true, _) => Feed::normal("bias", [batch, heads, queries, keys]),
            (false, true) => Feed::normal("bias", [heads, queries + keys - 1]),
            (false, false) => Feed::normal("bias", plane),
        });
    }
    if let Some(scores) = wish.scores {
        feeds = feeds.into_iter().map(|feed| scores.of(feed)).collect();
    }
    let terms = terms(&feeds, wish.scale.map_or((head_dim as f64).powf(-0.5), f64::from));
    if wish.positions {
        let far = [keys as f64, 4_294_967_295.0, 0.0, 2_147_483_648.0, keys as f64 - 1.0, 4_294_967_294.0];
        let near = |i: usize| (i * 7 % (keys + 2)) as f64;
        let positions = (0..batch * queries).map(|i| if wish.far { far[i % far.len()] } else { near(i) });
        feeds.push(Feed::given("positions", [batch, queries], DType::U32, positions));
    }
    if wish.ranges {
        let ranges = (0..batch * queries).flat_map(|i| range(i / queries, i % queries, queries, keys));
        feeds.push(Feed::given("ranges", [batch, queries, 2], DType::U32, ranges));
    }
    if let Some(tree) = wish.tree {
        let stride = if tree == Tree::Picked { 3 } else { 1 };
        let texts: Vec<Vec<[u32; 3]>> = (0..batch).map(|b| random_spans(stride * keys, b as u64)).collect();
        let picked = |every: usize, count: usize| {
            texts.iter().flat_map(move |text| text.iter().step_by(every).take(count)).flatten().map(|&x| f64::from(x))
        };
        feeds.push(Feed::given("tree", [batch, keys, 3], DType::U32, picked(stride, keys)));
        if tree == Tree::Queries {
            feeds.push(Feed::given("query_tree", [batch, queries, 3], DType::U32, picked(2, queries)));
        }
    }
    if wish.drop.is_some() {
        feeds.push(Feed::given("seed", [2], DType::U32, [4_000_000_007.0, 12_345.0]));
    }
    if let Some(prefix) = wish.prefix {
        feeds.push(Feed::given("prefix", [batch], DType::U32, (0..batch).map(|b| f64::from(prefix[b % 2]))));
    }
    let variant = wish.variant.map_or(String::new(), |v| format!(" {v:?}"));
    let case = Case::new(format!("attention{variant} {name} {sizes:?}"), feeds, move |g, x| {
        let mut rest = x[3..].iter().copied();
        let mut next = |there: bool| if there { rest.next() } else { None };
        let options = AttentionOptions {
            causal: wish.causal,
            window: wish.window,
            scale: wish.scale,
            soft_cap: wish.cap,
            lengths: next(wish.lengths.is_some()),
            key_mask: next(wish.mask),
            bias: next(wish.bias.is_some()),
            query_positions: next(wish.positions),
            key_ranges: next(wish.ranges),
            tree: next(wish.tree.is_some()),
            query_tree: next(wish.tree == Some(Tree::Queries)),
            dropout: wish.drop.zip(next(wish.drop.is_some())).map(|(rate, seed)| AttentionDropout {
                rate,
                seed,
                salt: 5,
            }),
            prefix: next(wish.prefix.is_some()),
            variant: wish.variant,
            ..Default::default()
        };
        Ok(vec![ops::attention(g, x[0], x[1], x[2], &options)?])
    })
    .tolerance(Tolerance { nmse: 1e-11, worst: 1e-5 }, Tolerance { nmse: 1e-10, worst: 1e-4 });
    terms.into_iter().fold(case, |case, (input, size)| case.cancelling(input, size))
}

/// The size of the terms of gradients through `dS = P ∘ (dout · v − delta)`, the difference of two products of unit normal dout and v. If a
/// query sees one key, or one key has all weight, they cancel.
fn terms(feeds: &[Feed], scale: f64) -> [(&'static str, f64); 3] {
    let [q, k, v] = [0, 1, 2].map(|i| {
        let values = &feeds[i].value().data;
        (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt()
    });
    let head_dim = feeds[0].value().shape.dims().last().copied().unwrap_or(1);
    let products = (head_dim as f64).sqrt() * v;
    [("q", scale * products * k), ("k", scale * products * q), ("bias", products)]
}

/// The keys of a query's text, of texts that lie side by side from the end of a row backwards: the first 37 tokens long, and each of the
/// next two thirds of the one before. What is left at the front is padding and sees nothing.
fn range(row: usize, query: usize, queries: usize, keys: usize) -> [f64; 2] {
    let (mut length, mut ends) = (37 + row, [queries, keys]);
    while length > 4 {
        let starts = ends.map(|end| end.saturating_sub(length));
        if query >= starts[0] {
            return [starts[1] as f64, ends[1] as f64];
        }
        (length, ends) = (length * 2 / 3, starts);
    }
    [0.0; 2]
}

/// A random forest over `count` tokens: for each its position, and the first and last position of the span that it covers. A token may be
/// anywhere in its span.
fn random_spans(count: usize, seed: u64) -> Vec<[u32; 3]> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut spans = vec![[0; 3]; count];
    let mut open = vec![(0, count)];
    while let Some((begin, end)) = open.pop() {
        if begin == end {
            continue;
        }
        let cut = if end - begin < 3 { end } else { rng.random_range(begin + 1..=end) };
        open.push((cut, end));
        let head = rng.random_range(begin..cut);
        spans[head] = [head as u32, begin as u32, cut as u32 - 1];
        open.extend([(begin, head), (head + 1, cut)]);
    }
    spans
}

/// The shapes and options for every variant.
fn sweep(plain: Wish) -> Vec<Case> {
    let causal = Wish { causal: true, ..plain };
    let tree = Wish { tree: Some(Tree::Whole), ..plain };
    let distances = Wish { bias: Some(false), by_distance: true, ..plain };
    let causal_tree = Wish { causal: true, ..tree };
    vec![
        case("causal", [1, 65, 65, 1, 1, 64], causal),
        case("causal, one key head", [1, 35, 35, 5, 1, 33], causal),
        case("one token", [1, 1, 1, 1, 1, 12], causal),
        case("causal", [2, 31, 31, 4, 4, 12], causal),
        case("causal, groups", [1, 33, 33, 6, 2, 12], causal),
        case("causal, more keys", [1, 33, 70, 2, 1, 12], causal),
        case("causal, more queries", [1, 40, 7, 2, 2, 12], causal),
        case("cross", [1, 5, 67, 4, 2, 12], plain),
        case("cross", [1, 67, 3, 2, 2, 12], plain),
        case("scale", [1, 9, 9, 2, 2, 12], Wish { scale: Some(0.7), ..plain }),
        case("lengths", [2, 33, 40, 2, 2, 12], Wish { lengths: Some([35, 0]), ..plain }),
        case("causal, lengths", [2, 33, 33, 2, 1, 12], Wish { lengths: Some([7, 33]), ..causal }),
        case("positions", [2, 34, 37, 2, 1, 12], Wish { positions: true, ..causal }),
        case("positions outside", [2, 34, 37, 2, 1, 12], Wish { positions: true, far: true, ..causal }),
        case("lengths outside", [2, 33, 40, 2, 2, 12], Wish { lengths: Some([0xffff_ffff, 0x8000_0000]), ..plain }),
        case("prefix outside", [2, 33, 40, 2, 2, 12], Wish { prefix: Some([u32::MAX, 41]), ..causal }),
        case("mask", [3, 5, 37, 2, 2, 12], Wish { mask: true, ..plain }),
        case("bias", [2, 33, 35, 2, 2, 12], Wish { bias: Some(false), ..plain }),
        case("batched bias", [2, 7, 34, 4, 2, 12], Wish { bias: Some(true), ..plain }),
        case("bias by distance", [2, 33, 35, 2, 2, 12], distances),
        case("bias by distance, causal, groups", [2, 35, 35, 4, 2, 20], Wish { causal: true, ..distances }),
        case("bias by distance, more queries", [1, 40, 7, 2, 2, 12], distances),
        case("bias by distance, few queries", [2, 3, 133, 4, 2, 20], distances),
        case("bias by distance, one token", [1, 1, 1, 1, 1, 5], distances),
        case(
            "bias by distance, everything",
            [2, 33, 41, 4, 2, 12],
            Wish { lengths: Some([37, 20]), mask: true, window: Some(19), drop: Some(0.2), causal: true, ..distances },
        ),
        case(
            "everything",
            [2, 33, 41, 4, 2, 12],
            Wish {
                lengths: Some([37, 20]),
                mask: true,
                bias: Some(false),
                positions: true,
                scale: Some(0.3),
                ..causal
            },
        ),
        case("tree", [2, 33, 33, 2, 2, 16], tree),
        case("tree, one token", [1, 1, 1, 1, 1, 20], tree),
        case("tree, odd", [2, 31, 31, 2, 2, 5], tree),
        case("causal tree, groups", [1, 65, 65, 4, 2, 64], causal_tree),
        case("causal tree, lengths", [2, 33, 33, 2, 1, 20], Wish { lengths: Some([7, 33]), ..causal_tree }),
        case("causal tree, picked", [2, 31, 31, 2, 2, 16], Wish { tree: Some(Tree::Picked), ..causal_tree }),
        case("tree, queries", [2, 18, 35, 4, 2, 20], Wish { tree: Some(Tree::Queries), ..plain }),
        case("tree, few queries", [2, 3, 133, 4, 2, 20], Wish { tree: Some(Tree::Queries), ..plain }),
        case(
            "tree, everything",
            [2, 33, 67, 4, 2, 12],
            Wish {
                lengths: Some([60, 20]),
                mask: true,
                bias: Some(false),
                positions: true,
                tree: Some(Tree::Queries),
                ..causal
            },
        ),
        case("dropout", [2, 31, 33, 2, 2, 12], Wish { drop: Some(0.3), ..plain }),
        case("dropout, few queries", [1, 3, 67, 2, 1, 12], Wish { drop: Some(0.5), ..plain }),
        case("dropout, tree", [2, 31, 31, 2, 1, 16], Wish { drop: Some(0.2), tree: Some(Tree::Whole), ..causal }),
        case("dropout, one token", [1, 1, 1, 1, 1, 5], Wish { drop: Some(0.1), ..plain }),
        case("dropout, causal, groups", [2, 65, 65, 4, 2, 64], Wish { drop: Some(0.1), ..causal }),
        case(
            // With a tree mask, too, hardly a pair would be visible.
            "dropout, everything but a tree",
            [2, 29, 37, 4, 2, 12],
            Wish { lengths: Some([36, 20]), mask: true, bias: Some(true), positions: true, drop: Some(0.2), ..causal },
        ),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Wish::default();
    let causal = Wish { causal: true, ..plain };
    let mut cases = vec![
        case("causal", [1, 257, 257, 2, 1, 16], causal),
        case("causal, wide", [1, 9, 9, 1, 1, 256], causal),
        case("causal, wide", [1, 37, 37, 1, 1, 128], causal),
        case("causal, odd", [1, 9, 9, 1, 1, 35], causal),
        case("causal, narrow", [2, 33, 33, 4, 1, 4], causal),
        case("plain", [2, 33, 33, 2, 2, 8], plain),
        case("tree", [1, 257, 257, 2, 1, 16], Wish { tree: Some(Tree::Whole), ..plain }),
        case("causal tree", [1, 257, 257, 2, 2, 16], Wish { tree: Some(Tree::Whole), ..causal }),
        case("lengths", [2, 33, 40, 2, 2, 12], Wish { lengths: Some([35, 0]), ..plain }),
        case("dropout", [1, 257, 257, 2, 1, 16], Wish { drop: Some(0.1), ..causal }),
    ];
    for variant in AttentionVariant::ALL {
        let plain = Wish { variant: Some(variant), ..plain };
        cases.extend(sweep(plain));
        cases.extend(score_cases::sweep(plain));
        cases.extend(window_cases::sweep(plain));
    }
    // Every shape of tile, with edges in rows, keys and columns.
    let tile = Wish { variant: Some(AttentionVariant::Tile), ..causal };
    for [queries, keys, head_dim] in [[70, 70, 32], [33, 129, 80], [129, 70, 96], [65, 65, 128], [40, 70, 256]] {
        cases.push(case("causal, tiles", [1, queries, keys, 2, 1, head_dim], tile));
    }
    // Enough tiles of 64 or 32 rows to fill a GPU.
    for [queries, heads, head_dim] in [[65, 24, 64], [40, 24, 64], [65, 24, 128]] {
        cases.push(case("causal, many tiles", [1, queries, queries, heads, heads, head_dim], tile));
    }
    cases.push(gathered_case());
    cases.extend(cache_cases::cases());
    cases
}

/// Tokens of a text are selected on the device, with their rows of the tree mask; the last slot is empty.
fn gathered_case() -> Case {
    let (batch, text, picked, head_dim) = (2, 70, 33, 12);
    let spans = (0..batch).flat_map(|b| random_spans(text, b as u64)).flatten().map(f64::from);
    let index = |i: usize| {
        if i % picked + 1 == picked { (batch * text) as f64 } else { (i / picked * text + i % picked * 2) as f64 }
    };
    let feeds = vec![
        Feed::normal("x", [batch * text, head_dim]),
        Feed::given("tree", [batch * text, 3], DType::U32, spans),
        Feed::given("index", [batch * picked], DType::U32, (0..batch * picked).map(index)),
        Feed::given("lengths", [batch], DType::U32, [picked as f64 - 1.0; 2]),
    ];
    Case::new("attention of picked tokens of a tree", feeds, move |g, x| {
        let rows = ops::gather_rows(g, x[0], x[2])?;
        let heads = ops::reshape(g, rows, [batch, picked, 1, head_dim])?;
        let spans = ops::gather_words(g, x[1], x[2])?;
        let tree = Some(ops::reshape(g, spans, [batch, picked, 3])?);
        let options = AttentionOptions { causal: true, tree, lengths: Some(x[3]), ..Default::default() };
        Ok(vec![ops::attention(g, heads, heads, heads, &options)?])
    })
}
