//! Model families: configuration, graph, names of weights.
//!
//! A decoder is built from a `config.json` with [`decoder`], or from a whole Hugging Face folder or a GGUF file with [`load`].

mod attention_maps;
mod bert;
mod causal;
mod deepseek;
mod family;
mod gpt2;
mod gpt_neox;
mod heads;
mod initialise;
mod llama;
pub mod lora;
mod mixture;
mod model;
mod modernbert;
mod mor_init;
mod names;
mod naming;
mod new_head;
mod nomic_bert;
mod recursive;
mod rope;
mod routing;
pub(crate) mod settings;
mod stacked;
mod t5;
mod transformer;
mod weights;
mod weights_parts;

pub use attention_maps::{AttentionMap, AttentionText, attention_maps};
pub use bert::{Bert, BertFamily};
pub use deepseek::DeepSeek;
use family::{FAMILIES, check_class, check_plain, families, model_type};
pub use family::{Family, FamilySides};
pub use gpt_neox::GptNeoX;
pub use gpt2::Gpt2;
pub use initialise::{initial_values, initial_words};
pub use llama::{Llama, LlamaFamily, Multipliers, Sliding};
pub use mixture::{Mixture, MixtureFamily};
pub use model::{Decoder, Dimensions, Encoder, EncoderHead, LmHead, Model};
pub use modernbert::{ModernBert, ModernBertBiases};
pub use mor_init::{LayerInit, uptrain_from_llama};
pub use naming::Naming;
pub use new_head::{NewHead, fresh_head};
pub use nomic_bert::{NomicBert, NomicSpelling};
pub use routing::{TokenRoutes, token_routes};
pub use stacked::file_tensors;
pub use t5::{Switch, T5};
pub use transformer::{Positions, Side, Transformer, TransformerFamily};
pub use weights::{
    decoder_of, load, load_model, load_weights, load_weights_beside, model_of, named_tensors, names_in, storage_of,
    stored_config,
};
#[cfg(feature = "files")]
pub use weights::{save, save_gguf};
pub use weights_parts::{load_model_async, load_weights_async};

use crate::error::Result;
pub use crate::graph::Initial;
use crate::io::Config;
pub use crate::nn::{Hidden, TokenInputs};
use serde_json::Value;

/// The model that a `config.json` describes.
///
/// # Errors
/// [`Error::Format`](crate::Error::Format) that names the key whose value is missing, wrong or not supported.
pub fn model(config: &Config) -> Result<Box<dyn Model>> {
    let family = model_type(config)?;
    check_plain(config)?;
    match FAMILIES.iter().find(|known| known.name == family) {
        Some(known) => {
            check_class(config, known)?;
            (known.open)(config)
        }
        None => {
            let message = format!("is \"{family}\", which is not read yet; {} are", families());
            Err(config.refuse("model_type", message))
        }
    }
}

/// The decoder that a `config.json` describes.
///
/// # Errors
/// [`Error::Format`](crate::Error::Format) that names the key whose value is missing, wrong or not supported.
pub fn decoder(config: &Config) -> Result<Box<dyn Decoder>> {
    let family = model_type(config)?;
    let refuse =
        || config.refuse("model_type", format!("is \"{family}\", which reads texts and does not continue them"));
    model(config)?.into_decoder().ok_or_else(refuse)
}

/// The tokens that end an answer: `eos_token_id` of a `config.json` or `generation_config.json`, none, one or several. Those
/// beyond the vocabulary, which real models have, are noted in the log.
///
/// # Errors
/// [`Error::Format`](crate::Error::Format) if the key has a value that is no token's number and no list of them.
pub fn end_tokens(config: &Config, vocabulary: usize) -> Result<Vec<u32>> {
    const KEY: &str = "eos_token_id";
    let values = match config.value().get(KEY) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(several)) => several.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| config.refuse(KEY, format!("has {value}; the number of a token or a list of them is needed")))
    };
    let ids: Vec<u32> = values.iter().map(id).collect::<Result<_>>()?;
    for id in ids.iter().filter(|&&id| id as usize >= vocabulary) {
        let source = config.source().display();
        log::warn!("{source}: \"{KEY}\" has {id}; the vocabulary ends before {vocabulary}, so it will never come");
    }
    Ok(ids)
}

/// Keys of a `config.json` that are no business of the graph and are passed on to a saved one.
fn passed_on(config: &Config) -> Vec<(String, Value)> {
    const KEYS: [&str; 7] =
        ["bos_token_id", "eos_token_id", "mask_token_id", PADDING, "id2label", "label2id", "problem_type"];
    // A null is passed on as well: without it readers take their family's default.
    KEYS.iter().filter_map(|key| Some(((*key).to_owned(), config.value().get(*key)?.clone()))).collect()
}

/// The key of the token of padding.
const PADDING: &str = "pad_token_id";

/// The same for a model that has the token of padding, which is under its key as it is, as `padding`.
fn passed_on_beside(config: &Config, padding: Option<u32>) -> Vec<(String, Value)> {
    let mut keys = passed_on(config);
    keys.retain(|(key, value)| key != PADDING || *value != Value::from(padding));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_family_is_refused_by_name() {
        let refused = |config| decoder(&Config::new("config.json", config).unwrap()).unwrap_err().to_string();
        assert_eq!(
            refused(json!({"model_type": "mamba"})),
            format!("config.json: \"model_type\" is \"mamba\", which is not read yet; {} are", families())
        );
        assert_eq!(refused(json!({})), "config.json: has no \"model_type\" or \"architectures\"");
        assert!(
            refused(json!({"architectures": ["MambaForCausalLM"]}))
                .contains("\"architectures\" is \"MambaForCausalLM\"")
        );
    }

    #[test]
    fn one_or_several_tokens_end_an_answer() {
        let of = |config: Value| end_tokens(&Config::new("config.json", config).unwrap(), 97);
        let ids = |value: Value| of(json!({"eos_token_id": value})).unwrap();
        assert_eq!(ids(json!(2)), [2]);
        assert_eq!(ids(json!([2, 7])), [2, 7]);
        assert_eq!(ids(json!(5000)), [5000], "beyond the vocabulary");
        assert!(ids(Value::Null).is_empty() && of(json!({})).unwrap().is_empty());
        for wrong in [json!("3"), json!(["3"]), json!(3.0), json!([[3]]), json!(-1), json!({}), json!(10_u64.pow(12))] {
            let message = of(json!({"eos_token_id": wrong})).unwrap_err().to_string();
            assert!(message.starts_with("config.json: \"eos_token_id\" has "), "{message}");
        }
    }
}
