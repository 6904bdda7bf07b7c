//! BLEU (Papineni et al. 2002), as sacrebleu computes it (Post, arXiv 1804.08771).

use super::ngrams::ngrams;
use super::words::BleuTokenizer;
use derive_setters::Setters;
use std::collections::HashMap;

/// What stands for the precision of an order without matches (Chen and Cherry 2014).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Smoothing {
    /// Nothing: the score is 0.
    None,
    /// Half of one match, for the next such order a quarter, and so on.
    #[default]
    Exp,
    /// So many matches; sacrebleu's default is 0.1.
    Floor(f64),
    /// So many matches and n-grams more in all orders above 1; sacrebleu's default is 1.
    AddK(f64),
}

/// How BLEU is computed; the default is sacrebleu's for a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct BleuOptions {
    /// What parts words.
    pub tokenize: BleuTokenizer,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// The smoothing.
    pub smoothing: Smoothing,
    /// Whether orders count of which the hypothesis has no n-grams are left out, as is usual for sentences.
    pub effective_order: bool,
    /// The longest n-grams, 4 as a rule.
    pub max_order: usize,
}

impl Default for BleuOptions {
    fn default() -> Self {
        let smoothing = Smoothing::default();
        Self { tokenize: BleuTokenizer::default(), lowercase: false, smoothing, effective_order: false, max_order: 4 }
    }
}

/// BLEU and its parts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bleu {
    /// The score, 0 to 100.
    pub score: f64,
    /// Matches of each order, smoothed where [`Smoothing::AddK`] adds some.
    pub counts: Vec<f64>,
    /// N-grams of the hypotheses of each order, smoothed alike.
    pub totals: Vec<f64>,
    /// The precision of each order, smoothed, 0 to 100.
    pub precisions: Vec<f64>,
    /// The factor for hypotheses that are too short.
    pub brevity_penalty: f64,
    /// The words of the hypotheses.
    pub hypothesis_length: usize,
    /// The words of the references, of each sentence the one whose length is nearest.
    pub reference_length: usize,
}

/// BLEU of a corpus: hypotheses, each with one reference or more. `None` if there are not as many of both, or a hypothesis has no reference.
#[must_use]
pub fn bleu<R: AsRef<str>>(hypotheses: &[&str], references: &[Vec<R>], options: &BleuOptions) -> Option<Bleu> {
    let mut sums = Sums { counts: vec![0; options.max_order], totals: vec![0; options.max_order], lengths: [0; 2] };
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let references: Vec<Vec<String>> = references.iter().map(|text| words(text.as_ref(), options)).collect();
        sums.add(&words(hypothesis, options), &references)?;
    }
    (hypotheses.len() == references.len()).then(|| sums.score(options))
}

/// The settings and version behind a score, in sacrebleu's form. `references`: how many each hypothesis has; `None` if that varies.
#[must_use]
pub fn bleu_signature(options: &BleuOptions, references: Option<usize>) -> String {
    let smoothing = match options.smoothing {
        Smoothing::None => "none".to_owned(),
        Smoothing::Exp => "exp".to_owned(),
        Smoothing::Floor(value) => format!("floor[{value:.2}]"),
        Smoothing::AddK(value) => format!("add-k[{value:.2}]"),
    };
    let effective = super::yes(options.effective_order);
    let tokenizer = options.tokenize.name();
    super::signature(references, options.lowercase, &format!("eff:{effective}|tok:{tokenizer}|smooth:{smoothing}"))
}

fn words(text: &str, options: &BleuOptions) -> Vec<String> {
    match options.lowercase {
        true => options.tokenize.words(&text.to_lowercase()),
        false => options.tokenize.words(text),
    }
}

/// Sums over a corpus.
struct Sums {
    counts: Vec<u64>,
    totals: Vec<u64>,
    lengths: [usize; 2],
}

impl Sums {
    fn add(&mut self, hypothesis: &[String], references: &[Vec<String>]) -> Option<()> {
        let length = |reference: &Vec<String>| (reference.len().abs_diff(hypothesis.len()), reference.len());
        self.lengths[0] += hypothesis.len();
        self.lengths[1] += references.iter().map(length).min()?.1;
        for (order, (count, total)) in self.counts.iter_mut().zip(&mut self.totals).enumerate() {
            let said = ngrams(hypothesis, order + 1);
            // Of each n-gram as many count as the reference has that has the most.
            let mut most: HashMap<&[String], u64> = HashMap::new();
            for (gram, times) in references.iter().flat_map(|reference| ngrams(reference, order + 1)) {
                let known = most.entry(gram).or_default();
                *known = times.max(*known);
            }
            *count += super::ngrams::shared(&said, &most);
            *total += said.values().sum::<u64>();
        }
        Some(())
    }

    fn score(self, options: &BleuOptions) -> Bleu {
        let as_f64 = |counts: Vec<u64>| -> Vec<f64> { counts.into_iter().map(|count| count as f64).collect() };
        let (mut counts, mut totals, [said, wanted]) = (as_f64(self.counts), as_f64(self.totals), self.lengths);
        let brevity_penalty = match said {
            _ if said >= wanted => 1.0,
            0 => 0.0,
            _ => (1.0 - wanted as f64 / said as f64).exp(),
        };
        let mut precisions = vec![0.0; counts.len()];
        let (mut halves, mut orders) = (1.0, if options.effective_order { 0 } else { counts.len() });
        // Without any match there is nothing to smooth.
        let any = counts.iter().any(|count| *count > 0.0);
        for (order, precision) in precisions.iter_mut().enumerate().take_while(|_| any) {
            let (count, total) = (&mut counts[order], &mut totals[order]);
            if let (Smoothing::AddK(k), true) = (options.smoothing, order > 0) {
                (*count, *total) = (*count + k, *total + k);
            }
            if *total == 0.0 {
                break;
            }
            orders = orders.max(order + 1);
            *precision = 100.0 / *total
                * match options.smoothing {
                    _ if *count > 0.0 => *count,
                    Smoothing::Exp => {
                        halves /= 2.0;
                        halves
                    }
                    Smoothing::Floor(value) => value,
                    Smoothing::None | Smoothing::AddK(_) => 0.0,
                };
        }
        let logs: f64 = precisions.iter().take(orders).map(|precision| precision.ln()).sum();
        let score = if any { brevity_penalty * (logs / orders as f64).exp() } else { 0.0 };
        let [hypothesis_length, reference_length] = self.lengths;
        Bleu { score, counts, totals, precisions, brevity_penalty, hypothesis_length, reference_length }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close, file, of, texts};
    use super::*;
    use serde_json::{Value, json};

    fn options(case: &Value) -> BleuOptions {
        let options = &case["options"];
        assert!(options["smooth_value"].is_null());
        BleuOptions {
            tokenize: BleuTokenizer::ALL.into_iter().find(|tokenizer| options["tokenize"] == tokenizer.name()).unwrap(),
            lowercase: options["lowercase"].as_bool().unwrap(),
            smoothing: match options["smooth_method"].as_str().unwrap() {
                "none" => Smoothing::None,
                "exp" => Smoothing::Exp,
                "floor" => Smoothing::Floor(0.1),
                "add-k" => Smoothing::AddK(1.0),
                other => panic!("{other}"),
            },
            effective_order: options["effective_order"].as_bool().unwrap(),
            max_order: options["max_ngram_order"].as_u64().unwrap() as usize,
        }
    }

    fn check(found: &Bleu, expected: &Value, name: &Value) {
        let fields = [("score", found.score), ("brevity_penalty", found.brevity_penalty)];
        fields.into_iter().for_each(|(key, value)| close(value, &expected[key], &json!([name, key])));
        for (key, values) in [("counts", &found.counts), ("totals", &found.totals), ("precisions", &found.precisions)] {
            let wanted = expected[key].as_array().unwrap();
            assert_eq!(values.len(), wanted.len(), "{name}");
            values.iter().zip(wanted).for_each(|(value, wanted)| close(*value, wanted, &json!([name, key])));
        }
        assert_eq!(json!(found.hypothesis_length), expected["hypothesis_length"], "{name}");
        assert_eq!(json!(found.reference_length), expected["reference_length"], "{name}");
    }

    #[test]
    fn values_are_those_of_sacrebleu() {
        let file = file("bleu.json");
        for case in of(&file, 39) {
            let hypotheses = texts(&case["hypotheses"]);
            let references: Vec<Vec<&str>> = case["references"].as_array().unwrap().iter().map(texts).collect();
            let options = options(case);
            if case["level"] == "corpus" {
                check(&bleu(&hypotheses, &references, &options).unwrap(), &case["expected"], &case["name"]);
                continue;
            }
            let expected = case["expected"].as_array().unwrap();
            assert_eq!(expected.len(), hypotheses.len());
            for ((hypothesis, references), expected) in hypotheses.into_iter().zip(references).zip(expected) {
                check(&bleu(&[hypothesis], &[references], &options).unwrap(), expected, &case["name"]);
            }
        }
        assert_eq!(bleu(&["a"], &[Vec::<&str>::new()], &BleuOptions::default()), None);
        assert_eq!(bleu::<&str>(&["a"], &[], &BleuOptions::default()), None);
        assert_eq!(bleu::<&str>(&[], &[], &BleuOptions::default()).map(|bleu| bleu.score), Some(0.0));
    }

    #[test]
    fn the_signature_says_how_a_score_was_computed() {
        let version = env!("CARGO_PKG_VERSION");
        let default = bleu_signature(&BleuOptions::default(), Some(1));
        assert_eq!(default, format!("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:wgformer-{version}"));
        let options = BleuOptions {
            tokenize: BleuTokenizer::Intl,
            lowercase: true,
            smoothing: Smoothing::Floor(0.1),
            effective_order: true,
            max_order: 4,
        };
        assert!(bleu_signature(&options, None).starts_with("nrefs:var|case:lc|eff:yes|tok:intl|smooth:floor[0.10]|"));
    }
}
