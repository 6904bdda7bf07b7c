//! GPT-2: Radford et al., "Language models are unsupervised multitask learners", 2019.

use super::settings::{
    activation, activation_name, count, count_if_any, layer_count, must_be_off, must_divide, positive_number, rate,
    shortest,
};
use super::{Decoder, Dimensions, Head, Hidden, Initial, Inputs, attention_dropout, passed_on};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::io::Config;
use crate::nn::{self, Attention, Heads, Style};
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
    pub storage: DType,
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
            storage: DType::F32,
            extra: passed_on(config),
        })
    }

    fn style(&self) -> Style {
        Style { layout: WeightLayout::InOut, storage: self.storage, bias: true, lengths: None }
    }

    fn attention(&self, inputs: &Inputs, layer: usize) -> Attention {
        let width = self.width / self.heads;
        let mut scale = if self.scaled { 1.0 / (width as f32).sqrt() } else { 1.0 };
        if self.scaled_by_layer {
            scale /= (layer + 1) as f32;
        }
        let heads = Heads { query: self.heads, key_value: self.heads, width };
        let Inputs { positions, memory, structure, .. } = *inputs;
        let dropout = attention_dropout(self.attention_dropout, inputs, layer);
        Attention { heads, scale: Some(scale), positions, memory, structure, dropout }
    }

    /// What attention and feed-forward network of a layer add to the stream `x`; `normed` is the norm of `x`. Gives
    /// the stream and the sum that is still to be added to it.
    fn block(
        &self,
        g: &mut Graph,
        layer: usize,
        x: Tensor,
        normed: Tensor,
        inputs: &Inputs,
    ) -> Result<(Tensor, Tensor)> {
        let prefix = format!("transformer.h.{layer}");
        let (seed, salt) = (inputs.dropout_seed, 2 * layer as u32 + 1);
        let attention = self.attention(inputs, layer);
        let mixed = g.scope("attention", |g| {
            let mixed = nn::fused_attention(g, &format!("{prefix}.attn"), normed, &attention, self.style())?;
            nn::dropout(g, mixed, self.residual_dropout, seed, salt)
        })?;
        let (x, normed) = nn::add_layer_norm(g, &format!("{prefix}.ln_2"), mixed, x, self.epsilon)?;
        let fed = g.scope("feed_forward", |g| {
            let names = [format!("{prefix}.mlp.c_fc"), format!("{prefix}.mlp.c_proj")];
            let names = [names[0].as_str(), names[1].as_str()];
            let fed = nn::feed_forward(g, names, normed, self.inner, self.activation, self.style())?;
            nn::dropout(g, fed, self.residual_dropout, seed, salt + 1)
        })?;
        Ok((x, fed))
    }
}

impl Decoder for Gpt2 {
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

    fn storage(&self) -> DType {
        self.storage
    }

    fn set_storage(&mut self, storage: DType) {
        self.storage = storage;
    }

    fn hidden(&self, g: &mut Graph, inputs: &Inputs) -> Result<Hidden> {
        inputs.check(self.positions, "n_positions")?;
        let mut x = g.scope("embedding", |g| {
            let (table, places) = ([self.vocabulary, self.width], [self.positions, self.width]);
            let tokens = nn::embedding(g, "transformer.wte", inputs.ids, table, self.storage)?;
            let places = nn::embedding(g, "transformer.wpe", inputs.positions, places, self.storage)?;
            let x = ops::add(g, tokens, places)?;
            nn::dropout(g, x, self.embedding_dropout, inputs.dropout_seed, 0)
        })?;
        let mut normed = nn::layer_norm(g, "transformer.h.0.ln_1", x, self.epsilon)?;
        for layer in 0..self.layers {
            (x, normed) = g.scope(format!("blocks.{layer}"), |g| {
                let (x, added) = self.block(g, layer, x, normed, inputs)?;
                let next = match layer + 1 < self.layers {
                    true => format!("transformer.h.{}.ln_1", layer + 1),
                    false => "transformer.ln_f".into(),
                };
                nn::add_layer_norm(g, &next, added, x, self.epsilon)
            })?;
        }
        Ok(normed.into())
    }

    fn head(&self, g: &mut Graph) -> Result<Head> {
        let name = if self.tied { "transformer.wte.weight" } else { "lm_head.weight" };
        let weight = g.parameter(name, [self.vocabulary, self.width], self.storage)?;
        Ok(Head { weight, bias: None, layout: WeightLayout::OutIn })
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
