//! Tests of the `config.json` of a DeepSeek-V3.

use super::*;
use crate::models::Model;

fn model(more: Value) -> Result<DeepSeek> {
    let mut config = json!({"model_type": "deepseek_v3", "vocab_size": 97, "hidden_size": 35, "num_attention_heads": 3,
                            "num_key_value_heads": 3, "num_hidden_layers": 3, "intermediate_size": 51,
                            "moe_intermediate_size": 12, "n_routed_experts": 8, "num_experts_per_tok": 3,
                            "n_group": 4, "topk_group": 2, "q_lora_rank": 9, "kv_lora_rank": 7,
                            "qk_nope_head_dim": 5, "qk_rope_head_dim": 4, "v_head_dim": 6,
                            "first_k_dense_replace": 1, "max_position_embeddings": 300});
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    DeepSeek::from_config(&Config::new("config.json", config)?)
}

#[test]
fn a_config_survives_the_round_trip() {
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 0.7,
                      "mscale_all_dim": 0.5});
    let older = model(json!({"rope_scaling": yarn, "rope_theta": 500.0})).unwrap();
    let all = 0.1 * 0.5 * 4_f64.ln() + 1.0;
    assert!((f64::from(older.scale()) - all * all / 3.0).abs() < 1e-7);
    let plain = json!({"q_lora_rank": null, "n_group": 1, "topk_group": 1, "n_shared_experts": 2, "v_head_dim": 11,
                       "rope_interleave": false, "norm_topk_prob": false, "attention_bias": true,
                       "router_bias_rate": 0.001, "eos_token_id": 2});
    for first in [older, model(plain).unwrap(), model(json!({"n_shared_experts": null})).unwrap()] {
        assert_eq!(model(first.config()).unwrap(), first);
    }
    assert!((model(json!({})).unwrap().scale() - 1.0 / 3.0).abs() < 1e-7);
}

#[test]
fn parameters_are_those_of_hugging_face() {
    let model = model(json!({})).unwrap();
    let parameters = model.parameters().unwrap();
    let shape = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known == name);
        found.map_or_else(|| format!("no {name}"), |(_, ty)| ty.shape.to_string())
    };
    assert_eq!(shape("model.layers.0.self_attn.kv_a_proj_with_mqa.weight"), "[11, 35]");
    assert_eq!(shape("model.layers.0.self_attn.kv_b_proj.weight"), "[33, 7]");
    assert_eq!(shape("model.layers.1.self_attn.o_proj.weight"), "[35, 18]");
    assert_eq!(shape("model.layers.0.mlp.up_proj.weight"), "[51, 35]");
    assert_eq!(shape("model.layers.2.mlp.shared_experts.up_proj.weight"), "[12, 35]");
    assert_eq!(shape("model.layers.2.mlp.gate.e_score_correction_bias"), "[8]");
    assert_eq!(parameters.len(), 1 + 3 * 9 + 3 + 2 * 8 + 2);
}

#[test]
fn wrong_values_are_refused_by_key() {
    let refused = |more: Value| model(more).unwrap_err().to_string();
    assert!(refused(json!({"num_key_value_heads": 1})).contains("\"num_key_value_heads\" is 1; latent attention"));
    assert!(refused(json!({"scoring_func": "softmax"})).contains("\"scoring_func\" is \"softmax\"; only \"sigmoid\""));
    assert!(refused(json!({"topk_method": "greedy"})).contains("\"topk_method\" is \"greedy\""));
    assert!(refused(json!({"n_group": 3})).contains("\"n_group\" is 3; it must divide n_routed_experts"));
    assert!(refused(json!({"topk_group": 5})).contains("there are only 4 groups"));
    assert!(refused(json!({"num_experts_per_tok": 5})).contains("have only 4 experts"));
    assert!(refused(json!({"qk_rope_head_dim": 3})).contains("rotary positions need an even number"));
    assert!(refused(json!({"v_head_dim": 300})).contains("make heads 300 wide"));
    assert!(refused(json!({"router_bias_rate": -1})).contains("0 or a positive number"));
}
