//! `wgformer embed`: vectors of texts.

use super::{Opened, in_chunks, records, text_of};
use crate::cli::args::{EmbedArgs, VectorArgs};
use crate::cli::{outln, print_json};
use crate::error::{Error, Result};
use crate::io::{NamedTensor, folder, safetensors, write_atomic};
use crate::tasks::apply::{EmbedSettings, TextEmbedder};
use crate::tasks::data::Record;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::ExitCode;

/// A text with its vector, as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    vector: &'a [f32],
    #[serde(flatten)]
    others: Map<String, Value>,
}

pub(in crate::cli) fn run(options: &EmbedArgs) -> Result<ExitCode> {
    let out = options.out.as_deref().map(|out| Ok((out, places_of(out)?))).transpose()?;
    let records = records(&options.apply)?;
    let columns = options.apply.examples.columns()?;
    let opened = Opened::new(&options.apply)?;
    let mut settings = settings(&opened, &options.vector)?;
    if let Some(name) = &options.prompt {
        settings.prefix = settings.prompt(name)?.to_owned();
    }
    let mut embedder = embedder(&opened, settings)?.in_windows(options.windows);
    opened.device.save_caches();
    let mut vectors: Vec<f32> = Vec::new();
    let mut places: Vec<Value> = Vec::new();
    in_chunks(&records, "texts", |chunk, done| {
        let texts: Vec<String> = chunk.iter().map(|record| text_of(record, &columns)).collect::<Result<_>>()?;
        if let Some((record, _)) = chunk.iter().zip(&texts).find(|(_, text)| text.trim().is_empty()) {
            return Err(record.error("the text is empty: leave it out"));
        }
        let found = embedder.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>(), done)?;
        for ((record, text), vector) in chunk.iter().zip(&texts).zip(&found) {
            if out.is_some() {
                vectors.extend(vector);
                places.push(json!({"file": *record.place.path, "line": record.place.line, "text": text}));
            } else {
                print(record, text, vector, options.apply.common.json)?;
            }
        }
        Ok(())
    })?;
    if let Some((path, beside)) = out {
        let shape = [records.len(), embedder.dimensions()];
        safetensors::write(path, &[NamedTensor::f32("vectors", shape, &vectors)])?;
        let about = json!({
            "model": options.apply.model, "dimensions": shape[1], "prefix": embedder.settings().prefix,
            "texts": places,
        });
        write_atomic(&beside, &folder::pretty(&about))?;
        if options.apply.common.json {
            print_json(&json!({"texts": shape[0], "dimensions": shape[1], "vectors": path, "places": beside}))?;
        } else {
            let [texts, dimensions] = shape;
            outln!("{texts} vectors of {dimensions} numbers: {}; their places: {}", path.display(), beside.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How a model's texts become vectors, by its folder and by options.
pub(super) fn settings(opened: &Opened, options: &VectorArgs) -> Result<EmbedSettings> {
    let mut settings = EmbedSettings::of_model(&opened.folder, &opened.file)?;
    settings.pooling = options.pooling.unwrap_or(settings.pooling);
    if let Some(prefix) = &options.prefix {
        settings.prefix.clone_from(prefix);
    }
    Ok(settings)
}

pub(super) fn embedder(opened: &Opened, settings: EmbedSettings) -> Result<TextEmbedder> {
    let gpu = &opened.device.gpu;
    TextEmbedder::new(gpu, opened.model.clone(), &opened.weights, &opened.tokenizer, settings)
}

/// The JSON file beside one of vectors.
fn places_of(out: &Path) -> Result<std::path::PathBuf> {
    if out.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Error::input("out", format!("{} should end in .safetensors", out.display())));
    }
    Ok(out.with_extension("json"))
}

fn print(record: &Record, text: &str, vector: &[f32], all: bool) -> Result<()> {
    let mut others = if all { record.fields.clone() } else { Map::new() };
    others.retain(|name, value| !(name == "vector" || name == "text" || value.as_str() == Some(text)));
    let line = serde_json::to_string(&Line { text, vector, others });
    outln!("{}", line.map_err(|e| Error::input("output", e.to_string()))?)
}
