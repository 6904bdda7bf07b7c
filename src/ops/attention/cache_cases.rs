//! Attention to caches: keys and values in pages, and of fewer bits than f32.

use crate::case::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::ops::{self, AttentionOptions, AttentionVariant, KeyPages};

/// The sizes of a case: batch, queries, keys, query heads, key heads, head_dim.
type Sizes = [usize; 6];

/// The cases of every variant that reads caches.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for variant in AttentionVariant::ALL.into_iter().filter(|variant| *variant != AttentionVariant::Shuffle) {
        let mut add = |dtype, page, sizes| cases.push(case(variant, dtype, page, sizes));
        for dtype in [DType::F32, DType::F16, DType::Q8_0] {
            add(dtype, Some(16), [3, 1, 96, 4, 2, 32]);
            add(dtype, Some(16), [1, 33, 64, 2, 2, 96]);
        }
        for dtype in [DType::F16, DType::Q8_0] {
            add(dtype, None, [2, 1, 97, 6, 2, 64]);
        }
        add(DType::F32, Some(4), [2, 3, 160, 8, 1, 64]);
        add(DType::F32, Some(8), [2, 1, 72, 3, 3, 33]);
        add(DType::F16, Some(64), [1, 65, 128, 2, 1, 20]);
        add(DType::Q8_0, Some(16), [2, 1, 32, 2, 1, 256]);
    }
    // Not for caches: another takes its place.
    cases.push(case(AttentionVariant::Shuffle, DType::F16, Some(16), [2, 5, 32, 2, 1, 32]));
    cases
}

fn case(variant: AttentionVariant, dtype: DType, page: Option<usize>, sizes: Sizes) -> Case {
    let [batch, queries, keys, heads, kv_heads, head_dim] = sizes;
    let slots = page.map_or([batch, keys], |page| [1, (batch * keys / page + 3) * page]);
    let cache = |name| Feed::normal(name, [slots[0], slots[1], kv_heads, head_dim]).stored_as(dtype).fixed();
    // Rows of different lengths, the queries at their ends.
    let length = |row: usize| keys - row * (keys - queries) / batch;
    let positions = (0..batch * queries).map(|i| (length(i / queries) - queries + i % queries) as f64);
    let mut feeds = vec![
        Feed::normal("q", [batch, queries, heads, head_dim]).fixed(),
        cache("k"),
        cache("v"),
        Feed::given("positions", [batch, queries], DType::U32, positions),
        Feed::given("lengths", [batch], DType::U32, (0..batch).map(|row| length(row) as f64)),
    ];
    if let Some(page) = page {
        // No page twice, and in no order.
        let (count, all) = (batch * keys / page, slots[1] / page);
        let stride = (all / 2..all).find(|stride| gcd(*stride, all) == 1).unwrap_or(1);
        let table = (0..count).map(|i| ((i * stride + 1) % all) as f64);
        feeds.push(Feed::given("table", [batch, keys / page], DType::U32, table));
    }
    let pages = page.map_or(String::new(), |page| format!(", pages of {page}"));
    let name = format!("attention {variant:?} to caches of {dtype}{pages} {sizes:?}");
    Case::new(name, feeds, move |g, x| {
        let options = AttentionOptions {
            causal: true,
            query_positions: Some(x[3]),
            lengths: Some(x[4]),
            pages: page.map(|size| KeyPages { table: x[5], size }),
            variant: Some(variant),
            ..Default::default()
        };
        Ok(vec![ops::attention(g, x[0], x[1], x[2], &options)?])
    })
    .tolerance(Tolerance { nmse: 1e-11, worst: 1e-5 }, Tolerance::EXACT)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
