//! The `config.json`.

use super::{Llama, Sliding};
use crate::error::Result;
use crate::io::Config;
use crate::models::mixture::{Mixture, MixtureFamily};
use crate::models::rope::{rope_config, rope_options};
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate,
};
use crate::models::{model_type, passed_on, recursive};
use crate::nn::Heads;
use crate::ops::RopeScaling;
use serde_json::{Value, json};

/// What transformers calls layers.
const SLIDES: &str = "sliding_attention";
const SEES_ALL: &str = "full_attention";
/// The largest head that attention takes.
const MAX_HEAD_DIM: usize = 256;

/// The defaults of transformers for keys that a `config.json` lacks.
struct Defaults {
    /// None: as many as there are queries.
    key_value: Option<usize>,
    positions: usize,
    epsilon: f32,
    theta: f32,
}

impl Defaults {
    fn of(model_type: &str) -> Self {
        match model_type {
            "mixtral" => Self { key_value: Some(8), positions: 131_072, epsilon: 1e-5, theta: 1e6 },
            "qwen2_moe" => Self { key_value: Some(16), positions: 32_768, epsilon: 1e-6, theta: 1e4 },
            _ => Self { key_value: None, positions: 2048, epsilon: 1e-6, theta: 1e4 },
        }
    }
}

/// The layers whose tokens see only so many, as Mixtral and Qwen2-MoE may have them.
fn sliding(config: &Config, family: Option<MixtureFamily>, layers: usize) -> Result<Option<Sliding>> {
    const TYPES: &str = "layer_types";
    match (family, model_type(config)?.as_str()) {
        (Some(MixtureFamily::Mixtral), "mixtral") => {
            let size = optional_count(config, "sliding_window")?;
            Ok(size.map(|size| Sliding { size, layers: (0..layers).collect() }))
        }
        (Some(MixtureFamily::Qwen2), _) if config.get_or("use_sliding_window", false)? => {
            let size = optional_count(config, "sliding_window")?.unwrap_or(4096);
            let first = config.get_or("max_window_layers", 28)?;
            let kinds: Vec<String> = match config.optional(TYPES)? {
                Some(kinds) => kinds,
                None => {
                    let slides = |layer: usize| layer.is_multiple_of(2) && layer < first;
                    (0..layers).map(|layer| if slides(layer) { SLIDES } else { SEES_ALL }.to_owned()).collect()
                }
            };
            if kinds.len() != layers || kinds.iter().any(|kind| kind != SLIDES && kind != SEES_ALL) {
                let message = format!("needs {SLIDES} or {SEES_ALL} for each of {layers} layers");
                return Err(config.refuse(TYPES, message));
            }
            Ok(Some(Sliding { size, layers: (0..layers).filter(|layer| kinds[*layer] == SLIDES).collect() }))
        }
        _ => Ok(None),
    }
}

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
        let config = json!({"model_type": "llama", "vocab_size": vocabulary, "hidden_size": d_model, "num_hidden_layers": layers,
                            "num_attention_heads": heads, "intermediate_size": 4 * d_model});
        Self::from_config(&Config::new("the sizes given", config)?)
    }

    /// The model of a `config.json` with `model_type` llama, mixtral, qwen2_moe or mor, whose layers recur.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        let d_model = count(config, "hidden_size")?;
        let query = count(config, "num_attention_heads")?;
        let defaults = Defaults::of(&model_type(config)?);
        let key_value = match optional_count(config, "num_key_value_heads")? {
            Some(heads) => heads,
            // A null is no missing key: it stands for as many as there are queries.
            None if config.value().get("num_key_value_heads").is_some() => query,
            None => defaults.key_value.unwrap_or(query),
        };
        must_divide(config, "num_key_value_heads", key_value, query, "num_attention_heads")?;
        let head_dim = match optional_count(config, "head_dim")? {
            Some(head_dim) => head_dim,
            None => {
                must_divide(config, "num_attention_heads", query, d_model, "hidden_size")?;
                d_model / query
            }
        };
        if head_dim > MAX_HEAD_DIM {
            return Err(
                config.refuse("head_dim", format!("makes heads {head_dim} wide; at most {MAX_HEAD_DIM} is supported"))
            );
        }
        if head_dim % 2 == 1 {
            let message = format!("makes heads {head_dim} wide; rotary positions need an even width");
            return Err(config.refuse("head_dim", message));
        }
        let positions = optional_count(config, "max_position_embeddings")?.unwrap_or(defaults.positions);
        let family = match model_type(config)?.as_str() {
            "mixtral" => Some(MixtureFamily::Mixtral),
            "qwen2_moe" => Some(MixtureFamily::Qwen2),
            // Layers that recur may have experts as well.
            "mor" if config.has("num_local_experts") => Some(MixtureFamily::Mixtral),
            _ => None,
        };
        let layers = layer_count(config, "num_hidden_layers")?;
        let sliding = sliding(config, family, layers)?;
        let mixture = family.map(|family| Mixture::from_config(config, family, layers)).transpose()?;
        let recursion = match model_type(config)?.as_str() {
            "mor" => Some(recursive::from_config(config, "model.", layers)?),
            _ => None,
        };
        // Qwen2's biases are where Llama's are not by default.
        let [attention_bias, output_bias] = match family {
            Some(MixtureFamily::Qwen2) => [config.get_or("qkv_bias", true)?, false],
            Some(MixtureFamily::Mixtral) => [false; 2],
            None => [config.get_or("attention_bias", false)?; 2],
        };
        Ok(Self {
            vocabulary: count(config, "vocab_size")?,
            max_position: positions,
            d_model,
            layers,
            heads: Heads { query, key_value, head_dim },
            d_ff: count(config, "intermediate_size")?,
            activation: activation(config, "hidden_act", "silu")?,
            epsilon: positive_number(config, "rms_norm_eps", defaults.epsilon)?,
            tied: config.get_or("tie_word_embeddings", false)?,
            attention_bias,
            output_bias,
            mlp_bias: config.get_or("mlp_bias", false)?,
            rope: rope_options(config, positions, defaults.theta)?,
            attention_dropout: rate(config, "attention_dropout")?,
            init_std: config.get_or("initializer_range", 0.02)?,
            mixture,
            sliding,
            recursion,
            extra: passed_on(config),
        })
    }

    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let mut config = json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.max_position,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads.query,
            "num_key_value_heads": self.heads.key_value,
            "head_dim": self.heads.head_dim,
            "intermediate_size": self.d_ff,
            "hidden_act": activation_name(self.activation),
            "rms_norm_eps": json_f32(self.epsilon),
            "tie_word_embeddings": self.tied,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "attention_dropout": json_f32(self.attention_dropout),
            "initializer_range": self.init_std,
            "rope_theta": json_f32(self.rope.theta),
            "rope_parameters": rope_config(&self.rope),
            "dtype": "float32",
        });
        if let Some(mixture) = &self.mixture {
            mixture.write(&mut config);
            if mixture.family == MixtureFamily::Qwen2 {
                config["qkv_bias"] = self.attention_bias.into();
            }
        }
        if let Some(Sliding { size, layers }) = &self.sliding {
            config["sliding_window"] = json!(size);
            if self.mixture.as_ref().is_some_and(|mixture| mixture.family == MixtureFamily::Qwen2) {
                let kind = |layer: usize| if layers.contains(&layer) { SLIDES } else { SEES_ALL };
                config["use_sliding_window"] = true.into();
                config["layer_types"] = (0..self.layers).map(kind).collect();
            }
        }
        // What older versions of transformers read.
        if self.rope.scaling != RopeScaling::None {
            config["rope_scaling"] = rope_config(&self.rope);
        }
        if let Some(recursion) = &self.recursion {
            config["model_type"] = "mor".into();
            config["architectures"] = json!(["MorForCausalLM"]);
            recursive::write(recursion, &mut config);
        }
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    fn small() -> Value {
        json!({"model_type": "llama", "vocab_size": 97, "hidden_size": 35, "num_attention_heads": 5, "head_dim": 6,
               "num_hidden_layers": 2, "intermediate_size": 51, "max_position_embeddings": 300, "eos_token_id": [2, 3]})
    }

    fn with(key: &str, value: Value) -> Result<Llama> {
        let mut config = small();
        config[key] = value;
        model(config)
    }

    fn model(config: Value) -> Result<Llama> {
        Llama::from_config(&Config::new("config.json", config)?)
    }

    #[test]
    fn a_config_survives_the_round_trip_with_every_kind_of_rope() {
        let llama3 = json!({"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let old = with("rope_scaling", json!({"type": "linear", "factor": 2.5})).unwrap();
        assert_eq!(old.rope.scaling, RopeScaling::Linear { factor: 2.5 });
        let yarn =
            json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, "original_max_position_embeddings": 64});
        let dynamic = json!({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 5000.0});
        let long = json!({"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.5, 8.0],
                          "original_max_position_embeddings": 64});
        let others = [llama3, yarn, dynamic, long].map(|rope| with("rope_parameters", rope).unwrap());
        for first in [old, model(small()).unwrap()].into_iter().chain(others) {
            assert_eq!(model(first.config()).unwrap(), first);
            assert_eq!(first.config()["eos_token_id"], json!([2, 3]));
        }
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let refused = |key: &str, value: Value| with(key, value).unwrap_err().to_string();
        assert_eq!(
            refused("rope_scaling", json!({"rope_type": "axial"})),
            "config.json: \"rope_scaling.rope_type\" is \"axial\"; supported are default, linear, dynamic, yarn, longrope and llama3"
        );
        assert!(refused("rope_scaling", json!({"rope_type": "linear"})).contains("\"rope_scaling.factor\" is missing"));
        assert!(refused("head_dim", json!(7)).contains("need an even width"));
        assert!(refused("head_dim", Value::Null).contains("rotary positions need an even width"));
        assert_eq!(
            refused("num_key_value_heads", json!(2)),
            "config.json: \"num_key_value_heads\" is 2; it must divide num_attention_heads, which is 5"
        );
        let part = json!({"partial_rotary_factor": 0.5});
        assert!(refused("partial_rotary_factor", json!(0.5)).contains("\"partial_rotary_factor\" is not 1; only 1"));
        for key in ["rope_parameters", "rope_scaling"] {
            assert!(refused(key, part.clone()).contains(&format!("\"{key}.partial_rotary_factor\" is not 1; only 1")));
        }
        assert!(with("rope_parameters", json!({"partial_rotary_factor": 1.0})).is_ok());
    }

    #[test]
    fn the_older_rope_scaling_goes_before_rope_parameters() {
        let both = |scaling: Value| {
            let mut config = small();
            config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 500.0});
            config["rope_theta"] = json!(300.0);
            config["rope_scaling"] = scaling;
            model(config)
        };
        let message = both(json!({"rope_type": "axial", "factor": 2.0})).unwrap_err().to_string();
        assert!(message.contains("\"rope_scaling.rope_type\" is \"axial\""), "{message}");
        let rope = |scaling: Value| both(scaling).map(|model| (model.rope.scaling, model.rope.theta)).unwrap();
        let linear = RopeScaling::Linear { factor: 2.0 };
        assert_eq!(rope(json!({"type": "linear", "factor": 2.0})), (linear.clone(), 300.0));
        assert_eq!(rope(json!({"type": "linear", "factor": 2.0, "rope_theta": 700.0})), (linear, 700.0));
        for nothing in [json!({}), Value::Null] {
            assert_eq!(rope(nothing), (RopeScaling::None, 500.0));
        }
    }

    #[test]
    fn missing_keys_have_the_defaults_of_their_family() {
        let of = |family: &str| {
            let mut config = json!({"model_type": family, "vocab_size": 97, "hidden_size": 96, "num_attention_heads": 48,
                                    "num_hidden_layers": 2, "intermediate_size": 51, "num_local_experts": 4,
                                    "num_experts": 4, "moe_intermediate_size": 8});
            let missing = model(config.clone()).unwrap();
            config["num_key_value_heads"] = Value::Null;
            assert_eq!(model(config).unwrap().heads.key_value, 48);
            (missing.heads.key_value, missing.max_position, missing.epsilon, missing.rope.theta)
        };
        assert_eq!(of("llama"), (48, 2048, 1e-6, 1e4));
        assert_eq!(of("mixtral"), (8, 131_072, 1e-5, 1e6));
        assert_eq!(of("qwen2_moe"), (16, 32_768, 1e-6, 1e4));
    }

    #[test]
    fn parameters_are_those_of_hugging_face() {
        let model = model(small()).unwrap();
        let names: Vec<String> = model.parameters().unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(names.len(), 1 + 2 * 9 + 2);
        assert!(names.contains(&"model.layers.1.self_attn.k_proj.weight".to_owned()));
        let block = 4 * 30 * 35 + 3 * 35 * 51 + 2 * 35;
        assert_eq!(model.parameter_count().unwrap(), 2 * 97 * 35 + 2 * block + 35);
        let biased = Llama { attention_bias: true, output_bias: true, mlp_bias: true, tied: true, ..model };
        assert_eq!(biased.parameters().unwrap().len(), 1 + 2 * 16 + 1);
    }
}
