//! The configuration of a new model from command-line sizes.

use super::args::{Family, ModelArgs};
use crate::error::Result;
use crate::io::Config;
use serde_json::json;

/// The `config.json` of a new model.
pub(super) fn config(options: &ModelArgs, vocabulary: usize, dropout: f64) -> Result<Config> {
    let value = match options.model {
        Family::Gpt2 => json!({
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": vocabulary,
            "n_positions": options.context,
            "n_embd": options.width,
            "n_layer": options.layers,
            "n_head": options.heads,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "embd_pdrop": dropout,
            "resid_pdrop": dropout,
            "attn_pdrop": 0.0,
            "tie_word_embeddings": true,
            // Other readers would take GPT-2's own, which lie outside a small vocabulary.
            "bos_token_id": null,
            "eos_token_id": null,
        }),
        Family::Llama => json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": vocabulary,
            "max_position_embeddings": options.context,
            "hidden_size": options.width,
            "intermediate_size": (options.width * 8 / 3).next_multiple_of(16),
            "num_hidden_layers": options.layers,
            "num_attention_heads": options.heads,
            "num_key_value_heads": options.kv_heads.unwrap_or(options.heads),
            "head_dim": options.width / options.heads.max(1),
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_parameters": { "rope_type": "default", "rope_theta": 10000.0 },
            "tie_word_embeddings": true,
            "attention_bias": false,
            "mlp_bias": false,
            "bos_token_id": null,
            "eos_token_id": null,
        }),
    };
    Config::new("the new model", value)
}
