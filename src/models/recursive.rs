//! Recursions in a `config.json`: the keys of a mixture of recursions, beside those of its layers. Bae et al., arXiv 2507.10524.

use super::settings::{count, json_f32, part_count, positive_number};
use crate::error::Result;
use crate::io::Config;
use crate::nn::{
    ExpertChoiceRouting, Recursion, RecursionRouting, Router, RouterFunction, RouterKind, Sharing, TokenChoiceRouting,
};
use crate::ops::{self, RouterLoss};
use serde_json::Value;

const SHARINGS: [(&str, Sharing); 4] = [
    ("cycle", Sharing::Cycle),
    ("middle_cycle", Sharing::MiddleCycle),
    ("sequence", Sharing::Sequence),
    ("middle_sequence", Sharing::MiddleSequence),
];

/// The recursions of a stack of so many layers, whose routers' names begin with `prefix`: `num_recursions`, `sharing`, `routing`, `capacity`, `capacity_warmup_steps`,
/// `router_alpha`, `router_function`, `router`, `router_aux_coef`, `router_z_coef`, `router_bias`, `sampling`, `kv_sharing`,
/// `num_modules`.
pub(super) fn from_config(config: &Config, prefix: &str, layers: usize) -> Result<Recursion> {
    let recursions = count(config, "num_recursions")?;
    let sharing = choice(config, "sharing", "middle_cycle", &SHARINGS)?;
    let ends = if sharing.has_ends() { 2 } else { 0 };
    if layers <= ends || !(layers - ends).is_multiple_of(recursions) {
        let recurring = layers.saturating_sub(ends);
        let fit: Vec<String> =
            (1..=recurring).filter(|r| recurring.is_multiple_of(*r)).map(|r| r.to_string()).collect();
        let hint = if fit.is_empty() { String::new() } else { format!(" (it is one of {})", fit.join(", ")) };
        let message = format!(
            "is {layers}; without {ends} at the ends it must be a multiple of num_recursions, {recursions}{hint}"
        );
        return Err(config.refuse("num_hidden_layers", message));
    }
    let kv_sharing = config.get_or("kv_sharing", false)?;
    let modules = if config.has("num_modules") { part_count(config, "num_modules")? } else { 1 };
    let kind = choice(config, "routing", "expert_choice", &[("none", 0), ("expert_choice", 1), ("token_choice", 2)])?;
    if kind != 2 && modules > 1 {
        return Err(config.refuse("num_modules", format!("is {modules}; only token_choice has several modules")));
    }
    if kind != 0 && !sharing.is_cycle() {
        let message = "repeats each layer in a row; routing needs \"cycle\" or \"middle_cycle\", and \"routing\": \"none\" takes any";
        return Err(config.refuse("sharing", message));
    }
    let routing = match kind {
        1 => RecursionRouting::ExpertChoice(expert_choice(config, recursions, kv_sharing)?),
        2 => RecursionRouting::TokenChoice(token_choice(config, recursions, modules, kv_sharing)?),
        _ => RecursionRouting::None,
    };
    let std = config.get_or("initializer_range", 0.02)?;
    Ok(Recursion { prefix: prefix.into(), recursions, sharing, routing, kv_sharing, layers, std })
}

/// Adds the keys to a config.
pub(super) fn write(recursion: &Recursion, config: &mut Value) {
    let mut set = |key: &str, value: Value| config[key] = value;
    set("num_recursions", recursion.recursions.into());
    set("kv_sharing", recursion.kv_sharing.into());
    set("sharing", name_of(&SHARINGS, &recursion.sharing).into());
    let router = match &recursion.routing {
        RecursionRouting::None => return set("routing", "none".into()),
        RecursionRouting::ExpertChoice(choice) => {
            set("routing", "expert_choice".into());
            set("capacity", choice.capacity.clone().into());
            set("capacity_warmup_steps", choice.warmup.into());
            set("sampling", if choice.aux_router { "aux_router" } else { "aux_loss" }.into());
            choice.router
        }
        RecursionRouting::TokenChoice(choice) => {
            set("routing", "token_choice".into());
            set("num_modules", choice.modules.into());
            set("router_bias", json_f32(choice.bias_rate).into());
            choice.router
        }
    };
    set("router_function", name_of(&FUNCTIONS, &router.function).into());
    set("router", name_of(&KINDS, &router.kind).into());
    set("router_alpha", json_f32(router.alpha).into());
    set("router_aux_coef", json_f32(router.loss.aux).into());
    set("router_z_coef", json_f32(router.loss.z).into());
}

/// The name of a variant.
fn name_of<T: PartialEq>(all: &[(&'static str, T)], wanted: &T) -> Option<&'static str> {
    all.iter().find(|(_, value)| value == wanted).map(|(name, _)| *name)
}

const FUNCTIONS: [(&str, RouterFunction); 4] = [
    ("sigmoid", RouterFunction::Sigmoid),
    ("tanh", RouterFunction::Tanh),
    ("null", RouterFunction::Identity),
    ("softmax", RouterFunction::Softmax),
];
const KINDS: [(&str, RouterKind); 2] = [("linear", RouterKind::Linear), ("mlp", RouterKind::Mlp)];

/// The value of a key that names a variant.
fn choice<T: Copy>(config: &Config, key: &str, default: &str, all: &[(&str, T)]) -> Result<T> {
    let name = config.get_or(key, default.to_owned())?;
    let found = all.iter().find(|(other, _)| *other == name);
    let names = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| config.refuse(key, format!("is \"{name}\"; supported are {}", names())))
}

/// A number that is not negative.
fn coefficient(config: &Config, key: &str, default: f32) -> Result<f32> {
    let number: f32 = config.get_or(key, default)?;
    match number >= 0.0 && number.is_finite() {
        true => Ok(number),
        false => Err(config.refuse(key, format!("is {number}; 0 or a positive number is needed"))),
    }
}

fn expert_choice(config: &Config, recursions: usize, kv_sharing: bool) -> Result<ExpertChoiceRouting> {
    // A null is a function too: none.
    let null = config.value().get("router_function").is_some_and(Value::is_null);
    let function = match null {
        true => RouterFunction::Identity,
        false => choice(config, "router_function", "sigmoid", &FUNCTIONS[..3])?,
    };
    let loss = RouterLoss {
        aux: coefficient(config, "router_aux_coef", 0.001)?,
        z: coefficient(config, "router_z_coef", 0.0)?,
    };
    let kind = choice(config, "router", "linear", &KINDS)?;
    let router = Router { kind, function, alpha: positive_number(config, "router_alpha", 0.1)?, loss };
    let default = || (0..recursions).map(|r| (recursions - r) as f64 / recursions as f64).collect();
    let capacity: Vec<f64> = config.optional("capacity")?.unwrap_or_else(default);
    let shares = capacity.iter().all(|share| *share > 0.0 && *share <= 1.0);
    if capacity.len() != recursions || !shares || capacity.windows(2).any(|pair| pair[1] > pair[0]) {
        let message = format!(
            "is {capacity:?}; {recursions} shares above 0 and up to 1, one a recursion, none larger than the one before, are needed"
        );
        return Err(config.refuse("capacity", message));
    }
    if kv_sharing && capacity[0] < 1.0 {
        let message = format!("begins with {}; kv_sharing needs a first recursion of all tokens, 1", capacity[0]);
        return Err(config.refuse("capacity", message));
    }
    let aux_router = choice(config, "sampling", "aux_loss", &[("aux_loss", false), ("aux_router", true)])?;
    let warmup = config.get_or("capacity_warmup_steps", 0)?;
    if warmup > ops::warm_capacity::MOST_STEPS {
        let message = format!("is {warmup}; up to {} steps can be counted", ops::warm_capacity::MOST_STEPS);
        return Err(config.refuse("capacity_warmup_steps", message));
    }
    Ok(ExpertChoiceRouting { router, capacity, aux_router, kv_sharing, warmup })
}

fn token_choice(config: &Config, recursions: usize, modules: usize, kv_sharing: bool) -> Result<TokenChoiceRouting> {
    let functions = [FUNCTIONS[3], FUNCTIONS[0]];
    let function = choice(config, "router_function", "softmax", &functions)?;
    let alpha = if function == RouterFunction::Softmax { 1.0 } else { 0.1 };
    let loss =
        RouterLoss { aux: coefficient(config, "router_aux_coef", 0.1)?, z: coefficient(config, "router_z_coef", 0.0)? };
    let kind = choice(config, "router", "linear", &KINDS)?;
    let router = Router { kind, function, alpha: positive_number(config, "router_alpha", alpha)?, loss };
    if kv_sharing && modules > 1 {
        let message = "is true; with several modules no recursion has keys and values of all tokens";
        return Err(config.refuse("kv_sharing", message));
    }
    let bias_rate = coefficient(config, "router_bias", 0.0)?;
    Ok(TokenChoiceRouting { router, recursions, modules, kv_sharing, bias_rate })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Initial, Llama, Model};
    use serde_json::json;

    fn model(more: Value) -> Result<Llama> {
        let mut config = json!({"model_type": "mor", "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 6,
                                "num_hidden_layers": 8, "intermediate_size": 51, "num_recursions": 3});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        Llama::from_config(&Config::new("config.json", config)?)
    }

    #[test]
    fn a_config_survives_the_round_trip() {
        for more in [
            json!({}),
            json!({"sampling": "aux_router", "router": "mlp", "router_function": null, "capacity": [1.0, 0.5, 0.5]}),
            json!({"capacity_warmup_steps": 500}),
            json!({"sharing": "cycle", "num_hidden_layers": 6, "router_function": "tanh", "kv_sharing": true}),
            json!({"routing": "token_choice", "num_modules": 3, "router_function": "sigmoid", "router_bias": 0.001}),
            json!({"routing": "none", "sharing": "middle_sequence"}),
        ] {
            let first = model(more).unwrap();
            let again = Llama::from_config(&Config::new("config.json", first.config()).unwrap()).unwrap();
            assert_eq!(first, again);
        }
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let refused = |more: Value| model(more).unwrap_err().to_string();
        assert_eq!(
            refused(json!({"num_hidden_layers": 9})),
            "config.json: \"num_hidden_layers\" is 9; without 2 at the ends it must be a multiple of num_recursions, 3 (it is one of 1, 7)"
        );
        assert!(refused(json!({"sharing": "sequence", "num_hidden_layers": 9})).contains("routing needs \"cycle\""));
        assert!(refused(json!({"sharing": "round"})).contains("supported are cycle, middle_cycle, sequence"));
        assert!(refused(json!({"capacity": [1.0, 0.5]})).contains("3 shares above 0 and up to 1"));
        assert!(refused(json!({"capacity": [1.0, 0.5, 0.6]})).contains("none larger than the one before"));
        assert!(refused(json!({"capacity": [0.9, 0.5, 0.4], "kv_sharing": true})).contains("begins with 0.9"));
        assert!(refused(json!({"capacity_warmup_steps": 20_000_000})).contains("up to 16777216 steps"));
        assert!(refused(json!({"capacity_warmup_steps": -1})).contains("capacity_warmup_steps"));
        assert!(refused(json!({"num_modules": 2})).contains("only token_choice has several modules"));
        let modules = json!({"routing": "token_choice", "num_modules": 2, "kv_sharing": true});
        assert!(refused(modules).contains("\"kv_sharing\" is true; with several modules"));
        assert!(refused(json!({"router_function": "softmax"})).contains("supported are sigmoid, tanh, null"));
        assert!(refused(json!({"router_aux_coef": -1.0})).contains("0 or a positive number"));
    }

    #[test]
    fn names_are_those_of_stored_layers() {
        let names = |more: Value| -> Vec<String> {
            let names = model(more).unwrap().parameters().unwrap().into_iter().map(|(name, _)| name);
            names.filter(|name| name.contains("router") || name.ends_with("k_proj.weight")).collect()
        };
        assert_eq!(names(json!({})).len(), 4 + 3);
        assert!(names(json!({})).contains(&"model.routers.2.weight".to_owned()));
        let modules = names(json!({"routing": "token_choice", "num_modules": 2}));
        assert_eq!(modules.len(), 2 + 2 * 2 + 1);
        assert!(modules.contains(&"model.layers.5.self_attn.k_proj.weight".to_owned()));
        let steps = |more: Value| {
            let model = model(more).unwrap();
            let initials = model.initials().unwrap();
            assert!(initials.get("model.capacity_step").is_none_or(|initial| *initial == Initial::Zeros));
            model.parameters().unwrap().iter().filter(|(name, _)| name == "model.capacity_step").count()
        };
        assert_eq!((steps(json!({})), steps(json!({"capacity_warmup_steps": 9}))), (0, 1));
        assert!(names(json!({"sampling": "aux_router"})).contains(&"model.aux_routers.0.weight".to_owned()));
    }

    #[test]
    fn a_share_of_the_tokens_costs_its_share() {
        let flops = |capacity: Value| model(json!({"capacity": capacity})).unwrap().forward_flops(0);
        let (all, less) = (flops(json!([1.0, 1.0, 1.0])), flops(json!([1.0, 0.5, 0.25])));
        let block = (all - flops(json!([1.0, 1.0, 0.5]))) * 2;
        assert_eq!(all - less, block * 5 / 4);
    }
}
