//! Fused softmax attention, forward and backward, without a T×T tensor.

use super::forward::Attention;
use super::key_limits::key_limits;
use super::spec::{AttentionSpec, Dropout, Sizes};
use super::variant::AttentionVariant;
use super::window::{Window, check_cap};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use derive_setters::Setters;

/// Dropout of attention probabilities.
#[derive(Clone, Copy, Debug)]
pub struct AttentionDropout {
    /// The probability of dropping a probability; the others are divided by `1 − rate`. 0 drops nothing.
    pub rate: f32,
    /// (2) u32, written by the caller for each step.
    pub seed: Tensor,
    /// Distinguishes the attention layers of one step.
    pub salt: u32,
}

/// Where the keys and values of each batch row are among the slots of all: key `j` is in slot `table[b, j / size] · size + j mod size`.
#[derive(Clone, Copy, Debug)]
pub struct KeyPages {
    /// (B, P) u32, each less than the number of pages: then there are P · size keys. Entries of keys that no query sees are read, too.
    pub table: Tensor,
    /// Slots of a page, a multiple of 4.
    pub size: usize,
}

/// Options of [`attention`] beyond plain softmax attention.
#[derive(Clone, Copy, Debug, Default, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// A query sees only keys at or before its own position: `query_positions`, or else query `i` sees the keys up to
    /// `i + Tk − Tq`.
    pub causal: bool,
    /// The sliding window `w`. With `causal`, the query at position `i` sees the `w` keys `i − w + 1` to `i`; without it, the keys at a
    /// distance of at most `w`. Positions are `query_positions`; without them query `i` has position `i + Tk − Tq`. Keys that no query of a
    /// tile sees cost nothing.
    pub window: Option<usize>,
    /// (B) u32, the length of the prefix: all queries of a batch row see the keys of the prefix, also queries before them. Only with `causal`.
    /// A window still hides keys that are further back.
    pub prefix: Option<Tensor>,
    /// The factor of scores before soft cap and bias; `1 / sqrt(D)` if not given.
    pub scale: Option<f32>,
    /// The soft cap `c`: scores `x = scale · q kᵀ` become `c tanh(x / c)`, before bias and masks. From 1e-30 to 1e30.
    pub soft_cap: Option<f32>,
    /// (B) u32: the number of keys of each batch row. Keys past it are neither visible nor read.
    pub lengths: Option<Tensor>,
    /// (B, Tk) u32: 1 for a real key, 0 for padding.
    pub key_mask: Option<Tensor>,
    /// (H, Tq, Tk) or (B, H, Tq, Tk) f32, added to the scaled and capped scores; differentiable. −∞ hides the key. Or by distance,
    /// (H, Tq + Tk − 1): the score of query `i` and key `j` gets entry `j − i + Tq − 1`.
    pub bias: Option<Tensor>,
    /// (B, Tq) u32: the position of each query among the keys. Only with `causal` or a `window`.
    pub query_positions: Option<Tensor>,
    /// (B, Tq, 2) u32: the first key that each query sees, and one past the last; the other options hide more of them. Keys that no query of
    /// a tile sees cost nothing: so are several texts packed in one row. Not with `query_positions`.
    pub key_ranges: Option<Tensor>,
    /// The tree mask, (B, Tk, 3) u32: for each key its position in the text, and the first and last position (inclusive) of the span that it
    /// covers. A query sees a key only if the span of one of them covers the other. Only these numbers are compared, so selected tokens take
    /// their rows along.
    pub tree: Option<Tensor>,
    /// (B, Tq, 3) u32: the same for the queries, if they are not the tokens of the keys. Only with `tree`.
    pub query_tree: Option<Tensor>,
    /// Keys and values lie in pages that all batch rows share; then `k` and `v` are (1, S, Hkv, D), S slots. No gradient.
    pub pages: Option<KeyPages>,
    /// Dropout of probabilities, for training.
    pub dropout: Option<AttentionDropout>,
    /// A kernel to prefer to the adapter's default, if it is legal.
    pub variant: Option<AttentionVariant>,
}

/// `out = softmax(cap(scale · q kᵀ) + bias, over the visible keys) · v`, for each head. `cap(x) = c tanh(x / c)` with a `soft_cap` of `c`,
/// and `x` without.
///
/// Shapes: `q` (B, Tq, H, D), `k` and `v` (B, Tk, Hkv, D), result (B, Tq, H, D), all f32; without gradients `k` and `v` may be f16 (D a
/// multiple of 4) or q8_0 (of 32). `H` is a multiple of `Hkv`:
/// query head `h` reads key head `h / (H / Hkv)` (grouped-query attention). `D` is at most 256. A query without visible keys
/// gives zeros, and gradients of zero.
///
/// With a `tree` of rows `(pos, first, last)`, query `i` sees key `j` only if
/// `first_j ≤ pos_i ≤ last_j` (j is i or an ancestor of i) or `first_i ≤ pos_j ≤ last_i` (j is a descendant of i).
///
/// Products `q · k` may be as large as 3e37: softmax depends only on differences of scores, which are as exact as the scores in f32 (to 1/64
/// for scores of 2e5). A bias may be a mask: −∞ (also as the sum of two masks of the least finite f32) hides the key. The least finite f32,
/// and everything below −1e38, counts as −1e38: such a key has no weight next to others, and a row of only such keys weighs them equally, so
/// its output is the mean of `v`. Gradients ignore this: `dS` below is the derivative with respect to the sum of score and bias. Infinity or
/// NaN elsewhere makes results undefined.
///
/// The forward kernel keeps two numbers per row, its largest score and the sum of `exp(S − max)`; the backward kernels compute the
/// probabilities again from them. Log-sum-exp would be a single number, but loses the sum next to a large score.
/// With `P = exp(S − max) / sum` and `delta = rowsum(dout ∘ out)`:
/// `dv = Pᵀ dout`, `dS = P ∘ (dout vᵀ − delta)`, `dq = scale · dX k`, `dk = scale · dXᵀ q`, and `dbias = dS`, summed
/// over the batch if the bias has no batch axis. `dX` is `dS` without a soft cap, and `dS ∘ (1 − (cap(X) / c)²)` with one, where
/// `X = scale · q kᵀ`.
///
/// Dropout multiplies `P` by a mask `M` of 0 and `1 / (1 − rate)` after the softmax: `out = (P ∘ M) v`,
/// `dv = (P ∘ M)ᵀ dout`, `dS = P ∘ (M ∘ dout vᵀ − delta)`. `M` comes from Threefry at a counter of head, query and key, so each kernel
/// computes it again and none stores it.
///
/// Windows: Beltagy et al., `Longformer`, 2020 (arXiv 2004.05150). Soft caps: Gemma Team, `Gemma 2`, 2024 (arXiv 2408.00118).
/// Prefixes: Raffel et al., 2019 (arXiv 1910.10683).
/// Dao et al., `FlashAttention`, 2022 (arXiv 2205.14135); Dao, `FlashAttention-2`, 2023 (arXiv 2307.08691).
///
/// # Errors
/// [`Error::Shape`] that names the operand that does not fit; [`Error::Input`] for a dropout rate, a window or a soft cap out of range.
pub fn attention(g: &mut Graph, q: Tensor, k: Tensor, v: Tensor, options: &AttentionOptions) -> Result<Tensor> {
    let pages = options.pages.map(|KeyPages { table, size }| [g.shape(table).last(), size]);
    let sizes = Sizes::new(g.ty(q), g.ty(k), g.ty(v), pages)?;
    if let Some(KeyPages { table, size }) = options.pages {
        expect("the table of pages", g, table, &[sizes.batch, sizes.keys / size], DType::U32)?;
    }
    if options.query_positions.is_some() && !options.causal && options.window.is_none() {
        let what = "query_positions needs causal or a window: set one of them or drop the positions";
        return Err(Error::shape("attention", what));
    }
    if options.query_positions.is_some() && options.key_ranges.is_some() {
        let what = "key_ranges are of queries in the order of the keys: drop them or the query_positions";
        return Err(Error::shape("attention", what));
    }
    if options.prefix.is_some() && !options.causal {
        return Err(Error::shape("attention", "prefix needs causal: set it or drop the prefix"));
    }
    check_cap("attention soft_cap", options.soft_cap)?;
    let window = Window::of(options, &sizes)?;
    if options.query_tree.is_some() && options.tree.is_none() {
        let what = "query_tree needs tree: give the keys' tree, too, or drop it";
        return Err(Error::shape("attention", what));
    }
    if options.tree.is_some() && options.query_tree.is_none() && sizes.queries != sizes.keys {
        let (queries, keys) = (sizes.queries, sizes.keys);
        let what = format!("tree has {keys} keys, but there are {queries} queries: give query_tree");
        return Err(Error::shape("attention", what));
    }
    if let Some(rate) = options.dropout.map(|dropout| dropout.rate).filter(|rate| !(0.0..1.0).contains(rate)) {
        return Err(Error::input("attention dropout rate", format!("{rate} is not in [0, 1)")));
    }
    let options = &AttentionOptions { dropout: options.dropout.filter(|dropout| dropout.rate > 0.0), ..*options };
    let mut inputs = vec![q, k, v];
    let key_limits = key_limits(g, &sizes, options, window)?;
    inputs.extend(key_limits);
    inputs.extend(options.bias);
    inputs.extend(options.pages.map(|pages| pages.table));
    let spec = AttentionSpec {
        causal: options.causal,
        window,
        ranges: options.key_ranges.is_some(),
        cap: options.soft_cap,
        scale: options.scale.unwrap_or(1.0 / (sizes.head_dim as f32).sqrt()),
        key_limits: key_limits.is_some(),
        masked: options.key_mask.is_some(),
        has_tree: options.tree.is_some(),
        bias: options.bias.is_some(),
        pages,
        drop: options.dropout.map(|dropout| Dropout { rate: dropout.rate, salt: dropout.salt }),
        variant: options.variant,
    };
    g.put1(Attention(spec), &inputs)
}

/// Refuses an optional operand of another type than `expected`.
pub(super) fn expect(what: &str, g: &Graph, tensor: Tensor, shape: &[usize], dtype: DType) -> Result<()> {
    let ty = g.ty(tensor);
    if ty.shape.dims() == shape && ty.dtype == dtype {
        return Ok(());
    }
    Err(Error::shape("attention", format!("{what} is {ty}, expected {dtype}{shape:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Array, Values};

    fn refuse(q: [usize; 4], k: [usize; 4], v: [usize; 4], words: &str) {
        let mut g = Graph::new();
        let q = g.input("q", q, DType::F32).unwrap();
        let k = g.input("k", k, DType::F32).unwrap();
        let v = g.input("v", v, DType::F32).unwrap();
        let error = attention(&mut g, q, k, v, &AttentionOptions::default()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        refuse(
            [2, 3, 4, 8],
            [2, 5, 4, 8],
            [2, 6, 4, 8],
            "v is f32[2, 6, 4, 8], expected the type of k, f32[2, 5, 4, 8]",
        );
        refuse([2, 3, 4, 8], [1, 5, 4, 8], [1, 5, 4, 8], "k is f32[1, 5, 4, 8], q f32[2, 3, 4, 8]: the batches differ");
        refuse([2, 3, 4, 8], [2, 5, 4, 4], [2, 5, 4, 4], "the head_dims differ");
        refuse([2, 3, 4, 8], [2, 5, 3, 8], [2, 5, 3, 8], "the 4 query heads are not a multiple of the 3 key heads");
        refuse([2, 3, 4, 257], [2, 5, 4, 257], [2, 5, 4, 257], "head_dim is 257, but the most is 256");
        refuse([2, 3, 4, 8], [2, 0, 4, 8], [2, 0, 4, 8], "an axis is empty");
    }

    #[test]
    fn options_that_do_not_fit_are_named() {
        let mut g = Graph::new();
        let q = g.input("q", [2, 3, 4, 8], DType::F32).unwrap();
        let k = g.input("k", [2, 5, 2, 8], DType::F32).unwrap();
        let wide = g.input("wide", [3], DType::U32).unwrap();
        let float = g.input("float", [2, 5], DType::F32).unwrap();
        let bias = g.input("bias", [4, 3, 4], DType::F32).unwrap();
        let spans = g.input("spans", [2, 3, 3], DType::U32).unwrap();
        let mut refuse = |options: AttentionOptions, words: &str| {
            let error = attention(&mut g, q, k, k, &options).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let none = AttentionOptions::default();
        refuse(AttentionOptions { lengths: Some(wide), ..none }, "lengths is u32[3], expected u32[2]");
        refuse(AttentionOptions { key_mask: Some(float), ..none }, "key_mask is f32[2, 5], expected u32[2, 5]");
        refuse(AttentionOptions { query_positions: Some(wide), ..none }, "needs causal");
        let causal = AttentionOptions { causal: true, ..none };
        refuse(
            AttentionOptions { query_positions: Some(wide), ..causal },
            "query_positions is u32[3], expected u32[2, 3]",
        );
        refuse(AttentionOptions { key_ranges: Some(float), ..none }, "key_ranges is f32[2, 5], expected u32[2, 3, 2]");
        refuse(
            AttentionOptions { key_ranges: Some(wide), query_positions: Some(wide), ..causal },
            "drop them or the query_positions",
        );
        refuse(AttentionOptions { query_tree: Some(wide), ..none }, "needs tree");
        refuse(
            AttentionOptions { tree: Some(wide), ..none },
            "tree has 5 keys, but there are 3 queries: give query_tree",
        );
        let both = AttentionOptions { tree: Some(wide), query_tree: Some(spans), ..none };
        refuse(both, "tree is u32[3], expected u32[2, 5, 3]");
        let dropout = |rate, seed| Some(AttentionDropout { rate, seed, salt: 0 });
        refuse(AttentionOptions { dropout: dropout(1.0, wide), ..none }, "dropout rate: 1 is not in [0, 1)");
        refuse(AttentionOptions { dropout: dropout(f32::NAN, wide), ..none }, "dropout rate: NaN");
        refuse(
            AttentionOptions { dropout: dropout(0.5, wide), ..none },
            "the seed of dropout is u32[3], expected u32[2]",
        );
        refuse(AttentionOptions { bias: Some(bias), ..none }, "bias is f32[4, 3, 4], expected f32[4, 3, 5] or");
    }

    #[test]
    fn a_tree_mask_does_what_a_dense_mask_of_the_tree_does() {
        // The parent of each token; the text ends with a second tree. Every second token is picked as a query.
        let parents = [2_usize, 0, 2, 4, 2, 4, 7, 7, 7];
        let ends = [(0, 1), (1, 1), (0, 5), (3, 3), (3, 5), (5, 5), (6, 6), (6, 8), (8, 8)];
        let (keys, queries) = (parents.len(), parents.len().div_ceil(2));
        let above = |upper: usize, mut at: usize| {
            while at != upper && parents[at] != at {
                at = parents[at];
            }
            at == upper
        };
        let words = |every: usize| -> Vec<f64> {
            (0..keys).step_by(every).flat_map(|at| [at, ends[at].0, ends[at].1].map(|x| x as f64)).collect()
        };
        let array = |shape: &[usize], data| Array::new(shape, data).unwrap();
        let numbers = |shape: &[usize], step: f64| Array::from_fn(shape, |i| (i as f64 * step).sin());
        let bias = Array::from_fn([1, queries, keys], |i| {
            let (query, key) = (i / keys * 2, i % keys);
            if above(query, key) || above(key, query) { 0.0 } else { -1e9 }
        });
        let mut g = Graph::new();
        let mut values = Values::new();
        let mut input = |g: &mut Graph, name: &str, value: Array, dtype| {
            let tensor = g.input(name, value.shape.clone(), dtype).unwrap();
            values.insert(name.into(), value);
            tensor
        };
        let q = input(&mut g, "q", numbers(&[1, queries, 1, 4], 1.3), DType::F32);
        let k = input(&mut g, "k", numbers(&[1, keys, 1, 4], 0.7), DType::F32);
        let bias = input(&mut g, "bias", bias, DType::F32);
        let tree = input(&mut g, "tree", array(&[1, keys, 3], words(1)), DType::U32);
        let query_tree = input(&mut g, "query_tree", array(&[1, queries, 3], words(2)), DType::U32);
        let dense = AttentionOptions { bias: Some(bias), ..Default::default() };
        let dense = attention(&mut g, q, k, k, &dense).unwrap();
        let tree = AttentionOptions { tree: Some(tree), query_tree: Some(query_tree), ..Default::default() };
        let tree = attention(&mut g, q, k, k, &tree).unwrap();
        let found = g.evaluate(&values, &[dense, tree]).unwrap();
        assert!(found[0].data.iter().zip(&found[1].data).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn dropout_drops_about_its_rate_and_keeps_the_mean() {
        // All scores are equal and all values 1: each output is the share of keys that stay, over what stays on average.
        let (queries, keys, heads) = (64, 65, 3);
        let mut g = Graph::new();
        let q = g.input("q", [1, queries, heads, 2], DType::F32).unwrap();
        let k = g.input("k", [1, keys, heads, 2], DType::F32).unwrap();
        let v = g.input("v", [1, keys, heads, 2], DType::F32).unwrap();
        let seed = g.input("seed", [2], DType::U32).unwrap();
        let mut with = |rate, salt| {
            let options =
                AttentionOptions { dropout: Some(AttentionDropout { rate, seed, salt }), ..Default::default() };
            attention(&mut g, q, k, v, &options).unwrap()
        };
        let (plain, a, b) = (with(0.0, 0), with(0.3, 0), with(0.3, 1));
        let values = Values::from([
            ("q".to_owned(), Array::zeros([1, queries, heads, 2])),
            ("k".to_owned(), Array::zeros([1, keys, heads, 2])),
            ("v".to_owned(), Array::from_fn([1, keys, heads, 2], |_| 1.0)),
            ("seed".to_owned(), Array::new([2], vec![7.0, 9.0]).unwrap()),
        ]);
        let found = g.evaluate(&values, &[plain, a, b]).unwrap();
        assert!(found[0].data.iter().all(|x| (x - 1.0).abs() < 1e-12), "a rate of 0 drops nothing");
        let mean = found[1].data.iter().sum::<f64>() / found[1].data.len() as f64;
        let spread = found[1].data.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / found[1].data.len() as f64;
        // Of n independent draws the variance is rate / (1 - rate) / n.
        let expected = 0.3 / 0.7 / keys as f64;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert!((spread / expected - 1.0).abs() < 0.3, "{spread} instead of {expected}");
        assert_ne!(found[1], found[2], "the salt tells layers apart");
    }

    #[test]
    fn masks_in_the_bias_hide_keys_and_leave_means() {
        const LEAST: f64 = f32::MIN as f64;
        const HIDDEN: f64 = f64::NEG_INFINITY;
        let (keys, head_dim) = (4, 2);
        // The rows of the bias, and the probabilities that they leave.
        let rows = [
            ([LEAST; 4], [0.25; 4]),
            ([LEAST, LEAST, -7.0, LEAST], [0.0, 0.0, 1.0, 0.0]),
            ([HIDDEN; 4], [0.0; 4]),
            ([HIDDEN, LEAST, HIDDEN, LEAST], [0.0, 0.5, 0.0, 0.5]),
            ([HIDDEN, HIDDEN, HIDDEN, 3.0], [0.0, 0.0, 0.0, 1.0]),
            ([-1e30, 1e30, -1e30, -1e30], [0.0, 1.0, 0.0, 0.0]),
        ];
        let mut g = Graph::new();
        let mut values = Values::new();
        let mut input = |g: &mut Graph, name: &str, shape: [usize; 4], data: Vec<f64>| {
            values.insert(name.into(), Array::new(shape, data).unwrap());
            g.input(name, shape, DType::F32).unwrap()
        };
        let numbers = |count: usize, step: f64| (0..count).map(|i| (i as f64 * step).sin()).collect::<Vec<f64>>();
        let (q, dout) = (numbers(rows.len() * head_dim, 1.3), numbers(rows.len() * head_dim, 2.1));
        let v = numbers(keys * head_dim, 0.7);
        let q = input(&mut g, "q", [1, rows.len(), 1, head_dim], q);
        let k = input(&mut g, "k", [1, keys, 1, head_dim], numbers(keys * head_dim, 0.9));
        let value = input(&mut g, "v", [1, keys, 1, head_dim], v.clone());
        let upstream = input(&mut g, "dout", [1, rows.len(), 1, head_dim], dout.clone());
        let bias = input(&mut g, "bias", [1, 1, rows.len(), keys], rows.iter().flat_map(|row| row.0).collect());
        let options = AttentionOptions { bias: Some(bias), ..Default::default() };
        let out = attention(&mut g, q, k, value, &options).unwrap();
        let grads = g.differentiate_from(&[(out, upstream)], &[q, value, bias]).unwrap();
        let wanted: Vec<Tensor> = [Some(out)].into_iter().chain(grads).flatten().collect();
        let found = g.evaluate(&values, &wanted).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} instead of {b}");
        for (i, (_, probabilities)) in rows.iter().enumerate() {
            let through = |j: usize| (0..head_dim).map(|c| dout[i * head_dim + c] * v[j * head_dim + c]).sum::<f64>();
            let delta: f64 = (0..keys).map(|j| probabilities[j] * through(j)).sum();
            for c in 0..head_dim {
                let expected: f64 = (0..keys).map(|j| probabilities[j] * v[j * head_dim + c]).sum();
                close(found[0].data[i * head_dim + c], expected);
            }
            for j in 0..keys {
                close(found[3].data[i * keys + j], probabilities[j] * (through(j) - delta));
            }
        }
        for (at, &dv) in found[2].data.iter().enumerate() {
            let (j, c) = (at / head_dim, at % head_dim);
            close(dv, rows.iter().enumerate().map(|(i, row)| row.1[j] * dout[i * head_dim + c]).sum());
        }
        let dq = &found[1].data;
        assert!(dq[2..6].iter().chain(&dq[8..]).all(|x| x.abs() < 1e-12), "one key or none: {dq:?}");
        assert!(dq.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn layers_that_share_lengths_share_the_limits_tensor() {
        let mut g = Graph::new();
        let q = g.input("q", [2, 3, 4, 8], DType::F32).unwrap();
        let lengths = g.input("lengths", [2], DType::U32).unwrap();
        let options = AttentionOptions { lengths: Some(lengths), ..AttentionOptions::default() };
        let first = attention(&mut g, q, q, q, &options).unwrap();
        let before = g.nodes().len();
        attention(&mut g, first, first, first, &options).unwrap();
        assert_eq!(g.nodes().len(), before + 1);
    }
}
