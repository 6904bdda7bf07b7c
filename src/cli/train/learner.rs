//! The model of a training run: new, loaded from a folder, or from a checkpoint.

use crate::cli::args::{MorInit, Sides, TrainArgs};
use crate::cli::{model, moe_mor_args, output};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::folder::{CONFIG, pretty};
use crate::io::{ADAPTER_CONFIG, Config, Contents, ModelFolder, NamedTensor, TASK, Tokenizer, write_atomic};
use crate::models::lora::{self, LoraConfig};
use crate::models::{self, Model, NewHead};
use crate::program::Weights;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// The model to train.
pub(super) struct Learner {
    pub(super) model: Arc<dyn Model>,
    pub(super) weights: Weights,
    pub(super) files: ModelFiles,
    /// What is trained, if it is an adapter.
    pub(super) adapter: Option<LoraConfig>,
}

/// The files of a model's folder besides its weights.
pub(super) struct ModelFiles {
    pub(super) tokenizer: Tokenizer,
    generation: Option<Value>,
    companions: Vec<(String, Vec<u8>)>,
}

impl ModelFiles {
    fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, generation: None, companions: Vec::new() }
    }

    fn of(folder: &ModelFolder) -> Result<Self> {
        Ok(Self {
            tokenizer: folder.expect_tokenizer()?.clone(),
            generation: folder.generation.as_ref().map(|config| config.value().clone()),
            companions: folder.companions()?,
        })
    }

    pub(super) fn contents<'a>(&'a self, config: &'a Value, tensors: &'a [NamedTensor<'a>]) -> Contents<'a> {
        let Self { tokenizer, generation, companions } = self;
        Contents { config, generation: generation.as_ref(), tensors, tokenizer: Some(tokenizer), companions }
    }

    /// Puts a small file beside the model.
    pub(super) fn put(&mut self, name: &str, content: Vec<u8>) {
        self.companions.retain(|(known, _)| known != name);
        self.companions.push((name.to_owned(), content));
    }

    /// Saves in the folder of an adapter what its base does not have: the head's configuration, and what it was trained for.
    pub(super) fn save_beside_adapter(&self, config: &Value, folder: &Path) -> Result<()> {
        if let Some((name, content)) = self.companions.iter().find(|(name, _)| name == TASK) {
            write_atomic(folder.join(name), content)?;
            write_atomic(folder.join(CONFIG), &pretty(config))?;
        }
        Ok(())
    }
}

impl Learner {
    /// The model of a checkpoint, with an empty store for its weights.
    pub(super) fn from_checkpoint(path: &Path, gpu: &Gpu, storage: DType) -> Result<Self> {
        let folder = ModelFolder::open(path)?;
        let model = models::model_of(&folder)?;
        let weights = Weights::stored_as(gpu, storage);
        Ok(Self { model: model.into(), weights, files: ModelFiles::of(&folder)?, adapter: None })
    }

    /// The model of a new run: loaded from a folder, or new.
    pub(super) fn new(options: &TrainArgs, gpu: &Gpu, text: &str) -> Result<Self> {
        prepare(options, gpu, text)
    }

    /// The model of a new run with a head for a task: loaded from a folder, where a head of another kind is replaced, or new.
    pub(super) fn with_head(options: &TrainArgs, gpu: &Gpu, text: &str, head: &NewHead) -> Result<Self> {
        let Some(path) = &options.from else {
            let tokenizer = tokenizer(&options.tokenizer, text)?.for_encoder()?;
            let config =
                model::new_config(&options.model, Some(Sides::Encoder), tokenizer.vocab_size(), options.dropout)?;
            let model = models::model(&head.config(&config)?)?;
            let weights = Weights::stored_as(gpu, DType::from(options.dtype));
            model.initialise(&weights, options.seed)?;
            return Ok(Self { model: model.into(), weights, files: ModelFiles::new(tokenizer), adapter: None });
        };
        let folder = ModelFolder::open(path)?;
        let files = ModelFiles::of(&folder)?;
        if let Some(adapter) = &folder.adapter {
            let config = LoraConfig::parse(&adapter.path.join(ADAPTER_CONFIG), &adapter.config)?;
            let (model, weights) = models::load_model(gpu, &folder, None)?;
            return Ok(Self { model: model.into(), weights, files, adapter: Some(config) });
        }
        let config = head.config(&folder.config)?;
        let mut model = models::model(&config)?;
        model.adapt_to_tensors(&|end| folder.tensors.names().any(|name| name.ends_with(end)));
        let fresh = models::fresh_head(model.as_ref(), &config, &folder.tensors)?;
        if !fresh.is_empty() {
            output::note(format_args!("new weights: {}", fresh.join(", ")));
        }
        let (weights, adapter) = match options.lora.config(path) {
            Some(mut adapter) => {
                let layer = |name: &String| name.trim_end_matches(".weight").trim_end_matches(".bias").to_owned();
                adapter.modules_to_save.extend(fresh.iter().map(layer));
                adapter.modules_to_save.sort();
                adapter.modules_to_save.dedup();
                let base = match options.lora.lora_base {
                    Some(dtype) => DType::from(dtype).into(),
                    None => models::storage_of(model.as_ref(), &folder.tensors)?,
                };
                let own = (fresh.as_slice(), options.seed);
                let weights = lora::load_base(gpu, model.as_ref(), base, &folder.tensors, &adapter, own)?;
                lora::fresh_adapters(model.as_ref(), &weights, options.seed)?;
                (weights, Some(adapter))
            }
            None => {
                let weights = Weights::stored_as(gpu, DType::from(options.dtype));
                models::load_weights_beside(model.as_ref(), &folder.tensors, &weights, &fresh, options.seed)?;
                (weights, None)
            }
        };
        Ok(Self { model: model.into(), weights, files, adapter })
    }

    /// The model of a new run that writes texts: loaded from a folder, or new, an encoder with a decoder unless a family is named.
    pub(super) fn that_writes(options: &TrainArgs, gpu: &Gpu, text: &str) -> Result<Self> {
        if options.from.is_some() {
            return prepare(options, gpu, text);
        }
        let tokenizer = tokenizer(&options.tokenizer, text)?;
        let config = model::new_config(&options.model, Some(Sides::Both), tokenizer.vocab_size(), options.dropout)?;
        let model = models::model(&config)?;
        let weights = Weights::stored_as(gpu, DType::from(options.dtype));
        model.initialise(&weights, options.seed)?;
        Ok(Self { model: model.into(), weights, files: ModelFiles::new(tokenizer), adapter: None })
    }
}

fn prepare(options: &TrainArgs, gpu: &Gpu, text: &str) -> Result<Learner> {
    if let Some(path) = &options.from {
        let folder = ModelFolder::open(path)?;
        let files = ModelFiles::of(&folder)?;
        if options.model.moe.is_some() {
            let message = "a mixture of experts can't start from a trained model: leave out --moe or --from";
            return Err(Error::input("moe", message));
        }
        let storage = DType::from(options.dtype);
        if let Some(spec) = &options.model.mor {
            let mut config = folder.config.value().clone();
            moe_mor_args::with_recursions(&mut config, spec)?;
            moe_mor_args::check_keys("mor", Some(spec), &config)?;
            let config = Config::new(format!("--mor {spec}"), config)?;
            let from = options.mor_init.unwrap_or(MorInit::Stepwise).into();
            let (model, weights) = models::uptrain_from_llama(gpu, &config, &folder, from, storage, options.seed)?;
            return Ok(Learner { model: Arc::new(model), weights, files, adapter: None });
        }
        if let Some(adapter) = &folder.adapter {
            if options.lora.lora.is_some() {
                let message = "the folder has adapters already, which are trained on: leave out --lora";
                return Err(Error::format(path, message));
            }
            let config = LoraConfig::parse(&adapter.path.join(ADAPTER_CONFIG), &adapter.config)?;
            let (model, weights) = models::load_model(gpu, &folder, None)?;
            return Ok(Learner { model: model.into(), weights, files, adapter: Some(config) });
        }
        if let Some(config) = options.lora.config(path) {
            let model = models::model_of(&folder)?;
            let base = match options.lora.lora_base {
                Some(dtype) => DType::from(dtype).into(),
                None => models::storage_of(model.as_ref(), &folder.tensors)?,
            };
            let weights = lora::load_base(gpu, model.as_ref(), base, &folder.tensors, &config, (&[], 0))?;
            lora::fresh_adapters(model.as_ref(), &weights, options.seed)?;
            return Ok(Learner { model: model.into(), weights, files, adapter: Some(config) });
        }
        let (model, weights) = models::load_model(gpu, &folder, storage)?;
        return Ok(Learner { model: model.into(), weights, files, adapter: None });
    }
    let tokenizer = tokenizer(&options.tokenizer, text)?;
    let model = model::new(&options.model, tokenizer.vocab_size(), options.dropout)?;
    let weights = Weights::stored_as(gpu, DType::from(options.dtype));
    model.initialise(&weights, options.seed)?;
    Ok(Learner { model: model.into(), weights, files: ModelFiles::new(tokenizer), adapter: None })
}

fn tokenizer(wanted: &str, text: &str) -> Result<Tokenizer> {
    match wanted {
        "bytes" => Tokenizer::bytes(),
        "chars" => Tokenizer::characters(text),
        _ => match wanted.strip_prefix("bpe:").map(str::parse) {
            Some(Ok(size)) => Tokenizer::train_bpe(text, size),
            Some(Err(_)) => {
                Err(Error::input("tokenizer", format!("{wanted}: write the size as a number, e.g. bpe:1024")))
            }
            None => Tokenizer::open(wanted),
        },
    }
}
