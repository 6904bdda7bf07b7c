//! Attention in all its forms, and the cache.

use crate::check::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::ops::{self, AttentionOptions, AttentionVariant};

/// Sizes of a case: batch, queries, keys, query heads, key heads, head width.
type Sizes = [usize; 6];

/// What a case asks for beyond plain attention.
#[derive(Clone, Copy, Default)]
struct Wish {
    causal: bool,
    scale: Option<f32>,
    lengths: Option<[usize; 2]>,
    mask: bool,
    bias: Option<bool>,
    positions: bool,
    variant: Option<AttentionVariant>,
}

fn case(name: &str, sizes: Sizes, wish: Wish) -> Case {
    let [batch, queries, keys, heads, kv_heads, width] = sizes;
    let mut feeds = vec![
        Feed::normal("q", [batch, queries, heads, width]),
        Feed::normal("k", [batch, keys, kv_heads, width]),
        Feed::normal("v", [batch, keys, kv_heads, width]),
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
        feeds.push(if batched {
            Feed::normal("bias", [batch, heads, queries, keys])
        } else {
            Feed::normal("bias", plane)
        });
    }
    if wish.positions {
        let positions = counted(batch * queries).map(|i| (i as usize * 7 % (keys + 2)) as f64);
        feeds.push(Feed::given("positions", [batch, queries], DType::U32, positions));
    }
    let variant = wish.variant.map_or(String::new(), |v| format!(" {v:?}"));
    Case::new(format!("attention{variant} {name} {sizes:?}"), feeds, move |g, x| {
        let mut rest = x[3..].iter().copied();
        let mut next = |there: bool| if there { rest.next() } else { None };
        let options = AttentionOptions {
            causal: wish.causal,
            scale: wish.scale,
            lengths: next(wish.lengths.is_some()),
            key_mask: next(wish.mask),
            bias: next(wish.bias.is_some()),
            query_positions: next(wish.positions),
            variant: wish.variant,
        };
        Ok(vec![ops::attention(g, x[0], x[1], x[2], &options)?])
    })
    .tolerance(Tolerance { nmse: 1e-11, worst: 1e-5 }, Tolerance { nmse: 1e-10, worst: 1e-4 })
}

/// The shapes and options that every variant goes through.
fn sweep(variant: Option<AttentionVariant>) -> Vec<Case> {
    let plain = Wish { variant, ..Wish::default() };
    let causal = Wish { causal: true, ..plain };
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
        case("mask", [3, 5, 37, 2, 2, 12], Wish { mask: true, ..plain }),
        case("bias", [2, 33, 35, 2, 2, 12], Wish { bias: Some(false), ..plain }),
        case("batched bias", [2, 7, 34, 4, 2, 12], Wish { bias: Some(true), ..plain }),
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
        case("lengths", [2, 33, 40, 2, 2, 12], Wish { lengths: Some([35, 0]), ..plain }),
    ];
    for variant in AttentionVariant::ALL {
        cases.extend(sweep(Some(variant)));
    }
    cases.push(cache_case());
    cases
}

/// Three tokens in two batch rows go into a cache; one position is outside.
fn cache_case() -> Case {
    let positions = [4.0, 0.0, 9.0, 1.0, 6.0, 2.0];
    let feeds =
        vec![Feed::normal("new", [2, 3, 3, 5]).fixed(), Feed::given("positions", [2, 3], DType::U32, positions)];
    Case::new("cache_write", feeds, |g, x| {
        let cache = g.state("cache", [2, 7, 3, 5], DType::F32)?;
        Ok(vec![ops::cache_write(g, cache, x[0], x[1])?])
    })
}
