//! SQuAD's articles (Rajpurkar et al., arXiv 1606.05250 and 1806.03822) as one record a question.

use super::{Record, Source, line_ends};
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// Whether the elements of `data` are articles.
pub(super) fn is(articles: &[Value]) -> bool {
    articles.first().is_some_and(|article| article.get("paragraphs").is_some())
}

pub(super) fn read(source: &Source, line: usize, articles: &[Value], records: &mut Vec<Record>) -> Result<()> {
    // Parsed values have no lines: each question's is that of its id, which follows the one before.
    let (mut at, mut line) = (0, line);
    for article in articles {
        let title = article["title"].as_str().unwrap_or_default();
        let wrong = |line: usize, what: &str| -> Error { source.error(line, format!("article {title:?} {what}")) };
        let paragraphs =
            article["paragraphs"].as_array().ok_or_else(|| wrong(line, "has no list named \"paragraphs\""))?;
        for paragraph in paragraphs {
            let context = paragraph["context"].as_str();
            let context = context.ok_or_else(|| wrong(line, "has a paragraph without the text \"context\""))?;
            let questions = paragraph["qas"].as_array();
            for entry in questions.ok_or_else(|| wrong(line, "has a paragraph without the list \"qas\""))? {
                let id = &entry["id"];
                let written = id.to_string();
                if let Some(found) = source.text.get(at..).and_then(|rest| rest.find(&written)) {
                    line += line_ends(&source.text[at..at + found]);
                    at += found + written.len();
                }
                let fields = json!({
                    "id": id, "title": title, "context": context, "question": entry["question"],
                    "answers": answers(entry), "is_impossible": entry["is_impossible"].as_bool().unwrap_or(false),
                });
                let Value::Object(fields) = fields else { continue };
                records.push(source.record(line, fields));
            }
        }
    }
    Ok(())
}

/// The answers of a question as lists of texts and of starts; null where there are none given.
fn answers(entry: &Value) -> Value {
    let Some(answers) = entry["answers"].as_array() else { return Value::Null };
    let all = |key: &str| -> Vec<&Value> { answers.iter().map(|answer| &answer[key]).collect() };
    json!({"text": all("text"), "answer_start": all("answer_start")})
}
