//! Sliding windows and soft caps.

use super::attention::AttentionOptions;
use super::spec::Sizes;
use crate::error::{Error, Result};

/// A query at position `i` sees keys `i - before` to `i + after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub before: u32,
    pub after: u32,
}

impl Window {
    /// The window of the options; `None` if it hides nothing.
    pub(super) fn of(options: &AttentionOptions, sizes: &Sizes) -> Result<Option<Self>> {
        let Some(window) = options.window else { return Ok(None) };
        if window == 0 && options.causal {
            let message = "a window of 0 hides every key, also the query's own: use 1 or more, or None for all keys";
            return Err(Error::input("attention window", message));
        }
        // Without positions no key is further from a query than the sequences are long.
        if options.query_positions.is_none() && window >= sizes.queries.max(sizes.keys) {
            return Ok(None);
        }
        let (before, after) = if options.causal { (window - 1, 0) } else { (window, window.min(sizes.keys)) };
        let word = |distance: usize| u32::try_from(distance).unwrap_or(u32::MAX);
        Ok(Some(Self { before: word(before), after: word(after) }))
    }

    /// The first visible key of the query at a position.
    pub(super) fn start(self, position: i64, keys: usize) -> usize {
        (position - i64::from(self.before)).clamp(0, keys as i64) as usize
    }

    /// One past the last visible key of the query at a position.
    pub(super) fn limit(self, position: i64, keys: usize) -> usize {
        position.saturating_add(i64::from(self.after) + 1).clamp(0, keys as i64) as usize
    }
}

/// Refuses a soft cap out of range.
pub(in crate::ops) fn check_cap(what: &str, cap: Option<f32>) -> Result<()> {
    match cap {
        Some(cap) if !(1e-30..=1e30).contains(&cap) => {
            let message = format!("{cap} is not between 1e-30 and 1e30 (use None for no cap)");
            Err(Error::input(what, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention::attention;
    use super::*;
    use crate::dtype::DType;
    use crate::graph::{Array, Graph, Values};

    const BATCH: usize = 2;
    const QUERIES: usize = 5;
    const KEYS: usize = 7;

    /// What attention gives with options, and words that are inputs of it.
    fn result(words: &[(&str, &[usize], &[f64])], options: impl Fn(&[crate::Tensor]) -> AttentionOptions) -> Array {
        let mut g = Graph::new();
        let mut values = Values::new();
        let numbers = |shape: &[usize], step: f64| Array::from_fn(shape, |i| (i as f64 * step).sin());
        for (name, shape, step) in
            [("q", [BATCH, QUERIES, 1, 4], 1.3), ("k", [BATCH, KEYS, 1, 4], 0.7), ("v", [BATCH, KEYS, 1, 4], 2.1)]
        {
            values.insert(name.into(), numbers(&shape, step));
        }
        let input = |g: &mut Graph, name: &str, time| g.input(name, [BATCH, time, 1, 4], DType::F32).unwrap();
        let [q, k, v] = [("q", QUERIES), ("k", KEYS), ("v", KEYS)].map(|(name, time)| input(&mut g, name, time));
        let mut given = Vec::new();
        for (name, shape, data) in words {
            let dtype = if *name == "bias" { DType::F32 } else { DType::U32 };
            given.push(g.input(name, *shape, dtype).unwrap());
            values.insert((*name).into(), Array::new(*shape, data.to_vec()).unwrap());
        }
        let out = attention(&mut g, q, k, v, &options(&given)).unwrap();
        g.evaluate(&values, &[out]).unwrap().remove(0)
    }

    /// A bias of minus infinity wherever a query is not to see a key.
    fn dense(sees: impl Fn(usize, usize, usize) -> bool) -> Array {
        let bias: Vec<f64> = (0..BATCH * QUERIES * KEYS)
            .map(|at| {
                let (b, i, j) = (at / (QUERIES * KEYS), at / KEYS % QUERIES, at % KEYS);
                if sees(b, i, j) { 0.0 } else { f64::NEG_INFINITY }
            })
            .collect();
        let shape = [BATCH, 1, QUERIES, KEYS];
        result(&[("bias", &shape, &bias)], |x| AttentionOptions { bias: Some(x[0]), ..Default::default() })
    }

    fn same(a: &Array, b: &Array) {
        assert!(a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
    }

    #[test]
    fn windows_do_what_dense_masks_do() {
        let causal = AttentionOptions { causal: true, ..Default::default() };
        for window in [1, 3, 6] {
            let past = result(&[], |_| AttentionOptions { window: Some(window), ..causal });
            same(&past, &dense(|_, i, j| j <= i + 2 && j + window > i + 2));
            let both = result(&[], |_| AttentionOptions { window: Some(window), ..Default::default() });
            same(&both, &dense(|_, i, j| (i + 2).abs_diff(j) <= window));
        }
        let itself = result(&[], |_| AttentionOptions { window: Some(0), ..Default::default() });
        same(&itself, &dense(|_, i, j| i + 2 == j));
        let all = result(&[], |_| AttentionOptions { window: Some(usize::MAX), ..causal });
        same(&all, &result(&[], |_| causal));
    }

    #[test]
    fn positions_move_windows() {
        let at = [0.0, 6.0, 3.0, 9.0, 200.0, 1.0, 2.0, 4_294_967_295.0, 5.0, 8.0];
        let lengths = [7.0, 4.0];
        let words = [("positions", &[BATCH, QUERIES][..], &at[..]), ("lengths", &[BATCH], &lengths)];
        for window in [1, 3, 9, usize::MAX] {
            for causal in [true, false] {
                let found = result(&words, |x| {
                    let (query_positions, lengths) = (Some(x[0]), Some(x[1]));
                    AttentionOptions { causal, window: Some(window), query_positions, lengths, ..Default::default() }
                });
                let distance = if causal { window - 1 } else { window };
                same(
                    &found,
                    &dense(|b, i, j| {
                        let position = at[b * QUERIES + i] as usize;
                        (j as f64) < lengths[b] && position.abs_diff(j) <= distance && (!causal || j <= position)
                    }),
                );
            }
        }
    }

    #[test]
    fn a_prefix_is_seen_by_all() {
        let prefix = [4.0, 100.0];
        let words = [("prefix", &[BATCH][..], &prefix[..])];
        let prefixed =
            |x: &[crate::Tensor]| AttentionOptions { causal: true, prefix: Some(x[0]), ..Default::default() };
        let sees = |b: usize, i: usize, j: usize| j <= i + 2 || (j as f64) < prefix[b];
        same(&result(&words, prefixed), &dense(sees));
        let near = result(&words, |x| AttentionOptions { window: Some(3), ..prefixed(x) });
        same(&near, &dense(|b, i, j| sees(b, i, j) && j >= i));
    }

    #[test]
    fn options_without_effect_or_out_of_range_are_refused() {
        let mut g = Graph::new();
        let q = g.input("q", [1, 3, 1, 8], DType::F32).unwrap();
        let words = g.input("words", [2], DType::U32).unwrap();
        let mut refuse = |options: AttentionOptions, words: &str| {
            let error = attention(&mut g, q, q, q, &options).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let none = AttentionOptions::default();
        refuse(AttentionOptions { causal: true, window: Some(0), ..none }, "also the query's own");
        for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            refuse(AttentionOptions { soft_cap: Some(cap), ..none }, "is not between");
        }
        refuse(AttentionOptions { prefix: Some(words), ..none }, "prefix needs causal");
        refuse(AttentionOptions { causal: true, prefix: Some(words), ..none }, "prefix is u32[2], expected u32[1]");
    }
}
