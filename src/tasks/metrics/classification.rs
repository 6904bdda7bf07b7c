//! Classification: accuracy, precision, recall and F1 by class and on average, as scikit-learn computes them with 0 for 0 / 0.

use super::{Scores, ratio};

/// The counts of true and predicted classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classification {
    /// How many of a true class (row) were predicted as each class (column).
    pub confusion: Vec<Vec<u64>>,
}

/// The scores of a class.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClassReport {
    /// Its scores.
    pub scores: Scores,
    /// How many are of it.
    pub support: u64,
}

/// Averages over classes. F1 is the mean of F1s.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Averages {
    /// Of all decisions together, which is the accuracy.
    pub micro: Scores,
    /// Of all classes alike.
    pub macro_: Scores,
    /// Of the classes that are true or predicted somewhere alike.
    pub macro_of_present: Scores,
    /// By how many are of each class.
    pub weighted: Scores,
}

impl Classification {
    /// The counts of so many classes. `None` if there are not as many true as predicted ones, or one is out of range.
    #[must_use]
    pub fn new(classes: usize, truth: &[usize], predicted: &[usize]) -> Option<Self> {
        let mut confusion = vec![vec![0; classes]; classes];
        for (truth, predicted) in truth.iter().zip(predicted) {
            *confusion.get_mut(*truth)?.get_mut(*predicted)? += 1;
        }
        (truth.len() == predicted.len()).then_some(Self { confusion })
    }

    fn row(&self, class: usize) -> u64 {
        self.confusion[class].iter().sum()
    }

    fn column(&self, class: usize) -> u64 {
        self.confusion.iter().map(|row| row[class]).sum()
    }

    fn right(&self) -> u64 {
        self.confusion.iter().enumerate().map(|(class, row)| row[class]).sum()
    }

    fn all(&self) -> u64 {
        self.confusion.iter().flatten().sum()
    }

    /// The share of right decisions.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        ratio(self.right() as f64, self.all() as f64)
    }

    /// Matthews' correlation coefficient, of several classes by Gorodkin 2004.
    #[must_use]
    pub fn correlation(&self) -> f64 {
        let (right, all) = (self.right() as f64, self.all() as f64);
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            (0..self.confusion.len()).map(|class| of(self.row(class) as f64, self.column(class) as f64)).sum()
        };
        let both = right * all - sum(&|truth, said| truth * said);
        let (truth, said) = (all * all - sum(&|truth, _| truth * truth), all * all - sum(&|_, said| said * said));
        ratio(both, (truth * said).sqrt())
    }

    /// The scores of each class.
    #[must_use]
    pub fn by_class(&self) -> Vec<ClassReport> {
        let of = |class: usize| {
            let (right, support) = (self.confusion[class][class] as f64, self.row(class));
            ClassReport { scores: Scores::new(right, self.column(class) as f64, support as f64), support }
        };
        (0..self.confusion.len()).map(of).collect()
    }

    /// The averages over classes.
    #[must_use]
    pub fn averages(&self) -> Averages {
        let accuracy = self.accuracy();
        let reports = self.by_class();
        let mean = |weight: &dyn Fn(usize, &ClassReport) -> f64| {
            Scores::weighted(reports.iter().enumerate().map(|(class, report)| (weight(class, report), report.scores)))
        };
        Averages {
            micro: Scores { precision: accuracy, recall: accuracy, f1: accuracy },
            macro_: mean(&|_, _| 1.0),
            macro_of_present: mean(&|class, report| f64::from(u8::from(report.support + self.column(class) > 0))),
            weighted: mean(&|_, report| report.support as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close, close_scores, file, of};
    use super::*;

    #[test]
    fn values_are_those_of_scikit_learn() {
        let file = file("classification.json");
        for case in of(&file, 18) {
            let classes = |key: &str| -> Vec<usize> { serde_json::from_value(case[key].clone()).unwrap() };
            let count = case["classes"].as_u64().unwrap() as usize;
            let found = Classification::new(count, &classes("true"), &classes("predicted")).unwrap();
            let (expected, name) = (&case["expected"], &case["name"]);
            assert_eq!(serde_json::json!(found.confusion), expected["confusion"], "{name}");
            close(found.accuracy(), &expected["accuracy"], name);
            close(found.correlation(), &expected["mcc"], name);
            for (report, wanted) in found.by_class().iter().zip(expected["by_class"].as_array().unwrap()) {
                close_scores(report.scores, wanted, name);
                assert_eq!(Some(report.support), wanted["support"].as_u64());
            }
            if let Some(binary) = expected["binary_of_class_1"].as_array() {
                let scores = found.by_class()[1].scores;
                for (value, wanted) in [scores.precision, scores.recall, scores.f1].into_iter().zip(binary) {
                    close(value, wanted, name);
                }
            }
            let averages = found.averages();
            for (scores, key) in [
                (averages.micro, "micro"),
                (averages.macro_, "macro"),
                (averages.macro_of_present, "macro_over_classes_that_occur"),
                (averages.weighted, "weighted"),
            ] {
                for (i, value) in [scores.precision, scores.recall, scores.f1].into_iter().enumerate() {
                    close(value, &expected[key][i], &serde_json::json!([name, key]));
                }
            }
        }
        assert_eq!(Classification::new(2, &[0, 2], &[0, 1]), None);
        assert_eq!(Classification::new(2, &[0], &[0, 1]), None);
    }
}
