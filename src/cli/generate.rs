//! `wgformer generate`: continue prompts.

use super::args::GenerateArgs;
use super::device::Device;
use super::{print_json, say};
use crate::dtype::DType;
use crate::error::Result;
use crate::generate::{Finish, GenerateLimits, Generator, SamplingOptions};
use crate::io::{ModelFolder, TextStream};
use crate::models;
use serde_json::json;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

pub(super) fn run(options: &GenerateArgs) -> Result<ExitCode> {
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let folder = ModelFolder::open(&options.model)?;
    let tokenizer = Arc::new(folder.expect_tokenizer()?.clone());
    let (model, weights) = models::load(&gpu, &folder, options.dtype.map(DType::from))?;
    // With what the model was trained to see in front of a text.
    let encode = |text: &String| tokenizer.encode_for_model(text, None).map(|encoding| encoding.ids);
    let prompts = options.prompt.iter().map(encode).collect::<Result<Vec<_>>>()?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let room = model.dimensions().positions;
    let limits = GenerateLimits { batch: prompts.len(), max_tokens: (longest + options.max_tokens).min(room) };
    let mut sampling = sampling(options);
    sampling.end =
        models::end_tokens(folder.generation.as_ref().unwrap_or(&folder.config), model.dimensions().vocabulary)?;
    let text_of = tokenizer.clone();
    let mut generator = Generator::new(&gpu, model.into(), &weights, limits)?
        .with_text(Arc::new(move |tokens: &[u32]| text_of.decode(tokens)));
    let start = Instant::now();
    let stream_text = prompts.len() == 1 && !options.common.json && options.stop.is_empty();
    let mut stream = tokenizer.stream();
    // The prompt goes in front of its first token, when nothing is wrong with it.
    let mut prompt = options.prompt.first().filter(|_| stream_text);
    let mut failed = None;
    let answers = generator.generate(&prompts, &sampling, |token| {
        let ended = token.finish == Some(Finish::End);
        let shown = match (prompt.take(), stream_text && !ended) {
            (Some(prompt), true) => {
                say::print(format_args!("{prompt}")).and_then(|()| show_token(&mut stream, token.id))
            }
            (Some(prompt), false) => say::print(format_args!("{prompt}")),
            (None, true) => show_token(&mut stream, token.id),
            (None, false) => Ok(()),
        };
        match shown {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    // An answer may end inside a character.
    if let Some(rest) = stream.finish()? {
        say::print(format_args!("{rest}"))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let tokens: usize = answers.iter().map(|a| a.tokens.len()).sum();
    let texts: Vec<&str> = answers.iter().map(|a| a.text.as_deref().unwrap_or_default()).collect();
    if options.common.json {
        let answers: Vec<_> = (options.prompt.iter().zip(&answers).zip(&texts))
            .map(|((prompt, answer), text)| {
                json!({ "prompt": prompt, "text": text, "tokens": answer.tokens, "finish": format!("{:?}", answer.finish) })
            })
            .collect();
        print_json(&json!({ "answers": answers, "seconds": seconds, "tokens_per_second": tokens as f64 / seconds }))?;
    } else {
        if !stream_text {
            for (prompt, text) in options.prompt.iter().zip(&texts) {
                say::print(format_args!("{prompt}{text}\n---\n"))?;
            }
        }
        say::tell(format_args!(
            "\n[{tokens} tokens in {seconds:.1} s, {:.1} tokens/s on {}]",
            tokens as f64 / seconds,
            gpu.info().name
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn sampling(options: &GenerateArgs) -> SamplingOptions {
    SamplingOptions {
        max_new_tokens: options.max_tokens,
        temperature: if options.greedy { 0.0 } else { options.temperature },
        top_k: options.top_k.unwrap_or(0),
        top_p: options.top_p.unwrap_or(1.0),
        min_p: options.min_p.unwrap_or(0.0),
        repetition_penalty: options.repetition_penalty,
        seed: options.seed,
        stop: options.stop.clone(),
        ..SamplingOptions::default()
    }
}

fn show_token(stream: &mut TextStream, id: u32) -> Result<()> {
    match stream.push(id)? {
        Some(text) => say::print(format_args!("{text}")),
        None => Ok(()),
    }
}
