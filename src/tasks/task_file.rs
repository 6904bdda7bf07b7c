//! What a model was trained for: `task.json` in its folder.

#[cfg(feature = "files")]
use super::EmbedSettings;
use super::Pooling;
use crate::error::{Error, Result};
#[cfg(feature = "files")]
use crate::io::{TASK, file};
use crate::models::{EncoderHead, Model};
use serde::{Deserialize, Serialize};
#[cfg(feature = "files")]
use std::path::Path;

/// A use of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Application {
    /// A class, or several, of a text or of two.
    Classify,
    /// Labelled parts of a text, as names.
    Tag,
    /// Answers that are parts of a text.
    Answer,
    /// Which mentions in a text are of the same.
    Coref,
    /// Vectors, near each other for texts of like meaning.
    Embed,
    /// Words behind masks.
    Fill,
    /// The same in another language.
    Translate,
    /// The same in fewer words.
    Summarise,
    /// The same without mistakes.
    Correct,
    /// Any text from any other.
    Transform,
    /// A text goes on.
    Generate,
}

impl Application {
    /// All with their names.
    pub const ALL: [(&str, Self); 11] = [
        ("classify", Self::Classify),
        ("tag", Self::Tag),
        ("answer", Self::Answer),
        ("coref", Self::Coref),
        ("embed", Self::Embed),
        ("fill", Self::Fill),
        ("translate", Self::Translate),
        ("summarise", Self::Summarise),
        ("correct", Self::Correct),
        ("transform", Self::Transform),
        ("generate", Self::Generate),
    ];

    /// Its name, which is that of its command.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// What a model without `task.json` is for.
    #[must_use]
    pub fn of(model: &dyn Model) -> Self {
        if model.decoder().is_some() {
            return if model.encoder().is_some() { Self::Transform } else { Self::Generate };
        }
        match model.encoder().map(crate::models::Encoder::head_kind) {
            Some(EncoderHead::None) | None => Self::Embed,
            Some(head) if head.predicts_tokens() => Self::Fill,
            Some(EncoderHead::TokenClassification { .. } | EncoderHead::ReplacedTokens) => Self::Tag,
            Some(EncoderHead::QuestionAnswering) => Self::Answer,
            Some(_) => Self::Classify,
        }
    }

    /// Whether texts are made of texts.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(self, Self::Translate | Self::Summarise | Self::Correct | Self::Transform)
    }
}

/// What a model was trained for, and how its texts are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFile {
    /// Its use.
    pub task: Application,
    /// Put in front of each text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Put between a text and its answer, for a model that has no encoder.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub separator: String,
    /// The most tokens of a text in training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// The most tokens of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<usize>,
    /// Of vectors: which states become them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Of vectors: whether texts are read in lower case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lower_case: bool,
}

impl TaskFile {
    /// Of a use, with nothing else said.
    #[must_use]
    pub fn new(task: Application) -> Self {
        let (prefix, separator) = (String::new(), String::new());
        Self { task, prefix, separator, context: None, answer: None, pooling: None, lower_case: false }
    }

    /// That of a model's folder, or what can be told without one.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is damaged, or knows a task that this version does not.
    #[cfg(feature = "files")]
    pub fn of(folder: &Path, model: &dyn Model) -> Result<Self> {
        let path = folder.join(TASK);
        match file::read_json_if_there(&path)? {
            Some(value) => serde_json::from_value(value)
                .map_err(|e| Error::format(&path, format!("is not one that this version reads: {e}"))),
            None => Ok(Self::new(Application::of(model))),
        }
    }

    /// The same with what a model's folder says about vectors.
    ///
    /// # Errors
    /// Those of [`EmbedSettings::of`].
    #[cfg(feature = "files")]
    pub fn with_embed_settings(mut self, folder: &Path) -> Result<Self> {
        let settings = EmbedSettings::of(folder, &self)?;
        (self.pooling, self.context, self.prefix) = (Some(settings.pooling), settings.longest, settings.prefix);
        self.lower_case = settings.lower_case;
        Ok(self)
    }

    /// The file's content.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|e| Error::input("task.json", e.to_string()))
    }
}
