//! `wgformer tag`: labelled parts of texts.

use super::{Opened, in_chunks, print_found, records, text_of};
use crate::cli::args::TagArgs;
use crate::cli::outln;
use crate::error::Result;
use crate::tasks::apply::Tagger;
use crate::tasks::data::SpanExample;
use serde_json::json;
use std::process::ExitCode;

pub(in crate::cli) fn run(options: &TagArgs) -> Result<ExitCode> {
    let records = records(&options.apply)?;
    let columns = options.apply.examples.columns()?;
    let opened = Opened::new(&options.apply)?;
    let (gpu, longest) = (&opened.device.gpu, opened.longest());
    let mut tagger = Tagger::new(gpu, opened.model.clone(), &opened.weights, &opened.tokenizer, longest)?;
    opened.device.save_caches();
    in_chunks(&records, "texts", |chunk, done| {
        let text = |record| match SpanExample::from_record(record, &columns) {
            Ok(example) => Ok(example.text),
            Err(_) => text_of(record, &columns),
        };
        let texts: Vec<String> = chunk.iter().map(text).collect::<Result<_>>()?;
        let found = tagger.tag(&texts.iter().map(String::as_str).collect::<Vec<_>>(), done)?;
        for ((record, text), mut found) in chunk.iter().zip(&texts).zip(found) {
            found.retain(|part| part.score >= options.least);
            let part = |tagged: &crate::tasks::apply::Tagged| {
                let span = &tagged.span;
                json!({
                    "start": span.start, "end": span.end, "label": span.label, "score": tagged.score,
                    "text": text.get(span.start..span.end),
                })
            };
            if options.apply.common.json {
                print_found(record, vec![("parts", found.iter().map(part).collect::<Vec<_>>().into())])?;
                continue;
            }
            // The text with its parts in brackets.
            let (mut line, mut at) = (String::new(), 0);
            for tagged in &found {
                let span = &tagged.span;
                line += text.get(at..span.start).unwrap_or_default();
                line += &format!("[{}]({})", text.get(span.start..span.end).unwrap_or_default(), span.label);
                at = span.end;
            }
            line += text.get(at..).unwrap_or_default();
            outln!("{line}")?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
