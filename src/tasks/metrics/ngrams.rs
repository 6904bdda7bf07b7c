//! Counts of n-grams.

use std::collections::HashMap;
use std::hash::Hash;

/// How often each run of `n` items occurs.
pub(super) fn ngrams<T: Eq + Hash>(items: &[T], n: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    if n > 0 {
        items.windows(n).for_each(|gram| *counts.entry(gram).or_default() += 1);
    }
    counts
}

/// The n-grams that both have, each as often as both do.
pub(super) fn shared<K: Eq + Hash>(a: &HashMap<K, u64>, b: &HashMap<K, u64>) -> u64 {
    a.iter().filter_map(|(gram, count)| Some(*b.get(gram)?.min(count))).sum()
}
