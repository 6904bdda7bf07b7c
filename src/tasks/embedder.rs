//! Vectors of texts.

use super::embed::to_unit_length;
use super::task_file::TaskFile;
use super::windows::{Window, row, truncated, windows};
use super::{Pooling, Reader, Row, Target};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Encoding, Tokenizer};
#[cfg(feature = "files")]
use crate::io::{ModelFolder, file};
use crate::models::Model;
use crate::program::Weights;
#[cfg(feature = "files")]
use crate::tasks::data::PairExample;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

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

/// An encoder with its tokenizer that turns texts into vectors, near each other for texts of like meaning (Reimers and Gurevych,
/// arXiv:1908.10084).
///
/// Texts that are longer than a model reads lose their ends, or are read in windows that share an eighth of their tokens; a text's vector is then
/// the mean of those of its windows, each with the weight of its tokens.
#[derive(Debug)]
pub struct TextEmbedder {
    reader: Reader,
    tokenizer: Tokenizer,
    settings: EmbedSettings,
    longest: usize,
    in_windows: bool,
}

impl TextEmbedder {
    /// Makes a model ready.
    ///
    /// # Errors
    /// [`Error::Input`] if the model is no encoder.
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Model>,
        weights: &Weights,
        tokenizer: &Tokenizer,
        settings: EmbedSettings,
    ) -> Result<Self> {
        let longest = settings.longest.unwrap_or(usize::MAX).min(model.dimensions().max_position);
        let reader = Reader::new(gpu, model, weights, settings.pooling.reads())?;
        Ok(Self { reader, tokenizer: tokenizer.clone(), settings, longest, in_windows: false })
    }

    /// The same, with long texts read in windows.
    #[must_use]
    pub fn in_windows(self, in_windows: bool) -> Self {
        Self { in_windows, ..self }
    }

    /// How texts become vectors.
    #[must_use]
    pub fn settings(&self) -> &EmbedSettings {
        &self.settings
    }

    /// The most tokens of a text that are read at a time, special ones included.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Numbers of a vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.reader.model().dimensions().d_model
    }

    /// The vectors of texts behind the settings' prefix; `done` is told how many rows of tokens have been read.
    ///
    /// # Errors
    /// [`Error::Input`] if a text has no tokens, or the prefix leaves no room for any; [`Error::NonFinite`] for damaged weights; those of the
    /// tokenizer and of [`Reader::read_at`].
    pub fn embed(&mut self, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let prefix = self.settings.prefix.clone();
        self.embed_behind(&prefix, texts, done)
    }

    /// As [`TextEmbedder::embed`], behind another prefix.
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    pub fn embed_behind(&mut self, prefix: &str, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let (rows, ends) = self.rows_of(prefix, texts)?;
        let read: Vec<(&Row, usize)> = rows.iter().map(|(row, _)| (row, 0)).collect();
        let states = self.reader.read_at(&read, done)?;
        self.vectors(texts, &rows, &states, &ends)
    }

    /// The async form of [`TextEmbedder::embed`].
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    pub async fn embed_async(&mut self, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let prefix = self.settings.prefix.clone();
        let (rows, ends) = self.rows_of(&prefix, texts)?;
        let read: Vec<(&Row, usize)> = rows.iter().map(|(row, _)| (row, 0)).collect();
        let states = self.reader.read_at_async(&read, done).await?;
        self.vectors(texts, &rows, &states, &ends)
    }

    /// The rows of all texts, with their weights, and where those of each text end.
    fn rows_of(&self, prefix: &str, texts: &[&str]) -> Result<(Vec<(Row, f64)>, Vec<usize>)> {
        let mut rows = Vec::with_capacity(texts.len());
        let mut ends = Vec::with_capacity(texts.len());
        for text in texts {
            rows.extend(self.rows(prefix, text)?);
            ends.push(rows.len());
        }
        Ok((rows, ends))
    }

    /// The vectors of texts by the states of their rows.
    fn vectors(
        &self,
        texts: &[&str],
        rows: &[(Row, f64)],
        states: &[Vec<f32>],
        ends: &[usize],
    ) -> Result<Vec<Vec<f32>>> {
        let mut first = 0;
        let mut vectors = Vec::with_capacity(texts.len());
        for &end in ends {
            let parts = rows.iter().zip(states).take(end).skip(first);
            first = end;
            let all: f64 = parts.clone().map(|((_, weight), _)| weight).sum();
            let mut sums = vec![0.0; self.dimensions()];
            for ((_, weight), state) in parts {
                sums.iter_mut().zip(state).for_each(|(sum, x)| *sum += weight / all * f64::from(*x));
            }
            let mut vector: Vec<f32> = sums.into_iter().map(|x| x as f32).collect();
            if self.settings.unit_length {
                to_unit_length(&mut vector);
            }
            if vector.iter().any(|x| !x.is_finite()) {
                let message = "the weights are damaged, or too large for their storage type".into();
                return Err(Error::NonFinite { what: "the vector of a text".into(), message });
            }
            vectors.push(vector);
        }
        Ok(vectors)
    }

    /// The row of a pair of texts that belong together, to learn from.
    ///
    /// # Errors
    /// [`Error::Input`] if the target is missing; as [`TextEmbedder::embed`].
    #[cfg(feature = "files")]
    pub fn pair_row(&self, pair: &PairExample) -> Result<Row> {
        let missing = || Error::input("target", "is missing: a pair of texts is needed");
        let target = pair.target.as_deref().ok_or_else(missing)?;
        let ids = |text: &str| {
            let (encoding, _) = self.encoding(&self.settings.prefix, text)?;
            Ok(truncated(&encoding, self.longest).ids)
        };
        let target = Target::Near { ids: ids(target)?, pooling: self.settings.pooling };
        Ok(Row { ids: ids(&pair.source)?, types: Vec::new(), target })
    }

    /// The parts of a text, as bytes, that are read at a time behind a prefix and share nothing: one of a text that is not too long.
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    #[cfg(feature = "files")]
    pub(super) fn parts(&self, prefix: &str, text: &str) -> Result<Vec<std::ops::Range<usize>>> {
        let (encoding, front) = self.encoding(prefix, text)?;
        if encoding.ids.len() <= self.longest {
            return Ok(std::iter::once(0..text.len()).collect());
        }
        let mut ends: Vec<usize> = Vec::new();
        for window in windows(&encoding, 0, self.longest, 0)? {
            let last = window.tokens.offsets.get(window.inside.end.saturating_sub(1));
            let mut end = last.map_or(0, |last| last.1.saturating_sub(front)).min(text.len());
            // Tokens of bytes may end within a character.
            while !text.is_char_boundary(end) {
                end += 1;
            }
            ends.push(end);
        }
        if let Some(last) = ends.last_mut() {
            *last = text.len();
        }
        let mut begin = 0;
        let part = |end: usize| (end > begin).then(|| std::mem::replace(&mut begin, end)..end);
        Ok(ends.into_iter().filter_map(part).collect())
    }

    /// The tokens of a text behind a prefix, whose tokens count as another text, and the bytes of the prefix.
    fn encoding(&self, prefix: &str, text: &str) -> Result<(Encoding, usize)> {
        let whole = format!("{prefix}{text}");
        let whole = if self.settings.lower_case { whole.to_lowercase() } else { whole };
        let front = if self.settings.lower_case { prefix.to_lowercase().len() } else { prefix.len() };
        let mut encoding = self.tokenizer.encode_for_model(&whole, None)?;
        if encoding.ids.is_empty() {
            return Err(Error::input("text", "one has no tokens: leave empty texts out"));
        }
        for (sequence, (_, end)) in encoding.sequences.iter_mut().zip(&encoding.offsets) {
            if sequence.is_some() && *end <= front {
                *sequence = Some(1);
            }
        }
        let others = encoding.sequences.iter().filter(|sequence| **sequence != Some(0)).count();
        if encoding.ids.len() > self.longest && others >= self.longest {
            let message = format!(
                "it has {others} tokens with the special ones, and {} are read at a time: shorten it, or give a longer context (--context)",
                self.longest
            );
            return Err(Error::input("prefix", message));
        }
        Ok((encoding, front))
    }

    /// The rows of a text with their weights.
    fn rows(&self, prefix: &str, text: &str) -> Result<Vec<(Row, f64)>> {
        let (encoding, _) = self.encoding(prefix, text)?;
        if !self.in_windows || encoding.ids.len() <= self.longest {
            return Ok(vec![(row(truncated(&encoding, self.longest), false, Target::None), 1.0)]);
        }
        let windows = windows(&encoding, 0, self.longest, self.longest / 8)?;
        let row = |window: Window| {
            let weight = window.inside.len() as f64;
            (row(window.tokens, false, Target::None), weight)
        };
        Ok(windows.into_iter().map(row).collect())
    }
}
