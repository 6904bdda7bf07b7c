//! Which family a `config.json` is of, and whether its weights are in a form that is read.

use crate::error::Result;
use crate::io::Config;

/// The families that are read, with what transformers calls their classes.
const FAMILIES: [(&str, &str); 5] =
    [("gpt2", "GPT2"), ("llama", "Llama"), ("mixtral", "Mixtral"), ("qwen2_moe", "Qwen2Moe"), ("mor", "Mor")];

/// The family of a `config.json`: `model_type`, or what the class in `architectures` stands for.
pub(super) fn model_type(config: &Config) -> Result<String> {
    const CLASSES: &str = "architectures";
    if let Some(family) = config.optional("model_type")? {
        return Ok(family);
    }
    let classes: Vec<String> = config.get_or(CLASSES, Vec::new())?;
    let Some(class) = classes.first() else { return config.any(&["model_type", CLASSES]) };
    let stem = ["ForCausalLM", "LMHeadModel", "Model"].iter().find_map(|end| class.strip_suffix(end));
    let family = FAMILIES.iter().find(|(_, theirs)| stem == Some(*theirs));
    let refuse = || config.refuse(CLASSES, format!("is \"{class}\", which is not read yet; {} are", families()));
    family.map(|(family, _)| (*family).to_owned()).ok_or_else(refuse)
}

/// Their names.
pub(super) fn families() -> String {
    FAMILIES.map(|(family, _)| family).join(", ")
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
    fn quantised_weights_are_refused_by_their_method() {
        for (method, name) in [("awq", "AWQ"), ("gptq", "GPTQ"), ("bitsandbytes", "BITSANDBYTES"), ("fp8", "FP8")] {
            let config = json!({"model_type": "llama", "quantization_config": {"quant_method": method, "bits": 4}});
            let message = decoder(&Config::new("config.json", config).unwrap()).unwrap_err().to_string();
            let wanted = format!("\"quantization_config\" says {name}, which is not read: give the folder with");
            assert!(message.contains(&wanted), "{message}");
        }
    }
}
