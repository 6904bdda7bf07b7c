//! The `config.json`, written.

use super::family::{Biases, LlamaFamily};
use super::{Llama, layers};
use crate::models::recursive;
use crate::models::settings::{activation_name, json_f32};
use crate::ops::Activation;
use serde_json::{Value, json};

impl Llama {
    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let traits = self.family.traits();
        let mut config = json!({
            "model_type": traits.model_type,
            "architectures": [traits.class],
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.max_position,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads.query,
            "num_key_value_heads": self.heads.key_value,
            "head_dim": self.heads.head_dim,
            "intermediate_size": self.d_ff,
            "rms_norm_eps": json_f32(self.epsilon),
            "tie_word_embeddings": self.tied,
            "pad_token_id": self.padding,
            "attention_dropout": json_f32(self.attention_dropout),
            "initializer_range": self.init_std,
            "dtype": "float32",
        });
        let mut set = |key: &str, value: Value| config[key] = value;
        set(traits.activation[0], self.activation_name().into());
        match traits.biases {
            Biases::Key => set("attention_bias", self.attention_bias.into()),
            Biases::QkvKey => set("qkv_bias", self.attention_bias.into()),
            Biases::Qkv | Biases::None => {}
        }
        if traits.mlp_bias {
            set("mlp_bias", self.mlp_bias.into());
        }
        self.write_numbers(&mut set);
        if let Some(mixture) = &self.mixture {
            mixture.write(&mut config);
        }
        layers::write(self, &mut config);
        if let Some(recursion) = &self.recursion {
            config["model_type"] = "mor".into();
            config["architectures"] = json!(["MorForCausalLM"]);
            recursive::write(recursion, &mut config);
        }
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }

    /// Multipliers and limits under the keys of the family.
    fn write_numbers(&self, set: &mut impl FnMut(&str, Value)) {
        let number = |value: Option<f32>| json!(value.map(json_f32));
        let scores = self.multipliers.scores;
        match self.family {
            LlamaFamily::Granite => {
                set("embedding_multiplier", number(Some(self.multipliers.embedding)));
                set("residual_multiplier", number(Some(self.multipliers.residual)));
                set("attention_multiplier", number(Some(scores.unwrap_or(1.0))));
                set("logits_scaling", number(Some(1.0 / self.multipliers.logits)));
            }
            LlamaFamily::Gemma2 | LlamaFamily::Gemma3 => {
                set("attn_logit_softcapping", number(self.score_cap));
                set("final_logit_softcapping", number(self.logit_cap));
                let scalar = scores.map_or(256.0, |scale| 1.0 / (f64::from(scale) * f64::from(scale)));
                // Transformers takes whole numbers only.
                let whole = scalar.round();
                let is_whole = (scalar - whole).abs() < 1e-4 * whole;
                set("query_pre_attn_scalar", if is_whole { json!(whole as u64) } else { json!(scalar) });
            }
            LlamaFamily::Olmoe => set("clip_qkv", number(self.clip)),
            LlamaFamily::Phi3 => set("resid_pdrop", number(Some(self.residual_dropout))),
            _ => {}
        }
    }

    /// The activation under a name that the family reads as it is meant.
    fn activation_name(&self) -> &'static str {
        match (self.family, self.activation) {
            (LlamaFamily::Gemma | LlamaFamily::Gemma2 | LlamaFamily::Gemma3, Activation::GeluTanh) => {
                "gelu_pytorch_tanh"
            }
            (LlamaFamily::Gemma, Activation::GeluErf) => "gelu_python",
            (_, activation) => activation_name(activation),
        }
    }
}
