use super::*;
use crate::io::Config;
use crate::models::model;
use serde_json::json;
use std::path::Path;

fn llama() -> Box<dyn Model> {
    let config = json!({
        "model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 12,
        "num_attention_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
    });
    model(&Config::new("test", config).unwrap()).unwrap()
}

fn parsed(text: &str) -> Result<LoraConfig> {
    LoraConfig::parse(Path::new("adapter_config.json"), text)
}

#[test]
fn the_first_pattern_in_the_files_order_wins_and_matches_ends_of_names() {
    let text = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true, "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 9, "q_proj": 16, "1.self_attn.v_proj": 2}, "alpha_pattern": {".*v_proj": 3}}"#;
    let adapters = parsed(text).unwrap().adapters(llama().as_ref()).unwrap();
    assert_eq!(adapters.layers.len(), 24);
    let of = |layer: usize, name: &str| adapters.layers[&format!("model.layers.{layer}.self_attn.{name}")];
    assert_eq!(of(1, "q_proj"), LowRank { rank: 9, scale: 8.0 / 3.0, dropout: 0.0 });
    // Layer 11 does not end with a dot before "layers.1".
    assert_eq!(of(11, "q_proj"), LowRank { rank: 16, scale: 2.0, dropout: 0.0 });
    assert_eq!(of(1, "v_proj"), LowRank { rank: 2, scale: (3.0 / 2_f64.sqrt()) as f32, dropout: 0.0 });
    assert_eq!(of(0, "v_proj"), LowRank { rank: 4, scale: 1.5, dropout: 0.0 });
}

#[test]
fn all_linear_layers_are_those_of_blocks() {
    let adapters = LoraConfig { rank: 2, ..LoraConfig::default() }.adapters(llama().as_ref()).unwrap();
    assert_eq!(adapters.layers.len(), 12 * 7);
    let pattern = Targets::Pattern(r".*\.(3|4)\.mlp\..*".into());
    let adapters = LoraConfig { targets: pattern, ..LoraConfig::default() }.adapters(llama().as_ref()).unwrap();
    assert_eq!(adapters.layers.len(), 2 * 3);
}

#[test]
fn what_would_change_the_result_and_is_not_known_is_refused_by_its_name() {
    let refused = |more: &str| parsed(&format!(r#"{{"peft_type": "LORA", "r": 4, {more}}}"#)).unwrap_err().to_string();
    for (more, says) in [
        (r#""use_dora": true"#, "\"use_dora\" is true"),
        (r#""bias": "all""#, "\"bias\" is \"all\""),
        (r#""trainable_token_indices": [3]"#, "\"trainable_token_indices\""),
        (r#""init_lora_weights": "pissa""#, "\"init_lora_weights\" is \"pissa\""),
        (r#""something_new": {"a": 1}"#, "\"something_new\""),
        (r#""target_modules": "([""#, "which is no pattern"),
        (r#""rank_pattern": {"q": 0}"#, "1 or greater"),
        (r#""lora_alpha": null, "lora_dropout": 1.0"#, "must be in [0, 1)"),
    ] {
        let message = refused(more);
        assert!(message.contains(says), "{more}: {message}");
    }
    assert!(parsed(r#"{"peft_type": "IA3"}"#).unwrap_err().to_string().contains("is \"IA3\""));
    assert!(
        parsed(r#"{"peft_type": "LORA", "r": 4, "bias": "none", "use_dora": false, "layer_replication": null}"#)
            .is_ok()
    );
}

#[test]
fn names_that_are_none_are_refused_with_those_that_are() {
    let message = |config: LoraConfig| config.adapters(llama().as_ref()).unwrap_err().to_string();
    let named = |name: &str| LoraConfig { targets: Targets::Names(vec![name.into()]), ..LoraConfig::default() };
    assert!(message(named("query")).contains("it has down_proj, gate_proj, k_proj"), "{}", message(named("query")));
    assert!(message(named("lm_head")).contains("no linear layer"));
    let saved = LoraConfig { modules_to_save: vec!["classifier".into()], ..LoraConfig::default() };
    assert!(message(saved).contains("no module of this model"));
    let head = LoraConfig { modules_to_save: vec!["lm_head".into()], ..LoraConfig::default() };
    assert_eq!(head.adapters(llama().as_ref()).unwrap().whole, ["lm_head.weight"]);
}

#[test]
fn a_configuration_is_written_as_it_was_read() {
    let config = LoraConfig {
        rank_pattern: vec![("a".into(), 3)],
        targets: Targets::Names(vec!["q_proj".into()]),
        rslora: true,
        base: "../base".into(),
        ..LoraConfig::default()
    };
    assert_eq!(parsed(&config.to_json().to_string()).unwrap(), config);
}
