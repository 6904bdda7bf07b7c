//! `wgformer coref`: which mentions in texts are of the same.

use super::{Opened, in_chunks, on_a_line, print_found, records};
use crate::cli::args::CorefArgs;
use crate::cli::outln;
use crate::error::Result;
use crate::tasks::apply::{Resolver, find_mentions};
use crate::tasks::data::CorefExample;
use serde_json::{Value, json};
use std::ops::Range;
use std::process::ExitCode;

pub(in crate::cli) fn run(options: &CorefArgs) -> Result<ExitCode> {
    let records = records(&options.apply)?;
    let columns = options.apply.examples.columns()?;
    let opened = Opened::new(&options.apply)?;
    let (gpu, longest) = (&opened.device.gpu, opened.longest());
    let mut resolver = Resolver::new(gpu, opened.model.clone(), &opened.weights, &opened.tokenizer, longest)?
        .with_window(options.window);
    opened.device.save_caches();
    in_chunks(&records, "texts", |chunk, _| {
        let mut examples: Vec<CorefExample> =
            chunk.iter().map(|record| CorefExample::from_record(record, &columns)).collect::<Result<_>>()?;
        for example in &mut examples {
            if example.mentions.is_empty() {
                example.mentions = find_mentions(&example.text);
            }
        }
        let texts: Vec<(&str, &[Range<usize>])> =
            examples.iter().map(|example| (example.text.as_str(), example.mentions.as_slice())).collect();
        let found = resolver.resolve(&texts, &mut |_| ())?;
        for ((record, CorefExample { text, mentions, .. }), found) in chunk.iter().zip(&examples).zip(found) {
            // Where each mention begins and ends, in characters.
            let mut counted = (0, 0);
            let mut starts = Vec::new();
            for mention in mentions {
                let more = text.get(counted.0..mention.start).map_or(0, |between| between.chars().count());
                counted = (mention.start, counted.1 + more);
                starts.push(counted.1);
            }
            let part = |mention: usize| text.get(mentions[mention].clone()).unwrap_or_default();
            let place = |mention: usize| [starts[mention], starts[mention] + part(mention).chars().count()];
            let mut clusters = found.clusters;
            clusters.retain(|cluster| options.alone || cluster.len() > 1);
            if options.apply.common.json {
                let mention = |mention: usize| {
                    let [start, end] = place(mention);
                    json!({"start": start, "end": end, "text": part(mention)})
                };
                let all: Vec<Value> = (0..mentions.len()).map(mention).collect();
                let antecedent = |found: &Option<(usize, f64)>| found.map(|(first, score)| json!([first, score]));
                print_found(
                    record,
                    vec![
                        ("mentions", all.into()),
                        ("clusters", json!(clusters)),
                        ("antecedents", found.antecedents.iter().map(antecedent).collect()),
                    ],
                )?;
                continue;
            }
            outln!("{}", on_a_line(text))?;
            for cluster in clusters {
                let shown = |mention: &usize| {
                    let [start, end] = place(*mention);
                    format!("{} ({start}-{end})", on_a_line(part(*mention)))
                };
                outln!("  {}", cluster.iter().map(shown).collect::<Vec<_>>().join(" = "))?;
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
