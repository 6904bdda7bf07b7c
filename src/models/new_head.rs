//! A model with another head than its file has.

use super::family::{CLASS_ENDS, FAMILIES, model_type};
use super::names::Names;
use super::{EncoderHead, Model, model, stacked};
use crate::error::{Error, Result};
use crate::io::{Config, Tensors};
use serde_json::{Map, Value};

/// The key of a model's class.
const CLASS: &str = "architectures";

/// A head with classes, or without, for an encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewHead {
    /// Its kind.
    pub kind: EncoderHead,
    /// The names of its classes.
    pub labels: Vec<String>,
    /// `problem_type`: how several classes are meant; none: one of them holds.
    pub problem: Option<&'static str>,
}

impl NewHead {
    /// A class of each text.
    #[must_use]
    pub fn classes(labels: &[String]) -> Self {
        let kind = EncoderHead::SequenceClassification { labels: labels.len() };
        Self { kind, labels: labels.to_vec(), problem: None }
    }

    /// A class of each token.
    #[must_use]
    pub fn tags(labels: &[String]) -> Self {
        Self { kind: EncoderHead::TokenClassification { labels: labels.len() }, labels: labels.to_vec(), problem: None }
    }

    /// A head without named classes.
    #[must_use]
    pub fn plain(kind: EncoderHead) -> Self {
        Self { kind, labels: Vec::new(), problem: None }
    }

    /// The `config.json` of a model with this head in place of its own.
    ///
    /// # Errors
    /// [`Error::Format`] if the family has no such head.
    pub fn config(&self, config: &Config) -> Result<Config> {
        let end = match self.kind {
            EncoderHead::None => "Model",
            EncoderHead::MaskedLanguageModel => "ForMaskedLM",
            EncoderHead::NextToken => "ForCausalLM",
            EncoderHead::NextSentence => "ForNextSentencePrediction",
            EncoderHead::PreTraining | EncoderHead::SentenceOrder | EncoderHead::ReplacedTokens => "ForPreTraining",
            EncoderHead::SequenceClassification { .. } => "ForSequenceClassification",
            EncoderHead::TokenClassification { .. } => "ForTokenClassification",
            EncoderHead::QuestionAnswering => "ForQuestionAnswering",
            EncoderHead::MultipleChoice => "ForMultipleChoice",
        };
        let family = model_type(config)?;
        let known = FAMILIES.iter().find(|known| known.name == family);
        let class = known.map_or(family.as_str(), |known| known.class);
        let mut keys = config.value().clone();
        keys["model_type"] = family.as_str().into();
        keys[CLASS] = vec![format!("{class}{end}")].into();
        if let Some(keys) = keys.as_object_mut() {
            for key in ["num_labels", "id2label", "label2id", "problem_type"] {
                keys.remove(key);
            }
        }
        if !self.labels.is_empty() {
            let numbered = || self.labels.iter().enumerate();
            keys["id2label"] =
                numbered().map(|(id, label)| (id.to_string(), label.clone().into())).collect::<Map<_, Value>>().into();
            keys["label2id"] =
                numbered().map(|(id, label)| (label.clone(), id.into())).collect::<Map<_, Value>>().into();
        }
        if let Some(problem) = self.problem {
            keys["problem_type"] = problem.into();
        }
        let made = config.with_value(keys);
        let model = model(&made)?;
        // Families that are never without a head keep that of a language model, which nothing uses.
        let none = self.kind == EncoderHead::None;
        let fits = |kind: EncoderHead| kind == self.kind || none && kind.predicts_tokens();
        if model.encoder().is_some_and(|encoder| fits(encoder.head_kind())) {
            return Ok(made);
        }
        let message = format!("a {family} has no head {end}: start from an encoder, as bert, roberta or modernbert");
        Err(Error::format(config.source(), message))
    }
}

/// The class of a `config.json`, without the family in front.
fn class_end(config: &Config) -> Option<&'static str> {
    let class = config.value()[CLASS].get(0)?.as_str()?;
    CLASS_ENDS.into_iter().find(|end| class.ends_with(end))
}

/// The parameters of a model's head that a file does not have, or has for other classes: they begin afresh. What is below the head must be
/// there.
///
/// # Errors
/// As [`Model::declare`].
pub fn fresh_head(model: &dyn Model, config: &Config, tensors: &Tensors) -> Result<Vec<String>> {
    let parameters = model.parameters()?;
    let body = match class_end(config).filter(|end| *end != "Model") {
        Some(_) => {
            let mut below =
                super::model(&NewHead::plain(EncoderHead::None).config(config).or_else(|_| masked(config))?)?;
            below.adapt_to_tensors(&|end| tensors.names().any(|name| name.ends_with(end)));
            below.parameters()?
        }
        None => return Ok(Vec::new()),
    };
    let names = Names::new(model, tensors, &parameters);
    let there = |name: &str, ty| {
        stacked::file_tensors(name, ty)
            .iter()
            .all(|(part, ty)| names.get(part).is_some_and(|tensor| *tensor.shape == ty.shape))
    };
    let fresh = parameters.iter().filter(|(name, ty)| !body.iter().any(|(known, _)| known == name) && !there(name, ty));
    Ok(fresh.map(|(name, _)| name.clone()).collect())
}

/// The same model as one of masked words, where there is none without a head.
fn masked(config: &Config) -> Result<Config> {
    let mut keys = config.value().clone();
    if let Some(keys) = keys.as_object_mut() {
        keys.remove(CLASS);
    }
    Ok(config.with_value(keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: Value) -> Config {
        Config::new("config.json", value).unwrap()
    }

    #[test]
    fn a_head_takes_the_place_of_another() {
        let bert = config(json!({
            "model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 7,
        }));
        let labels = ["bad", "fair", "good"].map(str::to_owned);
        let made = NewHead::classes(&labels).config(&bert).unwrap();
        assert_eq!(made.value()["architectures"], json!(["BertForSequenceClassification"]));
        assert_eq!(made.value()["id2label"], json!({"0": "bad", "1": "fair", "2": "good"}));
        assert_eq!(made.value()["label2id"]["good"], 2);
        assert!(made.value().get("num_labels").is_none());
        let plain = config(json!({
            "model_type": "transformer", "architectures": ["TransformerModel"], "vocab_size": 50, "hidden_size": 8, "num_encoder_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16,
        }));
        for head in [NewHead::tags(&labels), NewHead::plain(EncoderHead::QuestionAnswering)] {
            let model = model(&head.config(&plain).unwrap()).unwrap();
            assert_eq!(model.encoder().unwrap().head_kind(), head.kind);
            // What a saved model says is what it is.
            let again = super::super::model(&config(model.config())).unwrap();
            assert_eq!(again.encoder().unwrap().head_kind(), head.kind);
        }
        let decoder = config(json!({"model_type": "gpt2", "vocab_size": 9, "n_embd": 4, "n_head": 1, "n_layer": 1}));
        let refused = NewHead::classes(&labels).config(&decoder).unwrap_err().to_string();
        assert!(refused.contains("GPT2ForSequenceClassification"), "{refused}");
    }
}
