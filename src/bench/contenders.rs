//! The models that the experiments compare.

use serde_json::{Value, json};

/// A model of a comparison.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name in charts and tables.
    pub name: String,
    /// Its `config.json` without the vocabulary.
    pub config: Value,
    /// Whether attention uses the tree mask of the text, if it has one.
    pub has_tree: bool,
}

/// The `config.json` of a small Llama for experiments.
#[must_use]
pub fn llama(layers: usize, d_model: usize, d_ff: usize, length: usize) -> Value {
    json!({
        "model_type": "llama", "hidden_size": d_model, "num_hidden_layers": layers, "intermediate_size": d_ff,
        "num_attention_heads": d_model / 16, "num_key_value_heads": d_model / 16, "max_position_embeddings": 2 * length,
        "tie_word_embeddings": true, "rms_norm_eps": 1e-5,
    })
}

/// A `config.json` with keys added or replaced.
#[must_use]
pub fn with(mut config: Value, keys: Value) -> Value {
    if let (Value::Object(config), Value::Object(keys)) = (&mut config, keys) {
        config.extend(keys);
    }
    config
}

/// Mixtures of experts against dense networks with equal operations and with equal parameters.
#[must_use]
pub fn expert_contenders(length: usize) -> Vec<Contender> {
    let experts = |count: usize, k: usize| {
        let keys = json!({"model_type": "mixtral", "num_local_experts": count, "num_experts_per_tok": k,
                          "norm_topk_prob": k > 1, "router_aux_loss_coef": 0.01});
        with(llama(4, 64, 176 / k, length), keys)
    };
    contenders([
        ("dense", llama(4, 64, 176, length)),
        ("8 experts, top-2", experts(8, 2)),
        ("8 experts, top-1", experts(8, 1)),
        ("dense, 4 x as wide", llama(4, 64, 704, length)),
    ])
}

/// Recursion with and without routers, and the model with unshared layers.
#[must_use]
pub fn recursion_contenders(length: usize) -> Vec<Contender> {
    let recursive = |recursions: usize, routing: &str| {
        let keys =
            json!({"model_type": "mor", "num_recursions": recursions, "sharing": "middle_cycle", "routing": routing});
        with(llama(8, 64, 176, length), keys)
    };
    let loud = |recursions| with(recursive(recursions, "expert_choice"), json!({"router_alpha": 1.0}));
    contenders([
        ("unrolled, 8 layers", llama(8, 64, 176, length)),
        ("recursive, R = 2", recursive(2, "none")),
        ("recursive, R = 3", recursive(3, "none")),
        ("MoR expert choice, R = 2", recursive(2, "expert_choice")),
        ("MoR expert choice, R = 3", recursive(3, "expert_choice")),
        ("MoR expert choice, R = 2, alpha 1", loud(2)),
        ("MoR expert choice, R = 3, alpha 1", loud(3)),
        ("MoR token choice, R = 3", recursive(3, "token_choice")),
    ])
}

/// Recursion on nested expressions, against dense models with equal parameters and with equal operations.
#[must_use]
pub fn nesting_contenders(length: usize) -> Vec<Contender> {
    let mor = with(
        llama(8, 64, 176, length),
        json!({"model_type": "mor", "num_recursions": 3, "sharing": "middle_cycle", "routing": "expert_choice",
               "capacity": [1.0, 1.0, 1.0]}),
    );
    // Gates that begin at a twentieth need longer training.
    let routed = with(mor.clone(), json!({"capacity": [1.0, 0.75, 0.5], "router_alpha": 1.0}));
    let mut all = contenders([
        ("dense, equal parameters", llama(4, 64, 176, length)),
        ("dense, equal operations", llama(8, 64, 176, length)),
        ("recursive, R = 3", with(mor, json!({"routing": "none"}))),
        ("MoR, R = 3", routed.clone()),
    ]);
    let with_tree = [
        ("dense, equal parameters, tree", llama(4, 64, 176, length)),
        ("dense, equal operations, tree", llama(8, 64, 176, length)),
        ("MoR, R = 3, tree", routed),
    ];
    all.extend(contenders(with_tree).into_iter().map(|contender| Contender { has_tree: true, ..contender }));
    all
}

fn contenders<const N: usize>(all: [(&str, Value); N]) -> Vec<Contender> {
    all.map(|(name, config)| Contender { name: name.into(), config, has_tree: false }).into()
}
