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
