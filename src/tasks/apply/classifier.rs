//! Classes of texts.

use super::{has_parts, row, softmax};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::Tokenizer;
use crate::models::Model;
use crate::program::Weights;
use crate::tasks::data::ClassExample;
use crate::tasks::windows::truncated;
use crate::tasks::{Reader, Reads, Row, Target};
use std::sync::Arc;

/// How several classes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    /// One of them holds.
    One,
    /// Any number of them may hold.
    Several,
    /// They are values.
    Values,
}

/// The classes of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Classified {
    /// The classes that hold, the most probable first; of values, all of them in the model's order.
    pub labels: Vec<String>,
    /// The probability of each class, or its value, in the model's order.
    pub scores: Vec<f64>,
    /// The logit of each class.
    pub logits: Vec<f32>,
}

/// An encoder with classes, and its tokenizer.
///
/// A text's probabilities are softmax of its logits where one class holds, and the sigmoid of each where several may (`problem_type` in
/// `config.json`). Texts that are longer than `longest` tokens lose their ends; of two, the longer one.
#[derive(Debug)]
pub struct Classifier {
    reader: Reader,
    tokenizer: Tokenizer,
    labels: Vec<String>,
    problem: Problem,
    longest: usize,
    prefix: String,
}

/// The names of a model's classes, in their order.
pub(super) fn names_of(model: &dyn Model, count: usize) -> Vec<String> {
    let names = &model.config()["id2label"];
    let name = |id: usize| names[id.to_string()].as_str().map_or_else(|| format!("LABEL_{id}"), str::to_owned);
    (0..count).map(name).collect()
}

impl Classifier {
    /// Makes a model ready; texts have at most `longest` tokens.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has no classes of texts.
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Model>,
        weights: &Weights,
        tokenizer: &Tokenizer,
        longest: usize,
    ) -> Result<Self> {
        use crate::models::EncoderHead::{NextSentence, SequenceClassification};
        let count = match model.encoder().map(crate::models::Encoder::head_kind) {
            Some(SequenceClassification { labels }) => labels,
            Some(NextSentence) => 2,
            _ => {
                return Err(Error::input(
                    "model",
                    "it has no classes of texts: train it for them (train --task classify)",
                ));
            }
        };
        let problem = match model.config()["problem_type"].as_str() {
            Some("multi_label_classification") => Problem::Several,
            Some("regression") => Problem::Values,
            None if count == 1 => Problem::Values,
            _ => Problem::One,
        };
        let (labels, longest) = (names_of(model.as_ref(), count), longest.min(model.dimensions().max_position));
        let reader = Reader::new(gpu, model, weights, Reads::Classes)?;
        Ok(Self { reader, tokenizer: tokenizer.clone(), labels, problem, longest, prefix: String::new() })
    }

    /// The same with a text that is put in front of each.
    #[must_use]
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// The names of the classes.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether several classes of a text may hold.
    #[must_use]
    pub fn holds_several(&self) -> bool {
        self.problem == Problem::Several
    }

    /// Whether classes are values.
    #[must_use]
    pub fn gives_values(&self) -> bool {
        self.problem == Problem::Values
    }

    /// The row of an example, with its labels if it has some that the model knows.
    ///
    /// # Errors
    /// [`Error::Input`] for a label that is not the model's, and a value that is no number; those of the tokenizer.
    pub fn row(&self, example: &ClassExample) -> Result<Row> {
        let target = self.target(&example.labels)?;
        self.read_row(&example.text, example.second.as_deref(), target)
    }

    fn read_row(&self, text: &str, second: Option<&str>, target: Target) -> Result<Row> {
        let encoding = self.tokenizer.encode_for_model(&format!("{}{text}", self.prefix), second)?;
        Ok(row(truncated(&encoding, self.longest), second.is_some() && has_parts(self.reader.model().as_ref()), target))
    }

    fn target(&self, labels: &[String]) -> Result<Target> {
        let id = |label: &String| {
            let known = self.labels.iter().position(|known| known == label);
            known.ok_or_else(|| {
                let message = format!("{label:?} is not among the model's: {}", shown(&self.labels));
                Error::input("label", message)
            })
        };
        let mut values = vec![0.0; self.labels.len()];
        match (self.problem, labels) {
            (Problem::One | Problem::Values, []) => return Ok(Target::None),
            (Problem::Values, labels) => {
                if labels.len() != values.len() {
                    let message = format!("{} values are needed, got {}", values.len(), labels.len());
                    return Err(Error::input("label", message));
                }
                for (value, label) in values.iter_mut().zip(labels) {
                    let number: Option<f32> = label.trim().parse().ok().filter(|x: &f32| x.is_finite());
                    *value = number.ok_or_else(|| Error::input("label", format!("{label:?} is no number")))?;
                }
                return Ok(Target::Numbers(values));
            }
            (_, labels) => {
                for label in labels {
                    values[id(label)?] = 1.0;
                }
            }
        }
        Ok(match self.problem {
            Problem::Several => Target::Numbers(values),
            _ if labels.len() > 1 => {
                return Err(Error::input("label", format!("one is needed, got {}: {}", labels.len(), shown(labels))));
            }
            _ => Target::Shares(values),
        })
    }

    /// The classes of texts, each alone or with a second one.
    ///
    /// # Errors
    /// Those of the tokenizer and of [`Reader::read_at`].
    pub fn classify(&mut self, texts: &[(&str, Option<&str>)], done: &mut dyn FnMut(usize)) -> Result<Vec<Classified>> {
        let rows: Vec<Row> =
            texts.iter().map(|(text, second)| self.read_row(text, *second, Target::None)).collect::<Result<_>>()?;
        let rows: Vec<(&Row, usize)> = rows.iter().map(|row| (row, 0)).collect();
        let logits = self.reader.read_at(&rows, done)?;
        Ok(logits.iter().map(|logits| self.classified(logits)).collect())
    }

    fn classified(&self, logits: &[f32]) -> Classified {
        let scores: Vec<f64> = match self.problem {
            Problem::One => softmax(logits),
            Problem::Several => logits.iter().map(|x| 1.0 / (1.0 + f64::from(-x).exp())).collect(),
            Problem::Values => logits.iter().map(|x| f64::from(*x)).collect(),
        };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        if self.problem != Problem::Values {
            // Of equal ones the first.
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        }
        let holds = |id: &usize| self.problem != Problem::Several || scores[*id] > 0.5;
        let most = if self.problem == Problem::One { 1 } else { usize::MAX };
        let labels = order.into_iter().filter(holds).take(most).filter_map(|id| self.labels.get(id).cloned());
        Classified { labels: labels.collect(), scores, logits: logits.to_vec() }
    }
}

/// The first few of a list.
fn shown(labels: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = if labels.len() > SHOWN { format!(" and {} more", labels.len() - SHOWN) } else { String::new() };
    format!("{}{more}", labels.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "))
}

/// The labels of examples, numbers by their size, others by their letters.
#[must_use]
pub fn label_names(examples: &[ClassExample]) -> Vec<String> {
    let mut names: Vec<String> = examples.iter().flat_map(|example| example.labels.iter().cloned()).collect();
    let number = |name: &String| name.parse::<f64>().ok().filter(|x| x.is_finite());
    names.sort_by(|a, b| match (number(a), number(b)) {
        (Some(x), Some(y)) => x.total_cmp(&y),
        _ => a.cmp(b),
    });
    names.dedup();
    names
}
