//! The configuration of an adapter, with the keys that PEFT uses.

use super::pattern::{Patterns, module_pattern};
use crate::error::{Error, Result};
use crate::io::Config;
use derive_setters::Setters;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// Which linear layers get an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Targets {
    /// All but the head.
    AllLinear,
    /// Those whose whole name a regular expression matches.
    Pattern(String),
    /// Those whose name is one of these, or ends with one behind a dot.
    Names(Vec<String>),
}

/// Low-rank adapters of a model's linear layers, `y = W x + s B (A x)` with A (rank, in) and B (out, rank), `s = alpha / rank`, or
/// `alpha / √rank` with `rslora` (Hu et al., arXiv 2106.09685; Kalajdzievski, arXiv 2312.03732).
#[derive(Clone, Debug, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct LoraConfig {
    /// Rows of A.
    pub rank: usize,
    /// The factor of the adapter's result, times the rank.
    pub alpha: f64,
    /// The share of its input that is dropped in training.
    pub dropout: f32,
    /// Whether the factor is alpha over the root of the rank.
    pub rslora: bool,
    /// The layers with an adapter.
    pub targets: Targets,
    /// Other ranks: a regular expression for the end of a layer's name after a dot, and the rank; the first that matches counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Other values of alpha, in the same way.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Modules that are trained as a whole, such as a new classifier.
    pub modules_to_save: Vec<String>,
    /// The folder of the base model.
    pub base: String,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            rslora: false,
            targets: Targets::AllLinear,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            base: String::new(),
        }
    }
}

/// Keys that say nothing about what a finished adapter computes, or that are read.
const KNOWN: [&str; 24] = [
    "peft_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "base_model_name_or_path",
    "auto_mapping",
    "fan_in_fan_out",
    "inference_mode",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
    "eva_config",
    "loftq_config",
];

/// The patterns of a file in their order.
#[derive(Deserialize)]
struct Ordered {
    #[serde(default)]
    rank_pattern: Patterns<usize>,
    #[serde(default)]
    alpha_pattern: Patterns<f64>,
}

impl LoraConfig {
    /// Reads the text of `adapter_config.json`; `source` stands for its path in messages.
    ///
    /// # Errors
    /// [`Error::Format`] that names a key that is missing, not usable, or changes what the adapter computes in a way that is not known.
    pub fn parse(source: &Path, text: &str) -> Result<Self> {
        let damaged = |e: serde_json::Error| Error::format(source, format!("is not usable: {e}"));
        let keys = Config::new(source, serde_json::from_str(text).map_err(damaged)?)?;
        let kind: String = keys.get("peft_type")?;
        if kind != "LORA" {
            return Err(keys.refuse("peft_type", format!("is {kind:?}: of adapters, LORA is read")));
        }
        check_unknown(&keys)?;
        let ordered: Ordered = serde_json::from_str(text).map_err(damaged)?;
        let targets = match keys.value().get("target_modules") {
            Some(Value::String(all)) if all.eq_ignore_ascii_case("all-linear") => Targets::AllLinear,
            Some(Value::String(pattern)) => {
                module_pattern(pattern, true).map_err(|e| keys.refuse("target_modules", e))?;
                Targets::Pattern(pattern.clone())
            }
            _ => Targets::Names(keys.optional("target_modules")?.unwrap_or_default()),
        };
        let bad =
            |name: &str, pattern: &str| module_pattern(pattern, false).map(|_| ()).map_err(|e| keys.refuse(name, e));
        ordered.rank_pattern.0.iter().try_for_each(|(pattern, _)| bad("rank_pattern", pattern))?;
        ordered.alpha_pattern.0.iter().try_for_each(|(pattern, _)| bad("alpha_pattern", pattern))?;
        let config = Self {
            rank: keys.within("r", 1..=1 << 20)?,
            alpha: keys.get_or("lora_alpha", 8.0)?,
            dropout: keys.get_or("lora_dropout", 0.0)?,
            rslora: keys.get_or("use_rslora", false)?,
            targets,
            rank_pattern: ordered.rank_pattern.0,
            alpha_pattern: ordered.alpha_pattern.0,
            modules_to_save: keys.optional("modules_to_save")?.unwrap_or_default(),
            base: keys.get_or("base_model_name_or_path", String::new())?,
        };
        config.check().map_err(|e| Error::format(source, e.to_string()))?;
        Ok(config)
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Input`] with what is out of range.
    pub fn check(&self) -> Result<()> {
        let ranks = std::iter::once(self.rank).chain(self.rank_pattern.iter().map(|(_, rank)| *rank));
        let alphas = std::iter::once(self.alpha).chain(self.alpha_pattern.iter().map(|(_, alpha)| *alpha));
        if ranks.into_iter().any(|rank| rank == 0) {
            return Err(Error::input("the rank of an adapter", "it must be 1 or greater"));
        }
        if alphas.into_iter().any(|alpha| !alpha.is_finite()) {
            return Err(Error::input("the alpha of an adapter", "it must be a finite number"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::input(
                "the dropout of an adapter",
                format!("it is {}, but must be in [0, 1)", self.dropout),
            ));
        }
        Ok(())
    }

    /// The `adapter_config.json` that says the same.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let pattern = |pairs: Vec<(String, Value)>| Value::Object(pairs.into_iter().collect());
        json!({
            "peft_type": "LORA",
            "base_model_name_or_path": self.base,
            "bias": "none",
            "inference_mode": true,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "target_modules": match &self.targets {
                Targets::AllLinear => json!("all-linear"),
                Targets::Pattern(pattern) => json!(pattern),
                Targets::Names(names) => json!(names),
            },
            "rank_pattern": pattern(self.rank_pattern.iter().map(|(name, rank)| (name.clone(), json!(rank))).collect()),
            "alpha_pattern": pattern(self.alpha_pattern.iter().map(|(name, alpha)| (name.clone(), json!(alpha))).collect()),
            "modules_to_save": if self.modules_to_save.is_empty() { Value::Null } else { json!(self.modules_to_save) },
        })
    }
}

/// Refuses keys that are neither known nor off.
fn check_unknown(keys: &Config) -> Result<()> {
    let off = |key: &str, value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => key == "bias" && text == "none",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    // Those change the base's weights before training, and an adapter is then one of the changed base.
    let harmless = |value: &Value| match value {
        Value::String(how) => matches!(how.to_lowercase().as_str(), "gaussian" | "eva" | "orthogonal"),
        other => matches!(other, Value::Bool(_) | Value::Null),
    };
    for (key, value) in keys.value().as_object().into_iter().flatten() {
        if key == "init_lora_weights" {
            if !harmless(value) {
                let advice = "the adapter belongs to a base that its training changed; save it with path_initial_model_for_weight_conversion (peft)";
                return Err(keys.refuse(key, format!("is {value}: {advice}")));
            }
        } else if !KNOWN.contains(&key.as_str()) && !off(key, value) {
            let advice = "merge the adapter with Python (peft: merge_and_unload), and give the merged model";
            return Err(keys.refuse(
                key,
                format!("is {value}, which is not understood and may change what the adapter computes: {advice}"),
            ));
        }
    }
    Ok(())
}
