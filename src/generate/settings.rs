//! The generation settings in a model's files.

use super::hypotheses::{BeamOptions, EarlyStopping};
use super::rules::TokenRules;
use super::sampling::SamplingOptions;
use super::unsupported;
use crate::error::{Error, Result};
#[cfg(feature = "tokenizers")]
use crate::io::Tokenizer;
use crate::io::{Config, ModelFolder};
use crate::models;
use derive_setters::Setters;
use serde_json::Value;
use std::collections::BTreeSet;

/// The supported settings of a model's `generation_config.json`, or of the metadata of its GGUF file (`general.sampling.*`), and the tokens
/// that end its answers.
#[derive(Clone, Debug, Default, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct GenerationSettings {
    /// Whether tokens are sampled; `false`: greedy decoding.
    pub do_sample: Option<bool>,
    /// [`SamplingOptions::temperature`].
    pub temperature: Option<f32>,
    /// [`SamplingOptions::top_k`].
    pub top_k: Option<usize>,
    /// [`SamplingOptions::top_p`].
    pub top_p: Option<f32>,
    /// [`SamplingOptions::min_p`].
    pub min_p: Option<f32>,
    /// [`SamplingOptions::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// [`SamplingOptions::max_new_tokens`].
    pub max_new_tokens: Option<usize>,
    /// The most tokens of a prompt and its answer together; of the answer and its start alone where an encoder reads the prompt.
    /// `max_new_tokens` goes before it.
    pub max_length: Option<usize>,
    /// The same, before an end token may come.
    pub min_length: Option<usize>,
    /// [`SamplingOptions::rules`].
    pub rules: TokenRules,
    /// [`SamplingOptions::renormalise`].
    pub renormalise: Option<bool>,
    /// [`BeamOptions::beams`]; not set: beam search is not asked for.
    pub beams: Option<usize>,
    /// [`BeamOptions::length_penalty`].
    pub length_penalty: Option<f64>,
    /// [`BeamOptions::early_stopping`].
    pub early_stopping: Option<EarlyStopping>,
    /// [`BeamOptions::answers`].
    pub answers: Option<usize>,
    /// [`SamplingOptions::stop`].
    pub stop: Vec<String>,
    /// Tokens that end an answer: those of `generation_config.json`, `config.json` (or a GGUF file's metadata) and the tokenizer.
    pub end: Vec<u32>,
    /// Settings that would change how tokens are drawn, or are not known, and are left out: keys with their values.
    pub ignored: Vec<String>,
    /// Settings that ask for another way of decoding, which gives other answers than those that are supported: keys with their values.
    pub unsupported: Vec<String>,
}

impl GenerationSettings {
    /// The most new tokens behind so many that the decoder begins with, if the file says how many.
    #[must_use]
    pub fn most_new_tokens(&self, before: usize) -> Option<usize> {
        self.max_new_tokens.or_else(|| self.max_length.map(|length| length.saturating_sub(before)))
    }

    /// The rules for an answer behind so many tokens that the decoder begins with.
    #[must_use]
    pub fn rules_behind(&self, before: usize) -> TokenRules {
        let least = self.min_length.unwrap_or(0).saturating_sub(before);
        TokenRules { min_new_tokens: self.rules.min_new_tokens.max(least), ..self.rules.clone() }
    }

    /// The options of sampling for an answer behind so many tokens that the decoder begins with: greedy where the file does not ask for samples,
    /// `tokens` at most where it has no limit. [`GenerationSettings::stop`] is left to [`SamplingOptions::add_stop`], which needs a tokenizer.
    #[must_use]
    pub fn sampling_behind(&self, before: usize, tokens: usize) -> SamplingOptions {
        let sampled = self.do_sample == Some(true);
        SamplingOptions {
            max_new_tokens: self.most_new_tokens(before).filter(|most| *most > 0).unwrap_or(tokens),
            temperature: if sampled { self.temperature.unwrap_or(1.0) } else { 0.0 },
            top_k: self.top_k.unwrap_or(0),
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            renormalise: self.renormalise.unwrap_or(false),
            end: self.end.clone(),
            rules: self.rules_behind(before),
            ..SamplingOptions::default()
        }
    }

    /// The options of beam search with so many beams.
    #[must_use]
    pub fn beam_options(&self, beams: usize) -> BeamOptions {
        let default = BeamOptions::default();
        BeamOptions {
            beams,
            length_penalty: self.length_penalty.unwrap_or(default.length_penalty),
            early_stopping: self.early_stopping.unwrap_or(default.early_stopping),
            answers: self.answers.unwrap_or(default.answers).min(beams),
            drawn: self.do_sample.unwrap_or(default.drawn),
        }
    }

    /// The settings of an open model with a vocabulary of that size.
    ///
    /// # Errors
    /// [`Error::Format`] that names the file and the key whose value is invalid.
    pub fn of(folder: &ModelFolder, vocabulary: usize) -> Result<Self> {
        let mut settings = match &folder.generation {
            Some(config) => {
                let mut settings = Self::read(config)?;
                settings.ignored.extend(unsupported::unknown(config.value()));
                settings.unsupported.extend(unsupported::other_start(config.value(), folder.config.value()));
                settings
            }
            // Older folders have these keys in config.json.
            None => Self::read(&folder.config)?,
        };
        let mut end: BTreeSet<u32> = BTreeSet::new();
        for config in folder.generation.iter().chain([&folder.config]) {
            end.extend(models::end_tokens(config, vocabulary)?);
        }
        #[cfg(feature = "tokenizers")]
        end.extend(folder.tokenizer.iter().flat_map(Tokenizer::ends));
        settings.end = end.into_iter().collect();
        Ok(settings)
    }

    /// The settings of a `generation_config.json`, without [`GenerationSettings::end`].
    ///
    /// # Errors
    /// As [`GenerationSettings::of`].
    pub fn read(config: &Config) -> Result<Self> {
        // Some files use -1 for "all".
        let top_k = config.optional::<i64>("top_k")?.map(|k| if k == -1 { 0 } else { k });
        let top_k = top_k.map(|k| {
            usize::try_from(k).map_err(|_| config.refuse("top_k", format!("it is {k}, but must be 0 (all) or more")))
        });
        let stop = match config.value().get("stop_strings") {
            Some(Value::String(one)) => vec![one.clone()],
            _ => config.get_or("stop_strings", Vec::new())?,
        };
        let settings = Self {
            do_sample: config.optional("do_sample")?,
            temperature: config.optional("temperature")?,
            top_k: top_k.transpose()?,
            top_p: config.optional("top_p")?,
            min_p: config.optional("min_p")?,
            repetition_penalty: config.optional("repetition_penalty")?,
            max_new_tokens: config.optional("max_new_tokens")?,
            max_length: config.optional("max_length")?,
            min_length: config.optional("min_length")?,
            rules: rules(config)?,
            renormalise: config.optional("renormalize_logits")?,
            beams: positive(config, "num_beams")?.filter(|beams| *beams > 1),
            length_penalty: config.optional("length_penalty")?,
            early_stopping: early_stopping(config)?,
            answers: positive(config, "num_return_sequences")?,
            stop,
            end: Vec::new(),
            ignored: unsupported::ignored(config.value()),
            unsupported: unsupported::other_ways(config.value()),
        };
        let defaults = SamplingOptions::default();
        let sampling = SamplingOptions {
            max_new_tokens: settings.max_new_tokens.unwrap_or(defaults.max_new_tokens),
            temperature: settings.temperature.unwrap_or(defaults.temperature),
            top_p: settings.top_p.unwrap_or(defaults.top_p),
            min_p: settings.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: settings.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            stop: settings.stop.clone(),
            ..defaults
        };
        sampling.validate().map_err(|error| Error::format(config.source(), error.to_string()))?;
        Ok(settings)
    }
}

/// A number that is at least 1.
fn positive(config: &Config, key: &str) -> Result<Option<usize>> {
    match config.optional::<usize>(key)? {
        Some(0) => Err(config.refuse(key, "is 0, but must be at least 1".to_owned())),
        count => Ok(count),
    }
}

fn early_stopping(config: &Config) -> Result<Option<EarlyStopping>> {
    const KEY: &str = "early_stopping";
    match config.value().get(KEY) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(false)) => Ok(Some(EarlyStopping::Heuristic)),
        Some(Value::Bool(true)) => Ok(Some(EarlyStopping::AtOnce)),
        Some(Value::String(word)) if word == "never" => Ok(Some(EarlyStopping::Never)),
        Some(other) => Err(config.refuse(KEY, format!("is {other}, but must be true, false or \"never\""))),
    }
}

/// The rules for single tokens.
fn rules(config: &Config) -> Result<TokenRules> {
    let several = |key: &str| match config.value().get(key) {
        Some(Value::Number(_)) => Ok(vec![config.get::<u32>(key)?]),
        _ => Ok(config.optional::<Vec<u32>>(key)?.unwrap_or_default()),
    };
    // Files have these lists with -1 for "none" as well.
    let tokens = |key: &str| -> Result<Vec<u32>> {
        let ids = config.optional::<Vec<i64>>(key)?.unwrap_or_default();
        Ok(ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
    };
    Ok(TokenRules {
        min_new_tokens: config.optional("min_new_tokens")?.unwrap_or(0),
        suppress: tokens("suppress_tokens")?,
        suppress_first: tokens("begin_suppress_tokens")?,
        bad_words: config.optional("bad_words_ids")?.unwrap_or_default(),
        no_repeat_ngram: config.optional("no_repeat_ngram_size")?.unwrap_or(0),
        no_prompt_ngram: config.optional("encoder_no_repeat_ngram_size")?.unwrap_or(0),
        prompt_penalty: prompt_penalty(config)?,
        biases: biases(config)?,
        end_decay: end_decay(config)?,
        forced_first: config.optional("forced_bos_token_id")?,
        forced_last: several("forced_eos_token_id")?,
    })
}

fn prompt_penalty(config: &Config) -> Result<Option<f32>> {
    const KEY: &str = "encoder_repetition_penalty";
    match config.optional::<f32>(KEY)? {
        Some(penalty) if !(penalty > 0.0 && penalty.is_finite()) => {
            Err(config.refuse(KEY, format!("is {penalty}, but must be more than 0 (1 is off)")))
        }
        penalty => Ok(penalty.filter(|penalty| *penalty != 1.0)),
    }
}

fn biases(config: &Config) -> Result<Vec<(Vec<u32>, f32)>> {
    const KEY: &str = "sequence_bias";
    let mut biases: Vec<(Vec<u32>, f32)> = Vec::new();
    for (tokens, bias) in config.optional::<Vec<(Vec<u32>, f32)>>(KEY)?.unwrap_or_default() {
        // The last of equal sequences counts.
        biases.retain(|(known, _)| *known != tokens);
        biases.push((tokens, bias));
    }
    match biases.iter().find(|(tokens, bias)| tokens.is_empty() || !bias.is_finite()) {
        Some(wrong) => Err(config.refuse(KEY, format!("has {wrong:?}, but each needs tokens and a finite number"))),
        None => Ok(biases),
    }
}

fn end_decay(config: &Config) -> Result<Option<(usize, f32)>> {
    const KEY: &str = "exponential_decay_length_penalty";
    match config.optional::<(usize, f32)>(KEY)? {
        Some((_, factor)) if !(factor > 0.0 && factor.is_finite()) => {
            Err(config.refuse(KEY, format!("has the factor {factor}, but must be more than 0")))
        }
        decay => Ok(decay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<GenerationSettings> {
        GenerationSettings::read(&Config::new("m/generation_config.json", value).unwrap())
    }

    #[test]
    fn settings_are_read_and_unsupported_ones_are_named() {
        let settings = read(json!({
            "do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": -1, "max_new_tokens": 12, "stop_strings": "END",
            "num_beams": 4, "eta_cutoff": 0.0, "no_repeat_ngram_size": 0, "suppress_tokens": [1, -1], "bad_words_ids": null,
            "forced_eos_token_id": 3, "forced_bos_token_id": null, "max_length": 20, "min_length": 5, "force_words_ids": [[1]], "typical_p": 0.9,
            "transformers_version": "5.0.0", "eos_token_id": 3,
        }));
        let settings = settings.unwrap();
        assert_eq!((settings.do_sample, settings.temperature, settings.top_p), (Some(true), Some(0.6), Some(0.9)));
        assert_eq!((settings.top_k, settings.max_new_tokens, settings.min_p), (Some(0), Some(12), None));
        assert_eq!(settings.max_length, Some(20));
        assert_eq!(settings.stop, ["END"]);
        assert_eq!(settings.ignored, ["typical_p 0.9"]);
        assert_eq!(settings.unsupported, ["force_words_ids"]);
        assert_eq!(settings.beams, Some(4));
        let rules = TokenRules { suppress: vec![1], forced_last: vec![3], ..TokenRules::default() };
        assert_eq!(settings.rules, rules);
        assert_eq!(settings.rules_behind(2).min_new_tokens, 3);
        assert_eq!(
            (settings.most_new_tokens(1), read(json!({"max_length": 20})).unwrap().most_new_tokens(1)),
            (Some(12), Some(19))
        );
        assert_eq!(read(json!({"stop_strings": ["a", "b"]})).unwrap().stop, ["a", "b"]);
        assert_eq!(read(json!({})).unwrap(), GenerationSettings::default());
    }

    #[test]
    fn a_file_gives_options_of_sampling() {
        let greedy = read(json!({"temperature": 0.7, "top_k": 5, "max_length": 30})).unwrap();
        let options = greedy.sampling_behind(10, 99);
        assert_eq!((options.temperature, options.top_k, options.max_new_tokens), (0.0, 5, 20));
        assert_eq!(greedy.sampling_behind(30, 99).max_new_tokens, 99, "no room is no limit");
        let drawn = read(json!({"do_sample": true, "min_length": 12, "repetition_penalty": 1.5})).unwrap();
        let options = drawn.sampling_behind(10, 99);
        assert_eq!((options.temperature, options.repetition_penalty, options.rules.min_new_tokens), (1.0, 1.5, 2));
        let nothing = GenerationSettings::default().sampling_behind(10, 99);
        assert_eq!(nothing, SamplingOptions::greedy(99));
    }

    #[test]
    fn invalid_settings_are_refused_with_the_file() {
        for (value, wanted) in [
            (json!({"temperature": -1.0}), "temperature: it is -1, but must be"),
            (json!({"temperature": "hot"}), "\"temperature\" is not usable"),
            (json!({"top_p": 2}), "top_p: it is 2, but must be"),
            (json!({"top_k": -5}), "it is -5, but must be 0 (all) or more"),
            (json!({"repetition_penalty": 0}), "repetition_penalty"),
            (json!({"stop_strings": [""]}), "stop text is empty"),
            (json!({"encoder_repetition_penalty": 0}), "\"encoder_repetition_penalty\" is 0, but must be more than 0"),
            (json!({"sequence_bias": [[[], 1.0]]}), "\"sequence_bias\" has ([], 1.0), but each needs tokens"),
            (json!({"exponential_decay_length_penalty": [3, -1.0]}), "has the factor -1"),
            (json!({"exponential_decay_length_penalty": 3}), "\"exponential_decay_length_penalty\" is not usable"),
        ] {
            let message = read(value).unwrap_err().to_string();
            assert!(message.starts_with("m/generation_config.json: ") && message.contains(wanted), "{message}");
        }
    }
}
