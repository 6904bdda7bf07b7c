//! GPT-2: Radford et al., "Language models are unsupervised multitask learners", 2019.

use super::model::declare_decoder;
use super::settings::{
    activation, activation_name, count, count_if_any, layer_count, must_be_off, must_divide, positive_number, rate,
    shortest,
};
use super::{Decoder, Dimensions, Head, Hidden, Initial, Inputs, Model, passed_on};
use crate::error::Result;
use crate::graph::{Graph, Storage};
use crate::io::Config;
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames, Stack,
};
use crate::ops::{self, Activation, WeightLayout};
use serde_json::{Value, json};

/// A GPT-2 decoder: learned positions, layer norm in front of each half of a block, one projection for q, k and v.
///
/// In training, `embd_pdrop`, `resid_pdrop` and `attn_pdrop`, which drops attention probabilities, are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2 {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub positions: usize,
    /// The width of hidden states.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// The width of the feed-forward network.
    pub inner: usize,
    /// The activation of the feed-forward network.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub epsilon: f32,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// Whether scores are divided by the root of the head width.
    pub scaled: bool,
    /// Whether scores are divided by the layer's number, counted from 1, as well.
    pub scaled_by_layer: bool,
    /// The rate of dropout on embeddings.
    pub embedding_dropout: f32,
    /// The rate of dropout on the results of attention and feed-forward network.
    pub residual_dropout: f32,
    /// The rate of dropout on attention probabilities.
    pub attention_dropout: f32,
    /// The standard deviation of fresh weights.
    pub deviation: f64,
    /// How matrices lie in GPU memory.
    pub storage: Storage,
    extra: Vec<(String, Value)>,
}

impl Gpt2 {
    /// The model of a `config.json` with `model_type` gpt2.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        must_be_off(config, "add_cross_attention")?;
        let (width, heads) = (count(config, "n_embd")?, count(config, "n_head")?);
        must_divide(config, "n_head", heads, width, "n_embd")?;
        let positions = match count_if_any(config, "n_positions")? {
            Some(positions) => positions,
            None => count_if_any(config, "n_ctx")?.unwrap_or(1024),
        };
        Ok(Self {
            vocabulary: count(config, "vocab_size")?,
            positions,
            width,
            layers: layer_count(config, "n_layer")?,
            heads,
            inner: count_if_any(config, "n_inner")?.unwrap_or(4 * width),
            activation: activation(config, "activation_function", "gelu_new")?,
            epsilon: positive_number(config, "layer_norm_epsilon", 1e-5)?,
            tied: config.get_or("tie_word_embeddings", true)?,
            scaled: config.get_or("scale_attn_weights", true)?,
            scaled_by_layer: config.get_or("scale_attn_by_inverse_layer_idx", false)?,
            embedding_dropout: rate(config, "embd_pdrop")?,
            residual_dropout: rate(config, "resid_pdrop")?,
            attention_dropout: rate(config, "attn_pdrop")?,
            deviation: config.get_or("initializer_range", 0.02)?,
            storage: Storage::default(),
            extra: passed_on(config),
        })
    }

    fn block(&self, layer: usize) -> Block {
        let width = self.width / self.heads;
        let mut scale = if self.scaled { 1.0 / (width as f32).sqrt() } else { 1.0 };
        if self.scaled_by_layer {
            scale /= (layer + 1) as f32;
        }
        let linear = LinearConfig::in_out(true);
        Block {
            prefix: format!("transformer.h.{layer}"),
            norm: NormKind::Layer { eps: self.epsilon },
            order: NormOrder::Pre,
            attention_norm: "ln_1".into(),
            attention: Attention {
                module: "attn",
                qkv: QkvNames::Fused("c_attn"),
                output: "c_proj",
                linear,
                output_linear: linear,
                heads: Heads { query: self.heads, key_value: self.heads, width },
                scale: Some(scale),
                mask: Mask::Causal,
                rotary: None,
                relative: None,
                dropout: self.attention_dropout,
            },
            cross: None,
            feed_forward_norm: "ln_2".into(),
            feed_forward: FeedForward::Plain {
                names: ["mlp.c_fc", "mlp.c_proj"],
                d_ff: self.inner,
                activation: self.activation,
                linear,
            },
            parallel: false,
            dropout: self.residual_dropout,
            inner_dropout: 0.0,
        }
    }
}

impl Model for Gpt2 {
    fn config(&self) -> Value {
        let mut config = json!({
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": self.vocabulary,
            "n_positions": self.positions,
            "n_embd": self.width,
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_inner": self.inner,
            "activation_function": activation_name(self.activation),
            "layer_norm_epsilon": shortest(self.epsilon),
            "tie_word_embeddings": self.tied,
            "scale_attn_weights": self.scaled,
            "scale_attn_by_inverse_layer_idx": self.scaled_by_layer,
            "embd_pdrop": shortest(self.embedding_dropout),
            "resid_pdrop": shortest(self.residual_dropout),
            "attn_pdrop": shortest(self.attention_dropout),
            "initializer_range": self.deviation,
            "dtype": "float32",
        });
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
        [self.embedding_dropout, self.residual_dropout, self.attention_dropout].iter().any(|rate| *rate > 0.0)
    }

    fn initial(&self, parameter: &str) -> Initial {
        if parameter.ends_with(".bias") {
            Initial::Zeros
        } else if parameter.contains(".ln_") {
            Initial::Ones
        } else if parameter.ends_with("c_proj.weight") {
            Initial::Normal(self.deviation / (2.0 * self.layers as f64).sqrt())
        } else {
            Initial::Normal(self.deviation)
        }
    }

    fn base_prefix(&self) -> &'static str {
        "transformer."
    }

    fn ignores(&self, tensor: &str) -> bool {
        // Old checkpoints store the causal mask, and tied ones may store the table twice.
        tensor.ends_with(".attn.bias")
            || tensor.ends_with(".attn.masked_bias")
            || (self.tied && tensor == "lm_head.weight")
    }

    fn forward_flops(&self, context: usize) -> u64 {
        let block = 4 * self.width * self.width + 2 * self.width * self.inner;
        let matrices = self.layers * block + self.vocabulary * self.width;
        2 * matrices as u64 + 4 * (self.layers * self.width * context) as u64
    }
}

impl Decoder for Gpt2 {
    fn hidden(&self, g: &mut Graph, inputs: &Inputs) -> Result<Hidden> {
        inputs.check(self.positions, "n_positions")?;
        g.set_storage(&self.storage);
        let x = g.scope("embedding", |g| {
            let (table, places) = ([self.vocabulary, self.width], [self.positions, self.width]);
            let tokens = nn::embedding(g, "transformer.wte", inputs.ids, table)?;
            let places = nn::embedding(g, "transformer.wpe", inputs.positions, places)?;
            let x = ops::add(g, tokens, places)?;
            nn::dropout(g, x, self.embedding_dropout, inputs.dropout_seed, 0)
        })?;
        let final_norm = Some((NormKind::Layer { eps: self.epsilon }, "transformer.ln_f".into()));
        let blocks = (0..self.layers).map(|layer| self.block(layer)).collect();
        Stack { blocks, recursion: None, final_norm, balance: Balance::default(), salt: 0 }.run(g, x, inputs)
    }

    fn head(&self, g: &mut Graph) -> Result<Head> {
        let name = if self.tied { "transformer.wte.weight" } else { "lm_head.weight" };
        g.set_storage(&self.storage);
        let weight = g.matrix(name, [self.vocabulary, self.width])?;
        Ok(Head { weight, bias: None, layout: WeightLayout::OutIn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Value {
        json!({"model_type": "gpt2", "vocab_size": 97, "n_embd": 35, "n_head": 5, "n_layer": 2, "n_positions": 300,
               "attn_pdrop": 0.1, "eos_token_id": 2})
    }

    fn model(config: Value) -> Result<Gpt2> {
        Gpt2::from_config(&Config::new("config.json", config)?)
    }

    #[test]
    fn a_config_survives_the_round_trip() {
        let first = model(small()).unwrap();
        assert_eq!((first.inner, first.tied, first.attention_dropout), (140, true, 0.1));
        assert_eq!(model(first.config()).unwrap(), first);
        assert_eq!(first.config()["layer_norm_epsilon"], json!(1e-5));
        assert_eq!(first.config()["eos_token_id"], json!(2));
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let refused = |key: &str, value: Value| {
            let mut config = small();
            config[key] = value;
            model(config).unwrap_err().to_string()
        };
        assert_eq!(refused("n_head", json!(4)), "config.json: \"n_head\" is 4; it must divide n_embd, which is 35");
        assert_eq!(refused("n_layer", json!(0)), "config.json: \"n_layer\" is 0; at least 1 is needed");
        assert_eq!(
            refused("n_layer", json!(1e9 as u64)),
            "config.json: \"n_layer\" is 1000000000; at most 4096 is supported"
        );
        assert!(refused("vocab_size", json!(1_u64 << 62)).contains("at most 4294967295 is supported"));
        assert_eq!(refused("n_layer", Value::Null), "config.json: has no \"n_layer\"");
        assert!(refused("activation_function", json!("quick_gelu")).contains("\"quick_gelu\"; supported are relu"));
        assert!(refused("add_cross_attention", json!(true)).contains("only false is supported"));
        assert!(refused("resid_pdrop", json!(1.0)).contains("a rate from 0 up to, but not, 1"));
        assert!(refused("layer_norm_epsilon", json!(0)).contains("a positive number is needed"));
    }

    #[test]
    fn parameters_are_those_of_hugging_face_and_the_tied_head_is_one_with_the_table() {
        let model = model(small()).unwrap();
        let parameters = model.parameters().unwrap();
        let names: Vec<&str> = parameters.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names.len(), 2 + 2 * 12 + 2);
        assert!(names.contains(&"transformer.h.1.attn.c_attn.bias") && !names.contains(&"lm_head.weight"));
        let block = 35 * 105 + 105 + 35 * 35 + 35 + 35 * 140 + 140 + 140 * 35 + 35 + 4 * 35;
        assert_eq!(model.parameter_count().unwrap(), (97 + 300) * 35 + 2 * block + 70);
        let untied = Gpt2 { tied: false, ..model };
        assert!(
            untied.parameters().unwrap().iter().any(|(n, ty)| n == "lm_head.weight" && ty.to_string() == "f32[97, 35]")
        );
    }
}
