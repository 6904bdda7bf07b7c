//! The `config.json`.

use super::Bert;
use crate::error::Result;
use crate::io::Config;
use crate::models::EncoderHead;
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate_or,
    reject_if_true,
};
use crate::models::{heads, passed_on};
use serde_json::{Value, json};

impl Bert {
    /// A model of these sizes, the rest as the family has it where its files say nothing, without a head, with a feed-forward network four times as wide.
    ///
    /// ```
    /// # use wgformer::models::Bert;
    /// let model = Bert { init_std: 0.01, ..Bert::new(97, 64, 2, 4)? };
    /// # Ok::<(), wgformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the size that is wrong.
    pub fn new(vocabulary: usize, d_model: usize, layers: usize, heads: usize) -> Result<Self> {
        let config = json!({"model_type": "bert", "vocab_size": vocabulary, "hidden_size": d_model, "num_hidden_layers": layers,
                            "num_attention_heads": heads, "intermediate_size": 4 * d_model});
        Self::from_config(&Config::new("the sizes given", config)?)
    }

    /// The model of a `config.json` with `model_type` bert.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        reject_if_true(config, "add_cross_attention")?;
        let (head, causal) = (heads::head(config, "Bert")?, config.get_or("is_decoder", false)?);
        if head == EncoderHead::NextToken && !causal {
            let message = "is BertLMHeadModel, which continues texts: \"is_decoder\" must be true";
            return Err(config.refuse("architectures", message));
        }
        let (d_model, heads) = (count(config, "hidden_size")?, count(config, "num_attention_heads")?);
        must_divide(config, "num_attention_heads", heads, d_model, "hidden_size")?;
        if config.get_or("position_embedding_type", "absolute".to_owned())? != "absolute" {
            return Err(config.refuse("position_embedding_type", "is not \"absolute\"; only that is supported"));
        }
        let dropout = rate_or(config, "hidden_dropout_prob", 0.1)?;
        Ok(Self {
            vocabulary: count(config, "vocab_size")?,
            max_position: optional_count(config, "max_position_embeddings")?.unwrap_or(512),
            types: optional_count(config, "type_vocab_size")?.unwrap_or(2),
            d_model,
            layers: layer_count(config, "num_hidden_layers")?,
            heads,
            d_ff: count(config, "intermediate_size")?,
            activation: activation(config, "hidden_act", "gelu")?,
            epsilon: positive_number(config, "layer_norm_eps", 1e-12)?,
            dropout,
            attention_dropout: rate_or(config, "attention_probs_dropout_prob", 0.1)?,
            classifier_dropout: rate_or(config, "classifier_dropout", dropout)?,
            padding: match config.value().get("pad_token_id") {
                None => Some(0),
                Some(_) => config.optional("pad_token_id")?,
            },
            head,
            causal,
            pooler: true,
            tied: config.get_or("tie_word_embeddings", true)?,
            init_std: config.get_or("initializer_range", 0.02)?,
            extra: passed_on(config),
        })
    }

    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let mut config = json!({
            "model_type": "bert",
            "architectures": [heads::class("Bert", self.head)],
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.max_position,
            "type_vocab_size": self.types,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.d_ff,
            "hidden_act": activation_name(self.activation),
            "layer_norm_eps": json_f32(self.epsilon),
            "hidden_dropout_prob": json_f32(self.dropout),
            "attention_probs_dropout_prob": json_f32(self.attention_dropout),
            "classifier_dropout": json_f32(self.classifier_dropout),
            "initializer_range": self.init_std,
            "pad_token_id": self.padding,
            "is_decoder": self.causal,
            "tie_word_embeddings": self.tied,
            "dtype": "float32",
        });
        heads::write(self.head, &mut config);
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }
}
