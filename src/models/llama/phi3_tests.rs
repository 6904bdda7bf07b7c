//! Phi-3 in a `config.json`.

use super::*;
use crate::models::Model;
use crate::ops::{RopeOptions, RopeScaling};

const TRAINED: &str = "original_max_position_embeddings";
const SHARE: &str = "partial_rotary_factor";
const WINDOW: &str = "sliding_window";

fn phi(more: Value) -> Result<Llama> {
    let mut config = json!({"model_type": "phi3", "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 3,
                            "num_hidden_layers": 2, "intermediate_size": 51, "max_position_embeddings": 300});
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    Llama::from_config(&Config::new("config.json", config)?)
}

#[test]
fn a_config_survives_the_round_trip_in_both_spellings() {
    let (short, long) = (json!([1.0, 1.5, 2.0]), json!([2.0, 4.0, 8.0]));
    let older = json!({"type": "su", "short_factor": short, "long_factor": long});
    let older = phi(json!({SHARE: 0.5, TRAINED: 64, "rope_scaling": older, "rope_theta": 500.0})).unwrap();
    let scaling = RopeScaling::Long {
        short: [1.0, 1.5, 2.0].into(),
        long: [2.0, 4.0, 8.0].into(),
        attention: (1.0 + (300.0_f64 / 64.0).ln() / 64_f64.ln()).sqrt() as f32,
        original_max_position: 64,
    };
    let wanted = RopeOptions { theta: 500.0, rotary_dim: Some(6), max_positions: 300, scaling, ..Default::default() };
    assert_eq!(older.rope, wanted);
    let newer = json!({"rope_type": "longrope", "short_factor": short, "long_factor": long, SHARE: 0.5,
                       "rope_theta": 700.0, "attention_factor": 1.5});
    let newer = phi(json!({"rope_parameters": newer, "resid_pdrop": 0.25, WINDOW: 7})).unwrap();
    assert!(matches!(newer.rope.scaling, RopeScaling::Long { attention: 1.5, original_max_position: 4096, .. }));
    let window = newer.sliding.as_ref().map(|sliding| (sliding.size, sliding.layers.len()));
    assert_eq!((window, newer.residual_dropout), (Some((7, 2)), 0.25));
    let plain = phi(json!({"tie_word_embeddings": true, "eos_token_id": 2})).unwrap();
    assert_eq!((plain.rope.rotary_dim, plain.epsilon), (None, 1e-5));
    for first in [older, newer, plain] {
        assert_eq!(Llama::from_config(&Config::new("config.json", first.config()).unwrap()).unwrap(), first);
    }
}

#[test]
fn parameters_are_those_of_hugging_face() {
    let parameters = phi(json!({"num_key_value_heads": 1})).unwrap().parameters().unwrap();
    let shape = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known == name);
        found.map_or_else(|| format!("no {name}"), |(_, ty)| ty.shape.to_string())
    };
    assert_eq!(parameters.len(), 1 + 2 * 6 + 2);
    assert_eq!(shape("model.layers.1.self_attn.qkv_proj.weight"), "[60, 36]");
    assert_eq!(shape("model.layers.1.mlp.gate_up_proj.weight"), "[102, 36]");
}

#[test]
fn wrong_values_are_refused_by_key() {
    let refused = |more: Value| phi(more).unwrap_err().to_string();
    let linear = json!({"rope_scaling": {"type": "linear", "factor": 2.0}});
    assert!(refused(linear).contains("is \"linear\"; supported are default and longrope"));
    let few = json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}});
    assert!(refused(few).contains("has 1 factors; there are 6 pairs"));
    assert!(refused(json!({SHARE: 0.0})).contains("\"partial_rotary_factor\" is 0, which can't be rotated"));
    assert!(refused(json!({"resid_pdrop": 1.0})).contains("\"resid_pdrop\""));
}
