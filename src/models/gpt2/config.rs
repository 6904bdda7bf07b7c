//! The `config.json`.

use super::Gpt2;
use crate::error::Result;
use crate::io::Config;
use crate::models::passed_on;
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate,
    reject_if_true,
};
use serde_json::{Value, json};

impl Gpt2 {
    /// A model of these sizes, the rest as the family has it where its files say nothing.
    ///
    /// ```
    /// # use wgformer::models::Gpt2;
    /// let model = Gpt2 { init_std: 0.01, ..Gpt2::new(97, 64, 2, 4)? };
    /// # Ok::<(), wgformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the size that is wrong.
    pub fn new(vocabulary: usize, d_model: usize, layers: usize, heads: usize) -> Result<Self> {
        let config = json!({"model_type": "gpt2", "vocab_size": vocabulary, "n_embd": d_model, "n_layer": layers, "n_head": heads});
        Self::from_config(&Config::new("the sizes given", config)?)
    }

    /// The model of a `config.json` with `model_type` gpt2.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        reject_if_true(config, "add_cross_attention")?;
        let (d_model, heads) = (count(config, "n_embd")?, count(config, "n_head")?);
        must_divide(config, "n_head", heads, d_model, "n_embd")?;
        let positions = match optional_count(config, "n_positions")? {
            Some(positions) => positions,
            None => optional_count(config, "n_ctx")?.unwrap_or(1024),
        };
        Ok(Self {
            vocabulary: count(config, "vocab_size")?,
            max_position: positions,
            d_model,
            layers: layer_count(config, "n_layer")?,
            heads,
            d_ff: optional_count(config, "n_inner")?.unwrap_or(4 * d_model),
            activation: activation(config, "activation_function", "gelu_new")?,
            epsilon: positive_number(config, "layer_norm_epsilon", 1e-5)?,
            tied: config.get_or("tie_word_embeddings", true)?,
            scaled: config.get_or("scale_attn_weights", true)?,
            scaled_by_layer: config.get_or("scale_attn_by_inverse_layer_idx", false)?,
            embedding_dropout: rate(config, "embd_pdrop")?,
            residual_dropout: rate(config, "resid_pdrop")?,
            attention_dropout: rate(config, "attn_pdrop")?,
            init_std: config.get_or("initializer_range", 0.02)?,
            extra: passed_on(config),
        })
    }

    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let mut config = json!({
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": self.vocabulary,
            "n_positions": self.max_position,
            "n_embd": self.d_model,
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_inner": self.d_ff,
            "activation_function": activation_name(self.activation),
            "layer_norm_epsilon": json_f32(self.epsilon),
            "tie_word_embeddings": self.tied,
            "scale_attn_weights": self.scaled,
            "scale_attn_by_inverse_layer_idx": self.scaled_by_layer,
            "embd_pdrop": json_f32(self.embedding_dropout),
            "resid_pdrop": json_f32(self.residual_dropout),
            "attn_pdrop": json_f32(self.attention_dropout),
            "initializer_range": self.init_std,
            "dtype": "float32",
        });
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

    fn small() -> Value {
        json!({"model_type": "gpt2", "vocab_size": 97, "n_embd": 35, "n_head": 5, "n_layer": 2, "n_positions": 300,
               "attn_pdrop": 0.1, "eos_token_id": 2})
    }

    fn model(config: Value) -> Result<Gpt2> {
        Gpt2::from_config(&Config::new("config.json", config)?)
    }

    #[test]
    fn a_config_survives_the_round_trip() {
        let first = model(small()).unwrap();
        assert_eq!((first.d_ff, first.tied, first.attention_dropout), (140, true, 0.1));
        assert_eq!(model(first.config()).unwrap(), first);
        assert_eq!(first.config()["layer_norm_epsilon"], json!(1e-5));
        assert_eq!(first.config()["eos_token_id"], json!(2));
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let refused = |key: &str, value: Value| {
            let mut config = small();
            config[key] = value;
            model(config).unwrap_err().to_string()
        };
        assert_eq!(refused("n_head", json!(4)), "config.json: \"n_head\" is 4; it must divide n_embd, which is 35");
        assert_eq!(refused("n_layer", json!(0)), "config.json: \"n_layer\" is 0; at least 1 is needed");
        assert_eq!(
            refused("n_layer", json!(1e9 as u64)),
            "config.json: \"n_layer\" is 1000000000; at most 4096 is supported"
        );
        assert!(refused("vocab_size", json!(1_u64 << 62)).contains("at most 4294967295 is supported"));
        assert_eq!(refused("n_layer", Value::Null), "config.json: has no \"n_layer\"");
        assert!(refused("activation_function", json!("quick_gelu")).contains("\"quick_gelu\"; supported are relu"));
        assert!(refused("add_cross_attention", json!(true)).contains("only false is supported"));
        assert!(refused("resid_pdrop", json!(1.0)).contains("a rate from 0 up to, but not, 1"));
        assert!(refused("layer_norm_epsilon", json!(0)).contains("a positive number is needed"));
    }

    #[test]
    fn parameters_are_those_of_hugging_face_and_the_tied_head_is_one_with_the_table() {
        let model = model(small()).unwrap();
        let parameters = model.parameters().unwrap();
        let names: Vec<&str> = parameters.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names.len(), 2 + 2 * 12 + 2);
        assert!(names.contains(&"transformer.h.1.attn.c_attn.bias") && !names.contains(&"lm_head.weight"));
        let block = 35 * 105 + 105 + 35 * 35 + 35 + 35 * 140 + 140 + 140 * 35 + 35 + 4 * 35;
        assert_eq!(model.parameter_count().unwrap(), (97 + 300) * 35 + 2 * block + 70);
        let untied = Gpt2 { tied: false, ..model };
        assert!(
            untied.parameters().unwrap().iter().any(|(n, ty)| n == "lm_head.weight" && ty.to_string() == "f32[97, 35]")
        );
    }
}
