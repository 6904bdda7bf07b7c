//! The examples of a task.

use super::Application;
use crate::error::{Error, Result};
use crate::tasks::data::{
    ClassExample, Columns, CorefExample, PairExample, QuestionExample, Record, SpanExample, split, split_by_label,
};

/// The examples of a task, of one kind.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Examples {
    /// Texts with their classes.
    Classes(Vec<ClassExample>),
    /// Texts with labelled parts.
    Spans(Vec<SpanExample>),
    /// Questions about texts.
    Questions(Vec<QuestionExample>),
    /// Texts with mentions.
    Corefs(Vec<CorefExample>),
    /// Texts made of texts, or that belong to others.
    Pairs(Vec<PairExample>),
}

impl Examples {
    /// The examples of records for a use of a model.
    ///
    /// # Errors
    /// [`Error::Format`] with file and line of a record that is none; [`Error::Input`] for a use that is not learnt from examples.
    pub fn of(task: Application, records: &[Record], columns: &Columns) -> Result<Self> {
        fn all<T>(records: &[Record], of: impl Fn(&Record) -> Result<T>) -> Result<Vec<T>> {
            records.iter().map(of).collect()
        }
        Ok(match task {
            Application::Classify => Self::Classes(all(records, |record| ClassExample::from_record(record, columns))?),
            Application::Tag => Self::Spans(all(records, |record| SpanExample::from_record(record, columns))?),
            Application::Answer => {
                Self::Questions(all(records, |record| QuestionExample::from_record(record, columns))?)
            }
            Application::Coref => Self::Corefs(all(records, |record| CorefExample::from_record(record, columns))?),
            task if task.writes() || task == Application::Embed => {
                Self::Pairs(all(records, |record| PairExample::from_record(record, columns))?)
            }
            other => {
                let message = format!("{} is not learnt from labelled examples", other.name());
                return Err(Error::input("task", message));
            }
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(all) => all.len(),
            Self::Spans(all) => all.len(),
            Self::Questions(all) => all.len(),
            Self::Corefs(all) => all.len(),
            Self::Pairs(all) => all.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Examples to learn from, and a share that is held out, of each class alike.
    #[must_use]
    pub fn split(self, share: f64, seed: u64) -> (Self, Self) {
        match self {
            Self::Classes(all) => {
                let (a, b) = split_by_label(all, |example| example.labels.clone(), share, seed);
                (Self::Classes(a), Self::Classes(b))
            }
            Self::Spans(all) => {
                let (a, b) = split(all, share, seed);
                (Self::Spans(a), Self::Spans(b))
            }
            Self::Questions(all) => {
                let (a, b) = split(all, share, seed);
                (Self::Questions(a), Self::Questions(b))
            }
            Self::Corefs(all) => {
                let (a, b) = split(all, share, seed);
                (Self::Corefs(a), Self::Corefs(b))
            }
            Self::Pairs(all) => {
                let (a, b) = split(all, share, seed);
                (Self::Pairs(a), Self::Pairs(b))
            }
        }
    }

    /// At most the first `count`.
    pub fn truncate(&mut self, count: usize) {
        match self {
            Self::Classes(all) => all.truncate(count),
            Self::Spans(all) => all.truncate(count),
            Self::Questions(all) => all.truncate(count),
            Self::Corefs(all) => all.truncate(count),
            Self::Pairs(all) => all.truncate(count),
        }
    }

    /// Their texts, one a line, for a tokenizer to be trained on.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |part: &str| {
            text.push_str(part);
            text.push('\n');
        };
        match self {
            Self::Classes(all) => all.iter().for_each(|example| {
                add(&example.text);
                example.second.iter().for_each(|second| add(second));
            }),
            Self::Spans(all) => all.iter().for_each(|example| add(&example.text)),
            // The marks of mentions, too.
            Self::Corefs(all) => all.iter().for_each(|example| add(&format!("[{}] * ...", example.text))),
            Self::Questions(all) => all.iter().for_each(|example| {
                add(&example.question);
                add(&example.context);
            }),
            Self::Pairs(all) => all.iter().for_each(|example| {
                add(&example.source);
                example.target.iter().for_each(|target| add(target));
            }),
        }
        text
    }
}
