//! Perplexity and what is counted with it.

/// The log-likelihood of the labels of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Perplexity {
    /// The sum of the negative logarithms of the labels' probabilities, in nats.
    pub nll: f64,
    /// Labels that count.
    pub tokens: u64,
    /// Labels that are the likeliest token, the lowest of equals.
    pub right: u64,
}

impl Perplexity {
    /// Adds the labels of some rows of logits; negative ones do not count. `None` if a label is out of range, and nothing is added.
    pub fn add<'a>(&mut self, rows: impl IntoIterator<Item = (&'a [f64], i64)>) -> Option<()> {
        let mut all = *self;
        for (logits, label) in rows {
            let Ok(label) = usize::try_from(label) else { continue };
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let whole: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
            all.nll += whole.ln() + largest - logits.get(label)?;
            all.tokens += 1;
            all.right += u64::from(logits.iter().position(|x| *x == largest) == Some(label));
        }
        *self = all;
        Some(())
    }

    /// The mean loss of a label; `None` if none counts.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nll / self.tokens as f64)
    }

    /// e to the mean loss.
    #[must_use]
    pub fn perplexity(&self) -> Option<f64> {
        self.loss().map(f64::exp)
    }

    /// e to the loss over so many units, such as the words or bytes of the text.
    #[must_use]
    pub fn perplexity_by(&self, units: u64) -> Option<f64> {
        (units > 0).then(|| (self.nll / units as f64).exp())
    }

    /// The loss in bits over so many bytes.
    #[must_use]
    pub fn bits_per_byte(&self, bytes: u64) -> Option<f64> {
        (bytes > 0).then(|| self.nll / std::f64::consts::LN_2 / bytes as f64)
    }

    /// The share of labels that are the likeliest token.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.right as f64 / self.tokens as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::{file, of};
    use super::*;
    use serde_json::Value;

    /// The file has logits in nine digits.
    fn close(found: f64, wanted: &Value, what: &Value) {
        let wanted = wanted.as_f64().unwrap();
        assert!((found - wanted).abs() <= 1e-6 * wanted.abs(), "{what}: {found}, but should be {wanted}");
    }

    #[test]
    fn values_are_those_of_the_reference() {
        let file = file("perplexity.json");
        for case in of(&file, 15) {
            let logits: Vec<Vec<f32>> = serde_json::from_value(case["logits"].clone()).unwrap();
            let wide = |row: &Vec<f32>| row.iter().map(|x| f64::from(*x)).collect();
            let logits: Vec<Vec<f64>> = logits.iter().map(wide).collect();
            let labels: Vec<i64> = serde_json::from_value(case["labels"].clone()).unwrap();
            let mut found = Perplexity::default();
            // In two pieces, as batches come.
            let (first, second) = logits.split_at(logits.len() / 2);
            let rows = |rows: &[Vec<f64>], skip| -> Vec<(Vec<f64>, i64)> {
                rows.iter().cloned().zip(labels.iter().skip(skip).copied()).collect()
            };
            for piece in [rows(first, 0), rows(second, first.len())] {
                found.add(piece.iter().map(|(logits, label)| (&logits[..], *label))).unwrap();
            }
            let (expected, name) = (&case["expected"], &case["name"]);
            close(found.nll, &expected["nll_sum"], name);
            assert_eq!(found.tokens, expected["tokens"].as_u64().unwrap());
            let (bytes, words) = (case["bytes"].as_u64().unwrap_or(0), case["words"].as_u64().unwrap_or(0));
            for (value, key) in [
                (found.loss(), "loss"),
                (found.perplexity(), "perplexity"),
                (found.accuracy(), "accuracy"),
                (found.bits_per_byte(bytes), "bits_per_byte"),
                (found.perplexity_by(bytes), "byte_perplexity"),
                (found.perplexity_by(words), "word_perplexity"),
            ] {
                match (value, expected.get(key).filter(|wanted| !wanted.is_null())) {
                    (Some(value), Some(wanted)) => close(value, wanted, name),
                    (None, None) => (),
                    (found, wanted) => panic!("{name} {key}: {found:?}, but should be {wanted:?}"),
                }
            }
        }
        let mut outside = Perplexity::default();
        assert_eq!(outside.add([(&[0.0, 1.0][..], 1), (&[0.0, 1.0][..], 2)]), None);
        assert_eq!(outside, Perplexity::default());
    }
}
