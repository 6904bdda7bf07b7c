//! Llama: Touvron et al., arXiv 2302.13971 and 2307.09288; Grattafiori et al., arXiv 2407.21783.

use super::mixture::{Mixture, MixtureFamily};
use super::model::declare_decoder;
use super::recursive;
use super::rope::{rope_config, rope_options};
use super::settings::{
    activation, activation_name, count, count_if_any, layer_count, must_divide, positive_number, rate, shortest,
};
use super::{Decoder, Dimensions, Head, Hidden, Initial, Inputs, Model, model_type, passed_on};
use crate::error::Result;
use crate::graph::{Graph, Storage};
use crate::io::Config;
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, GATED, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames,
    Recursion, Stack,
};
use crate::ops::{Activation, RopeOptions, RopeScaling, WeightLayout};
use serde_json::{Value, json};

/// What attention takes.
const WIDEST_HEAD: usize = 256;

/// A Llama decoder: rotary positions, RMS norm in front of each half of a block, grouped queries, gated feed-forward.
///
/// In training, `attention_dropout` is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub positions: usize,
    /// The width of hidden states.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// The attention heads.
    pub heads: Heads,
    /// The width of the feed-forward network.
    pub inner: usize,
    /// The activation of the gate.
    pub activation: Activation,
    /// Added to the mean square in RMS norms.
    pub epsilon: f32,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// Whether the projections to queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether the projection behind attention has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward network has biases.
    pub inner_bias: bool,
    /// The rotary positions.
    pub rope: RopeOptions,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The standard deviation of fresh weights.
    pub deviation: f64,
    /// Experts in place of the feed-forward networks.
    pub mixture: Option<Mixture>,
    /// Layers that are used several times.
    pub recursion: Option<Recursion>,
    /// How matrices lie in GPU memory.
    pub storage: Storage,
    extra: Vec<(String, Value)>,
}

/// What transformers takes for keys that a `config.json` lacks.
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

impl Llama {
    /// The model of a `config.json` with `model_type` llama, mixtral, qwen2_moe or mor, whose layers recur.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        let width = count(config, "hidden_size")?;
        let query = count(config, "num_attention_heads")?;
        let defaults = Defaults::of(&model_type(config)?);
        let key_value = match count_if_any(config, "num_key_value_heads")? {
            Some(heads) => heads,
            // A null is no missing key: it stands for as many as there are queries.
            None if config.value().get("num_key_value_heads").is_some() => query,
            None => defaults.key_value.unwrap_or(query),
        };
        must_divide(config, "num_key_value_heads", key_value, query, "num_attention_heads")?;
        let head = match count_if_any(config, "head_dim")? {
            Some(head) => head,
            None => {
                must_divide(config, "num_attention_heads", query, width, "hidden_size")?;
                width / query
            }
        };
        if head > WIDEST_HEAD {
            return Err(
                config.refuse("head_dim", format!("makes heads {head} wide; at most {WIDEST_HEAD} is supported"))
            );
        }
        if head % 2 == 1 {
            let message = format!("makes heads {head} wide; rotary positions need an even width");
            return Err(config.refuse("head_dim", message));
        }
        let positions = count_if_any(config, "max_position_embeddings")?.unwrap_or(defaults.positions);
        let family = match model_type(config)?.as_str() {
            "mixtral" => Some(MixtureFamily::Mixtral),
            "qwen2_moe" => Some(MixtureFamily::Qwen2),
            // Layers that recur may have experts as well.
            "mor" if config.has("num_local_experts") => Some(MixtureFamily::Mixtral),
            _ => None,
        };
        let layers = layer_count(config, "num_hidden_layers")?;
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
            positions,
            width,
            layers,
            heads: Heads { query, key_value, width: head },
            inner: count(config, "intermediate_size")?,
            activation: activation(config, "hidden_act", "silu")?,
            epsilon: positive_number(config, "rms_norm_eps", defaults.epsilon)?,
            tied: config.get_or("tie_word_embeddings", false)?,
            attention_bias,
            output_bias,
            inner_bias: config.get_or("mlp_bias", false)?,
            rope: rope_options(config, positions, defaults.theta)?,
            attention_dropout: rate(config, "attention_dropout")?,
            deviation: config.get_or("initializer_range", 0.02)?,
            mixture,
            recursion,
            storage: Storage::default(),
            extra: passed_on(config),
        })
    }

    /// Layers that are stored.
    fn stored_layers(&self) -> usize {
        self.recursion.as_ref().map_or(self.layers, Recursion::stored)
    }

    /// The blocks, as their weights are stored.
    fn stack(&self) -> Stack {
        let blocks = (0..self.stored_layers()).map(|layer| self.block(layer)).collect();
        let balance = self.mixture.as_ref().map_or_else(Balance::default, |mixture| mixture.balance);
        let final_norm = Some((NormKind::Rms { eps: self.epsilon }, "model.norm".into()));
        Stack { blocks, recursion: self.recursion.clone(), final_norm, balance, salt: 0 }
    }

    fn block(&self, layer: usize) -> Block {
        Block {
            prefix: format!("model.layers.{layer}"),
            norm: NormKind::Rms { eps: self.epsilon },
            order: NormOrder::Pre,
            attention_norm: "input_layernorm".into(),
            attention: Attention {
                module: "self_attn",
                qkv: QkvNames::Separate(["q_proj", "k_proj", "v_proj"]),
                output: "o_proj",
                linear: LinearConfig::out_in(self.attention_bias),
                output_linear: LinearConfig::out_in(self.output_bias),
                heads: self.heads,
                scale: None,
                mask: Mask::Causal,
                rotary: Some(self.rope),
                relative: None,
                dropout: self.attention_dropout,
            },
            cross: None,
            feed_forward_norm: "post_attention_layernorm".into(),
            feed_forward: self.feed_forward(layer),
            parallel: false,
            dropout: 0.0,
            inner_dropout: 0.0,
        }
    }

    fn feed_forward(&self, layer: usize) -> FeedForward {
        let activation = self.activation;
        match self.mixture.as_ref().filter(|mixture| !mixture.dense_layers.contains(&layer)) {
            Some(mixture) => FeedForward::Experts { experts: mixture.experts.clone(), activation, choice: None },
            None => {
                let (module, linear) = ("mlp", LinearConfig::out_in(self.inner_bias));
                FeedForward::Gated { module, names: GATED, d_ff: self.inner, activation, linear }
            }
        }
    }

    /// The floating-point operations of so many layers for one token that sees `context` keys.
    fn layer_flops(&self, layers: usize, context: usize) -> u64 {
        let (query, key_value) = (self.heads.query * self.heads.width, self.heads.key_value * self.heads.width);
        let attention = layers * 2 * self.width * (query + key_value);
        let fed: usize = (0..layers).map(|layer| self.feed_forward(layer).active_parameters(self.width)).sum();
        2 * (attention + fed) as u64 + 4 * (layers * query * context) as u64
    }
}

impl Model for Llama {
    fn config(&self) -> Value {
        let mut config = json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads.query,
            "num_key_value_heads": self.heads.key_value,
            "head_dim": self.heads.width,
            "intermediate_size": self.inner,
            "hidden_act": activation_name(self.activation),
            "rms_norm_eps": shortest(self.epsilon),
            "tie_word_embeddings": self.tied,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.inner_bias,
            "attention_dropout": shortest(self.attention_dropout),
            "initializer_range": self.deviation,
            "rope_theta": shortest(self.rope.theta),
            "rope_parameters": rope_config(&self.rope),
            "dtype": "float32",
        });
        if let Some(mixture) = &self.mixture {
            mixture.write(&mut config);
            if mixture.family == MixtureFamily::Qwen2 {
                config["qkv_bias"] = self.attention_bias.into();
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

    fn dimensions(&self) -> Dimensions {
        Dimensions { vocabulary: self.vocabulary, positions: self.positions, width: self.width, layers: self.layers }
    }

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn set_storage(&mut self, storage: Storage) {
        self.storage = storage;
    }

    fn declare(&self, g: &mut Graph) -> Result<()> {
        declare_decoder(self, g)
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        Some(self)
    }

    fn drops(&self) -> bool {
        self.attention_dropout > 0.0 || self.mixture.as_ref().is_some_and(|mixture| mixture.experts.noisy)
    }

    fn initial(&self, parameter: &str) -> Initial {
        if parameter.ends_with("bias") || parameter.ends_with(nn::CAPACITY_STEP) {
            Initial::Zeros
        } else if parameter.ends_with("norm.weight") {
            Initial::Ones
        } else if ["o_proj.weight", "down_proj.weight", "w2.weight"].iter().any(|last| parameter.ends_with(last)) {
            Initial::Normal(self.deviation / (2.0 * self.layers as f64).sqrt())
        } else {
            Initial::Normal(self.deviation)
        }
    }

    fn ways(&self, router: &str) -> usize {
        if let Some(recursion) = self.recursion.as_ref().filter(|_| router == "depth") {
            return recursion.recursions * recursion.modules();
        }
        self.mixture.as_ref().map_or(1, |mixture| mixture.experts.count)
    }

    fn base_prefix(&self) -> &'static str {
        "model."
    }

    fn ignores(&self, tensor: &str) -> bool {
        // Old checkpoints store the rotary frequencies, and tied ones may store the table twice; a run without a warm-up of
        // recursions may go on from one that had it.
        tensor.ends_with(".rotary_emb.inv_freq")
            || tensor.ends_with(nn::CAPACITY_STEP)
            || (self.tied && tensor == "lm_head.weight")
    }

    fn forward_flops(&self, context: usize) -> u64 {
        let layers = |layers: usize, context: usize| self.layer_flops(layers, context);
        let head = 2 * (self.vocabulary * self.width) as u64;
        head + match &self.recursion {
            Some(recursion) => recursive::flops(recursion, context, layers),
            None => layers(self.layers, context),
        }
    }
}

impl Decoder for Llama {
    fn hidden(&self, g: &mut Graph, inputs: &Inputs) -> Result<Hidden> {
        inputs.check(self.positions, "max_position_embeddings")?;
        g.set_storage(&self.storage);
        let table = [self.vocabulary, self.width];
        let x = g.scope("embedding", |g| nn::embedding(g, "model.embed_tokens", inputs.ids, table))?;
        self.stack().run(g, x, inputs)
    }

    fn head(&self, g: &mut Graph) -> Result<Head> {
        let name = if self.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        g.set_storage(&self.storage);
        let weight = g.matrix(name, [self.vocabulary, self.width])?;
        Ok(Head { weight, bias: None, layout: WeightLayout::OutIn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for first in [old, model(small()).unwrap(), with("rope_parameters", llama3).unwrap()] {
            assert_eq!(model(first.config()).unwrap(), first);
            assert_eq!(first.config()["eos_token_id"], json!([2, 3]));
        }
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let refused = |key: &str, value: Value| with(key, value).unwrap_err().to_string();
        assert_eq!(
            refused("rope_scaling", json!({"rope_type": "yarn"})),
            "config.json: \"rope_scaling.rope_type\" is \"yarn\"; supported are default, linear and llama3"
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
        let message = both(json!({"rope_type": "yarn", "factor": 2.0})).unwrap_err().to_string();
        assert!(message.contains("\"rope_scaling.rope_type\" is \"yarn\""), "{message}");
        let rope = |scaling: Value| both(scaling).map(|model| (model.rope.scaling, model.rope.theta)).unwrap();
        let linear = RopeScaling::Linear { factor: 2.0 };
        assert_eq!(rope(json!({"type": "linear", "factor": 2.0})), (linear, 300.0));
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
            (missing.heads.key_value, missing.positions, missing.epsilon, missing.rope.theta)
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
        let biased = Llama { attention_bias: true, output_bias: true, inner_bias: true, tied: true, ..model };
        assert_eq!(biased.parameters().unwrap().len(), 1 + 2 * 16 + 1);
    }
}
