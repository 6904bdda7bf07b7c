//! The `config.json`.

use super::DeepSeek;
use super::mscale::score_mscale;
use crate::error::Result;
use crate::io::Config;
use crate::models::passed_on_beside;
use crate::models::rope::{rope_config, rope_options};
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, optional_count, padding, part_count, positive_number,
    rate,
};
use crate::nn::{Balance, ExpertNames, Experts, Latent, SharedExpert};
use crate::ops::{GateGroups, GateOptions, GateScores, RopeOptions, RopeScaling};
use serde_json::{Value, json};

/// The largest head that attention takes.
const MAX_HEAD_DIM: usize = 256;

impl DeepSeek {
    /// A model of these sizes with so many experts in one group, the rest as the family has it where its files say nothing: sizes of attention
    /// follow from the width, and a token goes to two experts and a shared one, each as wide as the width.
    ///
    /// ```
    /// # use wgformer::models::DeepSeek;
    /// let model = DeepSeek { dense_layers: 0, ..DeepSeek::new(97, 64, 2, 4, 8)? };
    /// # Ok::<(), wgformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the size that is wrong.
    pub fn new(vocabulary: usize, d_model: usize, layers: usize, heads: usize, experts: usize) -> Result<Self> {
        let head = (d_model / heads.max(1)).max(1);
        let config = json!({"model_type": "deepseek_v3", "vocab_size": vocabulary, "hidden_size": d_model,
                            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads,
                            "intermediate_size": d_model.saturating_mul(4), "moe_intermediate_size": d_model,
                            "n_routed_experts": experts, "num_experts_per_tok": experts.min(2), "n_group": 1,
                            "topk_group": 1, "q_lora_rank": d_model.div_ceil(2), "kv_lora_rank": d_model.div_ceil(4),
                            "qk_nope_head_dim": head, "qk_rope_head_dim": (head / 2).next_multiple_of(2).max(2),
                            "v_head_dim": head, "first_k_dense_replace": 1});
        Self::from_config(&Config::new("the sizes given", config)?)
    }

    /// The model of a `config.json` with `model_type` deepseek_v3. Beyond the keys of the family: `router_bias_rate`, by which training moves the
    /// bias of the choice, and `router_aux_loss_coef`.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        let heads = count(config, "num_attention_heads")?;
        let key_value = match config.value().get("num_key_value_heads") {
            Some(Value::Null) => heads,
            _ => optional_count(config, "num_key_value_heads")?.unwrap_or(128),
        };
        if key_value != heads {
            let message = format!("is {key_value}; latent attention has as many as num_attention_heads, {heads}");
            return Err(config.refuse("num_key_value_heads", message));
        }
        let or = |key: &str, default: usize| -> Result<usize> { Ok(optional_count(config, key)?.unwrap_or(default)) };
        let latent = Latent {
            query_rank: match config.value().get("q_lora_rank") {
                None => Some(1536),
                Some(_) => optional_count(config, "q_lora_rank")?,
            },
            rank: or("kv_lora_rank", 512)?,
            plain_dim: or("qk_nope_head_dim", 128)?,
            rotary_dim: or("qk_rope_head_dim", 64)?,
            value_dim: or("v_head_dim", 128)?,
        };
        let head_dim = latent.heads(heads).head_dim;
        if head_dim > MAX_HEAD_DIM {
            let message = format!("and v_head_dim make heads {head_dim} wide; at most {MAX_HEAD_DIM} is supported");
            return Err(config.refuse("qk_nope_head_dim", message));
        }
        if latent.rotary_dim % 2 == 1 {
            let message = format!("is {}; rotary positions need an even number", latent.rotary_dim);
            return Err(config.refuse("qk_rope_head_dim", message));
        }
        let max_position = or("max_position_embeddings", 4096)?;
        let rope = RopeOptions {
            rotary_dim: Some(latent.rotary_dim),
            last: true,
            interleaved: config.get_or("rope_interleave", true)?,
            ..rope_options(config, max_position, 1e4)?
        };
        let [vocabulary, layers] = [count(config, "vocab_size")?, layer_count(config, "num_hidden_layers")?];
        let bias_rate: f32 = config.get_or("router_bias_rate", 0.0)?;
        let loss: f32 = config.get_or("router_aux_loss_coef", 0.0)?;
        for (key, number) in [("router_bias_rate", bias_rate), ("router_aux_loss_coef", loss)] {
            if !(number >= 0.0 && number.is_finite()) {
                return Err(config.refuse(key, format!("is {number}; 0 or a positive number is needed")));
            }
        }
        let padding = padding(config, vocabulary, None)?;
        Ok(Self {
            vocabulary,
            padding,
            max_position,
            d_model: count(config, "hidden_size")?,
            layers,
            heads,
            latent,
            d_ff: count(config, "intermediate_size")?,
            dense_layers: config.get_or("first_k_dense_replace", 3_usize)?.min(layers),
            experts: experts(config)?,
            balance: Balance { loss, z: 0.0, bias_rate },
            activation: activation(config, "hidden_act", "silu")?,
            epsilon: positive_number(config, "rms_norm_eps", 1e-6)?,
            tied: config.get_or("tie_word_embeddings", false)?,
            attention_bias: config.get_or("attention_bias", false)?,
            score_mscale: score_mscale(config, &rope)?,
            rope,
            attention_dropout: rate(config, "attention_dropout")?,
            init_std: config.get_or("initializer_range", 0.02)?,
            extra: passed_on_beside(config, padding),
        })
    }

    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let Self { latent, experts, .. } = self;
        let mut rope = rope_config(&self.rope);
        if self.score_mscale > 0.0 {
            rope["mscale_all_dim"] = json_f32(self.score_mscale).into();
        }
        let (groups, keep) = experts.gate.groups.map_or((1, 1), |groups| (groups.count, groups.keep));
        let mut config = json!({
            "model_type": "deepseek_v3",
            "architectures": ["DeepseekV3ForCausalLM"],
            "vocab_size": self.vocabulary,
            "pad_token_id": self.padding,
            "max_position_embeddings": self.max_position,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "q_lora_rank": latent.query_rank,
            "kv_lora_rank": latent.rank,
            "qk_nope_head_dim": latent.plain_dim,
            "qk_rope_head_dim": latent.rotary_dim,
            "v_head_dim": latent.value_dim,
            "intermediate_size": self.d_ff,
            "moe_intermediate_size": experts.d_ff,
            "first_k_dense_replace": self.dense_layers,
            "n_routed_experts": experts.count,
            "n_shared_experts": experts.shared.map_or(0, |shared| shared.d_ff / experts.d_ff),
            "num_experts_per_tok": experts.gate.k,
            "n_group": groups,
            "topk_group": keep,
            "norm_topk_prob": experts.gate.renormalise,
            "routed_scaling_factor": json_f32(experts.gate.scale),
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "hidden_act": activation_name(self.activation),
            "rms_norm_eps": json_f32(self.epsilon),
            "tie_word_embeddings": self.tied,
            "attention_bias": self.attention_bias,
            "attention_dropout": json_f32(self.attention_dropout),
            "initializer_range": self.init_std,
            "rope_interleave": self.rope.interleaved,
            "rope_theta": json_f32(self.rope.theta),
            "rope_parameters": rope,
            // Layers that predict further tokens are not kept.
            "num_nextn_predict_layers": 0,
            "dtype": "float32",
        });
        let mut set = |key: &str, value: Value| config[key] = value;
        if self.balance.bias_rate > 0.0 {
            set("router_bias_rate", json_f32(self.balance.bias_rate).into());
        }
        if self.balance.loss > 0.0 {
            set("router_aux_loss_coef", json_f32(self.balance.loss).into());
        }
        // What older versions of transformers read.
        if self.rope.scaling != RopeScaling::None {
            set("rope_scaling", rope);
        }
        for (key, value) in &self.extra {
            set(key, value.clone());
        }
        config
    }
}

/// The experts of all blocks that have some.
fn experts(config: &Config) -> Result<Experts> {
    // Keys of DeepSeek's own code with which it computes something else.
    for (key, only) in
        [("scoring_func", json!("sigmoid")), ("topk_method", json!("noaux_tc")), ("moe_layer_freq", json!(1))]
    {
        if config.value().get(key).is_some_and(|value| !value.is_null() && *value != only) {
            let value = config.value().get(key).unwrap_or(&Value::Null);
            return Err(config.refuse(key, format!("is {value}; only {only} is supported")));
        }
    }
    let count_of = part_count(config, "n_routed_experts")?;
    let or = |key: &str, default: usize| -> Result<usize> { Ok(optional_count(config, key)?.unwrap_or(default)) };
    let (k, groups, keep) = (or("num_experts_per_tok", 8)?, or("n_group", 8)?, or("topk_group", 4)?);
    if !count_of.is_multiple_of(groups) {
        return Err(
            config.refuse("n_group", format!("is {groups}; it must divide n_routed_experts, which is {count_of}"))
        );
    }
    if keep > groups {
        return Err(config.refuse("topk_group", format!("is {keep}; there are only {groups} groups (n_group)")));
    }
    if k > count_of / groups * keep {
        let message =
            format!("is {k}; the groups that stay (topk_group) have only {} experts", count_of / groups * keep);
        return Err(config.refuse("num_experts_per_tok", message));
    }
    let d_ff = or("moe_intermediate_size", 2048)?;
    let shared: usize = match config.value().get("n_shared_experts") {
        Some(Value::Null) => 0,
        _ => config.get_or("n_shared_experts", 1)?,
    };
    let wide = d_ff.saturating_mul(shared);
    Ok(Experts {
        count: count_of,
        d_ff,
        gate: GateOptions {
            k,
            scores: GateScores::Sigmoid,
            renormalise: config.get_or("norm_topk_prob", true)?,
            scale: positive_number(config, "routed_scaling_factor", 2.5)?,
            groups: (groups > 1).then_some(GateGroups { count: groups, keep }),
        },
        shared: (wide > 0).then_some(SharedExpert { d_ff: wide, gated: false }),
        capacity: None,
        biased: true,
        noisy: false,
        jitter: 0.0,
        names: ExpertNames::DEEPSEEK,
    })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
