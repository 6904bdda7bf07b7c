//! The `config.json`.

use super::{Bert, BertFamily};
use crate::error::Result;
use crate::io::Config;
use crate::models::EncoderHead;
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate_or,
    reject_if_true,
};
use crate::models::{heads, passed_on_beside};
use crate::ops::Activation;
use serde_json::{Value, json};

const EPSILON: f32 = 1e-12;

impl Bert {
    /// A BERT of these sizes, the rest as the family has it where its files say nothing, without a head, with a feed-forward network four times as wide.
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
        Self::of_family(BertFamily::Bert, vocabulary, d_model, layers, heads)
    }

    /// [`Bert::new`] of a relative, with embeddings as wide as states.
    ///
    /// # Errors
    /// As [`Bert::new`].
    pub fn of_family(
        family: BertFamily,
        vocabulary: usize,
        d_model: usize,
        layers: usize,
        heads: usize,
    ) -> Result<Self> {
        let keys = family.keys();
        let mut config = json!({"vocab_size": vocabulary, "embedding_size": d_model});
        for (key, size) in
            [(keys.d_model, d_model), (keys.layers, layers), (keys.heads, heads), (keys.d_ff, 4 * d_model)]
        {
            config[key] = size.into();
        }
        Self::from_config(&Config::new("the sizes given", config)?, family)
    }

    /// The model of a `config.json` with the `model_type` of that family.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config, family: BertFamily) -> Result<Self> {
        let (names, keys) = (family.names(), family.keys());
        let decodes = !matches!(family, BertFamily::DistilBert | BertFamily::Albert);
        if decodes {
            reject_if_true(config, "add_cross_attention")?;
        }
        let head = heads::head(config, names.class, names.heads)?;
        let causal = decodes && config.get_or("is_decoder", false)?;
        if head == EncoderHead::NextToken && !causal {
            let class = heads::class(names.class, head, names.heads);
            let message = format!("is {class}, which continues texts: \"is_decoder\" must be true");
            return Err(config.refuse("architectures", message));
        }
        if head == EncoderHead::SentenceOrder && heads::labels(config)? != 2 {
            return Err(config.refuse("num_labels", "must be 2: parts of a text are in order or not"));
        }
        let (d_model, heads) = (count(config, keys.d_model)?, count(config, keys.heads)?);
        must_divide(config, keys.heads, heads, d_model, keys.d_model)?;
        if config.get_or("position_embedding_type", "absolute".to_owned())? != "absolute" {
            return Err(config.refuse("position_embedding_type", "is not \"absolute\"; only that is supported"));
        }
        let dropout = rate_or(config, keys.dropout.0, keys.dropout.1)?;
        let layers = layer_count(config, keys.layers)?;
        let (mut groups, mut group_layers) = (layers, 1);
        if family == BertFamily::Albert {
            groups = optional_count(config, "num_hidden_groups")?.unwrap_or(1);
            group_layers = if config.has("inner_group_num") { layer_count(config, "inner_group_num")? } else { 1 };
            if groups > layers {
                let message = format!("is {groups}; there are {layers} layers (num_hidden_layers) to share them");
                return Err(config.refuse("num_hidden_groups", message));
            }
        }
        let padding = padding(config, family)?;
        let max_position = optional_count(config, "max_position_embeddings")?.unwrap_or(512);
        let behind = padding.filter(|_| family.counts_from_padding()).map(|padding| padding as usize + 1);
        if let Some(behind) = behind.filter(|behind| max_position <= *behind) {
            let message = format!("is {max_position}; positions begin at {behind}, behind pad_token_id");
            return Err(config.refuse("max_position_embeddings", message));
        }
        let distilled = family == BertFamily::DistilBert;
        Ok(Self {
            family,
            vocabulary: count(config, "vocab_size")?,
            max_position,
            types: if distilled { 0 } else { optional_count(config, "type_vocab_size")?.unwrap_or(2) },
            embedding_size: match family.factorises() {
                true => optional_count(config, "embedding_size")?.unwrap_or(128),
                false => d_model,
            },
            d_model,
            layers,
            groups,
            group_layers,
            heads,
            d_ff: count(config, keys.d_ff)?,
            activation: activation(config, keys.activation.0, keys.activation.1)?,
            epsilon: if distilled { EPSILON } else { positive_number(config, "layer_norm_eps", EPSILON)? },
            dropout,
            attention_dropout: rate_or(config, keys.attention_dropout.0, keys.attention_dropout.1)?,
            classifier_dropout: match family.head_dropout(head) {
                Some((key, default)) => rate_or(config, key, default.unwrap_or(dropout))?,
                None => dropout,
            },
            padding,
            head,
            causal,
            pooler: names.pooler.is_some(),
            summary_activation: summary(config, family, head)?,
            sinusoidal: distilled && config.get_or("sinusoidal_pos_embds", false)?,
            tied: config.get_or("tie_word_embeddings", true)?,
            init_std: config.get_or("initializer_range", 0.02)?,
            extra: passed_on_beside(config, padding),
        })
    }

    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let (names, keys) = (self.family.names(), self.family.keys());
        let mut config = json!({
            "model_type": names.model_type,
            "architectures": [heads::class(names.class, self.head, names.heads)],
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.max_position,
            "initializer_range": self.init_std,
            "pad_token_id": self.padding,
            "tie_word_embeddings": self.tied,
            "dtype": "float32",
        });
        let mut set = |key: &str, value: Value| config[key] = value;
        set(keys.d_model, self.d_model.into());
        set(keys.layers, self.layers.into());
        set(keys.heads, self.heads.into());
        set(keys.d_ff, self.d_ff.into());
        set(keys.activation.0, activation_name(self.activation).into());
        set(keys.dropout.0, json_f32(self.dropout).into());
        set(keys.attention_dropout.0, json_f32(self.attention_dropout).into());
        if let Some((key, _)) = self.family.head_dropout(self.head) {
            set(key, json_f32(self.classifier_dropout).into());
        }
        if self.family == BertFamily::DistilBert {
            set("sinusoidal_pos_embds", self.sinusoidal.into());
        } else {
            set("type_vocab_size", self.types.into());
            set("layer_norm_eps", json_f32(self.epsilon).into());
            set("is_decoder", self.causal.into());
        }
        if self.family.factorises() {
            set("embedding_size", self.embedding_size.into());
        }
        if self.family == BertFamily::Albert {
            set("num_hidden_groups", self.groups.into());
            set("inner_group_num", self.group_layers.into());
        }
        if self.family == BertFamily::Electra && self.head == EncoderHead::MultipleChoice {
            set("summary_activation", self.summary_activation.map(activation_name).into());
        }
        heads::write(self.head, &mut config);
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }
}

/// The token of padding.
fn padding(config: &Config, family: BertFamily) -> Result<Option<u32>> {
    const KEY: &str = "pad_token_id";
    let default = u32::from(family.counts_from_padding());
    match config.value().get(KEY) {
        None => Ok(Some(default)),
        Some(Value::Null) if family.counts_from_padding() => {
            Err(config.refuse(KEY, "is null; positions are counted from it"))
        }
        Some(_) => config.optional(KEY),
    }
}

/// The activation of the layer by which an ELECTRA chooses among rows.
fn summary(config: &Config, family: BertFamily, head: EncoderHead) -> Result<Option<Activation>> {
    const KEY: &str = "summary_activation";
    if family != BertFamily::Electra || head != EncoderHead::MultipleChoice {
        return Ok(None);
    }
    if config.get_or("summary_type", "first".to_owned())? != "first" {
        return Err(config.refuse("summary_type", "is not \"first\"; only that is supported"));
    }
    if !config.get_or("summary_use_proj", true)? {
        return Err(config.refuse("summary_use_proj", "is false; only true is supported"));
    }
    match config.value().get(KEY) {
        Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        _ => activation(config, KEY, "gelu").map(Some),
    }
}
