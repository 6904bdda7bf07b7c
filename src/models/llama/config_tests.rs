use super::*;
use crate::models::Model;
use crate::ops::RopeScaling;

fn small() -> Value {
    json!({"model_type": "llama", "vocab_size": 97, "hidden_size": 35, "num_attention_heads": 5, "head_dim": 6,
           "num_hidden_layers": 2, "intermediate_size": 51, "max_position_embeddings": 300, "eos_token_id": [2, 3]})
}

fn with(key: &str, value: Value) -> Result<Llama> {
    let mut config = small();
    config[key] = value;
    model(config)
}

fn model(config: Value) -> Result<Llama> {
    Llama::from_config(&Config::new("config.json", config)?)
}

#[test]
fn a_config_survives_the_round_trip_with_every_kind_of_rope() {
    let llama3 = json!({"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let old = with("rope_scaling", json!({"type": "linear", "factor": 2.5})).unwrap();
    assert_eq!(old.rope.scaling, RopeScaling::Linear { factor: 2.5 });
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, "original_max_position_embeddings": 64});
    let dynamic = json!({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 5000.0});
    let long = json!({"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.5, 8.0],
                      "original_max_position_embeddings": 64});
    let others = [llama3, yarn, dynamic, long].map(|rope| with("rope_parameters", rope).unwrap());
    for first in [old, model(small()).unwrap()].into_iter().chain(others) {
        assert_eq!(model(first.config()).unwrap(), first);
        assert_eq!(first.config()["eos_token_id"], json!([2, 3]));
    }
}

#[test]
fn wrong_values_are_refused_by_key() {
    let refused = |key: &str, value: Value| with(key, value).unwrap_err().to_string();
    assert_eq!(
        refused("rope_scaling", json!({"rope_type": "axial"})),
        "config.json: \"rope_scaling.rope_type\" is \"axial\"; supported are default, linear, dynamic, yarn, longrope and llama3"
    );
    assert!(refused("rope_scaling", json!({"rope_type": "linear"})).contains("\"rope_scaling.factor\" is missing"));
    assert!(refused("head_dim", json!(7)).contains("need an even width"));
    assert!(refused("head_dim", Value::Null).contains("rotary positions need an even width"));
    assert_eq!(
        refused("num_key_value_heads", json!(2)),
        "config.json: \"num_key_value_heads\" is 2; it must divide num_attention_heads, which is 5"
    );
    let part = json!({"partial_rotary_factor": 0.5});
    assert!(refused("partial_rotary_factor", json!(0.5)).contains("\"partial_rotary_factor\" is not 1; only 1"));
    for key in ["rope_parameters", "rope_scaling"] {
        assert!(refused(key, part.clone()).contains(&format!("\"{key}.partial_rotary_factor\" is not 1; only 1")));
    }
    assert!(with("rope_parameters", json!({"partial_rotary_factor": 1.0})).is_ok());
}

#[test]
fn the_older_rope_scaling_goes_before_rope_parameters() {
    let both = |scaling: Value| {
        let mut config = small();
        config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 500.0});
        config["rope_theta"] = json!(300.0);
        config["rope_scaling"] = scaling;
        model(config)
    };
    let message = both(json!({"rope_type": "axial", "factor": 2.0})).unwrap_err().to_string();
    assert!(message.contains("\"rope_scaling.rope_type\" is \"axial\""), "{message}");
    let rope = |scaling: Value| both(scaling).map(|model| (model.rope.scaling, model.rope.theta)).unwrap();
    let linear = RopeScaling::Linear { factor: 2.0 };
    assert_eq!(rope(json!({"type": "linear", "factor": 2.0})), (linear.clone(), 300.0));
    assert_eq!(rope(json!({"type": "linear", "factor": 2.0, "rope_theta": 700.0})), (linear, 700.0));
    for nothing in [json!({}), Value::Null] {
        assert_eq!(rope(nothing), (RopeScaling::None, 500.0));
    }
}

#[test]
fn missing_keys_have_the_defaults_of_their_family() {
    let of = |family: &str| {
        let mut config = json!({"model_type": family, "vocab_size": 97, "hidden_size": 96, "num_attention_heads": 48,
                                "num_hidden_layers": 2, "intermediate_size": 51, "num_local_experts": 4,
                                "num_experts": 4, "moe_intermediate_size": 8});
        let missing = model(config.clone()).unwrap();
        config["num_key_value_heads"] = Value::Null;
        assert_eq!(model(config).unwrap().heads.key_value, 48);
        (missing.heads.key_value, missing.max_position, missing.epsilon, missing.rope.theta)
    };
    assert_eq!(of("llama"), (48, 2048, 1e-6, 1e4));
    assert_eq!(of("mixtral"), (8, 131_072, 1e-5, 1e6));
    assert_eq!(of("qwen2_moe"), (16, 32_768, 1e-6, 1e4));
}

#[test]
fn parameters_are_those_of_hugging_face() {
    let model = model(small()).unwrap();
    let names: Vec<String> = model.parameters().unwrap().into_iter().map(|(n, _)| n).collect();
    assert_eq!(names.len(), 1 + 2 * 9 + 2);
    assert!(names.contains(&"model.layers.1.self_attn.k_proj.weight".to_owned()));
    let block = 4 * 30 * 35 + 3 * 35 * 51 + 2 * 35;
    assert_eq!(model.parameter_count().unwrap(), 2 * 97 * 35 + 2 * block + 35);
    let biased = Llama { attention_bias: true, output_bias: true, mlp_bias: true, tied: true, ..model };
    assert_eq!(biased.parameters().unwrap().len(), 1 + 2 * 16 + 1);
}

/// A model of a family in six layers, with more keys.
fn of_family(family: &str, more: Value) -> Result<Llama> {
    let mut config = json!({"model_type": family, "vocab_size": 97, "hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
                            "num_hidden_layers": 6, "intermediate_size": 51, "num_experts": 4, "num_experts_per_tok": 2,
                            "moe_intermediate_size": 8});
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    model(config)
}

#[test]
fn options_of_each_family_survive_the_round_trip() {
    let local = json!({"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6},
                       "sliding_attention": {"rope_type": "default", "rope_theta": 3e3}});
    let kinds = ["sliding_attention", "full_attention"];
    let kinds: Vec<&str> = (0..6).map(|layer| kinds[usize::from(layer % 3 == 1)]).collect();
    for (family, more) in [
        ("mistral", json!({})),
        ("mistral", json!({"sliding_window": null})),
        ("mistral", json!({"sliding_window": 7, "head_dim": 6})),
        ("qwen2", json!({"use_sliding_window": true, "max_window_layers": 4, "sliding_window": 5})),
        ("qwen2", json!({"use_sliding_window": true, "layer_types": kinds})),
        ("qwen2", json!({"use_sliding_window": false, "sliding_window": 5})),
        ("qwen3", json!({"use_sliding_window": true, "max_window_layers": 2, "attention_bias": true})),
        (
            "qwen3_moe",
            json!({"use_sliding_window": true, "norm_topk_prob": true, "mlp_only_layers": [1], "decoder_sparse_step": 2}),
        ),
        ("olmoe", json!({"clip_qkv": 0.3, "attention_bias": true, "num_key_value_heads": 4})),
        ("smollm3", json!({"no_rope_layers": [1, 0, 1, 1, 0, 0], "tie_word_embeddings": false})),
        ("smollm3", json!({"no_rope_layer_interval": 3, "use_sliding_window": true, "sliding_window": 9})),
        ("smollm3", json!({"layer_types": kinds, "sliding_window": 9})),
        ("gemma", json!({"hidden_act": "gelu_python"})),
        ("gemma", json!({"hidden_act": "gelu", "tie_word_embeddings": false})),
        ("gemma2", json!({"query_pre_attn_scalar": 24, "attn_logit_softcapping": null, "layer_types": kinds})),
        ("gemma2", json!({"final_logit_softcapping": 7.5, "query_pre_attn_scalar": 144})),
        ("gemma3_text", json!({"sliding_window_pattern": 2, "rope_scaling": {"rope_type": "linear", "factor": 8.0}})),
        ("gemma3_text", json!({"rope_parameters": local, "final_logit_softcapping": 4.0, "sliding_window": 5})),
        (
            "granite",
            json!({"embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22,
                           "logits_scaling": 8.0, "mlp_bias": true}),
        ),
        ("granite", json!({})),
    ] {
        let first = of_family(family, more.clone()).unwrap_or_else(|e| panic!("{family} {more}: {e}"));
        let config = first.config();
        assert_eq!(config["model_type"], family);
        assert_eq!(model(config).unwrap(), first, "{family} {more}");
        assert!(first.parameters().is_ok(), "{family} {more}");
    }
}

#[test]
fn layers_differ_as_their_families_have_it() {
    let sliding = |family: &str, more: Value| of_family(family, more).unwrap().sliding.map(|s| (s.size, s.layers));
    assert_eq!(sliding("mistral", json!({})), Some((4096, (0..6).collect())));
    assert_eq!(sliding("mistral", json!({"sliding_window": null})), None);
    assert_eq!(sliding("llama", json!({"sliding_window": 3})), None);
    let used = |more: &str, number: usize| json!({"use_sliding_window": true, "sliding_window": 3, more: number});
    assert_eq!(sliding("qwen2", used("max_window_layers", 4)), Some((3, vec![4, 5])));
    assert_eq!(sliding("qwen2", used("max_window_layers", 6)), None);
    assert_eq!(sliding("qwen2_moe", used("max_window_layers", 3)), Some((3, vec![0, 2])));
    assert_eq!(sliding("qwen3_moe", used("max_window_layers", 3)), Some((3, (0..6).collect())));
    assert_eq!(sliding("smollm3", used("no_rope_layer_interval", 2)), Some((3, vec![1, 3, 5])));
    assert_eq!(sliding("gemma2", json!({})), Some((4096, vec![0, 2, 4])));
    assert_eq!(sliding("gemma3_text", json!({"sliding_window": 8})), Some((8, (0..5).collect())));
    assert_eq!(of_family("smollm3", json!({})).unwrap().no_rope, [3]);
    let gemma3 = of_family("gemma3_text", json!({})).unwrap();
    assert_eq!((gemma3.rope.theta, gemma3.local_rope.map(|rope| rope.theta)), (1e6, Some(1e4)));
    let caps = |model: Llama| (model.score_cap, model.logit_cap);
    assert_eq!(caps(of_family("gemma2", json!({})).unwrap()), (Some(50.0), Some(30.0)));
    assert_eq!(caps(of_family("gemma3_text", json!({"attn_logit_softcapping": 50.0})).unwrap()), (None, None));
}

#[test]
fn a_gemma_that_sees_pictures_has_its_texts_decoder_within() {
    let text = json!({"hidden_size": 48, "num_hidden_layers": 6, "intermediate_size": 51, "model_type": "gemma3_text",
                      "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 1024});
    let config = json!({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1, 106],
                        "text_config": text, "vision_config": {"hidden_size": 32}});
    let read = model(config).unwrap();
    assert_eq!((read.vocabulary, read.heads.query, read.heads.head_dim, read.tied), (262_208, 8, 256, true));
    assert_eq!(read.rope.scaling, RopeScaling::Linear { factor: 8.0 });
    let written = read.config();
    assert_eq!((&written["model_type"], &written["eos_token_id"]), (&json!("gemma3_text"), &json!([1, 106])));
    assert_eq!(model(written).unwrap(), read);
}

#[test]
fn what_a_family_cannot_do_is_refused_by_key() {
    let refused = |family: &str, more: Value| of_family(family, more).unwrap_err().to_string();
    for (family, more, wanted) in [
        ("gemma", json!({"use_bidirectional_attention": true}), "\"use_bidirectional_attention\" is true"),
        ("gemma2", json!({"sliding_window": null}), "\"sliding_window\" is null"),
        (
            "gemma2",
            json!({"layer_types": ["full_attention"]}),
            "\"layer_types\" needs sliding_attention or full_attention for each of 6",
        ),
        ("gemma3_text", json!({"rope_parameters": {"rope_theta": 1e4}}), "\"rope_parameters\" is one for all layers"),
        ("gemma3_text", json!({"sliding_window_pattern": 0}), "\"sliding_window_pattern\" is 0"),
        (
            "qwen3",
            json!({"sliding_window": 4, "layer_types": vec!["sliding_attention"; 6]}),
            "use_sliding_window is not true",
        ),
        ("smollm3", json!({"layer_types": vec!["sliding_attention"; 6]}), "there is no sliding_window"),
        ("smollm3", json!({"no_rope_layers": [1, 0]}), "\"no_rope_layers\" has 2 numbers"),
        ("granite", json!({"logits_scaling": 0.0}), "\"logits_scaling\" is 0"),
        ("olmoe", json!({"clip_qkv": -1.0, "num_key_value_heads": 4}), "\"clip_qkv\" is -1"),
        ("olmoe", json!({"sliding_window": 3}), "\"sliding_window\" is set"),
    ] {
        let message = refused(family, more);
        assert!(message.contains(wanted), "{message}");
    }
}
