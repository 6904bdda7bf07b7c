//! The `config.json`.

use super::{Switch, T5};
use crate::error::Result;
use crate::io::Config;
use crate::models::passed_on;
use crate::models::settings::{
    activation_name, activation_of, count, json_f32, layer_count, optional_count, positive_number, rate_or,
};
use crate::ops::Activation;
use serde_json::{Value, json};

/// The ends of the names of classes.
const ENCODER: &str = "EncoderModel";
const WHOLE: &str = "ForConditionalGeneration";

impl T5 {
    /// A model of these sizes, the rest as the family has it where its files say nothing, with as many layers on each side and feed-forward networks four times as wide.
    ///
    /// ```
    /// # use wgformer::models::T5;
    /// let model = T5 { tied: false, ..T5::new(97, 64, 2, 4)? };
    /// # Ok::<(), wgformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the size that is wrong.
    pub fn new(vocabulary: usize, d_model: usize, layers: usize, heads: usize) -> Result<Self> {
        let config = json!({"model_type": "t5", "vocab_size": vocabulary, "d_model": d_model, "d_kv": d_model / heads.max(1), "num_layers": layers,
                            "num_heads": heads, "d_ff": 4 * d_model});
        Self::from_config(&Config::new("the sizes given", config)?, "t5")
    }

    /// The model of a `config.json` with `model_type` t5 or mt5.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config, family: &'static str) -> Result<Self> {
        let switches = family == "switch_transformers";
        // A Switch Transformer's networks are plain.
        let feed_forward = if switches { "dense_act_fn" } else { "feed_forward_proj" };
        let multilingual = family == "mt5";
        let layers = layer_count(config, "num_layers")?;
        let kind = config.get_or(feed_forward, if multilingual { "gated-gelu" } else { "relu" }.to_owned())?;
        let gated = kind.strip_prefix("gated-").filter(|_| !switches);
        // A gated network's "gelu" is the one by tanh.
        let name = if kind == "gated-gelu" && !switches { "gelu_new" } else { gated.unwrap_or(&kind) };
        let tied = config.get_or("tie_word_embeddings", !multilingual)?;
        let buckets = optional_count(config, "relative_attention_num_buckets")?.unwrap_or(32);
        let max_distance = optional_count(config, "relative_attention_max_distance")?.unwrap_or(128);
        if buckets < 4 || !buckets.is_multiple_of(2) || max_distance <= buckets / 2 {
            let message = format!(
                "is {buckets}; an even number from 4 on is needed, less than twice the largest distance, {max_distance}"
            );
            return Err(config.refuse("relative_attention_num_buckets", message));
        }
        let decoder_layers =
            if config.has("num_decoder_layers") { layer_count(config, "num_decoder_layers")? } else { layers };
        Ok(Self {
            family,
            vocabulary: count(config, "vocab_size")?,
            d_model: count(config, "d_model")?,
            head_dim: count(config, "d_kv")?,
            heads: count(config, "num_heads")?,
            d_ff: count(config, "d_ff")?,
            layers,
            decoder_layers,
            encoder_only: {
                let classes: Vec<String> = config.get_or("architectures", Vec::new())?;
                classes.first().is_some_and(|class| class.ends_with(ENCODER))
            },
            activation: activation_of(config, feed_forward, name)?,
            gated: gated.is_some(),
            buckets,
            max_distance,
            epsilon: positive_number(config, "layer_norm_epsilon", 1e-6)?,
            dropout: rate_or(config, "dropout_rate", 0.1)?,
            tied,
            own_tables: false,
            unused_shared: false,
            scaled: !multilingual && tied && (switches || config.get_or("scale_decoder_outputs", true)?),
            switch: if switches { Some(Switch::from_config(config, [layers, decoder_layers])?) } else { None },
            factor: config.get_or("initializer_factor", 1.0)?,
            start: config.get_or("decoder_start_token_id", config.get_or("pad_token_id", 0)?)?,
            extra: passed_on(config),
        })
    }

    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let name = match (self.gated, self.activation) {
            (true, Activation::GeluTanh) => "gated-gelu".into(),
            (true, activation) => format!("gated-{}", activation_name(activation)),
            (false, activation) => activation_name(activation).to_owned(),
        };
        let mut config = json!({
            "model_type": self.family,
            "architectures": [format!("{}{}", self.class(), if self.encoder_only { ENCODER } else { WHOLE })],
            "is_encoder_decoder": !self.encoder_only,
            "vocab_size": self.vocabulary,
            "d_model": self.d_model,
            "d_kv": self.head_dim,
            "d_ff": self.d_ff,
            "num_heads": self.heads,
            "num_layers": self.layers,
            "num_decoder_layers": self.decoder_layers,
            "relative_attention_num_buckets": self.buckets,
            "relative_attention_max_distance": self.max_distance,
            "layer_norm_epsilon": json_f32(self.epsilon),
            "dropout_rate": json_f32(self.dropout),
            "tie_word_embeddings": self.tied,
            "initializer_factor": self.factor,
            "decoder_start_token_id": self.start,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "dtype": "float32",
        });
        match &self.switch {
            Some(switch) => {
                config["dense_act_fn"] = name.into();
                switch.write(&mut config);
            }
            None => {
                config["feed_forward_proj"] = name.into();
                config["scale_decoder_outputs"] = self.scaled.into();
            }
        }
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }

    /// The beginning of the names of its classes.
    fn class(&self) -> &'static str {
        match self.family {
            "mt5" => "MT5",
            "switch_transformers" => "SwitchTransformers",
            _ => "T5",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    fn model(more: Value) -> Result<T5> {
        let mut config = json!({"model_type": "t5", "vocab_size": 97, "d_model": 35, "d_kv": 6, "d_ff": 51, "num_heads": 5,
                                "num_layers": 2, "pad_token_id": 0, "eos_token_id": 1});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        T5::from_config(&Config::new("config.json", config)?, "t5")
    }

    #[test]
    fn a_config_survives_the_round_trip() {
        for more in [
            json!({}),
            json!({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "num_decoder_layers": 3}),
            json!({"feed_forward_proj": "gated-silu", "scale_decoder_outputs": false}),
            json!({"architectures": ["T5EncoderModel"]}),
        ] {
            let first = model(more).unwrap();
            let config = Config::new("config.json", first.config()).unwrap();
            assert_eq!(T5::from_config(&config, "t5").unwrap(), first);
        }
        assert!(model(json!({"feed_forward_proj": "gated-sine"})).unwrap_err().to_string().contains("\"sine\""));
    }
}
