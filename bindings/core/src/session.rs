//! A model on a GPU.

use crate::forward::Programs;
use crate::train::Training;
use chrono::Local;
use chrono::format::StrftimeItems;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wgformer::generate::{GenerationSettings, Generator};
use wgformer::io::{Clock, Config, Contents, ModelFolder, Tokenizer};
use wgformer::models::{self, Decoder, Model};
use wgformer::tasks::{Application, EmbedSettings, TaskFile, TextEmbedder};
use wgformer::{DType, Error, Gpu, Result, Weights};

/// Options of loading.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The type of the matrices in GPU memory; none: each as the file has it, f32 in a new model.
    pub dtype: Option<DType>,
    /// The type of the caches of keys and values: f32, f16 or q8_0.
    pub cache: Option<DType>,
    /// The most tokens of a text with its answer; none: as many as the model has positions.
    pub context: Option<usize>,
    /// A folder with a tokenizer, or its file, in place of the model's.
    pub tokenizer: Option<PathBuf>,
}

/// What a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// `model_type`.
    pub family: String,
    /// Values that are trained.
    pub parameters: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The most tokens of a text with its answer.
    pub context: usize,
    /// Features of a hidden state, and numbers of a text's vector.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Whether it continues texts.
    pub generates: bool,
    /// Whether it makes vectors of texts.
    pub embeds: bool,
    /// Whether it has a tokenizer.
    pub has_tokenizer: bool,
    /// Whether it has a template for conversations.
    pub chats: bool,
}

/// A model with its weights on a GPU, and what was prepared of it.
pub struct Session {
    pub(crate) gpu: Gpu,
    pub(crate) model: Arc<dyn Model>,
    /// The same model, if it continues texts.
    pub(crate) decoder: Option<Arc<dyn Decoder>>,
    pub(crate) weights: Weights,
    pub(crate) settings: GenerationSettings,
    pub(crate) context: usize,
    pub(crate) generator: Option<Generator>,
    pub(crate) programs: Programs,
    pub(crate) training: Option<Training>,
    embedder: Option<TextEmbedder>,
    embed_settings: EmbedSettings,
    tokenizer: Option<Tokenizer>,
    no_tokenizer: String,
    /// Where it was loaded from.
    folder: Option<ModelFolder>,
}

impl Session {
    /// Loads a Hugging Face folder or a GGUF file.
    ///
    /// # Errors
    /// Those of [`ModelFolder::open`] and [`models::load_model`]; [`Error::Input`] for an option out of range.
    pub fn load(gpu: &Gpu, path: &Path, options: &LoadOptions) -> Result<Self> {
        let folder = ModelFolder::open(path)?;
        let (model, weights) = models::load_model(gpu, &folder, options.dtype)?;
        let settings = GenerationSettings::of(&folder, model.dimensions().vocabulary)?;
        let task = TaskFile::of(&folder.path, model.as_ref())?;
        let embed_settings = EmbedSettings::of_model(&folder, &task)?;
        let (tokenizer, no_tokenizer) = match folder.expect_tokenizer() {
            Ok(tokenizer) => (Some(tokenizer.clone()), String::new()),
            Err(error) => (None, error.to_string()),
        };
        let mut session = Self::of(gpu, model, weights, options)?;
        (session.settings, session.embed_settings, session.no_tokenizer) = (settings, embed_settings, no_tokenizer);
        session.tokenizer = session.tokenizer.or(tokenizer);
        session.folder = Some(folder);
        Ok(session)
    }

    /// A new model of a `config.json`, with weights by a seed.
    ///
    /// # Errors
    /// [`Error::Input`] if it is no JSON; [`Error::Format`] that names a key that is missing or wrong; [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, config: &str, seed: u64, options: &LoadOptions) -> Result<Self> {
        let damaged = |e: serde_json::Error| Error::input("config", format!("is not valid JSON: {e}"));
        let config = Config::new("config", serde_json::from_str::<Value>(config).map_err(damaged)?)?;
        let model = models::model(&config)?;
        let weights = Weights::stored_as(gpu, options.dtype.unwrap_or(DType::F32));
        model.initialise(&weights, seed)?;
        Self::of(gpu, model, weights, options)
    }

    fn of(gpu: &Gpu, model: Box<dyn Model>, weights: Weights, options: &LoadOptions) -> Result<Self> {
        let positions = model.dimensions().max_position;
        let context = options.context.unwrap_or(positions);
        if context < 2 || context > positions {
            return Err(Error::input("context", format!("it is {context}, but the model allows 2 to {positions}")));
        }
        let weights = options.cache.map_or_else(|| weights.clone(), |cache| weights.clone().with_cache(cache));
        let embed_settings = EmbedSettings::from(&TaskFile::new(Application::of(model.as_ref())));
        let (model, decoder): (Arc<dyn Model>, _) = if model.decoder().is_some() {
            let alone = || Error::input("model", "its decoder cannot be used alone");
            let decoder: Arc<dyn Decoder> = model.into_decoder().ok_or_else(alone)?.into();
            (decoder.clone(), Some(decoder))
        } else {
            (model.into(), None)
        };
        Ok(Self {
            gpu: gpu.clone(),
            model,
            decoder,
            weights,
            settings: GenerationSettings::default(),
            context,
            generator: None,
            programs: Programs::default(),
            training: None,
            embedder: None,
            embed_settings,
            tokenizer: options.tokenizer.as_deref().map(Tokenizer::open).transpose()?,
            no_tokenizer: "it has no tokenizer: give one with the option tokenizer, or tokens in place of text".into(),
            folder: None,
        })
    }

    /// What the model is.
    ///
    /// # Errors
    /// Those of [`Model::parameter_count`].
    pub fn info(&self) -> Result<Info> {
        let size = self.model.dimensions();
        Ok(Info {
            family: self.model.config()["model_type"].as_str().unwrap_or_default().to_owned(),
            parameters: self.model.parameter_count()?,
            vocabulary: size.vocabulary,
            context: self.context,
            width: size.d_model,
            layers: size.layers,
            generates: self.decoder.is_some(),
            embeds: self.model.encoder().is_some() && self.decoder.is_none(),
            has_tokenizer: self.tokenizer.is_some(),
            chats: self.tokenizer.as_ref().is_some_and(Tokenizer::has_chat_template),
        })
    }

    /// The model's `config.json`.
    #[must_use]
    pub fn config(&self) -> String {
        self.model.config().to_string()
    }

    /// The GPU that it is on.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The tokens of a text, with what the model's prompts begin with.
    ///
    /// # Errors
    /// [`Error::Input`] without a tokenizer, or if the text has characters without a token.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        // An encoder reads special tokens at both ends.
        if self.model.encoder().is_some() {
            return Ok(self.expect_tokenizer()?.encode_for_model(text, None)?.ids);
        }
        self.expect_tokenizer()?.encode_prompt(text)
    }

    /// The text of tokens, without special ones.
    ///
    /// # Errors
    /// [`Error::Input`] without a tokenizer, or for a token that it does not know.
    pub fn detokenize(&self, ids: &[u32]) -> Result<String> {
        self.expect_tokenizer()?.decode_with(ids, true)
    }

    /// The tokens of a conversation, messages by role and text, in the model's template.
    ///
    /// # Errors
    /// [`Error::Input`] without a tokenizer or a template, or if there is no message.
    pub fn tokenize_chat(&self, messages: &[(String, String)]) -> Result<Vec<u32>> {
        let tokenizer = self.expect_tokenizer()?;
        let missing = || Error::input("messages", "the model has no template for conversations: give a prompt");
        let template = tokenizer.chat_template(clock())?.ok_or_else(missing)?;
        if messages.is_empty() {
            return Err(Error::input("messages", "there is none"));
        }
        let messages = messages.iter().map(|(role, text)| (role.as_str(), text.as_str()));
        tokenizer.encode_conversation(&template, messages)
    }

    /// The vectors of texts, (texts, width), as the model's files say: pooling, length, prefix.
    ///
    /// # Errors
    /// [`Error::Input`] if the model continues texts, has no tokenizer, or a text has no tokens; those of [`TextEmbedder::embed`].
    pub fn embed(&mut self, texts: &[&str]) -> Result<Vec<f32>> {
        if self.decoder.is_some() {
            return Err(Error::input("model", "it continues texts and makes no vectors of them: use generate"));
        }
        let embedder = match self.embedder.take() {
            Some(embedder) => embedder,
            None => {
                let tokenizer = self.expect_tokenizer()?;
                TextEmbedder::new(&self.gpu, self.model.clone(), &self.weights, tokenizer, self.embed_settings.clone())?
            }
        };
        Ok(self.embedder.insert(embedder).embed(texts, &mut |_| ())?.concat())
    }

    /// Saves a Hugging Face folder: configuration, weights, and the small files that it was loaded with.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written; [`Error::DeviceLost`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let folder = self.folder.as_ref();
        let contents = Contents {
            config: &models::stored_config(self.model.as_ref(), &self.weights),
            generation: folder.and_then(|folder| folder.generation.as_ref()).map(Config::value),
            tensors: &models::named_tensors(self.model.as_ref(), &self.weights)?,
            tokenizer: self.tokenizer.as_ref(),
            companions: &folder.map_or_else(|| Ok(Vec::new()), ModelFolder::companions)?,
        };
        contents.save(path)
    }

    pub(crate) fn expect_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| Error::input("model", &self.no_tokenizer))
    }

    pub(crate) fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The model as a decoder.
    pub(crate) fn expect_decoder(&self) -> Result<&Arc<dyn Decoder>> {
        let refuse = || Error::input("model", "it reads texts and does not continue them");
        self.decoder.as_ref().ok_or_else(refuse)
    }

    /// Forgets what was prepared: weights move.
    pub(crate) fn forget_programs(&mut self) {
        (self.generator, self.embedder, self.programs) = (None, None, Programs::default());
    }
}

/// The local time of this machine.
fn clock() -> Clock {
    Arc::new(|format| {
        let items =
            StrftimeItems::new(format).parse().map_err(|_| format!("strftime_now: {format:?} is not a time format"))?;
        Ok(Local::now().format_with_items(items.iter()).to_string())
    })
}

/// The type of elements of that name, such as `f16`.
///
/// # Errors
/// [`Error::Input`] that lists the names.
pub fn dtype(what: &str, name: &str, known: &[DType]) -> Result<DType> {
    known.iter().copied().find(|dtype| dtype.name() == name).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|dtype| dtype.name()).collect();
        Error::input(what, format!("it is {name:?}, but must be one of {}", names.join(", ")))
    })
}
