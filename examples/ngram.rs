//! An n-gram model of bytes with interpolated Kneser-Ney smoothing, to hold trained models against.
//!
//! ```text
//! cargo run --release --example ngram -- ORDER TRAIN_FILE HELD_OUT_FILE
//! ```
//! prints the perplexity a byte of the held-out file. Source: Kneser and Ney, Improved backing-off for m-gram language modeling, 1995, in
//! the interpolated form of Chen and Goodman, 1998, with the discount n₁ / (n₁ + 2 n₂) of each order.

use std::collections::HashMap;
use std::error::Error;
use std::fs;

/// What followed a context: how often in all, and each byte's count.
#[derive(Default)]
struct Followers {
    total: u32,
    counts: HashMap<u8, u32>,
}

/// The contexts of one length; the longest counts occurrences, the shorter ones count different bytes in front.
struct Order {
    contexts: HashMap<Vec<u8>, Followers>,
    discount: f64,
}

impl Order {
    fn new(counted: impl Iterator<Item = (Vec<u8>, u8)>) -> Self {
        let mut contexts: HashMap<Vec<u8>, Followers> = HashMap::new();
        for (context, byte) in counted {
            let followers = contexts.entry(context).or_default();
            followers.total += 1;
            *followers.counts.entry(byte).or_default() += 1;
        }
        let with = |count| contexts.values().flat_map(|f| f.counts.values()).filter(|c| **c == count).count() as f64;
        let (once, twice) = (with(1), with(2));
        let discount = if once > 0.0 { once / (once + 2.0 * twice) } else { 0.5 };
        Self { contexts, discount }
    }
}

struct Ngram(Vec<Order>);

impl Ngram {
    fn new(text: &[u8], order: usize) -> Self {
        let orders = (1..=order).map(|n| {
            let divided = |gram: &[u8]| (gram[..n - 1].to_vec(), gram[n - 1]);
            if n == order {
                return Order::new(text.windows(n).map(divided));
            }
            let distinct: std::collections::HashSet<&[u8]> = text.windows(n + 1).collect();
            Order::new(distinct.into_iter().map(|gram| divided(&gram[1..])))
        });
        Self(orders.collect())
    }

    /// The probability of a byte behind a text.
    fn probability(&self, before: &[u8], byte: u8) -> f64 {
        self.0.iter().enumerate().fold(1.0 / 256.0, |below, (length, order)| {
            let context = before.get(before.len().saturating_sub(length)..).unwrap_or_default();
            let Some(followers) = order.contexts.get(context).filter(|_| context.len() == length) else { return below };
            let (total, count) =
                (f64::from(followers.total), followers.counts.get(&byte).map_or(0.0, |c| f64::from(*c)));
            (count - order.discount).max(0.0) / total + order.discount * followers.counts.len() as f64 / total * below
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [order, train, held_out] = words.as_slice() else {
        return Err("give the order, a file to count and a held-out file".into());
    };
    let order: usize = order.parse()?;
    let (train, held_out) = (fs::read(train)?, fs::read(held_out)?);
    if order == 0 || train.len() <= order || held_out.is_empty() {
        return Err("the order is at least 1, and the files are longer than it".into());
    }
    let model = Ngram::new(&train, order);
    let total: f64 =
        (0..256).map(|byte| model.probability(&held_out[..order.min(held_out.len()) - 1], byte as u8)).sum();
    assert!((total - 1.0).abs() < 1e-9, "the probabilities sum to {total}");
    let nats: f64 = (0..held_out.len())
        .map(|at| -model.probability(&held_out[at.saturating_sub(order - 1)..at], held_out[at]).ln())
        .sum();
    let bytes = held_out.len();
    println!("{order}-gram, {bytes} bytes held out: perplexity {:.3} a byte", (nats / bytes as f64).exp());
    Ok(())
}
