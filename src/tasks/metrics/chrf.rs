//! chrF (Popović 2015) and chrF++ (Popović 2017), as sacrebleu computes them.

use super::ngrams::{ngrams, shared};
use super::words::{blank_parted, is_blank};
use derive_setters::Setters;

/// How chrF is computed; the default is chrF with β = 2. chrF++ has `word_order` 2.
#[derive(Clone, Copy, Debug, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct ChrfOptions {
    /// The longest n-grams of characters.
    pub char_order: usize,
    /// The longest n-grams of words.
    pub word_order: usize,
    /// How much more recall weighs than precision.
    pub beta: f64,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// Whether blanks are characters.
    pub whitespace: bool,
    /// Whether F is averaged over all orders, with 10⁻¹⁶ for 0 / 0. Otherwise precision and recall are, over the orders that both texts have.
    pub eps_smoothing: bool,
}

impl Default for ChrfOptions {
    fn default() -> Self {
        Self { char_order: 6, word_order: 0, beta: 2.0, lowercase: false, whitespace: false, eps_smoothing: false }
    }
}

/// chrF of a corpus, 0 to 100: hypotheses, each with one reference or more, of which the best counts. `None` if there are not as many of both, or a
/// hypothesis has no reference.
#[must_use]
pub fn chrf<R: AsRef<str>>(hypotheses: &[&str], references: &[Vec<R>], options: &ChrfOptions) -> Option<f64> {
    let mut sums = vec![[0; 3]; options.char_order + options.word_order];
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let hypothesis = Text::new(hypothesis, options);
        let counts =
            references.iter().map(|reference| hypothesis.counts(&Text::new(reference.as_ref(), options), options));
        // Of equally good references the first.
        let best =
            counts.map(|counts| (score(&counts, options), counts)).reduce(|a, b| if b.0 > a.0 { b } else { a })?;
        for (sum, counts) in sums.iter_mut().zip(best.1) {
            *sum = [0, 1, 2].map(|i| sum[i] + counts[i]);
        }
    }
    (hypotheses.len() == references.len()).then(|| score(&sums, options))
}

/// The settings and version behind a score, in sacrebleu's form. `references`: how many each hypothesis has; `None` if that varies.
#[must_use]
pub fn chrf_signature(options: &ChrfOptions, references: Option<usize>) -> String {
    let [effective, space] = [!options.eps_smoothing, options.whitespace].map(super::yes);
    let orders = format!("eff:{effective}|nc:{}|nw:{}|space:{space}", options.char_order, options.word_order);
    super::signature(references, options.lowercase, &orders)
}

/// A text's characters and words.
struct Text {
    characters: Vec<char>,
    words: Vec<String>,
}

impl Text {
    fn new(text: &str, options: &ChrfOptions) -> Self {
        let text = if options.lowercase { text.to_lowercase() } else { text.to_owned() };
        let characters = text.chars().filter(|c| options.whitespace || !is_blank(*c)).collect();
        Self { characters, words: blank_parted(&text).flat_map(without_mark).map(str::to_owned).collect() }
    }

    /// N-grams of this hypothesis, of a reference, and of both, for each order.
    fn counts(&self, reference: &Self, options: &ChrfOptions) -> Vec<[u64; 3]> {
        fn of<T: Eq + std::hash::Hash>(a: &[T], b: &[T], n: usize) -> [u64; 3] {
            let (a, b) = (ngrams(a, n), ngrams(b, n));
            // Where there is nothing to find, nothing was wrong.
            let said = if b.is_empty() { 0 } else { a.values().sum() };
            [said, b.values().sum(), shared(&a, &b)]
        }
        let characters = (1..=options.char_order).map(|n| of(&self.characters, &reference.characters, n));
        let words = (1..=options.word_order).map(|n| of(&self.words, &reference.words, n));
        characters.chain(words).collect()
    }
}

/// A word with one ASCII mark cut off: at its end, else at its start.
fn without_mark(word: &str) -> impl Iterator<Item = &str> {
    let is_mark = |at: Option<char>| at.is_some_and(|c| c.is_ascii_punctuation());
    let cut = match word.len() {
        1 => 0,
        length if is_mark(word.chars().next_back()) => length - 1,
        _ if is_mark(word.chars().next()) => 1,
        _ => 0,
    };
    let (front, back) = word.split_at(cut);
    [front, back].into_iter().filter(|part| !part.is_empty())
}

fn score(counts: &[[u64; 3]], options: &ChrfOptions) -> f64 {
    const NONE: f64 = 1e-16;
    let share = |part: u64, whole: u64| if whole > 0 { part as f64 / whole as f64 } else { NONE };
    let weight = options.beta * options.beta;
    let f = |precision: f64, recall: f64| (1.0 + weight) * precision * recall / (weight * precision + recall);
    let shares = counts.iter().map(|[said, wanted, both]| (share(*both, *said), share(*both, *wanted)));
    if options.eps_smoothing {
        let of = |(precision, recall): (f64, f64)| {
            if weight * precision + recall > 0.0 { f(precision, recall) } else { NONE }
        };
        return super::ratio(100.0 * shares.map(of).sum::<f64>(), counts.len() as f64);
    }
    let there = shares.zip(counts).filter(|(_, [said, wanted, _])| *said > 0 && *wanted > 0);
    let (mut sums, mut orders) = ((0.0, 0.0), 0.0);
    for ((precision, recall), _) in there {
        sums = (sums.0 + precision, sums.1 + recall);
        orders += 1.0;
    }
    let (precision, recall) = (super::ratio(sums.0, orders), super::ratio(sums.1, orders));
    if precision + recall > 0.0 { 100.0 * f(precision, recall) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close, file, of, texts};
    use super::*;
    use serde_json::Value;

    #[test]
    fn values_are_those_of_sacrebleu() {
        let file = file("chrf.json");
        for case in of(&file, 41) {
            let hypotheses = texts(&case["hypotheses"]);
            let references: Vec<Vec<&str>> = case["references"].as_array().unwrap().iter().map(texts).collect();
            let of = &case["options"];
            let flag = |key: &str| of[key].as_bool().unwrap();
            let options = ChrfOptions {
                char_order: of["char_order"].as_u64().unwrap() as usize,
                word_order: of["word_order"].as_u64().unwrap() as usize,
                beta: of["beta"].as_f64().unwrap(),
                lowercase: flag("lowercase"),
                whitespace: flag("whitespace"),
                eps_smoothing: flag("eps_smoothing"),
            };
            close(chrf(&hypotheses, &references, &options).unwrap(), &case["expected"]["corpus"], &case["name"]);
            let expected: &Vec<Value> = case["expected"]["sentences"].as_array().unwrap();
            assert_eq!(expected.len(), hypotheses.len());
            for ((hypothesis, references), expected) in hypotheses.into_iter().zip(references).zip(expected) {
                close(chrf(&[hypothesis], &[references], &options).unwrap(), expected, &case["name"]);
            }
        }
        assert_eq!(chrf(&["a"], &[Vec::<&str>::new()], &ChrfOptions::default()), None);
        assert_eq!(chrf::<&str>(&["a"], &[], &ChrfOptions::default()), None);
    }

    #[test]
    fn the_signature_says_how_a_score_was_computed() {
        let version = env!("CARGO_PKG_VERSION");
        let plus = ChrfOptions { word_order: 2, ..Default::default() };
        let wanted = format!("nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:wgformer-{version}");
        assert_eq!(chrf_signature(&plus, Some(1)), wanted);
    }
}
