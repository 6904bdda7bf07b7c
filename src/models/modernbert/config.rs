//! The `config.json`.

use super::{ModernBert, ModernBertBiases};
use crate::error::Result;
use crate::io::Config;
use crate::models::heads::HeadKinds;
use crate::models::rope::{rope_config, rope_options};
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate,
};
use crate::models::{EncoderHead, heads, passed_on_beside};
use crate::ops::RopeOptions;
use serde_json::{Value, json};

const CLASS: &str = "ModernBert";
/// Its heads, by the ends of classes' names.
const HEADS: HeadKinds = &[
    ("Model", EncoderHead::None),
    ("ForMaskedLM", EncoderHead::MaskedLanguageModel),
    ("ForSequenceClassification", EncoderHead::SequenceClassification { labels: 0 }),
    ("ForTokenClassification", EncoderHead::TokenClassification { labels: 0 }),
    ("ForQuestionAnswering", EncoderHead::QuestionAnswering),
];
/// Kinds of layers, with the older key of the base of their rotary positions, and the base without it.
const KINDS: [(&str, &str, f32); 2] =
    [("full_attention", "global_rope_theta", 160_000.0), ("sliding_attention", "local_rope_theta", 10_000.0)];
/// Keys that are passed on beside those of all families.
const MORE_KEYS: [&str; 2] = ["cls_token_id", "sep_token_id"];

impl ModernBert {
    /// A model of these sizes, the rest as the family has it where its files say nothing, without a head, with a feed-forward network one and a half
    /// times as wide.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the size that is wrong.
    pub fn new(vocabulary: usize, d_model: usize, layers: usize, heads: usize) -> Result<Self> {
        let config = json!({"vocab_size": vocabulary, "hidden_size": d_model, "num_hidden_layers": layers, "num_attention_heads": heads,
                            "intermediate_size": 3 * d_model / 2, "pad_token_id": 0});
        Self::from_config(&Config::new("the sizes given", config)?)
    }

    /// The model of a `config.json` with `model_type` modernbert.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        let (d_model, heads) = (count(config, "hidden_size")?, count(config, "num_attention_heads")?);
        must_divide(config, "num_attention_heads", heads, d_model, "hidden_size")?;
        let layers = layer_count(config, "num_hidden_layers")?;
        let max_position = optional_count(config, "max_position_embeddings")?.unwrap_or(8192);
        let flag = |key: &str, default: bool| config.get_or(key, default);
        if flag("sparse_prediction", false)? && config.get_or("sparse_pred_ignore_index", -100)? != -100 {
            return Err(config.refuse("sparse_pred_ignore_index", "is not -100; only that is supported"));
        }
        let mean_pooling = match config.get_or("classifier_pooling", "cls".to_owned())?.as_str() {
            "cls" => false,
            "mean" => true,
            other => {
                return Err(config.refuse("classifier_pooling", format!("is \"{other}\"; supported are cls and mean")));
            }
        };
        let padding = match config.value().get("pad_token_id") {
            None => Some(50_283),
            Some(_) => config.optional("pad_token_id")?,
        };
        let mut extra = passed_on_beside(config, padding);
        extra.extend(MORE_KEYS.iter().filter_map(|key| Some(((*key).to_owned(), config.value().get(*key)?.clone()))));
        Ok(Self {
            vocabulary: count(config, "vocab_size")?,
            max_position,
            d_model,
            heads,
            d_ff: count(config, "intermediate_size")?,
            local: local(config, layers)?,
            local_attention: optional_count(config, "local_attention")?.unwrap_or(128),
            rope: [rope(config, 0, max_position)?, rope(config, 1, max_position)?],
            activation: activation(config, "hidden_activation", "gelu")?,
            epsilon: positive_number(config, "norm_eps", 1e-5)?,
            biases: ModernBertBiases {
                norm: flag("norm_bias", false)?,
                attention: flag("attention_bias", false)?,
                mlp: flag("mlp_bias", false)?,
                classifier: flag("classifier_bias", false)?,
                decoder: flag("decoder_bias", true)?,
            },
            classifier_activation: activation(config, "classifier_activation", "gelu")?,
            mean_pooling,
            embedding_dropout: rate(config, "embedding_dropout")?,
            attention_dropout: rate(config, "attention_dropout")?,
            mlp_dropout: rate(config, "mlp_dropout")?,
            classifier_dropout: rate(config, "classifier_dropout")?,
            padding,
            head: heads::head(config, CLASS, HEADS)?,
            tied: flag("tie_word_embeddings", true)?,
            init_std: config.get_or("initializer_range", 0.02)?,
            extra,
        })
    }

    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let kind = |local: &bool| KINDS[usize::from(*local)].0;
        let mut config = json!({
            "model_type": "modernbert",
            "architectures": [heads::class(CLASS, self.head, HEADS)],
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.max_position,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.local.len(),
            "num_attention_heads": self.heads,
            "intermediate_size": self.d_ff,
            "layer_types": self.local.iter().map(kind).collect::<Vec<_>>(),
            "local_attention": self.local_attention,
            "hidden_activation": activation_name(self.activation),
            "norm_eps": json_f32(self.epsilon),
            "norm_bias": self.biases.norm,
            "attention_bias": self.biases.attention,
            "mlp_bias": self.biases.mlp,
            "classifier_bias": self.biases.classifier,
            "decoder_bias": self.biases.decoder,
            "classifier_activation": activation_name(self.classifier_activation),
            "classifier_pooling": if self.mean_pooling { "mean" } else { "cls" },
            "embedding_dropout": json_f32(self.embedding_dropout),
            "attention_dropout": json_f32(self.attention_dropout),
            "mlp_dropout": json_f32(self.mlp_dropout),
            "classifier_dropout": json_f32(self.classifier_dropout),
            "initializer_range": self.init_std,
            "pad_token_id": self.padding,
            "tie_word_embeddings": self.tied,
            "dtype": "float32",
        });
        for ((kind, older, _), rope) in KINDS.iter().zip(&self.rope) {
            config["rope_parameters"][kind] = rope_config(rope);
            config[older] = json_f32(rope.theta).into();
        }
        heads::write(self.head, &mut config);
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }
}

/// Whether each layer is local: `layer_types`, or all but every third, or another, from the first on.
fn local(config: &Config, layers: usize) -> Result<Vec<bool>> {
    const KEY: &str = "layer_types";
    let Some(types) = config.optional::<Vec<String>>(KEY)? else {
        let every = optional_count(config, "global_attn_every_n_layers")?.unwrap_or(3);
        return Ok((0..layers).map(|layer| layer % every != 0).collect());
    };
    if types.len() != layers {
        return Err(config.refuse(KEY, format!("has {} layers; num_hidden_layers is {layers}", types.len())));
    }
    let local = |kind: &String| match KINDS.iter().position(|(name, ..)| name == kind) {
        Some(index) => Ok(index == 1),
        None => Err(config.refuse(KEY, format!("has \"{kind}\"; supported are full_attention and sliding_attention"))),
    };
    types.iter().map(local).collect()
}

/// The rotary positions of a kind of layers: those of `rope_parameters` for it, with what `rope_scaling` says for both; the older keys have the base.
fn rope(config: &Config, kind: usize, max_position: usize) -> Result<RopeOptions> {
    let (name, older, theta) = KINDS[kind];
    let mut inner = json!({});
    let by_kind = config.section("rope_parameters")?;
    for section in [by_kind.map(|all| all.section(name)).transpose()?.flatten(), config.section("rope_scaling")?] {
        let entries = section.as_ref().and_then(|section| section.value().as_object());
        for (key, value) in entries.into_iter().flatten() {
            inner[key] = value.clone();
        }
    }
    let theta = positive_number(config, older, theta)?;
    let alone = json!({"rope_parameters": inner, "rope_theta": theta});
    rope_options(&Config::new(config.source(), alone)?, max_position, theta)
}
