//! `wgformer search`: an index of files by the meaning of their passages.

use super::{Opened, embed, on_a_line, search_eval, with_progress};
use crate::cli::args::{ApplyArgs, SearchArgs};
use crate::cli::outln;
use crate::cli::output::note;
use crate::error::{Error, Result};
use crate::tasks::apply::{
    Changes, EmbedSettings, IndexedFile, SearchFiles, SearchSettings, TextEmbedder, VectorIndex, model_fingerprint,
};
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(in crate::cli) fn run(options: &SearchArgs) -> Result<ExitCode> {
    if options.add.is_empty() && options.query.is_empty() && options.eval.is_none() {
        return Err(Error::input("query", "there is none: give one, or files for the index (--add), or --eval FILE"));
    }
    let old = SearchFiles::open(&options.index)?;
    let model = match (&old, &options.model) {
        (_, Some(model)) => model.clone(),
        (Some(old), None) => old.settings().model.clone(),
        (None, None) => {
            let message = format!(
                "there is no index in {} yet: make one with --model MODEL --add FILES",
                options.index.display()
            );
            return Err(Error::input("index", message));
        }
    };
    if old.is_none() && options.add.is_empty() {
        return Err(Error::input("index", "there is none yet: say what belongs to it with --add FILES"));
    }
    let opened = Opened::new(&ApplyArgs {
        common: options.common.clone(),
        model: model.clone(),
        dtype: options.dtype,
        ..ApplyArgs::default()
    })?;
    let (mut index, mut embedder) = made(options, old, &opened, &model)?;
    opened.device.save_caches();
    if !options.add.is_empty() {
        index = add(options, index, &mut embedder)?;
    }
    if options.query.is_empty() && options.eval.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut vectors = VectorIndex::new(&opened.device.gpu, index.vectors(), index.settings().dimensions)?;
    let mut searcher = Searcher { index: &index, embedder: &mut embedder, vectors: &mut vectors, options };
    if let Some(examples) = &options.eval {
        return search_eval::run(options, &mut searcher, examples);
    }
    searcher.print(&options.query)?;
    Ok(ExitCode::SUCCESS)
}

/// The old index, or a new one, with its model.
fn made(
    options: &SearchArgs,
    old: Option<SearchFiles>,
    opened: &Opened,
    model: &Path,
) -> Result<(SearchFiles, TextEmbedder)> {
    let mut settings = embed::settings(opened, &options.vector)?;
    let weights = model_fingerprint(&opened.folder);
    let index = match old {
        Some(old) => {
            check(options, old.settings(), &weights)?;
            old
        }
        None => {
            let of_use = |given: &Option<String>, uses: &[&str]| {
                let prompt = || uses.iter().find_map(|name| settings.prompts.get(*name));
                given.as_ref().or_else(prompt).unwrap_or(&settings.prefix).clone()
            };
            SearchFiles::new(SearchSettings {
                model: std::path::absolute(model).map_err(|e| Error::file(model, e))?,
                weights,
                dimensions: opened.model.dimensions().d_model,
                passages: options.passages.unwrap_or_default(),
                pooling: settings.pooling,
                prefix: of_use(&options.vector.prefix, &["document", "passage", "corpus"]),
                query_prefix: of_use(&options.query_prefix, &["query"]),
                context: options.context.or(settings.longest),
            })
        }
    };
    let SearchSettings { pooling, context, .. } = index.settings();
    settings = EmbedSettings { pooling: *pooling, longest: *context, ..settings };
    // A query is found whole, and passages are not longer than a model reads.
    Ok((index, embed::embedder(opened, settings)?.in_windows(true)))
}

/// Refuses options that an index was not made with.
fn check(options: &SearchArgs, made: &SearchSettings, weights: &str) -> Result<()> {
    let again = format!("delete {} and build it again with --model and --add", options.index.display());
    if weights != made.weights {
        let message = format!("the index was made by other weights than those of the model now: {again}");
        return Err(Error::input("model", message));
    }
    let differs = [
        ("passages", options.passages.is_some_and(|given| given != made.passages)),
        ("pooling", options.vector.pooling.is_some_and(|given| given != made.pooling)),
        ("prefix", options.vector.prefix.as_ref().is_some_and(|given| *given != made.prefix)),
        ("context", options.context.is_some_and(|given| Some(given) != made.context)),
    ];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((option, _)) => Err(Error::input(option, format!("the index was made with another: {again}"))),
        None => Ok(()),
    }
}

fn add(options: &SearchArgs, index: SearchFiles, embedder: &mut TextEmbedder) -> Result<SearchFiles> {
    // How many passages there are is known when the files have been read.
    let (index, changes) = with_progress(100, "percent", |done| {
        index.updated(&options.add, &options.index, embedder, &mut |read, all| done(read * 100 / all.max(1)))
    })?;
    index.save(&options.index)?;
    let Changes { read, unchanged, removed, skipped } = changes;
    let passages: usize = index.files().iter().map(|file| file.passages.len()).sum();
    if options.common.json {
        outln!(
            "{}",
            json!({
                "files": index.files().len(), "passages": passages, "read": read, "unchanged": unchanged,
                "removed": removed, "skipped": skipped,
            })
        )?;
    } else {
        let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} are no text") };
        outln!(
            "{} files, {passages} passages: {read} files read, {unchanged} unchanged, {removed} removed{skipped}",
            index.files().len()
        )?;
    }
    if passages == 0 {
        return Err(Error::input("add", "the files hold no passage: nothing can be found"));
    }
    Ok(index)
}

/// An index with what searches it.
pub(super) struct Searcher<'a> {
    pub(super) index: &'a SearchFiles,
    embedder: &'a mut TextEmbedder,
    vectors: &'a mut VectorIndex,
    options: &'a SearchArgs,
}

impl Searcher<'_> {
    /// The nearest passages to each query, as numbers with scores.
    pub(super) fn search(&mut self, queries: &[&str], top: usize) -> Result<Vec<Vec<crate::tasks::apply::Hit>>> {
        let prefix = self.options.query_prefix.as_ref().unwrap_or(&self.index.settings().query_prefix);
        let queries = self.embedder.embed_behind(prefix, queries, &mut |_| ())?;
        self.vectors.search(&queries, top)
    }

    fn print(&mut self, queries: &[String]) -> Result<()> {
        if let Some(blank) = queries.iter().position(|query| query.trim().is_empty()) {
            return Err(Error::input("query", format!("number {} is empty", blank + 1)));
        }
        let texts: Vec<&str> = queries.iter().map(String::as_str).collect();
        let found = self.search(&texts, self.options.top)?;
        let mut files = Texts::default();
        for (query, hits) in queries.iter().zip(found) {
            let mut list = Vec::new();
            for hit in hits {
                let Some((file, passage)) = self.index.passage(hit.number) else { continue };
                let text = files.of(file).and_then(|text| text.get(passage.start..passage.end));
                list.push((hit.score, file, passage.line, text.map(str::to_owned)));
            }
            if self.options.common.json {
                let one = |(score, file, line, text): &(f32, &IndexedFile, usize, Option<String>)| {
                    // As short as f32 is written.
                    let score: f64 = score.to_string().parse().unwrap_or_default();
                    json!({"file": file.path, "line": line, "score": score, "text": text})
                };
                outln!("{}", json!({"query": query, "found": list.iter().map(one).collect::<Vec<_>>()}))?;
                continue;
            }
            if queries.len() > 1 {
                outln!("{}", on_a_line(query))?;
            }
            for (score, file, line, text) in list {
                let text = text.as_deref().map_or_else(|| "(changed)".to_owned(), on_a_line);
                outln!("{score:.4}  {}:{line}  {text}", shown(&file.path).display())?;
            }
        }
        Ok(())
    }
}

/// A path from the current folder, if it lies there.
fn shown(path: &Path) -> &Path {
    let here = std::env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path)
}

/// The texts of files, each read once. Those of changed files are told and missing.
#[derive(Default)]
struct Texts(HashMap<PathBuf, Option<String>>);

impl Texts {
    fn of(&mut self, file: &IndexedFile) -> Option<&str> {
        let read = || match file.read() {
            Ok(text) => Some(text),
            Err(error) => {
                note(format_args!("note: {error}"));
                None
            }
        };
        self.0.entry(file.path.clone()).or_insert_with(read).as_deref()
    }
}
