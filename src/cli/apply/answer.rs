//! `wgformer answer`: answers about texts, as their parts or written.

use super::{Opened, in_chunks, print_found, records, text_of, write};
use crate::cli::args::AnswerArgs;
use crate::cli::outln;
use crate::error::Result;
use crate::tasks::apply::Answerer;
use crate::tasks::data::{QuestionExample, Record};
use serde_json::json;
use std::process::ExitCode;

pub(in crate::cli) fn run(options: &AnswerArgs) -> Result<ExitCode> {
    let records = records(&options.apply)?;
    let columns = options.apply.examples.columns()?;
    let opened = Opened::new(&options.apply)?;
    let question = |record: &Record| -> Result<(String, String)> {
        match &options.question {
            Some(question) => Ok((question.clone(), text_of(record, &columns)?)),
            None => {
                let example = QuestionExample::from_record(record, &columns)?;
                Ok((example.question, example.context))
            }
        }
    };
    if opened.model.decoder().is_some() {
        return generative(options, opened, &records, &question);
    }
    let (gpu, longest) = (&opened.device.gpu, opened.longest());
    let mut answerer = Answerer::new(gpu, opened.model.clone(), &opened.weights, &opened.tokenizer, longest)?
        .with_longest_answer(options.max_tokens.unwrap_or(30));
    opened.device.save_caches();
    in_chunks(&records, "questions", |chunk, done| {
        let questions: Vec<(String, String)> = chunk.iter().map(question).collect::<Result<_>>()?;
        let pairs: Vec<(&str, &str)> = questions.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        for ((record, (question, _)), mut found) in chunk.iter().zip(&questions).zip(answerer.answer(&pairs, done)?) {
            if options.none_above.is_some_and(|threshold| found.none > threshold) {
                (found.text, found.range) = (String::new(), (0, 0));
            }
            if options.apply.common.json {
                let (start, end) = found.range;
                let answer =
                    json!({"text": found.text, "start": start, "end": end, "score": found.score, "none": found.none});
                print_found(record, vec![("question", json!(question)), ("answer", answer)])?;
            } else {
                let said = if found.text.is_empty() { "(no answer)" } else { &found.text };
                outln!("{said}\t{:.4}", found.score)?;
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A model that writes gets the text and the question as one text.
fn generative(
    options: &AnswerArgs,
    opened: Opened,
    records: &[Record],
    question: &dyn Fn(&Record) -> Result<(String, String)>,
) -> Result<ExitCode> {
    let with_question = |record: &Record| {
        let (question, context) = question(record)?;
        // As T5 was trained (Raffel et al., arXiv 1910.10683, appendix D).
        Ok(format!("question: {question} context: {context}"))
    };
    write::written(
        opened,
        records,
        &with_question,
        &write::Wishes { max_tokens: options.max_tokens, json: options.apply.common.json, ..write::Wishes::default() },
    )
}
