//! `wgformer eval`: measures loss and perplexity on text.

use super::args::{ApplyArgs, Bos, EvalArgs};
use super::device::Device;
use super::progress::{EVERY, Progress};
use super::{model, outln, print_json, read_texts, verdict};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::io::Tokenizer;
use crate::models::{self, Model};
use crate::program::Program;
use crate::tasks::{TaskObjective, TextTask, held_out_for};
use crate::train::{HeldOut, Objective, check_tokens, in_order_after};
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

pub(super) fn run(options: &EvalArgs) -> Result<ExitCode> {
    let apply = ApplyArgs {
        common: options.common.clone(),
        model: options.model.clone(),
        context: options.context,
        lora: options.lora.clone(),
        dtype: options.dtype,
        ..ApplyArgs::default()
    };
    if options.task.is_some() || verdict::is_judged(&apply)? {
        return verdict::run(options, &apply);
    }
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let folder = model::opened(&options.model, options.lora.as_deref())?;
    let (model, weights) = models::load_model(&gpu, &folder, options.dtype.map(DType::from))?;
    let model: Arc<dyn Model> = model.into();
    let tokenizer = folder.expect_tokenizer()?;
    let tokens = tokenizer.encode(&read_texts(&options.data)?)?;
    let longest = model.dimensions().max_position;
    let context = options.context.unwrap_or(longest.min(1024));
    if context == 0 || context > longest {
        return Err(Error::input("context", format!("it must be 1 to {longest} (the model's maximum), got {context}")));
    }
    let objective = TaskObjective::on_text(model.clone(), options.batch, context)?;
    let task = TextTask::of(model.as_ref(), tokenizer.special("mask"))?;
    let prefix = match task {
        TextTask::Next => prefix(options.bos, tokenizer)?,
        _ if options.bos == Bos::Always => {
            return Err(Error::input("bos", "only for models that continue texts: leave out --bos always"));
        }
        _ => Vec::new(),
    };
    check_tokens(&tokens, model.dimensions().vocabulary)?;
    check_tokens(&prefix, model.dimensions().vocabulary)?;
    let mut g = Graph::with_storage(weights.storage());
    let loss = objective.loss(&mut g, false)?;
    g.output("loss", loss)?;
    let program = Program::new(&gpu, &g, &weights)?;

    let windows = in_order_after(&prefix, &tokens, options.batch, context)?;
    let mut batches = held_out_for(task, &windows);
    batches.truncate(options.batches.unwrap_or(usize::MAX));
    // Only next tokens are predicted in an incomplete batch.
    let measured = windows.iter().take(batches.len());
    let padding: usize = measured.map(|window| if task == TextTask::Next { window.padding() } else { 0 }).sum();
    let padding = padding as f64 / (batches.len() * options.batch * context).max(1) as f64;
    let bar = Progress::new(batches.len() as u64, "batches", EVERY);
    bar.set_message("measuring");
    let (start, mut sum, mut counted) = (Instant::now(), 0.0, 0);
    for HeldOut { feeds, weight } in &batches {
        for (name, bytes) in feeds {
            program.write(name, bytes)?;
        }
        program.run()?;
        sum += f64::from(program.read_f32("loss")?[0]) * weight;
        counted += *weight as usize;
        bar.inc();
        bar.set_message(format!("loss {:.4}", sum / counted.max(1) as f64));
    }
    bar.finish();
    if counted == 0 {
        let least = if task == TextTask::Next { 2 } else { options.batch * context };
        let message = format!("the text has {} tokens, and {least} are needed to predict any", tokens.len());
        return Err(Error::input("data", message));
    }
    let (loss, seconds) = (sum / counted as f64, start.elapsed().as_secs_f64());
    if !loss.is_finite() {
        let message = format!("it is {loss}: the weights are damaged, or too large for their storage type (--dtype)");
        return Err(Error::NonFinite { what: "the loss".into(), message });
    }
    let rate = counted as f64 / seconds;
    if options.common.json {
        let prefix: Vec<String> = prefix.iter().filter_map(|&id| tokenizer.token(id)).collect();
        print_json(&json!({
            "loss": loss, "perplexity": loss.exp(), "tokens": counted, "tokens_per_second": rate, "prefix": prefix,
            "padding": padding,
        }))?;
    } else {
        let what = match task {
            TextTask::Next => "",
            TextTask::Masked { .. } => " behind masks",
            TextTask::Continued { .. } => " of the second halves of windows",
        };
        let perplexity = loss.exp();
        outln!(
            "loss {loss:.4} nats per token, perplexity {perplexity:.2}, over {counted} tokens{what} ({rate:.0} tokens/s)"
        )?;
        if padding >= 0.005 {
            outln!(
                "{:.1} % of the positions are padding: the text fills its last batch in part (--batch)",
                100.0 * padding
            )?;
        }
        let prefix: String = prefix.iter().filter_map(|&id| tokenizer.token(id)).collect();
        if !prefix.is_empty() {
            outln!("each window of {context} tokens begins with {prefix}; training measures without it (--bos never)")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The special tokens at the beginning of each window.
fn prefix(bos: Bos, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let usual = tokenizer.prefix().to_vec();
    match bos {
        Bos::Never => Ok(Vec::new()),
        Bos::Auto => Ok(usual),
        Bos::Always if !usual.is_empty() => Ok(usual),
        Bos::Always => tokenizer
            .bos()
            .map(|bos| vec![bos])
            .ok_or_else(|| Error::input("bos", "the tokenizer has no BOS token: leave out --bos always")),
    }
}
