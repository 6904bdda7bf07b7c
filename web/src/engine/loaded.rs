//! A model with its weights on the GPU.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;
use wgformer::generate::{GenerationSettings, Generator};
use wgformer::io::{Clock, ModelFolder, TASK, Tokenizer};
use wgformer::models::{self, Decoder, Model};
use wgformer::tasks::{Application, EmbedSettings, Pooling, TaskFile, TextEmbedder};
use wgformer::{DType, Error, Gpu, Result, Weights};

/// Options of loading.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LoadOptions {
    /// The type of the matrices in GPU memory; none: each as the file has it.
    pub(crate) dtype: Option<DType>,
    #[serde(rename = "signal")]
    pub(crate) _signal: Option<IgnoredAny>,
}

/// The sides of a model that a page uses.
pub(super) enum Side {
    Decoder(Arc<dyn Decoder>),
    Encoder(Arc<dyn Model>),
}

/// A model with its weights, and what was prepared of it.
pub(crate) struct Loaded {
    pub(super) gpu: Gpu,
    pub(super) side: Side,
    pub(super) weights: Weights,
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) settings: GenerationSettings,
    pub(super) clock: Clock,
    pub(super) generator: Option<Generator>,
    pub(super) embedder: Option<TextEmbedder>,
    embed: EmbedSettings,
    no_tokenizer: String,
}

impl Loaded {
    /// Loads the weights of an open model, whose bytes `read` gives; `file` gives its small files.
    pub(crate) async fn load(
        gpu: &Gpu,
        folder: ModelFolder,
        file: &dyn Fn(&str) -> Option<String>,
        options: &LoadOptions,
        clock: Clock,
        read: &mut impl AsyncFnMut(Range<u64>) -> Result<Vec<u8>>,
        done: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let (model, weights) = models::load_model_async(gpu, &folder, options.dtype, read, done).await?;
        let settings = GenerationSettings::of(&folder, model.dimensions().vocabulary)?;
        let embed = embed_settings(&folder, model.as_ref(), file)?;
        let (tokenizer, no_tokenizer) = match folder.expect_tokenizer() {
            Ok(tokenizer) => (Some(tokenizer.clone()), String::new()),
            Err(error) => (None, error.to_string()),
        };
        let side = match model.decoder() {
            Some(_) => Side::of_decoder(model)?,
            None => Side::Encoder(model.into()),
        };
        let (gpu, generator, embedder) = (gpu.clone(), None, None);
        Ok(Self { gpu, side, weights, tokenizer, settings, clock, generator, embedder, embed, no_tokenizer })
    }

    /// A decoder that was made here.
    pub(super) fn made(gpu: &Gpu, model: Arc<dyn Decoder>, weights: Weights, tokenizer: Tokenizer) -> Self {
        Self {
            gpu: gpu.clone(),
            side: Side::Decoder(model),
            weights,
            tokenizer: Some(tokenizer),
            settings: GenerationSettings::default(),
            clock: Arc::new(|_| Err("this model has no template".into())),
            generator: None,
            embedder: None,
            embed: EmbedSettings::default(),
            no_tokenizer: String::new(),
        }
    }

    /// The model.
    pub(crate) fn model(&self) -> &dyn Model {
        match &self.side {
            Side::Decoder(model) => model.as_ref(),
            Side::Encoder(model) => model.as_ref(),
        }
    }

    /// Whether it continues texts; else it makes vectors of them.
    pub(crate) fn generates(&self) -> bool {
        matches!(self.side, Side::Decoder(_))
    }

    /// Whether it has a template for conversations.
    pub(crate) fn has_chat_template(&self) -> bool {
        self.tokenizer.as_ref().is_some_and(Tokenizer::has_chat_template)
    }

    pub(super) fn expect_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| Error::input("model", &self.no_tokenizer))
    }

    pub(super) fn embed_settings(&self) -> &EmbedSettings {
        &self.embed
    }
}

impl Side {
    fn of_decoder(model: Box<dyn Model>) -> Result<Self> {
        let model = model.into_decoder().ok_or_else(|| Error::input("model", "its decoder cannot be used alone"))?;
        Ok(Self::Decoder(model.into()))
    }
}

/// What the small files of a model say about vectors.
fn embed_settings(
    folder: &ModelFolder,
    model: &dyn Model,
    file: &dyn Fn(&str) -> Option<String>,
) -> Result<EmbedSettings> {
    let json = |name: &str| -> Result<Option<Value>> {
        let damaged = |e: serde_json::Error| Error::format(folder.path.join(name), format!("is not valid JSON: {e}"));
        file(name).map(|text| serde_json::from_str(&text).map_err(damaged)).transpose()
    };
    let mut task = match json(TASK)? {
        Some(value) => serde_json::from_value(value)
            .map_err(|e| Error::format(folder.path.join(TASK), format!("is not one that is read here: {e}")))?,
        None => TaskFile::new(Application::of(model)),
    };
    task.pooling = task.pooling.or(Pooling::of(&folder.config)?);
    EmbedSettings::of_files(&folder.path, &task, &json)
}
