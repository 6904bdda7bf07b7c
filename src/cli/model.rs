//! The model of a command line: a folder, or a new model of the given size.

use super::args::{Family, ModelArgs, Sides, StepArgs, StepName};
use super::moe_mor_args;
use super::output::note;
use crate::bench::StepSize;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Storage;
use crate::io::{ADAPTER_CONFIG, Config, FileType, ModelFolder, TensorRef};
use crate::models::{self, Model};
use crate::program::human_count;
use clap::ValueEnum;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// The default context of a new model and of a step.
const CONTEXT: usize = 128;

/// The model of a step, and the storage types of its matrices.
pub(super) fn of_step(options: &StepArgs) -> Result<(Arc<dyn Model>, Storage)> {
    let config = match &options.folder {
        Some(path) if path.is_dir() && !path.join(ADAPTER_CONFIG).exists() => Config::read(path.join("config.json"))?,
        Some(path) if path.extension().is_some_and(|extension| extension == "json") => Config::read(path)?,
        Some(path) => return of_file(&ModelFolder::look_at(path)?, options.step),
        None => new_config(&options.model, None, options.vocabulary, 0.0)?,
    };
    Ok((models::model(&config)?.into(), Storage::default()))
}

/// The model of a folder or file, with the adapter of a folder if one is given.
pub(super) fn opened(path: &Path, adapter: Option<&Path>) -> Result<ModelFolder> {
    let folder = ModelFolder::open(path)?;
    match adapter {
        Some(adapter) => folder.with_adapter(adapter),
        None => Ok(folder),
    }
}

/// A new model of the given size.
pub(super) fn new(options: &ModelArgs, vocabulary: usize, dropout: f64) -> Result<Box<dyn Model>> {
    models::model(&new_config(options, None, vocabulary, dropout)?)
}

/// The `config.json` of a new model, with these sides where the options name none, nor a family.
pub(super) fn new_config(options: &ModelArgs, sides: Option<Sides>, vocabulary: usize, dropout: f64) -> Result<Config> {
    let sides = options.sides.or(sides.filter(|_| options.model.is_none_or(|family| family == Family::Transformer)));
    let config = config(options, sides, vocabulary, dropout)?;
    models::model(&config)?;
    moe_mor_args::check_keys("moe", options.moe.as_deref(), config.value())?;
    moe_mor_args::check_keys("mor", options.mor.as_deref(), config.value())?;
    Ok(config)
}

/// The model of a GGUF file: f32 for training, else stored as in the file, f32 in place of types that are not read.
fn of_file(file: &ModelFolder, step: StepName) -> Result<(Arc<dyn Model>, Storage)> {
    let model = models::model_of(file)?;
    let mut others = file.tensors.iter().filter(|tensor| matches!(tensor.dtype, FileType::Other(_)));
    if let Some(TensorRef { name, dtype, .. }) = others.next() {
        let more = others.count();
        note(format_args!("note: {name} has type {dtype}, which is not read, and so have {more} others; shown as f32"));
    }
    let storage = match step {
        StepName::Train => Storage::default(),
        _ => models::storage_of(model.as_ref(), &file.tensors)?,
    };
    Ok((model.into(), storage))
}

/// The size of the step.
///
/// # Errors
/// [`Error::Input`] if the context exceeds the model's maximum.
pub(super) fn step_size(options: &StepArgs, model: &dyn Model) -> Result<StepSize> {
    let length = context(options.model.context, model.dimensions().max_position)?;
    Ok(StepSize { batch: options.batch, length })
}

/// The given context, or the default within the model's maximum.
///
/// # Errors
/// [`Error::Input`] if it exceeds the model's maximum.
pub(super) fn context(given: Option<usize>, positions: usize) -> Result<usize> {
    match given {
        Some(context) if context > positions => {
            let message = format!("it must be 1 to {positions} (the model's maximum), got {context}");
            Err(Error::input("context", message))
        }
        Some(context) => Ok(context),
        None => Ok(CONTEXT.min(positions)),
    }
}

/// A line that describes the step.
pub(super) fn headline(options: &StepArgs, model: &dyn Model, gpu: &Gpu) -> Result<String> {
    let StepSize { batch, length } = step_size(options, model)?;
    let (parameters, adapter) = (human_count(model.parameter_count()? as u64), &gpu.info().name);
    let step = options.step.to_possible_value().map_or_else(String::new, |step| step.get_name().to_owned());
    Ok(format!("{parameters} parameters; a {step} step, batch {batch}, context {length}, on {adapter}"))
}

/// The `config.json` of a new model.
fn config(options: &ModelArgs, sides: Option<Sides>, vocabulary: usize, dropout: f64) -> Result<Config> {
    let context = options.context.unwrap_or(CONTEXT);
    let moe_or_mor = options.moe.is_some() || options.mor.is_some();
    let family = options.model.unwrap_or(match sides {
        Some(_) => Family::Transformer,
        None if moe_or_mor => Family::Llama,
        None => Family::Gpt2,
    });
    let refused = |option: &str, message: &str| Err(Error::input(option, message));
    match family {
        Family::Gpt2 | Family::Llama if options.sides.is_some() => {
            return refused("sides", "only a transformer has this option: --model transformer");
        }
        Family::Transformer if options.kv_heads.is_some() => {
            return refused("kv-heads", "a transformer has one per head: leave it out, or use --model llama");
        }
        Family::Gpt2 if moe_or_mor => {
            return refused("model", "a gpt2 takes neither --moe nor --mor: leave out --model, or use --model llama");
        }
        Family::Gpt2 if options.kv_heads.is_some() => {
            return refused("kv-heads", "a gpt2 has one per head: leave it out, or use --model llama");
        }
        Family::Llama if !options.width.is_multiple_of(options.heads) => {
            let message = format!("it is {}, but must be a multiple of the {} heads", options.width, options.heads);
            return Err(Error::input("width", message));
        }
        _ => (),
    }
    let mut value = match family {
        Family::Gpt2 => json!({
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": vocabulary,
            "n_positions": context,
            "n_embd": options.width,
            "n_layer": options.layers,
            "n_head": options.heads,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "embd_pdrop": dropout,
            "resid_pdrop": dropout,
            "attn_pdrop": dropout,
            "tie_word_embeddings": true,
            // Without them other readers assume GPT-2's ids, which are outside a small vocabulary.
            "bos_token_id": null,
            "eos_token_id": null,
        }),
        Family::Llama => json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": vocabulary,
            "max_position_embeddings": context,
            "hidden_size": options.width,
            "intermediate_size": (options.width * 8 / 3).next_multiple_of(16),
            "num_hidden_layers": options.layers,
            "num_attention_heads": options.heads,
            "num_key_value_heads": options.kv_heads.unwrap_or(options.heads),
            "head_dim": options.width / options.heads.max(1),
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_parameters": { "rope_type": "default", "rope_theta": 10000.0 },
            "tie_word_embeddings": true,
            "attention_bias": false,
            "mlp_bias": false,
            "attention_dropout": dropout,
            "bos_token_id": null,
            "eos_token_id": null,
        }),
        Family::Transformer => {
            let mut value = json!({
                "model_type": "transformer",
                // Two more: the mask token, and the token that answers begin with.
                "vocab_size": vocabulary + 2,
                "pad_token_id": vocabulary + 1,
                "mask_token_id": vocabulary,
                "hidden_size": options.width,
                "intermediate_size": 4 * options.width,
                "num_attention_heads": options.heads,
                "max_position_embeddings": context,
                "hidden_act": "relu",
                "dropout": dropout,
                "attention_dropout": dropout,
                "tie_word_embeddings": true,
            });
            let sides = sides.unwrap_or(Sides::Decoder);
            let layers = [("num_encoder_layers", Sides::Decoder), ("num_decoder_layers", Sides::Encoder)];
            for (key, _) in layers.into_iter().filter(|(_, other)| sides != *other) {
                value[key] = options.layers.into();
            }
            value
        }
    };
    if let Some(spec) = &options.mor {
        moe_mor_args::with_recursions(&mut value, spec)?;
    }
    if let Some(spec) = &options.moe {
        moe_mor_args::with_experts(&mut value, spec)?;
    }
    Config::new("the new model", value)
}
