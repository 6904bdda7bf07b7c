//! `wgformer generate` with beams.

use super::args::GenerateArgs;
use super::device::Device;
use super::generate::{QUIET, Times};
use super::progress::Lines;
use super::{output, print_json};
use crate::error::{Error, Result};
use crate::generate::{Answer, BeamOptions, BeamSearch, GenerationSettings, SamplingOptions, ScoredAnswer};
use serde_json::json;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What is answered.
pub(super) struct Texts<'a> {
    pub(super) prompts: &'a [String],
    pub(super) ids: &'a [Vec<u32>],
    /// Answers continue their prompts, which are printed in front.
    pub(super) continues: bool,
}

/// The candidates of a row where beams are drawn and nothing says how many: those of transformers.
pub(super) const DRAWN_FROM: usize = 50;

/// Whether an option of sampling is given.
pub(super) fn samples(options: &GenerateArgs) -> bool {
    options.temperature.is_some() || options.top_k.is_some() || options.top_p.is_some() || options.min_p.is_some()
}

/// The options of beam search, if the command or the model's file asks for it, and those that the file gives, as text.
pub(super) fn options(options: &GenerateArgs, file: &GenerationSettings) -> Result<Option<(BeamOptions, Vec<String>)>> {
    let sampled = samples(options);
    let by_file = file.beams.filter(|_| !options.greedy && !sampled);
    let Some(beams) = options.beams.or(by_file).filter(|beams| *beams > 1) else {
        let given = [
            ("--length-penalty", options.length_penalty.is_some()),
            ("--early-stopping", options.early_stopping.is_some()),
            ("--best", options.best.is_some()),
        ];
        return match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                Err(Error::input(*name, "it is an option of beam search: give --beams as well, at least 2"))
            }
            None => Ok(None),
        };
    };
    // Beams that only the file asks for are drawn if it says so.
    let drawn = sampled || options.beams.is_none() && file.do_sample == Some(true);
    let found = BeamOptions { drawn, ..file.beam_options(beams) };
    let mut words = Vec::new();
    let mut say = |counts: bool, word: String| {
        if counts {
            words.push(word);
        }
    };
    say(options.beams.is_none(), format!("num_beams {beams}"));
    say(options.beams.is_none() && drawn, "do_sample (beams are drawn)".to_owned());
    let (length_penalty, answers) = (file.length_penalty.is_some(), file.answers.is_some());
    say(options.length_penalty.is_none() && length_penalty, format!("length_penalty {}", found.length_penalty));
    say(options.best.is_none() && answers, format!("num_return_sequences {}", found.answers));
    say(options.early_stopping.is_none() && file.early_stopping.is_some(), "early_stopping".to_owned());
    let beams = BeamOptions {
        length_penalty: options.length_penalty.unwrap_or(found.length_penalty),
        early_stopping: options.early_stopping.map_or(found.early_stopping, Into::into),
        answers: options.best.unwrap_or(found.answers),
        ..found
    };
    Ok(Some((beams, words)))
}

/// Searches and prints the answers.
pub(super) fn run(
    mut search: BeamSearch,
    sampling: &SamplingOptions,
    texts: &Texts<'_>,
    device: &Device,
    in_json: bool,
) -> Result<ExitCode> {
    let prompt_tokens: usize = texts.ids.iter().map(Vec::len).sum();
    let made = Arc::new(AtomicUsize::new(0));
    let (seen, most) = (made.clone(), sampling.max_new_tokens);
    let lines = Lines::start(QUIET, move |elapsed| {
        let (made, seconds) = (seen.load(Ordering::Relaxed), elapsed.as_secs_f64());
        if made == 0 {
            return format!("[reading {prompt_tokens} tokens of prompt, {seconds:.0} s so far]");
        }
        let (rate, left) = (made as f64 / seconds, (most - made.min(most)) as f64 * seconds / made as f64);
        format!("[{made} of at most {most} tokens, {rate:.1} a second, at most {left:.0} s to go]")
    });
    search.prepare(texts.ids.iter().map(Vec::len).max().unwrap_or(1), sampling)?;
    let (start, mut read) = (Instant::now(), None);
    let found = search.search(texts.ids, sampling, |count| {
        read.get_or_insert_with(|| start.elapsed());
        made.store(count, Ordering::Relaxed);
        ControlFlow::Continue(())
    })?;
    drop(lines);
    let total = start.elapsed();
    let best: Vec<Answer> = found.iter().filter_map(|found| Some(found.first()?.answer.clone())).collect();
    let times = Times::new(&best, prompt_tokens, read.unwrap_or(Duration::ZERO), total);
    let each = || texts.prompts.iter().zip(texts.ids).zip(&found);
    if in_json {
        let entry = |prompt: &String, ids: &Vec<u32>, ScoredAnswer { answer, score }: &ScoredAnswer| {
            json!({
                "prompt": prompt, "prompt_tokens": ids.len(), "text": answer.text, "tokens": answer.tokens,
                "finish": answer.finish.name(), "score": score,
            })
        };
        let answers = each().flat_map(|((prompt, ids), found)| found.iter().map(move |one| entry(prompt, ids, one)));
        print_json(&times.with(answers.collect()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let single = found.iter().map(Vec::len).sum::<usize>() == 1;
    for ((prompt, _), found) in each() {
        for ScoredAnswer { answer, score } in found {
            let text = answer.text.as_deref().unwrap_or_default();
            let prompt = if texts.continues { prompt.as_str() } else { "" };
            match single {
                true => output::print(format_args!("{prompt}{text}"))?,
                false => output::print(format_args!("{prompt}{text}\n--- {score:.4}\n"))?,
            }
        }
    }
    output::note(format_args!("\n[{times}, on {}]", device.gpu.info().name));
    Ok(ExitCode::SUCCESS)
}
