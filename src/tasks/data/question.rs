//! Questions about a text.

use super::Record;
use super::columns::{Columns, Field, byte_of, plain_text};
use crate::error::Result;
use serde_json::Value;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its words.
    pub text: String,
    /// Where it stands in the context, in bytes. `None` if it does not: it counts in evaluation and cannot be trained on.
    pub start: Option<usize>,
}

/// A question about a text, and its answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuestionExample {
    /// Its name; `file, line n` if it has none.
    pub id: String,
    /// The question.
    pub question: String,
    /// The text that answers it.
    pub context: String,
    /// The answers. None, and not `impossible`: they are not given.
    pub answers: Vec<Answer>,
    /// Whether the text does not answer it.
    pub impossible: bool,
}

impl QuestionExample {
    /// The example of a record with `question`, `context`, `id`, and `answers`: SQuAD's `{"text": [...], "answer_start": [...]}`, a list of
    /// `{"text", "answer_start"}` or of texts, or a text with `answer_start` beside it. Starts count characters (code points). An answer that is not
    /// where its start says is taken from the nearest place that has it; without a start, from the first. A question cannot be answered if
    /// `is_impossible` says so or the list of answers is empty.
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) if question or context are missing, a given column is, or a field holds something else.
    pub fn from_record(record: &Record, columns: &Columns) -> Result<Self> {
        let question = record.require(columns.question.as_ref(), &["question", "query"])?.text()?;
        let context =
            record.require(columns.context.as_ref(), &["context", "passage", "paragraph", "document"])?.text()?;
        let id = record.find(columns.id.as_ref(), &["id", "qid", "question_id"])?;
        let id = id.map_or_else(|| Ok(record.place.to_string()), |id| id.text())?;
        let field = record.find(columns.answers.as_ref(), &["answers", "answer"])?;
        let given = field.map(|field| answers(record, &field)).transpose()?;
        let said = record.get("is_impossible").map(|field| field.value.clone());
        let said =
            said.is_some_and(|said| said == true || plain_text(&said).is_some_and(|s| s.eq_ignore_ascii_case("true")));
        let impossible = said || given.as_ref().is_some_and(Vec::is_empty);
        let place = |(text, start): (String, Option<usize>)| Answer { start: place(&context, &text, start), text };
        let answers = given.filter(|_| !said).unwrap_or_default().into_iter().map(place).collect();
        Ok(Self { id, question, context, answers, impossible })
    }
}

/// The texts of answers and the characters at which they start.
fn answers(record: &Record, field: &Field<'_>) -> Result<Vec<(String, Option<usize>)>> {
    let wrong = || field.error("answers with \"text\" and \"answer_start\"");
    let start = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|start| usize::try_from(start).ok());
    let list = |value: &Value| match value {
        Value::Array(values) => values.clone(),
        other => vec![other.clone()],
    };
    let answer = |text: &Value, at: Option<&Value>| Ok((plain_text(text).ok_or_else(wrong)?, start(at)));
    match field.value {
        Value::Object(answers) => {
            let texts = list(answers.get("text").ok_or_else(wrong)?);
            let starts = answers.get("answer_start").map(list).unwrap_or_default();
            if !starts.is_empty() && starts.len() != texts.len() {
                let message = format!("{} answers, but {} values of \"answer_start\"", texts.len(), starts.len());
                return Err(record.error(message));
            }
            texts.iter().enumerate().map(|(i, text)| answer(text, starts.get(i))).collect()
        }
        Value::Array(answers) => {
            let one = |value: &Value| match value {
                Value::Object(fields) => answer(fields.get("text").ok_or_else(wrong)?, fields.get("answer_start")),
                text => answer(text, None),
            };
            answers.iter().map(one).collect()
        }
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        text => {
            // A cell of a table holds its number as text.
            let at = record.get("answer_start").and_then(|field| field.text().ok()).and_then(|at| at.parse().ok());
            Ok(vec![(plain_text(text).ok_or_else(wrong)?, at)])
        }
    }
}

/// The byte at which an answer stands, nearest to a character.
fn place(context: &str, answer: &str, start: Option<usize>) -> Option<usize> {
    if answer.is_empty() {
        return None;
    }
    let wanted = start.map_or(Some(0), |start| byte_of(context, start)).unwrap_or(context.len());
    if context.get(wanted..).is_some_and(|rest| rest.starts_with(answer)) {
        return Some(wanted);
    }
    context.match_indices(answer).map(|(at, _)| at).min_by_key(|at| at.abs_diff(wanted))
}
