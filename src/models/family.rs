//! The registry of families, and the family of a `config.json`.

use super::transformer::{bart, plain};
use super::{Bert, BertFamily, DeepSeek, Gpt2, GptNeoX, Llama, Model, ModernBert, NomicBert, T5, TransformerFamily};
use crate::error::Result;
use crate::io::Config;
use FamilySides::{Any, Both, Decoder, Encoder};

/// The sides that the models of a family have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FamilySides {
    /// They read a text as a whole.
    Encoder,
    /// They continue a text.
    Decoder,
    /// They read a text and answer it.
    Both,
    /// The `config.json` says which of these.
    Any,
}

/// A family of models.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its `model_type`.
    pub name: &'static str,
    /// The sides of its models.
    pub sides: FamilySides,
    /// The prefix of its classes in transformers.
    pub class: &'static str,
    /// The model of a `config.json` of the family.
    pub(super) open: fn(&Config) -> Result<Box<dyn Model>>,
}

/// A model of any kind.
fn open<M: Model + 'static>(model: Result<M>) -> Result<Box<dyn Model>> {
    Ok(Box::new(model?))
}

/// A Llama, or a family that is one with differences.
const LLAMA: fn(&Config) -> Result<Box<dyn Model>> = |config| open(Llama::from_config(config));

impl Family {
    /// The families that are read.
    #[must_use]
    pub fn all() -> &'static [Self] {
        FAMILIES
    }

    /// The names of those whose models may have such sides, with commas between them.
    #[must_use]
    pub fn names(sides: &[FamilySides]) -> String {
        let names = FAMILIES.iter().filter(|family| sides.contains(&family.sides)).map(|family| family.name);
        names.collect::<Vec<_>>().join(", ")
    }
}

/// The families that are read. A new one needs an entry here; its row in docs/guide/models.md is made by
/// `UPDATE_GUIDE=1 cargo test --lib family::guide`, and gets its notes there.
pub(super) const FAMILIES: &[Family] = &[
    Family { name: "gpt2", sides: Decoder, class: "GPT2", open: |config| open(Gpt2::from_config(config)) },
    Family { name: "gpt_neox", sides: Decoder, class: "GPTNeoX", open: |config| open(GptNeoX::from_config(config)) },
    Family { name: "llama", sides: Decoder, class: "Llama", open: LLAMA },
    Family { name: "mixtral", sides: Decoder, class: "Mixtral", open: LLAMA },
    Family { name: "qwen2_moe", sides: Decoder, class: "Qwen2Moe", open: LLAMA },
    Family {
        name: "deepseek_v3",
        sides: Decoder,
        class: "DeepseekV3",
        open: |config| open(DeepSeek::from_config(config)),
    },
    Family { name: "mistral", sides: Decoder, class: "Mistral", open: LLAMA },
    Family { name: "qwen2", sides: Decoder, class: "Qwen2", open: LLAMA },
    Family { name: "qwen3", sides: Decoder, class: "Qwen3", open: LLAMA },
    Family { name: "qwen3_moe", sides: Decoder, class: "Qwen3Moe", open: LLAMA },
    Family { name: "olmoe", sides: Decoder, class: "Olmoe", open: LLAMA },
    Family { name: "smollm3", sides: Decoder, class: "SmolLM3", open: LLAMA },
    Family { name: "gemma", sides: Decoder, class: "Gemma", open: LLAMA },
    Family { name: "gemma2", sides: Decoder, class: "Gemma2", open: LLAMA },
    Family { name: "gemma3_text", sides: Decoder, class: "Gemma3", open: LLAMA },
    // The decoder of texts of one that also sees pictures.
    Family { name: "gemma3", sides: Decoder, class: "Gemma3", open: LLAMA },
    Family { name: "granite", sides: Decoder, class: "Granite", open: LLAMA },
    Family { name: "phi3", sides: Decoder, class: "Phi3", open: LLAMA },
    Family { name: "mor", sides: Decoder, class: "Mor", open: LLAMA },
    Family {
        name: "bert",
        sides: Encoder,
        class: "Bert",
        open: |config| open(Bert::from_config(config, BertFamily::Bert)),
    },
    Family {
        name: "roberta",
        sides: Encoder,
        class: "Roberta",
        open: |config| open(Bert::from_config(config, BertFamily::Roberta)),
    },
    Family {
        name: "xlm-roberta",
        sides: Encoder,
        class: "XLMRoberta",
        open: |config| open(Bert::from_config(config, BertFamily::XlmRoberta)),
    },
    Family {
        name: "distilbert",
        sides: Encoder,
        class: "DistilBert",
        open: |config| open(Bert::from_config(config, BertFamily::DistilBert)),
    },
    Family {
        name: "electra",
        sides: Encoder,
        class: "Electra",
        open: |config| open(Bert::from_config(config, BertFamily::Electra)),
    },
    Family {
        name: "albert",
        sides: Encoder,
        class: "Albert",
        open: |config| open(Bert::from_config(config, BertFamily::Albert)),
    },
    Family {
        name: "modernbert",
        sides: Encoder,
        class: "ModernBert",
        open: |config| open(ModernBert::from_config(config)),
    },
    Family {
        name: "nomic_bert",
        sides: Encoder,
        class: "NomicBert",
        open: |config| open(NomicBert::from_config(config)),
    },
    Family { name: "t5", sides: Both, class: "T5", open: |config| open(T5::from_config(config, "t5")) },
    Family { name: "mt5", sides: Both, class: "MT5", open: |config| open(T5::from_config(config, "mt5")) },
    Family {
        name: "switch_transformers",
        sides: Both,
        class: "SwitchTransformers",
        open: |config| open(T5::from_config(config, "switch_transformers")),
    },
    Family {
        name: "bart",
        sides: Both,
        class: "Bart",
        open: |config| open(bart::from_config(config, TransformerFamily::Bart)),
    },
    Family {
        name: "marian",
        sides: Both,
        class: "Marian",
        open: |config| open(bart::from_config(config, TransformerFamily::Marian)),
    },
    Family {
        name: "mbart",
        sides: Both,
        class: "MBart",
        open: |config| open(bart::from_config(config, TransformerFamily::MBart)),
    },
    Family {
        name: "pegasus",
        sides: Both,
        class: "Pegasus",
        open: |config| open(bart::from_config(config, TransformerFamily::Pegasus)),
    },
    Family { name: "transformer", sides: Any, class: "Transformer", open: |config| open(plain::from_config(config)) },
];

/// The ends of the names of classes, after the family's prefix.
pub(super) const CLASS_ENDS: [&str; 13] = [
    "ForCausalLM",
    "LMHeadModel",
    "ForConditionalGeneration",
    "MTModel",
    "ForMaskedLM",
    "ForPreTraining",
    "ForNextSentencePrediction",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "EncoderModel",
    "Model",
];

/// The family of a `config.json`: `model_type`, or what the class in `architectures` stands for.
pub(super) fn model_type(config: &Config) -> Result<String> {
    const CLASSES: &str = "architectures";
    if let Some(family) = config.optional("model_type")? {
        return Ok(family);
    }
    let classes: Vec<String> = config.get_or(CLASSES, Vec::new())?;
    let Some(class) = classes.first() else { return config.any(&["model_type", CLASSES]) };
    let family = of_class(class);
    let refuse = || config.refuse(CLASSES, format!("is \"{class}\", which is not read yet; {} are", families()));
    family.map(|family| family.name.to_owned()).ok_or_else(refuse)
}

/// The family of a class.
fn of_class(class: &str) -> Option<&'static Family> {
    let stem = CLASS_ENDS.iter().find_map(|end| class.strip_suffix(end));
    FAMILIES.iter().find(|family| stem == Some(family.class))
}

/// The family of the class in `architectures`, and that class, where it is another family than that of `model_type`.
pub(super) fn other_family(config: &Config) -> Result<Option<(&'static Family, String)>> {
    let Some(named) = config.optional::<String>("model_type")? else { return Ok(None) };
    let classes: Vec<String> = config.get_or("architectures", Vec::new())?;
    let known = FAMILIES.iter().find(|family| family.name == named);
    let found = classes.into_iter().next().and_then(|class| Some((of_class(&class)?, class)));
    Ok(found.filter(|(family, _)| known.is_some_and(|known| known.class != family.class)))
}

/// Refuses classes of a family whose heads, or whose lack of a side, are not read. Encoders say which they read.
pub(super) fn check_class(config: &Config, family: &Family) -> Result<()> {
    const OTHERS: [&str; 6] = [
        "ForSequenceClassification",
        "ForTokenClassification",
        "ForQuestionAnswering",
        "ForMultipleChoice",
        "EncoderModel",
        "ForCausalLM",
    ];
    const KEY: &str = "architectures";
    let read = match family.name {
        // Their heads are looked at where they are read.
        _ if family.sides == Encoder || family.name == "transformer" => return Ok(()),
        "gpt2" => "LMHeadModel",
        "t5" | "mt5" | "switch_transformers" | "bart" | "mbart" | "pegasus" => "ForConditionalGeneration",
        "marian" => "MTModel",
        _ => "ForCausalLM",
    };
    let classes: Vec<String> = config.get_or(KEY, Vec::new())?;
    let Some(class) = classes.first() else { return Ok(()) };
    match class.strip_prefix(family.class) {
        Some("EncoderModel") if matches!(family.name, "t5" | "mt5" | "switch_transformers") => Ok(()),
        Some(end) if OTHERS.contains(&end) && end != read => {
            Err(config.refuse(KEY, format!("is \"{class}\", which is not read; {}{read} is", family.class)))
        }
        _ => Ok(()),
    }
}

/// The names of all families.
pub(super) fn families() -> String {
    Family::names(&[Encoder, Decoder, Both, Any])
}

/// Refuses weights that are quantised in a way that is not read.
pub(super) fn check_plain(config: &Config) -> Result<()> {
    const KEY: &str = "quantization_config";
    let Some(quantised) = config.section(KEY)? else { return Ok(()) };
    let method = quantised.optional::<String>("quant_method")?.map_or("a quantised model".into(), |m| m.to_uppercase());
    let instead = "give the folder with the unquantised weights, or the model as a GGUF file";
    Err(config.refuse(KEY, format!("says {method}, which is not read: {instead}")))
}

#[cfg(test)]
#[path = "guide_tests.rs"]
mod guide;

#[cfg(test)]
mod tests {
    use super::super::decoder;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_family_is_known_by_its_class_as_well() {
        let of = |config| model_type(&Config::new("config.json", config).unwrap()).unwrap();
        assert_eq!(of(json!({"architectures": ["LlamaForCausalLM"]})), "llama");
        assert_eq!(of(json!({"model_type": null, "architectures": ["GPT2LMHeadModel"]})), "gpt2");
        assert_eq!(of(json!({"architectures": ["Qwen2MoeForCausalLM"], "model_type": "mor"})), "mor");
        let config = json!({"architectures": ["MixtralForCausalLM"], "vocab_size": 5, "hidden_size": 4, "num_attention_heads": 2,
                            "num_key_value_heads": 1, "num_hidden_layers": 1, "intermediate_size": 6, "num_local_experts": 2});
        let model = decoder(&Config::new("config.json", config).unwrap()).unwrap();
        assert!(model.parameters().unwrap().iter().any(|(name, _)| name.contains("block_sparse_moe")));
    }

    #[test]
    fn classes_whose_heads_are_not_read_are_refused_by_name() {
        for (family, class, read) in [
            ("gpt2", "GPT2ForSequenceClassification", "GPT2LMHeadModel"),
            ("bart", "BartForCausalLM", "BartForConditionalGeneration"),
            ("marian", "MarianForCausalLM", "MarianMTModel"),
            ("t5", "T5ForTokenClassification", "T5ForConditionalGeneration"),
            ("llama", "LlamaForTokenClassification", "LlamaForCausalLM"),
        ] {
            let config = json!({"model_type": family, "architectures": [class]});
            let message = decoder(&Config::new("config.json", config).unwrap()).unwrap_err().to_string();
            assert_eq!(message, format!("config.json: \"architectures\" is \"{class}\", which is not read; {read} is"));
        }
    }

    #[test]
    fn quantised_weights_are_refused_by_their_method() {
        for (method, name) in [("awq", "AWQ"), ("gptq", "GPTQ"), ("bitsandbytes", "BITSANDBYTES"), ("fp8", "FP8")] {
            let config = json!({"model_type": "llama", "quantization_config": {"quant_method": method, "bits": 4}});
            let message = decoder(&Config::new("config.json", config).unwrap()).unwrap_err().to_string();
            let wanted = format!("\"quantization_config\" says {name}, which is not read: give the folder with");
            assert!(message.contains(&wanted), "{message}");
        }
    }
}
