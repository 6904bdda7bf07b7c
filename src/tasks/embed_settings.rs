//! How the texts of a model become vectors, as its files say.

use super::Pooling;
use super::task_file::TaskFile;
use crate::error::{Error, Result};
#[cfg(feature = "files")]
use crate::io::{ModelFolder, file};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The list of modules in a folder of sentence-transformers.
const MODULES: &str = "modules.json";

/// The pooling of a `config.json` of sentence-transformers' module `Pooling`.
fn pooling_of(path: &Path, config: &Value) -> Result<Pooling> {
    const MODES: &str = "pooling_mode_";
    // Newer files name it; older ones have a switch for each.
    let named = config["pooling_mode"].as_str().map(|mode| vec![mode.to_owned()]);
    let modes = named.unwrap_or_else(|| {
        let switches = config.as_object().into_iter().flatten();
        let on = switches.filter(|(_, value)| **value == Value::Bool(true));
        on.filter_map(|(name, _)| name.strip_prefix(MODES)).map(str::to_owned).collect()
    });
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["mean" | "mean_tokens"] => Ok(Pooling::Mean),
        ["cls" | "cls_token"] => Ok(Pooling::Cls),
        _ => {
            let message = format!("asks for pooling by {}; mean and cls are known", modes.join(" and "));
            Err(Error::format(path, message))
        }
    }
}

/// How the texts of a model become vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedSettings {
    /// Which states.
    pub pooling: Pooling,
    /// Whether vectors are divided by their lengths.
    pub unit_length: bool,
    /// The most tokens of a text that are read at a time; `None`: as many as the model has positions.
    pub longest: Option<usize>,
    /// Whether texts are read in lower case.
    pub lower_case: bool,
    /// Texts that are put in front of others, by their uses, such as `query`.
    pub prompts: BTreeMap<String, String>,
    /// Put in front of each text where nothing else is said.
    pub prefix: String,
}

impl Default for EmbedSettings {
    fn default() -> Self {
        Self {
            pooling: Pooling::Mean,
            unit_length: true,
            longest: None,
            lower_case: false,
            prompts: BTreeMap::new(),
            prefix: String::new(),
        }
    }
}

/// Those that `task.json` says, else the mean, of length 1.
impl From<&TaskFile> for EmbedSettings {
    fn from(file: &TaskFile) -> Self {
        Self {
            pooling: file.pooling.unwrap_or_default(),
            longest: file.context,
            lower_case: file.lower_case,
            prefix: file.prefix.clone(),
            ..Self::default()
        }
    }
}

impl EmbedSettings {
    /// Those of a model's folder: of sentence-transformers (`modules.json`, the `config.json` of `Pooling`, `sentence_bert_config.json`,
    /// `config_sentence_transformers.json`), else of `task.json`, else the mean, of length 1.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Format`] if a file is damaged, or asks for something else than mean or cls and length 1.
    #[cfg(feature = "files")]
    pub fn of(folder: &Path, task: &TaskFile) -> Result<Self> {
        if !folder.is_dir() {
            return Ok(Self::from(task));
        }
        Self::of_files(folder, task, &|name| {
            // A file gives names, which must not lead out of the folder.
            let mut path = folder.to_owned();
            for part in name.split('/') {
                file::plain_name(&folder.join(MODULES), part)?;
                path.push(part);
            }
            file::read_json_if_there(&path)
        })
    }

    /// As [`EmbedSettings::of`], of small files from elsewhere: `files` gives the content of one by its name in the folder, such as
    /// `1_Pooling/config.json`, or none where it is missing. `folder` stands for the path in messages.
    ///
    /// # Errors
    /// As [`EmbedSettings::of`], and those of `files`.
    pub fn of_files(folder: &Path, task: &TaskFile, files: &dyn Fn(&str) -> Result<Option<Value>>) -> Result<Self> {
        let plain = Self::from(task);
        let Some(found) = files(MODULES)? else { return Ok(plain) };
        let mut settings = Self { unit_length: false, ..plain }.with_modules(folder, files, &found)?;
        // What was said in training, or by an option, holds.
        settings.longest = task.context.or(settings.longest);
        settings.lower_case |= task.lower_case;
        if !task.prefix.is_empty() {
            settings.prefix.clone_from(&task.prefix);
        }
        Ok(settings)
    }

    /// Those of an open model: of its folder, or of its GGUF file, which says how texts are pooled.
    ///
    /// # Errors
    /// As [`EmbedSettings::of`].
    #[cfg(feature = "files")]
    pub fn of_model(model: &ModelFolder, task: &TaskFile) -> Result<Self> {
        let pooling = task.pooling.or(Pooling::of(&model.config)?);
        Self::of(&model.path, &TaskFile { pooling, ..task.clone() })
    }

    fn with_modules(
        mut self,
        folder: &Path,
        files: &dyn Fn(&str) -> Result<Option<Value>>,
        modules: &Value,
    ) -> Result<Self> {
        let path = &folder.join(MODULES);
        let damaged = || Error::format(path, "is no list of modules with \"type\" and \"path\": download it again");
        for module in modules.as_array().ok_or_else(damaged)? {
            let (Some(kind), Some(place)) = (module["type"].as_str(), module["path"].as_str()) else {
                return Err(damaged());
            };
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => self = self.with_lengths(folder, files)?,
                "Pooling" => {
                    let name = format!("{place}/config.json");
                    let config = folder.join(&name);
                    let missing = || Error::format(&config, format!("is missing, but {MODULES} names it"));
                    let value = files(&name)?.ok_or_else(missing)?;
                    self.pooling = pooling_of(&config, &value)?;
                    if value["include_prompt"] == Value::Bool(false) {
                        return Err(Error::format(&config, "leaves prompts out of the mean, which is not known here"));
                    }
                }
                "Normalize" => self.unit_length = true,
                other => {
                    let message = format!("has a module {other}; Transformer, Pooling and Normalize are known");
                    return Err(Error::format(path, message));
                }
            }
        }
        self.with_prompts(folder, files)
    }

    fn with_lengths(mut self, folder: &Path, files: &dyn Fn(&str) -> Result<Option<Value>>) -> Result<Self> {
        const NAME: &str = "sentence_bert_config.json";
        let path = folder.join(NAME);
        let Some(config) = files(NAME)? else { return Ok(self) };
        self.lower_case = config["do_lower_case"].as_bool().unwrap_or(false);
        self.longest = match &config["max_seq_length"] {
            Value::Null => None,
            length => {
                match length.as_u64().and_then(|length| usize::try_from(length).ok()).filter(|length| *length > 0) {
                    Some(length) => Some(length),
                    None => {
                        return Err(Error::format(
                            path,
                            format!("max_seq_length is {length}, a count of tokens is needed"),
                        ));
                    }
                }
            }
        };
        Ok(self)
    }

    fn with_prompts(mut self, folder: &Path, files: &dyn Fn(&str) -> Result<Option<Value>>) -> Result<Self> {
        const NAME: &str = "config_sentence_transformers.json";
        let path = folder.join(NAME);
        let Some(config) = files(NAME)? else { return Ok(self) };
        for (name, prompt) in config["prompts"].as_object().into_iter().flatten() {
            let prompt = prompt
                .as_str()
                .ok_or_else(|| Error::format(&path, format!("the prompt {name:?} is {prompt}, a text is needed")))?;
            self.prompts.insert(name.clone(), prompt.to_owned());
        }
        if let Some(name) = config["default_prompt_name"].as_str() {
            self.prefix = self.prompt(name)?.to_owned();
        }
        Ok(self)
    }

    /// The text that is put in front of others for a use.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has none of that name.
    pub fn prompt(&self, name: &str) -> Result<&str> {
        self.prompts.get(name).map(String::as_str).ok_or_else(|| {
            let known: Vec<&str> = self.prompts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::input("prompt", format!("the model has none called {name:?}; it has {known}"))
        })
    }
}
