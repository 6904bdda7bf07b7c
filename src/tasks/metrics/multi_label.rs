//! Several labels a text, as scikit-learn counts them with 0 for 0 / 0.

use super::{Averages, ClassReport, Scores, ratio};

/// The true and the predicted labels of texts, one flag a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiLabel {
    /// For each text and class whether it is true and whether it is predicted.
    decisions: Vec<Vec<(bool, bool)>>,
    classes: usize,
}

impl MultiLabel {
    /// The labels of texts among so many classes. `None` if there are not as many true as predicted ones, or a text hasn't a flag for each class.
    #[must_use]
    pub fn new(classes: usize, truth: &[Vec<bool>], predicted: &[Vec<bool>]) -> Option<Self> {
        let both = truth.iter().zip(predicted);
        let fits =
            truth.len() == predicted.len() && both.clone().all(|(a, b)| a.len() == classes && b.len() == classes);
        let decisions = both.map(|(a, b)| a.iter().copied().zip(b.iter().copied()).collect()).collect();
        fits.then_some(Self { decisions, classes })
    }

    /// The share of texts with all labels right.
    #[must_use]
    pub fn subset_accuracy(&self) -> f64 {
        self.mean(|text| f64::from(u8::from(text.iter().all(|(truth, said)| truth == said))))
    }

    /// The share of wrong decisions.
    #[must_use]
    pub fn hamming_loss(&self) -> f64 {
        let wrong = |text: &[(bool, bool)]| text.iter().filter(|(truth, said)| truth != said).count() as f64;
        self.mean(|text| ratio(wrong(text), self.classes as f64))
    }

    /// The mean over texts of the labels that are true and predicted over those that are either.
    #[must_use]
    pub fn jaccard(&self) -> f64 {
        self.mean(|text| {
            let [right, said, wanted] = counts(text.iter());
            ratio(right, said + wanted - right)
        })
    }

    /// The scores of each class.
    #[must_use]
    pub fn by_class(&self) -> Vec<ClassReport> {
        let of = |class: usize| {
            let [right, said, wanted] = counts(self.decisions.iter().map(|text| &text[class]));
            ClassReport { scores: Scores::new(right, said, wanted), support: wanted as u64 }
        };
        (0..self.classes).map(of).collect()
    }

    /// The averages over classes. Micro: of all decisions together.
    #[must_use]
    pub fn averages(&self) -> Averages {
        let reports = self.by_class();
        let [right, said, wanted] = counts(self.decisions.iter().flatten());
        let occurs = |class: usize| self.decisions.iter().any(|text| text[class].0 || text[class].1);
        let mean = |weight: &dyn Fn(usize, &ClassReport) -> f64| {
            Scores::weighted(reports.iter().enumerate().map(|(class, report)| (weight(class, report), report.scores)))
        };
        Averages {
            micro: Scores::new(right, said, wanted),
            macro_: mean(&|_, _| 1.0),
            macro_of_present: mean(&|class, _| f64::from(u8::from(occurs(class)))),
            weighted: mean(&|_, report| report.support as f64),
        }
    }

    /// The mean over texts of each text's scores.
    #[must_use]
    pub fn samples(&self) -> Scores {
        let of = |text: &Vec<(bool, bool)>| {
            let [right, said, wanted] = counts(text.iter());
            (1.0, Scores::new(right, said, wanted))
        };
        Scores::weighted(self.decisions.iter().map(of))
    }

    fn mean(&self, of: impl Fn(&[(bool, bool)]) -> f64) -> f64 {
        ratio(self.decisions.iter().map(|text| of(text)).sum(), self.decisions.len() as f64)
    }
}

/// How many are true and predicted, predicted, and true.
fn counts<'a>(decisions: impl Iterator<Item = &'a (bool, bool)>) -> [f64; 3] {
    decisions.fold([0.0; 3], |[right, said, wanted], (is, says)| {
        let one = |flag: bool| f64::from(u8::from(flag));
        [right + one(*is && *says), said + one(*says), wanted + one(*is)]
    })
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close, close_scores, file};
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn values_are_those_of_scikit_learn() {
        let file = file("classification.json");
        let cases = file["multi_label"].as_array().unwrap();
        assert_eq!(cases.len(), 9);
        for case in cases {
            let flags = |key: &str| -> Vec<Vec<bool>> {
                let rows: Vec<Vec<u8>> = serde_json::from_value(case[key].clone()).unwrap();
                rows.into_iter().map(|row| row.into_iter().map(|flag| flag == 1).collect()).collect()
            };
            let (truth, predicted, expected) = (flags("true"), flags("predicted"), &case["expected"]);
            let found = MultiLabel::new(truth[0].len(), &truth, &predicted).unwrap();
            close(found.subset_accuracy(), &expected["subset_accuracy"], &case["name"]);
            close(found.hamming_loss(), &expected["hamming_loss"], &case["name"]);
            close(found.jaccard(), &expected["jaccard_samples"], &case["name"]);
            let wanted = expected["by_class"].as_array().unwrap();
            assert_eq!(wanted.len(), found.by_class().len());
            for (report, wanted) in found.by_class().iter().zip(wanted) {
                close_scores(report.scores, wanted, &case["name"]);
                assert_eq!(Some(report.support), wanted["support"].as_u64());
            }
            let averages = found.averages();
            let of = |scores: Scores, wanted: &Value, key: &str| {
                for (i, value) in [scores.precision, scores.recall, scores.f1].into_iter().enumerate() {
                    close(value, &wanted[i], &json!([case["name"], key]));
                }
            };
            of(averages.micro, &expected["micro"], "micro");
            of(averages.macro_, &expected["macro"], "macro");
            of(averages.weighted, &expected["weighted"], "weighted");
            of(found.samples(), &expected["samples"], "samples");
        }
        assert_eq!(MultiLabel::new(2, &[vec![true]], &[vec![true]]), None);
        assert_eq!(MultiLabel::new(1, &[], &[vec![true]]), None);
    }
}
