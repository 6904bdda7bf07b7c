//! A run on the examples of a task.

use super::learner::Learner;
use super::work::Work;
use crate::cli::args::TrainArgs;
use crate::cli::model;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::TASK;
use crate::io::checkpoint::Loaded;
use crate::models::{EncoderHead, Model, NewHead};
use crate::program::Weights;
use crate::tasks::apply::{
    Answerer, Application, Classifier, EmbedSettings, Examples, Judge, Resolver, Tagger, TaskFile, TextEmbedder,
    Verdict, WriterOptions, WriterText, label_names, pair_row,
};
use crate::tasks::data::{ClassExample, Record, read_records, write_json_lines};
use crate::tasks::{Pooling, Row, RowBatches, RowSize, Target, TaskObjective, rows_held_out};
use crate::train::{BatchSource, DataState, HeldOut, Measure, Measured, Trainer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The examples that are held out, in the run's folder.
pub(super) const HELD_OUT: &str = "held_out.jsonl";

/// The examples of a run, as rows.
pub(super) struct Lesson {
    pub(super) objectives: Vec<TaskObjective>,
    file: TaskFile,
    sizes: Vec<RowSize>,
    rows: Arc<[Row]>,
    held_out_rows: Vec<Row>,
    /// The held-out examples that are measured.
    held_out: Examples,
    /// The records of all held-out examples, if they were taken from the data.
    records: Vec<Record>,
    writer: WriterOptions,
}

impl Lesson {
    /// Reads the examples, and makes or loads a model for them.
    pub(super) fn new(
        options: &TrainArgs,
        task: Application,
        gpu: &Gpu,
        resumed: Option<&Loaded>,
    ) -> Result<(Learner, Self)> {
        let args = &options.task;
        let columns = args.examples.columns()?;
        let mut records = read_records(&options.data, &args.examples.options())?;
        let mut aside = Vec::new();
        if args.eval_data.is_empty() {
            let of = |record: &Record| match task {
                Application::Classify => {
                    ClassExample::from_record(record, &columns).map(|x| x.labels).unwrap_or_default()
                }
                _ => Vec::new(),
            };
            (records, aside) = crate::tasks::data::split_by_label(records, of, args.held_out, options.seed);
        }
        let mut held_out = match args.eval_data.is_empty() {
            true => Examples::of(task, &aside, &columns)?,
            false => Examples::of(task, &read_records(&args.eval_data, &args.examples.options())?, &columns)?,
        };
        let examples = Examples::of(task, &records, &columns)?;
        drop(records);
        if examples.is_empty() {
            return Err(Error::input("data", "no example is left to train on: give more, or a smaller --held-out"));
        }
        let mut learner = match resumed {
            Some(loaded) => Learner::from_checkpoint(&loaded.path, gpu, options.dtype.into())?,
            None => learner(options, gpu, task, &examples)?,
        };
        let context = model::context(options.model.context, learner.model.dimensions().max_position)?;
        let mut file = match &options.from {
            Some(from) => TaskFile::of(from, learner.model.as_ref())?,
            None => TaskFile::new(task),
        };
        file.task = task;
        file.context = Some(context);
        if task == Application::Embed {
            file = match &options.from {
                Some(from) => file.with_embed_settings(from)?,
                None => TaskFile { pooling: Some(Pooling::default()), ..file },
            };
        }
        file.prefix = args.prefix.clone().unwrap_or(file.prefix);
        file.separator = args.separator.clone().unwrap_or(file.separator);
        let rows = rows(options, gpu, &learner, &file, &examples)?;
        let mut held_out_rows = rows_of(gpu, &learner, &file, &held_out)?;
        held_out_rows.retain(|row| row.target != Target::None);
        let sizes = RowSize::for_rows(rows.iter().chain(&held_out_rows), options.batch);
        let objective = |size: &RowSize| {
            let made = TaskObjective::on_rows(learner.model.clone(), &rows, *size)?;
            Ok(TaskObjective { label_smoothing: args.label_smoothing as f32, ..made })
        };
        let objectives = sizes.iter().rev().map(objective).collect::<Result<_>>()?;
        let longest_answer = rows.iter().map(answer_length).max().unwrap_or(0);
        let longest_answer = longest_answer + longest_answer / 2 + 8;
        file.answer = task.writes().then_some(longest_answer);
        learner.files.put(TASK, file.to_json()?);
        let writer = WriterOptions { longest: context, longest_answer, ..WriterOptions::default() };
        held_out.truncate(args.eval_examples);
        let (rows, records) = (rows.into(), aside);
        Ok((learner, Self { objectives, file, sizes, rows, held_out_rows, held_out, records, writer }))
    }

    /// Batches of a pass.
    pub(super) fn batches(&self) -> u64 {
        let of_size = |at: usize| self.rows.iter().filter(|row| row.size_in(&self.sizes) == Some(at)).count();
        self.sizes.iter().enumerate().map(|(at, size)| of_size(at).div_ceil(size.rows) as u64).sum()
    }

    pub(super) fn source(&self, state: DataState) -> Result<Box<dyn BatchSource>> {
        let first = super::data::first(&self.objectives)?;
        Ok(Box::new(RowBatches::resume(self.rows.clone(), first, self.sizes.clone(), state)?))
    }

    pub(super) fn held_out(&self) -> Vec<HeldOut> {
        self.objectives.first().map_or_else(Vec::new, |first| rows_held_out(&self.held_out_rows, first, &self.sizes))
    }

    pub(super) fn about(&self) -> String {
        let tokens: usize = self.rows.iter().map(|row| row.ids.len()).sum();
        let (all, held_out) = (self.rows.len(), self.held_out_rows.len());
        format!(
            "examples {all} rows of {tokens} tokens, {held_out} rows held out, {} of them measured",
            self.held_out.len()
        )
    }

    pub(super) fn measure<'a>(
        &'a self,
        gpu: &Gpu,
        weights: &Weights,
        work: &'a Work,
        best: &'a Path,
    ) -> Result<Option<Measuring<'a>>> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let (model, tokenizer) = (work.learner.model.clone(), &work.learner.files.tokenizer);
        let judge = Judge::new(gpu, model, weights, (tokenizer, &self.file), self.writer)?;
        Ok(Some(Measuring { judge, examples: &self.held_out, work, best }))
    }

    /// Keeps the held-out examples, for later evaluations.
    pub(super) fn write_beside(&self, out: &Path) -> Result<()> {
        if self.records.is_empty() { Ok(()) } else { write_json_lines(out.join(HELD_OUT), &self.records) }
    }
}

/// Tokens that are to be said.
fn answer_length(row: &Row) -> usize {
    match &row.target {
        Target::Answer { ids, .. } => ids.len(),
        Target::Tokens(labels) => labels.iter().filter(|label| **label >= 0).count(),
        _ => 0,
    }
}

/// The model of a new run.
fn learner(options: &TrainArgs, gpu: &Gpu, task: Application, examples: &Examples) -> Result<Learner> {
    let text = examples.text();
    let head = match (task, examples) {
        (Application::Classify, Examples::Classes(examples)) => {
            let numbers = examples.iter().map(|example| example.labels.len()).max().unwrap_or(0);
            let problem = match (options.task.multi_label, options.task.regression) {
                (true, _) => Some("multi_label_classification"),
                (_, true) => Some("regression"),
                _ => Some("single_label_classification"),
            };
            let labels = match options.task.regression {
                true => (0..numbers).map(|value| format!("VALUE_{value}")).collect(),
                false => label_names(examples),
            };
            if labels.is_empty() {
                return Err(Error::input(
                    "data",
                    "the examples have no labels: name their field (--column label=NAME)",
                ));
            }
            NewHead { problem, ..NewHead::classes(&labels) }
        }
        (Application::Tag, Examples::Spans(examples)) => {
            let mut labels: Vec<&str> =
                examples.iter().flat_map(|example| example.spans.iter().map(|span| span.label.as_str())).collect();
            labels.sort_unstable();
            labels.dedup();
            if labels.is_empty() {
                return Err(Error::input("data", "no text has a labelled part: there is nothing to learn"));
            }
            let tags = labels.iter().flat_map(|label| ["B", "I"].map(|mark| format!("{mark}-{label}")));
            NewHead::tags(&std::iter::once("O".to_owned()).chain(tags).collect::<Vec<_>>())
        }
        (Application::Answer, _) => NewHead::plain(EncoderHead::QuestionAnswering),
        (Application::Coref, _) => {
            let problem = Some("single_label_classification");
            NewHead { problem, ..NewHead::classes(&Resolver::LABELS.map(str::to_owned)) }
        }
        (Application::Embed, _) => NewHead::plain(EncoderHead::None),
        _ => return Learner::that_writes(options, gpu, &text),
    };
    Learner::with_head(options, gpu, &text, &head)
}

/// Rows to learn from, with the weights of classes.
fn rows(options: &TrainArgs, gpu: &Gpu, learner: &Learner, file: &TaskFile, examples: &Examples) -> Result<Vec<Row>> {
    let mut rows = rows_of(gpu, learner, file, examples)?;
    rows.retain(|row| row.target != Target::None);
    if rows.is_empty() {
        return Err(Error::input("data", "no example has what is to be learnt: name its field (--column label=NAME)"));
    }
    let Some(wanted) = &options.task.class_weights else { return Ok(rows) };
    let labels = learner.model.config()["id2label"].clone();
    let count = labels.as_object().map_or(0, serde_json::Map::len);
    let class = |row: &Row| match &row.target {
        Target::Shares(shares) => shares.iter().position(|share| *share > 0.0),
        _ => None,
    };
    let mut weights = vec![1.0_f32; count];
    if wanted == "balanced" {
        let mut counts = vec![0_usize; count];
        rows.iter().filter_map(class).for_each(|class| counts[class] += 1);
        let present = counts.iter().filter(|count| **count > 0).count().max(1);
        for (weight, count) in weights.iter_mut().zip(&counts) {
            *weight = rows.len() as f32 / (present * (*count).max(1)) as f32;
        }
    } else {
        for entry in wanted.split(',') {
            let parsed = entry.rsplit_once('=').and_then(|(name, weight)| {
                let id = (0..count).find(|id| labels[id.to_string()] == name)?;
                Some((id, weight.parse::<f32>().ok().filter(|weight| *weight >= 0.0 && weight.is_finite())?))
            });
            let Some((id, weight)) = parsed else {
                let message =
                    format!("{entry:?} is no class with a weight: write balanced, or CLASS=WEIGHT with commas between");
                return Err(Error::input("class-weights", message));
            };
            weights[id] = weight;
        }
    }
    for row in &mut rows {
        if let (Some(class), Target::Shares(shares)) = (class(row), &mut row.target) {
            shares.iter_mut().for_each(|share| *share *= weights[class]);
        }
    }
    Ok(rows)
}

fn rows_of(gpu: &Gpu, learner: &Learner, file: &TaskFile, examples: &Examples) -> Result<Vec<Row>> {
    let Learner { model, weights, files, .. } = learner;
    let (tokenizer, longest) = (&files.tokenizer, file.context.unwrap_or(usize::MAX));
    let numbered = |number: usize, error: Error| Error::input(format!("example {}", number + 1), error.to_string());
    fn all<T>(
        examples: &[T],
        of: impl Fn(&T) -> Result<Vec<Row>>,
        numbered: impl Fn(usize, Error) -> Error,
    ) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (number, example) in examples.iter().enumerate() {
            rows.extend(of(example).map_err(|e| numbered(number, e))?);
        }
        Ok(rows)
    }
    match examples {
        Examples::Classes(examples) => {
            let made =
                Classifier::new(gpu, model.clone(), weights, tokenizer, longest)?.with_prefix(file.prefix.clone());
            all(examples, |example| Ok(vec![made.row(example)?]), numbered)
        }
        Examples::Spans(examples) => {
            let made = Tagger::new(gpu, model.clone(), weights, tokenizer, longest)?;
            all(examples, |example| made.rows(example), numbered)
        }
        Examples::Questions(examples) => {
            let made = Answerer::new(gpu, model.clone(), weights, tokenizer, longest)?;
            all(examples, |example| made.rows(example), numbered)
        }
        Examples::Corefs(examples) => {
            let made = Resolver::new(gpu, model.clone(), weights, tokenizer, longest)?;
            all(examples, |example| made.rows(example), numbered)
        }
        Examples::Pairs(examples) if file.task == Application::Embed => {
            let made = TextEmbedder::new(gpu, model.clone(), weights, tokenizer, EmbedSettings::from(file))?;
            all(examples, |example| Ok(vec![made.pair_row(example)?]), numbered)
        }
        Examples::Pairs(examples) => {
            let texts = WriterText { tokenizer, file, longest };
            all(examples, |example| Ok(vec![pair_row(&texts, model.as_ref(), example)?]), numbered)
        }
    }
}

/// Measures a run by its held-out examples, and keeps the best weights.
pub(super) struct Measuring<'a> {
    judge: Judge,
    examples: &'a Examples,
    work: &'a Work,
    best: &'a Path,
}

impl Measure for Measuring<'_> {
    fn measure(&mut self, _trainer: &Trainer) -> Result<Measured> {
        let Verdict { metrics, .. } = self.judge.judge(self.examples, &mut |_| ())?;
        let mut metrics = metrics.into_iter();
        let (name, value) = metrics.next().unwrap_or_default();
        Ok(Measured { name, value, others: metrics.collect() })
    }

    fn keep(&mut self, trainer: &Trainer) -> Result<()> {
        self.work.save(trainer.weights(), self.best)
    }
}

/// Puts the best weights in place of the model's folder.
pub(super) fn take_best(best: &Path, model: &Path) -> Result<bool> {
    if !best.is_dir() {
        return Ok(false);
    }
    let mut old: Option<PathBuf> = None;
    let failed = |e: std::io::Error| Error::file(model, e);
    if model.is_dir() {
        let aside = model.with_extension("old");
        std::fs::rename(model, &aside).map_err(failed)?;
        old = Some(aside);
    }
    std::fs::rename(best, model).map_err(failed)?;
    if let Some(old) = old {
        std::fs::remove_dir_all(&old).map_err(|e| Error::file(&old, e))?;
    }
    Ok(true)
}

/// Learning rates of parameters that learn less than others: parts of names with shares.
pub(super) fn rates(options: &TrainArgs, model: &dyn Model) -> Result<Vec<(String, f32)>> {
    let mut rates: Vec<(String, f32)> = Vec::new();
    let names: Vec<String> = model.parameters()?.into_iter().map(|(name, _)| name).collect();
    for part in &options.task.freeze {
        if !names.iter().any(|name| name.contains(part)) {
            let some = names.iter().take(6).cloned().collect::<Vec<_>>().join(", ");
            let message = format!("no parameter has {part:?} in its name; they are called {some} ...");
            return Err(Error::input("freeze", message));
        }
        rates.push((part.clone(), 0.0));
    }
    if let Some(decay) = options.task.layer_decay {
        let layer = |name: &str| name.split('.').find_map(|part| part.parse::<i32>().ok());
        let layers = names.iter().filter_map(|name| layer(name)).max().map_or(0, |last| last + 1);
        let table = |name: &str| ["embed", "wte", "wpe", "shared"].iter().any(|part| name.contains(part));
        for name in names {
            let behind = match layer(&name) {
                Some(layer) => layers - layer,
                None if table(&name) => layers + 1,
                None => 0,
            };
            rates.push((name, decay.powi(behind) as f32));
        }
    }
    Ok(rates)
}
