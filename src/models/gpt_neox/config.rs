//! The `config.json`.

use super::GptNeoX;
use crate::error::Result;
use crate::io::Config;
use crate::models::passed_on;
use crate::models::rope::{RopeKeys, rope_config, rope_with, rotary_share};
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate,
};
use crate::ops::RopeScaling;
use serde_json::{Value, json};

/// The largest head that attention takes.
const MAX_HEAD_DIM: usize = 256;

impl GptNeoX {
    /// A model of these sizes, the rest as the family has it where its files say nothing, with a feed-forward network four times as wide.
    ///
    /// ```
    /// # use wgformer::models::GptNeoX;
    /// let model = GptNeoX { parallel: false, ..GptNeoX::new(97, 64, 2, 4)? };
    /// # Ok::<(), wgformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the size that is wrong.
    pub fn new(vocabulary: usize, d_model: usize, layers: usize, heads: usize) -> Result<Self> {
        let config = json!({"model_type": "gpt_neox", "vocab_size": vocabulary, "hidden_size": d_model,
                            "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * d_model});
        Self::from_config(&Config::new("the sizes given", config)?)
    }

    /// The model of a `config.json` with `model_type` gpt_neox.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        let (d_model, heads) = (count(config, "hidden_size")?, count(config, "num_attention_heads")?);
        must_divide(config, "num_attention_heads", heads, d_model, "hidden_size")?;
        let head_dim = d_model / heads;
        if head_dim > MAX_HEAD_DIM {
            let message = format!("makes heads {head_dim} wide; at most {MAX_HEAD_DIM} is supported");
            return Err(config.refuse("num_attention_heads", message));
        }
        let max_position = optional_count(config, "max_position_embeddings")?.unwrap_or(2048);
        let keys = RopeKeys { theta: ("rotary_emb_base", 1e4), share: Some(("rotary_pct", 0.25)), trained: None };
        Ok(Self {
            vocabulary: count(config, "vocab_size")?,
            max_position,
            d_model,
            layers: layer_count(config, "num_hidden_layers")?,
            heads,
            d_ff: count(config, "intermediate_size")?,
            activation: activation(config, "hidden_act", "gelu")?,
            epsilon: positive_number(config, "layer_norm_eps", 1e-5)?,
            tied: config.get_or("tie_word_embeddings", false)?,
            attention_bias: config.get_or("attention_bias", true)?,
            parallel: config.get_or("use_parallel_residual", true)?,
            rope: rope_with(config, keys, [head_dim, max_position])?,
            dropout: rate(config, "hidden_dropout")?,
            attention_dropout: rate(config, "attention_dropout")?,
            init_std: config.get_or("initializer_range", 0.02)?,
            extra: passed_on(config),
        })
    }

    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let share = rotary_share(&self.rope, self.d_model / self.heads);
        let mut rope = rope_config(&self.rope);
        rope["partial_rotary_factor"] = share.into();
        let mut config = json!({
            "model_type": "gpt_neox",
            "architectures": ["GPTNeoXForCausalLM"],
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.max_position,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.d_ff,
            "hidden_act": activation_name(self.activation),
            "layer_norm_eps": json_f32(self.epsilon),
            "tie_word_embeddings": self.tied,
            "attention_bias": self.attention_bias,
            "use_parallel_residual": self.parallel,
            "hidden_dropout": json_f32(self.dropout),
            "attention_dropout": json_f32(self.attention_dropout),
            "initializer_range": self.init_std,
            "rope_parameters": rope,
            // What older versions of transformers read.
            "rotary_emb_base": json_f32(self.rope.theta),
            "rotary_pct": share,
            "dtype": "float32",
        });
        if self.rope.scaling != RopeScaling::None {
            config["rope_scaling"] = config["rope_parameters"].clone();
        }
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    fn model(more: Value) -> Result<GptNeoX> {
        let mut config = json!({"model_type": "gpt_neox", "vocab_size": 97, "hidden_size": 60, "num_attention_heads": 5,
                                "num_hidden_layers": 2, "intermediate_size": 51, "max_position_embeddings": 300});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        GptNeoX::from_config(&Config::new("config.json", config)?)
    }

    #[test]
    fn a_config_survives_the_round_trip_in_both_spellings() {
        let old = model(json!({"rotary_pct": 0.6, "rotary_emb_base": 500, "use_parallel_residual": false})).unwrap();
        assert_eq!((old.rope.rotary_dim, old.rope.theta, old.parallel), (Some(7), 500.0, false));
        let new = json!({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.6, "rope_theta": 500.0});
        let new = model(json!({"rope_parameters": new, "attention_bias": false})).unwrap();
        assert_eq!((new.rope.rotary_dim, new.rope.theta), (Some(7), 500.0));
        let whole = model(json!({"rotary_pct": 1.0, "eos_token_id": 3})).unwrap();
        assert_eq!(whole.rope.rotary_dim, None);
        let plain = model(json!({})).unwrap();
        assert_eq!(
            (plain.rope.rotary_dim, plain.parallel, plain.attention_bias, plain.tied),
            (Some(3), true, true, false)
        );
        for first in [old, new, whole, plain] {
            assert_eq!(model(first.config()).unwrap(), first);
        }
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let refused = |more: Value| model(more).unwrap_err().to_string();
        assert!(
            refused(json!({"rotary_pct": 0.05}))
                .contains("\"rotary_pct\" is 0.05, which can't be rotated of heads of 12")
        );
        assert!(refused(json!({"rotary_pct": 1.5})).contains("\"rotary_pct\" is 1.5"));
        assert!(refused(json!({"hidden_size": 55, "rotary_pct": 1.0})).contains("heads of 11"));
        let inner = json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.0}});
        assert!(refused(inner).contains("\"rope_parameters.partial_rotary_factor\" is 0"));
        assert!(refused(json!({"num_attention_heads": 7})).contains("must divide hidden_size"));
        assert!(refused(json!({"hidden_size": 1500})).contains("makes heads 300 wide; at most 256"));
    }
}
