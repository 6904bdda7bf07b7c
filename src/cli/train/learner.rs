//! The model of a training run: new, loaded from a folder, or from a checkpoint.

use crate::cli::args::{MorInit, TrainArgs};
use crate::cli::{model, moe_mor_args};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{ADAPTER_CONFIG, Config, Contents, ModelFolder, NamedTensor, Tokenizer};
use crate::models::lora::{self, LoraConfig};
use crate::models::{self, Model};
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
}

/// The model of a checkpoint, with an empty store for its weights.
pub(super) fn from_checkpoint(path: &Path, gpu: &Gpu, storage: DType) -> Result<Learner> {
    let folder = ModelFolder::open(path)?;
    let model = models::model_of(&folder)?;
    let weights = Weights::stored_as(gpu, storage);
    Ok(Learner { model: model.into(), weights, files: ModelFiles::of(&folder)?, adapter: None })
}

/// The model of a new run: loaded from a folder, or new.
pub(super) fn prepare(options: &TrainArgs, gpu: &Gpu, text: &str) -> Result<Learner> {
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
