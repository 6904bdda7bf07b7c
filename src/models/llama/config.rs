//! The `config.json`, read.

use super::family::{Biases, LlamaFamily};
use super::{Llama, Multipliers, layers};
use crate::error::Result;
use crate::io::Config;
use crate::models::mixture::{Mixture, MixtureFamily};
use crate::models::settings::{
    activation, count, layer_count, must_divide, optional_count, padding, positive_number, rate, reject_if_true,
};
use crate::models::{PADDING, model_type, passed_on, passed_on_beside, recursive};
use crate::nn::Heads;
use crate::ops::Activation;
use serde_json::{Value, json};

/// The largest head that attention takes.
const MAX_HEAD_DIM: usize = 256;
/// A configuration of Gemma 3 that also sees pictures has that of the decoder of texts here.
const TEXT: &str = "text_config";

impl Llama {
    /// A model of these sizes, the rest as the family has it where its files say nothing, with a feed-forward network four times as wide.
    ///
    /// ```
    /// # use wgformer::models::Llama;
    /// let model = Llama { init_std: 0.01, ..Llama::new(97, 64, 2, 4)? };
    /// # Ok::<(), wgformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the size that is wrong.
    pub fn new(vocabulary: usize, d_model: usize, layers: usize, heads: usize) -> Result<Self> {
        Self::of_family(LlamaFamily::Llama, vocabulary, d_model, layers, heads)
    }

    /// [`Llama::new`] for another family: one without experts and recursions, which need more sizes and a `config.json`.
    ///
    /// ```
    /// # use wgformer::models::{Llama, LlamaFamily};
    /// let model = Llama::of_family(LlamaFamily::Qwen3, 97, 64, 2, 32)?;
    /// # Ok::<(), wgformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Llama::new`].
    pub fn of_family(
        family: LlamaFamily,
        vocabulary: usize,
        d_model: usize,
        layers: usize,
        heads: usize,
    ) -> Result<Self> {
        let config = json!({"model_type": family.traits().model_type, "vocab_size": vocabulary, "hidden_size": d_model,
                            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads,
                            "intermediate_size": d_model.saturating_mul(4)});
        Self::from_config(&Config::new("the sizes given", config)?)
    }

    /// The model of a `config.json` with the `model_type` of a [`LlamaFamily`].
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        let model_type = model_type(config)?;
        let family = LlamaFamily::of(&model_type);
        match config.section(TEXT)?.filter(|_| family == LlamaFamily::Gemma3) {
            Some(text) => Self::of_texts(config, &text),
            None => Self::read(config, family),
        }
    }

    /// The decoder of texts within a Gemma 3 that also sees pictures. Files leave out sizes that are the family's defaults.
    fn of_texts(config: &Config, text: &Config) -> Result<Self> {
        let mut keys = json!({"vocab_size": 262_208, "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8,
                              "intermediate_size": 9216});
        for (key, value) in text.value().as_object().into_iter().flatten() {
            keys[key] = value.clone();
        }
        let mut model = Self::read(&text.with_value(keys), LlamaFamily::Gemma3)?;
        model.tied = config.get_or("tie_word_embeddings", model.tied)?;
        for (key, value) in passed_on(config).into_iter().filter(|(key, _)| key != PADDING) {
            model.extra.retain(|(known, _)| *known != key);
            model.extra.push((key, value));
        }
        Ok(model)
    }

    fn read(config: &Config, family: LlamaFamily) -> Result<Self> {
        let traits = family.traits();
        let [vocabulary, d_model] = [count(config, "vocab_size")?, count(config, "hidden_size")?];
        let heads = heads(config, family, d_model)?;
        let max_position = optional_count(config, "max_position_embeddings")?.unwrap_or(traits.positions);
        let layers = layer_count(config, "num_hidden_layers")?;
        let mixture = match family {
            LlamaFamily::Mixtral => Some(MixtureFamily::Mixtral),
            LlamaFamily::Qwen2Moe => Some(MixtureFamily::Qwen2),
            LlamaFamily::Qwen3Moe => Some(MixtureFamily::Qwen3),
            LlamaFamily::Olmoe => Some(MixtureFamily::Olmoe),
            // Layers that recur may have experts as well.
            LlamaFamily::Mor if config.has("num_local_experts") => Some(MixtureFamily::Mixtral),
            _ => None,
        };
        let mixture = mixture.map(|family| Mixture::from_config(config, family, layers)).transpose()?;
        let recursion = match family {
            LlamaFamily::Mor => Some(recursive::from_config(config, "model.", layers)?),
            _ => None,
        };
        let [attention_bias, output_bias] = match traits.biases {
            // Layers with experts that recur have none.
            _ if recursion.is_some() && mixture.is_some() => [false; 2],
            Biases::Key => [config.get_or("attention_bias", false)?; 2],
            Biases::Qkv => [true, false],
            Biases::QkvKey => [config.get_or("qkv_bias", true)?, false],
            Biases::None => [false; 2],
        };
        if traits.is_gemma {
            reject_if_true(config, "use_bidirectional_attention")?;
        }
        let no_rope = layers::without_positions(config, family, layers)?;
        let (rope, local_rope) = layers::positions(config, family, [heads.head_dim, max_position])?;
        let cap = |key: &str, default: f32, is_key: bool| match config.value().get(key) {
            _ if !is_key => Ok(None),
            Some(Value::Null) => Ok(None),
            None => Ok(Some(default).filter(|_| family == LlamaFamily::Gemma2)),
            Some(_) => positive_number(config, key, default).map(Some),
        };
        let padding = padding(config, vocabulary, traits.padding)?;
        Ok(Self {
            family,
            vocabulary,
            max_position,
            d_model,
            layers,
            heads,
            d_ff: count(config, "intermediate_size")?,
            activation: activation_of(config, family)?,
            epsilon: positive_number(config, "rms_norm_eps", traits.epsilon)?,
            tied: config.get_or("tie_word_embeddings", traits.tied)?,
            padding,
            attention_bias,
            output_bias,
            mlp_bias: traits.mlp_bias && config.get_or("mlp_bias", false)?,
            rope,
            local_rope,
            sliding: layers::sliding(config, family, layers, &no_rope)?,
            no_rope,
            multipliers: multipliers(config, family, d_model)?,
            // Gemma 3 has the key of scores' caps and does not heed it.
            score_cap: cap("attn_logit_softcapping", 50.0, family == LlamaFamily::Gemma2)?,
            logit_cap: cap("final_logit_softcapping", 30.0, traits.both_norms)?,
            clip: match family {
                LlamaFamily::Olmoe if config.has("clip_qkv") => Some(positive_number(config, "clip_qkv", 1.0)?),
                _ => None,
            },
            attention_dropout: rate(config, "attention_dropout")?,
            residual_dropout: if traits.is_phi { rate(config, "resid_pdrop")? } else { 0.0 },
            init_std: config.get_or("initializer_range", 0.02)?,
            mixture,
            recursion,
            extra: passed_on_beside(config, padding),
        })
    }
}

fn heads(config: &Config, family: LlamaFamily, d_model: usize) -> Result<Heads> {
    let query = count(config, "num_attention_heads")?;
    let traits = family.traits();
    let key_value = match optional_count(config, "num_key_value_heads")? {
        Some(heads) => heads,
        // A null is no missing key: it stands for as many as there are queries.
        None if config.value().get("num_key_value_heads").is_some() => query,
        None => traits.key_value.unwrap_or(query),
    };
    must_divide(config, "num_key_value_heads", key_value, query, "num_attention_heads")?;
    let head_dim = match optional_count(config, "head_dim")?.or(traits.head_dim) {
        Some(head_dim) => head_dim,
        None => {
            must_divide(config, "num_attention_heads", query, d_model, "hidden_size")?;
            d_model / query
        }
    };
    if head_dim > MAX_HEAD_DIM {
        let message = format!("makes heads {head_dim} wide; at most {MAX_HEAD_DIM} is supported");
        return Err(config.refuse("head_dim", message));
    }
    if head_dim % 2 == 1 {
        let message = format!("makes heads {head_dim} wide; rotary positions need an even width");
        return Err(config.refuse("head_dim", message));
    }
    Ok(Heads { query, key_value, head_dim })
}

fn activation_of(config: &Config, family: LlamaFamily) -> Result<Activation> {
    let [key, default] = family.traits().activation;
    let found = activation(config, key, default)?;
    // The first files of Gemma say gelu and mean its approximation.
    let legacy = family == LlamaFamily::Gemma && config.value().get(key).is_some_and(|name| name == "gelu");
    Ok(if legacy { Activation::GeluTanh } else { found })
}

fn multipliers(config: &Config, family: LlamaFamily, d_model: usize) -> Result<Multipliers> {
    let number = |key: &str| positive_number(config, key, 1.0);
    let traits = family.traits();
    let mut found = Multipliers::default();
    if family == LlamaFamily::Granite {
        found.embedding = number("embedding_multiplier")?;
        found.residual = number("residual_multiplier")?;
        found.scores = Some(number("attention_multiplier")?);
        found.logits = 1.0 / number("logits_scaling")?;
    }
    if traits.is_gemma {
        found.embedding = (d_model as f64).sqrt() as f32;
    }
    if traits.both_norms {
        found.scores = Some((1.0 / f64::from(positive_number(config, "query_pre_attn_scalar", 256.0)?).sqrt()) as f32);
    }
    Ok(found)
}

#[cfg(test)]
#[path = "phi3_tests.rs"]
mod phi3_tests;
#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
