//! BM25: texts ranked by the words that they share with a query.

use std::collections::HashMap;

/// How fast a word's repetitions count less, and how much the length of a text counts.
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// Texts that are ranked by `Σ idf(w) · f (k₁ + 1) / (f + k₁ (1 − b + b · length / mean length))` over the words w of a query, where f is how often
/// the text has w, `idf(w) = ln(1 + (N − n + ½) / (n + ½))`, n of N texts have w, k₁ = 1.2 and b = 0.75. Words are runs of letters and digits in
/// lower case. A baseline that vectors should beat.
///
/// Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the idf of Lucene, which is never negative.
#[derive(Clone, Debug, Default)]
pub struct Bm25 {
    /// For each word the texts that have it, and how often.
    postings: HashMap<String, Vec<(usize, u32)>>,
    /// Words of each text.
    lengths: Vec<usize>,
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

impl Bm25 {
    /// Counts the words of texts.
    pub fn new<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut made = Self::default();
        for (number, text) in texts.into_iter().enumerate() {
            let mut counts: HashMap<String, u32> = HashMap::new();
            words(text.as_ref()).for_each(|word| *counts.entry(word).or_default() += 1);
            made.lengths.push(counts.values().map(|count| *count as usize).sum());
            counts.into_iter().for_each(|(word, count)| made.postings.entry(word).or_default().push((number, count)));
        }
        made
    }

    /// The scores of the texts that share a word with a query, as number and score, the best first and of equals the earlier. A word that a query has
    /// twice counts twice.
    #[must_use]
    pub fn rank(&self, query: &str) -> Vec<(usize, f64)> {
        let count = self.lengths.len() as f64;
        let mean = self.lengths.iter().sum::<usize>() as f64 / count.max(1.0);
        let mut scores: HashMap<usize, f64> = HashMap::new();
        for postings in words(query).filter_map(|word| self.postings.get(&word)) {
            let having = postings.len() as f64;
            let idf = (1.0 + (count - having + 0.5) / (having + 0.5)).ln();
            for &(number, times) in postings {
                let times = f64::from(times);
                let long = 1.0 - B + B * self.lengths[number] as f64 / mean;
                *scores.entry(number).or_default() += idf * times * (K1 + 1.0) / (times + K1 * long);
            }
        }
        let mut ranked: Vec<(usize, f64)> = scores.into_iter().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_formula_by_hand() {
        let texts = ["The cat sat. The CAT!", "a dog", "", "a cat and a dog and a bird"];
        let index = Bm25::new(texts);
        // N = 4, lengths 5, 2, 0, 8, mean 3.75; "cat" is in two texts, "bird" in one.
        let idf = |n: f64| (1.0 + (4.0 - n + 0.5) / (n + 0.5)).ln();
        let part = |n: f64, f: f64, length: f64| idf(n) * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * length / 3.75));
        let found = index.rank("Cat, bird?");
        let wanted = [(3, part(2.0, 1.0, 8.0) + part(1.0, 1.0, 8.0)), (0, part(2.0, 2.0, 5.0))];
        assert_eq!(found.len(), 2);
        for ((number, score), (wanted, expected)) in found.iter().zip(wanted) {
            assert_eq!(*number, wanted);
            assert!((score - expected).abs() <= 1e-12, "{score} {expected}");
        }
        assert!(
            index.rank("fish").is_empty() && index.rank("").is_empty() && Bm25::new([""; 0]).rank("cat").is_empty()
        );
        let twice = index.rank("bird bird")[0].1;
        assert!((twice - 2.0 * index.rank("bird")[0].1).abs() <= 1e-12);
    }
}
