//! BART (Lewis et al., arXiv 1910.13461) and Marian (Junczys-Dowmunt et al., arXiv 1804.00344) as [`Transformer`]s.

use super::{Positions, Side, Transformer, TransformerFamily};
use crate::error::Result;
use crate::io::Config;
use crate::models::passed_on;
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate,
    rate_or,
};
use crate::nn::NormOrder;
use serde_json::{Value, json};

/// Learned positions of BART begin behind two rows that stand for nothing.
const OFFSET: usize = 2;
/// What models are called that differ from transformers' classes.
const OWN_CLASS: &str = "TransformerModel";
const EPSILON: &str = "layer_norm_eps";
const EPSILON_DEFAULT: f32 = 1e-5;

/// The model of a `config.json` with `model_type` bart or marian.
pub(in crate::models) fn from_config(config: &Config, family: TransformerFamily) -> Result<Transformer> {
    let marian = family == TransformerFamily::Marian;
    let d_model = count(config, "d_model")?;
    let side = |name: &str| -> Result<Option<Side>> {
        let [layers, heads, d_ff] = ["layers", "attention_heads", "ffn_dim"].map(|key| format!("{name}_{key}"));
        let (count_of, heads_of) = (layer_count(config, &layers)?, count(config, &heads)?);
        must_divide(config, &heads, heads_of, d_model, "d_model")?;
        let (mixture, expert_choice, recursion) = (None, None, None);
        Ok(Some(Side {
            layers: count_of,
            heads: heads_of,
            d_ff: count(config, &d_ff)?,
            mixture,
            expert_choice,
            recursion,
        }))
    };
    let vocabulary = count(config, "vocab_size")?;
    let decoder_vocabulary = optional_count(config, "decoder_vocab_size")?;
    let shared = config.get_or("share_encoder_decoder_embeddings", true)?;
    if shared && decoder_vocabulary.is_some_and(|other| other != vocabulary) {
        let message = format!("differs from vocab_size, {vocabulary}, though share_encoder_decoder_embeddings is true");
        return Err(config.refuse("decoder_vocab_size", message));
    }
    let own = own_keys(config, family)?;
    let flag =
        |key: &str, default: bool| -> Result<bool> { if own { config.get_or(key, default) } else { Ok(default) } };
    let static_positions = flag("static_position_embeddings", marian)?;
    let (padding, start) = if marian { (58_100, 58_100) } else { (1, 2) };
    Ok(Transformer {
        family,
        vocabulary,
        decoder_vocabulary: (!shared).then_some(decoder_vocabulary.unwrap_or(vocabulary)),
        unused_shared: false,
        max_position: optional_count(config, "max_position_embeddings")?.unwrap_or(1024),
        d_model,
        encoder: side("encoder")?,
        decoder: side("decoder")?,
        activation: activation(config, "activation_function", "gelu")?,
        order: if flag("normalize_before", false)? { NormOrder::Pre } else { NormOrder::Post },
        final_norm: flag("add_final_layer_norm", false)?,
        embedding_norm: flag("normalize_embedding", !marian)?,
        scale_embedding: config.get_or("scale_embedding", false)?,
        positions: if static_positions { Positions::SinusoidalHalves } else { Positions::Learned { offset: OFFSET } },
        epsilon: if own { positive_number(config, EPSILON, EPSILON_DEFAULT)? } else { EPSILON_DEFAULT },
        dropout: rate_or(config, "dropout", 0.1)?,
        attention_dropout: rate(config, "attention_dropout")?,
        activation_dropout: rate(config, "activation_dropout")?,
        padding: Some(config.get_or("pad_token_id", padding)?),
        start: Some(config.get_or("decoder_start_token_id", start)?),
        logits_bias: true,
        tied: config.get_or("tie_word_embeddings", true)?,
        init_std: config.get_or("init_std", 0.02)?,
        extra: passed_on(config),
    })
}

/// The class of transformers that a family's weights are of.
fn class(family: TransformerFamily) -> &'static str {
    if family == TransformerFamily::Marian { "MarianMTModel" } else { "BartForConditionalGeneration" }
}

/// Whether keys count that transformers' classes do not read; they do where `architectures` names none of these.
fn own_keys(config: &Config, family: TransformerFamily) -> Result<bool> {
    let classes: Vec<String> = config.get_or("architectures", Vec::new())?;
    if classes.first().is_some_and(|class| class == OWN_CLASS) {
        return Ok(true);
    }
    let marian = family == TransformerFamily::Marian;
    let read = [
        ("normalize_before", config.get_or("normalize_before", false)?),
        ("add_final_layer_norm", config.get_or("add_final_layer_norm", false)?),
        ("normalize_embedding", config.get_or("normalize_embedding", !marian)? == marian),
        ("static_position_embeddings", config.get_or("static_position_embeddings", marian)? != marian),
        (EPSILON, config.get_or(EPSILON, EPSILON_DEFAULT)?.to_bits() != EPSILON_DEFAULT.to_bits()),
    ];
    for (key, _) in read.iter().filter(|(_, other)| *other) {
        let (source, class) = (config.source().display(), class(family));
        log::warn!("{source}: \"{key}\" is not what {class} does, which does not read it; it is left aside");
    }
    Ok(false)
}

/// The `config.json` of a model of that family.
pub(super) fn write(model: &Transformer, family: TransformerFamily) -> Value {
    let marian = family == TransformerFamily::Marian;
    let mut config = json!({
        "model_type": if marian { "marian" } else { "bart" },
        "architectures": [class(family)],
        "is_encoder_decoder": true,
        "vocab_size": model.vocabulary,
        "d_model": model.d_model,
        "max_position_embeddings": model.max_position,
        "activation_function": activation_name(model.activation),
        "scale_embedding": model.scale_embedding,
        "dropout": json_f32(model.dropout),
        "attention_dropout": json_f32(model.attention_dropout),
        "activation_dropout": json_f32(model.activation_dropout),
        "pad_token_id": model.padding,
        "decoder_start_token_id": model.start,
        "tie_word_embeddings": model.tied,
        "init_std": model.init_std,
        "dtype": "float32",
    });
    if marian {
        config["decoder_vocab_size"] = model.target_vocabulary().into();
        config["share_encoder_decoder_embeddings"] = (model.decoder_vocabulary.is_none() || model.unused_shared).into();
    }
    // What transformers' classes do not ask for, where it is not theirs.
    let halves = model.positions == Positions::SinusoidalHalves;
    let own: [(&str, Value, bool); 5] = [
        ("normalize_before", true.into(), model.order == NormOrder::Pre),
        ("add_final_layer_norm", true.into(), model.final_norm),
        ("normalize_embedding", model.embedding_norm.into(), model.embedding_norm == marian),
        ("static_position_embeddings", halves.into(), halves != marian),
        ("layer_norm_eps", json_f32(model.epsilon).into(), (model.epsilon - EPSILON_DEFAULT).abs() > 1e-9),
    ];
    for (name, side) in [("encoder", &model.encoder), ("decoder", &model.decoder)] {
        let Some(side) = side else { continue };
        config[format!("{name}_layers")] = side.layers.into();
        config[format!("{name}_attention_heads")] = side.heads.into();
        config[format!("{name}_ffn_dim")] = side.d_ff.into();
    }
    for (key, value, _) in own.into_iter().filter(|(.., says)| *says) {
        config[key] = value;
        config["architectures"] = json!([OWN_CLASS]);
    }
    config
}
