//! Folders in the form of Hugging Face: configuration, weights, tokenizer.

use super::config::Config;
use super::safetensors::Tensors;
#[cfg(feature = "files")]
use super::safetensors::{self, INDEX, NamedTensor, SINGLE};
use super::tokenizer::Tokenizer;
#[cfg(feature = "files")]
use super::vocabulary;
#[cfg(feature = "files")]
use super::{AdapterFolder, file, gguf, shards};
use crate::error::{Error, Result};
use serde_json::{Value, json};
#[cfg(feature = "files")]
use std::io;
#[cfg(feature = "files")]
use std::path::Path;
use std::path::PathBuf;

/// The model's configuration.
pub const CONFIG: &str = "config.json";
/// Its defaults for generation.
pub const GENERATION: &str = "generation_config.json";
/// Its tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// The tokenizer of its answers, where they have a vocabulary of their own.
#[cfg(feature = "files")]
pub(super) const TARGET_TOKENIZER: &str = "target_tokenizer.json";

/// What names its special tokens, and templates of conversations.
pub(super) const ROLES: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "chat_template.json"];

/// The template of its conversations.
pub(super) const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// What a model was trained for.
pub const TASK: &str = "task.json";

/// Small files that Hugging Face's libraries put beside these and that a saved copy keeps.
#[cfg(feature = "files")]
const COMPANIONS: [&str; 15] = [
    TASK,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    CHAT_TEMPLATE,
    "chat_template.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
];

/// A model folder, or a GGUF file, that was opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct ModelFolder {
    /// The folder or file.
    pub path: PathBuf,
    /// `config.json`.
    pub config: Config,
    /// `generation_config.json`, if it exists; for a GGUF file the sampling settings of its metadata, under the same names.
    pub generation: Option<Config>,
    /// The weights.
    pub tensors: Tensors,
    /// `tokenizer.json`, if it exists.
    pub tokenizer: Option<Tokenizer>,
    /// The adapter that belongs to the weights, where the folder is that of one.
    #[cfg(feature = "files")]
    pub adapter: Option<AdapterFolder>,
    /// The error of an unreadable tokenizer: not every use of a model needs it.
    pub(super) no_tokenizer: Option<(PathBuf, String)>,
}

impl ModelFolder {
    /// Opens a folder, or a model in one GGUF file. The folder of an adapter, as PEFT writes it, opens as its base model with it.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Format`] with the path of what is missing or damaged.
    #[cfg(feature = "files")]
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if path.is_file() {
            return gguf::open(path);
        }
        if !path.is_dir() {
            let message = "is not a folder: give one that holds config.json and model.safetensors, or a GGUF file";
            return Err(Error::format(path, message));
        }
        if shards::is_adapter(&path) {
            return Self::open_adapted(&path);
        }
        let needed = "a model folder has config.json, model.safetensors and tokenizer.json";
        if !is_there(&path.join(CONFIG))
            && let Some(file) = shards::gguf(&path)
        {
            return Err(Error::format(path, format!("has no config.json but has {file}: use the path of that file")));
        }
        let read = |name: &str| Config::read(path.join(name)).map_err(|e| if_missing(e, needed));
        let config = read(CONFIG)?;
        let generation = if is_there(&path.join(GENERATION)) { Some(read(GENERATION)?) } else { None };
        let tensors = Tensors::open(&path)?;
        let (tokenizer, no_tokenizer) = match is_there(&path.join(TOKENIZER)) {
            true => (Some(Tokenizer::open(&path)?), None),
            false => if_needed(vocabulary::files::tokenizer(&path, &config.get_or("model_type", String::new())?))?,
        };
        Ok(Self { path, config, generation, tensors, tokenizer, adapter: None, no_tokenizer })
    }

    /// A folder whose files come from elsewhere, as from a server: `file` gives the text of a small one by its name ([`ModelFolder::SMALL`]), or
    /// none where it is missing; `label` stands for the path in messages. Of vocabularies `tokenizer.json` is read.
    ///
    /// # Errors
    /// [`Error::Format`] if `config.json` is missing, or a file is damaged.
    pub fn from_files(
        label: impl Into<PathBuf>,
        file: &dyn Fn(&str) -> Option<String>,
        tensors: Tensors,
    ) -> Result<Self> {
        let path = label.into();
        let json = |name: &str| -> Result<Option<Value>> {
            let damaged = |e: serde_json::Error| Error::format(path.join(name), format!("is not valid JSON: {e}"));
            file(name).map(|text| serde_json::from_str(&text).map_err(damaged)).transpose()
        };
        let config = |name: &str| json(name)?.map(|value| Config::new(path.join(name), value)).transpose();
        let missing = || Error::format(&path, format!("has no {CONFIG}: a model folder holds it beside its weights"));
        let (config, generation) = (config(CONFIG)?.ok_or_else(missing)?, config(GENERATION)?);
        let mut names: Vec<Value> =
            file(CHAT_TEMPLATE).map(|text| json!({"chat_template": text})).into_iter().collect();
        for name in ROLES {
            names.extend(json(name)?);
        }
        let tokenizer =
            file(TOKENIZER).map(|text| Tokenizer::from_json_with(path.join(TOKENIZER), text, &names)).transpose();
        let (tokenizer, no_tokenizer) = if_needed(tokenizer)?;
        Ok(Self {
            path,
            config,
            generation,
            tensors,
            tokenizer,
            #[cfg(feature = "files")]
            adapter: None,
            no_tokenizer,
        })
    }

    /// The small files that [`ModelFolder::from_files`] and [`crate::tasks`] read.
    pub const SMALL: [&str; 12] = [
        CONFIG,
        GENERATION,
        TOKENIZER,
        ROLES[0],
        ROLES[1],
        ROLES[2],
        CHAT_TEMPLATE,
        TASK,
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ];

    /// As [`ModelFolder::open`], for a look at a model: what a GGUF file has beside that is not known here is noted in the log, and no error.
    ///
    /// # Errors
    /// As [`ModelFolder::open`].
    #[cfg(feature = "files")]
    pub fn look_at(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if path.is_file() { gguf::look_at(path) } else { Self::open(path) }
    }

    /// The base model of an adapter, with it.
    #[cfg(feature = "files")]
    fn open_adapted(path: &Path) -> Result<Self> {
        let base = AdapterFolder::base_of(path)?;
        if shards::is_adapter(&base) {
            let message =
                format!("is an adapter of {}, which is an adapter itself: merge that one first", base.display());
            return Err(Error::format(path, message));
        }
        Self::open(base)?.with_adapter(path)
    }

    /// The same model with the adapter of that folder, and its tokenizer and `config.json` if it has some.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Format`] with the path of what is missing or damaged; also if there is an adapter already.
    #[cfg(feature = "files")]
    pub fn with_adapter(mut self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if let Some(adapter) = &self.adapter {
            let message = format!("the model has the adapter {} already: merge that one first", adapter.path.display());
            return Err(Error::format(path, message));
        }
        self.adapter = Some(AdapterFolder::open(path)?);
        if is_there(&path.join(CONFIG)) {
            // It has the head that the adapter was trained with.
            self.config = Config::read(path.join(CONFIG))?;
        }
        if is_there(&path.join(TOKENIZER)) {
            (self.tokenizer, self.no_tokenizer) = (Some(Tokenizer::open(path)?), None);
        }
        Ok(self)
    }

    /// The tokenizer, for uses that need one.
    ///
    /// # Errors
    /// [`Error::Format`] if there is none.
    pub fn expect_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            if let Some((path, message)) = &self.no_tokenizer {
                return Error::format(path, message);
            }
            if self.path.is_file() {
                return Error::format(&self.path, "has no tokenizer: convert the model again, with its vocabulary");
            }
            let message = "has no tokenizer (tokenizer.json, tokenizer.model, spiece.model, sentencepiece.bpe.model, source.spm with vocab.json, \
                           vocab.json with merges.txt, vocab.txt); make tokenizer.json with Python: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
            Error::format(&self.path, message)
        })
    }

    /// The small files beside the weights that a saved copy should keep, by name.
    ///
    /// # Errors
    /// [`Error::File`] if one is there and cannot be read.
    #[cfg(feature = "files")]
    pub fn companions(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        for name in COMPANIONS {
            let path = self.path.join(name);
            if path.is_file() {
                found.push((name.to_owned(), std::fs::read(&path).map_err(|e| Error::file(&path, e))?));
            }
        }
        Ok(found)
    }
}

/// A tokenizer; or, as not every use of a model needs one, where and why it cannot be read.
pub(super) fn if_needed(found: Result<Option<Tokenizer>>) -> Result<(Option<Tokenizer>, Option<(PathBuf, String)>)> {
    match found {
        Ok(tokenizer) => Ok((tokenizer, None)),
        Err(Error::Format { path, message }) => Ok((None, Some((path, message)))),
        Err(other) => Err(other),
    }
}

/// The content of a model folder to save.
#[cfg(feature = "files")]
#[derive(Clone, Debug)]
pub struct Contents<'a> {
    /// `config.json`.
    pub config: &'a Value,
    /// `generation_config.json`.
    pub generation: Option<&'a Value>,
    /// The weights, under Hugging Face's names.
    pub tensors: &'a [NamedTensor<'a>],
    /// `tokenizer.json`.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Other small files, by name: [`ModelFolder::companions`] of the folder the model came from.
    pub companions: &'a [(String, Vec<u8>)],
}

#[cfg(feature = "files")]
impl Contents<'_> {
    /// The small files with their content; the weights are not among them.
    ///
    /// # Errors
    /// [`Error::Input`] if a companion's name is not a plain file name.
    pub(crate) fn small_files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        if let Some(tokenizer) = self.tokenizer {
            files.push((TOKENIZER.to_owned(), tokenizer.to_json().as_bytes().to_vec()));
            if let Some(answers) = tokenizer.answers_json() {
                files.push((TARGET_TOKENIZER.to_owned(), answers.as_bytes().to_vec()));
            }
            // Without this file, Hugging Face's AutoTokenizer does not know which class to make of tokenizer.json.
            files.push(("tokenizer_config.json".to_owned(), pretty(&tokenizer.hugging_face_config())));
        }
        for (name, bytes) in self.companions {
            if !COMPANIONS.contains(&name.as_str()) {
                return Err(Error::input(name, "is not one of the files that a model folder keeps beside its weights"));
            }
            files.retain(|(there, _)| there != name);
            files.push((name.clone(), bytes.clone()));
        }
        if let Some(generation) = self.generation {
            files.push((GENERATION.to_owned(), pretty(generation)));
        }
        files.push((CONFIG.to_owned(), pretty(self.config)));
        Ok(files)
    }

    /// Saves the folder. A new one appears whole or not at all; in one that exists each file is replaced atomically, the weights
    /// first and the configuration last; small files of an older model are removed, other files stay.
    ///
    /// # Errors
    /// [`Error::File`] if something cannot be written, [`Error::Input`] if a tensor or a name is not usable.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if path.exists() {
            if !path.is_dir() {
                return Err(Error::format(path, "exists and is not a folder: choose another name"));
            }
            return self.write_into(path);
        }
        let parent = file::parent(path);
        let new_folder = || {
            std::fs::create_dir_all(parent)?;
            let mut builder = tempfile::Builder::new();
            builder.prefix(".saving-").suffix(".tmp");
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
            builder.tempdir_in(parent)
        };
        let temporary = new_folder().map_err(|e| Error::file(path, file::explain(e)))?;
        self.write_into(temporary.path())?;
        let move_there = || {
            std::fs::rename(temporary.path(), path)?;
            file::sync_folder(parent)
        };
        move_there().map_err(|e| Error::file(path, file::explain(e)))?;
        // It is no longer under its temporary name, so there is nothing to remove.
        let _ = temporary.keep();
        Ok(())
    }

    fn write_into(&self, folder: &Path) -> Result<()> {
        let files = self.small_files()?;
        safetensors::write(folder.join(SINGLE), self.tensors)?;
        for (name, bytes) in &files {
            file::write_atomic(folder.join(name), bytes)?;
        }
        let written: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        // Remove descriptions of an older model.
        let stale = COMPANIONS
            .into_iter()
            .chain([GENERATION, TOKENIZER, TARGET_TOKENIZER])
            .filter(|name| !written.contains(name));
        for path in stale.chain([INDEX]).map(|name| folder.join(name)).filter(|path| is_there(path)) {
            std::fs::remove_file(&path).map_err(|e| Error::file(&path, e))?;
        }
        Ok(())
    }
}

/// Whether a folder has a file of that name, even if it is a link that leads nowhere: opening it then says so.
#[cfg(feature = "files")]
pub(super) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The error of a file that is missing with what to do about it. Downloads that broke off leave links that lead nowhere.
#[cfg(feature = "files")]
pub(super) fn if_missing(error: Error, hint: &str) -> Error {
    match error {
        Error::File { path, source } if source.kind() == io::ErrorKind::NotFound => {
            let link = "it is a link to a missing file: download it again";
            let hint = if path.is_symlink() { link } else { hint };
            Error::file(path, io::Error::new(source.kind(), format!("{source}; {hint}")))
        }
        error => error,
    }
}

/// Indented JSON with a line end.
#[cfg(feature = "files")]
pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
