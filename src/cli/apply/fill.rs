//! `wgformer fill`: words behind masks.

use super::{Opened, in_chunks, on_a_line, print_found, records, text_of};
use crate::cli::args::FillArgs;
use crate::cli::outln;
use crate::error::Result;
use crate::tasks::apply::{Filled, Filler};
use serde_json::json;
use std::process::ExitCode;

pub(in crate::cli) fn run(options: &FillArgs) -> Result<ExitCode> {
    let records = records(&options.apply)?;
    let columns = options.apply.examples.columns()?;
    let opened = Opened::new(&options.apply)?;
    let mut filler = Filler::new(&opened.device.gpu, opened.model.clone(), &opened.weights, &opened.tokenizer)?;
    opened.device.save_caches();
    in_chunks(&records, "texts", |chunk, done| {
        let texts: Vec<String> = chunk.iter().map(|record| text_of(record, &columns)).collect::<Result<_>>()?;
        let found = filler.fill(&texts.iter().map(String::as_str).collect::<Vec<_>>(), options.top, done)?;
        for ((record, text), masks) in chunk.iter().zip(&texts).zip(&found) {
            if options.apply.common.json {
                let one = |filled: &Filled| json!({"token": filled.token, "text": filled.text, "score": filled.score});
                let masks = masks.iter().map(|mask| mask.iter().map(one).collect::<Vec<_>>());
                print_found(record, vec![("masks", masks.collect::<Vec<_>>().into())])?;
                continue;
            }
            outln!("{}", on_a_line(text))?;
            for mask in masks {
                let words = mask.iter().map(|filled| format!("{} {:.4}", filled.text.trim(), filled.score));
                outln!("  {}", words.collect::<Vec<_>>().join("   "))?;
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
