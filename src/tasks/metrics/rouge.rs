//! ROUGE (Lin 2004), as rouge-score computes it without a stemmer.

use super::Scores;
use std::collections::HashMap;

/// Words of ASCII letters and digits, lower case: everything else is a blank.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// ROUGE-N: n-grams that a prediction shares with a target, each as often as both have it.
#[must_use]
pub fn rouge_n(target: &str, prediction: &str, n: usize) -> Scores {
    let (target, prediction) = (words(target), words(prediction));
    if n == 0 {
        return Scores::default();
    }
    let mut left: HashMap<&[String], usize> = HashMap::new();
    target.windows(n).for_each(|gram| *left.entry(gram).or_default() += 1);
    let shared = prediction.windows(n).filter(|gram| take(&mut left, gram)).count();
    let grams = |words: &[String]| (words.len() + 1).saturating_sub(n) as f64;
    Scores::new(shared as f64, grams(&prediction), grams(&target))
}

fn take<K: std::hash::Hash + Eq + ?Sized>(left: &mut HashMap<&K, usize>, key: &K) -> bool {
    left.get_mut(key).filter(|count| **count > 0).map(|count| *count -= 1).is_some()
}

/// ROUGE-L: the longest common subsequence of words.
#[must_use]
pub fn rouge_l(target: &str, prediction: &str) -> Scores {
    let (target, prediction) = (words(target), words(prediction));
    let common = common(&target, &prediction).len();
    Scores::new(common as f64, prediction.len() as f64, target.len() as f64)
}

/// ROUGE-Lsum: sentences are lines. Of each target line those words count that lie on a longest common subsequence with any line of the
/// prediction, each as often as both texts have it.
#[must_use]
pub fn rouge_l_sum(target: &str, prediction: &str) -> Scores {
    let lines =
        |text: &str| -> Vec<Vec<String>> { text.split('\n').map(words).filter(|line| !line.is_empty()).collect() };
    let (target, prediction) = (lines(target), lines(prediction));
    let count = |lines: &[Vec<String>]| lines.iter().map(Vec::len).sum::<usize>() as f64;
    let counts = |lines: &[Vec<String>]| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        lines.iter().flatten().for_each(|word| *counts.entry(word.clone()).or_default() += 1);
        counts
    };
    let (mut of_target, mut of_prediction, mut hits) = (counts(&target), counts(&prediction), 0);
    for line in &target {
        let mut union: Vec<usize> = prediction.iter().flat_map(|other| common(line, other)).collect();
        union.sort_unstable();
        union.dedup();
        for at in union {
            let both = [&mut of_target, &mut of_prediction].map(|counts| counts.get_mut(&line[at]));
            if let [Some(target), Some(prediction)] = both
                && *target > 0
                && *prediction > 0
            {
                (*target, *prediction, hits) = (*target - 1, *prediction - 1, hits + 1);
            }
        }
    }
    Scores::new(f64::from(hits), count(&prediction), count(&target))
}

/// The places in `a` of a longest common subsequence with `b`; of several the one that is found from the end, going back in `b` last.
fn common(a: &[String], b: &[String]) -> Vec<usize> {
    let columns = b.len() + 1;
    let mut lengths = vec![0_u32; (a.len() + 1) * columns];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            lengths[(i + 1) * columns + j + 1] = match x == y {
                true => lengths[i * columns + j] + 1,
                false => lengths[i * columns + j + 1].max(lengths[(i + 1) * columns + j]),
            };
        }
    }
    let (mut i, mut j, mut places) = (a.len(), b.len(), Vec::new());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            places.push(i - 1);
            (i, j) = (i - 1, j - 1);
        } else if lengths[i * columns + j - 1] > lengths[(i - 1) * columns + j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    places.reverse();
    places
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close_scores, file, of, text};
    use super::*;

    #[test]
    fn values_are_those_of_rouge_score() {
        let file = file("rouge.json");
        let cases = of(&file, 30);
        let mut sums = [0.0; 4];
        for case in cases {
            let (target, prediction, expected) = (text(&case["target"]), text(&case["prediction"]), &case["expected"]);
            let found = [
                rouge_n(target, prediction, 1),
                rouge_n(target, prediction, 2),
                rouge_l(target, prediction),
                rouge_l_sum(target, prediction),
            ];
            for ((found, key), sum) in found.into_iter().zip(["rouge1", "rouge2", "rougeL", "rougeLsum"]).zip(&mut sums)
            {
                close_scores(found, &expected[key], &serde_json::json!([case["name"], key]));
                *sum += found.f1 / cases.len() as f64;
            }
        }
        for (sum, key) in sums.into_iter().zip(["rouge1", "rouge2", "rougeL", "rougeLsum"]) {
            super::super::cases::close(sum, &file["mean_of_cases"][key]["f1"], &file["reference"]);
        }
    }
}
