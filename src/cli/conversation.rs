//! `wgformer chat`: a conversation.

use super::args::{ChatArgs, GenerateArgs};
use super::device::Device;
use super::generate::{QUIET, add_stops, sampling};
use super::progress::Lines;
use super::{chat, model, outln, output};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::generate::{GenerateLimits, GenerationSettings, Generator};
use crate::io::write_atomic;
use crate::models;
use crate::tasks::apply::{Dialogue, Turn};
use serde_json::json;
use std::io::{BufRead, IsTerminal};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

/// The most tokens of a conversation if nothing says how many.
const CONTEXT: usize = 2048;
const HELP: &str = "/system TEXT sets the system message, /undo takes the last question back, /reset begins anew, /help says this, /quit or Ctrl-D ends";

pub(super) fn run(options: &ChatArgs) -> Result<ExitCode> {
    let device = Device::open(&options.common)?;
    let folder = model::opened(&options.model, options.lora.as_deref())?;
    let tokenizer = folder.expect_tokenizer()?.clone();
    let template = chat::template(&tokenizer)?;
    let (decoder, weights) = models::load(&device.gpu, &folder, options.dtype.map(DType::from))?;
    let weights = weights.with_cache(options.cache.into());
    if decoder.encoder().is_some() {
        return Err(Error::input("model", "it answers texts one by one: use wgformer transform"));
    }
    let turns = match &options.history {
        Some(path) if path.exists() => earlier(path)?,
        _ => Vec::new(),
    };
    let settings = GenerationSettings::of(&folder, decoder.dimensions().vocabulary)?;
    let args = GenerateArgs {
        max_tokens: options.max_tokens,
        greedy: options.greedy,
        temperature: options.temperature,
        top_p: options.top_p,
        seed: options.seed,
        stop: options.stop.clone(),
        ..GenerateArgs::default()
    };
    let (mut drawing, _) = sampling(&args, &settings, 0);
    add_stops(&mut drawing, &tokenizer, &args, &settings)?;
    let most = decoder.dimensions().max_position;
    let context = options.context.unwrap_or(CONTEXT).min(most);
    let answer = drawing.max_new_tokens.min(context.saturating_sub(1).max(1));
    drawing.max_new_tokens = answer;
    let limits = GenerateLimits { batch: 1, max_tokens: context };
    let generator = Generator::new(&device.gpu, decoder.into(), &weights, limits)?.with_text(tokenizer.text_of());
    let mut generator = generator.with_lookup(options.lookup);
    let mut dialogue = Dialogue::new(template, &tokenizer, turns);
    if let Some(system) = &options.system {
        dialogue.set_system(system);
    }

    let asks = std::io::stdin().is_terminal() && !options.common.json;
    if asks {
        output::note(format_args!("[{HELP}]"));
    }
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if asks {
            output::print(format_args!("\n> "))?;
        }
        let Some(line) = lines.next() else { break };
        let line = line.map_err(|e| Error::file("standard input", e))?;
        let line = line.trim();
        match line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim())) {
            ("", _) => continue,
            ("/quit" | "/exit", _) => break,
            ("/help", _) => {
                output::note(format_args!("[{HELP}]"));
                continue;
            }
            ("/system", text) => {
                dialogue.set_system(text);
                continue;
            }
            ("/undo", _) => {
                dialogue.undo();
                continue;
            }
            ("/reset", _) => {
                dialogue.reset();
                continue;
            }
            _ => dialogue.add("user", line),
        }
        let (ids, dropped) = match dialogue.prompt(context.saturating_sub(answer)) {
            Ok(prompt) => prompt,
            Err(error) => {
                // The conversation goes on without it.
                dialogue.undo();
                output::note(format_args!("error: {error}"));
                continue;
            }
        };
        if dropped > 0 {
            output::note(format_args!(
                "[the context of {context} tokens is full: the oldest {dropped} messages are left out]"
            ));
        }
        let count = ids.len();
        let mut waiting = Some(Lines::start(QUIET, move |elapsed| {
            format!("[reading {count} tokens, {} s so far]", elapsed.as_secs())
        }));
        let mut failed = None;
        let answers = generator.generate(&[ids], &drawing, |token| {
            waiting = None;
            if options.common.json {
                return ControlFlow::Continue(());
            }
            match output::print(format_args!("{}", token.text)) {
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
        let said = answers.first().and_then(|answer| answer.text.clone()).unwrap_or_default();
        match options.common.json {
            true => outln!(
                "{}",
                json!({"role": "assistant", "content": said, "prompt_tokens": count, "left_out": dropped})
            )?,
            false => outln!("")?,
        }
        dialogue.add("assistant", &said);
        if let Some(path) = &options.history {
            keep(path, dialogue.turns())?;
        }
        // Another answer next time, and the same conversation the same answers.
        drawing.seed = drawing.seed.wrapping_add(1);
    }
    Ok(ExitCode::SUCCESS)
}

/// A conversation in JSON lines.
fn earlier(path: &Path) -> Result<Vec<Turn>> {
    let text = crate::io::read_text(path)?;
    let turn = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|e| Error::format(path, format!("line {}: is no message with role and content: {e}", number + 1)))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(turn).collect()
}

fn keep(path: &Path, turns: &[Turn]) -> Result<()> {
    let lines: String = turns.iter().map(|turn| format!("{}\n", json!(turn))).collect();
    write_atomic(path, lines.as_bytes())
}
