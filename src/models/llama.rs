//! Llama: Touvron et al., arXiv 2302.13971 and 2307.09288; Grattafiori et al., arXiv 2407.21783.

use super::mixture::{Mixture, MixtureFamily};
use super::settings::{
    activation, activation_name, count, count_if_any, layer_count, must_divide, positive_number, rate, shortest,
};
use super::{Decoder, Dimensions, Head, Hidden, Initial, Inputs, attention_dropout, model_type, passed_on};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::io::Config;
use crate::nn::{self, Attention, BlockOutput, Experts, FeedForward, Gated, Heads, Memory, Rotary, RotaryBlock, Style};
use crate::ops::{self, Activation, RopeOptions, RopeScaling, WeightLayout};
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
    /// How matrices lie in GPU memory.
    pub storage: DType,
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
    /// The model of a `config.json` with `model_type` llama, mixtral or qwen2_moe.
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
            storage: DType::F32,
            extra: passed_on(config),
        })
    }

    fn style(&self, bias: bool, lengths: Option<Tensor>) -> Style {
        Style { layout: WeightLayout::OutIn, storage: self.storage, bias, lengths }
    }

    /// The inner width of a block's feed-forward network, or of the experts that a token goes through.
    fn active_inner(&self, layer: usize) -> usize {
        match self.experts_of(layer) {
            Some(experts) => experts.gate.k * experts.inner + experts.shared.map_or(0, |shared| shared.inner),
            None => self.inner,
        }
    }

    /// The experts of a block, if it has some.
    fn experts_of(&self, layer: usize) -> Option<&Experts> {
        let mixture = self.mixture.as_ref().filter(|mixture| !mixture.dense_layers.contains(&layer))?;
        Some(&mixture.experts)
    }

    /// Adds to what the blocks gave the losses of their gates, and lets a step of training move the biases of the choice.
    pub(super) fn with_gates(
        &self,
        g: &mut Graph,
        mut hidden: Hidden,
        gates: &[Gated],
        training: bool,
    ) -> Result<Hidden> {
        let Some(mixture) = self.mixture.as_ref().filter(|_| !gates.is_empty()) else { return Ok(hidden) };
        let (balance, auxiliary) = g.scope("balance", |g| mixture.losses(g, gates))?;
        if training {
            mixture.update_biases(g, gates)?;
        }
        let chosen = gates.iter().enumerate().map(|(index, gate)| (format!("experts.{index}"), gate.chosen));
        hidden.routing.extend(chosen);
        hidden.routers.extend(gates.iter().map(|gate| gate.sums));
        if !hidden.routing.iter().any(|(name, _)| name == "aux_loss") {
            hidden.routing.push(("aux_loss".into(), balance));
        }
        hidden.auxiliary = match (hidden.auxiliary, auxiliary) {
            (Some(a), Some(b)) => Some(ops::add(g, a, b)?),
            (a, b) => a.or(b),
        };
        Ok(hidden)
    }

    /// A block for these tokens: the weights of `layer`, in the place `number` of the model.
    pub(super) fn block<'a>(
        &'a self,
        [layer, number]: [usize; 2],
        inputs: &Inputs,
        tokens: BlockTokens,
        rotary: Rotary<'a>,
    ) -> RotaryBlock<'a> {
        let feed_forward = match self.experts_of(layer) {
            Some(experts) => FeedForward::Experts {
                experts,
                storage: self.storage,
                training: inputs.training,
                seed: inputs.dropout_seed,
                lengths: tokens.lengths,
            },
            None => FeedForward::Dense { inner: self.inner, style: self.style(self.inner_bias, tokens.lengths) },
        };
        let BlockTokens { positions, memory, structure, .. } = tokens;
        let dropout = attention_dropout(self.attention_dropout, inputs, number);
        RotaryBlock {
            attention: Attention { heads: self.heads, scale: None, positions, memory, structure, dropout },
            rotary,
            attention_styles: [self.attention_bias, self.output_bias].map(|bias| self.style(bias, tokens.lengths)),
            feed_forward,
            activation: self.activation,
            epsilon: self.epsilon,
        }
    }
}

impl Decoder for Llama {
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
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }

    fn dimensions(&self) -> Dimensions {
        Dimensions { vocabulary: self.vocabulary, positions: self.positions, width: self.width, layers: self.layers }
    }

    fn storage(&self) -> DType {
        self.storage
    }

    fn set_storage(&mut self, storage: DType) {
        self.storage = storage;
    }

    fn hidden(&self, g: &mut Graph, inputs: &Inputs) -> Result<Hidden> {
        inputs.check(self.positions, "max_position_embeddings")?;
        let table = [self.vocabulary, self.width];
        let mut x =
            g.scope("embedding", |g| nn::embedding(g, "model.embed_tokens", inputs.ids, table, self.storage))?;
        let options = RopeOptions { max_positions: inputs.places, ..self.rope };
        let table = ops::rope_table(g, self.heads.width, &options)?;
        let rotary = Rotary { table, options: &options };
        let mut gates = Vec::new();
        let mut normed = nn::rms_norm(g, "model.layers.0.input_layernorm", x, self.epsilon)?;
        for layer in 0..self.layers {
            let block = self.block([layer; 2], inputs, inputs.into(), rotary);
            (x, normed) = g.scope(format!("blocks.{layer}"), |g| {
                let BlockOutput { x, added, gate, .. } = block.run(g, &format!("model.layers.{layer}"), x, normed)?;
                gates.extend(gate);
                let next = match layer + 1 < self.layers {
                    true => format!("model.layers.{}.input_layernorm", layer + 1),
                    false => "model.norm".into(),
                };
                nn::add_rms_norm(g, &next, added, x, self.epsilon)
            })?;
        }
        self.with_gates(g, normed.into(), &gates, inputs.training)
    }

    fn head(&self, g: &mut Graph) -> Result<Head> {
        let name = if self.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let weight = g.parameter(name, [self.vocabulary, self.width], self.storage)?;
        Ok(Head { weight, bias: None, layout: WeightLayout::OutIn })
    }

    fn drops(&self) -> bool {
        self.attention_dropout > 0.0 || self.mixture.as_ref().is_some_and(|mixture| mixture.experts.noisy)
    }

    fn initial(&self, parameter: &str) -> Initial {
        if parameter.ends_with("bias") {
            Initial::Zeros
        } else if parameter.ends_with("norm.weight") {
            Initial::Ones
        } else if ["o_proj.weight", "down_proj.weight", "w2.weight"].iter().any(|last| parameter.ends_with(last)) {
            Initial::Normal(self.deviation / (2.0 * self.layers as f64).sqrt())
        } else {
            Initial::Normal(self.deviation)
        }
    }

    fn ways(&self, _router: &str) -> usize {
        self.mixture.as_ref().map_or(1, |mixture| mixture.experts.count)
    }

    fn base_prefix(&self) -> &'static str {
        "model."
    }

    fn ignores(&self, tensor: &str) -> bool {
        // Old checkpoints store the rotary frequencies, and tied ones may store the table twice.
        tensor.ends_with(".rotary_emb.inv_freq") || (self.tied && tensor == "lm_head.weight")
    }

    fn forward_flops(&self, context: usize) -> u64 {
        let (query, key_value) = (self.heads.query * self.heads.width, self.heads.key_value * self.heads.width);
        let attention = self.layers * 2 * self.width * (query + key_value);
        // The widths inside that a token goes through.
        let inner: usize = (0..self.layers).map(|layer| self.active_inner(layer)).sum();
        let matrices = attention + 3 * self.width * inner + self.vocabulary * self.width;
        2 * matrices as u64 + 4 * (self.layers * query * context) as u64
    }
}

/// What a block is told of its tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockTokens {
    /// Their positions, `(B, T)`.
    pub(super) positions: Tensor,
    /// Where their keys and values are.
    pub(super) memory: Memory,
    /// Their spans, `(B, T, 3)`.
    pub(super) structure: Option<Tensor>,
    /// How many of each row are there, where products should know.
    pub(super) lengths: Option<Tensor>,
}

impl From<&Inputs> for BlockTokens {
    fn from(inputs: &Inputs) -> Self {
        let Inputs { positions, memory, structure, .. } = *inputs;
        Self { positions, memory, structure, lengths: None }
    }
}

/// The older `rope_scaling`, which goes first as in transformers, or `rope_parameters`, or only `rope_theta`.
fn rope_options(config: &Config, max_positions: usize, theta: f32) -> Result<RopeOptions> {
    must_be_whole(config)?;
    let theta = positive_number(config, "rope_theta", theta)?;
    let mut options = RopeOptions { theta, max_positions, ..Default::default() };
    let scaling = config.section("rope_scaling")?.filter(|inner| *inner.value() != json!({}));
    let inner = match scaling {
        Some(inner) => inner,
        None => match config.section("rope_parameters")? {
            Some(inner) => inner,
            None => return Ok(options),
        },
    };
    must_be_whole(&inner)?;
    options.theta = positive_number(&inner, "rope_theta", theta)?;
    let needed = |key: &str| match inner.has(key) {
        true => positive_number(&inner, key, 1.0),
        false => Err(inner.refuse(key, "is missing, and this rope_type needs it")),
    };
    // Before transformers 4.43 the key was `type`.
    let kind = inner.get_or("rope_type", inner.get_or("type", "default".to_owned())?)?;
    options.scaling = match kind.as_str() {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: needed("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: needed("factor")?,
            low_freq_factor: needed("low_freq_factor")?,
            high_freq_factor: needed("high_freq_factor")?,
            original_max_position: count(&inner, "original_max_position_embeddings")?,
        },
        _ => {
            let message = format!("is \"{kind}\"; supported are default, linear and llama3");
            return Err(inner.refuse("rope_type", message));
        }
    };
    Ok(options)
}

/// Refuses heads of which only a part is turned.
fn must_be_whole(config: &Config) -> Result<()> {
    match config.get_or("partial_rotary_factor", 1.0)? == 1.0 {
        true => Ok(()),
        false => Err(config.refuse("partial_rotary_factor", "is not 1; only 1 is supported")),
    }
}

fn rope_config(rope: &RopeOptions) -> Value {
    let theta = shortest(rope.theta);
    match rope.scaling {
        RopeScaling::None => json!({"rope_type": "default", "rope_theta": theta}),
        RopeScaling::Linear { factor } => {
            json!({"rope_type": "linear", "rope_theta": theta, "factor": shortest(factor)})
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => json!({
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": shortest(factor),
            "low_freq_factor": shortest(low_freq_factor),
            "high_freq_factor": shortest(high_freq_factor),
            "original_max_position_embeddings": original_max_position,
        }),
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
