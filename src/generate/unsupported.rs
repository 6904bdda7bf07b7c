//! Settings of a `generation_config.json` that are not followed.

use serde_json::{Map, Value};

/// Keys that change how tokens are drawn, with the values that have no effect.
const DRAWS: [(&str, f64); 8] = [
    ("typical_p", 1.0),
    ("top_h", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("max_time", 0.0),
    ("general.sampling.penalty_last_n", -1.0),
    ("general.sampling.xtc_probability", 0.0),
    ("general.sampling.mirostat", 0.0),
];

/// The same for any value.
const LISTS: [&str; 1] = ["general.sampling.sequence"];

/// Keys that ask for another way of decoding, with the values that have no effect.
const WAYS: [(&str, f64); 3] = [("num_beam_groups", 1.0), ("penalty_alpha", 0.0), ("guidance_scale", 1.0)];

/// The same for any value.
const OTHER_WAYS: [&str; 5] = ["force_words_ids", "constraints", "watermarking_config", "dola_layers", "token_healing"];

/// Keys that are followed.
const FOLLOWED: [&str; 30] = [
    "bad_words_ids",
    "begin_suppress_tokens",
    "decoder_start_token_id",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_beams",
    "num_return_sequences",
    "renormalize_logits",
    "repetition_penalty",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    // What a model of this engine does in any case: numbers that are not finite are errors, and groups of one beam have no penalty.
    "remove_invalid_values",
    "diversity_penalty",
];

/// Keys that change no token: caches, what is returned, drafts that are checked.
const WITHOUT_EFFECT: [&str; 31] = [
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "return_dict_in_generate",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_mtp",
    "_from_model_config",
    "_commit_hash",
];

/// Settings that would change how tokens are drawn, or when an answer ends.
pub(super) fn ignored(config: &Value) -> Vec<String> {
    let numbers = DRAWS.iter().filter_map(|(key, off)| number(config, key, *off));
    numbers.chain(LISTS.iter().filter_map(|key| list(config, key))).collect()
}

/// Settings that ask for another way of decoding.
pub(super) fn other_ways(config: &Value) -> Vec<String> {
    let numbers = WAYS.iter().filter_map(|(key, off)| number(config, key, *off));
    numbers.chain(OTHER_WAYS.iter().filter_map(|key| list(config, key))).collect()
}

/// Keys of a `generation_config.json` that are not known.
pub(super) fn unknown(config: &Value) -> Vec<String> {
    let known = |key: &str| {
        let numbers = DRAWS.iter().chain(&WAYS).map(|(known, _)| *known);
        let lists = LISTS.iter().chain(&OTHER_WAYS).chain(&FOLLOWED).chain(&WITHOUT_EFFECT).copied();
        numbers.chain(lists).any(|known| known == key)
    };
    let keys = config.as_object().into_iter().flat_map(Map::keys);
    keys.filter(|key| !known(key)).map(|key| format!("{key} (not known)")).collect()
}

/// A first token of the decoder that is not the model's own.
pub(super) fn other_start(config: &Value, model: &Value) -> Option<String> {
    let of = |config: &Value| config.get("decoder_start_token_id").and_then(Value::as_u64);
    let (start, own) = (of(config)?, of(model)?);
    (start != own).then(|| format!("decoder_start_token_id {start} (config.json: {own})"))
}

fn number(config: &Value, key: &str, off: f64) -> Option<String> {
    match config.get(key)? {
        Value::Null => None,
        value if value.as_f64() == Some(off) => None,
        value => Some(format!("{key} {value}")),
    }
}

fn list(config: &Value, key: &str) -> Option<String> {
    let without = match config.get(key)? {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    (!without).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::GenerationSettings;
    use super::*;
    use crate::io::Config;
    use serde_json::json;

    /// Every key of transformers 5.24 with a value that has an effect, and what becomes of it.
    fn keys() -> Value {
        json!({
            "followed": {
                "bad_words_ids": [[1, 2]], "begin_suppress_tokens": [4], "do_sample": true, "early_stopping": true,
                "encoder_no_repeat_ngram_size": 3, "encoder_repetition_penalty": 1.5, "exponential_decay_length_penalty": [5, 1.1],
                "forced_bos_token_id": 3, "forced_eos_token_id": 2, "length_penalty": 0.5, "max_length": 9, "max_new_tokens": 7,
                "min_length": 2, "min_new_tokens": 2, "min_p": 0.1, "no_repeat_ngram_size": 2, "num_beams": 3,
                "num_return_sequences": 2, "renormalize_logits": true, "repetition_penalty": 1.2, "sequence_bias": [[[1, 2], -1.5]],
                "stop_strings": ["x"], "suppress_tokens": [5], "temperature": 0.5, "top_k": 7, "top_p": 0.9,
            },
            "without effect": {
                "assistant_confidence_threshold": 0.4, "assistant_early_exit": 3, "assistant_ensemble_weight": 0.5,
                "assistant_lookbehind": 10, "bos_token_id": 1, "cache_config": {"a": 1}, "cache_implementation": "static",
                "compile_config": {"a": 1}, "continuous_batching_config": {"a": 1}, "disable_compile": true, "diversity_penalty": 0.5,
                "is_assistant": true, "low_memory": true, "max_cache_len": 9, "max_matching_ngram_size": 2,
                "num_assistant_tokens": 20, "num_assistant_tokens_schedule": "constant", "output_attentions": true,
                "output_hidden_states": true, "output_logits": true, "output_scores": true, "pad_token_id": 0,
                "prefill_chunk_size": 64, "prompt_lookup_num_tokens": 3, "remove_invalid_values": true,
                "return_dict_in_generate": true, "speculation_type": "draft", "target_lookbehind": 10,
                "transformers_version": "5.24.0", "use_cache": true, "use_mtp": true, "_from_model_config": true,
                "decoder_start_token_id": 3, "eos_token_id": 2,
            },
            "ignored": { "epsilon_cutoff": 1e-3, "eta_cutoff": 1e-3, "max_time": 2.5, "top_h": 0.4, "typical_p": 0.9 },
            "unsupported": {
                "constraints": ["c"], "dola_layers": "low", "force_words_ids": [[1]], "guidance_scale": 1.5, "num_beam_groups": 2,
                "penalty_alpha": 0.6, "token_healing": true, "watermarking_config": {"a": 1},
            },
        })
    }

    #[test]
    fn every_key_is_followed_or_said_not_to_be() {
        let none = GenerationSettings::default();
        let mut count = 0;
        for (kind, keys) in keys().as_object().unwrap() {
            for (key, value) in keys.as_object().unwrap() {
                let config = Config::new("generation_config.json", json!({key: value})).unwrap();
                let settings = GenerationSettings::read(&config).unwrap();
                let (ignored, unsupported) = (!settings.ignored.is_empty(), !settings.unsupported.is_empty());
                let found = match (ignored, unsupported) {
                    (true, false) => "ignored",
                    (false, true) => "unsupported",
                    _ if settings != none => "followed",
                    _ => "without effect",
                };
                assert_eq!(found, kind, "{key}");
                assert!(unknown(config.value()).is_empty(), "{key}");
                count += 1;
            }
        }
        assert_eq!(count, 73);
        assert_eq!(unknown(&json!({"user_token_id": 195})), ["user_token_id (not known)"]);
    }

    #[test]
    fn values_without_effect_say_nothing() {
        let neutral = json!({
            "epsilon_cutoff": 0.0, "eta_cutoff": 0, "top_h": null, "typical_p": 1.0, "max_time": null, "num_beam_groups": 1,
            "penalty_alpha": 0.0, "guidance_scale": 1, "dola_layers": null, "force_words_ids": null, "constraints": [],
            "watermarking_config": {}, "token_healing": false, "diversity_penalty": 0.0, "encoder_repetition_penalty": 1.0,
            "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": null, "sequence_bias": null,
        });
        let settings = GenerationSettings::read(&Config::new("generation_config.json", neutral).unwrap()).unwrap();
        assert_eq!(settings, GenerationSettings::default());
    }

    #[test]
    fn a_start_that_is_not_the_models_own_is_said() {
        let start = |token: u32| json!({"decoder_start_token_id": token});
        assert_eq!(other_start(&start(3), &start(3)), None);
        assert_eq!(other_start(&start(3), &json!({})), None);
        let said = other_start(&start(3), &start(0)).unwrap();
        assert_eq!(said, "decoder_start_token_id 3 (config.json: 0)");
    }
}
