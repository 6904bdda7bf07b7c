//! Phi-3, Phi-3.5 and Phi-4-mini: Abdin et al., arXiv 2404.14219.

use super::llama::{Llama, Sliding};
use super::rope::{RopeKeys, older_long, rope_config, rope_with, rotary_share};
use super::settings::{json_f32, optional_count, rate};
use super::{Decoder, Dimensions, Hidden, LmHead, Model, Naming, TokenInputs};
use crate::error::Result;
use crate::graph::Graph;
use crate::io::Config;
use crate::nn::{self, FeedForward, QkvNames, Stack};
use crate::ops::RopeScaling;
use serde_json::{Value, json};

/// The gate and up projections as one layer, and the down projection.
const FUSED_GATED: [&str; 3] = ["gate_up_proj", "gate_up_proj", "down_proj"];
/// The length that LongRoPE was trained for, and what a missing key stands for.
const TRAINED: &str = "original_max_position_embeddings";
const TRAINED_DEFAULT: usize = 4096;
const SHARE: &str = "partial_rotary_factor";
const WINDOW: &str = "sliding_window";

/// A Phi-3 decoder: a Llama with one projection for queries, keys and values and one for gate and up, rotary positions of a part of each head,
/// and frequencies for long texts.
///
/// In training, `attention_dropout` is applied, and `resid_pdrop` to the results of attention and feed-forward network.
#[derive(Clone, Debug, PartialEq)]
pub struct Phi3 {
    /// The Llama.
    pub llama: Llama,
    /// The rate of dropout on the results of attention and feed-forward network.
    pub residual_dropout: f32,
}

impl Phi3 {
    /// A model of these sizes, the rest as the family has it where its files say nothing, with a feed-forward network four times as wide.
    ///
    /// ```
    /// # use wgformer::models::Phi3;
    /// let model = Phi3 { residual_dropout: 0.1, ..Phi3::new(97, 64, 2, 4)? };
    /// # Ok::<(), wgformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the size that is wrong.
    pub fn new(vocabulary: usize, d_model: usize, layers: usize, heads: usize) -> Result<Self> {
        let config = json!({"model_type": "phi3", "vocab_size": vocabulary, "hidden_size": d_model,
                            "num_hidden_layers": layers, "num_attention_heads": heads,
                            "intermediate_size": d_model.saturating_mul(4)});
        Self::from_config(&Config::new("the sizes given", config)?)
    }

    /// The model of a `config.json` with `model_type` phi3.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        let mut plain = config.value().clone();
        if let Some(keys) = plain.as_object_mut() {
            // What a Llama does not have, or has otherwise.
            for key in ["rope_scaling", "rope_parameters", "rope_theta", SHARE, WINDOW, "attention_bias", "mlp_bias"] {
                keys.remove(key);
            }
            keys.entry("max_position_embeddings").or_insert(TRAINED_DEFAULT.into());
            keys.entry("rms_norm_eps").or_insert(1e-5.into());
        }
        plain["model_type"] = "llama".into();
        let mut llama = Llama::from_config(&Config::new(config.source(), plain)?)?;
        let trained = optional_count(config, TRAINED)?.unwrap_or(TRAINED_DEFAULT);
        let keys = RopeKeys { theta: ("rope_theta", 1e4), share: Some((SHARE, 1.0)), trained: Some(trained) };
        llama.rope = rope_with(config, keys, [llama.heads.head_dim, llama.max_position])?;
        let layers = || (0..llama.layers).collect();
        llama.sliding = optional_count(config, WINDOW)?.map(|size| Sliding { size, layers: layers() });
        Ok(Self { llama, residual_dropout: rate(config, "resid_pdrop")? })
    }

    fn stack(&self) -> Stack {
        let mut stack = self.llama.stacks().swap_remove(0);
        for block in &mut stack.blocks {
            block.attention.qkv = QkvNames::Fused("qkv_proj");
            if let FeedForward::Gated { names, .. } = &mut block.feed_forward {
                *names = FUSED_GATED;
            }
            block.dropout = self.residual_dropout;
        }
        stack
    }
}

impl Model for Phi3 {
    fn config(&self) -> Value {
        let rope = &self.llama.rope;
        let share = rotary_share(rope, self.llama.heads.head_dim);
        let mut config = self.llama.config();
        if let Some(keys) = config.as_object_mut() {
            for key in ["attention_bias", "mlp_bias", "rope_scaling"] {
                keys.remove(key);
            }
        }
        let mut set = |key: &str, value: Value| config[key] = value;
        set("model_type", "phi3".into());
        set("architectures", json!(["Phi3ForCausalLM"]));
        set("resid_pdrop", json_f32(self.residual_dropout).into());
        set(WINDOW, json!(self.llama.sliding.as_ref().map(|sliding| sliding.size)));
        set(SHARE, share.into());
        let mut parameters = rope_config(rope);
        parameters[SHARE] = share.into();
        set("rope_parameters", parameters);
        if let RopeScaling::Long { original_max_position, .. } = rope.scaling {
            set(TRAINED, original_max_position.into());
            set("rope_scaling", older_long(rope, self.llama.max_position));
        }
        config
    }

    fn dimensions(&self) -> Dimensions {
        self.llama.dimensions()
    }

    fn naming(&self) -> Naming {
        self.llama.naming()
    }

    fn stacks(&self) -> Vec<Stack> {
        vec![self.stack()]
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        Some(self)
    }
}

impl Decoder for Phi3 {
    fn decode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        let Llama { vocabulary, d_model, init_std, .. } = self.llama;
        inputs.check(self.llama.max_position, "max_position_embeddings")?;
        let table = [vocabulary, d_model];
        let x = g.scope("embedding", |g| nn::embedding(g, "model.embed_tokens", inputs.ids, table, init_std))?;
        self.stack().run(g, x, inputs)
    }

    fn lm_head(&self, g: &mut Graph) -> Result<LmHead> {
        self.llama.lm_head(g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::RopeOptions;

    fn phi(more: Value) -> Result<Phi3> {
        let mut config = json!({"model_type": "phi3", "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 3,
                                "num_hidden_layers": 2, "intermediate_size": 51, "max_position_embeddings": 300});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        Phi3::from_config(&Config::new("config.json", config)?)
    }

    #[test]
    fn a_config_survives_the_round_trip_in_both_spellings() {
        let (short, long) = (json!([1.0, 1.5, 2.0]), json!([2.0, 4.0, 8.0]));
        let older = json!({"type": "su", "short_factor": short, "long_factor": long});
        let older = phi(json!({SHARE: 0.5, TRAINED: 64, "rope_scaling": older, "rope_theta": 500.0})).unwrap();
        let scaling = RopeScaling::Long {
            short: [1.0, 1.5, 2.0].into(),
            long: [2.0, 4.0, 8.0].into(),
            attention: (1.0 + (300.0_f64 / 64.0).ln() / 64_f64.ln()).sqrt() as f32,
            original_max_position: 64,
        };
        let wanted =
            RopeOptions { theta: 500.0, rotary_dim: Some(6), max_positions: 300, scaling, ..Default::default() };
        assert_eq!(older.llama.rope, wanted);
        let newer = json!({"rope_type": "longrope", "short_factor": short, "long_factor": long, SHARE: 0.5,
                           "rope_theta": 700.0, "attention_factor": 1.5});
        let newer = phi(json!({"rope_parameters": newer, "resid_pdrop": 0.25, WINDOW: 7})).unwrap();
        assert!(matches!(
            newer.llama.rope.scaling,
            RopeScaling::Long { attention: 1.5, original_max_position: 4096, .. }
        ));
        let window = newer.llama.sliding.as_ref().map(|sliding| (sliding.size, sliding.layers.len()));
        assert_eq!((window, newer.residual_dropout), (Some((7, 2)), 0.25));
        let plain = phi(json!({"tie_word_embeddings": true, "eos_token_id": 2})).unwrap();
        assert_eq!((plain.llama.rope.rotary_dim, plain.llama.epsilon), (None, 1e-5));
        for first in [older, newer, plain] {
            assert_eq!(Phi3::from_config(&Config::new("config.json", first.config()).unwrap()).unwrap(), first);
        }
    }

    #[test]
    fn parameters_are_those_of_hugging_face() {
        let parameters = phi(json!({"num_key_value_heads": 1})).unwrap().parameters().unwrap();
        let shape = |name: &str| {
            let found = parameters.iter().find(|(known, _)| known == name);
            found.map_or_else(|| format!("no {name}"), |(_, ty)| ty.shape.to_string())
        };
        assert_eq!(parameters.len(), 1 + 2 * 6 + 2);
        assert_eq!(shape("model.layers.1.self_attn.qkv_proj.weight"), "[60, 36]");
        assert_eq!(shape("model.layers.1.mlp.gate_up_proj.weight"), "[102, 36]");
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let refused = |more: Value| phi(more).unwrap_err().to_string();
        let linear = json!({"rope_scaling": {"type": "linear", "factor": 2.0}});
        assert!(refused(linear).contains("is \"linear\"; supported are default and longrope"));
        let few = json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}});
        assert!(refused(few).contains("has 1 factors; there are 6 pairs"));
        assert!(refused(json!({SHARE: 0.0})).contains("\"partial_rotary_factor\" is 0, which can't be rotated"));
        assert!(refused(json!({"resid_pdrop": 1.0})).contains("\"resid_pdrop\""));
    }
}
