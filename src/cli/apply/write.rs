//! `wgformer translate`, `summarise`, `correct` and `transform`: texts from texts.

use super::{Opened, in_chunks, print_found, records, text_of};
use crate::cli::args::WriteArgs;
use crate::cli::outln;
use crate::error::{Error, Result};
use crate::generate::{GenerationSettings, SamplingOptions};
use crate::models;
use crate::tasks::apply::{Application, Writer, WriterOptions};
use crate::tasks::data::Record;
use serde_json::json;
use std::process::ExitCode;

/// The most tokens of an answer if nothing says how many.
const TOKENS: usize = 128;

/// What a command wants of a writer.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    pub(super) max_tokens: Option<usize>,
    pub(super) beams: Option<usize>,
    pub(super) length_penalty: Option<f64>,
    pub(super) batch: Option<usize>,
    pub(super) json: bool,
    /// Long texts are answered by parts.
    pub(super) by_parts: bool,
}

pub(in crate::cli) fn run(options: &WriteArgs, task: Application) -> Result<ExitCode> {
    let records = records(&options.apply)?;
    let columns = options.apply.examples.columns()?;
    let mut opened = Opened::new(&options.apply)?;
    opened.file.prefix = options.prefix.clone().unwrap_or(opened.file.prefix);
    let wishes = Wishes {
        max_tokens: options.max_tokens,
        beams: options.beams,
        length_penalty: options.length_penalty,
        batch: Some(options.batch),
        json: options.apply.common.json,
        by_parts: task == Application::Summarise,
    };
    written(opened, &records, &|record| text_of(record, &columns), &wishes)
}

/// Prints the answers to texts.
pub(super) fn written(
    opened: Opened,
    records: &[Record],
    text: &dyn Fn(&Record) -> Result<String>,
    wishes: &Wishes,
) -> Result<ExitCode> {
    let Opened { device, folder, model, weights, tokenizer, file } = opened;
    if model.decoder().is_none() {
        let message = "it reads texts and writes none: use a model with a decoder, trained for this (train --task)";
        return Err(Error::input("model", message));
    }
    let settings = GenerationSettings::of(&folder, model.dimensions().vocabulary)?;
    let decoder = models::decoder_of(&folder)?;
    let options = SamplingOptions {
        end: settings.end.clone(),
        rules: settings.rules_behind(1),
        repetition_penalty: settings.repetition_penalty.unwrap_or(1.0),
        ..SamplingOptions::default()
    };
    let sizes = WriterOptions {
        longest: file.context.unwrap_or(usize::MAX),
        longest_answer: wishes.max_tokens.or(file.answer).or_else(|| settings.most_new_tokens(1)).unwrap_or(TOKENS),
        beams: wishes.beams.or(settings.beams).unwrap_or(1),
        length_penalty: wishes.length_penalty.or(settings.length_penalty).unwrap_or(1.0),
        batch: wishes.batch.unwrap_or(16).min(records.len().max(1)).max(settings.beams.unwrap_or(1)),
    };
    let mut writer = Writer::new(&device.gpu, decoder.into(), &weights, (&tokenizer, &file), sizes, options)?;
    device.save_caches();
    in_chunks(records, "texts", |chunk, done| {
        let texts: Vec<String> = chunk.iter().map(text).collect::<Result<_>>()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let answers = if wishes.by_parts { writer.by_parts(&texts, done)? } else { writer.write(&texts, done)? };
        for (record, answer) in chunk.iter().zip(answers) {
            match wishes.json {
                true => print_found(record, vec![("answer", json!(answer))])?,
                false => outln!("{}", answer.replace('\n', " "))?,
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
