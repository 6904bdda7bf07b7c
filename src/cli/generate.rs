//! `wgformer generate`: continues prompts.

use super::args::GenerateArgs;
use super::device::Device;
use super::progress::Lines;
use super::{beams, chat, model, output, print_json, prompts};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::generate::{
    Answer, BeamSearch, Finish, GenerateLimits, GenerationSettings, Generator, SamplingOptions, TokenRules,
};
use crate::io::{ModelFolder, Tokenizer};
use crate::models;
use serde_json::json;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The most tokens of an answer if neither the options nor the model set it.
const TOKENS: usize = 200;
/// The temperature if neither the options nor the model set it.
const TEMPERATURE: f32 = 0.8;
/// The time after which reading prompts prints a note.
pub(super) const QUIET: Duration = Duration::from_secs(5);

pub(super) fn run(options: &GenerateArgs) -> Result<ExitCode> {
    let prompts = prompts::read(options)?;
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let folder = model::opened(&options.model, options.lora.as_deref())?;
    let tokenizer = folder.expect_tokenizer()?.clone();
    let (model, weights) = models::load(&gpu, &folder, options.dtype.map(DType::from))?;
    let weights = weights.with_cache(options.cache.into());
    let answers_alone = model.encoder().is_some();
    let ids = chat::encode(options, &tokenizer, &prompts, answers_alone)?;
    let settings = GenerationSettings::of(&folder, model.dimensions().vocabulary)?;
    refuse_other_ways(&settings, &folder)?;
    let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
    // The token that a decoder begins with is one of its answer's length.
    let (mut sampling, mut from_file) = sampling(options, &settings, if answers_alone { 1 } else { longest });
    let file = folder.generation.as_ref().unwrap_or(&folder.config).source().file_name().unwrap_or_default();
    let file = file.to_string_lossy();
    add_stops(&mut sampling, &tokenizer, options, &settings)?;
    let asked = beams::options(options, &settings)?;
    if let Some((beams, words)) = &asked {
        if !beams.drawn {
            // How tokens are drawn is of no consequence.
            from_file
                .retain(|word| !["do_sample", "temperature", "top_", "min_p"].iter().any(|key| word.starts_with(key)));
        } else if sampling.top_k == 0 && options.top_k.is_none() {
            sampling.top_k = beams::DRAWN_FROM;
        }
        from_file.extend(words.iter().cloned());
    } else if let Some(answers) = settings.answers.filter(|answers| *answers > 1) {
        log::warn!("{file}: num_return_sequences is {answers}, but without beams there is one answer to a prompt");
    }
    if !from_file.is_empty() {
        output::note(format_args!("{file}: {} (options override)", from_file.join(", ")));
    }
    if !settings.ignored.is_empty() {
        log::warn!("{file} has settings that are left out: {}", settings.ignored.join(", "));
    }

    let room = model.dimensions().max_position;
    let answer = sampling.max_new_tokens.saturating_add(1);
    let max_tokens = if answers_alone { longest.max(answer) } else { longest.saturating_add(answer - 1) }.min(room);
    let limits = GenerateLimits { batch: ids.len(), max_tokens };
    if let Some((beams, _)) = asked {
        let search = BeamSearch::new(&gpu, model.into(), &weights, limits, beams)?.with_text(tokenizer.text_of());
        let texts = beams::Texts { prompts: &prompts, ids: &ids, continues: !options.chat && !answers_alone };
        return beams::run(search, &sampling, &texts, &device, options.common.json);
    }
    let generator = Generator::new(&gpu, model.into(), &weights, limits)?.with_text(tokenizer.text_of());
    let mut generator = generator.with_lookup(options.lookup);
    let prompt_tokens: usize = ids.iter().map(Vec::len).sum();
    let mut waiting = Some(Lines::start(QUIET, move |elapsed| {
        format!("[reading {prompt_tokens} tokens of prompt, {} s so far]", elapsed.as_secs())
    }));
    if longest < max_tokens {
        generator.prepare(longest, &sampling)?;
    }
    let start = Instant::now();
    let mut read = None;
    let stream_text = prompts.len() == 1 && !options.common.json;
    // The prompt is printed with the first token, when the model has accepted it.
    let continues = !options.chat && !answers_alone;
    let mut prompt = prompts.first().filter(|_| stream_text && continues).map(String::as_str);
    let mut failed = None;
    let answers = generator.generate(&ids, &sampling, |token| {
        read.get_or_insert_with(|| start.elapsed());
        waiting = None;
        let prompt = prompt.take().unwrap_or_default();
        if !stream_text || prompt.is_empty() && token.text.is_empty() {
            return ControlFlow::Continue(());
        }
        match output::print(format_args!("{prompt}{}", token.text)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    drop(waiting);
    if let Some(error) = failed {
        return Err(error);
    }
    let total = start.elapsed();
    let times = Times::new(&answers, prompt_tokens, read.unwrap_or(total), total);
    if options.common.json {
        let answers: Vec<_> = (prompts.iter().zip(&ids).zip(&answers))
            .map(|((prompt, ids), answer)| {
                json!({
                    "prompt": prompt, "prompt_tokens": ids.len(), "text": answer.text, "tokens": answer.tokens,
                    "finish": answer.finish.name(),
                })
            })
            .collect();
        print_json(&times.with(answers))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !stream_text {
        for (prompt, answer) in prompts.iter().zip(&answers) {
            let between = if continues { "" } else { "\n" };
            let text = answer.text.as_deref().unwrap_or_default();
            output::print(format_args!("{prompt}{between}{text}\n---\n"))?;
        }
    }
    output::note(format_args!("\n[{times}, on {}]", gpu.info().name));
    let cut = answers.iter().filter(|answer| answer.finish == Finish::Context).count();
    if cut > 0 {
        let which = if answers.len() == 1 { "the answer ends".into() } else { format!("{cut} answers end") };
        output::note(format_args!("[the context of {room} tokens is full: {which} there]"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses a model whose file asks for a way of decoding that is not supported.
pub(super) fn refuse_other_ways(settings: &GenerationSettings, folder: &ModelFolder) -> Result<()> {
    if !settings.unsupported.is_empty() {
        let source = folder.generation.as_ref().unwrap_or(&folder.config).source();
        let message = format!(
            "asks for a way of generating that is not supported: {}; answers would be others. Take that out of the file to generate without it",
            settings.unsupported.join(", ")
        );
        return Err(Error::format(source, message));
    }
    Ok(())
}

/// The sampling options: from the command line, else from the model's file, whose `max_length` counts `given` tokens in front of an answer; and
/// the settings taken from the file, as text.
pub(super) fn sampling(
    options: &GenerateArgs,
    file: &GenerationSettings,
    given: usize,
) -> (SamplingOptions, Vec<String>) {
    let mut words = Vec::new();
    // An option of sampling implies sampling.
    let sampled = beams::samples(options);
    let greedy_by_file = !options.greedy && !sampled && file.do_sample == Some(false);
    if greedy_by_file {
        words.push("do_sample false (greedy)".to_owned());
    }
    let greedy = options.greedy || greedy_by_file;
    let mut choose =
        |name: &str, option: Option<f32>, file: Option<f32>, default: f32, counts: bool| match (option, file) {
            (Some(value), _) => value,
            (None, Some(value)) if counts => {
                words.push(format!("{name} {value}"));
                value
            }
            _ => default,
        };
    let temperature = choose("temperature", options.temperature, file.temperature, TEMPERATURE, !greedy);
    let top_p = choose("top_p", options.top_p, file.top_p, 1.0, !greedy);
    let min_p = choose("min_p", options.min_p, file.min_p, 0.0, !greedy);
    let penalty = choose("repetition_penalty", options.repetition_penalty, file.repetition_penalty, 1.0, true);
    let mut count =
        |name: &str, option: Option<usize>, file: Option<usize>, default: usize, counts: bool| match (option, file) {
            (Some(value), _) => value,
            (None, Some(value)) if counts => {
                words.push(format!("{name} {value}"));
                value
            }
            _ => default,
        };
    let top_k = count("top_k", options.top_k, file.top_k, 0, !greedy);
    let limit = options.max_tokens.is_none() && file.max_new_tokens.is_none();
    let max_length = file.max_length.filter(|_| limit);
    let room = max_length.map(|length| length.saturating_sub(given)).filter(|&room| room > 0);
    let default = room.unwrap_or(TOKENS);
    let max_new_tokens = count("max_new_tokens", options.max_tokens, file.max_new_tokens, default, true);
    match (max_length, room) {
        (Some(length), Some(_)) => words.push(format!("max_length {length}")),
        (Some(length), None) => {
            log::warn!("max_length {length} of the model's file leaves no room after {given} tokens: it is ignored");
        }
        _ => (),
    }
    let mut rules = file.rules_behind(given);
    if let Some(size) = options.no_repeat_ngram {
        rules.no_repeat_ngram = size;
    }
    if file.rules != TokenRules::default() {
        words.push("rules for single tokens".to_owned());
    }
    let sampling = SamplingOptions {
        max_new_tokens,
        temperature: if greedy { 0.0 } else { temperature },
        top_k,
        top_p,
        min_p,
        repetition_penalty: penalty,
        renormalise: file.renormalise.unwrap_or(false),
        seed: options.seed,
        end: file.end.clone(),
        rules,
        ..SamplingOptions::default()
    };
    (sampling, words)
}

/// Adds the stop texts of the command line, and those of the model's file that can be matched.
pub(super) fn add_stops(
    sampling: &mut SamplingOptions,
    tokenizer: &Tokenizer,
    options: &GenerateArgs,
    file: &GenerationSettings,
) -> Result<()> {
    options.stop.iter().try_for_each(|stop| sampling.add_stop(stop, tokenizer))?;
    for stop in &file.stop {
        if sampling.add_stop(stop, tokenizer).is_err() {
            log::warn!("generation_config.json: the stop text {stop:?} mixes text and special tokens and is ignored");
        }
    }
    Ok(())
}

/// The times of prompts and answers.
pub(super) struct Times {
    prompt_tokens: usize,
    prompt_seconds: f64,
    answer_tokens: usize,
    /// Tokens without the first of each answer, which comes from reading the prompt.
    further_tokens: usize,
    further_seconds: f64,
}

impl Times {
    pub(super) fn new(answers: &[Answer], prompt_tokens: usize, read: Duration, total: Duration) -> Self {
        Self {
            prompt_tokens,
            prompt_seconds: read.as_secs_f64(),
            answer_tokens: answers.iter().map(|answer| answer.tokens.len()).sum(),
            further_tokens: answers.iter().map(|answer| answer.tokens.len().saturating_sub(1)).sum(),
            further_seconds: total.saturating_sub(read).as_secs_f64(),
        }
    }

    fn prompt_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prompt_seconds.max(1e-9)
    }

    fn answer_rate(&self) -> Option<f64> {
        (self.further_tokens > 0).then(|| self.further_tokens as f64 / self.further_seconds.max(1e-9))
    }

    pub(super) fn with(&self, answers: Vec<serde_json::Value>) -> serde_json::Value {
        let seconds = self.prompt_seconds + self.further_seconds;
        json!({
            "answers": answers,
            "seconds": seconds,
            "tokens_per_second": self.answer_tokens as f64 / seconds.max(1e-9),
            "prompt": { "tokens": self.prompt_tokens, "seconds": self.prompt_seconds, "tokens_per_second": self.prompt_rate() },
            "answer": {
                "tokens": self.answer_tokens, "seconds": self.further_seconds, "tokens_per_second": self.answer_rate(),
            },
        })
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { prompt_tokens, prompt_seconds, answer_tokens, further_seconds, .. } = self;
        write!(f, "prompt: {prompt_tokens} tokens in {prompt_seconds:.1} s, {:.1} tokens/s; ", self.prompt_rate())?;
        write!(f, "answer: {answer_tokens} tokens in {further_seconds:.1} s")?;
        self.answer_rate().map_or(Ok(()), |rate| write!(f, ", {rate:.1} tokens/s"))
    }
}
