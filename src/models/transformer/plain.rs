//! The transformer of Vaswani et al., "Attention is all you need", arXiv 1706.03762: encoder, decoder or both, with sinusoidal
//! positions and a norm behind each sum. Layers may have experts, and may recur.

use super::{Positions, Side, Transformer, TransformerFamily};
use crate::error::Result;
use crate::io::Config;
use crate::models::heads::HeadKinds;
use crate::models::mixture::{Mixture, MixtureFamily};
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate,
    rate_or,
};
use crate::models::{EncoderHead, heads, passed_on_beside, recursive};
use crate::nn::NormOrder;
use serde_json::{Value, json};

/// The front of its classes' names.
const CLASS: &str = "Transformer";
/// Their ends. Classes of a text are read off its first token.
const HEADS: HeadKinds = &[
    ("Model", EncoderHead::MaskedLanguageModel),
    ("ForSequenceClassification", EncoderHead::SequenceClassification { labels: 0 }),
    ("ForTokenClassification", EncoderHead::TokenClassification { labels: 0 }),
    ("ForQuestionAnswering", EncoderHead::QuestionAnswering),
];

/// The model of a `config.json` with `model_type` transformer.
///
/// Keys: `vocab_size`, `hidden_size`, `num_attention_heads`, `intermediate_size`, `max_position_embeddings`, and
/// `num_encoder_layers` or `num_decoder_layers` or both; `norm_first` (false), `scale_embedding` (true), `hidden_act` (relu), `dropout`,
/// `attention_dropout`, `activation_dropout`. With `num_local_experts` the keys of a Mixtral, and `expert_choice_factor`, by which
/// experts of the encoder choose; with `num_recursions` those of a mixture of recursions, `num_*_layers` being the uses of all layers.
pub(in crate::models) fn from_config(config: &Config) -> Result<Transformer> {
    let (d_model, heads) = (count(config, "hidden_size")?, count(config, "num_attention_heads")?);
    must_divide(config, "num_attention_heads", heads, d_model, "hidden_size")?;
    let factor: Option<f32> = config.optional("expert_choice_factor")?;
    let side = |key: &str, prefix: &str, factor: Option<f32>| -> Result<Option<Side>> {
        if !config.has(key) {
            return Ok(None);
        }
        let layers = layer_count(config, key)?;
        let mixture = match config.has("num_local_experts") {
            true => Some(Mixture::from_config(config, MixtureFamily::Mixtral, layers)?),
            false => None,
        };
        let recursion = match config.has("num_recursions") {
            true => Some(recursive::from_config(config, prefix, layers)?),
            false => None,
        };
        let expert_choice = factor.filter(|_| mixture.is_some());
        Ok(Some(Side { layers, heads, d_ff: count(config, "intermediate_size")?, mixture, expert_choice, recursion }))
    };
    let (encoder, decoder) =
        (side("num_encoder_layers", "model.encoder.", factor)?, side("num_decoder_layers", "model.decoder.", None)?);
    if encoder.is_none() && decoder.is_none() {
        let neither: Result<usize> = config.any(&["num_encoder_layers", "num_decoder_layers"]);
        neither?;
    }
    let norm_first = config.get_or("norm_first", false)?;
    let special = |key: &str| -> Result<Option<u32>> { config.optional(key) };
    let padding = special("pad_token_id")?;
    Ok(Transformer {
        family: TransformerFamily::Plain,
        vocabulary: count(config, "vocab_size")?,
        decoder_vocabulary: None,
        unused_shared: false,
        max_position: optional_count(config, "max_position_embeddings")?.unwrap_or(1024),
        d_model,
        encoder,
        decoder,
        activation: activation(config, "hidden_act", "relu")?,
        order: if norm_first { NormOrder::Pre } else { NormOrder::Post },
        final_norm: norm_first,
        embedding_norm: false,
        scale_embedding: config.get_or("scale_embedding", true)?,
        positions: Positions::Sinusoidal,
        epsilon: positive_number(config, "layer_norm_eps", 1e-5)?,
        dropout: rate_or(config, "dropout", 0.1)?,
        attention_dropout: rate(config, "attention_dropout")?,
        activation_dropout: rate(config, "activation_dropout")?,
        padding,
        start: match special("decoder_start_token_id")? {
            Some(start) => Some(start),
            None => padding.or(Some(0)),
        },
        logits_bias: false,
        tied: config.get_or("tie_word_embeddings", true)?,
        head: match heads::head(config, CLASS, HEADS)? {
            EncoderHead::None => EncoderHead::MaskedLanguageModel,
            head => head,
        },
        init_std: config.get_or("initializer_range", 0.02)?,
        extra: passed_on_beside(config, padding),
    })
}

/// The `config.json` of a model of the family.
pub(super) fn write(model: &Transformer) -> Value {
    let side = model.encoder.as_ref().or(model.decoder.as_ref());
    let mut config = json!({
        "vocab_size": model.vocabulary,
        "hidden_size": model.d_model,
        "num_attention_heads": side.map(|side| side.heads),
        "intermediate_size": side.map(|side| side.d_ff),
        "max_position_embeddings": model.max_position,
        "hidden_act": activation_name(model.activation),
        "norm_first": model.order == NormOrder::Pre,
        "scale_embedding": model.scale_embedding,
        "layer_norm_eps": json_f32(model.epsilon),
        "dropout": json_f32(model.dropout),
        "attention_dropout": json_f32(model.attention_dropout),
        "activation_dropout": json_f32(model.activation_dropout),
        "pad_token_id": model.padding,
        "decoder_start_token_id": model.start,
        "tie_word_embeddings": model.tied,
        "initializer_range": model.init_std,
        "is_encoder_decoder": model.encoder.is_some() && model.decoder.is_some(),
        "dtype": "float32",
    });
    if let Some(mixture) = side.and_then(|side| side.mixture.as_ref()) {
        mixture.write(&mut config);
        config["expert_choice_factor"] = json!(side.and_then(|side| side.expert_choice).map(json_f32));
    }
    if let Some(recursion) = side.and_then(|side| side.recursion.as_ref()) {
        recursive::write(recursion, &mut config);
    }
    for (key, side) in [("num_encoder_layers", &model.encoder), ("num_decoder_layers", &model.decoder)] {
        if let Some(side) = side {
            config[key] = side.layers.into();
        }
    }
    config["model_type"] = "transformer".into();
    config["architectures"] = json!([heads::class(CLASS, model.head, HEADS)]);
    heads::write(model.head, &mut config);
    config
}
