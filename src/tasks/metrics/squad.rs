//! Exact match and token F1 of answers, as the evaluation of SQuAD computes them (Rajpurkar et al., arXiv 1606.05250 and 1806.03822).

use super::Scores;
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
        assert!(questions.len() >= 20);
        for question in questions {
            let (prediction, answers) = (text(&question["prediction"]), texts(&question["answers"]));
            close(f64::from(u8::from(exact_match(prediction, &answers))), &question["exact"], &question["id"]);
            close(token_f1(prediction, &answers, 1.0), &question["f1"], &question["id"]);
        }
    }
}
