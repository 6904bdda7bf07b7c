//! BART (Lewis et al., arXiv 1910.13461), Marian (Junczys-Dowmunt et al., arXiv 1804.00344), mBART and Pegasus as [`Transformer`]s.

use super::{Positions, Side, Transformer, TransformerFamily};
use crate::error::Result;
use crate::io::Config;
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate,
    rate_or,
};
use crate::models::{EncoderHead, passed_on_beside};
use crate::nn::NormOrder;
use serde_json::{Value, json};

/// Learned positions of BART begin behind two rows that stand for nothing.
const OFFSET: usize = 2;
/// What models are called that differ from transformers' classes.
const OWN_CLASS: &str = "TransformerModel";
const EPSILON: &str = "layer_norm_eps";
const EPSILON_DEFAULT: f32 = 1e-5;

/// What a family is where its `config.json` does not say, and what classes of transformers always are.
struct Kind {
    model_type: &'static str,
    /// The class of transformers that its weights are of.
    class: &'static str,
    norm_first: bool,
    final_norm: bool,
    embedding_norm: bool,
    sinusoidal: bool,
    padding: u32,
    start: Option<u32>,
}

impl Kind {
    fn of(family: TransformerFamily) -> Self {
        let bart = Self {
            model_type: "bart",
            class: "BartForConditionalGeneration",
            norm_first: false,
            final_norm: false,
            embedding_norm: true,
            sinusoidal: false,
            padding: 1,
            start: Some(2),
        };
        match family {
            TransformerFamily::Plain | TransformerFamily::Bart => bart,
            TransformerFamily::Marian => Self {
                model_type: "marian",
                class: "MarianMTModel",
                embedding_norm: false,
                sinusoidal: true,
                padding: 58_100,
                start: Some(58_100),
                ..bart
            },
            TransformerFamily::MBart => Self {
                model_type: "mbart",
                class: "MBartForConditionalGeneration",
                norm_first: true,
                final_norm: true,
                start: None,
                ..bart
            },
            TransformerFamily::Pegasus => Self {
                model_type: "pegasus",
                class: "PegasusForConditionalGeneration",
                norm_first: true,
                final_norm: true,
                embedding_norm: false,
                sinusoidal: true,
                padding: 0,
                start: Some(0),
            },
        }
    }
}

/// The model of a `config.json` with the `model_type` of one of the families.
pub(in crate::models) fn from_config(config: &Config, family: TransformerFamily) -> Result<Transformer> {
    let kind = Kind::of(family);
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
    // The others know neither key.
    let two = matches!(family, TransformerFamily::Bart | TransformerFamily::Marian);
    let decoder_vocabulary = if two { optional_count(config, "decoder_vocab_size")? } else { None };
    let shared = !two || config.get_or("share_encoder_decoder_embeddings", true)?;
    if shared && decoder_vocabulary.is_some_and(|other| other != vocabulary) {
        let message = format!("differs from vocab_size, {vocabulary}, though share_encoder_decoder_embeddings is true");
        return Err(config.refuse("decoder_vocab_size", message));
    }
    let own = own_keys(config, &kind)?;
    let flag =
        |key: &str, default: bool| -> Result<bool> { if own { config.get_or(key, default) } else { Ok(default) } };
    let static_positions = flag("static_position_embeddings", kind.sinusoidal)?;
    let start = match config.optional("decoder_start_token_id")? {
        // As transformers, where answers begin with no token of their own.
        None if kind.start.is_none() => config.optional("bos_token_id")?.or(Some(0)),
        None => kind.start,
        start => start,
    };
    let padding = Some(config.get_or("pad_token_id", kind.padding)?);
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
        order: if flag("normalize_before", kind.norm_first)? { NormOrder::Pre } else { NormOrder::Post },
        final_norm: flag("add_final_layer_norm", kind.final_norm)?,
        embedding_norm: flag("normalize_embedding", kind.embedding_norm)?,
        scale_embedding: config.get_or("scale_embedding", false)?,
        positions: if static_positions { Positions::SinusoidalHalves } else { Positions::Learned { offset: OFFSET } },
        epsilon: if own { positive_number(config, EPSILON, EPSILON_DEFAULT)? } else { EPSILON_DEFAULT },
        dropout: rate_or(config, "dropout", 0.1)?,
        attention_dropout: rate(config, "attention_dropout")?,
        activation_dropout: rate(config, "activation_dropout")?,
        padding,
        start,
        logits_bias: true,
        tied: config.get_or("tie_word_embeddings", true)?,
        head: EncoderHead::MaskedLanguageModel,
        init_std: config.get_or("init_std", 0.02)?,
        extra: passed_on_beside(config, padding),
    })
}

/// Whether keys count that transformers' classes do not read; they do where `architectures` names none of these.
fn own_keys(config: &Config, kind: &Kind) -> Result<bool> {
    let classes: Vec<String> = config.get_or("architectures", Vec::new())?;
    if classes.first().is_some_and(|class| class == OWN_CLASS) {
        return Ok(true);
    }
    let other = |key: &str, wanted: bool| -> Result<bool> { Ok(config.get_or(key, wanted)? != wanted) };
    let read = [
        ("normalize_before", other("normalize_before", kind.norm_first)?),
        ("add_final_layer_norm", other("add_final_layer_norm", kind.final_norm)?),
        ("normalize_embedding", other("normalize_embedding", kind.embedding_norm)?),
        ("static_position_embeddings", other("static_position_embeddings", kind.sinusoidal)?),
        (EPSILON, config.get_or(EPSILON, EPSILON_DEFAULT)?.to_bits() != EPSILON_DEFAULT.to_bits()),
    ];
    for (key, _) in read.iter().filter(|(_, other)| *other) {
        let (source, class) = (config.source().display(), kind.class);
        log::warn!("{source}: \"{key}\" is not what {class} does, which does not read it; it is left aside");
    }
    Ok(false)
}

/// The `config.json` of a model of that family.
pub(super) fn write(model: &Transformer, family: TransformerFamily) -> Value {
    let kind = Kind::of(family);
    let mut config = json!({
        "model_type": kind.model_type,
        "architectures": [kind.class],
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
    if family == TransformerFamily::Marian {
        config["decoder_vocab_size"] = model.target_vocabulary().into();
        config["share_encoder_decoder_embeddings"] = (model.decoder_vocabulary.is_none() || model.unused_shared).into();
    }
    // What transformers' classes do not ask for, where it is not theirs.
    let halves = model.positions == Positions::SinusoidalHalves;
    let first = model.order == NormOrder::Pre;
    let own: [(&str, Value, bool); 5] = [
        ("normalize_before", first.into(), first != kind.norm_first),
        ("add_final_layer_norm", model.final_norm.into(), model.final_norm != kind.final_norm),
        ("normalize_embedding", model.embedding_norm.into(), model.embedding_norm != kind.embedding_norm),
        ("static_position_embeddings", halves.into(), halves != kind.sinusoidal),
        (EPSILON, json_f32(model.epsilon).into(), (model.epsilon - EPSILON_DEFAULT).abs() > 1e-9),
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
