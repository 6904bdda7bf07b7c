//! Exact match and token F1 of answers, as the evaluation of SQuAD computes them (Rajpurkar et al., arXiv 1606.05250 and 1806.03822).

use super::{Scores, ratio};
use std::collections::HashMap;

/// An answer as answers are compared: lower case, without ASCII punctuation, then without the words a, an and the, with one blank between words.
#[must_use]
pub fn normalised_answer(text: &str) -> String {
    let plain: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // An article is a word by the letters around it, not by blanks.
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut kept, mut word) = (String::with_capacity(plain.len()), String::new());
    for c in plain.chars().map(Some).chain([None]) {
        match c.filter(|c| is_word(*c)) {
            Some(letter) => word.push(letter),
            None => {
                kept.push_str(if matches!(word.as_str(), "a" | "an" | "the") { " " } else { &word });
                word.clear();
                kept.extend(c);
            }
        }
    }
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a prediction is one of the answers, both normalised. No answer at all is right where there is none.
#[must_use]
pub fn exact_match(prediction: &str, answers: &[&str]) -> bool {
    let said = normalised_answer(prediction);
    if answers.is_empty() { said.is_empty() } else { answers.iter().any(|answer| normalised_answer(answer) == said) }
}

/// The best F1 of a prediction's words with those of an answer, both normalised. `empty`: F1 of nothing with nothing, 0 in version 1.1 of the
/// data, 1 in version 2.0, where a question may have no answer.
#[must_use]
pub fn token_f1(prediction: &str, answers: &[&str], empty: f64) -> f64 {
    let said = normalised_answer(prediction);
    let with = |answer: &str| {
        let wanted = normalised_answer(answer);
        if said.is_empty() && wanted.is_empty() {
            return empty;
        }
        let mut left: HashMap<&str, usize> = HashMap::new();
        wanted.split_whitespace().for_each(|word| *left.entry(word).or_default() += 1);
        let common = said
            .split_whitespace()
            .filter(|word| left.get_mut(*word).filter(|count| **count > 0).map(|count| *count -= 1).is_some());
        let (said, wanted) = (said.split_whitespace().count(), wanted.split_whitespace().count());
        Scores::new(common.count() as f64, said as f64, wanted as f64).f1
    };
    if answers.is_empty() { with("") } else { answers.iter().map(|answer| with(answer)).fold(0.0, f64::max) }
}

/// What a model said to a question of SQuAD 2.0, and how right that is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct AnswerScore {
    /// 1 for an exact match, else 0.
    pub exact: f64,
    /// The F1 of words.
    pub f1: f64,
    /// Whether the question has an answer.
    pub has_answer: bool,
    /// Whether the model gave one.
    pub answered: bool,
    /// How sure the model is that there is none: a probability or another score.
    pub no_answer: f64,
}

/// Means over questions, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct AnswerTotals {
    /// The share of exact matches.
    pub exact: f64,
    /// The mean F1.
    pub f1: f64,
    /// How many questions.
    pub total: usize,
}

impl AnswerScore {
    /// Of a prediction, empty for no answer; no `answers` if there is none.
    #[must_use]
    pub fn new(prediction: &str, answers: &[&str], no_answer: f64) -> Self {
        Self {
            exact: f64::from(u8::from(exact_match(prediction, answers))),
            f1: token_f1(prediction, answers, 1.0),
            has_answer: !answers.is_empty(),
            answered: !prediction.is_empty(),
            no_answer,
        }
    }

    /// The score if the model answers nothing where `no_answer` is above a threshold.
    #[must_use]
    pub fn at(self, threshold: f64) -> Self {
        match self.no_answer > threshold {
            true => {
                let right = f64::from(u8::from(!self.has_answer));
                Self { exact: right, f1: right, answered: false, ..self }
            }
            false => self,
        }
    }
}

impl AnswerTotals {
    /// Of these questions; those with and without answers are separate totals by filtering.
    #[must_use]
    pub fn of(scores: impl IntoIterator<Item = AnswerScore>) -> Self {
        let mut sums = Self::default();
        for score in scores {
            (sums.exact, sums.f1, sums.total) = (sums.exact + score.exact, sums.f1 + score.f1, sums.total + 1);
        }
        let count = sums.total as f64;
        Self { exact: ratio(sums.exact, count), f1: ratio(sums.f1, count), total: sums.total }
    }
}

/// The threshold of [`AnswerScore::no_answer`] at which a mean is best, and that mean, as the official evaluation finds them: 0 or one of the scores,
/// where what is said counts as wrong wherever there is no answer. `of` gives the exact match or F1 of a question.
#[must_use]
pub fn best_threshold(scores: &[AnswerScore], of: impl Fn(&AnswerScore) -> f64) -> (f64, f64) {
    let mut order: Vec<&AnswerScore> = scores.iter().collect();
    order.sort_by(|a, b| a.no_answer.total_cmp(&b.no_answer));
    // With nothing answered, right is what has no answer.
    let mut sum = scores.iter().filter(|score| !score.has_answer).count() as f64;
    let (mut best, mut threshold) = (sum, 0.0);
    for score in order {
        sum += match (score.has_answer, score.answered) {
            (true, _) => of(score),
            (false, true) => -1.0,
            (false, false) => 0.0,
        };
        if sum > best {
            (best, threshold) = (sum, score.no_answer);
        }
    }
    (threshold, ratio(best, scores.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close, file, of, text, texts};
    use super::*;

    #[test]
    fn values_are_those_of_the_official_evaluation() {
        let file = file("squad.json");
        let (mut exact, mut f1) = (0.0, 0.0);
        let cases = of(&file, 20);
        for case in cases {
            let (prediction, answers) = (text(&case["prediction"]), texts(&case["answers"]));
            assert_eq!(normalised_answer(prediction), text(&case["normalised"]));
            let found = [f64::from(u8::from(exact_match(prediction, &answers))), token_f1(prediction, &answers, 0.0)];
            close(found[0], &case["expected"]["exact"], &case["prediction"]);
            close(found[1], &case["expected"]["f1"], &case["prediction"]);
            (exact, f1) = (exact + found[0], f1 + found[1]);
        }
        let percent = 100.0 / cases.len() as f64;
        close(exact * percent, &file["v1_totals_percent"]["exact_match"], &file["reference"]);
        close(f1 * percent, &file["v1_totals_percent"]["f1"], &file["reference"]);
        let questions = file["v2"]["questions"].as_array().unwrap();
        assert!(questions.len() >= 28);
        let mut scores = Vec::new();
        for question in questions {
            let (prediction, answers) = (text(&question["prediction"]), texts(&question["answers"]));
            close(f64::from(u8::from(exact_match(prediction, &answers))), &question["exact"], &question["id"]);
            close(token_f1(prediction, &answers, 1.0), &question["f1"], &question["id"]);
            let no_answer = question["no_answer_probability"].as_f64().unwrap();
            scores.push(AnswerScore::new(prediction, &answers, no_answer));
        }
        let check = |totals: AnswerTotals, wanted: &serde_json::Value, kind: &str| {
            for (found, key) in
                [(totals.exact * 100.0, "exact"), (totals.f1 * 100.0, "f1"), (totals.total as f64, "total")]
            {
                let key = format!("{kind}{key}");
                close(found, &wanted[&key], &serde_json::json!(key));
            }
        };
        for (threshold, key) in [(1.0, "totals_percent"), (0.5, "totals_percent_at_threshold_0.5")] {
            let (at, wanted) = (|score: &AnswerScore| score.at(threshold), &file["v2"][key]);
            check(AnswerTotals::of(scores.iter().map(at)), wanted, "");
            check(AnswerTotals::of(scores.iter().filter(|score| score.has_answer).map(at)), wanted, "HasAns_");
            check(AnswerTotals::of(scores.iter().filter(|score| !score.has_answer).map(at)), wanted, "NoAns_");
        }
        let wanted = &file["v2"]["totals_percent"];
        let of: [(&dyn Fn(&AnswerScore) -> f64, &str); 2] =
            [(&|score| score.exact, "best_exact"), (&|score| score.f1, "best_f1")];
        for (of, key) in of {
            let (threshold, best) = best_threshold(&scores, of);
            close(threshold, &wanted[format!("{key}_thresh")], &file["reference"]);
            close(best * 100.0, &wanted[key], &file["reference"]);
        }
    }
}
