//! `wgformer score`: how likely texts are.

use super::{Opened, in_chunks, on_a_line, print_found, records, text_of};
use crate::cli::args::ScoreArgs;
use crate::cli::outln;
use crate::error::Result;
use crate::tasks::apply::Scorer;
use serde_json::json;
use std::process::ExitCode;

pub(in crate::cli) fn run(options: &ScoreArgs) -> Result<ExitCode> {
    let records = records(&options.apply)?;
    let columns = options.apply.examples.columns()?;
    let opened = Opened::new(&options.apply)?;
    let (gpu, longest) = (&opened.device.gpu, opened.longest());
    let mut scorer = Scorer::new(gpu, opened.model.clone(), &opened.weights, &opened.tokenizer, longest)?;
    opened.device.save_caches();
    let (mut sum, mut tokens) = (0.0, 0);
    in_chunks(&records, "texts", |chunk, done| {
        let texts: Vec<String> = chunk.iter().map(|record| text_of(record, &columns)).collect::<Result<_>>()?;
        let found = scorer.score(&texts.iter().map(String::as_str).collect::<Vec<_>>(), done)?;
        for ((record, text), found) in chunk.iter().zip(&texts).zip(&found) {
            (sum, tokens) = (sum + found.sum, tokens + found.tokens);
            let perplexity = found.perplexity();
            match options.apply.common.json {
                true => print_found(
                    record,
                    vec![
                        ("tokens", json!(found.tokens)),
                        ("loss", json!(found.mean())),
                        ("perplexity", json!(perplexity)),
                    ],
                )?,
                false => {
                    let perplexity = perplexity.map_or_else(|| "-".to_owned(), |x| format!("{x:.2}"));
                    outln!("{perplexity}\t{}\t{}", found.tokens, on_a_line(text))?;
                }
            }
        }
        Ok(())
    })?;
    if !options.apply.common.json && records.len() > 1 && tokens > 0 {
        let mean = sum / tokens as f64;
        crate::cli::output::note(format_args!("[all: perplexity {:.2} over {tokens} tokens]", mean.exp()));
    }
    Ok(ExitCode::SUCCESS)
}
