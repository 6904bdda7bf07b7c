//! `wgformer eval` of a model that was trained for a task: its metrics by labelled examples, and a page about them.

use super::apply::{Opened, with_progress};
use super::args::{ApplyArgs, EvalArgs};
use super::page::{STYLE, escape, section};
use super::{outln, print_json, table};
use crate::error::{Error, Result};
use crate::generate::GenerationSettings;
use crate::io::write_atomic;
use crate::tasks::apply::{Application, Case, Examples, Judge, Verdict, WriterOptions};
use crate::tasks::data::read_records;
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;

/// Examples on the page, those that are wrong first.
const SHOWN: usize = 300;

pub(super) fn run(options: &EvalArgs, apply: &ApplyArgs) -> Result<ExitCode> {
    let columns = options.examples.columns()?;
    let records = read_records(&options.data, &options.examples.options())?;
    let mut opened = Opened::new(apply)?;
    if let Some(task) = options.task {
        opened.file.task = task.into();
    }
    if opened.file.task == Application::Embed {
        opened.file = opened.file.with_embed_settings(&opened.folder.path)?;
    }
    let task = opened.file.task;
    let mut examples = Examples::of(task, &records, &columns)?;
    examples.truncate(options.examples_at_most.unwrap_or(usize::MAX));
    let settings = GenerationSettings::of(&opened.folder, opened.model.dimensions().vocabulary)?;
    let sizes = WriterOptions {
        longest: opened.longest(),
        longest_answer: options
            .max_tokens
            .or(opened.file.answer)
            .or_else(|| settings.most_new_tokens(1))
            .unwrap_or(128),
        beams: settings.beams.unwrap_or(1),
        length_penalty: settings.length_penalty.unwrap_or(1.0),
        ..WriterOptions::default()
    };
    let (gpu, model) = (&opened.device.gpu, opened.model.clone());
    let mut judge = Judge::new(gpu, model, &opened.weights, (&opened.tokenizer, &opened.file), sizes)?;
    let verdict = with_progress(examples.len(), "examples", |done| judge.judge(&examples, done))?;
    if let Some(path) = &options.html {
        let title = format!("{} · {}", apply.model.display(), task.name());
        write_atomic(path, page(&title, examples.len(), &verdict).as_bytes())?;
    }
    if options.common.json {
        print_json(&as_json(task.name(), examples.len(), &verdict))?;
        return Ok(ExitCode::SUCCESS);
    }
    outln!("{} by {} examples", task.name(), examples.len())?;
    for (name, value) in &verdict.metrics {
        outln!("{name:<22} {value:.4}")?;
    }
    if !verdict.classes.is_empty() {
        let mut rows = table(&["class", "precision", "recall", "F1", "examples"]);
        for class in &verdict.classes {
            let of = |value: f64| format!("{value:.4}");
            let scores = class.scores;
            rows.add_row([
                class.class.clone(),
                of(scores.precision),
                of(scores.recall),
                of(scores.f1),
                class.support.to_string(),
            ]);
        }
        outln!("{rows}")?;
    }
    if let Some(path) = &options.html {
        outln!("page  {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(task: &str, examples: usize, verdict: &Verdict) -> serde_json::Value {
    let metrics: serde_json::Map<_, _> =
        verdict.metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let class = |class: &crate::tasks::apply::ClassScores| {
        let scores = class.scores;
        json!({
            "class": class.class, "precision": scores.precision, "recall": scores.recall, "f1": scores.f1,
            "examples": class.support,
        })
    };
    let case =
        |case: &Case| json!({"input": case.input, "wanted": case.wanted, "said": case.said, "right": case.right});
    json!({
        "task": task, "examples": examples, "metrics": metrics, "main": verdict.main().0,
        "classes": verdict.classes.iter().map(class).collect::<Vec<_>>(), "confusion": verdict.confusion,
        "cases": verdict.cases.iter().map(case).collect::<Vec<_>>(),
    })
}

/// The page of a verdict.
fn page(title: &str, examples: usize, verdict: &Verdict) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}\ntd.text {{ text-align: left; white-space: pre-wrap; max-width: 420px; }}\n\
         tr.wrong td {{ background: #fdf1e7; }}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>{examples} examples</p>\n<div class=\"figures\">\n",
        title = escape(title),
    );
    for (name, value) in &verdict.metrics {
        let _ = writeln!(page, "<div><b>{value:.4}</b><span>{}</span></div>", escape(name));
    }
    page += "</div>\n";
    if !verdict.classes.is_empty() {
        let mut rows = String::from(
            "<table>\n<tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>examples</th></tr>\n",
        );
        for class in &verdict.classes {
            let (name, scores) = (escape(&class.class), class.scores);
            let _ = writeln!(
                rows,
                "<tr><td>{name}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td><td>{}</td></tr>",
                scores.precision, scores.recall, scores.f1, class.support
            );
        }
        section(&mut page, "Classes", "", &(rows + "</table>"));
    }
    if !verdict.confusion.is_empty() {
        section(&mut page, "Confusion", "Rows are what is true, columns what the model says.", &confusion(verdict));
    }
    let wrong = verdict.cases.iter().filter(|case| !case.right).count();
    let mut cases: Vec<&Case> = verdict.cases.iter().collect();
    cases.sort_by_key(|case| case.right);
    let mut rows = String::from("<div class=\"scroll\"><table>\n<tr><th>text</th><th>wanted</th><th>said</th></tr>\n");
    for case in cases.into_iter().take(SHOWN) {
        let class = if case.right { "" } else { " class=\"wrong\"" };
        let _ = write!(rows, "<tr{class}>");
        for text in [&case.input, &case.wanted, &case.said] {
            let _ = write!(rows, "<td class=\"text\">{}</td>", escape(text));
        }
        rows += "</tr>\n";
    }
    let text = format!("{wrong} of {} are wrong; they come first, up to {SHOWN} in all.", verdict.cases.len());
    section(&mut page, "Examples", &text, &(rows + "</table></div>"));
    page + "</main>\n</body>\n</html>\n"
}

/// The table of true and predicted classes, darker where there are more of a row.
fn confusion(verdict: &Verdict) -> String {
    let mut rows = String::from("<div class=\"scroll\"><table>\n<tr><th></th>");
    for class in &verdict.classes {
        let _ = write!(rows, "<th>{}</th>", escape(&class.class));
    }
    rows += "</tr>\n";
    for (class, counts) in verdict.classes.iter().zip(&verdict.confusion) {
        let all: u64 = counts.iter().sum();
        let _ = write!(rows, "<tr><td>{}</td>", escape(&class.class));
        for count in counts {
            let share = *count as f64 / all.max(1) as f64;
            let colour = if share > 0.6 { "#fff" } else { "#262b33" };
            let _ = write!(rows, "<td style=\"background:rgba(31,95,168,{share:.2});color:{colour}\">{count}</td>");
        }
        rows += "</tr>\n";
    }
    rows + "</table></div>"
}

/// That a model was trained for a task which is judged by examples.
pub(super) fn is_judged(apply: &ApplyArgs) -> Result<bool> {
    use Application::{Answer, Classify, Coref, Embed, Tag};
    let place = [apply.lora.as_deref(), Some(apply.model.as_path())].into_iter().flatten();
    let Some(folder) = place.into_iter().find(|folder| folder.join(crate::io::TASK).exists()) else { return Ok(false) };
    let value = crate::io::read_json(folder.join(crate::io::TASK).as_path())?;
    let file: crate::tasks::apply::TaskFile = serde_json::from_value(value)
        .map_err(|e| Error::format(folder.join(crate::io::TASK), format!("is not one that this version reads: {e}")))?;
    Ok(matches!(file.task, Classify | Tag | Answer | Coref | Embed) || file.task.writes())
}
