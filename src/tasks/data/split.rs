//! Examples to train on and examples held out.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::hash::Hash;

/// Divides examples by chance into those to train on and a share (0 to 1) held out, the same on every machine. Both have at least one where there are
/// two or more, and keep their order.
#[must_use]
pub fn split<T>(examples: Vec<T>, share: f64, seed: u64) -> (Vec<T>, Vec<T>) {
    split_by_label(examples, |_| (), share, seed)
}

/// As [`split`], with the share of each label held out as far as whole numbers allow. A label that only one example has stays in training (unless all
/// are such), and with a share of up to a half so does each label.
#[must_use]
pub fn split_by_label<T, L: Eq + Hash>(
    examples: Vec<T>,
    label: impl Fn(&T) -> L,
    share: f64,
    seed: u64,
) -> (Vec<T>, Vec<T>) {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    // Labels by their first example, so that the same examples are held out whatever the labels are called.
    let mut labels: HashMap<L, usize> = HashMap::new();
    let of: Vec<usize> = examples
        .iter()
        .map(|example| {
            let next = labels.len();
            *labels.entry(label(example)).or_insert(next)
        })
        .collect();
    let mut counts = vec![0_usize; labels.len()];
    of.iter().for_each(|label| counts[*label] += 1);
    let several: Vec<usize> = order.iter().copied().filter(|i| counts[of[*i]] > 1).collect();
    let mut pool = if several.is_empty() { order } else { several };
    pool.sort_by_key(|i| of[*i]);
    let (all, pool_size) = (examples.len(), pool.len());
    let most = pool_size.min(all.saturating_sub(1));
    // A half is rounded down: with a share of a half no two neighbours are held out.
    let wanted = ((share.clamp(0.0, 1.0) * pool_size as f64 - 0.5).ceil() as usize).clamp(most.min(1), most);
    // At even distances: every label has its share within one example.
    let mut held = vec![false; all];
    for (i, example) in pool.into_iter().enumerate() {
        let taken = |i: usize| i as u64 * wanted as u64 / pool_size as u64;
        held[example] = taken(i + 1) > taken(i);
    }
    let (mut train, mut out) = (Vec::with_capacity(all - wanted), Vec::with_capacity(wanted));
    for (example, held) in examples.into_iter().zip(held) {
        if held { out.push(example) } else { train.push(example) }
    }
    (train, out)
}
