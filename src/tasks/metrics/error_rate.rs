//! Word and character error rates, as jiwer computes them.

/// The fewest edits that make references of hypotheses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edits {
    /// Substitutions, deletions and insertions.
    pub edits: usize,
    /// Words or characters of the references.
    pub length: usize,
}

impl Edits {
    /// Edits over the length; where there is no reference, the number of insertions.
    #[must_use]
    pub fn rate(self) -> f64 {
        self.edits as f64 / self.length.max(1) as f64
    }

    fn add<T: PartialEq>(&mut self, reference: &[T], hypothesis: &[T]) {
        self.length += reference.len();
        self.edits += distance(reference, hypothesis);
    }
}

/// The word errors of hypotheses, each with its reference. Words lie between spaces; two or more white characters in a row are one space.
///
/// `None` if there are not as many of both.
#[must_use]
pub fn word_error_rate(references: &[&str], hypotheses: &[&str]) -> Option<Edits> {
    errors(references, hypotheses, |text| {
        let (mut words, mut white) = (String::new(), String::new());
        for c in text.trim().chars() {
            if c.is_whitespace() {
                white.push(c);
                continue;
            }
            // A single one stays as it is, and only a space then parts words.
            words.push_str(if white.chars().nth(1).is_some() { " " } else { &white });
            white.clear();
            words.push(c);
        }
        words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    })
}

/// The character errors of hypotheses, each with its reference: code points, blanks among them, but for those at both ends.
///
/// `None` if there are not as many of both.
#[must_use]
pub fn character_error_rate(references: &[&str], hypotheses: &[&str]) -> Option<Edits> {
    errors(references, hypotheses, |text| text.trim().chars().collect::<Vec<_>>())
}

fn errors<T: PartialEq>(references: &[&str], hypotheses: &[&str], parts: impl Fn(&str) -> Vec<T>) -> Option<Edits> {
    let mut edits = Edits::default();
    for (reference, hypothesis) in references.iter().zip(hypotheses) {
        edits.add(&parts(reference), &parts(hypothesis));
    }
    (references.len() == hypotheses.len()).then_some(edits)
}

/// The edit distance of two sequences (Levenshtein 1966), in memory for one row.
fn distance<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let kept = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = kept.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close, file, of, texts};
    use super::*;

    #[test]
    fn values_are_those_of_jiwer() {
        let file = file("error_rates.json");
        for case in of(&file, 20) {
            let (references, hypotheses) = (texts(&case["references"]), texts(&case["hypotheses"]));
            let (words, characters) = (
                word_error_rate(&references, &hypotheses).unwrap(),
                character_error_rate(&references, &hypotheses).unwrap(),
            );
            close(words.rate(), &case["expected"]["wer"], &case["name"]);
            close(characters.rate(), &case["expected"]["cer"], &case["name"]);
            for (found, counts) in [(words, "words"), (characters, "characters")] {
                let counts: Vec<usize> = serde_json::from_value(case["expected"][counts].clone()).unwrap();
                assert_eq!(found.edits, counts[1] + counts[2] + counts[3], "{}", case["name"]);
                assert_eq!(found.length, counts[0] + counts[1] + counts[2], "{}", case["name"]);
            }
        }
        assert_eq!(word_error_rate(&["a"], &[]), None);
    }
}
