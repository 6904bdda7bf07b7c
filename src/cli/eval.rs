//! `wgformer eval`: measures loss and perplexity on text.

use super::args::{Bos, EvalArgs};
use super::device::Device;
use super::model::continues_texts;
use super::progress::{EVERY, Progress};
use super::{outln, print_json, read_texts};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::io::{ModelFolder, Tokenizer};
use crate::models::{self, TokenInputs};
use crate::ops::CrossEntropyOptions;
use crate::program::Program;
use crate::train::{check_tokens, in_order_after};
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

pub(super) fn run(options: &EvalArgs) -> Result<ExitCode> {
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let folder = ModelFolder::open(&options.model)?;
    let (model, weights) = models::load(&gpu, &folder, options.dtype.map(DType::from))?;
    continues_texts(model.as_ref())?;
    let tokenizer = folder.expect_tokenizer()?;
    let tokens = tokenizer.encode(&read_texts(&options.data)?)?;
    check_tokens(&tokens, model.dimensions().vocabulary)?;
    let prefix = prefix(options.bos, tokenizer)?;
    check_tokens(&prefix, model.dimensions().vocabulary)?;
    let longest = model.dimensions().max_position;
    let context = options.context.unwrap_or(longest.min(1024));
    if context == 0 || context > longest {
        return Err(Error::input("context", format!("it must be 1 to {longest} (the model's maximum), got {context}")));
    }
    let mut g = Graph::with_storage(weights.storage());
    let ids = g.input("ids", [options.batch, context], DType::U32)?;
    let labels = g.input("labels", [options.batch, context], DType::I32)?;
    let inputs = TokenInputs::new(&mut g, ids)?;
    let hidden = model.decode(&mut g, &inputs)?.states;
    let loss = model.loss_of(&mut g, hidden, labels, &CrossEntropyOptions::default())?;
    g.output("loss", loss)?;
    let program = Program::new(&gpu, &g, &weights)?;

    let mut batches = in_order_after(&prefix, &tokens, options.batch, context)?;
    batches.truncate(options.batches.unwrap_or(usize::MAX));
    let bar = Progress::new(batches.len() as u64, "batches", EVERY);
    bar.set_message("measuring");
    let (start, mut sum, mut counted) = (Instant::now(), 0.0, 0);
    for batch in &batches {
        program.write("ids", bytemuck::cast_slice(&batch.inputs))?;
        program.write("labels", bytemuck::cast_slice(&batch.labels))?;
        program.run()?;
        sum += f64::from(program.read_f32("loss")?[0]) * batch.counted() as f64;
        counted += batch.counted();
        bar.inc();
        bar.set_message(format!("loss {:.4}", sum / counted.max(1) as f64));
    }
    bar.finish();
    if counted == 0 {
        return Err(Error::input("data", "the text has fewer than two tokens: there is nothing to predict"));
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
        }))?;
    } else {
        outln!(
            "loss {loss:.4} nats per token, perplexity {:.2}, over {counted} tokens ({rate:.0} tokens/s)",
            loss.exp()
        )?;
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
