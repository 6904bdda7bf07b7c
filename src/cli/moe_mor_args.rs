//! The options `--moe` and `--mor`, which turn a dense configuration into a mixture of experts or of recursions.

use crate::error::{Error, Result};
use crate::io::{Config, read_json};
use crate::models;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Turns the `config.json` of a Llama into a mixture of experts. `spec` is `E:K` (K of E experts per token), optionally with config keys,
/// `8:2,router_aux_loss_coef=0.01`, or the name of a JSON file of keys.
///
/// By default the d_ff of experts is chosen so that a token takes as many operations as in the dense model.
///
/// # Errors
/// [`Error::Input`] if `spec` is malformed.
pub(super) fn with_experts(config: &mut Value, spec: &str) -> Result<()> {
    let (head, keys) = parts("moe", spec)?;
    if let Some(head) = head {
        let numbers: Result<Vec<usize>, _> = head.split(':').map(str::parse).collect();
        let Ok(&[experts, k]) = numbers.as_deref() else {
            let message = format!("\"{head}\" is not of the form E:K, such as 8:2 for 8 experts with 2 per token");
            return Err(Error::input("moe", message));
        };
        let dense = config["intermediate_size"].as_u64().unwrap_or(0) as usize;
        config["num_local_experts"] = json!(experts);
        config["num_experts_per_tok"] = json!(k);
        let d_ff = (dense / k.max(1)).next_multiple_of(8);
        config["intermediate_size"] = json!(d_ff);
        config["router_aux_loss_coef"] = json!(0.01);
    }
    if config["model_type"] == "llama" {
        config["model_type"] = "mixtral".into();
    }
    merge(config, keys);
    Ok(())
}

/// Turns the `config.json` of a Llama into a mixture of recursions. `spec` is `R` or `R:ROUTING` (expert_choice, token_choice or none),
/// optionally with config keys, `3:token_choice,sharing=cycle`, or the name of a JSON file of keys.
///
/// # Errors
/// [`Error::Input`] if `spec` is malformed.
pub(super) fn with_recursions(config: &mut Value, spec: &str) -> Result<()> {
    let (head, keys) = parts("mor", spec)?;
    if config["model_type"] != "transformer" {
        config["model_type"] = "mor".into();
    }
    if let Some(head) = head {
        let (recursions, routing) = head.split_once(':').unwrap_or((&head, "expert_choice"));
        let recursions: usize = recursions.parse().map_err(|_| {
            let message =
                format!("\"{head}\" is not of the form R or R:ROUTING, such as 3:expert_choice for 3 recursions");
            Error::input("mor", message)
        })?;
        config["num_recursions"] = json!(recursions);
        config["routing"] = routing.into();
        config["sharing"] = "middle_cycle".into();
    }
    merge(config, keys);
    Ok(())
}

/// Refuses keys that models of the configuration do not read, such as misspelt ones.
///
/// # Errors
/// [`Error::Input`] that names the key.
pub(super) fn check_keys(option: &str, spec: Option<&str>, config: &Value) -> Result<()> {
    let Some(spec) = spec else { return Ok(()) };
    // A key is read if the model's config contains it, or if an invalid value is an error: keys at their default may be omitted.
    let config_of = |value: Value| models::model(&Config::new(option, value)?).map(|model| model.config());
    // Other errors are reported when the model is created.
    let Ok(known) = config_of(config.clone()) else { return Ok(()) };
    let read = |key: &str| {
        let mut odd = config.clone();
        odd[key] = json!([{}]);
        known.get(key).is_some() || config_of(odd).is_err()
    };
    let keys = parts(option, spec)?.1;
    let Some(unknown) = keys.keys().find(|key| !read(key)) else { return Ok(()) };
    Err(Error::input(
        option,
        format!("models of this kind do not read \"{unknown}\" in a config.json; is it misspelt?"),
    ))
}

/// The short form, if `spec` begins with one, and the keys.
fn parts(option: &str, spec: &str) -> Result<(Option<String>, Map<String, Value>)> {
    if Path::new(spec).extension().is_some_and(|extension| extension == "json") {
        return match read_json(spec)? {
            Value::Object(keys) => Ok((None, keys)),
            _ => Err(Error::format(spec, "it is not a JSON object of config.json keys")),
        };
    }
    let mut fields = spec.split(',').peekable();
    let head = fields.next_if(|field| !field.contains('=')).map(str::to_owned);
    let mut keys = Map::new();
    for field in fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(Error::input(option, format!("\"{field}\" is not of the form key=value")));
        };
        keys.insert(key.into(), serde_json::from_str(value).unwrap_or_else(|_| value.into()));
    }
    Ok((head, keys))
}

fn merge(config: &mut Value, keys: Map<String, Value>) {
    for (key, value) in keys {
        config[key] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense() -> Value {
        json!({"model_type": "llama", "intermediate_size": 344})
    }

    #[test]
    fn short_forms_and_keys_become_a_config() {
        let mut config = dense();
        with_experts(&mut config, "8:2,router_aux_loss_coef=0.5,scoring_func=sigmoid").unwrap();
        assert_eq!(config["model_type"], "mixtral");
        assert_eq!(config["intermediate_size"], 176);
        assert_eq!(config["router_aux_loss_coef"], 0.5);
        assert_eq!(config["scoring_func"], "sigmoid");
        let mut config = dense();
        with_recursions(&mut config, "3:token_choice,sharing=cycle").unwrap();
        with_experts(&mut config, "4:1").unwrap();
        assert_eq!((&config["model_type"], &config["routing"]), (&json!("mor"), &json!("token_choice")));
        assert_eq!((&config["num_recursions"], &config["sharing"]), (&json!(3), &json!("cycle")));
        assert_eq!(config["intermediate_size"], 344);
    }

    #[test]
    fn malformed_short_forms_are_refused_with_an_example() {
        let message = with_experts(&mut dense(), "eight").unwrap_err().to_string();
        assert!(message.contains("\"eight\" is not of the form E:K, such as 8:2"), "{message}");
        assert!(with_experts(&mut dense(), "8:x:2").is_err());
        let message = with_recursions(&mut dense(), "3,cycle").unwrap_err().to_string();
        assert!(message.contains("\"cycle\" is not of the form key=value"), "{message}");
    }

    #[test]
    fn keys_that_no_model_reads_are_refused() {
        let mut config = json!({"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 5,
                                "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 16,
                                "max_position_embeddings": 8});
        let spec = "3:token_choice,num_modules=1,router_alpha=0.1";
        with_recursions(&mut config, spec).unwrap();
        check_keys("mor", Some(spec), &config).unwrap();
        check_keys("mor", None, &config).unwrap();
        let message = check_keys("mor", Some("3:token_choice,router_alhpa=1"), &config).unwrap_err().to_string();
        assert!(message.contains("do not read \"router_alhpa\""), "{message}");
        config["model_type"] = json!("llama");
        let spec = "4:2,router_bias_rate=0,router_z_loss_coef=0,scoring_func=softmax,routed_scaling_factor=1,n_group=1,\
                    router_jitter_noise=0,expert_capacity_factor=null,router_aux_loss_coef=0";
        with_experts(&mut config, spec).unwrap();
        models::decoder(&Config::new("moe", config.clone()).unwrap()).unwrap();
        check_keys("moe", Some(spec), &config).unwrap();
        assert!(check_keys("moe", Some("4:2,router_bias_rat=0"), &config).is_err());
    }
}
